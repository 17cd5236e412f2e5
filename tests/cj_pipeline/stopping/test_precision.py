"""What a scale has reached, against what a batch may require of it."""

from __future__ import annotations

import pytest

from cj_pipeline.batch.options import PrecisionTargets
from cj_pipeline.stopping.precision import Precision, meets

STANDS = Precision(
    reliability=0.85,
    mean_standard_error=0.3,
    max_standard_error=0.5,
    misgrading=0.25,
    gain_per_usd=2.0,
)


@pytest.mark.parametrize(
    ("target", "met", "missed"),
    [
        ("reliability", 0.8, 0.9),
        ("mean_standard_error", 0.3, 0.29),
        ("max_standard_error", 0.6, 0.4),
        ("misgrading", 0.3, 0.2),
        ("gain_per_usd", 2.5, 1.5),
    ],
)
def test_each_target_is_met_on_its_own_side(target: str, met: float, missed: float) -> None:
    """A reliability has to be at least the target, an error or a gain at most."""
    assert meets(STANDS, PrecisionTargets(**{target: met}))
    assert not meets(STANDS, PrecisionTargets(**{target: missed}))


def test_every_target_given_has_to_be_met() -> None:
    """With two targets, both must be met."""
    assert meets(STANDS, PrecisionTargets(reliability=0.8, misgrading=0.3))
    assert not meets(STANDS, PrecisionTargets(reliability=0.9, misgrading=0.3))


@pytest.mark.parametrize("target", ["misgrading", "gain_per_usd"])
def test_a_figure_nobody_knows_meets_no_target(target: str) -> None:
    """A batch whose anchors carry no grades must not end as precise for that."""
    unknown = Precision(reliability=0.85, mean_standard_error=0.3, max_standard_error=0.5)

    assert not meets(unknown, PrecisionTargets(**{target: 0.99}))
