"""Files in an object store: a real client against a server that speaks S3 and fails on demand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cj_pipeline.errors import StoreError, TransientError
from cj_pipeline.storage.objects import Objects
from tests.support.object_server import BUCKET, Fault, ObjectServer, object_server


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectServer]:
    """One server for all tests; every test uses other names."""
    with object_server() as server:
        yield server


@pytest.fixture
def server(running: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """It, well, and found by the environment."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    yield running
    running.faults.clear()
    running.is_down = False


@pytest.mark.parametrize("prefix", ["", "/school/2027"])
def test_what_goes_in_comes_out(server: ObjectServer, prefix: str) -> None:
    """Names are below the address, whatever its depth."""
    objects = Objects(f"s3://{BUCKET}{prefix}")

    objects.put("in/a å.html", b"first")
    objects.put("in/a å.html", b"second")
    objects.put("in/deeper/b", b"")

    assert objects.get("in/a å.html") == b"second"
    assert objects.get("in/deeper/b") == b""
    assert objects.get("in/c") is None
    assert objects.names("in") == ["in/a å.html", "in/deeper/b"]
    assert Objects(f"s3://{BUCKET}{prefix}/").get("in/a å.html") == b"second"


def test_a_folder_is_no_beginning_of_a_name(server: ObjectServer) -> None:
    """Forgetting `spring` must leave `spring-9` alone."""
    objects = Objects(f"s3://{BUCKET}")
    objects.put("batches/spring/a", b"1")
    objects.put("batches/spring-9/a", b"2")

    objects.delete([*objects.names("batches/spring"), "batches/spring/not-there"])

    assert objects.names("batches/spring") == []
    assert objects.get("batches/spring-9/a") == b"2"


@pytest.mark.parametrize("fault", ["503", "cut", "cut after"])
def test_a_passing_fault_is_not_noticed(server: ObjectServer, fault: Fault) -> None:
    """Also when it was carried out and the reply was lost: the same is written again."""
    objects = Objects(f"s3://{BUCKET}")
    server.faults = [fault, fault]
    objects.put(f"passing/{fault}", b"whole")
    server.faults = [fault, fault]

    assert objects.get(f"passing/{fault}") == b"whole"
    assert server.faults == []


def test_a_server_that_hangs_is_asked_again(server: ObjectServer) -> None:
    """A connection that says nothing is given up, not waited for."""
    objects = Objects(f"s3://{BUCKET}", timeout_s=0.5)
    server.faults = ["hang"]

    objects.put("hanging", b"whole")

    assert objects.get("hanging") == b"whole"


def test_a_server_that_stays_away_is_no_final_failure(server: ObjectServer) -> None:
    """Dagster tries such a step again; nothing of it was half written."""
    objects = Objects(f"s3://{BUCKET}", patience_s=0.3)
    objects.put("away", b"before")
    server.is_down = True

    for ask in (
        lambda: objects.put("away", b"after"),
        lambda: objects.get("away"),
        lambda: objects.names("away"),
        lambda: objects.delete(["away"]),
    ):
        with pytest.raises(TransientError, match=f"s3://{BUCKET} did not .* try again"):
            ask()

    server.is_down = False
    assert objects.get("away") == b"before"


def test_a_bucket_that_is_not_there_is_told(server: ObjectServer) -> None:
    """It would otherwise look like a file that was never written."""
    with pytest.raises(StoreError, match="no such bucket"):
        Objects("s3://another-bucket").put("a", b"")
    with pytest.raises(StoreError, match="no such bucket"):
        Objects("s3://another-bucket").get("a")
    with pytest.raises(StoreError, match="no such bucket"):
        Objects("s3://another-bucket").names("a")


@pytest.mark.parametrize("address", ["s3://", "s3:///a", "/a/folder", "http://a/b", "ftp://a/b"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """Before anything is written to somewhere else."""
    with pytest.raises(StoreError, match="s3://BUCKET"):
        Objects(address)


@pytest.mark.parametrize("address", ["gs://essays/2027", "az://essays/2027"])
def test_other_services_are_opened_by_the_same_name(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server of theirs runs here: that their clients take our settings is what can be seen."""
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "essays")

    assert Objects(address).address == address
