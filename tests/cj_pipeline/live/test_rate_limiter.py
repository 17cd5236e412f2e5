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
    """Unix seconds that advance only when set."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that is stopped."""
    return Clock()


@pytest.fixture
def limiter(tmp_path: Path, clock: Clock) -> Iterator[RateLimiter]:
    """A fresh shared file."""
    opened = RateLimiter(tmp_path / "live.sqlite", clock)
    yield opened
    opened.close()


def request(owner: str = "me", n: int = 1, **more: object) -> AcquireRequest:
    """Return a request for some permits."""
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


def fail(limiter: RateLimiter, bucket: Bucket, times: int, probe: str | None = None) -> None:
    """Let calls fail."""
    limiter.release(bucket, [ReleasedPermit("failure", 0, probe, None, "down")] * times)


def test_without_limits_every_permit_is_granted_at_once(limiter: RateLimiter) -> None:
    """Nothing is slowed down without a limit."""
    assert len(limiter.acquire(LANE, request(n=64)).sent_ids) == 64


def test_a_window_never_holds_more_than_the_limit(limiter: RateLimiter, clock: Clock) -> None:
    """Whichever window is checked, not only those that begin on the minute."""
    sent: list[float] = []
    for _ in range(3000):
        sent += [clock.now] * len(limiter.acquire(SIXTY, request(n=16)).sent_ids)
        clock.now += 0.1

    assert max(sum(start <= at < start + 60 for at in sent) for start in sent) <= 60
    assert len(sent) >= 0.95 * 60 * 5


def test_calls_of_other_processes_count(tmp_path: Path, clock: Clock) -> None:
    """The provider counts them all."""
    ours, theirs = (RateLimiter(tmp_path / "live.sqlite", clock) for _ in range(2))

    assert len(theirs.acquire(SIXTY, request("they", 50)).sent_ids) == 50
    assert len(ours.acquire(SIXTY, request("we", 50)).sent_ids) == 10


def test_tokens_are_bounded_too_and_put_right_afterwards(limiter: RateLimiter) -> None:
    """What a call was taken to cost at the most is given back as far as it was not used."""
    bucket = Bucket("account/model", (Rate("tokens", 1000, 60.0),))

    first = limiter.acquire(bucket, request(n=20))
    assert len(first.sent_ids) == 10
    assert not limiter.acquire(bucket, request(n=1)).sent_ids
    used = [ReleasedPermit("success", sent_id, tokens=40) for sent_id in first.sent_ids]
    assert len(limiter.acquire(bucket, request(n=20), used).sent_ids) == 6


def test_a_waiter_learns_when_to_request_again(limiter: RateLimiter, clock: Clock) -> None:
    """Then the oldest call has left the window, and another call fits."""
    limiter.acquire(SIXTY, request(n=60))
    clock.now += 20

    refused = limiter.acquire(SIXTY, request(n=1))
    assert not refused.sent_ids
    assert 39 < refused.wait_s < 41
    clock.now += refused.wait_s
    assert len(limiter.acquire(SIXTY, request(n=1)).sent_ids) == 1


def test_calls_in_flight_are_bounded_over_all_processes(limiter: RateLimiter) -> None:
    """A small server of one's own takes only so many at once."""
    bucket = Bucket("account/model", most_in_flight=6)
    limiter.acquire(bucket, request("they", 4))

    assert len(limiter.acquire(bucket, request("we", 4)).sent_ids) == 2


def test_a_dead_process_gives_its_places_back(limiter: RateLimiter, clock: Clock) -> None:
    """After it has been silent for a while: its end was never reported."""
    bucket = Bucket("account/model", most_in_flight=4)
    limiter.acquire(bucket, request("dead", 4))
    clock.now += SILENT_AFTER_S + 1

    assert len(limiter.acquire(bucket, request("we", 4)).sent_ids) == 4


def test_a_waiter_leaves_permits_to_those_whose_they_are(limiter: RateLimiter) -> None:
    """A high priority that is not looking this very moment still goes first."""
    bucket = Bucket("account/model", (Rate("calls", 10, 60.0),))
    limiter.acquire(bucket, request("first", 10))  # the window is full
    limiter.acquire(bucket, request("high", 4, level=2))
    roomier = Bucket("account/model", (Rate("calls", 16, 60.0),))

    assert len(limiter.acquire(roomier, request("low", 9, level=0)).sent_ids) == 2
    assert len(limiter.acquire(roomier, request("high", 4, level=2)).sent_ids) == 4


def test_a_newcomer_starts_level_with_the_others(limiter: RateLimiter) -> None:
    """It does not get everything until it has caught up with what they had before it came."""
    limiter.acquire(LANE, request("old", 500))
    tight = Bucket("account/model", (Rate("calls", 510, 60.0),))
    limiter.acquire(tight, request("old", 0, tokens=(), n_waiting=10))

    assert len(limiter.acquire(tight, request("new", 10)).sent_ids) == 5


