"""A user's own assertions: what must come out of a batch, in the words of its metrics.

In `batch.yaml`, or in the settings of a trial, each is a line or the same thing spelled out:

    assertions:
      - cj_llm_requests_total{batching_mode="provider_batch_api"} >= 1
      - {metric: cj_batch_reliability, labels: {estimate: empirical_bayes},
         comparison: ">=", value: 0.8, severity: warning}

They are judged when the batch has ended; `steps.batch_checks` judges them, with the standard ones.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cj_pipeline.ids import unknown
from cj_pipeline.metrics.catalogue import METRICS, Metric

if TYPE_CHECKING:
    from cj_pipeline.metrics.readings import Reading

Comparison = Literal[">=", "<=", "==", "!=", ">", "<"]

_COMPARE: Mapping[Comparison, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}

_FORM = re.compile(
    r"\s*(?P<metric>[a-zA-Z_:][\w:]*)\s*(?:\{(?P<labels>(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})?"
    r"\s*(?P<comparison>>=|<=|==|!=|>|<)\s*(?P<value>\S+)\s*"
)
_LABEL = re.compile(r"\s*(?P<name>[a-zA-Z_]\w*)\s*=\s*\"(?P<value>(?:[^\"\\]|\\.)*)\"\s*(?:,|$)")
_ESCAPED = re.compile(r"\\(.)")

_OF_HISTOGRAM = ("_count", "_sum")


class OwnAssertion(BaseModel):
    """A figure of a batch and what it is compared with.

    Attributes:
        metric: One of `cj metrics BATCH`; a histogram's with `_count` or `_sum` behind its name.
        labels: Only the series with these values count; all of them if left out.
        comparison: How the figure must compare with the value.
        value: What it is compared with.
        severity: `error` if the batch may give no grades without it, `warning` if the operator
            should check.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    labels: Mapping[str, str] = Field(default_factory=dict)
    comparison: Comparison
    value: Annotated[float, Field(allow_inf_nan=False)]
    severity: Literal["error", "warning"] = "error"

    @model_validator(mode="before")
    @classmethod
    def _from_line(cls, given: Any) -> Any:
        return _parsed(given) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _is_of_a_known_figure(self) -> OwnAssertion:
        problems = list(_problems(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def read(cls, line: str) -> OwnAssertion:
        """Return the assertion a line states.

        Raises:
            ValueError: If it states none, or one of an unknown figure.
        """
        return cls.model_validate(line)

    def __str__(self) -> str:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.labels.items())
        selected = f"{{{labels}}}" if labels else ""
        return f"{self.metric}{selected} {self.comparison} {self.value:g}"

    @property
    def known_metric(self) -> Metric:
        """The metric it is about."""
        return _KNOWN[self.metric]

    def figure(self, reading: Reading) -> float | None:
        """Return the figure it is judged by; None where the batch has no such figure (yet).

        Args:
            reading: Of its metric, for the batch.
        """
        metric = reading.metric
        wanted = {metric.labels.index(name): value for name, value in self.labels.items()}
        found = [
            float(series.buckets[-1]) if self.metric.endswith("_count") else series.value
            for series in reading.series
            if all(series.labels[place] == value for place, value in wanted.items())
        ]
        # Nothing counted is a count of nothing; a reliability that is not there is not zero.
        return sum(found) if found or metric.kind != "gauge" else None

    def holds(self, figure: float | None) -> bool:
        """Return whether a figure is as asserted; one that is not there never is."""
        return figure is not None and _COMPARE[self.comparison](figure, self.value)


_KNOWN: Mapping[str, Metric] = {
    name: metric
    for metric in METRICS
    for name in (
        [metric.name + suffix for suffix in _OF_HISTOGRAM]
        if metric.kind == "histogram"
        else [metric.name]
    )
}


def _parsed(line: str) -> dict[str, Any]:
    match = _FORM.fullmatch(line)
    labels = _parsed_labels(match["labels"] or "") if match else None
    if match is None or labels is None:
        msg = (
            f"{line!r} is no assertion; write one like"
            """ 'cj_llm_requests_total{batching_mode="provider_batch_api"} >= 1'"""
        )
        raise ValueError(msg)
    return {**match.groupdict(), "labels": labels}


def _parsed_labels(text: str) -> dict[str, str] | None:
    labels: dict[str, str] = {}
    place = 0
    while text[place:].strip():
        match = _LABEL.match(text, place)
        if match is None or match["name"] in labels:
            return None
        labels[match["name"]] = _ESCAPED.sub(r"\1", match["value"])
        place = match.end()
    return labels


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _problems(assertion: OwnAssertion) -> Iterator[str]:
    metric = _KNOWN.get(assertion.metric)
    if assertion.metric + _OF_HISTOGRAM[0] in _KNOWN:
        ways = " or ".join(assertion.metric + suffix for suffix in _OF_HISTOGRAM)
        yield f"{assertion.metric} is a histogram: assert {ways}"
        return
    if metric is None:
        yield unknown("metric", assertion.metric, _KNOWN)
        return
    for name, value in assertion.labels.items():
        if name not in metric.labels:
            yield (
                unknown(f"label of {assertion.metric}", name, metric.labels)
                if metric.labels
                else f"{assertion.metric} has no labels"
            )
            continue
        values = [known[metric.labels.index(name)] for known in metric.always]
        if values and value not in values:
            yield unknown(f"{name} of {assertion.metric}", value, values)
    missing = [name for name in metric.labels if name not in assertion.labels]
    if missing and not metric.adds_up:
        yield f"{assertion.metric} is a figure for each {missing[0]}: say which"
