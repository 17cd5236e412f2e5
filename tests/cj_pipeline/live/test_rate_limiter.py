"""The shared file: limits that hold in every window, shares, and a breaker all processes see."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.live.circuit_breaker import TRIPS_AFTER
from cj_pipeline.live.rate_limiter import (
    SILENT_AFTER_S,
    STALE_S,
    AcquireRequest,
    Bucket,
    Permits,
    Rate,
    RateLimiter,
    ReleasedPermit,
)

LANE = Bucket("account/model")
SIXTY = Bucket("account/model", (Rate("calls", 60, 60.0),))


class Clock:
    """Unix seconds that move only when told."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def lanes(tmp_path: Path, clock: Clock) -> Iterator[RateLimiter]:
    """A fresh shared file."""
    opened = RateLimiter(tmp_path / "live.sqlite", clock)
    yield opened
    opened.close()


def wish(owner: str = "me", n: int = 1, **more: object) -> AcquireRequest:
    """Return a wish for some turns."""
    given: dict[str, object] = {
        "owner": owner,
        "batch_id": owner,
        "level": 1,
        "since": Clock.now,
        "tokens": (100,) * n,
        "n_waiting": n,
        "n_in_flight": 0,
    }
    return AcquireRequest(**(given | more))  # type: ignore[arg-type]


def fail(lanes: RateLimiter, lane: Bucket, times: int, probe: str | None = None) -> None:
    """Let calls fail."""
    lanes.release(lane, [ReleasedPermit("failed", 0, probe, None, "down")] * times)


def test_without_limits_every_turn_is_given_at_once(lanes: RateLimiter) -> None:
    """Nothing is slowed down that nobody bounded."""
    assert len(lanes.acquire(LANE, wish(n=64)).sent_ids) == 64


def test_a_window_never_holds_more_than_the_limit(lanes: RateLimiter, clock: Clock) -> None:
    """Whichever window one looks at, not only those that begin on the minute."""
    sent: list[float] = []
    for _ in range(3000):
        sent += [clock.now] * len(lanes.acquire(SIXTY, wish(n=16)).sent_ids)
        clock.now += 0.1

    assert max(sum(start <= at < start + 60 for at in sent) for start in sent) <= 60
    assert len(sent) >= 0.95 * 60 * 5


def test_calls_of_other_processes_count(tmp_path: Path, clock: Clock) -> None:
    """The provider counts them all."""
    ours, theirs = (RateLimiter(tmp_path / "live.sqlite", clock) for _ in range(2))

    assert len(theirs.acquire(SIXTY, wish("they", 50)).sent_ids) == 50
    assert len(ours.acquire(SIXTY, wish("we", 50)).sent_ids) == 10


def test_tokens_are_bounded_too_and_put_right_afterwards(lanes: RateLimiter) -> None:
    """What a call was taken to cost at the most is given back as far as it was not used."""
    lane = Bucket("account/model", (Rate("tokens", 1000, 60.0),))

    first = lanes.acquire(lane, wish(n=20))
    assert len(first.sent_ids) == 10
    assert not lanes.acquire(lane, wish(n=1)).sent_ids
    used = [ReleasedPermit("answered", sent_id, tokens=40) for sent_id in first.sent_ids]
    assert len(lanes.acquire(lane, wish(n=20), used).sent_ids) == 6


def test_a_waiter_is_told_when_to_look_again(lanes: RateLimiter, clock: Clock) -> None:
    """Then the oldest call has left the window, and there is room."""
    lanes.acquire(SIXTY, wish(n=60))
    clock.now += 20

    refused = lanes.acquire(SIXTY, wish(n=1))
    assert not refused.sent_ids
    assert 39 < refused.wait_s < 41
    clock.now += refused.wait_s
    assert len(lanes.acquire(SIXTY, wish(n=1)).sent_ids) == 1


def test_calls_in_flight_are_bounded_over_all_processes(lanes: RateLimiter) -> None:
    """A small server of one's own takes only so many at once."""
    lane = Bucket("account/model", most_in_flight=6)
    lanes.acquire(lane, wish("they", 4))

    assert len(lanes.acquire(lane, wish("we", 4)).sent_ids) == 2


def test_a_dead_process_gives_its_places_back(lanes: RateLimiter, clock: Clock) -> None:
    """After it has been silent for a while: nothing was told of its end."""
    lane = Bucket("account/model", most_in_flight=4)
    lanes.acquire(lane, wish("dead", 4))
    clock.now += SILENT_AFTER_S + 1

    assert len(lanes.acquire(lane, wish("we", 4)).sent_ids) == 4


def test_a_waiter_leaves_turns_to_those_whose_they_are(lanes: RateLimiter) -> None:
    """A high priority that is not looking this very moment still goes first."""
    lane = Bucket("account/model", (Rate("calls", 10, 60.0),))
    lanes.acquire(lane, wish("first", 10))  # the window is full
    lanes.acquire(lane, wish("high", 4, level=2))
    roomier = Bucket("account/model", (Rate("calls", 16, 60.0),))

    assert len(lanes.acquire(roomier, wish("low", 9, level=0)).sent_ids) == 2
    assert len(lanes.acquire(roomier, wish("high", 4, level=2)).sent_ids) == 4


