"""One batch judged through three providers at once, each reached over HTTP by its own SDK."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
import yaml

from cj_pipeline.checks import claims
from cj_pipeline.emulator import create_app
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.outputs.report import render_history
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.queries.spending import spending, spending_by_judge
from tests.support.batches import open_engine, run_to_end, write_batch

_JUDGES = {
    "our-openai": ("openai", "gpt-4.1-mini", "/v1"),
    "our-anthropic": ("anthropic", "claude-haiku-4-5", ""),
    "our-gemini": ("gemini", "gemini-2.5-flash", ""),
}

_USD_PER_MILLION = {
    "our-openai": (0.40, 1.60),
    "our-anthropic": (1.00, 5.00),
    "our-gemini": (0.30, 2.50),
}
"""In and out, of single calls; half of it in a batch. By hand, from the providers' lists."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve an emulator over HTTP in a thread; give its address."""
    config = EmulatorConfig(state_path=tmp_path_factory.mktemp("emulator") / "emulator.sqlite")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(config), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def history(address: str, tmp_path_factory: pytest.TempPathFactory) -> BatchHistory:
    """The batch at its end: ten pairs, each asked of all three judges."""
    home = tmp_path_factory.mktemp("panel")
    folder = write_batch(
        home / "spring",
        n_students=5,
        settings={
            "judges": list(_JUDGES),
            "all_at_once": True,
            "max_pairwise_comparisons": 30,
            "common_pairs": 1.0,
            "spend_cap_usd": 1.0,
        },
    )
    (folder / "judges").mkdir()
    for name, (provider, model, path) in _JUDGES.items():
        judge = {"name": name, "provider": provider, "model": model, "base_url": address + path}
        judge["key_variable"] = "LAB_API_KEY"
        (folder / "judges" / f"{name}.yaml").write_text(yaml.safe_dump(judge))
    engine = open_engine(home / "home", {"LAB_API_KEY": "not-a-real-key"})
    batch_id = run_to_end(engine, folder)
    with engine.store.read() as db:
        return read_history(db, batch_id)


def test_every_judge_gave_a_verdict_on_every_pair(history: BatchHistory) -> None:
    """Three dialects, three ways to send and to find a job, one batch."""
    assert history.batch["state"] == "succeeded"
    assert len(history.succeeded) == 30
    pairs = {(row["essay_a"], row["essay_b"], row["judge_id"]) for row in history.succeeded}
    assert len(pairs) == 30


def test_each_judges_bill_is_its_tokens_at_its_price(history: BatchHistory) -> None:
    """Worked out from the stored tokens by hand: the canary at full price, the job at half."""
    batched = {job["submission_key"]: not job["is_canary"] for job in history.jobs}
    spent = spending_by_judge(history.jobs)

    for judge in history.judges:
        usd_in, usd_out = _USD_PER_MILLION[judge["name"]]
        by_hand = sum(
            (row["tokens_prompt"] * usd_in + row["tokens_completion"] * usd_out)
            * (0.5 if batched[row["submission_key"]] else 1.0)
            for row in history.attempts
            if row["judge_id"] == judge["judge_id"]
        )
        billed = spent[judge["judge_id"]].billed_usd
        assert billed == pytest.approx(by_hand / 1e6, abs=1e-9)
        assert billed > 0


def test_each_judge_went_ahead_with_a_canary(history: BatchHistory) -> None:
    """Real judges that are new here: three single calls, then a job of the other seven."""
    sizes = {
        (history.judge_by_id[job["judge_id"]]["name"], job["is_canary"]): job["n_requests"]
        for job in history.jobs
    }

    assert sizes == {
        (name, ahead): 3 if ahead else 7 for name in _JUDGES for ahead in (True, False)
    }


def test_what_openai_counts_for_its_job_is_what_its_rows_come_to(history: BatchHistory) -> None:
    """The other two tell no usage of a whole job, so there is nothing to hold theirs against."""
    told = [job for job in history.jobs if job["provider_usd"] is not None]

    assert [job["provider"] for job in told] == ["openai"]
    assert told[0]["provider_usd"] == pytest.approx(told[0]["billed_usd"])
    assert claims.bills_agree_with_providers(history).holds
    assert claims.spend_is_within_cap(history).holds


def test_the_cost_page_shows_all_three_side_by_side(history: BatchHistory) -> None:
    """As a person sees it: who was to cost what, and did."""
    page = render_history(history)

    section = page[page.index('<h2 id="cost">') : page.index('<h2 id="settings">')]
    assert all(f">{name}</th>" in section for name in _JUDGES)
    assert f">{spending(history.jobs).n_requests}<" in section
    assert section.count("canary") == 3
