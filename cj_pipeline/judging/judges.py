"""Judges as data: one model with one prompt and one set of settings, and its fingerprint.

A judge is a YAML file, built in (`judge_definitions/`) or the user's own. Whatever could change a
verdict is in its `judge_id`, so a changed judge is a new judge. Asking one is `providers`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.pricing import NO_PRICE, Price, PriceEntry, batch_multipliers, price_of
from cj_pipeline.judging.prompts import Template, verdict_schema
from cj_pipeline.judging.templates import load_template

ProviderName = Literal["emulator", "openai", "anthropic", "gemini", "openai-compatible", "human"]
Api = Literal["chat_completions", "responses", "messages", "generate_content", "page"]

DEFAULT_API: Mapping[ProviderName, Api] = {
    "emulator": "chat_completions",
    "openai": "chat_completions",
    "openai-compatible": "chat_completions",
    "anthropic": "messages",
    "gemini": "generate_content",
    "human": "page",
}
"""Which of its endpoints a provider is called through unless the judge says otherwise."""

_SPOKEN: Mapping[ProviderName, frozenset[Api]] = {
    "emulator": frozenset({"chat_completions", "responses", "messages", "generate_content"}),
    "openai": frozenset({"chat_completions", "responses"}),
    "openai-compatible": frozenset({"chat_completions"}),
    "anthropic": frozenset({"messages"}),
    "gemini": frozenset({"generate_content"}),
    "human": frozenset({"page"}),
}

KEY_OF_PROVIDER: Mapping[ProviderName, str | None] = {
    "emulator": None,
    "openai": "OPENAI_API_KEY",
    "openai-compatible": None,
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "human": None,
}
"""The variable with a provider's key unless the judge names another."""

USUAL_ADDRESS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}
"""Where a provider is, unless the judge has a `base_url`."""

_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,47}$")

_BUILT_IN = files("cj_pipeline") / "judging" / "judge_definitions"


class JudgeSettings(BaseModel):
    """How a model is to answer; None leaves a setting to the provider.

    Attributes:
        max_output_tokens: The longest answer, reasoning included; limits the cost.
        temperature: Not sent unless set, because reasoning models reject it.
        reasoning_effort: In the provider's own words, such as `low`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_output_tokens: Annotated[int, Field(ge=16, le=65_536)] = 1024
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    reasoning_effort: Annotated[str, Field(pattern=r"^[a-z]{2,12}$")] | None = None


@dataclass(frozen=True)
class Judge:
    """One model with one prompt and one set of settings.

    Attributes:
        name: For people; `judge_id` is what rows are kept under.
        provider: The service it is reached through.
        api: Which of that service's endpoints, so which dialect is spoken.
        model: As the provider calls it.
        template: What it reads before the essays, word for word.
        settings: How it is to answer.
        allow_ties: Whether "tie" is a verdict it may give.
        base_url: Where the provider is, if not at its usual address.
        key_variable: The environment variable that holds the key; None where none is needed.
        account: What its account is called here; keys of one account may change. None: an account
            is known by its key.
        price_override: Its own price; otherwise the table's.
        answers_as: Names its answers may bear beside the model's own.
        limits: What its account may have in one job and in the queue, where that is not what the
            provider's documents say; names and units as in `providers.ProviderLimits`.
    """

    name: str
    provider: ProviderName
    api: Api
    model: str
    template: Template
    settings: JudgeSettings = field(default_factory=JudgeSettings)
    allow_ties: bool = False
    base_url: str | None = None
    key_variable: str | None = None
    account: str | None = None
    price_override: PriceEntry | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    answers_as: tuple[str, ...] = ()

    @property
    def judge_id(self) -> str:
        """The name and a fingerprint of everything that could change a verdict."""
        parts = self.definition() | {"schema": verdict_schema(allow_ties=self.allow_ties)}
        # A new key, another price or a larger account is still the same judge.
        unrelated = ("name", "key_variable", "account", "price", "limits", "answers_as")
        for key in unrelated:
            parts.pop(key, None)
        canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return f"{self.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"

    @property
    def is_simulated(self) -> bool:
        """Whether its verdicts come from the emulator."""
        return self.provider == "emulator"

    @property
    def is_human(self) -> bool:
        """Whether people judge: then nothing is sent or paid."""
        return self.provider == "human"

    @property
    def has_jobs(self) -> bool:
        """Whether its provider has a batch endpoint; a local server only answers single calls."""
        return self.provider != "openai-compatible"

    @property
    def price(self) -> Price:
        """What its tokens cost.

        Raises:
            UnpricedModelError: If neither it nor the table gives a price.
        """
        if self.price_override is None:
            return NO_PRICE if self.is_human else price_of(self.provider, self.model)
        return self.price_override.price(
            self.provider,
            self.model,
            batch_multipliers(self.provider),
            is_simulated=self.is_simulated,
        )

    def definition(self) -> dict[str, Any]:
        """Return the judge as JSON values, the template's words included."""
        return {
            "name": self.name,
            "provider": self.provider,
            "api": self.api,
            "model": self.model,
            "template": {
                "name": self.template.name,
                "system": self.template.system,
                "task": self.template.task,
                "answer": self.template.answer,
            },
            "settings": self.settings.model_dump(mode="json"),
            "allow_ties": self.allow_ties,
            "base_url": self.base_url,
            "key_variable": self.key_variable,
            "price": self.price_override.model_dump(mode="json") if self.price_override else None,
            "limits": dict(self.limits),
            **({"account": self.account} if self.account else {}),
            "answers_as": list(self.answers_as),
        }

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Judge:
        """Return the judge whose `definition` this is, whatever has become of its files."""
        rest = dict(definition)
        price = rest.pop("price")
        answers_as = tuple(rest.pop("answers_as", ()))
        return cls(
            template=Template(**rest.pop("template")),
            settings=JudgeSettings.model_validate(rest.pop("settings")),
            price_override=PriceEntry.model_validate(price) if price else None,
            answers_as=answers_as,
            **rest,
        )


