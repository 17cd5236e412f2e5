"""Why a pair was judged, in words: its role, and what its verdict was expected to gain.

Roles are `comparisons.Role`; gains are what the strategy that chose the pair counts in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cj_pipeline.batch.comparisons import Role
from cj_pipeline.errors import UnknownEssayError, UnscalableBatchError
from cj_pipeline.ids import nearest
from cj_pipeline.outputs.language import percent, plain, to_translate, tr
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.queries.history import BatchHistory, Row
from cj_pipeline.text import excerpt

ROLES: Mapping[str, str] = {
    Role.COVERAGE: to_translate("so that every essay takes part alike"),
    Role.BRIDGE: to_translate("to join two parts of the net"),
    Role.RESAMPLE: to_translate("the same pair again, in the order seen less"),
    Role.BOUNDARY: to_translate("to find on which side of a grade boundary essays lie"),
    Role.INFORMATIVE: to_translate("because the verdict says much about the order"),
    Role.RANDOM: to_translate("by lot"),
    Role.PEOPLE: to_translate("by people, beside the models"),
}


@dataclass(frozen=True)
class RoleShare:
    """How many comparisons of a batch had a role.

    Attributes:
        role: As it is kept with the comparisons.
        meaning: In words.
        n: Comparisons planned.
        mean_gain: Expected, in words with its unit; empty where the role has none.
    """

    role: str
    meaning: str
    n: int
    mean_gain: str


def why_requested(role: str, expected_gain: float | None, strategy: str) -> str:
    """Return in words why a comparison was requested.

    Args:
        role: As kept with the comparison.
        expected_gain: As kept with the comparison; None where its role has none.
        strategy: Of the batch; it decides the unit of the gain.
    """
    gain = describe_gain(role, expected_gain, strategy)
    return tr(ROLES[role]) + (tr("; expected gain {gain}", gain=gain) if gain else "")


def describe_gain(role: str, expected_gain: float | None, strategy: str) -> str:
    """Return an expected gain with its unit; empty where there is none."""
    if expected_gain is None:
        return ""
    of_loss = (
        to_translate("squared grade steps")
        if role == Role.BOUNDARY
        else to_translate("squared ranks")
    )
    unit = strategy_named(strategy).gain_unit or of_loss
    return f"{plain(float(f'{expected_gain:.2g}'))} {tr(unit)}"


def roles_of(pairs: Iterable[Mapping[str, Any]], strategy: str) -> list[RoleShare]:
    """Return how often each role came, commonest first; `pairs` are rows of `comparison_pairs`."""
    gains: dict[str, list[float | None]] = defaultdict(list)
    for row in pairs:
        gains[row["role"]].append(row["expected_gain"])
    shares = []
    for role, found in gains.items():
        known = [gain for gain in found if gain is not None]
        mean = sum(known) / len(known) if known else None
        shares.append(
            RoleShare(role, tr(ROLES[role]), len(found), describe_gain(role, mean, strategy))
        )
    return sorted(shares, key=lambda share: (-share.n, share.role))


JUSTIFICATION_SHOWN = 1000
"""In characters; a judge is asked for one or two sentences."""

_WORTH_NAMING = 0.05


@dataclass(frozen=True)
class EssayVerdict:
    """A verdict from one essay's side.

    Attributes:
        against: The other essay.
        outcome: won, lost or tie.
        shown_as: A or B, which is what the judge calls it; A was shown first.
        confidence: The judge's own, 1 to 5.
        judge: Its name.
        why: Why the pair was judged, in words.
        justification: The judge's words, made visible and cut; not to be trusted as markup.
    """

    against: str
    outcome: str
    shown_as: str
    confidence: float | None
    judge: str
    why: str
    justification: str


@dataclass(frozen=True)
class EssayFeedback:
    """What is known of one essay.

    Attributes:
        known_grade: An anchor's grade.
        score, lower, upper: In logits, with the 95 % interval.
        verdict_score: By the verdicts alone, in logits.
        scaled: The score and its standard error on the scale that the batch sets; None without one.
        rank: Among all essays, anchors included.
        rank_between: Best and worst rank it may truly have (95 %); None before the batch's end.
        grade: A person's, else the most probable one, with its minus or plus, and whether it is
            provisional; None in a batch without grades and for an excluded essay.
        likely: Probable grades, each with its probability, most probable first; an anchor's are by
            the other anchors.
        among_anchors: Between which anchors it lies, in words; empty without anchors.
        verdicts: In the order requested.
    """

    essay_id: str
    known_grade: str | None
    score: float
    verdict_score: float
    lower: float
    upper: float
    rank: int
    rank_between: tuple[int, int] | None
    n_essays: int
    grade: str | None
    likely: tuple[str, ...]
    among_anchors: str
    verdicts: tuple[EssayVerdict, ...]
    scaled: tuple[float, float] | None = None


def essay_feedback(history: BatchHistory, essay_id: str) -> EssayFeedback:
    """Return the feedback on one essay.

    Raises:
        UnknownEssayError: If the batch has no such essay.
        UnscalableBatchError: If the batch has no scores.
    """
    if essay_id not in history.essay_by_id:
        hint = nearest(essay_id, history.names_to_type) or "."
        msg = f"Batch '{history.batch_id}' has no essay '{essay_id}'{hint}"
        raise UnknownEssayError(msg)
    if essay_id not in history.score_by_id:
        msg = (
            f"Batch '{history.batch_id}' has no scores yet, so there is nothing to show for"
            f" '{essay_id}': see `cj status {history.batch_id}`."
        )
        raise UnscalableBatchError(msg)
    mine = [row for row in history.succeeded if essay_id in (row["essay_a"], row["essay_b"])]
    return _feedback(history, essay_id, mine)


def all_feedback(history: BatchHistory) -> tuple[EssayFeedback, ...]:
    """Return the feedback on every essay that has a score, in the batch's order."""
    by_essay: dict[str, list[Row]] = defaultdict(list)
    for row in history.succeeded:
        by_essay[row["essay_a"]].append(row)
        by_essay[row["essay_b"]].append(row)
    return tuple(
        _feedback(history, essay_id, by_essay[essay_id])
        for essay_id in history.essay_by_id
        if essay_id in history.score_by_id
    )


