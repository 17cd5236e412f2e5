"""The artefact: one JSON file with what a batch was given, what was requested, and what came out.

It is held to the schemas in `contracts`; its ids join across its parts; its manifest lists every
file with its checksum. It carries no essay text and no key. Checking one is `verification`.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import correlation_id
from cj_pipeline.batch.options import RunnerMode
from cj_pipeline.errors import BatchProblemsError, StoreError
from cj_pipeline.outputs.class_list import (
    class_list_csv,
    class_list_for_spreadsheets,
    class_list_xlsx,
)
from cj_pipeline.outputs.contracts import strictest_contract, violations
from cj_pipeline.outputs.feedback import written_grade
from cj_pipeline.outputs.language import language_for
from cj_pipeline.queries.history import BatchHistory, Row, WaveDecision, read_history
from cj_pipeline.runtime import RunEnvironment

if TYPE_CHECKING:
    from cj_pipeline.store.session import Session

SCHEMA_VERSION = "1.0.0"
CHECKSUM_RULE = (
    "SHA-256 of this document as JSON in UTF-8 with sorted keys, no white space between tokens,"
    " only what JSON must escape escaped, and this field empty"
)
FIELDS_THAT_MAY_DIFFER = (
    "metadata.generated_at",
    "metadata.git_sha",
    "metadata.runner_version",
    "metadata.created_at",
    "metadata.ended_at",
    "llm_comparisons[].started_at",
    "llm_comparisons[].completed_at",
    "wave_decisions[].decided_at",
    "provider_jobs",
    "validation",
)
"""What may differ between two artefacts of the same inputs, callbacks and settings."""

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class WrittenFile:
    """A file that is whole on disk under its final name."""

    path: Path
    sha256: str
    n_bytes: int


def artefact_name(runner_mode: RunnerMode) -> str:
    """Return the artefact's file name."""
    return f"assessment_run.{runner_mode}.json"


def build_artefact(
    history: BatchHistory,
    runner_mode: RunnerMode,
    *,
    generated_at: datetime,
    environment: RunEnvironment,
    written: Sequence[tuple[str, WrittenFile]] = (),
) -> dict[str, Any]:
    """Return a batch's artefact, complete with its checksum.

    Args:
        history: The batch as the store knows it.
        runner_mode: How far the runner was to go.
        generated_at: Aware of its zone.
        environment: What to say of machine and code.
        written: The files next to the artefact, each with its role in the manifest.

    Raises:
        BatchProblemsError: If the batch was never taken in.
        StoreError: If what the store holds breaks the contract; every violation is listed.
    """
    if history.batch["state"] == "rejected":
        raise BatchProblemsError(history.batch_id, history.batch["problems"])
    document = artefact_document(
        history, runner_mode, generated_at=generated_at, environment=environment, written=written
    )
    problems = list(violations(document, document["validation"]["contract"]))
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems[:20])
        msg = (
            f"The artefact of batch '{history.batch_id}' would break"
            f" {document['validation']['contract']} in {len(problems)} places; it was not"
            f" written:\n{listed}"
        )
        raise StoreError(msg)
    return document


