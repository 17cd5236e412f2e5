"""Names that people gave: files' names become ids, unknown ones are reported with the nearest."""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

ID = re.compile(r"^[a-z0-9_-]{3,64}$")

_NOT_IN_AN_ID = re.compile(r"[^a-z0-9_]+")
# Letters that Unicode does not take apart into a base letter and a mark.
_SPELLED_OUT = str.maketrans(
    {"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)


# What programs on the way read as no value, a truth value or a number that is none.
_NO_NAMES = frozenset(
    {"null", "nan", "none", "true", "false", "yes", "off", "inf", "infinity", "nil", "undefined"}
)


def id_for(name: str, *, prefix: str) -> str:
    """Return the id for a name: lower-case ASCII letters, digits, `-` and `_`, 3 to 64 of them.

    The same name always gives the same id. Names too short, and those that programs take for no
    value (`null`), get `prefix` before them. Where a letter or digit has no like in ASCII, or a
    name is too long, a checksum keeps apart what is lost: so "Иванов 9Б" and "Петров 9Б" differ.
    Names that differ only in accents, case or signs may share an id: see `ids_for`.

    Args:
        name: As a person wrote it, for instance a file's name without its ending.
        prefix: What the name names: `essay`, `anchor`, `batch`.
    """
    if ID.fullmatch(name) and not name.startswith("-") and name not in _NO_NAMES:
        return name
    spelled = unicodedata.normalize("NFKD", name.lower().translate(_SPELLED_OUT))
    slug = _NOT_IN_AN_ID.sub("-", spelled.encode("ascii", "ignore").decode()).strip("-")
    digest = _digest(name)
    if not slug:
        return f"{prefix}-{digest}"
    if any(letter.isalnum() and not letter.isascii() for letter in spelled):
        slug = f"{slug[:55].rstrip('-')}-{digest}"
    if len(slug) > 64:
        return f"{slug[:55]}-{digest}"
    return slug if len(slug) >= 3 and slug not in _NO_NAMES else f"{prefix}-{slug}"


def ids_for(names: Sequence[str], *, prefixes: Sequence[str]) -> list[str]:
    """Return an id for each of several names; different names get different ids.

    Names are the same if they are in Unicode's composed form (NFC). Each gets the id of `id_for`;
    of several that would share one, all but the one that is spelled like it get a checksum too.

    Args:
        names: As people wrote them.
        prefixes: What each of them names, as for `id_for`.
    """
    plain = [id_for(name, prefix=what) for name, what in zip(names, prefixes, strict=True)]
    ids = plain
    for n_digits in (8, 16, 32):
        bearers: dict[str, set[str]] = {}
        for name, one in zip(names, ids, strict=True):
            bearers.setdefault(one, set()).add(same_name(name))
        if all(len(sharing) == 1 for sharing in bearers.values()):
            break
        ids = [
            one
            if len(bearers[one]) == 1 or same_name(name) == first
            else f"{first[: 63 - n_digits].rstrip('-')}-{_digest(name, n_digits)}"
            for name, first, one in zip(names, plain, ids, strict=True)
        ]
    return ids


def same_name(name: str) -> str:
    """Return a name as two of them are compared: in composed form, without blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def _digest(name: str, n_digits: int = 8) -> str:
    content = same_name(name).encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:n_digits]


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """Return that a name is unknown, such as "unknown key 'x'; did you mean 'y'?"."""
    return f"unknown {what} {given!r}{nearest(given, known)}"


def nearest(given: str, known: Iterable[str], *, at_least: float = 0.0) -> str:
    """Return "; did you mean 'y'?" for the known name closest to one given; empty without any.

    Args:
        given: As a person wrote it; letters' case does not count.
        known: The names there are.
        at_least: How alike the two must be, from 0 to 1, for a hint to help.
    """
    by_lower: dict[str, str] = {}
    for name in known:
        by_lower.setdefault(name.lower(), name)
    found = difflib.get_close_matches(given.lower(), list(by_lower), n=1, cutoff=at_least)
    return f"; did you mean {by_lower[found[0]]!r}?" if found else ""
