"""Which name in a batch folder means what, and what to say about every other name.

The folder may also be laid out as for ENG5 (instructions, prompt, anchors and students, as Word
files), which is taken as it is. Nothing is left out in silence: what has no meaning is a problem,
unless the batch accepts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from cj_pipeline.ids import nearest
from cj_pipeline.intake.essay_files import READ_ENDINGS
from cj_pipeline.intake.folder import Reading
from cj_pipeline.intake.tables import TABLE_ENDINGS

REGISTER = "register"
GRADES = "grades"

FOLDERS: Mapping[str, tuple[str, ...]] = {
    "essays": ("essays", "student_essays", "students"),
    "anchors": ("anchors", "anchor_essays"),
}
"""What a folder of essays may be called; the first is our own name, the others are ENG5's."""

DOCUMENTS: Mapping[str, tuple[str, ...]] = {
    "instructions": ("instructions", "instruction", "essay_instructions", "essay_instruction"),
    "rubric": ("rubric", "prompt", "judge_prompt", "llm_prompt"),
}
"""The same for what judges are shown: what ENG5 calls the prompt is our rubric."""

DOCUMENT_ENDINGS = (".md", ".txt", ".docx", ".odt", ".pdf", ".rtf")

_SETTINGS = ("batch.yaml", "scale.yaml", "judges")
_HARMLESS = ("readme", "license", "licence", "attribution", "changelog")
_MEANT: Mapping[str, tuple[str, ...]] = {
    "essays": (
        *("essays", "essay", "students", "aufsätze", "aufsaetze", "schüler", "schueler", "texte"),
        *("uppsatser", "elever", "elevtexter", "texter", "textes", "copies", "élèves", "eleves"),
        *("submissions", "abgaben", "inlämningar", "texts", "student texts"),
    ),
    "anchors": (
        *("anchors", "anchor", "anker", "ankertexte", "ankeraufsätze", "ankare", "ankartexter"),
        *("ancres", "benchmarks", "examples", "beispiele", "exempel"),
    ),
    "instructions": (
        *("instructions", "aufgabe", "aufgabenstellung", "arbeitsauftrag", "uppgift", "consigne"),
        *("sujet", "task", "instruktion", "assignment"),
    ),
    "rubric": ("rubric", "kriterien", "bewertungsraster", "kriterier", "critères", "criteria"),
    REGISTER: ("register", "klassenliste", "klasslista", "class list", "liste", "roster"),
}


def folder_of(reading: Reading, role: str) -> str | None:
    """Return the folder (or zip file) of `essays` or `anchors` there is; several are a problem."""
    names = [*FOLDERS[role], *(f"{name}.zip" for name in FOLDERS[role])]
    return _one(reading, role, [name for name in names if reading.has(name)])


def document_of(reading: Reading, role: str) -> str | None:
    """Return the file of `instructions` or `rubric` there is; several are a problem."""
    names = [word + ending for word in DOCUMENTS[role] for ending in DOCUMENT_ENDINGS]
    return _one(reading, role, [name for name in names if reading.has(name)])


def _one(reading: Reading, role: str, found: Sequence[str]) -> str | None:
    if not found:
        return None
    if len(found) > 1:
        reading.problems.append(f"both {found[0]} and {found[1]} are given: keep one of them")
    elif PurePosixPath(found[0]).stem != role:
        reading.notices.append(f"{found[0]} is taken as the {role}")
    return found[0]


def check_names(reading: Reading, accepted: Sequence[str]) -> None:
    """Tell of every name in the folder that means nothing.

    Args:
        reading: The folder.
        accepted: Patterns of names that the batch says may lie there.
    """
    known = set(_SETTINGS)
    for role, names in FOLDERS.items():
        known |= {*names, *(f"{name}.zip" for name in names)}
        known |= {role + ending for ending in TABLE_ENDINGS}
    for names in DOCUMENTS.values():
        known |= {name + ending for name in names for ending in DOCUMENT_ENDINGS}
    known |= {stem + ending for stem in (REGISTER, GRADES) for ending in TABLE_ENDINGS}
    loose = []
    for name in reading.names("."):
        if name in {*known, *accepted} or any(fnmatchcase(name, each) for each in accepted):
            continue
        stem = PurePosixPath(name).stem.lower()
        if stem in _HARMLESS:
            reading.notices.append(f"{name} is not read")
            continue
        hint = _hint(reading, name)
        if hint is None and name.lower().endswith(READ_ENDINGS) and not _near(name):
            loose.append(name)
            continue
        reading.problems.append(
            f"{name} is not {'a folder' if reading.is_folder(name) else 'a file'} of a batch"
            f" folder{hint or _near(name)}; or accept it in batch.yaml with"
            f" `accept: [{_in_yaml(name)}]`"
        )
    _tell_loose(reading, loose)


def _in_yaml(name: str) -> str:
    """Return a name as it can stand in a list in YAML."""
    return (
        name
        if re.fullmatch(r"[\w.][\w. ()+-]*", name)
        else f"'{name.replace(chr(39), chr(39) * 2)}'"
    )


def _tell_loose(reading: Reading, loose: Sequence[str]) -> None:
    """Essays beside `batch.yaml` are told in one line, however many they are."""
    if not loose:
        return
    named = ", ".join(loose[:5]) + (f" and {len(loose) - 5} more" if len(loose) > 5 else "")
    what = "is a loose text" if len(loose) == 1 else "are loose texts"
    reading.problems.append(
        f"{named} {what}, not part of a batch folder: move essays into essays/, or accept what is"
        " none in batch.yaml, as in `accept: ['*.txt']`"
    )


def _hint(reading: Reading, name: str) -> str | None:
    """Return what a name in another language, or with another ending, was likely meant to be."""
    path = PurePosixPath(name)
    is_folder = reading.is_folder(name)
    stem = (name if is_folder else path.stem).lower().replace("_", " ").replace("-", " ").strip()
    for role, words in _MEANT.items():
        if stem not in words:
            continue
        if is_folder:
            return f": rename it to {role}/"
        ending = path.suffix.lower()
        allowed = TABLE_ENDINGS if role in {"essays", "anchors", REGISTER} else DOCUMENT_ENDINGS
        if ending in (*allowed, ".zip"):
            return f": rename it to {role}{ending}"
        return f": save it as {role}{allowed[0]}"
    return None


def _near(name: str) -> str:
    known = [
        *_SETTINGS,
        *(role + ending for role in FOLDERS for ending in ("", *TABLE_ENDINGS)),
        *(role + ending for role in DOCUMENTS for ending in (".md", ".docx")),
        f"{REGISTER}.csv",
    ]
    stem = name.lower()
    return nearest(stem, known, at_least=0.8) or nearest(
        stem.removesuffix(".txt"), known, at_least=0.8
    )
