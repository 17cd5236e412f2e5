"""What a batch would ask and cost, worked out without storing or sending anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from cj_pipeline.batch.comparisons import (
    PlannedComparison,
    Role,
    comparison_id,
    max_possible_pairs,
)
from cj_pipeline.batch.options import BatchingMode
from cj_pipeline.errors import StoreError
from cj_pipeline.intake.batch_folder import Batch
from cj_pipeline.intake.settings import EarlierBatch
from cj_pipeline.judging.judges import Judge
from cj_pipeline.operations.cost_estimate import (
    NOTHING_SEEN,
    ModeCost,
    cost_by_mode,
    run_pilot,
    time_range,
)
from cj_pipeline.operations.pilot import Calibration
from cj_pipeline.outputs.artefact import WrittenFile, write_artefact
from cj_pipeline.provider_jobs.canary import canary_size
from cj_pipeline.provider_jobs.requests import (
    BatchTexts,
    RequestSpec,
    prompt_for,
    request_line,
    submission_key,
)
from cj_pipeline.queries.batch_record import BatchRecord, load_batch, pairs_per_wave
from cj_pipeline.queries.comparison_graph import empty_graph, with_linked_scores
from cj_pipeline.queries.forecast_plan import PastCalls, past_calls, plan_ahead
from cj_pipeline.queries.live_profile import stored_profile
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import store_batch
from cj_pipeline.steps.plan_wave import chooses_by_scores, store_next_wave
from cj_pipeline.stopping.continuation import (
    completion_denominator,
    is_small_net,
    resampling_passes_allowed,
)
from cj_pipeline.store.base import Store
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.identity import UNKNOWN
from cj_pipeline.store.session import Session

_RELIABILITIES = (0.8, 0.9)
_MISPLACED = (0.2, 0.1)
"""What is foreseen for a batch that sets no target of its own."""

_PRICES_OF_LARGE_WAVES = ((1.0, ""), (2.0, "about 3 %"), (math.inf, "up to a third"))
"""More comparisons to the same ranks, by a wave's pairs over essays, at most: of twice the essays
against half of them (`benchmarks/choosing/warm_starts.py`), and what choosing saves in all."""


@dataclass(frozen=True)
class RequestFile:
    """A request file as it would be uploaded."""

    path: Path
    n_requests: int
    n_bytes: int


@dataclass(frozen=True)
class Preview:
    """A batch's first wave, and the bounds of the whole.

    Attributes:
        record: The batch as the store would hold it.
        first_wave: What would be sent first: the first wave, with those that go out with it.
        asks: The same as requests.
        texts: What judges would read.
        aside: The pipeline's connections, with a store of its own that holds this much.
        placed_on: The batch on whose scale it is to be, and what that one knows of the essays now;
            empty where it has a scale of its own.
        past: What the store has seen of each judge, by its fingerprint.
    """

    record: BatchRecord
    first_wave: tuple[PlannedComparison, ...]
    asks: tuple[RequestSpec, ...]
    texts: BatchTexts
    aside: Runtime
    placed_on: str = ""
    past: Mapping[str, PastCalls] = field(default_factory=dict)

    @property
    def batch_id(self) -> str:
        """The batch's name."""
        return self.record.batch_id

    def facts(self, within_h: float | None = None) -> list[tuple[str, object]]:
        """Return what a person wants to know before anything is spent.

        Args:
            within_h: In how many hours it has to be done; None where that does not matter.
        """
        record, n = self.record, len(self.record.essay_ids)
        ends_at = completion_denominator(n, record.rules)
        return [
            ("essays", n),
            ("of these anchors", len(record.anchor_grades)),
            ("grade scale", record.settings.scale or "none: scores and ranks only"),
            ("batching mode", record.settings.batching_mode),
            ("profile of single calls", record.settings.profile),
            ("possible pairs", max_possible_pairs(n)),
            ("small net", "yes" if is_small_net(n, record.rules) else "no"),
            ("resampling passes allowed", resampling_passes_allowed(n, record.rules)),
            ("budget", record.settings.max_pairwise_comparisons),
            ("ends at the latest after", f"{ends_at} comparisons"),
            (
                "calls at most",
                f"{ends_at * record.settings.max_attempts}, because failed ones are retried",
            ),
            ("first wave", f"{len(self.first_wave)} comparisons{self._sent_together}"),
            ("waves at most", self._waves_at_most),
            ("time at most", self._time(self._n_rounds)),
            *(
                []
                if within_h is None
                else [(f"within {within_h:g} h", self._to_be_in_time(within_h))]
            ),
            *([("placed on", self.placed_on)] if self.placed_on else []),
            *self._forecast(),
            *self._canaries(),
            ("spend cap USD", record.settings.spend_cap_usd or "none"),
        ]

    @property
    def _n_rounds(self) -> int:
        """How often the batch may send something and wait for it."""
        ends_at = completion_denominator(len(self.record.essay_ids), self.record.rules)
        return -(-ends_at // max(1, len(self.first_wave)))

    @property
    def _n_together(self) -> int:
        """How many waves are sent first."""
        return max((each.wave for each in self.first_wave), default=1)

    @property
    def _sent_together(self) -> str:
        return f", {self._n_together} waves sent together" if self._n_together > 1 else ""

    @property
    def _waves_at_most(self) -> int | str:
        """How many waves there may be, and the price where each is chosen far ahead of answers."""
        n_waves = self._n_rounds * self._n_together
        ratio = pairs_per_wave(self.record) / len(self.record.essay_ids)
        price = self._price_of_waves(ratio)
        if not price or self._n_rounds < 2:
            return n_waves
        return (
            f"{n_waves}, each of {ratio:.1f} times as many pairs as essays; waves that large take"
            f" {price}"
        )

    def _price_of_waves(self, ratio: float) -> str:
        """Return in words what waves of so many pairs an essay cost; empty where nothing."""
        share = next(share for most, share in _PRICES_OF_LARGE_WAVES if ratio <= most)
        if not share or not chooses_by_scores(self.record):
            return ""
        return f"{share} more comparisons to the same ranks"

    def _time(self, n_rounds: int) -> str:
        """Return how long so many rounds take in the batch's mode, by its slowest judge."""
        slowest = self._slowest(self.record.settings.batching_mode)
        if slowest is None:
            return "not known"
        low, high = (each * n_rounds / max(1, self._n_rounds) for each in slowest.seconds)
        return f"{time_range(low, high)} ({slowest.time_from})"

    def _slowest(self, mode: BatchingMode) -> ModeCost | None:
        """Return the judge that takes longest in a mode; None where none has it."""
        chosen = [cost for cost in self.costs() if cost.mode == mode]
        return max(chosen, key=lambda cost: cost.seconds[1], default=None)

    def _to_be_in_time(self, hours: float) -> str:
        """Return what to set so that the batch is done in time, and what that costs."""
        slowest = self._slowest(self.record.settings.batching_mode)
        if slowest is None:
            return "not known"
        most_s = slowest.seconds[1]
        if most_s <= hours * 3600:
            return f"as it is: at most {time_range(most_s, most_s)}"
        n_fit = int(hours * 3600 * self._n_rounds / most_s)
        if slowest.mode == "provider_batch_api" and n_fit >= 1:
            pairs = self._n_rounds * pairs_per_wave(self.record) / n_fit
            price = self._price_of_waves(pairs / len(self.record.essay_ids))
            return f"set waves: {n_fit}{': ' + price if price else ''}"
        live = self._slowest("per_request")
        if live is None or live.mode == slowest.mode or live.seconds[1] > hours * 3600:
            return f"not surely: it may take {time_range(most_s, most_s)}"
        ratio = live.expected_usd / slowest.expected_usd if slowest.expected_usd else 1.0
        return (
            f"set llm_batching_mode: per_request: {time_range(*live.seconds)}, at {ratio:.1f} times"
            " the price"
        )

    def _canaries(self) -> list[tuple[str, object]]:
        sizes = {
            judge.name: size
            for judge in self.record.judges
            if (size := canary_size(self.record.settings, judge))
        }
        return [
            ("sent ahead, if the judge is new here", f"{size} single calls to {name}")
            for name, size in sizes.items()
        ]

    def _forecast(self) -> list[tuple[str, object]]:
        """Return what it should take to be as precise as the batch asks, or might ask."""
        if not self.first_wave:
            return []
        from cj_pipeline.batch.options import PrecisionTargets, goal_of
        from cj_pipeline.stopping.forecast import forecast_at_plan

        rule = self.record.settings.precise
        asked = [("precise enough after about", rule)] if rule is not None else []
        might = [
            (f"would reach reliability {value:.2f} after", PrecisionTargets(reliability=value))
            for value in _RELIABILITIES
        ]
        if goal_of(self.record.settings.goal).is_one_cut:
            might = [
                (f"would have {value:.0%} misplaced after", PrecisionTargets(misplaced=value))
                for value in _MISPLACED
            ]
        plan = plan_ahead(self.record, self._usd_per_comparison)
        ends_at = completion_denominator(len(self.record.essay_ids), self.record.rules)
        told: list[tuple[str, object]] = []
        for name, each in asked or might:
            forecast = forecast_at_plan(len(self.record.essay_ids), each, plan)
            if forecast is not None:
                words = forecast.in_words(ends_at)
                told.append((name, f"{words}; {self._time(forecast.waves)}"))
        return told

    @property
    def _usd_per_comparison(self) -> float:
        """What a comparison should cost in the batch's mode, on average over its judges."""
        mode = self.record.settings.batching_mode
        costs = [
            cost.expected_usd / max(cost.n_comparisons, 1)
            for cost in self.costs()
            if cost.mode == mode
        ]
        return sum(costs) / max(len(costs), 1)

    def costs(self) -> list[ModeCost]:
        """Return what each judge would cost, and how long it takes, in each mode there is."""
        return self._costs

    @cached_property
    def _costs(self) -> list[ModeCost]:
        workers = stored_profile(self.record.metadata).workers
        return [
            cost
            for judge in self.record.judges
            for cost in cost_by_mode(
                judge,
                self._asks_like(judge),
                self._most_comparisons(judge),
                workers,
                n_waves=self._n_rounds,
                past=self.past.get(judge.judge_id, NOTHING_SEEN),
            )
        ]

    def pilot(self, runtime: Runtime, n_calls: int) -> list[tuple[Judge, Calibration]]:
        """Make up to `n_calls` live calls per judge, and return what they say of the whole.

        What they cost is stored by `runtime`, where an installation's ceilings find it.

        Raises:
            SettingsError: If fewer than two calls told their usage.
            TransientError: If a provider did not answer.
            CeilingReachedError: If the operator does not allow a judge, or so much.
        """
        workers = stored_profile(self.record.metadata).workers
        self.aside.home.mkdir(parents=True, exist_ok=True)
        return [
            (
                judge,
                run_pilot(
                    runtime,
                    self.aside.provider(judge),
                    judge,
                    self._asks_like(judge)[:n_calls],
                    self._most_comparisons(judge),
                    mode=self.record.settings.batching_mode,
                    concurrency=workers,
                ),
            )
            for judge in self.record.judges
        ]

    def _most_comparisons(self, judge: Judge) -> int:
        """Return how many comparisons one judge may be asked; a panel shares the budget."""
        record = self.record
        ends_at = completion_denominator(len(record.essay_ids), record.rules)
        share = record.shares[record.judges.index(judge)]
        return math.ceil(ends_at * share / record.rules.verdicts_per_pair - 1e-9)

    def _asks_of(self, judge: Judge) -> list[RequestSpec]:
        return [ask for ask in self.asks if ask.judge_id == judge.judge_id]

    def _asks_like(self, judge: Judge) -> list[RequestSpec]:
        """Return a judge's part of the first wave, or all of it where a small share has none."""
        return self._asks_of(judge) or [
            _ask(self.record, self.texts, replace(planned, judge_id=judge.judge_id))
            for planned in self.first_wave or (self._some_pair(judge),)
        ]

    def _some_pair(self, judge: Judge) -> PlannedComparison:
        """Return what a comparison would be where the budget allows not even one."""
        first, second = self.record.essay_ids[:2]
        return PlannedComparison(
            batch_id=self.batch_id,
            comparison_id=comparison_id(self.batch_id, 1),
            wave=1,
            sequence=1,
            judge_id=judge.judge_id,
            essay_a=first,
            essay_b=second,
            role=Role.COVERAGE,
            resampling_pass=0,
        )

    def write_requests(self, folder: Path) -> list[RequestFile]:
        """Write the first wave's request files, one per judge, and return what was written."""
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for judge in self.record.judges:
            asks = self._asks_of(judge)
            if not asks:
                continue
            provider = self.aside.provider(judge)
            key = submission_key(self.batch_id, judge.judge_id, asks, UNKNOWN)
            lines = [request_line(provider, judge, ask, key) for ask in asks]
            path = folder / f"requests.{judge.judge_id}.jsonl"
            path.write_bytes(b"".join(lines))
            written.append(RequestFile(path, len(lines), sum(map(len, lines))))
        return written

    def write_artefact(self, into: Path, *, requests: Sequence[Path] = ()) -> WrittenFile:
        """Write what is known of the batch before anything leaves.

        Args:
            into: The folder to write to.
            requests: Request files that lie in `into`, for the manifest.
        """
        with self.aside.store.read() as db:
            return write_artefact(
                db,
                self.batch_id,
                self.record.runner_mode,
                into,
                generated_at=self.aside.clock(),
                environment=self.aside.run_environment,
                requests=requests,
            )


def preview_batch(
    runtime: Runtime, batch: Batch, *, runner_mode: Literal["plan", "dry-run"] = "plan"
) -> Preview:
    """Return what a batch would ask first and cost at the most.

    The same steps as in earnest, on a store that is forgotten: so the two cannot differ.

    Args:
        runtime: The pipeline's connections; its store is only looked at.
        batch: As read from its folder.
        runner_mode: How far this goes, for the artefact.

    Raises:
        BatchProblemsError: With everything that is wrong with its judges or its profile.
        StoreError: If it starts from an earlier batch and nothing is published.
    """
    aside = replace(runtime, store=FileStore.in_memory())
    _copy_earlier(runtime, batch, aside.store)
    store_batch(aside, batch, runner_mode=runner_mode)
    first_wave = store_next_wave(aside, batch.batch_id).comparisons
    with aside.store.read() as db:
        record = load_batch(db, batch.batch_id)
        placed_on = _placed_on(db, record)
    texts = BatchTexts(
        instructions=batch.document("instructions"),
        rubric=batch.document("rubric"),
        essays={essay.essay_id: essay.shown_text for essay in batch.essays},
    )
    asks = tuple(_ask(record, texts, planned) for planned in first_wave)
    with runtime.store.read() as db:
        past = {judge.judge_id: past_calls(db, judge) for judge in record.judges}
    return Preview(record, first_wave, asks, texts, aside, placed_on, past)


def _ask(record: BatchRecord, texts: BatchTexts, planned: PlannedComparison) -> RequestSpec:
    shown = {
        "comparison_id": planned.comparison_id,
        "essay_a": planned.essay_a,
        "essay_b": planned.essay_b,
    }
    return RequestSpec(
        batch_id=record.batch_id,
        wave=planned.wave,
        comparison_id=planned.comparison_id,
        attempt=1,
        judge_id=planned.judge_id,
        prompt=prompt_for(record, record.judge(planned.judge_id), texts, shown),
    )


_NOT_OF_EARLIER = frozenset({"callbacks", "attempts", "provider_jobs", "progress_events"})
"""Tables that choosing a later batch's pairs never reads, and that are the largest."""


def _copy_earlier(runtime: Runtime, batch: Batch, store: Store) -> None:
    """Bring what is published of the batches that a batch starts from to another store."""
    settings = batch.settings.values
    names = set(settings.link_to)
    if isinstance(settings.head_start, EarlierBatch):
        names.add(settings.head_start.batch)
    names.discard(batch.batch_id)
    if not names:
        return
    try:
        connection = runtime.store.connect()
    except StoreError:
        if isinstance(settings.head_start, EarlierBatch):
            raise
        return  # `_placed_on` says that the batch linked to is not there
    with closing(connection), store.write() as db:
        for table in db.rows(
            "SELECT table_name FROM duckdb_columns() WHERE column_name = 'batch_id'"
            " AND table_name IN (SELECT table_name FROM duckdb_tables())"
        ):
            if table["table_name"] not in _NOT_OF_EARLIER:
                found = connection.execute(
                    f"FROM {table['table_name']} WHERE list_contains(?, batch_id)",
                    [sorted(names)],
                )
                db.insert(table["table_name"], found.to_arrow_table())


def _placed_on(db: Session, record: BatchRecord) -> str:
    """Return on whose scale the batch is to be, and what is known there of its essays."""
    if not record.settings.link_to:
        return ""
    earlier = record.settings.link_to[-1]
    if db.one("SELECT 1 FROM batches WHERE batch_id = ?", [earlier]) is None:
        return f"{earlier}, which is not in the store yet: submit it first"
    if not chooses_by_scores(record):
        return f"{earlier}, at the end; {record.settings.strategy} pairs leave it aside"
    n_known = len(with_linked_scores(db, record, empty_graph(record), None).known_ids)
    if not n_known:
        return f"{earlier}: nothing is known there yet of these essays"
    told = f"{earlier}, which has placed {n_known} of the essays"
    return f"{told}; what follows is foreseen without that"
