"""`cj judges`: the judges of a batch beside each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from cj_pipeline import terminal


def add_judge_comparison_command(
    app: typer.Typer,
    told_plainly: Callable[[Callable[..., Any]], Callable[..., Any]],
    console: Console,
) -> None:
    """Add the command to `cj`.

    Args:
        app: What it is added to.
        told_plainly: Shows a known error as a message instead of a traceback.
        console: Where answers go.
    """

    @app.command("judges")
    @told_plainly
    def judges(
        batch: Annotated[str, typer.Argument(help="A batch's name, as `cj status` lists it.")],
    ) -> None:
        """Compare a batch's judges: agreement, leaning, speed, cost per verdict."""
        from cj_pipeline.steps.judges_compared import compare_judges
        from cj_pipeline.store import default_home, open_store

        with open_store(default_home(os.environ).resolve(), os.environ).read() as db:
            compared = compare_judges(db, batch)
        names = {judge.judge_id: judge.name for judge in compared.judges}
        console.print(
            terminal.table(
                f"Judges of {batch}",
                (
                    "judge",
                    "verdicts",
                    "failed",
                    "for the first",
                    "ties",
                    "confidence",
                    "seconds",
                    "tokens",
                    "USD per verdict",
                ),
                [
                    (
                        judge.name,
                        judge.n_verdicts,
                        judge.n_failed,
                        _share(judge.share_first, judge.share_first_error),
                        _share(judge.share_tied),
                        _figure(judge.mean_confidence, ".1f"),
                        _figure(judge.mean_latency_s, ".2f"),
                        _figure(judge.tokens_per_verdict, ".0f"),
                        _figure(judge.usd_per_verdict, ".6f"),
                    )
                    for judge in compared.judges
                ],
            )
        )
        if compared.pairs:
            console.print(
                terminal.table(
                    "Agreement",
                    ("judge", "and", "comparisons", "same verdict", "kappa", "rank correlation"),
                    [
                        (
                            names[pair.one],
                            names[pair.other],
                            pair.n_items,
                            _share(pair.agreement),
                            _figure(pair.kappa, ".2f"),
                            _figure(pair.rank_correlation, ".2f"),
                        )
                        for pair in compared.pairs
                    ],
                ),
                f"Fleiss' kappa of all, over {compared.n_items_of_all} comparisons:"
                f" {_figure(compared.fleiss_kappa, '.2f')}",
            )


def _share(share: float | None, error: float | None = None) -> str:
    if share is None:
        return "–"
    return f"{share:.0%}" if error is None else f"{share:.0%} ± {error:.0%}"


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
