"""How each judge of a batch is doing: how far, at what cost, and agreeing with the others or not.

The arithmetic is `panel`'s and `consistency`'s; this reads it off a batch's rows, for the terminal
and the report.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cj_pipeline.diagnostics.position_balance import first_shown_share
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.intake.settings import BatchSettings, panel_shares
from cj_pipeline.outputs.language import tr
from cj_pipeline.queries.history import BatchHistory

if TYPE_CHECKING:
    from cj_pipeline.diagnostics.consistency import Share


@dataclass(frozen=True)
class JudgeOnBatch:
    """One judge's part in a batch.

    Attributes:
        judge_id: Its fingerprint.
        name: For people.
        share: Of the pairs it judges, from 0 to 1.
        n_planned: Comparisons planned for it so far.
        n_verdicts: Of these, those with a verdict.
        n_failed: Those that failed for good.
        n_open: Those that have not come to an end.
        agreement: How often its majority on a pair is another judge's, over all pairs it had in
            common with any of them; None where it had none.
        rank_correlation: Of the scale of its verdicts alone with that of all the others'; None
            where either is missing.
        first_share: The share of its decided verdicts for whichever essay came first.
        billed_usd: Of all its attempts.
        usd_per_verdict: That over its verdicts; None without any.
    """

    judge_id: str
    name: str
    share: float
    n_planned: int
    n_verdicts: int
    n_failed: int
    n_open: int
    agreement: Share | None
    rank_correlation: float | None
    first_share: float | None
    billed_usd: float
    usd_per_verdict: float | None


def panel_overview(history: BatchHistory) -> list[JudgeOnBatch]:
    """Return how each judge of a batch is doing, by name."""
    planned = Counter(row["judge_id"] for row in history.pairs)
    agreements = _agreements(history)
    correlations = _rank_correlations(history)
    names = [row["name"] for row in history.judge_by_id.values()]
    settings = BatchSettings.model_validate(history.settings)
    shares = dict(zip(names, panel_shares(settings, names), strict=True))
    overview = []
    for judge_id, judge in history.judge_by_id.items():
        own = [row for row in history.comparisons if row["judge_id"] == judge_id]
        verdicts = [row for row in own if row["status"] == "succeeded"]
        billed = math.fsum(
            row["cost_usd"] or 0.0 for row in history.attempts if row["judge_id"] == judge_id
        )
        overview.append(
            JudgeOnBatch(
                judge_id=judge_id,
                name=judge["name"],
                share=shares[judge["name"]],
                n_planned=planned[judge_id],
                n_verdicts=len(verdicts),
                n_failed=len(own) - len(verdicts),
                n_open=planned[judge_id] - len(own),
                agreement=agreements.get(judge_id),
                rank_correlation=correlations.get(judge_id),
                first_share=first_shown_share(verdicts).share if verdicts else None,
                billed_usd=billed,
                usd_per_verdict=billed / len(verdicts) if verdicts else None,
            )
        )
    return overview


def _agreements(history: BatchHistory) -> dict[str, Share]:
    from cj_pipeline.diagnostics.consistency import agreement_between_judges, share_of

    if not history.succeeded:
        return {}
    same: Counter[str] = Counter()
    both: Counter[str] = Counter()
    found = agreement_between_judges(list(history.essay_by_id), history.judged)
    for judges, share in found.items():
        for judge_id in judges if share.n else ():
            same[judge_id] += round(share.share * share.n)
            both[judge_id] += share.n
    return {judge_id: share_of(same[judge_id], n) for judge_id, n in both.items() if n}


def _rank_correlations(history: BatchHistory) -> dict[str, float | None]:
    from cj_pipeline.diagnostics.panel import fit_panel

    if len({row["judge_id"] for row in history.succeeded}) < 2:
        return {}
    try:
        panel = fit_panel(list(history.essay_by_id), history.judged)
    except UnscalableBatchError:
        return {}
    return {judge_id: found.agreement for judge_id, found in panel.judges.items()}


@dataclass(frozen=True)
class Agreement:
    """Whose verdicts were compared, and the share of pairs on which they agree."""

    who: str
    share: Share


def agreements(history: BatchHistory) -> list[Agreement]:
    """Return each judge with itself and with each other, where there is a pair to compare on."""
    from cj_pipeline.diagnostics.consistency import agreement_between_judges, judge_consistency

    if not history.succeeded:
        return []
    name = {judge_id: judge["name"] for judge_id, judge in history.judge_by_id.items()}
    essay_ids = list(history.essay_by_id)
    found = []
    for judge_id, consistency in judge_consistency(essay_ids, history.judged).items():
        judge = name[judge_id]
        who = tr("{judge} with itself, same order", judge=judge)
        found.append(Agreement(who, consistency.repeat_agreement))
        who = tr("{judge} with itself, order reversed", judge=judge)
        found.append(Agreement(who, consistency.swap_agreement))
    found += [
        Agreement(tr("{one} with {other}", one=name[one], other=name[other]), share)
        for (one, other), share in agreement_between_judges(essay_ids, history.judged).items()
    ]
    return [each for each in found if each.share.n]
