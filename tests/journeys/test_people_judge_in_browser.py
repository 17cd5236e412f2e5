"""People judge one batch at once in a real browser, beside a model; every verdict counts once."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cj_pipeline.people.links import make_links, revoke_links
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.next_step import NextStep
from tests.journeys.test_live_page_in_browser import served
from tests.support.batches import begin, finish, open_engine, run_to_end
from tests.support.people import graded_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

PATIENCE_MS = 60_000
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> A text that tries."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def going(tmp_path: Path) -> tuple[Runtime, str]:
    """A batch of several waves under way, with one hostile text."""
    runtime = open_engine(tmp_path / "home")
    folder = graded_folder(
        tmp_path / "both",
        judges=["quality", "people"],
        people={"share": 0.4, "repeat_every": 0},
        all_at_once=False,
        wave_size=20,
        max_pairwise_comparisons=60,
        release="needs_sign_off",
    )
    (folder / "essays" / "student-001.txt").write_text(HOSTILE * 30)
    return runtime, begin(runtime, folder)


def _open(page: Page, address: str, token: str) -> None:
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{address}/judge#{token}")
    page.locator("#begin, #first, #again").locator("visible=true").first.wait_for()
    if page.locator("#begin").is_visible():
        page.click("#begin")


def _judge_one(page: Page, *, keys: bool = False, double: bool = False) -> None:
    before = page.inner_text("#progress")
    if keys:
        page.locator("#pane-first").focus()
        page.keyboard.press("1")
        page.keyboard.press("Enter")
    else:
        page.click("#second")
        if double:
            page.dblclick("#confirm")
        else:
            page.click("#confirm")
    page.wait_for_function(
        "before => document.querySelector('#progress').textContent !== before", arg=before
    )


def _judge_all(page: Page, **how: Any) -> None:
    while page.locator("#bar").is_visible():
        _judge_one(page, **how)


def _screenshot(page: Page, name: str) -> None:
    """Keep a picture for people where a folder is named; none is compared."""
    folder = os.environ.get("CJ_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


def test_three_people_judge_beside_a_model(going: tuple[Runtime, str], browser: Browser) -> None:
    """One closes the laptop in the middle, one double-clicks, one uses keys alone."""
    runtime, batch_id = going
    links = {
        link.person: link for link in make_links(runtime, batch_id, ["anna", "ben", "cara"], by="t")
    }
    with served(runtime, token="a-token-of-sixteen-characters") as address:
        pages = {person: browser.new_context().new_page() for person in links}
        for person, page in pages.items():
            _open(page, address, links[person].token)
        assert links["anna"].token not in pages["anna"].url
        _screenshot(pages["anna"], "judging-desktop")
        held = pages["anna"].inner_text("#text-first")
        pages["anna"].reload()
        pages["anna"].wait_for_selector("#first")
        assert pages["anna"].inner_text("#text-first") == held
        _judge_one(pages["anna"], keys=True)
        _judge_one(pages["ben"], double=True)
        _judge_one(pages["cara"])
        pages["cara"].context.close()
        finish(runtime, batch_id)
        for person in ("anna", "ben"):
            pages[person].reload()
            pages[person].locator("#first, #again").locator("visible=true").first.wait_for()
        _judge_all(pages["ben"], double=True)
        _judge_all(pages["anna"], keys=True)
        # Cara comes back to what she held.
        back = browser.new_context().new_page()
        _open(back, address, links["cara"].token)
        _judge_all(back)
        assert back.title() == "Judge two texts"

    with runtime.store.read() as db:
        tasks = db.rows("SELECT part, n_verdicts FROM v_judging_tasks")
        answers = db.rows("SELECT person, assignment_id, winner FROM human_answers")
        counted = db.rows(
            "SELECT essay_a, essay_b FROM comparisons JOIN judges USING (batch_id, judge_id)"
            " WHERE provider = 'human'"
        )
        revision = db.one("SELECT max(revision) AS n FROM grading_reports")
    assert {task["n_verdicts"] for task in tasks} == {1}
    assert len(answers) == len(counted) == len(tasks) == len({a["assignment_id"] for a in answers})
    assert {a["person"] for a in answers} == {"anna", "ben", "cara"}
    lean = Counter[str]()
    for row in counted:
        lean[row["essay_a"]] += 1
        lean[row["essay_b"]] -= 1
    assert max(abs(n) for n in lean.values()) <= 3 * 2
    assert take_next_step(runtime, batch_id).step is NextStep.RESCORE
    with runtime.store.read() as db:
        assert db.one("SELECT max(revision) AS n FROM grading_reports") == {
            "n": (revision or {"n": 0})["n"] + 1
        }


def test_the_page_shows_two_texts_and_nothing_that_tells_whose_they_are(
    going: tuple[Runtime, str], browser: Browser
) -> None:
    """No name, grade, file, judge or verdict, in the page or in what it fetches."""
    runtime, batch_id = going
    (anna,) = make_links(runtime, batch_id, ["anna"], by="t")
    seen: list[str] = []
    with served(runtime) as address:
        page = browser.new_context().new_page()
        page.on(
            "response",
            lambda r: seen.append(r.text()) if "/judge/" in r.url and r.status == 200 else None,
        )
        _open(page, address, anna.token)
        for _ in range(2):
            _judge_one(page)
        page.click("#back")
        page.wait_for_function(
            "() => document.querySelector('#notice').textContent.includes('pair before')"
        )
        page.click("#first")
        page.click("#confirm")
        page.wait_for_function("() => document.querySelector('#saved').textContent === 'Saved'")
        page.wait_for_selector("#skip", state="visible")
        page.click("#skip")
        page.check("input[value='know the writer']")
        page.click("#skip-form button[type=submit]")
        page.wait_for_function("() => document.querySelector('#saved').textContent === 'Saved'")
    text = "\n".join(seen)
    assert len(seen) >= 5
    for secret in ("student-00", "anchor-00", ".txt", "quality", "winner", "grade"):
        assert secret not in text
    with runtime.store.read() as db:
        kinds = db.rows("SELECT kind, count(*) AS n FROM human_answers GROUP BY ALL ORDER BY kind")
        replaced = db.rows("SELECT winner FROM v_human_verdicts WHERE is_replaced")
    assert [tuple(row.values()) for row in kinds] == [("skip", 1), ("verdict", 3)]
    assert len(replaced) == 1


@pytest.mark.parametrize("width", [360, 1200])
def test_axe_finds_no_barrier(going: tuple[Runtime, str], browser: Browser, width: int) -> None:
    """In the welcome, the pair, the help and the reasons to skip, on a phone and a desktop."""
    from axe_playwright_python.sync_playwright import Axe

    runtime, batch_id = going
    (anna,) = make_links(runtime, batch_id, ["anna"], by="t")
    with served(runtime) as address:
        context = browser.new_context(
            viewport={"width": width, "height": 700}, bypass_csp=True, reduced_motion="reduce"
        )
        page = context.new_page()
        page.goto(f"{address}/judge#{anna.token}")
        page.wait_for_selector("#begin", state="visible")
        results = [Axe().run(page)]
        page.click("#begin")
        results.append(Axe().run(page))
        _screenshot(page, f"judging-{width}")
        page.click("#open-help")
        results.append(Axe().run(page))
        page.click("#close-help")
        page.click("#skip")
        results.append(Axe().run(page))
        _screenshot(page, f"skipping-{width}")
    found = "\n".join(r.generate_report() for r in results if r.violations_count)
    assert found == ""


def test_a_phone_shows_one_text_at_a_time_and_asks_for_both(
    going: tuple[Runtime, str], browser: Browser
) -> None:
    """Both buttons stay in reach, and nothing scrolls sideways."""
    runtime, batch_id = going
    (anna,) = make_links(runtime, batch_id, ["anna"], by="t")
    with served(runtime) as address:
        page = browser.new_context(viewport={"width": 360, "height": 640}).new_page()
        _open(page, address, anna.token)
        _screenshot(page, "judging-phone")
        assert page.locator("#pane-first").is_visible()
        assert not page.locator("#pane-second").is_visible()
        for button in ("#first", "#second", "#confirm"):
            box = page.locator(button).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= 640
            assert box["height"] >= 44
        page.click("#first")
        page.click("#confirm")
        assert "both texts" in page.inner_text("#notice")
        assert page.locator("#pane-second").is_visible()
        page.click("#confirm")
        page.wait_for_function(
            "() => document.querySelector('#progress').textContent.startsWith('1 judged')"
        )
        wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360


def test_a_link_that_was_revoked_opens_nothing_even_in_the_middle(
    going: tuple[Runtime, str], browser: Browser
) -> None:
    """And a token for judging opens nothing else of the service."""
    runtime, batch_id = going
    (anna,) = make_links(runtime, batch_id, ["anna"], by="t")
    with served(runtime, token="a-token-of-sixteen-characters") as address:
        page = browser.new_context().new_page()
        _open(page, address, anna.token)
        api = page.request.get(
            f"{address}/api/v1/batches", headers={"Authorization": f"Bearer {anna.token}"}
        )
        assert api.status == 401
        revoke_links(runtime, batch_id, "anna", by="t")
        page.click("#first")
        page.click("#confirm")
        page.wait_for_function(
            "() => document.querySelector('#notice').textContent.includes('not good')"
        )
        assert not page.locator("#bar").is_visible()
        other = browser.new_context().new_page()
        other.goto(f"{address}/judge#made-up-token")
        other.wait_for_function(
            "() => document.querySelector('#notice').textContent.includes('not good')"
        )
    with runtime.store.read() as db:
        assert db.rows("SELECT * FROM human_answers") == []


@pytest.mark.parametrize("width", [360, 1200])
def test_a_person_moderates_and_releases_on_the_page(
    tmp_path: Path, browser: Browser, width: int
) -> None:
    """Reads a text beside its neighbours, sets a grade with a reason, releases; axe is content."""
    from axe_playwright_python.sync_playwright import Axe

    runtime = open_engine(tmp_path / "home")
    batch_id = run_to_end(runtime, graded_folder(tmp_path / "held", release="needs_sign_off"))
    with served(runtime) as address:
        context = browser.new_context(viewport={"width": width, "height": 800}, bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{address}/moderation/{batch_id}")
        entry = page.locator("#queue > li", has_not_text="(anchor)").first
        entry.locator("summary").click()
        entry.locator(".texts section").first.wait_for()
        essay_id = entry.locator("h3").inner_text()
        found = Axe().run(page)
        _screenshot(page, f"moderation-{width}")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        page.fill("#by", "Ms Head")
        entry.locator("input[name=reason]").fill("off the topic")
        entry.locator("select").select_option("1")
        entry.locator("button[value=override]").click()
        page.get_by_text("override by Ms Head: off the topic").wait_for()
        page.click("#release")
        page.get_by_text("Released by Ms Head").wait_for()
    assert found.response["violations"] == []
    with runtime.store.read() as db:
        given = db.one("SELECT * FROM v_given_grades WHERE essay_id = ?", [essay_id])
    assert given is not None
    assert (given["given_grade"], given["status"]) == ("1", "released")
