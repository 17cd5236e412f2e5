"""What several verdicts have in common, as values; how it is estimated is `dependence`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Correlation:
    """How verdicts on one pair of essays vary together beyond what the essays' scores explain.

    Attributes:
        value: From 0 (each tells afresh) to 1 (each repeats the first).
        n: Pairs of verdicts it rests on.
        is_estimated: False where there were too few, and what is usual was taken.
    """

    value: float
    n: int
    is_estimated: bool


@dataclass(frozen=True)
class Dependence:
    """What verdicts have in common.

    Attributes:
        repeated: Of one judge's verdicts on a pair; None where none were repeated.
        between: Of two judges' verdicts on a pair; None where they share no pair.
        judge_variance: Of an essay between judges, in squared logits; 0 for one judge.
        n_judges: How many judges gave verdicts.
        per_judge: Share of `judge_variance` that is left in a score: 1 / n_judges where all gave
            as many verdicts.
        n_verdicts: How many there are.
        effective_verdicts: How many verdicts on pairs of their own would tell as much.
    """

    repeated: Correlation | None
    between: Correlation | None
    judge_variance: float
    n_judges: int
    per_judge: float
    n_verdicts: int
    effective_verdicts: float

    @property
    def effective_judges(self) -> float | None:
        """How many independent judges the panel is worth on pairs that all judge.

        None where no pair shows it. J judges with correlation rho are worth J / (1 + (J-1) rho)
        (Kish 1965, Survey Sampling).
        """
        if self.between is None or not self.between.is_estimated:
            return None
        return self.n_judges / (1 + (self.n_judges - 1) * self.between.value)

    @property
    def left_in_scores(self) -> float:
        """Variance that what judges see differently adds to each score, in squared logits."""
        return self.judge_variance * self.per_judge
