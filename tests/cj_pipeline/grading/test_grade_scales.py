"""Grade scales are data: the built-in ones are right, and a user's wrong one says why."""

from __future__ import annotations

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.grading.grade_scales import (
    known_scales,
    load_scale,
    own_scale_problems,
    read_scale,
)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("swedish_8_anchor", "F E D D+ C C+ B A"),
        ("eng5_np_legacy_9_step", "F F+ E- E+ D- D+ C- C+ B A"),
        ("eng5_np_national_9_step", "0 1 2 3 4 5 6 7 8 9"),
        ("cefr", "A1 A2 B1 B2 C1 C2"),
        ("pass_fail", "fail pass"),
    ],
)
def test_built_in_scales_have_their_published_steps(name: str, steps: str) -> None:
    """The order of the steps is what a grade means; what lies below the lowest comes first."""
    scale = load_scale(name)

    assert scale.steps == tuple(steps.split())


def test_every_built_in_scale_is_known_by_name() -> None:
    """What can be loaded is what is listed."""
    names = known_scales()

    assert {"swedish_8_anchor", "cefr", "pass_fail"} <= set(names)
    assert all(load_scale(name).name == name for name in names)


def test_swedish_priors_are_the_published_shares() -> None:
    """Priors are read by grade, whatever their order in the file, and add up to one."""
    scale = load_scale("swedish_8_anchor")

    assert scale.priors == (0.02, 0.08, 0.15, 0.20, 0.25, 0.15, 0.10, 0.05)


@pytest.mark.parametrize(
    ("grade", "position", "written"),
    [
        ("B", 0.1, "B-"),
        ("B", 0.5, "B"),
        ("B", 0.9, "B+"),
        ("C", 0.1, "C-"),
        ("C", 0.9, "C"),
        ("C+", 0.1, "C+"),
        ("F", 0.1, "F"),
        ("A", 0.9, "A"),
    ],
)
def test_minus_and_plus_follow_the_position_within_the_grade(
    grade: str, position: float, written: str
) -> None:
    """C+ is a grade of its own, so C bears no plus and C+ bears nothing."""
    scale = load_scale("swedish_8_anchor")

    assert scale.modified(grade, position) == written


def test_a_batchs_own_scale_says_its_name_itself() -> None:
    """A school's own scale needs a file and no code; numbers need no quotes."""
    own = "name: house\ntitle: House\ngrades: [1, 2, 3]\nbelow: 0\n"

    scale = load_scale("house", own)

    assert scale.name == "house"
    assert scale.steps == ("0", "1", "2", "3")


def test_a_name_that_is_not_the_own_scales_is_unknown() -> None:
    """A typing error must not grade on a scale of another name."""
    own = "name: house\ntitle: House\ngrades: [1, 2]\n"

    with pytest.raises(SettingsError, match=r"'hous'.*house \(its own\)"):
        load_scale("hous", own)


def test_own_scale_without_a_name_is_told() -> None:
    """No batch could name it."""
    with pytest.raises(SettingsError, match="name: Field required"):
        read_scale(b"title: House\ngrades: [1, 2]\n")


def test_an_unknown_scale_is_answered_with_the_known_ones() -> None:
    """A typing error should cost one glance, not a search."""
    with pytest.raises(SettingsError, match=r"Unknown grade scale 'cefrr'.*cefr.*swedish_8_anchor"):
        load_scale("cefrr")


@pytest.mark.parametrize("name", ["../cefr", "", "CEFR", "a/b"])
def test_a_scale_name_cannot_leave_its_folder(name: str) -> None:
    """The name comes from a batch folder, which may be hostile."""
    with pytest.raises(SettingsError, match="cannot name a grade scale"):
        load_scale(name)


def test_a_batchs_own_scale_may_not_hide_a_built_in_one() -> None:
    """Two machines must never grade by different scales of one name."""
    mine = read_scale(b"name: cefr\ntitle: Mine\ngrades: [a, b]\n")

    assert "is a built-in grade scale" in own_scale_problems("cefr", mine)[0]


@pytest.mark.parametrize("named", [None, "cefr"])
def test_an_own_scale_that_is_not_named_is_reported(named: str | None) -> None:
    """It would lie there and the batch be graded otherwise, or not at all."""
    mine = read_scale(b"name: house\ntitle: Mine\ngrades: [a, b]\n")

    assert "write `scale: house`" in own_scale_problems(named, mine)[0]


def test_all_problems_of_a_scale_are_told_at_once() -> None:
    """Mending one problem per attempt is a waste of a teacher's afternoon."""
    content = b"""
    grades: [E, D, D, D+]
    below: Q
    minus: [Z]
    plus: [7.5]
    colour: red
    """

    with pytest.raises(SettingsError) as caught:
        read_scale(content, "broken")

    message = str(caught.value)
    assert all(part in message for part in ("title", "listed twice: D", "plus.0", "colour"))


def test_priors_must_cover_every_step_and_add_up_to_one() -> None:
    """A forgotten grade would silently never be given."""
    content = b"title: T\ngrades: [E, D]\nbelow: F\npriors: {E: 0.5, D: 0.4, C: 0.3}\n"

    with pytest.raises(SettingsError) as caught:
        read_scale(content, "broken")

    message = str(caught.value)
    assert "no share for F" in message
    assert "C is no grade of this scale" in message
    assert "add up to 1.2" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"title: T\ngrades: [yes, no]\n", "put the grade in quotes"),
        (b"title: T\ngrades: [one]\n", "two grades at least"),
        (b"title: T\ngrades: [E, D]\nbelow: E\n", "among the grades already"),
        (b"title: T\ngrades: [D, D+]\nplus: [D]\n", r"D\+ is a grade of its own"),
        (b"title: T\ngrades: [D, E]\nminus: [C]\n", "C is no grade"),
        (b"- just\n- a list\n", "`key: value` lines"),
        (b"title: [\n", "not readable YAML"),
        (b"title: \xff\n", "not readable YAML"),
        (b"title: T\ntitle: U\ngrades: [a, b]\n", "'title' is given twice"),
    ],
)
def test_a_wrong_scale_says_what_is_wrong(content: bytes, words: str) -> None:
    """YAML has traps (yes, no, tabs) that only a plain message gets people out of."""
    with pytest.raises(SettingsError, match=words):
        read_scale(content, "broken")
