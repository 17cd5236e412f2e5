"""Judges as data: one model with one prompt and one set of settings, and its fingerprint.

A judge is a YAML file, built in (`judge_definitions/`) or the user's own. Whatever could change a
verdict is in its `judge_id`, so a changed judge is a new judge. Asking one is `providers`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cj_pipeline.errors import SettingsError
from cj_pipeline.judging.addresses import is_loopback
from cj_pipeline.judging.pricing import FULL_PRICE, NO_PRICE, Price, PriceEntry, price_of
from cj_pipeline.judging.prompts import Template, verdict_schema
from cj_pipeline.judging.provider_definitions import (
    OF_VERDICTS,
    ProviderDefinition,
    Structured,
    provider_definition,
)
from cj_pipeline.judging.templates import load_template, translation_of
from cj_pipeline.strict_yaml import load_yaml

Api = Literal[
    "chat_completions",
    "responses",
    "messages",
    "generate_content",
    "page",
    "mistral",
    "xai",
    "openrouter",
]
"""The endpoints of a service; the last three only the emulator has, which so imitates a service's
batches as well."""

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
        structured: How it is made to answer in JSON, where that is not its provider's way.
        defined: Its provider's definition; None for one that is known by its name.
    """

    name: str
    provider: str
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
    structured: Structured | None = None
    defined: ProviderDefinition | None = None

    @property
    def service(self) -> ProviderDefinition:
        """How its provider differs from others; as it was when the judge was loaded."""
        return self.defined or provider_definition(self.provider)

    @property
    def json_by(self) -> Structured:
        """How it is made to answer in JSON."""
        return self.structured or self.service.structured

    @property
    def has_own_address(self) -> bool:
        """Whether it is reached elsewhere than its provider's definition says."""
        return self.base_url is not None and self.base_url != self.service.base_url

    @property
    def judge_id(self) -> str:
        """The name and a fingerprint of everything that could change a verdict."""
        parts = self.definition() | {"schema": verdict_schema(allow_ties=self.allow_ties)}
        # A new key, another price or a larger account is still the same judge.
        unrelated = ("name", "key_variable", "account", "price", "limits", "answers_as")
        for key in unrelated:
            parts.pop(key, None)
        if self.defined is not None:
            kept = self.defined.kept()
            parts["service"] = {key: kept[key] for key in OF_VERDICTS if key in kept}
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
        return self.service.batch is not None

    @property
    def price(self) -> Price:
        """What its tokens cost.

        Raises:
            UnpricedModelError: If neither it nor the table gives a price.
        """
        if self.price_override is not None:
            # No discount that it does not state: another server may give none.
            price = self.price_override.price(
                self.provider, self.model, FULL_PRICE, is_simulated=self.is_simulated
            )
            return replace(price, is_stated_by_answers=self.service.states_cost)
        if self.is_human:
            return NO_PRICE
        if self.service.free or self._is_local:
            return replace(
                NO_PRICE, provider=self.provider, model=self.model, source="a server of one's own"
            )
        listed = price_of(self.provider, self.model)
        return replace(listed, is_stated_by_answers=self.service.states_cost)

    @property
    def _is_local(self) -> bool:
        """Whether it is a server on this machine that takes no key: nobody is billed for it."""
        is_any_server = self.provider == "openai-compatible" and self.key_variable is None
        return is_any_server and self.base_url is not None and is_loopback(self.base_url)

    def definition(self) -> dict[str, Any]:
        """Return the judge as JSON values, the template's words included."""
        return {
            "name": self.name,
            "provider": self.provider,
            "api": self.api,
            "model": self.model,
            "template": self.template.words,
            "settings": self.settings.model_dump(mode="json"),
            "allow_ties": self.allow_ties,
            "base_url": self.base_url,
            "key_variable": self.key_variable,
            "price": self.price_override.model_dump(mode="json") if self.price_override else None,
            "limits": dict(self.limits),
            **({"account": self.account} if self.account else {}),
            "answers_as": list(self.answers_as),
            **({"structured": self.structured} if self.structured else {}),
            **({"service": self.defined.kept()} if self.defined else {}),
        }

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Judge:
        """Return the judge whose `definition` this is, whatever has become of its files."""
        rest = dict(definition)
        price = rest.pop("price")
        answers_as = tuple(rest.pop("answers_as", ()))
        service = rest.pop("service", None)
        return cls(
            template=Template(**rest.pop("template")),
            settings=JudgeSettings.model_validate(rest.pop("settings")),
            price_override=PriceEntry.model_validate(price) if price else None,
            answers_as=answers_as,
            defined=ProviderDefinition.model_validate(service) if service else None,
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
    provider: str
    """The service that runs the model: a provider definition, shipped or of the installation."""
    api: Api | None = None
    """The provider's API; by default its usual one."""
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The provider's name of the model; a dated version keeps verdicts comparable. People need
    none."""
    template: str = "essay-quality-1"
    """The prompt before the essays; by default in the language of the batch, where there is one."""
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
    structured: Structured | None = None
    """How the model is made to answer in JSON: json_schema, json_object, or by the prompt alone; by
    default as its provider's definition says."""
    answers_as: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Names of the model that its answers may bear; by default how `model` begins, and with a
    `base_url` whatever the first answer says."""

    def problems(self, service: ProviderDefinition) -> list[str]:
        """Return what does not go together with its provider's definition."""
        found = []
        if self.api is not None and self.api not in service.spoken:
            spoken = ", ".join(sorted(service.spoken))
            found.append(f"{self.provider} has no api {self.api}; it has {spoken}")
        if service.wire == "emulator" and (self.base_url or self.key_variable):
            found.append("the emulator's address is CJ_EMULATOR_URL, and it takes no key")
        elif service.wire not in {"emulator", "human"} and not (self.base_url or service.base_url):
            found.append(f"a judge of {self.provider} needs the base_url of its server")
        if service.wire == "human":
            unusable = [key for key in _OF_MODELS if key in self.model_fields_set]
            if unusable:
                found.append(f"people have no {', '.join(unusable)}: leave it out")
        elif self.model is None:
            found.append("model: name the provider's model")
        return found


_OF_MODELS = ("base_url", "key_variable", "price", "limits", "settings", "template")
"""Keys that say how a model is reached; what people are shown is the page."""


def load_judge(
    name: str,
    extra_dir: Path | None = None,
    providers_dir: Path | None = None,
    language: str | None = None,
) -> Judge:
    """Return the judge of this name.

    Args:
        name: Of a file, without its ending.
        extra_dir: A folder of the user's own judges, which win over built-in ones; its
            `templates/` may hold their prompts.
        providers_dir: A folder of the installation's own provider definitions.
        language: Of the essays; a judge that names no template reads the usual one in it.

    Raises:
        SettingsError: If unknown name, or the file cannot be used.
    """
    source = _source(name, extra_dir)
    try:
        parsed = JudgeFile.model_validate(load_yaml(source.read_text(encoding="utf-8")))
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
    try:
        service = provider_definition(parsed.provider, providers_dir)
    except SettingsError as error:
        msg = f"Judge '{name}' ({source.name}) cannot be used: provider: {error}"
        raise SettingsError(msg) from None
    if problems_with_it := parsed.problems(service):
        msg = f"Judge '{name}' ({source.name}) cannot be used: {'; '.join(problems_with_it)}."
        raise SettingsError(msg)
    is_kept = service.is_part_of_fingerprint
    templates = extra_dir / "templates" if extra_dir else None
    wanted = parsed.template
    if language is not None and "template" not in parsed.model_fields_set:
        wanted = translation_of(wanted, language, templates)
    return Judge(
        name=name,
        provider=parsed.provider,
        api=parsed.api or cast(Api, service.spoken[0]),
        model=parsed.model or "people",
        template=load_template(wanted, templates),
        settings=parsed.settings,
        allow_ties=parsed.allow_ties,
        base_url=parsed.base_url or (service.base_url if is_kept else None),
        key_variable=parsed.key_variable or service.key_variable,
        account=parsed.account,
        price_override=parsed.price,
        limits=parsed.limits.model_dump(exclude_none=True),
        answers_as=parsed.answers_as,
        structured=parsed.structured,
        defined=service if is_kept else None,
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
