"""Jobs that the ledger does not know are searched for: after a restore, in a copy, once forgotten.

A store tells its own jobs from those of others by what their keys end with. What another store made
may be adopted by a copy of that store, and is never stopped and nothing of it deleted.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.batch.comparisons import store_of
from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import UncertainOutcomeError
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.operations.personal_data.erase import forget_batch
from cj_pipeline.operations.reconcile import examine, repair
from cj_pipeline.provider_jobs import requests
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_store import FileStore, own_file
from cj_pipeline.store.identity import keep_identity, settle_identity
from cj_pipeline.store.maintenance import backup_store, restore_store
from tests.support.batches import ManualClock, finish, open_engine, write_batch
from tests.support.served_emulator import books, served_emulator

THREE = pytest.mark.parametrize(
    "judge",
    [
        *("quality", "quality-messages", "quality-gemini"),
        *("quality-mistral", "quality-xai", "quality-openrouter"),
    ],
)
SETTINGS = {"all_at_once": True, "max_resampling_passes_for_regular_net": 0}


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a batch's folder goes."""
    return tmp_path / "batch"


def submitted(runtime: Runtime, folder: Path, judge: str, *, again: bool = False) -> str:
    """Take a batch of four essays in, if it is not, and send its six comparisons."""
    if not folder.exists():
        write_batch(folder, n_students=4, settings={"judges": [judge], **SETTINGS})
    batch_id = ingest(runtime, folder, may_return=again).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    return batch_id


def job(runtime: Runtime) -> dict[str, Any]:
    """Return the ledger's only job."""
    with runtime.store.read() as db:
        (row,) = db.rows("SELECT * FROM provider_jobs")
    return row


def made(runtime: Runtime) -> int:
    """Return how many jobs were really made."""
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    told = in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    return len(told["jobs"])


def emulate(runtime: Runtime, **settings: object) -> None:
    """Change the embedded emulator's settings."""
    change_settings(EmulatorConfig.from_environment({}, runtime.home), **settings)


@THREE
def test_what_a_restored_store_does_not_know_is_adopted(
    tmp_path: Path, folder: Path, clock: ManualClock, judge: str
) -> None:
    """The backup is from before the batch: the job, running or done, is nobody's but ours."""
    runtime = open_engine(tmp_path / "home", clock=clock)
    store = own_file(runtime.store)
    backup = backup_store(store, tmp_path / "backup.duckdb", now=clock())
    clock.sleep(60)
    batch_id = submitted(runtime, folder, judge)
    key = job(runtime)["submission_key"]
    restore_store(store, backup, now=clock())
    clock.sleep(200)

    submitted(runtime, folder, judge)
    poll(runtime)
    collect_wave(runtime, batch_id)

    found = job(runtime)
    assert (made(runtime), found["state"]) == (1, "settled")
    assert store_of(found["submission_key"]) == store_of(key)
    assert found["submission_key"] != key, "a new epoch has keys of its own"
    assert examine(runtime) == []


def test_a_job_made_in_the_moment_before_a_restore_may_be_missing_from_a_list(
    tmp_path: Path, folder: Path, clock: ManualClock
) -> None:
    """Absence proves nothing until the list has caught up; then it is looked for once more."""
    runtime = open_engine(tmp_path / "home", clock=clock)
    store = own_file(runtime.store)
    backup = backup_store(store, tmp_path / "backup.duckdb", now=clock())
    restore_store(store, backup, now=clock())

    with pytest.raises(UncertainOutcomeError, match="list may lag"):
        submitted(runtime, folder, "quality")
    clock.sleep(100)
    submit_wave(runtime, "batch")

    assert (made(runtime), job(runtime)["state"]) == (1, "submitted")


def test_a_backup_older_than_the_identity_does_not_make_another_store(
    tmp_path: Path, folder: Path, clock: ManualClock
) -> None:
    """The store whose place it takes goes on: the jobs it made since are its own."""
    runtime = open_engine(tmp_path / "home", clock=clock)
    with runtime.store.read():
        pass
    empty = tmp_path / "empty.duckdb"
    shutil.copyfile(own_file(runtime.store).path, empty)
    submitted(runtime, folder, "quality")
    identity = settle_identity(runtime.store, clock())
    restore_store(own_file(runtime.store), empty, now=clock())
    clock.sleep(200)

    submitted(runtime, folder, "quality")

    assert made(runtime) == 1
    assert settle_identity(runtime.store, clock()).store_id == identity.store_id


@THREE
@pytest.mark.parametrize("is_settled", [False, True])
def test_a_batch_that_was_forgotten_comes_again(
    tmp_path: Path, folder: Path, clock: ManualClock, judge: str, is_settled: bool
) -> None:
    """Its rows are gone, and its job is not: that is adopted, if it has its results yet.

    Those of xAI cannot be deleted.
    """
    with served_emulator(tmp_path / "provider") as address:
        runtime = open_engine(tmp_path / "home", {"CJ_EMULATOR_URL": address}, clock=clock)
        batch_id = submitted(runtime, folder, judge)
        if is_settled:
            finish(runtime, batch_id)
        forget_batch(own_file(runtime.store), batch_id, now=clock(), unsettled=True)
        clock.sleep(60)

        submitted(runtime, folder, judge, again=True)
        poll(runtime)
        collect_wave(runtime, batch_id)

        is_gone = is_settled and judge != "quality-xai"
        assert len(books(address)["jobs"]) == (2 if is_gone else 1)
        assert job(runtime)["state"] == "settled"
        assert examine(runtime) == []


