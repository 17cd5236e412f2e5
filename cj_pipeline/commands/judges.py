"""`cj judge`: which judges there are, what they do when tried, and how those of a batch did."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.arguments import BatchName
from cj_pipeline.commands.terminal.console import confirm, console
from cj_pipeline.commands.terminal.home import home_folder, open_runtime, open_store
from cj_pipeline.commands.terminal.tables import figure

if TYPE_CHECKING:
    from cj_pipeline.diagnostics.judge_comparison import JudgesCompared
    from cj_pipeline.diagnostics.judge_comparison import JudgeSummary as JudgeFigures
    from cj_pipeline.intake.batch_folder import Batch
    from cj_pipeline.judging.judges import Judge
    from cj_pipeline.judging.prompts import Prompt
    from cj_pipeline.operations.pilot import JudgeSummary, Trial
    from cj_pipeline.outputs.judges import JudgeOnBatch
    from cj_pipeline.providers.base import Provider

JudgeName = Annotated[str, typer.Argument(help="A judge's name, as `cj judge list` shows it.")]
JudgesDir = Annotated[
    Path | None,
    typer.Option("--judges", help="A folder of your own judges.", exists=True, file_okay=False),
]
TextFile = Annotated[
    Path, typer.Argument(help="A text file with one essay.", exists=True, dir_okay=False)
]

PANEL_COLUMNS = (
    "judge",
    "share",
    "verdicts",
    "failed",
    "open",
    "agrees",
    "ranks",
    "USD",
    "USD each",
)

PANEL_MEANING = (
    "Agrees: with the others, on pairs both judged. Ranks: correlation of its own scale with"
    " theirs."
)

HABIT_COLUMNS = ("judge", "for the first", "ties", "confidence", "seconds", "tokens each")

HABIT_MEANING = (
    "For the first: verdicts for the essay shown first, where half is unbiased. Tokens each: per"
    " verdict, failures included."
)

SUMMARY_COLUMNS = (
    "judge",
    "calls",
    "verdicts",
    "same in both orders",
    "for the first",
    "agrees with anchors",
    "confidence",
    "USD per verdict",
    "seconds",
)


def list_(judges: JudgesDir = None) -> None:
    """Show every judge, what it is and what it costs."""
    from cj_pipeline.judging.judges import known_judges, load_judge

    rows = [_listed(load_judge(name, judges)) for name in known_judges(judges)]
    columns = ("judge", "model", "USD/M in, out")
    console.print(tables.table("Judges", columns, rows))


def show(name: JudgeName, judges: JudgesDir = None) -> None:
    """Show everything that makes a judge what it is, its prompt word for word."""
    from cj_pipeline.judging.judges import load_judge

    judge = load_judge(name, judges)
    console.print(tables.table(judge.judge_id, ("what", "value"), _facts(judge)))


def try_(
    name: JudgeName,
    essay_a: TextFile,
    essay_b: TextFile,
    judges: JudgesDir = None,
    instructions: Annotated[
        Path | None, typer.Option(help="The students' task.", dir_okay=False)
    ] = None,
) -> None:
    """Have a judge make one comparison now; a real judge bills it."""
    from cj_pipeline.judging.estimates import worst_case_usd
    from cj_pipeline.judging.judges import load_judge
    from cj_pipeline.judging.prompts import render_prompt
    from cj_pipeline.operations.pilot import judge_once, paid_trials

    judge = load_judge(name, judges)
    if judges is not None:
        _allowed([judge], judges)
    prompt = render_prompt(
        judge.template,
        instructions=instructions.read_text("utf-8") if instructions else "",
        rubric="",
        text_a=essay_a.read_text("utf-8"),
        text_b=essay_b.read_text("utf-8"),
        nonce=secrets.token_hex(8),
    )
    most = worst_case_usd(judge.price, prompt, judge, batched=False)
    with paid_trials(open_runtime(), [judge], 1, most) as trials:
        trial = judge_once(_provider(judge), judge, prompt, essay_a.name, essay_b.name)
        trials.append(trial)
    console.print(tables.table(judge.judge_id, ("what", "value"), _trial_rows(trial)))


def compare(
    batch_dir: Annotated[
        Path, typer.Argument(help="A batch folder.", exists=True, file_okay=False)
    ],
    judge: Annotated[list[str] | None, typer.Option(help="A judge; repeat it.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs, each judged in both orders.")] = 10,
    seed: Annotated[int, typer.Option(help="Chooses the pairs.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Spend without asking.")] = False,
) -> None:
    """Have judges compare the same pairs in both orders: consistency, position, anchors, cost."""
    from cj_pipeline.intake.batch_folder import read_batch
    from cj_pipeline.judging.judges import load_judge
    from cj_pipeline.operations.pilot import paid_trials, trial_pairs

    batch = read_batch(batch_dir)
    names = judge or list(batch.settings.values.judges)
    tried = _allowed(
        [load_judge(name, batch_dir / "judges") for name in names], batch_dir / "judges"
    )
    order = trial_pairs([essay.essay_id for essay in batch.essays], pairs, seed)
    most = _agree_to_spend(tried, batch, order, yes=yes)
    paid = [one for one in tried if not one.is_simulated]
    with paid_trials(open_runtime(), paid, len(paid) * len(order), most) as trials:
        summaries = [_tried(one, batch, order, trials) for one in tried]
    console.print(
        tables.table(
            f"{len(order) // 2} pairs of {batch.batch_id}, both orders",
            SUMMARY_COLUMNS,
            [_summary_row(summary) for summary in summaries],
        )
    )


def panel(batch: BatchName) -> None:
    """Compare a batch's judges: progress, cost, habits, agreement."""
    from cj_pipeline.outputs.judges import panel_overview
    from cj_pipeline.queries.history import read_history
    from cj_pipeline.queries.judge_comparison import compare_judges

    with open_store().read() as db:
        history = read_history(db, batch)
        compared = compare_judges(db, batch)
    rows = [_on_panel(row) for row in panel_overview(history)]
    console.print(tables.table(f"Judges of {batch}", PANEL_COLUMNS, rows), PANEL_MEANING)
    habits = [_habits(judge) for judge in compared.judges]
    console.print(tables.table("Habits", HABIT_COLUMNS, habits), HABIT_MEANING)
    if compared.pairs:
        _show_agreement(compared)


