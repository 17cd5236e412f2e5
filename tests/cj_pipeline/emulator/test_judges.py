"""What the emulator's judges decide."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest

from cj_pipeline.batch.comparisons import comparison_id, custom_id
from cj_pipeline.emulator.config import QualityJudge, Settings
from cj_pipeline.emulator.http import HTTPError
from cj_pipeline.emulator.judges import (
    JudgeReply,
    JudgeRequest,
    answer,
    draw_key,
    estimated_quality,
)
from cj_pipeline.emulator.recordings import human_votes
from cj_pipeline.emulator.state import text_key
from tests.support import ROOT
from tests.support.emulator_calls import GOOD, WEAK, prompt


def ask(
    model: str,
    text_a: str,
    text_b: str,
    key: str,
    *,
    number: int = 1,
    settings: Settings | None = None,
    qualities: dict[str, float] | None = None,
    ties: bool = True,
    seed: int = 0,
) -> JudgeReply:
    """Return what a judge says about two texts."""
    judge_request = JudgeRequest(model, prompt(text_a, text_b), "", ties, None)
    known = {text_key(text): quality for text, quality in (qualities or {}).items()}
    return answer(judge_request, draw_key(seed, key, number), settings or Settings(), known)


def won(reply: JudgeReply) -> str:
    """Return the winner in an answer."""
    return str(json.loads(reply.text)["winner"])


def share_of_a(text_a: str, text_b: str, settings: Settings, qualities: dict[str, float]) -> float:
    """Return how often A wins over many requests."""
    n = 2000
    replies = (
        ask("quality", text_a, text_b, f"r{i}", settings=settings, qualities=qualities)
        for i in range(n)
    )
    return sum(won(s) == "A" for s in replies) / n


def test_quality_follows_the_logistic_of_the_difference() -> None:
    """What a scale must recover is known exactly."""
    qualities = {"one": 0.8, "two": -0.2}

    share = share_of_a("one", "two", Settings(), qualities)

    assert share == pytest.approx(1 / (1 + math.exp(-1.0)), abs=0.03)


def test_position_bias_favours_the_essay_shown_first() -> None:
    """Equal essays win unequally when one is always first."""
    biased = Settings(judges={"quality": QualityJudge(position_bias=1.0)})

    share = share_of_a("one", "two", biased, {"one": 0.0, "two": 0.0})

    assert share == pytest.approx(1 / (1 + math.exp(-1.0)), abs=0.03)


def test_no_discrimination_is_a_coin() -> None:
    """A judge may be noise."""
    noise = Settings(judges={"quality": QualityJudge(discrimination=0.0)})

    share = share_of_a("one", "two", noise, {"one": 3.0, "two": -3.0})

    assert share == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("judge", "kind"),
    [
        (QualityJudge(refusal_rate=0.25), "refusal"),
        (QualityJudge(invalid_rate=0.25), "invalid_output"),
    ],
)
def test_refusals_and_invalid_answers_come_at_their_rate(judge: QualityJudge, kind: str) -> None:
    """Failures are drawn as settings say."""
    settings = Settings(judges={"quality": judge})

    replies = [ask("quality", GOOD, WEAK, f"r{i}", settings=settings) for i in range(2000)]

    assert sum(s.kind == kind for s in replies) / 2000 == pytest.approx(0.25, abs=0.04)


def test_ties_come_only_where_they_are_allowed() -> None:
    """A judge that may not tie never does."""
    settings = Settings(judges={"quality": QualityJudge(tie_rate=0.5)})

    free = [ask("quality", GOOD, WEAK, f"r{i}", settings=settings) for i in range(200)]
    bound = [ask("quality", GOOD, WEAK, f"r{i}", settings=settings, ties=False) for i in range(200)]

    assert 60 < sum(won(s) == "tie" for s in free) < 140
    assert not any(won(s) == "tie" for s in bound)


def test_a_repeated_pair_is_judged_anew_and_a_repeated_request_is_not() -> None:
    """The request's id is what makes one answer differ from the next."""
    qualities = {"one": 0.0, "two": 0.0}

    again = {ask("quality", "one", "two", "same", qualities=qualities).text for _ in range(5)}
    anew = {won(ask("quality", "one", "two", f"r{i}", qualities=qualities)) for i in range(20)}

    assert len(again) == 1
    assert anew == {"A", "B"}


def test_a_comparison_has_one_verdict_whichever_job_it_is_sent_by() -> None:
    """The submission key in our ids changes nothing, nor does the batch's name."""
    one = draw_key(0, custom_id("a" * 16, comparison_id("spring-9", 7), 1), 1)
    other = draw_key(0, custom_id("b" * 16, comparison_id("autumn-9", 7), 1), 5)

    assert one == other
    assert one.sequence == 7


def test_another_comparison_another_attempt_and_another_seed_are_drawn_anew() -> None:
    """Twelve comparisons twice, under two seeds, are 48 draws."""
    keys = {
        draw_key(seed, custom_id("a" * 16, comparison_id("spring-9", number), attempt), 1)
        for seed in (0, 1)
        for number in range(1, 13)
        for attempt in (1, 2)
    }

    assert len(keys) == 48


