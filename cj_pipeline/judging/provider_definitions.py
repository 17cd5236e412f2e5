"""Provider definitions: how a service differs from others that speak its language, as data.

Shipped ones are in `provider_definitions/`, an installation's own in `CJ_HOME/providers/`. Speaking
to a service is `providers`; a judge names one of these as its `provider`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cj_pipeline.errors import SettingsError
from cj_pipeline.text import load_yaml

Structured = Literal["json_schema", "json_object", "prompt"]

_BUILT_IN = files("cj_pipeline") / "judging" / "provider_definitions"

OWN_FOLDER = "providers"
"""Where an installation's own definitions are, within `CJ_HOME`."""

WIRES: Mapping[str, tuple[str, ...]] = {
    "openai": ("chat_completions", "responses"),
    "anthropic": ("messages",),
    "gemini": ("generate_content",),
    "emulator": (
        *("chat_completions", "responses", "messages", "generate_content"),
        *("mistral", "xai", "openrouter"),
    ),
    "human": ("page",),
}
"""The languages that are spoken, and the endpoints of each; a service has the first unless it
says which."""

BATCH_SHAPES = frozenset({"mistral", "xai", "openrouter"})
"""Batch endpoints that have an adapter of their own, beside single calls like OpenAI's."""

WITHOUT_DEFINITION = frozenset(
    {"openai", "anthropic", "gemini", "openai-compatible", "emulator", "human"}
)
"""Providers whose judges were known by their name alone before there were definitions: it is no
part of their fingerprints, which stay as they were."""

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")]
_Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")]


Meaning = Literal["out_of_credit", "rate_limit", "not_for_plan"]
_Word = Annotated[str, Field(min_length=3, max_length=200)]


class ErrorWords(BaseModel):
    """What a service says in an error's code or message, where that is its own; in any capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out_of_credit: tuple[_Word, ...] = ()
    rate_limit: tuple[_Word, ...] = ()
    not_for_plan: tuple[_Word, ...] = ()

    def meaning_of(self, code: object, message: object) -> Meaning | None:
        """Return what an error means by these words; None where they do not say."""
        said = f"{code or ''} {message or ''}".casefold()
        told: Mapping[Meaning, tuple[str, ...]] = {
            "not_for_plan": self.not_for_plan,
            "out_of_credit": self.out_of_credit,
            "rate_limit": self.rate_limit,
        }
        for meaning, words in told.items():
            if any(word.casefold() in said for word in words):
                return meaning
        return None


NO_WORDS = ErrorWords()
"""Of a service whose errors say what others' do."""


