"""What every step is given: the store, `CJ_HOME`, the clock and the way to each provider.

Opened by `resources.runtime`, which alone reads the process's environment.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.provider_definitions import OWN_FOLDER
from cj_pipeline.live.retry import RetryRules
from cj_pipeline.storage.published_files import (
    PUBLISHED_IN,
    PublishedFiles,
    open_published_files,
)
from cj_pipeline.store.base import Store

if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from cj_pipeline.judging.judges import Judge
    from cj_pipeline.providers.base import Provider


@dataclass(frozen=True)
class RunEnvironment:
    """What the artefact records of the machine and code that wrote it.

    Attributes:
        git_sha: 7 to 40 hexadecimal digits; `0000000` where the code is no git checkout.
        runner_version: This package's version.
        python: The interpreter's version.
        os: The operating system.
        pdm: Required by the contract; this project does not use it.
        docker_compose: Likewise.
    """

    git_sha: str
    runner_version: str
    python: str
    os: str
    pdm: str = "not used"
    docker_compose: str = "not used"


def utc_now() -> datetime:
    """Return the time, aware of its zone."""
    return datetime.now(UTC)


def public_url(environment: Mapping[str, str]) -> str | None:
    """Return where people reach the service (CJ_PUBLIC_URL), without the last slash, if it is said.

    Raises:
        SettingsError: If it is no address of a page.
    """
    address = environment.get("CJ_PUBLIC_URL", "").strip().rstrip("/")
    if not address:
        return None
    if not address.startswith(("https://", "http://")):
        msg = (
            f"CJ_PUBLIC_URL is {address!r}: write where people reach `cj serve`, such as"
            " https://essays.example.org"
        )
        raise SettingsError(msg)
    return address


@dataclass(frozen=True)
class Runtime:
    """The pipeline's connections; `home` holds the store, the inbox and what is published.

    `environment` gives providers their keys and addresses; nothing below reads the process's.
    `stop_at` is when a step that goes on for long returns, on the clock of `time.monotonic`, and
    `is_stopped` whether it is to return at once; what it has not done is left for the next call.
    `is_attended`: a person started this by hand, so that the folders it takes in may be theirs (see
    `has_own_folder`).
    """

    store: Store
    home: Path
    environment: Mapping[str, str]
    run_environment: RunEnvironment
    clock: Callable[[], datetime] = utc_now
    retry_rules: RetryRules = field(default_factory=RetryRules)
    stop_at: float | None = None
    is_stopped: Callable[[], bool] = lambda: False
    is_attended: bool = False
    _providers: dict[str, Provider] = field(default_factory=dict, repr=False, compare=False)
    _opening: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def is_over(self) -> bool:
        """Whether a step that goes on for long is to return."""
        late = self.stop_at is not None and time.monotonic() > self.stop_at
        return late or self.is_stopped()

    def provider(self, judge: Judge) -> Provider:
        """Return the provider a judge is reached through; one connection serves a whole run."""
        from cj_pipeline.providers.registry import open_provider

        with self._opening:
            if judge.judge_id not in self._providers:
                self._providers[judge.judge_id] = open_provider(
                    judge, self.environment, self.home, self.clock
                )
            return self._providers[judge.judge_id]

    def open_pool(self, judge: Judge, n_connections: int) -> AsyncClient:
        """Return the connections that the single calls to a judge's provider share."""
        from cj_pipeline.providers.registry import open_pool

        return open_pool(judge, self.environment, self.home, n_connections)

    def has_own_folder(self, path: Path) -> bool:
        """Whether a file or folder is of whoever started this by hand: theirs, not of the inbox."""
        places, inbox = (path.absolute(), path.resolve()), (self.inbox, self.inbox.resolve())
        if not self.is_attended or any(p.is_relative_to(i) for p in places for i in inbox):
            return False
        try:
            return not hasattr(os, "geteuid") or path.stat().st_uid == os.geteuid()
        except OSError:
            return False

    @property
    def published(self) -> PublishedFiles:
        """Where artefacts and reports are; machines share them at `CJ_FILES`, if it is set."""
        return open_published_files(self.home, self.environment)

    @property
    def published_folder(self) -> Path:
        """Where each batch's artefact and report are written, one folder per batch."""
        return self.home / PUBLISHED_IN

    @property
    def providers_folder(self) -> Path:
        """Where the installation's own provider definitions are."""
        return self.home / OWN_FOLDER

    @property
    def inbox(self) -> Path:
        """Where batch folders are dropped; the sensor takes them in."""
        return self.home / "inbox"

    @property
    def ingested(self) -> Path:
        """Where folders of the inbox go once they are in the store."""
        return self.home / "ingested"
