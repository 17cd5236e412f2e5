"""Published coefficients and reliabilities of public data, reproduced.

The data are small published tables, typed in here with their sources.
"""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.bradley_terry import Scale, fit_bradley_terry
from cj_pipeline.comparisons import JudgedPair
from cj_pipeline.epsilon_adjusted import fit_epsilon_adjusted

# Home wins and losses, American League East 1987: Agresti (2002), Categorical Data Analysis,
# 2nd ed., table 10.10; the data set `baseball` of the R package BradleyTerry2.
TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
AT_HOME = [
    [None, (4, 3), (4, 2), (4, 3), (6, 1), (4, 2), (6, 0)],
    [(3, 3), None, (4, 2), (4, 3), (6, 0), (6, 1), (4, 3)],
    [(2, 5), (4, 3), None, (2, 4), (4, 3), (4, 2), (6, 0)],
    [(3, 3), (5, 1), (2, 5), None, (4, 3), (4, 2), (6, 1)],
    [(5, 1), (2, 5), (3, 3), (4, 2), None, (5, 2), (6, 0)],
    [(2, 5), (3, 3), (3, 4), (4, 3), (4, 2), None, (2, 4)],
    [(2, 5), (1, 5), (1, 6), (2, 4), (1, 6), (3, 4), None],
]

# Citations between statistics journals 1987-89, row cited by column: Stigler (1994),
# doi:10.1214/ss/1177010655; the data set `citations` of BradleyTerry2.
JOURNALS = ["Biometrika", "Comm Statist", "JASA", "JRSS-B"]
CITED = [[714, 730, 498, 221], [33, 425, 68, 17], [320, 813, 1072, 142], [284, 276, 325, 188]]

# Decisions of one session of comparative judgement (22 texts, 16 judges), winner before loser,
# texts renamed: session Taha2024_lecturers of Kinnear's meta-analysis of reliability,
# github.com/georgekinnear/cj-meta-analysis, which gives what `sirt::btm` made of it.
SESSION = """
eh ub sv al ck qd js op tr ai fn gd qm jh ba gv ml cv ef oi it kn fu lp ar hp hb ic gq ei
je jo at kp uq od or sc nh um br iv kl jt ed fv sb gu vn im sl cn sq to bk fd mp nr sg hv
ak rl cr qc et jc su td ip fl gi km hk jb am vq eo ur id np fa ga gh be nl bq ju go lt sd
cp fb rm hd fm uv qj vl ec en os ut ob uk ki bp ep hf fh ae ea qe aj ql tm th dn er gj vd
gc ko fp rv sk jn nm gl oc tq ij au ad qp kr st jm hu mb vp lc ol ir dp sf gn hr bv fc qo
ct kd il eu sn eg em ch bi vt ao qk jd ui jp fr sa rg nt om hi bd ev hl qr fk uc ap si gp
on vm bg lu qn jf tf tk rd sm qh bl vj ha cd on ek up sp kg gm bf vj an hl cb fq eo tg fi
ui md jr su vp al cg qg op tp mk dl rp st ni sh bq jv ae oc km up jd mr bn hu vh fa fl cm
"""


def _verdicts(first: str, second: str, wins: int, losses: int) -> list[JudgedPair]:
    return [JudgedPair(first, second, "A")] * wins + [JudgedPair(first, second, "B")] * losses


def _baseball(*, home_advantage: bool) -> Scale:
    games = [
        verdict
        for home, row in zip(TEAMS, AT_HOME, strict=True)
        for away, cell in zip(TEAMS, row, strict=True)
        if cell is not None
        for verdict in _verdicts(home, away, *cell)
    ]
    return fit_bradley_terry(TEAMS, games, prior_comparisons=0, position_effect=home_advantage)


def test_agrestis_baseball_coefficients() -> None:
    """Table 10.11, column 3: 1.58, 1.44, 1.29, 1.25, 1.11, 0.68 and Baltimore 0."""
    scale = _baseball(home_advantage=False)

    coefficients = np.round(scale.scores - scale.scores[-1], 2)

    assert coefficients.tolist() == [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0]


def test_agrestis_standard_errors_against_baltimore() -> None:
    """About 0.3 each, as the text says; ours come from the joint covariance."""
    covariance = _baseball(home_advantage=False).covariance

    variances = np.diag(covariance) + covariance[-1, -1] - 2 * covariance[-1]

    assert np.round(np.sqrt(variances[:-1]), 1).tolist() == [0.3] * 6


def test_agrestis_home_advantage() -> None:
    """Table 10.11, column 5, and the home advantage 0.302: our position effect."""
    scale = _baseball(home_advantage=True)

    strengths = np.exp(scale.scores) / np.exp(scale.scores).sum()

    assert np.sort(np.round(strengths, 3)).tolist() == [
        0.044, 0.088, 0.137, 0.157, 0.164, 0.190, 0.220,
    ]  # fmt: skip
    assert scale.position_effects[""].value == pytest.approx(0.302, abs=5e-4)


def test_stiglers_citation_coefficients() -> None:
    """Turner and Firth (2012), doi:10.18637/jss.v048.i09: -2.9491, -0.4796, 0.2690."""
    verdicts = [
        verdict
        for i in range(4)
        for j in range(i)
        for verdict in _verdicts(JOURNALS[i], JOURNALS[j], CITED[i][j], CITED[j][i])
    ]
    scale = fit_bradley_terry(JOURNALS, verdicts, prior_comparisons=0)

    coefficients = scale.scores - scale.scores[0]

    assert coefficients[1:] == pytest.approx([-2.9491, -0.4796, 0.2690], abs=5e-5)


def test_a_published_scale_separation_reliability() -> None:
    """`mle.rel` of `sirt::btm` (epsilon .3) for this session is .8093508; one text lost always."""
    decisions = [JudgedPair(pair[0], pair[1], "A") for pair in SESSION.split()]

    scale = fit_epsilon_adjusted(list("abcdefghijklmnopqrstuv"), decisions)

    assert scale.reliability == pytest.approx(0.8093508, abs=5e-6)
    assert scale.scores[[18, 0, 15]] == pytest.approx([2.454915, 1.177297, -4.690304], abs=1e-4)
    assert scale.standard_errors[[18, 0, 15]] == pytest.approx([0.725757, 0.519514, 1.85586], 1e-4)
