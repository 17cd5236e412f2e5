"""Values of an artefact worked out anew from what it rests on: inputs, callbacks and verdicts.

Each comes as its path and what should be there. What is not among them nothing in the file vouches
for: a store, a signature or the batch folder has to.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cj_pipeline.batch.comparisons import (
    JudgedPair,
    comparison_id,
    correlation_id,
)
from cj_pipeline.errors import InvalidOutputError, SettingsError
from cj_pipeline.intake.settings import (
    BatchSettings,
    scoring_rules,
)
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import parse_verdict
from cj_pipeline.outputs.artefact import (
    CHECKSUM_RULE,
    FIELDS_THAT_MAY_DIFFER,
    SCHEMA_VERSION,
    derived_uuid,
)
from cj_pipeline.outputs.contracts import strictest_contract
from cj_pipeline.providers.registry import open_parser
from cj_pipeline.queries.batch_record import batch_correlation_id
from cj_pipeline.queries.release import release_status
from cj_pipeline.scale.scoring import score_verdicts

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale

Document = Mapping[str, Any]
Row = Mapping[str, Any]
Expected = Iterator[tuple[str, Any]]

_BEFORE_SCORING_SETTINGS = {
    "position_effect": "off",
    "judge_discrimination": "off",
    "verdict_dependence": "off",
}
"""What artefacts were scored by that do not say so."""


@dataclass(frozen=True, eq=False)
class Beside:
    """The files beside an artefact; None where one is not there.

    Attributes:
        requests: One row per attempt.
        callbacks: What came in for them, raw.
    """

    requests: Sequence[Row] | None = None
    callbacks: Sequence[Row] | None = None

    @property
    def has_bills(self) -> bool:
        """Whether the requests say what each cost; those of earlier versions do not."""
        return any("cost_usd" in row for row in self.requests or ())


def settings_of(document: Document) -> BatchSettings:
    """Return the settings an artefact was made by.

    Raises:
        ValidationError: If they are none this version knows.
    """
    return BatchSettings.model_validate(
        _BEFORE_SCORING_SETTINGS
        | {key: entry["value"] for key, entry in document["settings"].items()}
    )


def judged_pairs(document: Document) -> list[JudgedPair]:
    """Return the verdicts an artefact carries, in the order requested."""
    return [
        JudgedPair(row["essay_a_id"], row["essay_b_id"], row["winner"], row["judge_id"])
        for row in document["llm_comparisons"]
        if row["status"] == "succeeded"
    ]


def essay_ids(document: Document) -> list[str]:
    """Return the essays in the batch's order."""
    inputs = document["inputs"]
    rows = sorted([*inputs["students"], *inputs["anchors"]], key=lambda row: row["position"])
    return [row["essay_id"] for row in rows]


def anchor_grades(document: Document) -> dict[str, str]:
    """Return the anchors' known grades."""
    return {row["anchor_id"]: row["grade"] for row in document["inputs"]["anchors"]}


def refitted(document: Document, settings: BatchSettings) -> Scale:
    """Return the scale that an artefact's verdicts give.

    Raises:
        UnscalableBatchError: If they give none.
    """
    return score_verdicts(essay_ids(document), judged_pairs(document), scoring_rules(settings))


def what_follows(document: Document, beside: Beside, file_mode: str | None) -> Expected:
    """Yield all that follows from an artefact's parts and its files without a fit.

    Args:
        document: The artefact.
        beside: Its requests and callbacks.
        file_mode: The runner mode that the file's name says; None where it says none.
    """
    yield "schema_version", SCHEMA_VERSION
    yield "validation.checksum_rule", CHECKSUM_RULE
    yield "validation.fields_that_may_differ", list(FIELDS_THAT_MAY_DIFFER)
    yield "validation.contract", strictest_contract(document)
    if file_mode is not None:
        yield "metadata.runner_mode", file_mode
    judges = list(_judges(document))
    yield from (pair for each in judges for pair in each)
    yield from _metadata(document)
    yield from _inputs(document)
    yield from _comparisons(document, beside)
    yield from _counts(document)
    yield from _costs(document, beside)
    yield from _jobs(document, beside)
    yield from _release(document)


