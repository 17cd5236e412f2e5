"""An operator who kills upgrades, goes back, sets clocks and runs out of everything."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.storage.private_files import open_to_others
from cj_pipeline.store.file_store import FileStore, connect_file
from cj_pipeline.store.migrations import known_migrations, migrate, schema_version
from tests.support.batches import ManualClock, begin, open_engine, run_to_end, write_batch
from tests.support.finished_batches import SPRING, fill
from tests.support.nightly import many
from tests.support.store_faults import n_comparisons

NEWEST = known_migrations()[-1].version
AT_FIRST = known_migrations()[:1]
N_STATEMENTS = 1 + 5 * (len(known_migrations()) - 1)
"""The version is looked up first. Then each migration begins, makes its history's table, does its
work, records itself and commits."""

EVERY = many(N_STATEMENTS // 8, 1)

CJ = Path(sys.executable).with_name("cj")
IS_ROOT = os.geteuid() == 0
NOBODY = 65534
ROOT_OF_TEMPORARY_FILES = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/var/tmp"  # noqa: S108


# What runs in a process of its own is forked: DuckDB is not open here while it is.
FORK = multiprocessing.get_context("fork")


def in_a_process(do: Callable[[], Any]) -> int:
    """Do something in a process of its own; return its exit code, negative for a signal."""
    process = FORK.Process(target=do)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


class _Fragile:
    """A connection whose process is killed before the n-th statement."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, n: int) -> None:
        self._connection = connection
        self._left = n

    def execute(self, *statement: Any) -> Any:
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return self._connection.execute(*statement)


@pytest.mark.parametrize("n", range(2, N_STATEMENTS, EVERY))
def test_an_upgrade_that_is_killed_is_finished_by_the_next_command(tmp_path: Path, n: int) -> None:
    """At whichever statement: the store is at some whole version, with every row, and goes on."""
    path = tmp_path / "cj.duckdb"

    def age() -> None:
        with closing(connect_file(path, read_only=False)) as connection:
            migrate(connection, AT_FIRST)
            connection.execute("INSERT INTO ledger VALUES ('b', 'k', 'j', 'billed', 0.25, now())")

    def upgrade() -> None:
        with closing(connect_file(path, read_only=False)) as connection:
            migrate(_Fragile(connection, n))  # type: ignore[arg-type]

    assert in_a_process(age) == 0
    killed = in_a_process(upgrade)

    with closing(connect_file(path, read_only=False)) as connection:
        left = schema_version(connection)
    with FileStore(tmp_path).read() as db:
        found = db.rows("SELECT usd FROM ledger")
        reached = db.one("SELECT max(version) AS version FROM schema_migrations")
    assert killed == -signal.SIGKILL
    assert left in {m.version for m in known_migrations()}
    assert left < NEWEST
    assert (found, reached) == ([{"usd": 0.25}], {"version": NEWEST})


def test_a_home_of_the_newer_version_is_refused_by_the_older_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes back after an upgrade is told so, whichever command they type."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path))
    store = FileStore(tmp_path)
    with store.write() as db:
        fill(db)
        db.execute("INSERT INTO schema_migrations VALUES (9999, 'later', '', now())")
    before = contents(store.path)

    commands = (
        ["status"],
        ["cost"],
        ["queue"],
        ["preflight"],
        ["essay", SPRING, "pupil-01"],
        ["report", SPRING],
        ["regrade", SPRING],
        ["store", "migrate"],
        ["store", "compact"],
        ["forget", SPRING, "--yes"],
    )
    for command in commands:
        done = CliRunner().invoke(app, command)

        said = " ".join(done.output.replace("│", " ").split())
        assert done.exit_code == 1, command
        assert "update this installation" in said or "Nothing is published" in said, (command, said)
        assert "Traceback" not in said, command
    assert contents(store.path) == before


