"""What each exit code says: for `cj --help`, the help of commands with codes of their own, docs."""

from __future__ import annotations

from collections.abc import Mapping

EVERY_COMMAND: Mapping[int, str] = {
    0: "done",
    1: "not done, or something is wrong (the message says what)",
    2: "the command is not typed as it has to be",
    4: "a provider or the store does not answer now: nothing is wrong here, try later",
    130: "interrupted (Ctrl-C)",
}
"""What a code says, unless the command says otherwise."""

OF_COMMAND: Mapping[str, Mapping[int, str]] = {
    "plan": {1: "something stands in the way of the batch"},
    "preflight": {1: "something stands in the way of the batch"},
    "execute": {
        1: "preflight found problems",
        2: "the batch ended badly or failed its checks",
        3: "not at its end within --completion-timeout: what is there is published as partial",
    },
    "report": {2: "the batch ended badly or failed its checks"},
    "regrade": {2: "the batch ended badly or failed its checks"},
    "watch": {
        0: "the batch succeeded",
        3: "--timeout has passed, and the batch goes on",
        10: "partial",
        11: "failure",
        12: "empty",
        13: "cancelled",
        14: "expired",
        15: "stalled",
        16: "rejected",
        130: "interrupted (Ctrl-C), and the batch goes on",
    },
    "verify": {1: "something differs, or cannot be read"},
    "assert": {1: "a claim that blocks does not hold"},
    "doctor": {1: "ledger and providers disagree"},
    "store check": {1: "something is wrong with the store"},
    "forget": {1: "not done, or --verify found what was to go"},
    "judge examine": {1: "the judge cannot be used as it is"},
    "notify": {1: "an address did not take the notification"},
    "trial run": {
        0: "everything expected holds",
        1: "something expected does not hold",
        2: "a trial cannot be run",
        130: "stopped by Ctrl-C: the same command goes on",
        143: "stopped by SIGTERM: the same command goes on",
    },
}
"""What commands say beside that or instead; the name is as it is typed after `cj`."""


def in_words(codes: Mapping[int, str]) -> str:
    """Return codes as one sentence of help."""
    return "; ".join(f"{code} {meaning}" for code, meaning in sorted(codes.items()))


def help_of(command: str) -> str | None:
    """Return the line of a command's help on its own codes; None where it has none."""
    own = OF_COMMAND.get(command)
    return f"Exit codes: {in_words({**EVERY_COMMAND, **own})}." if own else None
