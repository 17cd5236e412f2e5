"""What leaves a batch: its artefact, its report, and the copy of the store analysts read."""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.outputs.artefact import (
    WrittenFile,
    checksum_in,
    read_callbacks,
    write_artefact_of,
    write_atomically,
)
from cj_pipeline.outputs.verifying.signature import sign_file
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.describe_scale import describe_scale
from cj_pipeline.storage.signing import signing_key


@dataclass(frozen=True)
class Published:
    """The files written for people outside."""

    artefact: WrittenFile
    report: WrittenFile


def publish(runtime: Runtime, batch_id: str) -> Published:
    """Write a batch's artefact and report, then refresh the published copy of the store."""
    artefact = publish_artefact(runtime, batch_id)
    return Published(artefact, publish_report(runtime, batch_id))


def publish_artefact(runtime: Runtime, batch_id: str) -> WrittenFile:
    """Describe a batch's scale, then write its artefact and the files its manifest lists."""
    describe_scale(runtime, batch_id)
    now = runtime.clock()
    with runtime.store.read() as db:
        mode = load_batch(db, batch_id).runner_mode
        history = read_history(db, batch_id)
        callbacks = read_callbacks(db, batch_id)
    # Checking thousands of comparisons takes seconds, so it is done with the store closed.
    written = write_artefact_of(
        history,
        callbacks,
        mode,
        runtime.published_folder / batch_id,
        generated_at=now,
        environment=runtime.run_environment,
    )
    key = sign_file(runtime.home, written.path)
    folder = written.path.parent
    beside = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith((".", "report."))
    )
    # The artefact last: whoever finds it finds what its manifest lists.
    runtime.published.share([*(path for path in beside if path != written.path), written.path])
    row = _row(runtime, batch_id, written) | {"runner_mode": mode, "written_at": now}
    record = {
        "batch_id": batch_id,
        "runner_mode": mode,
        "artefact_checksum": checksum_in(written.path),
        "sha256": written.sha256,
        "key_id": key.key_id if key else None,
        "written_at": now,
    }
    with runtime.store.write() as db:
        db.insert("run_artefact", [row], on_conflict="replace")
        db.insert("artefact_records", [record], on_conflict="replace")
    return written


def publish_report(runtime: Runtime, batch_id: str) -> WrittenFile:
    """Write a batch's report, and let analysts see the batch as it stands now."""
    from cj_pipeline.outputs.report import render_history

    with runtime.store.read() as db:
        history = read_history(db, batch_id)
        artefacts = db.rows(
            "SELECT runner_mode, path, sha256, n_bytes FROM run_artefact WHERE batch_id = ?"
            " ORDER BY runner_mode",
            [batch_id],
        )
    # Drawing takes a second or two, so it is done with the store closed.
    page = render_history(history, artefacts, signed_by=signing_key(runtime.home))
    folder = runtime.published_folder / batch_id
    folder.mkdir(parents=True, exist_ok=True)
    written = write_atomically(folder / "report.html", page.encode())
    runtime.published.share([written.path])
    with runtime.store.write() as db:
        row = _row(runtime, batch_id, written) | {"written_at": runtime.clock()}
        db.insert("batch_report", [row], on_conflict="replace")
    runtime.store.publish()
    return written


def _row(runtime: Runtime, batch_id: str, written: WrittenFile) -> dict[str, object]:
    return {
        "batch_id": batch_id,
        "path": runtime.published.recorded(written.path),
        "sha256": written.sha256,
        "n_bytes": written.n_bytes,
    }
