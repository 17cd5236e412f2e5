"""One batch on Mistral, xAI and OpenRouter at once, over HTTP, as their shipped definitions say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cj_pipeline.judging.judges import load_judge
from cj_pipeline.operations.examine import examine
from cj_pipeline.providers.registry import open_provider
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.batches import open_engine, run_to_end, write_batch
from tests.support.served_emulator import served_emulator

AT = {"mistral": "mistral/v1", "xai": "xai/v1", "openrouter": "openrouter/api/v1"}
KEYS = {f"{name.upper()}_API_KEY": f"key-of-{name}" for name in AT}
PRICE = {"input": 1, "output": 4, "source": "a contract", "as_of": "2026-11-01"}

each_service = pytest.mark.parametrize("name", AT)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The three services, on one machine."""
    with served_emulator(tmp_path_factory.mktemp("services")) as served:
        yield served


@pytest.fixture(scope="module")
def home(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation whose own definitions are like the shipped ones."""
    providers = tmp_path_factory.mktemp("installation") / "home" / "providers"
    providers.mkdir(parents=True)
    for name, path in AT.items():
        own = {"name": f"our-{name}", "like": name, "base_url": f"{address}/{path}"}
        (providers / f"our-{name}.yaml").write_text(yaml.safe_dump(own))
    return providers.parent


@pytest.fixture(scope="module")
def judges(home: Path) -> Path:
    """A batch's folder with a judge of each."""
    settings = {
        "judges": [f"judge-{name}" for name in AT],
        "llm_batching_mode": "provider_batch_api",
        "all_at_once": True,
        "common_pairs": 1.0,
        "canary_requests": 0,
        "max_pairwise_comparisons": 6 * len(AT),
        "max_resampling_passes_for_regular_net": 0,
    }
    folder = write_batch(home.parent / "spring", n_students=4, settings=settings)
    (folder / "judges").mkdir()
    for name in AT:
        judge = {"name": f"judge-{name}", "provider": f"our-{name}", "model": "quality"}
        (folder / "judges" / f"judge-{name}.yaml").write_text(
            yaml.safe_dump(judge | {"price": PRICE})
        )
    return folder


@pytest.fixture(scope="module")
def history(home: Path, judges: Path) -> BatchHistory:
    """What became of the batch."""
    engine = open_engine(home, KEYS, is_attended=False)
    batch_id = run_to_end(engine, judges)
    with engine.store.read() as db:
        return read_history(db, batch_id)


@each_service
def test_every_pair_is_judged_by_one_job(history: BatchHistory, name: str) -> None:
    """Sent as its definition says, and settled."""
    (judge_id,) = [row["judge_id"] for row in history.judges if row["name"] == f"judge-{name}"]
    (job,) = [row for row in history.jobs if row["judge_id"] == judge_id]

    assert history.batch["state"] == "succeeded"
    assert (job["provider"], job["state"]) == (f"our-{name}", "settled")
    assert len([row for row in history.succeeded if row["judge_id"] == judge_id]) == 6


@each_service
def test_its_bill_has_no_discount_that_nobody_stated(history: BatchHistory, name: str) -> None:
    """A judge's own price is taken as it is; OpenRouter's answers state what they cost."""
    (judge_id,) = [row["judge_id"] for row in history.judges if row["name"] == f"judge-{name}"]
    for row in history.attempts:
        if row["judge_id"] == judge_id:
            by_tokens = (row["tokens_prompt"] + 4 * row["tokens_completion"]) / 1e6
            share = 0.5 if name == "openrouter" else 1
            assert row["cost_usd"] == pytest.approx(share * by_tokens)


@each_service
def test_an_examination_finds_its_batch_endpoint(home: Path, judges: Path, name: str) -> None:
    """With the limits that its definition states."""
    judge = load_judge(f"judge-{name}", judges / "judges", home / "providers")

    told = examine(open_provider(judge, KEYS, home), judge)

    (found,) = [each for each in told.examined if each.about == "batch endpoint"]
    assert told.is_ready
    assert found.standing == "ready"
    assert f"{judge.service.max_requests:,} requests" in found.finding