def test_verdicts_are_the_same_in_another_process() -> None:
    """Nothing depends on Python's own hash, which changes from run to run."""
    code = (
        "import sys\n"
        "from cj_pipeline.emulator.config import Settings\n"
        "from cj_pipeline.emulator.judges import JudgeRequest, answer, draw_key\n"
        "request = JudgeRequest('quality', sys.stdin.read(), '', True, None)\n"
        "replies = [answer(request, draw_key(0, f'r{i}', 1), Settings(), {}) for i in range(5)]\n"
        "print([s.text for s in replies])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}

    out = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        input=prompt(GOOD, WEAK),
        cwd=ROOT,
    ).stdout

    assert out.strip() == str([ask("quality", GOOD, WEAK, f"r{i}").text for i in range(5)])


def test_an_unregistered_text_has_an_estimated_quality() -> None:
    """Longer and richer is better; nothing is better than empty."""
    plain = "A plain sentence of some ordinary words about school."

    assert estimated_quality("") < estimated_quality(plain) < estimated_quality(GOOD)


@pytest.mark.parametrize(
    ("model", "n", "n_a"),
    [
        ("cj_generic_batch", 20, 20),
        ("eng5_lower5_gpt51_low", 40, 16),
        ("eng5_anchor_gpt51_low", 66, 35),
    ],
)
def test_mock_profiles_have_their_exact_share_of_a(model: str, n: int, n_a: int) -> None:
    """40 % is 16 of LOWER5's 40 comparisons, and 35/66 is 35 of 66."""
    replies = [ask(model, GOOD, WEAK, f"r{i}", number=i) for i in range(1, n + 1)]

    assert sum(won(s) == "A" for s in replies) == n_a


@pytest.mark.parametrize(
    ("model", "tokens", "times"),
    [
        ("cj_generic_batch", (5, 17), (0.0, 0.0)),
        ("eng5_lower5_gpt51_low", (1000, 30), (1.0, 2.0)),
        ("eng5_anchor_gpt51_low", (1100, 40), (1.2, 2.0)),
    ],
)
def test_mock_profiles_have_their_tokens_and_times(
    model: str, tokens: tuple[int, int], times: tuple[float, float]
) -> None:
    """Least tokens, and latencies within their range."""
    replies = [ask(model, "a", "b", f"r{i}", number=i) for i in range(1, 50)]

    assert all(s.prompt_tokens >= tokens[0] and s.completion_tokens >= tokens[1] for s in replies)
    assert all(times[0] <= s.took_s <= times[1] for s in replies)


def voted_texts() -> tuple[str, str, tuple[str, ...]]:
    """Return two texts people voted on, and the votes, as text keys."""
    import csv
    from importlib import resources

    source = resources.files("cj_pipeline") / "emulator" / "data" / "ukp_demo_items.csv"
    texts = {r["id"]: r["text"] for r in csv.DictReader(source.open(encoding="utf-8", newline=""))}
    one, two = texts["ukp:251373"], texts["ukp:554188"]
    first, second = sorted((text_key(one), text_key(two)))
    return one, two, human_votes().winners[first, second]


def test_human_votes_are_drawn_as_people_cast_them() -> None:
    """Over many requests the shares of the recorded votes come out."""
    one, two, votes = voted_texts()

    got = [won(ask("human-votes", one, two, f"r{i}")) for i in range(1000)]

    wanted = votes.count(text_key(one)) / len(votes)
    assert got.count("A") / 1000 == pytest.approx(wanted, abs=0.05)


def test_human_votes_do_not_depend_on_positions() -> None:
    """The votes were cast on a pair, not on an order."""
    one, two, _ = voted_texts()
    swapped = {"A": "B", "B": "A", "tie": "tie"}

    for i in range(50):
        forth = won(ask("human-votes", one, two, f"r{i}"))
        back = won(ask("human-votes", two, one, f"r{i}"))

        assert back == swapped[forth]


def test_human_votes_refuse_a_text_nobody_voted_on() -> None:
    """No vote is made up."""
    one, _, _ = voted_texts()

    with pytest.raises(HTTPError, match="shown as B") as caught:
        ask("human-votes", one, "an unknown text", "r")

    assert caught.value.status == 400


def test_arguments_with_the_same_text_share_their_votes() -> None:
    """Two items of the data have one text: 95 items are 94 texts, all pairs in a topic covered."""
    recording = human_votes()

    assert len(recording.texts) == 94
    assert all(first != second for first, second in recording.winners)
    assert len(recording.winners) == 27 * 26 // 2 + 33 * 32 // 2 + 34 * 33 // 2


def test_recorded_verdicts_are_replayed_in_the_order_shown() -> None:
    """Both orders were shown to the model, and each has its own answer."""
    import pyarrow.parquet as pq

    folder = ROOT / "cj_pipeline" / "emulator" / "data"
    texts = {
        r["id"]: r["text"] for r in pq.read_table(folder / "prd_vicuna80_items.parquet").to_pylist()
    }
    verdicts = pq.read_table(folder / "prd_vicuna80.parquet").to_pylist()
    shown = [v for v in verdicts if v["judge"] == "claude"][:40]

    for row in shown:
        replies = ask("recorded:claude", texts[row["item_a"]], texts[row["item_b"]], "r")
        labels = {row["item_a"]: "A", row["item_b"]: "B", "tie": "tie"}

        assert won(replies) == labels[row["winner"]]


def test_a_prompt_without_essays_is_refused() -> None:
    """The emulator judges only what is fenced as essays."""
    judge_request = JudgeRequest("quality", "Hello", "", True, None)

    with pytest.raises(HTTPError, match="no two fenced essays"):
        answer(judge_request, draw_key(0, "r", 1), Settings(), {})
