"""The profile of a batch's single calls: chosen when it is taken in, and kept with it.

Rules: `live.profiles`. The user's own profiles are in `profiles.yaml` in the home folder, fields
by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cj_pipeline.errors import BatchProblemsError, SettingsError
from cj_pipeline.intake.batch_folder import Batch
from cj_pipeline.live.profiles import (
    Profile,
    ResolvedProfile,
    resolve_profile,
    usual_profile,
)
from cj_pipeline.strict_yaml import read_yaml

PROFILES_FILE = "profiles.yaml"


def own_profiles(home: Path) -> Mapping[str, Any]:
    """Return the user's own profiles, fields by name; none where there is no file.

    Raises:
        SettingsError: If the file cannot be read as that.
    """
    file = home / PROFILES_FILE
    try:
        text = file.read_text("utf-8") if file.exists() else ""
        is_empty = yaml.safe_load(text) is None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"The profiles in {file} cannot be read: {error}"
        raise SettingsError(msg) from None
    if is_empty:
        return {}
    found, problems = read_yaml(text)
    if found is None:
        msg = f"The profiles in {file} must be fields by profile name, such as `mine: {{queue: 8}}`"
        raise SettingsError(msg)
    if problems:
        msg = "\n".join(f"{file} {problem}" for problem in problems)
        raise SettingsError(msg)
    return found


def named_profile(
    name: str,
    home: Path,
    explicit: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> ResolvedProfile:
    """Return the profile of this name.

    Raises:
        SettingsError: With everything that is wrong with it.
    """
    resolved, problems = resolve_profile(name, own_profiles(home), explicit, environment)
    if resolved is None:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        msg = f"The profile {name!r} cannot be used:\n{lines}"
        raise SettingsError(msg)
    return resolved


def profile_of_batch(
    batch: Batch, home: Path, environment: Mapping[str, str] | None = None
) -> ResolvedProfile:
    """Return the profile a batch that is about to be taken in will run under.

    Raises:
        BatchProblemsError: With everything that is wrong with it.
    """
    settings = batch.settings.values
    try:
        configured = own_profiles(home)
    except SettingsError as error:
        raise BatchProblemsError(batch.batch_id, [str(error)]) from None
    resolved, problems = resolve_profile(
        settings.profile, configured, settings.profile_set, environment
    )
    if resolved is None or problems:
        raise BatchProblemsError(batch.batch_id, [f"batch.yaml: profile: {p}" for p in problems])
    return resolved


def stored_profile(metadata: Mapping[str, Any]) -> Profile:
    """Return the profile a batch was taken in with; those of before have the usual one."""
    kept = metadata.get("profile")
    return (ResolvedProfile.from_json(kept) if kept else usual_profile()).values
