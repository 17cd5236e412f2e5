"""What a trial came to as named figures, and what is expected of them.

An expectation is a line such as `completed == 40` in a trial's definition. The figures are read
from the rows of the batch alone, so a trial can be looked at again at any time.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from cj_pipeline.diagnostics.position_balance import positional_skews
from cj_pipeline.ids import unknown
from cj_pipeline.queries.history import BatchHistory

Figure = float | int | str | bool | None

_FORM = re.compile(r"^\s*(\w+)\s*(==|!=|>=|<=|>|<)\s*(\S.*?)\s*$")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Expectation:
    """A figure, a comparison and a value: `figure` `is` `value`."""

    figure: str
    comparison: str
    value: Figure

    @classmethod
    def read(cls, text: str) -> Expectation:
        """Return the expectation a line states.

        Raises:
            ValueError: If it states none, or an unknown figure; it names the nearest.
        """
        match = _FORM.match(text)
        if match is None:
            msg = f"{text!r} is no expectation; write one like 'completed == 40'"
            raise ValueError(msg)
        figure, comparison, value = match[1], match[2], yaml.safe_load(match[3])
        if figure not in FIGURES:
            msg = f"{text!r}: {unknown('figure', figure, FIGURES)}"
            raise ValueError(msg)
        if comparison not in {"==", "!="} and isinstance(value, bool | str):
            msg = f"{text!r}: only numbers can be more or less than each other"
            raise ValueError(msg)
        return cls(figure, comparison, value)

    def __str__(self) -> str:
        value = yaml.safe_dump(self.value).removesuffix("...\n").strip()
        return f"{self.figure} {self.comparison} {value}"

    def finding(self, figures: Mapping[str, Figure]) -> ExpectationFinding:
        """Return whether it holds of a trial's figures; what is missing is no number."""
        found = figures.get(self.figure)
        is_ordered = self.comparison not in {"==", "!="}
        if is_ordered and not isinstance(found, int | float):
            return ExpectationFinding(str(self), found, holds=False)
        return ExpectationFinding(str(self), found, _COMPARE[self.comparison](found, self.value))


@dataclass(frozen=True)
class ExpectationFinding:
    """An expectation as it is written, the figure that was found, and whether it holds."""

    expectation: str
    found: Figure
    holds: bool


FIGURES: Mapping[str, str] = {
    "state": "how the batch ended: succeeded, failed, cancelled or rejected",
    "end_reason": "why it ended",
    "n_essays": "essays, anchors included",
    "waves": "waves that were decided",
    "submitted": "comparisons that were requested",
    "completed": "comparisons that ended in a verdict",
    "failed": "comparisons that failed for good",
    "pending": "comparisons requested that have not ended",
    "completion_denominator": "comparisons at which the batch is at its end",
    "max_possible_pairs": "pairs there are",
    "successful_pairs_count": "pairs with a verdict",
    "unique_coverage_complete": "whether every pair has a verdict",
    "resampling_pass_count": "times the pairs were gone over again",
    "fewest_shown_a": "of an essay: times shown first, the fewest",
    "most_shown_a": "the most",
    "fewest_shown_b": "of an essay: times shown second, the fewest",
    "most_shown_b": "the most",
    "largest_positional_skew": "of an essay: |A - B| / (A + B), the largest",
    "verdicts_for_a": "verdicts for the essay shown first",
    "batching_mode": "as it is recorded with the batch",
    "batching_mode_override": "as it is recorded; none where there is none",
    "modes_used": "the modes of its provider jobs, sorted",
    "provider_jobs": "jobs that were scheduled",
    "provider_jobs_completed": "jobs that the provider ended as completed",
    "fewest_prompt_tokens": "of a request with a verdict",
    "fewest_completion_tokens": "of a request with a verdict",
    "errors": "requests that brought no verdict",
    "n_scored": "essays with a score",
    "n_graded": "essays with a grade",
    "mean_se": "mean standard error, in logits",
    "max_se": "largest standard error, in logits",
    "isolated_items": "essays judged against fewer than two others",
    "kendall_tau": "of the anchors' scores and grades",
    "cost_usd": "US dollars billed",
    "spend_cap_usd": "US dollars it may cost",
    "duration_s": "seconds from ingestion to its end",
    "score_spread": "standard deviation of the verdict-only scores, in logits",
}
"""Every figure there is, and what it means."""


