"""What the statistics say of real judges: five LLMs shown both orders, and crowd workers' votes.

    python benchmarks/real_judges.py

LLM verdicts: `prd_vicuna80.parquet`, 800 pairs of answers within 80 questions. A question's answers
are never compared with another's, so each question has its own zero, which the prior holds, while
a judge's position effect is common to all. Agreement is with the majority of human votes, pairs
without one left out. Crowd votes: `ukp_demo_votes.csv`, three topics, ties included.
"""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.consistency import judge_consistency, share_of, transitivity
from cj_pipeline.diagnostics.epsilon_adjusted import fit_epsilon_adjusted
from cj_pipeline.diagnostics.fit_statistics import fit_of_judges
from cj_pipeline.diagnostics.reliability import empirical_bayes, scale_separation_reliability
from cj_pipeline.diagnostics.split_half import split_half
from cj_pipeline.scale.bradley_terry import PRIOR_COMPARISONS, fit_bradley_terry, maximise
from cj_pipeline.scale.information import other_covariance
from cj_pipeline.scale.likelihood import describe, gradient_at, zero_point
from cj_pipeline.scale.scoring import swap_consistent
from cj_pipeline.scale.tallies import as_verdicts, tally

DATA = Path(str(resources.files("cj_pipeline"))) / "emulator" / "data"
Pair = tuple[str, str]


def judged_pairs(rows: pd.DataFrame) -> list[JudgedPair]:
    """Return rows of a votes table as verdicts in the order shown."""
    return [
        JudgedPair(
            row.item_a,
            row.item_b,
            "A" if row.winner == row.item_a else "B" if row.winner == row.item_b else "tie",
            row.judge,
        )
        for row in rows.itertuples()
    ]


def human_majorities(rows: pd.DataFrame) -> dict[Pair, str]:
    """Return per pair (sorted) the answer most people preferred; pairs without one left out."""
    sums: dict[Pair, dict[str, float]] = {}
    for verdict in judged_pairs(rows):
        pair = tuple(sorted((verdict.essay_a, verdict.essay_b)))
        votes = sums.setdefault(pair, dict.fromkeys(pair, 0.0))  # type: ignore[arg-type]
        if verdict.winner != "tie":
            votes[verdict.essay_a if verdict.winner == "A" else verdict.essay_b] += 1
    return {
        pair: max(votes, key=lambda answer: votes[answer])
        for pair, votes in sums.items()
        if len(set(votes.values())) == 2
    }


def agreement(choices: list[tuple[Pair, str]], majority: dict[Pair, str]) -> tuple[int, float]:
    """Return how many choices have a majority to be compared with, and the share alike."""
    known = [(choice, majority[pair]) for pair, choice in choices if pair in majority]
    return len(known), float(np.mean([choice == best for choice, best in known]))


def direct(judged: list[JudgedPair]) -> list[tuple[Pair, str]]:
    """Return what each verdict that is no tie chose."""
    return [
        (
            tuple(sorted((v.essay_a, v.essay_b))),  # type: ignore[misc]
            v.essay_a if v.winner == "A" else v.essay_b,
        )
        for v in judged
        if v.winner != "tie"
    ]


def by_scores(
    judged: list[JudgedPair], *, position_effect: bool
) -> tuple[list[tuple[Pair, str]], float, float]:
    """Return which answer of each pair scores higher, and the position effect with its error."""
    answers = sorted({v.essay_a for v in judged} | {v.essay_b for v in judged})
    verdicts = as_verdicts(answers, judged)
    model = describe(
        tally(verdicts, by_order=True, by_judge=True),
        prior_comparisons=PRIOR_COMPARISONS,
        positions=np.arange(1 if position_effect else 0),
    )
    point, _ = maximise(model, zero_point(model))
    information = gradient_at(model, point, for_steps=False).information
    error = float(np.sqrt(other_covariance(information)[0, 0])) if position_effect else 0.0
    score = dict(zip(answers, point.theta.tolist(), strict=True))
    pairs = {tuple(sorted((v.essay_a, v.essay_b))) for v in judged}
    chosen = [(pair, max(pair, key=lambda answer: score[answer])) for pair in sorted(pairs)]
    return chosen, float(point.gamma[0]), error  # type: ignore[return-value]


