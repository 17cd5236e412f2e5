"""What holds documents to schemas, and what it does not import."""

from __future__ import annotations

import subprocess
import sys


def test_grammars_that_no_contract_uses_are_not_compiled() -> None:
    """A process that publishes would spend seconds on formats of international addresses."""
    told = (
        "import sys, cj_pipeline.outputs.schema_validator; print('rfc3987_syntax' in sys.modules)"
    )

    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"


def test_date_times_are_still_checked() -> None:
    """Leaving grammars out leaves no format out that the contracts have."""
    from cj_pipeline.outputs.schema_validator import Validator

    checker = Validator.FORMAT_CHECKER

    assert not checker.conforms("yesterday", "date-time")
    assert not checker.conforms("not-a-uuid", "uuid")
    assert checker.conforms("2026-01-31T12:00:00Z", "date-time")
