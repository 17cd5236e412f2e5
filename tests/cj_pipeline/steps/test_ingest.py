"""Taking a batch in: twice the same, another content, other settings, a rejection mended."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.live_profile import stored_profile
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import advance_to_end
from cj_pipeline.steps.ingest import ingest, load_judges
from tests.support.batches import open_engine, write_batch


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A batch folder of three essays."""
    return write_batch(tmp_path / "batch", n_students=3, settings={"judges": ["quality"]})


def test_the_same_folder_twice_changes_nothing(runtime: Runtime, folder: Path) -> None:
    """Whoever is not sure whether a command ran may run it again."""
    first, again = ingest(runtime, folder), ingest(runtime, folder)

    assert (first.is_new, again.is_new) == (True, False)


def test_other_content_under_the_same_name_is_refused(runtime: Runtime, folder: Path) -> None:
    """What was paid for belongs to the texts that were judged."""
    ingest(runtime, folder)
    (folder / "essays" / "student-001.txt").write_text("Something else altogether.")

    with pytest.raises(BatchProblemsError, match="another name"):
        ingest(runtime, folder)


def test_a_setting_by_hand_is_not_dropped_in_silence(runtime: Runtime, folder: Path) -> None:
    """Somebody who asks for 3 comparisons must not get 120."""
    ingest(runtime, folder)

    with pytest.raises(BatchProblemsError, match="max_pairwise_comparisons"):
        ingest(runtime, folder, explicit={"max_pairwise_comparisons": 3})


def test_a_priority_by_hand_is_kept_and_may_change_while_the_batch_runs(
    runtime: Runtime, folder: Path
) -> None:
    """It changes whose turn it is, and no verdict; over it is over."""
    ingest(runtime, folder, explicit={"priority": "low"})
    assert _priority(runtime) == ("low", "explicit")

    ingest(runtime, folder, explicit={"priority": "high"})
    ingest(runtime, folder)
    with pytest.raises(BatchProblemsError, match="seed"):
        ingest(runtime, folder, explicit={"priority": "normal", "seed": 7})

    assert _priority(runtime) == ("high", "explicit")
    cancel(runtime, "batch")
    list(advance_to_end(runtime, "batch"))
    with pytest.raises(BatchProblemsError, match="priority"):
        ingest(runtime, folder, explicit={"priority": "low"})


def test_budgets_and_waits_may_change_while_a_batch_runs_and_nothing_else_may(
    runtime: Runtime, folder: Path
) -> None:
    """What decides on pairs or grades is refused by name; what does not is kept with its moment.

    The prompts stay as they were, so that a request that was sent is found again.
    """
    ingest(runtime, folder, explicit={"stall_after_s": 60.0})
    with runtime.store.read() as db:
        secret = load_batch(db, "batch").fence_secret
    written = folder / "batch.yaml"
    before = yaml.safe_load(written.read_text())
    wanted = {"spend_cap_usd": 2.5, "max_attempts": 5, "profile_set": {"concurrency": 2}}
    written.write_text(yaml.safe_dump(before | wanted | {"stall_after_s": 99}) + "# a remark\n")

    assert not ingest(runtime, folder).is_new
    ingest(runtime, folder)
    with runtime.store.read() as db:
        record = load_batch(db, "batch")
        (kept,) = db.rows("SELECT content FROM documents WHERE kind = 'batch'")
    assert record.settings.model_dump() | wanted == record.settings.model_dump()
    assert record.settings.stall_after_s == 60.0, "it was set by hand"
    assert stored_profile(record.metadata).concurrency == 2
    assert [each["key"] for each in record.metadata["settings_changed"]] == sorted(wanted)
    assert kept["content"] == written.read_text()
    assert record.fence_secret == secret
    assert record.content_sha256 == read_batch(folder).content_sha256

    written.write_text(yaml.safe_dump(before | wanted | {"seed": 3, "goal": "top(1)"}))
    with pytest.raises(BatchProblemsError) as refused:
        ingest(runtime, folder)
    assert [problem.split()[0] for problem in refused.value.problems] == ["seed", "goal"]
    with runtime.store.read() as db:
        assert load_batch(db, "batch") == record

    reached = []
    for cap in (2.0, 3.0):
        with runtime.store.write() as db:
            db.execute("UPDATE batches SET spend_cap_reached = TRUE")
        written.write_text(yaml.safe_dump(before | wanted | {"spend_cap_usd": cap}))
        ingest(runtime, folder)
        with runtime.store.read() as db:
            reached.append(load_batch(db, "batch").spend_cap_reached)
    assert reached == [True, False], "a higher cap is asked anew"


@pytest.mark.parametrize("what", ["essay", "instructions", "register"])
def test_a_refusal_names_the_files_that_are_others(
    runtime: Runtime, folder: Path, what: str
) -> None:
    """Names count too: a register that was changed must not be passed over in silence."""
    register = folder / "register.csv"
    register.write_text("essay_id,name\nstudent-001,Ada\n")
    ingest(runtime, folder)
    place = {"essay": folder / "essays" / "student-001.txt", "register": register}.get(
        what, folder / "instructions.md"
    )
    place.write_text("essay_id,name\nstudent-001,Eva\n")

    named = "instructions.md" if what == "instructions" else "essays/student-001.txt"
    with pytest.raises(BatchProblemsError, match=f"with other content.*others are {named}"):
        ingest(runtime, folder)


def _priority(runtime: Runtime) -> tuple[str, str]:
    with runtime.store.read() as db:
        (row,) = db.rows(
            "SELECT settings->>'priority' AS value, settings_origins->>'priority' AS origin"
            " FROM batches"
        )
    return row["value"], row["origin"]


