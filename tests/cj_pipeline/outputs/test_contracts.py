"""The schemas an artefact is held to."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

import pytest

from cj_pipeline.outputs.contracts import (
    CONTRACT,
    RELAXATIONS,
    RELAXED_CONTRACT,
    load_contract,
    relax,
    strictest_contract,
    violations,
)

PUBLISHED_SHA256 = "6607fb35c044045dde0659b1a5a23408899b0e31965e009d538b7cbf2a8d1196"


def test_the_shipped_contract_is_the_published_one() -> None:
    """Whoever reads our artefacts holds them to this very file."""
    content = (files("cj_pipeline") / "outputs" / "schemas" / CONTRACT).read_bytes()

    digest = hashlib.sha256(content).hexdigest()

    assert digest == PUBLISHED_SHA256


def test_the_second_schema_is_the_contract_plus_exactly_the_listed_relaxations() -> None:
    """Two schemas kept by hand would drift apart."""
    contract = load_contract(CONTRACT)

    assert load_contract(RELAXED_CONTRACT) == relax(contract)


def test_relaxing_takes_out_only_what_is_listed() -> None:
    """Every other keyword of the contract binds every artefact."""
    before = _keywords(load_contract(CONTRACT))
    after = _keywords(relax(load_contract(CONTRACT)))

    gone = {pointer for pointer in before if pointer not in after}

    assert all(
        any(pointer.startswith(relaxation.pointer) for relaxation in RELAXATIONS)
        for pointer in gone
    )
    assert {
        pointer for pointer in before if after.get(pointer, before[pointer]) != before[pointer]
    } == {
        "/$id",
        "/title",
    }
    assert set(after) <= set(before)


@pytest.mark.parametrize(
    ("anchors", "scale", "name"),
    [
        ([{}], "eng5_np_national_9_step", CONTRACT),
        ([{}], "cefr", RELAXED_CONTRACT),
        ([], "eng5_np_national_9_step", RELAXED_CONTRACT),
    ],
)
def test_the_strictest_schema_that_can_hold_a_batch_applies(
    anchors: list[object], scale: str, name: str
) -> None:
    """A batch is let off only where the contract has no place for it."""
    document = {"inputs": {"anchors": anchors}, "metadata": {"grade_scale": scale}}

    assert strictest_contract(document) == name


def test_formats_are_checked_too() -> None:
    """A schema's `format` is only a remark unless a checker is asked for."""
    document = {"metadata": {"assignment_id": "not-a-uuid", "generated_at": "yesterday"}}

    found = list(violations(document, CONTRACT))

    assert any("not-a-uuid" in each for each in found)
    assert any("yesterday" in each for each in found)


def _keywords(schema: object, pointer: str = "") -> dict[str, str]:
    if isinstance(schema, dict):
        return {
            place: value
            for key, each in schema.items()
            for place, value in _keywords(each, f"{pointer}/{key}").items()
        }
    if isinstance(schema, list):
        return {
            place: value
            for i, each in enumerate(schema)
            for place, value in _keywords(each, f"{pointer}/{i}").items()
        }
    return {pointer: json.dumps(schema)}
