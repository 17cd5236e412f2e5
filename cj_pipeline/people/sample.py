"""A moderation sample: students drawn, graded blind by teachers, and grades moderated by them.

Which students are drawn is left to chance, so that what they show holds for the rest. Teachers see
texts under neutral codes, and neither grade nor score nor name.
"""

from __future__ import annotations

import csv
import io
import random
import secrets
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from cj_pipeline.errors import SettingsError
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.queries.release import release_of
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.project import Projected, project
from cj_pipeline.steps.publish import publish
from cj_pipeline.store.session import Session
from cj_pipeline.text import visible

log = structlog.get_logger()

Method = Literal["random", "stratified"]

LEAST = 5
"""Students below which a sample says next to nothing of the level."""
MAX_BYTES = 8 * 1024 * 1024
SHEET_COLUMNS = ("sample", "code", "grade", "text")


@dataclass(frozen=True)
class SampledEssay:
    """A student as the sheet has it."""

    code: str
    essay_id: str
    text: str


@dataclass(frozen=True)
class Sample:
    """Students drawn to be graded by hand.

    Attributes:
        sample_id: What the sheet bears, so that it is known again.
        batch_id: The batch.
        number: Counts from 1 through the batch.
        essays: In the order of the sheet, which is no order of grades.
        grades: That may be given.
        instructions: Of the assignment, for the teacher.
        rubric: Likewise.
    """

    sample_id: str
    batch_id: str
    number: int
    essays: tuple[SampledEssay, ...]
    grades: tuple[str, ...]
    instructions: str
    rubric: str


@dataclass(frozen=True)
class Against:
    """Teachers' grades against those given without them, for the same students.

    Attributes:
        n: Students.
        mean: Teachers' grade less the grade given, in steps; negative where teachers are stricter.
        lower, upper: Where that lies for all students with 95 % probability, by Student's t.
        spread_ratio: Standard deviation of the teachers' grades over that of those given; None
            where all of those are the same.
        n_alike: Students with the same grade.
    """

    n: int
    mean: float
    lower: float
    upper: float
    spread_ratio: float | None
    n_alike: int

    @property
    def statement(self) -> str:
        """The same in words, with what so few could not have seen."""
        wider = (
            ""
            if self.spread_ratio is None
            else f" Their grades spread {self.spread_ratio:.1f} times as widely."
        )
        half = (self.upper - self.lower) / 2
        return (
            f"{self.n} students were graded by hand; {self.n_alike} of them alike. Teachers gave"
            f" {self.mean:+.2f} steps more (95 % between {self.lower:+.2f} and {self.upper:+.2f})."
            f"{wider} A difference of less than {half:.1f} steps could not have been seen by so"
            " few."
        )


def against(teachers: Sequence[int], given: Sequence[int]) -> Against:
    """Return teachers' grades against those given.

    Args:
        teachers: In steps of the scale, by student; two or more.
        given: In the same order.
    """
    import numpy as np
    from scipy.stats import t as student

    apart = np.array(teachers, dtype=float) - np.array(given, dtype=float)
    n = len(apart)
    half = float(student.ppf(0.975, n - 1)) * float(apart.std(ddof=1)) / float(np.sqrt(n))
    spread = float(np.std(given, ddof=1))
    return Against(
        n=n,
        mean=float(apart.mean()),
        lower=float(apart.mean()) - half,
        upper=float(apart.mean()) + half,
        spread_ratio=float(np.std(teachers, ddof=1)) / spread if spread > 0 else None,
        n_alike=int((apart == 0).sum()),
    )


@dataclass(frozen=True)
class Moderated:
    """What a sample came to: the grading that followed, and what it says.

    `against` is None where the same sheet was stored before.
    """

    n_sampled: int
    revision: int
    statement: str
    is_new: bool
    against: Against | None = None


