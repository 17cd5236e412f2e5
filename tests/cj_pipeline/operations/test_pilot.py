"""What a handful of live calls says about a judge, and about what a batch will cost."""

import dataclasses
import functools
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cj_pipeline.batch.comparisons import Verdict
from cj_pipeline.errors import CeilingReachedError, SettingsError
from cj_pipeline.judging.judges import Judge, load_judge
from cj_pipeline.judging.pricing import Usage, cost_usd
from cj_pipeline.operations.pilot import (
    Trial,
    calibrate,
    failures_by_kind,
    hold_apart,
    interval_of_rate,
    interval_of_share,
    paid_trials,
    summarise,
    trial_pairs,
)
from cj_pipeline.runtime import Runtime
from tests.support.batches import open_engine

_JUDGE = load_judge("quality")


def _trial(a: str, b: str, winner: str | None, *, usage: Usage | None = None) -> Trial:
    verdict = Verdict(winner, 4.0, "so") if winner else None  # type: ignore[arg-type]
    usage = usage or Usage(prompt=1_000, completion=100)
    return Trial(_JUDGE, a, b, verdict, None if verdict else "refusal", "", usage, 2.0)


def test_pairs_are_asked_in_both_orders_and_chosen_by_the_seed() -> None:
    """Two judges are compared on the same pairs."""
    ids = ["a", "b", "c", "d"]

    pairs = trial_pairs(ids, 3, seed=1)

    assert len(pairs) == 6
    assert {(b, a) for a, b in pairs} == set(pairs)
    assert pairs == trial_pairs(ids, 3, seed=1)


def test_there_are_never_more_pairs_than_the_essays_make() -> None:
    """Three essays make three pairs."""
    assert len(trial_pairs(["a", "b", "c"], 50, seed=0)) == 6


def test_a_judge_that_names_the_same_essay_in_both_orders_is_consistent() -> None:
    """By hand: one pair agrees with itself, one does not."""
    trials = [
        _trial("a", "b", "A"),
        _trial("b", "a", "B"),
        _trial("a", "c", "A"),
        _trial("c", "a", "A"),
    ]

    summary = summarise(_JUDGE, trials, {})

    assert (summary.consistency, summary.n_pairs) == (0.5, 2)
    assert summary.first_share == 0.75


def test_agreement_is_counted_between_anchors_of_different_grades_only() -> None:
    """Two anchors of one grade have no due verdict, and a student's essay has no grade."""
    trials = [
        _trial("low", "high", "B"),
        _trial("high", "low", "tie"),
        _trial("low", "low2", "A"),
        _trial("low", "student", "A"),
    ]

    summary = summarise(_JUDGE, trials, {"low": 1, "low2": 1, "high": 3})

    assert (summary.agreement, summary.n_anchor_verdicts) == (0.75, 2)


def test_failed_calls_make_each_verdict_dearer() -> None:
    """They are paid for as well."""
    good = _trial("a", "b", "A")

    alone = summarise(_JUDGE, [good], {})
    with_failure = summarise(_JUDGE, [good, _trial("b", "a", None)], {})

    assert alone.usd_per_verdict == good.cost_usd
    assert with_failure.usd_per_verdict == 2 * good.cost_usd
    assert (with_failure.n_asked, with_failure.n_verdicts) == (2, 1)


def test_a_judge_that_never_answers_has_no_shares() -> None:
    """Nothing is made up for it."""
    summary = summarise(_JUDGE, [_trial("a", "b", None)], {"a": 1, "b": 2})

    assert summary.consistency is None
    assert summary.agreement is None
    assert summary.usd_per_verdict is None


def test_the_interval_holds_the_true_cost_as_often_as_it_says() -> None:
    """Simulated: pilots of 8 calls, batches of 200; 95 % promised, 92 to 98 % accepted."""
    rng = np.random.default_rng(7)

    def call() -> Usage:
        return Usage(prompt=int(rng.integers(800, 1_600)), completion=int(rng.integers(40, 400)))

    held = 0
    for _ in range(400):
        pilot = calibrate(
            [_trial("a", "b", "A", usage=call()) for _ in range(8)], 200, batched=True
        )
        true = sum(cost_usd(_JUDGE.price, call(), batched=True) for _ in range(200))
        held += pilot.usd_low <= true <= pilot.usd_high

    assert 0.92 <= held / 400 <= 0.98


