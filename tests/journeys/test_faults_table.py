"""The page that tells what each fault comes to says what really comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.emulator.config import JOB_FAULTS, REQUEST_FAULTS, ROW_FAULTS
from tests.support import ROOT
from tests.support.faults_table import CASES, N_COMPARISONS, SECTIONS, part

PAGE = ROOT / "docs" / "faults.md"


def test_every_fault_of_the_emulator_is_told() -> None:
    """A fault that is added and not told fails here; a status word nobody knows shows nothing."""
    told = {case.fault["kind"] for case in CASES}

    assert told == {*REQUEST_FAULTS, *JOB_FAULTS, *ROW_FAULTS} - {"status_word"}


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_says_what_comes(section: str, tmp_path: Path) -> None:
    """Made anew it is the same, word for word; and in every line everything is accounted for."""
    text, everything = part(section, tmp_path)

    assert text.strip() in PAGE.read_text()
    for came in everything:
        first = sum(n for kind, n in came.outcomes.items() if "on attempt" not in kind)
        # A job that failed for want of room judged nothing and is made again.
        assert came.n_paid_jobs <= came.n_submissions, came
        assert came.n_paid_twice == 0, came
        assert came.n_open == 0, came
        assert "running" not in came.ending, came
        assert first == N_COMPARISONS, came
        assert came.n_verdicts <= N_COMPARISONS, came
