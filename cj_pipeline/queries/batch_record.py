"""What the steps read of a batch from the store, as frozen values."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import JudgedPair, max_possible_pairs
from cj_pipeline.batch.options import RunnerMode
from cj_pipeline.errors import RejectedBatchError, UnknownBatchError
from cj_pipeline.grading.rules import GradingTerms
from cj_pipeline.intake.settings import (
    BatchSettings,
    grading_terms,
    panel_shares,
    scoring_rules,
)
from cj_pipeline.judging.judges import Judge
from cj_pipeline.scale.scoring import ScoringRules
from cj_pipeline.stopping.continuation import WorkflowRules, completion_denominator, is_small_net
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.intake.batch_folder import Batch


def pairs_per_wave(record: BatchRecord) -> int:
    """Return how many pairs a wave of an ordinary batch has."""
    n_essays, waves = len(record.essay_ids), record.settings.waves
    if waves is not None:
        pairs = completion_denominator(n_essays, record.rules) / record.rules.verdicts_per_pair
        return max(1, math.ceil(pairs / waves - 1e-9))
    return record.settings.wave_size or max(1, n_essays // 2)


ENDED_STATES = frozenset({"succeeded", "failed", "cancelled", "rejected"})


@dataclass(frozen=True)
class BatchRecord:
    """A batch as the store keeps it, without its texts."""

    batch_id: str
    state: str
    end_reason: str | None
    settings: BatchSettings
    content_sha256: str
    correlation_id: str
    runner_mode: RunnerMode
    metadata: dict[str, Any]
    essay_ids: tuple[str, ...]
    anchor_grades: dict[str, str]
    judges: tuple[Judge, ...]
    """Those that models are; people are in `people`."""
    people: tuple[Judge, ...] = ()
    """The judges that people are, imported verdicts' among them."""
    earlier_judges: tuple[Judge, ...] = ()
    """Models that gave no verdict and were changed while the batch waited: asked nothing more."""
    first_content_sha256: str | None = None
    """Of its files as first taken in, where what may be changed of a batch was changed since."""
    sampled_grades: dict[str, str] = field(default_factory=dict)
    """Grades that teachers gave to sampled students; grades are moderated by them."""
    own_scale: str | None = None
    """The batch's own `scale.yaml`, where it has one."""
    cancel_requested: bool = False
    """Whether a person has requested its end: then nothing more is sent."""
    spend_cap_reached: bool = False
    """Whether a wave was refused because it might cost more than the cap."""
    canary_failed: bool = False
    """Whether a judge gave no verdict in the requests sent ahead."""
    nothing_left_to_ask: bool = False
    """Whether planning found no pair for another wave."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be requested."""
        return self.state in ENDED_STATES

    @property
    def student_ids(self) -> tuple[str, ...]:
        """The essays to be placed, in the batch's order."""
        return tuple(e for e in self.essay_ids if e not in self.anchor_grades)

    @property
    def fence_secret(self) -> str:
        """What the fences' nonces are derived from; covers every text, so no author knows it."""
        return f"{self.first_content_sha256 or self.content_sha256}:{self.settings.seed}"

    @cached_property
    def grading_terms(self) -> GradingTerms | None:
        """What the batch is graded by; None where it names no scale."""
        return grading_terms(self.settings, self.own_scale)

    @property
    def scoring_rules(self) -> ScoringRules:
        """What the model of the batch's verdicts is made of."""
        return scoring_rules(self.settings)

    def judge(self, judge_id: str) -> Judge:
        """Return the judge of this fingerprint."""
        return next(
            j for j in (*self.judges, *self.people, *self.earlier_judges) if j.judge_id == judge_id
        )

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the pairs that each judge gets, from 0 to 1, in the order of `judges`.

        Where judges are chosen by information per USD these are the shares to begin with.
        """
        return panel_shares(self.settings, [judge.name for judge in self.judges])

    @property
    def rules(self) -> WorkflowRules:
        """What the settings say about going on and ending."""
        return rules_of(self.settings, verdicts_per_pair=math.fsum(self.shares))


def rules_of(s: BatchSettings, *, verdicts_per_pair: float) -> WorkflowRules:
    """Return what settings say about going on and ending, with that number of judges per pair."""
    return WorkflowRules(
        total_budget=s.max_pairwise_comparisons,
        all_at_once=s.all_at_once,
        min_resampling_net_size=s.min_resampling_net_size,
        max_resampling_passes_for_small_net=s.max_resampling_passes_for_small_net,
        max_resampling_passes_for_regular_net=s.max_resampling_passes_for_regular_net,
        score_stability_threshold=s.score_stability_threshold,
        min_comparisons_for_stability_check=s.min_comparisons_for_stability_check,
        min_success_rate=s.min_success_rate,
        verdicts_per_pair=verdicts_per_pair,
    )


@dataclass(frozen=True)
class _BatchRow:
    """What a batch's record takes from its row."""

    state: str
    end_reason: str | None
    settings: dict[str, Any]
    content_sha256: str
    correlation_id: str
    runner_mode: RunnerMode
    metadata: dict[str, Any]
    cancel_requested: bool
    spend_cap_reached: bool
    canary_failed: bool
    nothing_left_to_ask: bool
    first_content_sha256: str | None


@dataclass(frozen=True)
class _EssayRow:
    essay_id: str
    grade: str | None


