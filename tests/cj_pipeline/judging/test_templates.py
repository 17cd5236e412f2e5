"""Templates are found by name, checked before use, and never written over."""

from pathlib import Path

import pytest
import yaml

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.prompts import Template
from cj_pipeline.judging.templates import (
    MAX_CHARACTERS,
    is_draft,
    known_templates,
    load_template,
    template_problems,
    translation_of,
)

_ANSWER = 'One JSON object: "winner" is "A" or "B", "confidence" 1 to 5, "justification".'


def _template(**changes: str) -> Template:
    parts = {"name": "mine-1", "system": "You judge.", "task": "Compare.", "answer": _ANSWER}
    return Template(**{**parts, **changes})


def _written(folder: Path, **changes: str) -> Path:
    template = _template(**changes)
    parts = {part: getattr(template, part) for part in ("name", "system", "task", "answer")}
    (folder / "mine-1.yaml").write_text(yaml.safe_dump(parts), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", known_templates())
def test_every_built_in_template_can_be_used(name: str) -> None:
    """They are what a newcomer's first batch is judged with."""
    template = load_template(name)

    assert template.name == name


def test_a_users_template_is_found_in_their_folder(tmp_path: Path) -> None:
    """A team writes its own prompt without touching the package."""
    folder = _written(tmp_path, task="Which is clearer?")

    assert load_template("mine-1", folder).task == "Which is clearer?"
    assert "mine-1" in known_templates(folder)


def test_an_unknown_template_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """A misspelt name must not fall back to another prompt."""
    with pytest.raises(SettingsError, match="essay-quality-1"):
        load_template("essay-qualiti-1", tmp_path)


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Names come from batch files, which any user may submit."""
    with pytest.raises(SettingsError, match="Unknown template"):
        load_template("../mine-1", _written(tmp_path))


def test_a_template_must_call_itself_by_its_files_name(tmp_path: Path) -> None:
    """Copying a file without a new name would give two prompts one name."""
    with pytest.raises(SettingsError, match="calls itself 'mine-2'"):
        load_template("mine-1", _written(tmp_path, name="mine-2"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "Mine"}, "version number"),
        ({"task": "x" * (MAX_CHARACTERS + 1)}, "characters"),
        ({"task": "Text: <essay-a-0123>"}, "fence"),
        ({"task": "Compare {essay_a} with {essay_b}."}, "placeholder"),
        ({"task": "Compare {{ essay }}."}, "placeholder"),
        ({"answer": 'Say "A" or "B".'}, "winner, confidence, justification"),
        ({"answer": _ANSWER.replace('"A" or "B"', "the better one")}, "labels"),
    ],
)
def test_a_template_that_would_mislead_a_judge_is_found_out(
    change: dict[str, str], problem: str
) -> None:
    """Each of these would cost a wave before anybody noticed."""
    assert problem in " ".join(template_problems(_template(**change)))


def test_a_plain_template_has_no_problems() -> None:
    """The check must not be in the way of ordinary words."""
    assert template_problems(_template()) == []


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("sv", "essay-quality-sv-1"),
        ("sv-SE", "essay-quality-sv-1"),
        ("de-AT", "essay-quality-de-1"),
        ("en", "essay-quality-1"),
        ("fi", "essay-quality-1"),
    ],
)
def test_the_language_of_the_essays_chooses_the_prompts(language: str, name: str) -> None:
    """Where there is none in it, the English one is used."""
    assert translation_of("essay-quality-1", language) == name


@pytest.mark.parametrize("name", [name for name in known_templates() if is_draft(name)])
def test_a_draft_says_all_that_the_original_says(name: str) -> None:
    """Labels and keys stay; every sentence, and the headings, are in its own language."""
    draft, original = load_template(name), load_template("essay-quality-1")

    for part in ("system", "task", "answer"):
        said, meant = getattr(draft, part), getattr(original, part)
        assert said != meant
        assert said.count('"') == meant.count('"')
    assert (draft.asked, draft.look_for) != (original.asked, original.look_for)
    assert "1" in draft.answer
    assert "5" in draft.answer


def test_the_built_in_translations_are_drafts() -> None:
    """Until a native reader has approved them."""
    assert is_draft("essay-quality-sv-1")
    assert is_draft("essay-quality-de-1")
    assert not is_draft("essay-quality-1")
    assert not is_draft("no-such-template-1")


def test_a_language_is_added_by_one_file(tmp_path: Path) -> None:
    """Beside the batch's judges, with the same checks."""
    folder = _written(tmp_path)
    file = folder / "mine-1.yaml"
    file.write_text(file.read_text() + "language: fi\ntranslates: essay-quality-1\n")

    assert translation_of("essay-quality-1", "fi", folder) == "mine-1"
