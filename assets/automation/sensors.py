"""What keeps batches moving: the inbox, the provider jobs, and the watchdog.

No sensor decides anything: each polls for a bounded time and requests runs.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from assets.automation.job_states import cursor_of, observations, read_cursor
from assets.automation.jobs import (
    GRADED_AGAIN,
    JOB_FOR,
    collect_wave,
    finish_batch,
    next_wave,
    open_batch,
    rescore_batch,
)
from assets.automation.partitions import BATCHES, batches
from assets.automation.pools import MARK_TAG, announced, run_tags, settings_in
from cj_pipeline.errors import SettingsError, StoreBusyError, TransientError
from cj_pipeline.installation import read_installation
from cj_pipeline.intake.inbox import Arrival, Look, items_in, known_of, write_arrivals
from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.provider_definitions import OWN_FOLDER
from cj_pipeline.operations.inbox import move_opened, unpack_arrival
from cj_pipeline.operations.notify import notify
from cj_pipeline.operations.sensor_ticks import record_tick
from cj_pipeline.progress.follow import StoreWatcher
from cj_pipeline.queries.job_states import changed_job_states
from cj_pipeline.steps.next_step import NextStep, PendingStep, standings
from cj_pipeline.steps.poll import next_due, poll
from cj_pipeline.steps.step_failures import record_failed_run
from cj_pipeline.steps.watchdog import expiring_results, stalled_batches
from cj_pipeline.text import excerpt
from resources.runtime_resource import RuntimeResource

POLL_AT_MOST_S = 20.0
"""A tick's share of the sixty seconds a sensor has."""

WATCH_FOR_S = 4.0
"""How long a tick goes on polling while batches are under way and none can move yet.

The daemon begins a tick every five seconds at best, so that on the average two and a half would
pass before an ended provider job is noticed. Polling on for most of that time costs little:
the store is read only where a job is due or the file has changed; see docs/decisions.
"""

POLL_EVERY_S = 0.1

MAX_FAILURES = 6
"""Of one step in one state; then a person has to step in, and the tick's log says so."""

LONGEST_PAUSE = timedelta(hours=1)
"""Between two attempts at a step that changes nothing, such as calling a provider that is down."""

MAX_RUNS_PER_TICK = 50

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


Tick = Callable[[dg.SensorEvaluationContext, RuntimeResource], dg.SensorResult]


def tick_of(look: Tick) -> Tick:
    """Let a tick that finds the store held say by whom and be skipped, and record one that ends.

    Another tick comes soon: a failed one would only be red.
    """

    name = look.__name__

    @functools.wraps(look)
    def tick(context: dg.SensorEvaluationContext, engine: RuntimeResource) -> dg.SensorResult:
        try:
            result = look(context, engine)
            record_tick(engine.open_for_tick(), name)
        except StoreBusyError as error:
            context.log.warning(
                f"This tick found the store busy; the next one looks again: {error}"
            )
            return dg.SensorResult(skip_reason=f"not looked at: {error}", cursor=context.cursor)
        return result

    return tick


