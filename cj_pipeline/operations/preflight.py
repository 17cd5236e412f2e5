"""Whether the same inputs were bought before, under another name."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cj_pipeline.ceilings import Ceilings
from cj_pipeline.errors import BatchProblemsError, CJError, TransientError
from cj_pipeline.intake.batch_folder import Batch, read_batch
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.templates import is_draft
from cj_pipeline.operations.examine import look_at_models
from cj_pipeline.operations.preview import Preview, preview_batch
from cj_pipeline.planning.feasibility import Obstacle, comparisons_to_join
from cj_pipeline.planning.obstacles import batch_obstacles, record_obstacles, unknown_links
from cj_pipeline.planning.spending_limits import breached_ceilings, installation, unallowed_judges
from cj_pipeline.provider_jobs.requests import load_texts
from cj_pipeline.providers.base import Provider
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.queries.live_profile import stored_profile
from cj_pipeline.runtime import Runtime
from cj_pipeline.stopping.continuation import completion_denominator
from cj_pipeline.store.session import Session
from cj_pipeline.text import find_hidden

_ROOM_TO_DROP = 2
"""Times the budget that joins all essays, below which dropped pairs are warned of: a judge whose
two orders disagree on half of its pairs leaves just enough."""


@dataclass(frozen=True)
class JudgedBefore:
    """A batch of the same files, settings included, that was taken in under another name."""

    batch_id: str
    state: str
    cost_usd: float

    def told(self) -> str:
        """Return what a person has to know before paying again."""
        return (
            f"the very same files are the batch '{self.batch_id}' ({self.state},"
            f" {self.cost_usd:.4f} USD): give --again, or another --batch-id, to judge and pay for"
            " them again"
        )


def judged_before(db: Session, batch_id: str, content_sha256: str) -> JudgedBefore | None:
    """Return the latest other batch of the same content; runs of a trial do not count."""
    return db.record(
        JudgedBefore,
        """
        SELECT b.batch_id, b.state, coalesce(sum(j.billed_usd), 0) AS cost_usd
        FROM batches b LEFT JOIN provider_jobs j USING (batch_id)
        WHERE b.content_sha256 = $content AND b.batch_id <> $batch AND b.state <> 'rejected'
          AND NOT EXISTS (FROM trial_runs t WHERE t.batch_id = b.batch_id)
        GROUP BY b.batch_id, b.state, b.created_at ORDER BY b.created_at DESC LIMIT 1
        """,
        {"content": content_sha256, "batch": batch_id},
    )


LEAST_FREE_BYTES = 1024**3
"""A large batch's callbacks, artefact and published copy together stay well below."""

Standing = Literal["ready", "warning", "problem"]


@dataclass(frozen=True)
class PreflightItem:
    """One thing that was looked at, how it stands, and what was found.

    `may_pass` marks a problem that lies with a provider that does not answer now: nothing is wrong
    here.
    """

    about: str
    standing: Standing
    finding: str
    may_pass: bool = False


def preflight(
    runtime: Runtime,
    batch: Batch | None = None,
    batch_id: str | None = None,
    *,
    may_repeat: bool = False,
    timeout_s: float = 20.0,
    preview: Preview | None = None,
    asks_providers: bool = True,
) -> list[PreflightItem]:
    """Return how everything stands that a batch needs, or, without one, what every batch needs.

    Args:
        engine: The pipeline's connections.
        batch: A batch that was not handed in yet, as read from its folder.
        batch_id: A batch in the store, instead.
        may_repeat: Whether the same inputs may be judged, and paid for, once more.
        timeout_s: How long a provider has to answer.
        preview: Of `batch`, where there is one already.
        asks_providers: Whether each judge's provider is asked; else only its key is looked for.

    Raises:
        UnknownBatchError: If the store has no batch of that name.
    """
    examined = list(_store(runtime))
    if batch_id is not None:
        with runtime.store.read() as db:
            record = load_batch(db, batch_id)
            texts = load_texts(db, batch_id)
        profile = stored_profile(record.metadata)
        stands = _feasible(record, record_obstacles(runtime, record, profile, texts))
    elif batch is not None:
        try:
            found = preview or preview_batch(runtime, batch)
        except BatchProblemsError as error:
            return [*examined, *_input_problems(error)]
        record = found.record
        judges, profile = (*record.judges, *record.people), stored_profile(record.metadata)
        in_the_way = batch_obstacles(runtime, batch, judges, profile)
        stands = [*_feasible(record, in_the_way), *_costs(found), *_unknown_links(runtime, batch)]
        told = [PreflightItem("inputs", "warning", notice) for notice in batch.notices]
        examined += [_read_whole(record), *told, *_hidden_texts(batch)]
        examined += [
            PreflightItem("installation", "problem", problem)
            for problem in what_the_operator_refuses(runtime, found)
        ]
        examined += _repeats(runtime, found, may_repeat=may_repeat)
    else:
        return examined
    examined += [*_anchors(record), *stands, *_drafts(record)]
    if asks_providers:
        examined += _providers(runtime, record.judges, timeout_s)
    else:
        examined += _keys(runtime, record.judges)
    return examined


