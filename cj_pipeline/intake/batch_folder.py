"""A batch folder becomes a `Batch`, or a list of everything that is wrong with it.

    batch.yaml          what to do (`settings`)
    instructions.md     what the students were asked
    rubric.md           what judges look for (optional)
    essays/*.txt        or essays.csv (essay_id, text)
    anchors/*.txt       with grades in anchors/grades.csv (file, grade) or before `__` in their
                        names (`B__anna.txt`); or anchors.csv (essay_id, text, grade); optional
    judges/*.yaml       judges of the batch's own (optional)
    scale.yaml          a grade scale of the batch's own (optional)

Nothing outside the folder is ever read: links are a problem, not followed. What a text may hold is
`text_files`; taking a batch into the store is `steps.ingest`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cj_pipeline.batch.essays import Document, Essay
from cj_pipeline.errors import BatchProblemsError, SettingsError
from cj_pipeline.grading.grade_scales import (
    GradeScale,
    load_scale,
    own_scale_problems,
    read_scale,
    scale_problems,
)
from cj_pipeline.ids import ID, id_for, nearest
from cj_pipeline.intake.settings import ResolvedSettings, resolve_settings
from cj_pipeline.text import (
    MAX_BYTES,
    MAX_CHARACTERS,
    StrictLoader,
    decode,
    same_words,
    text_flaw,
    with_plain_line_ends,
)

MIN_ESSAYS = 2
"""Students and anchors together: one pair is the least that can be compared."""

MAX_TABLE_BYTES = 256 * 1024 * 1024
"""Of a CSV; well above 5,000 essays of 40,000 characters."""

GRADES_FILE = "grades.csv"
SCALE_FILE = "scale.yaml"

_KNOWN_NAMES = (
    "batch.yaml",
    "instructions.md",
    "rubric.md",
    "essays",
    "essays.csv",
    "anchors",
    "anchors.csv",
    "judges",
    "scale.yaml",
)
# What file managers leave behind without asking.
_LITTER = ("thumbs.db", "desktop.ini")
_MAX_ID_CHARACTERS = 200


def read_batch(
    folder: Path, *, explicit: Mapping[str, Any] | None = None, batch_id: str | None = None
) -> Batch:
    """Return the batch in a folder.

    Args:
        folder: Laid out as this module's first lines say.
        explicit: Settings that win over `batch.yaml`.
        batch_id: The batch's name; by default made from the folder's.

    Raises:
        BatchProblemsError: With every problem found, each naming its file.
    """
    root = folder.resolve()
    name = id_for(batch_id if batch_id is not None else root.name, prefix="batch")
    reading = _Reading(root)
    if batch_id is not None and not ID.fullmatch(batch_id):
        reading.problems.append(
            f"'{batch_id}' cannot name a batch: use 3 to 64 of a-z, 0-9, '-' and '_'"
        )
    if not root.is_dir():
        raise BatchProblemsError(name, [f"there is no folder {root}"])
    _check_names(reading)
    settings, documents = _read_documents(reading, explicit)
    own_scale = _document(reading, "scale", SCALE_FILE) if reading.has(SCALE_FILE) else None
    documents += [own_scale] if own_scale is not None else []
    scale = _read_scale(reading, settings, own_scale)
    essays = [*_read_students(reading), *_read_anchors(reading, settings, scale)]
    _check_essays(reading, essays)
    if settings is not None:
        _check_qualities(reading, settings, essays)
        _check_goals(reading, settings, essays)
    for judge in reading.names("judges", required=False):
        reading.bytes_of(f"judges/{judge}", MAX_BYTES)
    if reading.problems or settings is None:
        raise BatchProblemsError(name, reading.problems)
    return Batch(
        batch_id=name,
        source_path=str(root),
        essays=tuple(essays),
        documents=tuple(documents),
        settings=settings,
        content_sha256=_sha256(json.dumps(sorted(reading.checksums.items())).encode()),
    )


@dataclass(frozen=True)
class _Reading:
    """A folder while it is read: what was wrong so far, and the checksum of each file read."""

    root: Path
    problems: list[str] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)

    def has(self, relative: str) -> bool:
        """Whether there is anything of this name, a broken link included."""
        return os.path.lexists(self.root / relative)

    def names(self, relative: str, *, required: bool = True) -> list[str]:
        """Return the names in a folder, sorted, without what file managers leave behind."""
        path = self.root / relative
        if not self.has(relative) and not required:
            return []
        if path.is_symlink() or not path.is_dir():
            self.problems.append(f"{relative} is not a folder")
            return []
        try:
            found = sorted(entry.name for entry in path.iterdir())
        except OSError as error:
            self.problems.append(f"{relative} cannot be listed: {error.strerror}")
            return []
        return [name for name in found if not _is_litter(name)]

    def bytes_of(self, relative: str, max_bytes: int) -> bytes | None:
        """Return a file's bytes; None, and a problem, when it is no plain file of this size."""
        path = self.root / relative
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                self.problems.append(f"{relative} is a link: put the file itself there")
                return None
            if not stat.S_ISREG(status.st_mode):
                self.problems.append(f"{relative} is not a file")
                return None
            if status.st_size > max_bytes:
                self.problems.append(
                    f"{relative} has {status.st_size:,} bytes, more than the {max_bytes:,} allowed"
                )
                return None
            content = path.read_bytes()
        except FileNotFoundError:
            self.problems.append(f"{relative} is missing")
            return None
        except OSError as error:
            self.problems.append(f"{relative} cannot be read: {error.strerror}")
            return None
        self.checksums[relative] = _sha256(content)
        return content

    def text_of(self, relative: str, max_bytes: int = MAX_BYTES) -> tuple[str, bytes] | None:
        """Return a file's text, line ends as they are, and its bytes; None with a problem."""
        content = self.bytes_of(relative, max_bytes)
        if content is None:
            return None
        if not content:
            self.problems.append(f"{relative} is empty")
            return None
        try:
            return decode(content), content
        except ValueError as error:
            self.problems.append(f"{relative} {error}")
            return None


