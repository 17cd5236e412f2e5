"""An emulator that others can reach takes one key and no other."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from cj_pipeline.errors import CJError
from tests.support.batches import begin, end, open_engine, write_batch
from tests.support.served_emulator import served_emulator
from tests.support.served_runtime import TOKEN


@pytest.mark.parametrize("judge", ["quality", "quality-messages", "quality-gemini"])
def test_a_batch_is_judged_with_the_token_and_refused_without(tmp_path: Path, judge: str) -> None:
    """Files, jobs, results and the qualities told beforehand: all of it needs the token."""
    settings = {
        "judges": [judge],
        "max_pairwise_comparisons": 3,
        "max_resampling_passes_for_small_net": 0,
        "emulator_qualities": {"student-001": 1.0},
    }
    folder = write_batch(tmp_path / "small", n_students=3, settings=settings)
    with served_emulator(tmp_path / "emulator", token=TOKEN) as address:
        knows = {"CJ_EMULATOR_URL": address, "CJ_EMULATOR_TOKEN": TOKEN}
        with pytest.raises(CJError):
            begin(open_engine(tmp_path / "stranger", {"CJ_EMULATOR_URL": address}), folder)
        runtime = open_engine(tmp_path / "home", knows)

        end(runtime, begin(runtime, folder))

    with runtime.store.read() as db:
        row = db.one("SELECT count(*) AS n FROM comparisons WHERE status = 'succeeded'")
    assert row == {"n": 3}


@pytest.mark.parametrize("path", ["/emulator/audit", "/v1/batches", "/v1/messages/batches"])
@pytest.mark.parametrize("key", [None, "wrong"])
def test_no_other_key_gets_anything(tmp_path: Path, path: str, key: str | None) -> None:
    """Essays lie in what was sent to it."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}", "x-api-key": key}
    with served_emulator(tmp_path, token=TOKEN) as address:
        refused = httpx2.get(address + path, headers=headers)
        let_in = httpx2.get(address + path, headers={"Authorization": f"Bearer {TOKEN}"})

    assert (refused.status_code, let_in.status_code) == (401, 200)
