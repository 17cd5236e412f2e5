"""The live page: one file without anything from elsewhere, the same for every batch.

It holds nothing of a batch: its script fetches that from the API, with the reader's own access.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files


def live_page() -> tuple[str, str]:
    """Return the page, and the content security policy that lets its own script and style run."""
    return page_of("live_page")


@functools.cache
def page_of(name: str) -> tuple[str, str]:
    """Return one of the service's pages in one file, and its policy; see `live_page`."""
    folder = files("cj_pipeline") / "service" / "static"
    style, script, frame = (
        (folder / file).read_text(encoding="utf-8")
        for file in (f"{name}.css", f"{name}.js", f"{name}.html")
    )
    policy = (
        f"default-src 'none'; script-src '{_sha256(script)}'; style-src '{_sha256(style)}';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return frame.replace("/*style*/", style).replace("/*script*/", script), policy


def _sha256(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
