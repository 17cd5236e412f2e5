"""A signature beside a file vouches for every byte of it, if its key is known from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.outputs.verifying.signature import check_signature, sign_file
from cj_pipeline.storage.signing import PublicKey, make_key


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, PublicKey]:
    """A signed file, and the key that signed it."""
    key = make_key(tmp_path / "home")
    path = tmp_path / "assessment_run.execute.json"
    path.write_text("{}")
    assert sign_file(tmp_path / "home", path) == key
    return path, key


def test_a_signed_file_is_known_by_its_key(signed: tuple[Path, PublicKey]) -> None:
    """By the key of the report, with no store at hand."""
    path, key = signed

    checked = check_signature(path, path.read_bytes(), [key], is_required=True)

    assert (checked.difference, checked.signed_by) == (None, key)


def test_a_file_that_was_altered_is_told_without_knowing_the_key(
    signed: tuple[Path, PublicKey],
) -> None:
    """The signature beside it is of another file then."""
    path, _ = signed

    checked = check_signature(path, b"{ }", [], is_required=False)

    assert checked.difference is not None
    assert checked.signed_by is None


def test_signing_anew_with_a_key_of_ones_own_does_not_help(
    signed: tuple[Path, PublicKey], tmp_path: Path
) -> None:
    """Whoever alters a file can make a key as well."""
    path, key = signed
    make_key(tmp_path / "elsewhere")
    path.write_text("[]")
    sign_file(tmp_path / "elsewhere", path)

    required = check_signature(path, path.read_bytes(), [key], is_required=True)
    unknown = check_signature(path, path.read_bytes(), [], is_required=False)

    assert required.difference is not None
    assert (unknown.difference, unknown.signed_by) == (None, None)
    assert "anybody may have made" in unknown.note


@pytest.mark.parametrize("content", [None, "", "{}", '{"public_key": 1, "signature": 2}'])
def test_a_signature_that_is_missing_or_garbled_vouches_for_nothing(
    signed: tuple[Path, PublicKey], content: str | None
) -> None:
    """Taking it away is the simplest attack of all."""
    path, key = signed
    beside = path.with_name(path.name + ".sig")
    beside.unlink()
    if content is not None:
        beside.write_text(content)

    assert check_signature(path, path.read_bytes(), [key], is_required=True).difference


def test_a_home_without_a_key_leaves_no_signature_of_an_earlier_file(
    signed: tuple[Path, PublicKey], tmp_path: Path
) -> None:
    """It would read as if the new file had been altered."""
    path, _ = signed
    path.write_text("[]")

    assert sign_file(tmp_path / "none", path) is None
    assert not path.with_name(path.name + ".sig").exists()
