"""The pages for operators and for people who move over: every command on them is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cj_pipeline.trials.definitions import load_trial
from tests.support import ROOT
from tests.support.batches import write_batch

PAGES = (
    "migration.md",
    "migration-profiles.md",
    "migration-engine.md",
    "migration-tools.md",
    "trial-from-start-to-end.md",
)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_works(page: str, tmp_path: Path) -> None:
    """In the page's own order, in one folder, by a shell."""
    home = tmp_path / "home"
    write_batch(
        tmp_path / "spring-9",
        n_students=5,
        settings={"judges": ["quality"], "max_pairwise_comparisons": 10, "all_at_once": True},
    )
    eng5 = shutil.copytree(
        load_trial("eng5", tmp_path).batch_folder(tmp_path), tmp_path / "eng5-folder"
    )
    (eng5 / "batch.yaml").write_text("judges: [quality]\nscale: eng5_np_legacy_9_step\n")
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.S | re.M)
    assert blocks

    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ
        | {
            "CJ_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
