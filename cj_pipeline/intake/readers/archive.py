"""Whether a zip file, as .docx, .odt, .xlsx and .ods are, may be unpacked at all."""

from __future__ import annotations

import io
import lzma
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from cj_pipeline.intake.readers.extracted import UnreadableFileError

MAX_UNPACKED_BYTES = 50 * 1024 * 1024
MAX_PART_BYTES = 20 * 1024 * 1024
MAX_PARTS = 2_000

BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(KeyError, ValueError, OverflowError, NotImplementedError, RuntimeError),
)
"""What zipfile raises of a file whose bytes are not what they should be: the second line for places
that lie before the file, an unknown compression and a password."""

_OLE = b"\xd0\xcf\x11\xe0"
_DOCTYPE = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_CHUNK_BYTES = 256 * 1024
_ENCRYPTED = 0x1
_IS_UTF8 = 0x800


@contextmanager
def opened(
    content: bytes, what: str, *, max_unpacked_bytes: int = MAX_UNPACKED_BYTES
) -> Iterator[zipfile.ZipFile]:
    """Give a zip file whose every part was unpacked once and is within the limits.

    Args:
        content: The file.
        what: What it should be, such as `a Word file`.
        max_unpacked_bytes: How much all its parts together may hold.

    Raises:
        UnreadableFileError: If it is broken, protected by a password, or would unpack to too much.
    """
    if content.startswith(_OLE):
        msg = (
            f"is protected by a password, or is a file of an old Office version and not {what}:"
            " save it again without a password"
        )
        raise UnreadableFileError(msg)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check(archive, max_unpacked_bytes)
            yield archive
    except (UnreadableFileError, RecursionError):
        raise
    except BROKEN as error:
        msg = f"is not {what} that can be unpacked: open it and save it again"
        raise UnreadableFileError(msg) from error


def part_name(part: zipfile.ZipInfo) -> str:
    """Return the name of a file in a zip file, as whoever made it saw it.

    Programs that do not say that a name is UTF-8 write UTF-8 all the same (macOS), or the code
    page of western Windows consoles.

    Raises:
        UnreadableFileError: If it is in neither.
    """
    name = part.filename
    if part.flag_bits & _IS_UTF8 or name.isascii():
        return unicodedata.normalize("NFC", name)
    raw = name.encode("cp437")  # what zipfile has decoded it by
    try:
        return unicodedata.normalize("NFC", raw.decode("utf-8"))
    except UnicodeDecodeError:
        name = raw.decode("cp850")
    if any(not letter.isascii() and not letter.isalpha() for letter in name):
        msg = (
            f"holds a file whose name is in an unknown encoding, perhaps {name!r}: make the zip"
            " file with another program, or give the files as a folder"
        )
        raise UnreadableFileError(msg)
    return unicodedata.normalize("NFC", name)


def _check(archive: zipfile.ZipFile, most: int) -> None:
    parts = archive.infolist()
    if len(parts) > MAX_PARTS:
        msg = f"holds {len(parts):,} parts, more than the {MAX_PARTS:,} allowed"
        raise UnreadableFileError(msg)
    for part in parts:
        _check_part(part)
    if sum(part.file_size for part in parts) > most:
        msg = f"would unpack to more than {most // 1024**2} MB"
        raise UnreadableFileError(msg)
    left = most
    for part in parts:
        with archive.open(part) as file:
            begins = True
            while chunk := file.read(_CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    msg = f"would unpack to more than {most // 1024**2} MB"
                    raise UnreadableFileError(msg)
                if begins and part.filename.endswith((".xml", ".rels")) and _DOCTYPE.search(chunk):
                    msg = "declares XML entities, which no office program writes: refused"
                    raise UnreadableFileError(msg)
                begins = False


def _check_part(part: zipfile.ZipInfo) -> None:
    path = PurePosixPath(part.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in part.filename:
        msg = "holds a part whose name leads out of it"
        raise UnreadableFileError(msg)
    if stat.S_IFMT(part.external_attr >> 16) == stat.S_IFLNK:
        msg = "holds a link"
        raise UnreadableFileError(msg)
    if part.flag_bits & _ENCRYPTED:
        msg = "is protected by a password: save it without one"
        raise UnreadableFileError(msg)
    if part.file_size > MAX_PART_BYTES:
        msg = f"has a part that would unpack to more than {MAX_PART_BYTES // 1024**2} MB"
        raise UnreadableFileError(msg)
