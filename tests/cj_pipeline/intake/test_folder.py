"""Whatever lies in a folder or an archive, reading it gives a batch or a list of problems."""

from __future__ import annotations

import contextlib
import io
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.intake.zip_folder import ZipProblemsError, unpack
from tests.support.handed_in_files import zipped
from tests.support.nightly import many

_FILES = {
    "batch.yaml": b"title: Spring\njudges: [quality]\nprecise: {reliability: 0.9}\n"
    b"columns: {text: Aufsatz}\nmasking: {names: true}\n",
    "essays.csv": b'sep=;\r\nName;ID;Aufsatz\r\n"Anna";7;"Am Meer\r\nwar es"\r\nBen;8;Kurz\r\n',
    "anchors.csv": "Name,Text,Grade\nA,Gut genug,3\nB,Übel,2-\n".encode(),
    "instructions.md": b"Describe a place.\n",
    "essays/carl.txt": "Grüße vom Hafen.\n".encode(),
}
_TURNS = [b"\x00", b"\xff\xfe", b'"', b";", b"\t", b"&a *a", b"!!python/object:os.system x", b"{"]
"""Bytes that mean something to one of the readers."""


@st.composite
def _spoiled(draw: st.DrawFn) -> dict[str, bytes]:
    """The files of a sound folder, one of which has other bytes in places."""
    name = draw(st.sampled_from(sorted(_FILES)))
    content = _FILES[name]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        n_gone = draw(st.integers(0, 12))
        put = draw(st.one_of(st.binary(max_size=12), st.sampled_from(_TURNS)))
        content = content[:at] + put + content[at + n_gone :]
    return _FILES | {name: content}


@settings(
    max_examples=many(100, 100_000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(files=_spoiled())
def test_no_file_brings_intake_down(files: dict[str, bytes], tmp_path: Path) -> None:
    """A table, a settings file or a text that is spoiled is read or is a problem; nothing else."""
    root = tmp_path / "class"
    shutil.rmtree(root, ignore_errors=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    assert _essays_or_problems(root)


def _essays_or_problems(root: Path) -> Sequence[object]:
    try:
        return read_batch(root).essays
    except BatchProblemsError as error:
        return [problem for problem in error.problems if problem.strip()]


@settings(
    max_examples=many(100, 100_000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(data=st.data())
def test_no_archive_brings_intake_down(data: st.DataObject, tmp_path: Path) -> None:
    """An archive that is spoiled anywhere is unpacked within its folder, or refused."""
    content = zipped({f"class/{name}": part for name, part in _FILES.items()})
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        n_gone = data.draw(st.integers(0, 12))
        content = content[:at] + data.draw(st.binary(max_size=12)) + content[at + n_gone :]
    folder = tmp_path / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    with contextlib.suppress(ZipProblemsError):
        unpack(io.BytesIO(content), folder)

    assert {path.name for path in tmp_path.iterdir()} == {"unpacked"}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1 << 20
    with zipfile.ZipFile(io.BytesIO(zipped(_FILES))) as sound:  # the seed itself is taken
        assert sound.testzip() is None
