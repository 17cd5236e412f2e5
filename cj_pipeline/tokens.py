"""Tokens that let a program or a person do some things with some batches, and nothing else.

Only a token's SHA-256 is written down, in `installation.yaml`; the token itself is shown once, when
it is made. It is made here and never chosen, so it cannot be guessed, and anything of another shape
is no token. Who may do what with one over HTTP is `service.auth`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, TypeGuard

SCOPES = ("submit", "read", "judge", "release", "admin")
"""Submit and cancel batches; see them; judge pairs; let grades out; everything, Dagster too."""

MIN_CHARACTERS = 16
"""Of a token that somebody chose, as `CJ_SERVE_TOKEN` may be."""

_MIN_DIFFERENT = 6
_SHAPE = re.compile(r"cj_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_GROUP = re.compile(r"[a-z0-9_*?-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_KEYS = ("sha256", "scopes", "batches", "expires")
_COMMON = re.compile(
    "password|passwort|passphrase|secret|token|change|please|replace|example|sample|default|admin"
    "|service|serve|store|letmein|welcome|qwerty|qwertz|azerty|asdf|demo|test|your|this|here|key|cj"
)


@dataclass(frozen=True)
class AccessToken:
    """A token as an installation knows it.

    Attributes:
        name: Whose it is, or what for.
        sha256: Of the token, in hexadecimal.
        scopes: Some of `SCOPES`; `admin` stands for all of them.
        batches: Names of batches, with `*` and `?` for any letters; it reaches no other.
        expires: The last day on which it is good, in UTC.
    """

    name: str
    sha256: str
    scopes: frozenset[str]
    batches: tuple[str, ...]
    expires: date


def new_token() -> str:
    """Return a token of 256 random bits."""
    return f"cj_{secrets.token_urlsafe(32)}"


def hash_of(token: str) -> str | None:
    """Return what is written down of a token; None for what cannot be one of ours."""
    return hashlib.sha256(token.encode()).hexdigest() if _SHAPE.fullmatch(token) else None


def covers(batches: Sequence[str], batch_id: str) -> bool:
    """Return whether a batch's name is among a group's."""
    return any(fnmatchcase(batch_id, group) for group in batches)


def weakness(token: str) -> str | None:
    """Return why a token that somebody chose could be guessed; None when it could not be soon."""
    if len(token) < MIN_CHARACTERS:
        return f"it has {len(token)} characters, and {MIN_CHARACTERS} are the least"
    if any(token == (token[:n] * len(token))[: len(token)] for n in range(1, 9)):
        return "it repeats itself"
    if len(set(token)) < _MIN_DIFFERENT:
        return f"it has {len(set(token))} different characters, and {_MIN_DIFFERENT} are the least"
    steps = [ord(after) - ord(before) for before, after in pairwise(token)]
    if sum(abs(step) <= 1 for step in steps) > len(steps) // 2:
        return "it counts or spells the alphabet"
    others = _COMMON.sub("", token.lower())
    beside = re.sub("[^a-z0-9]", "", others.rstrip("0123456789!"))
    if others != token.lower() and len(beside) < 8:
        return "it is made of words that everybody tries"
    return None


def read_tokens(said: Any) -> tuple[tuple[AccessToken, ...], list[str]]:
    """Return the tokens in a mapping from names, as `installation.yaml` has it, and its problems.

    What has a problem is left out, so nothing may be let in by an entry that was half understood.
    """
    if said is None:
        return (), []
    if not isinstance(said, Mapping):
        return (), ["tokens is no mapping of names to tokens: `cj token create` writes it"]
    tokens, problems = [], []
    for name, entry in said.items():
        found = _problems_of(name, entry)
        problems += [f"tokens: {name}: {problem}" for problem in found]
        if not found:
            tokens.append(
                AccessToken(
                    name=name,
                    sha256=entry["sha256"],
                    scopes=frozenset(entry["scopes"]),
                    batches=tuple(entry.get("batches", ("*",))),
                    expires=entry["expires"],
                )
            )
    return tuple(tokens), problems


def _problems_of(name: Any, entry: Any) -> list[str]:
    problems = []
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problems.append("a name is 1 to 64 of a-z, 0-9, '-' and '_'")
    if not isinstance(entry, Mapping):
        return [*problems, f"it is a mapping with the keys {', '.join(_KEYS)}"]
    problems += [f"{key} is no key of it" for key in entry if key not in _KEYS]
    if not _HASH.fullmatch(str(entry.get("sha256"))):
        problems.append("sha256 is 64 hexadecimal digits: `cj token create` makes a token")
    scopes = entry.get("scopes")
    if not _is_texts(scopes) or not set(scopes) <= set(SCOPES):
        problems.append(f"scopes is a list of {', '.join(SCOPES)}")
    batches = entry.get("batches", ["*"])
    if not _is_texts(batches) or not all(_GROUP.fullmatch(each) for each in batches):
        problems.append("batches is a list of batches' names, in which * stands for any letters")
    # A moment is a date to Python, and would be compared with one at the wrong time.
    if type(entry.get("expires")) is not date:
        problems.append("expires is a date, such as 2027-06-30")
    return problems


def _is_texts(said: Any) -> TypeGuard[list[str]]:
    return isinstance(said, list) and bool(said) and all(isinstance(each, str) for each in said)
