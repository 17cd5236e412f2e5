"""What Prometheus scrapes, read from the store's rows: right whichever process died in between.

The metrics themselves are in `catalogue`. A scrape is one short read of the live store, so it
shows batches as they move and not as they were last published; writers go first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cj_pipeline.ceilings import Ceilings
from cj_pipeline.errors import CJError, StoreBusyError, UnknownBatchError
from cj_pipeline.metrics.catalogue import METRICS, STORE_AVAILABLE, STORE_HELD, Metric
from cj_pipeline.text import without_folders

if TYPE_CHECKING:
    from prometheus_client import Metric as MetricFamily
    from starlette.applications import Starlette

    from cj_pipeline.store.base import Store
    from cj_pipeline.store.session import Session

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `render_metrics` returns."""

NO_CEILINGS = Ceilings()

SCRAPE_WAIT_S = 5.0
"""Prometheus gives a scrape ten seconds, and is then told nothing at all."""

_EVERY_BATCH = "*"


@dataclass(frozen=True)
class Series:
    """One value of a metric, with its labels' values in the metric's order.

    Attributes:
        labels: The labels' values.
        value: The count or figure; for a histogram the sum of everything measured.
        buckets: How many lie at or below each of the metric's bounds, then all of them; empty
            for anything but a histogram.
    """

    labels: tuple[str, ...]
    value: float
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reading:
    """A metric and all its series at one moment, in order of their labels."""

    metric: Metric
    series: tuple[Series, ...]


def read_metrics(
    db: Session,
    *,
    now: datetime,
    batch_id: str | None = None,
    metrics: Sequence[Metric] | None = None,
    ceilings: Ceilings = NO_CEILINGS,
) -> list[Reading]:
    """Return what each metric says now, of the whole store or of one batch.

    Args:
        db: One read of the store, so that all figures are of the same moment.
        now: What ages are counted to; aware of its zone.
        batch_id: The batch, without the metrics that no batch has; everything in the store if left
            out, and then without the metrics that only mean something for one batch.
        metrics: Those wanted; all of that scope if left out.
        ceilings: What the operator lets the installation spend.
    """
    if metrics is None:
        metrics = [
            m for m in METRICS if (not m.of_one_batch if batch_id is None else "$batch" in m.sql)
        ]
    values = {
        "batch": _EVERY_BATCH if batch_id is None else batch_id,
        "now": now,
        "usd_per_batch": ceilings.usd_per_batch,
        "usd_per_day": ceilings.usd_per_day,
    }
    return [Reading(metric, _series(db, metric, values)) for metric in metrics]


def render_metrics(
    store: Store, *, batch_id: str | None = None, ceilings: Ceilings = NO_CEILINGS
) -> str:
    """Return all metrics in Prometheus's text format; serve it as `CONTENT_TYPE`.

    See `current_readings` for arguments and errors.
    """
    return exposition(current_readings(store, batch_id=batch_id, ceilings=ceilings))


def current_readings(
    store: Store, *, batch_id: str | None = None, ceilings: Ceilings = NO_CEILINGS
) -> list[Reading]:
    """Return what every metric says now.

    Args:
        store: Looked at once, for as long as counting takes.
        batch_id: Of this batch alone.
        ceilings: What the operator lets the installation spend.

    Raises:
        UnknownBatchError: If the store has no batch of that name.
        StoreBusyError: If writers kept the store busy for too long.
        StoreError: If it cannot be used as it is.
    """
    with store.read() as db:
        if batch_id is not None and not db.rows(
            "SELECT 1 FROM batches WHERE batch_id = ?", [batch_id]
        ):
            msg = f"No batch '{batch_id}' is in the store: `cj status` lists those that are."
            raise UnknownBatchError(msg)
        return read_metrics(db, now=datetime.now(UTC), batch_id=batch_id, ceilings=ceilings)


def scraped_metrics(store: Store, ceilings: Ceilings = NO_CEILINGS) -> str:
    """Return all metrics for a scrape; while others hold the store, only that, and who they are.

    Raises:
        StoreError: If the store cannot be used as it is.
    """
    try:
        return render_metrics(store.waiting(SCRAPE_WAIT_S), ceilings=ceilings)
    except StoreBusyError as error:
        holders = [Series((program, str(pid)), 1.0) for program, pid in error.holders]
        return exposition(
            [
                Reading(STORE_AVAILABLE, (Series((), 0.0),)),
                Reading(STORE_HELD, tuple(holders)),
            ]
        )


