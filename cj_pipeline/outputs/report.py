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
from cj_pipeline.outputs.feedback import (
    JUSTIFICATION_SHOWN,
    all_feedback,
    likely_grades,
    roles_of,
    written_grade,
)
from cj_pipeline.outputs.html import Picture, dollars, percent, picture, render_page, signed, words
from cj_pipeline.outputs.judges import agreements, panel_overview
from cj_pipeline.outputs.report_dependence import dependence_sentences
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
from cj_pipeline.queries.spending import SENT_AS, spending, spending_by_judge
from cj_pipeline.stopping.continuation import EndReason
from cj_pipeline.text import excerpt, find_hidden, visible

if TYPE_CHECKING:
    from cj_pipeline.diagnostics.fit_statistics import Fit
    from cj_pipeline.storage.signing import PublicKey
    from cj_pipeline.store.session import Session

END_REASONS: Mapping[str, str] = {
    EndReason.STABLE: "The scores had stopped moving between waves.",
    EndReason.PRECISE: "The scores became as precise as the batch requires.",
    EndReason.BUDGET_SPENT: "The budget of comparisons was used up.",
    EndReason.PAIRS_EXHAUSTED: "Every pair was judged as often as the batch allows.",
    EndReason.SMALL_NET_CAP: "Every pair of this small batch was covered and fully resampled.",
    EndReason.SINGLE_WAVE_COMPLETE: "All comparisons were requested at once and completed.",
    EndReason.NO_SUCCESSES: "No comparison gave a verdict. Read the failures below, fix their "
    "cause, and submit the essays as a new batch.",
    EndReason.LOW_SUCCESS_RATE: "Too many comparisons failed for the rest to be trusted. Read "
    "the failures below, fix their cause, and submit the essays as a new batch.",
    EndReason.INSUFFICIENT_ESSAYS: "A scale needs two essays at least.",
    EndReason.UNSCALABLE: "The verdicts do not join all essays into one net, so there is no "
    "common scale. Allow more comparisons, or fix the failures below.",
    EndReason.SPEND_CAP: "The next comparisons could have cost more than the spend cap allows. "
    "Raise `spend_cap_usd`, or accept what there is.",
    EndReason.CANARY_FAILED: "A judge gave no verdict in the few requests sent ahead, so the rest"
    " was not sent. Read what its provider said below, try it with `cj judge try`, and submit "
    "the essays as a new batch.",
    EndReason.EXPIRED: "The provider let the requests expire before it answered them.",
    EndReason.CANCELLED: "A person cancelled the batch.",
    EndReason.STALLED: "Nothing moved for longer than `stall_after_s` allows.",
}

FAILURES: Mapping[str, str] = {
    RequestOutcome.INVALID_OUTPUT: "The judge's answer held no verdict.",
    RequestOutcome.REFUSAL: "The judge refused to answer.",
    RequestOutcome.TRUNCATED: "The answer ended before the verdict: allow more output tokens.",
    RequestOutcome.PROMPT_CUT: "The judge was shown less than was sent: give its server a larger"
    " window.",
    RequestOutcome.CONTENT_FILTER: "The provider's content filter stopped the answer.",
    RequestOutcome.PROVIDER_ERROR: "The provider answered with an error.",
    RequestOutcome.EXPIRED: "The provider did not answer in time.",
    RequestOutcome.CANCELLED: "The request was cancelled.",
    RequestOutcome.MISSING: "The provider sent no answer to this request.",
}

PLAYED_BACK: Mapping[str, str] = {
    "human-votes": "No language model read the essays for this batch: votes that people cast on"
    " these texts are played back in a judge's place.",
    "recorded": "No language model read the essays for this batch: verdicts that one gave earlier"
    " are played back.",
}
"""What to say of the emulator's judges that do not make their verdicts up, by model."""

MISFIT = 1.5
"""Infit above which judges disagreed about an essay more than its score explains."""

_MISFIT_Z = 2.0
"""With few verdicts infit is large by chance alone; beyond this it is not."""

SURPRISING = 0.1
"""A verdict less likely than this by the final scores should be read again."""

