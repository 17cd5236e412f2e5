"""What a browser sends when a form is submitted: its fields, and the files chosen in it.

`multipart/form-data` as RFC 7578 has it, of bodies that `AccessMiddleware` has bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from urllib.parse import parse_qsl

MAX_PARTS = 20_100
MAX_FIELD_BYTES = 200_000
_MAX_HEAD_BYTES = 8 * 1024


class FormError(ValueError):
    """A body is not what a browser sends for a form."""


@dataclass(frozen=True)
class SentFile:
    """A file that was chosen.

    Attributes:
        field: The form's field.
        name: As the browser calls it, with its folders where a folder was chosen; not yet safe.
        content: Its bytes.
    """

    field: str
    name: str
    content: bytes


@dataclass(frozen=True)
class Form:
    """A form as it was filled in."""

    fields: tuple[tuple[str, str], ...]
    files: tuple[SentFile, ...]

    def one(self, name: str) -> str:
        """Return what stands in a field, without spaces around it; empty where nothing does."""
        return next((value.strip() for key, value in self.fields if key == name), "")

    def many(self, name: str) -> list[str]:
        """Return everything that was chosen in a field."""
        return [value for key, value in self.fields if key == name and value]

    def files_of(self, *names: str) -> Sequence[SentFile]:
        """Return the files that were chosen in some fields."""
        return [each for each in self.files if each.field in names]


def read_form(content_type: str, body: bytes) -> Form:
    """Return the form in a request's body.

    Raises:
        FormError: If it is none, or one that no browser sends.
    """
    head = Message()
    head["Content-Type"] = content_type
    kind = head.get_content_type()
    if kind == "application/x-www-form-urlencoded":
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise FormError(str(error)) from None
        return Form(tuple(pairs), ())
    boundary = head.get_param("boundary", "")
    if kind != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        msg = "Send the form as multipart/form-data, as browsers do."
        raise FormError(msg)
    return _read_parts(boundary.encode("utf-8", "surrogateescape"), body)


def _read_parts(boundary: bytes, body: bytes) -> Form:
    # What stands before the first boundary is nothing; the last one is followed by two dashes.
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary, MAX_PARTS)
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        msg = "The form did not arrive whole, or has too many files."
        raise FormError(msg)
    fields: list[tuple[str, str]] = []
    files: list[SentFile] = []
    for part in parts[1:-1]:
        name, filename, content = _read_part(part)
        if filename is None:
            if len(content) > MAX_FIELD_BYTES:
                msg = f"The field {name!r} holds too much."
                raise FormError(msg)
            fields.append((name, content.decode("utf-8", "replace")))
        elif filename or content:  # a browser sends an empty file where none was chosen
            files.append(SentFile(name, filename, content))
    return Form(tuple(fields), tuple(files))


def _read_part(part: bytes) -> tuple[str, str | None, bytes]:
    head, parted, content = part.partition(b"\r\n\r\n")
    if not part.startswith(b"\r\n") or not parted or len(head) > _MAX_HEAD_BYTES:
        msg = "A part of the form is broken."
        raise FormError(msg)
    for line in head.decode("utf-8", "replace").split("\r\n"):
        title, _, value = line.partition(":")
        if title.strip().lower() == "content-disposition":
            said = _parameters(value)
            if "name" in said:
                return said["name"], said.get("filename"), content
    msg = "A part of the form has no name."
    raise FormError(msg)


def _parameters(value: str) -> dict[str, str]:
    """Return a header's parameters; browsers write quotes and line ends in them as %22 and %0A."""
    found: dict[str, str] = {}
    rest = value.partition(";")[2]
    while "=" in rest:
        key, _, after = rest.partition("=")
        after = after.lstrip()
        if after.startswith('"'):
            quoted, _, rest = after[1:].partition('"')
            found[key.strip(" ;").lower()] = (
                quoted.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
            )
        else:
            plain, _, rest = after.partition(";")
            found[key.strip(" ;").lower()] = plain.strip()
    return found