def test_a_rejected_batch_is_taken_in_once_it_is_mended(runtime: Runtime, folder: Path) -> None:
    """The rejection stays visible until then, with every problem."""
    essay = folder / "essays" / "student-001.txt"
    text = essay.read_text()
    essay.write_text("")
    with pytest.raises(BatchProblemsError):
        ingest(runtime, folder)

    essay.write_text(text)

    assert ingest(runtime, folder).is_new
    with runtime.store.read() as db:
        assert db.rows("SELECT state FROM batches") == [{"state": "running"}]


def test_an_unknown_judge_is_a_problem_of_the_batch(runtime: Runtime, folder: Path) -> None:
    """It is told as such, and the batch is recorded as rejected."""
    (folder / "batch.yaml").write_text("judges: [nobody]\n")

    with pytest.raises(BatchProblemsError, match="nobody"):
        ingest(runtime, folder)

    with runtime.store.read() as db:
        assert db.rows("SELECT state FROM batches") == [{"state": "rejected"}]


_LOCAL = "local-ollama-llama-3-1"


def _folder(tmp_path: Path, settings: str) -> Path:
    folder = tmp_path / "spring-9"
    (folder / "essays").mkdir(parents=True)
    (folder / "batch.yaml").write_text(settings, encoding="utf-8")
    (folder / "instructions.md").write_text("Describe a walk.", encoding="utf-8")
    for name in ("anna", "bert", "cleo"):
        (folder / "essays" / f"{name}.txt").write_text(f"A walk by {name}.", encoding="utf-8")
    return folder


def test_every_judge_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    """One round of mending, not one per judge."""
    folder = _folder(tmp_path, "judges: [qualityy, quality, nobody]")

    with pytest.raises(BatchProblemsError) as caught:
        load_judges(read_batch(folder))

    assert len(caught.value.problems) == 2


def test_a_local_server_cannot_be_given_a_provider_batch(tmp_path: Path) -> None:
    """It would be refused at the first upload, after everything else was done."""
    folder = _folder(tmp_path, f"judges: [{_LOCAL}]")

    with pytest.raises(BatchProblemsError, match="per_request or serial_bundle"):
        load_judges(read_batch(folder))


def test_a_local_server_answers_single_calls(tmp_path: Path) -> None:
    """The mode is the batch's to choose."""
    folder = _folder(tmp_path, f"judges: [{_LOCAL}]\nllm_batching_mode: serial_bundle")

    assert [judge.name for judge in load_judges(read_batch(folder))] == [_LOCAL]


def test_a_template_of_the_batchs_own_is_used_and_part_of_what_it_is(
    runtime: Runtime, folder: Path
) -> None:
    """As documented, in `judges/templates/`; another word in it is another batch."""
    templates = folder / "judges" / "templates"
    templates.mkdir(parents=True)
    words = {
        "name": "clarity-1",
        "system": "You judge.",
        "task": "Which is clearer?",
        "answer": 'One JSON object: "winner" is "A" or "B", "confidence" 1 to 5, "justification".',
    }
    (templates / "clarity-1.yaml").write_text(yaml.safe_dump(words))
    (folder / "judges" / "mine.yaml").write_text(
        "{name: mine, provider: emulator, model: quality, template: clarity-1}"
    )
    (folder / "batch.yaml").write_text("judges: [mine]\n")
    before = read_batch(folder).content_sha256

    assert ingest(runtime, folder).is_new
    with runtime.store.read() as db:
        (row,) = db.rows("SELECT template, definition FROM judges")
    assert row["template"] == "clarity-1"
    assert "Which is clearer?" in str(row["definition"])
    words["task"] = "Which is better?"
    (templates / "clarity-1.yaml").write_text(yaml.safe_dump(words))
    assert read_batch(folder).content_sha256 != before


def test_the_prompt_is_in_the_language_of_the_batch(tmp_path: Path) -> None:
    """A judge that names its template keeps it."""
    folder = write_batch(
        tmp_path / "b", n_students=3, settings={"judges": ["quality", "own"], "language": "sv"}
    )
    (folder / "judges").mkdir()
    (folder / "judges" / "own.yaml").write_text(
        "{name: own, provider: emulator, model: quality, template: essay-quality-1}"
    )
    plain, own = load_judges(read_batch(folder))

    assert (plain.template.name, own.template.name) == ("essay-quality-sv-1", "essay-quality-1")
    assert plain == type(plain).from_definition(plain.definition())


def test_a_batch_whose_key_is_missing_is_refused_until_it_is_there(tmp_path: Path) -> None:
    """Whatever else is wrong is told with it; a file that should yield the key is not opened."""
    settings = {"judges": ["openai-gpt-4-1-mini"], "max_pairwise_comparisons": 1}
    bad = write_batch(tmp_path / "bad", n_students=6, settings=settings)
    good = write_batch(tmp_path / "good", n_students=3, settings={"judges": settings["judges"]})
    without = open_engine(tmp_path / "home")
    later = {"OPENAI_API_KEY_FILE": "/not/there/yet"}

    with pytest.raises(BatchProblemsError) as of_bad:
        ingest(without, bad)
    with pytest.raises(BatchProblemsError) as of_good:
        ingest(without, good)
    taken = ingest(open_engine(tmp_path / "home", later), good)

    assert (of_bad.value.may_pass, of_good.value.may_pass) == (False, True)
    assert len(of_bad.value.problems) == 2
    assert "set the environment variable OPENAI_API_KEY" in of_good.value.problems[0]
    assert "in the inbox it is tried again" in str(of_good.value)
    assert "Fix these" in str(of_bad.value)
    assert taken.is_new
    assert ingest(without, good).is_new is False
