"""The commands on what leaves a batch, as typed at a terminal."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from cj_pipeline.cli import app
from cj_pipeline.commands import outputs
from cj_pipeline.commands.outputs import SQL_SHAPE
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.outputs.artefact import write_artefact
from cj_pipeline.outputs.verification import verify_artefact
from cj_pipeline.runtime import RunEnvironment
from cj_pipeline.store.file_store import FileStore
from tests.support.batches import begin, open_engine, write_batch
from tests.support.finished_batches import SPRING, fill, insert_all, spring_rows

AGAIN = "spring-9-again"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    store = FileStore(folder)
    with store.write() as db:
        fill(db)
        insert_all(db, spring_rows(AGAIN))
    store.publish()
    with store.read() as db:
        write_artefact(
            db,
            SPRING,
            "execute",
            folder / "batches" / SPRING,
            generated_at=datetime(2026, 3, 3, 12, 0, tzinfo=UTC),
            environment=RunEnvironment("0a1b2c3", "0.1.0", "3.11.9", "Linux"),
        )
    return folder


def test_sql_before_the_first_wave_says_what_is_under_way(tmp_path: Path) -> None:
    """Rather than that there is nothing; and beside an answer, of what the copy lacks."""
    runtime = open_engine(tmp_path / "home")
    change_settings(
        EmulatorConfig.from_environment(runtime.environment, runtime.home), latency_s=3600.0
    )
    settings = {"judges": ["quality"], "max_pairwise_comparisons": 6, "all_at_once": True}
    begin(runtime, write_batch(tmp_path / "small", n_students=4, settings=settings))

    nothing = _cj(runtime.home, "sql", "SELECT 42 AS answer")
    runtime.store.publish()
    beside = _cj(runtime.home, "sql", "SELECT 42 AS answer")
    untouched = _cj(tmp_path / "elsewhere", "sql", "SELECT 42 AS answer")

    assert (nothing.exit_code, beside.exit_code, untouched.exit_code) == (1, 0, 1)
    for said in (nothing.output, beside.output):
        assert "'small', wave 1: 0 of 6" in " ".join(said.split())
    assert "42" in beside.output
    assert not (tmp_path / "elsewhere").exists()


def test_verify_says_that_nothing_differs(home: Path) -> None:
    """And ends with zero, for scripts."""
    done = _cj(home, "verify", str(_artefact(home)))

    assert done.exit_code == 0
    assert "Nothing differs." in done.output


def test_verify_names_what_differs_and_fails(home: Path, tmp_path: Path) -> None:
    """A script must notice, and a person must learn what."""
    forged = tmp_path / "assessment_run.execute.json"
    document = json.loads(_artefact(home).read_text())
    document["bt_summary"][0]["theta"] += 1
    forged.write_text(json.dumps(document))

    done = _cj(home, "verify", str(forged), "--alone")

    assert done.exit_code == 1
    assert "theta says" in done.output


def test_verify_alone_needs_no_store(home: Path, tmp_path: Path) -> None:
    """An artefact is checked where it was sent to."""
    done = _cj(tmp_path / "nothing-here", "verify", str(_artefact(home)), "--alone")

    assert done.exit_code == 0


def test_essay_shows_where_it_stands_and_why(home: Path) -> None:
    """Markup in a judge's words is text here too."""
    done = _cj(home, "essay", SPRING, "pupil-01")

    assert done.exit_code == 0
    assert "rank" in done.output
    assert "anchors" in done.output
    assert "Choose A" in done.output


def test_essay_says_how_probably_it_is_better_than_another(home: Path) -> None:
    """What a complaint about two grades comes down to; the two odds add up to one."""
    upper = _cj(home, "essay", SPRING, "pupil-08", "--than", "pupil-01").output
    lower = _cj(home, "essay", SPRING, "pupil-01", "--than", "pupil-08").output

    odds = [int(re.search(r"probability of (\d+)%", text)[1]) for text in (upper, lower)]  # type: ignore[index]
    assert odds[0] > 90
    assert sum(odds) == 100


def test_two_essays_go_side_by_side_on_a_page(home: Path, tmp_path: Path) -> None:
    """For a complaint about two grades; without the other essay there is no page."""
    page = tmp_path / "two.html"

    alone = _cj(home, "essay", SPRING, "pupil-08", "--page", str(page))
    done = _cj(home, "essay", SPRING, "pupil-08", "--than", "pupil-01", "--page", str(page))

    assert alone.exit_code == 2
    assert "--than" in alone.output
    assert done.exit_code == 0
    assert page.read_text("utf-8").count('<div class="text whole"') == 2


