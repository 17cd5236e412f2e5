"""What must hold of every batch, checked against its rows: one function per claim.

`standard_checks` makes each a check, and says how grave a failure is and what it stops.
Comparing an artefact with its own verdicts is `verification`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from cj_pipeline.batch.comparisons import JudgedPair, RequestOutcome
from cj_pipeline.diagnostics.answering_models import who_answered
from cj_pipeline.diagnostics.position_balance import (
    MIN_SHOWN_FOR_SKEW,
    first_shown_share,
    positional_skews,
)
from cj_pipeline.grading.anchors import TOO_SURE
from cj_pipeline.pairing.positions import POSITIONAL_SKEW_BAND
from cj_pipeline.queries.history import BatchHistory
from cj_pipeline.queries.spending import ROUNDING_USD, spending
from cj_pipeline.scale.connectivity import net_parts
from cj_pipeline.text import find_hidden, visible

MISFIT = 1.5
"""Infit above which judges disagree about an essay more than its score explains."""

MAX_LISTED = 5


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds, in plain words, and the figures it was judged by."""

    holds: bool
    statement: str
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


def pairs_are_sound(history: BatchHistory) -> Finding:
    """Each comparison is of two different essays of the batch."""
    known = set(history.essay_by_id)
    wrong = [
        row["comparison_id"]
        for row in history.pairs
        if row["essay_a"] == row["essay_b"] or not {row["essay_a"], row["essay_b"]} <= known
    ]
    return Finding(
        not wrong,
        _all_or_some(wrong, "comparisons are of an essay with itself or a foreign one"),
        {"planned": len(history.pairs), "wrong": len(wrong)},
    )


def texts_hide_nothing(history: BatchHistory) -> Finding:
    """No essay holds characters that a judge reads and a person does not see."""
    found = {
        row["essay_id"]: hidden
        for row in history.essays
        if (hidden := find_hidden(row["text"] or "")) is not None
    }
    shown = [f"{essay_id} {hidden.describe()}" for essay_id, hidden in found.items()]
    more = f"; and {len(shown) - MAX_LISTED} essays more" if len(shown) > MAX_LISTED else ""
    return Finding(
        not found,
        "; ".join(shown[:MAX_LISTED]) + more if found else "every text is seen whole",
        {
            "essays": len(found),
            "characters": sum(sum(hidden.kinds.values()) for hidden in found.values()),
        },
    )


def budget_is_kept(history: BatchHistory) -> Finding:
    """No more comparisons are planned than the batch allows."""
    budget, planned = (
        int(history.settings["max_pairwise_comparisons"]),
        len(history.pairs_of_models),
    )
    return Finding(
        planned <= budget,
        f"{planned} comparisons are planned of {budget} that may be requested",
        {"planned": planned, "budget": budget},
    )


def released(history: BatchHistory) -> Finding:
    """Grades that need a sign-off have been released by a person."""
    release = history.release
    return Finding(
        not release.is_provisional,
        release.statement or "the batch's grades need no sign-off",
        {"status": release.status, "decisions": len(history.moderation)},
    )


def spend_is_within_cap(history: BatchHistory) -> Finding:
    """What was or may have been billed, and what is still reserved, stay within the spend cap.

    Every amount is a number that is not negative, also where the batch has no cap.
    """
    spent = spending(history.jobs)
    billed, reserved = spent.billed_usd, spent.still_reserved_usd
    cap = history.settings.get("spend_cap_usd")
    figures: dict[str, float | int | str] = {
        "billed_usd": billed,
        "possible_usd": spent.possible_usd,
        "reserved_usd": reserved,
    }
    wrong = [
        job["submission_key"]
        for job in history.jobs
        if not all(
            math.isfinite(usd) and usd >= -ROUNDING_USD
            for usd in (job["reserved_usd"], job["billed_usd"] or 0, job.get("possible_usd") or 0)
        )
    ]
    if wrong:
        statement = _all_or_some(wrong, "provider jobs have amounts that are none")
        return Finding(False, statement, figures)
    told = f"{billed:.4f} USD billed, {spent.possible_usd:.4f} in doubt"
    if cap is None:
        return Finding(True, f"{told}; the batch has no spend cap", figures)
    return Finding(
        billed + spent.possible_usd + reserved <= cap + 1e-9,
        f"{told} and {reserved:.4f} reserved at the worst, of {cap:.2f} allowed",
        figures | {"spend_cap_usd": cap},
    )


