"""Nobody outside is told of grades that a person has not released."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from cj_pipeline.installation import INSTALLATION_FILE
from cj_pipeline.operations.delivery import Address
from cj_pipeline.operations.notify import notify
from cj_pipeline.people.moderation import release_grades
from tests.support.batches import ManualClock, open_engine, run_to_end
from tests.support.people import graded_folder


def test_graded_is_told_once_a_person_has_released_it(tmp_path: Path) -> None:
    """Before that only that the batch waits for a sign-off."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", {"SECRET": "s3cret"}, clock=clock)
    runtime.home.mkdir(exist_ok=True)
    (runtime.home / INSTALLATION_FILE).write_text(
        "notify: [{webhook: 'http://127.0.0.1:9/x', secret_variable: SECRET}]"
    )
    told: list[tuple[str, Any]] = []

    def deliver(address: Address, key: str, body: dict[str, Any], now: datetime) -> None:
        del address, key, now
        told.append((body["kind"], body["batch_id"]))

    notify(runtime, deliver=deliver)
    clock.sleep(1)
    free = run_to_end(runtime, graded_folder(tmp_path / "free"))
    batch_id = run_to_end(runtime, graded_folder(tmp_path / "held", release="needs_sign_off"))
    clock.sleep(1)

    notify(runtime, deliver=deliver)
    assert ("graded", free) in told
    assert ("graded", batch_id) not in told
    assert ("waiting", batch_id) in told

    release_grades(runtime, batch_id, by="Ms Head")
    clock.sleep(1)
    notify(runtime, deliver=deliver)
    assert told.count(("graded", batch_id)) == 1