def load_batch(db: Session, batch_id: str) -> BatchRecord:
    """Return a batch's record.

    Raises:
        UnknownBatchError: If the store has no batch of that name.
    """
    row = db.record(_BatchRow, "FROM batches WHERE batch_id = ?", [batch_id])
    if row is None:
        msg = f"No batch '{batch_id}' is in the store: `cj status` lists those that are."
        raise UnknownBatchError(msg)
    essays = db.records(_EssayRow, "FROM essays WHERE batch_id = ? ORDER BY position", [batch_id])
    judges = db.rows(
        "SELECT definition, replaced_at IS NULL AS is_asked FROM judges WHERE batch_id = ?"
        " ORDER BY name, judge_id",
        [batch_id],
    )
    stored = [(Judge.from_definition(row["definition"]), row["is_asked"]) for row in judges]
    loaded = [judge for judge, is_asked in stored if is_asked]
    sampled = db.rows(
        "SELECT essay_id, arg_max(grade, stored_at) AS grade FROM sampled_grades"
        " WHERE batch_id = ? GROUP BY essay_id ORDER BY essay_id",
        [batch_id],
    )
    own_scale = db.one(
        "SELECT content FROM documents WHERE batch_id = ? AND kind = 'scale'", [batch_id]
    )
    return BatchRecord(
        batch_id=batch_id,
        state=row.state,
        end_reason=row.end_reason,
        settings=BatchSettings.model_validate(row.settings),
        content_sha256=row.content_sha256,
        correlation_id=row.correlation_id,
        runner_mode=row.runner_mode,
        metadata=row.metadata,
        essay_ids=tuple(essay.essay_id for essay in essays),
        anchor_grades={e.essay_id: e.grade for e in essays if e.grade is not None},
        judges=tuple(judge for judge in loaded if not judge.is_human),
        people=tuple(judge for judge in loaded if judge.is_human),
        earlier_judges=tuple(judge for judge, is_asked in stored if not is_asked),
        sampled_grades={row["essay_id"]: row["grade"] for row in sampled},
        own_scale=own_scale["content"] if own_scale is not None else None,
        cancel_requested=row.cancel_requested,
        spend_cap_reached=row.spend_cap_reached,
        canary_failed=row.canary_failed,
        nothing_left_to_ask=row.nothing_left_to_ask,
        first_content_sha256=row.first_content_sha256,
    )


def pairs_in_wave(record: BatchRecord) -> int:
    """Return how many pairs one wave may hold."""
    n_essays = len(record.essay_ids)
    if record.settings.all_at_once:
        return max_possible_pairs(n_essays)
    if record.settings.wave_size is None and is_small_net(n_essays, record.rules):
        # A small net is asked in whole passes: waves of one or two pairs would only cost hours.
        return max_possible_pairs(n_essays)
    return pairs_per_wave(record)


def record_of(batch: Batch, judges: Sequence[Judge], runner_mode: RunnerMode) -> BatchRecord:
    """Return the record that a batch will have once it is stored, before anything is requested."""
    documents = {document.kind: document.content for document in batch.documents}
    return BatchRecord(
        batch_id=batch.batch_id,
        state="running",
        end_reason=None,
        settings=batch.settings.values,
        content_sha256=batch.content_sha256,
        correlation_id=batch_correlation_id(batch.batch_id),
        runner_mode=runner_mode,
        metadata={},
        essay_ids=tuple(essay.essay_id for essay in batch.essays),
        anchor_grades={e.essay_id: e.grade for e in batch.essays if e.grade is not None},
        judges=tuple(sorted((j for j in judges if not j.is_human), key=lambda j: j.name)),
        people=tuple(judge for judge in judges if judge.is_human),
        own_scale=documents.get("scale"),
    )


def refuse_rejected(db: Session, batch_id: str) -> None:
    """Say of a batch that was rejected at intake that no step can be taken.

    Raises:
        RejectedBatchError: If it was.
    """
    row = db.one("SELECT state, problems FROM batches WHERE batch_id = ?", [batch_id])
    if row is not None and row["state"] == "rejected":
        raise RejectedBatchError(batch_id, row["problems"] or ())


def batch_correlation_id(batch_id: str) -> str:
    """Return the id that a batch's rows, log lines and artefact have in common."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cj:batch:{batch_id}"))


def judged_pairs(db: Session, batch_id: str, up_to: int | None = None) -> list[JudgedPair]:
    """Return every comparison of a batch that has a verdict, in the order requested.

    Args:
        db: A read session.
        batch_id: The batch.
        up_to: The last wave that counts; None for all.
    """
    return db.records(
        JudgedPair,
        "FROM comparisons WHERE batch_id = $batch AND status = 'succeeded'"
        " AND ($up_to IS NULL OR wave <= $up_to) ORDER BY sequence",
        {"batch": batch_id, "up_to": up_to},
    )


def is_published(db: Session, batch_id: str) -> bool:
    """Return whether a batch's report has been written, and so everything else of it."""
    return db.one("SELECT 1 AS found FROM batch_report WHERE batch_id = ?", [batch_id]) is not None


def current_wave(db: Session, batch_id: str) -> int:
    """Return the number of the last wave planned; 0 before the first."""
    row = db.one(
        "SELECT coalesce(max(wave), 0) AS wave FROM comparison_pairs WHERE batch_id = ?",
        [batch_id],
    )
    return int(row["wave"]) if row else 0


def waves_gone_past(db: Session, batch_id: str) -> list[int]:
    """Return the waves without a decision that others were planned after, in order.

    They are sent together with those; what was decided after each is stored once all have ended.
    """
    rows = db.rows(
        "SELECT DISTINCT wave FROM comparison_pairs p WHERE batch_id = $batch"
        " AND wave < (SELECT max(wave) FROM comparison_pairs WHERE batch_id = $batch)"
        " AND wave > (SELECT coalesce(max(wave), 0) FROM wave_decisions WHERE batch_id = $batch)"
        " ORDER BY wave",
        {"batch": batch_id},
    )
    return [int(row["wave"]) for row in rows]
