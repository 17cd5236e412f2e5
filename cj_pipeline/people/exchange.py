"""Verdicts made elsewhere come in, and those of a batch go out, as CSV or Parquet.

The columns are `essay_a` (shown first), `essay_b`, `winner` (one of the two ids, or `tie`),
`judge`, and `decided_at`, which may be missing. A file is taken whole or not at all.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, Literal

import structlog

from cj_pipeline.batch.comparisons import PEOPLE_FROM
from cj_pipeline.errors import SettingsError
from cj_pipeline.ids import id_for
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.templates import load_template
from cj_pipeline.outputs.csv_files import csv_text
from cj_pipeline.people.verdicts import HumanVerdict, store_verdicts, take_back
from cj_pipeline.provider_jobs.changes import judge_row
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.next_step import late_verdicts
from cj_pipeline.steps.plan_people import IMPORTED
from cj_pipeline.steps.rescore import rescore
from cj_pipeline.store.session import Session

log = structlog.get_logger()

COLUMNS = ("essay_a", "essay_b", "winner", "judge", "decided_at")
_NEEDED = COLUMNS[:4]
MAX_BYTES = 64 * 1024 * 1024
MAX_SHOWN = 50
"""Problems listed in one message; the rest are counted."""
MAX_NAME = 200


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Attributes:
        name: What it is taken back by.
        n_verdicts: Stored.
        judges: As the file names them, each with its number of verdicts.
        is_new: Whether it was not there already.
        revision: Of the grading that followed; None where the batch goes on.
    """

    name: str
    n_verdicts: int
    judges: Mapping[str, int]
    is_new: bool
    revision: int | None


@dataclass(frozen=True)
class _Row:
    line: int
    essay_a: str
    essay_b: str
    winner: str
    judge: str
    decided_at: datetime | None


def import_verdicts(
    runtime: Runtime, batch_id: str, path: Path, *, name: str | None = None
) -> Imported:
    """Take a file of verdicts into a batch; an ended batch is scored and graded again.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        path: A CSV or Parquet file.
        name: What the import is called; by default as the file, without its ending.

    Raises:
        SettingsError: With everything that is wrong; nothing of the file is taken then.
    """
    name = id_for(name or path.stem, prefix="import")
    rows, problems = _read(path)
    now = runtime.clock()
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        if record.state == "rejected":
            problems = ["the batch was rejected: fix its folder and submit it again", *problems]
        rows = _with_essay_ids(db, batch_id, rows)
        known = _known(db, batch_id, name)
        if known is not None and not problems and known == _content(rows):
            return Imported(name, len(rows), _by_judge(rows), is_new=False, revision=None)
        if known is not None:
            problems = [
                f"an import named '{name}' with other verdicts is there already: give this one"
                f" another name (--name), or take that one back first (cj verdicts withdraw"
                f" {batch_id} {name})",
                *problems,
            ]
        problems += _problems(record, rows, _verdicts_known(db, batch_id))
        if problems:
            raise SettingsError(_message(batch_id, path, problems))
        judge = _imported_judge(db, record)
        verdicts = [_verdict(row, judge.judge_id, name, now) for row in rows]
        store_verdicts(db, batch_id, verdicts, now)
    log.info("verdicts_imported", batch_id=batch_id, import_name=name, n_verdicts=len(rows))
    revision = rescore(runtime, batch_id).revision if record.has_ended else None
    return Imported(name, len(rows), _by_judge(rows), is_new=True, revision=revision)


