"""An operator's ceilings and allowed judges: no batch's settings and no caller lift them."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from cj_pipeline.emulator import in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import (
    BatchProblemsError,
    CeilingReachedError,
    PreflightError,
    SettingsError,
)
from cj_pipeline.installation import INSTALLATION_FILE, read_installation
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.operations.execute import take_in
from cj_pipeline.operations.personal_data.erase import forget_batch
from cj_pipeline.operations.preflight import preflight_folder
from cj_pipeline.planning.spending_limits import unallowed_judges
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.tokens import hash_of, new_token
from tests.support.batches import ManualClock, open_engine, write_batch


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """A runtime over a home that an operator can write a file to."""
    (tmp_path / "home").mkdir()
    return open_engine(tmp_path / "home", clock=clock)


def lay_down(runtime: Runtime, **said: object) -> None:
    """Write the operator's file."""
    (runtime.home / INSTALLATION_FILE).write_text(yaml.safe_dump(said))


def a_folder(tmp_path: Path, name: str = "spring", **settings: object) -> Path:
    """Write a batch of four essays that would spend whatever it likes."""
    given = {"judges": ["quality"], "spend_cap_usd": 1000.0, "all_at_once": True}
    return write_batch(tmp_path / name, n_students=4, settings=given | settings)


def sent(runtime: Runtime, folder: Path) -> str:
    """Take a batch in and send its first wave."""
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    return batch_id


def n_jobs(runtime: Runtime) -> int:
    """Return how many jobs were really made."""
    config = EmulatorConfig.from_environment({}, runtime.home)
    books = in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    return len(books["jobs"])


