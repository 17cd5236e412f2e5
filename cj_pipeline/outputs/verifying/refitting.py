"""Scores, ranks, grades and figures of an artefact as its verdicts give them today.

Each comes as its path and what should be there, like `recomputing`; a fit is behind all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import PEOPLE_FROM, JudgedPair, max_possible_pairs
from cj_pipeline.grading.disagreement import (
    ExpectedDisagreement,
    judged_by,
    learn,
    usual_disagreement,
)
from cj_pipeline.grading.linked_scale import only
from cj_pipeline.grading.rows import grading_rows, link_rows
from cj_pipeline.grading.rules import (
    GradingTerms,
    grade_by,
    grades_or_why_not,
    students_alike,
    waived_statement,
)
from cj_pipeline.intake.settings import (
    BatchSettings,
    grading_terms,
    panel_shares,
    scoring_rules,
)
from cj_pipeline.outputs.verifying.recomputing import (
    Document,
    Expected,
    anchor_grades,
    essay_ids,
    judged_pairs,
)
from cj_pipeline.queries.batch_record import rules_of
from cj_pipeline.queries.history import between_anchors
from cj_pipeline.scale.rows import rank_rows, score_rows
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import score_verdicts
from cj_pipeline.stopping.continuation import (
    BatchProgress,
    completion_denominator,
    decide_continuation,
)

if TYPE_CHECKING:
    from cj_pipeline.grading.disagreement import Disagreement
    from cj_pipeline.grading.linked_scale import LinkedScale
    from cj_pipeline.grading.projection import GradeProjections
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.scale.certainty import ScorePosterior

_ENTRY = {
    "theta": "score",
    "standard_error": "standard_error",
    "score_version": "score_version",
    "verdict_theta": "verdict_score",
    "verdict_standard_error": "verdict_standard_error",
    "rank": "rank",
    "comparison_count": "n_comparisons",
    "n_wins": "n_wins",
    "n_losses": "n_losses",
    "n_shown_a": "n_shown_a",
    "n_shown_b": "n_shown_b",
    "is_one_sided": "is_one_sided",
}
"""What an entry of `bt_summary` takes from a row of `essay_scores`."""

NEVER = datetime.fromtimestamp(0, tz=UTC)
"""Stands for the time of a grading, which is not compared."""

_BY_VERDICTS_ALONE = {
    "score_version": None,
    "theta": "verdict_score",
    "standard_error": "verdict_standard_error",
}
"""What the same names meant in version 1."""


def scores(
    document: Document, settings: BatchSettings, scale: Scale, posterior: ScorePosterior
) -> Expected:
    """Yield the entries of `bt_summary`, but for what is said of ranks."""
    rows = {row["essay_id"]: row for row in score_rows("", 0, scale, posterior)}
    yield from _scaled(document, settings, rows)
    anchors = anchor_grades(document)
    graded = {row["essay_id"]: row["grade"] for row in document["grade_projections"]}
    for place, entry in enumerate(document["bt_summary"]):
        path, row = f"bt_summary[{place}]", rows.get(entry["essay_id"])
        if row is None:
            yield f"{path}.essay_id", None
            continue
        is_earlier = entry.get("score_version", 1) == 1
        for name, key in _ENTRY.items():
            if name in entry:
                said = _BY_VERDICTS_ALONE.get(name, key) if is_earlier else key
                yield f"{path}.{name}", row[said] if said else 1
        yield f"{path}.is_anchor", entry["essay_id"] in anchors
        if entry["essay_id"] in anchors:
            yield f"{path}.anchor_grade", anchors[entry["essay_id"]]
        if entry["essay_id"] in graded:
            yield f"{path}.grade_projection", graded[entry["essay_id"]]


def _scaled(
    document: Document, settings: BatchSettings, rows: Mapping[str, Mapping[str, Any]]
) -> Expected:
    """Yield scores on the batch's own scale; of a linked batch only the store has them."""
    if settings.scaled_scores is None or (document["grading"] or {}).get("linked_scores"):
        return
    anchors = anchor_grades(document)
    every = {essay_id: row["score"] for essay_id, row in rows.items()}
    students = [score for essay_id, score in every.items() if essay_id not in anchors]
    line = settings.scaled_scores.line(list(every.values()), students)
    for place, entry in enumerate(document["bt_summary"]):
        if "scaled_score" not in entry or entry["essay_id"] not in rows:
            continue
        row, path = rows[entry["essay_id"]], f"bt_summary[{place}]"
        unit, zero = line or (None, None)
        yield (
            f"{path}.scaled_score",
            None if unit is None or zero is None else zero + unit * row["score"],
        )
        yield (
            f"{path}.scaled_standard_error",
            None if unit is None else unit * row["standard_error"],
        )


