"""Whether a batch's anchors can carry grades: the anchors checked against themselves.

Their grades are known, so they show how far scores may be trusted as grades: do scores follow
grades at all, which anchors are in the wrong order, what would each have been given had its
grade not been known. `projection` checks this before it grades.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats, Ints
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import SettingsError

TOO_SURE = 0.01
"""Chance below which the anchors' log score is no accident. Anchors left out in turn share most of
their errors, so of batches whose grades are as sure as they should be some two in a hundred fall
below it."""

_LEAST_PROBABILITY = 1e-6
"""What a probability counts as at least, so that one anchor does not make a score endless."""
_N_DRAWN, _SEED = 4096, 20261130


@dataclass(frozen=True)
class AnchorRules:
    """When anchors carry no grades; the reasons are in `docs/grades.md`.

    Attributes:
        min_grades: With one grade alone no boundary is ever seen from both sides.
        min_separation_z: How many standard errors scores must rise with grades; 1.64 lets scores
            without any meaning through once in twenty batches.
        max_inversion_p: The chance, over all pairs of anchors, below which a wrong order is no
            longer put down to the errors of the scores.
        max_disagreement: In steps. Beyond it most grades would be off by one or more however
            well essays were scored.
        max_extrapolated_share: Of the students. Beyond it the batch is graded by the model's
            beliefs about widths rather than by anchors.
    """

    min_grades: int = 2
    min_separation_z: float = 1.64
    max_inversion_p: float = 0.01
    max_disagreement: float = 1.5
    max_extrapolated_share: float = 0.5

    def __post_init__(self) -> None:
        if self.min_grades < 2:
            msg = f"min_grades is {self.min_grades}: no boundary is seen from one grade alone."
            raise SettingsError(msg)


@dataclass(frozen=True)
class Inversion:
    """Two anchors whose scores contradict their grades.

    Attributes:
        lower: The anchor with the lower grade and the higher score.
        higher: The anchor with the higher grade and the lower score.
        excess: How far `lower` scores above `higher`, in logits.
        standard_error: Of that difference, from the joint covariance.
        is_beyond_error: Whether errors of the scores hardly explain it, given how many pairs of
            anchors there are.
    """

    lower: str
    higher: str
    excess: float
    standard_error: float
    is_beyond_error: bool


@dataclass(frozen=True)
class AnchorFit:
    """One anchor, graded as if its grade were not known, and how judges treated it.

    Attributes:
        grade: Known beforehand.
        graded: The most probable grade without this anchor's own grade.
        expected_step: The mean of those probabilities, in steps from the lowest.
        probability: Of the known grade.
        infit, outfit: Mean squared residuals of its comparisons, by information and plain; 1 is
            expected, above 1.5 judges disagree about it. None without comparisons.
        n_comparisons, n_wins: Of this anchor; a tie is half a win.
    """

    essay_id: str
    grade: str
    score: float
    standard_error: float
    graded: str
    expected_step: float
    probability: float
    infit: float | None
    outfit: float | None
    n_comparisons: int
    n_wins: float


@dataclass(frozen=True)
class LogScore:
    """How probable the anchors' known grades were, each without its own: a check of confidence.

    Attributes:
        mean: Mean logarithm of the probability of the known grade; 0 is the best.
        expected: The same if every probability were right.
        guessing: The same where every grade of the scale is as probable as every other.
        chance: The probability of a mean as low as this if every probability were right; near 0
            where the grades were surer than they should be.
    """

    mean: float
    expected: float
    guessing: float
    chance: float


@dataclass(frozen=True)
class AnchorCheck:
    """What the anchors say about themselves.

    Attributes:
        n_anchors, n_grades: How many there are, and how many different grades they carry.
        exact, within_one: Shares of anchors whose leave-one-out grade is right, or a step off.
        mean_absolute_error, bias: Of the leave-one-out grade, in steps; the bias is positive
            where anchors come out above their grades.
        kendall_tau: Between grades and scores (tau-b), with `tau_lower` and `tau_upper` (95 %);
            the interval is None below five anchors, where it would be the whole range.
        separation_z: How surely scores rise with grades, in standard errors.
        disagreement: Between the anchors' graders and the judge, in steps; None when the model
            was not fitted.
        inversions: Wrongly ordered pairs of anchors, worst first.
        n_direct, n_direct_inversions: Comparisons between anchors of different grades, and those
            the lower grade won.
        zero_win_anchors: Compared and never won, the lowest-graded left out.
        anchors: One by one, in order of score; empty when the model was not fitted.
        log_score: Whether the leave-one-out probabilities were as sure as they should be; None
            when the model was not fitted.
    """

    n_anchors: int
    n_grades: int
    exact: float | None
    within_one: float | None
    mean_absolute_error: float | None
    bias: float | None
    kendall_tau: float | None
    tau_lower: float | None
    tau_upper: float | None
    separation_z: float | None
    disagreement: float | None
    inversions: tuple[Inversion, ...]
    n_direct: int
    n_direct_inversions: int
    zero_win_anchors: tuple[str, ...]
    anchors: tuple[AnchorFit, ...]
    log_score: LogScore | None = None


def check_anchors(
    grades: Sequence[str],
    anchor_ids: Sequence[str],
    steps: Ints,
    scores: Floats,
    covariance: Floats,
    *,
    left_out: Floats | None,
    disagreement: float | None,
    judged: Sequence[JudgedPair] = (),
    all_scores: Mapping[str, float],
    rules: AnchorRules,
) -> AnchorCheck:
    """Return the anchors' check against themselves.

    Args:
        grades: Every step of the scale, lowest first.
        anchor_ids: In the order of `steps`, `scores` and `covariance`.
        steps: Each anchor's known grade, as an index into `grades`.
        left_out: Each anchor's probabilities without its own grade, (n_anchors, n_grades).
        disagreement: Between graders and judge, in steps.
        judged: All finished comparisons of the batch.
        all_scores: Of every essay in `judged`, in logits.
    """
    known = np.asarray(steps)
    tau, tau_lower, tau_upper = kendall_tau(known, scores)
    direct = [pair for pair in judged if {pair.essay_a, pair.essay_b} <= set(anchor_ids)]
    step_of = dict(zip(anchor_ids, known.tolist(), strict=True))
    wins, n_shown = _wins(anchor_ids, judged)
    fits: tuple[AnchorFit, ...] = ()
    errors = np.zeros(0)
    expected = np.zeros(0)
    if left_out is not None:
        expected = left_out @ np.arange(len(grades))
        errors = left_out.argmax(axis=1) - known
        misfit = misfits(anchor_ids, judged, all_scores)
        fits = tuple(
            AnchorFit(
                essay_id=anchor_ids[i],
                grade=grades[known[i]],
                score=float(scores[i]),
                standard_error=float(np.sqrt(covariance[i, i])),
                graded=grades[int(left_out[i].argmax())],
                expected_step=float(expected[i]),
                probability=float(left_out[i, known[i]]),
                infit=misfit[anchor_ids[i]][0] if anchor_ids[i] in misfit else None,
                outfit=misfit[anchor_ids[i]][1] if anchor_ids[i] in misfit else None,
                n_comparisons=n_shown[anchor_ids[i]],
                n_wins=wins[anchor_ids[i]],
            )
            for i in np.argsort(scores, kind="stable")
        )
    is_checked = left_out is not None
    return AnchorCheck(
        n_anchors=len(anchor_ids),
        n_grades=len(set(known.tolist())),
        exact=float(np.mean(errors == 0)) if is_checked else None,
        within_one=float(np.mean(np.abs(errors) <= 1)) if is_checked else None,
        mean_absolute_error=float(np.mean(np.abs(errors))) if is_checked else None,
        bias=float(np.mean(expected - known)) if is_checked else None,
        kendall_tau=tau,
        tau_lower=tau_lower,
        tau_upper=tau_upper,
        separation_z=separation(known, scores, covariance),
        disagreement=disagreement,
        inversions=_inversions(anchor_ids, known, scores, covariance, rules.max_inversion_p),
        n_direct=sum(step_of[pair.essay_a] != step_of[pair.essay_b] for pair in direct),
        n_direct_inversions=sum(_is_direct_inversion(pair, step_of) for pair in direct),
        zero_win_anchors=tuple(
            anchor
            for anchor in anchor_ids
            if n_shown[anchor] and not wins[anchor] and step_of[anchor] > known.min()
        ),
        anchors=fits,
        log_score=None if left_out is None else log_score(left_out, known),
    )


def log_score(left_out: Floats, steps: Ints) -> LogScore:
    """Return how probable the known grades were by probabilities that did not know them.

    The chance is by drawing grades from those probabilities, each anchor by itself, with one seed.

    Args:
        left_out: Each anchor's probabilities without its own grade; shape (n_anchors, n_grades).
        steps: The known grades, as indices from the lowest; shape (n_anchors,).

    References:
        Good (1952), doi:10.1111/j.2517-6161.1952.tb00104.x; Dawid (1984), doi:10.2307/2981683.
    """
    n_anchors, n_grades = left_out.shape
    logs = np.log(np.maximum(left_out, _LEAST_PROBABILITY))
    own = float(logs[np.arange(n_anchors), steps].mean())
    uniforms = np.random.default_rng(_SEED).uniform(size=(_N_DRAWN, n_anchors, 1))
    drawn = np.sum(uniforms > np.cumsum(left_out, axis=1), axis=2).clip(0, n_grades - 1)
    means = logs[np.arange(n_anchors), drawn].mean(axis=1)
    return LogScore(
        mean=own,
        expected=float(np.sum(left_out * logs) / n_anchors),
        guessing=-math.log(n_grades),
        chance=float((np.sum(means <= own + 1e-9) + 1) / (_N_DRAWN + 1)),
    )


def separation(steps: Ints, scores: Floats, covariance: Floats) -> float | None:
    """Return by how many standard errors scores rise with grades; None for a single grade.

    The slope of a generalised least-squares line; where anchors scatter around it more than
    their errors allow, its error is scaled up by that scatter (Birge 1932).
    """
    if len(set(steps.tolist())) < 2:
        return None
    n = len(steps)
    design = np.column_stack([np.ones(n), steps])
    # The level is free, so variance common to all anchors changes nothing but the rank.
    level = float(np.mean(np.diag(covariance)))
    inverse = np.linalg.inv(covariance + level * (1 + 1e-9 * np.eye(n)))
    variance = np.linalg.inv(design.T @ inverse @ design)
    line = variance @ design.T @ inverse @ scores
    rest = scores - design @ line
    scatter = float(rest @ inverse @ rest) / (n - 2) if n > 2 else 1.0
    return float(line[1] / np.sqrt(variance[1, 1] * max(1.0, scatter)))


def kendall_tau(steps: Ints, scores: Floats) -> tuple[float | None, float | None, float | None]:
    """Return tau-b between grades and scores with its 95 % limits, None where undefined.

    The limits are Bonett and Wright's (2000), doi:10.1007/BF02294183, on Fisher's scale; a
    perfect order is taken as half a pair short of perfect, or it would claim no error at all.
    """
    if len(set(steps.tolist())) < 2 or np.ptp(scores) == 0:
        return None, None, None
    from scipy.stats import kendalltau

    tau = float(kendalltau(steps, scores).statistic)
    n = len(steps)
    if n < 5:
        return tau, None, None
    nearly = 1 - 1 / (n * (n - 1))
    centre = np.arctanh(np.clip(tau, -nearly, nearly))
    half = 1.96 * np.sqrt(0.437 / (n - 4))
    return tau, float(np.tanh(centre - half)), float(np.tanh(centre + half))


def misfits(
    anchor_ids: Sequence[str], judged: Sequence[JudgedPair], scores: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return infit and outfit mean squares of anchors' comparisons; none for anchors without any.

    Against the scores alone, for that is what is graded; `fit_statistics` has what judges add.

    References:
        Wright and Masters (1982), Rating Scale Analysis; for comparative judgement
        Pollitt (2012), doi:10.1080/0969594X.2012.665354.
    """
    squares: dict[str, list[float]] = {anchor: [] for anchor in anchor_ids}
    variances: dict[str, list[float]] = {anchor: [] for anchor in anchor_ids}
    for pair in judged:
        for essay in (pair.essay_a, pair.essay_b):
            if essay in squares:
                p = 1 / (1 + math.exp(scores[pair.essay_b] - scores[pair.essay_a]))
                won = {"A": 1.0, "B": 0.0, "tie": 0.5}[pair.winner]
                squares[essay].append((won - p) ** 2)
                variances[essay].append(max(p * (1 - p), 1e-12))
    return {
        anchor: (
            sum(squares[anchor]) / sum(variances[anchor]),
            float(np.mean(np.divide(squares[anchor], variances[anchor]))),
        )
        for anchor in anchor_ids
        if squares[anchor]
    }


