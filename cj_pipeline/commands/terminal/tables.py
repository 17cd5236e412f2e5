"""What a person at a terminal is shown: tables and progress. Who shows it is `commands`.

Everything from a batch goes through `Text`, so that nothing in it is read as markup, and is spelled
out by `visible` before columns are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from cj_pipeline.text import visible

if TYPE_CHECKING:
    from cj_pipeline.checks.batch_checks import Checked
    from cj_pipeline.judging.judges import Judge
    from cj_pipeline.operations.cost_estimate import ModeCost
    from cj_pipeline.operations.pilot import Calibration
    from cj_pipeline.operations.preflight import PreflightItem
    from cj_pipeline.operations.reconcile import Discrepancy
    from cj_pipeline.queries.overview import ModelUse

Row = Mapping[str, Any]


def progress_bar(console: Console) -> Progress:
    """Return a bar for comparisons, with an ETA."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table; numbers are set to the right."""
    drawn = Table(title=Text(visible(title)), title_justify="left", box=SIMPLE_HEAD)
    drawn.padding = (0, 1, 0, 0)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
        # A figure or a name cut short misleads; only prose may wrap.
        prose = any(len(_cell(row[index])) > 60 for row in rows)
        drawn.add_column(
            Text(visible(column)),
            justify="right" if numeric else "left",
            no_wrap=not prose,
            overflow="fold" if prose else "ellipsis",
        )
    for row in rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    return drawn


def statuses(rows: Sequence[Row]) -> Table:
    """Return the status of each batch, one row a batch."""
    return table(
        "Batches",
        ("batch", "state", "reason", "essays", "waves", "verdicts", "failed", "USD"),
        [
            (
                row["batch_id"],
                row["state"],
                row["end_reason"] or (f"waits: {row['waiting_for']}" if row["waiting_for"] else ""),
                row["n_essays"],
                row["n_waves"],
                row["n_completed"],
                row["n_failed"],
                round(row["cost_usd"], 4),
            )
            for row in rows
        ],
    )


def open_jobs(jobs: Sequence[Row]) -> Table:
    """Return each provider job that is waited for, with its last and its next look."""
    return table(
        "Provider jobs that are waited for, times in UTC",
        ("job", "provider", "its id there", "state", "done", "last look", "next look"),
        [
            (
                row["job"],
                row["provider"],
                row["provider_job_id"],
                row["provider_status"] or row["state"],
                f"{row['n_done']} of {row['n_requests']}",
                _clock(row["last_look"]),
                _clock(row["next_look"]),
            )
            for row in jobs
        ],
    )


