"""Versioned prompt templates: YAML files, built in (`templates/`) or the user's own.

A template's words are part of every fingerprint of a judge that uses it, so a changed template
is a new file with a new number. Joining a template with essays is `judging`.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.prompts import Template
from cj_pipeline.strict_yaml import load_yaml

_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}-[0-9]+$")

_BUILT_IN = files("cj_pipeline") / "judging" / "templates"

MAX_CHARACTERS = 8_000
"""Of all parts together; a longer template costs more than the essays it frames."""


class _TemplateFile(BaseModel):
    """What a template's YAML file holds."""

    model_config = ConfigDict(extra="forbid")

    name: str
    system: Annotated[str, Field(min_length=1)]
    task: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1)]
    asked: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    look_for: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] = "en"
    translates: str | None = None
    draft: bool = False


def load_template(name: str, extra_dir: Path | None = None) -> Template:
    """Return the template of this name; one in `extra_dir` wins over a built-in one.

    Raises:
        SettingsError: If unknown name, or the file cannot be used.
    """
    source = _source(name, extra_dir)
    parsed = _parsed(name, source)
    headings = {"asked": parsed.asked, "look_for": parsed.look_for}
    template = Template(
        parsed.name,
        parsed.system.strip(),
        parsed.task.strip(),
        parsed.answer.strip(),
        **{key: text.strip() for key, text in headings.items() if text is not None},
    )
    problems = template_problems(template)
    if parsed.name != name:
        problems.append(f"it calls itself '{parsed.name}'")
    if problems:
        msg = f"Template '{name}' ({source.name}) cannot be used: {'; '.join(problems)}."
        raise SettingsError(msg)
    return template


def translation_of(name: str, language: str, extra_dir: Path | None = None) -> str:
    """Return the template that says in a language what this one says; itself if there is none.

    Args:
        name: Of a template.
        language: A BCP 47 tag; only its first part counts.
        extra_dir: A folder of the user's own templates.
    """
    wanted = language.split("-", maxsplit=1)[0].lower()
    found = name
    for other in known_templates(extra_dir):
        parsed = _parsed(other, _source(other, extra_dir))
        if parsed.translates == name and parsed.language == wanted:
            found = other  # the last by name is the newest
    return found


def is_draft(name: str, extra_dir: Path | None = None) -> bool:
    """Whether no native reader has approved a template yet."""
    return name in known_templates(extra_dir) and _parsed(name, _source(name, extra_dir)).draft


def _parsed(name: str, source: Traversable) -> _TemplateFile:
    try:
        return _TemplateFile.model_validate(load_yaml(source.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"Template '{name}' ({source.name}) is not YAML: {error}"
        raise SettingsError(msg) from None
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        msg = f"Template '{name}' ({source.name}) cannot be used: {fields}."
        raise SettingsError(msg) from None


def known_templates(extra_dir: Path | None = None) -> tuple[str, ...]:
    """Return the names of all templates, sorted."""
    names = {Path(entry.name).stem for entry in _BUILT_IN.iterdir() if entry.name.endswith(".yaml")}
    if extra_dir is not None:
        names |= {path.stem for path in extra_dir.glob("*.yaml")}
    return tuple(sorted(names))


def template_problems(template: Template) -> list[str]:
    """Return what is wrong with a template, in words; nothing for one that can be used.

    Essays are joined in after the template, so it holds no place for them, and everything in it
    is prefix that a provider can cache.
    """
    parts = [template.system, template.task, template.answer, template.asked, template.look_for]
    words = "\n".join(parts)
    problems = []
    if not _NAME.fullmatch(template.name):
        problems.append("its name is not lower-case words and a version number, as in 'clarity-1'")
    if len(words) > MAX_CHARACTERS:
        problems.append(f"it has {len(words)} characters, more than {MAX_CHARACTERS}")
    if re.search(r"</?essay-[ab]", words):
        problems.append("it writes an essay's fence; fences are made for each comparison")
    if re.search(r"\{\{?\s*\w+\s*\}?\}", words):
        problems.append("it has a placeholder; texts are joined in after it, never formatted in")
    if missing := [
        key for key in ("winner", "confidence", "justification") if key not in template.answer
    ]:
        problems.append(f"its answer does not request {', '.join(missing)}")
    if not re.search(r'"A".*"B"', template.answer, re.DOTALL):
        problems.append('its answer does not name the two labels "A" and "B"')
    return problems


def _source(name: str, extra_dir: Path | None) -> Traversable:
    if _NAME.fullmatch(name):
        if extra_dir is not None and (extra_dir / f"{name}.yaml").is_file():
            return extra_dir / f"{name}.yaml"
        built_in = _BUILT_IN / f"{name}.yaml"
        if built_in.is_file():
            return built_in
    msg = f"Unknown template {name!r}; known: {', '.join(known_templates(extra_dir))}."
    raise SettingsError(msg)
