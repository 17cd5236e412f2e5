"""Names that people gave: files' names become ids, unknown ones are reported with the nearest."""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable

ID = re.compile(r"^[a-z0-9_-]{3,64}$")

_NOT_IN_AN_ID = re.compile(r"[^a-z0-9_]+")
# Letters that Unicode does not take apart into a base letter and a mark.
_SPELLED_OUT = str.maketrans(
    {"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)


def id_for(name: str, *, prefix: str) -> str:
    """Return the id for a name: lower-case ASCII letters, digits, `-` and `_`, 3 to 64 of them.

    The same name always gives the same id. Names too short get `prefix` before them; of names too
    long, or without any letter that ASCII has, a checksum keeps apart what is cut off.

    Args:
        name: As a person wrote it, for instance a file's name without its ending.
        prefix: What the name names: `essay`, `anchor`, `batch`.
    """
    if ID.fullmatch(name):
        return name
    spelled = name.lower().translate(_SPELLED_OUT)
    ascii_only = unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode()
    slug = _NOT_IN_AN_ID.sub("-", ascii_only).strip("-")
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    if not slug:
        return f"{prefix}-{digest}"
    if len(slug) > 64:
        return f"{slug[:55]}-{digest}"
    return slug if len(slug) >= 3 else f"{prefix}-{slug}"


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """Return that a name is unknown, such as "unknown key 'x'; did you mean 'y'?"."""
    return f"unknown {what} {given!r}{nearest(given, known)}"


def nearest(given: str, known: Iterable[str], *, at_least: float = 0.0) -> str:
    """Return "; did you mean 'y'?" for the known name closest to one given; empty without any.

    Args:
        given: As a person wrote it.
        known: The names there are.
        at_least: How alike the two must be, from 0 to 1, for a hint to help.
    """
    found = difflib.get_close_matches(given, list(known), n=1, cutoff=at_least)
    return f"; did you mean {found[0]!r}?" if found else ""
