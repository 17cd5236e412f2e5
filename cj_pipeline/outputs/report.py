"""The report: one HTML page per batch that needs nothing else, for the people who act on it.

What each section shows is worked out here as plain values; its layout is `templates/report.html`.
What comes from outside (titles, file names, texts, justifications) is cut and made visible by
`text` and escaped by `html`.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.diagnostics.position_balance import first_shown_share, positional_skews
from cj_pipeline.diagnostics.unexpected_verdicts import unexpected_verdicts
from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.outputs.feedback import (
    JUSTIFICATION_SHOWN,
    all_feedback,
    likely_grades,
    roles_of,
    written_grade,
)
from cj_pipeline.outputs.html import Picture, picture, render_page, words
from cj_pipeline.outputs.judges import agreements, panel_overview
from cj_pipeline.outputs.language import (
    dollars,
    language_for,
    moment,
    number,
    signed,
    speaking,
    to_translate,
    tr,
    whole,
)
from cj_pipeline.outputs.readings.first_screen import (
    Readings,
    expected_grades,
    readings,
    same_text_remarks,
)
from cj_pipeline.outputs.readings.group_scan import beside_people, group_scan, scan_in_words
from cj_pipeline.outputs.report_dependence import dependence_sentences, validity
from cj_pipeline.outputs.report_forecast import (
    describe_forecasts,
    describe_outlook,
    describe_targets,
)
from cj_pipeline.outputs.report_scale import (
    anchor_fits,
    anchor_sentences,
    headline_reliability,
    judge_rows,
    position_rows,
    reliability_rows,
)
from cj_pipeline.queries.history import BatchHistory, Row, read_history, student_ranks
from cj_pipeline.queries.release import Release
from cj_pipeline.queries.spending import SENT_AS, spending, spending_by_judge
from cj_pipeline.stopping.continuation import EndReason
from cj_pipeline.text import excerpt, visible

if TYPE_CHECKING:
    from cj_pipeline.storage.signing import PublicKey
    from cj_pipeline.store.session import Session

END_REASONS: Mapping[str, str] = {
    EndReason.STABLE: to_translate("The scores had stopped moving between waves."),
    EndReason.PRECISE: to_translate("The scores became as precise as the batch requires."),
    EndReason.BUDGET_SPENT: to_translate("The budget of comparisons was used up."),
    EndReason.PAIRS_EXHAUSTED: to_translate("Every pair was judged as often as the batch allows."),
    EndReason.SMALL_NET_CAP: to_translate(
        "Every pair of this small batch was covered and fully resampled."
    ),
    EndReason.SINGLE_WAVE_COMPLETE: to_translate(
        "All comparisons were requested at once and completed."
    ),
    EndReason.NO_SUCCESSES: to_translate(
        "No comparison gave a verdict. Read the failures below, fix their "
        "cause, and submit the essays as a new batch."
    ),
    EndReason.LOW_SUCCESS_RATE: to_translate(
        "Too many comparisons failed for the rest to be trusted. Read "
        "the failures below, fix their cause, and submit the essays as a new batch."
    ),
    EndReason.INSUFFICIENT_ESSAYS: to_translate("A scale needs two essays at least."),
    EndReason.UNSCALABLE: to_translate(
        "The verdicts do not join all essays into one net, so there is no "
        "common scale. Allow more comparisons, or fix the failures below."
    ),
    EndReason.SPEND_CAP: to_translate(
        "The next comparisons could have cost more than the spend cap allows. "
        "Raise `spend_cap_usd`, or accept what there is."
    ),
    EndReason.CANARY_FAILED: to_translate(
        "A judge gave no verdict in the few requests sent ahead, so the rest"
        " was not sent. Read what its provider said below, try it with `cj judge examine`, and"
        " submit the essays as a new batch."
    ),
    EndReason.EXPIRED: to_translate(
        "The provider let the requests expire before it answered them."
    ),
    EndReason.CANCELLED: to_translate("A person cancelled the batch."),
    EndReason.STALLED: to_translate("Nothing moved for longer than `stall_after_s` allows."),
}

FAILURES: Mapping[str, str] = {
    RequestOutcome.INVALID_OUTPUT: to_translate("The judge's answer held no verdict."),
    RequestOutcome.REFUSAL: to_translate("The judge refused to answer."),
    RequestOutcome.TRUNCATED: to_translate(
        "The answer ended before the verdict: allow more output tokens."
    ),
    RequestOutcome.PROMPT_CUT: to_translate(
        "The judge was shown less than was sent: give its server a larger window."
    ),
    RequestOutcome.CONTENT_FILTER: to_translate(
        "The provider's content filter stopped the answer."
    ),
    RequestOutcome.PROVIDER_ERROR: to_translate("The provider answered with an error."),
    RequestOutcome.EXPIRED: to_translate("The provider did not answer in time."),
    RequestOutcome.CANCELLED: to_translate("The request was cancelled."),
    RequestOutcome.MISSING: to_translate("The provider sent no answer to this request."),
}

PLAYED_BACK: Mapping[str, str] = {
    "human-votes": to_translate(
        "No language model read the essays for this batch: votes that people cast on"
        " these texts are played back in a judge's place."
    ),
    "recorded": to_translate(
        "No language model read the essays for this batch: verdicts that one gave earlier"
        " are played back."
    ),
}
"""What to say of the emulator's judges that do not make their verdicts up, by model."""

