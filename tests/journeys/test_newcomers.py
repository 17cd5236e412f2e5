"""The paths that the documentation shows a newcomer, word for word, against stand-ins."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import yaml

from cj_pipeline.queries.history import BatchHistory, read_history
from tests.journeys.test_provider_definitions import Server
from tests.support import ROOT
from tests.support.batches import open_engine, run_to_end, write_batch
from tests.support.served_emulator import served_emulator


def _shown(heading: str) -> list[dict[str, Any]]:
    """Return the YAML that a section of the page shows."""
    page = (ROOT / "docs" / "your-own-essays.md").read_text("utf-8")
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)]


def _judged(
    home: Path, judge: dict[str, Any], keys: dict[str, str], **settings: Any
) -> BatchHistory:
    """Run a batch of four essays with the judge, as a person at a terminal."""
    given = {"judges": [judge["name"]], "all_at_once": True, **settings}
    folder = write_batch(home.parent / "spring", n_students=4, settings=given)
    (folder / "judges").mkdir()
    (folder / "judges" / f"{judge['name']}.yaml").write_text(yaml.safe_dump(judge))
    engine = open_engine(home, keys)
    batch_id = run_to_end(engine, folder)
    with engine.store.read() as db:
        return read_history(db, batch_id)


def test_a_model_on_ones_own_machine_judges_for_nothing(tmp_path: Path) -> None:
    """Three lines of YAML; only the port is another here."""
    (judge,) = _shown("Use a model on your own machine")
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    judge["base_url"] = f"http://127.0.0.1:{server.server_address[1]}/ollama/v1"
    try:
        history = _judged(tmp_path / "home", judge, {}, llm_batching_mode="per_request")
    finally:
        server.shutdown()
        server.server_close()

    assert history.batch["state"] == "succeeded"
    assert {row["cost_usd"] for row in history.attempts} == {0.0}
    assert {body["model"] for _, body in server.seen["ollama"]} == {"llama3.1:8b"}


def test_a_deployment_at_azure_judges_in_its_batches(tmp_path: Path) -> None:
    """The key goes in Azure's header, the deployment is the model, and the price is halved."""
    definition, judge = _shown("With your school's Azure")
    providers = tmp_path / "home" / "providers"
    providers.mkdir(parents=True)
    deployments = {"judges": {judge["model"]: {}}}
    with served_emulator(tmp_path / "azure", token="azure-key", **deployments) as address:
        definition["base_url"] = f"{address}/v1"
        (providers / "school-azure.yaml").write_text(yaml.safe_dump(definition))
        keys = {"AZURE_OPENAI_API_KEY": "azure-key"}
        history = _judged(tmp_path / "home", judge, keys)

    usd = sum(row["cost_usd"] for row in history.attempts)
    tokens = sum(
        2 * row["tokens_prompt"] + 8 * row["tokens_completion"] for row in history.attempts
    )
    assert history.batch["state"] == "succeeded"
    assert {row["provider"] for row in history.jobs} == {"school-azure"}
    assert {row["batching_mode"] for row in history.jobs} == {"provider_batch_api"}
    assert 0 < usd <= tokens / 2e6
