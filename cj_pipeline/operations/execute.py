"""One batch from its folder to its end in one process, with every stage told to the log.

What `cj execute` does, without a terminal. The events, each with `batch_id`, `correlation_id` and
`runner_mode`: `runner_validation_state`, `collector_started`, `collector_progress`,
`comparison_results_hydrated`, `assessment_results_hydrated`, `collector_timeout` or
`collector_finished`, and always last `runner_execution_complete`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from cj_pipeline.batch.options import RunnerMode
from cj_pipeline.checks.batch_checks import what_stops_grades
from cj_pipeline.errors import BatchProblemsError, PreflightError, ProviderUnavailableError
from cj_pipeline.ids import id_for
from cj_pipeline.logs import about_batch
from cj_pipeline.operations.preflight import PreflightItem, only_waits, preflight_folder
from cj_pipeline.operations.preview import Preview
from cj_pipeline.outputs.artefact import WrittenFile
from cj_pipeline.queries.batch_record import batch_correlation_id, is_published, load_batch
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import advance_to_end, go_on
from cj_pipeline.steps.decide import comparison_counts
from cj_pipeline.steps.ingest import Ingested, ingest, ingest_batch, record_rejection
from cj_pipeline.steps.next_step import NextStep
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.publish import publish_artefact
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.stopping.continuation import completion_denominator

log = structlog.get_logger()

_COUNTS_NOTHING = frozenset({NextStep.POLL, NextStep.DECIDE, NextStep.PROJECT})
"""These change no comparison, and on the way to grades others' changes are told at the end."""


@dataclass(frozen=True)
class Progress:
    """How many comparisons of a batch have ended, of how many at the most."""

    submitted: int
    completed: int
    failed: int
    completion_denominator: int

    @property
    def ended(self) -> int:
        """Those with a verdict and those that failed for good."""
        return self.completed + self.failed


@dataclass(frozen=True)
class RunnerResult:
    """What a run came to.

    Attributes:
        batch_id: The batch.
        state: How it stands.
        end_reason: Why it ended; None while it runs.
        partial_data: Whether what is published is not all that was to come.
        timed_out: Whether the run gave up waiting; the batch goes on when asked to.
    """

    batch_id: str
    state: str
    end_reason: str | None
    partial_data: bool
    timed_out: bool


def take_in(
    runtime: Runtime,
    folder: Path,
    *,
    explicit: Mapping[str, Any],
    batch_id: str | None = None,
    may_repeat: bool = False,
    may_return: bool | None = None,
    resume: bool = False,
    on_examined: Callable[[Sequence[PreflightItem]], None] = lambda _: None,
) -> Ingested:
    """Take a batch in once everything it needs is in order; one that is in goes on as it is.

    Args:
        runtime: The pipeline's connections.
        folder: The batch's.
        explicit: Settings given by hand.
        batch_id: The batch's name; by default the folder's.
        may_repeat: Whether files that another batch has may be judged again.
        may_return: Whether a batch that was removed for good may come back; by default as
            `may_repeat`.
        on_examined: Told how everything stands before the batch is taken in.
        resume: Whether judges that gave no verdict in their first answers are asked more.

    Raises:
        PreflightError: With everything that is not in order; nothing was asked.
        ProviderUnavailableError: If all that is wrong is that a provider does not answer now.
        BatchProblemsError: If the batch is in the store with other content or settings.
    """
    name = batch_id or id_for(folder.resolve().name, prefix="batch")
    may_return = may_repeat if may_return is None else may_return
    with about_batch(
        batch_id=name, correlation_id=batch_correlation_id(name), runner_mode="execute"
    ):
        with runtime.store.read() as db:
            is_known = bool(
                db.rows("SELECT 1 FROM batches WHERE batch_id = ? AND state <> 'rejected'", [name])
            )
        batch, examined = (
            (None, [])
            if is_known
            else preflight_folder(
                runtime, folder, explicit=explicit, batch_id=name, may_repeat=may_repeat
            )
        )
        problems = [each for each in examined if each.standing == "problem"]
        standings = Counter(each.standing for each in examined)
        log.info(
            "runner_validation_state",
            is_ready=not problems,
            is_known=is_known,
            n_problems=standings["problem"],
            n_warnings=standings["warning"],
            problems=[f"{each.about}: {each.finding}" for each in problems],
        )
        if problems:
            _record_bad_inputs(runtime, folder, name, problems)
            listed = "\n".join(f"  - {each.about}: {each.finding}" for each in problems)
            if only_waits(examined):
                msg = (
                    f"Batch '{name}' cannot start now; nothing is wrong with it and nothing was"
                    f" requested. Run the same command later:\n{listed}"
                )
                raise ProviderUnavailableError(msg)
            msg = f"Batch '{name}' cannot start; nothing was requested. Fix these:\n{listed}"
            raise PreflightError(msg)
        on_examined(examined)
        if batch is None:
            taken_in = ingest(
                runtime, folder, explicit=explicit, batch_id=name, may_return=may_return
            )
            go_on(runtime, taken_in.batch_id, resume=resume)
            return taken_in
        return ingest_batch(runtime, batch, may_return=may_return)