SURPRISING = 0.1
"""A verdict less likely than this by the final scores should be read again."""

N_FIRST = 10
"""How many essays the first screen names; a class's teacher reads about so many."""

_MAX_LISTED = 20
_MAX_FEEDBACK_COMPARISONS = 1500
"""Beyond this many comparisons the page would outgrow what a browser opens at once."""
_TEXT_SHOWN = 3000

_Z_95 = 1.96
_PALETTE = ((140, 45, 4), (240, 140, 70), (238, 226, 190), (120, 175, 215), (8, 60, 120))
"""From the lowest grade to the highest, in red, green and blue; they differ in lightness too."""


@dataclass(frozen=True)
class Banner:
    """Something the reader has to know before anything else."""

    kind: str  # warning | failure | notice
    heading: str
    text: str


def render_report(db: Session, batch_id: str) -> str:
    """Return a batch's report as one HTML page; the same rows give the same page.

    Raises:
        UnknownBatchError: If the store has no batch of that name.
    """
    history = read_history(db, batch_id)
    artefacts = db.rows(
        "SELECT runner_mode, path, sha256, n_bytes FROM run_artefact WHERE batch_id = ?"
        " ORDER BY runner_mode",
        [batch_id],
    )
    return render_history(history, artefacts)


def render_history(
    history: BatchHistory, artefacts: Sequence[Row] = (), *, signed_by: PublicKey | None = None
) -> str:
    """Return the page for what `read_history` found, in the language the batch sets for it.

    Args:
        history: The batch.
        artefacts: Its rows of `run_artefact`.
        signed_by: The key that signs artefacts; None where the home has none.
    """
    with speaking(language_for(history.settings)):
        return _page(history, artefacts, signed_by)


