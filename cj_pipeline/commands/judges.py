"""`cj judge`: which judges there are, what they do when tried, and how those of a batch did."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands.terminal import completion, tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import BatchName
from cj_pipeline.commands.terminal.console import confirm, console, write
from cj_pipeline.commands.terminal.home import home_folder, open_runtime, open_store
from cj_pipeline.commands.terminal.tables import figure

if TYPE_CHECKING:
    from cj_pipeline.diagnostics.judge_comparison import JudgesCompared
    from cj_pipeline.diagnostics.judge_comparison import JudgeSummary as JudgeFigures
    from cj_pipeline.intake.batch_folder import Batch
    from cj_pipeline.judging.judges import Judge
    from cj_pipeline.judging.prompts import Prompt
    from cj_pipeline.operations.injections import Injected
    from cj_pipeline.operations.pilot import Apart, JudgeSummary, Trial
    from cj_pipeline.outputs.judges import JudgeOnBatch
    from cj_pipeline.outputs.side_by_side import ShownTable
    from cj_pipeline.providers.base import Provider

JudgeName = Annotated[
    str,
    typer.Argument(
        help="A judge's name, as `cj judge list` shows it.", autocompletion=completion.judge_names
    ),
]
JudgesDir = Annotated[
    Path | None,
    typer.Option("--judges", help="A folder of your own judges.", exists=True, file_okay=False),
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
    "reasoning tokens",
)

SUMMARY_MEANING = "Intervals are at 95 %, of comparisons; a pair's two orders repeat each other."

APART_COLUMNS = ("judge", "and", "same verdict", "more often right", "95 %", "told apart")


@reads("cj judge list 1")
def list_(judges: JudgesDir = None) -> None:
    """Show every judge, what it is and what it costs."""
    from cj_pipeline.judging.judges import known_judges, load_judge

    own = _providers_dir()
    known = [load_judge(name, judges, own) for name in known_judges(judges)]
    answer(judges=[_told(judge) for judge in known])
    rows = [_listed(judge) for judge in known]
    columns = ("judge", "model", "USD/M in, out")
    console.print(tables.table("Judges", columns, rows))


@reads("cj judge show 1")
def show(name: JudgeName, judges: JudgesDir = None) -> None:
    """Show everything that makes a judge what it is, its prompt word for word."""
    from cj_pipeline.judging.judges import load_judge

    judge = load_judge(name, judges, _providers_dir())
    answer(
        **_told(judge),
        base_url=judge.base_url or None,
        key_variable=judge.key_variable or None,
        settings=judge.settings.model_dump(mode="json", exclude_none=True),
        allow_ties=judge.allow_ties,
        template={
            part: getattr(judge.template, part) for part in ("name", "system", "task", "answer")
        },
    )
    console.print(tables.table(judge.judge_id, ("what", "value"), _facts(judge)))


@reads("cj judge examine 1")
def examine(
    name: JudgeName,
    *,
    batch: Annotated[
        Path | None,
        typer.Option(help="The batch it is meant for.", exists=True, file_okay=False),
    ] = None,
    judges: JudgesDir = None,
    pair: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Instead: have it compare the essays in these two text files, in one live call."
        ),
    ] = None,
    injections: Annotated[
        bool,
        typer.Option(help="Also show it essays that tell it what to decide, some 40 calls."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Spend without asking.")] = False,
) -> None:
    """Find out by at most five calls whether a judge can judge, and how it has to be asked.

    Models, key, JSON mode, thoughts and fences, usage, prompt window, batch endpoint, price. Exit
    code 1 where there is a problem; what has to be set is offered as the judge's file.
    """
    from cj_pipeline.intake.batch_folder import read_batch
    from cj_pipeline.judging.judges import load_judge
    from cj_pipeline.operations.examine import CALLS_AT_MOST, most_usd, offered_file
    from cj_pipeline.operations.examine import examine as look
    from cj_pipeline.operations.injections import most_usd as most_usd_of_injections
    from cj_pipeline.operations.injections import try_injections
    from cj_pipeline.operations.pilot import paid_trials

    own = judges if judges is not None else batch / "judges" if batch is not None else None
    meant_for = read_batch(batch) if batch is not None else None
    language = meant_for.settings.values.language if meant_for is not None else None
    judge = load_judge(name, own, _providers_dir(), language)
    if own is not None:
        _allowed([judge], own)
    if pair is not None:
        _judge_pair(judge, pair, meant_for)
        return
    texts = [essay.shown_text for essay in meant_for.essays] if meant_for is not None else []
    most = 0.0 if judge.is_simulated else most_usd(judge, texts)
    if injections and not judge.is_simulated:
        most += most_usd_of_injections(judge)
    if most and not yes:
        confirm(f"This can cost up to {most:.4f} USD. Go on?")
    real = [] if judge.is_simulated else [judge]
    with paid_trials(open_runtime(), real, CALLS_AT_MOST, most, may_be_fewer=True) as paid:
        found = look(
            _provider(judge),
            judge,
            texts=texts,
            instructions=meant_for.document("instructions") if meant_for is not None else "",
            rubric=meant_for.document("rubric") if meant_for is not None else "",
        )
        paid.extend(found.trials)
        tried = try_injections(_provider(judge), judge) if injections and found.is_ready else None
        paid.extend(tried.trials if tried is not None else ())
    answer(**found.as_json(), injections=None if tried is None else tried.as_json())
    rows = [(each.standing, each.about, each.finding) for each in found.examined]
    console.print(tables.table(judge.judge_id, ("", "about", "found"), rows))
    if offered := offered_file(found):
        console.print(f"As judges/{judge.name}.yaml:")
        write(offered)
    if tried is not None:
        _show_injections(tried)
    if not found.is_ready:
        raise typer.Exit(1)


def _show_injections(tried: Injected) -> None:
    low, high = tried.interval()
    rows = [
        (each.attempt.name, each.attempt.language, each.label, each.failure or "moved")
        for each in tried.shown
        if each.has_moved or each.failure
    ]
    told = f"{tried.n_moved} of {tried.n_known} moved the verdict ({low:.0%} to {high:.0%})"
    columns = ("attempt", "language", "shown as", "what came of it")
    console.print(tables.table(f"Essays that tell it what to decide: {told}", columns, rows))


@reads("cj judge compare 1")
def compare(
    batch_dir: Annotated[
        Path, typer.Argument(help="A batch folder.", exists=True, file_okay=False)
    ],
    judge: Annotated[
        list[str] | None,
        typer.Option(help="A judge; repeat it.", autocompletion=completion.judge_names),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs, each judged in both orders.")] = 10,
    seed: Annotated[int, typer.Option(help="Chooses the pairs.")] = 0,
    *,
    page: Annotated[
        Path | None, typer.Option(help="Also write a page here.", dir_okay=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Spend without asking.")] = False,
) -> None:
    """Have judges compare the same pairs in both orders: consistency, position, anchors, cost.

    Anchors of different grades come first. Each two judges are held apart on the same pairs, with
    an interval and how many more pairs would tell them apart.
    """
    from dataclasses import asdict

    from cj_pipeline.intake.batch_folder import read_batch
    from cj_pipeline.judging.judges import load_judge
    from cj_pipeline.operations.pilot import (
        failures_by_kind,
        hold_apart,
        paid_trials,
        summarise,
        trial_pairs,
    )
    from cj_pipeline.provider_jobs.requests import tell_emulator

    batch = read_batch(batch_dir)
    names = judge or list(batch.settings.values.judges)
    own, known, language = batch_dir / "judges", _providers_dir(), batch.settings.values.language
    tried = _allowed([load_judge(name, own, known, language) for name in names], own)
    ranks = _anchor_ranks(batch)
    order = trial_pairs([essay.essay_id for essay in batch.essays], pairs, seed, ranks)
    most = _agree_to_spend(tried, batch, order, yes=yes)
    if any(one.is_simulated for one in tried):
        texts = {essay.essay_id: essay.shown_text for essay in batch.essays}
        given = batch.settings.values.emulator_qualities
        tell_emulator(open_runtime(), {texts[essay]: quality for essay, quality in given.items()})
    real = [one for one in tried if not one.is_simulated]
    with paid_trials(open_runtime(), real, len(real) * len(order), most) as paid:
        trials = {one.judge_id: _trials(one, batch, order, paid) for one in tried}
    summaries = [summarise(one, trials[one.judge_id], ranks) for one in tried]
    apart = [
        hold_apart(trials[one.judge_id], trials[other.judge_id], ranks)
        for one, other in itertools.combinations(tried, 2)
    ]
    failed = {judge_id: failures_by_kind(some) for judge_id, some in trials.items()}
    answer(
        batch=batch.batch_id,
        n_pairs=len(order) // 2,
        judges=[asdict(s) | {"failures": failed[s.judge_id]} for s in summaries],
        apart=[asdict(each) | {"are_apart": each.are_apart} for each in apart],
    )
    console.print(
        tables.table(
            f"{len(order) // 2} pairs of {batch.batch_id}, both orders",
            SUMMARY_COLUMNS,
            [_summary_row(summary) for summary in summaries],
        ),
        SUMMARY_MEANING,
    )
    for judge_id, kinds in failed.items():
        for failure, n in kinds.items():
            console.print(f"{judge_id}: {n} without a verdict: {failure}", markup=False)
    if apart:
        console.print(
            tables.table("Held apart", APART_COLUMNS, [_apart_row(each) for each in apart])
        )
    if page is not None:
        _write_page(page, batch.batch_id, tried, _page_tables(summaries, failed, apart))
        console.print(f"Page: {page}", markup=False, soft_wrap=True)


def _write_page(
    page: Path, batch_id: str, tried: list[Judge], shown: tuple[ShownTable, ...]
) -> None:
    from cj_pipeline.outputs.artefact import write_atomically
    from cj_pipeline.outputs.side_by_side import render_judges_compared

    simulated = [one.name for one in tried if one.is_simulated]
    write_atomically(page, render_judges_compared(batch_id, shown, simulated).encode())


def _page_tables(
    summaries: list[JudgeSummary], failed: Mapping[str, Mapping[str, int]], apart: list[Apart]
) -> tuple[ShownTable, ...]:
    from cj_pipeline.outputs.side_by_side import ShownTable

    failures = [(judge, n, what) for judge, kinds in failed.items() for what, n in kinds.items()]
    judged, apart_rows = list(map(_summary_row, summaries)), list(map(_apart_row, apart))
    return (
        ShownTable("Judges", SUMMARY_MEANING, SUMMARY_COLUMNS, judged),
        ShownTable("Held apart", "Each two, on the same pairs", APART_COLUMNS, apart_rows),
        ShownTable("Without a verdict", "By kind", ("judge", "calls", "what came of it"), failures),
    )


def _apart_row(apart: Apart) -> tuple[object, ...]:
    interval = "–" if apart.low is None else f"{apart.low:+.0%} to {apart.high:+.0%}"
    if apart.more_pairs == 0:
        told = "apart"
    elif apart.more_pairs is None:
        told = "not known"
    else:
        told = f"{apart.more_pairs} more pairs of anchors would tell"
    return (
        apart.one,
        apart.other,
        figure(apart.agreement, ".0%") + f" of {apart.n_items}",
        figure(apart.difference, "+.0%") + f" on {apart.n_pairs} pairs",
        interval,
        told,
    )


@reads("cj judge panel 1")
def panel(batch: BatchName) -> None:
    """Compare a batch's judges: progress, cost, habits, agreement."""
    from cj_pipeline.outputs.judges import panel_overview
    from cj_pipeline.queries.history import read_history
    from cj_pipeline.queries.judges.comparison import compare_judges

    with open_store().read() as db:
        history = read_history(db, batch)
        compared = compare_judges(db, batch)
    answer(
        batch_id=batch,
        panel=panel_overview(history),
        habits=compared.judges,
        agreement=compared.pairs,
        n_items_of_all=compared.n_items_of_all,
        fleiss_kappa=compared.fleiss_kappa,
    )
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