@contextmanager
def told_preview(name: str, runner_mode: RunnerMode) -> Iterator[Callable[[Preview], None]]:
    """Tell the log how a plan or a dry run begins and ends; give what to call once it is read."""
    correlation_id = batch_correlation_id(name)

    def read(preview: Preview) -> None:
        log.info(
            "runner_validation_state",
            is_ready=True,
            is_known=False,
            n_problems=0,
            n_warnings=0,
            problems=[],
            n_essays=len(preview.record.essay_ids),
        )

    with about_batch(batch_id=name, correlation_id=correlation_id, runner_mode=runner_mode):
        try:
            yield read
        except BatchProblemsError as error:
            problems = list(error.problems)
            log.info(
                "runner_validation_state",
                is_ready=False,
                is_known=False,
                n_problems=len(problems),
                n_warnings=0,
                problems=problems,
            )
            raise
        log.info("runner_execution_complete", state="not requested", submitted=0, cost_usd=0.0)


def ask_first_wave(runtime: Runtime, batch_id: str) -> tuple[int, int]:
    """Ask a batch's first wave; return how many comparisons in how many provider jobs."""
    with _about(runtime, batch_id):
        plan_wave(runtime, batch_id)
        sent = submit_wave(runtime, batch_id)
    return sent.n_requests, sent.n_sent


