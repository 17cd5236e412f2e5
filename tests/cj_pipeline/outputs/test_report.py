"""The report: says what matters first, hides nothing, and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.outputs.report import END_REASONS, FAILURES, render_history, render_report
from cj_pipeline.queries.history import read_history
from cj_pipeline.stopping.continuation import EndReason
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session
from tests.support.finished_batches import (
    ARGUMENTS,
    BROKEN,
    HOSTILE,
    HOSTILE_TITLE,
    SPRING,
    finished_batches,
    insert_all,
    spring_rows,
)


class Page(HTMLParser):
    """What a browser would find in a page: its elements, and the text people see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[str] = []
        self.style = ""
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in {"style", "title"}:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside == ["style"]:
            self.style += data
        else:
            self.seen.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.seen))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def db() -> Iterator[Session]:
    with finished_batches() as session:
        yield session


@pytest.fixture(scope="module")
def spring(db: Session) -> Page:
    return Page(render_report(db, SPRING))


def test_every_student_stands_in_the_report_with_grade_and_uncertainty(
    db: Session, spring: Page
) -> None:
    """That table is what the page is opened for."""
    rows = db.rows(
        "SELECT essay_id, grade, confidence FROM grade_projections"
        " WHERE batch_id = ? AND NOT is_anchor",
        [SPRING],
    )

    for row in rows:
        likely = f"{row['grade']}: {100 * row['confidence']:.0f}\u00a0%"
        assert row["essay_id"] in spring.text
        assert likely in spring.text


def test_markup_from_outside_is_shown_and_not_obeyed(spring: Page) -> None:
    """Titles, texts and justifications are written by strangers."""
    assert spring.all("script") == []
    assert HOSTILE_TITLE in spring.text
    assert HOSTILE in spring.text
    assert "49" not in spring.text.split("{{ 7 * 7 }}")[1][:20]


def test_characters_nobody_sees_are_spelled_out() -> None:
    """A right-to-left override would turn the words after it around."""
    with FileStore.in_memory().write() as db:
        rows = spring_rows()
        rows["comparisons"][0]["justification"] = "good\u202egrade\u200b"
        insert_all(db, rows)

        page = Page(render_report(db, SPRING))

    assert "good[U+202E]grade[U+200B]" in page.text


