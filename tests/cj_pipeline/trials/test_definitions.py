"""Trial definitions: what may stand in one, and how it is told what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.trials.definitions import load_trial, own_trial_names, trial_names
from tests.support.batches import write_batch


def own(home: Path, name: str, text: str) -> None:
    """Write a definition of the user's."""
    (home / "trials").mkdir(parents=True, exist_ok=True)
    (home / "trials" / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize("name", trial_names(Path("no-home")))
def test_every_built_in_trial_can_be_taken_in(name: str, tmp_path: Path) -> None:
    """Its essays, settings and expectations are what the rest takes; it says what it proves."""
    trial = load_trial(name, tmp_path)
    assert "It proves that" in trial.about

    batch = read_batch(trial.batch_folder(tmp_path), explicit=trial.explicit_settings)

    assert trial.expect
    assert trial.made_up is not None
    assert len(batch.essays) == trial.made_up.students + trial.made_up.anchors


@pytest.mark.parametrize(
    "name", ["lower5", "regular", "provider-batch", "generic", "anchor", "mini"]
)
def test_the_suites_of_older_systems_are_there(name: str) -> None:
    """Under the names people know them by."""
    assert name in trial_names(Path("no-home"))


def test_a_trial_can_be_based_on_a_built_in_one(tmp_path: Path) -> None:
    """A nightly one with another judge is three lines."""
    own(tmp_path, "nightly", "based_on: lower5\nsettings: {seed: 7}\nspend_cap_usd: 0.5\n")

    trial = load_trial("nightly", tmp_path)

    assert trial.explicit_settings["seed"] == 7
    assert trial.explicit_settings["judges"] == ["eng5-lower5-gpt51-low"]
    assert trial.explicit_settings["spend_cap_usd"] == 0.5
    assert [str(e) for e in trial.expect] == [str(e) for e in load_trial("lower5", tmp_path).expect]


def test_another_batch_does_not_inherit_what_was_expected_of_the_first(tmp_path: Path) -> None:
    """Forty comparisons are right for five essays only."""
    own(tmp_path, "wider", "based_on: lower5\nmade_up: {students: 6}\n")

    assert load_trial("wider", tmp_path).expect == ()


def test_every_run_has_a_spend_cap(tmp_path: Path) -> None:
    """Nobody is there at night to stop it; the smaller of two caps holds."""
    own(tmp_path, "capped", "made_up: {students: 3}\nsettings: {spend_cap_usd: 9}\n")
    own(tmp_path, "small", "made_up: {students: 3}\nsettings: {spend_cap_usd: 0.1}\nbudget: 3\n")

    capped, small = (load_trial(name, tmp_path).explicit_settings for name in ("capped", "small"))

    assert capped["spend_cap_usd"] == 1.0
    assert small["spend_cap_usd"] == 0.1
    assert small["max_pairwise_comparisons"] == 3


def test_everything_wrong_with_a_definition_is_told_at_once(tmp_path: Path) -> None:
    """Whoever mends it mends it once."""
    own(
        tmp_path,
        "wrong",
        "made_up: {students: 0}\nspend_cap: 3\nexpect: [complted == 3]\n"
        "schedule: {cron: nightly, timezone: Mars/Olympus}\n",
    )

    with pytest.raises(SettingsError) as caught:
        load_trial("wrong", tmp_path)

    for told in ("two essays make", "spend_cap", "'completed'", "cron", "Mars/Olympus"):
        assert told in str(caught.value)


def test_a_setting_nobody_knows_is_told_with_the_nearest(tmp_path: Path) -> None:
    """Before the night, not during it."""
    own(tmp_path, "wrong", "made_up: {students: 3}\nsettings: {wave_sise: 3}\n")

    with pytest.raises(SettingsError, match="wave_size"):
        load_trial("wrong", tmp_path)


def test_a_batch_folder_is_a_trial_too(tmp_path: Path) -> None:
    """Dropping a folder is the least one can do."""
    folder = write_batch(tmp_path / "trials" / "Vår 9:an", n_students=3, settings={})

    assert own_trial_names(tmp_path) == ("var-9-an",)
    assert load_trial("var-9-an", tmp_path).folder == folder


def test_an_unknown_trial_is_told_with_those_there_are(tmp_path: Path) -> None:
    """Nobody remembers names."""
    with pytest.raises(SettingsError, match=r"lower5, minimum|mini, minimum"):
        load_trial("lower6", tmp_path)


@pytest.mark.parametrize("name", ["../batch", "a/b", ".hidden", "UPPER", ""])
def test_a_name_is_never_a_path(name: str, tmp_path: Path) -> None:
    """It comes from a command line, or from a run's config."""
    with pytest.raises(SettingsError, match="cannot name a trial"):
        load_trial(name, tmp_path)


def test_only_what_could_change_the_outcome_is_in_the_fingerprint(tmp_path: Path) -> None:
    """Runs are compared with runs of the same; another hour or wording is no other trial."""
    own(tmp_path, "one", "about: One.\nmade_up: {students: 3}\n")
    own(tmp_path, "two", "about: Two.\nmade_up: {students: 3}\nsettings: {seed: 2}\n")
    before, other = load_trial("one", tmp_path), load_trial("two", tmp_path)
    own(tmp_path, "one", "about: One.\nmade_up: {students: 3}\nschedule: {cron: 5 5 * * *}\n")

    assert load_trial("one", tmp_path).fingerprint == before.fingerprint
    assert other.fingerprint != before.fingerprint
