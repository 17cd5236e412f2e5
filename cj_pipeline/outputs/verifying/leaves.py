"""Every single value of a document by its path, and where two documents differ in one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MISSING = "nothing"
"""Stands where one of two documents has no such value."""

_NUMBER = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Difference:
    """A value that two documents do not agree on.

    Attributes:
        path: Where it is, as `llm_comparisons[3].winner`.
        stated: What is claimed.
        found: What there should be.
    """

    path: str
    stated: Any
    found: Any

    @property
    def field(self) -> str:
        """The path without its numbers, as `llm_comparisons[].winner`."""
        return field_of(self.path)

    def worded(self, source: str) -> str:
        """Return it in words; `source` says who knows better, such as "the store"."""
        return f"{self.path} says {_short(self.stated)}, {source} {_short(self.found)}"


def field_of(path: str) -> str:
    """Return a path without the numbers in it."""
    return _NUMBER.sub("[]", path)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a document with its path; an empty list or object counts as one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{place}]")
    else:
        yield path, value


def differences(
    stated: Any,
    found: Any,
    tolerance: Callable[[str], float] | None = None,
    path: str = "",
) -> Iterator[Difference]:
    """Yield where two documents differ.

    Args:
        stated: What is claimed.
        found: What there should be.
        tolerance: By how much numbers of a field may differ, absolutely and as a share; without
            it not at all.
        path: Where both are.
    """
    if isinstance(stated, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*stated, *found]):
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(
                stated.get(key, MISSING), found.get(key, MISSING), tolerance, inner
            )
    elif isinstance(stated, list) and isinstance(found, list):
        for place in range(max(len(stated), len(found))):
            yield from differences(
                stated[place] if place < len(stated) else MISSING,
                found[place] if place < len(found) else MISSING,
                tolerance,
                f"{path}[{place}]",
            )
    elif not _agree(stated, found, tolerance(field_of(path)) if tolerance else 0.0):
        yield Difference(path, stated, found)


def _agree(stated: Any, found: Any, tolerance: float) -> bool:
    both = (stated, found)
    is_counted = all(isinstance(x, int) for x in both)
    is_measured = all(isinstance(x, int | float) and not isinstance(x, bool) for x in both)
    if tolerance and is_measured and not is_counted:
        return math.isclose(stated, found, rel_tol=tolerance, abs_tol=tolerance)
    return type(stated) is type(found) and bool(stated == found)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
