"""Small writes of many callers in one transaction: opening the store costs more than an answer.

Whoever comes while nobody writes does so, for all who came meanwhile as well; each of them gets
its own result or its own refusal once everything is committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from cj_pipeline.errors import FinalError
from cj_pipeline.service.problems import ProblemError
from cj_pipeline.store.base import Store
from cj_pipeline.store.session import Session

T = TypeVar("T")
MOST_AT_ONCE = 50
"""Writes in one transaction: nobody waits for more than these."""


class WriteQueue:
    """Runs writes of several threads together; each refuses, if it does, before it writes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Callable[[Session], Any], Future[Any]]] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def run(self, write: Callable[[Session], T]) -> T:
        """Return what a write returns, once it is committed.

        Args:
            write: Done in a transaction that others may share; a `FinalError` or `ProblemError`
                it raises, before it has written anything, is raised here and concerns no other.
        """
        mine: Future[T] = Future()
        with self._lock:
            self._waiting.append((write, mine))
        with self._turn:
            if not mine.done():
                self._write_waiting()
        return mine.result()

    def _write_waiting(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            with self._store.write() as db:
                for write, _ in taken:
                    try:
                        outcomes.append((write(db), None))
                    except (FinalError, ProblemError) as error:
                        outcomes.append((None, error))
        except Exception as failure:
            # Whatever it was, each caller is told.
            for _, future in taken:
                future.set_exception(failure)
            return
        for (_, future), (result, refusal) in zip(taken, outcomes, strict=True):
            if refusal is None:
                future.set_result(result)
            else:
                future.set_exception(refusal)
