"""Texts from outside, made fit to be shown to people.

Essays and justifications may hold characters that nobody sees, or that turn the text around them
the other way. Escaping for HTML or a spreadsheet is the business of whoever writes those.
"""

from __future__ import annotations

import re

_KEPT = "\n\t"
_HIDDEN = re.compile(
    # Controls, soft hyphen, zero-width spaces, bidirectional controls, fillers, tags. The joiners
    # U+200C and U+200D and variation selectors stay: Persian, Indic scripts and emoji need them.
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return the text with every hidden or direction-changing character spelled as `[U+200B]`.

    Line breaks and tabs stay. Letters of right-to-left scripts stay as they are: only controls
    that reorder other text are spelled out.
    """
    return _HIDDEN.sub(lambda m: m[0] if m[0] in _KEPT else f"[U+{ord(m[0]):04X}]", text)


def excerpt(text: str, n_characters: int) -> str:
    """Return the text's beginning, made visible; what was left out is said at its end."""
    shown = visible(text[:n_characters])
    left_out = len(text) - n_characters
    return shown if left_out <= 0 else f"{shown} … ({left_out:,} characters more)"
