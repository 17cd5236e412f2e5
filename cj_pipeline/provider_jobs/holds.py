"""Judges whose calls are held: they give no verdict, or their account has run out of credit.

Answers are paid for whether or not there is a verdict in them. A judge that gave none in the first
few of a batch is asked nothing more before a person has looked; nothing of the batch is lost, and
the same command goes on. Whether an answer holds a verdict is read by `settlement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.errors import CJError, JudgeHeldError, OutOfCreditError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.providers.base import OUT_OF_CREDIT, Parser
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.store.session import Session

log = structlog.get_logger()

TRY_CREDIT_AGAIN = timedelta(minutes=10)
"""A request that is refused for want of credit costs nothing, and tells when there is some."""

SAMPLE = 160
"""Characters of an answer that are shown; an answer is the judge's own words."""

NO_VERDICT = (
    RequestOutcome.INVALID_OUTPUT,
    RequestOutcome.REFUSAL,
    RequestOutcome.TRUNCATED,
    RequestOutcome.CONTENT_FILTER,
)
"""Answered, and so paid for, without a verdict."""


@dataclass
class AnswerCount:
    """The answers of one judge in one batch, counted until the first verdict.

    Attributes:
        most: After so many without any verdict its calls are held.
        n_without: How many had none so far.
        has_verdict: Whether there was one: then nothing is held for this any more.
        sample: The beginning of one that had none.
        kinds: How often each failure came.
    """

    most: int
    n_without: int = 0
    has_verdict: bool = False
    sample: str | None = None
    kinds: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: RequestOutcome, text: str | None) -> None:
        """Count one more answer."""
        if outcome is RequestOutcome.SUCCEEDED:
            self.has_verdict = True
        elif outcome in NO_VERDICT:
            self.n_without += 1
            self.kinds[outcome.value] = self.kinds.get(outcome.value, 0) + 1
            self.sample = self.sample or _shown(text)

    @property
    def is_too_many(self) -> bool:
        """Whether nothing more should be bought of this judge."""
        return not self.has_verdict and self.n_without >= self.most

    def reason(self, judge: Judge) -> str:
        """Return why its calls are held, and what a person can do."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.kinds.items()))
        sample = f" One of them begins: {self.sample!r}." if self.sample else ""
        return (
            f"Judge '{judge.name}' gave no verdict in its first {self.n_without} answers, which"
            f" were paid for ({kinds}); no more are requested.{sample} See `cj judge examine"
            f" {judge.name}`. Change its settings in `judges/{judge.name}.yaml` and run the same"
            " command: the batch goes on with the judge as it is then. If a newer parser reads the"
            " answers, `cj reparse` goes on; to request more nevertheless, add `--resume`."
        )


def count_answers(db: Session, record: BatchRecord, judge: Judge) -> AnswerCount:
    """Return what a judge has answered in a batch so far, since its calls were last released."""
    rows = db.rows(
        "SELECT a.outcome, count(*) AS n, any_value(a.error_message) AS message FROM attempts a"
        " LEFT JOIN judge_holds h ON h.batch_id = a.batch_id AND h.judge_id = a.judge_id"
        " WHERE a.batch_id = ? AND a.judge_id = ? AND a.outcome IS NOT NULL"
        " AND (a.outcome = 'succeeded' OR h.released_at IS NULL OR a.completed_at > h.released_at)"
        " GROUP BY a.outcome",
        [record.batch_id, judge.judge_id],
    )
    counted = AnswerCount(record.settings.max_answers_without_verdict)
    for row in rows:
        outcome = RequestOutcome(row["outcome"])
        if outcome is RequestOutcome.SUCCEEDED:
            counted.has_verdict = True
        elif outcome in NO_VERDICT:
            counted.n_without += row["n"]
            counted.kinds[outcome.value] = row["n"]
    return counted


def hold_if_needed(
    db: Session, record: BatchRecord, judge: Judge, parse: Parser, now: datetime
) -> None:
    """Hold a judge's calls, by what its answers in this batch came to that were settled now."""
    counted = count_answers(db, record, judge)
    if counted.is_too_many:
        counted.sample = _stored_sample(db, record, judge, parse)
        reason = counted.reason(judge)
        _hold(db, record, judge, word=WaitingFor.PERSON, reason=reason, now=now, counted=counted)
        return
    row = db.one(
        "SELECT any_value(error_message) AS message, max(completed_at) AS at FROM attempts a"
        " WHERE batch_id = ? AND judge_id = ? AND error_code = ? AND attempt ="
        " (SELECT max(attempt) FROM attempts b WHERE b.comparison_id = a.comparison_id)",
        [record.batch_id, judge.judge_id, OUT_OF_CREDIT],
    )
    if row is not None and row["at"] == now:
        reason = (
            f"The account of judge '{judge.name}' has no credit left:"
            f" {str(row['message']).removesuffix('.')}. Add credit or raise its limit, then run the"
            " same command: nothing is lost."
        )
        _hold(
            db,
            record,
            judge,
            word=WaitingFor.CREDIT,
            reason=reason,
            now=now,
            counted=counted,
            again=TRY_CREDIT_AGAIN,
        )


