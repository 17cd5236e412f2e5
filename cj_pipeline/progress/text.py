"""Progress as a person reads it, in a line of a log or on a screen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cj_pipeline.progress.values import EventKind, Progress, ProgressEvent


def event_line(event: ProgressEvent) -> str:
    """Return one event as a line for a log."""
    progress = event.progress
    parts = [
        f"{event.at:%Y-%m-%dT%H:%M:%SZ}",
        f"#{event.sequence}",
        event.kind.value,
        f"wave {progress.wave}",
        f"{progress.n_done}/{progress.n_expected} ({progress.share_done:.0%})",
        *describe_outlook(progress),
    ]
    if event.kind is EventKind.ENDED and progress.outcome is not None:
        parts.append(f"{progress.outcome.value}: {progress.end_reason}")
    return "  ".join(parts)


def has_no_outlook(progress: Progress) -> bool:
    """Whether a batch is under way of which no answer has come."""
    return progress.state == "running" and not progress.n_done and progress.eta is None


def describe_outlook(progress: Progress, usual_time: str = "") -> list[str]:
    """Return speed, time left and cost, or one sentence while none of them can be known.

    Args:
        progress: Of a batch.
        usual_time: How long it takes at most, in words, for as long as nothing better is known.
    """
    if has_no_outlook(progress):
        so_far = f"${progress.cost_usd:.4f}"
        usual = f"; it takes {usual_time} at most" if usual_time else ""
        return [f"no answers yet: speed, time left and final cost are not known{usual}", so_far]
    left = f"time left: {describe_time_left(progress)}"
    return [pace(progress), left, describe_cost(progress)]


def pace(progress: Progress) -> str:
    """Return how fast comparisons complete, in words."""
    found = progress.comparisons_per_s
    return "speed not known yet" if found is None else f"{found:.2f} comparisons/s"


def describe_time_left(progress: Progress) -> str:
    """Return the time left with its interval; `not known yet` before it can be estimated."""
    if progress.state != "running":
        return "nothing"
    if progress.eta is None:
        return "not known yet"
    eta = progress.eta
    sooner = ", sooner if a rule ends it" if progress.may_end_sooner else ""
    low, high = duration(eta.low_seconds), duration(eta.high_seconds)
    return f"{duration(eta.seconds)} ({low} to {high}{sooner})"


def describe_cost(progress: Progress) -> str:
    """Return what it has cost and will, in words."""
    if progress.state != "running":
        return f"${progress.cost_usd:.4f}"
    projected = progress.projected_usd
    whole = "final cost not known yet" if projected is None else f"about ${projected:.4f} in all"
    cap = "" if progress.spend_cap_usd is None else f", cap ${progress.spend_cap_usd:.2f}"
    return f"${progress.cost_usd:.4f}, {whole}{cap}"


def duration(seconds: float) -> str:
    """Return a duration to the precision that matters."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def describe_unattended(batch_id: str, since: datetime, now: datetime) -> str:
    """Return that no process takes a batch on, since when, and what would."""
    waited = duration((now - since).total_seconds())
    return (
        f"No process collects {batch_id}: its next step is due for {waited} (since {since:%H:%M}"
        " UTC). `cj ui` runs the sensors; `cj execute FOLDER --await-completion` takes it on."
    )


@dataclass(frozen=True)
class AwaitedJobs:
    """A batch's open provider jobs of one kind.

    Attributes:
        provider: Where they are.
        state: Of each of them, as the ledger has it.
        phase: Likewise; see the page on the ledger.
        provider_status: In the provider's own word; None where it has reported none.
        error: What is waited for, or what went wrong; None where nothing did.
        n_jobs: How many.
        n_requests: In all of them.
        n_done: Of these, ended by the provider's count.
        next_look: When the first is polled next; None where none is due.
        since: When the first was submitted, or is to be.
    """

    provider: str
    state: str
    phase: str
    provider_status: str | None
    error: str | None
    n_jobs: int
    n_requests: int
    n_done: int
    next_look: datetime | None
    since: datetime


_DOING = {
    "intent": "to be sent to",
    "uploaded": "to be created at",
    "ambiguous": "that may exist at",
    "ended": "to be collected from",
    "collected": "to be read, from",
    "incomplete": "of which rows are missing, from",
}


def describe_awaited(jobs: AwaitedJobs, now: datetime) -> str:
    """Return one line on jobs that are waited for: where they are, how far, and what is wrong."""
    counted = "1 provider job" if jobs.n_jobs == 1 else f"{jobs.n_jobs} provider jobs"
    words = [f"{counted} {_DOING.get(jobs.state, 'at')} {jobs.provider}"]
    if jobs.phase in {"open", "calling"}:
        status = f" ({jobs.provider_status})" if jobs.provider_status else ""
        words[0] += f"{status}, {jobs.n_done} of {jobs.n_requests} done"
    words.append(f"for {duration(max(0.0, (now - jobs.since).total_seconds()))}")
    if jobs.next_look is not None and jobs.next_look > now:
        words.append(f"next look in {duration((jobs.next_look - now).total_seconds())}")
    return ", ".join(words) + (f": {jobs.error}" if jobs.error else "")
