"""A batch taken to its end without a store: the same planning, pricing, scoring and deciding.

For laws that need hundreds of batches. What sends and collects is left out, so every request gets a
verdict, drawn at random, and is billed what it is expected to cost.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace

from cj_pipeline.batch.comparisons import JudgedPair, PlannedComparison
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.judging.estimates import expected_usd, worst_case_usd
from cj_pipeline.pairing.judge_shares import pairs_as_chosen
from cj_pipeline.planning.next_wave import next_comparisons
from cj_pipeline.provider_jobs.requests import BatchTexts, prompt_for
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.queries.comparison_graph import GraphSoFar, empty_graph, with_scores
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.scoring import score_verdicts
from cj_pipeline.stopping.continuation import BatchProgress, EndReason, decide_continuation


@dataclass
class SimulatedBatch:
    """What was asked and answered so far."""

    record: BatchRecord
    texts: BatchTexts
    rng: random.Random
    planned: list[PlannedComparison] = field(default_factory=list)
    judged: list[JudgedPair] = field(default_factory=list)
    billed_usd: float = 0.0

    def end(self) -> EndReason:
        """Ask wave after wave, and return why the batch ended."""
        change, before, wave = None, None, 0
        while True:
            wave += 1
            asked = list(next_comparisons(self.record, wave, self._history()))
            cap = self.record.settings.spend_cap_usd
            reserved, bill = self._usd(asked)
            refused = cap is not None and self.billed_usd + reserved > cap
            if not refused:
                self.billed_usd += bill
                self._judge(asked)
            scale = self._scale()
            if scale is not None and before is not None:
                change = float(abs(scale.scores - before.scores).max())
            before = scale or before
            decided = decide_continuation(
                BatchProgress(
                    n_essays=len(self.record.essay_ids),
                    submitted=len(self.judged),
                    completed=len(self.judged),
                    failed=0,
                    n_covered_pairs=len({pair.pair for pair in self.judged}),
                    is_connected=scale is not None,
                    max_score_change=change,
                    spend_cap_reached=refused,
                    nothing_left_to_ask=not asked,
                ),
                self.record.rules,
            )
            if decided.reason is not None:
                return decided.reason

    def _history(self) -> GraphSoFar:
        scale = self._scale()
        graph = empty_graph(self.record)
        rows = [(each.essay_a, each.essay_b, each.judge_id) for each in self.planned]
        chosen = pairs_as_chosen(rows)
        graph = replace(graph, shown=tuple(rows[pair[0]][:2] for pair in chosen))
        return GraphSoFar(
            graph if scale is None else with_scores(graph, self.record, scale),
            tuple(
                sum(each.judge_id == judge.judge_id for each in self.planned)
                for judge in self.record.judges
            ),
            len(chosen),
            sum(self.planned[pair[0]].resampling_pass > 0 for pair in chosen),
            self._shares(),
        )

    def _shares(self) -> tuple[float, ...] | None:
        """Judges chosen by worth get whatever shares their verdicts are worth."""
        if self.record.settings.judge_choice == "shares":
            return None
        drawn = [0.05 + self.rng.random() for _ in self.record.judges]
        return tuple(each / math.fsum(drawn) for each in drawn)

    def _scale(self) -> Scale | None:
        try:
            return score_verdicts(self.record.essay_ids, self.judged, self.record.scoring_rules)
        except UnscalableBatchError:
            return None

    def _usd(self, asked: list[PlannedComparison]) -> tuple[float, float]:
        """Return what is reserved for comparisons, and what they are billed."""
        batched = self.record.settings.batching_mode == "provider_batch_api"
        reserved, billed = [], []
        for each in asked:
            judge = self.record.judge(each.judge_id)
            shown = {
                "comparison_id": each.comparison_id,
                "essay_a": each.essay_a,
                "essay_b": each.essay_b,
            }
            prompt = prompt_for(self.record, judge, self.texts, shown)
            reserved.append(worst_case_usd(judge.price, prompt, judge, batched=batched))
            billed.append(expected_usd(judge.price, prompt, batched=batched))
        return math.fsum(reserved), math.fsum(billed)

    def _judge(self, asked: list[PlannedComparison]) -> None:
        self.planned += asked
        self.judged += [
            JudgedPair(
                each.essay_a,
                each.essay_b,
                self.rng.choice(("A", "A", "A", "B", "B", "B", "tie")),
                each.judge_id,
            )
            for each in asked
        ]
