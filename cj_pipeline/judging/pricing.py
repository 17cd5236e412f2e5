"""What tokens cost: prices as data (`prices.yaml`), one meaning of usage, bounds and bills.

Providers count tokens in different ways; adapters convert each count into `Usage` as it is defined
here, so the arithmetic is written once. When caching a prefix pays is `prompt_caching`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cj_pipeline.errors import UnpricedModelError

if TYPE_CHECKING:
    from cj_pipeline.judging.prompts import Prompt

_PER = Decimal(1_000_000)

_BYTES_PER_TOKEN = 4
"""A rule of thumb for European prose; `cj plan --pilot` measures instead."""

EXPECTED_ANSWER_TOKENS = 80
"""A verdict with a justification of two sentences; reasoning tokens come on top."""

_REQUEST_OVERHEAD_TOKENS = 400
"""The answer's JSON schema, role markers and separators, which providers count as prompt."""


@dataclass(frozen=True)
class Usage:
    """The tokens of one request or of many, counted one way for every provider.

    Attributes:
        prompt: All input tokens: read from a cache, written to one, and the rest.
        cached: Those of `prompt` that were read from a cache.
        cache_write_5m: Those of `prompt` written to a cache that lives for minutes.
        cache_write_1h: Those of `prompt` written to a cache that lives for an hour or longer.
        completion: All output tokens, reasoning included.
        reasoning: Those of `completion` that are never shown.
    """

    prompt: int = 0
    cached: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    completion: int = 0
    reasoning: int = 0

    @property
    def uncached(self) -> int:
        """The input tokens that were neither read from nor written to a cache."""
        return max(0, self.prompt - self.cached - self.cache_write_5m - self.cache_write_1h)

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))


@dataclass(frozen=True)
class BatchMultipliers:
    """What a provider's batch endpoint charges per class of token, as a share of the price."""

    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    output: Decimal


@dataclass(frozen=True)
class HourlyShare:
    """What single calls cost from one time of day to another, in UTC, as a share of the price."""

    begins: time
    ends: time
    times: Decimal

    def holds_at(self, moment: datetime) -> bool:
        """Whether it holds then; a span may go over midnight."""
        at = moment.astimezone(UTC).time()
        if self.begins < self.ends:
            return self.begins <= at < self.ends
        return at >= self.begins or at < self.ends


@dataclass(frozen=True)
class Price:
    """USD per million tokens of one model, with where and when the figures were read.

    `cacheable_from` is the shortest prefix, in tokens, that the provider keeps for this model;
    `is_simulated` marks nominal prices of emulated models: nothing is billed. `tiers` are shares
    of the price by the service tier that an answer names. `is_stated_by_answers`: what an answer
    says it cost is the bill, and this price bounds it beforehand. `hours` are shares of the price
    by the time of day, for single calls.
    """

    provider: str
    model: str
    input: Decimal
    cached_input: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    output: Decimal
    batched: BatchMultipliers
    cacheable_from: int
    source: str
    as_of: date
    is_simulated: bool = False
    tiers: Mapping[str, Decimal] = field(default_factory=dict)
    is_stated_by_answers: bool = False
    hours: tuple[HourlyShare, ...] = ()

    @property
    def dearest_hour(self) -> Decimal:
        """The largest share of the price that a single call may cost at any time of day."""
        return max((hour.times for hour in self.hours), default=Decimal(1)).max(Decimal(1))

    def dearest_between(self, start: datetime, end: datetime) -> Decimal:
        """Return the largest share of the price at any time between two moments.

        Nobody tells by which of them a call is billed that lasts from one price into another.
        """
        end = max(start, end)  # a clock may have been set back
        if end - start >= timedelta(days=1):
            return self.dearest_hour
        moments = [start, end]
        for day in {start.astimezone(UTC).date(), end.astimezone(UTC).date()}:
            edges = (edge for hour in self.hours for edge in (hour.begins, hour.ends))
            moments += [datetime.combine(day, edge, UTC) for edge in edges]
        return max(self._share_at(moment) for moment in moments if start <= moment <= end)

    def _share_at(self, moment: datetime) -> Decimal:
        found = (hour.times for hour in self.hours if hour.holds_at(moment))
        return next(found, Decimal(1))


class HourEntry(BaseModel):
    """A part of the day with another price, as written in a judge's own definition."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    begins: Annotated[time, Field(alias="from", strict=True)]
    ends: Annotated[time, Field(alias="to", strict=True)]
    times: Annotated[Decimal, Field(ge=0, le=100)]

    @field_validator("begins", "ends", mode="before")
    @classmethod
    def _time(cls, said: object) -> object:
        """A number would be taken as seconds, and 16:30 unquoted is a number to some readers."""
        if isinstance(said, str) and re.fullmatch(r"\d\d:\d\d(:00)?", said):
            return time.fromisoformat(said)
        msg = "a time of day in UTC is written as 'HH:MM', in quotes"
        raise ValueError(msg)

    def share(self) -> HourlyShare:
        """Return it as a price has it."""
        return HourlyShare(self.begins, self.ends, self.times)


_Share = Annotated[Decimal, Field(ge=0, le=1)]


class BatchedEntry(BaseModel):
    """What a batch endpoint charges per class of token, as a share of the price; 1 if not said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: _Share = Decimal(1)
    cached_input: _Share = Decimal(1)
    cache_write: _Share = Decimal(1)
    output: _Share = Decimal(1)

    def multipliers(self) -> BatchMultipliers:
        """Return it as a price has it."""
        return BatchMultipliers(self.input, self.cached_input, self.cache_write, self.output)


Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
"""USD per million tokens."""


