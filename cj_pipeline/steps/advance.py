"""The engine turned by hand: take the next step of a batch until there is none.

Dagster's jobs call the same steps one by one; this is what `cj execute` uses instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.errors import OutOfCreditError, TransientError
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.holds import held_judges, release
from cj_pipeline.queries.batch_record import is_published
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.decide import fit_and_decide
from cj_pipeline.steps.next_step import NextStep, next_step, what_is_awaited
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import next_poll_due, poll
from cj_pipeline.steps.preload import import_ahead
from cj_pipeline.steps.project import project
from cj_pipeline.steps.publish import publish
from cj_pipeline.steps.rescore import rescore
from cj_pipeline.steps.step_failures import failing_step, recorded
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.steps.watchdog import end_stalled, has_stalled
from cj_pipeline.store.session import Session

LEAST_PAUSE_S = 0.05

STEP_NAMES = {
    NextStep.PLAN: "provider_jobs",
    NextStep.SUBMIT: "provider_jobs",
    NextStep.COLLECT: "comparisons",
    NextStep.DECIDE: "wave_decision",
    NextStep.PROJECT: "grade_projections",
    NextStep.PUBLISH: "batch_report",
    NextStep.RESCORE: "essay_scores",
}
"""Each step by the asset that it ends with: a failure has one name, whoever took the step."""


@dataclass(frozen=True)
class StepTaken:
    """One step that was taken.

    Attributes:
        step: Which.
        waited: Whether there was nothing to do but wait.
        waits_for: For what, in words; empty where it did not wait.
    """

    step: NextStep
    waited: bool
    waits_for: str = ""


def take_next_step(runtime: Runtime, batch_id: str) -> StepTaken:
    """Take the next step of a batch; killed half-way, it is taken again."""
    with runtime.store.read() as db:
        step = next_step(db, batch_id, runtime.clock())
        # A batch may have ended, and been published, before its last results come home.
        was_published = step is NextStep.COLLECT and is_published(db, batch_id)
        failing = failing_step(db, batch_id)
    name = STEP_NAMES.get(step)
    if name is None:
        waited = _take(runtime, batch_id, step)
    else:
        with recorded(runtime, batch_id, name, failed_before=failing == name):
            waited = _take(runtime, batch_id, step)
    if was_published and _is_published(runtime, batch_id):
        publish(runtime, batch_id)  # else verdicts came: they are graded first
    if not waited:
        return StepTaken(step, waited)
    with runtime.store.read() as db:
        _raise_if_a_person_is_waited_for(db, batch_id, runtime.clock())
        return StepTaken(step, waited, what_is_awaited(db, batch_id, runtime.clock()))


def _take(runtime: Runtime, batch_id: str, step: NextStep) -> bool:
    """Take a step; return whether there was nothing to do but wait."""
    match step:
        case NextStep.PLAN:
            plan_wave(runtime, batch_id)
            submit_wave(runtime, batch_id)
        case NextStep.SUBMIT:
            return not submit_wave(runtime, batch_id).n_sent
        case NextStep.POLL:
            return batch_id not in poll(runtime, batch_id=batch_id).batches_with_ended_jobs
        case NextStep.COLLECT:
            collect_wave(runtime, batch_id)
        case NextStep.DECIDE:
            fit_and_decide(runtime, batch_id)
        case NextStep.PROJECT:
            project(runtime, batch_id)
        case NextStep.PUBLISH:
            publish(runtime, batch_id)
        case NextStep.RESCORE:
            rescore(runtime, batch_id)
        case NextStep.NOTHING:
            pass
    return False


def _is_published(runtime: Runtime, batch_id: str) -> bool:
    with runtime.store.read() as db:
        return is_published(db, batch_id)


def _raise_if_a_person_is_waited_for(db: Session, batch_id: str, now: datetime) -> None:
    """Stop whoever waits for a batch of which nothing goes on before somebody has acted.

    Raises:
        OutOfCreditError: If all that is left waits for an account to be paid for.
        JudgeHeldError: If it waits for a decision about a judge.
    """
    at_work = db.one(
        "SELECT 1 AS found FROM v_job_phases WHERE batch_id = ? AND phase <> 'done'"
        " AND waiting_for IS DISTINCT FROM 'credit'",
        [batch_id],
    )
    if at_work is not None:
        return
    for error in held_judges(db, batch_id, now).values():
        raise error
    unpaid = db.one(
        "SELECT error FROM v_job_phases WHERE batch_id = ? AND phase = 'unsent'"
        " AND waiting_for = 'credit'",
        [batch_id],
    )
    if unpaid is not None:
        msg = (
            f"The provider took a job of batch '{batch_id}' and ended it unpaid: {unpaid['error']}"
            " Add credit to the account or raise its limit, then run the same command: nothing is"
            " lost."
        )
        raise OutOfCreditError(msg)


def go_on(runtime: Runtime, batch_id: str, *, resume: bool = False) -> None:
    """Take up a batch that waited for a person: whoever runs it again has seen to it.

    What waited for a key or for credit is tried at once.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        resume: Whether judges that gave no verdict are asked more all the same.
    """
    now = runtime.clock()
    words = [WaitingFor.CREDIT, *([WaitingFor.PERSON] if resume else [])]
    with runtime.store.write() as db:
        ledger.send_what_waited(db, batch_id, now)
        release(db, batch_id, now, words)


def advance_to_end(
    runtime: Runtime,
    batch_id: str,
    *,
    pause_s: float = 2.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[StepTaken]:
    """Yield each step taken until the batch is published; pauses where there is only waiting."""
    while True:
        try:
            taken = take_next_step(runtime, batch_id)
        except TransientError as error:
            taken = StepTaken(NextStep.POLL, waited=True, waits_for=str(error))
        if taken.step is NextStep.NOTHING:
            return
        yield taken
        if taken.waited:
            with runtime.store.read() as db:
                is_stalled = has_stalled(db, batch_id, runtime.clock())
                due = next_poll_due(db, batch_id)
            if is_stalled:
                end_stalled(runtime, batch_id)
            # Looking before a job's next look is due would find nothing; looking later loses time.
            left = pause_s if due is None else (due - runtime.clock()).total_seconds()
            pause = min(pause_s, left)
            sleep(max(LEAST_PAUSE_S, pause - import_ahead(pause)))