def _hold(
    db: Session,
    record: BatchRecord,
    judge: Judge,
    *,
    word: WaitingFor,
    reason: str,
    now: datetime,
    counted: AnswerCount,
    again: timedelta | None = None,
) -> None:
    row = {
        "batch_id": record.batch_id,
        "judge_id": judge.judge_id,
        "waiting_for": word.value,
        "reason": reason,
        "sample": counted.sample,
        "n_answers": counted.n_without,
        "held_at": now,
        "next_try_at": None if again is None else now + again,
        "released_at": None,
    }
    db.insert("judge_holds", [row], on_conflict="replace")
    # Its reason shows an answer, which may quote an essay: that is not for logs.
    log.error("judge_held", batch_id=record.batch_id, judge_id=judge.judge_id, waiting_for=word)


def held_judges(db: Session, batch_id: str, now: datetime) -> Mapping[str, CJError]:
    """Return why calls of a batch's judges are held, by judge; those due again are left out."""
    rows = db.rows(
        "SELECT judge_id, waiting_for, reason FROM v_judge_holds"
        " WHERE batch_id = ? AND coalesce(next_try_at > ?, TRUE) ORDER BY judge_id",
        [batch_id, now],
    )
    return {
        row["judge_id"]: (
            OutOfCreditError(row["reason"])
            if row["waiting_for"] == WaitingFor.CREDIT
            else JudgeHeldError(row["reason"])
        )
        for row in rows
    }


def release(db: Session, batch_id: str, now: datetime, words: Sequence[WaitingFor]) -> None:
    """Let the judges of a batch be asked again that are held for one of these reasons."""
    db.execute(
        "UPDATE judge_holds SET released_at = ? WHERE batch_id = ? AND released_at IS NULL"
        " AND waiting_for IN (SELECT unnest(?))",
        [now, batch_id, [word.value for word in words]],
    )


def _stored_sample(db: Session, record: BatchRecord, judge: Judge, parse: Parser) -> str | None:
    """Return the beginning of the newest answer without a verdict, or why there is none."""
    row = db.one(
        "SELECT c.body, a.error_message FROM attempts a LEFT JOIN callbacks c"
        " ON c.submission_key = a.submission_key AND c.custom_id = a.custom_id"
        " AND c.kind = 'matched' WHERE a.batch_id = ? AND a.judge_id = ?"
        " AND a.outcome IN (SELECT unnest(?)) ORDER BY a.completed_at DESC, a.custom_id LIMIT 1",
        [record.batch_id, judge.judge_id, [outcome.value for outcome in NO_VERDICT]],
    )
    if row is None:
        return None
    text = parse(row["body"]).text if row["body"] else None
    return _shown(text or row["error_message"])


def _shown(text: str | None) -> str | None:
    """Return the beginning of an answer on one line; a terminal's own signs are left out."""
    if not text:
        return None
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= SAMPLE else plain[: SAMPLE - 1] + "…"
