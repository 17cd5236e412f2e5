"""The circuit breaker: when it opens, who probes, and what it ignores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.live.circuit_breaker import (
    FIRST_COOLDOWN_S,
    LONGEST_COOLDOWN_S,
    TRIPS_AFTER,
    Breaker,
    admission,
    begin_probe,
    record_result,
)


def failed(breaker: Breaker, times: int, now: float = 0.0) -> Breaker:
    """Return the breaker after some failures."""
    for _ in range(times):
        breaker = record_result(breaker, "failure", now, probe=None, error="down")
    return breaker


def test_ten_failures_in_a_row_open_it() -> None:
    """Nine do not."""
    assert admission(failed(Breaker(), TRIPS_AFTER - 1), 0.0) == "yes"
    opened = failed(Breaker(), TRIPS_AFTER)
    assert (opened.state, admission(opened, 0.0)) == ("open", "no")
    assert opened.last_error == "down"


def test_an_answer_in_between_starts_the_count_again() -> None:
    """Three calls in ten failing is no outage."""
    breaker = record_result(failed(Breaker(), TRIPS_AFTER - 1), "success", 0.0, probe=None)

    assert admission(failed(breaker, TRIPS_AFTER - 1), 0.0) == "yes"


def test_client_errors_are_ignored() -> None:
    """They neither open it nor make earlier failures forgotten."""
    breaker = failed(Breaker(), TRIPS_AFTER - 1)
    for _ in range(100):
        breaker = record_result(breaker, "ignored", 0.0, probe=None)

    assert breaker == failed(Breaker(), TRIPS_AFTER - 1)


def test_after_its_rest_one_call_may_probe() -> None:
    """And no second one while the first is on its way."""
    opened = failed(Breaker(), TRIPS_AFTER)
    assert admission(opened, FIRST_COOLDOWN_S - 0.01) == "no"
    assert admission(opened, FIRST_COOLDOWN_S) == "probe"

    probed = begin_probe(opened, "me", FIRST_COOLDOWN_S + 60)

    assert admission(probed, FIRST_COOLDOWN_S + 1) == "no"
    assert probed.state == "half-open"


@pytest.mark.parametrize("outcome", ["success", "ignored"])
def test_a_probe_that_is_answered_closes_it(outcome: str) -> None:
    """With a client error too: a provider that answers is there."""
    probed = begin_probe(failed(Breaker(), TRIPS_AFTER), "me", 60.0)

    assert record_result(probed, outcome, 3.0, probe="me") == Breaker()  # type: ignore[arg-type]


def test_a_probe_that_fails_opens_it_for_twice_as_long() -> None:
    """Up to a bound, so that a provider that comes back is found within two minutes."""
    breaker, now = failed(Breaker(), TRIPS_AFTER), 0.0
    cooldowns = []
    for _ in range(10):
        now = breaker.open_until
        breaker = record_result(begin_probe(breaker, "me", now + 9), "failure", now, probe="me")
        cooldowns.append(breaker.open_until - now)

    assert cooldowns[:3] == [2 * FIRST_COOLDOWN_S, 4 * FIRST_COOLDOWN_S, 8 * FIRST_COOLDOWN_S]
    assert cooldowns[-1] == LONGEST_COOLDOWN_S


def test_a_cancelled_probe_gives_the_right_to_probe_back() -> None:
    """An operator who stops a batch must not keep all others waiting."""
    probed = begin_probe(failed(Breaker(), TRIPS_AFTER), "me", 60.0)

    assert admission(record_result(probed, "cancelled", 3.0, probe="me"), 3.0) == "probe"


def test_a_probe_that_was_killed_is_replaced_when_its_lease_ends() -> None:
    """Nobody can give anything back after SIGKILL."""
    probed = begin_probe(failed(Breaker(), TRIPS_AFTER), "me", 60.0)

    assert admission(probed, 59.9) == "no"
    assert admission(probed, 60.0) == "probe"


def test_a_straggler_does_not_lengthen_the_rest() -> None:
    """Calls sent before it opened still fail one by one."""
    opened = failed(Breaker(), TRIPS_AFTER, now=0.0)

    assert failed(opened, 5, now=1.0).open_until == opened.open_until


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["success", "failure", "ignored", "cancelled"]),
        st.floats(0, 30),
        st.booleans(),
    ),
    max_size=80,
)


@given(events=_EVENTS)
def test_it_never_stays_shut_for_longer_than_its_bound(
    events: list[tuple[str, float, bool]],
) -> None:
    """Whatever happens, a call may go within the longest cooldown or a probe's lease."""
    breaker, now = Breaker(), 0.0
    for outcome, passed, is_probe in events:
        now += passed
        if is_probe and admission(breaker, now) == "probe":
            breaker = begin_probe(breaker, "p", now + 50)
        probe = "p" if is_probe else None
        breaker = record_result(breaker, outcome, now, probe=probe)  # type: ignore[arg-type]

        assert admission(breaker, now + max(LONGEST_COOLDOWN_S, 50)) != "no"
