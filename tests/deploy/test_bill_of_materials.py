"""What is shipped is listed whole, with licences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.bill_of_materials import LOCK, licences_page, normalised, of_shipped, pinned
from tests.support import ROOT


def environment(**changes: Any) -> dict[str, Any]:
    """Return a bill of three packages, the first of which is shipped."""
    first = {
        "bom-ref": "Good_Package==1.0",
        "name": "Good_Package",
        "version": "1.0",
        "licenses": [{"license": {"id": "MIT"}}],
    }
    others = [{"bom-ref": f"{name}==2", "name": name, "version": "2"} for name in ("dev", "tool")]
    return {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [first | changes, *others],
        "dependencies": [
            {"ref": "root", "dependsOn": ["Good_Package==1.0", "dev==2"]},
            {"ref": "dev==2"},
        ],
    }


def test_only_what_is_shipped_is_listed() -> None:
    """What tests need is in no image, and a dependency on it would lead nowhere."""
    bill = of_shipped(environment(), {"good-package": {"1.0"}})

    assert [each["name"] for each in bill["components"]] == ["Good_Package"]
    assert bill["dependencies"] == [{"ref": "root", "dependsOn": ["Good_Package==1.0"]}]
    assert "| Good_Package | 1.0 | MIT |" in licences_page(bill)


@pytest.mark.parametrize(
    ("changes", "words"), [({"licenses": []}, "no licence"), ({"version": "9"}, "9 here")]
)
def test_what_is_not_known_ends_it(changes: dict[str, Any], words: str) -> None:
    """A bill with a hole would be taken for a whole one."""
    with pytest.raises(SystemExit, match=words):
        of_shipped(environment(**changes), {"good-package": {"1.0"}})


@pytest.mark.slow
def test_the_bill_of_this_version_is_valid_and_whole(tmp_path: Path) -> None:
    """By CycloneDX's own schema, with every package of the lock that this platform installs."""
    subprocess.run(
        [sys.executable, ROOT / "deploy" / "bill_of_materials.py", tmp_path],
        check=True,
        capture_output=True,
    )

    text = (tmp_path / "cj-pipeline.cdx.json").read_text("utf-8")
    bill = json.loads(text)
    listed = {normalised(each["name"]): each["version"] for each in bill["components"]}
    shipped = pinned(LOCK.read_text("utf-8"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert all(version in shipped[name] for name, version in listed.items())
    # The rest are for other systems or other versions of Python.
    assert len(listed) > 0.9 * len(shipped)
    assert all(each["licenses"] for each in bill["components"])
