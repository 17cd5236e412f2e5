"""What the API answers with, as its OpenAPI document has it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from cj_pipeline.progress.values import Progress


class Links(BaseModel):
    """Where the rest of a batch is."""

    self: str
    events: str = Field(description="A WebSocket.")
    page: str = Field(description="The live page, for people.")


class Asked(BaseModel):
    """What a submitted batch requests."""

    n_essays: int
    n_anchors: int
    judges: list[str]
    batching_mode: str
    max_comparisons: int = Field(description="At most this many; it may stop earlier.")
    spend_cap_usd: float | None


class HandedInAnswer(BaseModel):
    """A batch that was handed in."""

    batch_id: str
    is_new: bool = Field(description="False where the same content was submitted before.")
    state: str = Field(description="`queued` until Dagster has taken it from the inbox.")
    asked: Asked
    links: Links


class BatchRow(BaseModel):
    """One batch among others."""

    batch_id: str
    title: str
    state: str
    end_reason: str | None
    waiting_for: str | None = Field(description="key, credit, person, rows, room or sign_off.")
    waiting_reason: str | None
    hindered_by: str = Field(
        description="What it waits for or failed by, in words; empty where nothing hinders it."
    )
    has_report: bool
    n_essays: int
    n_waves: int
    n_completed: int
    n_failed: int
    cost_usd: float
    problems: list[str]
    created_at: datetime
    ended_at: datetime | None


class BatchPage(BaseModel):
    """Batches, newest first."""

    items: list[BatchRow]
    queued: list[str] = Field(description="In the inbox, not yet ingested.")
    next: str | None = Field(description="Give it as `after` for the next page.")


class BatchAnswer(BaseModel):
    """One batch's status."""

    batch_id: str
    title: str
    state: str = Field(description="queued, running, succeeded, failed, cancelled or rejected")
    problems: list[str] = Field(description="Why it was rejected.")
    progress: Progress | None = Field(description="None while it is queued or rejected.")
    has_report: bool
    has_artefact: bool
    release: str = Field(
        description="no grades, final, provisional, released, changed since release or withdrawn"
    )
    links: Links


class Cancelled(BaseModel):
    """What came of asking for a batch's end."""

    batch_id: str
    state: str = Field(description="cancelling, cancelled, or withdrawn from the inbox")
    n_jobs: int = Field(description="Provider jobs that were asked to stop.")


class ComparisonRow(BaseModel):
    """One ended comparison; the essays are in the order shown."""

    sequence: int
    wave: int
    judge: str
    essay_a: str
    essay_b: str
    status: str
    failure_reason: str | None
    winner: str | None
    winner_id: str | None
    confidence: float | None
    justification: str | None
    n_attempts: int
    tokens_prompt: int
    tokens_completion: int
    cost_usd: float
    completed_at: datetime


class ComparisonPage(BaseModel):
    """Ended comparisons, in the order requested."""

    items: list[ComparisonRow]
    next: int | None = Field(description="Give it as `after` for the next page.")


class ScoreRow(BaseModel):
    """One essay's place on the scale."""

    rank: int
    essay_id: str
    given_id: str | None = Field(description="The name or number it was submitted under.")
    name: str | None = Field(description="The student's name, where the batch says it.")
    group: str | None = Field(description="The student's class or group, likewise.")
    is_anchor: bool
    score: float = Field(description="Logits, mean-centred within the batch.")
    standard_error: float
    n_comparisons: int
    is_one_sided: bool


class ScorePage(BaseModel):
    """Scores after the latest wave, highest first."""

    items: list[ScoreRow]
    next: int | None = Field(description="Give it as `after` for the next page.")


class GradeRow(BaseModel):
    """One student's grade."""

    essay_id: str
    given_id: str | None = Field(description="The name or number it was submitted under.")
    name: str | None = Field(description="The student's name, where the batch says it.")
    group: str | None = Field(description="The student's class or group, likewise.")
    grade: str | None = Field(
        description="To be given: a person's where one set it, else the most probable one."
        " None for an essay that a person excluded."
    )
    machine_grade: str = Field(description="The most probable one.")
    decision: str | None = Field(description="accept, override or exclude; by a person.")
    confidence: float
    expected_grade: float
    probabilities: dict[str, float]
    is_extrapolated: bool


class GradePage(BaseModel):
    """Students' grades of the latest grading, by rank."""

    is_graded: bool
    statement: str = Field(description="Why the batch was or was not graded.")
    provisional: bool = Field(description="Whether a person has still to release these grades.")
    status: str = Field(
        description="no grades, final, provisional, released, changed since release or withdrawn"
    )
    scale: str | None
    items: list[GradeRow]
    next: int | None = Field(description="Give it as `after` for the next page.")


class Healthy(BaseModel):
    """The service and its store answer."""

    status: str


class Nudged(BaseModel):
    """What a webhook did."""

    n_jobs: int = Field(description="Provider jobs that are polled next.")