def trial_figures(history: BatchHistory) -> dict[str, Figure]:
    """Return what a batch came to; None where it has no such figure."""
    details = history.last_details
    summary = details.get("bt_se_summary", {})
    check = dict(history.grading["anchor_check"]) if history.grading else {}
    return {
        "state": history.batch["state"],
        "end_reason": history.batch["end_reason"],
        "n_essays": len(history.essays),
        **_counts(history),
        **{
            key: details.get(key)
            for key in (
                "max_possible_pairs",
                "successful_pairs_count",
                "unique_coverage_complete",
                "resampling_pass_count",
            )
        },
        **_positions(history),
        **_jobs(history),
        "n_scored": len(history.last_scores),
        "n_graded": len(history.projections),
        "mean_se": summary.get("mean_se"),
        "max_se": summary.get("max_se"),
        "isolated_items": summary.get("isolated_items"),
        "kendall_tau": check.get("kendall_tau"),
        "cost_usd": sum(job["billed_usd"] or 0.0 for job in history.jobs),
        "spend_cap_usd": history.settings.get("spend_cap_usd"),
        "duration_s": _duration_s(history),
        "score_spread": _spread([row["verdict_score"] for row in history.last_scores]),
    }


def _counts(history: BatchHistory) -> dict[str, Figure]:
    last = history.decisions[-1] if history.decisions else None
    submitted = len({row["comparison_id"] for row in history.attempts})
    completed, failed = len(history.succeeded), len(history.failed)
    return {
        "waves": len(history.decisions),
        "submitted": submitted,
        "completed": completed,
        "failed": failed,
        "pending": submitted - completed - failed,
        "completion_denominator": last.completion_denominator if last else None,
    }


def _positions(history: BatchHistory) -> dict[str, Figure]:
    rows = history.succeeded
    shown_a = Counter(row["essay_a"] for row in rows)
    shown_b = Counter(row["essay_b"] for row in rows)
    essays = [row["essay_id"] for row in history.essays]
    return {
        "fewest_shown_a": min((shown_a[e] for e in essays), default=None),
        "most_shown_a": max((shown_a[e] for e in essays), default=None),
        "fewest_shown_b": min((shown_b[e] for e in essays), default=None),
        "most_shown_b": max((shown_b[e] for e in essays), default=None),
        "largest_positional_skew": max(positional_skews(rows).values(), default=None),
        "verdicts_for_a": sum(row["winner"] == "A" for row in rows),
    }


def _jobs(history: BatchHistory) -> dict[str, Figure]:
    stored = history.batch["metadata"]
    answered = [row for row in history.attempts if row["outcome"] == "succeeded"]
    return {
        "batching_mode": stored.get("llm_batching_mode"),
        "batching_mode_override": stored.get("llm_batching_mode_override") or "none",
        "modes_used": ", ".join(sorted({job["batching_mode"] for job in history.jobs})),
        "provider_jobs": len(history.jobs),
        "provider_jobs_completed": sum(job["outcome"] == "completed" for job in history.jobs),
        "fewest_prompt_tokens": min((row["tokens_prompt"] or 0 for row in answered), default=None),
        "fewest_completion_tokens": min(
            (row["tokens_completion"] or 0 for row in answered), default=None
        ),
        "errors": sum(row["outcome"] not in {None, "succeeded"} for row in history.attempts),
    }


def _duration_s(history: BatchHistory) -> float | None:
    ended = history.batch["ended_at"]
    return (ended - history.batch["created_at"]).total_seconds() if ended else None


def _spread(scores: list[float]) -> float | None:
    if len(scores) < 2:
        return None
    mean = sum(scores) / len(scores)
    return float((sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)) ** 0.5)
