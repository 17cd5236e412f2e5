"""Which judges of a panel get the next wave's pairs, chosen by information per USD."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import structlog

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.queries.batch_record import BatchRecord, judged_pairs
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.pairing.judge_selection import JudgeShare

log = structlog.get_logger()

_VERDICTS_TO_JUDGE_BY = 20
"""Of each judge, before its estimated discrimination is more than chance."""


@dataclass(frozen=True)
class JudgesNext:
    """Which judges get the next wave's pairs.

    Attributes:
        shares: Of the pairs, in the order of the batch's `judges`.
        by_worth: What the shares rest on; empty where they are the settings'.
    """

    shares: tuple[float, ...]
    by_worth: tuple[JudgeShare, ...] = ()

    def rows(self, batch_id: str, wave: int) -> list[dict[str, Any]]:
        """Return its rows of `judge_choices`."""
        return [
            {
                "batch_id": batch_id,
                "wave": wave,
                "share": each.share,
                "information": each.information.information,
                "information_per_usd": each.information.information_per_usd,
            }
            | asdict(each.figures)
            for each in self.by_worth
        ]


def judges_next(db: Session, record: BatchRecord) -> JudgesNext:
    """Return the share of the next pairs that each judge gets.

    As the settings share them out; by value for money once every judge has given enough verdicts.
    """
    as_set = JudgesNext(record.shares)
    if record.settings.judge_choice != "by_worth":
        return as_set
    import numpy as np

    from cj_pipeline.pairing.judge_selection import JudgeFigures, shares_by_worth
    from cj_pipeline.scale.bradley_terry import fit_bradley_terry

    judged = judged_pairs(db, record.batch_id)
    spent = _spent(db, record)
    if any(spent.get(j.judge_id, (0, 0, 0.0))[0] < _VERDICTS_TO_JUDGE_BY for j in record.judges):
        return as_set
    try:
        scale = fit_bradley_terry(
            record.essay_ids, judged, position_effect=True, discrimination=True
        )
    except UnscalableBatchError as error:
        log.info("judges_not_compared", batch_id=record.batch_id, reason=str(error))
        return as_set
    figures = []
    for judge in record.judges:
        n_verdicts, n_asked, usd = spent[judge.judge_id]
        log_a, position = (
            found[judge.judge_id].value if judge.judge_id in found else 0.0
            for found in (scale.discriminations, scale.position_effects)
        )
        figures.append(
            JudgeFigures(
                judge.judge_id,
                usd_per_comparison=usd / n_asked,
                discrimination=math.exp(log_a),
                position_effect=position,
                success_rate=n_verdicts / n_asked,
            )
        )
    score = dict(zip(scale.essay_ids, scale.scores.tolist(), strict=True))
    apart = np.array([score[pair.essay_a] - score[pair.essay_b] for pair in judged])
    chosen = shares_by_worth(figures, apart)
    shares = {each.figures.judge_id: each.share for each in chosen}
    log.info("judges_chosen_by_worth", batch_id=record.batch_id, shares=shares)
    return JudgesNext(tuple(shares[judge.judge_id] for judge in record.judges), chosen)


def _spent(db: Session, record: BatchRecord) -> dict[str, tuple[int, int, float]]:
    """Return for each judge its verdicts, its ended comparisons and their dollars."""
    rows = db.rows(
        "SELECT judge_id, count(*) FILTER (status = 'succeeded') AS n_verdicts, count(*) AS n,"
        " sum(cost_usd ORDER BY sequence) AS usd"
        " FROM comparisons WHERE batch_id = ? GROUP BY judge_id",
        [record.batch_id],
    )
    return {r["judge_id"]: (int(r["n_verdicts"]), int(r["n"]), float(r["usd"])) for r in rows}
