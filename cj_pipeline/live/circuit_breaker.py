"""When calls to a provider's model are stopped, and how it is found to be back; pure.

    closed --ten failures in a row--> open --its cooldown is over--> half-open: one probe
    half-open --the probe is answered--> closed        --the probe fails--> open, twice as long

A client error (4xx) says nothing about a provider's health and is counted neither way, save that
a probe which got one was answered. A probe that ends without an outcome (cancelled, killed) gives
the right to probe back, at the latest when its lease runs out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half-open"]
CallResult = Literal["success", "failure", "ignored", "cancelled"]

TRIPS_AFTER = 10
"""Failures in a row. With three calls in ten failing this happens once in 170,000 calls."""

FIRST_COOLDOWN_S = 2.0
LONGEST_COOLDOWN_S = 120.0


@dataclass(frozen=True)
class Breaker:
    """What is known of one provider's model.

    Attributes:
        state: Whether calls are let through.
        n_failures: In a row, up to now.
        n_trips: In a row, without an answer in between.
        open_until: When the next probe may go, in seconds; meaningless while closed.
        probe: Name of the probe under way; None without one.
        probe_until: When a probe without an outcome counts as lost.
        last_error: What the last failure was.
    """

    state: State = "closed"
    n_failures: int = 0
    n_trips: int = 0
    open_until: float = 0.0
    probe: str | None = None
    probe_until: float = 0.0
    last_error: str | None = None


def admission(breaker: Breaker, now: float) -> Literal["yes", "probe", "no"]:
    """Return whether calls may go now: all of them, one as a probe, or none."""
    if breaker.state == "closed":
        return "yes"
    if now < breaker.open_until:
        return "no"
    is_probed = breaker.probe is not None and now < breaker.probe_until
    return "no" if is_probed else "probe"


def begin_probe(breaker: Breaker, probe: str, lasts_until: float) -> Breaker:
    """Return the breaker once a probe is under way."""
    return replace(breaker, state="half-open", probe=probe, probe_until=lasts_until)


def record_result(
    breaker: Breaker,
    outcome: CallResult,
    now: float,
    *,
    probe: str | None,
    error: str | None = None,
) -> Breaker:
    """Return the breaker after a call ended.

    Args:
        breaker: As it was.
        outcome: `ignored` is a client error; `cancelled` is no outcome at all.
        now: In seconds.
        probe: The probe's name where the call was one.
        error: What a failure was.
    """
    is_probe = probe is not None and probe == breaker.probe
    if outcome == "success" or (outcome == "ignored" and is_probe):
        return Breaker()
    if outcome == "cancelled":
        return replace(breaker, state="open", probe=None) if is_probe else breaker
    if outcome == "ignored":
        return breaker
    failed = replace(breaker, n_failures=breaker.n_failures + 1, last_error=error)
    if is_probe or (breaker.state == "closed" and failed.n_failures >= TRIPS_AFTER):
        return replace(
            failed,
            state="open",
            n_trips=breaker.n_trips + 1,
            open_until=now + min(LONGEST_COOLDOWN_S, FIRST_COOLDOWN_S * 2**breaker.n_trips),
            probe=None,
        )
    return failed  # a straggler sent before the breaker opened changes nothing more
