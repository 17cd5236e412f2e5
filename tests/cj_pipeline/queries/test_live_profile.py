"""A batch's profile is settled when it is taken in, with the home's own profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.errors import BatchProblemsError, SettingsError
from cj_pipeline.live.profiles import resolve_profile, with_workers
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.live_profile import named_profile, stored_profile
from cj_pipeline.steps.ingest import ingest
from tests.support.batches import open_engine, write_batch


def taken_in(tmp_path: Path, settings: dict[str, Any], **explicit: Any) -> dict[str, Any]:
    """Take a small batch in and return the metadata kept with it."""
    engine = open_engine(tmp_path / "home")
    folder = write_batch(tmp_path / "batch", n_students=6, settings=settings)
    batch_id = ingest(engine, folder, explicit=explicit).batch_id
    with engine.store.read() as db:
        return load_batch(db, batch_id).metadata


def test_a_batch_keeps_the_profile_it_was_taken_in_with(tmp_path: Path) -> None:
    """A profile changed later must not change a batch that is under way."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "profiles.yaml").write_text("evening: {concurrency: 7, queue: 9}\n")

    metadata = taken_in(tmp_path, {"profile": "evening", "profile_set": {"queue": 3}})

    profile = stored_profile(metadata)
    assert (profile.concurrency, profile.queue) == (7, 3)
    assert metadata["profile"]["sources"]["concurrency"] == "configured"


def test_fields_set_on_the_command_line_join_those_of_the_file(tmp_path: Path) -> None:
    """One flag must not drop what batch.yaml sets."""
    settings = {"profile": "ci", "profile_set": {"queue": 3, "timeout_seconds": 20}}

    metadata = taken_in(tmp_path, settings, profile_set={"timeout_seconds": "10"})

    assert metadata["profile"]["values"]["queue"] == 3
    assert metadata["profile"]["values"]["timeout_seconds"] == 10


def test_a_profile_that_cannot_work_keeps_the_batch_out_with_every_reason(tmp_path: Path) -> None:
    """Before anything is spent, and each with what to change."""
    settings = {"profile": "ci", "profile_set": {"chunk_size": 9, "conccurency": 2}}

    with pytest.raises(BatchProblemsError) as refused:
        taken_in(tmp_path, settings)

    assert len(refused.value.problems) == 2
    assert all(problem.startswith("batch.yaml: profile: ") for problem in refused.value.problems)


def test_a_wave_that_would_expire_before_its_turn_keeps_the_batch_out(tmp_path: Path) -> None:
    """The size of a wave is known when a batch is taken in."""
    slow = {"rate_limit": 1, "rate_window_seconds": 60, "result_ttl_seconds": 60}
    settings = {"llm_batching_mode": "per_request", "profile_set": slow}

    with pytest.raises(BatchProblemsError, match="result_ttl_seconds to at least 120"):
        taken_in(tmp_path, settings)


def test_a_providers_batch_is_not_bound_by_a_profile_of_single_calls(tmp_path: Path) -> None:
    """Its calls are the provider's to time."""
    slow = {"rate_limit": 1, "rate_window_seconds": 60, "result_ttl_seconds": 60}

    assert taken_in(tmp_path, {"profile_set": slow})["profile"]["values"]["rate_limit"] == 1


def test_a_batch_of_before_profiles_has_the_usual_one() -> None:
    """Batches that were under way when profiles came go on."""
    usual, _ = resolve_profile("default")

    assert usual is not None
    assert stored_profile({}) == usual.values


def test_a_serial_bundle_has_one_call_in_flight_whatever_the_profile_says(tmp_path: Path) -> None:
    """Several at once would each find the provider's cache cold."""
    metadata = taken_in(tmp_path, {"profile": "nightly"})

    profile = with_workers(stored_profile(metadata), 1)

    assert profile.workers == 1
    assert profile.rate_limit == 60


@pytest.mark.parametrize("content", ["- a\n", "a: [", "just words\n"])
def test_a_profiles_file_that_holds_none_is_told(tmp_path: Path, content: str) -> None:
    """By its path."""
    (tmp_path / "profiles.yaml").write_text(content)

    with pytest.raises(SettingsError, match=r"profiles\.yaml"):
        named_profile("ci", tmp_path)