def _is_litter(name: str) -> bool:
    return name.startswith((".", "~$")) or name.lower() in _LITTER


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_names(reading: _Reading) -> None:
    """A file with almost a known name would be left out in silence: say so instead."""
    for name in reading.names("."):
        if name in _KNOWN_NAMES:
            continue
        stem = name.lower().removesuffix(".txt")
        hint = nearest(stem, _KNOWN_NAMES, at_least=0.8)
        if hint:
            reading.problems.append(f"{name} is not a file of a batch folder{hint}")


def _read_documents(
    reading: _Reading, explicit: Mapping[str, Any] | None
) -> tuple[ResolvedSettings | None, list[Document]]:
    documents = []
    for kind, name in (("instructions", "instructions.md"), ("rubric", "rubric.md")):
        if kind == "rubric" and not reading.has(name):
            continue
        document = _document(reading, kind, name)
        if document is not None:
            documents.append(document)
    yaml_file = _document(reading, "batch", "batch.yaml")
    if yaml_file is None:
        return None, documents
    configured = _parse_yaml(reading, yaml_file.content)
    if configured is None:
        return None, documents
    settings, problems = resolve_settings(configured, explicit)
    reading.problems.extend(problems)
    return settings, [*documents, yaml_file]


def _document(reading: _Reading, kind: str, name: str) -> Document | None:
    found = reading.text_of(name)
    if found is None:
        return None
    text = with_plain_line_ends(found[0])
    flaw = text_flaw(text)
    if flaw:
        reading.problems.append(f"{name} {flaw}")
        return None
    return Document(kind, text, name, _sha256(found[1]), len(found[1]))


def _parse_yaml(reading: _Reading, text: str) -> dict[Any, Any] | None:
    try:
        content = yaml.load(text, Loader=StrictLoader)  # noqa: S506 -- a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" on line {mark.line + 1}" if mark is not None else ""
        reading.problems.append(f"batch.yaml is not YAML{where}: {error.problem or error.context}")
        return None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reading.problems.append(f"batch.yaml is not YAML: {type(error).__name__}: {error}")
        return None
    if not isinstance(content, dict):
        reading.problems.append("batch.yaml must hold `key: value` lines, nothing else")
        return None
    return content


