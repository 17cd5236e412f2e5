"""The doctor finds what ledger and provider disagree on, and mends only what is ours."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.operations.reconcile import examine, repair
from cj_pipeline.providers.base import JobOutcome
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.identity import LOOK_BACK
from tests.support.batches import ManualClock, finish, open_engine, run_to_end, write_batch

_KEEPS_FILES = {"kind": "status", "on": "*.delete", "status": 500}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def _emulate(runtime: Runtime, **settings: object) -> None:
    change_settings(EmulatorConfig.from_environment({}, runtime.home), **settings)


def _submitted(runtime: Runtime, folder: Path) -> str:
    write_batch(folder, n_students=4, settings={"judges": ["quality"]})
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    return batch_id


def _job(runtime: Runtime) -> dict[str, object]:
    with runtime.store.read() as db:
        return db.rows("SELECT * FROM provider_jobs")[0]


def _make_a_second_job(runtime: Runtime) -> str:
    """Create the submission's job once more, as a blind retry would."""
    job = _job(runtime)
    provider = runtime.provider(load_judge("quality"))
    return provider.create(Path(), str(job["input_file_id"]), str(job["submission_key"]))


def test_a_store_without_jobs_has_nothing_to_examine(runtime: Runtime) -> None:
    """It may be run at any time."""
    assert examine(runtime) == []


def test_a_batch_in_order_gives_no_findings(runtime: Runtime, tmp_path: Path) -> None:
    """While it runs, and when it is over."""
    _submitted(runtime, tmp_path / "one")
    run_to_end(
        runtime, write_batch(tmp_path / "two", n_students=3, settings={"judges": ["quality"]})
    )

    assert examine(runtime) == []


def test_a_job_made_twice_is_found_and_the_extra_one_cancelled(
    runtime: Runtime, tmp_path: Path
) -> None:
    """It would be paid for, and nobody would ever collect it."""
    _emulate(runtime, latency_s=3600)
    _submitted(runtime, tmp_path / "one")
    extra = _make_a_second_job(runtime)

    findings = examine(runtime)
    repair(runtime, findings)

    assert [(finding.kind, finding.what) for finding in findings] == [("duplicate_job", extra)]
    assert examine(runtime) == []
    assert (
        runtime.provider(load_judge("quality")).poll(str(_job(runtime)["provider_job_id"])).state
        == "running"
    )


def test_a_job_made_twice_that_has_ended_is_billed(runtime: Runtime, tmp_path: Path) -> None:
    """Nobody can cancel it any more; it is on the provider's bill, and so it is on ours."""
    batch_id = _submitted(runtime, tmp_path / "one")
    extra = _make_a_second_job(runtime)
    finish(runtime, batch_id)

    findings = examine(runtime)
    repair(runtime, findings)

    with runtime.store.read() as db:
        duplicate = db.one("SELECT * FROM duplicate_jobs")
        verdicts = db.one("SELECT count(*) AS n FROM comparisons")
    books = in_process_client(EmulatorConfig.from_environment({}, runtime.home))
    paid = books.get("http://emulator.invalid/emulator/audit").json()["totals"]["requests_paid"]
    assert [(finding.kind, finding.what) for finding in findings] == [("duplicate_job", extra)]
    assert duplicate is not None
    assert (duplicate["state"], duplicate["n_paid"]) == ("settled", _job(runtime)["n_requests"])
    assert duplicate["billed_usd"] == pytest.approx(_job(runtime)["billed_usd"])
    assert verdicts == {"n": paid - duplicate["n_paid"]}
    assert examine(runtime) == []


def test_a_job_that_found_no_room_is_no_duplicate(runtime: Runtime, tmp_path: Path) -> None:
    """The same shard was sent again, under the same key, and nothing of the first was paid."""
    _emulate(runtime, faults=[{"kind": "fails", "word": "token_limit_exceeded", "at": [1]}])
    clock = ManualClock()
    waiting = replace(runtime, clock=clock)
    batch_id = _submitted(waiting, tmp_path / "one")
    poll(waiting)
    clock.sleep(3600)
    finish(waiting, batch_id)

    listed = runtime.provider(load_judge("quality")).list_jobs(clock() - LOOK_BACK)
    assert JobOutcome.FAILED in {job.outcome for job in listed}
    assert examine(waiting) == []


def test_files_left_behind_are_found_and_deleted(runtime: Runtime, tmp_path: Path) -> None:
    """A provider that was down when a batch was tidied up keeps them otherwise."""
    _emulate(runtime, faults=[_KEEPS_FILES])
    run_to_end(
        runtime, write_batch(tmp_path / "two", n_students=3, settings={"judges": ["quality"]})
    )
    _emulate(runtime, faults=[])

    findings = examine(runtime)
    repair(runtime, findings)

    assert findings
    assert {finding.kind for finding in findings} == {"file_left"}
    assert examine(runtime) == []


