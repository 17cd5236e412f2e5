"""Progress as a person reads it, in a line of a log or on a screen."""

from __future__ import annotations

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
        pace(progress),
        f"left {time_left_in_words(progress)}",
        cost_in_words(progress),
    ]
    if event.kind is EventKind.ENDED and progress.outcome is not None:
        parts.append(f"{progress.outcome.value}: {progress.end_reason}")
    return "  ".join(parts)


def pace(progress: Progress) -> str:
    """Return how fast comparisons come home, in words."""
    found = progress.comparisons_per_s
    return "pace unknown" if found is None else f"{found:.2f}/s"


def time_left_in_words(progress: Progress) -> str:
    """Return the time left with its interval; `unknown` where nothing can be said yet."""
    if progress.state != "running":
        return "nothing"
    if progress.eta is None:
        return "unknown"
    eta = progress.eta
    sooner = ", sooner if a rule ends it" if progress.may_end_sooner else ""
    low, high = duration(eta.low_seconds), duration(eta.high_seconds)
    return f"{duration(eta.seconds)} ({low} to {high}{sooner})"


def cost_in_words(progress: Progress) -> str:
    """Return what it has cost and will, in words."""
    if progress.state != "running":
        return f"${progress.cost_usd:.4f}"
    projected = progress.projected_usd
    whole = "unknown in all" if projected is None else f"about ${projected:.4f} in all"
    cap = "" if progress.spend_cap_usd is None else f", cap ${progress.spend_cap_usd:.2f}"
    return f"${progress.cost_usd:.4f}, {whole}{cap}"


def duration(seconds: float) -> str:
    """Return a duration to the precision that matters."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
