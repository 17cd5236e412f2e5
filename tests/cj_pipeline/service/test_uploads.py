"""Batches handed in over HTTP: whole or not at all, once, and never outside the inbox."""

from __future__ import annotations

import errno
import io
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cj_pipeline.intake import zip_folder
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from tests.support.batches import open_engine, write_batch
from tests.support.served_runtime import MINI, asking

SETTINGS = {"judges": ["quality"], "max_pairwise_comparisons": 3}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    """A client on this machine."""
    with asking(runtime) as found:
        yield found


def zipped(folder: Path, inside: str = "") -> bytes:
    """Return a folder as a zip file, its files within a folder of that name if one is given."""
    return zip_of(
        {
            f"{inside}/{path.relative_to(folder)}".lstrip("/"): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    )


def zip_of(files: dict[str, bytes]) -> bytes:
    """Return a zip file of these files, whatever their names."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def post_zip(client: TestClient, content: bytes, **query: str) -> Any:
    """Hand a zip file in."""
    return client.post(
        "/api/v1/batches",
        content=content,
        params=query,
        headers={"Content-Type": "application/zip"},
    )


def inbox(runtime: Runtime) -> list[str]:
    """Return everything in the inbox, hidden names included."""
    return sorted(path.name for path in runtime.inbox.iterdir()) if runtime.inbox.exists() else []


def test_a_batch_as_json_becomes_a_folder_that_ingestion_takes(
    runtime: Runtime, client: TestClient
) -> None:
    """The same folder a person would have written."""
    reply = client.post("/api/v1/batches", json=MINI)

    assert reply.status_code == 202
    assert reply.headers["location"] == "/api/v1/batches/mini"
    assert reply.json()["asked"] == {
        "n_essays": 3,
        "n_anchors": 0,
        "judges": ["quality"],
        "batching_mode": "provider_batch_api",
        "max_comparisons": 3,
        "spend_cap_usd": 1.0,
    }
    batch = read_batch(runtime.inbox / "mini")
    assert [essay.essay_id for essay in batch.essays] == ["essay-1", "essay-2", "essay-3"]
    assert ingest(runtime, runtime.inbox / "mini").batch_id == "mini"


def test_a_folder_as_a_zip_file_arrives_unchanged(
    runtime: Runtime, client: TestClient, tmp_path: Path
) -> None:
    """Byte for byte, so that its checksum is what it was at home."""
    folder = write_batch(tmp_path / "spring", n_students=3, settings=SETTINGS)

    reply = post_zip(client, zipped(folder), batch_id="spring-9")

    assert reply.status_code == 202
    handed_in = read_batch(runtime.inbox / "spring-9")
    assert handed_in.content_sha256 == read_batch(folder).content_sha256


def test_a_zip_files_one_folder_gives_the_batch_its_name(
    runtime: Runtime, client: TestClient, tmp_path: Path
) -> None:
    """As when a person zips the folder itself."""
    folder = write_batch(tmp_path / "batch", n_students=3, settings=SETTINGS)

    reply = post_zip(client, zipped(folder, inside="Spring 9"))

    assert reply.json()["batch_id"] == "spring-9"
    assert inbox(runtime) == ["spring-9"]


def test_a_folder_that_waits_in_the_inbox_is_handed_in_by_name(
    runtime: Runtime, client: TestClient
) -> None:
    """For batches too large to send: copied there under a name that begins with a dot."""
    write_batch(runtime.inbox / ".large", n_students=3, settings=SETTINGS)

    replies = [client.post("/api/v1/batches", json={"folder": "large"}) for _ in range(2)]

    assert [reply.status_code for reply in replies] == [202, 202]
    assert [reply.json()["is_new"] for reply in replies] == [True, False]
    assert inbox(runtime) == ["large"]


def test_the_same_content_again_changes_nothing(runtime: Runtime, client: TestClient) -> None:
    """Whether the batch still waits or is in the store."""
    first = client.post("/api/v1/batches", json=MINI).json()
    waiting = client.post("/api/v1/batches", json=MINI).json()
    ingest(runtime, runtime.inbox / "mini")
    running = client.post("/api/v1/batches", json=MINI).json()

    assert [first["is_new"], waiting["is_new"], running["is_new"]] == [True, False, False]
    assert [first["state"], waiting["state"], running["state"]] == ["queued", "queued", "running"]
    assert inbox(runtime) == ["mini"]


@pytest.mark.parametrize("is_in_store", [False, True])
def test_other_content_under_a_name_that_is_taken_is_refused(
    runtime: Runtime, client: TestClient, is_in_store: bool
) -> None:
    """What was asked and paid for stays what it was."""
    client.post("/api/v1/batches", json=MINI)
    if is_in_store:
        ingest(runtime, runtime.inbox / "mini")
    before = read_batch(runtime.inbox / "mini").content_sha256

    reply = client.post("/api/v1/batches", json=MINI | {"instructions": "Something else."})

    assert reply.status_code == 409
    assert read_batch(runtime.inbox / "mini").content_sha256 == before
    assert inbox(runtime) == ["mini"]


def test_everything_wrong_is_told_at_once_and_nothing_is_left(
    runtime: Runtime, client: TestClient
) -> None:
    """In the words ingestion would use."""
    bad = MINI | {
        "settings": {"wave_sise": 3, "judges": ["nobody"]},
        "instructions": "",
        "essays": MINI["essays"][:1],
    }

    reply = client.post("/api/v1/batches", json=bad)

    problems = "\n".join(reply.json()["problems"])
    assert reply.status_code == 422
    assert all(word in problems for word in ("wave_sise", "instructions.md", "too few essays"))
    assert inbox(runtime) == []


def test_judges_of_its_own_are_refused(
    runtime: Runtime, client: TestClient, tmp_path: Path
) -> None:
    """A judge's file names an address and a key's variable: keys would leave for anywhere."""
    folder = write_batch(tmp_path / "batch", n_students=3, settings=SETTINGS)
    (folder / "judges").mkdir()
    (folder / "judges" / "mine.yaml").write_text("name: mine\n")

    reply = post_zip(client, zipped(folder), batch_id="with-judges")

    assert reply.status_code == 422
    assert "judges/ cannot be submitted" in reply.json()["problems"][0]
    assert inbox(runtime) == []


@pytest.mark.parametrize(
    "name",
    ["../../escaped.txt", "/escaped.txt", "a/../../escaped.txt", "..\\escaped.txt",
     "C:/escaped.txt", "./../escaped.txt", "a/b/c/d/e.txt", "n" * 300],
)  # fmt: skip
def test_a_zip_file_cannot_write_outside_the_inbox(
    runtime: Runtime, client: TestClient, name: str
) -> None:
    """Whatever its entries are called."""
    before = sorted(runtime.home.parent.rglob("*escaped*"))

    reply = post_zip(client, zip_of({name: b"x", "batch.yaml": b""}), batch_id="hostile")

    assert reply.status_code == 422
    assert sorted(runtime.home.parent.rglob("*escaped*")) == before
    assert inbox(runtime) == []


def test_a_link_in_a_zip_file_is_refused(runtime: Runtime, client: TestClient) -> None:
    """It could point at anything this machine can read."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("essays/passwd.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")

    reply = post_zip(client, content.getvalue(), batch_id="hostile")

    assert reply.status_code == 422
    assert "link" in reply.json()["problems"][0]


def test_a_zip_bomb_is_not_unpacked_to_its_end(
    runtime: Runtime, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of its sizes is not believed either."""
    monkeypatch.setattr(zip_folder, "MAX_UNPACKED_BYTES", 3_000_000)

    reply = post_zip(client, zip_of({"essays.csv": b"0" * 4_000_000}), batch_id="bomb")

    assert reply.status_code == 413
    assert inbox(runtime) == []


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + b"\x00" * 100])
def test_what_is_no_zip_file_is_a_problem(client: TestClient, content: bytes) -> None:
    """Not a crash."""
    assert post_zip(client, content, batch_id="broken").status_code == 422


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"batch_id": "../../x"}', "application/json", 422),
        (b'{"folder": "../x"}', "application/json", 422),
        (b'{"folder": "nobody"}', "application/json", 404),
        (b'{"folder": "abc", "batch_id": "abc"}', "application/json", 422),
        (b"{}", "application/json", 422),
        (b"x", "text/plain", 415),
        (b"x", "multipart/form-data; boundary=x", 415),
    ],
)
def test_what_is_no_batch_is_a_problem(
    client: TestClient, content: bytes, kind: str, status: int
) -> None:
    """Each with the status that says whose fault it is."""
    reply = client.post("/api/v1/batches", content=content, headers={"Content-Type": kind})

    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"


def test_a_rejected_batch_is_replaced_by_a_mended_one(runtime: Runtime, client: TestClient) -> None:
    """It was never taken in, so nothing of it has to stay."""
    write_batch(runtime.inbox / "mini", n_students=1, settings=SETTINGS)
    with pytest.raises(Exception, match="too few essays"):
        ingest(runtime, runtime.inbox / "mini")

    reply = client.post("/api/v1/batches", json=MINI)

    assert (reply.status_code, reply.json()["is_new"]) == (202, True)
    assert len(read_batch(runtime.inbox / "mini").essays) == 3


def test_a_text_that_looks_like_a_formula_or_a_table_stays_as_it_is(
    runtime: Runtime, client: TestClient
) -> None:
    """Texts pass through a table of our own on the way to ingestion."""
    text = '=cmd|"/c calc"!A1,\n"quoted", and a comma\n\nanother line'
    essays = [*MINI["essays"][:2], {"essay_id": "odd", "text": text}]

    client.post("/api/v1/batches", json=MINI | {"essays": essays})

    kept = {essay.essay_id: essay.text for essay in read_batch(runtime.inbox / "mini").essays}
    assert kept["odd"] == text


def test_a_full_disk_is_not_blamed_on_the_zip_file(
    runtime: Runtime, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sent a sound file would mend it for ever; and nothing of it stays behind."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zip_folder, "_unpack_entry", full)
    reply = post_zip(client, zip_of({"batch.yaml": b"judges: [quality]"}), batch_id="full")

    assert reply.status_code == 500, reply.text
    assert inbox(runtime) == []
