"""`cj profile`: what bounds single calls, and where each value came from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import ProfileSet, read_fields
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import home_folder

if TYPE_CHECKING:
    from rich.table import Table

    from cj_pipeline.live.profiles import ResolvedProfile


@reads("cj profile list 1")
def list_() -> None:
    """Show every profile: the built-in ones and those in profiles.yaml."""
    from cj_pipeline.live.profiles import FIELDS, known_profiles, resolve_profile
    from cj_pipeline.queries.live_profile import own_profiles

    configured = own_profiles(home_folder())
    resolved = {
        name: resolve_profile(name, configured, None, os.environ)
        for name in known_profiles(configured)
    }
    usable = {name: found for name, (found, _) in resolved.items() if found is not None}
    answer(
        profiles=[
            {
                "profile": name,
                "values": None if found is None else found.values,
                "problems": problems,
            }
            for name, (found, problems) in resolved.items()
        ]
    )
    console.print(
        tables.table(
            "Profiles",
            ("field", *usable),
            [
                (field, *(_shown(getattr(p.values, field)) for p in usable.values()))
                for field in FIELDS
            ],
        )
    )
    for name, (_, problems) in resolved.items():
        for problem in problems:
            console.print(f"{name} cannot be used: {problem}", markup=False)


@reads("cj profile explain 1")
def explain(
    name: Annotated[str, typer.Argument(help="A profile's name.")] = "default",
    fields: ProfileSet = None,
) -> None:
    """Show every value of a profile and where it came from."""
    from cj_pipeline.queries.live_profile import named_profile

    resolved = named_profile(name, home_folder(), read_fields(fields), os.environ)
    answer(**profile_answer(resolved))
    console.print(profile_table(resolved))


def profile_answer(resolved: ResolvedProfile) -> dict[str, Any]:
    """Return the same as `profile_table`, for programs."""
    return {
        "profile": resolved.name,
        "fields": [
            {
                "field": field,
                "value": getattr(resolved.values, field),
                "from": source,
                "note": resolved.notes.get(field),
            }
            for field, source in resolved.sources.items()
        ],
    }


def profile_table(resolved: ResolvedProfile) -> Table:
    """Return every field with its value, its source and why a rule changed it."""
    return tables.table(
        f"Profile {resolved.name}",
        ("field", "value", "from", "note"),
        [
            (
                field,
                _shown(getattr(resolved.values, field)),
                source,
                resolved.notes.get(field, ""),
            )
            for field, source in resolved.sources.items()
        ],
    )


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
