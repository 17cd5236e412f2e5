"""Our files in the hands of a newer DuckDB, and back in ours.

The version we use is pinned to the one that DuckDB's extensions exist for, but analysts open the
published copy with whatever they have. Here that is the newest released DuckDB 2, from the package
registry, in an environment of its own: `duckdb>=2,<3`, chosen by pip when the test is run. Without
a registry these tests fail, since nothing is known then.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.maintenance import check_store
from tests.support.finished_batches import fill

pytestmark = pytest.mark.slow

NEWER = "duckdb>=2,<3"

READ = """
import json, sys, duckdb

db = duckdb.connect(sys.argv[1], read_only=True)
db.execute("SET TimeZone = 'UTC'")
names = db.execute(
    "SELECT table_name FROM duckdb_tables() UNION ALL "
    "SELECT view_name FROM duckdb_views() WHERE NOT internal"
).fetchall()
rows = {
    name: sorted(map(repr, db.execute(f"SELECT COLUMNS(*)::VARCHAR FROM {name}").fetchall()))
    for (name,) in names
}
json.dump({"version": duckdb.__version__, "rows": rows}, sys.stdout)
"""

WRITE = """
import sys, duckdb

db = duckdb.connect(sys.argv[1])
db.execute("BEGIN")
db.execute(
    "INSERT INTO ledger SELECT 'newer', i::VARCHAR, md5(i::VARCHAR), 'reserved', i, now() "
    "FROM range(20000) numbers(i)"
)
db.execute("UPDATE ledger SET usd = usd + 1 WHERE batch_id = 'newer'")
db.execute("DELETE FROM ledger WHERE batch_id = 'newer' AND usd > 10000")
db.execute("COMMIT")
db.execute("CHECKPOINT")
db.close()
"""


@dataclass(frozen=True)
class Contents:
    """What one version of DuckDB reads in a file: the rows of each table and view, as text."""

    version: str
    rows: dict[str, list[str]]


@pytest.fixture(scope="module")
def newer_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing but the newest DuckDB 2."""
    home = tmp_path_factory.mktemp("newer-duckdb")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, NEWER], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        pytest.fail(
            f"{NEWER} could not be installed from the package registry, so whether DuckDB 2 "
            f"reads our files is not known. pip said:\n{done.stderr}"
        )
    return python


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store with three batches that have ended, and its published copy."""
    store = FileStore(tmp_path / "home")
    with store.write() as db:
        fill(db)
    store.publish()
    return store


def _run(python: Path, script: str, database: Path) -> str:
    done = subprocess.run(
        [python, "-c", script, database], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _contents(python: Path, database: Path) -> Contents:
    told: dict[str, Any] = json.loads(_run(python, READ, database))
    return Contents(**told)


def test_a_newer_duckdb_reads_the_published_copy_as_ours_does(
    newer_python: Path, store: FileStore
) -> None:
    """A notebook with DuckDB 2 shows the same grades: every value of every table and view."""
    ours = _contents(Path(sys.executable), store.published_path)

    newer = _contents(newer_python, store.published_path)

    assert newer.version.startswith("2.")
    assert ours.version == duckdb.__version__
    assert newer.rows == ours.rows
    assert newer.rows["v_grades"]


def test_a_file_that_a_newer_duckdb_wrote_is_still_ours(
    newer_python: Path, store: FileStore, tmp_path: Path
) -> None:
    """Trying DuckDB 2 on a copy of the live file leaves the way back open."""
    before = _contents(Path(sys.executable), store.path).rows
    copied = FileStore(tmp_path / "copied")
    copied.home.mkdir(mode=0o700)
    shutil.copy(store.path, copied.path)

    _run(newer_python, WRITE, copied.path)

    assert check_store(copied).problems == ()
    with copied.write() as db:
        written = db.one(
            "SELECT count(*) AS n, sum(usd) AS usd FROM ledger WHERE batch_id = 'newer'"
        )
        db.execute("DELETE FROM ledger WHERE batch_id = 'newer'")
    assert written == {"n": 10_000, "usd": 50_005_000.0}
    assert _contents(Path(sys.executable), copied.path).rows == before
