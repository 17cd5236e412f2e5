"""`cj plan`, `preflight`, `dry-run` and `execute` with the flags they have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from tests.support.batches import open_engine, write_batch

USUAL = {"judges": ["quality"], "max_pairwise_comparisons": 6, "all_at_once": True}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which is this process's CJ_HOME, for commands that print on wide paper."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "400")
    return tmp_path / "home"


def cj(*words: str | Path) -> tuple[int, str]:
    """Return a command's exit code and what it said, blanks and line ends made one."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.split())


def stored(home: Path, batch_id: str) -> dict[str, Any]:
    """Return a batch's row."""
    with open_engine(home).store.read() as db:
        row = db.one("SELECT * FROM batches WHERE batch_id = ?", [batch_id])
    assert row is not None
    return row


FOUR = (("plan",), ("dry-run",), ("preflight",), ("execute", "--await-completion"))


@pytest.mark.parametrize("command", FOUR, ids=lambda words: words[0])
def test_the_same_flags_do_for_every_command(
    home: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """What was planned with is what is executed with."""
    folder = write_batch(tmp_path / "la", n_students=4, settings=USUAL)

    code, said = cj(
        *(command[0], folder, *command[1:]),
        *("--batch-id", "Spring-{date}-%H"),
        *("--llm-batching-mode", "serial_bundle", "--profile", "ci"),
        *("--set", "profile.timeout_seconds=20", "--set", "max_attempts=2"),
        *("--max-comparisons", "5"),
    )

    assert code == 0, said
    assert "spring-20" in said
    if command[0] == "execute":
        (name,) = [w.strip("'") for w in said.split() if w.startswith("'spring-20")][:1]
        batch = stored(home, name)
        assert batch["settings"]["llm_batching_mode_override"] == "serial_bundle"
        assert batch["settings"]["profile"] == "ci"
        assert batch["settings"]["profile_set"] == {"timeout_seconds": "20"}
        assert batch["settings"]["max_attempts"] == 2
        assert batch["settings"]["max_pairwise_comparisons"] == 5
        assert batch["settings_origins"]["max_attempts"] == "explicit"
        assert batch["metadata"]["llm_batching_mode"] == "serial_bundle"


def test_a_folder_is_judged_under_many_names_and_the_price_is_told(
    home: Path, tmp_path: Path
) -> None:
    """An explicit name is the permission to pay again; without one `--again` is asked for."""
    folder = write_batch(tmp_path / "class", n_students=4, settings=USUAL)
    first, _ = cj("execute", folder, "--await-completion", "--batch-id", "run-1")
    refused, why = cj("execute", folder, "--await-completion")
    second, said = cj("execute", folder, "--await-completion", "--batch-id", "run-2")

    assert (first, refused, second) == (0, 1, 0)
    assert "'run-1'" in why
    assert "--again" in why
    assert "as 'run-2' they are judged and paid for again" in said
    assert "USD expected" in said
    assert {stored(home, name)["state"] for name in ("run-1", "run-2")} == {"succeeded"}


def test_the_name_of_a_short_folder_is_told(home: Path, tmp_path: Path) -> None:
    """`la` becomes `batch-la`, and nobody has to find that out."""
    folder = write_batch(tmp_path / "la", n_students=4, settings=USUAL)

    _, said = cj("plan", folder)

    assert "'la' is the batch 'batch-la'" in said
    assert "--batch-id" in said


def test_a_field_of_the_profile_without_its_prefix_still_works_and_warns(
    home: Path, tmp_path: Path
) -> None:
    """The words of before do what they did."""
    folder = write_batch(
        tmp_path / "class", n_students=4, settings=USUAL | {"llm_batching_mode": "per_request"}
    )

    code, said = cj("execute", folder, "--set", "concurrency=2")

    assert code == 0, said
    assert "write --set profile.concurrency=2" in said
    assert stored(home, "class")["settings"]["profile_set"] == {"concurrency": "2"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--set", "max_attemps=2"], "max_attempts"),
        (["--set", "seed=1", "--seed", "2"], "twice"),
        (["--set", "seed"], "KEY=VALUE"),
        (["--set", "seed=1", "--set", "seed=2"], "twice"),
        (["--batch-id", " "], "cannot be empty"),
    ],
)
def test_what_cannot_be_set_is_told(
    home: Path, tmp_path: Path, given: list[str], told: str
) -> None:
    """A key misspelt changes nothing in silence."""
    folder = write_batch(tmp_path / "class", n_students=4, settings=USUAL)

    code, said = cj("plan", folder, *given)

    assert code != 0
    assert told in said


def test_a_part_of_a_key_leaves_its_other_parts(home: Path, tmp_path: Path) -> None:
    """As `batch.yaml` gives them."""
    folder = write_batch(
        tmp_path / "class",
        n_students=4,
        settings=USUAL | {"precise": {"reliability": 0.8, "mean_standard_error": 0.5}},
    )

    code, said = cj("execute", folder, "--set", "precise.reliability=0.7")

    assert code == 0, said
    precise = stored(home, "class")["settings"]["precise"]
    assert (precise["reliability"], precise["mean_standard_error"]) == (0.7, 0.5)


def test_a_doomed_batch_is_refused_alike_and_let_through_when_told(
    home: Path, tmp_path: Path
) -> None:
    """Plan, preflight and execute name the number; `--anyway` starts it, and the store says so."""
    folder = write_batch(
        tmp_path / "doomed", n_students=30, settings=USUAL | {"max_pairwise_comparisons": 10}
    )

    for command in (("plan",), ("preflight",), ("execute", "--await-completion")):
        code, said = cj(command[0], folder, *command[1:])
        assert code == 1, said
        assert "max_pairwise_comparisons to at least 29" in said
    planned, _ = cj("plan", folder, "--anyway")
    ended, said = cj("execute", folder, "--await-completion", "--anyway")

    assert (planned, ended) == (0, 2)
    assert "unscalable" in said
    with open_engine(home).store.read() as db:
        row = db.one("SELECT started_despite FROM v_batches WHERE batch_id = 'doomed'")
    assert row is not None
    assert "at least 29" in row["started_despite"][0]


def test_after_a_run_the_terminal_tells_what_it_took(home: Path, tmp_path: Path) -> None:
    """Comparisons against the cap, calls and retries, tokens and cost, whole or not, what next."""
    folder = write_batch(
        tmp_path / "class",
        n_students=4,
        settings=USUAL | {"max_answers_without_verdict": 1000, "min_success_rate": 0.0},
    )
    from cj_pipeline.emulator import change_settings
    from cj_pipeline.emulator.config import EmulatorConfig

    change_settings(
        EmulatorConfig.from_environment({}, home), judges={"quality": {"invalid_rate": 0.4}}
    )

    _, said = cj("execute", folder, "--await-completion")

    with open_engine(home).store.read() as db:
        row = db.one("SELECT count(*) AS n, count(*) FILTER (attempt > 1) AS again FROM attempts")
    assert row is not None
    assert row["again"] > 0
    assert f"{row['n']} calls, {row['again']} of them retries" in said
    assert "6 comparisons of at most 6, in 1 waves" in said
    assert "tokens in" in said
    assert "partial_data: " in said
    assert "assessment_run.execute.json" in said
    assert "cj sql" in said
