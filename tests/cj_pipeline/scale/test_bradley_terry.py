"""The scale, checked by hand, by recovery, against choix and published tables, and by laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry
from cj_pipeline.scale.connectivity import net_parts
from cj_pipeline.scale.laplacian import dense
from cj_pipeline.scale.likelihood import gradient_at, stepped


def _judge(
    truth: np.ndarray, n_verdicts: int, seed: int, *, position: float = 0.0, judge_id: str = "j"
) -> list[JudgedPair]:
    """Return verdicts of one judge on random pairs of essays that truly differ by `truth`."""
    rng = np.random.default_rng(seed)
    verdicts = []
    for _ in range(n_verdicts):
        a, b = rng.choice(len(truth), 2, replace=False)
        wins = rng.random() < 1 / (1 + np.exp(-(truth[a] - truth[b] + position)))
        verdicts.append(JudgedPair(f"e{a:03d}", f"e{b:03d}", "A" if wins else "B", judge_id))
    return verdicts


def _ids(n: int) -> list[str]:
    return [f"e{i:03d}" for i in range(n)]


def _repeat(essay_a: str, essay_b: str, wins: int, losses: int, ties: int = 0) -> list[JudgedPair]:
    return (
        [JudgedPair(essay_a, essay_b, "A")] * wins
        + [JudgedPair(essay_a, essay_b, "B")] * losses
        + [JudgedPair(essay_a, essay_b, "tie")] * ties
    )


def test_two_essays_differ_by_the_log_odds_of_their_verdicts() -> None:
    """With two essays and no prior the maximum is log(wins / losses), by hand."""
    scale = fit_bradley_terry(["x", "y"], _repeat("x", "y", 3, 1), prior_comparisons=0)

    assert scale.scores[0] - scale.scores[1] == pytest.approx(np.log(3))


def test_two_essays_have_the_standard_error_of_half_a_log_odds() -> None:
    """The log odds of 3 in 4 vary by 1/3 + 1/1; each essay bears half the difference."""
    scale = fit_bradley_terry(["x", "y"], _repeat("x", "y", 3, 1), prior_comparisons=0)

    assert scale.standard_errors == pytest.approx(np.full(2, 0.5 * np.sqrt(1 / 3 + 1)))


def test_the_prior_counts_as_verdicts_against_an_average_essay() -> None:
    """Stated as half a verdict per essay, so adding those by hand gives the same scores."""
    verdicts = _repeat("x", "y", 3, 1)
    by_hand = [*verdicts, *verdicts]  # everything doubled, so that the prior's halves are whole
    for essay in ("x", "y"):
        by_hand += [JudgedPair(essay, "average", "tie")]
    with_average = fit_bradley_terry(["x", "y", "average"], by_hand, prior_comparisons=0)

    scale = fit_bradley_terry(["x", "y"], verdicts, prior_comparisons=0.5)

    assert scale.scores[0] - scale.scores[1] == pytest.approx(
        with_average.scores[0] - with_average.scores[1]
    )


@pytest.mark.parametrize("prior_comparisons", [0.0, 0.5])
def test_choix_finds_the_same_scores(prior_comparisons: float) -> None:
    """An independent algorithm on the same data and prior must end at the same maximum."""
    verdicts = _judge(np.random.default_rng(5).normal(0, 1, 12), 400, seed=6)

    newton = fit_bradley_terry(_ids(12), verdicts, prior_comparisons=prior_comparisons)
    choix = fit_bradley_terry(
        _ids(12), verdicts, prior_comparisons=prior_comparisons, engine="choix"
    )

    assert newton.scores == pytest.approx(choix.scores, abs=1e-8)
    assert newton.standard_errors == pytest.approx(choix.standard_errors, abs=1e-8)


def test_choix_agrees_where_an_essay_won_everything() -> None:
    """One-sided essays are where regularisations differ; ours is the same in both engines."""
    verdicts = _judge(np.array([9.0, 0.0, 0.2, -0.3, -9.0]), 60, seed=1)

    newton = fit_bradley_terry(_ids(5), verdicts)
    choix = fit_bradley_terry(_ids(5), verdicts, engine="choix")

    assert newton.one_sided
    assert newton.scores == pytest.approx(choix.scores, abs=1e-7)


def test_simulated_scores_are_recovered() -> None:
    """Many verdicts per essay leave little doubt about each score."""
    truth = np.random.default_rng(2).normal(0, 1.5, 30)

    scale = fit_bradley_terry(_ids(30), _judge(truth, 6000, seed=3))

    assert np.corrcoef(truth, scale.scores)[0, 1] > 0.995
    assert np.sqrt(np.mean((scale.scores - truth + truth.mean()) ** 2)) == pytest.approx(
        np.sqrt(np.mean(scale.standard_errors**2)), rel=0.35
    )


def test_every_essay_has_its_own_standard_error() -> None:
    """No essay is a reference: errors are against the batch's mean, so none is zero."""
    scale = fit_bradley_terry(_ids(6), _judge(np.zeros(6), 90, seed=4))

    assert np.all(scale.standard_errors > 0.1)