_ANCHOR_DOUBTED = 0.05
"""Probability of its known grade, by the other anchors, below which an anchor is to be read."""

_MAX_LISTED = 20
_MAX_FEEDBACK_COMPARISONS = 1500
"""Beyond this many comparisons the page would outgrow what a browser opens at once."""
_TEXT_SHOWN = 3000

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
    """Return the page for what `read_history` found.

    Args:
        history: The batch.
        artefacts: Its rows of `run_artefact`.
        signed_by: The key that signs artefacts; None where the home has none.
    """
    return render_page(
        "report.html",
        language=history.settings.get("language", "en"),
        batch=history.batch,
        banners=_banners(history),
        end_reason=END_REASONS.get(history.batch["end_reason"] or "", ""),
        facts=_facts(history),
        has_scores=bool(history.last_scores),
        is_graded=history.is_graded,
        grading=history.grading,
        grades=_grade_names(history),
        scale_title=_scale_title(history),
        n_placed_across=_n_placed_across(history),
        students=_score_rows(history, anchors=False),
        anchors=_score_rows(history, anchors=True),
        anchor_check=anchor_sentences(history),
        anchor_fits=anchor_fits(history),
        boundaries=history.boundaries,
        links=history.links,
        drifts=history.drifts,
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
        attention=_attention(history),
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
    state, reason = batch["state"], batch["end_reason"]
    about = history.settings.get("about")
    if about:
        banners.append(Banner("warning", "About this batch", about))
    if state == "rejected":
        banners.append(
            Banner("failure", "This batch was not ingested", "\n".join(batch["problems"]))
        )
    elif state in {"failed", "cancelled"}:
        banners.append(
            Banner(
                "failure",
                "This batch was cancelled"
                if state == "cancelled"
                else f"This batch failed: {words(reason or 'no reason stored')}",
                f"{END_REASONS.get(reason or '', '')} There are no grades; any scores below are"
                " partial and should not be used."
                + (f"\nMost of all: {history.hindered_by}" if history.hindered_by else ""),
            )
        )
    elif state == "running":
        banners.append(
            Banner(
                "notice",
                "This batch is still being judged",
                "All figures are preliminary."
                + (f" It {history.hindered_by}" if history.hindered_by else ""),
            )
        )
    if history.release.statement:
        provisional = history.release.is_provisional
        banners.append(
            Banner(
                "warning" if provisional else "notice",
                "Provisional grades" if provisional else "Released grades",
                history.release.statement,
            )
        )
    banners += _simulation_banners(history)
    if state == "succeeded" and history.grading is not None and not history.is_graded:
        banners.append(
            Banner("notice", "Scores and ranks, no grades", history.grading["statement"])
        )
    elif history.is_graded and history.grading is not None and history.grading["statement"]:
        banners.append(Banner("notice", "About these grades", history.grading["statement"]))
    return banners


def _simulation_banners(history: BatchHistory) -> list[Banner]:
    played = [row for row in history.judges if row["is_simulated"]]
    made_up = [row["name"] for row in played if row["model"] not in PLAYED_BACK]
    banners = []
    if made_up:
        judges = "Simulated judges" if len(made_up) > 1 else "A simulated judge"
        are = "are stand-ins that play judges" if len(made_up) > 1 else "is a stand-in for a judge"
        banners.append(
            Banner(
                "warning",
                f"{judges} gave these verdicts",
                f"No language model read the essays: {', '.join(made_up)} {are}. Scores and grades"
                " show how the pipeline works and say nothing about the texts.",
            )
        )
    banners += [
        Banner("warning", "These verdicts were recorded earlier", PLAYED_BACK[row["model"]])
        for row in played
        if row["model"] in PLAYED_BACK
    ]
    return banners


def _facts(history: BatchHistory) -> list[tuple[str, str]]:
    n_anchors = len(history.anchor_grades)
    facts = [
        ("Essays", f"{len(history.essays) - n_anchors:,}"),
        ("Anchors", f"{n_anchors:,}"),
        ("Verdicts", f"{len(history.succeeded):,}"),
        ("Failed", f"{len(history.failed):,}"),
    ]
    if history.pending:
        facts.append(("Still open", f"{len(history.pending):,}"))
    details = history.last_details
    if headline := headline_reliability(history):
        facts.append(("Reliability among students", headline))
    if "bt_se_summary" in details:
        facts.append(("Mean standard error", f"{details['bt_se_summary']['mean_se']:.2f}"))
    facts.append(
        (
            "Cost, as if paid" if _is_play(history) else "Cost",
            dollars(sum(row["cost_usd"] or 0.0 for row in history.attempts)),
        )
    )
    return facts


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


def _score_rows(history: BatchHistory, *, anchors: bool) -> list[dict[str, Any]]:
    colours = {grade["name"]: grade["colour"] for grade in _grade_names(history)}
    rows: list[dict[str, Any]] = []
    entries = [
        row
        for row in history.last_scores
        if history.essay_by_id[row["essay_id"]]["is_anchor"] == anchors
    ]
    for place, entry in zip(student_ranks(entries), entries, strict=True):
        essay = history.essay_by_id[entry["essay_id"]]
        projection = history.projection_by_id.get(entry["essay_id"])
        rows.append(
            {
                **entry,
                "place": place,
                "sure": history.rank_by_id.get(entry["essay_id"]),
                "file_name": essay["file_name"],
                "known": essay["grade"],
                "projection": projection,
                "grade": _shown_grade(history, entry["essay_id"], projection),
                "likely": likely_grades(projection),
                "strip": _strip(projection, colours) if projection else [],
                "remarks": _remarks(entry, projection)
                + _remarks_of_people(history, entry["essay_id"], projection),
            }
        )
    return rows


def _shown_grade(history: BatchHistory, essay_id: str, projection: Row | None) -> str | None:
    decision = history.decision_by_id.get(essay_id)
    if decision is None or decision["kind"] == "accept":
        return written_grade(projection)
    return history.given_grade(essay_id)


def _remarks_of_people(history: BatchHistory, essay_id: str, projection: Row | None) -> list[str]:
    decision = history.decision_by_id.get(essay_id)
    if decision is None or projection is None or decision["kind"] == "accept":
        return []
    did = "set by" if decision["kind"] == "override" else "withheld by"
    return [
        f"grade {did} {decision['decided_by']}: {excerpt(decision['reason'], 200)}"
        f" (by the verdicts: {projection['grade']})"
    ]


def _strip(projection: Row, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the probabilities as neighbouring bars on a strip 100 wide; slivers left out."""
    bars, left = [], 0.0
    for grade, p in projection["probabilities"].items():
        if p >= 0.005:
            bars.append({"x": round(left, 1), "width": round(100 * p, 1), "fill": colours[grade]})
        left += 100 * p
    return bars


def _remarks(entry: Row, projection: Row | None) -> list[str]:
    remarks = []
    if entry["is_one_sided"]:
        remarks.append("won or lost every comparison")
    if projection is not None and projection["is_extrapolated"]:
        remarks.append("outside the anchors")
    return remarks


def _quality_flags(history: BatchHistory) -> list[str]:
    """Return in sentences the warnings kept with the last decision."""
    meanings = {
        "bt_se_inflated": "Standard errors are larger than this batch's settings accept.",
        "comparison_coverage_sparse": "Essays were compared too few times each.",
        "has_isolated_items": "Some essays met a single opponent, or none.",
    }
    flags = history.last_details.get("bt_quality_flags", {})
    return [meaning for key, meaning in meanings.items() if flags.get(key)]


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
            {"kind": kind, "n": n, "meaning": FAILURES.get(kind, "")}
            for kind, n in counts.most_common()
        ],
        "rows": [
            {**row, "message": excerpt(messages.get(row["custom_id"]) or "", 300)}
            for row in history.failed[:_MAX_LISTED]
        ],
        "n": len(history.failed),
        "n_retried": sum(row["attempt"] > 1 for row in history.attempts),
    }


def _attention(history: BatchHistory) -> list[dict[str, Any]]:
    """Return the essays a person should read, worst fit first, each with its reasons."""
    fits = _essay_fits(history)
    found = []
    for entry in history.last_scores:
        essay = history.essay_by_id[entry["essay_id"]]
        projection = history.projection_by_id.get(entry["essay_id"])
        fit = fits.get(entry["essay_id"])
        reasons = list(_attention_reasons(entry, essay, projection, fit))
        if reasons:
            found.append(
                {
                    "essay_id": entry["essay_id"],
                    "is_anchor": essay["is_anchor"],
                    "reasons": reasons,
                    "infit": fit.infit if fit else None,
                    "text": excerpt(essay["text"], _TEXT_SHOWN),
                }
            )
    return sorted(found, key=lambda row: -(row["infit"] or 0.0))[:_MAX_LISTED]


def _attention_reasons(
    entry: Row, essay: Row, projection: Row | None, fit: Fit | None
) -> list[str]:
    reasons = []
    if (hidden := find_hidden(essay["text"] or "")) is not None:
        reasons.append(f"its text {hidden.describe()}: judges read them")
    if fit is not None and fit.infit > MISFIT and fit.infit_z > _MISFIT_Z:
        reasons.append(
            f"its verdicts contradict each other (infit {fit.infit:.1f} over {fit.n} verdicts)"
        )
    if entry["is_one_sided"]:
        every = "won" if entry["n_wins"] else "lost"
        reasons.append(f"it {every} every comparison, so how far it lies from the rest is a guess")
    if projection is not None and essay["is_anchor"]:
        known = projection["probabilities"][essay["grade"]]
        if known < _ANCHOR_DOUBTED:
            reasons.append(
                f"this anchor is known as {essay['grade']}, which the others make unlikely"
                f" ({percent(known)}); by them it would be {projection['grade']}"
            )
    return reasons


def _essay_fits(history: BatchHistory) -> dict[str, Fit]:
    if not history.last_scores:
        return {}
    from cj_pipeline.diagnostics.fit_statistics import fit_of_essays

    return fit_of_essays(history.fit(), history.judged)


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
    return rows + ([{"judge": "All", "spent": spending(history.jobs)}] if len(rows) > 1 else [])


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
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{k} {_setting(v)}" for k, v in value.items()) or "none"
    return str(value)


def _score_picture(history: BatchHistory) -> Picture | None:
    if not history.last_scores:
        return None
    from cj_pipeline.outputs.plots import score_plot

    best, worst = history.last_scores[0], history.last_scores[-1]
    highest, lowest = (visible(history.label(row["essay_id"])) for row in (best, worst))
    with_grades = ", with the boundaries between grades" if history.boundaries else ""
    return picture(
        score_plot(history),
        alt=(
            f"Scores of {len(history.last_scores)} essays in logits with 95 % intervals, from"
            f" {lowest} at {signed(worst['score'])} to {highest} at"
            f" {signed(best['score'])}{with_grades}. The tables give every figure."
        ),
        caption=f"Every essay's score with its 95 % interval{with_grades}."
        + (" The bars on top are their standard errors." if history.boundaries else ""),
    )


def _convergence_picture(history: BatchHistory) -> Picture | None:
    if not any("bt_se_summary" in row.details for row in history.decisions):
        return None
    from cj_pipeline.outputs.plots import convergence_plot

    return picture(
        convergence_plot(history),
        alt="Largest change of a score, mean standard error and reliability against the number of"
        " verdicts, wave by wave. The table below gives every figure.",
        caption="How the scores settled, wave by wave.",
    )


def _fairness_picture(history: BatchHistory) -> Picture | None:
    if not history.succeeded:
        return None
    from cj_pipeline.outputs.plots import fairness_plot

    return picture(
        fairness_plot(history),
        alt="Left, how many essays have which positional skew. Right, the share of verdicts for"
        " the essay shown first, by wave, with 95 % intervals around a line at one half.",
        caption="Left: how unevenly essays were shown first and second. Right: how often the"
        " essay shown first won, by wave.",
    )


def _cost_picture(history: BatchHistory) -> Picture | None:
    if not any(row["cost_usd"] for row in history.attempts):
        return None
    from cj_pipeline.outputs.plots import cost_plot

    return picture(
        cost_plot(history),
        alt="Cost of each wave in US dollars, and of all waves so far. The table below gives"
        " every figure.",
        caption="What each wave cost.",
    )
