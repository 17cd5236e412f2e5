"""How pages are made: the templates of this folder, their one style sheet, and their policy.

What a page shows is worked out by the caller (`report`, `side_by_side`). Every value is
escaped on its way in; a page may run no script and call no network.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cj_pipeline.queries.spending import ROUNDING_USD
from cj_pipeline.text import excerpt

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A plot that travels within the page."""

    uri: str
    alt: str
    caption: str


def render_page(template: str, **values: Any) -> str:
    """Return a page from one of this folder's templates."""
    style, style_sha256 = _style()
    policy = (
        f"default-src 'none'; style-src 'sha256-{style_sha256}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    return _environment().get_template(template).render(style=style, policy=policy, **values)


def picture(figure: Figure, *, alt: str, caption: str) -> Picture:
    """Return a figure as a picture within the page."""
    from cj_pipeline.outputs.plots import svg

    data = base64.b64encode(svg(figure)).decode()
    return Picture(f"data:image/svg+xml;base64,{data}", alt, caption)


def signed(value: float) -> str:
    """Return a score with its sign and two decimals."""
    return f"{value:+.2f}".replace("-", "−")


def percent(share: float) -> str:
    """Return a share in whole per cent."""
    return f"{100 * share:.0f}\u00a0%"


def dollars(usd: float) -> str:
    """Return dollars with as many decimals as it takes to see that something was paid."""
    decimals = 2 if usd == 0 or usd >= 1 else min(6, 1 - math.floor(math.log10(usd)))
    return f"${usd:,.{max(2, decimals)}f}"


def dollar_difference(usd: float) -> str:
    """Return a difference between two amounts with its sign; none where it is only rounding."""
    if abs(usd) <= ROUNDING_USD:
        return "none"
    return ("+" if usd > 0 else "−") + dollars(abs(usd))


def words(key: str) -> str:
    """Return a key as readers see it."""
    return key.replace("_", " ")


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment is not None else "–"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cj_pipeline", "outputs/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "excerpt": excerpt,
        "signed": signed,
        "percent": percent,
        "usd": dollars,
        "usd_difference": dollar_difference,
        "time": _time,
        "words": words,
    }
    return environment


@functools.cache
def _style() -> tuple[Any, str]:
    """Return the style sheet, and its hash for the content security policy."""
    from markupsafe import Markup

    text = (files("cj_pipeline") / "outputs" / "templates" / "report.css").read_text(
        encoding="utf-8"
    )
    digest = hashlib.sha256(text.encode()).digest()
    # The style sheet is ours, not a batch's, and must not be escaped.
    return Markup(text), base64.b64encode(digest).decode()  # noqa: S704