def test_a_newcomer_starts_level_with_the_others(lanes: RateLimiter) -> None:
    """It does not get everything until it has caught up with what they had before it came."""
    lanes.acquire(LANE, wish("old", 500))
    tight = Bucket("account/model", (Rate("calls", 510, 60.0),))
    lanes.acquire(tight, wish("old", 0, tokens=(), n_waiting=10))

    assert len(lanes.acquire(tight, wish("new", 10)).sent_ids) == 5


def test_an_open_breaker_is_seen_by_every_process(tmp_path: Path, clock: Clock) -> None:
    """Failures are counted together, and nobody sends while it is open."""
    ours, theirs = (RateLimiter(tmp_path / "live.sqlite", clock) for _ in range(2))
    fail(ours, LANE, TRIPS_AFTER // 2)
    fail(theirs, LANE, TRIPS_AFTER - TRIPS_AFTER // 2)

    refused = ours.acquire(LANE, wish("we", 3))

    assert not refused.sent_ids
    assert refused.open_until is not None
    assert theirs.breaker("account/model").state == "open"
    assert len(ours.acquire(Bucket("account/other"), wish("we", 3)).sent_ids) == 3


def test_one_probe_is_let_through_over_all_processes(tmp_path: Path, clock: Clock) -> None:
    """The first to ask; the others wait for what comes of it."""
    ours, theirs = (RateLimiter(tmp_path / "live.sqlite", clock) for _ in range(2))
    fail(ours, LANE, TRIPS_AFTER)
    clock.now = ours.breaker("account/model").open_until

    probe: Permits = ours.acquire(LANE, wish("we", 3))
    other = theirs.acquire(LANE, wish("they", 3))

    assert len(probe.sent_ids) == 1
    assert probe.probe is not None
    assert not other.sent_ids
    ours.release(LANE, [ReleasedPermit("answered", probe.sent_ids[0], probe.probe)])
    assert len(theirs.acquire(LANE, wish("they", 3)).sent_ids) == 3


def test_a_pause_a_provider_asked_for_binds_everybody(tmp_path: Path, clock: Clock) -> None:
    """Retry-After is about the account, not about one call."""
    ours, theirs = (RateLimiter(tmp_path / "live.sqlite", clock) for _ in range(2))
    ours.pause(LANE, 30.0)

    refused = theirs.acquire(LANE, wish("they", 3))
    assert not refused.sent_ids
    assert refused.wait_s == pytest.approx(30.0)
    clock.now += 30
    assert len(theirs.acquire(LANE, wish("they", 3)).sent_ids) == 3


def test_a_turn_used_late_counts_from_when_it_was_used(lanes: RateLimiter, clock: Clock) -> None:
    """What the provider counts is when the call arrives."""
    first = lanes.acquire(SIXTY, wish(n=60))
    clock.now += 30
    lanes.refresh(first.sent_ids)
    clock.now += 31

    assert not lanes.acquire(SIXTY, wish(n=60)).sent_ids
    clock.now += 30
    assert len(lanes.acquire(SIXTY, wish(n=60)).sent_ids) == 60


def test_what_left_every_window_is_forgotten(lanes: RateLimiter, clock: Clock) -> None:
    """The file stays small however long a home lives."""
    for _ in range(50):
        lanes.acquire(SIXTY, wish(n=60))
        clock.now += 61

    (kept,) = lanes._db.execute("SELECT count(*) FROM sent").fetchone()
    assert kept <= 120


def test_whoever_leaves_takes_no_share(lanes: RateLimiter) -> None:
    """A target that is done must not hold turns back."""
    lane = Bucket("account/model", (Rate("calls", 4, 60.0),))
    lanes.acquire(lane, wish("gone", 0, tokens=(), n_waiting=9, level=2))
    lanes.leave(lane, "gone")

    assert len(lanes.acquire(lane, wish("we", 4)).sent_ids) == 4


def saturate(path: Path, until: float, told: Any) -> None:
    """Take turns as fast as they are given; tell when each was had."""
    lanes = RateLimiter(path)
    lane = Bucket("account/model", (Rate("calls", 20, 1.0),))
    owner, sent = multiprocessing.current_process().name, []
    while time.time() < until:
        turns = lanes.acquire(lane, wish(owner, 8, since=time.time()))
        at = turns.at
        while turns.sent_ids and time.time() - at > STALE_S:  # on a machine that is busy
            at = lanes.refresh(turns.sent_ids)
        sent += [time.time()] * len(turns.sent_ids)
        if len(turns.sent_ids) < 8:
            time.sleep(min(0.1, turns.wait_s))
    told.put((owner, sent))


@pytest.mark.slow
def test_four_processes_that_begin_at_once_never_send_more_than_one_may(tmp_path: Path) -> None:
    """Each in whatever window one looks at; and none of them is left out."""
    context = multiprocessing.get_context("fork")
    told: Any = context.Queue()
    until = time.time() + 6
    processes = [
        context.Process(target=saturate, args=(tmp_path / "live.sqlite", until, told))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    by_owner = dict(told.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()

    sent = sorted(at for times in by_owner.values() for at in times)
    assert max(sum(first <= at < first + 1.0 for at in sent) for first in sent) <= 20
    assert len(sent) > 40
    assert all(times for times in by_owner.values())