def folded_tier(name: str) -> str:
    """Return a service tier's name as it is compared."""
    return name.strip().casefold().replace("-", "_")


class PriceEntry(BaseModel):
    """A price as written in `prices.yaml` or in a judge's own definition.

    Figures are strings or whole numbers, so that they are read as decimals, exactly. `batched` is
    what the provider's batch endpoint charges, as a share of the price, for all classes of token or
    for each; `tiers` the same for
    service tiers that an answer may name, and `hours` for single calls by the time of day in UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Usd
    cached_input: Usd | None = None
    cache_write_5m: Usd | None = None
    cache_write_1h: Usd | None = None
    output: Usd
    batched: _Share | BatchedEntry | None = None
    tiers: Mapping[str, Annotated[Decimal, Field(ge=0, le=100)]] = {}
    hours: tuple[HourEntry, ...] = ()
    cacheable_from: Annotated[int, Field(ge=1)] = 1024
    source: str
    as_of: date

    def price(
        self,
        provider: str,
        model: str,
        batched: BatchMultipliers,
        *,
        is_simulated: bool = False,
    ) -> Price:
        """Return the price; a class of token without a figure costs what input costs."""

        def or_input(figure: Decimal | None) -> Decimal:
            return self.input if figure is None else figure

        return Price(
            provider=provider,
            model=model,
            input=self.input,
            cached_input=or_input(self.cached_input),
            cache_write_5m=or_input(self.cache_write_5m),
            cache_write_1h=or_input(self.cache_write_1h),
            output=self.output,
            batched=self._batched(batched),
            tiers={folded_tier(name): share for name, share in self.tiers.items()},
            hours=tuple(hour.share() for hour in self.hours),
            cacheable_from=self.cacheable_from,
            source=self.source,
            as_of=self.as_of,
            is_simulated=is_simulated,
        )

    def _batched(self, usual: BatchMultipliers) -> BatchMultipliers:
        if isinstance(self.batched, BatchedEntry):
            return self.batched.multipliers()
        return usual if self.batched is None else BatchMultipliers(*[self.batched] * 4)


@cache
def price_table() -> Mapping[tuple[str, str], Price]:
    """Return every price we know, by provider and model."""
    text = (files("cj_pipeline") / "judging" / "prices.yaml").read_text(encoding="utf-8")
    table: dict[tuple[str, str], Price] = {}
    for provider, listed in yaml.safe_load(text).items():
        multipliers = _multipliers(listed["batched"])
        for model, entry in listed["models"].items():
            figures = {"source": listed["source"], "as_of": listed["as_of"], **entry}
            versions = figures.pop("also", [])
            parsed = PriceEntry.model_validate(figures)
            for name in (model, *versions):
                table[provider, name] = parsed.price(
                    provider, name, multipliers, is_simulated=listed.get("is_simulated", False)
                )
    return table


def price_of(provider: str, model: str) -> Price:
    """Return a model's price.

    Raises:
        UnpricedModelError: If the table has none; no price is ever guessed.
    """
    try:
        return price_table()[provider, model]
    except KeyError:
        msg = (
            f"No price is known for {provider}'s model '{model}', so its cost cannot be bounded."
            " Give one under `price` in the judge's definition, with its source and date."
        )
        raise UnpricedModelError(msg) from None


def cost_usd(price: Price, usage: Usage, *, batched: bool) -> float:
    """Return what these tokens cost, in USD; computed in decimals, exactly.

    Args:
        price: The model's price.
        usage: Of one request or of many.
        batched: Whether they went through the provider's batch endpoint.
    """
    share = price.batched if batched else FULL_PRICE
    total = (
        usage.uncached * price.input * share.input
        + usage.cached * price.cached_input * share.cached_input
        + usage.cache_write_5m * price.cache_write_5m * share.cache_write
        + usage.cache_write_1h * price.cache_write_1h * share.cache_write
        + usage.completion * price.output * share.output
    )
    return float(total / _PER)


def estimated_tokens(n_bytes: int) -> int:
    """Return about how many tokens a text of this many UTF-8 bytes has."""
    return -(-n_bytes // _BYTES_PER_TOKEN)


def prompt_bytes(prompt: Prompt) -> int:
    """Return the size of a prompt in bytes of UTF-8."""
    return sum(len(part.encode()) for part in (prompt.system, prompt.prefix, prompt.essays))


FULL_PRICE = BatchMultipliers(Decimal(1), Decimal(1), Decimal(1), Decimal(1))

NO_PRICE = Price(
    provider="human",
    model="people",
    input=Decimal(0),
    cached_input=Decimal(0),
    cache_write_5m=Decimal(0),
    cache_write_1h=Decimal(0),
    output=Decimal(0),
    batched=FULL_PRICE,
    cacheable_from=1024,
    source="people take minutes, which are counted apart",
    as_of=date(2026, 1, 1),
    is_simulated=False,
)
"""What people's verdicts cost in money."""


def _multipliers(listed: Mapping[str, Any]) -> BatchMultipliers:
    return BatchMultipliers(**{key: Decimal(str(value)) for key, value in listed.items()})