def exposition(readings: Sequence[Reading]) -> str:
    """Return readings in Prometheus's text format."""
    from prometheus_client import generate_latest

    return generate_latest(_Collector(readings)).decode()


def metrics_app(store: Store, ceilings: Ceilings = NO_CEILINGS) -> Starlette:
    """Return an ASGI application that answers `/metrics`, for a Prometheus to scrape.

    Where the store cannot be read it answers 503 with the reason, which Prometheus shows as a
    target that is down: no figure is better than an old one. While others hold the store, the only
    figures are that, and who they are.
    """
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    # A plain function: Starlette runs it in a thread, so that a scrape that waits holds up none.
    def scrape(_: Request) -> Response:
        try:
            return Response(scraped_metrics(store, ceilings), media_type=CONTENT_TYPE)
        except CJError as error:
            reason = without_folders(str(error), [store.home, Path.home()])
            return PlainTextResponse(f"{reason}\n", status_code=503)

    return Starlette(routes=[Route("/metrics", scrape)])


def _series(db: Session, metric: Metric, values: Mapping[str, Any]) -> tuple[Series, ...]:
    wanted = {name: value for name, value in values.items() if f"${name}" in metric.sql}
    if metric.kind == "histogram":
        found = _histograms(db, metric, wanted)
    else:
        found = {}
        for row in db.rows(metric.sql, wanted):
            labels = _labels(metric, row)
            before = found[labels].value if labels in found else 0.0
            found[labels] = Series(labels, before + float(row["value"]))
    found = _bounded(found, len(metric.labels))
    for labels in metric.always:
        found.setdefault(labels, Series(labels, 0.0))
    return tuple(found[labels] for labels in sorted(found))


MOST_SERIES = 500
"""Of one metric: people name models and trials, and Prometheus keeps every series it has seen."""
MOST_CHARACTERS = 100
OTHER = "(other)"


def _bounded(
    found: Mapping[tuple[str, ...], Series], n_labels: int
) -> dict[tuple[str, ...], Series]:
    """Return the series with those beyond the most there may be added up as one.

    Which are kept goes by their names, so that the one sum only ever takes more in.
    """
    kept: dict[tuple[str, ...], Series] = {}
    for place, given in enumerate(sorted(found)):
        labels = given if place < MOST_SERIES else (OTHER,) * n_labels
        value, buckets = found[given].value, found[given].buckets
        if labels in kept:
            value += kept[labels].value
            buckets = tuple(map(sum, zip(kept[labels].buckets, buckets, strict=True)))
        kept[labels] = Series(labels, value, buckets)
    return kept


def _histograms(
    db: Session, metric: Metric, values: Mapping[str, Any]
) -> dict[tuple[str, ...], Series]:
    """Return each series counted into buckets by the database, not row by row here."""
    columns = "".join(f"{label}, " for label in metric.labels)
    rows = db.rows(
        f"SELECT {columns} list_position(list_transform($bounds, lambda b: value <= b), TRUE)"  # noqa: S608
        f" AS bucket, count(*) AS n, sum(value) AS total FROM ({metric.sql}) GROUP BY ALL",
        {**values, "bounds": list(metric.bounds)},
    )
    counts: dict[tuple[str, ...], list[int]] = {}
    totals: dict[tuple[str, ...], float] = {}
    for row in rows:
        labels = _labels(metric, row)
        buckets = counts.setdefault(labels, [0] * (len(metric.bounds) + 1))
        place = len(metric.bounds) if row["bucket"] is None else row["bucket"] - 1
        for i in range(place, len(buckets)):
            buckets[i] += row["n"]
        totals[labels] = totals.get(labels, 0.0) + float(row["total"])
    return {labels: Series(labels, totals[labels], tuple(counts[labels])) for labels in counts}


def _labels(metric: Metric, row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[label])[:MOST_CHARACTERS] for label in metric.labels)


class _Collector:
    """Readings as the Prometheus client's exposition takes them."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[MetricFamily]:
        """Yield one family per metric."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        for reading in self._readings:
            metric = reading.metric
            if metric.kind == "histogram":
                histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
                bounds = [*(f"{bound:g}" for bound in metric.bounds), "+Inf"]
                for series in reading.series:
                    histogram.add_metric(
                        series.labels, list(zip(bounds, series.buckets, strict=True)), series.value
                    )
                yield histogram
                continue
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for series in reading.series:
                family.add_metric(series.labels, series.value)
            yield family