def test_a_job_from_before_keys_bore_an_identity_is_found(
    tmp_path: Path, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation is brought up to date while jobs are under way, and then restored."""
    runtime = open_engine(tmp_path / "home", clock=clock)
    store = own_file(runtime.store)
    backup = backup_store(store, tmp_path / "backup.duckdb", now=clock())
    clock.sleep(60)
    write_batch(folder, n_students=4, settings={"judges": ["quality"], **SETTINGS})
    account: list[str] = []

    def as_before(batch_id: str, judge_id: str, asks: Any, identity: object) -> str:
        del identity
        return requests.key_without_identity(batch_id, judge_id, account[0], asks)

    from cj_pipeline.judging.judges import load_judge

    account.append(runtime.provider(load_judge("quality")).account)
    with monkeypatch.context() as patch:
        patch.setattr("cj_pipeline.steps.submit_wave.submission_key", as_before)
        submitted(runtime, folder, "quality")
    restore_store(store, backup, now=clock())
    clock.sleep(200)

    batch_id = submitted(runtime, folder, "quality")
    poll(runtime)
    collect_wave(runtime, batch_id)

    with runtime.store.read() as db:
        verdicts = db.one("SELECT count(*) AS n FROM comparisons WHERE status = 'succeeded'")
    assert (made(runtime), job(runtime)["state"], verdicts) == (1, "settled", {"n": 6})


def copy_of(home: Path, copy: Path) -> Path:
    """Copy a home's files as a person would; the emulator's stay where the provider is."""
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("*.lock"))
    return copy


@THREE
def test_a_copy_adopts_what_the_original_made_and_never_stops_it(
    tmp_path: Path, folder: Path, clock: ManualClock, judge: str
) -> None:
    """Two homes, one account: what is cancelled or deleted in the copy is the original's."""
    with served_emulator(tmp_path / "provider") as address:
        environment = {"CJ_EMULATOR_URL": address}
        original = open_engine(tmp_path / "one", environment, clock=clock)
        settle_identity(original.store, clock())
        copied_before = copy_of(tmp_path / "one", tmp_path / "two")
        clock.sleep(60)
        _slow(address)
        batch_id = submitted(original, folder, judge)
        copied_after = copy_of(tmp_path / "one", tmp_path / "three")

        before = open_engine(copied_before, environment, clock=clock)
        # A running one of these bears nothing to know it by.
        if judge not in {"quality-messages", "quality-openrouter"}:
            submitted(before, folder, judge)
            assert job(before)["provider_job_id"] == job(original)["provider_job_id"]
            assert cancel(before, batch_id).n_jobs == 0
        after = open_engine(copied_after, environment, clock=clock)
        told = cancel(after, batch_id)
        for home in (before, after):
            repair(home, examine(home), with_consent=True)
            clock.sleep(7200)
            poll(home)
            repair(home, examine(home), with_consent=True)

        assert told.n_jobs == 0
        assert "this home is a copy" in told.problems[0]
        (row,) = books(address)["jobs"]
        assert row["phase"] in {"validating", "running"}
        assert cancel(original, batch_id).n_jobs == 1


def _slow(address: str) -> None:
    import httpx2

    httpx2.put(f"{address}/emulator/settings", json={"latency_s": 3600}).raise_for_status()


def test_a_home_that_was_moved_is_the_store_it_was_once_a_person_says_so(
    tmp_path: Path, folder: Path, clock: ManualClock
) -> None:
    """Nobody else can tell a move from a copy whose original is elsewhere."""
    runtime = open_engine(tmp_path / "one", clock=clock)
    emulate(runtime, latency_s=3600)
    batch_id = submitted(runtime, folder, "quality")
    (tmp_path / "one").rename(tmp_path / "two")
    moved = open_engine(tmp_path / "two", clock=clock)
    as_a_copy = cancel(moved, batch_id).n_jobs

    assert keep_identity(moved.store, clock())
    told = cancel(moved, batch_id)

    assert (as_a_copy, told.n_jobs, told.problems) == (0, 1, ())
    assert not keep_identity(moved.store, clock()), "it lies where it was left now"


def test_another_host_makes_a_copy_and_a_name_for_hosts_that_change_does_not(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A container has another name each time it starts."""
    one = settle_identity(FileStore(tmp_path, host="a"), clock())
    again = settle_identity(FileStore(tmp_path, host="a"), clock())
    elsewhere = settle_identity(FileStore(tmp_path, host="b"), clock())

    assert again == one
    assert elsewhere.store_id != one.store_id
    assert elsewhere.ancestors == {one.store_id}