def test_errors_are_those_of_the_whole_information_matrix() -> None:
    """Written out with NumPy: the pseudo-inverse of the centred information, no prior."""
    scale = fit_bradley_terry(_ids(6), _judge(np.zeros(6), 90, seed=4), prior_comparisons=0)
    information = np.zeros((6, 6))
    cells = scale.model.cells
    for i, j, n in zip(cells.first, cells.second, cells.counts, strict=True):
        p = 1 / (1 + np.exp(scale.scores[j] - scale.scores[i]))
        contrast = np.zeros(6)
        contrast[[i, j]] = 1, -1
        information += n * p * (1 - p) * np.outer(contrast, contrast)

    by_hand = np.linalg.pinv(information)

    assert scale.covariance == pytest.approx(by_hand, abs=1e-9)
    assert scale.standard_errors**2 == pytest.approx(np.diag(by_hand), abs=1e-9)


def test_the_covariance_of_some_essays_is_a_part_of_the_whole() -> None:
    """Grades need anchors' and students' joint errors without the whole matrix."""
    scale = fit_bradley_terry(_ids(8), _judge(np.zeros(8), 90, seed=4), position_effect=True)

    part = scale.covariance_among(["e005", "e001"])

    assert part == pytest.approx(scale.covariance[np.ix_([5, 1], [5, 1])], abs=1e-9)