def _read_scale(
    reading: _Reading, settings: ResolvedSettings | None, own: Document | None
) -> GradeScale | None:
    """Return the scale the batch names; problems of its own one are reported in any case."""
    name = settings.values.scale if settings is not None else None
    if own is not None:
        content = own.content.encode()
        problems = scale_problems(content)
        if not problems and settings is not None:
            problems = own_scale_problems(name, read_scale(content))
        reading.problems.extend(f"{SCALE_FILE}: {problem}" for problem in problems)
        if problems:
            return None
    if settings is None or name is None:
        return None
    try:
        scale = load_scale(name, own.content if own is not None else None)
    except SettingsError as error:
        reading.problems.append(f"batch.yaml: scale: {error}")
        return None
    if settings.values.use_priors and scale.priors is None:
        reading.problems.append(
            f"batch.yaml: use_priors: there are no published shares for {name}: leave it out"
            + (f", or give `priors` in {SCALE_FILE}" if own is not None else "")
        )
    return scale


def _read_students(reading: _Reading) -> list[Essay]:
    as_files, as_table = reading.has("essays"), reading.has("essays.csv")
    if as_files and as_table:
        reading.problems.append("both essays/ and essays.csv are given: keep one of them")
    if not as_files and not as_table:
        reading.problems.append("the essays are missing: give essays/*.txt or essays.csv")
    essays = []
    if as_files:
        names = _text_names(reading, "essays")
        essays += [e for n in names if (e := _essay_file(reading, f"essays/{n}", "essay"))]
    if as_table:
        essays += _essay_rows(reading, "essays.csv", "essay")
    return essays


def _read_anchors(
    reading: _Reading, settings: ResolvedSettings | None, scale: GradeScale | None
) -> list[Essay]:
    as_files, as_table = reading.has("anchors"), reading.has("anchors.csv")
    if as_files and as_table:
        reading.problems.append("both anchors/ and anchors.csv are given: keep one of them")
    if (as_files or as_table) and settings is not None and settings.values.scale is None:
        reading.problems.append(
            "batch.yaml names no scale, so the anchors' grades mean nothing: add `scale: ...`"
        )
    anchors = []
    if as_files:
        anchors += _anchor_files(reading)
    if as_table:
        anchors += _essay_rows(reading, "anchors.csv", "anchor")
    if scale is not None:
        for anchor in anchors:
            if anchor.grade not in scale.steps:
                reading.problems.append(
                    f"{anchor.source_path}: unknown grade {anchor.grade!r} on"
                    f" {scale.name}; known: {', '.join(scale.steps)}"
                )
    return anchors


def _text_names(reading: _Reading, folder: str) -> list[str]:
    """Return the `.txt` files of a folder; anything else there is a problem, never left out."""
    texts = []
    for name in reading.names(folder):
        if name.lower().endswith(".txt"):
            texts.append(name)
        elif (folder, name) != ("anchors", GRADES_FILE):
            reading.problems.append(
                f"{folder}/{name} is not a .txt file: save it as plain text, or take it out"
            )
    if not texts:
        reading.problems.append(f"{folder} holds no .txt file")
    return texts


def _essay_file(
    reading: _Reading, relative: str, prefix: str, grade: str | None = None
) -> Essay | None:
    found = reading.text_of(relative)
    if found is None:
        return None
    text = with_plain_line_ends(found[0])
    flaw = text_flaw(text)
    if flaw:
        reading.problems.append(f"{relative} {flaw}")
        return None
    name = relative.rpartition("/")[2]
    return Essay(
        essay_id=id_for(Path(name).stem, prefix=prefix),
        text=text,
        grade=grade,
        file_name=name,
        source_path=relative,
        sha256=_sha256(found[1]),
        n_bytes=len(found[1]),
    )


