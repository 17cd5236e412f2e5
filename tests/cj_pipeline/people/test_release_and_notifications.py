"""What people outside are told where a person is to judge, or to release grades."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from cj_pipeline.installation import INSTALLATION_FILE
from cj_pipeline.operations.delivery import Address
from cj_pipeline.operations.notify import notify
from cj_pipeline.people.assignments import Answer, desk_of, store_answer
from cj_pipeline.people.links import link_of, make_links
from cj_pipeline.people.moderation import release_grades
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.next_step import NextStep
from tests.support.batches import ManualClock, begin, open_engine, run_to_end
from tests.support.people import graded_folder


def _that_tells(tmp_path: Path, clock: ManualClock) -> Runtime:
    """Return an engine with an address to tell things to."""
    runtime = open_engine(tmp_path / "home", {"SECRET": "s3cret"}, clock=clock)
    runtime.home.mkdir(exist_ok=True)
    (runtime.home / INSTALLATION_FILE).write_text(
        "notify: [{webhook: 'http://127.0.0.1:9/x', secret_variable: SECRET}]"
    )
    return runtime


def test_a_wave_that_waits_for_people_is_told_once(tmp_path: Path) -> None:
    """By the sensor too, which calls the same; and not again at each of their verdicts."""
    clock = ManualClock()
    runtime = _that_tells(tmp_path, clock)
    told: list[dict[str, Any]] = []

    def deliver(address: Address, key: str, body: dict[str, Any], now: datetime) -> None:
        del address, key, now
        told.append(body)

    notify(runtime, deliver=deliver)
    clock.sleep(1)
    settings = {"all_at_once": False, "max_pairwise_comparisons": 24, "wave_size": 12}
    people = {"wait": True, "share": 0.5}
    folder = graded_folder(
        tmp_path / "waits", **settings, people=people, judges=["quality", "people"]
    )
    batch_id = begin(runtime, folder)
    taken = take_next_step(runtime, batch_id)
    while not (taken.waited and "people" in taken.waits_for):
        if taken.step is not NextStep.COLLECT:  # what was collected may be all that models owe
            notify(runtime, deliver=deliver)
        assert told == []
        clock.sleep(60)
        taken = take_next_step(runtime, batch_id)

    (made,) = make_links(runtime, batch_id, ["Anna"], by="Ms Head")
    (before,) = _owed(runtime)
    assert before > 1
    for _ in range(before - 1):
        notify(runtime, deliver=deliver)
        _judge_one(runtime, batch_id, made.token)
        clock.sleep(60)
    notify(runtime, deliver=deliver)

    assert _owed(runtime) == [1]
    assert [(body["kind"], body["batch_id"], body["waiting_for"]) for body in told] == [
        ("waiting", batch_id, "person")
    ]
    assert told[0]["reason"] == f"people have pairs of wave 1 to judge: `cj people show {batch_id}`"


def _judge_one(runtime: Runtime, batch_id: str, token: str) -> None:
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        link = link_of(db, token, runtime.clock())
        assert link is not None
        pair = desk_of(db, record, link, runtime.clock()).held[0]
        assert store_answer(db, record, link, Answer(pair.assignment_id, "A"), runtime.clock())


def _owed(runtime: Runtime) -> list[int]:
    with runtime.store.read() as db:
        return [row["n_owed"] for row in db.rows("SELECT n_owed FROM v_waits_for_people")]


def test_graded_is_told_once_a_person_has_released_it(tmp_path: Path) -> None:
    """Before that only that the batch waits for a sign-off."""
    clock = ManualClock()
    runtime = _that_tells(tmp_path, clock)
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
