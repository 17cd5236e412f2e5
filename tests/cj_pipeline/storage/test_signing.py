"""Keys that sign: private ones stay, public ones tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.storage.signing import (
    make_key,
    matching_key,
    read_public_key,
    sign,
    signing_key,
    trusted_keys,
)


def test_what_a_home_signed_its_public_key_tells(tmp_path: Path) -> None:
    """And tells anything else apart."""
    public = make_key(tmp_path)
    signed = sign(tmp_path, b"a grade")
    assert signed is not None

    assert signed[0] == public == read_public_key(public.text)
    assert public.verifies(b"a grade", signed[1])
    assert not public.verifies(b"another grade", signed[1])


def test_the_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    """Whoever reads it can sign anything."""
    make_key(tmp_path)

    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "keys").iterdir()}

    assert modes == {0}


def test_a_key_is_not_replaced_by_mistake_and_an_earlier_one_still_tells(tmp_path: Path) -> None:
    """What it signed lies in other people's hands."""
    first = make_key(tmp_path)
    signed = sign(tmp_path, b"a grade")
    assert signed is not None
    with pytest.raises(SettingsError, match="--replace"):
        make_key(tmp_path)

    second = make_key(tmp_path, replace=True)

    assert signing_key(tmp_path) == second
    assert set(trusted_keys(tmp_path)) == {first, second}
    assert matching_key(trusted_keys(tmp_path), b"a grade", signed[1]) == first


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "not base64 at all"])
def test_what_is_no_key_is_said_to_be_none(text: str) -> None:
    """A key that was cut when it was copied, most of the time."""
    with pytest.raises(SettingsError, match="no public key"):
        read_public_key(text)


def test_a_home_without_a_key_signs_nothing(tmp_path: Path) -> None:
    """No key is made unasked."""
    assert sign(tmp_path, b"a grade") is None
    assert trusted_keys(tmp_path) == ()