def withdraw_verdicts(
    runtime: Runtime, batch_id: str, name: str, *, by: str, reason: str = "taken back"
) -> int:
    """Take an import back by its name, and return how many verdicts count no more.

    What was imported stays in the store, marked as taken back; an ended batch is graded again.

    Raises:
        SettingsError: If the batch has no import of that name that counts.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        rows = db.rows(
            "SELECT answer_id FROM human_answers ANTI JOIN withdrawn_answers USING (answer_id)"
            " WHERE batch_id = ? AND source = 'import' AND import_name = ?",
            [batch_id, name],
        )
        if not rows:
            names = [each["import_name"] for each in imports(db, batch_id)]
            msg = (
                f"Batch '{batch_id}' has no import '{name}' that counts; it has"
                f" {', '.join(names) or 'none'}."
            )
            raise SettingsError(msg)
        take_back(db, batch_id, [r["answer_id"] for r in rows], by=by, reason=reason, now=now)
    log.info("verdicts_withdrawn", batch_id=batch_id, import_name=name, n_verdicts=len(rows))
    with runtime.store.read() as db:
        is_late = late_verdicts(db, batch_id)
    if record.has_ended and is_late:
        rescore(runtime, batch_id)
    return len(rows)


def imports(db: Session, batch_id: str) -> list[dict[str, Any]]:
    """Return a batch's imports that count: name, verdicts, and when they came, oldest first."""
    return db.rows(
        "SELECT import_name, count(*) AS n_verdicts, min(stored_at) AS stored_at"
        " FROM human_answers ANTI JOIN withdrawn_answers USING (answer_id)"
        " WHERE batch_id = ? AND source = 'import' GROUP BY import_name"
        " ORDER BY min(stored_at), import_name",
        [batch_id],
    )


def exported_verdicts(
    db: Session, batch_id: str, *, people_only: bool = False
) -> list[dict[str, Any]]:
    """Return every verdict of a batch as `import_verdicts` reads them, in the order requested.

    A person is named as they were when they came in, a model by its judge's name.

    Args:
        db: The store.
        batch_id: The batch.
        people_only: Leave out what models decided.
    """
    load_batch(db, batch_id)
    return db.rows(
        """
        SELECT c.essay_a, c.essay_b,
               CASE c.winner WHEN 'A' THEN c.essay_a WHEN 'B' THEN c.essay_b ELSE 'tie' END
                   AS winner,
               coalesce(h.person, j.name) AS judge, c.completed_at AS decided_at
        FROM comparisons c
        JOIN judges j USING (batch_id, judge_id)
        LEFT JOIN (
            FROM human_answers answers
            WHERE NOT EXISTS (FROM human_answers later WHERE later.replaces = answers.answer_id)
        ) h ON h.batch_id = c.batch_id AND h.comparison_id = c.comparison_id
        WHERE c.batch_id = ? AND c.status = 'succeeded' AND c.sequence >= ?
        ORDER BY c.sequence
        """,
        [batch_id, PEOPLE_FROM if people_only else 0],
    )


def write_verdicts(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write verdicts to a CSV or, where the file's name ends in .parquet, a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cj_pipeline.outputs.artefact import write_atomically

    if path.suffix.lower() == ".parquet":
        columns = {name: [row[name] for row in rows] for name in COLUMNS}
        texts = {name: pa.array(columns[name], pa.string()) for name in _NEEDED}
        times = pa.array(columns["decided_at"], pa.timestamp("us", "UTC"))
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(texts | {"decided_at": times}), sink)
        write_atomically(path, sink.getvalue().to_pybytes())
        return
    write_atomically(path, csv_of(rows).encode())


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return verdicts as CSV."""
    cells = [[*(row[name] for name in _NEEDED), row["decided_at"].isoformat()] for row in rows]
    return csv_text(COLUMNS, cells)


def _read(path: Path) -> tuple[list[_Row], list[str]]:
    """Return a file's rows as far as they can be read, and what is wrong with its form."""
    if not path.is_file():
        return [], [f"there is no file {path}"]
    if path.stat().st_size > MAX_BYTES:
        return [], [f"the file has more than {MAX_BYTES:,} bytes: split it"]
    try:
        raw = list(_parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path))
    except (ValueError, csv.Error, OSError) as error:
        return [], [f"the file cannot be read: {error}"]
    if not raw:
        return [], ["the file has no verdicts"]
    columns = list(raw[0][1])
    problems = [
        f"there is no column {column}: {', '.join(_NEEDED)} are needed"
        for column in _NEEDED
        if column not in columns
    ]
    unknown = [column for column in columns if column not in COLUMNS]
    problems += [f"column {column!r} is not known: leave it out" for column in unknown]
    if problems:
        return [], problems
    rows = []
    for line, given in raw:
        values = {name: _text(given.get(name)) for name in _NEEDED}
        blank = [name for name, value in values.items() if not value]
        if blank:
            problems.append(f"line {line}: {', '.join(blank)} is blank")
        decided_at, problem = _time(given.get("decided_at"))
        if problem:
            problems.append(f"line {line}: decided_at: {problem}")
        too_long = [name for name, value in values.items() if len(value) > MAX_NAME]
        problems += [f"line {line}: {name} has more than {MAX_NAME} letters" for name in too_long]
        rows.append(_Row(line, **values, decided_at=decided_at))
    return rows, problems


