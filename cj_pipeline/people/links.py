"""Personal links to the judging page: made, revoked, and what a token opens.

A link is good for one person in one batch until it expires. The store has only the token's hash,
so a link is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from cj_pipeline.errors import SettingsError
from cj_pipeline.people.moderation import people_judge
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()

MAX_DAYS = 366
MAX_NAME = 80


@dataclass(frozen=True)
class NewLink:
    """A link as it is shown once.

    Attributes:
        person: Whose it is.
        token: What opens the page; in the link's fragment, which no server logs.
        expires_at: Until when.
    """

    person: str
    token: str
    expires_at: datetime

    def url(self, base: str) -> str:
        """Return the link, at a service's address."""
        return f"{base.rstrip('/')}/judge#{self.token}"


@dataclass(frozen=True)
class JudgeLink:
    """A link that is good now, and whose it is."""

    link_id: str
    batch_id: str
    judge_id: str
    person: str
    quota: int | None
    expires_at: datetime


def make_links(
    runtime: Runtime,
    batch_id: str,
    persons: Sequence[str],
    *,
    by: str,
    days: float = 14,
    quota: int | None = None,
) -> list[NewLink]:
    """Make one link for each person; links that a person has already stay as they are.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        persons: Names, for the operator alone.
        by: Who makes them.
        days: How long they are good.
        quota: Verdicts asked of each; by default whatever there is.

    Raises:
        SettingsError: If a name or a number cannot be used.
    """
    names = [person.strip() for person in persons]
    problems = [f"{name!r} is no name" for name in names if not 0 < len(name) <= MAX_NAME]
    problems += [f"{name} is named twice" for name in sorted(set(names)) if names.count(name) > 1]
    if not 0 < days <= MAX_DAYS:
        problems.append(f"a link is good for more than 0 and at most {MAX_DAYS} days")
    if quota is not None and quota < 1:
        problems.append("a quota is 1 or more")
    if problems or not names:
        msg = f"No link was made: {'; '.join(problems) or 'name the persons'}."
        raise SettingsError(msg)
    now = runtime.clock()
    expires_at = now + timedelta(days=days)
    links = [NewLink(name, secrets.token_urlsafe(24), expires_at) for name in names]
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        if record.state in {"rejected", "failed", "cancelled"}:
            msg = f"No link was made: batch '{batch_id}' ended as {record.state}."
            raise SettingsError(msg)
        judge = people_judge(db, record)
        rows = [
            {
                "link_id": uuid.uuid4().hex,
                "batch_id": batch_id,
                "judge_id": judge.judge_id,
                "person": link.person,
                "token_sha256": _hashed(link.token),
                "quota": quota,
                "made_at": now,
                "made_by": by,
                "expires_at": expires_at,
            }
            for link in links
        ]
        db.insert("judge_links", rows)
    log.info("judge_links_made", batch_id=batch_id, n_links=len(links))
    return links


def revoke_links(
    runtime: Runtime, batch_id: str, person: str, *, by: str, reason: str = "revoked"
) -> int:
    """Revoke a person's links at once, and return how many; what was judged by them stays.

    Raises:
        SettingsError: If the person has none that is good.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        load_batch(db, batch_id)
        rows = db.rows(
            "SELECT link_id FROM judge_links ANTI JOIN judge_link_revocations USING (link_id)"
            " WHERE batch_id = ? AND person = ? AND expires_at > ?",
            [batch_id, person, now],
        )
        if not rows:
            msg = f"{person!r} has no link to batch '{batch_id}' that is good."
            raise SettingsError(msg)
        revocations = [
            {
                "link_id": row["link_id"],
                "batch_id": batch_id,
                "revoked_at": now,
                "revoked_by": by,
                "reason": reason,
            }
            for row in rows
        ]
        db.insert("judge_link_revocations", revocations)
    log.info("judge_links_revoked", batch_id=batch_id, n_links=len(rows))
    return len(rows)


def link_of(db: Session, token: str, now: datetime) -> JudgeLink | None:
    """Return what a token opens; None if it is unknown, expired or revoked."""
    found = db.records(
        JudgeLink,
        "SELECT link_id, batch_id, judge_id, person, quota, expires_at FROM judge_links"
        " ANTI JOIN judge_link_revocations USING (link_id)"
        " WHERE token_sha256 = ? AND expires_at > ?",
        [_hashed(token), now],
    )
    return found[0] if found else None


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
