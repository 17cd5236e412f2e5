"""How fast scores are found, next to every peer, each in its own process and checked for accuracy.

    python benchmarks/fit.py [--limit SECONDS] [--only NAME ...]

"ours" starts from raw columns, one row per verdict, and its clock includes adding them up, as does
that of "choix ilsr dense". Every other solver gets the verdicts in the form it likes best (lists,
added-up tables, sparse designs), made outside the clock; "ours, added up" and "choix ilsr dense,
added up" are the same comparison without the adding up. All seek plain maximum likelihood. A solver
counts where its largest error against a high-precision optimum is at most 1e-6 logits; peers are
given tolerances that allow that. Who is over the limit is not run again with more of both.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing as mp
import platform
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from simulated_nets import simulate

from cj_pipeline.scale.bradley_terry import beginning, maximise
from cj_pipeline.scale.likelihood import describe
from cj_pipeline.scale.tallies import Tally, Verdicts, tally

SIZES = [(5, 40), (50, 1_500), (500, 30_000), (500, 1_000_000), (5_000, 30_000), (5_000, 1_000_000)]
TARGET = 1e-6
Run = Callable[[], np.ndarray]


def ours(verdicts: Verdicts) -> Run:
    """Raw columns in, scores out."""

    def run() -> np.ndarray:
        cells = tally(verdicts)
        model = describe(cells, prior_comparisons=0.0, positions=np.empty(0, dtype=np.int64))
        return maximise(model, beginning(model, verdicts.essay_ids))[0].theta

    return run


def ours_added_up(verdicts: Verdicts) -> Run:
    """Cells in, scores out."""
    cells = tally(verdicts)

    def run() -> np.ndarray:
        model = describe(cells, prior_comparisons=0.0, positions=np.empty(0, dtype=np.int64))
        return maximise(model, beginning(model, verdicts.essay_ids))[0].theta

    return run


def aggregation_floor(verdicts: Verdicts) -> Run:
    """Nothing but one pass that counts wins per essay and verdicts per pair: no score."""

    def run() -> np.ndarray:
        cells = tally(verdicts)
        return np.zeros(cells.n_essays)

    return run


def _pairs(verdicts: Verdicts) -> list[tuple[int, int]]:
    won = verdicts.half_wins == 2
    winner = np.where(won, verdicts.first, verdicts.second)
    loser = np.where(won, verdicts.second, verdicts.first)
    return list(zip(winner.tolist(), loser.tolist(), strict=True))


def _matrix(verdicts: Verdicts) -> np.ndarray:
    n = len(verdicts.essay_ids)
    won = verdicts.half_wins == 2
    winner = np.where(won, verdicts.first, verdicts.second)
    loser = np.where(won, verdicts.second, verdicts.first)
    return np.bincount(winner * n + loser, minlength=n * n).reshape(n, n).astype(np.float64)


def choix_ilsr_dense(verdicts: Verdicts) -> Run:
    import choix

    return lambda: choix.ilsr_pairwise_dense(_matrix(verdicts), max_iter=10_000, tol=1e-9)


def choix_ilsr_dense_added_up(verdicts: Verdicts) -> Run:
    import choix

    won = _matrix(verdicts)
    return lambda: choix.ilsr_pairwise_dense(won, max_iter=10_000, tol=1e-9)


def choix_ilsr(verdicts: Verdicts) -> Run:
    import choix

    n, pairs = len(verdicts.essay_ids), _pairs(verdicts)
    return lambda: choix.ilsr_pairwise(n, pairs, max_iter=10_000, tol=1e-9)


def choix_mm(verdicts: Verdicts) -> Run:
    import choix

    n, pairs = len(verdicts.essay_ids), _pairs(verdicts)
    return lambda: choix.mm_pairwise(n, pairs, max_iter=1_000_000, tol=1e-10)


def choix_newton_cg(verdicts: Verdicts) -> Run:
    import choix

    n, pairs = len(verdicts.essay_ids), _pairs(verdicts)
    return lambda: choix.opt_pairwise(n, pairs, alpha=1e-12, method="Newton-CG", tol=1e-9)


def choix_bfgs(verdicts: Verdicts) -> Run:
    import choix

    n, pairs = len(verdicts.essay_ids), _pairs(verdicts)
    return lambda: choix.opt_pairwise(n, pairs, alpha=1e-12, method="BFGS", tol=1e-7)


def _evalica(verdicts: Verdicts, solver: str) -> Run:
    import evalica
    import pandas as pd

    n = len(verdicts.essay_ids)
    index = pd.Index(range(n))
    xs, ys = verdicts.first.tolist(), verdicts.second.tolist()
    winners = [evalica.Winner.X if h == 2 else evalica.Winner.Y for h in verdicts.half_wins]

    def run() -> np.ndarray:
        found = getattr(evalica, solver)(
            xs, ys, winners, index=index, tolerance=1e-10, limit=1_000_000
        )
        return np.log(found.scores.reindex(index).to_numpy())

    return run


def evalica_bradley_terry(verdicts: Verdicts) -> Run:
    return _evalica(verdicts, "bradley_terry")


def evalica_newman(verdicts: Verdicts) -> Run:
    return _evalica(verdicts, "newman")


def arena_rank(verdicts: Verdicts) -> Run:
    import jax.numpy as jnp
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    names = list(range(len(verdicts.essay_ids)))
    cells = tally(verdicts)
    losses = cells.counts - cells.wins
    rows = np.concatenate([np.flatnonzero(cells.wins), np.flatnonzero(losses)])
    outcome = np.concatenate([np.ones((cells.wins > 0).sum()), np.zeros((losses > 0).sum())])
    counts = np.where(outcome == 1, cells.wins[rows], losses[rows])
    pairs = np.column_stack([cells.first[rows], cells.second[rows]])
    ones = jnp.ones(len(rows))
    data = PairDataset(
        names, jnp.array(pairs), jnp.array(outcome), jnp.array(counts), ones, jnp.array(counts)
    )

    def run() -> np.ndarray:
        model = BradleyTerry(len(names), max_iter=100_000, ftol=0.0, gtol=1e-12)
        model.fit(data)
        return np.asarray(model.params["ratings"])

    return run


def _scikit_learn(verdicts: Verdicts, solver: str) -> Run:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    cells: Tally = tally(verdicts)
    losses = cells.counts - cells.wins
    rows = np.concatenate([np.flatnonzero(cells.wins), np.flatnonzero(losses)])
    outcome = np.concatenate([np.ones((cells.wins > 0).sum()), np.zeros((losses > 0).sum())])
    weight = np.where(outcome == 1, cells.wins[rows], losses[rows])
    lines = np.arange(len(rows))
    ones = np.ones(len(rows))
    shape = (len(rows), cells.n_essays)
    design = csr_matrix((ones, (lines, cells.first[rows])), shape)
    design = design - csr_matrix((ones, (lines, cells.second[rows])), shape)
    settings: dict[str, Any] = {"C": np.inf, "fit_intercept": False, "tol": 1e-10}
    design = design[:, 1:].tocsr()  # the first essay is the reference
    if solver == "newton-cholesky":
        design = design.toarray()

    def run() -> np.ndarray:
        model = LogisticRegression(solver=solver, max_iter=100_000, **settings)
        model.fit(design, outcome, sample_weight=weight)
        return np.append(0.0, model.coef_[0])

    return run


def scikit_learn_lbfgs(verdicts: Verdicts) -> Run:
    return _scikit_learn(verdicts, "lbfgs")


def scikit_learn_newton_cg(verdicts: Verdicts) -> Run:
    return _scikit_learn(verdicts, "newton-cg")


def scikit_learn_newton_cholesky(verdicts: Verdicts) -> Run:
    return _scikit_learn(verdicts, "newton-cholesky")


SOLVERS: dict[str, Callable[[Verdicts], Run]] = {
    "ours": ours,
    "ours, added up": ours_added_up,
    "aggregation alone": aggregation_floor,
    "evalica bradley_terry": evalica_bradley_terry,
    "evalica newman": evalica_newman,
    "choix ilsr dense": choix_ilsr_dense,
    "choix ilsr dense, added up": choix_ilsr_dense_added_up,
    "choix ilsr": choix_ilsr,
    "choix mm": choix_mm,
    "choix Newton-CG": choix_newton_cg,
    "choix BFGS": choix_bfgs,
    "arena-rank": arena_rank,
    "scikit-learn lbfgs": scikit_learn_lbfgs,
    "scikit-learn newton-cg": scikit_learn_newton_cg,
    "scikit-learn newton-cholesky": scikit_learn_newton_cholesky,
}


def optimum(verdicts: Verdicts) -> np.ndarray:
    """Return the maximum of the likelihood by dense Newton steps with long-double gradients.

    Shares no code with the solver measured, beyond the adding up of verdicts.
    """
    from scipy.linalg import cho_factor, cho_solve

    cells = tally(verdicts)
    n = cells.n_essays
    theta = maximise(
        describe(cells, prior_comparisons=0.0, positions=np.empty(0, dtype=np.int64)),
        beginning(
            describe(cells, prior_comparisons=0.0, positions=np.empty(0, dtype=np.int64)),
            verdicts.essay_ids,
        ),
    )[0].theta.astype(np.longdouble)
    for _ in range(12):
        eta = theta[cells.first] - theta[cells.second]
        p = 1 / (1 + np.exp(-eta))
        residual = cells.wins - cells.counts * p
        gradient = np.zeros(n, dtype=np.longdouble)
        np.add.at(gradient, cells.first, residual)
        np.add.at(gradient, cells.second, -residual)
        weight = (cells.counts * p * (1 - p)).astype(np.float64)
        information = np.full((n, n), 1.0 / n)
        np.add.at(information, (cells.first, cells.second), -weight)
        np.add.at(information, (cells.second, cells.first), -weight)
        np.add.at(information, (cells.first, cells.first), weight)
        np.add.at(information, (cells.second, cells.second), weight)
        factor = cho_factor(information, lower=True, overwrite_a=True, check_finite=False)
        step = cho_solve(factor, gradient.astype(np.float64), check_finite=False)
        theta = theta + step
        if np.abs(step).max() < 1e-11:
            break
    return np.asarray(theta - theta.mean(), dtype=np.float64)


def _measure(name: str, verdicts: Verdicts, limit: float, pipe: Connection) -> None:
    """Send (seconds, scores): the best of several runs after one that warms up."""
    run = SOLVERS[name](verdicts)
    pipe.send("ready")
    times = []
    start = time.perf_counter()
    try:
        for _ in range(8):
            before = time.perf_counter()
            scores = run()
            times.append(time.perf_counter() - before)
            if time.perf_counter() - start > min(limit, 3.0) and len(times) > 1:
                break
        pipe.send((min(times[1:] or times), np.asarray(scores, dtype=np.float64)))
    except Exception as error:  # a peer may fail in any way it likes: that is its result
        pipe.send(f"{type(error).__name__}: {str(error)[:60]}")


def measured(name: str, verdicts: Verdicts, limit: float) -> tuple[float, np.ndarray] | str:
    """Return seconds and scores, or why there are none."""
    context = mp.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_measure, args=(name, verdicts, limit, there))
    child.start()
    there.close()
    try:
        if not here.poll(180):
            return "could not take the data in"
        here.recv()
        if not here.poll(2 * limit):  # the first run warms up, the second counts
            return f"> {limit:.0f} s"
        answer: tuple[float, np.ndarray] | str = here.recv()
        return answer
    except EOFError:
        return "died"
    finally:
        child.kill()
        child.join()


def main() -> None:
    """Print one table of milliseconds and errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=40.0)
    parser.add_argument("--only", nargs="*", default=list(SOLVERS))
    chosen = parser.parse_args()
    versions = {
        name: importlib.metadata.version(name)
        for name in ("numpy", "scipy", "choix", "evalica", "arena-rank", "scikit-learn", "jax")
    }
    print(platform.processor() or platform.machine(), mp.cpu_count(), "cores", versions)
    # Solver and kind of net, with the sizes at which it was over the limit.
    too_slow: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for n_essays, n_verdicts in SIZES:
        for design in ("random", "banded"):
            _, verdicts = simulate(n_essays, n_verdicts, design, seed=1)  # type: ignore[arg-type]
            best = optimum(verdicts)
            print(f"\n{n_essays:,} essays, {n_verdicts:,} verdicts, {design}", flush=True)
            seconds_of: dict[str, float] = {}
            for name in chosen.only:
                slow_at = too_slow.setdefault((name, design), [])
                if any(n <= n_essays and m <= n_verdicts for n, m in slow_at):
                    print(f"  {name:30s} over the limit with less already", flush=True)
                    continue
                answer = measured(name, verdicts, chosen.limit)
                if isinstance(answer, str):
                    if answer.startswith(">"):
                        slow_at.append((n_essays, n_verdicts))
                    print(f"  {name:30s} {answer}", flush=True)
                    continue
                seconds, scores = answer
                error = float(np.abs(scores - scores.mean() - best).max())
                verdict = "" if error <= TARGET else "  not converged"
                if name == "aggregation alone":
                    verdict, error = "", np.nan
                elif error <= TARGET:
                    seconds_of[name] = seconds
                print(
                    f"  {name:30s} {1e3 * seconds:12.3f} ms   max error {error:.1e}{verdict}",
                    flush=True,
                )
            for own, apart in (("ours", "choix ilsr dense, added up"), ("ours, added up", "")):
                peers = {k: v for k, v in seconds_of.items() if "ours" not in k and k != apart}
                if own in seconds_of and peers:
                    fastest = min(peers, key=lambda name: peers[name])
                    ratio = peers[fastest] / seconds_of[own]
                    print(f"  {own}: {ratio:.1f} times as fast as the fastest peer, {fastest}")


if __name__ == "__main__":
    main()
