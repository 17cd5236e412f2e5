"""The locked dependencies: one set of versions, from anywhere, and a try of newer ones."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support import ROOT

LOCK, TESTED = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
DEPLOYED = ROOT / "deploy" / "requirements.lock"


def _pinned(path: Path) -> set[tuple[str, str]]:
    return set(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE))


def test_what_is_run_and_deployed_is_what_is_tested() -> None:
    """An image with other versions than the tests saw would be untested, and one without FastAPI
    would start everything but the service."""
    assert _pinned(LOCK) < _pinned(DEPLOYED) < _pinned(TESTED)


def test_locks_name_versions_and_hashes_only() -> None:
    """The address of a registry in a lock would bind everybody to that registry."""
    line = re.compile(r"[\w.-]+==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")

    rows = [row for lock in (LOCK, TESTED, DEPLOYED) for row in lock.read_text().splitlines()]
    others = [row for row in rows if not line.fullmatch(row)]

    assert others == []


def test_trying_the_newest_versions_never_fails() -> None:
    """Somebody else's release must not break a nightly run; here even Python is missing."""
    done = subprocess.run(
        ["make", "--no-print-directory", "newest", "PYTHON=/nowhere/python3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "newest: FAILED" in done.stdout
