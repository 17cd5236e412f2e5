"""The engine as a Dagster resource: opened once per process, its environment the process's."""

from __future__ import annotations

import os

import dagster as dg
from pydantic import PrivateAttr

from cj_pipeline.steps import Engine
from resources.engine import open_engine


class EngineResource(dg.ConfigurableResource[Engine]):
    """The pipeline's connections: store, providers, clock.

    Attributes:
        home: Where the store, the inbox and what is published are; by default `CJ_HOME`.
    """

    home: str = ""
    _engine: Engine | None = PrivateAttr(default=None)

    def open(self) -> Engine:
        """Return the engine, the same one as long as this resource lives."""
        if self._engine is None:
            environment = dict(os.environ) | ({"CJ_HOME": self.home} if self.home else {})
            self._engine = open_engine(environment)
        return self._engine