def contents(path: Path) -> dict[str, tuple[int, int]]:
    """Return of each table how many rows it has, and a sum over all their values."""
    with closing(connect_file(path, read_only=True)) as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {
            name: connection.execute(
                f'SELECT count(*), coalesce(sum(hash(t)), 0)::HUGEINT FROM "{name}" t'  # noqa: S608
            ).fetchone()  # type: ignore[misc]
            for (name,) in tables
        }


@pytest.mark.parametrize(
    "jumps",
    [
        (timedelta(days=-1),),
        (timedelta(hours=2),),
        (timedelta(hours=-2), timedelta(hours=2)),
        (timedelta(minutes=30), timedelta(days=-400)),
    ],
    ids=["a day back", "two hours on", "back and on", "on and over a year back"],
)
def test_a_clock_that_jumps_costs_nothing_twice(
    tmp_path: Path, jumps: tuple[timedelta, ...]
) -> None:
    """A machine wakes with the wrong time, and somebody sets it right in the middle of a batch."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    folder = write_batch(
        tmp_path / "small",
        n_students=4,
        settings={
            "judges": ["quality"],
            "max_pairwise_comparisons": 6,
            "max_resampling_passes_for_small_net": 0,
        },
    )
    batch = begin(runtime, folder)

    n_steps = 0
    while True:
        with runtime.store.read() as db:
            if load_batch(db, batch).has_ended:
                break
        clock.now += jumps[n_steps % len(jumps)] if n_steps < 6 else timedelta(seconds=20)
        take_next_step(runtime, batch)
        n_steps += 1
        assert n_steps < 60, "the batch waits for a time that is long in coming"

    with runtime.store.read() as db:
        row = db.one(
            "SELECT (SELECT count(*) FROM attempts) AS attempts,"
            " (SELECT count(DISTINCT comparison_id) FROM comparisons WHERE status = 'succeeded')"
            " AS verdicts, (SELECT count(*) FROM ledger WHERE kind = 'billed')"
            " - (SELECT count(*) FROM provider_jobs) AS bills_too_many,"
            " (SELECT count(*) - max(wave) FROM provider_jobs) AS jobs_too_many,"
            " (SELECT state FROM batches) AS state"
        )
    assert row == {
        "attempts": 6,
        "verdicts": 6,
        "bills_too_many": 0,
        "jobs_too_many": 0,
        "state": "succeeded",
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one published batch, and its folder beside it."""
    folder = tmp_path_factory.mktemp("finished")
    batch = write_batch(
        folder / "small",
        n_students=3,
        settings={"judges": ["quality"], "max_resampling_passes_for_small_net": 0},
    )
    run_to_end(open_engine(folder / "home"), batch)
    return folder / "home"


LOOKS = (["status"], ["report", "small"], ["essay", "small", "student-001"], ["store", "check"])