def test_a_batchs_ceiling_stops_what_it_would_pass_and_the_same_command_goes_on(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Nothing is recorded and nothing sent; a raised ceiling is all it takes."""
    lay_down(runtime, ceilings={"usd_per_batch": 0.001})
    folder = a_folder(tmp_path)

    with pytest.raises(PreflightError, match=r"ceiling is 0\.001 USD for a batch"):
        take_in(runtime, folder, explicit={})
    (runtime.home / INSTALLATION_FILE).unlink()
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    lay_down(runtime, ceilings={"usd_per_batch": 0.001})
    with pytest.raises(CeilingReachedError, match="run the same command: nothing is lost"):
        submit_wave(runtime, batch_id)
    before = n_jobs(runtime)
    lay_down(runtime, ceilings={"usd_per_batch": 10})
    submit_wave(runtime, batch_id)

    assert (before, n_jobs(runtime)) == (0, 1)


def test_a_days_ceiling_is_over_all_batches_and_ends_with_the_day(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """The first batch's reservation leaves no room for a second one before midnight (UTC)."""
    first = sent(runtime, a_folder(tmp_path, "one"))
    with runtime.store.read() as db:
        row = db.one(
            "SELECT sum(reserved_usd) AS usd FROM provider_jobs WHERE batch_id = ?", [first]
        )
    assert row is not None
    lay_down(runtime, ceilings={"usd_per_day": row["usd"] * 1.5})

    with pytest.raises(CeilingReachedError, match="for a day, today"):
        sent(runtime, a_folder(tmp_path, "two"))
    clock.now += timedelta(days=1)
    submit_wave(runtime, "two")

    assert n_jobs(runtime) == 2


def test_a_tokens_ceiling_is_over_the_batches_it_reaches(runtime: Runtime, tmp_path: Path) -> None:
    """Two batches of one class share it; another class has its own."""
    tokens = {
        name: {
            "sha256": hash_of(new_token()),
            "scopes": ["submit"],
            "batches": [f"{name}-*"],
            "expires": date(2030, 1, 1),
        }
        for name in ("maths", "history")
    }
    lay_down(runtime, tokens=tokens)
    sent(runtime, a_folder(tmp_path, "maths-1"))
    with runtime.store.read() as db:
        row = db.one("SELECT sum(reserved_usd) AS usd FROM provider_jobs")
    assert row is not None
    lay_down(runtime, tokens=tokens, ceilings={"usd_per_token": row["usd"] * 1.5})

    with pytest.raises(BatchProblemsError, match="the batches of token 'maths'"):
        sent(runtime, a_folder(tmp_path, "maths-2"))
    with pytest.raises(CeilingReachedError, match="the batches of token 'maths'"):
        sent(runtime, a_folder(tmp_path, "maths-3", anyway=True))
    sent(runtime, a_folder(tmp_path, "history-1"))

    assert n_jobs(runtime) == 2


def test_a_judge_that_is_not_allowed_is_refused_wherever_it_comes_in(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Also under the name of one that is: a batch's own file may bear any name."""
    lay_down(runtime, allowed_judges=["quality"])
    folder = a_folder(tmp_path, judges=["quality-messages"])
    disguised = a_folder(tmp_path, "disguised")
    own = disguised / "judges"
    own.mkdir()
    (own / "quality.yaml").write_text(
        "name: quality\nprovider: openai-compatible\nmodel: elsewhere\n"
        "base_url: https://elsewhere.example/v1\n"
        "price: {input: 1, output: 1, source: made up, as_of: 2026-11-01}\n"
    )

    with pytest.raises(BatchProblemsError, match=r"'quality-messages'.* is not allowed"):
        ingest(runtime, folder)
    with pytest.raises(PreflightError, match=r"elsewhere\.example.* is not allowed"):
        take_in(runtime, disguised, explicit={"llm_batching_mode": "per_request"})
    assert ingest(runtime, a_folder(tmp_path, "plain")).is_new


@pytest.mark.parametrize(
    ("entry", "is_allowed"),
    [
        ("openai/gpt-4.1-mini*", True),
        ("openai/*", True),
        ("openai-gpt-4-1-mini", True),
        ("anthropic/*", False),
        ("quality", False),
    ],
)
def test_judges_are_allowed_by_name_or_by_provider_and_model(
    runtime: Runtime, entry: str, is_allowed: bool
) -> None:
    """A pattern without an address does not allow the same model at another address."""
    lay_down(runtime, allowed_judges=[entry])
    said, judge = read_installation(runtime.home), load_judge("openai-gpt-4-1-mini")
    elsewhere = replace(judge, base_url="https://elsewhere.example/v1")

    assert (unallowed_judges([judge], said) == []) is is_allowed
    assert unallowed_judges([elsewhere], said)


def test_the_environment_wins_over_the_file(runtime: Runtime) -> None:
    """As a container sets it; what cannot be used is said."""
    lay_down(runtime, ceilings={"usd_per_batch": 5, "usd_per_day": 7}, allowed_judges=["quality"])

    said = read_installation(
        runtime.home, {"CJ_MAX_USD_PER_BATCH": "0.5", "CJ_ALLOWED_JUDGES": "openai/*, quality"}
    )

    assert (said.ceilings.usd_per_batch, said.ceilings.usd_per_day) == (0.5, 7)
    assert said.allowed_judges == ("openai/*", "quality")
    for absurd in ("nan", "inf", "-1", "much"):
        with pytest.raises(SettingsError, match="CJ_MAX_USD_PER_DAY is an amount"):
            read_installation(runtime.home, {"CJ_MAX_USD_PER_DAY": absurd})


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"ceilings": {"usd_per_week": 1}}, "usd_per_week is no key"),
        ({"ceilings": {"usd_per_day": float("nan")}}, "usd_per_day is an amount"),
        ({"ceilings": {"usd_per_day": float("inf")}}, "usd_per_day is an amount"),
        ({"ceilings": {"usd_per_day": True}}, "usd_per_day is an amount"),
        ({"ceilings": [1]}, "ceilings has the keys"),
        ({"allowed_judges": "quality"}, "allowed_judges is a list"),
    ],
)
def test_a_file_that_cannot_be_used_says_what_is_wrong(
    runtime: Runtime, said: dict[str, object], problem: str
) -> None:
    """A ceiling that is misread would be none."""
    lay_down(runtime, **said)

    with pytest.raises(SettingsError, match=problem):
        read_installation(runtime.home)


