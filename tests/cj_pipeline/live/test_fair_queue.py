"""Who gets the next permit: priorities, ageing, fair shares and a stable order."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.live.fair_queue import AGING_S, LEVELS, QueueEntry, allocate_permits


def waiting(
    batch: str, level: int = 1, since: float = 0.0, n: int = 10, served: float = 0.0
) -> QueueEntry[str]:
    """Return calls of a batch that wait, under the batch's own name."""
    return QueueEntry(batch, batch, level, since, n, served)


def test_a_higher_priority_goes_first() -> None:
    """All of it, before a lower one gets any."""
    shares = allocate_permits(
        [waiting("slow", LEVELS["low"]), waiting("fast", LEVELS["high"])], 12, 0
    )

    assert shares == {"fast": 10, "slow": 2}


def test_waiting_long_enough_counts_as_a_higher_priority() -> None:
    """So a low batch gets its permits however many high ones there are."""
    old = waiting("old", LEVELS["low"], since=-2 * AGING_S)
    new = waiting("new", LEVELS["high"], since=0.0)

    assert allocate_permits([old, new], 2, 0.0) == {"old": 1, "new": 1}
    assert allocate_permits([waiting("old", 0, since=-3 * AGING_S), new], 1, 0.0) == {"old": 1}


def test_batches_of_one_priority_share_evenly() -> None:
    """However much more one of them requests."""
    shares = allocate_permits([waiting("small", n=5), waiting("large", n=5000)], 10, 0)

    assert shares == {"small": 5, "large": 5}


def test_what_a_batch_was_served_before_counts() -> None:
    """Fair over time, not only within one allocation."""
    shares = allocate_permits([waiting("ahead", served=6), waiting("behind", served=2)], 6, 0)

    assert shares == {"behind": 5, "ahead": 1}


def test_two_judges_of_one_batch_share_its_share() -> None:
    """A panel of ten must not take ten shares."""
    panel = [QueueEntry(f"judge-{i}", "panel", 1, 0.0, 10, 0.0) for i in range(4)]

    shares = allocate_permits([*panel, waiting("single")], 10, 0)

    assert shares["single"] == 5
    assert sum(shares.values()) == 10


def test_within_a_priority_the_one_that_waited_longest_is_next() -> None:
    """And then the batch's name decides, so that the order is always the same."""
    late, early = waiting("a", since=5.0), waiting("b", since=1.0)

    assert allocate_permits([late, early], 1, 6.0) == {"b": 1}
    assert allocate_permits([waiting("b"), waiting("a")], 1, 6.0) == {"a": 1}


_WAITING = st.lists(
    st.builds(
        waiting,
        st.sampled_from("abcdef"),
        st.integers(0, 2),
        st.floats(-500, 0),
        st.integers(0, 20),
        st.integers(0, 50).map(float),
    ),
    max_size=6,
    unique_by=lambda w: w.key,
)


@given(everybody=_WAITING, n_permits=st.integers(0, 60))
def test_turns_are_all_given_and_nobody_gets_more_than_he_wants(
    everybody: list[QueueEntry[str]], n_permits: int
) -> None:
    """Nothing is lost, nothing is made up, and asking again gives the same."""
    shares = allocate_permits(everybody, n_permits, 0.0)

    assert sum(shares.values()) == min(n_permits, sum(w.n for w in everybody))
    assert all(0 < shares[w.key] <= w.n for w in everybody if w.key in shares)
    assert allocate_permits(everybody, n_permits, 0.0) == shares


def test_nothing_starves_under_a_flood_of_higher_priorities() -> None:
    """A high batch that always wants everything, one permit a second, ten minutes long."""
    got: Counter[str] = Counter()
    since = {"flood": 0.0, "low": 0.0}
    for second in range(600):
        now = float(second)
        # Those who are served begin to wait again; the flood's next call has just come.
        everybody = [waiting("flood", 2, since["flood"], 9), waiting("low", 0, since["low"], 9)]
        (served,) = allocate_permits(everybody, 1, now)
        got[served] += 1
        since[served] = now

    assert got["low"] >= 3
    assert got["flood"] > 400
