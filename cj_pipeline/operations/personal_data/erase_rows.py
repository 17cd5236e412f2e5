"""What an erasure removes or rewrites in the rows of a database: of a batch, an essay, a person.

A whole batch goes table by table. Of an essay the words go, and its id becomes another, since its
verdicts carry everybody else's scores. Which columns may hold words on an essay stands here, and a
test holds it against the tables there are. When and in which files this is done is `erase`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cj_pipeline.provider_jobs import ledger
from cj_pipeline.store.session import Session

ID_COLUMNS = (
    "essay_id",
    "essay_a",
    "essay_b",
    "winner_id",
    "loser_id",
    "primary_anchor_id",
    "judged_id",
)
"""Columns that hold an essay's id."""

PERSON_COLUMNS = (
    "person",
    "made_by",
    "revoked_by",
    "decided_by",
    "released_by",
    "requested_by",
    "graded_by",
    "drawn_by",
    "withdrawn_by",
    "edited_by",
)
"""Columns that name who judged, graded or decided."""

PERSON_ALIAS = "someone-"
"""How the name begins that stands for a person who was forgotten."""

OUTLASTING = ("forgotten", "forgotten_costs", "erasures")
"""What is kept of a batch that was removed: that it was, and what it had cost."""

WORDS_ON_AN_ESSAY: Mapping[str, tuple[str, ...]] = {
    "appeals": ("reason",),
    "moderation_decisions": ("reason",),
    "human_answers": ("reason",),
    "feedback_edits": ("text",),
    "attempts": ("error_message",),
    "comparisons": ("justification",),
}
"""Columns in whose rows people or judges speak of the essays that the row is about."""

WORDS_ON_A_BATCH: Mapping[str, tuple[str, ...]] = {
    "arrivals": ("reason",),
    "batch_links": ("statement",),
    "batches": ("title", "problems", "metadata"),
    "duplicate_jobs": ("error",),
    "exports": ("path",),
    "grading_reports": ("statement", "anchor_check", "anchor_grades", "sampled_grades"),
    "judge_holds": ("reason",),
    "judge_link_revocations": ("reason",),
    "notifications": ("body", "error"),
    "progress_events": ("progress",),
    "provider_jobs": ("error",),
    "release_events": ("note", "looked_at"),
    "scale_statistics": ("statistics",),
    "step_failures": ("reason",),
    "trial_runs": ("figures", "findings", "drift"),
    "wave_decisions": ("details",),
    "withdrawn_answers": ("reason",),
}
"""Columns that may name any essay of a batch, as text or as JSON."""

ESSAYS_OF_SETTINGS = ("rough_order", "emulator_qualities")
"""Settings that name essays; in all others an essay's id is another word, such as `auto`."""

_SHORTEST_NAME = 3
"""A shorter name, or a number, is found in words that have nothing to do with it."""

_SHOWS_IT = """batch_id = $batch AND comparison_id IN (
    SELECT comparison_id FROM comparison_pairs
    WHERE batch_id = $batch AND $essay IN (essay_a, essay_b)
)"""
_QUOTES_IT = "batch_id = $batch AND $essay IN (essay_a, essay_b)"
_ITS_CALLBACKS = f"""callbacks WHERE batch_id = $batch AND (
    custom_id IS NULL OR custom_id IN (SELECT custom_id FROM attempts WHERE {_SHOWS_IT})
)"""  # noqa: S608 - constants


def erase_rows(db: Session, batch_id: str, essay_id: str | None, alias: str | None) -> int:
    """Remove or rewrite rows in whatever tables a database has; return how many."""
    if essay_id is not None and alias is not None:
        names = names_of(db, batch_id, essay_id)
        n_touched = _remove_words(db, batch_id, essay_id)
        return n_touched + _rename(db, batch_id, essay_id, alias, names)
    n_rows = 0
    for table in tables_of(db):
        n_rows += _count(db, table, batch_id)
        db.execute(f'DELETE FROM "{table}" WHERE batch_id = ?', [batch_id])  # noqa: S608
    return n_rows


