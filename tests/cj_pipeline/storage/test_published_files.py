"""Published files on machines that share an object store, and on one that shares with nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cj_pipeline.errors import TransientError
from cj_pipeline.operations.preflight import preflight
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.publish import publish
from cj_pipeline.storage.published_files import PublishedFiles, open_published_files
from cj_pipeline.store.file_store import FileStore
from tests.support.finished_batches import ARGUMENTS
from tests.support.object_server import BUCKET, ObjectServer, object_server
from tests.support.served_runtime import asking, home_with_batches

ADDRESS = f"s3://{BUCKET}/cj"


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectServer]:
    """One server for all tests; every test uses other batches."""
    with object_server() as server:
        yield server


@pytest.fixture
def server(running: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """It, well, and found by the environment."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    yield running
    running.is_down = False


def _on(home: Path) -> PublishedFiles:
    """Return the published files as a machine with this home has them."""
    return open_published_files(home, {"CJ_FILES": ADDRESS})


def _write(files: PublishedFiles, name: str, content: bytes) -> tuple[Path, str]:
    path = files.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_any_machine_gives_out_what_another_one_wrote(server: ObjectServer, tmp_path: Path) -> None:
    """A report is asked for wherever the request lands."""
    path, sha256 = _write(_on(tmp_path / "a"), "any/report.html", b"<p>")

    _on(tmp_path / "a").share([path])

    assert _on(tmp_path / "b").read("any/report.html", sha256) == b"<p>"
    assert not (tmp_path / "b").exists()


def test_what_lies_here_is_not_fetched(server: ObjectServer, tmp_path: Path) -> None:
    """The machine that wrote a report shows it while the object store is away."""
    files = _on(tmp_path)
    path, sha256 = _write(files, "here/report.html", b"<p>")
    files.share([path])
    server.is_down = True

    assert files.read("here/report.html", sha256) == b"<p>"


def test_an_old_copy_here_is_not_given_out(server: ObjectServer, tmp_path: Path) -> None:
    """A batch that was graded anew elsewhere has new grades everywhere."""
    _write(_on(tmp_path / "b"), "old/report.html", b"before")
    path, sha256 = _write(_on(tmp_path / "a"), "old/report.html", b"after")
    _on(tmp_path / "a").share([path])

    assert _on(tmp_path / "b").read("old/report.html", sha256) == b"after"


def test_a_file_that_is_not_the_recorded_one_is_never_given_out(
    server: ObjectServer, tmp_path: Path
) -> None:
    """It was replaced between the row and the file: the next try finds both new."""
    path, _ = _write(_on(tmp_path / "a"), "between/report.html", b"newer")
    _on(tmp_path / "a").share([path])

    with pytest.raises(
        TransientError, match=r"between/report\.html is being rewritten on another machine"
    ):
        _on(tmp_path / "b").read("between/report.html", hashlib.sha256(b"older").hexdigest())


@pytest.mark.parametrize("recorded", ["../secret", "/etc/passwd", "a/../../secret"])
def test_a_record_that_leads_elsewhere_gives_nothing(recorded: str, tmp_path: Path) -> None:
    """Rows are written by all machines; none of them names files of another."""
    (tmp_path / "home" / "batches").mkdir(parents=True)
    (tmp_path / "secret").write_text("hidden")
    (tmp_path / "home" / "secret").write_text("hidden")

    assert PublishedFiles(tmp_path / "home").read(recorded, "") is None


def test_without_an_object_store_files_are_in_the_home(tmp_path: Path) -> None:
    """The default of one machine needs no package and no network."""
    files = open_published_files(tmp_path, {})
    path, sha256 = _write(files, "alone/report.html", b"<p>")
    files.share([path])

    assert files.objects is None
    assert files.read("alone/report.html", sha256) == b"<p>"
    assert files.read("alone/artefact.json", sha256) is None
    assert files.forget("alone") == 0


def test_forgetting_leaves_no_shared_file_of_the_batch(
    server: ObjectServer, tmp_path: Path
) -> None:
    """A report has students' texts; a batch whose name begins alike is another one."""
    files = _on(tmp_path)
    written = [
        _write(files, name, b"x") for name in ("gone/report.html", "gone/a.json", "gone-2/a.json")
    ]
    files.share([path for path, _ in written])

    assert files.forget("gone") == 2

    other = _on(tmp_path / "other")
    assert other.read("gone/report.html", written[0][1]) is None
    assert other.read("gone-2/a.json", written[2][1]) == b"x"


def _two_hosts(tmp_path: Path) -> tuple[Runtime, Runtime]:
    """Return two machines over one store, each with a home of its own."""
    one = home_with_batches(tmp_path / "one")
    one = replace(one, environment={**one.environment, "CJ_FILES": ADDRESS})
    return one, replace(one, home=tmp_path / "two")


def test_a_host_serves_the_report_of_a_batch_that_another_host_ran(
    server: ObjectServer, tmp_path: Path
) -> None:
    """And so the artefact, byte for byte, with the page's own policy."""
    one, two = _two_hosts(tmp_path)
    published = publish(one, ARGUMENTS)

    with asking(two) as client:
        report = client.get(f"/api/v1/batches/{ARGUMENTS}/report")
        artefact = client.get(f"/api/v1/batches/{ARGUMENTS}/artefact")

    assert report.content == published.report.path.read_bytes()
    assert artefact.content == published.artefact.path.read_bytes()
    assert "style-src 'sha256-" in report.headers["content-security-policy"]
    names = one.published.objects.names(f"batches/{ARGUMENTS}") if one.published.objects else []
    assert {Path(name).name for name in names} == {
        path.name for path in published.report.path.parent.iterdir()
    }


def test_no_path_of_a_machine_is_in_the_store(server: ObjectServer, tmp_path: Path) -> None:
    """Another machine has other folders, and a home that was moved too."""
    one, _ = _two_hosts(tmp_path)
    publish(one, ARGUMENTS)
    assert {each.about: each.standing for each in preflight(one)}["shared files"] == "ready"

    with one.store.read() as db:
        rows = db.rows("SELECT path FROM run_artefact UNION ALL SELECT path FROM batch_report")
    assert sorted(row["path"] for row in rows) == [
        f"{ARGUMENTS}/assessment_run.execute.json",
        f"{ARGUMENTS}/report.html",
    ]
    one.home.rename(tmp_path / "moved")
    moved = replace(
        one, home=tmp_path / "moved", store=FileStore(tmp_path / "moved"), environment={}
    )
    with asking(moved) as client:
        assert client.get(f"/api/v1/batches/{ARGUMENTS}/report").status_code == 200


def test_an_object_store_that_is_away_is_told_as_passing(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is recorded that other machines cannot read, and a reader is told to come again."""
    from cj_pipeline.storage import published_files
    from cj_pipeline.storage.objects import Objects

    one, two = _two_hosts(tmp_path)
    publish(one, ARGUMENTS)
    monkeypatch.setattr(
        published_files, "_open_objects", lambda address, _: Objects(address, patience_s=0.2)
    )
    server.is_down = True
    with one.store.write() as db:
        db.execute("DELETE FROM batch_report")

    with pytest.raises(TransientError, match="try again"):
        publish(one, ARGUMENTS)
    by_name = {each.about: each for each in preflight(one)}
    assert by_name["shared files"].standing == "problem"
    with asking(two) as client:
        reply = client.get(f"/api/v1/batches/{ARGUMENTS}/artefact")

    assert reply.status_code == 503
    with one.store.read() as db:
        assert db.rows("FROM batch_report") == []
