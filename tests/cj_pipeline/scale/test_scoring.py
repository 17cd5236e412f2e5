"""The settings of a batch decide which parts of the model are on, and say what is off and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.reliability import empirical_bayes
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.intake.settings import BatchSettings, resolve_settings, scoring_rules
from cj_pipeline.scale import bradley_terry
from cj_pipeline.scale.scoring import ScoringRules, score_verdicts

ESSAYS = tuple(f"essay-{i}" for i in range(8))
QUALITY = dict(zip(ESSAYS, np.linspace(-1.5, 1.5, len(ESSAYS)).tolist(), strict=True))


def judged_by(
    *judges: tuple[str, float, float], rounds: int = 1, seed: int = 7
) -> list[JudgedPair]:
    """Return verdicts on all pairs in both orders, by (judge, discrimination, position effect)."""
    rng = np.random.default_rng(seed)
    return [
        JudgedPair(a, b, "A" if rng.random() < p else "B", name)
        for _ in range(rounds)
        for name, strength, position in judges
        for a in ESSAYS
        for b in ESSAYS
        if a != b
        for p in (1 / (1 + np.exp(-strength * (QUALITY[a] - QUALITY[b]) - position)),)
    ]


def test_a_judge_who_prefers_what_it_reads_first_is_found_out() -> None:
    """Without anybody asking for it: this is what `auto` is for."""
    scale = score_verdicts(ESSAYS, judged_by(("eager", 1.0, 1.5), rounds=4), ScoringRules())

    effect = scale.position_effects["eager"]
    assert abs(effect.value - 1.5) < 3 * effect.standard_error


def test_too_few_verdicts_leave_the_position_effect_off_and_say_so() -> None:
    """An effect known to a logit only would move scores by chance."""
    scale = score_verdicts(ESSAYS, judged_by(("new", 1.0, 0.0))[::5], ScoringRules())

    assert not scale.position_effects
    assert any("position effect" in note for note in scale.notes)


def test_position_effects_that_are_on_need_less_than_auto() -> None:
    """Switched on, they are estimated wherever the design identifies them at all."""
    few = judged_by(("one", 0.5, 0.0))[::4]

    careful = score_verdicts(ESSAYS, few, ScoringRules())
    switched_on = score_verdicts(ESSAYS, few, ScoringRules(position_effect="on"))

    assert not careful.position_effects
    assert set(switched_on.position_effects) == {"one"}


def test_off_is_off() -> None:
    """Older batches were scored so, and must be scored so again."""
    rules = ScoringRules(position_effect="off", discrimination="off")

    scale = score_verdicts(ESSAYS, judged_by(("one", 1.0, 1.0), ("two", 1.0, 0.0)), rules)

    assert not scale.position_effects
    assert not scale.discriminations


def test_a_panels_sharp_judge_counts_for_more() -> None:
    """Each judge estimated from its own verdicts, once there are enough of them."""
    panel = judged_by(("sharp", 2.0, 0.0), ("dull", 0.5, 0.0), rounds=3)

    scale = score_verdicts(ESSAYS, panel, ScoringRules())

    assert scale.discriminations["sharp"].value > scale.discriminations["dull"].value + 0.5


@pytest.mark.parametrize("rules", [ScoringRules(), ScoringRules(discrimination="on")])
def test_where_scoring_begins_does_not_move_where_it_ends(rules: ScoringRules) -> None:
    """A wave begins at the last one's scores; a later check has none."""
    panel = judged_by(("one", 1.0, 0.2), ("two", 1.0, 0.0), ("three", 1.2, -0.2), rounds=2)
    earlier = score_verdicts(ESSAYS, panel[: len(panel) // 2], rules)
    start = dict(zip(ESSAYS, earlier.scores.tolist(), strict=True))

    begun = score_verdicts(ESSAYS, panel, rules, start=start)

    refitted = score_verdicts(ESSAYS, panel, rules)
    assert begun.scores == pytest.approx(refitted.scores, abs=1e-10)
    assert begun.standard_errors == pytest.approx(refitted.standard_errors, abs=1e-10)


def test_a_panels_reliability_is_found_with_discriminations_on() -> None:
    """Looked at for spreads far from the true one, discriminations used to run off for ever."""
    panel = judged_by(("one", 1.0, 0.2), ("two", 1.0, 0.0), ("three", 1.2, -0.2), rounds=2)

    scale = score_verdicts(ESSAYS, panel, ScoringRules(discrimination="on"))

    evidence = empirical_bayes(scale)
    assert scale.discriminations
    assert 0.5 < evidence.true_sd < 2
    assert 0.8 < evidence.reliability < 1


def test_discriminations_that_do_not_come_to_rest_are_left_off_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were not requested, so a batch must not end over them."""
    panel = judged_by(("one", 1.0, 0.0), ("two", 1.0, 0.0))
    fit = bradley_terry.fit_bradley_terry

    def restless(*args: Any, discrimination: bool = False, **more: Any) -> bradley_terry.Scale:
        if discrimination:
            msg = "The scale did not converge."
            raise UnscalableBatchError(msg)
        return fit(*args, **more)

    monkeypatch.setattr(bradley_terry, "fit_bradley_terry", restless)
    scale = score_verdicts(ESSAYS, panel, ScoringRules())

    assert not scale.discriminations
    assert any("did not converge" in note for note in scale.notes)


def test_a_panel_with_few_verdicts_has_no_discrimination() -> None:
    """Ten verdicts say nothing of how well a judge tells essays apart."""
    panel = judged_by(("one", 1.0, 0.0)) + judged_by(("two", 1.0, 0.0))[:10]

    scale = score_verdicts(ESSAYS, panel, ScoringRules())

    assert not scale.discriminations


def test_dropped_verdicts_are_those_that_changed_with_the_order() -> None:
    """A judge who takes the first in both orders has said nothing of the two essays."""
    steady = [
        JudgedPair(a, b, "A" if QUALITY[a] > QUALITY[b] else "B", "one")
        for a in ESSAYS
        for b in ESSAYS
        if a != b and {a, b} != {"essay-3", "essay-4"}
    ]
    wavering = [
        JudgedPair("essay-3", "essay-4", "A", "one"),
        JudgedPair("essay-4", "essay-3", "A", "one"),
    ]

    dropped = score_verdicts(ESSAYS, steady + wavering, ScoringRules(inconsistent="drop"))
    halved = score_verdicts(ESSAYS, steady + wavering, ScoringRules(inconsistent="halve"))

    assert dropped.n_comparisons.sum() == 2 * len(steady)
    assert halved.n_comparisons.sum() == 2 * len(steady) + 2


@pytest.mark.parametrize(("written", "meant"), [(True, "on"), (False, "off"), ("auto", "auto")])
def test_yaml_without_quotes_means_what_it_says(written: object, meant: str) -> None:
    """`position_effect: off` is false to YAML."""
    settings, problems = resolve_settings({"position_effect": written})

    assert problems == []
    assert settings is not None
    assert settings.values.position_effect == meant


def test_choix_can_be_asked_for_and_finds_the_same_scores() -> None:
    """By its setting alone: what it cannot do is then off."""
    verdicts = judged_by(("one", 1.0, 0.5), ("two", 1.0, 0.0))
    choix = scoring_rules(BatchSettings(scoring_engine="choix"))
    ours = ScoringRules(position_effect="off", discrimination="off", dependence="off")

    by_choix = score_verdicts(ESSAYS, verdicts, choix)

    assert by_choix.engine == "choix"
    assert by_choix.scores == pytest.approx(score_verdicts(ESSAYS, verdicts, ours).scores, abs=1e-8)


@pytest.mark.parametrize(
    "configured",
    [
        {"scoring_engine": "choix", "position_effect": "on"},
        {"scoring_engine": "choix", "ties": "davidson"},
        {"inconsistent_verdicts": "drop"},
    ],
)
def test_settings_that_exclude_each_other_are_told(configured: dict[str, object]) -> None:
    """Before anything is requested, not after."""
    settings, problems = resolve_settings(configured)

    assert settings is None
    assert len(problems) == 1


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_verdict_means_the_same_whichever_essay_was_shown_first(n: int) -> None:
    """Also in the smallest nets, where each pair has one verdict and all happen to be in order."""
    ids = ESSAYS[:n]
    plain = ScoringRules(position_effect="off")
    chain = [(ids[0], other) for other in ids[1:]]
    for turned in range(2 ** len(chain)):
        judged = [
            JudgedPair(b, a, "B") if turned >> i & 1 else JudgedPair(a, b, "A")
            for i, (a, b) in enumerate(chain)
        ]

        scale = score_verdicts(ids, judged, ScoringRules())

        assert scale.scores == pytest.approx(score_verdicts(ids, judged, plain).scores, abs=1e-6)
        assert scale.scores[0] > max(scale.scores[1:])
