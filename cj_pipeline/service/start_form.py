"""The form that starts a batch: what was filled in becomes a plan with its price, then a batch.

Three plain pages, which need no script: the form, the plan, and the batch's own page. Between the
first two the folder lies in the inbox under a name that only the plan's page knows; starting is
`uploads.place`, as for the API, and looks at everything again. Nothing is read from anywhere else
than what was sent, and folders that wait in the inbox.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from cj_pipeline.errors import CJError
from cj_pipeline.ids import ID, id_for
from cj_pipeline.intake.batch_folder import Batch
from cj_pipeline.intake.layout import DOCUMENT_ENDINGS, DOCUMENTS, FOLDERS, REGISTER
from cj_pipeline.intake.readers.archive import BROKEN
from cj_pipeline.intake.tables import TABLE_ENDINGS
from cj_pipeline.intake.zip_folder import ZipProblemsError, name_problem, unpack
from cj_pipeline.operations.preflight import PreflightItem, is_ready, preflight
from cj_pipeline.operations.preview import Preview, preview_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.auth import COOKIE, SESSION_S, Grant
from cj_pipeline.service.dependencies import AccessDep, GrantDep, RuntimeDep, needs
from cj_pipeline.service.form_data import Form, FormError, SentFile, read_form
from cj_pipeline.service.problems import ProblemError, said_outside
from cj_pipeline.service.start_page import choices, page
from cj_pipeline.service.uploads import place, read_folder, require_own
from cj_pipeline.strict_yaml import read_yaml

router = APIRouter(include_in_schema=False)

KEPT_S = 3600.0
"""How long a folder waits for its plan to be started."""

_PLAN = re.compile(r"[0-9a-f]{32}")
_STAGED = ".form."
"""No name that the API takes, so only who knows the rest of it comes at the folder."""

_FIELDS = ("title", "scale", "llm_batching_mode", "max_pairwise_comparisons", "spend_cap_usd")
_NUMBERS = ("max_pairwise_comparisons", "spend_cap_usd")
_WRITTEN = re.compile(r"\d{1,12}([.,](\d{1,2}|\d{4,6}))?", re.ASCII)
"""A number that is read in one way only: 1,000 is a thousand to some and one to others."""


@dataclass(frozen=True)
class Planned:
    """A folder that was looked at, and what a person has to know before it is started.

    Attributes:
        batch_id: The batch's name.
        plan: By which the folder is found again.
        examined: How everything stands that it needs.
        batch: As read.
        preview: What it asks and costs.
    """

    batch_id: str
    plan: str
    examined: Sequence[PreflightItem]
    batch: Batch
    preview: Preview

    @property
    def may_start(self) -> bool:
        """Whether nothing stands in its way."""
        return is_ready(list(self.examined))


@router.get("/start", response_class=HTMLResponse)
def start_form(runtime: RuntimeDep, grant: GrantDep) -> HTMLResponse:
    """Return the form, or for those who are not signed in the one that signs them in."""
    known: Grant | None = grant
    if known is None:
        return page("sign-in")
    if not known.allows("submit"):
        return page("refused", 403, problems=["Your token needs the scope `submit`."])
    return _form(runtime, known)


@router.post("/start/sign-in")
async def sign_in(request: Request, access: AccessDep) -> Response:
    """Trade a token for a session without any script."""
    _require_own_page(request)
    form = await _form_of(request)
    session = access.begin_session(form.one("token")) if access.is_guarded else None
    if access.is_guarded and session is None:
        return page("sign-in", 401, problems=["That token is not known here, or it has expired."])
    response = RedirectResponse("/start", 303)
    if session is not None:
        response.set_cookie(
            COOKIE,
            session,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return response


@router.post("/start/plan", dependencies=[needs("submit")], response_class=HTMLResponse)
async def plan(request: Request, runtime: RuntimeDep, grant: GrantDep) -> HTMLResponse:
    """Return the plan of what was filled in, with its price; nothing is started.

    Where something stands in the way, the form comes back with it and with what was filled in.
    """
    _require_own_page(request)
    form = await _form_of(request)
    try:
        planned = await run_in_threadpool(_plan, runtime, form, grant)
    except (ProblemError, CJError) as error:
        return await run_in_threadpool(_form, runtime, grant, form, _problems(request, error))
    told = [said_outside(request, each.finding) for each in planned.examined]
    if planned.may_start:
        return page("plan", planned=planned, told=told)
    in_the_way = [
        f"{each.about}: {finding}"
        for each, finding in zip(planned.examined, told, strict=True)
        if each.standing == "problem"
    ]
    return await run_in_threadpool(_form, runtime, grant, form, in_the_way)


@router.post("/start/batch", dependencies=[needs("submit")])
async def start(request: Request, runtime: RuntimeDep, grant: GrantDep) -> Response:
    """Start what was planned, if it is still what the plan was of; show the batch's page."""
    _require_own_page(request)
    form = await _form_of(request)
    try:
        batch_id = await run_in_threadpool(_start, runtime, form, grant)
    except (ProblemError, CJError) as error:
        return await run_in_threadpool(_form, runtime, grant, None, _problems(request, error))
    return RedirectResponse(f"/batches/{batch_id}", 303)