def run(home: Path, *words: str) -> tuple[int, str]:
    """Run `cj` and return its exit code and output."""
    result = CliRunner().invoke(app, words, env={"CJ_HOME": str(home)})
    return result.exit_code, result.output


def test_explain_shows_every_value_and_where_it_came_from(tmp_path: Path) -> None:
    """A row a field."""
    (tmp_path / "profiles.yaml").write_text("nightly: {queue: 40}\n")

    code, shown = run(tmp_path, "profile", "explain", "nightly", "--set", "concurrency=8")

    assert code == 0
    rows = {row.split()[0]: row.split()[1:] for row in shown.splitlines() if row.split()}
    assert rows["queue"] == ["40", "configured"]
    assert rows["concurrency"] == ["8", "explicit"]
    assert rows["chunk_size"][:3] == ["8", "built-in", "capped"]
    assert rows["rate_limit"] == ["60", "built-in"]


def test_explain_refuses_an_empty_name_and_tells_every_violation(tmp_path: Path) -> None:
    """An empty variable in a script is not the default profile."""
    code, shown = run(tmp_path, "profile", "explain", "", "--set", "queue=0")

    assert code == 1
    assert "name is empty" in shown
    assert "queue" in shown


@pytest.mark.parametrize("given", [["queue"], ["=3"], ["queue=3", "queue=4"]])
def test_a_field_that_is_not_written_as_one_is_refused(tmp_path: Path, given: list[str]) -> None:
    """Rather than guessed at; whatever is wrong with a profile ends with 1."""
    flags = [word for text in given for word in ("--set", text)]

    assert run(tmp_path, "profile", "explain", "ci", *flags)[0] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mine: {concurrency: 2}\nmine: {concurrency: 3}\n", "mine"),
        ("mine:\n  concurrency: 2\n  concurrency: 3\n", "concurrency"),
        ("profiles:\n  mine: {concurrency: 2}\n", "`profiles:`"),
        ("- mine\n", "fields by profile name"),
    ],
)
def test_a_file_that_says_two_things_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """The last of two keys does not win in silence, and nested profiles are not left out."""
    (tmp_path / "profiles.yaml").write_text(text)

    code, shown = run(tmp_path, "profile", "explain", "ci")

    assert code == 1
    assert told in shown


def test_environment_variables_are_a_layer_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They win over the file and lose to the command line; a misspelt one is told."""
    (tmp_path / "profiles.yaml").write_text("ci: {concurrency: 8, timeout_seconds: 20}\n")
    monkeypatch.setenv("CJ_PROFILE_CONCURRENCY", "12")
    monkeypatch.setenv("CJ_PROFILE_TIMEOUT_SECONDS", "25")

    code, shown = run(tmp_path, "profile", "explain", "ci", "--set", "timeout_seconds=30")
    monkeypatch.setenv("CJ_PROFILE_CONCURENCY", "9")
    wrong, told = run(tmp_path, "profile", "explain", "ci")

    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["concurrency"][:2] == ["12", "environment"]
    assert rows["timeout_seconds"][:2] == ["30", "explicit"]
    assert wrong == 1
    assert "concurrency" in told


def test_list_shows_own_profiles_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    """One that cannot be used does not hide the others."""
    (tmp_path / "profiles.yaml").write_text("fine: {queue: 4}\nodd: {queue: 0}\n")

    code, shown = run(tmp_path, "profile", "list")

    assert code == 0
    assert "fine" in shown
    assert "odd cannot be used: queue" in shown


def test_plan_takes_a_profile_from_the_command_line(tmp_path: Path) -> None:
    """And refuses what cannot finish before anything is stored."""
    folder = write_batch(tmp_path / "batch", n_students=4, settings={"seed": 1})

    code, shown = run(tmp_path / "home", "plan", str(folder), "--profile", "ci")
    refused, why = run(
        tmp_path / "home", "plan", str(folder), "--profile", "ci", "--set", "chunk_size=9"
    )

    assert code == 0
    assert "ci" in shown
    assert refused == 1
    assert "chunk_size" in why
