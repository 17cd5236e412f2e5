"""Profiles: every rule of how their fields come together, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.live.profiles import (
    BUILT_IN,
    COUNTS,
    FIELDS,
    PARALLEL_ONLY,
    SECONDS,
    Profile,
    ResolvedProfile,
    known_profiles,
    resolve_profile,
    unfinishable_wave,
    usual_profile,
)


def resolved(
    name: str = "default",
    configured: dict[str, Any] | None = None,
    explicit: dict[str, Any] | None = None,
) -> ResolvedProfile:
    """Return a profile that has to be usable."""
    found, problems = resolve_profile(name, configured, explicit)
    assert found is not None, problems
    return found


def refused(
    name: str = "default",
    configured: dict[str, Any] | None = None,
    explicit: dict[str, Any] | None = None,
) -> list[str]:
    """Return what is wrong with a profile that has to be refused."""
    found, problems = resolve_profile(name, configured, explicit)
    assert found is None
    assert problems
    return problems


def said(
    name: str = "default",
    configured: dict[str, Any] | None = None,
    explicit: dict[str, Any] | None = None,
) -> str:
    """Return the same as one text."""
    return "\n".join(refused(name, configured, explicit))


def test_the_built_in_profiles_are_those_promised() -> None:
    """Their numbers are what people who know such harnesses expect."""
    smoke, ci, nightly = (resolved(name).values for name in ("smoke", "ci", "nightly"))

    assert smoke.mode == "serial"
    assert smoke.workers == 1
    assert (ci.concurrency, ci.chunk_size, ci.timeout_seconds) == (4, 4, 30)
    assert (ci.wait_timeout_seconds, ci.checkpoint_every, ci.rate_limit) == (120, 25, None)
    assert (nightly.concurrency, nightly.chunk_size, nightly.timeout_seconds) == (16, 16, 120)
    assert (nightly.wait_timeout_seconds, nightly.checkpoint_every) == (600, 100)
    assert (nightly.rate_limit, nightly.rate_window_seconds) == (60, 60)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_profile_can_be_used_and_kept(name: str) -> None:
    """What is stored with a batch is what is read from it."""
    profile = resolved(name)

    assert ResolvedProfile.from_json(profile.as_json()) == profile


def test_explicit_beats_configured_beats_built_in_field_by_field() -> None:
    """Each field is settled on its own, and its source is known."""
    configured = {"ci": {"concurrency": 8, "timeout_seconds": 20}}

    profile = resolved("ci", configured, {"timeout_seconds": "10"})

    assert profile.values.concurrency == 8
    assert profile.values.timeout_seconds == 10
    assert profile.values.checkpoint_every == 25
    assert profile.sources["concurrency"] == "configured"
    assert profile.sources["timeout_seconds"] == "explicit"
    assert profile.sources["checkpoint_every"] == "built-in"
    assert profile.sources["queue"] == "default"


def test_a_profile_of_ones_own_builds_on_the_defaults() -> None:
    """Nothing of another profile slips in."""
    profile = resolved("mine", {"mine": {"queue": 9}})

    assert profile.values == Profile(queue=9)


@pytest.mark.parametrize("field", [*COUNTS, *SECONDS])
@pytest.mark.parametrize("word", ["none", "null", "NULL", " None ", None])
def test_none_and_null_clear_every_numeric_field(field: str, word: str | None) -> None:
    """On the command line and in YAML alike."""
    profile = resolved("default", None, {field: word})

    assert getattr(profile.values, field) is None
    assert profile.sources[field] == "explicit"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_flag_falls_back(field: str, empty: str) -> None:
    """An unset variable in a script must not change what it was meant to leave alone."""
    assert resolved("nightly", None, {field: empty}) == resolved("nightly")


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_profile_name_is_an_error(name: str) -> None:
    """It is never the default in disguise."""
    assert "empty" in refused(name)[0]


def test_an_unknown_profile_is_told_with_the_nearest() -> None:
    """A slip of the finger is put right at once, the user's own profiles counted."""
    assert "'nightly'" in refused("nigtly")[0]
    assert "'weekend'" in refused("weeknd", {"weekend": {}})[0]


