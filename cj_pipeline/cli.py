"""`cj`: the same steps as the Dagster assets, from a terminal and without a daemon.

What each command does is in `commands`; here are its name and its place in the help.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from cj_pipeline.commands import (
    batches,
    cost,
    demo,
    inbox,
    judges,
    keys,
    ledger,
    moderation,
    operations,
    outputs,
    people,
    previews,
    profiles,
    queue,
    services,
    store,
    students,
    tokens,
    trials,
    watch,
)
from cj_pipeline.commands.terminal import exit_codes
from cj_pipeline.commands.terminal.console import inert_usage_errors, with_plain_errors
from cj_pipeline.commands.terminal.help_text import PlainCommand, PlainGroup

Command = Callable[..., None]


def group(
    name: str, about: str, commands: Sequence[Command], cls: type[PlainGroup] = PlainGroup
) -> typer.Typer:
    """Return commands as `cj NAME ...`.

    Args:
        name: What they are called together.
        about: For help.
        commands: In the order help has them.
        cls: How a word after the name is taken, where that is unusual.
    """
    made = typer.Typer(name=name, help=about, cls=cls, no_args_is_help=True)
    for command in commands:
        add(made, command, of=name)
    return made


def add(to: typer.Typer, command: Command, panel: str | None = None, of: str = "") -> None:
    """Add a command: under a heading of the help, or to a group of that name."""
    takes_an_essay = not {"essay", "essay_id"}.isdisjoint(inspect.signature(command).parameters)
    cls = _WithEssay if takes_an_essay else PlainCommand
    codes = exit_codes.help_of(f"{of} {name_of(command)}".strip())
    made = to.command(name_of(command), cls=cls, rich_help_panel=panel, epilog=codes)
    made(with_plain_errors(command))


class _WithEssay(PlainCommand):
    """A command that takes an essay's name, which may begin with a dash as an option does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words that were typed; `-anna` is a name, and `--anna` an unknown option."""
        known = {opt for each in self.get_params(ctx) for opt in (*each.opts, *each.secondary_opts)}
        own = args[: args.index("--")] if "--" in args else args
        ctx.ignore_unknown_options = not any(
            word.startswith("--") and word.partition("=")[0] not in known and before not in known
            for before, word in itertools.pairwise(["", *own])
        )
        return list(super().parse_args(ctx, args))


def name_of(held: Command | typer.Typer) -> str:
    """Return a group's name, or a function's less what keeps it clear of Python's own words."""
    if isinstance(held, typer.Typer):
        return str(held.info.name)
    return held.__name__.strip("_").replace("_", "-")


JUDGE = group(
    "judge",
    "See judges, try them before spending, and hold those of a batch against each other.",
    (judges.list_, judges.show, judges.examine, judges.compare, judges.panel),
)
PEOPLE = group(
    "people",
    "Invite people to judge, and see how far they are.",
    (people.link, people.revoke, people.show, people.agreement, people.export, people.forget),
)
VERDICTS = group(
    "verdicts",
    "Import verdicts that people gave elsewhere, and export a batch's.",
    (people.import_, people.export_, people.withdraw, people.list_),
)
PROFILE = group(
    "profile",
    "See what bounds single calls, before they press on a provider.",
    (profiles.list_, profiles.explain),
)
TRIAL = group(
    "trial",
    "Run trials: batches with a known outcome. `cj trial NAME` runs one.",
    (trials.run, trials.list_, trials.history),
    trials.NamesRun,
)
TOKEN = group(
    "token",
    "Let others call the service: for what, with which batches, and until when.",
    (tokens.create, tokens.list_, tokens.revoke),
)
KEYS = group(
    "keys",
    "Make the key that signs artefacts, and see its public part.",
    (keys.create, keys.show),
)
STORE = group(
    "store",
    "Look after the store.",
    (
        store.check,
        store.backup,
        store.restore,
        store.moved,
        store.compact,
        store.archive,
        store.migrate,
        store.serve,
    ),
)

PANELS: Mapping[str, Sequence[Command | typer.Typer]] = {
    "Run a batch": (
        demo.demo,
        previews.plan,
        previews.explain,
        operations.preflight_,
        previews.dry_run,
        batches.execute,
        watch.watch,
        batches.status,
        inbox.inbox,
        queue.queue,
        batches.cancel,
    ),
    "Results": (
        batches.report,
        outputs.essay,
        outputs.compare,
        outputs.export,
        outputs.sql,
        cost.cost,
        outputs.verify,
        KEYS,
        operations.assert_,
        batches.regrade,
        batches.link,
    ),
    "People": (
        moderation.moderate,
        moderation.release,
        moderation.rejudge,
        students.pages,
        students.feedback,
        moderation.oversight,
        PEOPLE,
        VERDICTS,
    ),
    "Judges and trials": (JUDGE, TRIAL, PROFILE),
    "The store and what was paid for": (STORE, ledger.doctor, ledger.reparse, store.forget),
    "Services": (
        services.ui,
        services.serve,
        services.work,
        TOKEN,
        operations.metrics,
        operations.notify,
        services.emulator,
    ),
}
"""What help shows, in this order: what one wants to do, and the commands for it."""


class _AsInPanels(PlainGroup):
    """Typer puts groups behind commands; here each is where `PANELS` has it.

    Usage errors of all commands come through here too, and what was typed is spelled out.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        shown = [name_of(held) for panel in PANELS.values() for held in panel]
        return sorted(super().list_commands(ctx), key=shown.index)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with inert_usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with inert_usage_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="cj",
    cls=_AsInPanels,
    help="Comparative judgement of essays by LLM judges.",
    epilog=f"Exit codes: {exit_codes.in_words(exit_codes.EVERY_COMMAND)}. Where a command has codes"
    " of its own, its --help lists them. Reading commands take --json.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cj {version('cj-pipeline')}")
        raise typer.Exit


@app.callback()
def _cj(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    """Comparative judgement of essays by LLM judges."""
    del version


for heading, panel in PANELS.items():
    for held in panel:
        if isinstance(held, typer.Typer):
            app.add_typer(held, rich_help_panel=heading)
        else:
            add(app, held, heading)
