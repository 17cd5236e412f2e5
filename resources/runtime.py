"""The process's environment becomes a runtime: keys, version and machine, read once here."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from cj_pipeline.runtime import RunEnvironment, Runtime, public_url
from cj_pipeline.storage.private_files import make_home
from cj_pipeline.store.opening import default_home, open_store


def open_runtime(environment: Mapping[str, str], *, is_attended: bool = False) -> Runtime:
    """Return the runtime over `CJ_HOME`, with this machine and checkout described.

    `is_attended` says that a person started this by hand, for a folder that they name.
    """
    public_url(environment)  # a wrong one is told now, and not once a batch has been paid for
    home = make_home(default_home(environment).resolve())
    return Runtime(
        store=open_store(home, environment),
        home=home,
        environment=dict(environment),
        run_environment=describe_run(Path(__file__).parent),
        is_attended=is_attended,
    )


def describe_run(checkout: Path) -> RunEnvironment:
    """Return what artefacts say of the code and the machine that wrote them."""
    return RunEnvironment(
        git_sha=_git_sha(checkout),
        runner_version=version("cj-pipeline"),
        python=platform.python_version(),
        os=platform.platform(),
    )


def _git_sha(checkout: Path) -> str:
    """An installed package is no checkout; the artefact then has zeros."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "0000000"
    return found.stdout.strip()
