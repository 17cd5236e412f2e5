"""Write what is shipped in an image: a bill of materials (CycloneDX) and its licences.

    python deploy/bill_of_materials.py sbom/

What is shipped is what `deploy/requirements.lock` names; what is known of it comes from the
packages installed here, which are of the same lock. A package without a licence, or of a version
that is not the lock's, ends it with an error.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "deploy" / "requirements.lock"

READ_BY_HAND = {
    "antlr4-python3-runtime": "BSD-3-Clause",
    "protobuf": "BSD-3-Clause",
}
"""Licences of packages that declare none: read in their own licence files."""


def main(folder: Path) -> None:
    """Write `cj-pipeline.cdx.json` and `licences.md` into a folder."""
    environment = _of_environment(Path(sys.executable))
    bill = of_shipped(environment, pinned(LOCK.read_text("utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(bill, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "cj-pipeline.cdx.json").write_text(text + "\n", "utf-8")
    (folder / "licences.md").write_text(licences_page(bill), "utf-8")
    print(f"{len(bill['components'])} packages in {folder}")


def pinned(lock: str) -> dict[str, set[str]]:
    """Return the versions of each package of a lock: of some, one for each version of Python."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE):
        versions.setdefault(normalised(name), set()).add(version)
    return versions


def normalised(name: str) -> str:
    """Return a package's name as every tool compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def of_shipped(environment: Mapping[str, Any], shipped: Mapping[str, set[str]]) -> dict[str, Any]:
    """Return a bill of an environment without what is not shipped.

    Raises:
        SystemExit: If a package has another version than the lock's, or no licence.
    """
    components, problems = [], []
    for found in environment["components"]:
        component, name = dict(found), normalised(found["name"])
        if name not in shipped:
            continue
        if component["version"] not in shipped[name]:
            locked = ", ".join(sorted(shipped[name]))
            problems.append(f"{name} is {component['version']} here, {locked} in the lock")
        if not component.get("licenses") and name in READ_BY_HAND:
            component["licenses"] = [{"license": {"id": READ_BY_HAND[name]}}]
        if not component.get("licenses"):
            problems.append(f"{name} declares no licence: read it, and add it to READ_BY_HAND")
        components.append(component)
    if problems:
        raise SystemExit("\n".join(problems))
    kept = {component["bom-ref"] for component in components}
    kept.add(environment["metadata"]["component"]["bom-ref"])
    dependencies = [
        each | {"dependsOn": [ref for ref in each.get("dependsOn", []) if ref in kept]}
        for each in environment.get("dependencies", [])
        if each["ref"] in kept
    ]
    return {**environment, "components": components, "dependencies": dependencies}


def licences_page(bill: Mapping[str, Any]) -> str:
    """Return a table of a bill's packages, versions and licences."""
    lines = [
        "# Licences of what is shipped",
        "",
        "| Package | Version | Licence |",
        "|---|---|---|",
    ]
    for each in sorted(bill["components"], key=lambda component: component["name"].lower()):
        names = ", ".join(sorted({_licence(licence) for licence in each["licenses"]}))
        lines.append(f"| {each['name']} | {each['version']} | {names} |")
    return "\n".join(lines) + "\n"


def _licence(said: Mapping[str, Any]) -> str:
    licence = said.get("license", {})
    name = said.get("expression") or licence.get("id") or licence.get("name") or "see its text"
    return str(name).splitlines()[0]


def _of_environment(python: Path) -> dict[str, Any]:
    tool = python.with_name("cyclonedx-py")
    command = [tool, "environment", "--pyproject", ROOT / "pyproject.toml"]
    command += ["--output-reproducible", "--output-format", "JSON", python]
    done = subprocess.run(command, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
