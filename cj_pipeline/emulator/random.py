"""Chance that is the same on every machine and in every process: draws from a hash."""

from __future__ import annotations

import hashlib


def draw(*parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but the parts."""
    return int.from_bytes(digest(*parts)[:8]) / 2**64


def digest(*parts: object) -> bytes:
    """Return 16 bytes that depend on the parts, kept apart by their lengths."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", errors="replace")
        state.update(len(raw).to_bytes(8))
        state.update(raw)
    return state.digest()


def identifier(prefix: str, *parts: object) -> str:
    """Return an id that depends on the parts."""
    return prefix + digest(*parts).hex()