def draw_sample(
    runtime: Runtime,
    batch_id: str,
    n: int,
    *,
    by: str,
    method: Method = "random",
    seed: int | None = None,
) -> Sample:
    """Draw students of a graded batch to be graded by hand; all of them where there are no more.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        n: How many.
        by: Who draws.
        method: random: every student alike, so that the sample stands for all; stratified: about
            alike from each grade, with each student's probability kept.
        seed: For a draw that can be repeated; by default from the operating system.

    Raises:
        SettingsError: If the batch has no grades or the number cannot be drawn.
    """
    now = runtime.clock()
    # Not cryptographic, but seeded from a source that nobody can steer.
    rng = random.Random(secrets.randbits(64) if seed is None else seed)  # noqa: S311
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        release = release_of(db, batch_id)
        if release.status == "no grades" or release.revision is None:
            msg = f"Batch '{batch_id}' has no grades, so there is nothing to moderate."
            raise SettingsError(msg)
        grades = {
            row["essay_id"]: row["grade"]
            for row in db.rows(
                "SELECT essay_id, grade FROM grade_projections"
                " WHERE batch_id = ? AND revision = ? AND NOT is_anchor ORDER BY essay_id",
                [batch_id, release.revision],
            )
            if row["essay_id"] not in record.sampled_grades
        }
        if n < min(LEAST, len(grades)) or not grades:
            msg = (
                f"{n} of the {len(grades)} students of batch '{batch_id}' that are not sampled yet"
                f" cannot be drawn: draw {LEAST} or more."
            )
            raise SettingsError(msg)
        drawn = _draw(grades, min(n, len(grades)), method, rng)
        number = _n_samples(db, batch_id) + 1
        sample_id = f"{batch_id}-sample-{number}-{rng.getrandbits(32):08x}"
        order = sorted(drawn)
        rng.shuffle(order)
        head = {
            "sample_id": sample_id,
            "batch_id": batch_id,
            "number": number,
            "method": method,
            "revision": release.revision,
            "drawn_by": by,
            "drawn_at": now,
        }
        db.insert("moderation_samples", [head])
        rows = [
            {
                "sample_id": sample_id,
                "batch_id": batch_id,
                "essay_id": essay_id,
                "code": f"S{number}-{place:02d}",
                "probability": drawn[essay_id],
            }
            for place, essay_id in enumerate(order, start=1)
        ]
        db.insert("moderation_sample_essays", rows)
        found = read_sample(db, record, sample_id)
    log.info("moderation_sample_drawn", batch_id=batch_id, n_students=len(drawn), method=method)
    return found


def read_sample(db: Session, record: BatchRecord, sample_id: str) -> Sample:
    """Return a sample as it was drawn."""
    rows = db.rows(
        "SELECT s.code, s.essay_id, e.text, m.number FROM moderation_sample_essays s"
        " JOIN moderation_samples m USING (sample_id, batch_id)"
        " JOIN essays e USING (batch_id, essay_id) WHERE s.sample_id = ? ORDER BY s.code",
        [sample_id],
    )
    documents = {
        row["kind"]: visible(row["content"])
        for row in db.rows(
            "SELECT kind, content FROM documents WHERE batch_id = ?", [record.batch_id]
        )
    }
    return Sample(
        sample_id=sample_id,
        batch_id=record.batch_id,
        number=rows[0]["number"],
        essays=tuple(SampledEssay(r["code"], r["essay_id"], visible(r["text"])) for r in rows),
        grades=_grades_of(record),
        instructions=documents.get("instructions", ""),
        rubric=documents.get("rubric", ""),
    )


def _grades_of(record: BatchRecord) -> tuple[str, ...]:
    terms = record.grading_terms
    return terms.scale.steps if terms else ()


