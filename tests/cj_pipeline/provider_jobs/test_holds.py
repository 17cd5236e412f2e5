"""Nothing is bought of a judge that gives no verdict, and out of credit nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import (
    BatchProblemsError,
    InvalidOutputError,
    JudgeHeldError,
    OutOfCreditError,
)
from cj_pipeline.operations.execute import run_to_end, take_in
from cj_pipeline.operations.reparse import reparse
from cj_pipeline.outputs.verification import verify_artefact
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.overview import batch_overview, put_off, what_hinders
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from tests.support.batches import open_engine, write_batch

MODES = pytest.mark.parametrize("mode", ["provider_batch_api", "per_request", "serial_bundle"])
JUDGES = pytest.mark.parametrize(
    "judge",
    [
        *("quality", "quality-messages", "quality-gemini"),
        *("quality-mistral", "quality-xai", "quality-openrouter"),
    ],
)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def emulate(runtime: Runtime, *faults: dict[str, Any]) -> None:
    """Let these things go wrong from now on."""
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=list(faults))


def without_verdicts(runtime: Runtime, rate: float) -> None:
    """Let this share of the answers hold no verdict from now on."""
    config = EmulatorConfig.from_environment({}, runtime.home)
    change_settings(config, judges={"quality": {"invalid_rate": rate}})


def n_paid(runtime: Runtime) -> int:
    """Return how many answers the emulator was paid for."""
    config = EmulatorConfig.from_environment({}, runtime.home)
    books = in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    return int(books["totals"]["requests_paid"])


def a_folder(tmp_path: Path, mode: str, judge: str = "quality", **settings: Any) -> Path:
    """Write a batch of six essays that is judged in one wave of 15 comparisons."""
    given = {
        "judges": [judge],
        "llm_batching_mode": mode,
        "all_at_once": True,
        "max_pairwise_comparisons": 15,
        "max_resampling_passes_for_regular_net": 0,
        "score_stability_threshold": None,
    }
    return write_batch(tmp_path / "spring", n_students=6, settings=given | settings)


def execute(runtime: Runtime, folder: Path, *, resume: bool = False) -> tuple[str, str | None]:
    """Run a batch as `cj execute --await-completion` does; return its state and end."""
    batch_id = take_in(runtime, folder, explicit={}, resume=resume).batch_id
    done = run_to_end(runtime, batch_id, timeout_s=60)
    return done.state, done.end_reason


@MODES
def test_a_judge_without_a_verdict_is_held_and_goes_on_when_told(
    runtime: Runtime, tmp_path: Path, mode: str
) -> None:
    """Six answers were paid for and hold none; the rest is not bought before a person has looked.

    In a provider's batch they come as they were sent, all at once, which a canary prevents.
    """
    without_verdicts(runtime, 1.0)
    folder = a_folder(tmp_path, mode, canary_requests=3)

    with pytest.raises(JudgeHeldError, match="no verdict in its first 6 answers") as held:
        execute(runtime, folder)
    paid, told = n_paid(runtime), _waits(runtime)
    with pytest.raises(JudgeHeldError):
        execute(runtime, folder)
    paid_again = n_paid(runtime)
    without_verdicts(runtime, 0.0)
    ended = execute(runtime, folder, resume=True)

    assert "One of them begins: '" in str(held.value)
    assert told.startswith("waits for a person: Judge 'quality' gave no verdict")
    assert (paid, paid_again) == (6, 6)
    assert ended[0] == "succeeded"


@MODES
def test_changed_settings_continue_the_same_batch(
    runtime: Runtime, tmp_path: Path, mode: str
) -> None:
    """A judge of the same name takes what is open; what was paid for stays with the earlier one."""
    without_verdicts(runtime, 1.0)
    folder = a_folder(tmp_path, mode, canary_requests=3)
    with pytest.raises(JudgeHeldError, match=r"judges/quality\.yaml"):
        execute(runtime, folder)
    paid = n_paid(runtime)

    _change_judge(folder, max_output_tokens=700)
    without_verdicts(runtime, 0.0)
    ended = execute(runtime, folder)

    with runtime.store.read() as db:
        judged = db.rows(
            "SELECT j.definition->'settings'->>'max_output_tokens' AS most, count(*) AS n"
            " FROM comparisons c JOIN judges j USING (batch_id, judge_id)"
            " WHERE c.status = 'succeeded' GROUP BY 1"
        )
        asked = db.rows(
            "SELECT j.replaced_at IS NULL AS is_asked, count(*) AS n, sum(a.cost_usd) > 0 AS cost"
            " FROM attempts a JOIN judges j USING (batch_id, judge_id) GROUP BY 1 ORDER BY 1"
        )
        assert db.one("SELECT count(*) AS n FROM batches") == {"n": 1}
    assert ended[0] == "succeeded"
    assert paid == 6
    assert judged == [{"most": "700", "n": 15}]
    assert asked == [
        {"is_asked": False, "n": 6, "cost": True},
        {"is_asked": True, "n": 15, "cost": True},
    ]
    assert n_paid(runtime) == 6 + 15


def test_another_judge_takes_the_place_of_one_that_is_held(
    runtime: Runtime, tmp_path: Path
) -> None:
    """What the earlier one has in flight comes home, is its own, and is then asked of the other."""
    without_verdicts(runtime, 1.0)
    folder = a_folder(tmp_path, "per_request", canary_requests=0, profile_set={"concurrency": 2})
    with pytest.raises(JudgeHeldError):
        execute(runtime, folder)
    paid = n_paid(runtime)
    (folder / "judges").mkdir()
    text = "name: other\nprovider: emulator\nmodel: quality\nsettings: {max_output_tokens: 700}\n"
    (folder / "judges" / "other.yaml").write_text(text)
    written = folder / "batch.yaml"
    written.write_text(written.read_text().replace("- quality", "- other"))
    with runtime.store.write() as db:
        (out,) = db.rows("SELECT * FROM attempts ORDER BY custom_id LIMIT 1")
        db.execute("UPDATE attempts SET outcome = NULL WHERE custom_id = ?", [out["custom_id"]])
    ingest(runtime, folder)
    with runtime.store.write() as db:
        db.execute(
            "UPDATE attempts SET outcome = ? WHERE custom_id = ?",
            [out["outcome"], out["custom_id"]],
        )
        assert load_batch(db, "spring").settings.judges == ("other",)
        assert db.one(
            "SELECT count(*) AS n FROM comparison_pairs p JOIN judges USING (batch_id, judge_id)"
            " WHERE name = 'quality'"
        ) == {"n": 1}

    without_verdicts(runtime, 0.0)

    assert execute(runtime, folder)[0] == "succeeded"
    with runtime.store.read() as db:
        judged = db.rows(
            "SELECT name, count(*) AS n FROM comparisons JOIN judges USING (batch_id, judge_id)"
            " WHERE status = 'succeeded' GROUP BY name"
        )
        (written,) = db.rows("SELECT path FROM run_artefact")
        found = verify_artefact(
            runtime.published_folder / written["path"], db=db, batch_folder=folder
        )
    assert judged == [{"name": "other", "n": 15}]
    assert n_paid(runtime) == paid + 15
    assert found == [], "the artefact holds, and so does the folder as it is now"


def test_a_changed_judge_that_gives_no_verdict_is_held_anew(
    runtime: Runtime, tmp_path: Path
) -> None:
    """And changed again, or changed back, it goes on again."""
    without_verdicts(runtime, 1.0)
    folder = a_folder(tmp_path, "per_request", canary_requests=3)
    for most in (700, 800):
        with pytest.raises(JudgeHeldError, match="no verdict in its first 6 answers"):
            execute(runtime, folder)
        _change_judge(folder, max_output_tokens=most)
    without_verdicts(runtime, 0.0)
    _change_judge(folder, max_output_tokens=700)

    with pytest.raises(JudgeHeldError):
        execute(runtime, folder)

    assert n_paid(runtime) == 12
    assert execute(runtime, folder, resume=True)[0] == "succeeded"


def test_a_judge_that_gives_verdicts_is_not_changed_under_way(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Half of a scale by one judge and half by another would be no scale; nor are texts changed."""
    folder = a_folder(tmp_path, "per_request", canary_requests=3)
    without_verdicts(runtime, 1.0)
    with pytest.raises(JudgeHeldError):
        execute(runtime, folder)
    essay = next((folder / "essays").iterdir())
    before = essay.read_text()
    _change_judge(folder, max_output_tokens=700)
    essay.write_text("Another text under the same name.")

    with pytest.raises(BatchProblemsError, match="with other content"):
        execute(runtime, folder)

    essay.write_text(before)
    without_verdicts(runtime, 0.0)
    assert execute(runtime, folder)[0] == "succeeded"
    assert execute(runtime, folder)[0] == "succeeded"
    _change_judge(folder, max_output_tokens=800)
    with pytest.raises(BatchProblemsError, match="with other content"):
        execute(runtime, folder)


