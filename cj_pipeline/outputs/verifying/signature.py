"""The signature beside a file: made where it is written, checked wherever it has gone.

It is detached, so the file stays what its contract says. Keys are `storage.signing`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cj_pipeline.errors import SettingsError
from cj_pipeline.outputs.artefact import write_atomically
from cj_pipeline.storage.signing import PublicKey, matching_key, read_public_key, sign

ENDING = ".sig"


@dataclass(frozen=True)
class SignatureChecked:
    """What the signature beside a file is worth.

    Attributes:
        difference: What is wrong, in words; None where nothing is.
        note: What a reader should know; empty where there is nothing to say.
        signed_by: The key trusted beforehand that signed exactly this file; None without one.
    """

    difference: str | None = None
    note: str = ""
    signed_by: PublicKey | None = None


def sign_file(home: Path, path: Path) -> PublicKey | None:
    """Lay a home's signature beside a file, and return its public key; None without a key.

    A signature that lay there is of an earlier file: without a key it is removed.
    """
    beside = path.with_name(path.name + ENDING)
    signed = sign(home, path.read_bytes())
    if signed is None:
        beside.unlink(missing_ok=True)
        return None
    public, signature = signed
    record = {
        "algorithm": "Ed25519",
        "signs": f"{path.name}, byte for byte",
        "public_key": public.text,
        "signature": base64.b64encode(signature).decode(),
    }
    write_atomically(beside, (json.dumps(record, indent=1) + "\n").encode())
    return public


def check_signature(
    path: Path, content: bytes, trusted: Sequence[PublicKey], *, is_required: bool
) -> SignatureChecked:
    """Return what the signature beside a file is worth.

    Args:
        path: The file.
        content: What is in it.
        trusted: Keys known from elsewhere than the file.
        is_required: Whether a file that none of those signed is not to pass.
    """
    beside = path.with_name(path.name + ENDING)
    if not beside.is_file():
        if is_required:
            return SignatureChecked(f"{beside.name} is missing: nothing shows who wrote this file")
        return SignatureChecked(note="It is not signed: `cj keys create` makes a key to sign with.")
    try:
        record = json.loads(beside.read_bytes())
        claimed = read_public_key(str(record["public_key"]))
        signature = base64.b64decode(str(record["signature"]), validate=True)
    except (OSError, ValueError, KeyError, TypeError, SettingsError):
        return SignatureChecked(f"{beside.name} cannot be read as a signature")
    if not claimed.verifies(content, signature):
        return SignatureChecked(
            f"{beside.name} is no signature over this file by the key {claimed.key_id}: one of"
            " the two was changed"
        )
    return _signed_by(matching_key(trusted, content, signature), claimed, trusted, is_required)


def _signed_by(
    by: PublicKey | None, claimed: PublicKey, trusted: Sequence[PublicKey], is_required: bool
) -> SignatureChecked:
    if by is not None:
        return SignatureChecked(signed_by=by, note=f"Signed by the key {by.key_id}.")
    if is_required:
        known = ", ".join(key.key_id for key in trusted)
        return SignatureChecked(
            f"it is signed by the key {claimed.key_id}, not by {known}: a person who altered a file"
            " can sign it with a key of their own"
        )
    return SignatureChecked(
        note=(
            f"Signed by {claimed.text}, which anybody may have made: compare it with the key in"
            " the report, or give the one you know with --key."
        )
    )
