"""Dashboard and alerts ask for metrics that exist, by labels and values that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.metrics.catalogue import METRICS
from cj_pipeline.stopping.continuation import FAILURES
from tests.support import ROOT

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "cj-dashboard.json"

SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
SCRAPED = {
    metric.name + suffix: metric
    for metric in METRICS
    if not metric.of_one_batch
    for suffix in SUFFIXES[metric.kind]
}
OF_PROMETHEUS_ITSELF = {"up", "scrape_duration_seconds"}


def rules() -> list[dict[str, Any]]:
    """Return every alert rule."""
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


def panels() -> list[dict[str, Any]]:
    """Return every panel of the dashboard that shows something."""
    everything = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in everything if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield what each alert and each panel asks Prometheus."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def selectors(expression: str) -> Iterator[tuple[str, str]]:
    """Yield each metric an expression names, with what stands between its braces."""
    without_groups = re.sub(r"\b(by|without|on|ignoring) \([^)]*\)", "", expression)
    for match in re.finditer(r"\b([a-z_]+)(?:\{([^}]*)\})?(\s*\()?", without_groups):
        name, labels, call = match.groups()
        if call is None and ("_" in name or name == "up"):
            yield name, labels or ""


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_what_is_asked_for_exists(where: str, expression: str) -> None:
    """A renamed metric would leave an empty panel, or an alert that never fires."""
    asked = [(n, labels) for n, labels in selectors(expression) if n != "__rate_interval"]

    assert asked
    for name, labels in asked:
        if name in OF_PROMETHEUS_ITSELF:
            continue
        metric = SCRAPED[name]
        for label, value in re.findall(r'(\w+)[!=]=?~?"([^"]*)"', labels):
            assert label in metric.labels
            known = {values[metric.labels.index(label)] for values in metric.always}
            assert not known or set(value.split("|")) <= known


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_what_is_grouped_by_is_a_label_of_it(where: str, expression: str) -> None:
    """Grouping by a label nobody has gives one line for everything."""
    labels = {label for name, _ in selectors(expression) if name in SCRAPED
              for label in SCRAPED[name].labels}  # fmt: skip
    grouped = {
        label.strip()
        for group in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in group.split(",")
    }

    assert grouped <= labels | {"le"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_says_how_grave_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    """Read at night, on a telephone; the runbook has a line for each."""
    runbook = (DEPLOY.parent / "docs" / "operations.md").read_text()

    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert f"`{rule['alert']}`" in runbook
    assert expression_is_balanced(rule["expr"])


def values_watched(alert: str, metric: str) -> set[str]:
    """Return the values of its one label that an alert watches a metric for."""
    (rule,) = (rule for rule in rules() if rule["alert"] == alert)
    (labels,) = (labels for name, labels in selectors(rule["expr"]) if name == metric)
    return set(re.findall(r'"([^"]*)"', labels)[0].split("|"))


def test_every_bad_end_raises_an_alert() -> None:
    """A reason that is added to the code and not to the rule would be silent."""
    assert values_watched("CJBatchFailed", "cj_batches_ended_total") == set(FAILURES)
    assert values_watched("CJBatchFailed", "cj_batches") == {"rejected"}


def test_whatever_a_person_has_to_bring_raises_an_alert() -> None:
    """Missing rows and room at the provider come by themselves."""
    by_themselves = {WaitingFor.ROWS, WaitingFor.ROOM}

    assert values_watched("CJBatchWaits", "cj_batches_waiting") == set(WaitingFor) - by_themselves


def expression_is_balanced(expression: str) -> bool:
    """Return whether every bracket is closed."""
    return all(expression.count(a) == expression.count(b) for a, b in ("()", "{}", "[]"))


def test_every_scraped_metric_is_shown_or_watched() -> None:
    """What nobody looks at need not be counted; these few are shown in parts or for queries."""
    asked = {name for _, expression in expressions() for name, _ in selectors(expression)}
    shown = {SCRAPED[name].name for name in asked if name in SCRAPED}

    left = {metric.name for metric in SCRAPED.values()} - shown

    assert left == {
        "cj_llm_batches_started_total",
        "cj_comparisons_planned_total",
        "cj_oldest_open_request_age_seconds",
        "llm_provider_serial_bundle_calls_total",
        "llm_provider_webhooks_total",
        "llm_provider_queue_oldest_wait_seconds",
    }


def test_the_dashboards_panels_do_not_overlap() -> None:
    """Grafana would shuffle them."""
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(ids) == len(set(ids))