def _metadata(document: Document) -> Expected:
    said = document["metadata"]
    settings = {key: entry["value"] for key, entry in document["settings"].items()}
    for key in ("assignment_id", "course_id"):
        yield f"metadata.{key}", derived_uuid(key, settings.get(key), said["batch_id"])
    yield "metadata.grade_scale", settings.get("scale") or ""
    yield "metadata.correlation_id", batch_correlation_id(said["batch_id"])
    yield (
        "metadata.has_simulated_judges",
        any(judge["is_simulated"] for judge in document["judges"]),
    )
    if "llm_batching_mode" in said and "batching_mode" in settings:
        yield "metadata.llm_batching_mode", settings["batching_mode"]
        yield "metadata.llm_batching_mode_override", settings.get("llm_batching_mode_override")
    budget = document["settings"].get("max_pairwise_comparisons")
    if document["comparison_budget"] and budget is not None:
        yield "comparison_budget.max_pairs_requested", budget["value"]
        yield "comparison_budget.source", budget["origin"]


def _judges(document: Document) -> Iterator[Expected]:
    """Yield what each judge's definition says of it; its id is a fingerprint of that."""
    references = []
    for place, row in enumerate(document["judges"]):
        judge = judge_of(row)
        path = f"judges[{place}]"
        if judge is None:
            if "base_url" in (row.get("definition") or {}):
                yield iter(((f"{path}.definition", None),))
            return
        content = json.dumps(row["definition"]["template"], sort_keys=True, ensure_ascii=False)
        references.append(
            {
                "source_path": f"judges/{judge.judge_id}/template.json",
                "checksum": hashlib.sha256(content.encode()).hexdigest(),
                "content": content,
            }
        )
        yield iter(
            (
                (f"{path}.judge_id", judge.judge_id),
                (f"{path}.name", judge.name),
                (f"{path}.provider", judge.provider),
                (f"{path}.model", judge.model),
                (f"{path}.template", judge.template.name),
                (f"{path}.is_simulated", judge.is_simulated),
            )
        )
    if references:
        yield iter(
            (
                ("inputs.prompt_reference", references[0]),
                ("inputs.prompt_references", references),
            )
        )


def _every_judge(document: Document) -> list[Row]:
    """Return the judges, and those in whose place they stand: these have answers and bills too."""
    return [*document["judges"], *document.get("earlier_judges", ())]


def judge_of(row: Row) -> Judge | None:
    """Return a judge of an artefact by its definition; None where it does not carry that whole."""
    definition = row.get("definition")
    if definition is None or "base_url" not in definition:
        return None
    try:
        judge = Judge.from_definition(definition | {"key_variable": None, "limits": {}})
        # One of a provider that nobody knows is no judge: its replies cannot be read.
        return judge if judge.service else None
    except (ValidationError, TypeError, KeyError, SettingsError):
        return None


def _inputs(document: Document) -> Expected:
    inputs = document["inputs"]
    listed = {
        entry["path"]: entry["sha256"]
        for entry in document["validation"]["manifest"]
        if entry["role"] == "input"
    }
    for place, row in enumerate(inputs["anchors"]):
        yield f"inputs.anchors[{place}].anchor_id", row["essay_id"]
    for kind in ("students", "anchors"):
        for place, row in enumerate(inputs[kind]):
            yield f"inputs.{kind}[{place}].checksum", listed.get(row["source_path"])
    for kind in ("instructions", "rubric", "grade_scale"):
        if kind in inputs and inputs[kind]["source_path"]:
            yield f"inputs.{kind}.checksum", listed.get(inputs[kind]["source_path"])
    sent_to = {
        f"{job['submission_key']}.jsonl": job["provider"] for job in document["provider_jobs"]
    }
    for place, entry in enumerate(document["validation"]["manifest"]):
        path = f"validation.manifest[{place}]"
        if entry["path"] in sent_to:
            yield f"{path}.role", "request"
            yield f"{path}.relative_to", f"what was sent to {sent_to[entry['path']]}"
            continue
        if entry["relative_to"] != "this file":
            yield f"{path}.role", "input"
            yield f"{path}.relative_to", "the batch folder"
            continue
        name = entry["path"]
        role = "output" if name.startswith("class_list") else "request"
        yield (
            f"validation.manifest[{place}].role",
            "callback" if name.startswith("callbacks.") else role,
        )


