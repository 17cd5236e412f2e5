"""Requests go out in shards within a provider's limits: all of them, in order, once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.errors import ProviderRefusedError
from cj_pipeline.judging.pricing import estimated_tokens
from cj_pipeline.providers.base import ProviderLimits, account_fingerprint, split_shards


@given(
    sizes=st.lists(st.integers(1, 400), max_size=60),
    max_requests=st.integers(1, 20),
    max_bytes=st.integers(401, 3_000),
    max_tokens=st.none() | st.integers(100, 1_000),
)
def test_shards_hold_every_request_once_and_stay_within_every_limit(
    sizes: list[int], max_requests: int, max_bytes: int, max_tokens: int | None
) -> None:
    """A request in two shards is paid twice; one in none is never judged."""
    limits = ProviderLimits(max_requests, max_bytes, max_enqueued_tokens=max_tokens)

    shards = split_shards(sizes, limits)

    assert [index for shard in shards for index in shard] == list(range(len(sizes)))
    for shard in shards:
        assert 0 < len(shard) <= max_requests
        assert sum(sizes[i] + 1 for i in shard) <= max_bytes
        assert max_tokens is None or sum(estimated_tokens(sizes[i]) for i in shard) <= max_tokens


def test_a_wave_within_the_limits_is_one_job() -> None:
    """Jobs are counted and rated, so none is made without need."""
    assert split_shards([100] * 500, ProviderLimits(50_000, 200_000_000)) == [range(500)]


def test_a_request_too_large_for_any_job_is_told_at_once() -> None:
    """Before anything is sent, and with what to do about it."""
    with pytest.raises(ProviderRefusedError, match="Request 2 alone has 901 bytes"):
        split_shards([10, 900], ProviderLimits(10, 500))


def test_a_request_over_the_token_limit_is_told_at_once() -> None:
    """It would wait for ever."""
    with pytest.raises(ProviderRefusedError, match="tokens"):
        split_shards([4_000], ProviderLimits(10, 5_000, max_enqueued_tokens=500))


def test_an_account_changes_with_key_and_address_and_tells_neither() -> None:
    """A job is looked for only where it was made; the store must not hold a key."""
    account = account_fingerprint("openai", "https://one.example/v1", "sk-secret")

    assert account == account_fingerprint("openai", "https://one.example/v1/", "sk-secret")
    assert account != account_fingerprint("openai", "https://one.example/v1", "sk-other")
    assert account != account_fingerprint("openai", "https://two.example/v1", "sk-secret")
    assert "secret" not in account