def description(document: Document, settings: BatchSettings) -> Expected:
    """Yield what is said of ranks and of the scale as a whole; it takes hundreds of fits."""
    described = _described(_verdicts(document), settings.model_dump_json())
    ranks = {row["essay_id"]: row for row in described["ranks"]}
    has_ranks = any("rank_lower" in entry for entry in document["bt_summary"])
    for place, entry in enumerate(document["bt_summary"]):
        path, row = f"bt_summary[{place}]", ranks.get(entry["essay_id"])
        if not has_ranks or row is None:
            continue
        for key in ("rank_lower", "rank_upper", "p_above_next"):
            yield f"{path}.{key}", row[key]
        yield f"{path}.theta_lower", row["score_lower"]
        yield f"{path}.theta_upper", row["score_upper"]
    for key in document["scale_statistics"]:
        if key == "validity":
            continue  # rests on the grading at which a sample was drawn: only the store has it
        # Later versions know further figures.
        yield f"scale_statistics.{key}", described["statistics"].get(key)


def fitted(document: Document, settings: BatchSettings) -> tuple[Scale, ScorePosterior]:
    """Return the scale that an artefact's verdicts give, and the posterior of its scores.

    Raises:
        UnscalableBatchError: If they give none.
    """
    return _fitted(_verdicts(document), settings.model_dump_json())


def _verdicts(document: Document) -> str:
    """Return all that a scale rests on but for settings; for one document it is worked out once."""
    judged = [asdict(verdict) for verdict in judged_pairs(document)]
    return json.dumps([essay_ids(document), sorted(anchor_grades(document)), judged])


@lru_cache(maxsize=16)
def _fitted(verdicts: str, settings: str) -> tuple[Scale, ScorePosterior]:
    essays, anchors, judged = json.loads(verdicts)
    rules = scoring_rules(BatchSettings.model_validate_json(settings))
    scale = score_verdicts(essays, [JudgedPair(**row) for row in judged], rules)
    return scale, score_posterior(scale, anchors)


@lru_cache(maxsize=16)
def _described(verdicts: str, settings: str) -> dict[str, Any]:
    from cj_pipeline.diagnostics.summary import scale_statistics

    scale, posterior = _fitted(verdicts, settings)
    judged = [JudgedPair(**row) for row in json.loads(verdicts)[2]]
    statistics = scale_statistics(scale, posterior, judged)
    described: dict[str, Any] = as_json(
        {"ranks": rank_rows("", posterior), "statistics": statistics}
    )
    return described


@lru_cache(maxsize=16)
def _graded(  # noqa: PLR0917 -- what a grading is made of; all of it is the cache's key
    verdicts: str,
    settings: str,
    own_scale: str | None,
    anchors: str,
    sampled: str,
    beforehand: Disagreement | None,
) -> tuple[str, GradeProjections | None]:
    terms = grading_terms(BatchSettings.model_validate_json(settings), own_scale)
    scale, _ = _fitted(verdicts, settings)
    judged = [JudgedPair(**row) for row in json.loads(verdicts)[2]]
    grades = json.loads(anchors)
    statement, projections = grades_or_why_not(
        terms, scale, grades, judged, json.loads(sampled), expected=beforehand
    )
    return students_alike(scale, grades) + statement, projections


