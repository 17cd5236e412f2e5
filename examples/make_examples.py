"""Write the example batches anew from the data sets they are taken from.

The examples are committed; this shows how they came about and repeats it exactly:

    python examples/make_examples.py FOLDER_WITH_THE_DATA_SETS

The folder holds `ukp_demo_items.csv` (UKPConvArg1, CC BY 4.0) and `pairwisellm_demo_100.csv`
(pairwiseLLM, MIT); see ATTRIBUTION.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parent

LEFT_OUT = "ukp:208793"
"""The same text as ukp:208794, and a batch may hold a text only once."""

LEVELS = range(1, 21)
ANCHORS_PER_STEP = 2
N_STUDENTS = 42
LOGITS_PER_LEVEL = 0.3
"""Of latent quality: the twenty levels then span 5.7 logits, the nine steps two thirds each."""

Row = dict[str, str]


@dataclass(frozen=True)
class Topic:
    """One side of a debate, as an example batch."""

    name: str
    prompt: str
    title: str
    claim: str
    budget: int
    wave_size: int


TOPICS = (
    Topic("uniform-bad", "uniform-bad", "School uniforms: a bad idea",
          "The school uniform is a bad idea.", 240, 120),
    Topic("uniform-good", "uniform-good", "School uniforms: a good idea",
          "The school uniform is a good idea.", 240, 120),
    Topic("school-sport", "pe-yes", "Mandatory physical education: yes",
          "Physical education should be mandatory in schools.", 210, 70),
)  # fmt: skip

TOPIC_SETTINGS = """\
title: "{title}"
about: >-
  Short arguments that people posted in a public debate, each taking the same side. The judge
  replays recorded votes of real people (UKPConvArg1, CC BY 4.0); no model is asked and nothing
  is paid. There are no anchors, so the batch ends with scores and ranks, not with grades.{more}
course_id: demo
assignment_id: {name}
language: en
judges: [human-votes]
llm_batching_mode: provider_batch_api
max_pairwise_comparisons: {budget}
wave_size: {wave_size}
score_stability_threshold: null
spend_cap_usd: 5.0
"""

TOPIC_INSTRUCTIONS = """\
# {title}

Write a short argument that supports this claim:

> {claim}

Give reasons that would convince somebody who has not made up their mind.
"""

GRADED_SETTINGS = """\
title: "English essays on nine steps (machine-written)"
about: >-
  These texts are machine-written: a language model was asked for essays of twenty quality levels
  (pairwiseLLM, MIT). The judge is simulated too: it knows each text's intended level and prefers
  the better one with noise. Grades from this batch show how the pipeline works; they say nothing
  about any student or model.
course_id: demo
assignment_id: challenge
language: en
scale: eng5_np_national_9_step
judges: [quality]
llm_batching_mode: provider_batch_api
max_pairwise_comparisons: 600
wave_size: 150
score_stability_threshold: null
spend_cap_usd: 5.0
# What the simulated judge goes by: (intended level - 10.5) x {logits}, in logits.
emulator_qualities:
"""

GRADED_INSTRUCTIONS = """\
# A challenge

{prompt}
"""

GRADED_RUBRIC = """\
- **Content**: the challenge, what was done about it, and what was learned are told in full.
- **Structure**: the reader can follow from beginning to end.
- **Language**: words and sentences are varied and fit what is said.
"""

LOWER5_SETTINGS = """\
title: "LOWER5: five essays, every pair and three passes more"
about: >-
  A small net of five machine-written texts and a mock judge that decides for Essay A in 40 % of
  comparisons, whatever the texts say. It ends after 10 + 3 x 10 = 40 comparisons.
