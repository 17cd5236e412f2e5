"""The steps of a batch's life, each safe to repeat and to kill: one engine for both faces."""

from cj_pipeline.steps.advance import advance_to_end, take_next_step
from cj_pipeline.steps.cancel import cancel
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.decide import decide
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.fit import fit
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.link import link
from cj_pipeline.steps.next_step import NextStep, next_step, next_steps
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.project import project
from cj_pipeline.steps.publish import publish, publish_artefact, publish_report
from cj_pipeline.steps.regrade import regrade
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.steps.trial_runs import conclude_trial, open_trial

__all__ = [
    "Engine",
    "NextStep",
    "advance_to_end",
    "cancel",
    "collect_wave",
    "conclude_trial",
    "decide",
    "fit",
    "ingest",
    "link",
    "next_step",
    "next_steps",
    "open_trial",
    "plan_wave",
    "poll",
    "project",
    "publish",
    "publish_artefact",
    "publish_report",
    "regrade",
    "submit_wave",
    "take_next_step",
]