def take_grades(runtime: Runtime, batch_id: str, path: Path, *, by: str) -> Moderated:
    """Store a sheet's grades and grade the batch again by them, as a further grading.

    Raises:
        SettingsError: With everything that is wrong with the sheet; nothing of it is stored then.
    """
    rows = read_sheet(path)
    now = runtime.clock()
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        sample_id, given, problems = _checked(db, record, rows)
        if problems:
            listed = "\n".join(f"  - {problem}" for problem in problems)
            msg = f"{path.name} was not taken as a sheet of batch '{batch_id}':\n{listed}"
            raise SettingsError(msg)
        known = {
            row["essay_id"]: row["grade"]
            for row in db.rows(
                "SELECT essay_id, grade FROM sampled_grades WHERE sample_id = ?", [sample_id]
            )
        }
        if known and known != given:
            msg = f"{path.name}: the grades of this sheet are stored already, and are others."
            raise SettingsError(msg)
        if not known:
            db.insert(
                "sampled_grades",
                [
                    {
                        "sample_id": sample_id,
                        "batch_id": batch_id,
                        "essay_id": essay_id,
                        "grade": grade,
                        "graded_by": by,
                        "stored_at": now,
                    }
                    for essay_id, grade in given.items()
                ],
            )
    if known:
        with runtime.store.read() as db:
            revision = release_of(db, batch_id).revision or 0
        return Moderated(len(given), revision, "These grades are stored already.", is_new=False)
    with runtime.store.read() as db:
        compared = _against(db, record, sample_id, given)
    projected: Projected = project(runtime, batch_id, again=True)
    publish(runtime, batch_id)
    log.info("moderation_sample_graded", batch_id=batch_id, revision=projected.revision)
    return Moderated(
        len(given), projected.revision, projected.statement, is_new=True, against=compared
    )


def _against(db: Session, record: BatchRecord, sample_id: str, given: Mapping[str, str]) -> Against:
    """Hold a sheet against the grading its students were drawn at."""
    machine = {
        row["essay_id"]: row["grade"]
        for row in db.rows(
            "SELECT g.essay_id, g.grade FROM grade_projections g"
            " JOIN moderation_samples m USING (batch_id, revision) WHERE m.sample_id = ?",
            [sample_id],
        )
    }
    steps = _grades_of(record)
    return against(
        [steps.index(grade) for grade in given.values()],
        [steps.index(machine[essay_id]) for essay_id in given],
    )


def read_sheet(path: Path) -> list[dict[str, str]]:
    """Return the rows of a sheet, CSV or XLSX, as texts; `line` counts as people see it.

    Raises:
        SettingsError: If it is no such sheet.
    """
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        msg = f"{path} is no sheet: there is no such file, or it has more than {MAX_BYTES:,} bytes."
        raise SettingsError(msg)
    try:
        table = _xlsx(path) if path.suffix.lower() == ".xlsx" else _csv(path)
    except (OSError, ValueError, csv.Error, zipfile.BadZipFile) as error:
        msg = f"{path.name} cannot be read as a sheet: {error}"
        raise SettingsError(msg) from None
    header = [cell.strip().lower() for cell in table[0]] if table else []
    missing = [name for name in SHEET_COLUMNS[:3] if name not in header]
    if missing:
        msg = f"{path.name} is no sheet of `cj moderate`: it has no column {', '.join(missing)}."
        raise SettingsError(msg)
    return [
        {"line": str(line)}
        | {
            name: row[header.index(name)].strip() if header.index(name) < len(row) else ""
            for name in SHEET_COLUMNS[:3]
        }
        for line, row in enumerate(table[1:], start=2)
        if any(cell.strip() for cell in row)
    ]


def _csv(path: Path) -> list[list[str]]:
    text = path.read_bytes().decode("utf-8-sig")
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def _xlsx(path: Path) -> list[list[str]]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        sheet = CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0)
    except CalamineError as error:
        raise ValueError(str(error)) from None
    return [[_cell(value) for value in row] for row in sheet.to_python()]