def rename_person(db: Session, batch_id: str, person: str, alias: str) -> int:
    """Replace the name of a person who judged or decided in a batch; return the rows changed.

    What they decided stays, under a random name; links to the judging page that were theirs end.
    """
    n_rows = 0
    keys = {"old": person, "new": alias, "batch": batch_id}
    for table in tables_of(db):
        columns = _columns(db, table)
        named = sorted(columns.keys() & set(PERSON_COLUMNS))
        if table == "judge_links":
            db.execute(
                "UPDATE judge_links SET expires_at = least(expires_at, made_at)"
                " WHERE batch_id = $batch AND person = $old",
                {"old": person, "batch": batch_id},
            )
        for column in named:
            where = f'WHERE batch_id = $batch AND "{column}" = $old'
            row = db.one(
                f'SELECT count(*) AS n FROM "{table}" {where}',  # noqa: S608
                {"old": person, "batch": batch_id},
            )
            n_rows += row["n"] if row else 0
            db.execute(f'UPDATE "{table}" SET "{column}" = $new {where}', keys)  # noqa: S608
        for column in (*WORDS_ON_AN_ESSAY.get(table, ()), *WORDS_ON_A_BATCH.get(table, ())):
            if column in columns:
                is_json = columns[column] == "JSON"
                renamed = _renamed(person, alias, [person], is_json)
                _replace_in(db, table, column, batch_id, renamed)
    return n_rows


def batches_of_person(db: Session, person: str) -> list[str]:
    """Return the batches in which somebody of this name judged, graded or decided."""
    found: set[str] = set()
    for table in tables_of(db):
        for column in columns_named_for_people(db, table):
            rows = db.rows(
                f'SELECT DISTINCT batch_id FROM "{table}" WHERE "{column}" = ?',  # noqa: S608
                [person],
            )
            found |= {row["batch_id"] for row in rows}
    return sorted(found)


def columns_named_for_people(db: Session, table: str) -> list[str]:
    """Return the columns of a table that name who judged, graded or decided."""
    return sorted(_columns(db, table).keys() & set(PERSON_COLUMNS))


def _remove_words(db: Session, batch_id: str, essay_id: str) -> int:
    """Remove the text and everything that may quote it; return the rows touched."""
    keys = {"batch": batch_id, "essay": essay_id}
    row = db.one(f"SELECT count(*) AS n FROM {_ITS_CALLBACKS}", keys)  # noqa: S608
    db.execute(f"DELETE FROM {_ITS_CALLBACKS}", keys)  # noqa: S608
    tables = set(tables_of(db))  # an older copy may not have all of them
    db.execute(f"UPDATE attempts SET prompt_sha256 = '' WHERE {_SHOWS_IT}", keys)  # noqa: S608
    jobs = db.rows(f"SELECT DISTINCT submission_key FROM attempts WHERE {_SHOWS_IT}", keys)  # noqa: S608
    ledger.forget_errors(db, [row["submission_key"] for row in jobs])
    if "withdrawn_answers" in tables:
        db.execute(
            "UPDATE withdrawn_answers SET reason = '' WHERE batch_id = $batch AND answer_id IN"  # noqa: S608
            f" (SELECT answer_id FROM human_answers WHERE {_QUOTES_IT})",
            keys,
        )
    if "judge_holds" in tables:
        _remove_samples(db, batch_id)
    if "artefact_records" in tables:  # checksums of files that bore its names
        db.execute("DELETE FROM artefact_records WHERE batch_id = ?", [batch_id])
    for table in ("earlier_outcomes", "shared_texts"):
        if table in tables:
            db.execute(f'DELETE FROM "{table}" WHERE {_about(db, table)}', keys)  # noqa: S608
    if "feedback_edits" in tables:  # the class's may quote the essay
        db.execute(
            "DELETE FROM feedback_edits WHERE batch_id = $batch AND essay_id IN ($essay, '')", keys
        )
    for table, columns in WORDS_ON_AN_ESSAY.items():
        for column in columns if table in tables else ():
            nothing = "NULL" if _may_be_null(db, table, column) else "''"
            where = _about(db, table)
            db.execute(f'UPDATE "{table}" SET "{column}" = {nothing} WHERE {where}', keys)  # noqa: S608
    names = names_of(db, batch_id, essay_id)
    _remove_from_documents(db, batch_id, names)
    told = "".join(f', "{name}" = NULL' for name in _names_of_students(db))
    db.execute(
        "UPDATE essays SET text = '', file_name = '', source_path = '', sha256 = '',"  # noqa: S608
        f" n_bytes = 0{told} WHERE batch_id = $batch AND essay_id = $essay",
        keys,
    )
    # What was told of the batch's files may name any of them.
    db.execute(
        "UPDATE batches SET metadata = json_merge_patch(metadata, '{\"notices\": []}')"
        " WHERE batch_id = ?",
        [batch_id],
    )
    return 1 + (row["n"] if row else 0)