def _on_panel(row: JudgeOnBatch) -> tuple[object, ...]:
    agreement = row.agreement
    return (
        row.name,
        f"{row.share:.0%}",
        f"{row.n_verdicts} of {row.n_planned}",
        row.n_failed,
        row.n_open,
        "–" if agreement is None else f"{agreement.share:.0%} of {agreement.n}",
        figure(row.rank_correlation, ".2f"),
        f"{row.billed_usd:.6f}",
        figure(row.usd_per_verdict, ".6f"),
    )


def _habits(judge: JudgeFigures) -> tuple[object, ...]:
    error = "" if judge.share_first_error is None else f" ± {judge.share_first_error:.0%}"
    return (
        judge.name,
        figure(judge.share_first, ".0%") + error,
        figure(judge.share_tied, ".0%"),
        figure(judge.mean_confidence, ".1f"),
        figure(judge.mean_latency_s, ".2f"),
        figure(judge.tokens_per_verdict, ".0f"),
    )


def _show_agreement(compared: JudgesCompared) -> None:
    names = {judge.judge_id: judge.name for judge in compared.judges}
    columns = ("judge", "and", "comparisons", "same verdict", "kappa", "rank correlation")
    rows = [
        (
            names[pair.one],
            names[pair.other],
            pair.n_items,
            figure(pair.agreement, ".0%"),
            figure(pair.kappa, ".2f"),
            figure(pair.rank_correlation, ".2f"),
        )
        for pair in compared.pairs
    ]
    console.print(
        tables.table("Agreement", columns, rows),
        f"Fleiss' kappa of all, over {compared.n_items_of_all} comparisons:"
        f" {figure(compared.fleiss_kappa, '.2f')}",
    )


def _allowed(judges: list[Judge], folder: Path) -> list[Judge]:
    """Return judges whose addresses and keys the installation allows.

    Raises:
        SettingsError: With everything that it does not.
    """
    from cj_pipeline.errors import SettingsError
    from cj_pipeline.steps.spending_limits import refused_connections

    if refused := refused_connections(open_runtime(), judges, folder):
        raise SettingsError("; ".join(refused))
    return judges


def _provider(judge: Judge) -> Provider:
    from cj_pipeline.providers.registry import open_provider

    home = home_folder()
    home.mkdir(parents=True, exist_ok=True)
    return open_provider(judge, os.environ, home)


