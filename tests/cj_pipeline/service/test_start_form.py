"""The form that starts a batch: a plan with its price first, and nothing that others may abuse."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from cj_pipeline.installation import INSTALLATION_FILE
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.app import create_app
from cj_pipeline.service.auth import Access
from tests.support.batches import open_engine, write_batch
from tests.support.served_runtime import TOKEN, asking, token_for

HERE = "http://127.0.0.1:8421"
FROM_HERE = {"Origin": HERE}
FILLED_IN = {
    "batch_id": "spring-9",
    "judges": ["quality", "quality-messages"],
    "max_pairwise_comparisons": "9",
    "spend_cap_usd": "0,5",
    "llm_batching_mode": "per_request",
    "instructions": "Describe <b>something</b>.",
}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home, that nobody attends."""
    (tmp_path / "home").mkdir()
    return open_engine(tmp_path / "home", is_attended=False)


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    """A client on this machine."""
    with asking(runtime) as found:
        yield found


def essays(n: int = 4, field: str = "files", inside: str = "") -> list[tuple[str, Any]]:
    """Return so many essays as files chosen in a field, in a folder if one is named."""
    text = "This is what I have to say about learning, number {}. "
    names = [f"{inside}student-{number}.txt" for number in range(n)]
    return [(field, (name, (text.format(name) * 3).encode())) for name in names]


def plan(client: TestClient, files: Any, headers: Any = FROM_HERE, **changes: Any) -> Any:
    """Send the form."""
    filled = {key: value for key, value in (FILLED_IN | changes).items() if value}
    return client.post("/start/plan", data=filled, files=files, headers=headers)


def started(client: TestClient, shown: Any, headers: Any = FROM_HERE, **changes: str) -> Any:
    """Press the plan's button."""
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', shown.text))
    return client.post(
        "/start/batch", data=fields | changes, headers=headers, follow_redirects=False
    )


def inbox(runtime: Runtime) -> list[str]:
    """Return everything in the inbox, hidden names included."""
    return sorted(path.name for path in runtime.inbox.iterdir()) if runtime.inbox.exists() else []


def test_what_is_filled_in_is_planned_with_its_price_and_then_started(
    runtime: Runtime, client: TestClient
) -> None:
    """Nothing is in the inbox under its name before the button is pressed."""
    shown = plan(client, essays())
    before = inbox(runtime)
    reply = started(client, shown)

    assert shown.status_code == 200, shown.text
    assert "USD expected" in shown.text
    assert "quality-messages" in shown.text
    assert "of 0.5 allowed" in shown.text
    assert all(name.startswith(".form.") for name in before)
    assert (reply.status_code, reply.headers["location"]) == (303, "/batches/spring-9")
    assert inbox(runtime) == ["spring-9"]
    batch = read_batch(runtime.inbox / "spring-9")
    assert batch.settings.values.judges == ("quality", "quality-messages")
    assert batch.settings.values.max_pairwise_comparisons == 9
    assert batch.settings.values.batching_mode == "per_request"
    assert batch.document("instructions") == FILLED_IN["instructions"] + "\n"
    assert started(client, shown).status_code == 422  # its plan is gone


def _zip_of_a_folder(tmp_path: Path) -> list[tuple[str, Any]]:
    folder = write_batch(tmp_path / "zipped", n_students=4, settings={})
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, f"Spring/{path.relative_to(folder)}")
    return [("files", ("Spring.zip", content.getvalue()))]


def _zip_of_essays(_: Path) -> list[tuple[str, Any]]:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for _, (name, text) in essays():
            archive.writestr(name, text)
    return [("files", ("handed in.zip", content.getvalue()))]


def _table(_: Path) -> list[tuple[str, Any]]:
    rows = "".join(f"student-{n},Something learned {n} times and more.\n" for n in range(4))
    return [("files", ("essays.csv", f"essay_id,text\n{rows}"))]


def _folder(_: Path) -> list[tuple[str, Any]]:
    own = [("folder", ("Spring 9/batch.yaml", b"title: Ours\nmax_pairwise_comparisons: 6\n"))]
    return own + essays(field="folder", inside="Spring 9/essays/")


@pytest.mark.parametrize("sent", [_zip_of_a_folder, _zip_of_essays, _table, _folder])
def test_essays_come_as_a_folder_as_files_or_in_a_zip_file(
    runtime: Runtime, client: TestClient, tmp_path: Path, sent: Any
) -> None:
    """What the form leaves open stays as `batch.yaml` has it."""
    words = None if sent is _zip_of_a_folder else "Describe it."
    named = {"batch_id": None} if sent is _folder else {}

    shown = plan(client, sent(tmp_path), instructions=words, max_pairwise_comparisons=None, **named)
    reply = started(client, shown)

    assert reply.status_code == 303, shown.text
    batch = read_batch(runtime.inbox / "spring-9")
    assert len(batch.essays) == 4
    if sent is _folder:
        assert batch.settings.values.title == "Ours"
        assert batch.settings.values.max_pairwise_comparisons == 6


def test_a_folder_that_waits_in_the_inbox_is_started_and_leaves_nothing_behind(
    runtime: Runtime, client: TestClient
) -> None:
    """Until then it stays as it is; and no other folder of the machine can be named."""
    waiting = write_batch(runtime.inbox / ".large", n_students=4, settings={"title": "Large"})
    before = (waiting / "batch.yaml").read_bytes()
    given = {"batch_id": None, "instructions": None}

    assert 'value="large"' in client.get("/start").text
    elsewhere = plan(client, None, waiting="../../etc", **given)
    shown = plan(client, None, waiting="large", **given)
    unchanged = (waiting / "batch.yaml").read_bytes()
    reply = started(client, shown)

    assert elsewhere.status_code == 422
    assert unchanged == before
    assert reply.headers["location"] == "/batches/large"
    assert inbox(runtime) == ["large"]
    assert read_batch(runtime.inbox / "large").settings.values.title == "Large"


