"""An ended batch whose verdicts have changed is scored, graded and published once more."""

from __future__ import annotations

import structlog

from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.decide import decide_again
from cj_pipeline.steps.fit import fit
from cj_pipeline.steps.project import Projected, project
from cj_pipeline.steps.publish import publish

log = structlog.get_logger()


def rescore(runtime: Runtime, batch_id: str) -> Projected:
    """Score an ended batch by the verdicts it has now, as a new grading, and publish it.

    Nothing is requested or paid, earlier gradings stay, and a grading that was released stays
    released: this one is not.
    """
    fit(runtime, batch_id)
    decide_again(runtime, batch_id)
    projected = project(runtime, batch_id, again=True)
    publish(runtime, batch_id)
    log.info("batch_rescored", batch_id=batch_id, revision=projected.revision)
    return projected
