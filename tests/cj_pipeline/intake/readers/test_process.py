"""Files of every kind are read in a process of their own, within limits."""

from __future__ import annotations

import contextlib
import datetime
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import xlsxwriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cj_pipeline.intake.essay_files import essay_of, sources_in
from cj_pipeline.intake.folder import Reading
from cj_pipeline.intake.readers.extracted import UnreadableFileError
from cj_pipeline.intake.readers.process import ReaderProcess, reader_process
from tests.support.handed_in_files import CORPUS, HandedIn, docx, odt, pdf, workbook, zipped
from tests.support.nightly import many
from tests.support.program_files import CLASS, FOLDER, UNSEEN, WRITTEN


@pytest.fixture(scope="module")
def readers() -> Iterator[ReaderProcess]:
    """One process for all the files of this module."""
    with reader_process() as process:
        yield process


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_a_file_gives_what_a_person_reads_in_it(
    file: HandedIn, readers: ReaderProcess, tmp_path: Path
) -> None:
    """And whatever was left out, or keeps it from being read, is told."""
    (tmp_path / "essays").mkdir()
    (tmp_path / "essays" / file.name).write_bytes(file.content)
    reading = Reading(tmp_path, readers=readers)

    (source,) = sources_in(reading, "essays")
    essay = essay_of(reading, source)

    told = "; ".join(essay.notes if essay else reading.problems)
    assert (essay is not None) == bool(file.text), told
    assert all(words in told for words in file.told), told
    if essay is not None:
        at = 0
        for words in file.text:
            at = essay.text.index(words, at)
        assert not any(words in essay.text for words in file.absent)


def test_the_corpus_is_as_large_as_promised() -> None:
    """Forty files at least, of each kind some that are refused."""
    assert len(CORPUS) >= 40


def test_a_spreadsheets_cells_come_out_as_they_were_typed(readers: ReaderProcess) -> None:
    """An id 7 is no 7.0, and an essay may begin with an equals sign."""
    sheet = readers.read_sheet(
        workbook([["ID", "Text"], [7, "=Ich bin\nhier"], ["007", "-"], [1.5, "x"]])
    )

    assert sheet.rows == [["ID", "Text"], ["7", "=Ich bin\nhier"], ["007", "-"], ["1.5", "x"]]


def test_what_was_typed_as_a_formula_is_taken_and_told(readers: ReaderProcess) -> None:
    """Excel makes a formula of an essay that begins with `=`; one with a value shows the value."""
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        sheet_of = book.add_worksheet()
        for at, value in enumerate((0, "#NAME?", "Ich war da", 7)):
            sheet_of.write_formula(0, at, "=Ich", None, value)

    sheet = readers.read_sheet(content.getvalue())

    assert sheet.rows == [["=Ich", "=Ich", "Ich war da", "7"]]
    assert set(sheet.unsure) == {"1:1", "1:2"}
    assert all("formula" in note for note in sheet.notes.values())
    assert len(sheet.notes) == 4


def test_what_a_spreadsheet_holds_beside_its_values_is_told(readers: ReaderProcess) -> None:
    """Rows that were filtered away, comments, and numbers that it cannot keep."""
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        sheet_of = book.add_worksheet()
        sheet_of.write_row(0, 0, [12345678901234567890, datetime.date(2026, 1, 2)])
        sheet_of.write_comment(0, 0, "Gut")
        sheet_of.set_row(0, None, None, {"hidden": True})

    sheet = readers.read_sheet(content.getvalue())

    assert list(sheet.about) == ["comments left out", "1 hidden or filtered row taken like others"]
    assert "longer than a spreadsheet keeps" in sheet.unsure["1:1"]
    assert sheet.rows[0][1]


