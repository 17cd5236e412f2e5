"""Why a pair was asked, in words."""

from __future__ import annotations

from cj_pipeline.batch.comparisons import Role
from cj_pipeline.outputs.feedback import ROLES, roles_of, why_requested


def test_every_role_has_its_words() -> None:
    """A role nobody can explain is no reason."""
    assert set(ROLES) == set(Role)


def test_a_gain_comes_with_the_unit_of_the_strategy_that_counted_it() -> None:
    """Squared ranks, squared grade steps and nats cannot be compared."""
    assert why_requested("informative", 3.14159, "adaptive").endswith(
        "expected gain 3.1 squared ranks"
    )
    assert why_requested("boundary", 0.5, "adaptive").endswith("0.5 squared grade steps")
    assert why_requested("informative", 0.125, "hybrid_mst").endswith("0.12 nats")
    assert why_requested("coverage", None, "adaptive") == ROLES["coverage"]


def test_roles_are_counted_with_their_mean_gain_commonest_first() -> None:
    """Pairs without a gain do not pull the mean down."""
    rows = [
        {"role": "coverage", "expected_gain": None},
        {"role": "informative", "expected_gain": 1.0},
        {"role": "informative", "expected_gain": 3.0},
    ]

    first, second = roles_of(rows, "adaptive")

    assert (first.role, first.n, first.mean_gain) == ("informative", 2, "2 squared ranks")
    assert (second.role, second.mean_gain) == ("coverage", "")
