"""The engine: many calls at once, each within its profile, none waiting for another."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.errors import (
    ProviderRefusedError,
    ProviderUnavailableError,
    StoreBusyError,
    UncertainOutcomeError,
)
from cj_pipeline.live.circuit_breaker import TRIPS_AFTER
from cj_pipeline.live.dispatcher import (
    CallOutcome,
    CallTarget,
    DispatchHooks,
    PendingCall,
    make_calls,
    run_blocking,
)
from cj_pipeline.live.profiles import Profile
from cj_pipeline.live.rate_limiter import Bucket, RateLimiter, ReleasedPermit
from cj_pipeline.live.retry import Cause, RetryRules

QUICK = RetryRules(first_wait_s=0.001, longest_wait_s=0.002)
Single = Callable[[Mapping[str, Any], float], Awaitable[str]]


async def answers_at_once(request: Mapping[str, Any], timeout_s: float) -> str:
    """Answer as a provider does that is never busy."""
    return str(request["n"])


class Saved:
    """A store in memory, and what a run wrote to it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.noted: list[CallOutcome] = []
        self.checkpoints: list[list[CallOutcome]] = []
        self.goes_on: Callable[[], bool] = lambda: True

    @property
    def answers(self) -> list[CallOutcome]:
        """What became of each call, as it came to the store."""
        return [answer for answer in self.arrived if answer.kind != "in_doubt"]

    @property
    def arrived(self) -> list[CallOutcome]:
        """Everything that came to the store."""
        return [answer for checkpoint in self.checkpoints for answer in checkpoint]

    def keep(self, answers: Sequence[CallOutcome]) -> bool:
        """Store a checkpoint."""
        if answers:
            self.checkpoints.append(list(answers))
        return self.goes_on()

    def run(self, *targets: CallTarget, **more: Any) -> None:
        """Make the targets' calls."""
        hooks = DispatchHooks(
            open_limiter=lambda: RateLimiter(self.home / "live.sqlite"),
            journal=self.noted.append,
            checkpoint=self.keep,
            **{"retry_rules": QUICK, "checkpoint_every": 10} | more,
        )
        run_blocking(lambda: make_calls(targets, hooks))


@pytest.fixture
def kept(tmp_path: Path) -> Saved:
    """A fresh store."""
    return Saved(tmp_path)


def target(
    n: int,
    single: Single = answers_at_once,
    *,
    name: str = "judge",
    built: Callable[[int], None] = lambda _: None,
    recorded_at: float | None = None,
    **profile: Any,
) -> CallTarget:
    """Return a judge with n calls to make."""

    def build(number: int) -> dict[str, int]:
        built(number)
        return {"n": number}

    def calls() -> Iterator[PendingCall]:
        for number in range(1, n + 1):
            yield PendingCall(
                name, number, f"{name}-{number}", lambda k=number: build(k), 10, recorded_at or 0.0
            )

    return CallTarget(
        name, "batch", 1, Bucket(f"account/{name}"), Profile(**profile), calls(), single
    )


def test_every_call_is_answered_once_and_kept(kept: Saved) -> None:
    """And in the journal before it is stored."""
    kept.run(target(57))

    assert sorted(answer.line for answer in kept.answers) == list(range(1, 58))
    assert {answer.body for answer in kept.answers} == {str(n) for n in range(1, 58)}
    assert {answer.kind for answer in kept.answers} == {"matched"}
    assert sorted(a.line for a in kept.noted) == sorted(a.line for a in kept.answers)


def test_checkpoints_are_made_by_number(kept: Saved) -> None:
    """As often as the profile says, and again for the rest."""
    kept.run(target(57), checkpoint_every=20)

    assert [len(checkpoint) for checkpoint in kept.checkpoints] == [20, 20, 17]


def test_no_more_calls_are_in_flight_than_the_profile_says(kept: Saved) -> None:
    """And as many as that, where there are enough."""
    now, most = 0, 0

    async def count(request: Mapping[str, Any], timeout_s: float) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        return "answer"

    kept.run(target(60, count, concurrency=7))

    assert most == 7


def test_serial_makes_one_call_after_the_other_in_order(kept: Saved) -> None:
    """A shared prefix stays warm only so."""
    order: list[int] = []

    async def note(request: Mapping[str, Any], timeout_s: float) -> str:
        order.append(request["n"])
        await asyncio.sleep(0)
        return "answer"

    kept.run(target(20, note, mode="serial", concurrency=None))

    assert order == list(range(1, 21))


def test_a_slow_call_holds_up_no_other(kept: Saved) -> None:
    """There is no barrier: here one call ends only once all the others have."""
    ended: list[int] = []

    async def first_is_slow(request: Mapping[str, Any], timeout_s: float) -> str:
        while request["n"] == 1 and len(ended) < 39:
            await asyncio.sleep(0.005)
        ended.append(request["n"])
        return "answer"

    kept.run(target(40, first_is_slow, concurrency=2))

    assert ended[-1] == 1


