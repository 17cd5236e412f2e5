"""The pages of the form that starts a batch, as HTML: every value is escaped, no script runs."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args

from fastapi.responses import HTMLResponse

from cj_pipeline.batch.options import BatchingMode
from cj_pipeline.errors import CJError
from cj_pipeline.grading.grade_scales import known_scales
from cj_pipeline.judging.judges import Judge, known_judges, load_judge
from cj_pipeline.planning.spending_limits import installation, unallowed_judges
from cj_pipeline.runtime import Runtime
from cj_pipeline.text import visible

if TYPE_CHECKING:
    from jinja2 import Template

_NOT_TO_CHOOSE = frozenset({"recorded", "human-votes"})
"""Simulated judges that answer from recordings a batch has to bring."""

_MODES: dict[BatchingMode, str] = {
    "provider_batch_api": "the provider's batch endpoint: half the price, within 24 hours",
    "per_request": "single calls: minutes, full price",
    "serial_bundle": "calls in series: full price, one at a time",
}


def page(
    shown: Literal["sign-in", "refused", "form", "plan"],
    status: int = 200,
    *,
    problems: Sequence[str] = (),
    form: Any = None,
    planned: Any = None,
    told: Sequence[str] = (),
    **more: Any,
) -> HTMLResponse:
    """Return one of the pages, with the policy that lets its style apply and nothing run."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )
    content = _template().render(
        shown=shown,
        style=style,
        problems=[visible(each) for each in problems],
        form=form,
        planned=planned,
        told=[visible(each) for each in told],
        costs=_costs(planned),
        **({"judges": [], "modes": [], "scales": [], "waiting": []} | more),
    )
    # With no referrer at all a browser would not say which page a form was on.
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"}
    return HTMLResponse(content, status, headers)


def choices(runtime: Runtime, waiting: Sequence[str]) -> dict[str, Any]:
    """Return what may be chosen in the form: judges of this installation with their prices."""
    said = installation(runtime)
    judges = [
        judge
        for name in known_judges()
        if name not in _NOT_TO_CHOOSE and (judge := _judge(name, runtime)) is not None
    ]
    allowed = [each for each in judges if not each.is_human and not unallowed_judges([each], said)]
    return {
        "judges": sorted(allowed, key=lambda each: (each.is_simulated, each.name)),
        "modes": [(mode, _MODES[mode]) for mode in get_args(BatchingMode)],
        "scales": known_scales(),
        "waiting": waiting,
    }


def _judge(name: str, runtime: Runtime) -> Judge | None:
    try:
        judge = load_judge(name, None, runtime.providers_folder)
        _ = judge.price
    except CJError:
        return None
    return judge


def _costs(planned: Any) -> list[Any]:
    """Return what each judge costs in the batch's mode."""
    if planned is None:
        return []
    mode = planned.preview.record.settings.batching_mode
    return [each for each in planned.preview.costs() if each.mode == mode]


@functools.cache
def _style() -> str:
    folder = files("cj_pipeline") / "service" / "static"
    parts = ("live_page.css", "start_page.css")
    return "".join((folder / name).read_text(encoding="utf-8") for name in parts)


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cj_pipeline.service", "static"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda value: visible(str(value))
    return environment.get_template("start_page.html")