def test_the_policy_allows_its_own_style_and_inline_pictures_only(spring: Page) -> None:
    """Even markup that slipped through could then run nothing and send nothing."""
    (policy,) = [
        meta["content"]
        for meta in spring.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = base64.b64encode(hashlib.sha256(spring.style.encode()).digest()).decode()

    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def test_the_page_needs_nothing_but_itself(spring: Page) -> None:
    """It is mailed, archived and opened without a network."""
    addresses = [
        value
        for _, attributes in spring.elements
        for key, value in attributes.items()
        if key in {"src", "href", "action", "data", "srcset"}
    ]

    assert all(address and address.startswith(("data:image/", "#")) for address in addresses)


def test_every_link_leads_somewhere(spring: Page) -> None:
    """A dead link in a page of its own can only be our mistake."""
    ids = [attributes["id"] for _, attributes in spring.elements if "id" in attributes]
    targets = {str(link["href"])[1:] for link in spring.all("a")}

    assert len(ids) == len(set(ids))
    assert targets <= set(ids)


def test_every_picture_is_told_in_words_and_every_table_has_a_caption(spring: Page) -> None:
    """Some readers hear the page."""
    assert all(picture["alt"] for picture in spring.all("img"))
    assert len(spring.all("caption")) == len(spring.all("table"))


def test_the_page_is_english_and_an_essay_in_the_batchs_language() -> None:
    """A screen reader pronounces by it; only the essays are in the students' language."""
    with FileStore.in_memory().write() as db:
        rows = spring_rows()
        rows["batches"][0]["settings"]["language"] = "sv"
        insert_all(db, rows)

        page = Page(render_report(db, SPRING))

    (root,) = page.all("html")
    texts = [div for div in page.all("div") if div.get("class") == "text"]
    assert root["lang"] == "en"
    assert texts
    assert all(text["lang"] == "sv" for text in texts)


def test_a_simulated_judge_is_said_so_above_the_grades(spring: Page) -> None:
    """Made-up verdicts must never pass for judgement."""
    banner = spring.text.index("A simulated judge gave these verdicts")

    assert banner < spring.text.index("students' essays, best first")


def test_recorded_votes_are_not_called_simulated(db: Session) -> None:
    """People did cast them; only the judge is played."""
    page = Page(render_report(db, ARGUMENTS))

    assert "votes that people cast" in page.text
    assert "A simulated judge" not in page.text


def test_what_the_batch_says_of_itself_stands_on_top(spring: Page) -> None:
    """That texts are machine-written changes how every figure is read."""
    assert spring.text.index("These texts are machine-written.") < spring.text.index("Essays")


def test_a_failed_batch_says_why_and_shows_no_grades(db: Session) -> None:
    """Partial scores under a friendly heading would be used."""
    page = Page(render_report(db, BROKEN))

    assert "This batch failed: low success rate" in page.text
    assert "invalid output" in page.text
    assert "Grade" not in page.text.split("Wave by wave")[0].replace("no grades", "")


def test_withheld_grades_come_with_their_statement(db: Session) -> None:
    """A reader who misses grades must learn why."""
    page = Page(render_report(db, ARGUMENTS))

    assert "Scores and ranks, no grades" in page.text
    assert "names no grade scale" in page.text


def test_a_rejected_batch_shows_what_is_wrong_with_it() -> None:
    """The report is where people look first."""
    with FileStore.in_memory().write() as db:
        row = spring_rows()["batches"][0] | {
            "state": "rejected",
            "problems": ["essays/anna.txt: is empty"],
            "settings": {},
            "settings_origins": {},
        }
        db.insert("batches", [row])

        page = Page(render_report(db, SPRING))

    assert "essays/anna.txt: is empty" in page.text


def test_a_batch_not_yet_judged_has_a_report_too() -> None:
    """`cj report` may be asked for at any time."""
    with FileStore.in_memory().write() as db:
        rows = spring_rows()
        rows["batches"][0] |= {"state": "running", "end_reason": None, "ended_at": None}
        insert_all(db, {k: rows[k] for k in ("batches", "essays", "documents", "judges")})

        page = Page(render_report(db, SPRING))

    assert "still being judged" in page.text


def test_settings_come_with_their_origins_and_without_the_answer_key(spring: Page) -> None:
    """Latent qualities belong to the emulator alone."""
    assert "max_pairwise_comparisons 91 batch.yaml" in spring.text
    assert "emulator_qualities" not in spring.text


def test_the_same_rows_give_the_same_page(db: Session) -> None:
    """A report that changed says that something did."""
    assert render_report(db, SPRING) == render_report(db, SPRING)


def test_every_end_and_every_failure_has_its_words() -> None:
    """A new reason without an explanation would leave a reader with a code."""
    assert set(END_REASONS) == set(EndReason)
    assert set(FAILURES) == set(RequestOutcome) - {RequestOutcome.SUCCEEDED}


def test_an_unknown_batch_is_named(db: Session) -> None:
    """The message must say which name was wrong."""
    with pytest.raises(UnknownBatchError, match="no-such-batch"):
        render_report(db, "no-such-batch")


def test_a_report_of_a_thousand_essays_stays_small(db: Session) -> None:
    """A year's essays of a school still open in a browser and fit in a mail."""
    history = _multiplied(read_history(db, SPRING), 72)
    page = render_history(history)

    assert len(history.essays) > 1000
    assert len(page.encode()) < 5_000_000


def _multiplied(history, times):  # type: ignore[no-untyped-def]
    """Return the batch with each essay and each comparison `times` times over."""

    ids = ("essay_id", "essay_a", "essay_b", "winner_id", "loser_id", "comparison_id")

    def renamed(row, i):  # type: ignore[no-untyped-def]
        # Every other comparison of anchor-01 is with the next copy's: one net of all copies.
        is_bridge = row.get("sequence", 1) % 2 == 0
        copy = {key: (i + (is_bridge and row.get(key) == "anchor-01")) % times for key in ids}
        return row | {key: f"{row[key]}-{copy[key]:02d}" for key in ids if row.get(key) is not None}

    def many(rows):  # type: ignore[no-untyped-def]
        return tuple(renamed(row, i) for i in range(times) for row in rows)

    return replace(
        history,
        essays=many(history.essays),
        comparisons=many(history.comparisons),
        pairs=many(history.pairs),
        attempts=many(history.attempts),
        scores=many(history.scores),
        projections=many(history.projections),
    )