def _csv_rows(path: Path) -> Iterable[tuple[int, Mapping[str, Any]]]:
    text = path.read_bytes().decode("utf-8-sig")
    first = text.split("\n", 1)[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] | None = None
    for values in reader:
        if not any(value.strip() for value in values):
            continue
        if header is None:
            header = [value.strip() for value in values]
            if len(set(header)) != len(header):
                msg = "a column is named twice"
                raise ValueError(msg)
            continue
        if len(values) != len(header):
            msg = f"line {reader.line_num} has {len(values)} values, the first line {len(header)}"
            raise ValueError(msg)
        yield reader.line_num, dict(zip(header, values, strict=True))


def _parquet_rows(path: Path) -> Iterable[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None
    yield from enumerate(rows, start=1)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _time(value: Any) -> tuple[datetime | None, str | None]:
    if value is None or value == "":
        return None, None
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value).strip())
        except ValueError:
            return None, f"{value!r} is no time: write it as 2026-03-02T08:15:00+01:00"
    return (value if value.tzinfo else value.replace(tzinfo=UTC)), None


_Key = tuple[str, str, str, str | None]


def _key(judge: str, essay_a: str, essay_b: str, decided_at: datetime | None) -> _Key:
    """Return what makes a verdict the same as another one.

    Without a time, a judge has one verdict on a pair; with it, one at a time and in an order: then
    a pair that was judged again, or in both orders, is no repeat.
    """
    if decided_at is None:
        first, second = sorted((essay_a, essay_b))
        return judge, first, second, None
    return judge, essay_a, essay_b, decided_at.astimezone(UTC).isoformat()


def _verdicts_known(db: Session, batch_id: str) -> dict[_Key, str]:
    """Return the import that each imported verdict that counts came with."""
    rows = db.rows(
        "SELECT person, essay_a, essay_b, decided_at, stored_at, import_name FROM human_answers"
        " ANTI JOIN withdrawn_answers USING (answer_id)"
        " WHERE batch_id = ? AND source = 'import'",
        [batch_id],
    )
    found: dict[_Key, str] = {}
    for row in rows:
        key = _key(row["person"], row["essay_a"], row["essay_b"], _stated(row))
        found[key] = row["import_name"]
    return found


def _with_essay_ids(db: Session, batch_id: str, rows: Sequence[_Row]) -> list[_Row]:
    """Return rows with the batch's ids for essays that are named as they were handed in."""
    essays = db.rows("SELECT essay_id, file_name FROM essays WHERE batch_id = ?", [batch_id])
    ids = {row["essay_id"] for row in essays}
    names = [(name, e["essay_id"]) for e in essays for name in _names_of(e["file_name"])]
    n_of = Counter(name for name, _ in names)
    id_of = {name: essay_id for name, essay_id in names if n_of[name] == 1}

    def found(name: str) -> str:
        if name in ids or not name:
            return name
        own = id_for(name, prefix="essay")
        fallback = own if own in ids else name
        return str(id_of.get(name, fallback))

    return [
        replace(
            row,
            essay_a=found(row.essay_a),
            essay_b=found(row.essay_b),
            winner=row.winner if row.winner == "tie" else found(row.winner),
        )
        for row in rows
    ]


def _names_of(file_name: str) -> set[str]:
    """Return what a person may call an essay by the file it was handed in as."""
    path = PurePath(file_name)
    return {file_name, path.name, path.stem}