@pytest.mark.parametrize("layer", ["configured", "explicit"])
def test_an_unknown_field_is_told_with_the_nearest(layer: str) -> None:
    """In whichever layer it is set."""
    fields = {"conccurency": 3}
    problems = (
        refused("ci", {"ci": fields}) if layer == "configured" else refused("ci", None, fields)
    )

    assert len(problems) == 1
    assert "'concurrency'" in problems[0]
    assert layer in problems[0]


@pytest.mark.parametrize("field", PARALLEL_ONLY)
def test_serial_refuses_parallel_fields_set_explicitly(field: str) -> None:
    """Whether serial was inherited or set in the same layer."""
    assert field in refused("smoke", None, {field: 3})[0]
    assert field in refused("ci", None, {"mode": "serial", field: 3})[0]
    assert field in refused("mine", {"mine": {"mode": "serial", field: 3}})[0]


@pytest.mark.parametrize("field", PARALLEL_ONLY)
def test_serial_takes_parallel_fields_that_are_cleared(field: str) -> None:
    """Clearing what has no meaning is no contradiction."""
    assert getattr(resolved("smoke", None, {field: "none"}).values, field) is None


def test_serial_drops_parallel_fields_it_inherited() -> None:
    """Choosing serial over `nightly` keeps its rate and its timeouts."""
    profile = resolved("nightly", None, {"mode": "serial"})

    assert {getattr(profile.values, field) for field in PARALLEL_ONLY} == {None}
    assert profile.values.rate_limit == 60
    assert profile.values.wait_timeout_seconds == 600
    assert "serial" in profile.notes["chunk_size"]


def test_a_rate_window_needs_a_rate_limit() -> None:
    """A window alone bounds nothing."""
    assert "needs a rate_limit" in refused("ci", None, {"rate_window_seconds": 60})[0]
    assert "needs a rate_limit" in refused("mine", {"mine": {"rate_window_seconds": 60}})[0]


def test_a_rate_limit_without_a_window_has_the_usual_one() -> None:
    """Sixty means sixty a minute unless the profile says otherwise."""
    profile = resolved("ci", None, {"rate_limit": 60})

    assert profile.values.rate_window_seconds == 60
    assert "usual" in profile.notes["rate_window_seconds"]


def test_clearing_the_rate_limit_drops_an_inherited_window() -> None:
    """One flag takes the limit off."""
    profile = resolved("nightly", None, {"rate_limit": "none"})

    assert profile.values.rate_limit is None
    assert profile.values.rate_window_seconds is None
    assert "dropped" in profile.notes["rate_window_seconds"]


def test_clearing_the_rate_limit_and_setting_a_window_is_a_contradiction() -> None:
    """Both were set explicitly, so neither may be dropped."""
    explicit = {"rate_limit": "none", "rate_window_seconds": 30}

    assert "rate_window_seconds 30 (explicit)" in refused("nightly", None, explicit)[0]


def test_clearing_only_the_window_is_a_contradiction() -> None:
    """The limit would lose its meaning."""
    assert "cleared" in refused("nightly", None, {"rate_window_seconds": "none"})[0]


def test_a_chunk_may_not_be_larger_than_the_concurrency() -> None:
    """Set in the same layer, it is a contradiction with both ways out."""
    (problem,) = refused("ci", None, {"concurrency": 4, "chunk_size": 9})

    assert "at most 4" in problem
    assert "at least 9" in problem


def test_an_explicit_chunk_over_an_inherited_concurrency_is_refused() -> None:
    """Only the other direction has an obvious meaning."""
    assert "chunk_size 9 (explicit)" in refused("ci", None, {"chunk_size": 9})[0]


