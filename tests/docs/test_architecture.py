"""The pages for those who change the code name what is there: packages, modules and tables."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest

from tests.support import ROOT
from tests.support.batches import open_engine, run_to_end, write_batch

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
TOPS = [ROOT, ROOT / "cj_pipeline"]


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    """The module that makes pages from the code."""
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _drawn(generated: ModuleType) -> list[list[tuple[str, str]]]:
    """Return the picture's rows, each package with its charter."""
    rows = re.findall(r"<li>(.*)</li>", generated.layers())
    return [re.findall(r"<div><code>(.*?)</code> (.*?)</div>", row) for row in rows]


def test_the_picture_shows_every_package_once(generated: ModuleType) -> None:
    """A package that the contract leaves out may import anything, and nobody would see it."""
    tree = {
        path.stem
        for path in (ROOT / "cj_pipeline").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    drawn = [name for row in _drawn(generated) for name, _ in row]

    assert sorted(drawn) == sorted(tree - {"__init__"} | {"assets", "resources"})


def test_the_picture_stands_in_the_order_of_the_contract(generated: ModuleType) -> None:
    """What is drawn lower may be imported by what is drawn higher, never the other way."""
    rows = [[name for name, _ in row] for row in _drawn(generated)]

    place = {name: i for i, row in enumerate(rows) for name in row}
    assert place["cli"] < place["steps"] < place["queries"] < place["scale"] < place["errors"]
    assert place["diagnostics"] == place["pairing"]


def test_every_package_in_the_picture_has_a_charter(generated: ModuleType) -> None:
    """A box with a name alone says nothing to a newcomer."""
    bare = [name for row in _drawn(generated) for name, charter in row if len(charter) < 20]

    assert bare == []


def _named(text: str) -> Iterator[str]:
    """Yield every source file, folder or dotted name of ours that a page has in code."""
    for code in re.findall(r"`([^`\n]+)`", text):
        is_path = re.fullmatch(r"([a-z_]+)/(?:[a-z_]+/)*(?:[a-z_]+\.(?:py|yaml|sql))?", code)
        # A path may also be one of a batch's folder, which is not ours.
        is_ours = is_path and any((top / is_path[1]).is_dir() for top in TOPS)
        if is_ours or re.fullmatch(r"cj_pipeline(?:\.\w+)+", code):
            yield code


def _is_there(name: str) -> bool:
    if "/" in name:
        return any((top / name).exists() for top in TOPS)
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_a_page_names_is_there(page: Path) -> None:
    """Modules move; a page that still names the old place sends its reader astray."""
    named = set(_named(page.read_text("utf-8")))

    assert [name for name in sorted(named) if not _is_there(name)] == []


def test_the_trip_names_tables_that_a_batch_fills(tmp_path: Path) -> None:
    """The rows the page promises are there once a batch has gone its way."""
    trip = PAGE.partition("## The trip")[2].partition("## ")[0]
    named = re.findall(r"Rows: (.+?)\.", trip, flags=re.S)
    tables = {table for row in named for table in re.findall(r"`([a-z_]+)`", row)}
    assert len(tables) >= 15
    settings = {
        "judges": ["quality"],
        "scale": "eng5_np_national_9_step",
        "max_pairwise_comparisons": 90,
        "all_at_once": True,
        "emulator_qualities": {f"anchor-{n:03d}": float(n) for n in range(1, 10)}
        | {f"student-{n:03d}": 2.0 * n for n in range(1, 5)},
    }
    folder = write_batch(tmp_path / "batch", n_students=4, n_anchors=9, settings=settings)

    engine = open_engine(tmp_path / "home")
    run_to_end(engine, folder)

    with engine.store.read() as db:
        empty = [table for table in tables if not db.one(f"FROM {table} LIMIT 1")]
    assert empty == []


def test_contributing_names_tests_there_are() -> None:
    """What a newcomer types first has to work."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

    named = re.findall(r"pytest (tests/\S+)", text)

    assert len(named) >= 3
    assert [path for path in named if not (ROOT / path).is_file()] == []
