"""Addresses as keys are bound to them: scheme, host and port."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit


def origin_of(address: str) -> str:
    """Return scheme, host and port of an address: what a key is bound to."""
    parts = urlsplit(address)
    port = port_of(parts)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}" + (f":{port}" if port else "")


def is_loopback(address: str) -> bool:
    """Whether an address is on this machine, by its name alone."""
    host = (urlsplit(address).hostname or "").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def port_of(parts: SplitResult) -> int | None:
    """Return the port of an address; None where it is its scheme's usual one, or is none."""
    try:
        port = parts.port
    except ValueError:
        return -1
    return None if port == {"http": 80, "https": 443}.get(parts.scheme) else port
