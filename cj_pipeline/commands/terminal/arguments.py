"""What more than one command is given, and the settings that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

BatchDir = Annotated[
    Path, typer.Argument(help="A batch folder.", exists=True, file_okay=False, resolve_path=True)
]
BatchName = Annotated[str, typer.Argument(help="A batch's name, as `cj status` lists it.")]
MaxComparisons = Annotated[
    int | None,
    typer.Option(
        "--max-comparisons", min=1, help="At most this many comparisons; it may stop earlier."
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed for pairs and positions.")]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="A profile, as `cj profile list` shows them.")
]
ProfileSet = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A field of the profile, as FIELD=VALUE; `none` clears a number. May be repeated.",
    ),
]
Priority = Annotated[
    Literal["low", "normal", "high"] | None,
    typer.Option(help="Whose turn it is where batches wait; wins over batch.yaml, also later on."),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        help="Add a JSON line here for everything that happens; see docs/operations.md.",
        dir_okay=False,
    ),
]


def explicit_settings(
    max_comparisons: int | None,
    seed: int | None,
    profile: str | None = None,
    fields: Sequence[str] | None = None,
    priority: str | None = None,
) -> dict[str, Any]:
    """Return what was set by hand, and only that."""
    given = {
        "max_pairwise_comparisons": max_comparisons,
        "seed": seed,
        "profile": profile,
        "profile_set": read_fields(fields) or None,
        "priority": priority,
    }
    return {key: value for key, value in given.items() if value is not None}


def read_fields(given: Sequence[str] | None) -> dict[str, str]:
    """Return the fields of a profile set by hand.

    Raises:
        typer.BadParameter: If one is not written as FIELD=VALUE, or one is given twice.
    """
    fields: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            msg = f"{text!r} is not written as FIELD=VALUE"
            raise typer.BadParameter(msg)
        if name in fields:
            msg = f"{name} is given twice"
            raise typer.BadParameter(msg)
        fields[name] = value
    return fields