def _about(db: Session, table: str) -> str:
    """Return the condition for the rows of a table that show or are about an essay."""
    columns = _columns(db, table)
    if "comparison_id" in columns and "essay_a" not in columns:
        return _SHOWS_IT
    if "essay_a" in columns:
        return _QUOTES_IT
    return "batch_id = $batch AND essay_id = $essay"


def _remove_samples(db: Session, batch_id: str) -> None:
    """Remove the beginning of an answer that is shown where a judge is held."""
    for row in db.rows(
        "SELECT judge_id, reason, sample FROM judge_holds WHERE batch_id = ? AND sample <> ''",
        [batch_id],
    ):
        db.execute(
            "UPDATE judge_holds SET reason = ?, sample = NULL WHERE batch_id = ? AND judge_id = ?",
            [row["reason"].replace(repr(row["sample"]), "(removed)"), batch_id, row["judge_id"]],
        )


def _columns(db: Session, table: str) -> dict[str, str]:
    rows = db.rows(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?"
        " AND database_name = current_database()",
        [table],
    )
    return {row["column_name"]: row["data_type"] for row in rows}


def _may_be_null(db: Session, table: str, column: str) -> bool:
    row = db.one(
        "SELECT is_nullable AS yes FROM duckdb_columns() WHERE table_name = ? AND column_name = ?"
        " AND database_name = current_database()",
        [table, column],
    )
    return row is not None and bool(row["yes"])


def _names_of_students(db: Session) -> list[str]:
    """Return the columns that say whom an essay is by; an older copy may not have them."""
    wanted = ("given_id", "name", "group", "attributes", "notes", "masked_text")
    return [name for name in wanted if name in _columns(db, "essays")]


def names_of(db: Session, batch_id: str, essay_id: str) -> list[str]:
    """Return what an essay is called: its id and its names, the longest first."""
    keys = {"batch": batch_id, "essay": essay_id}
    named = db.one("FROM essays WHERE batch_id = $batch AND essay_id = $essay", keys) or {}
    kept = {essay_id, *(named.get(key) for key in ("file_name", "given_id", "name"))}
    kept |= {Path(str(name)).stem for name in (named.get("file_name"), named.get("source_path"))}
    return sorted((str(name) for name in kept if name and name != "None"), key=len, reverse=True)


def is_telling(name: str) -> bool:
    """Whether a name, found among other words, is surely meant."""
    return len(name) >= _SHORTEST_NAME and not name.isdecimal()


def _without(names: Iterable[str]) -> Callable[[str], str]:
    """Return what replaces names in words by `forgotten`; short ones and numbers are left."""
    told = [name for name in names if is_telling(name)]
    if not told:
        return lambda text: text
    words = re.compile(rf"(?<![\w-])(?:{'|'.join(re.escape(name) for name in told)})(?![\w-])")
    return lambda text: words.sub("forgotten", text)


def _remove_from_documents(db: Session, batch_id: str, names: list[str]) -> None:
    """Remove an essay's id, names and file name from the stored text of `batch.yaml`."""
    for row in db.rows(
        "SELECT kind, content FROM documents WHERE batch_id = ? AND kind = 'batch'", [batch_id]
    ):
        content = _without(names)(_without_scalars(row["content"], names))
        db.execute(
            "UPDATE documents SET content = ? WHERE batch_id = ? AND kind = ?",
            [content, batch_id, row["kind"]],
        )


def _without_scalars(text: str, names: list[str]) -> str:
    """Replace names where `batch.yaml` lists essays: there a number too is a name."""
    import yaml

    found: list[tuple[int, int]] = []

    def look(node: yaml.Node | None, is_of_essays: bool) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if is_of_essays:
                    look(key, is_of_essays)
                look(value, is_of_essays or key.value in ESSAYS_OF_SETTINGS)
        elif isinstance(node, yaml.SequenceNode):
            for each in node.value:
                look(each, is_of_essays)
        elif isinstance(node, yaml.ScalarNode) and is_of_essays and node.value in names:
            found.append((node.start_mark.index, node.end_mark.index))

    with suppress(yaml.YAMLError):
        look(yaml.compose(text, yaml.SafeLoader), is_of_essays=False)
    for begin, end in sorted(found, reverse=True):
        text = f"{text[:begin]}forgotten{text[end:]}"
    return text


