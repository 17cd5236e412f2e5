"""A batch folder becomes a `Batch`, or a list of everything that is wrong with it.

    batch.yaml          what to do (`settings`)
    instructions.md     what the students were asked (or .txt, .docx, .odt, .pdf)
    rubric.md           what judges look for (likewise; optional)
    essays/             .txt, .md, .docx, .odt, .pdf, .rtf, or folders of them (`essay_files`);
                        or essays.zip, or a table essays.csv, .xlsx, .ods (essay_id, text)
    anchors/            the same, with grades in a table grades.csv (file, grade) or in their names
                        (`B__anna.txt`, see `anchors`); or anchors.csv (essay_id, text, grade)
    register.csv        the class: essay_id, name, group and whatever else (optional)
    judges/*.yaml       judges of the batch's own (optional)
    scale.yaml          a grade scale of the batch's own (optional)

Nothing outside the folder is ever read: links are a problem, not followed. What a text may hold is
`text`; taking a batch into the store is `steps.ingest`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cj_pipeline.batch.essays import Document, Essay, SharedText, matching
from cj_pipeline.batch.options import Goal, goal_of
from cj_pipeline.errors import BatchProblemsError, SettingsError
from cj_pipeline.grading.grade_scales import (
    GradeScale,
    load_scale,
    own_scale_problems,
    read_scale,
    scale_problems,
)
from cj_pipeline.ids import ID, id_for, same_name
from cj_pipeline.intake.anchors import anchors_in, checked_grade, order_of_grades
from cj_pipeline.intake.essay_files import essay_of, sources_in
from cj_pipeline.intake.folder import Reading, sha256_of
from cj_pipeline.intake.identity import check_ids, with_ids, with_register
from cj_pipeline.intake.layout import FOLDERS, check_names, document_of, folder_of
from cj_pipeline.intake.masking import with_masked_names
from cj_pipeline.intake.readers.process import DOCUMENTS, MAX_FILE_BYTES, reader_process
from cj_pipeline.intake.settings import (
    BatchSettings,
    Column,
    ResolvedSettings,
    resolve_settings,
    usable_settings,
)
from cj_pipeline.intake.tables import Row, check_mapping, table_named, table_rows
from cj_pipeline.intake.unknown_names import with_guessed_names
from cj_pipeline.text import (
    MAX_BYTES,
    is_seen_whole,
    read_yaml,
    same_words,
    text_flaw,
    with_plain_line_ends,
)

MIN_ESSAYS = 2
"""Students and anchors together: one pair is the least that can be compared."""

SCALE_FILE = "scale.yaml"

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
    if not root.is_dir():
        raise BatchProblemsError(name, [f"there is no folder {root}"])
    with reader_process() as readers:
        reading = Reading(root, readers=readers)
        if batch_id is not None and not ID.fullmatch(batch_id):
            reading.problems.append(
                f"'{batch_id}' cannot name a batch: use 3 to 64 of a-z, 0-9, '-' and '_'"
            )
        return _read(reading, name, explicit)


def _read(reading: Reading, name: str, explicit: Mapping[str, Any] | None) -> Batch:
    settings, usable, documents = _read_documents(reading, explicit)
    if usable is not None and usable.values.encoding is not None:
        reading.encoding.append(usable.values.encoding)
    documents += _read_shown(reading)
    check_names(reading, usable.values.accept if usable is not None else ())
    own_scale = _document(reading, "scale", SCALE_FILE) if reading.has(SCALE_FILE) else None
    documents += [own_scale] if own_scale is not None else []
    scale = _read_scale(reading, usable, own_scale)
    columns = usable.values.columns if usable is not None else {}
    essays = _read_students(reading, columns) + _read_anchors(reading, usable, scale, columns)
    essays, names = with_register(reading, with_ids(essays), columns)
    check_ids(reading, essays)
    check_mapping(reading, columns)
    guess = usable.values.unknown_names if usable is not None else "keep"
    if usable is not None and usable.values.mask_names:
        essays = with_masked_names(reading, essays, names, others_stay=guess != "mask")
    if guess != "keep":
        essays = with_guessed_names(reading, essays, names, mask=guess == "mask")
    shares = usable is not None and usable.values.identical_texts == "share"
    essays, shared = _check_texts(reading, essays, shares=shares)
    if usable is not None:
        usable = _by_ids(usable, essays)
        settings = _by_ids(settings, essays) if settings is not None else None
        _check_qualities(reading, usable, essays)
        _check_goals(reading, usable, scale, essays)
    for name_of_judge in reading.names("judges", required=False):
        if name_of_judge != "templates":
            reading.bytes_of(f"judges/{name_of_judge}", MAX_BYTES)
            _tell_unless_yaml(reading, f"judges/{name_of_judge}")
            continue
        for template in reading.names("judges/templates"):
            reading.bytes_of(f"judges/templates/{template}", MAX_BYTES)
            _tell_unless_yaml(reading, f"judges/templates/{template}")
    if reading.problems or settings is None:
        raise BatchProblemsError(name, list(dict.fromkeys(reading.problems)))
    return Batch(
        batch_id=name,
        source_path=str(reading.root),
        essays=tuple(essays),
        documents=tuple(documents),
        settings=settings,
        content_sha256=sha256_of(json.dumps(sorted(reading.checksums.items())).encode()),
        notices=tuple(dict.fromkeys(reading.notices)),
        class_names=tuple(names),
        shared=tuple(shared),
    )


def _tell_unless_yaml(reading: Reading, relative: str) -> None:
    if not relative.endswith(".yaml"):
        reading.notices.append(f"{relative} is not read: its name does not end in .yaml")


def _read_documents(
    reading: Reading, explicit: Mapping[str, Any] | None
) -> tuple[ResolvedSettings | None, ResolvedSettings | None, list[Document]]:
    """Return the settings, what of them can be used to check the rest, and `batch.yaml` itself."""
    yaml_file = _document(reading, "batch", "batch.yaml")
    if yaml_file is None:
        return None, None, []
    configured, flaws = read_yaml(yaml_file.content)
    reading.problems.extend(f"batch.yaml {flaw}" for flaw in flaws)
    if configured is None:
        return None, None, []
    settings, problems = resolve_settings(configured, explicit)
    reading.problems.extend(problems)
    return settings, settings or usable_settings(configured, explicit), [yaml_file]


def _read_shown(reading: Reading) -> list[Document]:
    """Return what judges are shown beside the essays: the instructions and the rubric."""
    found = []
    for kind in ("instructions", "rubric"):
        place = document_of(reading, kind)
        if place is None and kind == "instructions":
            place = "instructions.md"
        document = _document(reading, kind, place) if place is not None else None
        if document is not None:
            found.append(document)
    return found


def _document(reading: Reading, kind: str, name: str) -> Document | None:
    if PurePosixPath(name).suffix in DOCUMENTS:
        content = reading.bytes_of(name, MAX_FILE_BYTES)
        read = reading.document_in(name, content) if content else None
        if content is None or read is None:
            return None
        reading.notices.extend(f"{name}: {note}" for note in read.notes)
        text = read.text
    else:
        found = reading.text_of(name, in_unicode=kind in {"batch", "scale"})
        if found is None:
            return None
        text, content = found
    text = with_plain_line_ends(text)
    flaw = text_flaw(text)
    if flaw:
        reading.problems.append(f"{name} {flaw}")
        return None
    return Document(kind, text, name, sha256_of(content), len(content))


def _read_scale(
    reading: Reading, settings: ResolvedSettings | None, own: Document | None
) -> GradeScale | None:
    """Return the scale the batch names; problems of its own one are reported in any case."""
    name = settings.values.scale if settings is not None else None
    if own is not None:
        content = own.content.encode()
        problems = scale_problems(content)
        if not problems and settings is not None:
            problems = own_scale_problems(name, read_scale(content))
        reading.problems.extend(f"{SCALE_FILE}: {problem}" for problem in problems)
        if not problems:
            reading.notices.append(f"{SCALE_FILE}: {order_of_grades(read_scale(content))}")
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


def _read_students(reading: Reading, columns: Mapping[Column, str]) -> list[Essay]:
    folder, table = folder_of(reading, "essays"), table_named(reading, "essays")
    if folder and table:
        reading.problems.append(
            f"both {_folder_name(folder)} and {table} are given: keep one of them"
        )
    if not folder and not table:
        reading.problems.append("the essays are missing: give essays/*.txt or essays.csv")
    essays = []
    if folder:
        sources = sources_in(reading, folder)
        essays += [essay for source in sources if (essay := essay_of(reading, source))]
    if table:
        essays += _essay_rows(reading, table, columns)
    return essays


def _folder_name(folder: str) -> str:
    return folder if folder.endswith(".zip") else f"{folder}/"


def _read_anchors(
    reading: Reading,
    settings: ResolvedSettings | None,
    scale: GradeScale | None,
    columns: Mapping[Column, str],
) -> list[Essay]:
    folder, table = folder_of(reading, "anchors"), table_named(reading, "anchors")
    if folder and table:
        reading.problems.append(
            f"both {_folder_name(folder)} and {table} are given: keep one of them"
        )
    if (folder or table) and settings is not None and settings.values.scale is None:
        reading.problems.append(
            "batch.yaml names no scale, so the anchors' grades mean nothing: add `scale: ...`"
        )
    anchors = []
    if folder:
        anchors += anchors_in(reading, folder, scale)
        if scale is not None:
            anchors = [
                replace(a, grade=checked_grade(reading, a.source_path, a.grade or "", scale))
                for a in anchors
            ]
    if table:
        anchors += _essay_rows(reading, table, columns, is_graded=True, scale=scale)
    return anchors


def _essay_rows(
    reading: Reading,
    relative: str,
    columns: Mapping[Column, str],
    *,
    is_graded: bool = False,
    scale: GradeScale | None = None,
) -> list[Essay]:
    required = ("essay_id", "text", "grade") if is_graded else ("essay_id", "text")
    essays = []
    places: dict[str, str] = {}
    unused: dict[str, None] = {}
    has_grades = False
    for row in table_rows(reading, relative, required, columns):
        name, grade = row.cells["essay_id"].strip(), row.cells.get("grade", "").strip()
        text = with_plain_line_ends(row.cells["text"])
        unused |= dict.fromkeys(row.others)
        has_grades = has_grades or (not is_graded and bool(grade))
        flaws = _row_flaws(row, name, text, grade if is_graded else None, required)
        other = places.setdefault(same_name(name), row.where)
        if name and other != row.where:
            flaws.append(f"{name!r} stands in {other} already: give each essay its own")
        if flaws:
            reading.problems.extend(f"{row.where}: {flaw}" for flaw in flaws)
            continue
        if scale is not None:
            grade = checked_grade(reading, row.where, grade, scale)
        cell = row.cells["text"].encode()
        essays.append(
            Essay(
                essay_id="",
                text=text,
                grade=grade if is_graded else None,
                file_name=relative,
                source_path=f"{relative}#{name}",
                sha256=sha256_of(cell),
                n_bytes=len(cell),
                given_id=name,
                name=row.cells.get("name", "").strip() or None,
                group=row.cells.get("group", "").strip() or None,
                notes=tuple(
                    f"the {role} was {note}"
                    for role, note in row.notes.items()
                    if role == "text" or "formula" in note
                ),
            )
        )
    if has_grades:
        reading.notices.append(
            f"{relative}: its grades are not used: essays whose grade is known are anchors, and"
            " belong in anchors.csv"
        )
    if unused:
        listed = ", ".join(map(repr, unused))
        reading.notices.append(f"{relative}: what stands under {listed} is not used")
    return essays


def _row_flaws(
    row: Row, name: str, text: str, grade: str | None, required: Sequence[str]
) -> list[str]:
    """Return why a row cannot be taken; `grade` is None where none is needed.

    A text that was stored as a formula or a number can be what was typed: it is taken and told.
    """
    flaws = [f"the text {flaw}"] if (flaw := text_flaw(text)) else []
    if not name or len(name) > _MAX_ID_CHARACTERS or not is_seen_whole(name):
        flaws.append(f"the essay_id must be 1 to {_MAX_ID_CHARACTERS} visible characters")
    if grade == "":
        flaws.append("the grade is missing")
    flaws += [
        f"the {role} was {why}: make the cell a text and type it again"
        for role, why in row.unsure.items()
        if role in required and (role != "text" or role not in row.notes)
    ]
    return flaws


def _check_texts(
    reading: Reading, essays: Sequence[Essay], *, shares: bool
) -> tuple[list[Essay], list[SharedText]]:
    """Return the essays to be judged, and those that share the text of one of them.

    The same text twice is a problem, unless the batch says that students' texts may share.
    """
    shared: list[SharedText] = []
    by_words = defaultdict(list)
    for essay in essays:
        by_words[same_words(essay.text)].append(essay)
    for copies in by_words.values():
        if len(copies) < 2:
            continue
        listed = _listed([essay.source_path for essay in copies])
        if not shares or any(essay.is_anchor for essay in copies):
            reading.problems.append(f"{listed} are identical texts: keep one of them")
            continue
        reading.notices.append(f"{listed} are identical texts: one is judged for all")
        shared += [SharedText(essay, copies[0].essay_id) for essay in copies[1:]]
    if len(essays) < MIN_ESSAYS:
        reading.problems.append(
            f"too few essays: {len(essays)} can be used, students and anchors together, and"
            f" {MIN_ESSAYS} are the least that can be compared"
        )
    sharing = {each.essay.essay_id for each in shared}
    return [essay for essay in essays if essay.essay_id not in sharing], shared


def _by_ids(settings: ResolvedSettings, essays: Sequence[Essay]) -> ResolvedSettings:
    """Return settings that name essays by their ids, where the file names them as handed in."""
    values = settings.values
    if not values.emulator_qualities and not values.rough_order:
        return settings
    known = [(essay.essay_id, essay.given_id, essay.name) for essay in essays]

    def meant(typed: str) -> str:
        found = matching(known, typed)
        return found[0] if len(found) == 1 else typed

    update = {
        "emulator_qualities": {meant(k): v for k, v in values.emulator_qualities.items()},
        "rough_order": tuple(tuple(meant(one) for one in pile) for pile in values.rough_order),
    }
    return replace(settings, values=values.model_copy(update=update))


def _check_qualities(reading: Reading, settings: ResolvedSettings, essays: Sequence[Essay]) -> None:
    known = {essay.essay_id for essay in essays}
    for essay_id in settings.values.emulator_qualities:
        if essay_id not in known:
            reading.problems.append(
                f"batch.yaml: emulator_qualities: no essay has the id {essay_id!r}"
            )


def _goal_problems(
    values: BatchSettings, goal: Goal, scale: GradeScale | None, essays: Sequence[Essay]
) -> Iterator[str]:
    n_students = sum(not essay.is_anchor for essay in essays)
    if goal.is_one_cut and n_students < 2:
        yield f"batch.yaml: goal: {values.goal} needs two students at the least"
    elif goal.count is not None and goal.count >= n_students:
        yield (
            f"batch.yaml: goal: top({goal.count}) leaves out none of {n_students} students: name"
            " fewer"
        )
    if goal.grade is not None and scale is not None and goal.grade not in scale.steps[1:]:
        yield (
            f"batch.yaml: goal: cut({goal.grade}) needs a grade with another below it:"
            f" {', '.join(scale.steps[1:])}"
        )
    if goal.is_one_cut and values.link_to:
        yield "batch.yaml: goal: top(...) and cut(...) are for batches without link_to"
    rule = values.precise
    if rule is not None and rule.misplaced is not None and not goal.is_one_cut:
        yield "batch.yaml: precise: misplaced needs `goal: top(...)` or `goal: cut(...)`"
    if rule is not None and rule.gain_per_usd is not None and goal.is_one_cut:
        yield (
            "batch.yaml: precise: gain_per_usd counts ranks or grades: with this goal give"
            " misplaced instead"
        )


def _check_goals(
    reading: Reading,
    settings: ResolvedSettings,
    scale: GradeScale | None,
    essays: Sequence[Essay],
) -> None:
    """What is to be made sure of has to exist: a batch without grades cannot be graded surely."""
    values = settings.values
    if values.scale is not None and not any(essay.is_anchor for essay in essays):
        if values.grades == "anchors" and not _has_anchors(reading):
            reading.problems.append(
                "batch.yaml: scale: there are no anchors, so there will be no grades: give"
                " anchors/*.txt or anchors.csv, or say `grades: none`"
            )
    elif values.grades == "none" and values.scale is not None:
        reading.problems.append("batch.yaml: grades: none, but there are anchors: leave one out")
    if values.n_essays is not None and values.n_essays != len(essays):
        reading.problems.append(
            f"batch.yaml: n_essays: {values.n_essays} essays are expected and {len(essays)} can be"
            " used, anchors included"
        )
    goal = goal_of(values.goal)
    needs_grades = goal.kind == "grades" or goal.grade is not None
    unsupported = [f"goal: {values.goal}"] if needs_grades else []
    reading.problems.extend(_goal_problems(values, goal, scale, essays))
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


def _has_anchors(reading: Reading) -> bool:
    """Whether anchors were meant to be there; what is wrong with them is told already."""
    return any(reading.has(name) for name in FOLDERS["anchors"]) or (
        table_named(reading, "anchors") is not None
    )


def _listed(places: Sequence[str]) -> str:
    return f"{', '.join(places[:-1])} and {places[-1]}"


@dataclass(frozen=True)
class Batch:
    """The essays placed on one scale together, as submitted.

    `content_sha256` covers every file's path and checksum: the same folder gives the same value.
    `notices` tell what was taken otherwise than it stands in the folder; `class_names` are the
    names of the class, as its register or its tables give them; `shared` are essays whose text is
    that of another, which is judged for both.
    """

    batch_id: str
    source_path: str
    essays: tuple[Essay, ...]
    documents: tuple[Document, ...]
    settings: ResolvedSettings
    content_sha256: str
    notices: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    shared: tuple[SharedText, ...] = ()

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
