"""Sessions of browsers: a random cookie for a token, until it expires or is signed out.

They are held in the memory of the one process that serves: a restart signs everybody out. Of a
cookie only the hash is held, and no cookie says whose it is.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

SESSION_S = 12 * 3600
MAX_SESSIONS = 10_000
"""The oldest ends when another begins: a caller who signs in without end fills no memory."""


@dataclass(frozen=True)
class _Session:
    token: str
    ends_at: float


class Sessions:
    """The sessions that were opened and have not ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def begin(self, token: str) -> str:
        """Open a session for a token's hash; return the cookie's value."""
        cookie = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            for key in [key for key, held in self._open.items() if held.ends_at <= now]:
                del self._open[key]
            while len(self._open) >= MAX_SESSIONS:
                del self._open[next(iter(self._open))]
            self._open[_key(cookie)] = _Session(token, now + SESSION_S)
        return cookie

    def token_of(self, cookie: str) -> str | None:
        """Return the hash of the token a cookie stands for; None once its session has ended."""
        with self._lock:
            held = self._open.get(_key(cookie))
        return held.token if held is not None and held.ends_at > self._clock() else None

    def end(self, cookie: str) -> None:
        """End a session; one that has ended already stays so."""
        with self._lock:
            self._open.pop(_key(cookie), None)


def _key(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