@dg.sensor(
    jobs=[open_batch],
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ingests every batch folder in CJ_HOME/inbox that no longer changes.",
)
@tick_of
def inbox_sensor(context: dg.SensorEvaluationContext, engine: RuntimeResource) -> dg.SensorResult:
    """Request a run for each folder that is due; what lies there and why is in `arrivals`.

    The cursor only says where looking into items at rest goes on; without it nothing is lost.
    """
    connected = engine.open_for_tick()
    inbox = connected.inbox
    inbox.mkdir(parents=True, exist_ok=True)
    try:
        installation = read_installation(connected.home)
        items = items_in(inbox)
        with connected.store.read() as db:
            known = known_of(db)
        if not items and not known.arrivals:
            return _result(context.instance, [], idle="the inbox is empty")
        begin_at = int(context.cursor) if context.cursor and context.cursor.isdigit() else 0
        look = Look(
            known=known,
            now=connected.clock(),
            busy=_batches_with_runs(context.instance) if known.batches or items else set(),
            rest_of=lambda folder: _rest_of(folder, installation.inbox_rest_s),
        )
        looked, next_at = look.at(items, begin_at=begin_at)
        kept: set[str] = set()
        if looked.rows:
            with connected.store.write() as db:
                kept = write_arrivals(db, looked.rows, known)
        due = [(item, row) for item, row in looked.due if row.name in kept]
        for item, row in due:
            if item.kind == "zip":
                unpack_arrival(connected, item, row)
        if not installation.keep_in_inbox:
            move_opened(connected, looked.opened)
    except StoreBusyError:
        raise
    except (TransientError, OSError) as error:
        context.log.warning(f"The inbox was not looked at; the next tick will: {error}")
        return _result(context.instance, [], idle=f"not looked at: {error}", cursor=context.cursor)
    requests = [_open_request(item.path, row) for item, row in due if item.kind == "folder"]
    return _result(context.instance, requests, idle=_told(looked.all_rows), cursor=str(next_at))


def _told(rows: Sequence[Arrival]) -> str:
    """Return what lies in the inbox in one line, and of what waits or was refused, why."""
    held = [row for row in rows if row.state != "opened"]
    if not held:
        return "nothing new"
    told = [f"{row.name} is {row.state}: {row.reason or 'just seen'}" for row in held[:5]]
    more = f"; and {len(held) - 5} more, see `cj inbox`" if len(held) > 5 else ""
    return excerpt("; ".join(told), 1_000) + more


def _rest_of(folder: Path, rest_s: float) -> tuple[float, int | None]:
    """Return how many seconds a folder must be at rest, and how many essays it is to have.

    Only judges that cost money make it wait: what a folder spends on cannot be taken back.
    """
    given = settings_in(folder)
    wanted = given.get("n_essays")
    n_essays = wanted if isinstance(wanted, int) and not isinstance(wanted, bool) else None
    names = given.get("judges", BatchSettings().judges)
    own = folder.parent.parent / OWN_FOLDER
    try:
        judges = [load_judge(str(name), folder / "judges", own) for name in names]
    except (OSError, SettingsError, TypeError, ValueError):
        return 0.0, n_essays  # its run tells what is wrong, and sends nothing
    return (0.0 if all(judge.is_simulated for judge in judges) else rest_s), n_essays


@dg.sensor(
    jobs=[next_wave, collect_wave, finish_batch, rescore_batch],
    minimum_interval_seconds=2,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Polls open provider jobs and requests the run each batch needs next.",
)
@tick_of
def provider_jobs_sensor(
    context: dg.SensorEvaluationContext, engine: RuntimeResource
) -> dg.SensorResult:
    """Poll the providers until a batch can move, for a bounded time; one run for each that can.

    What a batch needs is read from its rows, so nothing is lost with a tick or a daemon.
    """
    connected = engine.open_for_tick()
    watch_until = time.monotonic() + WATCH_FOR_S
    watcher = StoreWatcher(connected.store)
    found: list[PendingStep] = []
    due: datetime | None = None
    while True:
        began = time.monotonic()
        has_changed = watcher.has_changed()
        if has_changed or (due is not None and due <= connected.clock()):
            poll(connected, at_most_s=POLL_AT_MOST_S)
            watcher.has_changed()  # what polling stored is read now: no change at the next check
            with connected.store.read() as db:
                found = standings(db, connected.clock())
                due = next_due(db, connected.clock())
        requests = _requests(context, connected.clock(), found)
        # A slow poll is followed by a longer pause, so that polling never takes most of the time.
        pause = max(POLL_EVERY_S, 2 * (time.monotonic() - began))
        if requests or not found or time.monotonic() + pause > watch_until:
            break
        time.sleep(pause)
    n_waiting = sum(s.step is NextStep.POLL or _waits(s) for s in found)
    return _result(
        context.instance,
        requests,
        idle=f"{len(found)} batches are under way, {n_waiting} of them wait for their providers",
    )