def artefact_document(
    history: BatchHistory,
    runner_mode: RunnerMode,
    *,
    generated_at: datetime,
    environment: RunEnvironment,
    written: Sequence[tuple[str, WrittenFile]] = (),
) -> dict[str, Any]:
    """Return a batch's artefact without holding it to its contract; see `build_artefact`."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "metadata": _metadata(history, runner_mode, generated_at, environment),
        "runner_status": _runner_status(history),
        "inputs": _inputs(history),
        "llm_comparisons": [_comparison_record(history, row) for row in history.comparisons],
        "pending_comparisons": [_pending_record(row) for row in history.pending],
        "bt_summary": [_bt_entry(history, row) for row in history.last_scores],
        "grade_projections": [_grade_projection(history, row) for row in history.projections],
        "grading": _grading(history),
        "release": history.release.as_json(),
        "moderation": [_plain(row) for row in history.moderation],
        "releases": [_plain(row) for row in history.releases],
        "wave_decisions": [_wave_decision(each) for each in history.decisions],
        "scale_statistics": dict(history.statistics),
        "bt_se_summary": history.last_details.get("bt_se_summary", {}),
        "bt_quality_flags": history.last_details.get("bt_quality_flags", {}),
        "comparison_budget": history.batch["metadata"].get("comparison_budget", {}),
        "costs": _costs(history),
        "provider_jobs": [_provider_job(row) for row in history.jobs],
        "judges": [_judge(row) for row in history.judges],
        **(
            {"earlier_judges": [_judge(row) for row in history.earlier_judges]}
            if history.earlier_judges
            else {}
        ),
        "settings": {
            key: {"value": value, "origin": history.settings_origins[key]}
            for key, value in history.settings.items()
        },
        "validation": {
            "artefact_checksum": "",
            "checksum_rule": CHECKSUM_RULE,
            "manifest": [*_input_manifest(history), *_request_manifest(history)]
            + [_manifest_entry(role, file) for role, file in written],
            "cli_environment": {
                "python": environment.python,
                "pdm": environment.pdm,
                "os": environment.os,
                "docker_compose": environment.docker_compose,
            },
            "fields_that_may_differ": list(FIELDS_THAT_MAY_DIFFER),
        },
    }
    validation: dict[str, Any] = document["validation"]
    validation["contract"] = strictest_contract(document)
    validation["artefact_checksum"] = artefact_checksum(document)
    return document


def artefact_checksum(document: Mapping[str, Any]) -> str:
    """Return the checksum a document should carry, by `CHECKSUM_RULE`."""
    blank = {**document, "validation": {**document["validation"], "artefact_checksum": ""}}
    text = json.dumps(
        blank, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def checksum_in(path: Path) -> str:
    """Return the checksum that a written artefact states of itself."""
    return str(json.loads(path.read_bytes())["validation"]["artefact_checksum"])


def write_artefact(
    db: Session,
    batch_id: str,
    runner_mode: RunnerMode,
    folder: Path,
    *,
    generated_at: datetime,
    environment: RunEnvironment,
    requests: Sequence[Path] = (),
) -> WrittenFile:
    """Write a batch's artefact, and next to it the files its manifest lists as outputs.

    The store stays open while all of it is worked out; `write_artefact_of` does not need it.

    Raises:
        UnknownBatchError: If the store has no batch of that name.
        BatchProblemsError: If the batch was never taken in.
        StoreError: If what the store holds breaks the contract.
    """
    return write_artefact_of(
        read_history(db, batch_id),
        read_callbacks(db, batch_id),
        runner_mode,
        folder,
        generated_at=generated_at,
        environment=environment,
        requests=requests,
    )


def write_artefact_of(
    history: BatchHistory,
    callbacks: Sequence[Row],
    runner_mode: RunnerMode,
    folder: Path,
    *,
    generated_at: datetime,
    environment: RunEnvironment,
    requests: Sequence[Path] = (),
) -> WrittenFile:
    """Write the artefact of a batch that was read before, callbacks too; see `write_artefact`.

    Beside `assessment_run.<mode>.json` come `requests.<mode>.jsonl` and `callbacks.<mode>.jsonl`
    once something was requested, and `class_list.csv` and `class_list.xlsx` once there are scores.
    Each file appears whole under its name, the artefact last. A dry run's request files lie there
    already: `requests` names them, for the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [("request", _written(path)) for path in requests]
    if history.attempts:
        request_lines = _json_lines(_request_record(history, row) for row in history.attempts)
        name = f"requests.{runner_mode}.jsonl"
        written.append(("request", write_atomically(folder / name, request_lines)))
        came_in = _json_lines(_callback_record(row) for row in callbacks)
        name = f"callbacks.{runner_mode}.jsonl"
        written.append(("callback", write_atomically(folder / name, came_in)))
    if history.last_scores:
        written += [("output", file) for file in _write_class_lists(history, folder)]
    document = build_artefact(
        history,
        runner_mode,
        generated_at=generated_at,
        environment=environment,
        written=written,
    )
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return write_atomically(folder / artefact_name(runner_mode), text.encode())