def preflight_folder(
    runtime: Runtime,
    folder: Path,
    *,
    explicit: Mapping[str, Any] | None = None,
    batch_id: str | None = None,
    may_repeat: bool = False,
) -> tuple[Batch | None, list[PreflightItem]]:
    """Return the batch in a folder and how everything stands that it needs.

    The batch is None where the folder has problems; they are among what was found.

    Args:
        runtime: The pipeline's connections.
        folder: A batch folder that was not handed in yet.
        explicit: Settings that win over `batch.yaml`.
        batch_id: The batch's name; by default the folder's.
        may_repeat: Whether the same inputs may be judged, and paid for, once more.
    """
    try:
        batch = read_batch(folder, explicit=explicit, batch_id=batch_id)
    except BatchProblemsError as error:
        return None, [*preflight(runtime), *_input_problems(error)]
    return batch, preflight(runtime, batch, may_repeat=may_repeat)


def only_waits(examined: list[PreflightItem]) -> bool:
    """Return whether every problem is that a provider does not answer now."""
    problems = [each for each in examined if each.standing == "problem"]
    return bool(problems) and all(each.may_pass for each in problems)


def is_ready(examined: list[PreflightItem]) -> bool:
    """Return whether nothing that was looked at stands in the way."""
    return all(each.standing != "problem" for each in examined)


def _store(runtime: Runtime) -> Iterator[PreflightItem]:
    try:
        with runtime.store.read() as db:
            db.one("SELECT count(*) FROM batches")
        with runtime.store.write() as db:
            db.one("SELECT count(*) FROM batches")
    except CJError as error:
        yield PreflightItem("store", "problem", str(error))
        return
    yield PreflightItem("store", "ready", "it can be read and written")
    try:
        runtime.published_folder.mkdir(parents=True, exist_ok=True)
        probe = runtime.published_folder / ".preflight"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        told = f"{runtime.published_folder} cannot be written ({error.strerror}): make it writable"
        yield PreflightItem("published files", "problem", told)
        return
    objects = runtime.published.objects
    if objects is not None:
        try:
            objects.put(".preflight", b"")
            objects.delete([".preflight"])
        except CJError as error:
            yield PreflightItem("shared files", "problem", str(error))
            return
        yield PreflightItem("shared files", "ready", f"{objects.address} can be written")
    free = shutil.disk_usage(runtime.home).free
    yield PreflightItem(
        "disk",
        "ready" if free >= LEAST_FREE_BYTES else "warning",
        f"{free / 1024**3:.1f} GiB are free in {runtime.home}",
    )


def _input_problems(error: BatchProblemsError) -> list[PreflightItem]:
    return [PreflightItem("inputs", "problem", problem) for problem in error.problems]


def _read_whole(record: BatchRecord) -> PreflightItem:
    told = (
        f"{len(record.essay_ids)} essays, {len(record.anchor_grades)} of them anchors, read whole;"
        f" {len(record.judges)} judges, with prices"
    )
    return PreflightItem("inputs", "ready", told)


def _hidden_texts(batch: Batch) -> Iterator[PreflightItem]:
    """Yield a warning per text that a judge reads otherwise than a person."""
    texts = [(essay.source_path, essay.text) for essay in batch.essays]
    texts += [(document.source_path, document.content) for document in batch.documents]
    for place, text in texts:
        if (hidden := find_hidden(text)) is not None:
            yield PreflightItem("texts", "warning", f"{place} {hidden.describe()}")


