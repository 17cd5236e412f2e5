"""The runtime as a Dagster resource: opened once per process, its environment the process's."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache

import dagster as dg
import structlog

from cj_pipeline.logs import configure_logs
from cj_pipeline.queries.batch_record import batch_correlation_id
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.base import TICK_WAIT_S
from resources.runtime import open_runtime

PARTITION_TAG = "dagster/partition"


class RuntimeResource(dg.ConfigurableResource[Runtime]):
    """The pipeline's connections: store, providers, clock.

    Attributes:
        home: Where the store, the inbox and what is published are; by default `CJ_HOME`.
        emulator_url: Where simulated judges are called; by default `CJ_EMULATOR_URL`, or inside the
            process.
    """

    home: str = ""
    emulator_url: str = ""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Have every log line of a run name its batch, as those of `cj execute` do."""
        if not structlog.is_configured():  # a command that runs this has its own way to show things
            configure_logs(level=os.environ.get("CJ_LOG_LEVEL", "INFO"))
        structlog.contextvars.clear_contextvars()
        run = context.run
        batch_id = run.tags.get(PARTITION_TAG) if run else None
        if run is not None and batch_id is not None:
            structlog.contextvars.bind_contextvars(
                batch_id=batch_id,
                correlation_id=batch_correlation_id(batch_id),
                runner_mode="execute",
                run_id=run.run_id,
            )

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Let go of the batch's name: a process may do something else next."""
        structlog.contextvars.clear_contextvars()

    def open(self) -> Runtime:
        """Return the runtime; every run and tick of a process shares one per environment."""
        given = {"CJ_HOME": self.home, "CJ_EMULATOR_URL": self.emulator_url}
        environment = dict(os.environ) | {name: value for name, value in given.items() if value}
        return _runtime(tuple(sorted(environment.items())))

    def open_for_tick(self) -> Runtime:
        """Return the runtime for a tick, which waits 20 s at most for whoever holds the store."""
        runtime = self.open()
        return replace(runtime, store=runtime.store.waiting(TICK_WAIT_S))


@lru_cache(maxsize=8)
def _runtime(environment: tuple[tuple[str, str], ...]) -> Runtime:
    """Opening brings the store's schema up to date and reads git's version: once is enough."""
    return open_runtime(dict(environment))