def summaries(document: Document, settings: BatchSettings, scale: Scale) -> Expected:
    """Yield what the last decision says of errors, reliability and coverage."""
    from cj_pipeline.diagnostics.quality_flags import quality_flags, se_summary
    from cj_pipeline.diagnostics.reliability import reliability_details

    if not _was_decided_last(document):
        return
    anchors = anchor_grades(document)
    students = [essay for essay in essay_ids(document) if essay not in anchors]
    errors = se_summary(scale, score_posterior(scale, anchors), students)
    last = len(document["wave_decisions"]) - 1
    details = document["wave_decisions"][last]["details"]
    if "bt_se_summary" in details:
        if (
            "verdict_mean_se" not in details["bt_se_summary"]
        ):  # earlier versions': by verdicts alone
            for key in ("mean_se", "max_se"):
                errors[key] = errors.pop(f"verdict_{key}")
        flags = quality_flags(
            errors,
            mean_se_warning=settings.mean_se_warning,
            max_se_warning=settings.max_se_warning,
        )
        yield "bt_se_summary", errors
        yield "bt_quality_flags", flags
        yield f"wave_decisions[{last}].details.bt_se_summary", errors
        yield f"wave_decisions[{last}].details.bt_quality_flags", flags
    for key, value in as_json(reliability_details(scale, anchors)).items():
        if key in details:
            yield f"wave_decisions[{last}].details.{key}", value


def decisions(document: Document, settings: BatchSettings | None) -> Expected:
    """Yield what was decided after each wave, by the counts kept with it, and how it ended."""
    said = document["wave_decisions"]
    for place, row in enumerate(said):
        path = f"wave_decisions[{place}]"
        progress = row["details"].get("progress")
        if progress is not None and settings is not None:
            yield from _decision(path, progress, document, settings)
        ended = row["completed"] + row["failed"]
        yield f"{path}.success_rate", row["completed"] / ended if ended else 0.0
        if place:
            yield f"{path}.wave", said[place - 1]["wave"] + 1
    if not said:
        return
    last, status = said[-1], document["runner_status"]
    if last["decision"] in {"finalize_scoring", "finalize_failure"}:
        yield "runner_status.end_reason", last["reason"]
        is_cancelled = last["reason"] == "cancelled"
        done = "succeeded" if last["decision"] == "finalize_scoring" else "failed"
        yield "runner_status.state", "cancelled" if is_cancelled else done
    elif status["state"] == "running":
        yield "runner_status.end_reason", None
    yield from _coverage(document, len(said) - 1)


def _decision(
    path: str, progress: Document, document: Document, settings: BatchSettings
) -> Expected:
    n_essays = len(essay_ids(document))
    try:
        known = BatchProgress(**progress)
    except TypeError:
        return
    names = [judge["name"] for judge in document["judges"] if judge["provider"] != "human"]
    rules = rules_of(settings, verdicts_per_pair=sum(panel_shares(settings, names)))
    decided = decide_continuation(known, rules)
    yield f"{path}.decision", decided.decision.value
    yield f"{path}.reason", decided.reason.value if decided.reason else None
    yield f"{path}.completion_denominator", completion_denominator(n_essays, rules)
    yield f"{path}.submitted", known.submitted
    yield f"{path}.completed", known.completed
    yield f"{path}.failed", known.failed
    yield f"{path}.details.progress.n_essays", n_essays
    yield f"{path}.max_score_change", known.max_score_change


def _was_decided_last(document: Document) -> bool:
    """Whether the last decision was made by all the verdicts there are now."""
    said = document["wave_decisions"]
    ended = document["llm_comparisons"]
    n_people = sum(row["sequence"] >= PEOPLE_FROM for row in ended)
    return bool(said) and not n_people and said[-1]["completed"] + said[-1]["failed"] == len(ended)


def _coverage(document: Document, last: int) -> Expected:
    if not _was_decided_last(document):
        return
    details = document["wave_decisions"][last]["details"]
    succeeded = [row for row in document["llm_comparisons"] if row["status"] == "succeeded"]
    all_pairs = max_possible_pairs(len(essay_ids(document)))
    covered = len({frozenset((row["essay_a_id"], row["essay_b_id"])) for row in succeeded})
    found = {
        "max_possible_pairs": all_pairs,
        "successful_pairs_count": covered,
        "failed_comparisons": len(document["llm_comparisons"]) - len(succeeded),
        "unique_coverage_complete": covered == all_pairs,
        "resampling_pass_count": details.get("resampling_pass_count"),
    }
    for key, value in found.items():
        if key in details:
            yield f"wave_decisions[{last}].details.{key}", value
        if key in document["metadata"]:
            yield f"metadata.{key}", value


