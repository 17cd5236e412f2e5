"""Trying judges before a batch is spent on them: single live calls, and what they tell.

A trial asks a pair in both orders, so that a judge's consistency and its taste for what comes
first can be seen; where both essays are anchors, their grades say which verdict was due. Only what
it cost is stored here: a batch's comparisons go through `steps`.
"""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean, stdev

from cj_pipeline.batch.comparisons import RequestOutcome, Verdict
from cj_pipeline.errors import InvalidOutputError, SettingsError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import Usage, cost_usd
from cj_pipeline.judging.prompts import Prompt, parse_verdict
from cj_pipeline.planning.spending_limits import installation, require_trials_within
from cj_pipeline.providers.base import Provider
from cj_pipeline.runtime import Runtime

CALL_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Trial:
    """One live call and what came of it.

    Attributes:
        judge: Who was asked.
        essay_a: Shown first.
        essay_b: Shown second.
        verdict: None where there is none.
        failure: Why there is none, in words; None for a verdict.
        text: What the judge wrote.
        usage: What was billed; None where the provider did not say.
        seconds: From sending to reply.
    """

    judge: Judge
    essay_a: str
    essay_b: str
    verdict: Verdict | None
    failure: str | None
    text: str | None
    usage: Usage | None
    seconds: float

    @property
    def cost_usd(self) -> float:
        """What this call cost, at the price of single calls in the dearest hour."""
        price = self.judge.price
        told = cost_usd(price, self.usage or Usage(), batched=False)
        return told * float(price.dearest_hour)


@dataclass(frozen=True)
class JudgeSummary:
    """What a judge's trials tell; None where no trial could tell it.

    Attributes:
        judge_id: Who was tried.
        n_asked: Calls made.
        n_verdicts: Of these, calls that brought a verdict.
        consistency: The share of pairs whose two orders gave the same essay, or twice a tie.
        n_pairs: Pairs with a verdict in both orders.
        first_share: The share of verdicts for whichever essay came first; 0.5 is no bias.
        agreement: The share of verdicts between anchors of different grades that name the one
            with the higher grade; a tie counts a half.
        n_anchor_verdicts: How many of those there were.
        mean_confidence: From 1 to 5.
        usd_per_verdict: All calls' cost over the verdicts they brought.
        mean_seconds: Per call.
        reasoning_per_verdict: Tokens of reasoning, over the verdicts they brought; None where no
            answer tells its tokens.
        intervals: The 95 % interval of each figure above, by its name; of means and rates over
            pairs, whose two orders repeat each other. None where too few calls tell one.
    """

    judge_id: str
    n_asked: int
    n_verdicts: int
    consistency: float | None
    n_pairs: int
    first_share: float | None
    agreement: float | None
    n_anchor_verdicts: int
    mean_confidence: float | None
    usd_per_verdict: float | None
    mean_seconds: float
    reasoning_per_verdict: float | None
    intervals: Mapping[str, tuple[float, float] | None]


@dataclass(frozen=True)
class Calibration:
    """What a batch will use, estimated from trials.

    Attributes:
        n_trials: Calls it rests on.
        prompt_tokens: Per call, mean.
        completion_tokens: Per call, mean; reasoning included.
        usd: Expected for the whole batch.
        usd_low: Lower end of the 95 % prediction interval.
        usd_high: Upper end.
    """

    n_trials: int
    prompt_tokens: float
    completion_tokens: float
    usd: float
    usd_low: float
    usd_high: float


def judge_once(
    provider: Provider,
    judge: Judge,
    prompt: Prompt,
    essay_a: str,
    essay_b: str,
    *,
    cache_prefix: bool = False,
) -> Trial:
    """Ask a judge one comparison, live, and return what came of it.

    `cache_prefix` asks the provider to keep the shared prefix, as the batch's own calls would.

    Raises:
        TransientError: If the provider did not answer.
        ProviderRefusedError: If it will not answer any such call.
    """
    started = time.monotonic()
    request = provider.build_request(
        prompt, judge, f"trial-{prompt.sha256[:16]}", cache_prefix=cache_prefix
    )
    reply = provider.parse_reply(provider.single(request, timeout_s=CALL_TIMEOUT_S))
    seconds = time.monotonic() - started
    verdict, failure = None, reply.error_message or reply.error_code or str(reply.outcome)
    if reply.outcome is RequestOutcome.SUCCEEDED:
        try:
            verdict = parse_verdict(reply.text or "", allow_ties=judge.allow_ties)
        except InvalidOutputError as error:
            failure = str(error)
    return Trial(
        judge=judge,
        essay_a=essay_a,
        essay_b=essay_b,
        verdict=verdict,
        failure=None if verdict else failure,
        text=reply.text,
        usage=reply.usage,
        seconds=seconds,
    )


