"""What a shell offers for a batch's, an essay's or a judge's name (`cj --install-completion`).

A name that a shell would read as anything but a word is not offered: it lands in the command line
as it stands. An essay submitted under such a name is offered by its id.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import typer

from cj_pipeline.commands.terminal.home import home_folder, open_store, published
from cj_pipeline.errors import CJError

if TYPE_CHECKING:
    from cj_pipeline.store.session import Session

_WORD = re.compile(r"[\w.@+][\w.@+-]*")
_WAIT_S = 0.3
"""How long a key press waits for a store that is held; then the published copy has to do."""


def batch_names(incomplete: str) -> list[str]:
    """Return the batches of this home whose names begin so, the newest first."""
    rows = "SELECT batch_id AS name, batch_id AS otherwise FROM batches ORDER BY created_at DESC"
    return _offered(rows, {}, incomplete)


def essay_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the essays of the batch that was typed before, as they were named."""
    batch = ctx.params.get("batch")
    if not isinstance(batch, str):
        return []
    rows = (
        "SELECT coalesce(given_id, essay_id) AS name, essay_id AS otherwise FROM essays"
        " WHERE batch_id = $batch ORDER BY is_anchor, position"
    )
    return _offered(rows, {"batch": batch}, incomplete)


def judge_names(incomplete: str) -> list[str]:
    """Return the judges that are built in, as `cj judge list` shows them."""
    from cj_pipeline.judging.judges import known_judges

    return [name for name in known_judges(None) if name.startswith(incomplete)]


def _offered(query: str, values: dict[str, str], incomplete: str) -> list[str]:
    found: list[str] = []
    if home_folder().is_dir():
        # The live store if it is free, and what was published otherwise.
        for opened in (_live, published):
            try:
                with opened() as db:
                    found = [
                        row["name"] if _WORD.fullmatch(row["name"]) else row["otherwise"]
                        for row in db.rows(query, values)
                    ]
                break
            except (CJError, OSError):
                continue
    return [name for name in found if name.startswith(incomplete)]


def _live() -> AbstractContextManager[Session]:
    return open_store().waiting(_WAIT_S).read()