def _providers_dir() -> Path:
    from cj_pipeline.judging.provider_definitions import OWN_FOLDER

    return home_folder() / OWN_FOLDER


def _allowed(judges: list[Judge], folder: Path) -> list[Judge]:
    """Return judges whose addresses and keys the installation allows.

    Raises:
        SettingsError: With everything that it does not.
    """
    from cj_pipeline.errors import SettingsError
    from cj_pipeline.planning.spending_limits import refused_connections

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

    texts = {essay.essay_id: essay.shown_text for essay in batch.essays}
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


def _trials(
    judge: Judge, batch: Batch, order: list[tuple[str, str]], paid: list[Trial]
) -> list[Trial]:
    from cj_pipeline.operations.pilot import judge_once

    provider = _provider(judge)
    trials = []
    for a, b in order:
        trials.append(judge_once(provider, judge, _prompt(judge, batch, a, b), a, b))
        if not judge.is_simulated:
            paid.append(trials[-1])
    return trials


def _anchor_ranks(batch: Batch) -> dict[str, int]:
    """Return each anchor's grade as a number, higher for better; nothing without a scale."""
    from cj_pipeline.grading.grade_scales import load_scale

    name = batch.settings.values.scale
    if name is None:
        return {}
    steps = load_scale(name, batch.document("scale") or None).steps
    return {a.essay_id: steps.index(a.grade) for a in batch.anchors if a.grade in steps}