def llm_judges() -> None:
    """Print a line per LLM judge."""
    table = pd.read_parquet(DATA / "prd_vicuna80.parquet")
    majority = human_majorities(table[table.kind == "human"])
    print("LLM judges, agreement with the human majority")
    print(
        f"{'judge':12s} {'position effect':>16s} {'first wins':>11s} {'swap agr.':>10s} "
        f"{'verdicts':>9s} {'scores':>7s} {'+position':>10s} {'filtered':>9s} {'kept':>6s} "
        f"{'one order':>10s} {'+position':>10s}"
    )
    for judge, rows in table[table.kind == "llm"].groupby("judge"):
        judged = judged_pairs(rows)
        answers = sorted({v.essay_a for v in judged} | {v.essay_b for v in judged})
        own = judge_consistency(answers, judged)[str(judge)]
        plain, _, _ = by_scores(judged, position_effect=False)
        modelled, effect, error = by_scores(judged, position_effect=True)
        kept = swap_consistent(judged)
        once = one_order(judged)
        once_plain, _, _ = by_scores(once, position_effect=False)
        once_modelled, _, _ = by_scores(once, position_effect=True)
        figures = [
            agreement(choices, majority)[1]
            for choices in (
                direct(judged), plain, modelled, direct(list(kept)), once_plain, once_modelled,
            )
        ]  # fmt: skip
        print(
            f"{judge:12s} {effect:+7.2f} +- {1.96 * error:.2f}  {own.first_wins.share:11.3f} "
            f"{own.swap_agreement.share:10.3f} {figures[0]:9.3f} {figures[1]:7.3f} "
            f"{figures[2]:10.3f} {figures[3]:9.3f} {len(kept) / len(judged):6.2f} "
            f"{figures[4]:10.3f} {figures[5]:10.3f}"
        )


def one_order(judged: list[JudgedPair]) -> list[JudgedPair]:
    """Return one verdict per pair, its order tossed for: what is had without asking twice."""
    rng = np.random.default_rng(0)
    by_pair: dict[Pair, list[JudgedPair]] = {}
    for v in judged:
        by_pair.setdefault(tuple(sorted((v.essay_a, v.essay_b))), []).append(v)  # type: ignore[arg-type]
    return [both[rng.integers(len(both))] for both in by_pair.values()]


def crowd() -> None:
    """Print the statistics of each topic's votes, with ties half-half and by Davidson."""
    votes = pd.read_csv(DATA / "ukp_demo_votes.csv")
    items = pd.read_csv(DATA / "ukp_demo_items.csv").set_index("id").human_score
    for topic, rows in votes.groupby("topic"):
        judged = judged_pairs(rows)
        essays = sorted({v.essay_a for v in judged} | {v.essay_b for v in judged})
        print(
            f"\n{topic}: {len(essays)} essays, {len(judged)} votes, {rows.judge.nunique()} people"
        )
        for ties in ("half-half", "davidson"):
            options: Literal["half-half", "davidson"] = ties  # type: ignore[assignment]
            scale = fit_bradley_terry(essays, judged, ties=options)
            bayes = empirical_bayes(scale)
            reference = pd.Series(scale.scores, index=essays).corr(
                items.reindex(essays), method="spearman"
            )
            strength = (
                f", tie strength {np.exp(scale.tie_strength.value):.3f}" * bool(scale.tie_strength)
                if scale.tie_strength
                else ""
            )
            print(
                f"  ties {ties}: empirical-Bayes reliability {bayes.reliability:.3f} (true sd "
                f"{bayes.true_sd:.2f}), scale separation "
                f"{scale_separation_reliability(scale.scores, scale.standard_errors):.3f}, "
                f"Spearman with the reference scores {reference:.4f}{strength}"
            )
        print(
            f"  reliability as sirt::btm gives it: "
            f"{fit_epsilon_adjusted(essays, judged).reliability:.3f}"
        )
        for by in ("comparisons", "judges"):
            halves = split_half(essays, judged, by=by, n_splits=40)  # type: ignore[arg-type]
            print(
                f"  split-half by {by}: {halves.median:.3f} [{halves.lower:.3f}, "
                f"{halves.upper:.3f}], stepped up {halves.stepped_up:.3f}"
            )
        rings = transitivity(essays, judged)
        print(f"  circular triples: {rings.n_circular} of {rings.n_triples} ({rings.share:.4f})")
        scale = fit_bradley_terry(essays, judged)
        fits = fit_of_judges(scale, judged)
        busy = [fit for fit in fits.values() if fit.n >= 20]
        misfits = sum(fit.infit_z > 2 for fit in busy)
        share = share_of(misfits, len(busy))
        print(
            f"  people with 20 votes or more: {len(busy)}, of whom misfitting (infit z > 2) "
            f"{misfits} ({share.share:.2f} [{share.lower:.2f}, {share.upper:.2f}])"
        )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    llm_judges()
    crowd()
