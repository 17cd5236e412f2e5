"""Who answered: the model, the fingerprint and the tier that answers name, against who was asked.

A provider may answer with another model than was asked, or change it in the middle of a batch. An
alias or a deployment has a name of its own: there the first answer says who it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AskedJudge:
    """What is known of a judge before it answers.

    Attributes:
        name: For people.
        model: As its definition asks for it.
        answers_as: Names under which it may answer besides.
        names_itself: Whether its model's name is its operator's own, as of a deployment or a local
            server: then the first answer says who it is.
    """

    name: str
    model: str
    answers_as: tuple[str, ...]
    names_itself: bool

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> AskedJudge:
        """Return the judge of a stored definition."""
        return cls(
            name=str(definition["name"]),
            model=str(definition["model"]),
            answers_as=tuple(definition.get("answers_as") or ()),
            names_itself=bool(definition.get("base_url")) and not definition.get("answers_as"),
        )

    def may_be(self, answered: str) -> bool:
        """Whether an answer's word for its model is this judge's."""
        names = (self.model, *self.answers_as)
        plain = answered.removeprefix("models/")
        return self.names_itself or any(
            plain.startswith(name.removeprefix("models/")) for name in names
        )


@dataclass(frozen=True)
class Answered:
    """Who answered one judge's requests in a batch, each with how many answers bear that word.

    Attributes:
        judge: Who was asked.
        models: By their own word, in order of their first answer.
        fingerprints: Likewise.
        tiers: Likewise, of single calls and of provider batches apart.
    """

    judge: AskedJudge
    models: Mapping[str, int]
    fingerprints: Mapping[str, int]
    tiers: tuple[Mapping[str, int], ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is not as it should be, in words."""
        found = []
        strangers = {name: n for name, n in self.models.items() if not self.judge.may_be(name)}
        if strangers:
            found.append(f"'{self.judge.name}' asks for {self.judge.model}; {_counted(strangers)}")
        told = (("model", self.models), ("fingerprint", self.fingerprints))
        for what, words in (*told, *(("service tier", tier) for tier in self.tiers)):
            if len(words) > 1:
                found.append(f"'{self.judge.name}' changed its {what}: {_counted(words)}")
        return tuple(found)


def who_answered(
    attempts: Iterable[Mapping[str, Any]], judges: Sequence[Mapping[str, Any]]
) -> list[Answered]:
    """Return who answered each judge's requests, by rows of `attempts` and of `judges`.

    Attempts bear `is_batched`: whether they were judged by a provider's batch endpoint.
    """
    of_judge: dict[str, list[Mapping[str, Any]]] = {}
    for row in attempts:
        of_judge.setdefault(row["judge_id"], []).append(row)
    found = []
    for judge in judges:
        rows = sorted(
            of_judge.get(judge["judge_id"], []),
            key=lambda row: (str(row["requested_at"]), row["custom_id"]),
        )
        tiers = tuple(
            _words(
                [row for row in rows if bool(row.get("is_batched")) is is_batched], "service_tier"
            )
            for is_batched in (False, True)
        )
        found.append(
            Answered(
                judge=AskedJudge.from_definition(judge["definition"]),
                models=_words(rows, "answered_model"),
                fingerprints=_words(rows, "answered_fingerprint"),
                tiers=tiers,
            )
        )
    return found


def models_that_differ(
    before: Sequence[Answered], after: Sequence[Answered], where: str
) -> tuple[str, ...]:
    """Return in words which judges were answered for by other models before; `where` names that."""
    known = {each.judge.name: set(each.models) for each in before}
    return tuple(
        f"'{each.judge.name}' is answered for by {', '.join(each.models)}, and by"
        f" {', '.join(sorted(known[each.judge.name]))} in {where}"
        for each in after
        if each.models and known.get(each.judge.name) and set(each.models) != known[each.judge.name]
    )


def _words(rows: Sequence[Mapping[str, Any]], column: str) -> Mapping[str, int]:
    return dict(Counter(str(row[column]) for row in rows if row.get(column)))


def _counted(words: Mapping[str, int]) -> str:
    return ", ".join(f"{name} answered {n}" for name, n in words.items())