def _inversions(
    anchor_ids: Sequence[str], steps: Ints, scores: Floats, covariance: Floats, max_p: float
) -> tuple[Inversion, ...]:
    from scipy.special import ndtr

    pairs = [(i, j) for i in range(len(steps)) for j in range(len(steps)) if steps[i] < steps[j]]
    found = []
    for i, j in pairs:
        excess = float(scores[i] - scores[j])
        if excess > 0:
            variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
            error = float(np.sqrt(max(variance, 1e-12)))
            is_beyond = bool(ndtr(-excess / error) * len(pairs) < max_p)
            found.append(Inversion(anchor_ids[i], anchor_ids[j], excess, error, is_beyond))
    return tuple(sorted(found, key=lambda inversion: -inversion.excess / inversion.standard_error))


def _is_direct_inversion(pair: JudgedPair, step_of: Mapping[str, int]) -> bool:
    a, b = step_of[pair.essay_a], step_of[pair.essay_b]
    return (pair.winner == "A" and a < b) or (pair.winner == "B" and b < a)


def _wins(
    anchor_ids: Sequence[str], judged: Sequence[JudgedPair]
) -> tuple[dict[str, float], dict[str, int]]:
    wins, n_shown = dict.fromkeys(anchor_ids, 0.0), dict.fromkeys(anchor_ids, 0)
    for pair in judged:
        for essay, label in ((pair.essay_a, "A"), (pair.essay_b, "B")):
            if essay in wins:
                n_shown[essay] += 1
                wins[essay] += 1.0 if pair.winner == label else 0.5 * (pair.winner == "tie")
    return wins, n_shown
