"""Structured logs: one JSON object a line, with the batch they are about; never texts or keys."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import structlog


def configure_logs(*, level: str = "INFO", to: TextIO | None = None) -> None:
    """Write every log line as JSON, with what is bound to the context.

    Args:
        level: Lines below it are left out.
        to: Where to; standard error if left out.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        # Looked up each time: a caller that swaps standard error gets the lines, and a stream
        # that is closed by then gets none.
        logger_factory=lambda *_: structlog.PrintLogger(to or sys.stderr),
    )


@contextmanager
def logs_in_file(path: Path | None) -> Iterator[None]:
    """Add everything that is logged in this block to a file instead; no change without one."""
    if path is None:
        yield
        return
    before = structlog.get_config()
    with path.open("a", encoding="utf-8") as file:
        configure_logs(to=file)
        try:
            yield
        finally:
            structlog.configure(**before)


@contextmanager
def about_batch(*, batch_id: str, correlation_id: str, runner_mode: str) -> Iterator[None]:
    """Have every log line of this block name its batch, whichever module writes it."""
    with structlog.contextvars.bound_contextvars(
        batch_id=batch_id, correlation_id=correlation_id, runner_mode=runner_mode
    ):
        yield
