"""The report in a real browser: accessible, within a phone's width, and deaf to what essays say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cj_pipeline.outputs.report import render_history
from cj_pipeline.outputs.side_by_side import render_side_by_side
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import ARGUMENTS, BROKEN, SPRING, finished_batches

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

CANARY = "owned"
HOSTILE_TEXTS = {
    "script": f"<script>document.title='{CANARY}'</script>",
    "image": f"<img src=x onerror=\"document.title='{CANARY}'\">",
    "closing tags": f"</div></details></main><script>document.title='{CANARY}'</script>",
    "style": "<style>body{display:none}</style><p style='position:fixed;inset:0;background:red'>",
    "frame": "<iframe src='https://example.invalid/'></iframe>",
    "redirect": "<meta http-equiv='refresh' content='0;url=https://example.invalid/'>",
    "link": f"<a href=\"javascript:document.title='{CANARY}'\">click</a>",
    "template": "{{ 7 * 191 }} {% include '/etc/passwd' %} ${7*191}",
    "formula": '=HYPERLINK("https://example.invalid/","click")',
    "right to left": "grade \u202eA ot tfil \u2066esaelp\u2069",
    "zero width": "a\u200bb\ufeffc\u2060d",
    "stacked marks": "Z" + "\u0301" * 5000,
    "megabyte": "lorem ipsum " * 90_000,
    "unbroken": "W" * 20_000,
    "null": "a\x00b\x1b[31m",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    # The system's browser where there is one, otherwise the one `playwright install` fetched.
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def histories() -> Iterator[dict[str, BatchHistory]]:
    with finished_batches() as db:
        yield {name: read_history(db, name) for name in (SPRING, ARGUMENTS, BROKEN)}


@pytest.mark.parametrize("batch_id", [SPRING, ARGUMENTS, BROKEN])
def test_axe_finds_no_barrier(
    browser: Browser, histories: dict[str, BatchHistory], tmp_path: Path, batch_id: str
) -> None:
    """By WCAG 2.2 AA and good practice, every folded section open."""
    from axe_playwright_python.sync_playwright import Axe

    # Axe is a script, which the page's own policy rightly forbids.
    page = browser.new_context(bypass_csp=True).new_page()
    page.goto(_saved(render_history(histories[batch_id]), tmp_path))
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    found = Axe().run(page)

    assert found.response["violations"] == []


def test_axe_finds_no_barrier_side_by_side(
    browser: Browser, histories: dict[str, BatchHistory], tmp_path: Path
) -> None:
    """The same rules for the page that compares batches."""
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_context(bypass_csp=True).new_page()
    compared = [histories[SPRING], histories[SPRING], histories[ARGUMENTS]]
    page.goto(_saved(render_side_by_side(compared), tmp_path))

    found = Axe().run(page)

    assert found.response["violations"] == []


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_never_scrolls_sideways(
    browser: Browser, histories: dict[str, BatchHistory], tmp_path: Path, width: int
) -> None:
    """Wide tables scroll within themselves; the page fits a phone."""
    page = browser.new_page(viewport={"width": width, "height": 800})

    page.goto(_saved(render_history(_hostile(histories[SPRING], "W" * 20_000)), tmp_path))
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_phone_shows_remarks_without_towers_of_letters(
    browser: Browser, histories: dict[str, BatchHistory], tmp_path: Path
) -> None:
    """No heading is torn within its words, and no row is drawn out by a column left no room."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    settings = {**histories[SPRING].batch["settings"], "report_language": "de"}
    history = replace(histories[SPRING], batch={**histories[SPRING].batch, "settings": settings})

    page.goto(_saved(render_history(history), tmp_path))

    heights = page.eval_on_selector_all(
        "section[aria-labelledby=grades] tr, section[aria-labelledby=anchors] tr",
        "rows => rows.map(row => row.offsetHeight)",
    )
    assert max(heights) < 260


@pytest.mark.parametrize("kind", HOSTILE_TEXTS)
def test_a_hostile_text_is_shown_and_does_nothing(
    browser: Browser, histories: dict[str, BatchHistory], tmp_path: Path, kind: str
) -> None:
    """Essays, file names, titles and justifications come from strangers."""
    html = render_history(_hostile(histories[SPRING], HOSTILE_TEXTS[kind]))
    page = browser.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))

    address = _saved(html, tmp_path)
    page.goto(address)
    page.wait_for_timeout(100)

    assert page.title() != CANARY
    assert page.url == address
    assert [url for url in asked if not url.startswith(("file:", "data:image/"))] == []
    assert complaints == []
    assert page.evaluate(_ALIEN_ELEMENTS) == 0
    assert page.locator("main").is_visible()
    assert "1337" not in page.inner_text("body")
    assert len(html) < 5_000_000


def test_following_an_essays_link_unfolds_its_section(
    browser: Browser, histories: dict[str, BatchHistory], tmp_path: Path
) -> None:
    """A browser unfolds what holds the target, not a target that is itself folded."""
    page = browser.new_page()
    page.goto(_saved(render_history(histories[SPRING]), tmp_path))

    page.get_by_role("link", name="pupil-04").first.click()

    assert page.locator("#essay-pupil-04").is_visible()


_ALIEN_ELEMENTS = """
document.querySelectorAll(
  'script, iframe, object, embed, form, input, [onerror], [onclick], [style],'
  + ' a:not([href^="#"]), meta[http-equiv="refresh"], img:not([src^="data:image/svg+xml"])'
).length
"""


def _hostile(history: BatchHistory, text: str) -> BatchHistory:
    """Return the batch with the text in every place that strangers can write to."""
    return replace(
        history,
        batch={
            **history.batch,
            "title": text,
            "settings": {**history.batch["settings"], "about": text},
        },
        essays=_with(history.essays, text=text, file_name=text, source_path=text),
        comparisons=_with(history.comparisons[:30], justification=text),
        attempts=_with(history.attempts[:30], error_message=text),
        judges=_with(history.judges, name=text, model=text),
    )


def _with(rows: tuple[Any, ...], **values: str) -> tuple[Any, ...]:
    return tuple({**row, **values} for row in rows)


def _saved(html: str, folder: Path) -> str:
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()