def _form(
    runtime: Runtime, grant: Grant, form: Form | None = None, problems: Sequence[str] = ()
) -> HTMLResponse:
    waiting = [name for name in _waiting(runtime) if grant.covers(name)]
    return page(
        "form", 422 if problems else 200, problems=problems, form=form, **choices(runtime, waiting)
    )


def _require_own_page(request: Request) -> None:
    """Refuse what another site's page may have sent: a browser always says where a form was.

    That a stated origin is our own is `AccessMiddleware`'s; here none may be missing.
    """
    headers = request.headers
    is_program = headers.get("authorization", "").lower().startswith("bearer ")
    if is_program or headers.get("origin") or headers.get("sec-fetch-site") == "same-origin":
        return
    raise ProblemError(403, "Start a batch from this service's own page, or by its API.")


async def _form_of(request: Request) -> Form:
    try:
        return read_form(request.headers.get("content-type", ""), await request.body())
    except FormError as error:
        raise ProblemError(400, str(error)) from None


def _problems(request: Request, error: ProblemError | CJError) -> list[str]:
    told = getattr(error, "problems", ()) or [str(error)]
    lead = [error.detail] if isinstance(error, ProblemError) and error.problems else []
    return [said_outside(request, each) for each in (*lead, *told)]


def _waiting(runtime: Runtime) -> list[str]:
    """Return the folders that were copied into the inbox to be started by name."""
    if not runtime.inbox.is_dir():
        return []
    names = (path.name[1:] for path in runtime.inbox.iterdir() if path.name.startswith("."))
    return sorted(name for name in names if ID.fullmatch(name) and _is_own(runtime, name))


def _is_own(runtime: Runtime, name: str) -> bool:
    path = runtime.inbox / f".{name}"
    is_ours = name.startswith(("handed-in-", "replaced-", "unpacking-", "withdrawn-"))
    return path.is_dir() and not path.is_symlink() and not is_ours


def _plan(runtime: Runtime, form: Form, grant: Grant) -> Planned:
    _forget_old(runtime)
    name = _name(form)
    require_own(name, grant)
    token, waiting = secrets.token_hex(16), form.one("waiting")
    if waiting and not (ID.fullmatch(waiting) and _is_own(runtime, waiting)):
        raise ProblemError(404, f"No folder '.{waiting[:70]}' waits in the inbox.")
    if waiting:
        require_own(waiting, grant)
    folder = runtime.inbox / f"{_STAGED}{token}.{waiting}"
    try:
        _fill(runtime, folder, form)
        planned = _looked_at(runtime, folder, name, grant)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not planned.may_start:
        shutil.rmtree(folder, ignore_errors=True)
    return planned


def _looked_at(runtime: Runtime, folder: Path, name: str, grant: Grant) -> Planned:
    # First, so that nobody sees what is known of a batch that they may not link to.
    batch = read_folder(runtime, folder, name, grant).batch
    preview = preview_batch(runtime, batch)
    examined = preflight(runtime, batch, preview=preview, asks_providers=False)
    return Planned(name, folder.name.removeprefix(_STAGED)[:32], examined, batch, preview)


