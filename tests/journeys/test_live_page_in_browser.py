"""The live page in a real browser: it follows a batch, comes back after a break, and is safe."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from cj_pipeline.progress.events import is_cancel_requested
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.app import create_app
from cj_pipeline.service.auth import Access
from cj_pipeline.steps.advance import take_next_step
from tests.support.batches import begin, end, open_engine, write_batch
from tests.support.finished_batches import HOSTILE_TITLE, SPRING
from tests.support.served_runtime import TOKEN, home_with_batches

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "judges": ["quality"],
    "score_stability_threshold": None,
    "max_pairwise_comparisons": 6,
    "wave_size": 3,
}
PATIENCE_MS = 180_000


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


@contextmanager
def served(runtime: Runtime, *, token: str | None = None, port: int = 0) -> Iterator[str]:
    """Serve an engine over HTTP in a thread; give its address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(runtime, Access(token)), log_level="error", timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def begun(runtime: Runtime, tmp_path: Path) -> str:
    """Take a batch in, ask its first wave, and return its name."""
    folder = write_batch(tmp_path / "batch", n_students=4, settings=SETTINGS)
    return begin(runtime, folder)


def opened(browser: Browser, address: str, **options: Any) -> Page:
    """Open a page that waits as long as a busy machine needs."""
    page = browser.new_page(**options)
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    return page


def test_the_page_follows_a_batch_to_its_end(
    browser: Browser, runtime: Runtime, tmp_path: Path
) -> None:
    """Without being loaded again."""
    batch_id = begun(runtime, tmp_path)
    with served(runtime) as address:
        page = opened(browser, f"{address}/batches/{batch_id}")
        page.get_by_text("0 of 6", exact=True).wait_for()
        assert page.locator("#left").inner_text() == "unknown"

        end(open_engine(runtime.home), batch_id)

        page.get_by_text("Ended: success").wait_for()
        assert page.locator("#done").inner_text() == "6 of 6"
        assert page.locator("#share").inner_text() == "100 %"
        assert "ended" in page.locator("#events li").first.inner_text()
        assert page.locator("#judges tr").count() == 1
        assert not page.locator("#cancel").is_visible()
        assert not page.locator("#between").is_visible()


def test_the_time_left_is_shown_with_how_sure_it_is(
    browser: Browser, runtime: Runtime, tmp_path: Path
) -> None:
    """A figure alone would be taken for a promise."""
    batch_id = begun(runtime, tmp_path)
    take_next_step(runtime, batch_id)
    with served(runtime) as address:
        page = opened(browser, f"{address}/batches/{batch_id}")
        page.get_by_text("3 of 6", exact=True).wait_for()

        assert re.fullmatch(r"\d+ (s|min)", page.locator("#left").inner_text())
        between = page.locator("#between").inner_text()
        assert re.fullmatch(r"\d+ (s|min) to [\d.]+ (s|min|h)", between)


def test_the_page_comes_back_after_the_service_was_away(
    browser: Browser, runtime: Runtime, tmp_path: Path
) -> None:
    """And shows what it missed, once."""
    batch_id = begun(runtime, tmp_path)
    with served(runtime) as address:
        page = opened(browser, f"{address}/batches/{batch_id}")
        page.get_by_text("Live.").wait_for()
    page.get_by_text("trying again").wait_for()
    end(open_engine(runtime.home), batch_id)

    with served(runtime, port=int(address.rpartition(":")[2])):
        page.get_by_text("Ended: success").wait_for()
        numbers = page.eval_on_selector_all("#events li", "items => items.map(i => i.value)")

    assert numbers == sorted(set(numbers), reverse=True)
    assert numbers[-1] == 1


def test_cancelling_asks_first(browser: Browser, runtime: Runtime, tmp_path: Path) -> None:
    """And leaving it running is one key away."""
    batch_id = begun(runtime, tmp_path)
    with served(runtime) as address:
        page = opened(browser, f"{address}/batches/{batch_id}")
        page.get_by_role("button", name="Cancel the batch").click()
        page.keyboard.press("Escape")
        with runtime.store.read() as db:
            assert not is_cancel_requested(db, batch_id)

        page.get_by_role("button", name="Cancel the batch").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel the batch").click()

        page.get_by_text("Being cancelled").wait_for()
        with runtime.store.read() as db:
            assert is_cancel_requested(db, batch_id)