def test_people_read_and_type_names_wherever_an_essay_is_meant(tmp_path: Path) -> None:
    """Ids are for machines: none of a student's or an anchor's is on the terminal."""
    store = FileStore(tmp_path)
    with store.write() as db:
        for batch_id in (SPRING, AGAIN):
            rows = spring_rows(batch_id)
            for at, row in enumerate(rows["essays"]):
                row["name"] = f"Åsa Öberg {at}" if not row["is_anchor"] else f"Exempel {at}"
            insert_all(db, rows)
    store.publish()
    with store.read() as db:
        ids = [r["essay_id"] for r in db.rows("SELECT essay_id FROM essays")]
        ((one, first), (other, second)) = [
            (r["essay_id"], r["name"])
            for r in db.rows(
                "SELECT essay_id, name FROM essays WHERE batch_id = ? AND NOT is_anchor LIMIT 2",
                [SPRING],
            )
        ]
        anchor = db.rows("SELECT name FROM essays WHERE is_anchor LIMIT 1")[0]

    shown = {
        "essay": _cj(tmp_path, "essay", SPRING, first, "--than", second),
        "compare": _cj(tmp_path, "compare", SPRING, AGAIN),
        "moderate": _cj(
            tmp_path, "moderate", SPRING, "--override", f"{first} = A", "--reason", "read"
        ),
        "regrade": _cj(tmp_path, "regrade", SPRING, "--anchor-grade", f"{anchor['name']} = F"),
        "rejudge": _cj(tmp_path, "rejudge", SPRING, second, "--reason", "asked", "--by", "Eva"),
        "appeals": _cj(tmp_path, "rejudge", SPRING),
        "unknown": _cj(tmp_path, "essay", SPRING, first.replace(" ", "")),
    }

    for command, result in shown.items():
        assert result.exit_code == (command == "unknown"), (command, result.output)
        said = re.sub(r"\s+", " ", result.output)
        assert "Åsa Öberg" in said, command
        assert not [each for each in ids if each in said], (command, said)
    with FileStore(tmp_path).read() as db:
        assert db.rows("SELECT essay_id FROM moderation_decisions") == [{"essay_id": one}]
        assert {r["essay_id"] for r in db.rows("SELECT essay_id FROM appeals")} == {other}


def test_an_unknown_essay_is_told_plainly(home: Path) -> None:
    """Without a traceback."""
    done = _cj(home, "essay", SPRING, "pupil-99")

    assert done.exit_code == 1
    assert "Traceback" not in done.output


def test_compare_shows_figures_and_changes_and_writes_a_page(home: Path, tmp_path: Path) -> None:
    """The page is for passing on."""
    page = tmp_path / "compare.html"

    done = _cj(home, "compare", SPRING, AGAIN, "--page", str(page))

    assert done.exit_code == 0
    assert "0 of 14 shared essays changed beyond noise" in done.output
    assert "Batches side by side" in page.read_text()


def test_export_writes_parquet(home: Path, tmp_path: Path) -> None:
    """One file a frame."""
    done = _cj(home, "export", SPRING, str(tmp_path / "out"))

    assert done.exit_code == 0
    assert (tmp_path / "out" / "scores.parquet").exists()


@pytest.fixture
def batch_folder(tmp_path: Path) -> Path:
    """Return a small batch folder."""
    folder = tmp_path / "two-texts"
    (folder / "essays").mkdir(parents=True)
    (folder / "batch.yaml").write_text("title: Two texts\njudges: [quality]\n")
    (folder / "instructions.md").write_text("Write about a place that matters to you.\n")
    for name in ("anna", "bertil", "cecilia"):
        (folder / "essays" / f"{name}.txt").write_text(f"A text by {name}, about the sea.\n" * 5)
    return folder


def test_a_plan_can_be_kept_as_an_artefact(batch_folder: Path, tmp_path: Path) -> None:
    """What was going to be judged, before anybody pays; the store stays empty."""
    home, out = tmp_path / "home", tmp_path / "out"

    done = _cj(home, "plan", str(batch_folder), "--artefact", str(out))

    assert done.exit_code == 0, done.output
    document = json.loads((out / "assessment_run.plan.json").read_text())
    assert document["metadata"]["runner_mode"] == "plan"
    assert document["runner_status"]["submitted_comparisons"] == 0
    waves = [row["wave"] for row in document["pending_comparisons"]]
    assert waves == sorted([1, 2, 3, 4, 5] * 3), "all passes, which are sent together"
    assert verify_artefact(out / "assessment_run.plan.json", batch_folder=batch_folder) == []
    assert not (home / "cj.duckdb").exists()


def test_a_dry_run_vouches_for_its_request_files(batch_folder: Path, tmp_path: Path) -> None:
    """They are what would have been sent, byte for byte."""
    home = tmp_path / "home"

    done = _cj(home, "dry-run", str(batch_folder))

    assert done.exit_code == 0, done.output
    path = home / "dry-runs" / "two-texts" / "assessment_run.dry-run.json"
    manifest = json.loads(path.read_text())["validation"]["manifest"]
    assert [entry["role"] for entry in manifest if entry["relative_to"] == "this file"] == [
        "request"
    ]
    assert verify_artefact(path, batch_folder=batch_folder) == []