def _prompt(judge: Judge, batch: Batch, essay_a: str, essay_b: str) -> Prompt:
    from cj_pipeline.judging.prompts import fence_nonce, render_prompt

    texts = {essay.essay_id: essay.text for essay in batch.essays}
    return render_prompt(
        judge.template,
        instructions=batch.document("instructions"),
        rubric=batch.document("rubric"),
        text_a=texts[essay_a],
        text_b=texts[essay_b],
        nonce=fence_nonce(batch.content_sha256, f"{essay_a} {essay_b}"),
    )


def _agree_to_spend(
    judges: list[Judge], batch: Batch, order: list[tuple[str, str]], *, yes: bool
) -> float:
    """Ask before real money is spent, with the most that it can be; return that."""
    from cj_pipeline.judging.estimates import worst_case_usd

    most = sum(
        worst_case_usd(judge.price, _prompt(judge, batch, a, b), judge, batched=False)
        for judge in judges
        if not judge.is_simulated
        for a, b in order
    )
    if most and not yes:
        confirm(f"This can cost up to {most:.4f} USD. Go on?")
    return most


def _tried(
    judge: Judge, batch: Batch, order: list[tuple[str, str]], paid: list[Trial]
) -> JudgeSummary:
    from cj_pipeline.operations.pilot import judge_once, summarise

    provider = _provider(judge)
    trials = []
    for a, b in order:
        trials.append(judge_once(provider, judge, _prompt(judge, batch, a, b), a, b))
        if not judge.is_simulated:
            paid.append(trials[-1])
    return summarise(judge, trials, _anchor_ranks(batch))


def _anchor_ranks(batch: Batch) -> dict[str, int]:
    """Return each anchor's grade as a number, higher for better; nothing without a scale."""
    from cj_pipeline.grading.grade_scales import load_scale

    name = batch.settings.values.scale
    if name is None:
        return {}
    steps = load_scale(name, batch.document("scale") or None).steps
    return {a.essay_id: steps.index(a.grade) for a in batch.anchors if a.grade in steps}


def _listed(judge: Judge) -> tuple[object, ...]:
    price = judge.price
    return (
        judge.name,
        judge.model + (", simulated" if judge.is_simulated else ""),
        f"{price.input:f}, {price.output:f}",
    )


def _facts(judge: Judge) -> list[tuple[str, object]]:
    price = judge.price
    settings = judge.settings.model_dump(exclude_none=True)
    return [
        ("reached through", f"{judge.provider}, {judge.api}"),
        ("address", judge.base_url or "the provider's usual one"),
        ("key in", judge.key_variable or "no key needed"),
        ("model", judge.model),
        *((key, value) for key, value in settings.items()),
        ("ties", "yes" if judge.allow_ties else "no"),
        ("USD per million tokens", f"{price.input:f} in, {price.output:f} out"),
        ("price from", f"{price.source}, {price.as_of}"),
        ("template", judge.template.name),
        ("system", judge.template.system),
        ("task", judge.template.task),
        ("answer", judge.template.answer),
    ]


def _trial_rows(trial: Trial) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("shown first", trial.essay_a), ("second", trial.essay_b)]
    if trial.verdict is None:
        rows.append(("no verdict", trial.failure))
        rows.append(("what it wrote", trial.text or ""))
    else:
        rows.append(("winner", trial.verdict.winner))
        rows.append(("confidence", trial.verdict.confidence))
        rows.append(("justification", trial.verdict.justification))
    if trial.usage is not None:
        rows.append(("tokens", f"{trial.usage.prompt} in, {trial.usage.completion} out"))
        rows.append(("USD", f"{trial.cost_usd:.6f}"))
    rows.append(("seconds", f"{trial.seconds:.2f}"))
    return rows


def _summary_row(summary: JudgeSummary) -> tuple[object, ...]:
    def share(value: float | None, n: int) -> str:
        return figure(value, ".0%") + ("" if value is None else f" of {n}")

    return (
        summary.judge_id,
        summary.n_asked,
        summary.n_verdicts,
        share(summary.consistency, summary.n_pairs),
        figure(summary.first_share, ".0%"),
        share(summary.agreement, summary.n_anchor_verdicts),
        figure(summary.mean_confidence, ".1f"),
        figure(summary.usd_per_verdict, ".6f"),
        f"{summary.mean_seconds:.2f}",
    )