def written_grade(projection: Row | None) -> str | None:
    """Return the most probable grade as people write it, with its minus or plus."""
    if projection is None:
        return None
    # Gradings of earlier versions kept no minus and plus.
    return str(projection["fine_grade"] or projection["grade"])


def likely_grades(projection: Row | None) -> tuple[str, ...]:
    """Return the grades probable enough to name, with their probabilities, most probable first."""
    if projection is None:
        return ()
    ranked = sorted(projection["probabilities"].items(), key=lambda item: -item[1])
    return tuple(f"{grade}: {percent(p)}" for grade, p in ranked if p >= _WORTH_NAMING)


def _feedback(history: BatchHistory, essay_id: str, verdicts: Sequence[Row]) -> EssayFeedback:
    entry = history.last_score_by_id[essay_id]
    projection = history.projection_by_id.get(essay_id)
    lower, upper = history.score_interval(essay_id)
    sure = history.rank_by_id.get(essay_id)
    return EssayFeedback(
        essay_id=essay_id,
        known_grade=history.essay_by_id[essay_id]["grade"],
        score=entry["score"],
        verdict_score=entry["verdict_score"],
        lower=lower,
        upper=upper,
        rank=entry["rank"],
        rank_between=(sure["rank_lower"], sure["rank_upper"]) if sure else None,
        n_essays=len(history.essays),
        grade=_grade_with_status(history, essay_id),
        likely=likely_grades(projection),
        among_anchors=_among_anchors(history, essay_id),
        verdicts=tuple(_seen_by(history, essay_id, row) for row in verdicts),
        scaled=history.scaled_score(essay_id),
    )


def _among_anchors(history: BatchHistory, essay_id: str) -> str:
    below, above = history.anchors_around(essay_id)
    grades = history.anchor_grades
    if below and above:
        return tr(
            "between anchors {below} ({low}) and {above} ({high})",
            below=history.label(below),
            low=grades[below],
            above=history.label(above),
            high=grades[above],
        )
    if below:
        return tr(
            "above every anchor, next to {anchor} ({grade})",
            anchor=history.label(below),
            grade=grades[below],
        )
    if above:
        return tr(
            "below every anchor, next to {anchor} ({grade})",
            anchor=history.label(above),
            grade=grades[above],
        )
    return ""


def _grade_with_status(history: BatchHistory, essay_id: str) -> str | None:
    projection = history.projection_by_id.get(essay_id)
    decision = history.decision_by_id.get(essay_id)
    if projection is None or projection["is_anchor"]:
        return written_grade(projection)
    grade = written_grade(projection)
    if decision is not None and decision["kind"] == "override":
        grade = tr(
            "{grade}, set by {by} (by the verdicts: {machine})",
            grade=decision["grade"],
            by=decision["decided_by"],
            machine=grade,
        )
    elif decision is not None and decision["kind"] == "exclude":
        return f"none: excluded by {decision['decided_by']}"
    return f"{grade} (provisional)" if history.release.is_provisional else grade


def _seen_by(history: BatchHistory, essay_id: str, row: Row) -> EssayVerdict:
    is_first = row["essay_a"] == essay_id
    won = row["winner_id"] == essay_id
    planned = history.pair_by_id[row["comparison_id"]]
    return EssayVerdict(
        against=row["essay_b"] if is_first else row["essay_a"],
        outcome=tr("tie") if row["winner"] == "tie" else tr("won") if won else tr("lost"),
        shown_as="A" if is_first else "B",
        confidence=row["confidence"],
        judge=excerpt(history.judge_by_id[row["judge_id"]]["name"], 200),
        why=why_requested(planned["role"], planned["expected_gain"], history.settings["strategy"]),
        justification=excerpt(row["justification"] or "", JUSTIFICATION_SHOWN),
    )
