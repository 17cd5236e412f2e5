"""Grades are kept before a scale is described, and the description is of what was graded."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from cj_pipeline.outputs.verification import verify_artefact
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.describe_scale import describe_scale
from cj_pipeline.steps.project import project
from cj_pipeline.steps.publish import publish
from tests.support.batches import open_engine, run_to_end, write_batch

# The package's functions bear their modules' names.
DESCRIBE = importlib.import_module("cj_pipeline.steps.describe_scale")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, str]:
    """A graded batch, published."""
    home = tmp_path_factory.mktemp("home")
    qualities = {f"student-{n:03d}": n / 2 for n in range(1, 7)}
    qualities |= {f"anchor-{n:03d}": n / 2 - 2 for n in range(1, 10)}
    settings = {
        "judges": ["quality"],
        "emulator_qualities": qualities,
        "scale": "eng5_np_national_9_step",
        "all_at_once": True,
        "max_pairwise_comparisons": 105,
    }
    folder = write_batch(home / "spring", n_students=6, n_anchors=9, settings=settings)
    runtime = open_engine(home, {"CJ_EMULATOR_SETTINGS": '{"latency_s": 0}'})
    return runtime, run_to_end(runtime, folder)


def described(runtime: Runtime, batch_id: str) -> tuple[dict[str, Any], int]:
    """Return a batch's statistics, and of how many essays it is told how sure their ranks are."""
    with runtime.store.read() as db:
        history = read_history(db, batch_id)
    return dict(history.statistics), len(history.ranks)


def test_grades_do_not_wait_for_what_the_scale_is_worth(finished: tuple[Runtime, str]) -> None:
    """Halving verdicts takes hundreds of fits; whoever waits for grades waits for none of them."""
    runtime, batch_id = finished

    projected = project(runtime, batch_id, again=True)

    assert projected.is_graded
    assert described(runtime, batch_id) == ({}, 0)


def test_publishing_describes_what_was_graded(
    finished: tuple[Runtime, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between grades and description, a batch is described when it is published next."""
    runtime, batch_id = finished
    before = described(runtime, batch_id)
    project(runtime, batch_id, again=True)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(DESCRIBE, "description_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(runtime, batch_id)
    half_way = described(runtime, batch_id)
    written = publish(runtime, batch_id).artefact

    assert half_way == ({}, 0)
    statistics, n_ranked = described(runtime, batch_id)
    assert n_ranked == 15
    assert statistics["student_reliability"]["value"] > 0
    assert before[0] in ({}, statistics)
    with runtime.store.read() as db:
        assert verify_artefact(written.path, db=db) == []


def test_a_scale_is_described_once(
    finished: tuple[Runtime, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of Dagster's asks for it; only the first has work."""
    runtime, batch_id = finished
    describe_scale(runtime, batch_id)

    def again(*_: object) -> None:
        pytest.fail("described twice")

    monkeypatch.setattr(DESCRIBE, "description_rows", again)
    describe_scale(runtime, batch_id)


def test_graded_again_meanwhile_the_older_description_is_dropped(
    finished: tuple[Runtime, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of other verdicts than the newer grades are."""
    runtime, batch_id = finished
    project(runtime, batch_id, again=True)
    rows = DESCRIBE.description_rows

    def slow(*given: Any) -> Any:
        project(runtime, batch_id, again=True)
        return rows(*given)

    monkeypatch.setattr(DESCRIBE, "description_rows", slow)
    describe_scale(runtime, batch_id)

    assert described(runtime, batch_id) == ({}, 0)
