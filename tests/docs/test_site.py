"""The documentation is built as readers get it, and its tutorial is followed to the letter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import BaseModel

from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.judging.judges import JudgeFile
from tests.support import ROOT

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; `strict` in mkdocs.yml makes every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    return folder


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.loaded: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(values["id"] or "")
        if tag == "a" and values.get("href"):
            self.targets.add(values["href"] or "")
        if tag in {"script", "img", "iframe"} and values.get("src"):
            self.loaded.add(values["src"] or "")
        if tag == "link" and values.get("rel") in {"stylesheet", "preconnect", "icon"}:
            self.loaded.add(values["href"] or "")


def _read(page: Path) -> _Links:
    links = _Links()
    links.feed(page.read_text("utf-8"))
    return links


def _broken(site: Path) -> Iterator[str]:
    pages = {page: _read(page) for page in site.rglob("*.html")}
    for page, links in pages.items():
        if page.name == "404.html":
            continue
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            goal = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            goal = goal / "index.html" if goal.is_dir() else goal
            if not goal.exists():
                yield f"{page.relative_to(site)}: {target} is not there"
                continue
            place = unquote(parts.fragment)
            # Those that begin so are the theme's own, for its menus.
            if place and not place.startswith("__") and place not in pages[goal].anchors:
                yield f"{page.relative_to(site)}: {target} has no such place"


@pytest.mark.parametrize("model", [BatchSettings, JudgeFile])
def test_every_key_is_explained(model: type[BaseModel]) -> None:
    """The reference has a column for what a key means; an empty cell helps nobody."""
    unexplained = [name for name, field in model.model_fields.items() if not field.description]

    assert unexplained == []


@pytest.mark.slow
def test_every_page_can_be_reached(site: Path) -> None:
    """A page that is in no menu is found by nobody."""
    pages = {p.relative_to(ROOT / "docs").with_suffix(".html") for p in ROOT.glob("docs/*.md")}
    menu = {urlsplit(target).path for target in _read(site / "index.html").targets}

    assert {str(page) for page in pages} - menu == set()


def test_no_page_is_in_the_menu_twice() -> None:
    """Two entries for one page read like two pages."""
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    pages = re.findall(r"[\w./-]+\.md$", menu, flags=re.M)

    assert len(pages) > 30
    assert [page for page in set(pages) if pages.count(page) > 1] == []


@pytest.mark.slow
def test_every_link_leads_somewhere(site: Path) -> None:
    """A manual whose links are dead is not read twice."""
    assert list(_broken(site)) == []


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    """The site is read on machines without a network, and nobody is told who reads it."""
    loaded = {target for page in site.rglob("*.html") for target in _read(page).loaded}

    assert [target for target in loaded if urlsplit(target).netloc] == []


@pytest.mark.slow
def test_generated_pages_hold_what_the_code_says(site: Path) -> None:
    """A reference page that came out empty would pass every link check."""
    text = {p.stem: p.read_text("utf-8") for p in (site / "reference").glob("*.html")}

    assert "--max-comparisons" in text["commands"]
    assert "&lt;whole number&gt;" in text["commands"]
    assert "&lt;bool&gt;" not in text["commands"]
    assert "range&gt;" not in text["commands"]
    assert "max_pairwise_comparisons" in text["batch-yaml"]
    assert "key_variable" in text["judge-files"]
    assert "v_grade_probabilities" in text["tables"]
    assert "rows_add_up" in text["assets"]
    assert "eng5_np_national_9_step" in text["grade-scales"]
    assert "AmbiguousSubmissionError" in text["errors"]
    assert "fit_bradley_terry" in text["python-scores"]


@pytest.mark.slow
def test_tutorial_can_be_followed(tmp_path: Path) -> None:
    """The first thing a newcomer types has to work, in the order it is printed."""
    text = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    blocks = [b for b in re.findall(r"```sh\n(.*?)```", text, flags=re.S) if "make " not in b]
    blocks = [block for block in blocks if "activate" not in block]
    shutil.copytree(ROOT / "examples", tmp_path / "examples")

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"CJ_HOME": str(tmp_path / ".cj"), "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert len(blocks) >= 8
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Graded by 18 anchors" in done.stdout