def _anchor_files(reading: _Reading) -> list[Essay]:
    names = _text_names(reading, "anchors")
    listed = _listed_grades(reading, names)
    anchors = []
    for name in names:
        grade = listed.get(name) if listed is not None else _grade_in_name(name)
        if grade is None and listed is not None:
            reading.problems.append(f"anchors/{name} has no grade in anchors/{GRADES_FILE}")
        elif grade is None:
            reading.problems.append(
                f"anchors/{name} has no grade: list it in anchors/{GRADES_FILE} (file,grade), or"
                f" begin its name with the grade, as in B__{name}"
            )
        anchor = _essay_file(reading, f"anchors/{name}", "anchor", grade)
        if anchor is not None and grade is not None:
            anchors.append(anchor)
    return anchors


def _grade_in_name(name: str) -> str | None:
    grade, separator, _ = name.partition("__")
    return grade if separator and grade else None


def _listed_grades(reading: _Reading, names: Sequence[str]) -> dict[str, str] | None:
    """Return the grade of each file in anchors/grades.csv; None where there is no such table."""
    relative = f"anchors/{GRADES_FILE}"
    if not reading.has(relative):
        return None
    grades: dict[str, str] = {}
    for line, row in _table_rows(reading, relative, ("file", "grade")):
        file, grade = row["file"].strip(), row["grade"].strip()
        if file not in names:
            hint = nearest(file, names, at_least=0.6)
            reading.problems.append(f"{relative} line {line}: anchors/ has no file {file!r}{hint}")
        elif file in grades:
            reading.problems.append(f"{relative} line {line}: {file!r} has a grade already")
        elif not grade:
            reading.problems.append(f"{relative} line {line}: {file!r} has no grade")
        else:
            grades[file] = grade
    return grades


def _essay_rows(reading: _Reading, relative: str, prefix: str) -> list[Essay]:
    graded = prefix == "anchor"
    columns = ("essay_id", "text", "grade") if graded else ("essay_id", "text")
    essays = []
    for line, row in _table_rows(reading, relative, columns):
        name, grade = row["essay_id"].strip(), row.get("grade", "").strip()
        text = with_plain_line_ends(row["text"])
        flaws = [f"the text {flaw}"] if (flaw := text_flaw(text)) else []
        if not name or len(name) > _MAX_ID_CHARACTERS or not name.isprintable():
            flaws.append(f"the essay_id must be 1 to {_MAX_ID_CHARACTERS} visible characters")
        if graded and not grade:
            flaws.append("the grade is missing")
        if flaws:
            reading.problems.extend(f"{relative} line {line}: {flaw}" for flaw in flaws)
            continue
        cell = row["text"].encode()
        essays.append(
            Essay(
                essay_id=id_for(name, prefix=prefix),
                text=text,
                grade=grade if graded else None,
                file_name=relative,
                source_path=f"{relative}#{name}",
                sha256=_sha256(cell),
                n_bytes=len(cell),
            )
        )
    return essays