def test_alike_calls_leave_no_doubt_about_the_cost() -> None:
    """By hand: 1000 x 1 + 100 x 4 per million, times 100."""
    pilot = calibrate([_trial("a", "b", "A")] * 3, 100, batched=False)

    assert pilot.usd_low == pilot.usd == pilot.usd_high == pytest.approx(0.14)
    assert (pilot.prompt_tokens, pilot.completion_tokens) == (1_000, 100)


def test_one_trial_is_too_few_for_an_interval() -> None:
    """It says nothing about how much calls differ."""
    with pytest.raises(SettingsError, match="two are needed"):
        calibrate([_trial("a", "b", "A")], 100, batched=True)


def test_a_pilot_counts_the_writing_of_a_cache_once() -> None:
    """Three trials at USD per million 1 in, 0.1 read, 1.25 written and 4 out, times 100.

    The first wrote 4,000 of 5,000: 1000 x 1 + 4000 x 1.25 + 100 x 4 = 6400
    The others read them, each:     1000 x 1 + 4000 x 0.10 + 100 x 4 = 1800

    A pilot that finds the cache warm already counts one writing all the same.
    """
    wrote = Usage(prompt=5_000, cache_write_5m=4_000, completion=100)
    read = Usage(prompt=5_000, cached=4_000, completion=100)
    trials = [_trial("a", "b", "A", usage=usage) for usage in (wrote, read, read)]

    pilot = calibrate(trials, 100, batched=False)

    assert pilot.usd_low == pilot.usd == pilot.usd_high == pytest.approx((6_400 + 99 * 1_800) / 1e6)
    assert calibrate(trials[1:], 100, batched=False).usd == pytest.approx(pilot.usd)


def test_inside_a_providers_batch_no_cache_is_counted_on() -> None:
    """What a single call read from a cache, a batch may have to pay in full."""
    read = Usage(prompt=5_000, cached=4_000, completion=100)
    plain = Usage(prompt=5_000, completion=100)

    pilots = [
        calibrate([_trial("a", "b", "A", usage=usage)] * 3, 100, batched=True)
        for usage in (read, plain)
    ]

    assert pilots[0] == pilots[1]


def test_pairs_that_tell_which_verdict_was_due_come_first() -> None:
    """Anchors of different grades; two of one grade, and students, come after them."""
    ids = ["s1", "s2", "low", "low2", "high"]
    ranks = {"low": 1, "low2": 1, "high": 3}

    pairs = trial_pairs(ids, 2, seed=7, ranks=ranks)

    assert {frozenset(pair) for pair in pairs} == {
        frozenset(("low", "high")),
        frozenset(("low2", "high")),
    }
    assert len(trial_pairs(ids, 50, seed=7, ranks=ranks)) == 20


def test_the_interval_of_a_share_is_wilsons() -> None:
    """9 of 10, as published tables have it; never beyond nothing and all."""
    assert interval_of_share(9, 10) == pytest.approx((0.596, 0.982), abs=0.001)
    assert interval_of_share(0, 10) == pytest.approx((0.0, 0.278), abs=0.001)
    assert interval_of_share(0, 0) is None


def _anchors(n: int) -> dict[str, int]:
    return {f"e{i:03d}": i for i in range(n)}


def _answers(pairs: list[tuple[str, str]], share_right: float, seed: int) -> list[Trial]:
    rng = np.random.default_rng(seed)
    trials = []
    for a, b in pairs:
        is_right = rng.random() < share_right
        better = "A" if a > b else "B"
        trials.append(_trial(a, b, better if is_right else {"A": "B", "B": "A"}[better]))
    return trials


def test_judges_that_differ_are_found_at_the_number_of_pairs_that_was_asked_for() -> None:
    """In at least 95 of 100 replications; and alike ones are called different in about five."""
    ranks = _anchors(60)
    found = alike = 0
    for seed in range(100):
        pairs = trial_pairs(sorted(ranks), 120, seed, ranks)
        good, poor = _answers(pairs, 0.9, seed), _answers(pairs, 0.7, seed + 1_000)
        found += hold_apart(good, poor, ranks).are_apart
        alike += hold_apart(good, _answers(pairs, 0.9, seed + 2_000), ranks).are_apart
    # Expected gap .20, scatter of a pair's mean sqrt((.09 + .21) / 2) = .39: 49 pairs are needed.
    assert found >= 95
    assert alike <= 12