def bills_agree_with_providers(history: BatchHistory) -> Finding:
    """Each job's rows come to what its provider counted; none is in doubt; all usage is reported.

    Where usage is missing or contradicts itself, a row is billed at the most it can have cost.
    """
    counted = [job for job in history.jobs if job.get("provider_usd") is not None]
    differing = [job for job in counted if abs(_difference(job)) > ROUNDING_USD]
    evidence = Counter(row.get("usage_evidence") for row in history.attempts)
    n_silent = sum(row.get("has_usage") is False for row in history.attempts)
    n_contradictory = evidence["contradictory"]
    in_doubt = [row for row in history.attempts if row.get("in_doubt_usd") is not None]
    difference = math.fsum(map(_difference, counted))
    doubtful_usd = math.fsum(job.get("possible_usd") or 0.0 for job in history.jobs)
    statement = (
        f"{len(counted)} of {len(history.jobs)} provider jobs report usage; it differs from"
        f" the bill of their rows in {len(differing)}, by {difference:+.6f} USD in all"
    )
    if n_silent:
        statement += f"; {n_silent} answers reported no tokens and are billed at their maximum cost"
    if n_contradictory:
        statement += (
            f"; {n_contradictory} answers contradict themselves about their tokens and are billed"
            " at their maximum cost"
        )
    if in_doubt:
        statement += f"; {len(in_doubt)} rows never came and may have been paid for"
    if doubtful_usd > ROUNDING_USD:
        statement += f"; {doubtful_usd:.6f} USD are in doubt in all"
    return Finding(
        not (differing or n_silent or n_contradictory or in_doubt or doubtful_usd > ROUNDING_USD),
        statement,
        {
            "n_jobs_counted": len(counted),
            "n_jobs_differing": len(differing),
            "difference_usd": difference,
            "n_answers_without_usage": n_silent,
            "n_answers_contradictory": n_contradictory,
            "n_rows_in_doubt": len(in_doubt),
            "in_doubt_usd": doubtful_usd,
        },
    )


def _difference(job: Mapping[str, Any]) -> float:
    return float(job["provider_usd"]) - float(job["billed_usd"] or 0.0)


def judges_answer_as_asked(history: BatchHistory) -> Finding:
    """Each judge's answers name the model it asks for, and the same one all through the batch."""
    batched = {
        job["submission_key"]: job["batching_mode"] == "provider_batch_api" for job in history.jobs
    }
    attempts = [
        {**row, "is_batched": batched.get(row["submission_key"], False)} for row in history.attempts
    ]
    answered = who_answered(attempts, history.judges)
    problems = [problem for each in answered for problem in each.problems]
    told = "; ".join(
        f"'{each.judge.name}' answers as {', '.join(each.models)}"
        for each in answered
        if each.models
    )
    return Finding(
        not problems,
        "; ".join(problems) or told or "no answer names its model",
        {"n_models": sum(len(each.models) for each in answered), "n_problems": len(problems)},
    )


def requests_are_recorded(history: BatchHistory) -> Finding:
    """Each provider job has a row for every request it was meant to carry."""
    attempts = Counter(row["submission_key"] for row in history.attempts)
    wrong = [
        job["submission_key"]
        for job in history.jobs
        if job["n_requests"] != attempts[job["submission_key"]]
    ]
    n_requests = sum(job["n_requests"] for job in history.jobs)
    return Finding(
        not wrong and n_requests >= 1,
        _all_or_some(wrong, "provider jobs do not carry what was recorded")
        if n_requests
        else "nothing was requested from any provider",
        {"provider_jobs": len(history.jobs), "requests": n_requests},
    )