def _write_class_lists(history: BatchHistory, folder: Path) -> list[WrittenFile]:
    """Write the class list; under another name while its grades may not be used.

    What was released before stays as it was released, unless that was withdrawn.
    """
    stem = "class_list.provisional" if history.release.is_provisional else "class_list"
    if history.release.status == "withdrawn":
        stale = ["class_list"]
    else:
        stale = [] if history.release.is_provisional else ["class_list.provisional"]
    for name in stale:
        for ending in (".csv", ".xlsx", ".semicolon.csv"):
            (folder / f"{name}{ending}").unlink(missing_ok=True)
    files = [
        write_atomically(folder / f"{stem}.csv", class_list_csv(history)),
        write_atomically(folder / f"{stem}.xlsx", class_list_xlsx(history)),
    ]
    if language_for(history.settings) != "en":  # where decimals are parted by commas
        content = class_list_for_spreadsheets(history)
        files.append(write_atomically(folder / f"{stem}.semicolon.csv", content))
    return files


def read_callbacks(db: Session, batch_id: str) -> list[dict[str, Any]]:
    """Return a batch's callbacks as they came in, by wave, job and line."""
    return db.rows(
        "SELECT wave, submission_key, source, line, custom_id, kind, received_at, body"
        " FROM callbacks WHERE batch_id = ? ORDER BY wave, submission_key, source, line",
        [batch_id],
    )


def _written(path: Path) -> WrittenFile:
    content = path.read_bytes()
    return WrittenFile(path, hashlib.sha256(content).hexdigest(), len(content))


def write_atomically(path: Path, content: bytes) -> WrittenFile:
    """Write a file so that a reader of `path` gets the old content or the new, never a part.

    Its folder is made where it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return WrittenFile(path, hashlib.sha256(content).hexdigest(), len(content))


def _metadata(
    history: BatchHistory,
    runner_mode: RunnerMode,
    generated_at: datetime,
    environment: RunEnvironment,
) -> dict[str, Any]:
    batch, given = history.batch, history.settings
    return {
        "assignment_id": derived_uuid(
            "assignment_id", given.get("assignment_id"), history.batch_id
        ),
        "course_id": derived_uuid("course_id", given.get("course_id"), history.batch_id),
        "grade_scale": history.scale or "",
        "runner_version": environment.runner_version,
        "git_sha": environment.git_sha,
        "generated_at": _time(generated_at),
        "runner_mode": runner_mode,
        "batch_id": history.batch_id,
        "correlation_id": batch["correlation_id"],
        "title": batch["title"],
        "about": history.settings.get("about", ""),
        "content_sha256": batch["content_sha256"],
        "has_simulated_judges": history.is_simulated,
        "created_at": _time(batch["created_at"]),
        "ended_at": _time(batch["ended_at"]) if batch["ended_at"] else None,
        **{
            key: value
            for key, value in batch["metadata"].items()
            if key.startswith("llm_batching_mode")
        },
        **{key: history.last_details[key] for key in _COVERAGE_KEYS if key in history.last_details},
    }


_COVERAGE_KEYS = (
    "max_possible_pairs",
    "successful_pairs_count",
    "unique_coverage_complete",
    "resampling_pass_count",
)


def derived_uuid(key: str, given: str | None, batch_id: str) -> str:
    """Return the UUID given under `key`; one derived from that word, or the batch, otherwise.

    The contract wants a UUID, people write `eng5-spring`: both map to the same UUID every time.
    """
    try:
        return str(uuid.UUID(given or ""))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cj:{key}:{given or batch_id}"))


def _runner_status(history: BatchHistory) -> dict[str, Any]:
    state = history.batch["state"]
    timeout_s = history.batch["metadata"].get("completion_timeout_s")
    # A run that gave up waiting says so, until the batch has come to its end after all.
    waited = {"completion_timeout_s": timeout_s} if timeout_s and state == "running" else {}
    return {
        **waited,
        "state": state,
        "end_reason": history.batch["end_reason"],
        "partial_data": state != "succeeded" or bool(history.pending),
        "submitted_comparisons": len({row["comparison_id"] for row in history.attempts}),
        "completed_comparisons": len(history.succeeded),
        "failed_comparisons": len(history.failed),
        "pending_comparisons": len(history.pending),
    }


def _inputs(history: BatchHistory) -> dict[str, Any]:
    documents = {row["kind"]: row for row in history.documents}
    references = [_prompt_blob(row) for row in history.judges]
    inputs: dict[str, Any] = {
        "instructions": _document_blob(documents.get("instructions")),
        "prompt_reference": references[0] if references else _document_blob(None),
        "prompt_references": references,
        "anchors": [
            _essay_record(row) | {"anchor_id": row["essay_id"], "grade": row["grade"]}
            for row in history.essays
            if row["is_anchor"]
        ],
        "students": [_essay_record(row) for row in history.essays if not row["is_anchor"]],
    }
    if history.shared:
        inputs["shared_texts"] = [_shared_record(row) for row in history.shared]
    if "rubric" in documents:
        inputs["rubric"] = _document_blob(documents["rubric"])
    if "scale" in documents:
        inputs["grade_scale"] = _document_blob(documents["scale"])
    return inputs


def _document_blob(row: Row | None) -> dict[str, str]:
    """Return a document as the contract wants it; one the batch does not have is empty."""
    if row is None:
        return {"source_path": "", "checksum": _EMPTY_SHA256, "content": ""}
    return {
        "source_path": row["source_path"],
        "checksum": row["sha256"],
        "content": row["content"],
    }


def _prompt_blob(row: Row) -> dict[str, str]:
    """Return a judge's prompt template, the document the contract calls the prompt reference."""
    content = json.dumps(row["definition"]["template"], sort_keys=True, ensure_ascii=False)
    return {
        "source_path": f"judges/{row['judge_id']}/template.json",
        "checksum": hashlib.sha256(content.encode()).hexdigest(),
        "content": content,
    }


