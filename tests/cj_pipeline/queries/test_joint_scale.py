"""Which batches are pooled for a judge's validity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cj_pipeline.diagnostics.human_agreement import SideVerdicts, joint_scale
from cj_pipeline.queries.joint_scale import ModelAndPeople, pooled


def test_a_judge_is_pooled_with_itself_alone() -> None:
    """By what it is and not by its name; and one batch is no pool."""
    verdicts = SideVerdicts(np.array([0, 1, 0]), np.array([1, 2, 2]), np.ones(3))
    joint = joint_scale(3, verdicts, verdicts, 1.3)
    one = ModelAndPeople("quality", "quality-1", joint, ())
    again = ModelAndPeople("quality", "quality-1", replace(joint, n_people=5), ())
    changed = ModelAndPeople("quality", "quality-2", joint, ())

    ((name, valid),) = pooled([one, changed, again])

    assert (name, valid.n_people) == ("quality", 8)
    assert pooled([one, changed]) == []
