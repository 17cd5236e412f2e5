"""Progress as plain values: how a batch came out, and how long it will take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate

import numpy as np
import pytest

from cj_pipeline.progress.values import (
    Landing,
    checkpoint_size,
    last_checkpoint,
    throughput,
    time_left,
)
from cj_pipeline.stopping.continuation import BatchOutcome, outcome_of

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def landings(*steps: tuple[float, int]) -> list[Landing]:
    """Return landings from pairs of seconds since the start and comparisons home by then."""
    return [Landing(START + timedelta(seconds=at), n) for at, n in steps]


@pytest.mark.parametrize(
    ("state", "reason", "n_asked", "n_failed", "expected"),
    [
        ("running", None, 5, 0, None),
        ("rejected", None, 0, 0, None),
        ("succeeded", "stable", 5, 0, BatchOutcome.SUCCESS),
        ("succeeded", "stable", 5, 1, BatchOutcome.PARTIAL),
        ("failed", "low_success_rate", 5, 3, BatchOutcome.FAILURE),
        ("failed", "spend_cap", 0, 0, BatchOutcome.EMPTY),
        ("failed", "expired", 5, 5, BatchOutcome.EXPIRED),
        ("failed", "stalled", 5, 0, BatchOutcome.STALLED),
        ("cancelled", "cancelled", 5, 2, BatchOutcome.CANCELLED),
        ("cancelled", "cancelled", 0, 0, BatchOutcome.CANCELLED),
    ],
)
def test_a_batch_comes_out_in_one_way(
    state: str, reason: str | None, n_asked: int, n_failed: int, expected: BatchOutcome | None
) -> None:
    """One that runs, or was never taken in, has not come out at all."""
    assert outcome_of(state, reason, n_asked=n_asked, n_failed=n_failed) is expected


def test_an_even_pace_is_carried_on() -> None:
    """Ten comparisons every five seconds leave twenty seconds for forty more."""
    steady = landings((0, 0), (5, 10), (10, 20), (15, 30))

    eta = time_left(steady, 40, START + timedelta(seconds=15))

    assert eta is not None
    assert (eta.low_seconds, eta.seconds, eta.high_seconds) == pytest.approx((20, 20, 20))


def test_the_time_left_is_unknown_until_something_is_home() -> None:
    """A number made up would be believed."""
    assert time_left(landings((0, 0)), 40, START + timedelta(seconds=10)) is None


def test_a_first_landing_already_tells_the_time_left_roughly() -> None:
    """A small batch has few: whoever waits for it is told what one says, and how little that is."""
    first = time_left(landings((0, 0), (5, 10)), 40, START + timedelta(seconds=5))
    second = time_left(landings((0, 0), (5, 10), (10, 20)), 40, START + timedelta(seconds=10))

    assert first is not None
    assert second is not None
    assert first.seconds == second.seconds == pytest.approx(20)
    # By hand, for four gaps after one: the share q of all the time has q^4 = .025 or .975.
    ends = [5 * p**0.25 / (1 - p**0.25) for p in (0.025, 0.975)]
    assert (first.low_seconds, first.high_seconds) == pytest.approx(ends)
    assert first.low_seconds < second.low_seconds < 20 < second.high_seconds < first.high_seconds


@pytest.mark.parametrize("n_seen", [1, 2])
@pytest.mark.parametrize("n_left", [1, 6])
def test_the_first_intervals_hold_what_then_happens(n_seen: int, n_left: int) -> None:
    """Over batches as irregular as chance makes them, about 95 in 100 end inside."""
    rng = np.random.default_rng(8)
    inside = 0
    for _ in range(2000):
        ends = list(accumulate(rng.exponential(3.0, size=n_seen + n_left).tolist()))
        seen = landings((0, 0), *((ends[i], i + 1) for i in range(n_seen)))
        eta = time_left(seen, n_left, seen[-1].at)
        assert eta is not None
        inside += eta.low_seconds <= ends[-1] - ends[n_seen - 1] <= eta.high_seconds

    assert 0.935 <= inside / 2000 <= 0.965


def test_time_passes_while_nothing_lands() -> None:
    """Within a usual gap the end comes nearer."""
    steady = landings((0, 0), (5, 10), (10, 20), (15, 30))

    eta = time_left(steady, 40, START + timedelta(seconds=18))

    assert eta is not None
    assert eta.seconds == pytest.approx(17)


def test_a_long_silence_moves_the_end_away() -> None:
    """A provider that has stopped answering is not promised to end on time."""
    steady = landings((0, 0), (5, 10), (10, 20), (15, 30))

    before = time_left(steady, 40, START + timedelta(seconds=20))
    after = time_left(steady, 40, START + timedelta(seconds=80))

    assert before is not None
    assert after is not None
    assert after.seconds > before.seconds


def test_an_uneven_pace_widens_the_interval() -> None:
    """The same mean pace, less regular, is less certain."""
    even = landings((0, 0), (10, 10), (20, 20), (30, 30), (40, 40))
    uneven = landings((0, 0), (2, 10), (19, 20), (21, 30), (40, 40))
    now = START + timedelta(seconds=40)

    sharp, vague = time_left(even, 40, now), time_left(uneven, 40, now)

    assert sharp is not None
    assert vague is not None
    assert vague.seconds == pytest.approx(sharp.seconds)
    assert vague.high_seconds - vague.low_seconds > sharp.high_seconds - sharp.low_seconds + 10


def test_the_interval_holds_what_then_happens() -> None:
    """Over batches whose chunks take exponential times, about 95 in 100 end inside it."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(400):
        ends = list(accumulate(rng.exponential(3.0, size=50).tolist()))
        seen = landings((0, 0), *((ends[i], 4 * (i + 1)) for i in range(20)))
        eta = time_left(seen, 4 * 30, seen[-1].at)
        assert eta is not None
        inside += eta.low_seconds <= ends[49] - ends[19] <= eta.high_seconds

    assert 0.91 <= inside / 400 <= 0.985


def test_nothing_left_takes_no_time() -> None:
    """Also before any pace is known."""
    eta = time_left(landings((0, 0), (5, 10)), 0, START + timedelta(seconds=5))

    assert eta is not None
    assert eta.high_seconds == 0


def test_a_count_that_goes_down_and_up_again_is_one_step() -> None:
    """An answer that held no verdict is asked again; that is no negative pace."""
    dipped = landings((0, 0), (10, 10), (11, 8), (20, 20))

    assert throughput(dipped, START + timedelta(seconds=20)) == pytest.approx(1.0)


def test_there_is_no_pace_before_anything_landed() -> None:
    """Zero would be a promise that it never ends."""
    assert throughput(landings((0, 0)), START + timedelta(seconds=9)) is None


def test_checkpoints_are_as_configured_or_a_fortieth() -> None:
    """And never less than one comparison apart."""
    assert checkpoint_size(1000, 25) == 25
    assert checkpoint_size(1000, None) == 25
    assert checkpoint_size(6, None) == 1
    assert last_checkpoint(59, 25) == 50