def _essay_record(row: Row) -> dict[str, Any]:
    return {
        "essay_id": row["essay_id"],
        "position": row["position"],
        "file_name": row["file_name"],
        "source_path": row["source_path"],
        "checksum": row["sha256"],
        "text_checksum": hashlib.sha256((row["text"] or "").encode()).hexdigest(),
    } | _names(row)


def _shared_record(row: Row) -> dict[str, Any]:
    """Return a student whose text is another's: what that one gets is theirs too."""
    return {
        key: row[key] for key in ("essay_id", "judged_id", "file_name", "source_path")
    } | _names(row)


def _names(row: Row) -> dict[str, str]:
    """Return what people call a student, as far as the batch says it."""
    return {key: row[key] for key in ("given_id", "name", "group") if row.get(key)}


def _comparison_record(history: BatchHistory, row: Row) -> dict[str, Any]:
    """Return a comparison that has come to an end.

    A tie or a failure has no winner: both ids are then empty, and `winner` or `status` says why.
    """
    judge = history.judge_by_id[row["judge_id"]]
    record = {
        "sequence": row["sequence"],
        "correlation_id": correlation_id(row["comparison_id"]),
        "comparison_id": row["comparison_id"],
        "wave": row["wave"],
        "essay_a_id": row["essay_a"],
        "essay_b_id": row["essay_b"],
        "status": row["status"],
        "winner": row["winner"],
        "winner_id": row["winner_id"] or "",
        "loser_id": row["loser_id"] or "",
        "confidence": row["confidence"],
        "justification": row["justification"],
        "prompt_hash": row["prompt_sha256"],
        "judge_id": row["judge_id"],
        "provider": judge["provider"],
        "model": judge["model"],
        "tokens_prompt": row["tokens_prompt"],
        "tokens_completion": row["tokens_completion"],
        "cost_usd": row["cost_usd"],
        "n_attempts": row["n_attempts"],
        "custom_id": row["custom_id"],
        "started_at": _time(row["started_at"]),
        "completed_at": _time(row["completed_at"]),
    }
    if row["status"] == "failed":
        record["failure_reason"] = row["failure_reason"]
    return record


def _pending_record(row: Row) -> dict[str, Any]:
    return {
        "sequence": row["sequence"],
        "correlation_id": correlation_id(row["comparison_id"]),
        "comparison_id": row["comparison_id"],
        "wave": row["wave"],
        "judge_id": row["judge_id"],
        "essay_a_id": row["essay_a"],
        "essay_b_id": row["essay_b"],
    }