def test_a_slow_judge_holds_up_no_other(kept: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that fails, nor one that refuses: the slow one answers when they are done."""
    monkeypatch.setattr("cj_pipeline.live.dispatcher.PATIENCE_S", 1.0)
    ended: Counter[str] = Counter()

    def judge(name: str, error: Exception | None = None) -> CallTarget:
        async def single(request: Mapping[str, Any], timeout_s: float) -> str:
            while name == "slow" and ended["quick"] < 8:
                await asyncio.sleep(0.005)
            if error is not None:
                raise error
            ended[name] += 1
            return "answer"

        return target(8, single, name=name)

    refusing = judge("refusing", ProviderRefusedError("wrong key"))
    failing = judge("failing", ProviderUnavailableError("down", status=503))
    quick = judge("quick")

    kept.run(refusing, failing, judge("slow"), quick)

    counted = Counter(answer.submission_key for answer in kept.answers if answer.kind == "matched")
    assert counted == {"slow": 8, "quick": 8}
    assert isinstance(refusing.error, ProviderRefusedError)
    assert isinstance(failing.error, ProviderUnavailableError)
    assert quick.error is None


def test_memory_is_bounded_by_what_is_ready_and_in_flight(kept: Saved) -> None:
    """Requests are built shortly before they are sent, however long the wave is."""
    built, answered, most_ahead = 0, 0, 0

    def note(_: int) -> None:
        nonlocal built, most_ahead
        built += 1
        most_ahead = max(most_ahead, built - answered)

    async def single(request: Mapping[str, Any], timeout_s: float) -> str:
        nonlocal answered
        await asyncio.sleep(0)
        answered += 1
        return "answer"

    kept.run(target(2000, single, built=note, concurrency=4, queue=5), checkpoint_every=500)

    assert len(kept.answers) == 2000
    assert most_ahead <= 4 + 5 + 1


def failing(times: int, error: Exception) -> Single:
    """Return a provider that fails each request so many times, then answers it."""
    seen: Counter[int] = Counter()

    async def single(request: Mapping[str, Any], timeout_s: float) -> str:
        seen[request["n"]] += 1
        if seen[request["n"]] <= times:
            raise error
        return "answer"

    return single


@pytest.mark.parametrize(
    ("error", "most"),
    [
        (ProviderUnavailableError("busy", status=429), QUICK.max_attempts[Cause.BUSY]),
        (ProviderUnavailableError("down", status=503), QUICK.max_attempts[Cause.DOWN]),
        (UncertainOutcomeError("down", status=500), QUICK.max_attempts[Cause.DOWN]),
        (UncertainOutcomeError("lost"), QUICK.max_attempts[Cause.LOST]),
    ],
)
def test_each_cause_is_tried_as_often_as_it_deserves(
    kept: Saved, error: Exception, most: int
) -> None:
    """What may have been paid for is tried least; then the call has an outcome all the same."""
    kept.run(target(1, failing(most - 1, error)))
    kept.run(target(1, failing(most, error), name="other"))

    answered, failed = kept.answers
    assert (answered.kind, answered.n_tries) == ("matched", most)
    assert (failed.kind, failed.n_tries) == ("failed", most)
    assert str(error) in failed.body


def test_every_attempt_whose_reply_was_lost_is_reported(kept: Saved) -> None:
    """It may have been paid for, and that has to be counted."""
    kept.run(target(1, failing(2, UncertainOutcomeError("lost"))))

    assert [answer.kind for answer in kept.arrived] == ["in_doubt", "in_doubt", "matched"]


def test_a_refusal_is_not_retried(kept: Saved) -> None:
    """A wrong key stays wrong."""
    judged = target(30, failing(1, ProviderRefusedError("wrong key")), mode="serial")

    kept.run(judged)

    assert kept.answers == []
    assert isinstance(judged.error, ProviderRefusedError)


def test_retry_after_holds_for_every_call(kept: Saved) -> None:
    """No call of the judge goes out before the time in Retry-After."""
    times: list[float] = []

    async def busy_once(request: Mapping[str, Any], timeout_s: float) -> str:
        times.append(time.monotonic())
        if len(times) == 1:
            msg = "busy"
            raise ProviderUnavailableError(msg, retry_after_s=0.4, status=429)
        return "answer"

    kept.run(target(6, busy_once, mode="serial"))

    assert len(kept.answers) == 6
    assert times[1] - times[0] >= 0.4


def test_a_model_that_is_down_is_deferred_and_nothing_is_counted_as_failed(kept: Saved) -> None:
    """What was not answered is requested when it is back; it is not the comparisons' fault."""
    shared = RateLimiter(kept.home / "live.sqlite")
    for _ in range(3):  # it has been down for a while
        shared.release(
            Bucket("account/judge"), [ReleasedPermit("failure", 0, error="down")] * TRIPS_AFTER
        )
        shared._db.execute("UPDATE breakers SET n_trips = 5, open_until = 0")
    shared.close()

    judged = target(20, failing(99, ProviderUnavailableError("down", status=503)))
    kept.run(judged)

    assert kept.answers == []
    assert judged.cooldown_until is not None
    assert isinstance(judged.error, ProviderUnavailableError)
    assert (judged.error.retry_after_s or 0) > 10


def test_a_breaker_that_opened_lets_calls_through_again_after_a_probe(kept: Saved) -> None:
    """An outage of seconds costs seconds, and no comparison."""
    until = time.monotonic() + 1.0

    async def down_at_first(request: Mapping[str, Any], timeout_s: float) -> str:
        if time.monotonic() < until:
            msg = "down"
            raise ProviderUnavailableError(msg, status=503)
        return "answer"

    kept.run(target(40, down_at_first, concurrency=16))

    assert [answer.kind for answer in kept.answers] == ["matched"] * 40


def test_work_whose_time_is_over_ends_as_expired(kept: Saved) -> None:
    """It is not sent, and it is never silent."""
    sent: list[int] = []

    async def note(request: Mapping[str, Any], timeout_s: float) -> str:
        sent.append(request["n"])
        return "answer"

    kept.run(target(5, note, recorded_at=time.time() - 100, result_ttl_seconds=60.0))

    assert sent == []
    assert [answer.kind for answer in kept.answers] == ["expired"] * 5
    assert "60" in kept.answers[0].body


def test_work_expires_while_it_waits_for_its_permit(kept: Saved) -> None:
    """After a Retry-After of the provider, say."""
    shared = RateLimiter(kept.home / "live.sqlite")
    shared.pause(Bucket("account/judge"), 5.0)
    shared.close()

    kept.run(target(3, recorded_at=time.time(), result_ttl_seconds=0.3))

    assert [answer.kind for answer in kept.answers] == ["expired"] * 3


def test_a_permit_that_does_not_come_in_time_leaves_the_call_for_later(kept: Saved) -> None:
    """It has no outcome: it is sent in a later pass."""
    shared = RateLimiter(kept.home / "live.sqlite")
    shared.pause(Bucket("account/judge"), 60.0)
    shared.close()
    judged = target(3, wait_timeout_seconds=0.2)

    kept.run(judged)

    assert kept.answers == []
    assert "0.2 s" in str(judged.error)


def test_a_call_that_hangs_is_abandoned(kept: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the wire never falls silent for long enough to be noticed there."""
    monkeypatch.setattr("cj_pipeline.live.dispatcher.GRACE_S", 0.05)

    async def hang(request: Mapping[str, Any], timeout_s: float) -> str:
        await asyncio.sleep(60)
        return "never"

    kept.run(target(1, hang, timeout_seconds=0.05))

    assert [answer.kind for answer in kept.answers] == ["failed"]
    assert "no whole answer" in kept.answers[0].body


def test_a_cancelled_batch_sends_nothing_more_and_keeps_what_was_paid(kept: Saved) -> None:
    """What is on its way is waited for, because it is paid for."""
    kept.goes_on = lambda: False
    sent = 0

    async def single(request: Mapping[str, Any], timeout_s: float) -> str:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.05)
        return "answer"

    kept.run(target(5000, single, concurrency=4), checkpoint_every=4)

    assert 4 <= sent < 200
    assert len(kept.answers) == sent


def test_a_store_that_fails_ends_the_run_with_its_error(kept: Saved) -> None:
    """What has arrived is in the journal; nothing goes on unseen."""

    def busy() -> bool:
        msg = "busy"
        raise StoreBusyError(msg)

    kept.goes_on = busy

    with pytest.raises(StoreBusyError):
        kept.run(target(5000, concurrency=4))

    assert 10 <= len(kept.noted) < 5000


def test_a_request_that_cannot_be_built_ends_the_run_with_its_error(kept: Saved) -> None:
    """A mistake of ours is not waited out."""

    def refuse(number: int) -> None:
        if number == 7:
            msg = "seven"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="seven"):
        kept.run(target(50, built=refuse))


def test_it_runs_where_an_event_loop_is_running_already(kept: Saved) -> None:
    """As in a notebook."""

    async def notebook() -> None:
        kept.run(target(3))

    asyncio.run(notebook())

    assert len(kept.answers) == 3


def test_what_was_in_flight_at_an_interrupt_is_all_that_is_lost(kept: Saved) -> None:
    """Ctrl-C stores what has arrived."""

    async def interrupted() -> None:
        async def single(request: Mapping[str, Any], timeout_s: float) -> str:
            await asyncio.sleep(0 if request["n"] <= 6 else 60)
            return "answer"

        hooks = DispatchHooks(
            open_limiter=lambda: RateLimiter(kept.home / "live.sqlite"),
            journal=kept.noted.append,
            checkpoint=kept.keep,
        )
        task = asyncio.create_task(make_calls([target(20, single, concurrency=2)], hooks))
        while len(kept.noted) < 6:
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())

    assert len(kept.answers) == 6