@contextmanager
def paid_trials(
    runtime: Runtime,
    judges: Sequence[Judge],
    n_calls: int,
    most_usd: float,
    *,
    may_be_fewer: bool = False,
) -> Iterator[list[Trial]]:
    """Give a list for calls that try judges; what they cost counts for the installation's day.

    The most they can cost is stored before the first is made, and stays where they are cut short,
    or where an answer does not tell what it used. `may_be_fewer`: not all calls need be made.

    Raises:
        CeilingReachedError: If the operator does not allow a judge, or so much; nothing was sent.
    """
    now, trials = runtime.clock(), list[Trial]()
    row = {
        "trial_id": secrets.token_hex(8),
        "judges": ", ".join(judge.judge_id for judge in judges),
        "n_calls": n_calls,
        "reserved_usd": most_usd,
        "billed_usd": None,
        "begun_at": now,
    }
    paid = [judge for judge in judges if not judge.is_simulated]
    if not paid:
        yield trials
        return
    with runtime.store.write() as db:
        require_trials_within(db, installation(runtime), paid, most_usd, now)
        db.insert("spent_on_trials", [row])
    yield trials
    is_whole = len(trials) == n_calls or (may_be_fewer and trials)
    told = is_whole and all(trial.usage is not None for trial in trials)
    if told:
        spent = math.fsum(trial.cost_usd for trial in trials if not trial.judge.is_simulated)
        with runtime.store.write() as db:
            db.execute(
                "UPDATE spent_on_trials SET billed_usd = ? WHERE trial_id = ?",
                [spent, row["trial_id"]],
            )


def trial_pairs(
    essay_ids: Sequence[str], n_pairs: int, seed: int, ranks: Mapping[str, int] | None = None
) -> list[tuple[str, str]]:
    """Return `n_pairs` different pairs, each in both orders; fewer where there are fewer.

    Pairs of anchors of different grades come first: only they tell which verdict was due.
    `ranks` are their grades as numbers.
    """
    pairs = list(itertools.combinations(essay_ids, 2))
    chosen = Random(seed).sample(pairs, len(pairs))  # noqa: S311
    known = ranks or {}
    chosen.sort(key=lambda pair: len({known[one] for one in pair if one in known}) < 2)
    return [order for a, b in chosen[:n_pairs] for order in ((a, b), (b, a))]


def summarise(judge: Judge, trials: Sequence[Trial], ranks: Mapping[str, int]) -> JudgeSummary:
    """Return what a judge's trials tell.

    Args:
        judge: Who was tried.
        trials: At least one.
        ranks: Each anchor's grade as a number, higher for better; others are left out.
    """
    judged = [(t.essay_a, t.essay_b, t.verdict) for t in trials if t.verdict is not None]
    winners = {(a, b): {"A": a, "B": b, "tie": None}[v.winner] for a, b, v in judged}
    both = [(winners[a, b], winners[b, a]) for a, b in winners if a < b and (b, a) in winners]
    decided = [v.winner == "A" for _, _, v in judged if v.winner != "tie"]
    due = [
        0.5 if winner is None else float(ranks[winner] == max(ranks[a], ranks[b]))
        for (a, b), winner in winners.items()
        if a in ranks and b in ranks and ranks[a] != ranks[b]
    ]
    confidences = [v.confidence for _, _, v in judged if v.confidence is not None]
    spent = math.fsum(trial.cost_usd for trial in trials)
    told = [trial.usage for trial in trials if trial.usage is not None]
    reasoning = math.fsum(usage.reasoning for usage in told)
    shares = {
        "consistency": (sum(one == other for one, other in both), len(both)),
        "first_share": (sum(decided), len(decided)),
        "agreement": (sum(due), len(due)),
    }
    return JudgeSummary(
        judge_id=judge.judge_id,
        n_asked=len(trials),
        n_verdicts=len(judged),
        consistency=_mean([float(one == other) for one, other in both]),
        n_pairs=len(both),
        first_share=_mean([float(first) for first in decided]),
        agreement=_mean(due),
        n_anchor_verdicts=len(due),
        mean_confidence=_mean(confidences),
        usd_per_verdict=spent / len(judged) if judged else None,
        mean_seconds=fmean(trial.seconds for trial in trials),
        reasoning_per_verdict=reasoning / len(judged) if judged and told else None,
        intervals={
            **{name: interval_of_share(n_yes, n) for name, (n_yes, n) in shares.items()},
            **_intervals_of_rates(trials),
        },
    )