def test_scores_have_mean_zero() -> None:
    """Logits have no origin of their own; the batch's mean is ours."""
    scale = fit_bradley_terry(_ids(7), _judge(np.linspace(-3, 1, 7), 200, seed=8))

    assert scale.scores.mean() == pytest.approx(0, abs=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_swapping_the_sides_changes_nothing(seed: int) -> None:
    """Without a position effect it does not matter who was shown first."""
    verdicts = [*_repeat("e000", "e001", 1, 1), *_judge(np.zeros(5), 40, seed=seed)]
    swapped = [
        JudgedPair(v.essay_b, v.essay_a, {"A": "B", "B": "A", "tie": "tie"}[v.winner])  # type: ignore[arg-type]
        for v in verdicts
    ]
    if _is_in_parts(verdicts, 5):
        return

    assert fit_bradley_terry(_ids(5), swapped).scores == pytest.approx(
        fit_bradley_terry(_ids(5), verdicts).scores, abs=1e-9
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_turning_every_verdict_turns_the_scale(seed: int) -> None:
    """Better and worse are alike to the model, prior included."""
    verdicts = _judge(np.zeros(5), 40, seed=seed)
    if _is_in_parts(verdicts, 5):
        return
    turned = [JudgedPair(v.essay_a, v.essay_b, "B" if v.winner == "A" else "A") for v in verdicts]

    assert fit_bradley_terry(_ids(5), turned).scores == pytest.approx(
        -fit_bradley_terry(_ids(5), verdicts).scores, abs=1e-9
    )


def _is_in_parts(verdicts: list[JudgedPair], n: int) -> bool:
    return len(net_parts(_ids(n), verdicts)) > 1


def test_a_tie_counts_half_a_win_to_each() -> None:
    """Half-half: two ties say what a win and a loss say."""
    tied = fit_bradley_terry(["x", "y"], _repeat("x", "y", 3, 1, ties=2))
    split = fit_bradley_terry(["x", "y"], _repeat("x", "y", 4, 2))

    assert tied.scores == pytest.approx(split.scores)


def test_weights_count_as_so_many_verdicts() -> None:
    """A verdict with weight three is three verdicts."""
    verdicts = [JudgedPair("x", "y", "A"), JudgedPair("x", "y", "B")]

    weighted = fit_bradley_terry(["x", "y"], verdicts, weights=[3.0, 1.0])

    assert weighted.scores == pytest.approx(
        fit_bradley_terry(["x", "y"], _repeat("x", "y", 3, 1)).scores
    )


@pytest.mark.parametrize("weights", [[0.0, 1.0], [-1.0, 1.0], [np.nan, 1.0], [1.0]])
def test_weights_are_one_positive_number_per_verdict(weights: list[float]) -> None:
    """A verdict that is not to count is left out, so that it is not counted by mistake."""
    verdicts = [*_repeat("x", "y", 1, 1)]

    with pytest.raises(UnscalableBatchError, match="Weights must be 2 positive numbers"):
        fit_bradley_terry(["x", "y"], verdicts, weights=weights)


def test_counts_are_those_of_the_verdicts() -> None:
    """The table readers check against their own: comparisons, wins, losses, positions."""
    scale = fit_bradley_terry(["x", "y"], _repeat("x", "y", 3, 1, ties=1))

    assert scale.n_comparisons.tolist() == [5, 5]
    assert scale.wins.tolist() == [3.5, 1.5]
    assert scale.losses.tolist() == [1.5, 3.5]
    assert scale.shown_a.tolist() == [5, 0]
    assert scale.shown_b.tolist() == [0, 5]


def test_a_warm_start_ends_where_a_cold_one_does() -> None:
    """The maximum is unique, so the last wave's scale only saves steps."""
    verdicts = _judge(np.random.default_rng(5).normal(0, 1, 12), 300, seed=6)
    last_wave = fit_bradley_terry(_ids(12), verdicts[:250])
    start = dict(zip(_ids(12), last_wave.scores.tolist(), strict=True))

    warm = fit_bradley_terry(_ids(12), verdicts, start=start)
    cold = fit_bradley_terry(_ids(12), verdicts)

    assert warm.scores == pytest.approx(cold.scores, abs=1e-10)
    assert warm.n_steps <= cold.n_steps


@pytest.mark.parametrize("n_new", [0, 1, 300])
@pytest.mark.parametrize("position_effect", [False, True])
def test_a_large_net_begun_at_its_end_is_solved_no_less_sharply(
    n_new: int, position_effect: bool
) -> None:
    """Its first step is short however badly it was solved, and must not pass for the last."""
    n = 400
    verdicts = _judge(np.random.default_rng(5).normal(0, 1, n), 4000 + n_new, seed=6)
    ids = _ids(n)
    last_wave = fit_bradley_terry(ids, verdicts[:4000], position_effect=position_effect)
    start = dict(zip(ids, last_wave.scores.tolist(), strict=True))

    warm = fit_bradley_terry(ids, verdicts, position_effect=position_effect, start=start)
    cold = fit_bradley_terry(ids, verdicts, position_effect=position_effect)

    assert cold.model.layout.method == "iterative"
    assert warm.scores == pytest.approx(cold.scores, abs=1e-10)
    assert warm.n_steps <= cold.n_steps


def test_position_effects_are_recovered_per_judge() -> None:
    """One judge favours the first essay by .5 logits, the other does not."""
    truth = np.random.default_rng(2).normal(0, 1, 20)
    verdicts = [
        *_judge(truth, 3000, seed=3, position=0.5, judge_id="leaning"),
        *_judge(truth, 3000, seed=4, judge_id="upright"),
    ]

    scale = fit_bradley_terry(_ids(20), verdicts, position_effect=True)

    leaning, upright = scale.position_effects["leaning"], scale.position_effects["upright"]
    assert leaning.value == pytest.approx(0.5, abs=3 * leaning.standard_error)
    assert upright.value == pytest.approx(0.0, abs=3 * upright.standard_error)
    assert leaning.standard_error < 0.06


def test_a_position_effect_the_design_cannot_tell_is_off_and_said_to_be() -> None:
    """Each pair once in one order along a chain: favouring A looks just like better essays."""
    verdicts = [v for i in range(5) for v in _repeat(f"e{i:03d}", f"e{i + 1:03d}", 3, 2)]

    scale = fit_bradley_terry(_ids(6), verdicts, position_effect=True)

    assert scale.position_effects == {}
    assert "both orders" in scale.notes[0]


def test_discrimination_tells_a_sharp_judge_from_a_guessing_one() -> None:
    """The sharp judge's log odds are twice those of the vague one."""
    truth = np.random.default_rng(2).normal(0, 1, 20)
    verdicts = [
        *_judge(truth * 1.6, 3000, seed=3, judge_id="sharp"),
        *_judge(truth * 0.8, 3000, seed=4, judge_id="vague"),
    ]

    scale = fit_bradley_terry(_ids(20), verdicts, discrimination=True)

    ratio = scale.discriminations["sharp"].value - scale.discriminations["vague"].value
    assert ratio == pytest.approx(np.log(2), abs=0.15)
    assert sum(d.value for d in scale.discriminations.values()) == pytest.approx(0, abs=1e-5)


def test_one_judge_alone_has_no_discrimination() -> None:
    """It would only stretch the scale, so it is off and said to be."""
    scale = fit_bradley_terry(_ids(6), _judge(np.zeros(6), 90, seed=4), discrimination=True)

    assert scale.discriminations == {}
    assert "One judge alone" in scale.notes[0]


@pytest.mark.parametrize("options", [{}, {"position_effect": True, "discrimination": True}])
def test_gradient_and_information_are_the_derivatives_of_one_another(
    options: dict[str, bool],
) -> None:
    """The information must be minus the gradient's derivative, found here by small moves."""
    verdicts = [
        *_judge(np.linspace(-1, 1, 6), 60, seed=1, position=0.6, judge_id="one"),
        *_judge(np.linspace(-1, 1, 6), 60, seed=2, judge_id="two"),
        *_repeat("e000", "e005", 0, 0, ties=6),
    ]
    scale = fit_bradley_terry(_ids(6), verdicts, ties="davidson", **options)
    model, n_others = scale.model, scale.model.n_others
    essays = dense(scale.information.essays)
    analytic = np.block(
        [
            [essays, scale.information.border],
            [scale.information.border.T, scale.information.corner],
        ]
    )

    numeric = np.empty_like(analytic)
    for k in range(6 + n_others):
        move = np.zeros(6 + n_others)
        move[k] = 1e-5
        ahead, behind = (
            gradient_at(
                model,
                stepped(model, scale.point, move[:6], move[6:], sign),
                for_steps=False,
            )
            for sign in (1, -1)
        )
        difference = np.append(ahead.theta, ahead.others) - np.append(behind.theta, behind.others)
        numeric[:, k] = -difference / 2e-5

    # The stiffness that holds the mean of the discriminations is 1e6: compare relative to that.
    assert numeric == pytest.approx(analytic, abs=1e-3 if "discrimination" in options else 1e-6)


def test_davidsons_tie_strength_is_the_odds_of_a_tie_between_equals() -> None:
    """For equal essays, ties : (wins + losses) = nu : 2, by hand."""
    verdicts = _repeat("x", "y", 10, 10, ties=5)

    scale = fit_bradley_terry(["x", "y"], verdicts, ties="davidson", prior_comparisons=0)

    assert scale.tie_strength is not None
    assert np.exp(scale.tie_strength.value) == pytest.approx(2 * 5 / 20)


def _refused(*arguments: object, **options: object) -> str:
    with pytest.raises(UnscalableBatchError) as caught:
        fit_bradley_terry(*arguments, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_net_in_parts_is_refused_with_its_parts() -> None:
    """Nothing ties the parts to one scale, whatever a solver would return."""
    verdicts = [*_repeat("a", "b", 1, 1), *_repeat("b", "c", 1, 1), *_repeat("d", "e", 1, 1)]

    message = _refused(list("abcdef"), verdicts)

    assert "3 parts (3, 2 and 1 essays)" in message
    assert "d, e, f" in message


def test_nothing_judged_is_refused() -> None:
    """A scale of no verdicts is no scale."""
    assert "no scale" in _refused(["a", "b"], [])


def test_an_essay_listed_twice_is_refused_by_name() -> None:
    """It would have two scores."""
    assert "Essays listed twice: a" in _refused(["a", "a", "b"], _repeat("a", "b", 1, 1))


def test_an_essay_nobody_knows_is_refused_by_name() -> None:
    """A verdict about another batch's essay must not be dropped in silence."""
    assert "essay 'z'" in _refused(["a", "b"], _repeat("a", "z", 1, 1))


def test_an_essay_against_itself_is_refused() -> None:
    """It says nothing, and the plan that holds it is at fault."""
    assert "against itself" in _refused(["a", "b"], _repeat("a", "a", 1, 1))


def test_a_winner_that_is_neither_is_refused() -> None:
    """Verdicts are A, B or tie; a typing slip must not become a loss."""
    assert "winner 'a'" in _refused(["a", "b"], [JudgedPair("a", "b", "a")])  # type: ignore[arg-type]


def test_one_sided_essays_are_named_and_finite() -> None:
    """An essay that won everything has a score, which rests on the prior, and is said so."""
    verdicts = [*_repeat("top", "a", 4, 0), *_repeat("a", "b", 2, 2), *_repeat("top", "b", 4, 0)]

    scale = fit_bradley_terry(["top", "a", "b"], verdicts)

    assert scale.one_sided == ("top",)
    assert np.all(np.isfinite(scale.standard_errors))
    assert scale.standard_errors[0] == scale.standard_errors.max()
    assert "top" in scale.notes[0]


def test_separated_groups_are_named_though_no_essay_is_one_sided() -> None:
    """Two pairs of even essays, the upper pair never beaten by the lower."""
    verdicts = [
        *_repeat("a", "b", 2, 2),
        *_repeat("c", "d", 2, 2),
        *_repeat("a", "c", 3, 0),
        *_repeat("b", "d", 3, 0),
    ]

    scale = fit_bradley_terry(list("abcd"), verdicts)

    assert scale.one_sided == ()
    assert set(scale.separated) == {("a", "b"), ("c", "d")}
    assert "2 groups" in scale.notes[0]


def test_separation_without_a_prior_is_refused() -> None:
    """The likelihood has no finite maximum then (Ford 1957)."""
    assert "infinite" in _refused(["a", "b"], _repeat("a", "b", 3, 0), prior_comparisons=0)


def test_nothing_but_ties_has_no_tie_strength_without_a_prior() -> None:
    """It would be infinite; said in words rather than by a singular matrix."""
    ties = _repeat("x", "y", 0, 0, ties=5)

    message = _refused(["x", "y"], ties, ties="davidson", prior_comparisons=0)

    assert "se the prior" in message


def test_lopsided_repeats_among_ties_do_not_stall_the_fit() -> None:
    """A thousand wins next to ties: far-apart essays must not lose the tie's precision."""
    verdicts = [
        *_repeat("a", "b", 1000, 0),
        *_repeat("b", "c", 1000, 0),
        *_repeat("a", "c", 0, 0, ties=1),
        *_repeat("c", "d", 3, 0, ties=30),
    ]

    scale = fit_bradley_terry(list("abcd"), verdicts, ties="davidson")

    assert np.all(np.diff(scale.scores) < 0)


def test_what_does_not_come_to_rest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-climbed hill is no scale; with two steps allowed nothing gets there."""
    monkeypatch.setattr("cj_pipeline.scale.bradley_terry._MAX_STEPS", 2)

    assert "did not converge in 2 steps" in _refused(_ids(6), _judge(np.arange(6.0), 300, seed=1))


def test_contradictory_verdicts_cancel() -> None:
    """As many verdicts each way say that the essays are alike, with an error that shows it."""
    scale = fit_bradley_terry(["x", "y"], _repeat("x", "y", 5, 5))

    assert scale.scores == pytest.approx(np.zeros(2), abs=1e-12)


def test_choix_is_refused_what_it_cannot_model() -> None:
    """Rather than leaving the position effect out in silence."""
    verdicts = [*_repeat("x", "y", 5, 5), *_repeat("y", "x", 5, 5)]

    assert "plain model" in _refused(["x", "y"], verdicts, engine="choix", position_effect=True)


@pytest.mark.parametrize("n_essays", [60, 300])
@pytest.mark.parametrize("design", ["random", "banded", "star", "ring of cliques"])
def test_every_way_of_solving_ends_at_a_flat_place(n_essays: int, design: str) -> None:
    """Dense, banded and iterative solving must all reach the maximum, whatever the graph."""
    scale = _fit_design(design, n_essays)

    gradient = gradient_at(scale.model, scale.point, for_steps=False)
    left = np.linalg.solve(dense(gradient.information.essays), gradient.theta)
    assert np.abs(left - left.mean()).max() < 1e-8


def _fit_design(design: str, n: int) -> Scale:
    rng = np.random.default_rng(7)
    near = {
        "random": [(i, int(j)) for i in range(n) for j in rng.choice(n, 6) if i != j],
        "banded": [(i, (i + k) % n) for i in range(n) for k in (1, 2, 3) if i + k < n],
        "star": [(0, i) for i in range(1, n) for _ in range(3)],
        "ring of cliques": [(i, i - i % 6 + k) for i in range(n) for k in range(6) if i % 6 < k]
        + [(i, (i + 1) % n) for i in range(5, n, 6)],
    }[design]
    truth = rng.normal(0, 1, n)
    shuffled = rng.permutation(n)
    verdicts = []
    for a, b in near:
        for _ in range(2):
            wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
            verdicts.append(
                JudgedPair(f"e{shuffled[a]:03d}", f"e{shuffled[b]:03d}", "A" if wins else "B")
            )
    return fit_bradley_terry(_ids(n), verdicts)
