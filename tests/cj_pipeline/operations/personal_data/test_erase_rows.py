"""What an erasure leaves in the rows: nothing that was said of an essay, and everything else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cj_pipeline.operations.personal_data.erase_rows import (
    PERSON_COLUMNS,
    WORDS_ON_A_BATCH,
    WORDS_ON_AN_ESSAY,
    batches_of_person,
    erase_rows,
    rename_person,
    tables_of,
)
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session
from tests.support.finished_batches import ARGUMENTS, SPRING, fill

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
PUPIL, ALIAS = "pupil-03", "forgotten-0a1b2c"
NAME, WORDS = "Åsa Öberg-Lind", "twenty-three violet umbrellas"

NO_WORDS = set(
    """
    above account answer_id answered_fingerprint answered_model assignment_id batch_id
    batching_mode below borne_key code host comparison_id content_sha256 correlation_id custom_id
    decision end_reason error_code error_file_id failure_reason fine_grade fingerprint
    first_content_sha256 grade holder replaced_by
    import_name input_file_id judge_id kind lease_owner link_id machine_grade method model
    notification_id onto_batch_id outcome output_file_id part placed_batch_id prompt_sha256
    provider provider_job_id provider_status repeats replaces role runner_mode sample_id scale
    scale_batch_id service_tier source state status step submission_key task_id template
    token_sha256 trial usage_evidence waiting_for winner
    """.split()  # noqa: SIM905 - as a list it is a page long
)
"""Columns, whatever their table, that hold a word of ours, a provider's name for something, or a
checksum: never what somebody wrote."""

GO_WHOLE = set(
    """
    artefact_records.artefact_checksum artefact_records.key_id artefact_records.sha256
    batches.settings callbacks.body documents.content earlier_outcomes.attempt_row
    earlier_outcomes.comparison_row essays.attributes essays.file_name essays.given_id
    essays.group essays.masked_text essays.name essays.notes essays.sha256 essays.source_path
    essays.text judge_holds.sample shared_texts.attributes shared_texts.file_name
    shared_texts.given_id shared_texts.group shared_texts.name shared_texts.source_path
    """.split()  # noqa: SIM905 - as a list it is a page long
)
"""Cells that are emptied or whose rows go, whatever is in them; settings are looked into by key."""

OF_THE_BATCH = set(
    """
    arrivals.name arrivals.place batch_report.path batch_report.sha256 batches.settings_origins
    batches.source_path documents.sha256 documents.source_path grade_projections.probabilities
    grading_reports.disagreement grading_reports.scale_definition grading_reports.terms
    judges.definition judges.name judging_tasks.reason run_artefact.path run_artefact.sha256
    trial_runs.definition wave_decisions.reason
    """.split()  # noqa: SIM905 - as a list it is a page long
)
"""The batch's own names and files, and what is made from settings alone."""


@pytest.fixture
def store() -> FileStore:
    """A store in memory with finished batches."""
    store = FileStore.in_memory()
    with store.write() as db:
        fill(db)
    return store


def _types(db: Session, table: str) -> dict[str, str]:
    rows = db.rows(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [table]
    )
    return {row["column_name"]: row["data_type"] for row in rows}


def _holding(db: Session, words: str) -> list[str]:
    """Return the tables in which a batch's rows hold some words, in any column."""
    return [
        table
        for table in tables_of(db)
        if db.rows(
            f'SELECT 1 FROM "{table}" t WHERE batch_id = ? AND contains(t::VARCHAR, ?)',  # noqa: S608
            [SPRING, words],
        )
    ]


def test_every_column_that_may_hold_words_is_known(store: FileStore) -> None:
    """A new column of texts has to be put somewhere: here, or where erasures look."""
    ids = {"essay_id", "essay_a", "essay_b", "winner_id", "loser_id", "primary_anchor_id"}
    known = NO_WORDS | ids | {"judged_id"} | set(PERSON_COLUMNS)

    with store.read() as db:
        unknown = {
            f"{table}.{column}"
            for table in tables_of(db)
            for column, kind in _types(db, table).items()
            if kind in ("VARCHAR", "JSON")
            and column not in known
            and column not in WORDS_ON_AN_ESSAY.get(table, ())
            and column not in WORDS_ON_A_BATCH.get(table, ())
        }

    assert unknown - GO_WHOLE - OF_THE_BATCH == set()