def _told(judge: Judge) -> dict[str, object]:
    """Return what tells a judge from others, for programs."""
    price = judge.price
    return {
        "judge_id": judge.judge_id,
        "name": judge.name,
        "provider": judge.provider,
        "api": judge.api,
        "model": judge.model,
        "is_simulated": judge.is_simulated,
        "usd_per_million": {
            "input": price.input,
            "output": price.output,
            "source": price.source,
            "as_of": price.as_of,
        },
    }


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
        *(
            (f"{hour.begins:%H:%M} to {hour.ends:%H:%M} UTC", f"{hour.times:f} times as much")
            for hour in price.hours
        ),
        ("price from", f"{price.source}, {price.as_of}"),
        ("template", judge.template.name),
        ("system", judge.template.system),
        ("task", judge.template.task),
        ("answer", judge.template.answer),
    ]


def _judge_pair(judge: Judge, pair: tuple[Path, Path], meant_for: Batch | None) -> None:
    """Have a judge make one comparison now; a real judge bills it."""
    from cj_pipeline.judging.estimates import worst_case_usd
    from cj_pipeline.judging.prompts import render_prompt
    from cj_pipeline.operations.pilot import judge_once, paid_trials

    if missing := [str(path) for path in pair if not path.is_file()]:
        msg = f"no such file: {', '.join(missing)}"
        raise typer.BadParameter(msg, param_hint="--pair")
    prompt = render_prompt(
        judge.template,
        instructions=meant_for.document("instructions") if meant_for is not None else "",
        rubric=meant_for.document("rubric") if meant_for is not None else "",
        text_a=pair[0].read_text("utf-8"),
        text_b=pair[1].read_text("utf-8"),
        nonce=secrets.token_hex(8),
    )
    most = worst_case_usd(judge.price, prompt, judge, batched=False)
    with paid_trials(open_runtime(), [judge], 1, most) as trials:
        trial = judge_once(_provider(judge), judge, prompt, pair[0].name, pair[1].name)
        trials.append(trial)
    answer(
        judge=judge.name,
        judge_id=judge.judge_id,
        pair={
            "verdict": trial.verdict,
            "failure": trial.failure or None,
            "usage": trial.usage,
            "cost_usd": trial.cost_usd,
            "seconds": trial.seconds,
        },
    )
    console.print(tables.table(judge.judge_id, ("what", "value"), _trial_rows(trial)))


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
    def within(name: str, form: str, n: int | None = None) -> str:
        interval = summary.intervals[name]
        counted = "" if n is None else f" of {n}"
        told = "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"
        return figure(getattr(summary, name), form) + (counted + told if told else "")

    return (
        summary.judge_id,
        summary.n_asked,
        summary.n_verdicts,
        within("consistency", ".0%", summary.n_pairs),
        within("first_share", ".0%", summary.n_verdicts),
        within("agreement", ".0%", summary.n_anchor_verdicts),
        within("mean_confidence", ".1f"),
        within("usd_per_verdict", ".6f"),
        within("mean_seconds", ".2f"),
        within("reasoning_per_verdict", ".0f"),
    )