def _intervals_of_rates(trials: Sequence[Trial]) -> dict[str, tuple[float, float] | None]:
    """Return the intervals of what is counted per call or per verdict, over pairs."""
    by_pair: dict[frozenset[str], list[Trial]] = {}
    for trial in trials:
        by_pair.setdefault(frozenset({trial.essay_a, trial.essay_b}), []).append(trial)
    pairs = list(by_pair.values())
    verdicts = [sum(t.verdict is not None for t in pair) for pair in pairs]
    sure = [
        [t.verdict.confidence for t in pair if t.verdict and t.verdict.confidence is not None]
        for pair in pairs
    ]
    reasoning = [math.fsum(t.usage.reasoning for t in pair if t.usage) for pair in pairs]
    return {
        "mean_confidence": interval_of_rate([math.fsum(s) for s in sure], [len(s) for s in sure]),
        "usd_per_verdict": interval_of_rate(
            [math.fsum(t.cost_usd for t in pair) for pair in pairs], verdicts
        ),
        "mean_seconds": interval_of_rate(
            [math.fsum(t.seconds for t in pair) for pair in pairs], [len(pair) for pair in pairs]
        ),
        "reasoning_per_verdict": interval_of_rate(reasoning, verdicts),
    }


def interval_of_rate(
    totals: Sequence[float], counts: Sequence[float]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a ratio of sums over clusters; None with fewer than two of them.

    Args:
        totals: Of each cluster, what is divided, such as USD.
        counts: Of each cluster, by what, such as verdicts; in the same order.

    References:
        Cochran (1977), Sampling Techniques, ch. 6: the ratio's linearised variance, with Student's
        t because clusters are few. Nothing here is negative, so the interval stops at 0.
    """
    from scipy.stats import t

    n, whole = len(totals), math.fsum(counts)
    if n < 2 or whole <= 0:
        return None
    rate = math.fsum(totals) / whole
    squares = math.fsum((y - rate * x) ** 2 for y, x in zip(totals, counts, strict=True))
    half = float(t.ppf(0.975, n - 1)) * math.sqrt(n / (n - 1) * squares) / whole
    return max(0.0, rate - half), rate + half


def interval_of_share(n_yes: float, n: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share (Wilson's score); None without anything counted.

    A tie counts a half, so `n_yes` need not be whole.

    References:
        Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    if not n:
        return None
    z, share = 1.959964, n_yes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Apart:
    """How far two judges are apart, on the pairs that both decided.

    Attributes:
        one: A judge's id.
        other: Another's.
        n_items: Comparisons (a pair in one order) that both decided.
        agreement: The share of them on which both named the same essay.
        n_pairs: Pairs of anchors of different grades that both decided in some order.
        difference: How much more often `one` named the anchor with the higher grade; None without
            such pairs.
        low: Lower end of the difference's 95 % interval, over pairs; None with fewer than two.
        high: Upper end.
        more_pairs: How many more such pairs would tell them apart in 95 of 100 trials if the
            difference is what it seems; 0 where they are apart, None where it seems to be none.
    """

    one: str
    other: str
    n_items: int
    agreement: float | None
    n_pairs: int
    difference: float | None
    low: float | None
    high: float | None
    more_pairs: int | None

    @property
    def are_apart(self) -> bool:
        """Whether the interval excludes no difference."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


POWER_Z = 1.644854
"""For a power of 95 %."""


def hold_apart(one: Sequence[Trial], other: Sequence[Trial], ranks: Mapping[str, int]) -> Apart:
    """Return how far two judges are apart that were shown the same pairs.

    Both orders of a pair are one observation: they repeat much of the same question. The interval
    is Student's t over pairs, of the difference in how often each named the higher grade.
    """
    ones, others = _named(one), _named(other)
    both = sorted(ones.keys() & others.keys())
    same = [ones[item] == others[item] for item in both]
    by_pair: dict[frozenset[str], list[float]] = {}
    for a, b in both:
        if a in ranks and b in ranks and ranks[a] != ranks[b]:
            better = max(a, b, key=lambda essay: ranks[essay])
            gap = _credit(ones[a, b], better) - _credit(others[a, b], better)
            by_pair.setdefault(frozenset((a, b)), []).append(gap)
    gaps = [fmean(values) for values in by_pair.values()]
    difference = fmean(gaps) if gaps else None
    low = high = None
    more: int | None = None
    if difference is not None and len(gaps) > 1:
        low, high, more = _told_apart(gaps, difference)
    return Apart(
        one=one[0].judge.judge_id if one else "",
        other=other[0].judge.judge_id if other else "",
        n_items=len(both),
        agreement=_mean([float(each) for each in same]),
        n_pairs=len(gaps),
        difference=difference,
        low=low,
        high=high,
        more_pairs=more,
    )


def _told_apart(gaps: Sequence[float], difference: float) -> tuple[float, float, int | None]:
    from scipy.stats import t

    n = len(gaps)
    # A handful of pairs that all say the same has no scatter, and proves little: one pair that
    # said the contrary is added to it.
    scatter = stdev([*gaps, -difference or 1.0])
    margin = float(t.ppf(0.975, n - 1)) * scatter / math.sqrt(n)
    low, high = max(-1.0, difference - margin), min(1.0, difference + margin)
    if not low <= 0 <= high:
        return low, high, 0
    if difference == 0:
        return low, high, None
    wanted = math.ceil(((1.959964 + POWER_Z) * scatter / difference) ** 2) + 2
    return low, high, max(1, wanted - n)


def _named(trials: Sequence[Trial]) -> dict[tuple[str, str], str | None]:
    """Return which essay each verdict named, None for a tie, by the pair as shown."""
    return {
        (t.essay_a, t.essay_b): {"A": t.essay_a, "B": t.essay_b, "tie": None}[t.verdict.winner]
        for t in trials
        if t.verdict is not None
    }


def _credit(named: str | None, better: str) -> float:
    return 0.5 if named is None else float(named == better)


def failures_by_kind(trials: Sequence[Trial]) -> dict[str, int]:
    """Return how often each failure came, most frequent first."""
    return dict(Counter(trial.failure for trial in trials if trial.failure).most_common())


def calibrate(
    trials: Sequence[Trial], n_comparisons: int, *, batched: bool, n_cold: int = 1
) -> Calibration:
    """Return what `n_comparisons` will use and cost, estimated from trials of one judge.

    The interval is for the sum of that many new calls like these: Student's t over the trials'
    costs, with both the mean's error and the calls' own scatter. A call that wrote the prefix into
    the provider's cache is not like the others: `n_cold` of the batch's calls do so. Inside a
    provider's batch no cache is counted on, so what single calls read from one is priced as plain.

    Raises:
        SettingsError: If fewer than two trials came with usage.
    """
    from scipy.stats import t

    used = [(trial.judge.price, trial.usage) for trial in trials if trial.usage is not None]
    n = len(used)
    if n < 2:
        msg = f"{n} of {len(trials)} trials reported their usage: two are needed for an interval."
        raise SettingsError(msg)
    costs = [cost_usd(price, _as_sent(usage, batched), batched=batched) for price, usage in used]
    wrote = [_writes(usage, batched) for _, usage in used]
    cold = [cost for cost, writes in zip(costs, wrote, strict=True) if writes]
    warm = [cost for cost, writes in zip(costs, wrote, strict=True) if not writes]
    if len(warm) < 2:
        cold, warm = [], costs
    elif not cold and not batched:
        # An earlier call had the prefix kept already; the batch may come too late to find it so.
        cold = [
            cost_usd(price, replace(usage, cached=0, cache_write_5m=usage.cached), batched=False)
            for price, usage in used
            if usage.cached
        ]
    n_warm = n_comparisons - min(n_cold, n_comparisons) if cold else n_comparisons
    expected = n_warm * fmean(warm) + (n_comparisons - n_warm) * fmean(cold or [0.0])
    scatter = stdev(warm) * math.sqrt(n_warm**2 / len(warm) + n_warm)
    margin = float(t.ppf(0.975, len(warm) - 1)) * scatter
    return Calibration(
        n_trials=n,
        prompt_tokens=fmean(usage.prompt for _, usage in used),
        completion_tokens=fmean(usage.completion for _, usage in used),
        usd=expected,
        usd_low=max(0.0, expected - margin),
        usd_high=expected + margin,
    )


def _as_sent(usage: Usage, batched: bool) -> Usage:
    return Usage(prompt=usage.prompt, completion=usage.completion) if batched else usage


def _writes(usage: Usage, batched: bool) -> bool:
    return not batched and usage.cache_write_5m + usage.cache_write_1h > 0


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
