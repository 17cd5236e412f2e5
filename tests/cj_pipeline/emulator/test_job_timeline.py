"""A job's phase is a pure function of its plan and the clock."""

from __future__ import annotations

from typing import get_args

from hypothesis import example, given
from hypothesis import strategies as st

from cj_pipeline.emulator.job_timeline import ENDED, Fate, JobPlan, due_at, phase_at

plans = st.builds(
    JobPlan,
    duration_s=st.floats(0, 1e6),
    fate=st.sampled_from(get_args(Fate)),
    done_share=st.floats(0, 1),
    cancel_latency_s=st.floats(0, 1000),
)


@given(plan=plans, times=st.lists(st.floats(0, 2e6), min_size=2, max_size=2))
def test_a_job_never_goes_back(plan: JobPlan, times: list[float]) -> None:
    """What was done stays done, and an end is an end."""
    early, late = (phase_at(plan, 0.0, None, 0.0, t) for t in sorted(times))

    if early.phase in ENDED:
        assert late == early
    if late.phase not in ENDED:
        assert early.done <= late.done


@given(plan=plans)
@example(plan=JobPlan(duration_s=0.008501145978525361))
def test_a_job_has_ended_exactly_from_when_it_is_due(plan: JobPlan) -> None:
    """Jobs that are due can be found without looking at all of them."""
    due = due_at(plan, 1000.0, None)

    if due is None:
        assert phase_at(plan, 1000.0, None, 0.0, 1e12).phase not in ENDED
    else:
        assert phase_at(plan, 1000.0, None, 0.0, due).phase in ENDED


def test_a_cancelled_job_keeps_what_was_done_when_it_was_cancelled() -> None:
    """No row is done while a job is cancelling."""
    plan = JobPlan(duration_s=100, cancel_latency_s=10)

    cancelling = phase_at(plan, 0.0, 50.0, 0.4, 55.0)
    cancelled = phase_at(plan, 0.0, 50.0, 0.4, 60.0)

    assert (cancelling.phase, cancelling.done) == ("cancelling", 0.4)
    assert (cancelled.phase, cancelled.done, cancelled.ended_at) == ("cancelled", 0.4, 60.0)