@pytest.mark.parametrize("written", ["nan", "inf", "1e9", "1,000", "-3", "many"])
def test_a_number_that_may_be_read_in_two_ways_or_none_is_refused(
    client: TestClient, written: str
) -> None:
    """By its name, with how to write it."""
    reply = plan(client, essays(), spend_cap_usd=written)

    assert reply.status_code == 422
    assert "spend_cap_usd" in reply.text
    assert "such as 1000 or 2.5" in reply.text


def test_what_cannot_end_is_refused_with_the_numbers_and_the_form_is_kept(
    runtime: Runtime, client: TestClient
) -> None:
    """Nothing stays in the inbox."""
    reply = plan(client, essays(8), max_pairwise_comparisons="3")

    assert reply.status_code == 422
    assert "max_pairwise_comparisons to at least" in reply.text
    assert 'value="spring-9"' in reply.text
    assert inbox(runtime) == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"ceilings": {"usd_per_batch": 0.0001}}, "installation&#39;s ceiling"),
        ({"allowed_judges": ["openai/*"]}, "is not allowed in this installation"),
    ],
)
def test_the_operators_limits_hold(
    runtime: Runtime, client: TestClient, said: dict[str, Any], told: str
) -> None:
    """At the plan, and at the button if they came in between."""
    shown = plan(client, essays())
    (runtime.home / INSTALLATION_FILE).write_text(yaml.safe_dump(said))

    again, pressed = plan(client, essays()), started(client, shown)

    assert (again.status_code, pressed.status_code) == (422, 422)
    assert told in again.text
    assert inbox(runtime) == [name for name in inbox(runtime) if name.startswith(".form.")]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "none"}],
)
def test_a_form_of_another_site_starts_nothing(client: TestClient, headers: dict[str, str]) -> None:
    """A browser says which page a form was on."""
    assert plan(client, essays(), headers=headers).status_code == 403
    assert client.post("/start/batch", data={}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "name", ["../../../home/x.txt", "/etc/passwd", "a\\b.txt", "c:x.txt", "x/../../y.txt"]
)
def test_no_file_is_written_outside_the_batchs_folder(
    runtime: Runtime, client: TestClient, name: str
) -> None:
    """Whatever a program calls it."""
    reply = plan(client, [*essays(field="folder"), ("folder", (name, b"text"))])

    assert reply.status_code == 422, reply.text
    assert inbox(runtime) == []
    assert not (runtime.home / "x.txt").exists()


def test_judges_of_ones_own_are_refused(client: TestClient) -> None:
    """Their files say where requests go, and with which key."""
    own = ("folder", ("s/judges/mine.yaml", b"name: mine\nprovider: openai\nmodel: m\n"))

    reply = plan(client, [own, *essays(field="folder", inside="s/essays/")], judges=["mine"])

    assert reply.status_code == 422
    assert "judges/ cannot be submitted" in reply.text


def test_what_strangers_write_is_only_text(client: TestClient) -> None:
    """In a plan and in a problem alike."""
    bad = "<script>alert(1)</script>"
    settings = ("files", ("batch.yaml", yaml.safe_dump({"title": bad, bad: 1}).encode()))

    shown = plan(client, [*essays(), settings], batch_id=bad)
    named = plan(client, [*essays(), settings])

    for reply in (shown, named):
        assert reply.status_code == 422
        assert "<script" not in reply.text
        assert "script-src" not in reply.headers["content-security-policy"]
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_plan_is_of_what_is_started(runtime: Runtime, client: TestClient) -> None:
    """Whoever changes the folder in between has to look at the plan again."""
    shown = plan(client, essays())
    (folder,) = runtime.inbox.glob(".form.*")
    (folder / "essays" / "student-9.txt").write_text("One essay more, about quite another thing.")

    reply = started(client, shown)

    assert reply.status_code == 422
    assert "changed since its plan" in reply.text


def test_who_may_submit_may_use_the_form_for_batches_of_their_own(runtime: Runtime) -> None:
    """And signs in without a script."""
    mine, known = token_for("submit", batches=("arg*",))
    theirs, reader = token_for("read")
    app = create_app(runtime, Access(TOKEN, tokens=lambda: [known, reader]))
    with TestClient(app, base_url=HERE) as client:
        door = client.get("/start")
        wrong = client.post("/start/sign-in", data={"token": "no"}, headers=FROM_HERE)
        unknown = plan(client, essays())
        client.post("/start/sign-in", data={"token": theirs}, headers=FROM_HERE)
        reading = (client.get("/start").status_code, plan(client, essays()).status_code)
        client.post("/start/sign-in", data={"token": mine}, headers=FROM_HERE)
        foreign = plan(client, essays())
        own = plan(client, essays(), batch_id="arg-1")
        as_foreign = started(client, own, batch_id="spring-9")
        reply = started(client, own)

    assert "Show the plan" not in door.text
    assert (wrong.status_code, unknown.status_code, reading) == (401, 401, (403, 403))
    assert "not for a batch &#39;spring-9&#39;" in foreign.text
    assert as_foreign.status_code == 422
    assert reply.status_code == 303
