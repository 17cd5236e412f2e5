"""How often verdicts on one pair agree, wherever any two of a batch can be compared.

The shares are `consistency`'s; this names them for the report and for Dagster's pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cj_pipeline.batch_history import BatchHistory
    from cj_pipeline.consistency import Share


@dataclass(frozen=True)
class Agreement:
    """Whose verdicts were compared, and the share of pairs on which they agree."""

    who: str
    share: Share


def agreements(history: BatchHistory) -> list[Agreement]:
    """Return each judge with itself and with each other, where there is a pair to compare on."""
    from cj_pipeline.consistency import agreement_between_judges, judge_consistency

    if not history.succeeded:
        return []
    name = {judge_id: judge["name"] for judge_id, judge in history.judge_by_id.items()}
    essay_ids = list(history.essay_by_id)
    found = []
    for judge_id, consistency in judge_consistency(essay_ids, history.judged).items():
        who = f"{name[judge_id]} with itself"
        found.append(Agreement(f"{who}, same order", consistency.repeat_agreement))
        found.append(Agreement(f"{who}, order reversed", consistency.swap_agreement))
    found += [
        Agreement(f"{name[one]} with {name[other]}", share)
        for (one, other), share in agreement_between_judges(essay_ids, history.judged).items()
    ]
    return [each for each in found if each.share.n]