def mode_is_recorded(history: BatchHistory) -> Finding:
    """The batching mode requested is the one stored with the batch and with each job."""
    override = history.settings.get("llm_batching_mode_override")
    mode = override or history.settings["llm_batching_mode"]
    stored = history.batch["metadata"]
    # A canary is single calls, whatever the mode: it is over before the mode begins.
    used = {job["batching_mode"] for job in history.jobs if not job.get("is_canary")}
    holds = (
        stored.get("llm_batching_mode") == mode
        and stored.get("llm_batching_mode_override") == override
        and used <= {mode}
    )
    return Finding(
        holds,
        f"requested {mode}, stored {stored.get('llm_batching_mode')},"
        f" used {', '.join(sorted(used)) or 'none yet'}",
        {"mode": mode, "override": override or "none"},
    )


def rows_add_up(history: BatchHistory) -> Finding:
    """For each collected job: requested = succeeded + failed by kind + missing.

    Each missing row that may have been paid for bears its amount, and they come to no more than
    what is in doubt of their job.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in history.attempts:
        rows.setdefault(row["submission_key"], []).append(row)
    collected = [job for job in history.jobs if job["state"] in {"settled", "incomplete"}]
    wrong = [
        job["submission_key"]
        for job in collected
        if not _adds_up(job, rows.get(job["submission_key"], []))
    ]
    total: Counter[str] = Counter()
    n_in_doubt = 0
    for job in collected:
        own = rows.get(job["submission_key"], [])
        total.update(row["outcome"] or "none yet" for row in own)
        n_in_doubt += sum(row.get("in_doubt_usd") is not None for row in own)
    statement = _all_or_some(wrong, "collected jobs have requests that do not add up")
    if n_in_doubt and not wrong:
        statement = f"all are accounted for, {n_in_doubt} in doubt: they may have been paid for"
    figures: dict[str, float | int | str] = {
        "requested": sum(job["n_requests"] for job in collected),
        **dict(sorted(total.items())),
    }
    if n_in_doubt:
        figures["in_doubt"] = n_in_doubt
    return Finding(not wrong, statement, figures)


def _adds_up(job: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> bool:
    """Whether a job's requests are all there, and those in doubt with what they may have cost."""
    known = {outcome.value for outcome in RequestOutcome}
    in_doubt = [row for row in rows if row.get("in_doubt_usd") is not None]
    n_open = sum(row["outcome"] is None for row in rows)
    n_ended = sum(row["outcome"] in known for row in rows)
    amount = math.fsum(row["in_doubt_usd"] for row in in_doubt)
    return (
        n_ended + n_open == job["n_requests"]
        and (n_open == 0 or job["state"] == "incomplete")
        and len(in_doubt) == (job.get("n_in_doubt") or 0)
        and amount <= (job.get("possible_usd") or 0.0) + ROUNDING_USD
    )


def enough_succeed(history: BatchHistory) -> Finding:
    """The share of ended comparisons that have a verdict is at least what the batch requires."""
    ended, succeeded = len(history.comparisons), len(history.succeeded)
    least = float(history.settings["min_success_rate"])
    rate = succeeded / ended if ended else 0.0
    kinds = Counter(str(row["failure_reason"]) for row in history.failed)
    return Finding(
        ended == 0 or rate >= least,
        f"{succeeded} of {ended} comparisons have a verdict; {least:.0%} are required",
        {"success_rate": rate, **dict(kinds)},
    )


def no_place_is_preferred(history: BatchHistory) -> Finding:
    """The essay shown first wins half of the time, within what chance explains."""
    share = first_shown_share(history.succeeded)
    return Finding(
        share.is_even,
        f"the essay shown first won {share.share:.0%} of {share.n_verdicts} verdicts"
        f" (95 %: {share.lower:.0%} to {share.upper:.0%})",
        {"share": share.share, "lower": share.lower, "upper": share.upper},
    )


