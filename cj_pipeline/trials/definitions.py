"""Trials as data: which batch is judged again and again, what must come out, what counts as drift.

A trial is a YAML file, built in (`suites/`) or the user's own in `CJ_HOME/trials`; a batch
folder there is a trial too, with nothing expected of it. Schedules, `cj trial` and tests read the
same definitions. Taking one through its life is `steps.trial_runs`; what came out, `trial_figures`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from xml.sax.saxutils import escape

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cj_pipeline.errors import SettingsError, TrialDefinitionError
from cj_pipeline.grading.grade_scales import load_scale
from cj_pipeline.ids import id_for
from cj_pipeline.intake.settings import resolve_settings
from cj_pipeline.strict_yaml import load_yaml
from cj_pipeline.trials.figures import Expectation

_BUILT_IN = files("cj_pipeline") / "trials" / "suites"

_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{1,39}$")

NIGHTLY = "0 2 * * *"
MADE_UP_FOLDER = ".made-up"

_SOURCES = frozenset({"made_up", "folder"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MadeUpEssays(_Strict):
    """Essays written on the spot, alike in every trial; for simulated judges only.

    Attributes:
        students: How many.
        anchors: How many; their grades rise evenly over the batch's scale.
        qualities: Lowest and highest latent quality in logits, which the emulator is given;
            left out, it estimates them from the texts.
        files: How they are handed in: as tables, or as Word files with a table of grades.
    """

    students: Annotated[int, Field(ge=0, le=2000)]
    anchors: Annotated[int, Field(ge=0, le=500)] = 0
    qualities: tuple[float, float] | None = None
    files: Literal["table", "docx"] = "table"

    @model_validator(mode="after")
    def _makes_a_pair(self) -> Self:
        if self.students < 1 or self.students + self.anchors < 2:
            msg = "two essays make the smallest batch, and one of them has to be a student's"
            raise ValueError(msg)
        return self


_DAYS_OF_MONTHS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


class TrialSchedule(_Strict):
    """When a trial is run by itself.

    Attributes:
        cron: Five fields; nightly by default.
        timezone: As the tz database names it.
    """

    cron: Annotated[str, Field(pattern=r"^\S+(\s+\S+){4}$")] = NIGHTLY
    timezone: str = "UTC"

    @field_validator("cron")
    @classmethod
    def _ever_comes(cls, cron: str) -> str:
        _, _, day, month, weekday = cron.split()
        days, months = (re.fullmatch(r"\d+(,\d+)*", field) for field in (day, month))
        if days and months and weekday == "*":
            longest = max(_DAYS_OF_MONTHS.get(int(each), 31) for each in month.split(","))
            if min(int(each) for each in day.split(",")) > longest:
                msg = f"{cron!r} names no day that ever comes"
                raise ValueError(msg)
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        import zoneinfo

        if name not in zoneinfo.available_timezones():
            msg = f"unknown time zone {name!r}; Europe/Stockholm is one"
            raise ValueError(msg)
        return name


class DriftBands(_Strict):
    """How far a trial may be from the trials before it; None shows a figure and judges nothing.

    Attributes:
        essays_beyond_noise: The most essays whose scores changed beyond their errors.
        same_grade: The least share of students with the same grade.
        spread_ratio: The most the scores' standard deviation may be multiplied or divided by: a
            judge that no longer discriminates draws them together.
        rank_correlation: The least Spearman's correlation of the scores.
        agreement: The least share of the same verdict on the same pair.
        cost_ratio: The most it may cost, as a multiple of the median before.
        duration_ratio: The longest it may take, as a multiple of the median before.
    """

    essays_beyond_noise: Annotated[int, Field(ge=0)] | None = 0
    same_grade: Annotated[float, Field(ge=0, le=1)] | None = 0.7
    spread_ratio: Annotated[float, Field(gt=1)] | None = 2.5
    rank_correlation: Annotated[float, Field(ge=-1, le=1)] | None = None
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    cost_ratio: Annotated[float, Field(gt=0)] | None = 1.5
    duration_ratio: Annotated[float, Field(gt=0)] | None = 10.0


class _TrialFile(_Strict):
    """What a trial's YAML file holds."""

    about: str = ""
    based_on: str | None = None
    made_up: MadeUpEssays | None = None
    folder: Path | None = None
    settings: Mapping[str, Any] = Field(default_factory=dict)
    profile: str | None = None
    budget: Annotated[int, Field(ge=1)] | None = None
    spend_cap_usd: Annotated[float, Field(gt=0)] = 1.0
    expect: tuple[str, ...] = ()
    emulator: Mapping[str, Any] = Field(default_factory=dict)
    schedule: TrialSchedule | None = None
    drift: DriftBands = DriftBands()
    is_quick: bool = True
    sequence: Literal["jobs", "runner"] = "jobs"

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.made_up is None) == (self.folder is None):
            msg = "give either made_up or folder: what is to be judged"
            raise ValueError(msg)
        return self

    @field_validator("expect")
    @classmethod
    def _can_be_read(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for text in given:
            Expectation.read(text)
        return given


@dataclass(frozen=True)
class TrialDefinition:
    """One trial.

    Attributes:
        name: By which it is requested.
        about: For people.
        made_up: What is judged, if it is written on the spot.
        folder: The batch folder that is judged otherwise.
        settings: Over the folder's `batch.yaml`.
        profile: How hard single calls press on their providers, over the settings'.
        budget: The most comparisons, over the settings'.
        spend_cap_usd: The most each run of it may cost.
        expect: What must come out.
        emulator: Settings of the emulator that `cj trial` serves for it.
        schedule: When it is run by itself; None for whenever the nightly schedule is.
        drift: How far it may be from the trials before it.
        is_quick: Whether it takes seconds, so that every change can be tried with it.
        sequence: What takes it to its end: Dagster's jobs, or the runner's commands one by one.
        origin: Built in, or the user's.
    """

    name: str
    about: str
    made_up: MadeUpEssays | None
    folder: Path | None
    settings: Mapping[str, Any]
    profile: str | None
    budget: int | None
    spend_cap_usd: float
    expect: tuple[Expectation, ...]
    emulator: Mapping[str, Any]
    schedule: TrialSchedule | None
    drift: DriftBands
    is_quick: bool
    origin: Literal["built-in", "own"]
    sequence: Literal["jobs", "runner"] = "jobs"

    @property
    def explicit_settings(self) -> dict[str, Any]:
        """What every run of it sets by hand: the caps among them."""
        explicit = {
            "title": f"Trial {self.name}",
            "about": self.about,
            "priority": "low",
            **self.settings,
        }
        if self.profile is not None:
            explicit["profile"] = self.profile
        if self.budget is not None:
            explicit["max_pairwise_comparisons"] = self.budget
        cap = explicit.get("spend_cap_usd")
        explicit["spend_cap_usd"] = min(cap or self.spend_cap_usd, self.spend_cap_usd)
        if self.made_up is not None and self.made_up.qualities is not None:
            explicit["emulator_qualities"] = _qualities(self.made_up)
        return explicit

    @cached_property
    def fingerprint(self) -> str:
        """Covers whatever could change what comes out, so that only like trials are compared."""
        parts = {
            "made_up": _what_is_made_up(self.made_up),
            "folder": str(self.folder) if self.folder else None,
            "settings": {
                key: value
                for key, value in self.explicit_settings.items()
                if key not in {"title", "about", "assertions", "priority"}
            },
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return the definition as it is kept with every run of it."""
        return {
            "about": self.about,
            "made_up": self.made_up.model_dump() if self.made_up else None,
            "folder": str(self.folder) if self.folder else None,
            "settings": dict(self.settings),
            "profile": self.profile,
            "budget": self.budget,
            "spend_cap_usd": self.spend_cap_usd,
            "expect": [str(expectation) for expectation in self.expect],
            "drift": self.drift.model_dump(),
        }

    def batch_folder(self, home: Path) -> Path:
        """Return the folder to take in; made-up essays are written once for all runs."""
        if self.folder is not None:
            return self.folder
        folder = home / "trials" / MADE_UP_FOLDER / f"{self.name}-{self.fingerprint[:12]}"
        if not folder.exists():
            _write_made_up(folder, self)
        return folder


def _what_is_made_up(made_up: MadeUpEssays | None) -> dict[str, Any] | None:
    if made_up is None:
        return None
    # Tables are what all were once, and those of before are still the same trials.
    return made_up.model_dump(exclude={"files"} if made_up.files == "table" else None)


def load_trial(name: str, home: Path) -> TrialDefinition:
    """Return a trial by name: the user's own before the built-in ones.

    Raises:
        SettingsError: If there is none of that name.
        TrialDefinitionError: If its file is wrong; every problem is listed.
    """
    if not _NAME.fullmatch(name):
        msg = f"'{name}' cannot name a trial: use 2 to 40 of a-z, 0-9, '-' and '_'."
        raise SettingsError(msg)
    own = home / "trials"
    if (own / f"{name}.yaml").is_file():
        return _read(name, (own / f"{name}.yaml").read_bytes(), home, "own")
    for folder in _folders(own):
        if trial_name(folder) == name:
            return _definition(name, _TrialFile(folder=folder), "own")
    built_in = _BUILT_IN / f"{name}.yaml"
    if built_in.is_file():
        return _read(name, built_in.read_bytes(), home, "built-in")
    known = ", ".join(trial_names(home))
    msg = f"There is no trial '{name}'; there are {known}. Your own go into {own}."
    raise SettingsError(msg)


def trial_names(home: Path) -> tuple[str, ...]:
    """Return the names of all trials, built-in ones and the user's."""
    return tuple(sorted({*built_in_trial_names(), *own_trial_names(home)}))


def built_in_trial_names() -> tuple[str, ...]:
    """Return the names of the trials that come with the pipeline."""
    return tuple(sorted(Path(entry.name).stem for entry in _BUILT_IN.iterdir()))


def own_trial_names(home: Path) -> tuple[str, ...]:
    """Return the names of the trials in CJ_HOME/trials: those that schedules run."""
    own = home / "trials"
    defined = {p.stem for p in own.glob("*.yaml") if not p.name.startswith(".")}
    return tuple(sorted(defined | {trial_name(folder) for folder in _folders(own)}))


def same_trial_names(home: Path) -> list[str]:
    """Return, for each name that several trials of CJ_HOME/trials bear, which and what to do."""
    own = home / "trials"
    bearers = defaultdict(list)
    for file in sorted(own.glob("*.yaml")):
        if not file.name.startswith("."):
            bearers[file.stem].append(file.name)
    for folder in _folders(own):
        bearers[trial_name(folder)].append(f"{folder.name}/")
    return [
        f"Only {names[0]} is the trial '{name}': {', '.join(names[1:])} would have the same name."
        " Rename all but one."
        for name, names in bearers.items()
        if len(names) > 1
    ]


def trial_name(folder: Path) -> str:
    """Return the trial's name that a batch folder in CJ_HOME/trials stands for."""
    return id_for(folder.name, prefix="trial")[:40]


def _folders(own: Path) -> list[Path]:
    if not own.is_dir():
        return []
    return sorted(p for p in own.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read(name: str, raw: bytes, home: Path, origin: Literal["built-in", "own"]) -> TrialDefinition:
    try:
        given = load_yaml(raw.decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"The trial '{name}' is no YAML file: {error}"
        raise TrialDefinitionError(msg) from None
    if not isinstance(given, dict):
        msg = f"The trial '{name}' is no mapping; see docs/trials.md for one."
        raise TrialDefinitionError(msg)
    if given.get("based_on"):
        given = _merged(_built_in_file(name, str(given["based_on"])), given)
    try:
        file = _TrialFile.model_validate(given)
    except ValidationError as error:
        raise _wrong(name, [_problem_text(each) for each in error.errors()]) from None
    if file.folder is not None and not file.folder.is_absolute():
        file = file.model_copy(update={"folder": (home / "trials" / file.folder).resolve()})
    definition = _definition(name, file, origin)
    resolved, problems = resolve_settings({}, definition.explicit_settings)
    scale = definition.settings.get("scale")
    if file.made_up is not None and file.made_up.anchors and not scale:
        problems.append("made_up: anchors need settings.scale, whose grades they bear")
    if problems or resolved is None:
        raise _wrong(name, problems)
    return definition


def _built_in_file(name: str, base: str) -> dict[str, Any]:
    """Return the file of the built-in trial that another is based on."""
    built_in = _BUILT_IN / f"{base}.yaml"
    if not _NAME.fullmatch(base) or not built_in.is_file():
        known = ", ".join(sorted(Path(entry.name).stem for entry in _BUILT_IN.iterdir()))
        raise _wrong(name, [f"based_on: '{base}' is no built-in trial; there are {known}"])
    loaded: dict[str, Any] = yaml.safe_load(built_in.read_bytes())
    return loaded


def _merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's keys over those of the one it is based on; settings key by key.

    What another batch is judged for is not this one's purpose, so a new source brings its own
    expectations.
    """
    replaced = {"made_up", "folder", "expect"} if _SOURCES & given.keys() else set()
    kept = {key: value for key, value in base.items() if key not in replaced}
    settings = {**base.get("settings", {}), **(given.get("settings") or {})}
    return {**kept, **given, "settings": settings}


def _definition(name: str, file: _TrialFile, origin: Literal["built-in", "own"]) -> TrialDefinition:
    return TrialDefinition(
        name=name,
        about=file.about,
        made_up=file.made_up,
        folder=file.folder,
        settings=file.settings,
        profile=file.profile,
        budget=file.budget,
        spend_cap_usd=file.spend_cap_usd,
        expect=tuple(Expectation.read(text) for text in file.expect),
        emulator=file.emulator,
        schedule=file.schedule,
        drift=file.drift,
        is_quick=file.is_quick,
        origin=origin,
        sequence=file.sequence,
    )


def _wrong(name: str, problems: list[str]) -> TrialDefinitionError:
    return TrialDefinitionError(
        f"The trial '{name}' cannot be used:\n" + "\n".join(f"  - {each}" for each in problems)
    )


def _problem_text(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    return f"{where}: {error['msg']}" if where else str(error["msg"])


_SENTENCES = (
    "The school should stay open in the evening so that everybody can use its library.",
    "Some say it costs too much, yet an empty building costs nearly as much as a full one.",
    "Last winter I had nowhere quiet to read, and I was not the only one in my class.",
    "A teacher could be there twice a week, and older pupils could help the younger ones.",
    "It matters because homework is easier when somebody is near who can answer.",
    "If nobody comes after half a year, the doors can be closed again without any loss.",
    "My brother thinks otherwise, because he would rather be outside than among books.",
)


def _write_made_up(folder: Path, definition: TrialDefinition) -> None:
    """Write the batch folder next to its place and rename it, so that it is never seen in part."""
    made_up = definition.made_up
    if made_up is None:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    (unfinished / "instructions.md").write_text("Should the school be open in the evening?\n")
    scale = definition.settings.get("scale") if made_up.files == "docx" else None
    named = f"scale: {scale}\n" if scale else ""
    (unfinished / "batch.yaml").write_text(f"language: en\n{named}")
    students = [(essay_id, _text(essay_id)) for essay_id in _ids("student", made_up.students)]
    anchors = []
    if made_up.anchors:
        steps = load_scale(str(definition.settings["scale"])).grades
        anchors = [
            (essay_id, _text(essay_id), steps[i * len(steps) // made_up.anchors])
            for i, essay_id in enumerate(_ids("anchor", made_up.anchors))
        ]
    if made_up.files == "docx":
        _write_word_files(unfinished, students, anchors)
    else:
        (unfinished / "essays.csv").write_text(_csv(["essay_id", "text"], students))
        if anchors:
            (unfinished / "anchors.csv").write_text(_csv(["essay_id", "text", "grade"], anchors))
    try:
        unfinished.rename(folder)
    except OSError:
        # Another process was first; its essays are the same.
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.exists():
            raise


def _write_word_files(
    folder: Path, students: Sequence[tuple[str, str]], anchors: Sequence[tuple[str, str, str]]
) -> None:
    """Write a folder as such runners have it: a Word file each, and a table of anchors' grades."""
    (folder / "essays").mkdir()
    for essay_id, text in students:
        (folder / "essays" / f"{essay_id}.docx").write_bytes(_word_file(text))
    if not anchors:
        return
    (folder / "anchors").mkdir()
    for essay_id, text, _ in anchors:
        (folder / "anchors" / f"{essay_id}.docx").write_bytes(_word_file(text))
    grades = [(f"{essay_id}.docx", grade) for essay_id, _, grade in anchors]
    (folder / "anchors" / "grades.csv").write_text(_csv(["file", "grade"], grades))


_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
_WORD_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"


def _word_file(text: str) -> bytes:
    """Return the smallest Word file of one paragraph; the same text gives the same bytes."""
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels"'
        ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{_WORD_TYPE}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{_OFFICE}" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{_WORD}"><w:body><w:p><w:r>'
        f"<w:t>{escape(text)}</w:t></w:r></w:p></w:body></w:document>",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))
            file.writestr(entry, f'<?xml version="1.0" encoding="UTF-8"?>{content}')
    return out.getvalue()


def _ids(kind: str, n: int) -> list[str]:
    return [f"{kind}-{number:03d}" for number in range(1, n + 1)]


def _text(essay_id: str) -> str:
    """Return a text of this essay's own: longer or shorter, and never the same as another's."""
    number = int(essay_id.rsplit("-", 1)[1])
    chosen = [
        _SENTENCES[(number * 3 + i * 5) % len(_SENTENCES)] for i in range(3 + number * 7 % 11)
    ]
    return f"This is what {essay_id.replace('-', ' ')} thinks. {' '.join(chosen)}"


def _qualities(made_up: MadeUpEssays) -> dict[str, float]:
    low, high = made_up.qualities or (0.0, 0.0)
    return {
        essay_id: round(low + (high - low) * i / max(1, n - 1), 4)
        for kind, n in (("student", made_up.students), ("anchor", made_up.anchors))
        for i, essay_id in enumerate(_ids(kind, n))
    }


def _csv(header: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
