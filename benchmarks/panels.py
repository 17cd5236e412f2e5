"""Whether intervals hold where several verdicts are on one pair: panels, and a judge asked again.

    OPENBLAS_NUM_THREADS=1 python benchmarks/panels.py --batches 20
    OPENBLAS_NUM_THREADS=1 python benchmarks/panels.py --people 24 48 --batches 200

With `--people`: few verdicts of people beside a model's, and what each way of using them comes to.

`luck` is the share of pairs whose luck judges have in common (1: clones), `own` the standard
deviation of what a judge sees in an essay that is not there, of which `together` is common to all.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.human_agreement import SideVerdicts, expected_share, joint_scale
from cj_pipeline.diagnostics.prediction_powered import powered_mean
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.scale.bradley_terry import fit_bradley_terry
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import ScoringRules, score_verdicts


@dataclass(frozen=True)
class Panel:
    """How simulated judges differ and what they share."""

    name: str
    luck: float = 0.0
    own: float = 0.0
    together: float = 0.0
    different_pairs: bool = False
    repeats: int = 1


PANELS = (
    Panel("independent"),
    Panel("a pair's luck shared .7", luck=0.7),
    Panel("clones", luck=1.0),
    Panel("essay .7 own", own=0.7),
    Panel("essay .7, .6 of it shared", own=0.7, together=0.6),
    Panel("essay .7 own, pair's luck .7", luck=0.7, own=0.7),
    Panel("essay .7 own, different pairs", own=0.7, different_pairs=True),
    Panel("clones asked different pairs", luck=1.0, different_pairs=True),
    Panel("independent, different pairs", different_pairs=True),
)


def verdicts_of(
    panel: Panel, n: int, n_judges: int, per_essay: int, seed: int
) -> tuple[np.ndarray, list[JudgedPair]]:
    """Return true scores and verdicts on pairs drawn at random."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.4, n)
    truth -= truth.mean()
    common = rng.normal(0, np.sqrt(panel.together), n)
    seen = [
        truth + panel.own * (common + rng.normal(0, np.sqrt(1 - panel.together), n))
        for _ in range(n_judges)
    ]
    judged = []
    for _ in range(per_essay):
        order = rng.permutation(n)
        for place, (a, b) in enumerate(zip(order[::2].tolist(), order[1::2].tolist(), strict=True)):
            shared = rng.random()
            judges = [place % n_judges] if panel.different_pairs else range(n_judges)
            for judge in judges:
                for _ in range(panel.repeats):
                    draw = shared if rng.random() < panel.luck else rng.random()
                    p = 1 / (1 + np.exp(seen[judge][b] - seen[judge][a]))
                    winner = "A" if draw < p else "B"
                    judged.append(JudgedPair(f"e{a}", f"e{b}", winner, f"j{judge}"))
    return truth, judged


STEP = 0.75
"""Of a grade, in logits of people's scale."""


@dataclass(frozen=True)
class Beside:
    """A model beside people: its own error about an essay, and by how much it over-rates a third.

    Both in logits of people's scale, on which essays have a spread of 1; the model's verdicts are
    twice as sharp.
    """

    own: float
    over_rates: float
    n_essays: int = 40
    n_verdicts: int = 240


BESIDES = (Beside(0.7, 0.0), Beside(0.7, 0.7))


def with_people(beside: Beside, n_people: int, seed: int) -> list[float]:
    """Return what each way comes to in one batch.

    Pairs of which a model is less sure than of half of all are drawn twice as often.

    Returns:
        Of scores by each of `WAYS`: the mean squared error, the share of intervals that hold, and
        the over-rated essays' place less their true one, against the others', in steps. Then of
        the share of pairs in which people name an over-rated essay against another, what is said
        less the truth, by each of `SHARES`; and whether the powered interval holds.
    """
    rng = np.random.default_rng([7, seed])
    n = beside.n_essays
    human = rng.normal(0, 1, n)
    human -= human.mean()
    is_over = np.arange(n) < n // 3
    seen = 2 * (human + rng.normal(0, beside.own, n) + beside.over_rates * is_over)
    pairs = np.array([rng.choice(n, 2, replace=False) for _ in range(beside.n_verdicts)])
    won = rng.random(len(pairs)) < 1 / (1 + np.exp(seen[pairs[:, 1]] - seen[pairs[:, 0]]))
    ids = [f"e{i}" for i in range(n)]
    judged = [
        JudgedPair(ids[a], ids[b], "A" if first else "B")
        for (a, b), first in zip(pairs.tolist(), won.tolist(), strict=True)
    ]
    scale = fit_bradley_terry(ids, judged)
    model = scale.scores[[scale.essay_ids.index(each) for each in ids]]
    apart = np.abs(model[pairs[:, 0]] - model[pairs[:, 1]])
    chance = np.where(apart < np.median(apart), 2.0, 1.0)
    chance *= n_people / chance.sum()
    drawn = rng.random(len(pairs)) < chance
    truth = 1 / (1 + np.exp(human[pairs[:, 1]] - human[pairs[:, 0]]))
    said = rng.random(len(pairs)) < truth
    sides = (_side(pairs, won), _side(pairs[drawn], said[drawn]))
    spread = likely_spread(scale).logits
    joint = joint_scale(n, *sides, spread)
    told = joint_scale(n, *sides, spread, marked=is_over.astype(np.float64))
    alone = joint_scale(n, _side(pairs[:1], won[:1]), sides[1], 1.0)
    posterior = score_posterior(score_verdicts(ids, judged, ScoringRules(discrimination="off")))
    by_model, half = posterior.scores / 2, (posterior.upper - posterior.lower) / 4
    found: list[float] = []
    for scores, width in (
        (by_model - by_model.mean(), half),
        (alone.scores, 1.96 * alone.standard_errors),
        (joint.scores, 1.96 * joint.standard_errors),
        (told.scores, 1.96 * told.standard_errors),
    ):
        off = scores - human
        bias = (off[is_over].mean() - off[~is_over].mean()) / STEP
        found += [float(np.mean(off**2)), float(np.mean(np.abs(off) < width)), float(bias)]
    # Whom people name, in pairs of one over-rated essay with another.
    mixed = is_over[pairs[:, 0]] != is_over[pairs[:, 1]]
    sign = np.where(is_over[pairs[:, 0]], 1.0, -1.0)
    predicted = 1 / (1 + np.exp(-sign * (model[pairs[:, 0]] - model[pairs[:, 1]])))
    named, likely = (np.where(sign > 0, each, 1.0 - each) for each in (said, truth))
    there = mixed & drawn
    powered = powered_mean(predicted[mixed], predicted[there], named[there], chance[there])
    if powered is None:
        return [*found, *[np.nan] * 6]
    true = float(likely[mixed].mean())
    values = (
        powered.predicted,
        float(named[there].mean()),
        powered.value,
        *(expected_share(each, pairs[mixed], sign[mixed]) for each in (joint, told)),
    )
    holds = powered.lower <= true <= powered.upper
    return [*found, *(value - true for value in values), float(holds)]


