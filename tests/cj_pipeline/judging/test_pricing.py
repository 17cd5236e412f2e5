"""Bills come out to the cent as computed by hand, and reservations always cover them."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cj_pipeline.errors import UnpricedModelError
from cj_pipeline.judging.estimates import worst_case_usd
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.pricing import (
    BatchMultipliers,
    Price,
    PriceEntry,
    Usage,
    cost_usd,
    price_of,
    price_table,
)
from cj_pipeline.judging.prompts import Prompt

_COUNTS = st.integers(0, 10_000)


def test_a_plain_call_costs_what_the_price_list_says() -> None:
    """gpt-4.1-mini: 1,000,000 x 0.40 + 500,000 x 1.60 per million."""
    usage = Usage(prompt=1_000_000, completion=500_000)

    assert cost_usd(price_of("openai", "gpt-4.1-mini"), usage, batched=False) == 1.20


def test_cached_tokens_are_billed_once_at_their_own_price() -> None:
    """gpt-5.1: 2000 at 1.25, 8000 at 0.125, and 1000 out at 10, per million."""
    usage = Usage(prompt=10_000, cached=8_000, completion=1_000, reasoning=700)

    billed = cost_usd(price_of("openai", "gpt-5.1"), usage, batched=False)

    assert billed == pytest.approx(0.0025 + 0.001 + 0.010, abs=1e-15)


def test_reasoning_tokens_are_part_of_the_completion_not_added_to_it() -> None:
    """They are counted in what OpenAI calls completion tokens."""
    price = price_of("openai", "gpt-5.1")

    thoughtful = cost_usd(price, Usage(completion=900, reasoning=800), batched=False)

    assert thoughtful == cost_usd(price, Usage(completion=900), batched=False)


def test_an_anthropic_batch_halves_every_class_of_token() -> None:
    """Haiku 4.5, by hand: 100 x 1, 1000 x 0.10, 2000 x 1.25, 500 x 2, 300 x 5; then half."""
    usage = Usage(
        prompt=3_600, cached=1_000, cache_write_5m=2_000, cache_write_1h=500, completion=300
    )

    billed = cost_usd(price_of("anthropic", "claude-haiku-4-5"), usage, batched=True)

    assert billed == pytest.approx((100 + 100 + 2500 + 1000 + 1500) / 2 / 1e6, abs=1e-15)


def test_a_one_hour_cache_write_in_an_anthropic_batch_saves_nothing() -> None:
    """Half of twice the input price is the input price."""
    price = price_of("anthropic", "claude-sonnet-4-6")

    written = cost_usd(price, Usage(prompt=1_000, cache_write_1h=1_000), batched=True)

    assert written == cost_usd(price, Usage(prompt=1_000), batched=False)


def test_gemini_bills_cache_hits_in_a_batch_at_the_standard_cache_price() -> None:
    """2.5 Flash: 1000 x 0.15 and 3000 x 0.03 in, 500 x 1.25 out, per million."""
    usage = Usage(prompt=4_000, cached=3_000, completion=500)

    billed = cost_usd(price_of("gemini", "gemini-2.5-flash"), usage, batched=True)

    assert billed == pytest.approx((150 + 90 + 625) / 1e6, abs=1e-15)


def test_more_cached_tokens_than_prompt_tokens_never_give_a_negative_bill() -> None:
    """A provider's counts are not ours to trust."""
    usage = Usage(prompt=10, cached=500)

    assert usage.uncached == 0
    assert cost_usd(price_of("openai", "gpt-5.1"), usage, batched=False) > 0


def test_a_model_without_a_price_is_refused() -> None:
    """Unknown is an error, never zero; the message says what to do."""
    with pytest.raises(UnpricedModelError, match="gpt-6"):
        price_of("openai", "gpt-6")


@pytest.mark.parametrize("price", price_table().values(), ids=lambda p: f"{p.provider}-{p.model}")
def test_every_price_says_where_and_when_it_was_read(price: Price) -> None:
    """A figure without a source cannot be checked."""
    assert price.source
    assert price.as_of.year >= 2026
    assert price.cached_input <= price.input <= price.output


def test_only_the_emulators_prices_are_simulated() -> None:
    """Nobody may take nominal money for a bill."""
    assert {p.provider for p in price_table().values() if p.is_simulated} == {"emulator"}


def test_a_dated_version_costs_what_its_model_costs() -> None:
    """Judges name dated versions, so that their verdicts stay comparable."""
    dated = price_of("openai", "gpt-5.1-2025-11-13")

    assert dated.output == price_of("openai", "gpt-5.1").output


@given(st.builds(Usage, *[_COUNTS] * 6), st.builds(Usage, *[_COUNTS] * 6))
def test_usage_adds_up_class_by_class(one: Usage, other: Usage) -> None:
    """A job's usage is the sum of its rows'."""
    both = one + other

    for field in fields(Usage):
        name = field.name
        assert getattr(both, name) == getattr(one, name) + getattr(other, name)