def run_to_end(
    runtime: Runtime,
    batch_id: str,
    *,
    timeout_s: float | None = None,
    on_step: Callable[[Progress], None] = lambda _: None,
    on_wait: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> RunnerResult:
    """Take a batch to its published end, or as far as it comes within `timeout_s`.

    Where time runs out, the artefact of what is there is written, and says that it is partial;
    nothing is cancelled, and the same call goes on from there. `on_wait` is told what is awaited.
    """
    with _about(runtime, batch_id):
        started = monotonic()
        if timeout_s is not None:
            runtime = replace(runtime, stop_at=time.monotonic() + timeout_s)
        progress = _progress(runtime, batch_id)
        log.info("collector_started", completion_timeout_s=timeout_s, **vars(progress))
        timed_out = False
        for taken in advance_to_end(runtime, batch_id, sleep=sleep):
            before = progress
            if taken.waited or taken.step not in _COUNTS_NOTHING:
                progress = _progress(runtime, batch_id)
            _tell(runtime, batch_id, taken.step, before, progress)
            on_step(progress)
            if taken.waits_for:
                on_wait(taken.waits_for)
            if timeout_s is not None and monotonic() - started > timeout_s:
                with runtime.store.read() as db:
                    timed_out = not is_published(db, batch_id)
                break
        waited = round(monotonic() - started, 3)
        artefact = None
        if timed_out:
            log.warning("collector_timeout", waited_s=waited, **vars(progress))
            artefact = _publish_partial(runtime, batch_id, timeout_s)
        else:
            log.info("collector_finished", waited_s=waited, **vars(progress))
        return _complete(runtime, batch_id, waited, artefact, timed_out=timed_out)


def _about(runtime: Runtime, batch_id: str) -> AbstractContextManager[None]:
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
    return about_batch(
        batch_id=batch_id,
        correlation_id=record.correlation_id,
        runner_mode=record.runner_mode,
    )


def _record_bad_inputs(
    runtime: Runtime, folder: Path, batch_id: str, problems: list[PreflightItem]
) -> None:
    """A rejected batch stays visible with its problems, whoever handed it in."""
    bad = [each.finding for each in problems if each.about == "inputs"]
    if bad:
        record_rejection(runtime, folder, BatchProblemsError(batch_id, bad))


def _progress(runtime: Runtime, batch_id: str) -> Progress:
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        counts = comparison_counts(db, batch_id)
    return Progress(
        counts["submitted"],
        counts["completed"],
        counts["failed"],
        completion_denominator(len(record.essay_ids), record.rules),
    )


def _tell(runtime: Runtime, batch_id: str, step: NextStep, before: Progress, now: Progress) -> None:
    if now != before:
        log.info("collector_progress", **vars(now))
    if step is NextStep.COLLECT:
        log.info(
            "comparison_results_hydrated",
            completed=now.completed - before.completed,
            failed=now.failed - before.failed,
        )
    elif step is NextStep.PROJECT:
        with runtime.store.read() as db:
            row = db.one(
                "SELECT revision, is_graded FROM grading_reports WHERE batch_id = ?"
                " ORDER BY revision DESC LIMIT 1",
                [batch_id],
            )
        log.info("assessment_results_hydrated", **(row or {}))


def _publish_partial(runtime: Runtime, batch_id: str, timeout_s: float | None) -> WrittenFile:
    with runtime.store.write() as db:
        db.execute(
            "UPDATE batches SET metadata = json_merge_patch(metadata, ?) WHERE batch_id = ?",
            [json.dumps({"completion_timeout_s": timeout_s}), batch_id],
        )
    return publish_artefact(runtime, batch_id)


def _complete(
    runtime: Runtime,
    batch_id: str,
    waited_s: float,
    partial: WrittenFile | None,
    *,
    timed_out: bool,
) -> RunnerResult:
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        counts = comparison_counts(db, batch_id)
        failed = (
            what_stops_grades(db, read_history(db, batch_id), runtime.clock())
            if record.state == "succeeded"
            else []
        )
        written = db.one(
            "SELECT path, sha256 FROM run_artefact WHERE batch_id = ? AND runner_mode = ?",
            [batch_id, record.runner_mode],
        )
    result = RunnerResult(
        batch_id=batch_id,
        state=record.state,
        end_reason=record.end_reason,
        partial_data=timed_out or record.state != "succeeded",
        timed_out=timed_out,
    )
    log.info(
        "runner_execution_complete",
        state=result.state,
        end_reason=result.end_reason,
        partial_data=result.partial_data,
        timed_out=timed_out,
        waited_s=waited_s,
        submitted=counts["submitted"],
        completed=counts["completed"],
        failed=counts["failed"],
        cost_usd=_cost(runtime, batch_id),
        failed_checks=[each.name for each in failed],
        artefact=str(partial.path)
        if partial
        else written and str(runtime.published_folder / written["path"]),
        artefact_sha256=partial.sha256 if partial else written and written["sha256"],
    )
    return result


def _cost(runtime: Runtime, batch_id: str) -> float:
    with runtime.store.read() as db:
        row = db.one(
            "SELECT coalesce(sum(billed_usd), 0) AS usd FROM provider_jobs WHERE batch_id = ?",
            [batch_id],
        )
    return float(row["usd"]) if row else 0.0
