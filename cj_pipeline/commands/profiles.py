"""`cj profile`: what bounds single calls, and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cj_pipeline import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from cj_pipeline.profiles import ResolvedProfile

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


def read_fields(given: Sequence[str] | None) -> dict[str, str]:
    """Return the fields set by hand.

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


def profile_commands(
    told_plainly: Callable[[Callable[..., Any]], Callable[..., Any]], console: Console
) -> typer.Typer:
    """Return the commands, to be added to `cj`.

    Args:
        told_plainly: Shows a known error as a message instead of a traceback.
        console: Where answers go.
    """
    commands = typer.Typer(
        help="See what bounds single calls, before they press on a provider.",
        no_args_is_help=True,
    )

    @commands.command("list")
    @told_plainly
    def list_profiles() -> None:
        """Show every profile: the built-in ones and those in profiles.yaml."""
        from cj_pipeline.profiles import FIELDS, known_profiles, resolve_profile
        from cj_pipeline.steps.live_profile import own_profiles
        from cj_pipeline.store import default_home

        configured = own_profiles(default_home(os.environ))
        resolved = {name: resolve_profile(name, configured) for name in known_profiles(configured)}
        usable = {name: found for name, (found, _) in resolved.items() if found is not None}
        console.print(
            terminal.table(
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

    @commands.command("explain")
    @told_plainly
    def explain_profile(
        name: Annotated[str, typer.Argument(help="A profile's name.")] = "default",
        fields: ProfileSet = None,
    ) -> None:
        """Show every value of a profile and where it came from."""
        from cj_pipeline.steps.live_profile import named_profile
        from cj_pipeline.store import default_home

        resolved = named_profile(name, default_home(os.environ), read_fields(fields))
        console.print(profile_table(resolved))

    return commands


def profile_table(resolved: ResolvedProfile) -> Table:
    """Return every field with its value, its source and why a rule changed it."""
    return terminal.table(
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