def _requests(
    context: dg.SensorEvaluationContext, now: datetime, found: Sequence[PendingStep]
) -> list[dg.RunRequest]:
    """Return a run for each batch that can move and has none queued or going."""
    ready = [s for s in found if s.step in JOB_FOR and not _waits(s)]
    busy = _batches_with_runs(context.instance) if ready else set()
    ready = [s for s in ready if s.batch_id not in busy]
    attempts = _attempts(context.instance, ready)
    requests: list[dg.RunRequest] = []
    for pending in ready:
        attempt = attempts.get(pending.mark, Attempts())
        if attempt.n_failed >= MAX_FAILURES:
            context.log.error(
                f"Batch {pending.batch_id}: {JOB_FOR[pending.step]} failed {attempt.n_failed} "
                "times without effect. Read its last run, fix the cause, then run the job by "
                "hand."
            )
        elif not attempt.are_too_fresh(now) and len(requests) < MAX_RUNS_PER_TICK:
            requests.append(_step_request(pending, attempt.n))
    return requests


@dg.sensor(
    jobs=[finish_batch],
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends batches that have waited for callbacks longer than they allow.",
)
@tick_of
def watchdog_sensor(
    context: dg.SensorEvaluationContext, engine: RuntimeResource
) -> dg.SensorResult:
    """Request the end of every batch in which nothing has moved for its `stall_after_s`."""
    connected = engine.open_for_tick()
    with connected.store.read() as db:
        stalled = stalled_batches(db, connected.clock())
        expiring = expiring_results(db, connected.clock())
    for batch_id, expiry in expiring:
        context.log.warning(
            f"Batch {batch_id}: uncollected results are deleted by their provider on"
            f" {expiry:%Y-%m-%d}. `cj doctor --fix` collects them."
        )
    requests = [
        dg.RunRequest(
            run_key=f"stalled:{batch.batch_id}:{batch.silent_since.isoformat()}",
            job_name=finish_batch.name,
            partition_key=batch.batch_id,
            run_config={"ops": {"wave_decision": {"config": {"end_if_stalled": True}}}},
        )
        for batch in stalled[:MAX_RUNS_PER_TICK]
    ]
    return _result(context.instance, requests, idle="no batch has stalled")


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the addresses in CJ_HOME/installation.yaml what has happened to batches.",
)
@tick_of
def notification_sensor(
    context: dg.SensorEvaluationContext, engine: RuntimeResource
) -> dg.SensorResult:
    """Record and send what is due; it requests no run. Off while no address is set."""
    try:
        told = notify(engine.open_for_tick())
    except SettingsError as error:
        return _result(context.instance, [], idle=f"No notification is sent: {error}")
    counted = (
        f"{told.n_recorded} notifications are new, {told.n_sent} were sent, {told.n_failed} failed"
    )
    return _result(context.instance, [], idle=counted)


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes each change of a provider job's state, on the asset's page.",
)
@tick_of
def job_states_sensor(
    context: dg.SensorEvaluationContext, engine: RuntimeResource
) -> dg.SensorResult:
    """Look at what the store knows of provider jobs; no provider is called, no run requested."""
    connected = engine.open_for_tick()
    with connected.store.read() as db:
        changed, known = changed_job_states(db, read_cursor(context.cursor), connected.clock())
    return dg.SensorResult(
        skip_reason=f"{len(changed)} provider jobs have another state",
        asset_events=observations(changed),
        cursor=cursor_of(known),
    )


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    monitor_all_code_locations=False,
    description="Records a failed run of a batch that could not record its failure itself.",
)
def failed_runs_sensor(context: dg.RunFailureSensorContext, engine: RuntimeResource) -> None:
    """A run that was killed, or never started, leaves a reason too; a step's own reason stays."""
    run = context.dagster_run
    batch_id = run.tags.get("dagster/partition")
    if batch_id is not None:
        reason = f"run {run.run_id[:8]} of {run.job_name} failed; its page in Dagster says why"
        record_failed_run(engine.open(), batch_id, run.job_name, reason)