def _clock(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def models_used(batch_id: str, used: Sequence[ModelUse]) -> Table:
    """Return what each provider's model was asked, used and cost; and all together."""
    rows = [
        (
            each.provider,
            each.model,
            each.n_comparisons,
            each.n_calls,
            each.n_retries,
            each.tokens_prompt,
            each.tokens_completion,
            f"{each.cost_usd:.6f}",
        )
        for each in used
    ]
    if len(used) > 1:
        sums = [
            sum(counted)
            for counted in zip(
                *(
                    (e.n_comparisons, e.n_calls, e.n_retries, e.tokens_prompt, e.tokens_completion)
                    for e in used
                ),
                strict=True,
            )
        ]
        rows.append(("(all)", "", *sums, f"{sum(each.cost_usd for each in used):.6f}"))
    heads = (
        "provider",
        "model",
        "comparisons",
        "calls",
        "retries",
        "tokens in",
        "tokens out",
        "USD",
    )
    return table(f"Calls to models, {batch_id}", heads, rows)


def preflight(title: str, examined: Sequence[PreflightItem]) -> Table:
    """Return how everything stands that a batch needs."""
    rows = [(each.standing, each.about, each.finding) for each in examined]
    return table(title, ("", "about", "found"), rows)


def grades(batch_id: str, rows: Sequence[Row], statement: str) -> Group:
    """Return the students' scores, highest first, with grades where there are any; anchors apart.

    An anchor's grade by the other anchors stands beside the one it is known to have.
    """
    graded = any(row["grade"] for row in rows)
    students = [row for row in rows if not row["known_grade"]]
    anchors = [row for row in rows if row["known_grade"]]
    columns = ["rank", "essay", "score", "± SE", "comparisons"]
    shown = table(
        batch_id,
        columns + (["grade", "probability"] if graded else []),
        [_score_line(row, graded=graded) for row in students],
    )
    if not anchors:
        return Group(shown, Text(statement))
    apart = table(
        "Anchors, each graded by the others" if graded else "Anchors",
        [*columns, "known", *(["by the others", "probability"] if graded else [])],
        [_score_line(row, graded=graded) for row in anchors],
    )
    return Group(shown, apart, Text(statement))


def _score_line(row: Row, *, graded: bool) -> list[object]:
    line: list[object] = [
        row["rank"],
        visible(row.get("called") or row["essay_id"]),
        f"{row['score']:+.2f}",
        f"{row['standard_error']:.2f}",
        row["n_comparisons"],
    ]
    if row["known_grade"]:
        line.append(row["known_grade"])
    if graded:
        line += [row["grade"], f"{row['confidence']:.0%}"]
    return line


def cost_tables(costs: Sequence[ModeCost], chosen: str) -> tuple[Table, Table]:
    """Return what each judge would cost in each mode, and what keeping the prefix has to do."""
    money = [
        (
            cost.judge.name,
            cost.mode + (" (chosen)" if cost.mode == chosen else ""),
            cost.n_comparisons,
            cost.tokens_each,
            f"{cost.expected_usd:.4f}",
            f"{cost.worst_usd:.4f}",
            cost.time,
        )
        for cost in costs
    ]
    prefixes = [
        (cost.judge.name, cost.mode, f"{cost.caching.saved_usd:.4f}", cost.caching.reason)
        for cost in costs
    ]
    return (
        table(
            "Cost by judge and mode",
            (
                "judge",
                "mode",
                "at most",
                "tokens each",
                "USD expected",
                "USD at most",
                "time at most",
            ),
            money,
        ),
        table("The shared prefix, first wave", ("judge", "mode", "saves USD", "because"), prefixes),
    )


def pilot_table(calibrations: Sequence[tuple[Judge, Calibration]]) -> Table:
    """Return what a few live calls say of the whole batch."""
    return table(
        "Pilot: the whole batch, at 95 %",
        ("judge", "calls", "tokens in", "tokens out", "USD expected", "from", "to"),
        [
            (
                judge.name,
                found.n_trials,
                round(found.prompt_tokens),
                round(found.completion_tokens),
                f"{found.usd:.4f}",
                f"{found.usd_low:.4f}",
                f"{found.usd_high:.4f}",
            )
            for judge, found in calibrations
        ],
    )


def findings_table(
    findings: Sequence[Discrepancy], title: str = "Ledger and providers disagree"
) -> Table:
    """Return what ledger and providers disagree on, one row a finding."""
    return table(
        title,
        ("batch", "finding", "about", "problem", "remedy"),
        [
            (
                finding.batch_id or "–",
                finding.kind.replace("_", " "),
                finding.what,
                finding.problem,
                finding.remedy,
            )
            for finding in findings
        ],
    )


def checks_table(batch_id: str, checked: Sequence[Checked]) -> Table:
    """Return what is claimed of a batch and what was found, what fails first."""
    words = {(True, True): "holds", (False, True): "holds", (True, False): "FAILS"}
    ordered = sorted(checked, key=lambda each: (each.finding.holds, not each.is_blocking))
    return table(
        f"Claims about {batch_id}",
        ("", "claim", "about", "found"),
        [
            (
                words.get((each.is_blocking, each.finding.holds), "warns"),
                each.name,
                each.about.replace("_", " "),
                each.finding.statement,
            )
            for each in ordered
        ],
    )


def figure(value: float | None, form: str) -> str:
    """Return a figure as a format has it, or a dash where there is none."""
    return "–" if value is None else format(value, form)


def problems(message: str) -> Panel:
    """Return an error as a person should meet it."""
    return Panel(Text(visible(message)), title="Not done", border_style="red", title_align="left")


def _cell(value: object) -> str:
    return "" if value is None else visible(str(value))


def _is_number(value: object) -> bool:
    if isinstance(value, int | float):
        return True
    return isinstance(value, str) and value.strip("+-%").replace(".", "", 1).isdigit()