def _comparisons(document: Document, beside: Beside) -> Expected:
    batch_id = document["metadata"]["batch_id"]
    judges = {row["judge_id"]: row for row in _every_judge(document)}
    attempts: dict[str, list[Row]] = defaultdict(list)
    for row in beside.requests or ():
        attempts[row["comparison_id"]].append(row)
    replies = _replies(document, beside)
    for part in ("llm_comparisons", "pending_comparisons"):
        for place, row in enumerate(document[part]):
            path = f"{part}[{place}]"
            mine = sorted(attempts.get(row["comparison_id"], ()), key=lambda each: each["attempt"])
            identity = comparison_id(batch_id, row["sequence"])
            yield f"{path}.comparison_id", identity
            yield f"{path}.correlation_id", correlation_id(identity)
            if beside.requests is not None and mine:
                yield f"{path}.judge_id", mine[-1]["judge_id"]
                yield f"{path}.essay_a_id", mine[-1]["essay_a_id"]
                yield f"{path}.essay_b_id", mine[-1]["essay_b_id"]
                yield f"{path}.wave", mine[0]["wave"]
            if part == "pending_comparisons":
                continue
            judge = judges.get(row["judge_id"])
            yield f"{path}.provider", judge and judge["provider"]
            yield f"{path}.model", judge and judge["model"]
            yield from _outcome(path, row, mine, replies, beside)


def _outcome(
    path: str, row: Row, attempts: Sequence[Row], replies: Mapping[str, Row], beside: Beside
) -> Expected:
    shown = {"A": row["essay_a_id"], "B": row["essay_b_id"]}
    yield f"{path}.winner_id", shown.get(row["winner"] or "", "")
    yield f"{path}.loser_id", shown.get({"A": "B", "B": "A"}.get(row["winner"] or "", ""), "")
    if row["status"] == "failed":
        yield f"{path}.winner", None
        yield f"{path}.confidence", None
        yield f"{path}.justification", None
    if beside.requests is None:
        return
    decided_by = [each for each in attempts if each["custom_id"] == row["custom_id"]]
    yield f"{path}.custom_id", row["custom_id"] if decided_by else None
    if not decided_by:
        return
    last = decided_by[-1]
    yield f"{path}.prompt_hash", last["prompt_hash"]
    yield f"{path}.n_attempts", last["attempt"]
    yield f"{path}.started_at", attempts[0]["requested_at"]
    yield f"{path}.status", "succeeded" if last["outcome"] == "succeeded" else "failed"
    if last["outcome"] != "succeeded":
        yield f"{path}.failure_reason", last["outcome"]
    if beside.has_bills:
        for key in ("tokens_prompt", "tokens_completion", "cost_usd"):
            yield f"{path}.{key}", sum(each[key] or 0 for each in attempts)
    if row["custom_id"] in replies and last["outcome"] == "succeeded":
        for key, value in replies[row["custom_id"]].items():
            yield f"{path}.{key}", value


def _replies(document: Document, beside: Beside) -> dict[str, dict[str, Any]]:
    """Return what each raw callback decides, by the request it answers, read anew."""
    if not beside.requests or beside.callbacks is None:
        return {}
    judges = {row["judge_id"]: judge_of(row) for row in _every_judge(document)}
    asked = {row["custom_id"]: judges.get(row["judge_id"]) for row in beside.requests}
    found: dict[str, dict[str, Any]] = {}
    for callback in beside.callbacks:
        judge = asked.get(callback["custom_id"])
        if callback["kind"] != "matched" or judge is None or judge.is_human:
            continue
        verdict = _verdict(judge, callback["body"])
        found[callback["custom_id"]] = verdict
    return found


def _verdict(judge: Judge, body: str) -> dict[str, Any]:
    reply = open_parser(judge)(body)
    try:
        # Whether the judge may give a tie was decided with the request's outcome.
        verdict = parse_verdict(reply.text or "", allow_ties=True)
    except InvalidOutputError:
        return {"winner": None, "confidence": None, "justification": None}
    return {
        "winner": verdict.winner,
        "confidence": verdict.confidence,
        "justification": verdict.justification,
    }