def scores_are_sound(history: BatchHistory) -> Finding:
    """All scores are finite and centred, each with a standard error; all or none are scored."""
    rows = history.last_scores
    if not rows:
        return Finding(True, "there is no scale yet")
    finite = all(
        math.isfinite(row["score"])
        and math.isfinite(row["standard_error"])
        and row["standard_error"] > 0
        for row in rows
    )
    mean = math.fsum(row["score"] for row in rows) / len(rows)
    holds = finite and len(rows) == len(history.essays) and abs(mean) < 1e-6
    return Finding(
        holds,
        f"{len(rows)} of {len(history.essays)} essays are scored, mean {mean:.2g} logits"
        + ("" if finite else "; some score or standard error is no positive number"),
        {"scored": len(rows), "mean": mean},
    )


def net_is_connected(history: BatchHistory) -> Finding:
    """The verdicts join all essays into one net."""
    judged = [JudgedPair(r["essay_a"], r["essay_b"], r["winner"]) for r in history.succeeded]
    parts = net_parts([row["essay_id"] for row in history.essays], judged)
    sizes = ", ".join(str(len(part)) for part in parts[:MAX_LISTED])
    more = ", ..." if len(parts) > MAX_LISTED else ""
    return Finding(
        len(parts) == 1,
        "all essays are one net"
        if len(parts) == 1
        else f"the essays fall into {len(parts)} parts ({sizes}{more})",
        {"parts": len(parts)},
    )


def positions_are_fair(history: BatchHistory) -> Finding:
    """Every essay was shown first about as often as second."""
    skews = positional_skews(history.pairs)
    shown = Counter(row[place] for row in history.pairs for place in ("essay_a", "essay_b"))
    judged = {e: skew for e, skew in skews.items() if shown[e] >= MIN_SHOWN_FOR_SKEW}
    skewed = sorted((e for e, skew in judged.items() if skew > POSITIONAL_SKEW_BAND), key=str)
    return Finding(
        not skewed,
        _all_or_some(skewed, f"essays are skewed beyond {POSITIONAL_SKEW_BAND}"),
        {"most": max(judged.values(), default=0.0), "essays_judged": len(judged)},
    )


def errors_are_small(history: BatchHistory) -> Finding:
    """Mean and largest standard error of students' scores stay below what the batch warns of."""
    errors = [
        row["standard_error"]
        for row in history.last_scores
        if not history.essay_by_id[row["essay_id"]]["is_anchor"]
    ]
    if not errors:
        return Finding(True, "there is no scale yet")
    mean, largest = math.fsum(errors) / len(errors), max(errors)
    mean_limit = float(history.settings["mean_se_warning"])
    max_limit = float(history.settings["max_se_warning"])
    return Finding(
        mean <= mean_limit and largest <= max_limit,
        f"standard errors: mean {mean:.2f} (warned above {mean_limit:g}),"
        f" largest {largest:.2f} (above {max_limit:g})",
        {"mean": mean, "largest": largest},
    )


def callbacks_are_within_denominator(history: BatchHistory) -> Finding:
    """No more comparisons ended than the batch's completion maths allows."""
    if not history.decisions:
        return Finding(True, "nothing is decided yet")
    last = history.decisions[-1]
    ended = last.completed + last.failed
    return Finding(
        ended <= last.completion_denominator,
        f"{ended} comparisons ended of at most {last.completion_denominator}",
        {"ended": ended, "completion_denominator": last.completion_denominator},
    )


def success_is_earned(history: BatchHistory) -> Finding:
    """A batch that counts as a success has verdicts enough, on one scale."""
    if history.batch["state"] != "succeeded":
        return Finding(True, f"the batch is {history.batch['state']}")
    rate = enough_succeed(history)
    holds = bool(history.succeeded) and rate.holds and net_is_connected(history).holds
    return Finding(
        holds and len(history.last_scores) == len(history.essays),
        f"ended as {history.batch['end_reason']}; {rate.statement};"
        f" {net_is_connected(history).statement}",
        {"verdicts": len(history.succeeded), "scored": len(history.last_scores)},
    )