def _bt_entry(history: BatchHistory, row: Row) -> dict[str, Any]:
    essay = history.essay_by_id[row["essay_id"]]
    projection = history.projection_by_id.get(row["essay_id"])
    entry = {
        "essay_id": row["essay_id"],
        "theta": row["score"],
        "standard_error": row["standard_error"],
        "score_version": row["score_version"],
        "verdict_theta": row["verdict_score"],
        "verdict_standard_error": row["verdict_standard_error"],
        "rank": row["rank"],
        "comparison_count": row["n_comparisons"],
        "is_anchor": essay["is_anchor"],
        "n_wins": row["n_wins"],
        "n_losses": row["n_losses"],
        "n_shown_a": row["n_shown_a"],
        "n_shown_b": row["n_shown_b"],
        "is_one_sided": row["is_one_sided"],
    }
    if essay["is_anchor"]:
        entry["anchor_grade"] = essay["grade"]
    if projection is not None:
        entry["grade_projection"] = projection["grade"]
    scaled = history.scaled_score(row["essay_id"])
    if scaled is not None:
        entry["scaled_score"], entry["scaled_standard_error"] = scaled
    if row["essay_id"] in history.rank_by_id:
        rank = history.rank_by_id[row["essay_id"]]
        entry |= {key: rank[key] for key in ("rank_lower", "rank_upper", "p_above_next")}
        entry["theta_lower"], entry["theta_upper"] = history.score_interval(row["essay_id"])
    return entry


def _grade_projection(history: BatchHistory, row: Row) -> dict[str, Any]:
    projection = {
        "essay_id": row["essay_id"],
        "grade_scale": row["scale"],
        "grade": row["grade"],
        "fine_grade": written_grade(row),
        "probabilities": row["probabilities"],
        "expected_grade": row["expected_grade"],
        "confidence": row["confidence"],
        "placed_score": row["placed_score"],
        "is_extrapolated": row["is_extrapolated"],
        "is_anchor": row["is_anchor"],
        "anchor_alignment": history.among_anchors(row["essay_id"]),
        "is_provisional": history.release.is_provisional,
    }
    if not row["is_anchor"]:
        projection["given_grade"] = history.given_grade(row["essay_id"])
    if row["primary_anchor_id"] is not None:
        projection["primary_anchor_id"] = row["primary_anchor_id"]
    return projection


_BOUNDARY = ("position", "below", "above", "boundary", "standard_error", "lower", "upper")


def _grading(history: BatchHistory) -> dict[str, Any] | None:
    if history.grading is None:
        return None
    return {
        "is_graded": history.grading["is_graded"],
        "statement": history.grading["statement"],
        "revision": history.grading["revision"],
        "scale": history.grading["scale_definition"],
        "terms": history.grading["terms"],
        "anchor_check": history.grading["anchor_check"],
        "disagreement": history.grading["disagreement"],
        "sampled_grades": history.grading["sampled_grades"] or {},
        "graded_despite": list(history.batch["metadata"].get("graded_despite", ())),
        "boundaries": [{key: row[key] for key in _BOUNDARY} for row in history.boundaries],
        "links": [_without_key(row) for row in history.links],
        "anchor_drifts": [_without_key(row) for row in history.drifts],
        "linked_scores": [_without_key(row) for row in history.linked_scores],
    }


def _plain(row: Row) -> dict[str, Any]:
    """Return a row without its batch, times as text."""
    return {
        key: _time(value) if isinstance(value, datetime) else value
        for key, value in row.items()
        if key != "batch_id"
    }


def _without_key(row: Row) -> dict[str, Any]:
    left_out = ("batch_id", "revision", "linked_at")
    return {key: value for key, value in row.items() if key not in left_out}


def _wave_decision(decided: WaveDecision) -> dict[str, Any]:
    return {
        key: _time(value) if isinstance(value, datetime) else value
        for key, value in vars(decided).items()
        if key != "batch_id"
    }


def _costs(history: BatchHistory) -> dict[str, Any]:
    """Return what was paid by provider and model, over every attempt, pending ones included."""
    totals: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in history.attempts:
        judge = history.judge_by_id[row["judge_id"]]
        total = totals[judge["provider"], judge["model"]]
        for key in ("prompt", "completion", "cached", "cache_write", "reasoning"):
            total[f"{key}_tokens"] += row[f"tokens_{key}"] or 0
        total["usd"] += row["cost_usd"] or 0.0
    breakdown: list[dict[str, Any]] = [
        {"provider": provider, "model": model, **total}
        for (provider, model), total in sorted(totals.items())
    ]
    return {
        "total_usd": sum(entry["usd"] for entry in breakdown),
        "token_counts": [
            {k: int(v) if k.endswith("_tokens") else v for k, v in entry.items()}
            for entry in breakdown
        ],
    }