def _change_judge(folder: Path, max_output_tokens: int) -> None:
    """Write the built-in judge `quality` into the folder, with a setting changed."""
    (folder / "judges").mkdir(exist_ok=True)
    (folder / "judges" / "quality.yaml").write_text(
        "name: quality\nprovider: emulator\nmodel: quality\n"
        f"settings: {{max_output_tokens: {max_output_tokens}}}\n"
    )


def test_without_a_canary_single_calls_stop_by_themselves(runtime: Runtime, tmp_path: Path) -> None:
    """What is in flight when the sixth answer comes may come too, and nothing after it."""
    without_verdicts(runtime, 1.0)
    folder = a_folder(tmp_path, "per_request", profile_set={"concurrency": 2})

    with pytest.raises(JudgeHeldError, match="gave no verdict"):
        execute(runtime, folder)

    assert 6 <= n_paid(runtime) <= 7


def test_one_verdict_lets_a_judge_go_on(runtime: Runtime, tmp_path: Path) -> None:
    """Half of the answers failing is another matter: that is told by the success rate."""
    without_verdicts(runtime, 0.5)

    assert execute(runtime, a_folder(tmp_path, "per_request"))[0] == "succeeded"


def test_a_newer_parser_that_reads_the_answers_goes_on_with_the_batch(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cj reparse` finds the verdicts that were paid for; nobody has to resume anything."""
    folder = a_folder(tmp_path, "per_request", max_answers_without_verdict=4)

    def as_an_older_parser(text: str, **_: object) -> None:
        msg = "The reply is in a fence."
        raise InvalidOutputError(msg)

    with monkeypatch.context() as patch:
        patch.setattr("cj_pipeline.provider_jobs.replies.parse_verdict", as_an_older_parser)
        with pytest.raises(JudgeHeldError):
            execute(runtime, folder)
    paid = n_paid(runtime)

    found = reparse(runtime, "spring", apply=True)
    ended = execute(runtime, folder)

    assert len(found.changes) == paid
    assert ended[0] == "succeeded"
    assert n_paid(runtime) == 15, "none of them was bought again"


def _waits(runtime: Runtime) -> str:
    """Return what `cj status` says that the batch waits for."""
    with runtime.store.read() as db:
        return what_hinders(batch_overview(db, "spring")[0])


@MODES
@JUDGES
def test_out_of_credit_waits_and_the_same_command_goes_on(
    runtime: Runtime, tmp_path: Path, mode: str, judge: str
) -> None:
    """Each provider says it in its own way, one of them as if the request were wrong."""
    emulate(
        runtime,
        {"kind": "out_of_credit", "on": "*create*"},
        {"kind": "out_of_credit", "on": "*generate*"},
    )
    folder = a_folder(tmp_path, mode, judge)

    with pytest.raises(OutOfCreditError, match="run the same command: nothing is lost"):
        execute(runtime, folder)
    told = _waits(runtime)
    emulate(runtime)
    ended = execute(runtime, folder)

    assert told.startswith("waits for credit:")
    assert ended == ("succeeded", "single_wave_complete")
    assert n_paid(runtime) == 15


def test_out_of_credit_told_by_the_failed_batch(runtime: Runtime, tmp_path: Path) -> None:
    """It was created all right, and ended with nothing done and nothing paid."""
    emulate(runtime, {"kind": "fails", "word": "billing_hard_limit_reached"})
    folder = a_folder(tmp_path, "provider_batch_api")

    with pytest.raises(OutOfCreditError, match="run the same command"):
        execute(runtime, folder)
    told = _waits(runtime)
    emulate(runtime)
    ended = execute(runtime, folder)

    assert told.startswith("waits for credit:")
    assert (ended[0], n_paid(runtime)) == ("succeeded", 15)


def test_out_of_credit_told_by_rows(runtime: Runtime, tmp_path: Path) -> None:
    """Some rows were done before the credit was used up; the others are asked again, not failed."""
    emulate(runtime, {"kind": "row_without_credit", "rate": 0.5})
    folder = a_folder(tmp_path, "provider_batch_api", max_attempts=1)

    with pytest.raises(OutOfCreditError, match="has no credit left"):
        execute(runtime, folder)
    paid = n_paid(runtime)
    emulate(runtime)
    ended = execute(runtime, folder)

    assert 0 < paid < 15
    assert (ended[0], n_paid(runtime)) == ("succeeded", 15)


def test_a_pause_of_an_hour_is_shown_and_the_timeout_holds(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daily limit: nobody sits in silence before a command that says nothing for an hour."""
    busy = {"kind": "status", "status": 429, "retry_after": "3600", "on": "*chat.create"}
    emulate(runtime, busy)
    folder = a_folder(tmp_path, "per_request")
    batch_id = take_in(runtime, folder, explicit={}).batch_id

    done = run_to_end(runtime, batch_id, timeout_s=1)
    monkeypatch.setenv("CJ_HOME", str(runtime.home))
    queue = CliRunner().invoke(app, ["queue"]).output
    status = CliRunner().invoke(app, ["status"]).output

    assert done.timed_out
    with runtime.store.read() as db:
        ((named, told),) = put_off(db)
    assert named == batch_id
    assert told.startswith("put off until")
    for shown in (queue, status):
        assert "put off until" in shown
