"""Names no register lists: guessed where a batch asks, told or masked, with the recall said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake import unknown_names
from cj_pipeline.intake.batch_folder import Batch, read_batch
from cj_pipeline.intake.essay_checks import look_at
from cj_pipeline.intake.unknown_names import NameGuesser

Folder = Callable[[str], Path]

LETTER = (
    "Liebe Hatun,\nAnna und Jonas Weber waren da. Frau Krawczyk auch, und Michaels Hund. Ich heiße"
    " Rojda. Im Mai gab es Rosen und eine Rose. Ernst war der Tag. Ein Lob der Beste!\nLiebe"
    " Grüße\nSilke"
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A way to write a batch of two letters, with further lines of settings."""

    def write(settings: str) -> Path:
        root = tmp_path / "class-9b"
        (root / "essays").mkdir(parents=True)
        (root / "batch.yaml").write_text(f"judges: [quality]\n{settings}", encoding="utf-8")
        (root / "instructions.md").write_text("Write.\n", encoding="utf-8")
        (root / "register.csv").write_text("ID;Name\n1;Anna Ek\n2;Ben Ek\n", encoding="utf-8")
        (root / "essays" / "1.txt").write_text(LETTER, encoding="utf-8")
        (root / "essays" / "2.txt").write_text("das beste Lob, kein Name.", encoding="utf-8")
        return root

    return write


def shown(batch: Batch) -> str:
    """Return what judges read of the letter."""
    return batch.essays[0].shown_text


def guesses(batch: Batch) -> list[str]:
    """Return what a person is told of the letter's unknown names."""
    return [w for w in look_at(batch)[0].warnings if "no register lists" in w]


def test_nothing_is_guessed_unless_asked_for(folder: Folder) -> None:
    batch = read_batch(folder(""))

    assert shown(batch) == LETTER
    assert guesses(batch) == []
    assert "unknown_names" not in "".join(batch.notices)


def test_a_person_is_told_and_nothing_is_masked(folder: Folder) -> None:
    """Anna is of the class, so she is told with the class; words and closings are no names."""
    batch = read_batch(folder("unknown_names: tell\n"))

    assert shown(batch) == LETTER
    assert guesses(batch) == [
        "look like names that no register lists: Hatun, Jonas, Weber, Krawczyk, Michaels and 2 more"
    ]
    (said,) = (notice for notice in batch.notices if notice.startswith("unknown_names"))
    assert said.startswith("unknown_names: 7 words in 1 essays")
    assert "are sent as they stand" in said
    assert unknown_names.RECALL in said
    assert "Hatun" not in said  # notices travel further than the essays


def test_masked_when_asked_with_or_without_the_register(folder: Folder) -> None:
    batch = read_batch(folder("unknown_names: mask\nmask_names: true\n"))

    assert shown(batch) == (
        "Liebe [name],\n[name] und [name] waren da. Frau [name] auch, und [name] Hund. Ich heiße"
        " [name]. Im Mai gab es Rosen und eine Rose. Ernst war der Tag. Ein Lob der Beste!\nLiebe"
        " Grüße\n[name]"
    )
    assert batch.essays[0].text == LETTER
    assert batch.essays[1].masked_text is None
    assert "other people's names stay" not in "".join(batch.notices)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("My friend Priya Natarajan met Mr. Okonkwo.", ["Priya", "Natarajan", "Okonkwo"]),
        ("Dear Nokomis,\nWill you come in May? Grace.", ["Nokomis"]),
        ("Hej Tindra!\nJag heter Abdirahman och fru Wiik såg Maja.", None),
        ("Liebe Familie,\nHallo Freunde!\nHerr Doktor", []),
        ("[name] Nothing Here At All", []),
    ],
)
def test_three_languages(text: str, found: list[str] | None) -> None:
    guesser = NameGuesser.of([text], [])

    words = [text[begins:ends] for begins, ends in guesser.found(text)]

    assert words == (["Tindra", "Abdirahman", "Wiik", "Maja"] if found is None else found)


def test_a_word_that_the_class_writes_small_is_no_name() -> None:
    """`My` is a Swedish name, and half of English essays begin with it."""
    texts = ["Stella and Summer saw me.", "One summer, and another."]

    found = NameGuesser.of(texts, []).found(texts[0])

    assert [texts[0][begins:ends] for begins, ends in found] == ["Stella"]


def test_without_the_lists_it_is_a_problem_with_its_remedy(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_names, "find_spec", lambda name: None)

    with pytest.raises(BatchProblemsError) as refused:
        read_batch(folder("unknown_names: mask\n"))

    assert "install cj-pipeline[names], or leave it out" in refused.value.problems[0]
