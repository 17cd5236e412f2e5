"""Ids made from the names people give."""

from __future__ import annotations

import io
import unicodedata

import pandas as pd
import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cj_pipeline.ids import ID, id_for, ids_for, nearest, same_name, unknown


@given(name=st.text(max_size=300))
def test_every_name_gives_a_valid_id(name: str) -> None:
    """Whatever a file is called, its id can travel to every provider."""
    assert ID.fullmatch(id_for(name, prefix="essay"))


@given(name=st.from_regex(r"\A[a-z0-9_][a-z0-9_-]{2,63}\Z"))
@example(name="nullable")
def test_a_valid_id_stays_as_it_is(name: str) -> None:
    """People find the names they gave."""
    assume(name not in {"null", "nan", "none", "true", "false", "yes", "off", "inf", "nil"})
    assume(name not in {"infinity", "undefined"})

    assert id_for(name, prefix="essay") == name


@pytest.mark.parametrize("name", ["-anna", "--help", "null", "nan", "NaN", "None", "true", "-1"])
def test_no_id_reads_as_an_option_or_as_no_value(name: str) -> None:
    """Command lines, YAML and data frames would take such an id for something else."""
    essay_id = id_for(name, prefix="essay")

    assert not essay_id.startswith("-")
    assert isinstance(yaml.safe_load(essay_id), str)
    assert not pd.read_csv(io.StringIO(f"id\n{essay_id}\n"))["id"].isna().any()


# One range of letters for each of twenty scripts.
SCRIPTS = {
    "Latin": "aäéßøłñçåž", "Cyrillic": "абвгдежзий", "Greek": "αβγδεζηθικ",
    "Armenian": "աբգդեզէըթժ", "Georgian": "აბგდევზთიკ", "Hebrew": "אבגדהוזחטי",
    "Arabic": "ابتثجحخدذر", "Syriac": "ܐܒܓܕܗܘܙܚܛܝ", "Ethiopic": "ሀለሐመሠረሰሸቀበ",
    "Devanagari": "अआइईउऊएऐकि", "Bengali": "অআইঈউঊএঐকি", "Tamil": "அஆஇஈஉஊஎஏகி",
    "Telugu": "అఆఇఈఉఊఎఏకి", "Thai": "กขคงจฉชซดิ", "Khmer": "កខគឃងចឆជឈិ", "Burmese": "ကခဂဃငစဆဇဈိ",
    "Tibetan": "ཀཁགངཅཆཇཉཏི", "Hangul": "가나다라마바사아자차", "Kana": "あいうえおアイウエオ",
    "Han": "李王张刘陈杨黄赵吴周",
}  # fmt: skip
NAMES = st.sampled_from(sorted(SCRIPTS)).flatmap(
    lambda script: st.text(alphabet=SCRIPTS[script] + SCRIPTS[script].upper() + " -'9B", min_size=1)
)


@given(names=st.lists(NAMES.filter(str.strip), unique_by=same_name, min_size=2, max_size=30))
@example(names=["Иванов 9Б", "Петров 9Б", "9-", "essay-9", "Müller", "Muller", "muller"])
@example(names=["anna", "Anna", "ANNA", "anna!", id_for("Анна", prefix="essay"), "Анна"])
def test_different_names_get_different_ids_in_every_script(names: list[str]) -> None:
    """Two people are two people, whatever letters their names are written in."""
    ids = ids_for(names, prefixes=["essay"] * len(names))

    assert len(set(ids)) == len(names)
    assert all(ID.fullmatch(one) for one in ids)


@given(name=NAMES)
def test_one_name_gets_one_id_in_both_forms_of_unicode(name: str) -> None:
    """macOS writes the accents of a file's name apart; the student is the same."""
    composed, apart = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))

    assert id_for(composed, prefix="essay") == id_for(apart, prefix="essay")


def test_long_names_that_begin_alike_stay_apart() -> None:
    """The checksum tells apart what is cut off."""
    first, second = id_for("a" * 100 + "1", prefix="essay"), id_for("a" * 100 + "2", prefix="essay")

    assert first != second


def test_names_without_latin_letters_stay_apart() -> None:
    """A class in Kyiv has ids too."""
    assert id_for("Оля", prefix="essay") != id_for("Ігор", prefix="essay")


def test_an_unknown_name_is_told_with_the_nearest_known_one() -> None:
    """Most unknown names are misspelt, and the person wants to read how it is spelt."""
    assert unknown("key", "sede", ["title", "seed"]) == "unknown key 'sede'; did you mean 'seed'?"
    assert unknown("key", "sede", []) == "unknown key 'sede'"


def test_a_name_like_no_other_gets_no_hint() -> None:
    """Where anything may stand, a far-fetched hint would only mislead."""
    assert nearest("holiday.txt", ["rubric.md"], at_least=0.8) == ""
    assert nearest("rubrik.md", ["rubric.md"], at_least=0.8) == "; did you mean 'rubric.md'?"