WAYS = ("the model", "people", "both", "both, told which third")
SHARES = ("the model", "people's mean", "prediction-powered", "both", "both, told which third")


def _side(pairs: np.ndarray, won: np.ndarray) -> SideVerdicts:
    first, second = pairs[:, 0], pairs[:, 1]
    return SideVerdicts(
        np.where(won, first, second), np.where(won, second, first), np.ones(len(pairs))
    )


def run_with_people(numbers: list[int], n_batches: int) -> None:
    """Print a table of scores and one of the share of pairs that people name."""
    every = {
        (beside, n): np.array([with_people(beside, n, seed) for seed in range(n_batches)])
        for beside in BESIDES
        for n in numbers
    }
    print("| over-rated by, verdicts of people | scores by | rmse | hold | bias, steps |")
    print("|---|---|---:|---:|---:|")
    for (beside, n), rows in every.items():
        for at, name in enumerate(WAYS):
            squared, held, bias = rows[:, 3 * at : 3 * at + 3].T
            print(
                f"| {beside.over_rates:g}, {n} | {name} | {np.sqrt(squared.mean()):.2f} |"
                f" {_mean(held, 3)} | {_mean(bias, 2)} |"
            )
    print("\n| over-rated by, verdicts of people | share by | bias | rmse | hold |")
    print("|---|---|---:|---:|---:|")
    for (beside, n), rows in every.items():
        kept = rows[~np.isnan(rows[:, 12])]
        for at, name in enumerate(SHARES):
            off = kept[:, 12 + at]
            held = _mean(kept[:, -1], 3) if name == "prediction-powered" else ""
            print(
                f"| {beside.over_rates:g}, {n} | {name} | {_mean(off, 3)} |"
                f" {np.sqrt(np.mean(off**2)):.3f} | {held} |"
            )


def _mean(values: np.ndarray, digits: int) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Print a line per panel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--essays", type=int, default=36)
    parser.add_argument("--judges", type=int, default=3)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--people", type=int, nargs="+")
    options = parser.parse_args()
    if options.people:
        run_with_people(options.people, options.batches)
        return
    ids = [f"e{i}" for i in range(options.essays)]
    for panel in (*PANELS, Panel("one deterministic judge, every pair 3 times", 1.0, repeats=3)):
        n_judges = 1 if panel.repeats > 1 else options.judges
        rows = []
        for seed in range(options.batches):
            truth, judged = verdicts_of(panel, options.essays, n_judges, options.each, seed)
            scored = score_verdicts(ids, judged, ScoringRules(discrimination="off"))
            found = score_posterior(scored)
            before = score_posterior(
                score_verdicts(ids, judged, ScoringRules(discrimination="off", dependence="off"))
            )
            dependence = scored.dependence
            rows.append(
                (
                    np.mean((before.lower <= truth) & (truth <= before.upper)),
                    np.mean((found.lower <= truth) & (truth <= found.upper)),
                    np.mean(np.abs(scored.scores - truth) <= 1.96 * scored.standard_errors),
                    found.reliability.value,
                    np.corrcoef(found.scores, truth)[0, 1] ** 2,
                    dependence.effective_judges or np.nan if dependence else np.nan,
                    np.sqrt(dependence.judge_variance) if dependence else 0.0,
                )
            )
        mean, error = np.nanmean(rows, axis=0), np.std([row[1] for row in rows])
        print(
            f"{panel.name}: intervals hold {mean[0]:.3f} counted apart, {mean[1]:.3f} as reported,"
            f" {mean[2]:.3f} verdict-only; reliability {mean[3]:.3f}, true {mean[4]:.3f}; worth"
            f" {mean[5]:.2f} judges of {n_judges}, tau {mean[6]:.2f};"
            f" ± {error / np.sqrt(len(rows)):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