def _start(runtime: Runtime, form: Form, grant: Grant) -> str:
    token, name = form.one("plan"), form.one("batch_id")
    found = list(runtime.inbox.glob(f"{_STAGED}{token}.*")) if _PLAN.fullmatch(token) else []
    if not ID.fullmatch(name) or not found:
        raise ProblemError(409, "That plan is no longer there: fill the form in again.")
    folder = found[0]
    handed_in = place(runtime, folder, name, grant, content_sha256=form.one("content"))
    shutil.rmtree(folder, ignore_errors=True)  # where the batch was there already
    if waiting := folder.name.removeprefix(f"{_STAGED}{token}."):
        shutil.rmtree(runtime.inbox / f".{waiting}", ignore_errors=True)
    return handed_in.batch.batch_id


def _forget_old(runtime: Runtime) -> None:
    """A plan that nobody started is not kept for long."""
    runtime.inbox.mkdir(parents=True, exist_ok=True)
    before = time.time() - KEPT_S
    for path in runtime.inbox.glob(f"{_STAGED}*"):
        if path.lstat().st_mtime < before:
            shutil.rmtree(path, ignore_errors=True)


def _name(form: Form) -> str:
    sent = [PurePosixPath(each.name).parts for each in form.files_of("folder")]
    tops = {parts[0] for parts in sent if len(parts) > 1}
    given = form.one("batch_id") or form.one("waiting") or (tops.pop() if len(tops) == 1 else "")
    if not given:
        raise ProblemError(422, "Give the batch a name.")
    if form.one("batch_id") and not ID.fullmatch(given):
        raise ProblemError(
            422, f"{given!r} cannot name a batch: use 3 to 64 of a-z, 0-9, '-' and '_'."
        )
    return id_for(given, prefix="batch")


def _fill(runtime: Runtime, folder: Path, form: Form) -> None:
    """Make the batch's folder of what was sent, with what the form says in its `batch.yaml`."""
    ways = [
        bool(form.one("waiting")),
        bool(form.files_of("folder")),
        bool(form.files_of("files", "anchors")),
    ]
    if sum(ways) != 1:
        raise ProblemError(
            422, "Give the essays in one way: a folder, files, or a folder that waits in the inbox."
        )
    if ways[0]:
        _copy_waiting(runtime, form.one("waiting"), folder)
    else:
        folder.mkdir(mode=0o700)
        _write(folder, _as_files(form) if ways[2] else _without_top(form.files_of("folder")))
        _unpack_alone(folder)
    _write_settings(folder, form)


def _copy_waiting(runtime: Runtime, name: str, folder: Path) -> None:
    """Link every file: the folder that waits stays as it is until the batch is started."""
    shutil.copytree(runtime.inbox / f".{name}", folder, symlinks=True, copy_function=os.link)


def _without_top(files: Sequence[SentFile]) -> list[tuple[str, bytes]]:
    """A folder's files come with the folder's own name before theirs."""
    tops = {each.name.partition("/")[0] for each in files}
    strip = len(tops) == 1 and all("/" in each.name for each in files)
    return [
        (each.name.partition("/")[2] if strip else each.name, each.content)
        for each in files
        if not PurePosixPath(each.name).name.startswith(".")
    ]


def _as_files(form: Form) -> list[tuple[str, bytes]]:
    """Essays go where essays belong; settings, instructions and tables stand beside them."""
    found = []
    for each in form.files_of("files"):
        name = PurePosixPath(each.name).name or each.name
        found.append((name if _is_no_essay(name) else f"essays/{name}", each.content))
    for each in form.files_of("anchors"):
        name = PurePosixPath(each.name).name or each.name
        is_table = name.lower().startswith("anchors") and name.lower().endswith(TABLE_ENDINGS)
        found.append((name if is_table else f"anchors/{name}", each.content))
    return found


