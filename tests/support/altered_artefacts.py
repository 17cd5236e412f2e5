"""Artefacts with one value altered and the checksum mended, as somebody would who knows how."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cj_pipeline.outputs.artefact import artefact_checksum
from cj_pipeline.outputs.verifying.leaves import field_of


def altered(
    document: dict[str, Any], *, per_field: int | None = None, every: int = 1
) -> Iterator[tuple[str, Any]]:
    """Yield a path and a document in which that value is another one of its kind.

    Args:
        document: A sound artefact.
        per_field: Only so many rows of each field, the first and the last ones; all if left out.
        every: Only one field in so many.
    """
    found = [
        (path, value)
        for path, value in leaves_by_steps(document)
        if path[-1] != "artefact_checksum"
    ]
    of_field: dict[str, list[tuple[tuple[Any, ...], Any]]] = defaultdict(list)
    for path, value in found:
        of_field[field_of(spelled(path))].append((path, value))
    for same in list(of_field.values())[::every]:
        others = [value for _, value in same]
        chosen = same if per_field is None else [*same[:1], *same[1:][: per_field - 1]]
        for path, value in chosen:
            changed = copy.deepcopy(document)
            inner: Any = changed
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = another(value, others)
            changed["validation"]["artefact_checksum"] = artefact_checksum(changed)
            yield spelled(path), changed


def leaves_by_steps(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every value with the keys and numbers that lead to it."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves_by_steps(inner, (*at, key))
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from leaves_by_steps(inner, (*at, place))
    else:
        yield at, value


def spelled(path: tuple[Any, ...]) -> str:
    """Return a path as `verify` writes it."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def another(value: Any, others: list[Any]) -> Any:  # noqa: PLR0911 -- one line per kind of value
    """Return a value of the same kind that is another one; of the same field, where one is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 0.25
    if value is None:
        return next((other for other in others if other is not None), 1)
    if isinstance(value, list):
        return ["another"]
    if isinstance(value, dict):
        return {"another": 1}
    for other in others:
        if isinstance(other, str) and other != value:
            return other
    if re.match(r"\d{4}-\d\d-\d\dT", value):
        later = datetime.fromisoformat(value) + timedelta(hours=1)
        return later.isoformat().replace("+00:00", "Z")
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        return str(uuid.uuid5(uuid.NAMESPACE_URL, value))
    if re.fullmatch(r"[0-9a-f]{7,}", value):
        return value[:-1] + ("1" if value[-1] == "0" else "0")
    return f"{value}x"


def write(path: Path, document: dict[str, Any]) -> Path:
    """Write an artefact under a path, beside the files it lists."""
    path.write_text(json.dumps(document))
    return path