class ProviderDefinition(BaseModel):
    """The keys of a provider definition's YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: _Name
    """The file's name without its ending; a judge names it as its `provider`."""
    about: str = ""
    """What a colleague should know before choosing it."""
    wire: str
    """The language it speaks: openai, anthropic or gemini."""
    apis: tuple[str, ...] = ()
    """Which of that language's endpoints it has; by default the first."""
    base_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """Its address; without one each judge names its own."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """The environment variable with its key; without one no key is sent."""
    key_header: _Header | None = None
    """The header that bears the key, where it is not the language's usual one."""
    token_command: str | None = None
    """A command that prints a token, for when the variable is not set."""
    structured: Structured = "json_schema"
    """How it is made to answer in JSON: by a schema, by a JSON mode, or by the prompt alone."""
    answer_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What it calls the limit of an answer in chat completions."""
    extra_headers: Mapping[_Header, str] = {}
    """Headers that each request bears."""
    extra_body: Mapping[str, JsonValue] = {}
    """Fields that the body of each request has besides."""
    error_words: ErrorWords = NO_WORDS
    """What its errors say for no credit, too many requests, and what a plan has not."""
    batch: Literal["openai", "own", "mistral", "xai", "openrouter"] | None = None
    """Its batch endpoint: none, one like OpenAI's, Mistral's, xAI's or OpenRouter's, or the one of
    its language."""
    batch_body: Mapping[str, JsonValue] = {}
    """Fields that uploads and creates of batches have besides."""
    batch_expiry: bool = True
    """Whether files and batches may bear an expiry."""
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """Requests per batch."""
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    """Bytes per batch."""
    creates_per_hour: Annotated[int, Field(ge=1)] | None = None
    """Batches that may be created per hour."""
    results_kept_s: Annotated[int, Field(ge=3600, le=10**9)] | None = None
    """For how many seconds after a batch's creation its results are kept."""
    streaming: bool = False
    """Whether single calls are asked for as streams: some services answer in no other way, and
    some proxies cut a connection that is silent for as long as a model thinks."""
    canary: bool = True
    """Whether a judge may first be tried with single calls."""
    stall_after_s: Annotated[float, Field(gt=0, le=366 * 24 * 3600)] | None = None
    """For how many seconds a batch may be silent at the least before it counts as stalled."""
    states_cost: bool = False
    """Whether its answers state in `usage.cost` what they cost in USD; that is then the bill."""
    free: bool = False
    """Whether nobody is billed for it, as for your own server: its models then need no price."""
    data_region: str = ""
    """Where it processes texts, as it declares."""
    retention: str = ""
    """For how long it keeps them, as it declares."""
    source: str = ""
    """Where these facts were read."""
    as_of: date | None = None
    """When they were read."""

    @property
    def spoken(self) -> tuple[str, ...]:
        """The endpoints that a judge may name; the first is the usual one."""
        known = WIRES[self.wire]
        return self.apis or (known if self.wire == "emulator" else known[:1])

    @property
    def is_part_of_fingerprint(self) -> bool:
        """Whether it is kept with its judges, and what of it could change a verdict counts."""
        return self.name not in WITHOUT_DEFINITION

    def kept(self) -> dict[str, Any]:
        """Return it as a judge keeps it; a command is the installation's and stays there."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"token_command"})


OF_VERDICTS = ("wire", "structured", "extra_body", "extra_headers")
"""What of a definition could change a verdict; addresses and endpoints count with the judge."""


def provider_definition(name: str, own: Path | None = None) -> ProviderDefinition:
    """Return the definition of this name.

    Args:
        name: As a judge gives it.
        own: The folder of an installation's own definitions.

    Raises:
        SettingsError: If there is none, or its file cannot be used.
    """
    if (shipped := _shipped().get(name)) is not None:
        return shipped
    if own is not None and (own / f"{name}.yaml").is_file():
        return _own(own / f"{name}.yaml", own, ())
    msg = f"Unknown provider {name!r}; known: {', '.join(known_providers(own))}."
    raise SettingsError(msg)


def known_providers(own: Path | None = None) -> tuple[str, ...]:
    """Return the names of all definitions, sorted."""
    names = set(_shipped())
    if own is not None:
        names |= {path.stem for path in own.glob("*.yaml")}
    return tuple(sorted(names))


def known_definitions(own: Path | None = None) -> list[ProviderDefinition]:
    """Return all definitions that can be used."""
    found = []
    for name in known_providers(own):
        try:
            found.append(provider_definition(name, own))
        except SettingsError:
            continue  # told when a judge names it
    return found


@cache
def _shipped() -> dict[str, ProviderDefinition]:
    found = {}
    for file in sorted(_BUILT_IN.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".yaml"):
            said = load_yaml(file.read_text(encoding="utf-8"))
            found[said["name"]] = ProviderDefinition.model_validate(said)
    return found


def _own(file: Path, folder: Path, via: tuple[str, ...]) -> ProviderDefinition:
    said = _read(file)
    base = said.pop("like", None)
    if base is not None:
        said = _like(str(base), folder, (*via, file.stem)) | said
    try:
        definition = ProviderDefinition.model_validate(said)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'provider'}: {e['msg']}" for e in error.errors()
        )
        msg = f"Provider '{file.stem}' ({file.name}) cannot be used: {problems}."
        raise SettingsError(msg) from None
    if problem := _problem(definition, file):
        msg = f"Provider '{file.stem}' ({file.name}) cannot be used: {problem}."
        raise SettingsError(msg)
    return definition


def _like(name: str, folder: Path, via: tuple[str, ...]) -> dict[str, Any]:
    """Return what the definition says that another one is like; it may be like a third."""
    if name in via:
        msg = f"Providers {', '.join(via)} are like each other in a circle: end it."
        raise SettingsError(msg)
    file = folder / f"{name}.yaml"
    is_own = name not in _shipped() and re.fullmatch(r"[a-z0-9-]+", name) and file.is_file()
    base = _own(file, folder, via) if is_own else provider_definition(name)
    return base.model_dump(exclude_unset=True)


def _read(file: Path) -> dict[str, Any]:
    try:
        said = load_yaml(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        msg = f"Provider '{file.stem}' ({file.name}) cannot be read: {error}"
        raise SettingsError(msg) from None
    if not isinstance(said, dict):
        msg = f"Provider '{file.stem}' ({file.name}) is no mapping of keys to values."
        raise SettingsError(msg)
    return said


def _problem(definition: ProviderDefinition, file: Path) -> str | None:
    if definition.name != file.stem:
        return f"it calls itself '{definition.name}': give it one name"
    if definition.wire not in WIRES or definition.wire in {"emulator", "human"}:
        return f"wire: {definition.wire} is no language that is spoken: openai, anthropic, gemini"
    if unknown := set(definition.apis) - set(WIRES[definition.wire]):
        return f"apis: {definition.wire} has no {', '.join(sorted(unknown))}"
    if definition.batch in BATCH_SHAPES and definition.wire != "openai":
        return f"batch: {definition.batch} goes with wire: openai"
    if definition.streaming and definition.wire != "openai":
        return "streaming goes with wire: openai"
    return None
