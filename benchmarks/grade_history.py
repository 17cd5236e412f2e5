"""What a history of earlier gradings does to the honesty of grades.

Every row has cohorts as `grades.py` simulates them, graded twice: with the usual disagreement
taken beforehand, and with what eight earlier cohorts, with anchors of their own, have shown. A new
history is simulated for every ten cohorts. `before` other than `now` is a judge that has changed.

    python benchmarks/grade_history.py [--replications 150]

Printed per row: the calibration error of the confidence (ten bins), confidence less hits (positive
where grades are too sure) with its Monte Carlo error over cohorts, and how often the anchors' log
score warns.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass, field

import numpy as np
import scipy
from grades import ALWAYS_GRADE, SCALE, TWELVE, Cohort, Setting, calibration_error, simulate
from numpy.typing import NDArray

from cj_pipeline.grading.anchors import TOO_SURE
from cj_pipeline.grading.disagreement import (
    Disagreement,
    EarlierGrading,
    learn,
    usual_disagreement,
)
from cj_pipeline.grading.projection import GradeProjections, project_grades

N_EARLIER, COHORTS_A_HISTORY = 8, 10
NINE, SIX = tuple(range(9)), (0, 2, 3, 5, 6, 8)
ROWS = (
    ("6 anchors", SIX, 0.5, 0.5),
    ("9 anchors", NINE, 0.5, 0.5),
    ("12 anchors", TWELVE, 0.5, 0.5),
    ("12 anchors", TWELVE, 1.0, 1.0),
    ("12 anchors", TWELVE, 1.0, 0.2),
    ("12 anchors", TWELVE, 0.3, 1.2),
)
"""Anchors, and the disagreement of judge and graders in steps, now and before."""


@dataclass
class Reckoning:
    """What one way of grading came to, cohort by cohort."""

    confidence: list[NDArray[np.float64]] = field(default_factory=list)
    is_right: list[NDArray[np.bool_]] = field(default_factory=list)
    warns: list[bool] = field(default_factory=list)

    def add(self, cohort: Cohort, found: GradeProjections) -> None:
        students = found.probabilities[cohort.n_anchors :]
        self.confidence.append(students.max(axis=1))
        self.is_right.append(students.argmax(axis=1) == cohort.true_steps)
        score = found.anchor_check.log_score
        self.warns.append(score is not None and score.chance < TOO_SURE)

    def row(self) -> str:
        confidence, is_right = np.concatenate(self.confidence), np.concatenate(self.is_right)
        gaps = [
            float(c.mean() - r.mean()) for c, r in zip(self.confidence, self.is_right, strict=True)
        ]
        error = np.std(gaps, ddof=1) / np.sqrt(len(gaps))
        return (
            f"{calibration_error(confidence, is_right):.3f} | {np.mean(gaps):+.3f} ± {error:.3f}"
            f" | {np.mean(self.warns):.3f}"
        )


def graded(cohort: Cohort, expected: Disagreement | None) -> GradeProjections:
    """Return a cohort's grades."""
    known = {cohort.ids[i]: SCALE.grades[step] for i, step in enumerate(cohort.anchor_steps)}
    return project_grades(
        SCALE,
        cohort.ids,
        cohort.scores,
        cohort.covariance,
        known,
        rules=ALWAYS_GRADE,
        expected=expected,
    )


def history(anchors: tuple[int, ...], disagreement: float, number: int) -> Disagreement:
    """Return what earlier cohorts make of the usual disagreement."""
    setting = Setting("before", anchors, disagreement=disagreement, n_students=20)
    earlier = []
    for k in range(N_EARLIER):
        found = graded(simulate(setting, np.random.default_rng([20261130, number, k])), None)
        assert found.disagreement is not None
        earlier.append(EarlierGrading(f"b{k}", 1, 1.0, found.disagreement.exemplars))
    return learn(usual_disagreement(len(SCALE.steps)), earlier)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=150)
    n_replications = parser.parse_args().replications
    print(
        f"{n_replications} cohorts a row; Python {platform.python_version()}, NumPy "
        f"{np.__version__}, SciPy {scipy.__version__}, {platform.machine()}.\n\n"
        "| anchors | now, before | taken | ECE | confidence less hits | log score warns |\n"
        "|---|---|---|---:|---:|---:|",
        flush=True,
    )
    for name, anchors, now, before in ROWS:
        setting = Setting(name, anchors, disagreement=now, n_students=40)
        usual, learnt, medians = Reckoning(), Reckoning(), []
        for number in range(n_replications):
            if number % COHORTS_A_HISTORY == 0:
                expected = history(anchors, before, number)
                medians.append(expected.median)
            cohort = simulate(setting, np.random.default_rng([20240601, number]))
            usual.add(cohort, graded(cohort, None))
            learnt.add(cohort, graded(cohort, expected))
        print(f"| {name} | {now}, {before} | usual | {usual.row()} |")
        print(f"| | | learnt ({np.mean(medians):.2f}) | {learnt.row()} |", flush=True)


if __name__ == "__main__":
    main()
