"""Published grade scales: which grades there are, lowest first, and what lies below them.

A scale is a YAML file, built in (`grade_scales/`) or a batch's own (`scale.yaml` in its folder).
Turning scores into grades is `projection`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from cj_pipeline.errors import SettingsError
from cj_pipeline.ids import nearest
from cj_pipeline.strict_yaml import load_yaml

_NAME = re.compile(r"^[a-z0-9_]{1,64}$")

_BUILT_IN = files("cj_pipeline") / "grading" / "grade_scales"

MODIFIER_SHARE = 1 / 3
"""The lowest and the highest third of a grade bear minus and plus, so each part is as wide."""


@dataclass(frozen=True)
class GradeScale:
    """A published scale.

    Attributes:
        name: The key by which batches name it.
        title: For people.
        grades: What anchors usually carry, lowest first.
        below: The grade of what lies below the lowest of `grades`; None where there is none.
        priors: The share of a population in each of `steps`; None where none is published.
        minus: The grades whose lowest third is written with a minus.
        plus: The grades whose highest third is written with a plus.
    """

    name: str
    title: str
    grades: tuple[str, ...]
    below: str | None = None
    priors: tuple[float, ...] | None = None
    minus: tuple[str, ...] = ()
    plus: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        """Every grade an essay can be given, lowest first: `below` and then `grades`."""
        return ((self.below,) if self.below is not None else ()) + self.grades

    def modified(self, grade: str, position: float) -> str:
        """Return the grade with its minus or plus, by where the score lies within the grade.

        Args:
            grade: One of `steps`.
            position: From 0 at the grade's lower boundary to 1 at its upper one.
        """
        if position < MODIFIER_SHARE and grade in self.minus:
            return f"{grade}-"
        if position > 1 - MODIFIER_SHARE and grade in self.plus:
            return f"{grade}+"
        return grade


def known_scales() -> tuple[str, ...]:
    """Return the names of the built-in scales, sorted."""
    names = (PurePath(entry.name) for entry in _BUILT_IN.iterdir())
    return tuple(sorted(name.stem for name in names if name.suffix == ".yaml"))


def load_scale(name: str, own: str | None = None) -> GradeScale:
    """Return a scale by name: a built-in one, or the batch's own.

    Args:
        name: What the batch names.
        own: The batch's own `scale.yaml`, where it has one; it says its name itself.

    Raises:
        SettingsError: If unknown name, or the batch's file is wrong; every problem is
            listed.
    """
    if not _NAME.fullmatch(name):
        msg = (
            f"'{name}' cannot name a grade scale: use up to 64 of a-z, 0-9 and underscore"
            f"{nearest(name, known_scales(), at_least=0.6)}"
        )
        raise SettingsError(msg)
    if name in known_scales():
        return read_scale((_BUILT_IN / f"{name}.yaml").read_bytes(), name)
    if own is not None:
        scale = read_scale(own.encode())
        if scale.name == name:
            return scale
    known = ", ".join([*known_scales(), *([f"{scale.name} (its own)"] if own is not None else [])])
    msg = (
        f"Unknown grade scale '{name}'. Known: {known}. A scale of your own goes into"
        " scale.yaml in the batch folder."
    )
    raise SettingsError(msg)


def own_scale_problems(name: str | None, own: GradeScale) -> list[str]:
    """Return why a batch's own scale and the one it names do not go together.

    Args:
        name: What `batch.yaml` names.
        own: What `scale.yaml` describes.
    """
    if own.name in known_scales():
        return [f"name: {own.name} is a built-in grade scale: give your own another name"]
    if name != own.name:
        named = "names no scale" if name is None else f"asks for {name!r}"
        return [
            f"it describes {own.name!r}, but batch.yaml {named}: write `scale: {own.name}` there,"
            " or take the file out"
        ]
    return []


def read_scale(content: bytes, name: str | None = None) -> GradeScale:
    """Return the scale that a YAML file describes.

    Args:
        content: The file.
        name: Of a built-in scale, whose file bears it; any other file says its own name.

    Raises:
        SettingsError: If the file is not UTF-8 YAML or breaks the rules; every problem is listed.
    """
    problems = scale_problems(content, name)
    if problems:
        msg = "\n".join(
            ["The grade scale cannot be used. Fix these:", *(f"  - {p}" for p in problems)]
        )
        raise SettingsError(msg)
    scale = _ScaleFile.model_validate({"name": name, **_parsed(content)})
    steps = ([scale.below] if scale.below is not None else []) + scale.grades
    return GradeScale(
        name=scale.name,
        title=scale.title,
        grades=tuple(scale.grades),
        below=scale.below,
        priors=tuple(scale.priors[step] for step in steps) if scale.priors else None,
        minus=tuple(scale.minus),
        plus=tuple(scale.plus),
    )


def scale_problems(content: bytes, name: str | None = None) -> list[str]:
    """Return everything that is wrong with a scale's file; arguments as `read_scale`."""
    try:
        raw = _parsed(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return [f"not readable YAML in UTF-8: {error}"]
    if not isinstance(raw, dict):
        return ["it must hold `key: value` lines, nothing else"]
    try:
        _ScaleFile.model_validate({**({"name": name} if name is not None else {}), **raw})
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, each['loc'])) or 'file'}: {_words(each['msg'])}"
            for each in error.errors()
        ]
    return []


