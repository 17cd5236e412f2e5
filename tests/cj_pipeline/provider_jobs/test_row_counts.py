"""Which missing rows may have been paid for, by what a provider counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.provider_jobs.row_counts import CameHome, rows_owed
from cj_pipeline.providers.base import JobOutcome

DONE, FAILED = JobOutcome.COMPLETED, JobOutcome.FAILED
EXPIRED, CANCELLED = JobOutcome.EXPIRED, JobOutcome.CANCELLED


@pytest.mark.parametrize(
    ("came", "outcome", "counted", "owed"),
    [
        pytest.param(CameHome(12, 0, 0), DONE, (0, 0), 0, id="all came, whatever is counted"),
        pytest.param(CameHome(6, 0, 6), DONE, (12, 0), 6, id="a file cut at a line's end"),
        pytest.param(CameHome(0, 0, 12), DONE, (12, 0), 12, id="an empty file"),
        pytest.param(CameHome(0, 0, 12), DONE, (None, None), 12, id="no counts"),
        pytest.param(CameHome(0, 0, 12), DONE, (0, 0), 12, id="counts of zero"),
        pytest.param(CameHome(0, 0, 12), DONE, (0, 12), 0, id="all failed, and no error file"),
        pytest.param(CameHome(6, 0, 6), DONE, (6, 6), 0, id="half failed, and no error file"),
        pytest.param(CameHome(10, 1, 1), DONE, (11, 1), 1, id="the failed row came, another not"),
        pytest.param(CameHome(9, 0, 3), DONE, (10, 2), 1, id="two of three lost ones failed"),
        pytest.param(CameHome(6, 0, 6), DONE, (6, 0), 6, id="some are not counted at all"),
        pytest.param(CameHome(3, 0, 3), EXPIRED, (3, 0), 0, id="expired, what was done came"),
        pytest.param(CameHome(2, 0, 4), EXPIRED, (3, 0), 1, id="expired, one that was done lacks"),
        pytest.param(CameHome(0, 0, 6), EXPIRED, (0, 0), 0, id="expired before anything was done"),
        pytest.param(CameHome(0, 0, 12), CANCELLED, (8, 0), 8, id="cancelled, results refused"),
        pytest.param(CameHome(3, 0, 9), CANCELLED, (None, None), 9, id="cancelled, no counts"),
        pytest.param(CameHome(8, 0, 4), CANCELLED, (0, 0), 4, id="counts of less than came"),
        pytest.param(CameHome(0, 0, 6), FAILED, (None, None), 0, id="its input was refused"),
        pytest.param(CameHome(2, 0, 4), FAILED, (None, None), 4, id="failed, and two were done"),
        pytest.param(CameHome(0, 0, 6), FAILED, (2, 0), 2, id="it failed after two were done"),
        pytest.param(CameHome(0, 0, 12, 12), DONE, (0, 12), 12, id="a shard that matches nothing"),
        pytest.param(CameHome(0, 0, 6), EXPIRED, (40, 2), 6, id="counts of another job"),
    ],
)
def test_what_may_have_been_paid_for_is_what_the_provider_does_not_count_as_failed(
    came: CameHome, outcome: JobOutcome, counted: tuple[int | None, int | None], owed: int
) -> None:
    """Each is a way in which rows have gone missing somewhere."""
    assert rows_owed(came, outcome, *counted) == owed


_COUNT = st.none() | st.integers(0, 8)


@given(
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(0, 6),
    st.integers(0, 2),
    st.sampled_from(JobOutcome),
    _COUNT,
    _COUNT,
)
def test_never_more_than_is_missing_and_never_less_than_the_provider_counts(
    n_answered: int,
    n_failed: int,
    n_open: int,
    n_unmatched: int,
    outcome: JobOutcome,
    n_counted: int | None,
    n_counted_failed: int | None,
) -> None:
    """Whatever the counts are: what is counted as done and is not here is owed."""
    came = CameHome(n_answered, n_failed, n_open, n_unmatched)

    owed = rows_owed(came, outcome, n_counted, n_counted_failed)

    assert 0 <= owed <= n_open
    is_believable = (n_counted or 0) + (n_counted_failed or 0) <= came.n_requests
    if n_counted is not None and is_believable:
        assert owed >= min(n_open, n_counted - n_answered)
