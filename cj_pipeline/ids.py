"""Names that people gave files and folders become ids that every system takes."""

from __future__ import annotations

import hashlib
import re
import unicodedata

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
