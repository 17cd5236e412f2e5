"""`cj keys`: with what artefacts are signed, and by what others check them."""

from __future__ import annotations

from typing import Annotated

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import home_folder


def create(
    replace: Annotated[
        bool, typer.Option("--replace", help="Make a new key where there is one already.")
    ] = False,
) -> None:
    """Make the key that signs every artefact from now on; print its public part."""
    from cj_pipeline.storage.signing import make_key

    public = make_key(home_folder(), replace=replace)
    console.print(public.text, markup=False, highlight=False, soft_wrap=True)
    console.print(
        "Artefacts written from now on are signed, and their reports print this. Give it to those"
        " who check them: `cj verify FILE --key KEY`. The private part stays in CJ_HOME/keys and"
        " is in no backup of the store: keep a copy where you keep other keys.",
        soft_wrap=True,
    )


@reads("cj keys show 1")
def show() -> None:
    """Print the public part of the key that signs artefacts, and of earlier ones."""
    from cj_pipeline.storage.signing import signing_key, trusted_keys

    now = signing_key(home_folder())
    answer(
        keys=[
            {"key_id": key.key_id, "public_key": key.text, "signs": key == now}
            for key in trusted_keys(home_folder())
        ]
    )
    console.print(
        tables.table(
            "Keys",
            ("key", "public part", ""),
            [
                (key.key_id, key.text, "signs" if key == now else "earlier")
                for key in trusted_keys(home_folder())
            ],
        )
    )
    if now is None:
        console.print("There is no key: `cj keys create` makes one.")
