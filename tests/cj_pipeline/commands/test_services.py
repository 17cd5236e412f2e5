"""What runs until it is stopped, as a supervisor stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.hosts import CJ


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    """After the step at hand, without a word of trouble: its supervisor is to see none."""
    with subprocess.Popen(
        [sys.executable, "-c", CJ, "work"],
        env={**os.environ, "CJ_HOME": str(tmp_path), "CJ_HOST": "here"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert "Worker here:" in worker.stdout.readline()
        # It looks for work once its store is there.
        while not (tmp_path / "cj.duckdb").exists():
            assert worker.poll() is None
            time.sleep(0.02)
        worker.send_signal(number)
        _, troubles = worker.communicate(timeout=60)

    assert (worker.returncode, troubles) == (0, "")