def _page(history: BatchHistory, artefacts: Sequence[Row], signed_by: PublicKey | None) -> str:
    to_read = readings(history)
    return render_page(
        "report.html",
        language=history.settings.get("language", "en"),
        batch=history.batch,
        banners=_banners(history),
        end_reason=tr(END_REASONS.get(history.batch["end_reason"] or "", "")),
        facts=_facts(history),
        has_scores=bool(history.last_scores),
        is_graded=history.is_graded,
        grading=history.grading,
        grades=_grade_names(history),
        scale_title=_scale_title(history),
        n_placed_across=_n_placed_across(history),
        expected=expected_grades(history),
        headline=headline_reliability(history),
        told_apart=_told_apart(history),
        validity=validity(history),
        students=_score_rows(history, to_read, anchors=False),
        is_scaled=bool(history.scaled_scores),
        anchors=_score_rows(history, to_read, anchors=True),
        anchor_check=anchor_sentences(history),
        anchor_fits=anchor_fits(history),
        boundaries=history.boundaries,
        links=history.links,
        drifts=history.drifts,
        student_progress=history.student_progress,
        n_moved=sum(
            abs(row["change"]) > _Z_95 * row["change_standard_error"]
            for row in history.student_progress
        ),
        score_picture=_score_picture(history),
        waves=history.decisions,
        convergence_picture=_convergence_picture(history),
        outlook=describe_outlook(history),
        forecasts=describe_forecasts(history),
        label=lambda essay_id: visible(history.label(essay_id)),
        targets=describe_targets(history),
        roles=roles_of(history.pairs, history.settings.get("strategy", "")),
        reliability=reliability_rows(history),
        scale_notes=history.statistics.get("notes", []),
        dependence=dependence_sentences(history),
        position_effects=position_rows(history),
        judge_figures=judge_rows(history),
        quality_flags=_quality_flags(history),
        fairness=_fairness(history),
        fairness_picture=_fairness_picture(history),
        judges=_judges(history),
        judge_choices=_judge_choices(history),
        agreements=[vars(each) for each in agreements(history)],
        failures=_failures(history),
        **_scan(history),
        attention=_attention(history, to_read),
        n_to_read=len(to_read.queue),
        n_first=N_FIRST,
        unexpected_verdicts=_surprises(history),
        surprising=SURPRISING,
        costs=_costs(history),
        judge_costs=_judge_costs(history),
        job_costs=_job_costs(history),
        unknown_usage=sum(row.get("has_usage") is False for row in history.attempts),
        n_left_over=sum(job.get("n_left_over") or 0 for job in history.jobs),
        cost_is_play=_is_play(history),
        cost_picture=_cost_picture(history),
        feedback=all_feedback(history) if _fits_one_page(history) else (),
        settings=_settings(history),
        inputs=[*history.documents, *history.essays],
        jobs=history.jobs,
        # The folder is where this machine keeps it, and of no use to a reader elsewhere.
        artefacts=[{**row, "file_name": PurePath(row["path"]).name} for row in artefacts],
        signed_by=signed_by,
    )


def _fits_one_page(history: BatchHistory) -> bool:
    return len(history.succeeded) <= _MAX_FEEDBACK_COMPARISONS


def _banners(history: BatchHistory) -> list[Banner]:
    batch, banners = history.batch, []
    state = batch["state"]
    about = history.settings.get("about")
    if about:
        banners.append(Banner("warning", tr("About this batch"), about))
    if state == "rejected":
        banners.append(
            Banner("failure", tr("This batch was not ingested"), "\n".join(batch["problems"]))
        )
    elif state in {"failed", "cancelled"}:
        banners.append(_ended_badly(history))
    elif state == "running":
        text = tr("All figures are preliminary.")
        text += f" It {history.hindered_by}" if history.hindered_by else ""
        banners.append(Banner("notice", tr("This batch is still being judged"), text))
    if statement := release_statement(history.release):
        provisional = history.release.is_provisional
        heading = tr("Provisional grades") if provisional else tr("Released grades")
        banners.append(Banner("warning" if provisional else "notice", heading, statement))
    banners += _simulation_banners(history)
    if state == "succeeded" and history.grading is not None and not history.is_graded:
        banners.append(
            Banner("notice", tr("Scores and ranks, no grades"), history.grading["statement"])
        )
    elif history.is_graded and history.grading is not None and history.grading["statement"]:
        banners.append(Banner("notice", tr("About these grades"), history.grading["statement"]))
    return banners


def _ended_badly(history: BatchHistory) -> Banner:
    reason = history.batch["end_reason"] or ""
    heading = (
        tr("This batch was cancelled")
        if history.batch["state"] == "cancelled"
        else tr("This batch failed: {why}", why=words(reason) or tr("no reason stored"))
    )
    text = tr(END_REASONS.get(reason, ""))
    text += " " + tr("There are no grades; any scores below are partial and should not be used.")
    if history.hindered_by:
        text += f"\nMost of all: {history.hindered_by}"
    return Banner("failure", heading, text)


