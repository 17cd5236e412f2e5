"""What the store knows of one batch, read once for whatever is made of it.

The artefact, the report, the plots and the data frames are all functions of this one value, so
they cannot disagree. What a step needs to go on is `queries.batch_record`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import PEOPLE_FROM, JudgedPair
from cj_pipeline.batch.essays import label, matching
from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.intake.settings import BatchSettings, scoring_rules
from cj_pipeline.queries.essay_names import several_essays
from cj_pipeline.queries.overview import batch_overview, what_hinders
from cj_pipeline.queries.release import (
    NOTHING_GRADED,
    Release,
    decisions_in_force,
    release_of,
)
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import score_verdicts
from cj_pipeline.stopping.continuation import ContinuationDecision

if TYPE_CHECKING:
    from cj_pipeline.diagnostics.fit_statistics import Fit
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.scale.certainty import ScorePosterior
    from cj_pipeline.store.session import Session

Row = Mapping[str, Any]

HIDDEN_SETTINGS = frozenset({"emulator_qualities"})
"""What simulated judges are given and no result may show: it is the answer key."""

_JUDGES = (
    "SELECT * EXCLUDE (replaced_at, replaced_by) FROM judges"
    " WHERE batch_id = $batch AND replaced_at {} ORDER BY name, judge_id"
)


@dataclass(frozen=True)
class WaveDecision:
    """A row of `wave_decisions`: what was decided after a wave, and by which counts.

    Attributes:
        batch_id: The batch.
        wave: Counts from 1.
        decision: What happens next.
        reason: Why the batch ended; None while it goes on.
        submitted: Comparisons requested so far.
        completed: Of these, with a verdict.
        failed: Of these, failed for good.
        completion_denominator: The comparisons at which the batch ends whatever it has reached.
        success_rate: Verdicts as a share of the comparisons that ended, from 0 to 1.
        max_score_change: Of any essay since the wave before, in logits; None where there is none.
        details: Reliabilities, quality flags and summaries.
        decided_at: When.
    """

    batch_id: str
    wave: int
    decision: ContinuationDecision
    reason: str | None
    submitted: int
    completed: int
    failed: int
    completion_denominator: int
    success_rate: float
    max_score_change: float | None
    details: dict[str, Any]
    decided_at: datetime


@dataclass(frozen=True, eq=False)
class BatchHistory:
    """A batch's rows, each table in its natural order; texts included, callbacks left out.

    Attributes:
        batch: The row of `batches`.
        essays: In the batch's order.
        documents: By kind.
        judges: By name.
        earlier_judges: Those that gave no verdict and were changed while the batch waited.
        pairs: Every comparison planned, by sequence.
        comparisons: Every comparison that has come to an end, by sequence.
        attempts: Every request, by comparison and attempt.
        jobs: By wave and submission key.
        scores: Of every wave, by wave and rank.
        decisions: By wave.
        projections: Of the last grading, by essay.
        boundaries: Of the last grading, lowest first.
        grading: The last grading's report; None before the first.
        links: Of the last grading, to the batches on whose scale it is; in order of the chain.
        drifts: Of the anchors those links go through, the largest against its error first.
        linked_scores: Each essay's score on the scale of the batch linked to; by essay.
        scaled_scores: Each essay's score on the scale that the batch sets; empty without one.
        student_progress: How far each student's score is from the same student's in a batch before,
            largest against its error first; empty in a batch that is linked to none.
        ranks: How sure each essay's rank is; empty before the end.
        statistics: How good the final scale is (`scale_statistics`); empty before the end.
        release: Whether its grades may be used as final.
        moderation: What people decided of its grades, in order.
        skips: Pairs that people skipped, each with its reason; in order.
        releases: Each time it was released or withdrawn, in order.
        feedback_edits: What teachers wrote in place of drafted feedback, in order.
        judge_choices: Where judges are chosen by value, which each wave went to and why; by
            wave, the largest share first.
        hindered_by: What it waits for, or the failure that ended it, in words; empty otherwise.
    """

    batch: Row
    essays: tuple[Row, ...]
    documents: tuple[Row, ...]
    judges: tuple[Row, ...]
    pairs: tuple[Row, ...]
    comparisons: tuple[Row, ...]
    attempts: tuple[Row, ...]
    jobs: tuple[Row, ...]
    scores: tuple[Row, ...]
    decisions: tuple[WaveDecision, ...]
    projections: tuple[Row, ...]
    boundaries: tuple[Row, ...]
    grading: Row | None
    links: tuple[Row, ...] = ()
    drifts: tuple[Row, ...] = ()
    linked_scores: tuple[Row, ...] = ()
    scaled_scores: tuple[Row, ...] = ()
    student_progress: tuple[Row, ...] = ()
    ranks: tuple[Row, ...] = ()
    shared: tuple[Row, ...] = ()
    statistics: Row = field(default_factory=dict)
    judge_choices: tuple[Row, ...] = ()
    release: Release = NOTHING_GRADED
    moderation: tuple[Row, ...] = ()
    releases: tuple[Row, ...] = ()
    skips: tuple[Row, ...] = ()
    feedback_edits: tuple[Row, ...] = ()
    hindered_by: str = ""
    earlier_judges: tuple[Row, ...] = ()

    @property
    def batch_id(self) -> str:
        """The batch's name."""
        return str(self.batch["batch_id"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in force, without what only simulated judges may know."""
        return {k: v for k, v in self.batch["settings"].items() if k not in HIDDEN_SETTINGS}

    @property
    def settings_origins(self) -> dict[str, str]:
        """Where each of those settings came from."""
        origins = self.batch["settings_origins"].items()
        return {key: origin for key, origin in origins if key not in HIDDEN_SETTINGS}

    @property
    def scale(self) -> str | None:
        """The name of the grade scale the batch names."""
        return self.settings.get("scale")

    @property
    def is_graded(self) -> bool:
        """Whether the last grading gave grades."""
        return self.grading is not None and bool(self.grading["is_graded"])

    @property
    def is_simulated(self) -> bool:
        """Whether any of the judges only plays one."""
        return any(judge["is_simulated"] for judge in self.judges)

    @cached_property
    def last_scores(self) -> tuple[Row, ...]:
        """The scores after the last wave that has them, by rank."""
        last = max((row["wave"] for row in self.scores), default=None)
        return tuple(row for row in self.scores if row["wave"] == last)

    @cached_property
    def last_score_by_id(self) -> dict[str, Row]:
        """Each essay's row of the last scores under the essay's id."""
        return {row["essay_id"]: row for row in self.last_scores}

    @cached_property
    def score_by_id(self) -> dict[str, float]:
        """Each essay's last score, in logits, under the essay's id."""
        return {row["essay_id"]: row["score"] for row in self.last_scores}

    @cached_property
    def rank_by_id(self) -> dict[str, Row]:
        """How sure each essay's rank is, under the essay's id; empty before the end."""
        return {row["essay_id"]: row for row in self.ranks}

    @cached_property
    def verdict_score_by_id(self) -> dict[str, float]:
        """Each essay's last score by the verdicts alone, in logits: what grades are placed by."""
        return {row["essay_id"]: row["verdict_score"] for row in self.last_scores}

    def score_interval(self, essay_id: str) -> tuple[float, float]:
        """Return the 95 % limits of an essay's last score, in logits.

        As kept once the batch has ended, else 1.96 standard errors to each side.
        """
        sure = self.rank_by_id.get(essay_id)
        if sure is not None and sure["score_lower"] is not None:
            return sure["score_lower"], sure["score_upper"]
        entry = self.last_score_by_id[essay_id]
        half = 1.96 * entry["standard_error"]
        return entry["score"] - half, entry["score"] + half

    @cached_property
    def essay_by_id(self) -> dict[str, Row]:
        """Each essay under its id."""
        return {row["essay_id"]: row for row in self.essays}

    @cached_property
    def judge_by_id(self) -> dict[str, Row]:
        """Each judge under its fingerprint."""
        return {row["judge_id"]: row for row in (*self.judges, *self.earlier_judges)}

    @cached_property
    def pair_by_id(self) -> dict[str, Row]:
        """Each comparison as it was planned, under its id."""
        return {row["comparison_id"]: row for row in self.pairs}

    @cached_property
    def scaled_by_id(self) -> dict[str, Row]:
        """Each essay's score on the scale that the batch sets."""
        return {row["essay_id"]: row for row in self.scaled_scores}

    def scaled_score(self, essay_id: str) -> tuple[float, float] | None:
        """Return an essay's score and standard error on the batch's own scale, if it sets one."""
        row = self.scaled_by_id.get(essay_id)
        return None if row is None else (row["scaled_score"], row["standard_error"])

    @cached_property
    def projection_by_id(self) -> dict[str, Row]:
        """Each essay's row of the last grading under the essay's id."""
        return {row["essay_id"]: row for row in self.projections}

    @cached_property
    def decision_by_id(self) -> dict[str, Row]:
        """What a person decided of an essay's grade, under the essay's id."""
        return decisions_in_force(self.moderation)

    def edited_feedback(self, essay_id: str) -> str:
        """Return the feedback a teacher wrote for an essay last; empty where nobody did.

        An empty id stands for the whole class.
        """
        own = [row["text"] for row in self.feedback_edits if row["essay_id"] == essay_id]
        return str(own[-1]) if own else ""

    def given_grade(self, essay_id: str) -> str | None:
        """Return the grade to be given: a person's where one set it, else the machine's.

        None where there is none, and for an essay that a person excluded.
        """
        decision = self.decision_by_id.get(essay_id)
        if decision is not None and decision["kind"] == "override":
            return str(decision["grade"])
        projection = self.projection_by_id.get(essay_id)
        if projection is None or (decision is not None and decision["kind"] == "exclude"):
            return None
        return str(projection["grade"])

    def label(self, essay_id: str) -> str:
        """Return what people call an essay; with its id where two are called the same."""
        return self._labels.get(essay_id, essay_id)

    def essay_meant(self, typed: str) -> str:
        """Return the id of the essay a person means; what is unknown comes back as it was typed.

        Raises:
            UnknownEssayError: If several essays of the batch bear that name; it lists their ids.
        """
        known = [(r["essay_id"], r.get("given_id"), r.get("name")) for r in self.essays]
        known += [(r["judged_id"], r["given_id"], r["name"]) for r in self.shared]
        found = list(dict.fromkeys(matching(known, typed)))
        if len(found) > 1:
            raise several_essays(self.batch_id, typed, found)
        return found[0] if found else typed

    @property
    def names_to_type(self) -> list[str]:
        """What people may type for an essay: the ids, and what people call them."""
        return [*self.essay_by_id, *self._labels.values()]

    @cached_property
    def _labels(self) -> dict[str, str]:
        called = {
            row["essay_id"]: label(row["essay_id"], row.get("given_id"), row.get("name"))
            for row in self.essays
        }
        for row in self.shared:
            other = label(row["essay_id"], row["given_id"], row["name"])
            called[row["judged_id"]] += f" and {other}"
        times = Counter(called.values())
        return {
            essay_id: name if times[name] == 1 else f"{name} ({essay_id})"
            for essay_id, name in called.items()
        }

    @property
    def anchor_grades(self) -> dict[str, str]:
        """The anchors' grades, known beforehand."""
        return {row["essay_id"]: row["grade"] for row in self.essays if row["is_anchor"]}

    @cached_property
    def pending(self) -> tuple[Row, ...]:
        """The comparisons planned that have not come to an end."""
        ended = {row["comparison_id"] for row in self.comparisons}
        return tuple(row for row in self.pairs if row["comparison_id"] not in ended)

    def anchors_around(self, essay_id: str) -> tuple[str | None, str | None]:
        """Return the anchors whose scores are next below and next above an essay's."""
        scores, mine = self.score_by_id, self.score_by_id[essay_id]
        others = [a for a in self.anchor_grades if a != essay_id and a in scores]
        below = max((a for a in others if scores[a] <= mine), key=scores.__getitem__, default=None)
        above = min((a for a in others if scores[a] > mine), key=scores.__getitem__, default=None)
        return below, above

    def among_anchors(self, essay_id: str) -> str:
        """Return in words between which anchors an essay's score lies; empty without anchors."""
        return between_anchors(self.score_by_id, self.anchor_grades, essay_id)

    @property
    def pairs_of_models(self) -> tuple[Row, ...]:
        """The comparisons planned for models; people judge beside them."""
        return tuple(row for row in self.pairs if row["sequence"] < PEOPLE_FROM)

    @property
    def succeeded(self) -> tuple[Row, ...]:
        """The comparisons that have a verdict."""
        return tuple(row for row in self.comparisons if row["status"] == "succeeded")

    @property
    def judged(self) -> list[JudgedPair]:
        """The verdicts as scoring sees them, in the order requested."""
        return [
            JudgedPair(row["essay_a"], row["essay_b"], row["winner"], row["judge_id"])
            for row in self.succeeded
        ]

    def fit(self) -> Scale:
        """Return the scale as the batch's settings fit it, from all verdicts.

        Raises:
            UnscalableBatchError: If the verdicts give none.
        """
        return self._fitted

    @cached_property
    def _fitted(self) -> Scale:
        settings = BatchSettings.model_validate(self.settings)
        return score_verdicts(list(self.essay_by_id), self.judged, scoring_rules(settings))

    @cached_property
    def essay_fits(self) -> dict[str, Fit]:
        """How well each essay's verdicts agree with its score, under its id; empty unscored."""
        if not self.last_scores:
            return {}
        from cj_pipeline.diagnostics.fit_statistics import fit_of_essays

        return fit_of_essays(self.fit(), self.judged)

    def posterior(self) -> ScorePosterior:
        """Return the posterior from which scores, ranks and P(above) are reported.

        Raises:
            UnscalableBatchError: If the verdicts give none.
        """
        return score_posterior(self.fit(), self.anchor_grades)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The comparisons that failed for good."""
        return tuple(row for row in self.comparisons if row["status"] == "failed")

    @property
    def last_details(self) -> dict[str, Any]:
        """The summaries kept with the last decision: reliabilities, quality flags, coverage."""
        return dict(self.decisions[-1].details) if self.decisions else {}


def between_anchors(scores: Mapping[str, float], grades: Mapping[str, str], essay_id: str) -> str:
    """Return in words between which anchors an essay's score lies; empty without anchors.

    Args:
        scores: By essay.
        grades: The anchors' known grades.
        essay_id: The essay.
    """
    mine = scores[essay_id]
    others = [anchor for anchor in grades if anchor != essay_id and anchor in scores]
    below = max((a for a in others if scores[a] <= mine), key=scores.__getitem__, default=None)
    above = min((a for a in others if scores[a] > mine), key=scores.__getitem__, default=None)
    if below and above:
        return f"between anchors {below} ({grades[below]}) and {above} ({grades[above]})"
    if below:
        return f"above every anchor, next to {below} ({grades[below]})"
    if above:
        return f"below every anchor, next to {above} ({grades[above]})"
    return ""


def student_ranks(students: Sequence[Row]) -> list[int]:
    """Return ranks among students from their rows of scores, best first; equal ranks stay equal."""
    ranks: list[int] = []
    for place, row in enumerate(students, start=1):
        is_same = place > 1 and row["rank"] == students[place - 2]["rank"]
        ranks.append(ranks[-1] if is_same else place)
    return ranks


def read_history(db: Session, batch_id: str) -> BatchHistory:
    """Return everything the store knows of a batch.

    Raises:
        UnknownBatchError: If the store has no batch of that name.
    """
    batch = db.one("SELECT * FROM batches WHERE batch_id = ?", [batch_id])
    if batch is None:
        msg = f"No batch '{batch_id}' is in the store: `cj status` lists those that are."
        raise UnknownBatchError(msg)

    def rows(sql: str) -> tuple[Row, ...]:
        return tuple(db.rows(sql, {"batch": batch_id}))

    def graded(table: str, order: str) -> tuple[Row, ...]:
        last = "(SELECT max(revision) FROM grading_reports WHERE batch_id = $batch)"
        return rows(f"FROM {table} WHERE batch_id = $batch AND revision = {last} ORDER BY {order}")

    described = db.one("SELECT statistics FROM scale_statistics WHERE batch_id = ?", [batch_id])
    return BatchHistory(
        batch=batch,
        essays=rows("SELECT * FROM essays WHERE batch_id = $batch ORDER BY position"),
        documents=rows("SELECT * FROM documents WHERE batch_id = $batch ORDER BY kind"),
        judges=rows(_JUDGES.format("IS NULL")),
        earlier_judges=rows(_JUDGES.format("IS NOT NULL")),
        pairs=rows("SELECT * FROM comparison_pairs WHERE batch_id = $batch ORDER BY sequence"),
        comparisons=rows("SELECT * FROM comparisons WHERE batch_id = $batch ORDER BY sequence"),
        attempts=rows(
            "SELECT * FROM attempts WHERE batch_id = $batch"
            " ORDER BY comparison_id, attempt, custom_id"
        ),
        jobs=rows(
            "SELECT p.*, coalesce(l.n, 0) AS n_left_over FROM provider_jobs p LEFT JOIN"
            " (SELECT submission_key, count(*) AS n FROM provider_leftovers WHERE n_tries > 0"
            " GROUP BY ALL) l"
            " USING (submission_key) WHERE p.batch_id = $batch ORDER BY p.wave, p.submission_key"
        ),
        scores=rows(
            "SELECT * FROM essay_scores WHERE batch_id = $batch ORDER BY wave, rank, essay_id"
        ),
        decisions=tuple(
            db.records(
                WaveDecision,
                "FROM wave_decisions WHERE batch_id = $batch ORDER BY wave",
                {"batch": batch_id},
            )
        ),
        projections=graded("grade_projections", "essay_id"),
        boundaries=graded("grade_boundaries", "position"),
        grading=db.one(
            "SELECT * FROM grading_reports WHERE batch_id = $batch ORDER BY revision DESC LIMIT 1",
            {"batch": batch_id},
        ),
        shared=rows("SELECT * FROM shared_texts WHERE batch_id = $batch ORDER BY essay_id"),
        links=graded("batch_links", "position"),
        drifts=graded("anchor_drifts", "position, abs(drift) / standard_error DESC, essay_id"),
        linked_scores=graded("linked_scores", "essay_id"),
        scaled_scores=rows("FROM v_scaled_scores WHERE batch_id = $batch ORDER BY essay_id"),
        student_progress=rows(
            "FROM v_student_progress WHERE batch_id = $batch AND change IS NOT NULL"
            # Named by itself, since only that narrows the view before it is ordered.
            " AND scale_batch_id = (SELECT min(scale_batch_id) FROM v_linked_scores"
            " WHERE batch_id = $batch AND is_in_force)"
            " ORDER BY abs(change) / change_standard_error DESC, student"
        ),
        ranks=rows("SELECT * FROM essay_ranks WHERE batch_id = $batch ORDER BY rank, essay_id"),
        statistics=described["statistics"] if described is not None else {},
        release=release_of(db, batch_id),
        moderation=rows(
            "SELECT * FROM moderation_decisions WHERE batch_id = $batch ORDER BY number"
        ),
        skips=rows(
            "SELECT essay_a, essay_b, reason FROM human_answers"
            " WHERE batch_id = $batch AND kind = 'skip' ORDER BY number"
        ),
        feedback_edits=rows("SELECT * FROM feedback_edits WHERE batch_id = $batch ORDER BY number"),
        releases=rows("SELECT * FROM release_events WHERE batch_id = $batch ORDER BY number"),
        judge_choices=rows(
            "SELECT * FROM judge_choices WHERE batch_id = $batch"
            " ORDER BY wave, share DESC, information_per_usd DESC, judge_id"
        ),
        hindered_by=what_hinders(batch_overview(db, batch_id)[0]),
    )