def _repeats(runtime: Runtime, preview: Preview, *, may_repeat: bool) -> Iterator[PreflightItem]:
    record = preview.record
    try:
        with runtime.store.read() as db:
            before = judged_before(db, record.batch_id, record.content_sha256)
            is_known = db.one(
                "SELECT 1 FROM batches WHERE batch_id = ? AND state <> 'rejected'",
                [record.batch_id],
            )
    except CJError:
        return  # told of the store already
    if before is None or is_known is not None:
        return
    if may_repeat:
        mode = record.settings.batching_mode
        usd = sum(cost.expected_usd for cost in preview.costs() if cost.mode == mode)
        yield PreflightItem(
            "repetition",
            "warning",
            f"the very same files are the batch '{before.batch_id}' ({before.state},"
            f" {before.cost_usd:.4f} USD): as '{record.batch_id}' they are judged and paid for"
            f" again, {usd:.4f} USD expected",
        )
    else:
        yield PreflightItem("repetition", "problem", before.told())


def _anchors(record: BatchRecord) -> Iterator[PreflightItem]:
    terms = record.grading_terms
    grades = list(record.anchor_grades.values())
    if terms is None:
        yield PreflightItem("anchors", "ready", "no scale is named: scores and ranks, no grades")
        return
    told = f"{len(grades)} anchors on {len(set(grades))} grades of {terms.scale.name}"
    unknown = sorted(set(grades) - set(terms.scale.steps))
    if unknown:
        found = f"{told}; it does not know {', '.join(unknown)}"
        yield PreflightItem("anchors", "problem", found)
    elif len(set(grades)) >= terms.rules.min_grades or record.settings.link_to:
        yield PreflightItem("anchors", "ready", told)


def _unknown_links(runtime: Runtime, batch: Batch) -> Iterator[PreflightItem]:
    try:
        with runtime.store.read() as db:
            problems = unknown_links(db, batch)
    except CJError:
        return  # told of the store already
    for problem in problems:
        yield PreflightItem("link_to", "problem", problem)


def _feasible(record: BatchRecord, in_the_way: Sequence[Obstacle]) -> list[PreflightItem]:
    """Return whether the batch can end as it asks; what a person wants anyway is a warning."""
    told = [
        PreflightItem(each.about, "warning", f"{each.finding}; it is started anyway, as requested")
        if record.settings.anyway
        else PreflightItem(
            each.about, "problem", f"{each.finding} (--anyway starts it nevertheless)"
        )
        for each in in_the_way
    ]
    if not any(each.about == "budget" for each in told):
        told.insert(0, _enough(record))
    return told


def _drafts(record: BatchRecord) -> Iterator[PreflightItem]:
    for judge in record.judges:
        if is_draft(judge.template.name):
            told = (
                f"its prompt {judge.template.name} is a draft that no native reader has approved:"
                " read it (`cj judge show`), or name another template in the judge's file"
            )
            yield PreflightItem(f"judge {judge.name}", "warning", told)


def _enough(record: BatchRecord) -> PreflightItem:
    n, per_pair = len(record.essay_ids), record.rules.verdicts_per_pair
    ends_at = completion_denominator(n, record.rules)
    shown = f"at most {ends_at} comparisons for {n} essays"
    if per_pair > 1:
        pairs = math.floor(ends_at / per_pair + 1e-9)
        shown += f", which are about {pairs} pairs, each judged {per_pair:g} times"
    joined_by = (
        comparisons_to_join(record) if record.settings.inconsistent_verdicts == "drop" else None
    )
    if joined_by is None or ends_at >= _ROOM_TO_DROP * joined_by:
        return PreflightItem("budget", "ready", shown)
    return PreflightItem(
        "budget",
        "warning",
        f"{shown}; a pair whose two orders disagree is dropped, and {n - 1} pairs have to stay, or"
        " it ends as unscalable, without scores: set max_pairwise_comparisons to at least"
        f" {_ROOM_TO_DROP * joined_by}, or inconsistent_verdicts to halve",
    )


def _costs(preview: Preview) -> Iterator[PreflightItem]:
    settings = preview.record.settings
    chosen = [cost for cost in preview.costs() if cost.mode == settings.batching_mode]
    expected = sum(cost.expected_usd for cost in chosen)
    worst = sum(cost.worst_usd for cost in chosen)
    told = f"{expected:.4f} USD expected, {worst:.4f} at most"
    cap = settings.spend_cap_usd
    if cap is None:
        yield PreflightItem("money", "warning", f"{told}, and no spend_cap_usd is set")
    elif expected > cap:
        yield PreflightItem("money", "warning", f"{told}, of {cap:g} allowed")
    else:
        yield PreflightItem("money", "ready", f"{told}, of {cap:g} allowed")


