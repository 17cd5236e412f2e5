"""The JSON schemas an artefact is held to.

`assessment_run.schema.json` is the contract, as published and unchanged. It cannot hold every
batch: it knows two grade scales and wants an anchor. `cj_assessment_run.schema.json` is the same
contract with the `RELAXATIONS` below and nothing else; a test rebuilds it and compares.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

CONTRACT = "assessment_run.schema.json"
RELAXED_CONTRACT = "cj_assessment_run.schema.json"
_RELAXED_ID = "https://cj-pipeline.invalid/schemas/cj_assessment_run.json"


@dataclass(frozen=True)
class Relaxation:
    """One keyword of the contract that is taken out: where it is, and why it cannot hold."""

    path: tuple[str, ...]
    reason: str

    @property
    def pointer(self) -> str:
        """The JSON pointer of the keyword."""
        return "/" + "/".join(self.path)


RELAXATIONS = (
    Relaxation(
        ("definitions", "metadata", "properties", "grade_scale", "enum"),
        "A batch may use another published scale, or its own; with none the value is empty.",
    ),
    Relaxation(
        ("definitions", "inputs", "properties", "anchors", "minItems"),
        "A batch without anchors has scores and ranks.",
    ),
)


@functools.cache
def load_contract(name: str) -> Mapping[str, Any]:
    """Return one of the two schemas by its file name."""
    text = (files("cj_pipeline") / "outputs" / "schemas" / name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def relax(contract: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contract without the keywords of `RELAXATIONS`, under an id of its own."""
    relaxed = copy.deepcopy(dict(contract))
    for relaxation in RELAXATIONS:
        parent: dict[str, Any] = relaxed
        for key in relaxation.path[:-1]:
            parent = parent[key]
        del parent[relaxation.path[-1]]
    return relaxed | {"$id": _RELAXED_ID, "title": f"{contract['title']}, relaxed"}


def violations(document: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield every way in which a document breaks a schema, with its place; none when valid.

    Formats (`uuid`, `date-time`) are checked too.
    """
    from cj_pipeline.outputs.schema_validator import Validator

    validator = Validator(load_contract(name), format_checker=Validator.FORMAT_CHECKER)
    for error in validator.iter_errors(document):
        yield f"{error.json_path}: {error.message}"


def strictest_contract(document: Mapping[str, Any]) -> str:
    """Return the name of the strictest schema that can hold such a batch.

    Only what a relaxation is about decides; whether the document is valid is `violations`.
    """
    scales = load_contract(CONTRACT)["definitions"]["metadata"]["properties"]["grade_scale"]
    holds = document["inputs"]["anchors"] and document["metadata"]["grade_scale"] in scales["enum"]
    return CONTRACT if holds else RELAXED_CONTRACT