def batch_goes_well(history: BatchHistory) -> Finding:
    """The batch runs or has ended well; a failure is reported with its reason."""
    state, reason = history.batch["state"], history.batch["end_reason"]
    return Finding(
        state in {"running", "succeeded"},
        f"{state}: {reason}" if reason else str(state),
        {"state": str(state), "waves": len(history.decisions)},
    )


def every_essay_is_graded_or_none(history: BatchHistory) -> Finding:
    """Grades are for all essays, or there is a statement why there are none."""
    n_graded, n_essays = len(history.projections), len(history.essays)
    statement = str(history.grading["statement"]) if history.grading else "not graded yet"
    holds = n_graded == n_essays if history.is_graded else n_graded == 0 and bool(statement)
    return Finding(holds, statement, {"graded": n_graded, "essays": n_essays})


def probabilities_are_real(history: BatchHistory) -> Finding:
    """Each essay's probabilities lie in 0 to 1 and sum to 1."""
    wrong = [r["essay_id"] for r in history.projections if not _is_distribution(r)]
    return Finding(
        not wrong,
        _all_or_some(wrong, "essays have probabilities that are none"),
        {"graded": len(history.projections), "wrong": len(wrong)},
    )


def _is_distribution(row: Mapping[str, Any]) -> bool:
    shares = [float(p) for p in row["probabilities"].values()]
    return all(-1e-9 <= p <= 1 + 1e-9 for p in shares) and abs(math.fsum(shares) - 1) < 1e-6


def boundaries_are_in_order(history: BatchHistory) -> Finding:
    """Boundaries between grades rise with the grades."""
    positions = [float(row["boundary"]) for row in history.boundaries]
    falls = sum(after < before for before, after in pairwise(positions))
    return Finding(
        falls == 0 and all(map(math.isfinite, positions)),
        f"{len(positions)} boundaries, {falls} out of order",
        {"boundaries": len(positions), "out_of_order": falls},
    )


def anchors_are_in_order(history: BatchHistory) -> Finding:
    """Anchors with higher grades have higher scores, as far as standard errors can show."""
    check = dict(history.grading["anchor_check"]) if history.grading else {}
    if not check:
        return Finding(True, "there are no anchors to check")
    inversions = [row for row in check["inversions"] if row["is_beyond_error"]]
    tau = check["kendall_tau"]
    return Finding(
        not inversions,
        f"{len(inversions)} pairs of anchors are the wrong way round beyond error"
        + ("" if tau is None else f"; Kendall's tau {tau:.2f}")
        + "".join(f"; {row['lower']} above {row['higher']}" for row in inversions[:MAX_LISTED]),
        {"inversions": len(inversions), "kendall_tau": "none" if tau is None else tau},
    )


def anchors_are_graded_near_their_grades(history: BatchHistory) -> Finding:
    """Each graded by the others, anchors come near their own grades.

    The limit is what the batch allows judge and graders to disagree by: beyond it grades do not
    leave, so results close to it should be read by a person.
    """
    check = dict(history.grading["anchor_check"]) if history.grading else {}
    if not check or check["mean_absolute_error"] is None:
        return Finding(True, "no anchor was graded by the others")
    limit = float(history.settings.get("max_anchor_disagreement", 1.5))
    off, bias = check["mean_absolute_error"], check["bias"]
    return Finding(
        off <= limit and abs(bias) <= limit,
        f"{check['exact']:.0%} exact, {check['within_one']:.0%} within one step; off by {off:.2f}"
        f" steps on average, bias {bias:+.2f}",
        {
            "exact": check["exact"],
            "within_one": check["within_one"],
            "mean_absolute_error": off,
            "bias": bias,
        },
    )