def _say_it_everywhere(db: Session) -> None:
    """Have every column that may speak of an essay name the pupil and quote the text."""
    db.execute(
        "UPDATE essays SET text = $words, name = $name, given_id = '7', file_name = $file,"
        ' "group" = $words, notes = $notes WHERE essay_id = $essay',
        {
            "words": WORDS,
            "name": NAME,
            "file": f"{NAME}.docx",
            "notes": json.dumps([WORDS]),
            "essay": PUPIL,
        },
    )
    about = {
        "attempts": "comparison_id IN (SELECT comparison_id FROM comparison_pairs"
        " WHERE $essay IN (essay_a, essay_b))",
        "comparisons": "$essay IN (essay_a, essay_b)",
    }
    for table, columns in WORDS_ON_AN_ESSAY.items():
        for column in columns:
            where = about.get(table, "$essay = $essay")
            db.execute(
                f'UPDATE "{table}" SET "{column}" = $said WHERE {where}',  # noqa: S608
                {"said": f"{NAME} wrote of {WORDS}", "essay": PUPIL},
            )
    for table, columns in WORDS_ON_A_BATCH.items():
        for column in columns:
            is_json = _types(db, table)[column] == "JSON"
            said = f"{NAME} ({PUPIL}) is {NAME}.docx"
            value = json.dumps({"said": said, "of": PUPIL, "list": [PUPIL]}) if is_json else said
            db.execute(
                f'UPDATE "{table}" SET "{column}" = ? WHERE batch_id = ?',  # noqa: S608
                [value, SPRING],
            )


def _rows_about_it(db: Session) -> None:
    """Add rows of the tables that finished batches leave empty."""
    judge = (db.one("SELECT judge_id FROM judges WHERE batch_id = ?", [SPRING]) or {})["judge_id"]
    sample = f"Essay A by {NAME} speaks of {WORDS}"
    own: dict[str, dict[str, Any]] = {
        "appeals": {"number": 1, "essay_id": PUPIL, "reason": WORDS, "requested_by": NAME}
        | {"requested_at": NOW, "n_pairs": 2, "revision": 1},
        "moderation_decisions": {"number": 1, "essay_id": PUPIL, "kind": "accept", "reason": WORDS}
        | {"decided_by": "Bo Ek", "decided_at": NOW, "revision": 1},
        "human_answers": {"answer_id": "a1", "number": 1, "kind": "verdict", "source": "import"}
        | {"judge_id": judge, "person": "Bo Ek", "essay_a": PUPIL, "essay_b": "pupil-01"}
        | {"winner": "A", "reason": WORDS, "decided_at": NOW, "stored_at": NOW},
        "withdrawn_answers": {"answer_id": "a1", "withdrawn_at": NOW, "withdrawn_by": "Bo Ek"}
        | {"reason": f"{WORDS}, said {NAME}"},
        "judge_holds": {"judge_id": judge, "waiting_for": "person", "sample": sample}
        | {"reason": f"One of them begins: {sample!r}. See", "n_answers": 6, "held_at": NOW},
        "step_failures": {"step": "fit", "reason": f"essay {PUPIL}", "n_failures": 1}
        | {"first_failed_at": NOW, "last_failed_at": NOW},
        "notifications": {"notification_id": "n1", "kind": "ended", "body": "{}", "state": "sent"}
        | {"n_tries": 1, "recorded_at": NOW},
        "release_events": {"number": 1, "kind": "released", "revision": 1, "released_by": "Bo Ek"}
        | {"note": NAME, "looked_at": json.dumps([PUPIL]), "released_at": NOW},
    }
    for table, row in own.items():
        db.insert(table, [{"batch_id": SPRING} | row])


def test_nothing_that_was_said_of_a_forgotten_essay_is_left(store: FileStore) -> None:
    """Neither its words, wherever they were quoted, nor any name it had."""
    with store.write() as db:
        _rows_about_it(db)
        _say_it_everywhere(db)
        db.execute(
            "UPDATE judge_holds SET reason = 'One of them begins: ' || ? || '.', sample = ?",
            [repr(f"By {NAME}: {WORDS}"), f"By {NAME}: {WORDS}"],
        )
        before = {words: _holding(db, words) for words in (WORDS, NAME, PUPIL)}
        erase_rows(db, SPRING, PUPIL, ALIAS)
        after = {words: _holding(db, words) for words in (WORDS, NAME, PUPIL)}

    assert {name: len(tables) > 5 for name, tables in before.items()} == dict.fromkeys(after, True)
    assert after == {WORDS: [], NAME: [], PUPIL: []}


