"""How pages are made: the templates of this folder, their one style sheet, and their policy.

What a page shows is worked out by the caller (`report`, `side_by_side`). Every value is
escaped on its way in; a page may run no script and call no network.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cj_pipeline.outputs.language import (
    dollars,
    moment,
    number,
    percent,
    plain,
    signed,
    spoken,
    tr,
    tr_stored,
    whole,
)
from cj_pipeline.queries.spending import ROUNDING_USD
from cj_pipeline.text import excerpt

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A plot that travels within the page."""

    uri: str
    alt: str
    caption: str


def render_page(template: str, **values: Any) -> str:
    """Return a page from one of this folder's templates."""
    style, _ = _style()
    return (
        _environment()
        .get_template(template)
        .render(style=style, policy=page_policy(), spoken=spoken(), **values)
    )


def page_policy() -> str:
    """Return what every page of this folder may do; whoever serves one says it in a header too."""
    _, style_sha256 = _style()
    return (
        f"default-src 'none'; style-src 'sha256-{style_sha256}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def picture(figure: Figure, *, alt: str, caption: str) -> Picture:
    """Return a figure as a picture within the page."""
    from cj_pipeline.outputs.plots import svg

    data = base64.b64encode(svg(figure)).decode()
    return Picture(f"data:image/svg+xml;base64,{data}", alt, caption)


def dollar_difference(usd: float) -> str:
    """Return a difference between two amounts with its sign; none where it is only rounding."""
    if abs(usd) <= ROUNDING_USD:
        return tr("none")
    return ("+" if usd > 0 else "−") + dollars(abs(usd))


def words(key: str) -> str:
    """Return a key as readers see it."""
    return key.replace("_", " ")


def _markup_tr(sentence: str, /, **values: object) -> Markup:
    """Return a sentence of ours, which may hold markup, with values escaped into it."""
    from markupsafe import Markup

    said = Markup(tr(sentence))  # noqa: S704 -- the catalogue is ours
    return said.format(**values) if values else said


def _markup_counted(n: int, one: str, many: str, **values: object) -> Markup:
    return _markup_tr(one if n == 1 else many, n=whole(n), **values)


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
        "number": number,
        "plain": plain,
        "whole": whole,
        "usd": dollars,
        "usd_difference": dollar_difference,
        "time": moment,
        "words": words,
        "stored": tr_stored,
    }
    environment.globals |= {"tr": _markup_tr, "counted": _markup_counted}
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