def test_a_submission_in_doubt_is_told_with_the_job_it_may_be(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The submission step adopts it; the doctor only says so."""
    _emulate(runtime, faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}])
    with pytest.raises(Exception, match="may have been carried out"):
        _submitted(runtime, tmp_path / "one")

    kinds = {finding.kind for finding in examine(runtime)}

    assert kinds == {"ambiguous", "not_yet_adopted"}


def test_a_submission_in_doubt_is_adopted_and_nothing_is_sent(
    runtime: Runtime, tmp_path: Path
) -> None:
    """It may be mended by hand, without waiting for the next step, and without spending."""
    _emulate(
        runtime,
        latency_s=3600,
        faults=[{"kind": "lost_reply", "on": "*batches.create", "at": [1]}],
    )
    with pytest.raises(Exception, match="may have been carried out"):
        _submitted(runtime, tmp_path / "one")

    mended = repair(runtime, examine(runtime))

    assert {finding.kind for finding in mended} == {"ambiguous", "not_yet_adopted"}
    assert _job(runtime)["state"] == "adopted"
    assert examine(runtime) == []


def test_a_stalled_job_is_cancelled_only_with_consent(runtime: Runtime, tmp_path: Path) -> None:
    """What it had not finished is asked, and paid, somewhere else."""
    _emulate(runtime, latency_s=10**6)
    _submitted(runtime, tmp_path / "one")
    later = replace(runtime, clock=lambda: runtime.clock() + timedelta(hours=27))

    findings = examine(later)
    without = repair(later, findings)
    with_consent = repair(later, findings, with_consent=True)

    assert [finding.kind for finding in findings] == ["stalled_job"]
    assert without == []
    assert with_consent == findings
    assert _job(runtime)["cancel_sent_at"] is not None


def test_what_was_never_sent_is_told(runtime: Runtime, tmp_path: Path) -> None:
    """With the reason of the last try."""
    _emulate(runtime, faults=[{"kind": "status", "on": "*files.create", "status": 503}])
    with pytest.raises(Exception, match="503"):
        _submitted(runtime, tmp_path / "one")
    later = replace(runtime, clock=lambda: runtime.clock() + timedelta(hours=2))

    (finding,) = examine(later)

    assert finding.kind == "unsent"
    assert "answered 503" in finding.problem


def test_a_provider_that_counts_otherwise_is_told(runtime: Runtime, tmp_path: Path) -> None:
    """Its bill goes by its own count."""
    run_to_end(
        runtime, write_batch(tmp_path / "one", n_students=3, settings={"judges": ["quality"]})
    )
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET provider_tokens_prompt = provider_tokens_prompt + 100")

    assert {finding.kind for finding in examine(runtime)} == {"usage_differs"}


def test_a_job_of_another_store_is_told_and_left_alone(runtime: Runtime, tmp_path: Path) -> None:
    """Two teams may share an account."""
    _emulate(runtime, latency_s=3600)
    _submitted(runtime, tmp_path / "one")
    provider = runtime.provider(load_judge("quality"))
    file_id = str(_job(runtime)["input_file_id"])
    theirs = provider.create(Path(), file_id, "f" * 64)

    findings = examine(runtime)

    assert [(finding.kind, finding.what) for finding in findings] == [("other_store_job", theirs)]
    assert repair(runtime, findings, with_consent=True) == []
    assert provider.poll(theirs).state == "running"


def test_jobs_begun_with_other_credentials_are_not_taken_for_lost(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking them again under a new key would pay twice."""
    _emulate(runtime, latency_s=3600)
    _submitted(runtime, tmp_path / "one")
    monkeypatch.setattr("cj_pipeline.providers.registry.require_key", lambda *_: "stranger")

    findings = examine(open_engine(runtime.home))

    assert [finding.kind for finding in findings] == ["other_credentials"]


def test_results_that_nobody_collects_are_told_before_they_are_deleted(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Three weeks on a holiday is enough to lose a paid batch; the doctor brings it home."""
    _submitted(runtime, tmp_path / "one")
    later = replace(runtime, clock=lambda: runtime.clock() + timedelta(days=24))

    findings = [finding for finding in examine(later) if finding.kind == "results_expire"]
    mended = repair(later, findings)

    assert len(mended) == 1
    assert _job(runtime)["state"] == "settled"
