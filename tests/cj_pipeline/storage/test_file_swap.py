"""One file in another's place, or everything as it was."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.errors import StoreError
from cj_pipeline.storage import file_swap
from cj_pipeline.storage.file_swap import (
    STEPS,
    NotFlushedError,
    copy_file,
    give_second_name,
    put_in_place,
    write_at,
)

OLD, NEW = b"old" * 1000, b"new" * 1000


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file that is to be replaced."""
    target = tmp_path / "file"
    target.write_bytes(OLD)
    return target


def _swap(target: Path, **more: Any) -> None:
    put_in_place(
        target,
        **{
            "write": lambda path: path.write_bytes(NEW),
            "prove": lambda path: None,
            "n_bytes": len(NEW),
        }
        | more,
    )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _failing(name: str, number: int) -> Callable[..., Any]:
    def step(at: str, do: Callable[..., Any], *args: Any) -> Any:
        if at == name:
            raise OSError(number, os.strerror(number))
        return do(*args)

    return step


def test_a_file_takes_the_place_and_is_its_owners_alone(target: Path) -> None:
    """What is put in place holds essays."""
    _swap(target)

    assert target.read_bytes() == NEW
    assert target.stat().st_mode & 0o777 == 0o600
    assert _names(target.parent) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EXDEV])
@pytest.mark.parametrize("name", STEPS[:-1])
def test_a_fault_before_the_rename_changes_nothing(
    target: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """And on a full disk the half-written file gives its space back."""
    monkeypatch.setattr(file_swap, "_step", _failing(name, number))

    with pytest.raises(OSError, match=os.strerror(number)):
        _swap(target, keep=lambda: None)

    assert target.read_bytes() == OLD
    assert _names(target.parent) == ["file"]


def test_a_fault_after_the_rename_says_that_the_file_is_in_place(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Nothing was changed` would be a lie by then."""
    monkeypatch.setattr(file_swap, "_step", _failing(STEPS[-1], errno.EIO))

    with pytest.raises(NotFlushedError, match="is in place"):
        _swap(target)

    assert target.read_bytes() == NEW


def test_nothing_is_begun_without_room(target: Path) -> None:
    """The message says how much is missing, and where."""
    with pytest.raises(StoreError, match=r"needs .* bytes of room"):
        _swap(target, n_bytes=1 << 62, write=lambda path: pytest.fail("began to write"))

    assert target.read_bytes() == OLD


def test_a_file_with_a_log_beside_it_is_refused(target: Path) -> None:
    """A database whose log was not folded in is empty for whoever opens it without the log."""

    def write(path: Path) -> None:
        path.write_bytes(NEW)
        path.with_name(f"{path.name}.wal").write_bytes(b"all the rows")

    with pytest.raises(StoreError, match="not written to its end"):
        _swap(target, write=write)

    assert target.read_bytes() == OLD
    assert _names(target.parent) == ["file"]


def test_what_is_not_proven_is_not_put_in_place(target: Path) -> None:
    """The proof is the caller's; its error travels."""

    def refuse(path: Path) -> None:
        assert path.read_bytes() == NEW
        msg = "112 rows are missing"
        raise StoreError(msg)

    with pytest.raises(StoreError, match="112 rows"):
        _swap(target, prove=refuse, keep=lambda: pytest.fail("kept the old one"))

    assert target.read_bytes() == OLD


def test_the_remains_of_a_killed_swap_are_removed_by_the_next(target: Path) -> None:
    """They may be torn, and must never be continued."""
    target.with_name("file.unfinished").write_bytes(b"torn" * 5000)
    target.with_name("file.unfinished.wal").write_bytes(b"torn")

    _swap(target)

    assert target.read_bytes() == NEW
    assert _names(target.parent) == ["file"]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_copy_is_whole_where_the_kernel_cannot_make_it(
    target: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Backups go to other disks, and older kernels refuse that."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    copy_file(target, target.with_name("copy"))

    assert target.with_name("copy").read_bytes() == OLD
    assert target.with_name("copy").stat().st_mode & 0o777 == 0o600


def test_a_copy_is_whole_where_the_kernel_copies_piece_by_piece(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may copy less than it was asked for, and nothing at all from some file systems."""
    real, calls = os.copy_file_range, iter([100, 7, 0])

    def some(source: int, to: int, count: int, at: int, there: int) -> int:
        n = min(count, next(calls))
        return real(source, to, n, at, there) if n else 0

    monkeypatch.setattr(os, "copy_file_range", some)
    copy_file(target, target.with_name("copy"))

    assert target.with_name("copy").read_bytes() == OLD


def test_a_full_disk_is_told_while_copying(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what another way can help with is tried another way."""

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", refuse)

    with pytest.raises(OSError, match="No space left"):
        copy_file(target, target.with_name("copy"))


def test_a_second_name_becomes_a_copy_where_there_are_no_links(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some disks know only one name per file."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    give_second_name(target, target.with_name("second"))

    assert target.with_name("second").read_bytes() == OLD


def test_bytes_are_written_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up takes half of a block and reports no error."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda to, data, at: real(to, bytes(data[:5]), at))
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        write_at(descriptor, b"twelve bytes", 3)
    finally:
        os.close(descriptor)

    assert (tmp_path / "file").read_bytes() == b"\0\0\0twelve bytes"