def grades(
    document: Document,
    settings: BatchSettings,
    scale: Scale | None,
    chain: LinkedScale | None,
) -> Expected:
    """Yield the grades and the words about them.

    Args:
        document: The artefact.
        settings: It was made by.
        scale: Its own; None where its verdicts give none.
        chain: The batch amid those it is linked to; None where it is on its own.

    Raises:
        SettingsError: If its scale cannot be read.
    """
    grading = document["grading"]
    if grading is None or not (grading.get("terms") or grading["is_graded"]):
        yield from _ungraded(document, settings, scale)
        return
    anchors = anchor_grades(document)
    own_scale = document["inputs"].get("grade_scale", {}).get("content")
    terms = grading_terms(settings, own_scale)
    if terms is None:
        yield "grading.terms", None
        return
    if grading.get("terms"):  # earlier versions kept none
        yield "grading.terms", as_json(terms.as_record())
        yield "grading.scale", as_json(asdict(terms.scale))
    if _is_stopped(grading):
        yield "grading.is_graded", False
        return
    if document["runner_status"]["state"] != "succeeded":
        yield from _ungraded(document, settings, scale)
        return
    sampled, expected = grading.get("sampled_grades"), expected_in(grading)
    beforehand = None if expected is None else expected.if_learnt
    if chain is not None:
        of_all = grade_by(
            terms, chain, chain.anchor_grades, chain.judged, sampled, expected=beforehand
        )
        statement = f"{students_alike(scale, anchors)}{of_all.statement} {chain.statement}"
        projections: GradeProjections | None = only(of_all, essay_ids(document))
    elif scale is None:
        statement, projections = grades_or_why_not(terms, None, anchors, ())
    else:
        statement, projections = _graded(
            _verdicts(document),
            settings.model_dump_json(),
            own_scale,
            json.dumps(anchors),
            json.dumps(sampled),
            beforehand,
        )
    yield "grading.is_graded", projections is not None and projections.is_graded
    yield from _statement(document, statement)
    yield from _disagreement(document, terms, expected, projections)
    if projections is None:
        return
    yield "grading.anchor_check", _anchor_check(grading, projections)
    if projections.is_graded:
        yield from _projected(document, projections, anchors)
    if chain is not None:
        yield from _linked(document, chain)


def expected_in(grading: Mapping[str, Any]) -> ExpectedDisagreement | None:
    """Return what a grading took of the disagreement; None where it keeps nothing of it."""
    kept = grading.get("disagreement")  # earlier versions have none, and took the usual
    return None if kept is None else ExpectedDisagreement.from_record(kept["expected"])


def _disagreement(
    document: Document,
    terms: GradingTerms,
    expected: ExpectedDisagreement | None,
    projections: GradeProjections | None,
) -> Expected:
    """Yield what follows from the earlier gradings listed, and what the grades told."""
    found = None if projections is None else projections.disagreement
    if found is None and "disagreement" in document["grading"]:
        yield "grading.disagreement", None
    if found is None or expected is None:  # earlier versions keep none
        return
    people = {row["judge_id"] for row in document["judges"] if row["provider"] == "human"}
    judges = {each.judge_id for each in judged_pairs(document)}
    judges = {"people" if judge in people else judge for judge in judges}
    steps = terms.scale.steps
    rubric = document["inputs"].get("rubric", {}).get("checksum")
    path = "grading.disagreement"
    yield f"{path}.found", as_json(asdict(found))
    yield f"{path}.expected.judged_by", judged_by(judges, rubric, steps)
    yield (
        f"{path}.expected.prior",
        as_json(asdict(learn(usual_disagreement(len(steps)), expected.learnt_from))),
    )


