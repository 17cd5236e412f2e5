"""A folder of essays, as files, as a learning platform packs them, or as a zip file.

    essays/anna.docx                                         one file per student
    essays/Anna Ek_12345_assignsubmission_file_/text.docx    Moodle
    essays/ekanna_1234_56789_text.docx                       Canvas
    essays/Anna Ek/Essay 1/Version 2/text.docx               Teams

Each file's text and the name it was handed in under come out; grades are `anchors`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from cj_pipeline.batch.essays import Essay
from cj_pipeline.intake.folder import Reading, is_litter, sha256_of
from cj_pipeline.intake.readers import archive
from cj_pipeline.intake.readers.extracted import UnreadableFileError, counted
from cj_pipeline.intake.readers.process import DOCUMENTS, MAX_FILE_BYTES
from cj_pipeline.text import MAX_BYTES, is_seen_whole, text_flaw, with_plain_line_ends

TEXT_ENDINGS = (".txt", ".md")
READ_ENDINGS = (*TEXT_ENDINGS, *DOCUMENTS)

MAX_DEPTH = 4
"""Folders below `essays/`: Teams puts a file below its student, the task and the version."""

MAX_ZIP_BYTES = 256 * 1024 * 1024
"""Of a class's essays in a zip file, packed and unpacked."""