@pytest.mark.parametrize("limit", [12, 24, 48])
def test_few_open_files_are_enough_or_told(finished: Path, limit: int) -> None:
    """A service manager's limit, or a shell's: it is said, and nothing is damaged."""
    for look in LOOKS[::3]:
        done = subprocess.run(
            [CJ, *look],
            env={**os.environ, "CJ_HOME": str(finished)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 or "open files" in " ".join(said.split()), (look, said[-2000:])

    assert (
        CliRunner().invoke(app, ["store", "check"], env={"CJ_HOME": str(finished)}).exit_code == 0
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose parents anybody may pass through, as `/srv` or `/home` is."""
    made = Path(tempfile.mkdtemp(prefix="open-", dir=ROOT_OF_TEMPORARY_FILES))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_nobody_else_reads_anything_of_a_home(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever commands have made of it: tried by another account where this one may become it."""
    home = place / "home"
    monkeypatch.setenv("CJ_HOME", str(home))
    batch = write_batch(
        tmp_path / "small",
        n_students=3,
        settings={"judges": ["quality"], "max_resampling_passes_for_small_net": 0},
    )
    os.umask(0o022)
    commands = (
        ["token", "create", "office", "--scope", "read"],
        ["dry-run", str(batch)],
        ["execute", str(batch), "--await-completion"],
        ["forget", "small", "student-001", "--yes"],  # it takes exports with it: they come after
        ["export", "small", str(home / "exports")],
        ["store", "archive", "--older-than-days", "0"],
        ["store", "backup", str(home / "backups" / "monday.duckdb")],
        ["store", "compact"],
    )
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output)
    (place / "anybodys").write_text("x")
    (place / "anybodys").chmod(0o644)
    files = [path for path in home.rglob("*") if path.is_file()]

    assert len(files) > 10
    assert list(open_to_others(home)) == []
    assert as_nobody([home, *files, place / "anybodys"]) == {place / "anybodys"}


def as_nobody(paths: list[Path]) -> set[Path]:
    """Return which of some files and folders an account without rights reads.

    Without the right to become one, what its rights would be is read from the modes.
    """
    if not IS_ROOT:
        return {path for path in paths if path.stat().st_mode & 0o004}
    receive, send = FORK.Pipe(duplex=False)

    def look() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        send.send({path for path in paths if _can_read(path)})

    assert in_a_process(look) == 0
    found: set[Path] = receive.recv()
    return found


def _can_read(path: Path) -> bool:
    try:
        if path.is_dir():
            os.listdir(path)  # noqa: PTH208 - the right to list is what is asked
        else:
            path.read_bytes()
    except PermissionError:
        return False
    return True


FULL = (
    ("store", "compact"),
    ("store", "archive", "--older-than-days", "0"),
    ("store", "backup", "{home}/kept.duckdb"),
    ("store", "migrate"),
    ("forget", "small", "--yes"),
)


@pytest.mark.parametrize("free_kib", (64, 1024, 20_000)[:: many(2, 1)])
@pytest.mark.parametrize("command", FULL, ids=lambda command: " ".join(command[:2]))
def test_a_disk_that_is_nearly_full_costs_no_row(
    finished: Path, tmp_path: Path, command: tuple[str, ...], free_kib: int
) -> None:
    """On a real file system of that size where this account may mount one."""
    size = sum(path.stat().st_size for path in finished.rglob("*") if path.is_file())
    with small_disk(tmp_path / "disk", size // 1024 + 512 + free_kib) as (disk, limit):
        home = disk / "home"
        shutil.copytree(finished, home)
        before = n_comparisons(home)

        done = cj(home, *command, limit=limit)

        after = n_comparisons(home)
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert after == before or (command[0] == "forget" and after == 0)
        if done.returncode:
            assert after == before or command[0] == "forget", done.stdout + done.stderr


def test_a_home_on_a_disk_that_cannot_be_written_is_told(finished: Path, tmp_path: Path) -> None:
    """A backup that is mounted for reading, or a disk that the system has given up on."""
    with small_disk(tmp_path / "disk", 200_000) as (disk, _):
        home = disk / "home"
        shutil.copytree(finished, home)
        with read_only(disk):
            for look in (*LOOKS, ["token", "create", "office", "--scope", "read"]):
                done = cj(home, *look)
                said = " ".join((done.stdout + done.stderr).replace("│", " ").split())

                assert "Traceback" not in said, look
                assert done.returncode == 0 or "written" in said or "Read-only" in said, said

    assert n_comparisons(finished) == 3


def cj(home: Path, *arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own; `limit` is the largest file it may write, in bytes."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    return subprocess.run(
        [
            Path(sys.executable).with_name("cj"),
            *(a.replace("{home}", str(home)) for a in arguments),
        ],
        env={**os.environ, "CJ_HOME": str(home), "TMPDIR": str(home)},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[tuple[Path, int | None]]:
    """Give a file system of so many KiB; without the right to mount one, a folder and a limit.

    The limit is on the size of a file, which the kernel refuses to exceed as it refuses a write to
    a full disk.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "none", str(folder)]
    if not IS_ROOT or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield folder, kib * 1024 // 2
        return
    try:
        yield folder, None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Have a file system, or each folder below where it is none, refuse every write."""
    if os.path.ismount(disk):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
        yield
        return
    folders = [disk, *(path for path in disk.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o700)
