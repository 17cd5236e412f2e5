"""Help that shows a type only where a value is to be given."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class _FlagsTakeNoValue:
    """Typer writes `<bool>` beside a flag, as if one could type it."""

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in found:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return found


class PlainCommand(_FlagsTakeNoValue, TyperCommand):
    """A command whose help is plain."""


class PlainGroup(_FlagsTakeNoValue, TyperGroup):
    """Commands under one name, whose help is plain."""
