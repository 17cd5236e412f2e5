"""A student's page tells all that is known of one text, and of nobody else."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import pypdf
import pytest

from cj_pipeline.errors import SettingsError, UnknownEssayError
from cj_pipeline.outputs.students.student_page import (
    check_feedback,
    class_feedback_draft,
    feedback_draft,
    render_student_page,
    student_ids,
    student_page,
)
from cj_pipeline.outputs.students.student_pdf import lacking_letters, student_pdf
from cj_pipeline.outputs.students.told_words import told_sentences
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.queries.release import Release
from tests.support.finished_batches import SPRING, finished_batches

CLASS = "Anna Berg,Ben Koch,Clara Vogt,David Roth,Emma Lang,Finn Kaya,Greta Horn,Hasan Aydin"
NAMES = {f"pupil-{i:02d}": name for i, name in enumerate(CLASS.split(","), start=1)}


@pytest.fixture(scope="module")
def spring() -> Iterator[BatchHistory]:
    with finished_batches() as db:
        yield named(read_history(db, SPRING))


def named(history: BatchHistory) -> BatchHistory:
    """Return the batch with names, texts with a word of their own, and a talkative judge."""
    essays = tuple(
        {**row, "text": "An example of its grade, which says what it has to say."}
        if row["is_anchor"]
        else {
            **row,
            "name": NAMES[row["essay_id"]],
            "text": f"My summer began in Town{at}. The secret of {at} is a blue kite.",
        }
        for at, row in enumerate(history.essays)
    )
    text_of = {row["essay_id"]: row["text"] for row in essays}

    def said(row: dict[str, object]) -> str:
        a, b = str(row["essay_a"]), str(row["essay_b"])
        quoted = " ".join(str(text_of[a]).split()[:3])
        also = " ".join(str(text_of[b]).split()[:3])
        return (
            f"Essay A opens well with “{quoted}”. Essay B quotes “{also}”."
            f" Essay A is stronger than Essay B. {NAMES.get(b, b)} should add detail."
            f" Essay A mentions {str(text_of[b]).split()[4]} nowhere. Essay B lacks paragraphs."
            " Essay A has clear paragraphs. Essay A quotes “what nobody wrote”."
        )

    comparisons = tuple(
        {**row, "justification": said(dict(row))} if row["status"] == "succeeded" else row
        for row in history.comparisons
    )
    return replace(history, essays=essays, comparisons=comparisons)


def test_nobody_else_can_be_known_from_a_page(spring: BatchHistory) -> None:
    """Neither name, nor id, nor a word that only another student's text has."""
    for essay_id in student_ids(spring):
        page = student_page(spring, essay_id)
        written = render_student_page(page)
        drawn = "".join(
            p.extract_text() for p in pypdf.PdfReader(io.BytesIO(student_pdf(page))).pages
        )
        others = [row for row in spring.essays if row["essay_id"] != essay_id]
        for row in others:
            told = [row["essay_id"], str(row["file_name"])]
            if not row["is_anchor"]:
                told += [row["name"], *row["name"].split(), re.findall(r"Town\d+", row["text"])[0]]
            for each in told:
                assert not re.search(rf"(?<!\w){re.escape(each)}(?!\w)", written), (essay_id, each)
                assert not re.search(rf"(?<!\w){re.escape(each)}(?!\w)", drawn), (essay_id, each)
        assert NAMES[essay_id] in written
        assert NAMES[essay_id] in drawn


def test_only_words_about_the_own_text_are_told(spring: BatchHistory) -> None:
    """And quotes only where the text has them."""
    row = next(r for r in spring.succeeded if r["essay_a"] in NAMES and r["essay_b"] in NAMES)
    first = [each.text for each in told_sentences(spring, row["essay_a"], row)]
    second = [each.text for each in told_sentences(spring, row["essay_b"], row)]

    assert len(first) == 2
    assert first[0].startswith("[your text] opens well with “My summer began”")
    assert first[1] == "[your text] has clear paragraphs."
    assert second[-1] == "[your text] lacks paragraphs."
    assert all("stronger" not in said and "nobody wrote" not in said for said in first + second)


def test_the_page_says_how_sure_what_next_and_how_to_appeal(spring: BatchHistory) -> None:
    """With the anchors it stands between and no more than five verdicts."""
    page = student_page(spring, "pupil-04")

    assert page.grade == spring.given_grade("pupil-04")
    assert page.likely
    assert "of 100" in page.likely[0]
    assert 2 <= len(page.between) <= 3
    assert {each.is_above for each in page.between} == {True, False}
    assert len(page.verdicts) == 5
    assert all(each.number in {r["sequence"] for r in spring.succeeded} for each in page.verdicts)
    assert page.changes
    assert "judge your text again" in page.appeal


def test_it_is_two_pages_and_the_examples_follow(spring: BatchHistory) -> None:
    """So that it can be handed out."""
    page = student_page(spring, "pupil-04")
    pages = pypdf.PdfReader(io.BytesIO(student_pdf(page))).pages

    assert len(pages) == 3
    assert page.text.split(".")[0] in pages[1].extract_text()
    assert all(each.name in pages[2].extract_text() for each in page.between)
    assert student_pdf(page) == student_pdf(page)


def test_no_page_before_the_release(spring: BatchHistory) -> None:
    """A grade that a person still has to look at is not handed out."""
    waiting = replace(
        spring, release=Release(SPRING, 1, "needs_sign_off", "provisional", None, None, None)
    )

    with pytest.raises(SettingsError, match="cj release"):
        student_page(waiting, "pupil-04")


