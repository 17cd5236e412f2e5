"""The engine as a Dagster resource: opened once per process, its environment the process's."""

from __future__ import annotations

import os
from functools import lru_cache

import dagster as dg

from cj_pipeline.steps import Engine
from resources.engine import open_engine


class EngineResource(dg.ConfigurableResource[Engine]):
    """The pipeline's connections: store, providers, clock.

    Attributes:
        home: Where the store, the inbox and what is published are; by default `CJ_HOME`.
        emulator_url: Where simulated judges are asked; by default `CJ_EMULATOR_URL`, or inside the
            process.
    """

    home: str = ""
    emulator_url: str = ""

    def open(self) -> Engine:
        """Return the engine; every run and tick of a process shares one per environment."""
        given = {"CJ_HOME": self.home, "CJ_EMULATOR_URL": self.emulator_url}
        environment = dict(os.environ) | {name: value for name, value in given.items() if value}
        return _engine(tuple(sorted(environment.items())))


@lru_cache(maxsize=8)
def _engine(environment: tuple[tuple[str, str], ...]) -> Engine:
    """Opening brings the store's schema up to date and asks git for the version: once is enough."""
    return open_engine(dict(environment))
