"""Which claims are checked of each part of a batch, and which of them stop it.

The claims themselves are in `claims`. One about what is true of our own rows stops: no request is
sent after it, and no grade leaves. One about how well a batch goes warns: a person should read
it, and the batch goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cj_pipeline.checks import claims
from cj_pipeline.checks.claims import Finding
from cj_pipeline.queries.history import BatchHistory


@dataclass(frozen=True)
class Check:
    """A claim about a batch, and what its failure means.

    Attributes:
        claim: What is claimed.
        is_blocking: Whether its failure stops what comes after.
        is_grave: Whether its failure is an error, or a warning.
    """

    claim: Callable[[BatchHistory], Finding]
    is_blocking: bool
    is_grave: bool

    @property
    def name(self) -> str:
        """The claim's name."""
        return self.claim.__name__


def stops(claim: Callable[[BatchHistory], Finding]) -> Check:
    """Return a check whose failure stops what comes after."""
    return Check(claim, is_blocking=True, is_grave=True)


def warns(claim: Callable[[BatchHistory], Finding]) -> Check:
    """Return a check whose failure a person should see, and nothing more."""
    return Check(claim, is_blocking=False, is_grave=False)


def reports(claim: Callable[[BatchHistory], Finding]) -> Check:
    """Return a check whose failure is an error and stops nothing: it is over already."""
    return Check(claim, is_blocking=False, is_grave=True)


CHECKS: Mapping[str, tuple[Check, ...]] = {
    "comparison_pairs": (
        stops(claims.pairs_are_sound),
        stops(claims.budget_is_kept),
        # Word processors leave some as well; whether it is an attempt, a person sees.
        warns(claims.texts_hide_nothing),
    ),
    "provider_jobs": (
        stops(claims.spend_is_within_cap),
        stops(claims.requests_are_recorded),
        stops(claims.mode_is_recorded),
    ),
    "comparisons": (
        stops(claims.rows_add_up),
        warns(claims.enough_succeed),
        warns(claims.no_place_is_preferred),
        warns(claims.bills_agree_with_providers),
        warns(claims.judges_answer_as_asked),
    ),
    "essay_scores": (
        stops(claims.scores_are_sound),
        # Early waves need not have joined all essays yet; `success_is_earned` blocks at the end.
        warns(claims.net_is_connected),
        warns(claims.positions_are_fair),
        warns(claims.errors_are_small),
        warns(claims.groups_score_alike),
    ),
    "wave_decision": (
        stops(claims.callbacks_are_within_denominator),
        stops(claims.success_is_earned),
        # Red next to the partition of a batch that ended badly, which is published like any other.
        reports(claims.batch_goes_well),
    ),
    "grade_projections": (
        stops(claims.every_essay_is_graded_or_none),
        stops(claims.probabilities_are_real),
        stops(claims.boundaries_are_in_order),
        # The projection itself declines to grade when anchors disagree too much.
        warns(claims.anchors_are_in_order),
        warns(claims.anchors_are_graded_near_their_grades),
        warns(claims.anchors_bear_out_confidence),
        warns(claims.anchors_win_what_they_should),
        warns(claims.released),
    ),
}
"""By the asset they are about; the artefact's own check reads it back from the disk."""
