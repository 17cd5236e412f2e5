"""Structured logs: one JSON object a line, with the batch they are about; never texts or keys."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(*, level: str = "INFO") -> None:
    """Send every log line to standard error as JSON, with what is bound to the context."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def bind_batch(*, batch_id: str, correlation_id: str, runner_mode: str) -> None:
    """Have every later log line of this context name its batch."""
    structlog.contextvars.bind_contextvars(
        batch_id=batch_id, correlation_id=correlation_id, runner_mode=runner_mode
    )