def release_statement(release: Release) -> str:
    """Return in a sentence whether grades may be used; empty where no sign-off is needed."""
    if not release.statement:
        return ""
    values = {
        "by": release.released_by or "",
        "at": moment(release.released_at),
        "revision": release.released_revision,
    }
    if release.status == "provisional":
        return tr("These grades are provisional: no person has released them yet.")
    if release.status == "released":
        return tr("Released by {by} on {at}.", **values)
    if release.status == "withdrawn":
        return tr(
            "These grades are provisional: their release was withdrawn by {by} on {at}.", **values
        )
    return tr(
        "These grades are provisional: grading {revision} was released by {by} on {at}, and"
        " verdicts or decisions have come since.",
        **values,
    )


def _simulation_banners(history: BatchHistory) -> list[Banner]:
    played = [row for row in history.judges if row["is_simulated"]]
    made_up = [row["name"] for row in played if row["model"] not in PLAYED_BACK]
    banners = []
    if made_up:
        heading = (
            tr("Simulated judges gave these verdicts")
            if len(made_up) > 1
            else tr("A simulated judge gave these verdicts")
        )
        text = tr(
            "No language model read the essays; simulated: {judges}. Scores and grades show how the"
            " pipeline works and say nothing about the texts.",
            judges=", ".join(made_up),
        )
        banners.append(Banner("warning", heading, text))
    banners += [
        Banner("warning", tr("These verdicts were recorded earlier"), tr(PLAYED_BACK[row["model"]]))
        for row in played
        if row["model"] in PLAYED_BACK
    ]
    return banners


def _facts(history: BatchHistory) -> list[tuple[str, str]]:
    n_anchors = len(history.anchor_grades)
    facts = [
        (tr("Essays"), whole(len(history.essays) - n_anchors)),
        (tr("Anchors"), whole(n_anchors)),
        (tr("Verdicts"), whole(len(history.succeeded))),
        (tr("Failed"), whole(len(history.failed))),
    ]
    if history.pending:
        facts.append((tr("Still open"), whole(len(history.pending))))
    if history.last_scores:
        errors = [row["standard_error"] for row in history.last_scores]
        facts.append((tr("Mean standard error"), number(sum(errors) / len(errors))))
    facts.append(
        (
            tr("Cost, as if paid") if _is_play(history) else tr("Cost"),
            dollars(sum(row["cost_usd"] or 0.0 for row in history.attempts)),
        )
    )
    return facts


def _scan(history: BatchHistory) -> dict[str, Any]:
    found = group_scan(history) if history.last_scores else None
    return {
        "group_scan": found,
        "group_rows": found.differences if found else (),
        "group_sentences": scan_in_words(found) if found else (),
        "beside_people": beside_people,
    }


def _told_apart(history: BatchHistory) -> str:
    """Return the warning before all grades where students cannot be told apart; empty else."""
    if not history.last_details.get("students_cannot_be_told_apart"):
        return ""
    return tr(
        "These students cannot be told apart by the verdicts: differences between their grades"
        " may be chance."
    )


def _is_play(history: BatchHistory) -> bool:
    return bool(history.judges) and all(row["is_simulated"] for row in history.judges)


def _grade_names(history: BatchHistory) -> list[dict[str, str]]:
    """Return the scale's grades, lowest first, each with the colour its probability is drawn in."""
    if not history.projections:
        return []
    grades = list(history.projections[0]["probabilities"])
    return [
        {"name": grade, "colour": _shade(i / max(len(grades) - 1, 1))}
        for i, grade in enumerate(grades)
    ]


def _scale_title(history: BatchHistory) -> str:
    """Return what the grade scale is called; empty where the grading did not keep it."""
    definition = history.grading["scale_definition"] if history.grading is not None else None
    return str(definition["title"]) if definition else ""


