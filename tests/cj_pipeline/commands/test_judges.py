"""`cj judge` as a person uses it, with the simulated judge answering."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cj_pipeline.cli import app
from cj_pipeline.outputs.side_by_side import ShownTable, render_judges_compared
from tests.support.batches import open_engine, run_to_end, write_batch

_BATCH = """
scale: pass_fail
judges: [quality]
"""


def _cj(*words: str) -> Result:
    return CliRunner().invoke(app, ["judge", *words])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the emulator's state apart, and tables wide enough to be read."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """A folder with three essays and two anchors of different grades."""
    folder = tmp_path / "spring-9"
    (folder / "essays").mkdir(parents=True)
    (folder / "anchors").mkdir()
    (folder / "batch.yaml").write_text(_BATCH, encoding="utf-8")
    (folder / "instructions.md").write_text("Describe a walk.", encoding="utf-8")
    for name in ("anna", "bert", "cleo"):
        (folder / "essays" / f"{name}.txt").write_text(f"A walk by {name}. " * 9, encoding="utf-8")
    rows = "essay_id,text,grade\nanchor-low,A walk.,fail\nanchor-high,A fine long walk.,pass\n"
    (folder / "anchors.csv").write_text(rows, encoding="utf-8")
    (folder / "anchors").rmdir()
    return folder


def test_the_list_names_every_judge_and_says_which_are_simulated() -> None:
    """Whoever chooses has to know."""
    shown = _cj("list").output

    assert "openai-gpt-5-1-low" in shown
    assert "simulated" in shown


def test_a_judge_is_shown_with_its_words_its_price_and_its_fingerprint() -> None:
    """All that its verdicts will be kept under."""
    shown = _cj("show", "anthropic-claude-haiku-4-5").output

    assert "anthropic-claude-haiku-4-5-" in shown
    assert "ANTHROPIC_API_KEY" in shown
    assert "experienced assessor" in shown


def test_an_unknown_judge_is_told_plainly() -> None:
    """With the known ones, and without a traceback."""
    result = _cj("show", "qualityy")

    assert result.exit_code == 1
    assert "human-votes" in result.output


def test_trying_a_judge_shows_its_verdict_and_what_it_cost(tmp_path: Path) -> None:
    """One live call on two files."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"An essay, number {name}.", encoding="utf-8")

    files = (str(tmp_path / "one.txt"), str(tmp_path / "two.txt"))
    result = _cj("examine", "quality", "--pair", *files)
    nowhere = _cj("examine", "quality", "--pair", files[0], str(tmp_path / "three.txt"))

    assert nowhere.exit_code == 2
    assert "three.txt" in "".join(nowhere.output.split())
    assert result.exit_code == 0, result.output
    assert "winner" in result.output
    assert "USD" in result.output


def test_comparing_judges_gives_a_line_each(batch: Path) -> None:
    """The same pairs, both orders, with what anchors say where both were anchors."""
    result = _cj("compare", str(batch), "--judge", "quality", "--judge", "quality-messages")

    assert result.exit_code == 0, result.output
    assert "quality-messages-" in result.output
    assert "10 pairs" in result.output
    assert "of 2" in result.output


def test_a_comparison_of_judges_is_a_page_too(batch: Path, tmp_path: Path) -> None:
    """What the terminal shows and JSON gives, for those who decide; simulated judges are named."""
    page, ask = tmp_path / "judges.html", ["--judge", "quality", "--judge", "quality-messages"]

    result = _cj("compare", str(batch), *ask, "--page", str(page))
    told = _cj("compare", str(batch), *ask, "--json")

    shown, (one, _) = page.read_text("utf-8"), json.loads(told.output)["judges"]
    assert result.exit_code == told.exit_code == 0
    assert "<script" not in shown
    assert shown.count("<table>") == 2
    assert "Simulated or recorded judges took part" in shown
    assert one["judge_id"] in shown
    low, high = one["intervals"]["mean_confidence"]
    assert low <= one["mean_confidence"] <= high
    assert f"({low:.1f} to {high:.1f})" in shown


def test_what_a_judge_is_called_and_says_is_escaped_in_the_page() -> None:
    """Names and failures are other people's words."""
    hostile = "<img src=x onerror=alert(1)>"
    table = ShownTable(hostile, hostile, (hostile,), [(hostile, hostile)])

    page = render_judges_compared(hostile, [table], [hostile])

    assert "<img" not in page
    assert page.count("&lt;img src=x") >= 6


def test_real_money_is_asked_for_before_it_is_spent(
    batch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most it can be is named, and no is an answer."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")

    result = CliRunner().invoke(
        app, ["judge", "compare", str(batch), "--judge", "openai-gpt-5-1-low"], input="n\n"
    )

    assert result.exit_code == 1
    assert "can cost up to" in result.output


def test_a_panel_is_shown_with_each_judge_and_each_two_of_them(home: Path, tmp_path: Path) -> None:
    """How far and at what cost, what each leans to, and how far they agree."""
    settings = {
        "judges": ["quality", "quality-messages"],
        "max_pairwise_comparisons": 12,
        "common_pairs": 1,
    }
    folder = write_batch(tmp_path / "both", n_students=4, settings=settings)
    run_to_end(open_engine(home), folder)

    result = _cj("panel", "both")

    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "quality 100% 6 of 6 0 0" in "\n".join(lines)
    (habits,) = [line for line in lines if line.startswith("quality ") and "±" in line]
    assert re.match(r"quality \d+% ± \d+% \d+% \d\.\d (–|\d+\.\d\d) \d+", habits)
    assert any(line.startswith("quality quality-messages 6 ") for line in lines)
    assert "Fleiss' kappa of all, over 6 comparisons" in result.output


def test_the_panel_of_a_batch_nobody_knows_is_refused_plainly() -> None:
    """With a message, not a traceback."""
    result = _cj("panel", "nobody")

    assert result.exit_code == 1
    assert "nobody" in result.output
