"""Compare what is shipped with published advisories, and say where that was not possible.

    python deploy/audit.py [--osv-url URL]

Exit code 0: an advisory source was asked about every package and knows of nothing; 1: it knows of
something; 3: no source could be reached, which is no clean result.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LOCK = Path(__file__).parents[1] / "deploy" / "requirements.lock"
TIMEOUT_S = "15"


def main(arguments: Sequence[str], lock: Path = LOCK) -> int:
    """Audit a lock; further arguments are given to `pip-audit`. Return the exit code."""
    for source in ("osv", "pypi"):
        code, said = _asked(source, arguments if source == "osv" else (), lock)
        if code is not None:
            print(said)
            return code
        print(f"{source}: {said}")
    print("No advisory source could be reached: this is no clean result.")
    return 3


def _asked(source: str, more: Sequence[str], lock: Path) -> tuple[int | None, str]:
    """Return the exit code and what was found; None where the source gave no whole answer."""
    tool = Path(sys.executable).with_name("pip-audit")
    command = [tool, "--requirement", lock, "--require-hashes", "--disable-pip", "--format", "json"]
    command += ["--vulnerability-service", source, "--timeout", TIMEOUT_S, *more]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return None, f"could not be asked: {last[0]}"
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    if skipped or not packages:
        return None, f"did not answer about {', '.join(skipped) or 'any package'}"
    known = [
        f"{each['name']} {each['version']}: {flaw['id']}, mended in"
        f" {', '.join(flaw['fix_versions']) or 'no release yet'}"
        for each in packages
        for flaw in each["vulns"]
    ]
    if known:
        return 1, "\n".join(known)
    return 0, f"{len(packages)} packages; {source} knows of nothing against them."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
