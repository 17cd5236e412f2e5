"""Ten batches at once, most of them wrong in some way: each ends or waits, and somebody is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.queries.overview import batch_overview, what_hinders
from tests.support.batches import open_engine, write_batch
from tests.support.dagster_dev import dagster_dev, query, wait_for
from tests.support.people import graded_folder

SIMPLE = {"judges": ["cj-generic-batch"], "score_stability_threshold": None}
ONCE = SIMPLE | {"all_at_once": True}
HOSTILE = ("<script>alert(1)</script>", "'; DROP TABLE batches; --", "=HYPERLINK(1)", "$(reboot)")


TOLD = (
    ("broken", "rejected"),
    ("unknown-model", "rejected"),
    ("budget-too-small", "rejected"),
    ("missing-key", "rejected"),
    ("to-be-signed", "waiting"),
    ("hostile", "ended"),
    ("two-essays", "ended"),
    ("long", "ended"),
    ("lower5", "ended"),
    ("mute-judge", "ended"),
)
STATES = {
    **dict.fromkeys(("broken", "unknown-model", "budget-too-small", "missing-key"), "rejected"),
    **dict.fromkeys(("to-be-signed", "hostile", "two-essays", "long", "lower5"), "succeeded"),
    "mute-judge": "failed",
}
REASONS = {
    "broken": "wave_sise",
    "unknown-model": "gpt-nobody-knows",
    "budget-too-small": "cannot join 6 essays",
    "missing-key": "OPENAI_API_KEY",
    "to-be-signed": "a release",
    "mute-judge": "no_successes",
    "lower5": "small_net_cap",
    "two-essays": "small_net_cap",
    "long": "single_wave_complete",
    "hostile": "single_wave_complete",
}


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of notifications: its address, and what was posted to it."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    thread.join()
    server.server_close()


def write_ten(inbox: Path) -> None:
    """Write ten batches, of which four come out well and one of these waits for a person."""
    lower5 = {
        "judges": ["eng5-lower5-gpt51-low"],
        "min_resampling_net_size": 5,
        "max_resampling_passes_for_small_net": 3,
    }
    mute = {"judges": ["quality-messages"], "max_attempts": 1, "canary_requests": 0}
    batches: dict[str, tuple[int, dict[str, Any]]] = {
        "broken": (3, SIMPLE | {"wave_sise": 2}),
        "hostile": (4, ONCE | {"max_pairwise_comparisons": 6}),
        "two-essays": (2, SIMPLE),
        "unknown-model": (3, ONCE | {"judges": ["odd"]}),
        "missing-key": (3, ONCE | {"judges": ["openai-gpt-4-1-mini"]}),
        "long": (40, ONCE | {"max_pairwise_comparisons": 200}),
        "lower5": (5, lower5),
        "budget-too-small": (6, ONCE | {"max_pairwise_comparisons": 3}),
        "mute-judge": (4, ONCE | mute),
    }
    for name, (n_students, settings) in batches.items():
        write_batch(inbox / name, n_students=n_students, settings=settings)
    graded_folder(inbox / "to-be-signed", release="needs_sign_off")
    (inbox / "unknown-model" / "judges").mkdir()
    (inbox / "unknown-model" / "judges" / "odd.yaml").write_text(
        "name: odd\nprovider: openai\nmodel: gpt-nobody-knows\ntemplate: more-convincing-1\n"
    )
    for number, name in enumerate(HOSTILE):
        essay = inbox / "hostile" / "essays" / f"student-{number + 1:03d}.txt"
        essay.rename(essay.with_name(name.replace("/", "∕") + ".txt"))


@pytest.mark.slow
def test_ten_batches_each_end_or_wait_and_somebody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the store, in Dagster and at a webhook the same is said of each of them."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    home = tmp_path / "home"
    runtime = open_engine(home)
    write_ten(home / "inbox")
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    change_settings(config, faults=[{"kind": "invalid_output", "on": "anthropic*"}])
    with webhook() as (address, told):
        (home / "installation.yaml").write_text(f"notify: [{{webhook: '{address}'}}]\n")
        with dagster_dev(home) as port:
            wait_for(lambda: {(each["batch_id"], each["kind"]) for each in told} >= set(TOLD))
            runs = wait_for(lambda: ended_runs(port))

    with runtime.store.read() as db:
        shown = {row["batch_id"]: row for row in batch_overview(db)}
    assert {name: row["state"] for name, row in shown.items()} == STATES
    for name, words in REASONS.items():
        said = f"{what_hinders(shown[name])} {shown[name]['problems']} {shown[name]['end_reason']}"
        assert words in said, name
    # What was rejected or is held is red in Dagster too; what came out well never is.
    failed = {name for name, statuses in runs.items() if "FAILURE" in statuses}
    rejected = {name for name, state in STATES.items() if state == "rejected"}
    assert rejected <= failed
    assert not failed & {name for name, state in STATES.items() if state == "succeeded"}
    assert set(runs) == set(STATES)


def ended_runs(port: int) -> dict[str, set[str]]:
    """Return how the runs of each batch ended; empty while one goes on."""
    text = "{ runsOrError { ... on Runs { results { status tags { key value } } } } }"
    found: dict[str, set[str]] = {}
    for run in query(port, text).get("runsOrError", {}).get("results", []):
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        found.setdefault(tags["dagster/partition"], set()).add(run["status"])
    return found if set().union(*found.values()) <= {"SUCCESS", "FAILURE"} else {}