def _parsed(content: bytes) -> Any:
    return load_yaml(content.decode("utf-8-sig"))


def _words(message: str) -> str:
    return message.removeprefix("Value error, ")


def _as_grade(value: Any) -> Any:
    if isinstance(value, bool):
        msg = f"YAML reads this as {value}: put the grade in quotes"
        raise ValueError(msg)
    return str(value) if isinstance(value, int) else value


_Grade = Annotated[
    str, BeforeValidator(_as_grade), Field(min_length=1, max_length=16, pattern=r"^\S(.*\S)?$")
]


class _ScaleFile(BaseModel):
    """A scale's YAML file; later fields are checked against the earlier ones that were right."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True)

    name: Annotated[str, Field(pattern=_NAME)]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    about: str = ""
    grades: Annotated[list[_Grade], Field(min_length=1, max_length=50)]
    below: _Grade | None = None
    priors: dict[_Grade, Annotated[float, Field(gt=0, lt=1)]] | None = None
    minus: list[_Grade] = []
    plus: list[_Grade] = []

    @field_validator("grades")
    @classmethod
    def _no_grade_twice(cls, grades: list[str]) -> list[str]:
        twice = sorted({grade for grade in grades if grades.count(grade) > 1})
        if twice:
            msg = f"listed twice: {', '.join(twice)}"
            raise ValueError(msg)
        return grades

    @field_validator("below")
    @classmethod
    def _below_is_another_grade(cls, below: str | None, info: ValidationInfo) -> str | None:
        grades = info.data.get("grades", [])
        if below in grades:
            msg = f"{below} is among the grades already: leave `below` out or name another"
            raise ValueError(msg)
        if below is None and len(grades) == 1:
            msg = "a scale needs two grades at least, or one and what lies `below` it"
            raise ValueError(msg)
        return below

    @field_validator("priors")
    @classmethod
    def _priors_cover_the_steps(
        cls, priors: dict[str, float] | None, info: ValidationInfo
    ) -> dict[str, float] | None:
        if priors is None or "grades" not in info.data:
            return priors
        below = info.data.get("below")
        steps = set(info.data["grades"]) | ({below} if below else set())
        problems = [f"no share for {step}" for step in sorted(steps - set(priors))]
        problems += [f"{grade} is no grade of this scale" for grade in sorted(set(priors) - steps)]
        if not math.isclose(sum(priors.values()), 1, abs_tol=1e-6):
            problems.append(f"the shares add up to {sum(priors.values()):g}, not to 1")
        if problems:
            raise ValueError("; ".join(problems))
        return priors

    @field_validator("minus", "plus")
    @classmethod
    def _modified_grades_are_known(cls, marked: list[str], info: ValidationInfo) -> list[str]:
        if "grades" not in info.data:
            return marked
        sign = {"minus": "-", "plus": "+"}[str(info.field_name)]
        grades = info.data["grades"]
        problems = [f"{grade} is no grade of this scale" for grade in marked if grade not in grades]
        problems += [
            f"{grade}{sign} is a grade of its own" for grade in marked if f"{grade}{sign}" in grades
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return marked