def _counts(document: Document) -> Expected:
    ended, pending = document["llm_comparisons"], document["pending_comparisons"]
    path = "runner_status"
    state = document["runner_status"]["state"]
    yield f"{path}.completed_comparisons", sum(row["status"] == "succeeded" for row in ended)
    yield f"{path}.failed_comparisons", sum(row["status"] == "failed" for row in ended)
    yield f"{path}.pending_comparisons", len(pending)
    yield f"{path}.partial_data", state != "succeeded" or bool(pending)


def _costs(document: Document, beside: Beside) -> Expected:
    """Yield the totals by provider and model, from every attempt."""
    requests = beside.requests
    if requests is not None:
        yield (
            "runner_status.submitted_comparisons",
            len({row["comparison_id"] for row in requests}),
        )
    elif not document["costs"]["token_counts"]:
        yield "runner_status.submitted_comparisons", 0
    if requests is None or (requests and not beside.has_bills):
        yield "costs.total_usd", sum(row["usd"] for row in document["costs"]["token_counts"])
        return
    judges = {row["judge_id"]: row for row in _every_judge(document)}
    totals: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in requests:
        judge = judges.get(row["judge_id"], row)
        total = totals[judge["provider"], judge["model"]]
        for key in ("prompt", "completion", "cached", "cache_write", "reasoning"):
            total[f"{key}_tokens"] += row[f"tokens_{key}"] or 0
        total["usd"] += row["cost_usd"] or 0.0
    yield (
        "costs.token_counts",
        [
            {"provider": provider, "model": model}
            | {key: int(v) if key.endswith("_tokens") else v for key, v in total.items()}
            for (provider, model), total in sorted(totals.items())
        ],
    )
    yield "costs.total_usd", sum(total["usd"] for _, total in sorted(totals.items()))


def _jobs(document: Document, beside: Beside) -> Expected:
    judges = {row["judge_id"]: row for row in _every_judge(document)}
    of_job: dict[str, list[Row]] = defaultdict(list)
    for row in beside.requests or ():
        of_job[row["submission_key"]].append(row)
    for place, job in enumerate(document["provider_jobs"]):
        path = f"provider_jobs[{place}]"
        judge = judges.get(job["judge_id"])
        yield f"{path}.provider", judge and judge["provider"]
        yield f"{path}.model", judge and judge["model"]
        mine = of_job.get(job["submission_key"])
        if mine:
            yield f"{path}.judge_id", mine[0]["judge_id"]
            yield f"{path}.wave", max(each["wave"] for each in mine)


def _release(document: Document) -> Expected:
    """Yield what the events of release come to, and the grades people gave."""
    grading, said = document["grading"], document["release"]
    settings = {key: entry["value"] for key, entry in document["settings"].items()}
    rule = settings.get("release") or "automatic"
    last = document["releases"][-1] if document["releases"] else None
    status = release_status(
        rule,
        is_graded=bool(grading and grading["is_graded"]),
        last_kind=last and last["kind"],
        is_last_grading=last is not None
        and grading is not None
        and last["revision"] == grading["revision"],
        is_decided_since=last is not None
        and any(
            _moment(row["decided_at"]) > _moment(last["released_at"])
            for row in document["moderation"]
        ),
    )
    is_provisional = status in {"provisional", "changed since release", "withdrawn"}
    yield "release.status", status
    yield "release.is_provisional", is_provisional
    yield "release.needs_sign_off", rule == "needs_sign_off"
    yield "release.revision", grading and grading["revision"]
    yield "release.released_revision", last and last["revision"]
    yield "release.released_by", last and last["released_by"]
    if said["released_at"] is None or last is None:
        yield "release.released_at", last and last["released_at"]
    else:
        is_same = _moment(said["released_at"]) == _moment(last["released_at"])
        yield "release.released_at", said["released_at"] if is_same else last["released_at"]
    in_force = {row["essay_id"]: row for row in document["moderation"] if row["kind"] != "judge"}
    for place, row in enumerate(document["grade_projections"]):
        path = f"grade_projections[{place}]"
        yield f"{path}.is_provisional", is_provisional
        decision = in_force.get(row["essay_id"])
        if row["is_anchor"]:
            continue
        given = row["grade"]
        if decision is not None and decision["kind"] == "override":
            given = decision["grade"]
        elif decision is not None and decision["kind"] == "exclude":
            given = None
        yield f"{path}.given_grade", given


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