def what_the_operator_refuses(runtime: Runtime, preview: Preview) -> list[str]:
    """Return a line for each judge and each ceiling of the installation that forbids a batch."""
    try:
        said = installation(runtime)
        refused = unallowed_judges(preview.record.judges, said)
        if said.ceilings == Ceilings():
            return refused  # a plan reads no store where none is asked of it
        with runtime.store.read() as db:
            return refused + breached_ceilings(
                db, said, preview.batch_id, first_wave_usd(preview), runtime.clock()
            )
    except CJError as error:
        return [str(error)]


def first_wave_usd(preview: Preview) -> float:
    """Return the most that a batch's first wave can cost."""
    mode = preview.record.settings.batching_mode
    worst = sum(cost.worst_usd for cost in preview.costs() if cost.mode == mode)
    ends_at = completion_denominator(len(preview.record.essay_ids), preview.record.rules)
    return worst * len(preview.first_wave) / max(1, ends_at)


def _providers(
    runtime: Runtime, judges: tuple[Judge, ...], timeout_s: float
) -> Iterator[PreflightItem]:
    """Yield how each judge's provider answers; all are asked at once, each only for a list."""
    asked = [(judge, _Answer(runtime, judge)) for judge in judges]
    for _, answer in asked:
        answer.start()
    for judge, answer in asked:
        answer.join(timeout_s)
        about = f"judge {judge.name}"
        if answer.is_alive():
            told = f"{judge.provider} did not answer within {timeout_s:g} s"
            yield PreflightItem(about, "problem", told, may_pass=True)
        elif answer.error is not None:
            may_pass = isinstance(answer.error, TransientError)
            yield PreflightItem(about, "problem", str(answer.error), may_pass=may_pass)
        else:
            yield PreflightItem(about, "ready", answer.finding)


def _keys(runtime: Runtime, judges: tuple[Judge, ...]) -> Iterator[PreflightItem]:
    """Yield whether each judge's key is there; nobody is asked, so none can be wrong yet."""
    for judge in judges:
        try:
            runtime.provider(judge)
        except CJError as error:
            yield PreflightItem(f"judge {judge.name}", "warning", str(error))
        else:
            told = f"{_who(judge)}: not asked yet; `cj preflight` asks whether it answers"
            yield PreflightItem(f"judge {judge.name}", "ready", told)


def _who(judge: Judge) -> str:
    who = f"{judge.model} at {judge.provider}"
    return f"{who} (simulated: no grade means anything)" if judge.is_simulated else who


class _Answer(threading.Thread):
    """Ask one provider in a thread that nobody has to wait for."""

    def __init__(self, runtime: Runtime, judge: Judge) -> None:
        super().__init__(daemon=True)
        self.error: CJError | None = None
        self.finding = ""
        self._ask: Callable[[], str] = lambda: _ask(runtime, judge)

    def run(self) -> None:
        try:
            self.finding = self._ask()
        except CJError as error:
            self.error = error


def _ask(runtime: Runtime, judge: Judge) -> str:
    provider: Provider = runtime.provider(judge)
    who = _who(judge)
    if judge.has_jobs:
        _look(provider, runtime)
        return f"{who} answers and takes the key"
    models = look_at_models(provider, judge)
    if models is None:
        return f"{who}: it lists no models, so it is not known to answer: `cj judge examine`"
    return f"{who} answers; {models.finding}"


LOOKS, PAUSE_S = 3, 1.0
"""One answer of a gateway in trouble says nothing yet: it is asked so often, so far apart."""


def _look(provider: Provider, runtime: Runtime) -> None:
    """Ask for the account's list, again where the provider is only in passing trouble."""
    for look in range(1, LOOKS + 1):
        try:
            next(iter(provider.list_jobs(runtime.clock())), None)
        except TransientError as error:
            asked = getattr(error, "retry_after_s", None) or 0.0
            if look == LOOKS or asked > LOOKS * PAUSE_S:
                raise
            time.sleep(max(PAUSE_S, asked))
        else:
            return