_MOODLE = re.compile(r"^(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(?:file|onlinetext)_?")
_CANVAS = re.compile(r"^(?P<name>[^_]+)(?:_LATE)?_(?P<number>\d{2,})_\d{2,}_.+")
_CANVAS_TEXT = re.compile(r"^(?P<name>[^_]+)(?:_LATE)?_(?P<number>\d{2,})_text\.html$")
_OTHER_FORMATS = {
    ".doc": "a file of an old Word: open it and save it as .docx",
    ".docm": "a Word file with macros: save it as .docx",
    ".pages": "a file of Apple Pages: export it as .docx",
    ".gdoc": "only a link to Google Docs: download it there as .docx",
    ".zip": "a zip file within another: unpack it",
    **dict.fromkeys(
        (".jpg", ".jpeg", ".png", ".heic", ".tif", ".tiff", ".gif", ".webp"),
        "a picture: type its text, or have a program recognise its letters and check them",
    ),
}
"""What is often handed in and cannot be read, and what to do with it."""
_VERSION = re.compile(r"^Version (\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A file that holds an essay.

    Attributes:
        relative: Its path in the batch folder, or in a zip file there.
        name: The name or number it was handed in under.
        number: The learning platform's number for the student; empty without one.
        content: Its bytes, where they came out of a zip file.
    """

    relative: str
    name: str
    number: str = ""
    content: bytes | None = None

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return self.relative.rpartition("/")[2]


def sources_in(reading: Reading, folder: str, aside: Sequence[str] = ()) -> list[Source]:
    """Return the files of a folder of essays; what is none of them becomes a problem.

    Args:
        reading: The batch folder.
        folder: The folder of essays, or a zip file of them.
        aside: Names in it that are read otherwise, such as a table of grades.
    """
    if folder.endswith(".zip"):
        found = _zipped(reading, folder)
    else:
        found = list(_of_folder(reading, folder, aside))
    if not found:
        reading.problems.append(
            f"{folder} holds no essay: give files that end in {', '.join(READ_ENDINGS)}"
        )
    return _told_apart(found)


def essay_of(reading: Reading, source: Source) -> Essay | None:
    """Return the essay in a file, its id still to be given; None, and a problem, without one."""
    ending = PurePosixPath(source.relative).suffix.lower()
    most = MAX_FILE_BYTES if ending in DOCUMENTS else MAX_BYTES
    content = source.content
    if content is None:
        content = reading.bytes_of(source.relative, most)
    elif len(content) > most:
        reading.problems.append(
            f"{source.relative} has {len(content):,} bytes, more than the {most:,} allowed"
        )
        return None
    if content is None:
        return None
    notes: Sequence[str] = ()
    if ending in DOCUMENTS:
        document = reading.document_in(source.relative, content) if content else None
        if document is None:
            if not content:
                reading.problems.append(f"{source.relative} is empty")
            return None
        text, notes = document.text, document.notes
    else:
        decoded = reading.decoded(source.relative, content)
        if decoded is None:
            return None
        text = decoded
    text = with_plain_line_ends(text)
    flaw = text_flaw(text)
    if flaw:
        reading.problems.append(f"{source.relative} {flaw}")
        return None
    return Essay(
        essay_id="",
        text=text,
        grade=None,
        file_name=source.file_name,
        source_path=source.relative,
        sha256=sha256_of(content),
        n_bytes=len(content),
        given_id=source.name,
        notes=tuple(notes),
    )


def _of_folder(reading: Reading, folder: str, aside: Sequence[str]) -> Iterator[Source]:
    n_folders = 0
    for name in reading.names(folder):
        relative = f"{folder}/{name}"
        if name in aside:
            continue
        if reading.is_folder(relative):
            found = _the_one(reading, relative, name, list(_files_below(reading, relative)))
            n_folders += len(found)
            yield from found
        elif name.lower().endswith(".zip"):
            yield from _of_zip_in(reading, relative, name)
        elif name.lower().endswith(READ_ENDINGS):
            yield _named(relative, name)
        else:
            reading.problems.append(_not_read(relative))
    _tell_of_folders(reading, folder, n_folders)


def _tell_of_folders(reading: Reading, place: str, n_folders: int) -> None:
    if n_folders:
        reading.notices.append(
            f"{place} holds a folder for each of {counted(n_folders, 'student')}, as learning"
            " platforms pack them: each essay is known by its folder's name"
        )


def _of_zip_in(reading: Reading, relative: str, name: str) -> list[Source]:
    """Return the essays in one of several zip files; one that holds one essay is a student's."""
    found = _zipped(reading, relative)
    if len(found) != 1:
        return found
    own = _named(relative, name[: -len(".zip")])
    reading.notices.append(f"{relative} holds one essay, which is known by its name, {own.name!r}")
    return [replace(found[0], name=own.name, number=own.number)]


def _not_read(relative: str) -> str:
    ending = PurePosixPath(relative).suffix.lower()
    known = _OTHER_FORMATS.get(ending)
    if known is not None:
        return f"{relative} is {known}, or take it out"
    return (
        f"{relative} is not a .txt file, nor one that ends in"
        f" {', '.join(READ_ENDINGS[1:])}: save it as one of these, or take it out"
    )


def _the_one(reading: Reading, folder: str, student: str, files: list[str]) -> list[Source]:
    """Return the one essay in a student's folder; several are a problem."""
    files = _newest_version(reading, folder, files)
    if not files:
        reading.problems.append(f"{folder} is a folder without an essay in it: take it out")
        return []
    if len(files) > 1:
        named = ", ".join(file.removeprefix(f"{folder}/") for file in files)
        reading.problems.append(
            f"{folder} is a folder with {len(files)} files ({named}): keep the one that is the"
            " essay, or put the files themselves one folder up"
        )
        return []
    return [_named(files[0], student)]


def _files_below(reading: Reading, folder: str, depth: int = MAX_DEPTH - 1) -> Iterator[str]:
    for name in reading.names(folder):
        relative = f"{folder}/{name}"
        if reading.is_folder(relative):
            if depth <= 0:
                reading.problems.append(f"{relative} is a folder too deep: move its files up")
            else:
                yield from _files_below(reading, relative, depth - 1)
        elif name.lower().endswith(READ_ENDINGS):
            yield relative
        else:
            reading.problems.append(_not_read(relative))


def _newest_version(reading: Reading, folder: str, files: list[str]) -> list[str]:
    """Of `Version 1`, `Version 2` and so on, as Teams keeps them, return the last one's files."""
    versions = {
        file: int(match[1])
        for file in files
        if (match := _VERSION.match(PurePosixPath(file).parent.name))
    }
    if len(versions) < len(files) or len(set(versions.values())) < 2:
        return files
    newest = max(versions.values())
    reading.notices.append(f"{folder}: of {len(files)} versions the last, {newest}, is taken")
    return [file for file in files if versions[file] == newest]


def _named(relative: str, name: str) -> Source:
    """Return a file with the name it was handed in under, without what a platform added."""
    for pattern in (_MOODLE, _CANVAS, _CANVAS_TEXT):
        match = pattern.match(name)
        if match:
            return Source(relative, _clean(match["name"]), match["number"])
    stem = name
    if name == PurePosixPath(relative).name:
        stem = PurePosixPath(name).stem if name.lower().endswith(READ_ENDINGS) else name
    return Source(relative, _clean(stem))


def _clean(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip() or name


def _told_apart(found: list[Source]) -> list[Source]:
    """Two students of one name are known by their platform's number too."""
    times = Counter(source.name for source in found)
    return [
        replace(source, name=f"{source.name} {source.number}")
        if times[source.name] > 1 and source.number
        else source
        for source in found
    ]


def _zipped(reading: Reading, relative: str) -> list[Source]:
    """Return the essays in a zip file; a folder in it that holds everything is stepped into."""
    parts = _parts(reading, relative)
    tops = {name.split("/")[0] for name in parts}
    is_wrapped = len(tops) == 1 and len(parts) > 1 and all("/" in name for name in parts)
    lead = f"{next(iter(tops))}/" if is_wrapped else ""
    by_top: dict[str, list[str]] = {}
    for name in sorted(parts):
        if name.lower().endswith(READ_ENDINGS):
            by_top.setdefault(name.removeprefix(lead).split("/")[0], []).append(name)
        else:
            reading.problems.append(_not_read(f"{relative}/{name}"))
    found, n_folders = [], 0
    for top, names in by_top.items():
        places = {f"{relative}/{name}": name for name in names}
        if names == [f"{lead}{top}"]:
            sources = [_named(next(iter(places)), top)]
        else:
            sources = _the_one(reading, f"{relative}/{lead}{top}", top, list(places))
            n_folders += len(sources)
        found += [replace(one, content=parts[places[one.relative]]) for one in sources]
    _tell_of_folders(reading, relative, n_folders)
    return found


def _parts(reading: Reading, relative: str) -> dict[str, bytes]:
    """Return what is in a zip file, by its path there, without what file managers leave behind."""
    content = reading.bytes_of(relative, MAX_ZIP_BYTES)
    if content is None:
        return {}
    parts: dict[str, bytes] = {}
    try:
        with archive.opened(content, "a zip file", max_unpacked_bytes=MAX_ZIP_BYTES) as file:
            for part in file.infolist():
                name = archive.part_name(part)
                if part.is_dir() or any(is_litter(piece) for piece in name.split("/")):
                    continue
                if not is_seen_whole(name):
                    told = f"{relative} holds {name!r}, a name with signs that cannot be seen"
                    reading.problems.append(f"{told}: rename it")
                if name in parts:
                    reading.problems.append(f"{relative} holds two files named {name}: keep one")
                parts[name] = file.read(part)
    except UnreadableFileError as error:
        reading.problems.append(f"{relative} {error}")
        return {}
    return parts
