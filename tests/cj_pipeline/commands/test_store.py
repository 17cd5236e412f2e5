"""Looking after the store from a terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.storage.private_files import open_to_others
from cj_pipeline.store.file_store import FileStore
from tests.support.batches import open_engine, run_to_end, write_batch


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one finished batch called `small`."""
    folder = tmp_path_factory.mktemp("finished")
    batch = write_batch(
        folder / "small",
        n_students=3,
        settings={"judges": ["cj-generic-batch"], "max_resampling_passes_for_small_net": 0},
    )
    run_to_end(open_engine(folder / "home"), batch)
    return folder / "home"


@pytest.fixture
def home(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that home, which commands work on."""
    home = tmp_path / "home"
    shutil.copytree(finished, home)
    monkeypatch.setenv("CJ_HOME", str(home))
    return home


def test_the_store_is_checked_backed_up_forgotten_and_restored(home: Path, tmp_path: Path) -> None:
    """The life of a store as its keeper sees it."""
    cj, copy = CliRunner(), tmp_path / "backup.duckdb"

    checked = cj.invoke(app, ["store", "check"])
    migrated = cj.invoke(app, ["store", "migrate"])
    backed_up = cj.invoke(app, ["store", "backup", str(copy)])
    asked = cj.invoke(app, ["forget", "small"], input="n\n")
    forgotten = cj.invoke(app, ["forget", "small", "--yes"])
    gone = cj.invoke(app, ["report", "small"])
    compacted = cj.invoke(app, ["store", "compact"])
    restored = cj.invoke(app, ["store", "restore", str(copy)])
    back = cj.invoke(app, ["status", "small"])

    assert "Nothing is wrong." in checked.output
    assert "up to date" in migrated.output
    assert backed_up.exit_code == 0
    assert asked.exit_code == 1
    assert "audit line is kept" in " ".join(forgotten.output.split())
    assert gone.exit_code == 1
    assert compacted.exit_code == 0
    assert "Restored from" in restored.output
    assert "Forgotten since that backup" in restored.output
    assert "No batch 'small'" in back.output


def test_a_backup_is_never_overwritten(home: Path, tmp_path: Path) -> None:
    """The one good copy must not be lost to a second command."""
    taken = tmp_path / "taken"
    taken.write_text("mine")

    result = CliRunner().invoke(app, ["store", "backup", str(taken)])

    assert result.exit_code == 1
    assert taken.read_text() == "mine"


def test_a_store_is_not_served_without_a_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches the port could read every essay."""
    monkeypatch.delenv("CJ_STORE_TOKEN", raising=False)

    result = CliRunner().invoke(app, ["store", "serve", "--port", "0"])

    assert result.exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ["store", "check"],
        ["store", "migrate"],
        ["store", "backup", "copy.duckdb"],
        ["store", "compact"],
        ["store", "archive"],
        ["forget", "spring-9", "--yes"],
    ],
)
def test_care_for_the_file_is_refused_from_afar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """A backup of an empty local file would be believed to be one of the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CJ_STORE", "quack:store.example:9494")
    monkeypatch.setenv("CJ_STORE_TOKEN", "a-token-of-tests")

    result = CliRunner().invoke(app, words)

    assert result.exit_code == 1
    assert "stop whatever serves it" in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_a_home_is_for_others(home: Path) -> None:
    """Whatever was run before: the umask of most machines lets everybody read."""
    assert list(open_to_others(home)) == []


def test_a_home_from_before_is_warned_of_and_closed_on_request(home: Path) -> None:
    """Homes were open once; a command must not change their rights unasked."""
    home.chmod(0o755)
    (home / "cj.duckdb").chmod(0o644)

    checked = CliRunner().invoke(app, ["store", "check"])
    fixed = CliRunner().invoke(app, ["store", "check", "--fix"])

    assert checked.exit_code == 1
    assert "can look into" in checked.output
    assert fixed.exit_code == 0
    assert list(open_to_others(home)) == []


def test_a_forgotten_batch_is_searched_for(home: Path) -> None:
    """The emulator's uploads too, which no job may have come of."""
    with FileStore(home).read() as db:
        shown = [row["comparison_id"] for row in db.rows("FROM comparison_pairs")]
    upload = home / "emulator.sqlite.files" / "lost-upload"
    upload.write_text(f'{{"custom_id": "0123456789abcdef-{shown[0]}-1"}}')

    forgotten = CliRunner().invoke(app, ["forget", "small", "--yes", "--verify"])

    assert forgotten.exit_code == 0
    assert "nothing of it is left" in " ".join(forgotten.output.split())
    found = [p for p in home.rglob("*") if p.is_file() and shown[0].encode() in p.read_bytes()]
    assert found == []


def test_what_remains_of_a_forgotten_batch_is_named(home: Path) -> None:
    """Somebody may have put a copy there by hand."""
    with FileStore(home).read() as db:
        text = db.rows("SELECT text FROM essays")[0]["text"]
    (home / "notes.txt").write_text(text)

    forgotten = CliRunner().invoke(app, ["forget", "small", "--yes", "--verify"])

    assert forgotten.exit_code == 1
    assert "notes.txt still holds" in " ".join(forgotten.output.split())