@functools.cache
def _recorded() -> dict[str, dict[int, list[Trial]]]:
    """What five models really answered, by model and pair, where most people preferred one text.

    The text that they preferred is called `N+`, the other `N-`.
    """
    data = files("cj_pipeline") / "emulator" / "data" / "prd_vicuna80.parquet"
    rows = pd.read_parquet(Path(str(data)))
    rows["pair"] = [tuple(sorted(pair)) for pair in zip(rows.item_a, rows.item_b, strict=True)]
    people = rows[(rows.kind != "llm") & (rows.winner != "tie")]
    better = {}
    for pair, winners in people.groupby("pair").winner:
        votes = winners.value_counts()
        if len(votes) == 1 or votes.iloc[0] > votes.iloc[1]:
            better[pair] = votes.index[0]
    numbers = {pair: number for number, pair in enumerate(sorted(better))}
    found: dict[str, dict[int, list[Trial]]] = {}
    for row in rows[rows.kind == "llm"].itertuples():
        if row.pair in numbers:
            number, of = numbers[row.pair], better[row.pair]
            a, b = (f"{number}{'+' if text == of else '-'}" for text in (row.item_a, row.item_b))
            winner = {row.item_a: "A", row.item_b: "B"}.get(row.winner, "tie")
            found.setdefault(row.judge, {}).setdefault(number, []).append(_trial(a, b, winner))
    return found


@pytest.mark.parametrize(
    ("better", "worse"), [("gpt4", "vicuna-13b"), ("claude", "vicuna-13b"), ("gpt35", "bard")]
)
def test_the_better_of_two_real_judges_is_found_by_asking_as_many_pairs_as_it_says(
    better: str, worse: str
) -> None:
    """In at least 95 of 100 replications, beginning with 20 pairs; over all of them it is known."""
    one, other = _recorded()[better], _recorded()[worse]
    numbers = sorted(one.keys() & other.keys())
    ranks = {f"{number}{end}": rank for number in numbers for end, rank in (("+", 2), ("-", 1))}
    found = 0
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(numbers)
        n_pairs, apart = 20, None
        for _ in range(4):
            taken = order[:n_pairs]
            verdicts = [[t for n in taken for t in judge[n]] for judge in (one, other)]
            apart = hold_apart(*verdicts, ranks)
            if apart.more_pairs == 0:
                break
            n_pairs += apart.more_pairs or 20
        found += apart is not None and apart.are_apart and (apart.difference or 0) > 0

    assert found >= 95


def test_too_few_pairs_ask_for_about_as_many_as_it_takes() -> None:
    """Worked out by hand for a gap of .2 and a scatter of .39: 49 pairs in all."""
    ranks = _anchors(60)
    asked = []
    for seed in range(40):
        pairs = trial_pairs(sorted(ranks), 16, seed, ranks)
        apart = hold_apart(_answers(pairs, 0.9, seed), _answers(pairs, 0.7, seed + 1_000), ranks)
        if apart.more_pairs:
            asked.append(16 + apart.more_pairs)
    assert 30 <= float(np.median(asked)) <= 160


def test_judges_that_say_the_same_are_not_apart_and_nobody_knows_when_they_would_be() -> None:
    """No difference was seen, so none can be planned for."""
    ranks = _anchors(6)
    trials = _answers(trial_pairs(sorted(ranks), 10, 0, ranks), 1.0, 0)

    apart = hold_apart(trials, trials, ranks)

    assert (apart.agreement, apart.difference, apart.more_pairs) == (1.0, 0.0, None)
    assert not apart.are_apart


def test_two_pairs_that_happen_to_agree_prove_nothing() -> None:
    """Without scatter an interval would have no width."""
    ranks = _anchors(3)
    pairs = trial_pairs(sorted(ranks), 2, 0, ranks)

    apart = hold_apart(_answers(pairs, 1.0, 0), _answers(pairs, 0.0, 0), ranks)

    assert apart.difference == 1.0
    assert not apart.are_apart