ALL_SENSORS = (
    inbox_sensor,
    provider_jobs_sensor,
    watchdog_sensor,
    notification_sensor,
    job_states_sensor,
    failed_runs_sensor,
)


def _result(
    instance: dg.DagsterInstance,
    requests: list[dg.RunRequest],
    *,
    idle: str,
    cursor: str | None = None,
) -> dg.SensorResult:
    """Return what a tick requests, or `idle`, why it requests nothing."""
    names = sorted({request.partition_key for request in requests if request.partition_key})
    new = [name for name in names if not instance.has_dynamic_partition(BATCHES, name)]
    return dg.SensorResult(
        run_requests=requests or None,
        skip_reason=None if requests else idle,
        dynamic_partitions_requests=[batches.build_add_request(new)] if new else [],
        cursor=cursor,
    )


def _open_request(folder: Path, row: Arrival) -> dg.RunRequest:
    """The try and its time are in the key: what passed without effect is asked for again."""
    return dg.RunRequest(
        run_key=f"open:{row.name}:{row.fingerprint}:{row.changed_at.isoformat()}:{row.tries}",
        job_name=open_batch.name,
        partition_key=row.batch_id,
        run_config={"ops": {"essays": {"config": {"folder": str(folder)}}}},
        tags=run_tags(open_batch.name, *announced(folder)),
    )


def _step_request(pending: PendingStep, attempt: int) -> dg.RunRequest:
    job = JOB_FOR[pending.step]
    return dg.RunRequest(
        run_key=f"{job}:{pending.batch_id}:{pending.mark}:{attempt}",
        job_name=job,
        partition_key=pending.batch_id,
        run_config=GRADED_AGAIN if pending.step is NextStep.RESCORE else {},
        tags={MARK_TAG: pending.mark, **run_tags(job, pending.providers, pending.priority)},
    )


def _waits(pending: PendingStep) -> bool:
    return pending.step is NextStep.COLLECT and pending.waits_for_more_jobs


def _batches_with_runs(instance: dg.DagsterInstance) -> set[str]:
    """Return the batches that have a run queued or going: one run per batch at a time."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=_UNFINISHED))
    return {run.tags.get("dagster/partition", "") for run in runs}


@dataclass(frozen=True)
class Attempts:
    """Runs that were tried in one state of a batch, without effect or after it had moved on."""

    n: int = 0
    n_failed: int = 0
    last_ended: datetime | None = None

    def are_too_fresh(self, now: datetime) -> bool:
        """Whether the next has to wait: 15 s after the first, then four times as long each."""
        if self.last_ended is None:
            return False
        pause = timedelta(seconds=15 * 4 ** min(self.n - 1, 6))
        # A clock that was set back since then must not make it wait until it has caught up.
        return timedelta(0) <= now - self.last_ended < min(pause, LONGEST_PAUSE)


def _attempts(instance: dg.DagsterInstance, ready: Sequence[PendingStep]) -> Mapping[str, Attempts]:
    """Return, by mark, what was tried in each batch's present state."""
    if not ready:
        return {}
    records = instance.get_run_records(
        dg.RunsFilter(tags={MARK_TAG: [pending.mark for pending in ready]})
    )
    attempts: dict[str, Attempts] = {}
    for record in records:
        mark = record.dagster_run.tags[MARK_TAG]
        before = attempts.get(mark, Attempts())
        ended = [before.last_ended] if before.last_ended else []
        if record.end_time:
            ended.append(datetime.fromtimestamp(record.end_time, UTC))
        attempts[mark] = Attempts(
            n=before.n + 1,
            n_failed=before.n_failed
            + (record.dagster_run.status is not dg.DagsterRunStatus.SUCCESS),
            last_ended=max(ended, default=None),
        )
    return attempts