def test_words_that_only_look_like_a_name_stay(store: FileStore) -> None:
    """An essay handed in as `7` or `auto` leaves other numbers and settings alone."""
    told = "rough_order:\n- ['7', bo]\nmax_pairwise_comparisons: 7\n# 7 of them\n"
    with store.write() as db:
        db.execute(
            "UPDATE essays SET essay_id = 'auto', given_id = '7', name = 'Bo' WHERE essay_id = ?"
            " AND batch_id = ?",
            [PUPIL, SPRING],
        )
        db.execute("DELETE FROM documents WHERE batch_id = ?", [SPRING])
        row = {"batch_id": SPRING, "kind": "batch", "content": told, "source_path": "batch.yaml"}
        db.insert("documents", [row | {"sha256": "x", "n_bytes": len(told)}])
        db.execute(
            "UPDATE batches SET settings = json_merge_patch(settings, ?) WHERE batch_id = ?",
            [json.dumps({"rough_order": [["auto", "pupil-01"]], "ties": "auto"}), SPRING],
        )
        erase_rows(db, SPRING, "auto", ALIAS)
        said = db.one("SELECT content FROM documents WHERE batch_id = ?", [SPRING])
        row = db.one("SELECT settings FROM batches WHERE batch_id = ?", [SPRING]) or {}

    settings = row["settings"]
    assert said == {"content": told.replace("'7'", "forgotten")}
    assert settings["rough_order"] == [[ALIAS, "pupil-01"]]
    assert settings["ties"] == "auto"


def test_the_grades_of_others_are_as_they_were(store: FileStore) -> None:
    """What is stored of the grading still says which anchor had which grade."""
    query = "SELECT anchor_grades FROM grading_reports WHERE batch_id = ?"
    kept = json.dumps({"anchor-01": "E", "anchor-02": "D"})
    with store.write() as db:
        db.execute("UPDATE grading_reports SET anchor_grades = ?", [kept])
        before = db.one(query, [SPRING])
        erase_rows(db, SPRING, "anchor-01", ALIAS)
        after = db.one(query, [SPRING])

    assert before == {"anchor_grades": json.loads(kept)}
    assert after == {"anchor_grades": {ALIAS: "E", "anchor-02": "D"}}


def test_a_persons_name_goes_from_all_they_did(store: FileStore) -> None:
    """What they decided stays, and counts as before."""
    with store.write() as db:
        _rows_about_it(db)
        judge = {"link_id": "l1", "batch_id": SPRING, "judge_id": "people", "person": "Bo Ek"}
        times = {"made_at": NOW, "made_by": "Bo Ek", "expires_at": NOW.replace(year=2027)}
        db.insert("judge_links", [judge | times | {"token_sha256": "x", "quota": None}])
        found = batches_of_person(db, "Bo Ek")

        n_rows = rename_person(db, SPRING, "Bo Ek", "someone-1")

        assert found == [SPRING]
        assert n_rows == 6
        assert _holding(db, "Bo Ek") == []
        assert batches_of_person(db, "Bo Ek") == []
        assert db.one("SELECT person, winner FROM human_answers") == {
            "person": "someone-1",
            "winner": "A",
        }
        assert db.one("SELECT expires_at FROM judge_links") == {"expires_at": NOW}


def test_other_batches_keep_every_word(store: FileStore) -> None:
    """The same ids in another batch are other people's."""
    with store.write() as db:
        before = {
            table: db.rows(f'FROM "{table}" WHERE batch_id = ? ORDER BY ALL', [ARGUMENTS])
            for table in tables_of(db)
        }
        erase_rows(db, SPRING, PUPIL, ALIAS)
        after = {
            table: db.rows(f'FROM "{table}" WHERE batch_id = ? ORDER BY ALL', [ARGUMENTS])
            for table in tables_of(db)
        }

    assert after == before
