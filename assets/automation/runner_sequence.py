"""The runner's commands one after the other on one folder: what `cj trial run eng5` does.

Each step is what the command of its name does, without a terminal and without Dagster.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cj_pipeline.checks.batch_checks import check_batch
from cj_pipeline.errors import TrialError, TrialStoppedError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.operations.execute import Progress, run_to_end, take_in
from cj_pipeline.operations.preflight import is_ready, preflight_folder
from cj_pipeline.operations.preview import preview_batch
from cj_pipeline.outputs.verification import verify_artefact
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.publish import publish_report


@dataclass(frozen=True)
class SequenceStep:
    """One command: whether it did what it is for, what came out, and how long it took."""

    name: str
    holds: bool
    found: str
    seconds: float


class RunnerSequence:
    """Preflight, plan, dry-run, execute, verify, report and assertions on one batch folder.

    Args:
        runtime: The pipeline's connections.
        folder: The batch's.
        batch_id: What it is called.
        explicit: Settings that win over `batch.yaml`.
        stopping: Once it is set, no further step is begun.
    """

    def __init__(
        self,
        runtime: Runtime,
        folder: Path,
        batch_id: str,
        explicit: Mapping[str, Any],
        stopping: threading.Event | None = None,
    ) -> None:
        self._runtime, self._folder, self._batch_id = runtime, folder, batch_id
        self._explicit, self._stopping = explicit, stopping

    def run(self) -> Iterator[SequenceStep]:
        """Yield each step once it has ended; after one that fails none is begun.

        Raises:
            TrialStoppedError: If it was told to stop.
        """
        steps: tuple[tuple[str, Callable[[], tuple[bool, str]]], ...] = (
            ("preflight", self._preflight),
            ("plan", self._plan),
            ("dry-run", self._dry_run),
            ("execute", self._execute),
            ("verify", self._verify),
            ("report", self._report),
            ("assert", self._assert),
        )
        for name, step in steps:
            self._go_on_unless_stopped()
            began = time.monotonic()
            holds, found = step()
            yield SequenceStep(name, holds, found, time.monotonic() - began)
            if not holds and name in {"preflight", "execute"}:
                return

    def _go_on_unless_stopped(self, _: Progress | None = None) -> None:
        if self._stopping is not None and self._stopping.is_set():
            msg = f"Stopped at the batch '{self._batch_id}', of which nothing is lost."
            raise TrialStoppedError(msg)

    def _preflight(self) -> tuple[bool, str]:
        _, examined = preflight_folder(
            self._runtime,
            self._folder,
            explicit=self._explicit,
            batch_id=self._batch_id,
            may_repeat=True,
        )
        problems = [f"{e.about}: {e.finding}" for e in examined if e.standing == "problem"]
        n_ready = sum(each.standing == "ready" for each in examined)
        return is_ready(examined), "; ".join(problems) or f"{n_ready} of {len(examined)} ready"

    def _plan(self) -> tuple[bool, str]:
        batch = read_batch(self._folder, explicit=self._explicit, batch_id=self._batch_id)
        preview = preview_batch(self._runtime, batch)
        facts = dict(preview.facts())
        written = preview.write_artefact(self._aside("plans"))
        told = f"ends at the latest after {facts['ends at the latest after']}: {written.path}"
        return written.path.is_file(), told

    def _dry_run(self) -> tuple[bool, str]:
        batch = read_batch(self._folder, explicit=self._explicit, batch_id=self._batch_id)
        preview = preview_batch(self._runtime, batch, runner_mode="dry-run")
        files = preview.write_requests(self._aside("dry-runs"))
        written = preview.write_artefact(
            self._aside("dry-runs"), requests=[file.path for file in files]
        )
        n_requests = sum(file.n_requests for file in files)
        differences = verify_artefact(written.path)
        told = "; ".join(differences) or f"{n_requests} requests written, none sent: {written.path}"
        return n_requests > 0 and not differences, told

    def _execute(self) -> tuple[bool, str]:
        taken_in = take_in(
            self._runtime,
            self._folder,
            explicit=self._explicit,
            batch_id=self._batch_id,
            may_repeat=True,
        )
        result = run_to_end(self._runtime, taken_in.batch_id, on_step=self._go_on_unless_stopped)
        return result.state == "succeeded", f"{result.state}: {result.end_reason}"

    def _verify(self) -> tuple[bool, str]:
        with self._runtime.store.read() as db:
            row = db.one(
                "SELECT path FROM run_artefact WHERE batch_id = ? AND runner_mode = 'execute'",
                [self._batch_id],
            )
            if row is None:
                msg = f"The batch '{self._batch_id}' has no artefact."
                raise TrialError(msg)
            path = self._runtime.published.folder / row["path"]
            differences = verify_artefact(path, db=db, batch_folder=self._folder)
        return not differences, "; ".join(differences) or f"nothing differs: {path}"

    def _report(self) -> tuple[bool, str]:
        written = publish_report(self._runtime, self._batch_id)
        return written.path.is_file(), str(written.path)

    def _assert(self) -> tuple[bool, str]:
        with self._runtime.store.read() as db:
            checked = check_batch(db, self._batch_id, self._runtime.clock())
        failed = [
            f"{each.name}: {each.finding.statement}"
            for each in checked
            if each.is_blocking and not each.finding.holds
        ]
        return not failed, "; ".join(failed) or f"{len(checked)} claims and assertions looked at"

    def _aside(self, kind: str) -> Path:
        folder = self._runtime.home / kind / self._batch_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder
