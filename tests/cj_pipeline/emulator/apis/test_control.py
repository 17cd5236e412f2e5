"""The emulator's own endpoints and its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.emulator import in_process_client
from cj_pipeline.emulator.config import EmulatorConfig, Fault
from cj_pipeline.errors import SettingsError
from tests.support import ROOT
from tests.support.emulator_calls import (
    chat,
    emulator_config,
    line,
    openai_client,
    rows,
    submit,
)


def test_the_audit_tells_what_was_created_paid_and_delivered() -> None:
    """The truth to which a ledger is compared."""
    config = emulator_config(faults=[Fault(kind="status_500", at=(2,))], in_order=True)
    client = openai_client(config)
    made = submit(client, [line(f"r{i}", chat()) for i in range(1, 6)])
    http = in_process_client(config)

    before = http.get("http://e/emulator/audit").json()["jobs"][0]
    rows(client, client.batches.retrieve(made.id).output_file_id)
    client.chat.completions.create(**chat())
    after = http.get("http://e/emulator/audit").json()

    assert (before["paid"], before["failed"], before["times_delivered"]) == (4, 1, 0)
    assert after["jobs"][0]["times_delivered"] == 1
    assert after["calls"] == {"asked": 1, "paid": 1}
    assert after["totals"]["requests_paid"] == 5
    assert after["paid_twice"] == []


def test_the_audit_names_what_was_paid_twice() -> None:
    """By custom id, whether in jobs or by single calls."""
    config = emulator_config()
    client = openai_client(config)
    submit(client, [line("one", chat()), line("two", chat())])
    submit(client, [line("two", chat())])

    client.chat.completions.create(**chat(), extra_headers={"x-client-request-id": "one"})
    told = in_process_client(config).get("http://e/emulator/audit").json()

    assert told["paid_twice"] == ["one", "two"]


def test_no_key_is_ever_kept() -> None:
    """Accounts are known by a fingerprint."""
    config = emulator_config()
    client = openai_client(config, key="sk-very-secret")

    submit(client, [line("r", chat())])
    kept = b"".join(p.read_bytes() for p in config.state_path.parent.rglob("*") if p.is_file())

    assert b"sk-very-secret" not in kept


def test_settings_come_from_the_home_and_the_environment(tmp_path: Path) -> None:
    """The environment wins over the file."""
    (tmp_path / "emulator.yaml").write_text("seed: 7\nlatency_s: 60\n")
    environment = {"CJ_EMULATOR_SETTINGS": '{"latency_s": 5}'}

    config = EmulatorConfig.from_environment(environment, tmp_path)

    assert (config.seed, config.settings.latency_s) == (7, 5)
    assert config.state_path == tmp_path / "emulator.sqlite"


def test_the_settings_shown_in_the_documentation_can_be_used(tmp_path: Path) -> None:
    """Whoever copies them gets what they say."""
    page = (ROOT / "docs" / "emulator.md").read_text(encoding="utf-8")
    shown = page.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "emulator.yaml").write_text(shown, encoding="utf-8")

    config = EmulatorConfig.from_environment({}, tmp_path)

    assert config.settings.latency_s == 60
    assert [fault.kind for fault in config.settings.faults] == ["lost_reply", "status", "missing"]


def test_an_unknown_setting_is_reported(tmp_path: Path) -> None:
    """Never ignored."""
    (tmp_path / "emulator.yaml").write_text("latencey_s: 60\n")

    with pytest.raises(SettingsError, match="latencey_s"):
        EmulatorConfig.from_environment({}, tmp_path)