def test_the_same_batch_judged_elsewhere_differs_only_where_it_says(
    batch_folder: Path, tmp_path: Path
) -> None:
    """Two machines, one folder, one judge: a difference beyond these means something."""
    with (batch_folder / "batch.yaml").open("a") as file:
        file.write("all_at_once: true\n")
    documents = []
    for home in (tmp_path / "here", tmp_path / "there"):
        done = _cj(home, "execute", str(batch_folder), "--await-completion")
        assert done.exit_code == 0, done.output
        path = home / "batches" / "two-texts" / "assessment_run.execute.json"
        documents.append(json.loads(path.read_text()))
    one, other = documents

    differing = set(_differences(one, other, ""))

    may_differ = tuple(one["validation"]["fields_that_may_differ"])
    assert differing
    assert [place for place in differing if not place.startswith(may_differ)] == []


def _differences(one: Any, other: Any, place: str) -> Iterator[str]:
    """Yield the places in which two JSON values differ, written as the artefact writes them."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            inner = f"{place}.{key}" if place else key
            yield from _differences(one.get(key), other.get(key), inner)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for this, that in zip(one, other, strict=True):
            yield from _differences(this, that, f"{place}[]")
    elif one != other:
        yield place


def test_no_column_of_any_view_is_lost_on_the_way_into_a_pipe(home: Path) -> None:
    """A table fits itself to a screen that is not there, and leaves columns out in silence."""
    with FileStore(home).read() as db:
        views = db.rows(
            "SELECT view_name AS name FROM duckdb_views() WHERE starts_with(view_name, 'v_')"
        )
        wanted = {
            row["name"]: db.rows(f"SELECT count(*) AS n FROM {row['name']}")[0]["n"]  # noqa: S608
            for row in views
        }
        columns = {
            name: {row["column_name"] for row in db.rows(f"DESCRIBE {name}")} for name in wanted
        }
    assert len(wanted) > 10

    for name, n_rows in wanted.items():
        printed = list(csv.reader(io.StringIO(_cj(home, "sql", f"FROM {name}").output)))
        assert set(printed[0]) == columns[name]
        assert len(printed) == n_rows + 1
        assert {len(row) for row in printed} == {len(columns[name])}


def test_a_result_comes_as_json_in_a_shape_that_is_named_and_as_parquet(
    home: Path, tmp_path: Path
) -> None:
    """For programs: what they read says what it is."""
    with FileStore(home).read() as db:
        columns = [row["column_name"] for row in db.rows("DESCRIBE v_batches")]
    query = f"SELECT {columns[0]} FROM v_batches ORDER BY ALL"  # noqa: S608

    told = json.loads(_cj(home, "sql", query, "--json").output)
    file = tmp_path / "batches.parquet"
    written = _cj(home, "sql", query, "--parquet", str(file))

    assert written.exit_code == 0
    assert told["shape"] == SQL_SHAPE
    assert told["columns"] == columns[:1]
    assert pyarrow.parquet.read_table(file).to_pylist() == told["rows"]
    assert len(told["rows"]) >= 3


def test_what_json_cannot_say_is_null_and_no_column_is_lost(home: Path) -> None:
    """A NaN would make the line unreadable, and one of two columns of a name would go."""
    told = json.loads(_cj(home, "sql", "SELECT 'nan'::DOUBLE AS x, 1 AS y", "--json").output)
    twice = _cj(home, "sql", "SELECT * FROM (SELECT 1 AS x) a, (SELECT 2 AS x) b", "--json")

    assert told["rows"] == [{"x": None, "y": 1}]
    assert twice.exit_code == 2 or len(json.loads(twice.output)["columns"]) == 2


def test_one_result_is_wanted_in_one_way(home: Path) -> None:
    """Two ways at once would have one of them left out."""
    assert _cj(home, "sql", "SELECT 1", "--json", "--csv").exit_code == 2


def test_a_comparison_says_how_many_essays_it_leaves_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cut in silence is taken for all there is."""
    monkeypatch.setattr(outputs, "_MAX_CHANGES", 5)

    cut = _cj(home, "compare", SPRING, AGAIN).output
    whole = _cj(home, "compare", SPRING, AGAIN, "--all").output

    assert "9 more are left out" in cut
    assert "left out" not in whole
    assert "pupil-08" in whole


def _artefact(home: Path) -> Path:
    return home / "batches" / SPRING / "assessment_run.execute.json"


def _cj(home: Path, *arguments: str) -> Result:
    return CliRunner(env={"CJ_HOME": str(home), "COLUMNS": "200"}).invoke(app, list(arguments))