def _is_no_essay(name: str) -> bool:
    stem, ending = name.rpartition(".")[0].lower(), f".{name.rpartition('.')[2].lower()}"
    if name in {"batch.yaml", "scale.yaml"} or ending == ".zip":
        return True
    if stem in {word for words in DOCUMENTS.values() for word in words}:
        return ending in DOCUMENT_ENDINGS
    tables = {*FOLDERS["essays"], *FOLDERS["anchors"], REGISTER}
    return stem in tables and ending in TABLE_ENDINGS


def _write(folder: Path, files: Sequence[tuple[str, bytes]]) -> None:
    problems = [problem for name, _ in files if (problem := name_problem(name)) is not None]
    names = [name for name, _ in files]
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    problems += [f"{name[:200]!r} is there twice" for name in twice]
    if problems:
        raise ProblemError(422, "The files cannot be taken.", problems)
    for name, content in files:
        target = folder.joinpath(*PurePosixPath(name).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _unpack_alone(folder: Path) -> None:
    """A zip file of a batch folder is that folder; one of essays is `essays.zip`."""
    found = [path for path in folder.iterdir() if path.suffix.lower() == ".zip"]
    if len(found) != 1 or found[0].stem.lower() in {*FOLDERS["essays"], *FOLDERS["anchors"]}:
        return
    archive = found[0]
    is_alone = len(list(folder.iterdir())) == 1
    if not is_alone or not _holds_a_batch(archive):
        archive.rename(folder / "essays.zip")
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".form-unpacking.") as place_for:
        try:
            top = unpack(BytesIO(archive.read_bytes()), Path(place_for))
        except ZipProblemsError as error:
            raise ProblemError(422, str(error), list(error.problems)) from None
        archive.unlink()
        for path in (Path(place_for) / top if top else Path(place_for)).iterdir():
            path.rename(folder / path.name)


def _holds_a_batch(archive: Path) -> bool:
    words = {*FOLDERS["essays"], "batch.yaml"}
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [PurePosixPath(name).parts for name in opened.namelist()]
    except BROKEN:
        return True  # `unpack` says what is wrong with it
    return any(
        part.partition(".")[0] in words or part in words for parts in names for part in parts[:2]
    )


def _write_settings(folder: Path, form: Form) -> None:
    """What the form says wins over `batch.yaml`; what it leaves open stays as it is there."""
    file = folder / "batch.yaml"
    settings: dict[Any, Any] = {}
    if file.is_file() and not file.is_symlink():
        found, problems = read_yaml(file.read_text("utf-8", "replace"))
        if found is None or problems:
            told = [f"batch.yaml {problem}" for problem in problems]
            raise ProblemError(422, "batch.yaml cannot be used.", told)
        settings = found
    said: dict[str, Any] = {name: form.one(name) for name in _FIELDS if form.one(name)}
    for name in _NUMBERS:
        if name in said:
            said[name] = _number(name, said[name])
    if judges := form.many("judges"):
        said["judges"] = judges
        settings.pop("judge_shares", None)
    elif "judges" not in settings:
        raise ProblemError(422, "Choose at least one judge.")
    if form.one("anyway"):
        said["anyway"] = True
    if said:
        # A new file: the one that waits in the inbox is not written into.
        file.unlink(missing_ok=True)
        file.write_text(yaml.safe_dump(settings | said, allow_unicode=True), "utf-8")
    words = form.one("instructions").replace("\r\n", "\n")
    if words:
        stems = {path.stem for path in folder.iterdir() if path.suffix in DOCUMENT_ENDINGS}
        if stems & set(DOCUMENTS["instructions"]):
            raise ProblemError(422, "Give the task once: as a file, or written into the form.")
        (folder / "instructions.md").write_text(words + "\n", "utf-8")


def _number(name: str, text: str) -> int | float:
    if not _WRITTEN.fullmatch(text):
        how = "write digits, without a separator of thousands, such as 1000 or 2.5"
        raise ProblemError(422, f"{name}: {text[:50]!r} is no number here: {how}.")
    value = float(text.replace(",", "."))
    return int(value) if value.is_integer() else value
