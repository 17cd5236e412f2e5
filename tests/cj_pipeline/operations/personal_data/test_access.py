"""What is kept on somebody who judged, told in full and of nobody else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cj_pipeline.errors import UnknownPersonError
from cj_pipeline.operations.personal_data.access import record_of_person
from cj_pipeline.operations.personal_data.erase_rows import columns_named_for_people, tables_of
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session
from tests.support.finished_batches import SPRING, fill

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
BO, AMY = "Bo Ek", "Amy Åk"


@pytest.fixture
def store() -> FileStore:
    """A store in memory in which two people judged and decided in one batch."""
    store = FileStore.in_memory()
    with store.write() as db:
        fill(db)
        for number, person in enumerate((BO, AMY), start=1):
            _judges(db, person, number)
    return store


def _judges(db: Session, person: str, number: int) -> None:
    key = {"batch_id": SPRING, "judge_id": "people", "person": person}
    link: dict[str, object] = {"link_id": f"l{number}", "token_sha256": "5ec7e7", "quota": None}
    times = {"made_at": NOW, "made_by": AMY, "expires_at": NOW.replace(year=2027)}
    db.insert("judge_links", [key | link | times])
    answer = {"answer_id": f"a{number}", "number": number, "kind": "verdict", "source": "page"}
    shown = {"essay_a": "pupil-01", "essay_b": "pupil-02", "winner": "A"}
    words = {"reason": f"pupil-01 says it better, thinks {person}"}
    db.insert(
        "human_answers",
        [key | answer | shown | words | dict.fromkeys(("decided_at", "stored_at"), NOW)],
    )


def test_all_that_somebody_did_is_told(store: FileStore) -> None:
    """Their links, verdicts and words; whose essays those were is not theirs to know."""
    with store.read() as db:
        record = record_of_person(db, BO)

    assert set(record) == {"human_answers", "judge_links"}
    (answer,), (link,) = record["human_answers"], record["judge_links"]
    assert answer["winner"] == "A"
    assert answer["reason"] == f"{answer['essay_a']} says it better, thinks {BO}"
    assert len({answer["essay_a"], answer["essay_b"]}) == 2
    assert link["expires_at"] == NOW.replace(year=2027)
    assert "pupil" not in str(record)
    assert AMY not in str(record)
    assert "5ec7e7" not in str(record)


def test_no_table_that_names_people_is_left_out(store: FileStore) -> None:
    """Whatever column of whatever table holds a name is looked into."""
    with store.write() as db:
        named = [(t, c) for t in tables_of(db) for c in columns_named_for_people(db, t)]
        for table, column in named:
            if db.rows(f'FROM "{table}" LIMIT 1'):
                db.execute(f'UPDATE "{table}" SET "{column}" = ?', ["Cy Ohm"])  # noqa: S608
        filled = {t for t, _ in named if db.rows(f'FROM "{t}" LIMIT 1')}
        record = record_of_person(db, "Cy Ohm")

    assert filled
    assert set(record) == filled


def test_who_never_judged_is_a_plain_error(store: FileStore) -> None:
    """A name that is nobody's is told, and nothing is written."""
    with store.read() as db, pytest.raises(UnknownPersonError, match="Dee"):
        record_of_person(db, "Dee")