def test_an_encrypted_workbook_says_so(readers: ReaderProcess) -> None:
    """Excel keeps one in the shell of an old Office file."""
    with pytest.raises(UnreadableFileError, match="protected by a password"):
        readers.read_sheet(b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le"))


def test_a_hidden_sheet_is_told_and_two_sheets_are_refused(readers: ReaderProcess) -> None:
    """Nobody can guess which of two tables counts."""
    assert "hidden sheet" in readers.read_sheet(workbook([["a"]], hidden=[["b"]])).about[0]


def test_a_cell_far_out_ends_no_process(readers: ReaderProcess) -> None:
    """7 kB of a spreadsheet make a library ask for 550 GB; this one is told by its address."""
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        sheet = book.add_worksheet()
        sheet.write(0, 0, "x")
        sheet.write(1_048_575, 16_383, "y")

    with pytest.raises(UnreadableFileError, match="XFD1048576"):
        readers.read_sheet(content.getvalue())


def test_a_reader_that_dies_is_a_problem_of_its_file_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A library may end its process; the next file is read by the next one."""
    with reader_process() as process:
        assert process.read_document(".docx", docx("<w:p/>")).text == "\n"
        started = process._process
        assert started is not None
        started.kill()
        started.wait()
        with pytest.raises(UnreadableFileError):
            process.read_document(".docx", docx("<w:p/>"))

        assert process.read_document(".docx", docx("<w:p/>")).text == "\n"


def test_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs more than it may is refused, and this process is none the worse."""
    monkeypatch.setattr("cj_pipeline.intake.readers.process.MEMORY_BYTES", 96 * 1024 * 1024)
    blanks = zipped(
        {"word/document.xml": b" " * 19_000_000, "[Content_Types].xml": b" " * 9_000_000}
    )
    with reader_process() as process, pytest.raises(UnreadableFileError):
        process.read_document(".docx", blanks)


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that keeps a reader busy is refused; computing time counts, not the clock."""
    monkeypatch.setattr("cj_pipeline.intake.readers.process.COMPUTING_S", 1)
    slow = docx("<w:p><w:r>" + "<w:t>a</w:t>" * 400_000 + "</w:r></w:p>")
    with (
        reader_process() as process,
        pytest.raises(UnreadableFileError, match="takes more than"),
    ):
        process.read_document(".docx", slow)


def test_the_process_has_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hostile file might reach must not hold what pays for judges."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with reader_process() as process:
        process.read_document(".docx", docx("<w:p/>"))
        started = process._process
        assert started is not None
        assert b"secret" not in Path(f"/proc/{started.pid}/environ").read_bytes()


_SEEDS = (
    (".docx", docx("<w:p><w:r><w:t>Eins</w:t></w:r></w:p>")),
    (".odt", odt("<text:p>Eins</text:p>")),
    (".pdf", pdf("Eins")),
    (".rtf", rb"{\rtf1\ansi Gr\'fc\'dfe \u8222? {\b fett}.\par}"),
    (".html", b"<p style='color:#fff'>Gr&uuml;n</p><ul><li>a</ul><br><!--x-->"),
    (".xlsx", workbook([["ID", "Text"], [7, "Eins"]])),
)


@st.composite
def _spoiled(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file of one kind, some of whose bytes, or of whose parts' bytes, are others."""
    ending, content = draw(st.sampled_from(_SEEDS))
    if content.startswith(b"PK") and draw(st.booleans()):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        name = draw(st.sampled_from(sorted(parts)))
        return ending, zipped(parts | {name: _changed(draw, parts[name])})
    return ending, _changed(draw, content)


def _changed(draw: st.DrawFn, content: bytes) -> bytes:
    at = draw(st.integers(0, len(content)))
    n_gone = draw(st.integers(0, 40))
    return content[:at] + draw(st.binary(max_size=40)) + content[at + n_gone :]


@settings(
    max_examples=many(60, 100_000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(file=_spoiled())
def test_no_file_brings_a_reader_down(file: tuple[str, bytes], readers: ReaderProcess) -> None:
    """A spoiled file is read or refused: no crash that is not told, no hang."""
    ending, content = file
    with contextlib.suppress(UnreadableFileError):
        if ending == ".xlsx":
            readers.read_sheet(content)
        else:
            readers.read_document(ending, content)


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_what_real_programs_save_comes_out_as_it_was_written(
    path: Path, readers: ReaderProcess
) -> None:
    """By LibreOffice and a browser's printer; what one cannot see on the page is told."""
    if path.stem == "class":
        assert readers.read_sheet(path.read_bytes()).rows == [list(row) for row in CLASS]
        return
    written, ending = WRITTEN[path.stem.removesuffix("-chromium")], path.suffix[1:]

    found = readers.read_document(path.suffix, path.read_bytes())

    told = "; ".join(found.notes)
    assert all(words in told for words in written.told.get(ending, ())), told
    assert (UNSEEN in told) == (UNSEEN in written.told.get(ending, ()))
    assert not any(words in found.text for words in written.absent.get(ending, ()))
    at = 0
    for words in written.text:
        assert words in found.text[at:], found.text
        at = found.text.index(words, at) + len(words)
