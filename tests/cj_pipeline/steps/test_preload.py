"""Heavy modules are imported while a provider is waited for, not while grades are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cj_pipeline.steps.preload import import_ahead
from tests.support import ROOT

_TO_ITS_END = """
import sys
from pathlib import Path
from cj_pipeline.steps.advance import advance_to_end
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.preload import import_ahead
from tests.support.batches import open_engine, write_batch

home = Path(sys.argv[1])
engine = open_engine(home, {"CJ_EMULATOR_SETTINGS": '{"latency_s": 0.3}'})
folder = write_batch(home / "batch", n_students=2, n_anchors=6, settings={
    "all_at_once": True, "scale": "eng5_np_national_9_step", "max_anchor_disagreement": 9,
    "max_extrapolated_share": 1, "judges": ["quality"], "max_pairwise_comparisons": 28,
    "emulator_qualities": {f"anchor-{n:03d}": n - 3.5 for n in range(1, 7)},
})
ingest(engine, folder)
import_ahead(float("inf"))
late = []
for taken in advance_to_end(engine, "batch"):
    if taken.step in {"collect", "decide", "project", "publish"}:
        late += set(sys.modules) - before
    before = set(sys.modules)
with engine.store.read() as db:
    print(len(db.rows("SELECT * FROM grade_projections")))
print(*sorted(name for name in late if name.count(".") < 2))
"""


def test_nothing_large_is_imported_once_a_provider_has_ended(tmp_path: Path) -> None:
    """What is forgotten in the list would be waited for by every `cj execute`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _TO_ITS_END, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    n_grades, late = done.stdout.split("\n")[-3], done.stdout.split("\n")[-2].split()
    assert int(n_grades) == 8
    assert [name for name in late if name.partition(".")[0] in LARGE] == []


LARGE = {"cj_pipeline", "jinja2", "jsonschema", "matplotlib", "numpy", "PIL", "scipy", "xlsxwriter"}


def test_what_cannot_be_imported_fails_where_it_is_needed() -> None:
    """A missing package must not end the waiting; its step says what it is missing."""
    assert import_ahead(1.0, ["no_such_module"]) > 0
    assert "no_such_module" not in sys.modules


def test_nothing_is_begun_once_the_time_is_over() -> None:
    """A provider's end is looked for when it is due, however much is left to import."""
    sys.modules.pop("this", None)

    import_ahead(0.0, ["this"])

    assert "this" not in sys.modules


def test_with_nothing_left_no_time_has_passed() -> None:
    """Pauses are then exactly as long as they would be."""
    assert import_ahead(1.0, ["sys", "os"]) == 0.0