@given(
    essays=st.text(max_size=300),
    answer=st.integers(0, 512),
    read=st.floats(0, 1),
    batched=st.booleans(),
)
def test_a_reservation_covers_whatever_the_call_turns_out_to_use(
    essays: str, answer: int, read: float, batched: bool
) -> None:
    """Even where every byte is a token, so that the spend cap holds whatever an author writes."""
    judge = load_judge("quality")
    prompt = Prompt("You judge.", "Compare.", essays, "", "0" * 16)
    n_tokens = (
        sum(len(part.encode()) for part in (prompt.system, prompt.prefix, prompt.essays)) + 300
    )
    used = Usage(prompt=n_tokens, cached=int(read * n_tokens), completion=answer)

    reserved = worst_case_usd(judge.price, prompt, judge, batched=batched)

    assert reserved >= cost_usd(judge.price, used, batched=batched)


@pytest.mark.parametrize("figure", ["inf", "nan", "-1", "1e30"])
def test_a_price_is_a_sensible_number(figure: str) -> None:
    """A bill of infinity, or of nothing that can be added up, is refused where it is written."""
    with pytest.raises(ValidationError):
        PriceEntry(input=figure, output="1", source="made up", as_of="2026-11-29")


def test_a_judges_own_price_may_state_its_batch_discount() -> None:
    """Half of everything, and nothing is guessed from the provider's name."""
    stated = PriceEntry(
        input="1", output="4", batched="0.5", source="made up", as_of="2026-11-29"
    ).price("openai", "m", BatchMultipliers(*[Decimal(1)] * 4))
    usage = Usage(prompt=1_000_000, completion=1_000_000)

    assert cost_usd(stated, usage, batched=True) == 2.5
    assert cost_usd(stated, usage, batched=False) == 5.0


_NIGHTLY = PriceEntry.model_validate(
    {
        "input": 1,
        "output": 2,
        "hours": [{"from": "16:30", "to": "00:30", "times": "0.5"}],
        "source": "a test",
        "as_of": "2026-11-30",
    }
)
_NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("begins", "lasts", "share"),
    [
        (_NOON, timedelta(hours=1), "1"),
        (_NOON + timedelta(hours=5), timedelta(hours=7), "0.5"),
        (_NOON + timedelta(hours=4.5), timedelta(0), "0.5"),
        (_NOON + timedelta(hours=12.5), timedelta(0), "1"),
        (_NOON + timedelta(hours=5), timedelta(hours=7.6), "1"),
        (_NOON + timedelta(hours=5), timedelta(hours=22), "1"),
        (_NOON + timedelta(hours=5), timedelta(days=3), "1"),
        (_NOON + timedelta(hours=5), -timedelta(hours=1), "0.5"),
    ],
    ids=[
        *("by day", "by night", "as the night begins", "as it ends", "into the day"),
        *("over a day to the next night", "for days", "under a clock set back"),
    ],
)
def test_a_call_costs_the_dearest_price_of_the_hours_it_took(
    begins: datetime, lasts: timedelta, share: str
) -> None:
    """Providers differ in whether its begin or its end decides."""
    price = _NIGHTLY.price("lab", "owl", price_of("openai", "gpt-5.1").batched)

    assert price.dearest_between(begins, begins + lasts) == Decimal(share)
    assert price.dearest_hour == 1


def test_what_is_reserved_covers_the_dearest_hour_of_single_calls() -> None:
    """Batches have one price all day."""
    judge = load_judge("quality")
    prompt = Prompt("system", "prefix ", "words " * 50, "words", "nonce")
    at_peak = _NIGHTLY.model_copy(
        update={"hours": (_NIGHTLY.hours[0].model_copy(update={"times": Decimal(3)}),)}
    )
    plain, dear = (each.price("lab", "owl", judge.price.batched) for each in (_NIGHTLY, at_peak))

    calls = [worst_case_usd(price, prompt, judge, batched=False) for price in (plain, dear)]
    jobs = [worst_case_usd(price, prompt, judge, batched=True) for price in (plain, dear)]

    assert calls[1] == pytest.approx(3 * calls[0])
    assert jobs[1] == jobs[0]


@pytest.mark.parametrize("said", [990, "4:30", "25:00", "16:30+02:00"])
def test_a_time_of_day_that_could_mean_another_is_refused(said: object) -> None:
    """To some readers of YAML 16:30 is a number of minutes."""
    hours = [{"from": said, "to": "00:30", "times": 1}]

    with pytest.raises(ValidationError, match=r"hours\.0\.from"):
        PriceEntry.model_validate(_NIGHTLY.model_dump(mode="json") | {"hours": hours})


def test_hours_come_back_from_what_the_store_keeps() -> None:
    """A judge's definition is kept as JSON."""
    assert PriceEntry.model_validate(_NIGHTLY.model_dump(mode="json")) == _NIGHTLY


def test_a_discount_may_differ_by_class_of_token_and_holds_for_what_it_names() -> None:
    """A service may halve what is read and written, and not what comes from a cache."""
    said = _NIGHTLY.model_dump(mode="json") | {"batched": {"input": "0.5", "output": "0.25"}}
    entry = PriceEntry.model_validate(said)
    price = entry.price("lab", "owl", price_of("openai", "gpt-5.1").batched)
    usage = Usage(prompt=3_000_000, cached=1_000_000, completion=1_000_000)

    assert cost_usd(price, usage, batched=True) == 2 * 0.5 + 1 + 2 * 0.25
    assert PriceEntry.model_validate(entry.model_dump(mode="json")) == entry
    with pytest.raises(ValidationError, match="batched"):
        PriceEntry.model_validate(said | {"batched": {"cached": "0.5"}})