@pytest.mark.parametrize("essay_id", ["anchor-01", "nobody"])
def test_only_students_have_a_page(spring: BatchHistory, essay_id: str) -> None:
    """An anchor is nobody's work in this class."""
    with pytest.raises(UnknownEssayError):
        student_page(spring, essay_id)


def test_it_is_written_in_the_language_of_the_essays(spring: BatchHistory) -> None:
    """Whatever the teacher's report is written in."""
    settings = {**spring.batch["settings"], "language": "sv-SE"}
    swedish = replace(spring, batch={**spring.batch, "settings": settings})

    written = render_student_page(student_page(swedish, "pupil-04"))

    assert '<html lang="sv">' in written
    assert "Hur säkert är betyget?" in written
    assert "Exempel 1" in written


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (
            {"low": 0.0, "high": 100.0},
            "On a scale from 0 to 100 your text stands at 62.5; 19 times",
        ),
        (
            {"mean": 500.0, "spread": 100.0},
            "the students&#39; mean is 500 your text stands at 62.5",
        ),
    ],
)
def test_a_score_on_the_batchs_own_scale_is_told_with_its_error(
    spring: BatchHistory, scale: dict[str, float], told: str
) -> None:
    """Not where a person set the grade, and not without such a scale."""
    settings = {**spring.batch["settings"], "scaled_scores": scale}
    scored = {"essay_id": "pupil-04", "scaled_score": 62.5, "standard_error": 4.0}
    scaled = replace(spring, batch={**spring.batch, "settings": settings}, scaled_scores=(scored,))

    page = student_page(scaled, "pupil-04")

    assert told in render_student_page(page)
    assert "within 7.8 of it" in page.scaled_line
    assert (
        page.scaled_line.split()[0]
        in pypdf.PdfReader(io.BytesIO(student_pdf(page))).pages[0].extract_text()
    )
    assert student_page(spring, "pupil-04").scaled_line == ""
    decided = ({"essay_id": "pupil-04", "kind": "override", "grade": "B", "decided_by": "Eva"},)
    overridden = replace(scaled, moderation=tuple({**row, "number": 1} for row in decided))
    assert student_page(overridden, "pupil-04").scaled_line == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (2.0, "about 88 times in 100. That is more than chance explains."),
        (-2.0, "about 12 times in 100. That is more than chance explains."),
        (0.5, "about 62 times in 100. That may be chance alone."),
    ],
)
def test_progress_since_a_batch_before_is_told_in_words(
    spring: BatchHistory, change: float, told: str
) -> None:
    """To the student it is of, on paper too, and not where a person set the grade."""
    row = {"essay_id": "pupil-04", "batch_before": "autumn-9", "change": change}
    linked = replace(spring, student_progress=({**row, "change_standard_error": 0.6},))

    page = student_page(linked, "pupil-04")

    assert page.progress_line.startswith("Compared with your text of autumn-9")
    assert page.progress_line.endswith(told)
    assert page.progress_line in render_student_page(page)
    drawn = pypdf.PdfReader(io.BytesIO(student_pdf(page))).pages[0].extract_text()
    assert told in " ".join(drawn.split())
    assert student_page(linked, "pupil-05").progress_line == ""
    decided = {"essay_id": "pupil-04", "kind": "override", "grade": "B", "decided_by": "Eva"}
    overridden = replace(linked, moderation=({**decided, "number": 1},))
    assert student_page(overridden, "pupil-04").progress_line == ""


def test_letters_that_the_pdf_cannot_draw_are_named(spring: BatchHistory) -> None:
    """So that the teacher prints the other page in place of one with boxes."""
    page = student_page(spring, "pupil-04")

    assert lacking_letters(page) == ""
    assert lacking_letters(replace(page, name="Ли 李 伟", text="Åsa 李")) == "李伟"


def test_every_line_of_a_draft_names_its_comparisons(spring: BatchHistory) -> None:
    """A claim that no verdict bears has no place in feedback; a teacher's own is marked so."""
    draft = feedback_draft(spring, "pupil-04")
    whole = class_feedback_draft(spring)

    assert re.search(r"\[\d+\]$", draft, re.MULTILINE)
    assert "paragraphs" in whole
    assert check_feedback(spring, "pupil-04", draft) == []
    assert check_feedback(spring, None, whole) == []
    assert check_feedback(spring, "pupil-04", "# Well done\n- Lovely kite. [teacher]") == []
    assert check_feedback(spring, "pupil-04", "- Lovely kite. [9999]") != []
    assert check_feedback(spring, "pupil-04", "- Lovely kite.") != []
    assert check_feedback(spring, "pupil-04", "- Ask Anna Berg. [teacher]") == [
        "line 1 names another student: Anna Berg"
    ]


def test_what_a_teacher_wrote_stands_instead_of_the_draft(spring: BatchHistory) -> None:
    """The last version of it, on the page and in the PDF."""
    edits = tuple(
        {"essay_id": "pupil-04", "number": n, "text": f"- Version {n}. [teacher]"} for n in (1, 2)
    )
    page = student_page(replace(spring, feedback_edits=edits), "pupil-04")

    assert page.edited == "- Version 2. [teacher]"
    assert "Version 2" in render_student_page(page)
    assert "has clear paragraphs" not in render_student_page(replace(page, verdicts=()))