def test_an_open_breaker_is_seen_by_every_process(tmp_path: Path, clock: Clock) -> None:
    """Failures are counted together, and no process sends while it is open."""
    ours, theirs = (RateLimiter(tmp_path / "live.sqlite", clock) for _ in range(2))
    fail(ours, LANE, TRIPS_AFTER // 2)
    fail(theirs, LANE, TRIPS_AFTER - TRIPS_AFTER // 2)

    refused = ours.acquire(LANE, request("we", 3))

    assert not refused.sent_ids
    assert refused.open_until is not None
    assert theirs.breaker("account/model").state == "open"
    assert len(ours.acquire(Bucket("account/other"), request("we", 3)).sent_ids) == 3


def test_one_probe_is_let_through_over_all_processes(tmp_path: Path, clock: Clock) -> None:
    """The first to request a permit; the others wait for the result."""
    ours, theirs = (RateLimiter(tmp_path / "live.sqlite", clock) for _ in range(2))
    fail(ours, LANE, TRIPS_AFTER)
    clock.now = ours.breaker("account/model").open_until

    probe: Permits = ours.acquire(LANE, request("we", 3))
    other = theirs.acquire(LANE, request("they", 3))

    assert len(probe.sent_ids) == 1
    assert probe.probe is not None
    assert not other.sent_ids
    ours.release(LANE, [ReleasedPermit("success", probe.sent_ids[0], probe.probe)])
    assert len(theirs.acquire(LANE, request("they", 3)).sent_ids) == 3


def test_a_pause_a_provider_asked_for_binds_everybody(tmp_path: Path, clock: Clock) -> None:
    """Retry-After is about the account, not about one call."""
    ours, theirs = (RateLimiter(tmp_path / "live.sqlite", clock) for _ in range(2))
    ours.pause(LANE, 30.0)

    refused = theirs.acquire(LANE, request("they", 3))
    assert not refused.sent_ids
    assert refused.wait_s == pytest.approx(30.0)
    clock.now += 30
    assert len(theirs.acquire(LANE, request("they", 3)).sent_ids) == 3


def test_a_permit_used_late_counts_from_when_it_was_used(
    limiter: RateLimiter, clock: Clock
) -> None:
    """What the provider counts is when the call arrives."""
    first = limiter.acquire(SIXTY, request(n=60))
    clock.now += 30
    limiter.refresh(first.sent_ids)
    clock.now += 31

    assert not limiter.acquire(SIXTY, request(n=60)).sent_ids
    clock.now += 30
    assert len(limiter.acquire(SIXTY, request(n=60)).sent_ids) == 60


def test_what_left_every_window_is_forgotten(limiter: RateLimiter, clock: Clock) -> None:
    """The file stays small however long a store is in use."""
    for _ in range(50):
        limiter.acquire(SIXTY, request(n=60))
        clock.now += 61

    (kept,) = limiter._db.execute("SELECT count(*) FROM sent").fetchone()
    assert kept <= 120


def test_a_waiter_that_leaves_takes_no_share(limiter: RateLimiter) -> None:
    """A target that is done must not hold permits back."""
    bucket = Bucket("account/model", (Rate("calls", 4, 60.0),))
    limiter.acquire(bucket, request("gone", 0, tokens=(), n_waiting=9, level=2))
    limiter.leave(bucket, "gone")

    assert len(limiter.acquire(bucket, request("we", 4)).sent_ids) == 4


def saturate(path: Path, until: float, sent_times: Any) -> None:
    """Acquire permits as fast as they are granted; report when each was."""
    limiter = RateLimiter(path)
    bucket = Bucket("account/model", (Rate("calls", 20, 1.0),))
    owner, sent = multiprocessing.current_process().name, []
    while time.time() < until:
        permits = limiter.acquire(bucket, request(owner, 8, since=time.time()))
        at = permits.at
        while permits.sent_ids and time.time() - at > STALE_S:  # on a machine that is busy
            at = limiter.refresh(permits.sent_ids)
        sent += [time.time()] * len(permits.sent_ids)
        if len(permits.sent_ids) < 8:
            time.sleep(min(0.1, permits.wait_s))
    sent_times.put((owner, sent))


@pytest.mark.slow
def test_four_processes_that_begin_at_once_never_send_more_than_one_may(tmp_path: Path) -> None:
    """Each in whatever window is checked; and none of them is left out."""
    context = multiprocessing.get_context("fork")
    sent_times: Any = context.Queue()
    until = time.time() + 6
    processes = [
        context.Process(target=saturate, args=(tmp_path / "live.sqlite", until, sent_times))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    by_owner = dict(sent_times.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()

    sent = sorted(at for times in by_owner.values() for at in times)
    assert max(sum(first <= at < first + 1.0 for at in sent) for first in sent) <= 20
    assert len(sent) > 40
    assert all(times for times in by_owner.values())
