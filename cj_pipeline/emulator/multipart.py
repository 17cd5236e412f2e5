"""Reading an upload's form from a file on disk, so that its size does not matter."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from typing import IO

from cj_pipeline.emulator.http import HTTPError


@dataclass(frozen=True)
class Part:
    """One field: where its value lies in the body, and its file name if it is a file."""

    file_name: str | None
    start: int
    end: int


def read_form(body: IO[bytes], content_type: str) -> dict[str, Part]:
    """Return the fields of a multipart form by name.

    Raises:
        RefusedError: If the body is no such form.
    """
    found = re.search(r'boundary="?([^";,]+)"?', content_type)
    if found is None:
        raise HTTPError(400, "The request is not multipart/form-data with a boundary.")
    boundary = b"--" + found[1].encode("latin-1")
    body.seek(0, 2)
    if body.tell() == 0:
        raise HTTPError(400, "The upload is empty.")
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        return dict(_parts(raw, boundary))


def copy_part(body: IO[bytes], part: Part, target: IO[bytes]) -> None:
    """Write a field's value to a file."""
    body.seek(part.start)
    left = part.end - part.start
    while left:
        chunk = body.read(min(left, 1 << 20))
        target.write(chunk)
        left -= len(chunk)


def part_text(body: IO[bytes], part: Part) -> str:
    """Return a short field's value."""
    body.seek(part.start)
    return body.read(min(part.end - part.start, 4096)).decode("utf-8", errors="replace")


def _parts(raw: mmap.mmap, boundary: bytes) -> list[tuple[str, Part]]:
    parts = []
    at = raw.find(boundary)
    while at >= 0:
        head = at + len(boundary) + 2
        if raw[head - 2 : head] == b"--":
            break
        body = raw.find(b"\r\n\r\n", head)
        end = raw.find(b"\r\n" + boundary, head)
        if body < 0 or end < 0:
            raise HTTPError(400, "The upload's form ends in the middle of a field.")
        headers = raw[head:body].decode("utf-8", errors="replace")
        name = re.search(r'[; ]name="([^"]*)"', headers)
        file_name = re.search(r'filename="([^"]*)"', headers)
        if name:
            parts.append((name[1], Part(file_name and file_name[1], body + 4, end)))
        at = end + 2
    return parts
