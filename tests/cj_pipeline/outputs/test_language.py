"""Every sentence people read is there in each language, with the same gaps to fill."""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, nodes

import cj_pipeline
from cj_pipeline.outputs import language
from cj_pipeline.outputs.language import (
    LANGUAGES,
    dollars,
    moment,
    number,
    signed,
    speaking,
    tr,
    tr_stored,
)
from cj_pipeline.outputs.report import render_history
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import SPRING, finished_batches

ROOT = Path(cj_pipeline.__file__).parent
TRANSLATING = {"tr", "to_translate", "counted"}


@pytest.fixture(scope="module")
def spring() -> Iterator[BatchHistory]:
    with finished_batches() as db:
        yield read_history(db, SPRING)


def sentences() -> set[str]:
    """Return every sentence that is looked up, in code and templates."""
    found: set[str] = set(language.STORED)
    for path in ROOT.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        if "outputs.language import" not in code:
            continue
        for node in ast.walk(ast.parse(code)):
            match node:
                case ast.Call(func=ast.Name(id=name)) if name in TRANSLATING:
                    found |= {_text(each) for each in node.args}
    for path in (ROOT / "outputs" / "templates").glob("*.html"):
        template = Environment(autoescape=True).parse(path.read_text(encoding="utf-8"))
        for call in template.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name in TRANSLATING:
                found |= {each.value for each in call.args if isinstance(each, nodes.Const)}
    return {each for each in found if each}


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@pytest.mark.parametrize("name", [name for name in LANGUAGES if name != "en"])
def test_no_translation_is_missing_or_left_over(name: str) -> None:
    """A page half in another language looks broken, and a left-over sentence is nobody's."""
    path = files("cj_pipeline") / "outputs" / "translations" / f"{name}.json"
    catalogue: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))

    assert sentences() - set(catalogue) == set()
    assert set(catalogue) - sentences() == set()
    assert [said for said in catalogue.values() if not said.strip()] == []
    assert {
        english for english, said in catalogue.items() if _gaps(english) != _gaps(said)
    } == set()


def _gaps(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


class _Words(HTMLParser):
    """The text of a page, without what is marked as being in another language."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._skipped: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.seen += [told[key] or "" for key in ("aria-label", "alt") if told.get(key)]
        foreign = tag != "html" and (told.get("lang") == "en" or told.get("class") == "said")
        if self._skipped or foreign or tag in {"style", "code"}:
            self._skipped += [] if tag in {"img", "rect", "br", "meta"} else [tag]

    def handle_endtag(self, tag: str) -> None:
        if self._skipped and self._skipped[-1] == tag:
            self._skipped.pop()

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.seen.append(data)


def test_nothing_on_the_page_escapes_translation(
    spring: BatchHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every sentence put in marks, no English is left outside them."""
    marked = {english: f"⟦{english}⟧" for english in sentences()}
    monkeypatch.setattr(language, "_catalogue", lambda _: marked)

    page = render_history(_speaking(spring, "sv"))

    seen = " ".join(_Words(page).seen)
    while "⟦" in seen:
        seen, before = re.sub(r"⟦[^⟦⟧]*⟧", " ", seen), seen
        assert seen != before
    left = re.findall(r".{,40}\b(?:the|of|and|with|is|are|by|not|than|from|each)\b.{,40}", seen)
    assert left == []


def _speaking(history: BatchHistory, name: str) -> BatchHistory:
    from dataclasses import replace

    settings: dict[str, Any] = {**history.batch["settings"], "report_language": name, "about": ""}
    origins = {**history.batch["settings_origins"], "report_language": "batch.yaml"}
    return replace(
        history, batch={**history.batch, "settings": settings, "settings_origins": origins}
    )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("en", ("1,234.50", "−0.40", "$0.0012", "2026-03-02 08:05 UTC")),
        ("sv", ("1\u00a0234,50", "−0,40", "0,0012\u00a0USD", "2026-03-02 08:05 UTC")),
        ("de", ("1.234,50", "−0,40", "0,0012\u00a0USD", "02.03.2026 08:05 UTC")),
    ],
)
def test_numbers_and_dates_are_written_as_people_do(name: str, written: tuple[str, ...]) -> None:
    """A decimal point where commas are usual is misread."""
    at = datetime(2026, 3, 2, 8, 5, tzinfo=UTC)

    with speaking(name):
        assert (number(1234.5), signed(-0.4), dollars(0.0012), moment(at)) == written


def test_sentences_the_store_keeps_are_translated_too() -> None:
    """A grading's statement is kept in English, and read by the same people."""
    with speaking("de"):
        said = tr_stored("Graded by 12 anchors of 4 grades. Something never seen.")

    assert said.startswith("Benotet nach 12 Ankern mit 4 Noten.")
    assert said.endswith("Something never seen.")


def test_english_is_what_stands_in_the_code() -> None:
    """And what is left where nothing else is set."""
    assert tr("{n} of {all}", n=1, all=2) == "1 of 2"


def test_sentences_the_store_keeps_are_those_that_are_written() -> None:
    """One that is worded anew in the code would stay English on every other page."""
    written = set()
    for path in [*(ROOT / "grading").glob("*.py"), ROOT / "scale" / "bradley_terry.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.JoinedStr(values=values):
                    gap = [v.value if isinstance(v, ast.Constant) else "{}" for v in values]
                    written.add("".join(str(each) for each in gap))
                case ast.Constant(value=str(said)):
                    written.add(said)

    for sentence in language.STORED:
        # Which of two words fills a gap is a sentence of its own where languages need it.
        form = re.sub(r"\{\w+\}", "{}", sentence).replace("too high", "{}").replace("too low", "{}")
        assert any(form in one for one in written), sentence


def test_figures_in_what_the_store_keeps_are_written_as_people_do() -> None:
    """And a sentence in a sentence is translated with it."""
    kept = (
        "The judge and the anchors' graders disagree by 1.8 steps, more than 1.5. Against their"
        " grades, and beyond the errors of their scores, 'a' scores above 'b': check these anchors."
        " 1 essays won or lost everything (lea-dubois): how far out they lie rests on the prior."
    )
    with speaking("de"):
        said = tr_stored(kept)

    assert said == (
        "Der Urteiler und die Benoter der Anker liegen um 1,8 Stufen auseinander, mehr als 1,5."
        " Gegen ihre Noten, und jenseits der Fehler ihrer Werte, gilt: ‚a‘ liegt über ‚b‘. Prüfen"
        " Sie diese Anker. Texte, die alles gewannen oder verloren: 1 (lea-dubois). Wie weit außen"
        " sie liegen, beruht auf der Vorannahme."
    )