def test_failures_are_counted_by_kind() -> None:
    """The most frequent first."""
    trials = [_trial("a", "b", None), _trial("a", "b", "A"), _trial("b", "a", None)]

    assert failures_by_kind(trials) == {"refusal": 2}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


PAID = load_judge("openai-gpt-4-1-mini")


def _one_call(judge: Judge) -> Trial:
    usage = Usage(prompt=1_000_000, completion=0)
    return Trial(judge, "a", "b", None, "", None, usage, 0.1)


def test_what_trials_cost_counts_for_the_day(runtime: Runtime) -> None:
    """Calls of no batch are no way around what an operator lets a day cost."""
    runtime.home.mkdir(parents=True, exist_ok=True)
    (runtime.home / "installation.yaml").write_text("ceilings: {usd_per_day: 1.0}\n")
    with paid_trials(runtime, [PAID], 1, 0.9) as trials:
        trials.append(_one_call(PAID))  # which costs 0.40 USD

    with paid_trials(runtime, [PAID], 1, 0.55):
        pass  # cut short: its reservation stays

    with (
        pytest.raises(CeilingReachedError, match="1 USD for a day"),
        paid_trials(runtime, [PAID], 1, 0.1),
    ):
        pytest.fail("nothing may be sent")
    with runtime.store.read() as db:
        spent = db.rows("SELECT billed_usd, reserved_usd FROM spent_on_trials ORDER BY begun_at")
    assert spent == [
        {"billed_usd": pytest.approx(0.4), "reserved_usd": 0.9},
        {"billed_usd": None, "reserved_usd": 0.55},
    ]


def test_a_judge_that_is_not_allowed_is_not_tried(runtime: Runtime) -> None:
    """And no command of it costs more than a batch may."""
    runtime.home.mkdir(parents=True, exist_ok=True)
    said = "allowed_judges: [openai-gpt-5-1-low]\nceilings: {usd_per_batch: 0.01}\n"
    (runtime.home / "installation.yaml").write_text(said)

    with pytest.raises(CeilingReachedError) as refused, paid_trials(runtime, [PAID], 1, 0.5):
        pytest.fail("nothing may be sent")

    assert "is not allowed in this installation" in str(refused.value)
    assert "0.01 USD for a batch" in str(refused.value)


def test_simulated_judges_are_tried_freely(runtime: Runtime) -> None:
    """They cost nobody anything, so nothing is stored of it."""
    with paid_trials(runtime, [load_judge("quality")], 5, 9.0) as trials:
        assert trials == []

    with runtime.store.read() as db:
        assert db.rows("FROM spent_on_trials") == []


def test_the_interval_of_a_rate_by_hand() -> None:
    """Pairs of one verdict each at 1 and 3 USD: 2, more or less 12.706; never below 0."""
    low, high = interval_of_rate([1, 3], [1, 1]) or (None, None)

    assert (low, high) == (0.0, pytest.approx(2 + 12.7062, abs=1e-3))
    assert interval_of_rate([1], [1]) is None
    assert interval_of_rate([1, 2], [0, 0]) is None


def test_the_interval_of_a_rate_holds_the_truth_as_often_as_it_says() -> None:
    """Also where the two orders of a pair cost much the same, and some bring no verdict."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(2_000):
        pair_costs = rng.gamma(8, 1 / 8, size=20)
        totals = pair_costs * 2 + rng.normal(0, 0.05, size=20)
        counts = rng.binomial(2, 0.9, size=20)
        low, high = interval_of_rate(list(totals), [int(count) for count in counts]) or (0, 0)
        held += low <= 1 / 0.9 <= high

    assert 0.925 <= held / 2_000 <= 0.97


def test_every_figure_of_a_judge_has_its_interval() -> None:
    """A mean of a few calls without one is believed too readily."""
    pairs = [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")]
    trials = [_trial(one, other, "A") for one, other in pairs]

    summary = summarise(_JUDGE, trials, {"a": 1, "b": 2, "c": 3})

    figures = {field.name for field in dataclasses.fields(summary)} - {"intervals"}
    counts = {"judge_id", *(name for name in figures if name.startswith("n_"))}
    assert set(summary.intervals) == figures - counts
    for name, interval in summary.intervals.items():
        value = getattr(summary, name)
        if value is not None:
            assert interval is not None
            assert interval[0] <= value <= interval[1]