def _problems(record: BatchRecord, rows: Sequence[_Row], known: Mapping[_Key, str]) -> list[str]:
    essays, problems = set(record.essay_ids), []
    seen: dict[_Key, int] = {}
    for row in rows:
        named = {row.essay_a, row.essay_b} - {""}
        problems += [
            f"line {row.line}: there is no essay {essay!r} in batch '{record.batch_id}'"
            for essay in sorted(named - essays)
        ]
        if row.essay_a and row.essay_a == row.essay_b:
            problems.append(f"line {row.line}: {row.essay_a} is compared with itself")
        if row.winner and row.winner not in {row.essay_a, row.essay_b, "tie"}:
            problems.append(
                f"line {row.line}: winner {row.winner!r} is neither {row.essay_a} nor"
                f" {row.essay_b} nor tie"
            )
        key = _key(row.judge, row.essay_a, row.essay_b, row.decided_at)
        if key in seen:
            problems.append(
                f"line {row.line}: {row.judge} judged {row.essay_a} and {row.essay_b} already in"
                f" line {seen[key]}"
            )
        elif key in known:
            problems.append(
                f"line {row.line}: {row.judge} judged {row.essay_a} and {row.essay_b} already in"
                f" import '{known[key]}'"
            )
        seen.setdefault(key, row.line)
    return problems


def _message(batch_id: str, path: Path, problems: Sequence[str]) -> str:
    shown = "\n".join(f"  - {problem}" for problem in problems[:MAX_SHOWN])
    more = f"\n  and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
    return (
        f"{path.name} has {len(problems)} problem{'' if len(problems) == 1 else 's'}, so nothing of"
        f" it was taken into batch '{batch_id}'. Fix these and import it again:\n{shown}{more}"
    )


def _known(db: Session, batch_id: str, name: str) -> str | None:
    """Return what an import of that name that counts holds; None where there is none."""
    rows = db.rows(
        "SELECT essay_a, essay_b, winner, person, decided_at, stored_at FROM human_answers"
        " ANTI JOIN withdrawn_answers USING (answer_id)"
        " WHERE batch_id = ? AND source = 'import' AND import_name = ? ORDER BY number",
        [batch_id, name],
    )
    if not rows:
        return None
    return _content(
        [
            _Row(
                0,
                row["essay_a"],
                row["essay_b"],
                {"A": row["essay_a"], "B": row["essay_b"]}.get(row["winner"], "tie"),
                row["person"],
                _stated(row),
            )
            for row in rows
        ]
    )


def _content(rows: Sequence[_Row]) -> str:
    lines = [
        "\0".join((row.judge, row.essay_a, row.essay_b, row.winner, str(_utc(row.decided_at))))
        for row in rows
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _stated(row: Mapping[str, Any]) -> datetime | None:
    """Return the time a file gave a verdict; one without has the time it was stored."""
    found: datetime = row["decided_at"]
    return None if found == row["stored_at"] else found


def _utc(when: datetime | None) -> datetime | None:
    return None if when is None else when.astimezone(UTC)


def _by_judge(rows: Sequence[_Row]) -> dict[str, int]:
    names = sorted({row.judge for row in rows})
    return {name: sum(row.judge == name for row in rows) for name in names}


def _verdict(row: _Row, judge_id: str, name: str, now: datetime) -> HumanVerdict:
    winner: Literal["A", "B", "tie"] = "tie"
    if row.winner != "tie":
        winner = "A" if row.winner == row.essay_a else "B"
    return HumanVerdict(
        judge_id=judge_id,
        person=row.judge,
        essay_a=row.essay_a,
        essay_b=row.essay_b,
        winner=winner,
        decided_at=row.decided_at or now,
        source="import",
        import_name=name,
    )


def _imported_judge(db: Session, record: BatchRecord) -> Judge:
    """Return the judge that imported verdicts count for; added to the batch with the first."""
    judge = Judge(
        name=IMPORTED,
        provider="human",
        api="page",
        model="imported",
        template=load_template("essay-quality-1"),
        allow_ties=True,
    )
    row = {"batch_id": record.batch_id, **judge_row(judge)}
    db.insert("judges", [row], on_conflict="ignore")
    return judge
