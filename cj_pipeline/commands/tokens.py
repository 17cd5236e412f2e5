"""`cj token`: who else may call the service, for what, with which batches, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import home_folder


def create(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for: a-z, 0-9, '-', '_'.")],
    scope: Annotated[
        list[str],
        typer.Option(help="submit, read, judge, release or admin; may be repeated."),
    ],
    batches: Annotated[
        list[str] | None,
        typer.Option(help="Names it is for, such as 'spring-*'; may be repeated. All if left out."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is good.")] = 180,
) -> None:
    """Make a token and show it once; only its hash is written to installation.yaml."""
    from cj_pipeline.storage.token_file import add_token
    from cj_pipeline.tokens import new_token

    expires = (datetime.now(UTC) + timedelta(days=days)).date()
    token = new_token()
    add_token(home_folder(), name, token, scopes=scope, batches=batches or ["*"], expires=expires)
    console.print(token, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"This is shown once. {name}: {', '.join(scope)}, batches {', '.join(batches or ['*'])},"
        f" good until {expires}. `cj token revoke {name}` ends it at once.",
        markup=False,
        soft_wrap=True,
    )


@reads("cj token list 1")
def list_() -> None:
    """Show who has a token, what for, and until when; no token and no hash."""
    from cj_pipeline.installation import read_installation

    today = datetime.now(UTC).date()
    tokens = read_installation(home_folder()).tokens
    answer(
        tokens=[
            {
                "name": token.name,
                "scopes": sorted(token.scopes),
                "batches": list(token.batches),
                "expires": token.expires,
                "is_expired": today > token.expires,
            }
            for token in tokens
        ]
    )
    console.print(
        tables.table(
            "Tokens",
            ("name", "scopes", "batches", "good until", ""),
            [
                (
                    token.name,
                    ", ".join(sorted(token.scopes)),
                    ", ".join(token.batches),
                    token.expires,
                    "" if today <= token.expires else "expired",
                )
                for token in tokens
            ],
        )
    )


def revoke(name: Annotated[str, typer.Argument(help="As `cj token list` shows it.")]) -> None:
    """End a token, and every session that was opened with it, at once."""
    from cj_pipeline.storage.token_file import remove_token

    remove_token(home_folder(), name)
    console.print(f"{name} is revoked.", markup=False)