@pytest.mark.parametrize("ceiling", ["usd_per_batch", "usd_per_token"])
def test_forgetting_a_batch_lifts_no_ceiling(
    runtime: Runtime, tmp_path: Path, ceiling: str
) -> None:
    """What it cost is kept, and counts when the same files come back."""
    folder = a_folder(tmp_path)
    batch_id = sent(runtime, folder)
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET billed_usd = 2.0, state = 'settled'")
        db.execute("UPDATE batches SET state = 'failed'")
    store = runtime.store
    assert isinstance(store, FileStore)
    forget_batch(store, batch_id, now=runtime.clock())
    token = {"sha256": hash_of(new_token()), "scopes": ["submit"], "batches": ["*"]}
    lay_down(
        runtime,
        ceilings={ceiling: 1.9},
        tokens={"office": token | {"expires": date(2030, 1, 1)}},
    )

    with pytest.raises(BatchProblemsError, match=r"ceiling is 1\.9 USD"):
        ingest(runtime, folder, may_return=True)


OWN_JUDGE = (
    "name: lab\nprovider: openai-compatible\nmodel: m\nbase_url: http://127.0.0.1:9/v1\n"
    "key_variable: {key}\nprice: {{input: 1, output: 1, source: ours, as_of: 2026-11-01}}\n"
)


def _with_own_judge(folder: Path, key: str = "LAB_API_KEY") -> Path:
    batch = write_batch(
        folder,
        n_students=3,
        settings={"judges": ["lab"], "llm_batching_mode": "per_request"},
    )
    (batch / "judges").mkdir()
    (batch / "judges" / "lab.yaml").write_text(OWN_JUDGE.format(key=key))
    return batch


def test_a_judge_with_its_own_address_is_taken_from_a_folder_of_ones_own_only(
    tmp_path: Path,
) -> None:
    """Not from the inbox, and not by what nobody attends; unless the installation says so."""
    key = {"LAB_API_KEY": "never-used"}
    mine = open_engine(tmp_path / "a", key)
    unattended = open_engine(tmp_path / "b", key, is_attended=False)
    allowing = open_engine(tmp_path / "c", key | {"CJ_BATCH_JUDGES": "allow"}, is_attended=False)

    assert ingest(mine, _with_own_judge(tmp_path / "lab-1")).is_new
    assert ingest(allowing, _with_own_judge(tmp_path / "lab-2")).is_new
    for runtime, place in ((unattended, tmp_path / "lab-3"), (mine, mine.inbox / "lab-4")):
        with pytest.raises(BatchProblemsError, match="may not choose here") as refused:
            ingest(runtime, _with_own_judge(place))
        assert "LAB_API_KEY" in str(refused.value)


def test_a_batch_that_is_in_goes_on_when_the_rules_become_stricter(tmp_path: Path) -> None:
    """What was paid for is collected; only new batches are held to what is said now."""
    runtime = open_engine(tmp_path / "home", {"LAB_API_KEY": "never-used"})
    folder = _with_own_judge(tmp_path / "lab")
    assert ingest(runtime, folder).is_new
    lay_down(runtime, batch_judges="refuse")

    assert not ingest(runtime, folder).is_new


def test_a_secret_that_a_batch_names_as_its_key_is_sent_nowhere(tmp_path: Path) -> None:
    """Looking a batch over is enough to send a key: so the folder's judge is held up before."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        secret = {"AWS_SECRET_ACCESS_KEY": "of-something-else", "CJ_BATCH_JUDGES": "allow"}
        runtime = open_engine(tmp_path / "home", secret)
        folder = _with_own_judge(tmp_path / "lab", key="AWS_SECRET_ACCESS_KEY")
        own = folder / "judges" / "lab.yaml"
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        own.write_text(own.read_text().replace("127.0.0.1:9", address).replace("-compatible", ""))

        _, examined = preflight_folder(
            runtime, folder, explicit={"llm_batching_mode": "provider_batch_api"}
        )

        told = [each.finding for each in examined if each.standing == "problem"]
        assert any("AWS_SECRET_ACCESS_KEY" in finding for finding in told)
        with pytest.raises(TimeoutError):
            listener.accept()