def test_an_explicit_lower_concurrency_caps_an_inherited_chunk() -> None:
    """Turning concurrency down has to work with one flag."""
    profile = resolved("nightly", None, {"concurrency": 5})

    assert profile.values.chunk_size == 5
    assert "16" in profile.notes["chunk_size"]
    assert profile.sources["chunk_size"] == "built-in"


def test_a_higher_concurrency_leaves_the_chunk_alone() -> None:
    """It is capped, never raised."""
    assert resolved("ci", None, {"concurrency": 32}).values.chunk_size == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("concurrency", 0),
        ("concurrency", -1),
        ("concurrency", 2.5),
        ("concurrency", True),
        ("concurrency", "many"),
        ("concurrency", [4]),
        ("queue", "1e400"),
        ("timeout_seconds", 0),
        ("timeout_seconds", "nan"),
        ("timeout_seconds", float("inf")),
        ("rate_limit", 10**400),
        ("mode", "none"),
        ("mode", "parallel"),
        ("concurrency", 4096),
    ],
)
def test_a_value_that_means_nothing_is_refused(field: str, value: object) -> None:
    """The message names the field, where it was set and what it was."""
    (problem,) = refused("default", None, {field: value})

    assert problem.startswith(field)
    assert "explicit" in problem


def test_every_violation_is_told_at_once() -> None:
    """Nobody mends a profile one message at a time."""
    problems = refused(
        "ci",
        {"ci": {"concurency": 2, "queue": 0}},
        {"chunk_size": 99, "rate_window_seconds": 5, "mode": "fast", "timeout_seconds": 300},
    )

    for part in ("concurency", "queue", "chunk_size", "rate_window", "mode", "timeout_seconds"):
        assert sum(problem.count(part) > 0 for problem in problems) >= 1
    assert len(problems) == 6


def test_a_call_may_not_outlast_the_wait() -> None:
    """Otherwise the last try could never end in time."""
    (problem,) = refused("ci", None, {"timeout_seconds": 121})

    assert "at most 120" in problem
    assert "at least 121" in problem


def test_a_cleared_timeout_counts_as_the_longest_there_is() -> None:
    """Nothing waits for ever, so it is held against the wait as well."""
    assert "600" in refused("ci", None, {"timeout_seconds": "none"})[0]


def test_a_rate_too_slow_for_its_chunk_is_refused_with_numbers() -> None:
    """Each of the numbers offered does fix it."""
    slow = {"rate_limit": 2, "wait_timeout_seconds": 300}
    (problem,) = refused("nightly", None, slow)

    assert "wait_timeout_seconds to at least 600" in problem
    assert "rate_limit to at least 6" in problem
    assert "chunk_size to at most 6" in problem
    resolved("nightly", None, slow | {"wait_timeout_seconds": 600})
    resolved("nightly", None, slow | {"rate_limit": 6})
    resolved("nightly", None, slow | {"chunk_size": 6})


@pytest.mark.parametrize("configured", [{"ci": 4}, {"ci": [1]}, {"ci": "concurrency"}])
def test_a_configured_profile_must_hold_fields(configured: dict[str, Any]) -> None:
    """YAML may hold anything."""
    assert "must hold fields" in refused("ci", configured)[0]


def test_a_configured_profile_may_be_empty() -> None:
    """A name alone in YAML is null."""
    assert resolved("mine", {"mine": None}).values == Profile()


def test_known_profiles_are_built_in_first() -> None:
    """A user's own of the same name is no second one."""
    assert known_profiles({"ci": {}, "a": {}}) == ("default", "smoke", "ci", "nightly", "a")


def test_a_chunk_needs_a_concurrency() -> None:
    """The usual one is nobody's word; where it is cleared by hand what was inherited falls away."""
    assert "needs a concurrency" in said("mine", {"mine": {"chunk_size": 2}})
    assert resolved("mine", {"mine": {"chunk_size": 2, "concurrency": 2}}).values.chunk_size == 2
    cleared = resolved("ci", explicit={"concurrency": "none"})
    assert cleared.values.chunk_size is None
    assert "no concurrency" in cleared.notes["chunk_size"]