def _n_placed_across(history: BatchHistory) -> int:
    """Return how many students' grades are not those in whose range their bare scores lie."""
    steps = [history.boundaries[0]["below"]] if history.boundaries else []
    steps += [row["above"] for row in history.boundaries]
    edges = [row["boundary"] for row in history.boundaries]
    return sum(
        row["grade"] != steps[bisect(edges, history.verdict_score_by_id[row["essay_id"]])]
        for row in history.projections
        if not row["is_anchor"]
    )


def _shade(place: float) -> str:
    """Return the colour at a place between 0 (lowest grade) and 1 (highest)."""
    at = place * (len(_PALETTE) - 1)
    low = min(int(at), len(_PALETTE) - 2)
    mixed = (
        round(a + (b - a) * (at - low))
        for a, b in zip(_PALETTE[low], _PALETTE[low + 1], strict=True)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _score_rows(history: BatchHistory, to_read: Readings, *, anchors: bool) -> list[dict[str, Any]]:
    colours = {grade["name"]: grade["colour"] for grade in _grade_names(history)}
    same_text = same_text_remarks(history)
    rows: list[dict[str, Any]] = []
    entries = [
        row
        for row in history.last_scores
        if history.essay_by_id[row["essay_id"]]["is_anchor"] == anchors
    ]
    for place, entry in zip(student_ranks(entries), entries, strict=True):
        essay_id = entry["essay_id"]
        essay = history.essay_by_id[essay_id]
        projection = history.projection_by_id.get(essay_id)
        likely = likely_grades(projection)
        rows.append(
            {
                **entry,
                "place": place,
                "sure": history.rank_by_id.get(essay_id),
                "scaled": history.scaled_by_id.get(essay_id),
                "file_name": essay["file_name"],
                "known": essay["grade"],
                "projection": projection,
                "grade": _shown_grade(history, essay_id, projection),
                "likely": likely,
                "others": likely[1:],
                "strip": _strip(projection, colours) if projection else [],
                "remarks": [*to_read.remarks.get(essay_id, ()), *same_text.get(essay_id, ())],
            }
        )
    return rows


def _shown_grade(history: BatchHistory, essay_id: str, projection: Row | None) -> str | None:
    decision = history.decision_by_id.get(essay_id)
    if decision is None or decision["kind"] == "accept":
        return written_grade(projection)
    return history.given_grade(essay_id)


def _strip(projection: Row, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the probabilities as neighbouring bars on a strip 100 wide; slivers left out."""
    bars, left = [], 0.0
    for grade, p in projection["probabilities"].items():
        if p >= 0.005:
            bars.append({"x": round(left, 1), "width": round(100 * p, 1), "fill": colours[grade]})
        left += 100 * p
    return bars


def _quality_flags(history: BatchHistory) -> list[str]:
    """Return in sentences what deserves a check, by the errors that are reported."""
    flags = history.last_details.get("bt_quality_flags", {})
    sentences = []
    if _errors_are_large(history):
        sentences.append(tr("Standard errors are larger than this batch's settings accept."))
    if flags.get("comparison_coverage_sparse"):
        sentences.append(tr("Essays were compared too few times each."))
    if flags.get("has_isolated_items"):
        sentences.append(tr("Some essays met a single opponent, or none."))
    return sentences


def _errors_are_large(history: BatchHistory) -> bool:
    errors = [
        row["standard_error"]
        for row in history.last_scores
        if not history.essay_by_id[row["essay_id"]]["is_anchor"]
    ]
    settings = BatchSettings.model_validate(history.settings)
    return bool(errors) and (
        sum(errors) / len(errors) > settings.mean_se_warning
        or max(errors) > settings.max_se_warning
    )


def _fairness(history: BatchHistory) -> dict[str, Any] | None:
    skews = positional_skews(history.comparisons)
    if not skews:
        return None
    by_judge = defaultdict(list)
    for row in history.succeeded:
        by_judge[row["judge_id"]].append(row)
    return {
        "mean_skew": sum(skews.values()) / len(skews),
        "max_skew": max(skews.values()),
        "most_skewed": [
            {"essay_id": essay_id, "skew": skew}
            for essay_id, skew in sorted(skews.items(), key=lambda item: (-item[1], item[0]))[:5]
            if skew > 0
        ],
        "judges": [
            {"name": history.judge_by_id[judge_id]["name"], "share": first_shown_share(rows)}
            for judge_id, rows in sorted(by_judge.items())
        ],
    }


def _judges(history: BatchHistory) -> list[dict[str, Any]]:
    on_panel = {row.judge_id: row for row in panel_overview(history)}
    rows = []
    for judge in history.judges:
        judged = [row for row in history.comparisons if row["judge_id"] == judge["judge_id"]]
        sure = [row["confidence"] for row in judged if row["confidence"] is not None]
        rows.append(
            {
                **judge,
                "on_panel": on_panel[judge["judge_id"]],
                "n_verdicts": sum(row["status"] == "succeeded" for row in judged),
                "n_failed": sum(row["status"] == "failed" for row in judged),
                "n_ties": sum(row["winner"] == "tie" for row in judged),
                "mean_confidence": sum(sure) / len(sure) if sure else None,
                "cost_usd": sum(
                    row["cost_usd"] or 0.0
                    for row in history.attempts
                    if row["judge_id"] == judge["judge_id"]
                ),
            }
        )
    return rows


def _judge_choices(history: BatchHistory) -> list[dict[str, Any]]:
    """Return the judges chosen by value for the last wave, each relative to the best."""
    last = max((row["wave"] for row in history.judge_choices), default=None)
    rows = [row for row in history.judge_choices if row["wave"] == last]
    most = max((row["information_per_usd"] for row in rows), default=0.0)
    return [
        {
            **row,
            "name": history.judge_by_id[row["judge_id"]]["name"],
            "relative_worth": row["information_per_usd"] / most if most else None,
        }
        for row in rows
    ]


def _failures(history: BatchHistory) -> dict[str, Any]:
    counts = Counter(row["failure_reason"] for row in history.failed)
    messages = {row["custom_id"]: row["error_message"] for row in history.attempts}
    return {
        "kinds": [
            {"kind": kind, "n": n, "meaning": tr(FAILURES.get(kind, ""))}
            for kind, n in counts.most_common()
        ],
        "rows": [
            {**row, "message": excerpt(messages.get(row["custom_id"]) or "", 300)}
            for row in history.failed[:_MAX_LISTED]
        ],
        "n": len(history.failed),
        "n_retried": sum(row["attempt"] > 1 for row in history.attempts),
    }


def _attention(history: BatchHistory, to_read: Readings) -> list[dict[str, Any]]:
    """Return the essays a person should read first, each with its reasons and its text."""
    return [
        {
            "essay_id": entry.essay_id,
            "is_anchor": entry.is_anchor,
            "grade": entry.given_grade,
            "reasons": [reason.text for reason in entry.reasons],
            "text": excerpt(history.essay_by_id[entry.essay_id]["text"] or "", _TEXT_SHOWN),
        }
        for entry in to_read.queue[:_MAX_LISTED]
    ]


def _surprises(history: BatchHistory) -> list[dict[str, Any]]:
    if not history.last_scores:
        return []
    found = unexpected_verdicts(history.succeeded, history.score_by_id, below=SURPRISING)
    return [
        {
            **surprise.comparison,
            "probability": surprise.probability,
            "justification": excerpt(
                surprise.comparison["justification"] or "", JUSTIFICATION_SHOWN
            ),
        }
        for surprise in found[:_MAX_LISTED]
    ]


def _costs(history: BatchHistory) -> list[dict[str, Any]]:
    totals: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for row in history.attempts:
        total = totals[row["wave"], row["judge_id"]]
        total["requests"] += 1
        for key in ("prompt", "cached", "completion"):
            total[key] += row[f"tokens_{key}"] or 0
    usd: dict[tuple[int, str], float] = defaultdict(float)
    for row in history.attempts:
        usd[row["wave"], row["judge_id"]] += row["cost_usd"] or 0.0
    return [
        {
            "wave": wave,
            "judge": history.judge_by_id[judge_id]["name"],
            "usd": usd[wave, judge_id],
            **{key: total[key] for key in ("requests", "prompt", "cached", "completion")},
        }
        for (wave, judge_id), total in sorted(totals.items())
    ]


def _judge_costs(history: BatchHistory) -> list[dict[str, Any]]:
    """Return what each judge was to cost and did, and the sum where there are several."""
    rows = [
        {"judge": history.judge_by_id[judge_id]["name"], "spent": spent}
        for judge_id, spent in spending_by_judge(history.jobs).items()
    ]
    return rows + ([{"judge": tr("All"), "spent": spending(history.jobs)}] if len(rows) > 1 else [])


def _job_costs(history: BatchHistory) -> list[dict[str, Any]]:
    return [
        {
            "judge": history.judge_by_id[job["judge_id"]]["name"],
            "wave": job["wave"],
            "mode": "canary" if job.get("is_canary") else SENT_AS[job["batching_mode"]],
            "state": job["state"],
            "name": job["submission_key"][:8],
            "spent": spending([job]),
        }
        for job in history.jobs
    ]


def _settings(history: BatchHistory) -> list[dict[str, str]]:
    return [
        {"key": key, "value": _setting(value), "origin": history.settings_origins[key]}
        for key, value in history.settings.items()
    ]


def _setting(value: Any) -> str:
    if value is None or value == "":
        return tr("none")
    if isinstance(value, bool):
        return tr("yes") if value else tr("no")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{k} {_setting(v)}" for k, v in value.items()) or tr("none")
    return str(value)


def _score_picture(history: BatchHistory) -> Picture | None:
    if not history.last_scores:
        return None
    from cj_pipeline.outputs.plots import score_plot

    best, worst = history.last_scores[0], history.last_scores[-1]
    highest, lowest = (visible(history.label(row["essay_id"])) for row in (best, worst))
    caption = tr("Every essay's score with its 95 % interval.")
    if history.boundaries:
        caption += " " + tr(
            "Dotted lines are the boundaries between grades; the bars on top are their standard"
            " errors."
        )
    return picture(
        score_plot(history),
        alt=tr(
            "Scores of {n} essays in logits with 95 % intervals, from {lowest} at {from_score} to"
            " {highest} at {to_score}. The tables give every figure.",
            n=len(history.last_scores),
            lowest=lowest,
            from_score=signed(worst["score"]),
            highest=highest,
            to_score=signed(best["score"]),
        ),
        caption=caption,
    )


def _convergence_picture(history: BatchHistory) -> Picture | None:
    if not any("bt_se_summary" in row.details for row in history.decisions):
        return None
    from cj_pipeline.outputs.plots import convergence_plot

    return picture(
        convergence_plot(history),
        alt=tr(
            "Largest change of a score, mean standard error and reliability against the number of"
            " verdicts, wave by wave. The table below gives every figure."
        ),
        caption=tr("How the scores settled, wave by wave."),
    )


def _fairness_picture(history: BatchHistory) -> Picture | None:
    if not history.succeeded:
        return None
    from cj_pipeline.outputs.plots import fairness_plot

    return picture(
        fairness_plot(history),
        alt=tr(
            "Left, how many essays have which positional skew. Right, the share of verdicts for"
            " the essay shown first, by wave, with 95 % intervals around a line at one half."
        ),
        caption=tr(
            "Left: how unevenly essays were shown first and second. Right: how often the"
            " essay shown first won, by wave."
        ),
    )


def _cost_picture(history: BatchHistory) -> Picture | None:
    if not any(row["cost_usd"] for row in history.attempts):
        return None
    from cj_pipeline.outputs.plots import cost_plot

    return picture(
        cost_plot(history),
        alt=tr(
            "Cost of each wave in US dollars, and of all waves so far. The table below gives"
            " every figure."
        ),
        caption=tr("What each wave cost."),
    )