course_id: demo
assignment_id: lower5
language: en
judges: [eng5-lower5-gpt51-low]
llm_batching_mode: provider_batch_api
max_pairwise_comparisons: 120
min_resampling_net_size: 5
max_resampling_passes_for_small_net: 3
score_stability_threshold: null
spend_cap_usd: 5.0
"""


def main(source: Path) -> None:
    """Write every example batch."""
    items = read_rows(source / "ukp_demo_items.csv")
    for topic in TOPICS:
        write_topic(topic, [row for row in items if row["prompt"] == topic.prompt])
    essays = sorted(read_rows(source / "pairwisellm_demo_100.csv"), key=lambda row: row["id"])
    write_graded(essays)
    write_lower5(essays)


def write_topic(topic: Topic, items: Sequence[Row]) -> None:
    """Write one topic: arguments in the data set's order, the one duplicate left out."""
    kept = [row for row in items if row["id"] != LEFT_OUT]
    more = (
        f"\n  One argument is left out: {slug(LEFT_OUT)} has the same text as another."
        if len(kept) < len(items)
        else ""
    )
    folder = EXAMPLES / topic.name
    values = vars(topic) | {"more": more}
    write(folder / "batch.yaml", TOPIC_SETTINGS.format(**values))
    write(folder / "instructions.md", TOPIC_INSTRUCTIONS.format(**values))
    write_table(
        folder / "essays.csv",
        ("essay_id", "text"),
        ((slug(row["id"]), row["text"]) for row in kept),
    )


def step_of(level: int) -> int:
    """Return the step, 1 to 9, for an intended level, 1 to 20: equal shares of the levels."""
    return 1 + (level - 1) * 9 // 20


def write_graded(essays: Sequence[Row]) -> None:
    """Write the graded batch: two anchors per step, from its lowest and its highest level."""
    by_level = {
        level: [row for row in essays if int(row["intended_level"]) == level] for level in LEVELS
    }
    anchors = []
    for step in range(1, 10):
        levels = [level for level in LEVELS if step_of(level) == step]
        anchors += [by_level[level].pop(0) for level in (levels[0], levels[-1])]
    # Two of every level, and a third of the two in the middle.
    students = [row for level in LEVELS for row in by_level[level][: 3 if level in (10, 11) else 2]]
    if (len(anchors), len(students)) != (9 * ANCHORS_PER_STEP, N_STUDENTS):
        msg = f"expected 18 anchors and 42 students, got {len(anchors)} and {len(students)}"
        raise ValueError(msg)

    folder = EXAMPLES / "graded-english"
    qualities = "".join(
        f"  {slug(row['id'])}: {(int(row['intended_level']) - 10.5) * LOGITS_PER_LEVEL:.2f}\n"
        for row in sorted([*students, *anchors], key=lambda row: row["id"])
    )
    write(folder / "batch.yaml", GRADED_SETTINGS.format(logits=LOGITS_PER_LEVEL) + qualities)
    write(folder / "instructions.md", GRADED_INSTRUCTIONS.format(prompt=essays[0]["prompt"]))
    write(folder / "rubric.md", GRADED_RUBRIC)
    write_table(
        folder / "essays.csv",
        ("essay_id", "text"),
        ((slug(row["id"]), row["text"]) for row in sorted(students, key=lambda row: row["id"])),
    )
    write_table(
        folder / "anchors.csv",
        ("essay_id", "text", "grade"),
        (
            (slug(row["id"]), row["text"], str(step_of(int(row["intended_level"]))))
            for row in anchors
        ),
    )


def write_lower5(essays: Sequence[Row]) -> None:
    """Write the small net: the last essay of five levels far apart, as one file each."""
    folder = EXAMPLES / "lower5"
    write(folder / "batch.yaml", LOWER5_SETTINGS)
    write(folder / "instructions.md", GRADED_INSTRUCTIONS.format(prompt=essays[0]["prompt"]))
    for level in (2, 6, 10, 14, 18):
        row = [row for row in essays if int(row["intended_level"]) == level][-1]
        write(folder / "essays" / f"{slug(row['id'])}.txt", row["text"] + "\n")


def slug(identifier: str) -> str:
    """Return a data set's id as an essay id: `ukp:199550` becomes `ukp-199550`."""
    return identifier.replace(":", "-").lower()


def read_rows(path: Path) -> list[Row]:
    """Return a table's rows."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, text: str) -> None:
    """Write a text file as every system reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