Count = Annotated[int, Field(ge=1, le=10**12)]


class _Limits(BaseModel):
    """The limits of an account, where a judge's file gives them.

    Attributes:
        max_requests: Requests per provider job.
        max_bytes: Size of a provider job's requests, in bytes.
        max_enqueued_tokens: Tokens of all open provider jobs together.
        max_open_jobs: Provider jobs that are open at once.
        creates_per_hour: Provider jobs created per hour.
        requests_per_minute: Single calls per minute, over all processes.
        tokens_per_minute: Tokens of single calls per minute, over all processes.
        max_concurrent_calls: Single calls in flight at once, over all processes.
        results_kept_s: Seconds for which the provider stores results.
        list_lag_s: Seconds for which a new job may be missing from the provider's list.
    """

    model_config = ConfigDict(extra="forbid")

    max_requests: Count | None = None
    max_bytes: Count | None = None
    max_enqueued_tokens: Count | None = None
    max_open_jobs: Count | None = None
    creates_per_hour: Count | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrent_calls: Count | None = None
    results_kept_s: Annotated[int, Field(ge=3600, le=10**9)] | None = None
    list_lag_s: Annotated[int, Field(ge=0, le=10**7)] | None = None


class JudgeFile(BaseModel):
    """The keys of a judge's YAML file."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    """The file's name without its ending."""
    about: str = ""
    """What a colleague should know before choosing it."""
    provider: ProviderName
    """The service that runs the model."""
    api: Api | None = None
    """The provider's API; by default its usual one."""
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The provider's name of the model; a dated version keeps verdicts comparable. People need
    none."""
    template: str = "essay-quality-1"
    """The prompt before the essays."""
    settings: JudgeSettings = Field(default_factory=JudgeSettings)
    """The model's settings."""
    allow_ties: bool = False
    """Whether the judge may answer that neither essay is better."""
    base_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """The provider's address, if not its usual one."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """The environment variable with the key; by default the provider's usual one."""
    account: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")] | None = None
    """What its account is called here, so that its keys may change; by default the key tells."""
    price: PriceEntry | None = None
    """The judge's own price, if the table has none or another one."""
    limits: _Limits = Field(default_factory=_Limits)
    """The limits of its account."""
    answers_as: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Names of the model that its answers may bear; by default how `model` begins, and with a
    `base_url` whatever the first answer says."""

    @model_validator(mode="after")
    def _provider_speaks_the_api(self) -> JudgeFile:
        if self.api is not None and self.api not in _SPOKEN[self.provider]:
            spoken = ", ".join(sorted(_SPOKEN[self.provider]))
            msg = f"{self.provider} has no api {self.api}; it has {spoken}"
            raise ValueError(msg)
        if self.provider == "openai-compatible" and self.base_url is None:
            msg = "an openai-compatible judge needs the base_url of its server"
            raise ValueError(msg)
        if self.provider == "emulator" and (self.base_url or self.key_variable):
            msg = "the emulator's address is CJ_EMULATOR_URL, and it takes no key"
            raise ValueError(msg)
        if self.provider == "human":
            unusable = [key for key in _OF_MODELS if key in self.model_fields_set]
            if unusable:
                msg = f"people have no {', '.join(unusable)}: leave it out"
                raise ValueError(msg)
        elif self.model is None:
            msg = "model: name the provider's model"
            raise ValueError(msg)
        return self


_OF_MODELS = ("base_url", "key_variable", "price", "limits", "settings", "template")
"""Keys that say how a model is reached; what people are shown is the page."""


def load_judge(name: str, extra_dir: Path | None = None) -> Judge:
    """Return the judge of this name.

    Args:
        name: Of a file, without its ending.
        extra_dir: A folder of the user's own judges, which win over built-in ones; its
            `templates/` may hold their prompts.

    Raises:
        SettingsError: If unknown name, or the file cannot be used.
    """
    source = _source(name, extra_dir)
    try:
        parsed = JudgeFile.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"Judge '{name}' ({source.name}) is not YAML: {error}"
        raise SettingsError(msg) from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'judge'}: {e['msg']}" for e in error.errors()
        )
        msg = f"Judge '{name}' ({source.name}) cannot be used: {problems}."
        raise SettingsError(msg) from None
    if parsed.name != name:
        msg = f"Judge '{name}' ({source.name}) calls itself '{parsed.name}': give it one name."
        raise SettingsError(msg)
    return Judge(
        name=name,
        provider=parsed.provider,
        api=parsed.api or DEFAULT_API[parsed.provider],
        model=parsed.model or "people",
        template=load_template(parsed.template, extra_dir / "templates" if extra_dir else None),
        settings=parsed.settings,
        allow_ties=parsed.allow_ties,
        base_url=parsed.base_url,
        key_variable=parsed.key_variable or KEY_OF_PROVIDER[parsed.provider],
        account=parsed.account,
        price_override=parsed.price,
        limits=parsed.limits.model_dump(exclude_none=True),
        answers_as=parsed.answers_as,
    )


def own_file(name: str, extra_dir: Path) -> Path | None:
    """Return the file in a folder that stands for a judge; None where a built-in one does."""
    file = extra_dir / f"{name}.yaml"
    return file if _NAME.fullmatch(name) and file.is_file() else None


def known_judges(extra_dir: Path | None = None) -> tuple[str, ...]:
    """Return the names of all judges, sorted."""
    names = {Path(entry.name).stem for entry in _BUILT_IN.iterdir() if entry.name.endswith(".yaml")}
    if extra_dir is not None:
        names |= {path.stem for path in extra_dir.glob("*.yaml")}
    return tuple(sorted(names))


def _source(name: str, extra_dir: Path | None) -> Traversable:
    if _NAME.fullmatch(name):
        if extra_dir is not None and (own := own_file(name, extra_dir)) is not None:
            return own
        built_in = _BUILT_IN / f"{name}.yaml"
        if built_in.is_file():
            return built_in
    msg = f"Unknown judge {name!r}; known: {', '.join(known_judges(extra_dir))}."
    raise SettingsError(msg)