def test_a_queue_is_a_depth_and_its_other_name_is_known() -> None:
    """Elsewhere `queue` is a name; here a name is refused with what there is instead."""
    assert resolved("mine", {"mine": {"queue_depth": 9}}).values.queue == 9
    told = said("mine", {"mine": {"queue": "gpu-low"}})
    assert "queue_depth" in told
    assert "priority" in told


def test_a_suggestion_does_not_mind_the_case() -> None:
    """`CI` is meant as `ci`."""
    assert "did you mean 'ci'" in said("CI")
    assert "did you mean 'concurrency'" in said("ci", explicit={"Concurrency": 2})


def test_a_wave_that_would_expire_before_its_turn_is_refused_with_numbers() -> None:
    """Each of the numbers offered does fix it."""
    profile = Profile(rate_limit=60, rate_window_seconds=60.0, result_ttl_seconds=300.0)
    (problem,) = unfinishable_wave(profile, 500)

    assert "at least 480" in problem
    assert "at least 84" in problem
    assert "at most 360" in problem
    assert unfinishable_wave(profile, 360) == []
    longer = Profile(rate_limit=60, rate_window_seconds=60.0, result_ttl_seconds=480.0)
    faster = Profile(rate_limit=84, rate_window_seconds=60.0, result_ttl_seconds=300.0)
    assert unfinishable_wave(longer, 500) == []
    assert unfinishable_wave(faster, 500) == []


def test_without_limit_or_expiry_every_wave_can_be_sent() -> None:
    """Only both together can make work come too late."""
    assert unfinishable_wave(usual_profile().values, 1_000_000) == []


_NUMBERS = st.one_of(
    st.none(), st.sampled_from(["", "none", "null"]), st.integers(-2, 40), st.floats(0, 1000)
)
_LAYER = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((*COUNTS, *SECONDS), _NUMBERS)
    | {"mode": st.sampled_from(["serial", "lazy-parallel", "", "x"]), "typo": st.just(1)},
)


@given(name=st.sampled_from([*BUILT_IN, "mine", "?"]), configured=_LAYER, explicit=_LAYER)
def test_whatever_is_said_a_profile_is_sound_or_refused_with_reasons(
    name: str, configured: dict[str, Any], explicit: dict[str, Any]
) -> None:
    """The laws hold for every combination, not only for the usual ones."""
    found, problems = resolve_profile(name, {"mine": configured, "ci": configured}, explicit)

    assert (found is None) == bool(problems)
    assert len(set(problems)) == len(problems)
    if found is None:
        return
    values = found.values
    if values.mode == "serial":
        assert {getattr(values, field) for field in PARALLEL_ONLY} == {None}
    assert 1 <= values.turns_at_once <= values.workers
    assert values.chunk_size is None or values.chunk_size <= values.workers
    assert (values.rate_limit is None) == (values.rate_window_seconds is None)
    wait = values.wait_timeout_seconds
    assert wait is None or values.call_timeout_s <= wait
    assert set(found.sources) == set(FIELDS)
    again = resolved(name, {"mine": configured, "ci": configured}, explicit)
    assert ResolvedProfile.from_json(again.as_json()) == found


@given(explicit=_LAYER)
def test_what_is_set_by_hand_and_accepted_is_what_is_in_force(explicit: dict[str, Any]) -> None:
    """No rule changes an explicit value behind the caller's back."""
    found, _ = resolve_profile("nightly", None, explicit)
    if found is None:
        return
    for field, value in explicit.items():
        if value == "":
            continue
        wanted = None if value in (None, "none", "null") else value
        assert getattr(found.values, field) == wanted
        assert found.sources[field] == "explicit"
