"""Ed25519 keys with which a home signs what leaves it; the private part never leaves the home.

What is signed, and how a signature is laid beside a file, is `outputs.verifying.signature`.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cj_pipeline.errors import SettingsError
from cj_pipeline.storage.private_files import PRIVATE_FILE, PRIVATE_FOLDER

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_PREFIX = "ed25519:"
_FOLDER = "keys"
_PRIVATE = "signing.pem"


@dataclass(frozen=True)
class PublicKey:
    """The part of a key that anybody may have: it tells whether a signature is the key's.

    Attributes:
        text: `ed25519:` and the 32 bytes of the key in Base64, for people and files.
    """

    text: str

    @property
    def key_id(self) -> str:
        """The first sixteen digits of the key's SHA-256, to call it by."""
        return hashlib.sha256(self._raw).hexdigest()[:16]

    @property
    def _raw(self) -> bytes:
        return base64.b64decode(self.text.removeprefix(_PREFIX))

    def verifies(self, content: bytes, signature: bytes) -> bool:
        """Whether a signature over a content was made with this key."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._loaded().verify(signature, content)
        except InvalidSignature:
            return False
        return True

    def _loaded(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self._raw)


def read_public_key(text: str) -> PublicKey:
    """Return the public key that a text spells.

    Raises:
        SettingsError: If it spells none.
    """
    bare = text.strip()
    try:
        raw = base64.b64decode(bare.removeprefix(_PREFIX), validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        msg = (
            "That is no public key: one reads `ed25519:` and 44 signs, as `cj keys show` and the"
            " report print it."
        )
        raise SettingsError(msg)
    return PublicKey(_PREFIX + base64.b64encode(raw).decode())


def signing_key(home: Path) -> PublicKey | None:
    """Return the public part of the key a home signs with; None where it has none."""
    if not (home / _FOLDER / _PRIVATE).is_file():
        return None
    return _public_part(_private_key(home))


def trusted_keys(home: Path) -> tuple[PublicKey, ...]:
    """Return the public keys a home takes for its own: today's, then earlier ones."""
    now = signing_key(home)
    earlier = [
        read_public_key(path.read_text(encoding="ascii"))
        for path in sorted((home / _FOLDER).glob("*.pub"))
    ]
    return tuple(dict.fromkeys([*([now] if now else []), *earlier]))


def make_key(home: Path, *, replace: bool = False) -> PublicKey:
    """Make the key a home signs with, and return its public part.

    An earlier key's public part is kept, so that what it signed can be checked still.

    Raises:
        SettingsError: If there is one already and it is not to be replaced.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder = home / _FOLDER
    if (folder / _PRIVATE).exists() and not replace:
        msg = (
            "There is a key already: `cj keys show` prints its public part. `cj keys create"
            " --replace` makes a new one; what the old one signed can be checked still."
        )
        raise SettingsError(msg)
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    private = Ed25519PrivateKey.generate()
    public = _public_part(private)
    _write(folder / f"{public.key_id}.pub", f"{public.text}\n".encode())
    _write(
        folder / _PRIVATE,
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    return public


def sign(home: Path, content: bytes) -> tuple[PublicKey, bytes] | None:
    """Return the home's public key and its signature over a content; None where it has no key."""
    public = signing_key(home)
    return None if public is None else (public, _private_key(home).sign(content))


def matching_key(keys: Sequence[PublicKey], content: bytes, signature: bytes) -> PublicKey | None:
    """Return the first of some keys that made a signature over a content; None if none did."""
    return next((key for key in keys if key.verifies(content, signature)), None)


def _private_key(home: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = home / _FOLDER / _PRIVATE
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        msg = f"{path} holds no Ed25519 key: `cj keys create --replace` makes a new one."
        raise SettingsError(msg)
    return private


def _public_part(private: Ed25519PrivateKey) -> PublicKey:
    raw = private.public_key().public_bytes_raw()
    return PublicKey(_PREFIX + base64.b64encode(raw).decode())


def _write(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
