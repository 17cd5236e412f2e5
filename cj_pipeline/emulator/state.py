"""The emulator's memory: one SQLite file that any number of processes share.

Every transaction is short and whole, so a process killed at any instruction leaves either all of
a request's effect or none. Files lie in a folder next to it and are renamed into place before the
row that names them is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import portalocker

from cj_pipeline.emulator.config import EmulatorConfig, Settings

_BUSY_MS = 60_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    file_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, account TEXT NOT NULL, api TEXT NOT NULL,
    purpose TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    created_at REAL NOT NULL, expires_at REAL, path TEXT, job_id TEXT, is_deleted INTEGER NOT NULL
        DEFAULT 0, n_read INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, account TEXT NOT NULL, api TEXT NOT NULL,
    model TEXT NOT NULL, name TEXT NOT NULL, created_at REAL NOT NULL, request TEXT NOT NULL,
    plan TEXT NOT NULL, n_requests INTEGER NOT NULL, content_sha256 TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, results_path TEXT NOT NULL, cancel_at REAL, done_at_cancel REAL,
    due_at REAL, ended TEXT, is_deleted INTEGER NOT NULL DEFAULT 0,
    n_read INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS due_jobs ON jobs (due_at) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS rows (
    job_id TEXT NOT NULL, n INTEGER NOT NULL, custom_id TEXT, finish REAL NOT NULL,
    ok INTEGER NOT NULL, counted INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
    prompt INTEGER NOT NULL, cached INTEGER NOT NULL, written INTEGER NOT NULL,
    completion INTEGER NOT NULL, reasoning INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS rows_by_finish ON rows (job_id, finish);
CREATE TABLE IF NOT EXISTS single_calls (
    call_id INTEGER PRIMARY KEY, account TEXT NOT NULL, api TEXT NOT NULL, model TEXT NOT NULL,
    created_at REAL NOT NULL, prompt_sha256 TEXT NOT NULL, custom_id TEXT, ok INTEGER NOT NULL,
    is_verdict INTEGER NOT NULL, prompt INTEGER NOT NULL, cached INTEGER NOT NULL,
    written INTEGER NOT NULL, completion INTEGER NOT NULL, reasoning INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_by_prompt ON single_calls (prompt_sha256);
CREATE TABLE IF NOT EXISTS cached_prefixes (
    account TEXT NOT NULL, prefix TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (account, prefix)
);
CREATE TABLE IF NOT EXISTS qualities (text_key TEXT PRIMARY KEY, quality REAL NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS overrides (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class State:
    """The emulator's state file; reopened for each use, so it may be shared by anything."""

    def __init__(self, config: EmulatorConfig) -> None:
        self.path = config.state_path
        self.folder = config.files_folder
        self._built_in = config.settings
        self.folder.mkdir(parents=True, exist_ok=True)
        # Turning a new file to WAL cannot wait for another process doing the same.
        with (
            portalocker.Lock(f"{self.path}.lock", timeout=60),
            contextlib.closing(self._connect()) as db,
        ):
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One whole transaction that no other writer can come between."""
        with contextlib.closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One read of the file."""
        with contextlib.closing(self._connect()) as db:
            yield db

    def settings(self) -> Settings:
        """Return the settings in force: those of the start, and what was changed since."""
        with self.read() as db:
            changed = {r["name"]: json.loads(r["value"]) for r in db.execute(_ALL_OVERRIDES)}
        changed.pop("clock_offset_s", None)
        if not changed:
            return self._built_in
        return Settings.model_validate({**self._built_in.model_dump(), **changed})

    def change_settings(self, changed: Mapping[str, Any]) -> Settings:
        """Put changed settings in force for every process; return all of them.

        Raises:
            pydantic.ValidationError: If they cannot be used; then nothing is changed.
        """
        checked = Settings.model_validate({**self.settings().model_dump(), **changed})
        rows = [(name, json.dumps(checked.model_dump(mode="json")[name])) for name in changed]
        with self.write() as db:
            db.executemany("INSERT OR REPLACE INTO overrides VALUES (?, ?)", rows)
            if "faults" in changed:
                # A new script starts counting from its first request.
                db.execute("DELETE FROM counters WHERE name LIKE 'fault:%'")
        return checked

    def clock_offset_s(self) -> float:
        """Return how far the emulator's clock was put forward."""
        with self.read() as db:
            row = db.execute("SELECT value FROM overrides WHERE name = 'clock_offset_s'").fetchone()
        return float(row["value"]) if row else 0.0

    def advance_clock(self, seconds: float) -> float:
        """Put the clock forward for every process; return by how much in all."""
        total = self.clock_offset_s() + seconds
        with self.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO overrides VALUES ('clock_offset_s', ?)", [str(total)]
            )
        return total

    def count(self, name: str) -> int:
        """Return how often this was counted, this time included."""
        with self.write() as db:
            return next_number(db, name)

    def register_qualities(self, qualities: Mapping[str, float]) -> None:
        """Keep the latent quality of each text, in logits."""
        rows = [(text_key(text), float(quality)) for text, quality in qualities.items()]
        with self.write() as db:
            db.executemany("INSERT OR REPLACE INTO qualities VALUES (?, ?)", rows)

    def qualities(self) -> dict[str, float]:
        """Return the registered qualities by `text_key`."""
        with self.read() as db:
            return {r["text_key"]: r["quality"] for r in db.execute("SELECT * FROM qualities")}

    @contextlib.contextmanager
    def new_file(self) -> Iterator[tuple[str, IO[bytes]]]:
        """A file being written, under the name it has once it is whole."""
        name = uuid.uuid4().hex
        part = self.folder / f"{name}.part"
        try:
            with part.open("wb") as file:
                yield name, file
            part.replace(self.folder / name)
        finally:
            part.unlink(missing_ok=True)

    def file_path(self, name: str) -> Path:
        """Return where a file of that name lies."""
        return self.folder / name

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=_BUSY_MS / 1000, isolation_level=None)
        db.row_factory = sqlite3.Row
        # Safe against a killed process. A power cut need not be survived, and waiting for the disk
        # at each of these short connections' end would take most of a request's time.
        db.execute("PRAGMA synchronous = OFF")
        return db


_ALL_OVERRIDES = "SELECT name, value FROM overrides"


def next_number(db: sqlite3.Connection, name: str) -> int:
    """Count one more of this name inside a transaction; return how many there are now."""
    row = db.execute(
        "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
        " RETURNING value",
        [name],
    ).fetchone()
    return int(row["value"])


def insert(db: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> None:
    """Add one row; table and column names come from this package alone."""
    columns = ", ".join(values)
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values()))  # noqa: S608


def insert_rows(db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add a job's rows, in the order of the table's columns."""
    db.executemany("INSERT INTO rows VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", rows)


def text_key(text: str) -> str:
    """Return what a text is known by: white space does not count."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", errors="replace")).hexdigest()
