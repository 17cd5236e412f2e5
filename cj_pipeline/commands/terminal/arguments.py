"""What more than one command is given, and the settings that come of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cj_pipeline.commands.terminal import completion
from cj_pipeline.errors import SettingsError
from cj_pipeline.ids import id_for

BatchDir = Annotated[
    Path, typer.Argument(help="A batch folder.", exists=True, file_okay=False, resolve_path=True)
]
BatchName = Annotated[
    str,
    typer.Argument(
        help="A batch's name, as `cj status` lists it.", autocompletion=completion.batch_names
    ),
]
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
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A key of batch.yaml as KEY=VALUE, a part of one as KEY.PART=VALUE, or a field of"
        " the profile as profile.FIELD=VALUE (`none` clears a number). May be repeated.",
    ),
]
BatchLabel = Annotated[
    str | None,
    typer.Option(
        "--batch-id",
        help="The batch's name, instead of its folder's; {date}, {time} and strftime's fields, as"
        " in `mock-%Y%m%d`, are filled in. A folder may be judged, and paid for, under many names.",
    ),
]
Mode = Annotated[
    Literal["per_request", "serial_bundle", "provider_batch_api"] | None,
    typer.Option("--llm-batching-mode", help="How requests are sent; wins over batch.yaml."),
]
Again = Annotated[
    bool,
    typer.Option("--again", help="Judge and pay again for files that another batch has already."),
]
Anyway = Annotated[
    bool,
    typer.Option(
        "--anyway", help="Start it although it cannot end with scores; the store keeps that."
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


Explicit = Mapping[str, Any]
"""What was set by hand of a batch's keys, and only that: see `takes_settings`."""

_SETTINGS: Mapping[str, tuple[str, Any]] = {
    "max_comparisons": ("max_pairwise_comparisons", MaxComparisons),
    "seed": ("seed", Seed),
    "llm_batching_mode": ("llm_batching_mode_override", Mode),
    "profile": ("profile", ProfileName),
    "settings": ("", Settings),
    "priority": ("priority", Priority),
    "anyway": ("anyway", Anyway),
}
"""The options that set a batch's keys: each with its key and its type; `--set` takes any key."""


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `explicit` the options that set a batch's keys by hand instead."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name, None) for name in _SETTINGS}
        command(*args, explicit=_explicit(given), **kwargs)

    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if name == "anyway" else None,
            annotation=kind,
        )
        for name, (_, kind) in _SETTINGS.items()
    ]
    taken = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for each in taken.parameters.values():
        parameters += options if each.name == "explicit" else [each]
    run.__signature__ = taken.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _explicit(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `batch.yaml` that options set.

    Raises:
        SettingsError: If something is set twice, or not written as it has to be.
    """
    keys, fields = read_settings(given["settings"])
    set_by_flag: dict[str, Any] = {
        key: given[name]
        for name, (key, _) in _SETTINGS.items()
        if key and given[name] is not None and given[name] is not False
    }
    if fields:
        set_by_flag["profile_set"] = fields
    twice = sorted(set_by_flag.keys() & keys)
    if twice:
        msg = f"{twice[0]} is given twice, by --set and by an option of its own"
        raise SettingsError(msg)
    return keys | set_by_flag


def read_settings(given: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the keys of `batch.yaml` set by hand, and the fields of its profile.

    A field of the profile without `profile.` before it is understood, and warned of.

    Raises:
        SettingsError: If one is not written as KEY=VALUE, or one is given twice.
    """
    import yaml

    from cj_pipeline.commands.terminal.console import errors
    from cj_pipeline.intake.settings import BatchSettings
    from cj_pipeline.live.profiles import FIELDS

    keys: dict[str, Any] = {}
    fields: list[str] = []
    for text in given or ():
        name, equals, value = text.partition("=")
        key = name.strip().replace("-", "_")
        head, _, rest = key.partition(".")
        if not equals or not key:
            msg = f"{text!r} is not written as KEY=VALUE"
            raise SettingsError(msg)
        if head == "profile" and rest:
            fields.append(f"{rest}={value}")
        elif key in FIELDS and key not in BatchSettings.model_fields:
            errors.print(
                f"Warning: {key} is a field of the profile: write --set profile.{key}={value}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            fields.append(f"{key}={value}")
        elif key in keys:
            msg = f"{key} is given twice"
            raise SettingsError(msg)
        else:
            try:
                keys[key] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                msg = f"the value of {key} cannot be read: {error}"
                raise SettingsError(msg) from None
    return keys, read_fields(fields)


def name_of_batch(batch_dir: Path, label: str | None) -> str:
    """Return the name a folder is a batch under, and say it where it is not the one given."""
    from cj_pipeline.commands.terminal.console import errors

    given = batch_dir.name if label is None else filled_in(label)
    name = id_for(given, prefix="batch")
    if name != given:
        what = "The folder" if label is None else "The batch id"
        hint = "; --batch-id gives it another name" if label is None else ""
        errors.print(
            f"Note: {what} '{given}' is the batch '{name}' here: names are 3 to 64 of a-z, 0-9,"
            f" '-' and '_'{hint}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return name


def filled_in(label: str) -> str:
    """Return a batch id with the date and time, in UTC, in their places.

    Raises:
        typer.BadParameter: If nothing is left of it.
    """
    now = datetime.now(UTC)
    text = label.replace("{date}", "%Y-%m-%d").replace("{time}", "%H%M%S").strip()
    filled = now.strftime(text) if "%" in text else text
    if not filled.strip():
        msg = "a batch id cannot be empty"
        raise typer.BadParameter(msg, param_hint="--batch-id")
    return filled


def read_fields(given: Sequence[str] | None) -> dict[str, str]:
    """Return the fields of a profile set by hand.

    Raises:
        SettingsError: If one is not written as FIELD=VALUE, or one is given twice.
    """
    fields: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_").removeprefix("profile.")
        if not equals or not name:
            msg = f"{text!r} is not written as FIELD=VALUE"
            raise SettingsError(msg)
        if name in fields:
            msg = f"{name} is given twice"
            raise SettingsError(msg)
        fields[name] = value
    return fields