def test_a_token_is_asked_for_and_not_kept(
    browser: Browser, runtime: Runtime, tmp_path: Path
) -> None:
    """The session's cookie is out of every script's reach."""
    batch_id = begun(runtime, tmp_path)
    with served(runtime, token=TOKEN) as address:
        page = opened(browser, f"{address}/batches/{batch_id}")
        page.get_by_label("The service's token").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("That is not the service's token.").wait_for()

        page.get_by_label("The service's token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()

        page.get_by_text("0 of 6", exact=True).wait_for()
        assert page.evaluate("document.cookie") == ""
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert TOKEN not in page.content()


def test_a_batch_is_started_in_a_form_and_followed(
    browser: Browser, runtime: Runtime, tmp_path: Path
) -> None:
    """On a phone, without a script until the batch's own page; its progress is there at once."""
    folder = write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS)
    with served(runtime, token=TOKEN) as address:
        context = browser.new_context(
            java_script_enabled=False, viewport={"width": 390, "height": 844}
        )
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{address}/start")
        page.get_by_label("A token that may submit batches").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("A batch folder").set_input_files(folder)
        page.get_by_label("quality simulated", exact=False).first.check()
        page.get_by_label("At most this many comparisons").fill("6")
        page.get_by_role("button", name="Show the plan and its price").click()
        page.get_by_role("heading", name="Plan for spring-9").wait_for()
        assert "USD expected" in page.content()
        box = page.locator("body").bounding_box()
        assert box is not None
        assert box["width"] <= 390

        page.get_by_role("button", name="Start it").click()
        page.wait_for_url("**/batches/spring-9")
        assert (runtime.inbox / "spring-9" / "essays" / "student-001.txt").is_file()
        begin(runtime, runtime.inbox / "spring-9")
        live = browser.new_context(storage_state=context.storage_state()).new_page()
        live.set_default_timeout(PATIENCE_MS)
        live.goto(page.url)

        live.get_by_text("0 of 6", exact=True).wait_for()


def test_the_list_leads_to_a_batch(browser: Browser, tmp_path: Path) -> None:
    """Its title, which strangers write, is only text."""
    with served(home_with_batches(tmp_path / "home")) as address:
        page = opened(browser, address)
        page.get_by_role("row", name=SPRING).get_by_text(HOSTILE_TITLE, exact=True).wait_for()
        page.get_by_role("link", name=SPRING).click()

        page.get_by_role("heading", name=HOSTILE_TITLE).wait_for()
        assert page.title() != "owned"


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_never_scrolls_sideways(browser: Browser, tmp_path: Path, width: int) -> None:
    """Wide tables scroll within themselves; the page fits a phone."""
    with served(home_with_batches(tmp_path / "home")) as address:
        page = opened(
            browser, f"{address}/batches/{SPRING}", viewport={"width": width, "height": 800}
        )
        page.get_by_text("Ended: partial").wait_for()

        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("path", ["/", "/start", f"/batches/{SPRING}"])
def test_axe_finds_no_barrier(browser: Browser, tmp_path: Path, path: str) -> None:
    """By WCAG 2.2 AA and good practice."""
    from axe_playwright_python.sync_playwright import Axe

    with served(home_with_batches(tmp_path / "home")) as address:
        # Axe is a script, which the page's own policy rightly forbids.
        page = browser.new_context(bypass_csp=True).new_page()
        page.goto(f"{address}{path}")
        shown = {"/": SPRING, "/start": "Show the plan"}.get(path, "Ended: partial")
        page.get_by_text(shown).first.wait_for()

        found = Axe().run(page)

    assert found.response["violations"] == []


def test_axe_finds_no_barrier_at_the_door(browser: Browser, runtime: Runtime) -> None:
    """Nor in the form that asks for the token."""
    from axe_playwright_python.sync_playwright import Axe

    with served(runtime, token=TOKEN) as address:
        page = browser.new_context(bypass_csp=True).new_page()
        page.goto(address)
        page.get_by_label("The service's token").wait_for()

        found = Axe().run(page)

    assert found.response["violations"] == []


def test_the_page_loads_nothing_from_elsewhere(browser: Browser, tmp_path: Path) -> None:
    """And its policy has nothing to complain of."""
    with served(home_with_batches(tmp_path / "home")) as address:
        page = browser.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"{address}/batches/{SPRING}")
        page.get_by_text("Ended: partial").wait_for()

    assert [url for url in asked if not url.startswith(address)] == []
    assert [text for text in complaints if "Content Security Policy" in text] == []