def _cell(value: Any) -> str:
    """Return a cell as people typed it: a spreadsheet has 5 as 5.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _checked(
    db: Session, record: BatchRecord, rows: Sequence[Mapping[str, str]]
) -> tuple[str, dict[str, str], list[str]]:
    """Return whose sheet it is, each essay's grade, and all that is wrong."""
    named = sorted({row["sample"] for row in rows})
    sample_id = named[0] if len(named) == 1 else ""
    essays = {
        row["code"]: row["essay_id"]
        for row in db.rows(
            "SELECT code, essay_id FROM moderation_sample_essays"
            " WHERE sample_id = ? AND batch_id = ?",
            [sample_id, record.batch_id],
        )
    }
    if not essays:
        whose = ", ".join(name or "nothing" for name in named) or "nothing"
        return "", {}, [f"it is the sheet of {whose}, and no sample of this batch"]
    known, problems, given = _grades_of(record), [], {}
    for row in rows:
        code, grade = row["code"], row["grade"]
        where = f"line {row['line']} ({code or 'no code'})"
        if code not in essays:
            problems.append(f"{where}: no student of this sample has this code")
        elif essays[code] in given:
            problems.append(f"{where}: is there twice")
        elif not grade:
            problems.append(f"{where}: has no grade")
        elif grade not in known:
            problems.append(f"{where}: {grade!r} is not on the scale: {', '.join(known)}")
        else:
            given[essays[code]] = grade
    present = {row["code"] for row in rows}
    problems += [f"{code}: is missing" for code in sorted(set(essays) - present)]
    return sample_id, given, problems


def _draw(
    grades: Mapping[str, str], n: int, method: Method, rng: random.Random
) -> dict[str, float]:
    """Return who is drawn, each with the probability it was drawn with."""
    if method == "random":
        return dict.fromkeys(rng.sample(sorted(grades), n), n / len(grades))
    strata: dict[str, list[str]] = defaultdict(list)
    for essay_id, grade in sorted(grades.items()):
        strata[grade].append(essay_id)
    share = dict.fromkeys(strata, 0)
    order = sorted(strata)
    rng.shuffle(order)
    while sum(share.values()) < n:
        for grade in order:
            if share[grade] < len(strata[grade]) and sum(share.values()) < n:
                share[grade] += 1
    return {
        essay_id: share[grade] / len(members)
        for grade, members in strata.items()
        for essay_id in rng.sample(members, share[grade])
    }


def _n_samples(db: Session, batch_id: str) -> int:
    row = db.one("SELECT count(*) AS n FROM moderation_samples WHERE batch_id = ?", [batch_id])
    return int(row["n"]) if row else 0


def write_sheets(sample: Sample, folder: Path) -> tuple[Path, Path]:
    """Write the sheet as a workbook to fill in and as a page to read, and return where."""
    from cj_pipeline.outputs.artefact import write_atomically
    from cj_pipeline.outputs.html import render_page

    folder.mkdir(parents=True, exist_ok=True)
    workbook = folder / f"{sample.sample_id}.xlsx"
    page = folder / f"{sample.sample_id}.html"
    write_atomically(workbook, sheet_xlsx(sample))
    html = render_page("moderation_sheet.html", language="en", sample=sample)
    write_atomically(page, html.encode())
    return workbook, page


def sheet_xlsx(sample: Sample) -> bytes:
    """Return the workbook: a row per student with a list to choose the grade from."""
    import xlsxwriter

    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True, "strings_to_formulas": False}) as book:
        sheet = book.add_worksheet("Grades")
        bold, wrap = book.add_format({"bold": True}), book.add_format({"text_wrap": True})
        for column, name in enumerate(SHEET_COLUMNS):
            sheet.write_string(0, column, name, bold)
        for line, essay in enumerate(sample.essays, start=1):
            sheet.write_string(line, 0, sample.sample_id)
            sheet.write_string(line, 1, essay.code)
            # A cell holds 32,767 characters; the page has the whole text.
            sheet.write_string(line, 3, essay.text[:32_000], wrap)
        if len(",".join(sample.grades)) <= 255:
            sheet.data_validation(
                1, 2, len(sample.essays), 2, {"validate": "list", "source": list(sample.grades)}
            )
        sheet.set_column(0, 0, 8)
        sheet.set_column(1, 2, 10)
        sheet.set_column(3, 3, 100)
        sheet.freeze_panes(1, 3)
    return content.getvalue()