def _rename(db: Session, batch_id: str, essay_id: str, alias: str, names: list[str]) -> int:
    """Replace the essay's id wherever it stands: ids are made from file names, often names."""
    n_rows = 0
    for table in tables_of(db):
        columns = _columns(db, table)
        for column in columns.keys() & set(ID_COLUMNS):
            keys = {"old": essay_id, "batch": batch_id}
            where = f'"{table}" WHERE batch_id = $batch AND "{column}" = $old'
            row = db.one(f"SELECT count(*) AS n FROM {where}", keys)  # noqa: S608
            n_rows += row["n"] if row else 0
            db.execute(
                f'UPDATE "{table}" SET "{column}" = $new'  # noqa: S608
                f' WHERE batch_id = $batch AND "{column}" = $old',
                keys | {"new": alias},
            )
        for column in columns.keys() & set(PERSON_COLUMNS):
            # Whoever wrote it may have appealed, or judged others' essays.
            db.execute(
                f'UPDATE "{table}" SET "{column}" = ?'  # noqa: S608
                f' WHERE batch_id = ? AND "{column}" IN (SELECT unnest(?))',
                [alias, batch_id, names],
            )
        for column in WORDS_ON_A_BATCH.get(table, ()):
            if column in columns:
                is_json = columns[column] == "JSON"
                _replace_in(db, table, column, batch_id, _renamed(essay_id, alias, names, is_json))
    _replace_in(
        db, "batches", "settings", batch_id, _renamed_in_settings(essay_id, alias, [*names])
    )
    return n_rows


def _replace_in(
    db: Session, table: str, column: str, batch_id: str, replaced: Callable[[str], str]
) -> None:
    """Put what a function makes of a column's words in their place, row by row."""
    for row in db.rows(
        f'SELECT DISTINCT "{column}"::VARCHAR AS words FROM "{table}"'  # noqa: S608
        f' WHERE batch_id = ? AND "{column}" IS NOT NULL',
        [batch_id],
    ):
        words = replaced(row["words"])
        if words != row["words"]:
            db.execute(
                f'UPDATE "{table}" SET "{column}" = ?'  # noqa: S608
                f' WHERE batch_id = ? AND "{column}"::VARCHAR = ?',
                [words, batch_id, row["words"]],
            )


def _renamed(called: str, alias: str, names: list[str], is_json: bool) -> Callable[[str], str]:
    """Return what replaces an id or a name by its alias, and names within sentences."""
    without = _without(names)

    def text(words: str) -> str:
        return alias if words == called else without(words)

    return (lambda words: _dumped(_mapped(json.loads(words), text), words)) if is_json else without


def _renamed_in_settings(essay_id: str, alias: str, names: list[str]) -> Callable[[str], str]:
    def settings(words: str) -> str:
        said = json.loads(words)
        for key in ESSAYS_OF_SETTINGS:
            if key in said:
                said[key] = _mapped(
                    said[key], lambda name: alias if name in {essay_id, *names} else name
                )
        if isinstance(said.get("title"), str):
            said["title"] = _without(names)(said["title"])
        return _dumped(said, words)

    return settings


def _mapped(value: Any, text: Callable[[str], str]) -> Any:
    """Return a JSON value with a function applied to every text and key of it."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [_mapped(each, text) for each in value]
    if isinstance(value, dict):
        return {text(key): _mapped(each, text) for key, each in value.items()}
    return value


def _dumped(value: Any, before: str) -> str:
    """Return a JSON value as text: as it was, where nothing of it has changed."""
    return before if value == json.loads(before) else json.dumps(value, ensure_ascii=False)


def tables_of(db: Session) -> list[str]:
    rows = db.rows(
        "SELECT DISTINCT table_name FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) WHERE database_name = current_database() "
        "AND column_name = 'batch_id' AND table_name NOT IN (SELECT unnest(?)) ORDER BY 1",
        [list(OUTLASTING)],
    )
    return [row["table_name"] for row in rows]


def _count(db: Session, table: str, batch_id: str) -> int:
    row = db.one(f'SELECT count(*) AS n FROM "{table}" WHERE batch_id = ?', [batch_id])  # noqa: S608
    return int(row["n"]) if row else 0