def _table_rows(
    reading: _Reading, relative: str, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row of a CSV with the line it ends on; what is wrong becomes problems.

    Columns may be in any order and be separated by commas, semicolons or tabs, as spreadsheets
    write them; other columns are left alone.
    """
    found = reading.text_of(relative, MAX_TABLE_BYTES)
    if found is None:
        return
    rows = csv.reader(
        io.StringIO(found[0], newline=""), delimiter=_delimiter(found[0], columns), strict=True
    )
    n_rows = 0
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        problems = _header_problems(header, columns)
        if problems:
            reading.problems.extend(f"{relative} {problem}" for problem in problems)
            return
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            n_rows += 1
            if len(row) == len(header):
                cells = dict(zip(header, row, strict=True))
                yield rows.line_num, {name: cells[name] for name in columns}
            else:
                reading.problems.append(
                    f"{relative} line {rows.line_num}: {len(row)} cells, but the header names"
                    f" {len(header)}; put texts in double quotes"
                )
    except csv.Error as error:
        reason = str(error)
        if "field larger" in reason:
            reason = f"a text has more than the {MAX_CHARACTERS:,} characters a judge is shown"
        reading.problems.append(f"{relative} cannot be read beyond line {rows.line_num}: {reason}")
        return
    if not n_rows:
        reading.problems.append(f"{relative} has no row below its header")


def _delimiter(text: str, columns: Sequence[str]) -> str:
    """Return the separator whose use makes the first line name the most columns wanted."""
    first = with_plain_line_ends(text[:10_000]).split("\n", 1)[0]
    names = {
        mark: {name.strip().strip('"').lower() for name in first.split(mark)} for mark in ",;\t"
    }
    return max(names, key=lambda mark: len(names[mark] & set(columns)))


def _header_problems(header: Sequence[str], columns: Sequence[str]) -> list[str]:
    missing = [name for name in columns if name not in header]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    problems = []
    if missing:
        problems.append(
            f"lacks the column {', '.join(missing)}; its first line must name"
            f" {', '.join(columns)} and it names {', '.join(filter(None, header)) or 'nothing'}"
        )
    if twice:
        problems.append(f"names the column {', '.join(twice)} twice")
    if "grade" in header and "grade" not in columns:
        problems.append("has a column grade; essays whose grade is known belong in anchors.csv")
    return problems


def _check_essays(reading: _Reading, essays: Sequence[Essay]) -> None:
    by_id, by_words = defaultdict(list), defaultdict(list)
    for essay in essays:
        by_id[essay.essay_id].append(essay.source_path)
        by_words[same_words(essay.text)].append(essay.source_path)
    for essay_id, places in by_id.items():
        if len(places) > 1:
            reading.problems.append(
                f"{_listed(places)} share the essay id {essay_id!r}: rename all but one"
            )
    for places in by_words.values():
        if len(places) > 1:
            reading.problems.append(f"{_listed(places)} are identical texts: keep one of them")
    if len(essays) < MIN_ESSAYS:
        reading.problems.append(
            f"too few essays: {len(essays)} can be used, students and anchors together, and"
            f" {MIN_ESSAYS} are the least that can be compared"
        )


def _check_qualities(
    reading: _Reading, settings: ResolvedSettings, essays: Sequence[Essay]
) -> None:
    known = {essay.essay_id for essay in essays}
    for essay_id in settings.values.emulator_qualities:
        if essay_id not in known:
            reading.problems.append(
                f"batch.yaml: emulator_qualities: no essay has the id {essay_id!r}"
            )


def _check_goals(reading: _Reading, settings: ResolvedSettings, essays: Sequence[Essay]) -> None:
    """What is to be made sure of has to exist: a batch without grades cannot be graded surely."""
    values = settings.values
    unsupported = ["goal: grades"] if values.goal == "grades" else []
    if values.precise is not None and values.precise.misgrading is not None:
        unsupported.append("precise: misgrading")
    lacking = [] if values.scale is not None else ["a scale (`scale: ...`)"]
    if not any(essay.is_anchor for essay in essays):
        lacking.append("anchors (anchors/*.txt or anchors.csv)")
    if lacking:
        reading.problems.extend(
            f"batch.yaml: {key} needs {' and '.join(lacking)}: add them, or leave it out"
            for key in unsupported
        )
    known = {essay.essay_id for essay in essays}
    named = Counter(essay_id for pile in values.rough_order for essay_id in pile)
    reading.problems.extend(
        f"batch.yaml: rough_order: no essay has the id {essay_id!r}"
        for essay_id in named
        if essay_id not in known
    )
    reading.problems.extend(
        f"batch.yaml: rough_order: {essay_id!r} is named twice"
        for essay_id, times in named.items()
        if times > 1
    )


def _listed(places: Sequence[str]) -> str:
    return f"{', '.join(places[:-1])} and {places[-1]}"


@dataclass(frozen=True)
class Batch:
    """The essays placed on one scale together, as submitted.

    `content_sha256` covers every file's path and checksum: the same folder gives the same value.
    """

    batch_id: str
    source_path: str
    essays: tuple[Essay, ...]
    documents: tuple[Document, ...]
    settings: ResolvedSettings
    content_sha256: str

    def document(self, kind: str) -> str:
        """Return the text of the document of this kind; empty when the batch has none."""
        return next((d.content for d in self.documents if d.kind == kind), "")

    @property
    def anchors(self) -> tuple[Essay, ...]:
        """The essays whose grade is known."""
        return tuple(essay for essay in self.essays if essay.is_anchor)

    @property
    def students(self) -> tuple[Essay, ...]:
        """The essays to be placed."""
        return tuple(essay for essay in self.essays if not essay.is_anchor)
