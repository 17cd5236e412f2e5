"""Whoever alters one value of an artefact, and mends its checksum, is found out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cj_pipeline.errors import StoreError
from cj_pipeline.operations.regrade import link
from cj_pipeline.outputs import verification
from cj_pipeline.outputs.verification import Verified, verify
from cj_pipeline.outputs.verifying.leaves import field_of
from cj_pipeline.people.moderation import Decision, decide_grades, release_grades
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.publish import publish
from tests.support.altered_artefacts import altered, write
from tests.support.batches import open_engine, run_to_end, write_batch

PEOPLES_WORDS_AND_TIMES = {
    "metadata.generated_at",
    "metadata.git_sha",
    "metadata.runner_version",
    "validation.cli_environment",
}
"""What a store without a record of the file cannot vouch for."""


def _graded(folder: Path, **settings: object) -> Path:
    qualities = {f"student-{n:03d}": n / 2 for n in range(1, 5)}
    qualities |= {f"anchor-{n:03d}": n - 2 for n in range(1, 6)}
    return write_batch(
        folder,
        n_students=4,
        n_anchors=5,
        settings={
            "title": "Spring",
            "about": "Machine-written.",
            "judges": ["quality"],
            "scale": "eng5_np_national_9_step",
            "max_pairwise_comparisons": 36,
            "wave_size": 18,
            "emulator_qualities": qualities,
        }
        | settings,
    )


def anchored(runtime: Runtime, folder: Path) -> str:
    """Graded by anchors, over two waves."""
    return run_to_end(runtime, _graded(folder / "anchored"))


def signed_off(runtime: Runtime, folder: Path) -> str:
    """Moderated and released by a person."""
    batch_id = run_to_end(runtime, _graded(folder / "signed", release="needs_sign_off"))
    decisions = [
        Decision("student-001", "override", "Ms Head", "It is better.", "5"),
        Decision("student-002", "exclude", "Ms Head", "Copied."),
    ]
    decide_grades(runtime, batch_id, decisions)
    publish(runtime, batch_id)
    release_grades(runtime, batch_id, by="Ms Head")
    publish(runtime, batch_id)
    return batch_id


def linked(runtime: Runtime, folder: Path) -> str:
    """On the scale of an earlier batch."""
    earlier = run_to_end(runtime, _graded(folder / "earlier"))
    batch_id = run_to_end(runtime, _graded(folder / "later", seed=5))
    link(runtime, batch_id, [earlier])
    publish(runtime, batch_id)
    return batch_id


def panel(runtime: Runtime, folder: Path) -> str:
    """Two judges, no anchors."""
    settings = {"judges": ["quality", "quality-messages"], "max_pairwise_comparisons": 20}
    return run_to_end(runtime, write_batch(folder / "panel", n_students=5, settings=settings))


@pytest.fixture(scope="module", params=[anchored, signed_off, linked, panel])
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Runtime, str, Path]:
    """A runtime, a batch of some kind in its store, and the batch's artefact."""
    folder = tmp_path_factory.mktemp("altered")
    runtime = open_engine(folder / "home")
    make: Callable[[Runtime, Path], str] = request.param
    batch_id = make(runtime, folder)
    return runtime, batch_id, runtime.published_folder / batch_id / "assessment_run.execute.json"


def test_an_unaltered_artefact_passes_with_and_without_its_store(
    published: tuple[Runtime, str, Path],
) -> None:
    """A check that cries wolf is switched off; with the store nothing is left unchecked."""
    runtime, _, path = published

    alone = verify(path)
    with runtime.store.read() as db:
        beside_store = verify(path, db=db)

    assert alone.differences == ()
    assert (beside_store.differences, beside_store.not_checked) == ((), ())


def test_every_value_altered_alone_is_caught_or_was_listed_as_not_checked(
    published: tuple[Runtime, str, Path],
) -> None:
    """By the file and what lies beside it: no reader takes unchecked figures for checked ones."""
    _, _, path = published
    document = json.loads(path.read_text())
    listed = verify(path).not_checked
    original = path.read_text()
    missed = []
    # Every field of the kind that has the most of them, and a tenth of the others'.
    every = 1 if document["releases"] else 10
    for where, changed in altered(document, per_field=1, every=every):
        if not _is_listed(where, listed) and not _is_caught(write(path, changed)):
            missed.append(where)
    path.write_text(original)

    assert missed == []


def test_beside_the_store_every_single_value_is_caught(
    published: tuple[Runtime, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Titles, notes and times too: the store knows the checksum of what it wrote."""
    runtime, batch_id, path = published
    document = json.loads(path.read_text())
    original = path.read_text()
    with runtime.store.read() as db:
        history = read_history(db, batch_id)
        monkeypatch.setattr(verification, "read_history", lambda *_: history)
        missed = [
            where
            for where, changed in altered(document, per_field=1, every=10)
            if not verify(write(path, changed), db=db).differences
        ]
    path.write_text(original)

    assert missed == []


def test_a_store_that_kept_no_checksum_still_tells_every_value_it_has(
    published: tuple[Runtime, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a batch of an earlier version: what it cannot vouch for is listed."""
    runtime, batch_id, path = published
    document = json.loads(path.read_text())
    original = path.read_text()
    with runtime.store.write() as db:
        db.execute("DELETE FROM artefact_records")
    with runtime.store.read() as db:
        history = read_history(db, batch_id)
        monkeypatch.setattr(verification, "read_history", lambda *_: history)
        listed = verify(path, db=db).not_checked
        missed = [
            where
            for where, changed in altered(document, per_field=1, every=10)
            if not _is_listed(where, listed) and not verify(write(path, changed), db=db).differences
        ]
    path.write_text(original)

    assert set(listed) == PEOPLES_WORDS_AND_TIMES
    assert missed == []


def _is_listed(where: str, listed: tuple[str, ...]) -> bool:
    field = field_of(where)
    return any(field == each or field.startswith((f"{each}.", f"{each}[")) for each in listed)


def _is_caught(path: Path) -> bool:
    try:
        found: Verified = verify(path)
    except StoreError:
        return True
    return bool(found.differences)