def _anchor_check(grading: Mapping[str, Any], projections: GradeProjections) -> dict[str, Any]:
    check: dict[str, Any] = as_json(asdict(projections.anchor_check))
    if grading.get("disagreement") is None and "log_score" not in grading["anchor_check"]:
        del check["log_score"]
    return check


def _ungraded(document: Document, settings: BatchSettings, scale: Scale | None) -> Expected:
    grading = document["grading"]
    if grading is None or grading["is_graded"] or "graded_despite" not in grading:
        return
    if _is_stopped(grading) or grading["links"]:
        return
    status = document["runner_status"]
    why = None if status["state"] == "succeeded" else str(status["end_reason"])
    if why is None and settings.scale is not None:
        return
    statement, _ = grades_or_why_not(why, scale, {}, ())
    alike = students_alike(scale, anchor_grades(document)) if why is None else ""
    yield from _statement(document, alike + statement)


def _statement(document: Document, statement: str) -> Expected:
    grading = document["grading"]
    if "graded_despite" not in grading:
        return
    said, waived = grading["statement"], waived_statement(grading["graded_despite"])
    whole = " ".join(filter(None, (statement, waived)))
    # In between come words about a link that failed, or other models in linked batches.
    between = said.removeprefix(statement).removesuffix(waived).strip()
    linked = document["settings"].get("link_to", {}).get("value")
    is_about_links = bool(linked) and said.startswith(statement) and said.endswith(waived)
    is_about_links &= between.startswith(_ABOUT_LINKS)
    yield "grading.statement", said if is_about_links else whole


_ABOUT_LINKS = ("On its own scale, not on an earlier one: ", "Not the same model answered: ")
"""How the words begin that only the store, with the linked batches, can say."""


def _is_stopped(grading: Document) -> bool:
    return bool(grading["statement"].startswith("No grades: what they may not leave without"))


def _projected(
    document: Document, projections: GradeProjections, anchors: Mapping[str, str]
) -> Expected:
    tables = as_json(grading_rows(projections, {}, NEVER, anchors))
    found = {row["essay_id"]: row for row in tables["grade_projections"]}
    thetas = {row["essay_id"]: row["theta"] for row in document["bt_summary"]}
    for place, row in enumerate(document["grade_projections"]):
        path, mine = f"grade_projections[{place}]", found.get(row["essay_id"])
        if mine is None:
            yield f"{path}.essay_id", None
            continue
        yield f"{path}.grade_scale", mine["scale"]
        for key in (
            "grade",
            "fine_grade",
            "probabilities",
            "expected_grade",
            "confidence",
            "placed_score",
            "is_extrapolated",
            "is_anchor",
        ):
            if key in row:
                yield f"{path}.{key}", mine[key]
        if mine["primary_anchor_id"] is not None:
            yield f"{path}.primary_anchor_id", mine["primary_anchor_id"]
        if row["essay_id"] in thetas:
            yield f"{path}.anchor_alignment", between_anchors(thetas, anchors, row["essay_id"])
    keys = ("position", "below", "above", "boundary", "standard_error", "lower", "upper")
    yield (
        "grading.boundaries",
        [{key: row[key] for key in keys} for row in tables["grade_boundaries"]],
    )


def _linked(document: Document, chain: LinkedScale) -> Expected:
    tables = as_json(link_rows(chain, essay_ids(document), {}, NEVER))
    left_out = {"linked_at"}
    for name, table in (
        ("links", "batch_links"),
        ("anchor_drifts", "anchor_drifts"),
        ("linked_scores", "linked_scores"),
    ):
        rows = [
            {key: value for key, value in row.items() if key not in left_out}
            for row in tables[table]
        ]
        if name == "anchor_drifts":
            rows.sort(
                key=lambda row: (
                    row["position"],
                    -abs(row["drift"]) / row["standard_error"],
                    row["essay_id"],
                )
            )
        elif name == "linked_scores":
            rows.sort(key=lambda row: row["essay_id"])
        yield f"grading.{name}", rows


def as_json(value: Any) -> Any:
    """Return a value as it comes back from a JSON file."""
    return json.loads(json.dumps(value, allow_nan=False, default=str))
