"""Whether a batch's grades may be used as final, and what people decided of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cj_pipeline.errors import SettingsError
from cj_pipeline.store.session import Session


@dataclass(frozen=True)
class Release:
    """Whether a batch's grades may be used as final.

    Attributes:
        batch_id: The batch.
        revision: Of the last grading; None before the first.
        release_rule: `automatic` or `needs_sign_off`.
        status: As in the view `v_release`.
        released_revision: The grading that was released last; None where none was.
        released_by: Who released or withdrew last.
        released_at: When.
    """

    batch_id: str
    revision: int | None
    release_rule: str
    status: str
    released_revision: int | None
    released_by: str | None
    released_at: datetime | None

    @property
    def is_provisional(self) -> bool:
        """Whether there are grades that may not be used yet."""
        return self.status in {"provisional", "changed since release", "withdrawn"}

    @property
    def statement(self) -> str:
        """The same in a sentence; empty where no sign-off is needed."""
        if self.release_rule != "needs_sign_off" or self.status == "no grades":
            return ""
        who = f"{self.released_by} on {self.released_at:%Y-%m-%d %H:%M}" if self.released_at else ""
        return {
            "provisional": "These grades are provisional: no person has released them yet.",
            "released": f"Released by {who}.",
            "changed since release": (
                f"These grades are provisional: grading {self.released_revision} was released by"
                f" {who}, and verdicts or decisions have come since."
            ),
            "withdrawn": f"These grades are provisional: their release was withdrawn by {who}.",
        }[self.status]

    def as_json(self) -> dict[str, Any]:
        """Return it for files and answers."""
        return {
            "status": self.status,
            "is_provisional": self.is_provisional,
            "needs_sign_off": self.release_rule == "needs_sign_off",
            "revision": self.revision,
            "released_revision": self.released_revision,
            "released_by": self.released_by,
            "released_at": self.released_at.isoformat() if self.released_at else None,
        }


NOTHING_GRADED = Release("", None, "automatic", "no grades", None, None, None)


def release_status(
    rule: str,
    *,
    is_graded: bool,
    last_kind: str | None,
    is_last_grading: bool,
    is_decided_since: bool,
) -> str:
    """Return whether grades may be used, as the view `v_release` says it from the same facts.

    Args:
        rule: `automatic` or `needs_sign_off`.
        is_graded: Whether the last grading gave grades.
        last_kind: `released` or `withdrawn`, whichever was last; None where neither was.
        is_last_grading: Whether that was about the last grading.
        is_decided_since: Whether a person decided of a grade after it.
    """
    if not is_graded:
        return "no grades"
    if rule != "needs_sign_off":
        return "final"
    if last_kind is None:
        return "provisional"
    if last_kind == "withdrawn":
        return "withdrawn"
    return "released" if is_last_grading and not is_decided_since else "changed since release"


def release_of(db: Session, batch_id: str) -> Release:
    """Return whether a batch's grades may be used as final."""
    found = db.record(Release, "FROM v_release WHERE batch_id = ?", [batch_id])
    return found or NOTHING_GRADED


def require_final(db: Session, batch_id: str, *, what: str) -> None:
    """Refuse what only final grades may be used for.

    Args:
        db: The store.
        batch_id: The batch.
        what: What is refused, as the beginning of a sentence.

    Raises:
        SettingsError: If the batch's grades are provisional.
    """
    release = release_of(db, batch_id)
    if release.is_provisional:
        msg = (
            f"{what} of batch '{batch_id}' is refused: {release.statement} Look at them with"
            f" `cj moderate {batch_id}`, then `cj release {batch_id} --by NAME`."
        )
        raise SettingsError(msg)


def decisions_in_force(decisions: tuple[Mapping[str, Any], ...]) -> dict[str, Mapping[str, Any]]:
    """Return, by essay, the decision that holds of it; `decisions` are by number.

    Sending an essay to people's judging decides nothing of its grade.
    """
    return {row["essay_id"]: row for row in decisions if row["kind"] != "judge"}