def anchors_bear_out_confidence(history: BatchHistory) -> Finding:
    """Anchors' known grades were as probable, each graded by the others, as the grades claim.

    The mean logarithm of those probabilities is compared with what it would be were they right.
    Grades that are surer than they should be are wrong more often than their confidence says.
    """
    check = dict(history.grading["anchor_check"]) if history.grading else {}
    score = check.get("log_score")  # gradings of earlier versions have none
    if not score:
        return Finding(True, "no anchor was graded by the others")
    return Finding(
        score["chance"] >= TOO_SURE,
        f"log score {score['mean']:.2f} a grade where {score['expected']:.2f} is expected and"
        f" guessing has {score['guessing']:.2f}; as low by chance in {score['chance']:.1%}",
        {key: score[key] for key in ("mean", "expected", "guessing", "chance")},
    )


def anchors_win_what_they_should(history: BatchHistory) -> Finding:
    """No anchor lost everything though others are graded lower, and verdicts follow grades."""
    check = dict(history.grading["anchor_check"]) if history.grading else {}
    if not check:
        return Finding(True, "there are no anchors to check")
    never, direct, wrong = (
        list(check["zero_win_anchors"]),
        check["n_direct"],
        check["n_direct_inversions"],
    )
    misfit = [
        row["essay_id"]
        for row in check["anchors"]
        if row["infit"] is not None and row["infit"] > MISFIT
    ]
    return Finding(
        not never and 2 * wrong <= direct,
        f"{wrong} of {direct} verdicts between anchors of different grades went to the lower grade"
        + (f"; won nothing: {', '.join(never[:MAX_LISTED])}" if never else "")
        + (f"; judges disagree about {', '.join(misfit[:MAX_LISTED])}" if misfit else ""),
        {
            "direct": direct,
            "direct_inversions": wrong,
            "zero_win_anchors": len(never),
            "infit_above_1.5": len(misfit),
        },
    )


def groups_score_alike(history: BatchHistory) -> Finding:
    """No group of students stands apart from the others beyond chance.

    A difference is not yet unfairness; it says where people should look.
    """
    from cj_pipeline.outputs.readings.group_scan import group_scan

    scan = group_scan(history) if history.last_scores else None
    if scan is None or not scan.differences:
        return Finding(True, "no groups of five or more students are named")
    beyond = [each for each in scan.differences if each.is_beyond_chance]
    figures: dict[str, float | int | str] = {"groups": len(scan.differences), "apart": len(beyond)}
    figures |= {f"correlation_with_{each.what}": each.correlation for each in scan.effects}
    told = "; ".join(
        f"{visible(each.name)} by {each.difference:+.2f} logits ({each.lower:+.2f} to"
        f" {each.upper:+.2f})"
        for each in beyond[:MAX_LISTED]
    )
    return Finding(
        not beyond,
        f"{len(beyond)} of {len(scan.differences)} groups differ from the others beyond chance"
        + (f": {told}. Groups may truly differ; have people grade some of both" if told else ""),
        figures,
    )


def artefact_is_valid(content: bytes) -> Finding:
    """The artefact keeps to its contract, and its checksum is that of its content."""
    from cj_pipeline.outputs.artefact import artefact_checksum
    from cj_pipeline.outputs.contracts import violations

    document = json.loads(content)
    contract = document["validation"]["contract"]
    broken = [str(violation) for violation in violations(document, contract)]
    if document["validation"]["artefact_checksum"] != artefact_checksum(document):
        broken.append("its checksum is not that of its content")
    return Finding(
        not broken,
        f"keeps to {contract}" if not broken else "; ".join(broken[:MAX_LISTED]),
        {"violations": len(broken), "bytes": len(content)},
    )


def _all_or_some(wrong: list[str], what: str) -> str:
    if not wrong:
        return "all is as it should be"
    more = f" and {len(wrong) - MAX_LISTED} more" if len(wrong) > MAX_LISTED else ""
    return f"{len(wrong)} {what}: {', '.join(wrong[:MAX_LISTED])}{more}"
