"""The code location as Dagster loads it."""

from __future__ import annotations

import dagster as dg
import pytest
import yaml

from cj_pipeline.definitions import defs
from tests.support import ROOT

CHAIN = (
    "essays",
    "comparison_pairs",
    "provider_jobs",
    "comparisons",
    "essay_scores",
    "wave_decision",
    "grade_projections",
    "run_artefact",
    "batch_report",
    "trial_outcome",
)
BESIDE = {"wave_request": {"wave_decision"}, "provider_job_states": {"provider_jobs"}}


def test_the_assets_are_the_life_of_a_batch() -> None:
    """Each follows from the one before."""
    graph = defs.resolve_asset_graph()

    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }

    chain = {name: set(CHAIN[max(i - 1, 0) : i]) for i, name in enumerate(CHAIN)}
    assert parents == chain | BESIDE


@pytest.mark.parametrize("name", [*CHAIN, *BESIDE])
def test_every_asset_says_what_it_is(name: str) -> None:
    """Whoever opens the graph needs no other page to find their way."""
    node = defs.resolve_asset_graph().get(dg.AssetKey(name))

    assert node.description
    assert node.owners
    assert node.kinds
    assert node.group_name != "default"
    assert isinstance(node.partitions_def, dg.DynamicPartitionsDefinition)


def test_every_check_says_what_it_claims() -> None:
    """A failed check without a description sends people to the code."""
    graph = defs.resolve_asset_graph()

    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]

    assert len(specs) == 31
    assert all(spec.description for spec in specs)


def test_what_could_let_a_wrong_grade_out_is_blocked() -> None:
    """Probabilities, boundaries, completeness and the artefact itself."""
    graph = defs.resolve_asset_graph()

    blocking = {key.name for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}

    assert {
        "success_is_earned",
        "probabilities_are_real",
        "boundaries_are_in_order",
        "every_essay_is_graded_or_none",
        "artefact_is_valid",
    } <= blocking


def test_the_workspace_file_names_this_module() -> None:
    """`dagster dev` at the top of the repository finds the code location by it."""
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())

    assert workspace["load_from"][0]["python_module"]["module_name"] == "cj_pipeline.definitions"