def _provider_job(row: Row) -> dict[str, Any]:
    keys = (
        "submission_key",
        "wave",
        "judge_id",
        "batching_mode",
        "provider",
        "model",
        "state",
        "provider_job_id",
        "provider_status",
        "n_requests",
        "n_completed",
        "n_failed",
        "error",
        "billed_usd",
    )
    times = ("intended_at", "submitted_at", "ended_at", "collected_at")
    return {key: row[key] for key in keys} | {
        key: _time(row[key]) if row[key] else None for key in times
    }


def _judge(row: Row) -> dict[str, Any]:
    keys = ("judge_id", "name", "provider", "model", "template", "is_simulated")
    return {key: row[key] for key in keys} | {"definition": _plain_definition(row["definition"])}


_OF_THE_ACCOUNT = frozenset({"key_variable", "account", "limits"})
"""What a judge's definition says of whoever pays; it changes no verdict and leaves no home."""


def _plain_definition(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a judge is, by which its `judge_id` can be worked out again.

    An address that names a user, or holds a query, may hold a password; it is left out.
    """
    kept = {key: value for key, value in definition.items() if key not in _OF_THE_ACCOUNT}
    if set("@?") & set(kept.get("base_url") or ""):
        del kept["base_url"]
    return kept


def _input_manifest(history: BatchHistory) -> list[dict[str, Any]]:
    rows = sorted(
        [*history.documents, *history.essays],
        key=lambda row: (row["source_path"], row.get("essay_id", "")),
    )
    return [
        {
            "path": row["source_path"],
            "sha256": row["sha256"],
            "bytes": row["n_bytes"],
            "role": "input",
            "relative_to": "the batch folder",
        }
        for row in rows
    ]


def _request_manifest(history: BatchHistory) -> list[dict[str, Any]]:
    """Return what was sent to providers, byte for byte, by submission key.

    A job that was given up before it was whole has no checksum, and returned no results.
    """
    return [
        {
            "path": f"{row['submission_key']}.jsonl",
            "sha256": row["content_sha256"],
            "bytes": row["n_bytes"],
            "role": "request",
            "relative_to": f"what was sent to {row['provider']}",
        }
        for row in history.jobs
        if row["content_sha256"] is not None
    ]


def _manifest_entry(role: str, file: WrittenFile) -> dict[str, Any]:
    return {
        "path": file.path.name,
        "sha256": file.sha256,
        "bytes": file.n_bytes,
        "role": role,
        "relative_to": "this file",
    }


def _request_record(history: BatchHistory, row: Row) -> dict[str, Any]:
    """Return one attempt without its texts: the inputs and the hash say what was shown."""
    pair = history.pair_by_id[row["comparison_id"]]
    judge = history.judge_by_id[row["judge_id"]]
    return {
        "custom_id": row["custom_id"],
        "comparison_id": row["comparison_id"],
        "correlation_id": correlation_id(row["comparison_id"]),
        "attempt": row["attempt"],
        "wave": row["wave"],
        "submission_key": row["submission_key"],
        "judge_id": row["judge_id"],
        "provider": judge["provider"],
        "model": judge["model"],
        "essay_a_id": pair["essay_a"],
        "essay_b_id": pair["essay_b"],
        "prompt_hash": row["prompt_sha256"],
        "outcome": row["outcome"],
        "tokens_prompt": row["tokens_prompt"],
        "tokens_cached": row["tokens_cached"],
        "tokens_cache_write": row["tokens_cache_write"],
        "tokens_completion": row["tokens_completion"],
        "tokens_reasoning": row["tokens_reasoning"],
        "cost_usd": row["cost_usd"],
        "requested_at": _time(row["requested_at"]),
    }


def _callback_record(row: Row) -> dict[str, Any]:
    return {**row, "received_at": _time(row["received_at"])}


def _json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
