"""The API: what is shown of a batch, in pages, and what is said when it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cj_pipeline.progress.events import is_cancel_requested
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.publish import publish
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import open_engine, write_batch
from tests.support.finished_batches import ARGUMENTS, BROKEN, SPRING
from tests.support.served_runtime import asking, home_with_batches

PROBLEM = "application/problem+json"
SETTINGS = {"judges": ["quality"], "max_pairwise_comparisons": 3}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """Three ended batches; the tests only look."""
    return home_with_batches(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def client(runtime: Runtime) -> Iterator[TestClient]:
    """A client on this machine."""
    with asking(runtime) as found:
        yield found


def test_batches_are_listed_in_pages(client: TestClient) -> None:
    """Each once, whatever the page's size."""
    first = client.get("/api/v1/batches", params={"limit": 2}).json()
    second = client.get("/api/v1/batches", params={"limit": 2, "after": first["next"]}).json()

    names = [item["batch_id"] for item in first["items"] + second["items"]]
    assert sorted(names) == sorted([SPRING, ARGUMENTS, BROKEN])
    assert second["next"] is None


def test_a_folder_in_the_inbox_is_listed_as_queued(runtime: Runtime, client: TestClient) -> None:
    """It has been handed in, though nobody has taken it yet; half-written ones are left out."""
    for name in ("waits", ".half"):
        (runtime.inbox / name).mkdir(parents=True, exist_ok=True)

    assert client.get("/api/v1/batches").json()["queued"] == ["waits"]
    assert client.get("/api/v1/batches/waits").json()["state"] == "queued"


def test_a_batch_shows_its_progress_and_where_the_rest_is(client: TestClient) -> None:
    """One answer is enough to draw it."""
    shown = client.get(f"/api/v1/batches/{SPRING}").json()

    assert shown["state"] == "succeeded"
    assert shown["progress"]["outcome"] == "partial"
    assert (shown["progress"]["n_succeeded"], shown["progress"]["n_failed"]) == (90, 1)
    assert [target["name"] for target in shown["progress"]["targets"]] == ["quality"]
    assert shown["links"] == {
        "self": f"/api/v1/batches/{SPRING}",
        "events": f"/api/v1/batches/{SPRING}/events",
        "page": f"/batches/{SPRING}",
    }


def test_comparisons_come_in_pages_that_miss_none(client: TestClient) -> None:
    """Failures among them."""
    sequences: list[int] = []
    after: int | None = 0
    while after is not None:
        page = client.get(
            f"/api/v1/batches/{SPRING}/comparisons", params={"limit": 40, "after": after}
        ).json()
        sequences += [item["sequence"] for item in page["items"]]
        after = page["next"]

    assert sequences == sorted(set(sequences))
    assert len(sequences) == 91


def test_scores_are_given_highest_first(client: TestClient) -> None:
    """Anchors included, and said to be."""
    page = client.get(f"/api/v1/batches/{SPRING}/scores").json()

    scores = [item["score"] for item in page["items"]]
    assert len(scores) == 14
    assert scores == sorted(scores, reverse=True)
    assert sum(item["is_anchor"] for item in page["items"]) == 6


def test_grades_come_with_their_probabilities(client: TestClient) -> None:
    """Students only."""
    page = client.get(f"/api/v1/batches/{SPRING}/grades").json()

    assert page["is_graded"]
    assert len(page["items"]) == 8
    assert all(sum(item["probabilities"].values()) == pytest.approx(1.0) for item in page["items"])


def test_a_batch_without_grades_says_why(client: TestClient) -> None:
    """An empty list alone would look like a fault."""
    page = client.get(f"/api/v1/batches/{ARGUMENTS}/grades").json()

    assert (page["is_graded"], page["items"]) == (False, [])
    assert page["statement"]


@pytest.mark.parametrize(
    "path",
    ["", "/comparisons", "/scores", "/grades", "/report", "/artefact"],
)
def test_an_unknown_batch_is_not_found(client: TestClient, path: str) -> None:
    """As a problem that says what to do."""
    reply = client.get(f"/api/v1/batches/nobody{path}")

    assert reply.status_code == 404
    assert reply.headers["content-type"] == PROBLEM
    assert "nobody" in reply.json()["detail"]


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "A", "a'; DROP TABLE batches", "x" * 65, "%00abc"],
)
def test_a_hostile_name_reaches_nothing(client: TestClient, name: str) -> None:
    """Neither the disk nor the database ever sees it."""
    reply = client.get(f"/api/v1/batches/{name}/report")

    assert reply.status_code in {404, 422}
    assert reply.headers["content-type"] == PROBLEM


def test_every_violation_is_told_at_once(client: TestClient) -> None:
    """Not one by one."""
    reply = client.get(f"/api/v1/batches/{SPRING}/scores", params={"limit": 0, "after": -1})

    assert reply.status_code == 422
    assert len(reply.json()["problems"]) == 2


def test_a_misspelt_parameter_is_refused(client: TestClient) -> None:
    """Left out in silence it would give another page than was asked for."""
    reply = client.get(f"/api/v1/batches/{SPRING}/scores", params={"limitt": 2})

    assert reply.status_code == 422
    assert "'limitt'; known here: after, limit" in reply.json()["problems"][0]


def test_an_unknown_path_is_a_problem_too(client: TestClient) -> None:
    """And so is a method that a path does not know."""
    assert client.get("/api/v1/nothing").headers["content-type"] == PROBLEM
    assert client.put("/api/v1/batches").status_code == 405


def test_a_report_is_served_with_its_own_policy(tmp_path: Path) -> None:
    """It may run nothing and load nothing, whoever wrote into it."""
    runtime = home_with_batches(tmp_path / "home")
    published = publish(runtime, ARGUMENTS)

    with asking(runtime) as client:
        report = client.get(f"/api/v1/batches/{ARGUMENTS}/report")
        artefact = client.get(f"/api/v1/batches/{ARGUMENTS}/artefact")

    policy = report.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "style-src 'sha256-" in policy
    assert "script-src" not in policy
    assert report.headers["x-content-type-options"] == "nosniff"
    assert report.content == published.report.path.read_bytes()
    assert artefact.content == published.artefact.path.read_bytes()


def test_a_file_outside_the_published_folder_is_never_sent(tmp_path: Path) -> None:
    """The path is read from the store, which others may write."""
    runtime = home_with_batches(tmp_path / "home")
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    with runtime.store.write() as db:
        db.insert(
            "batch_report",
            [
                {
                    "batch_id": SPRING,
                    "path": str(runtime.published_folder / ".." / ".." / "secret"),
                    "sha256": "",
                    "n_bytes": 6,
                    "written_at": runtime.clock(),
                }
            ],
        )

    with asking(runtime) as client:
        reply = client.get(f"/api/v1/batches/{SPRING}/report")

    assert reply.status_code == 404
    assert "hidden" not in reply.text


def test_cancelling_keeps_what_was_paid_for_and_ends_the_batch(tmp_path: Path) -> None:
    """Asking twice is as good as asking once."""
    runtime = open_engine(tmp_path / "home")
    folder = write_batch(tmp_path / "batch", n_students=4, settings=SETTINGS)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)

    with asking(runtime) as client:
        replies = [client.delete(f"/api/v1/batches/{batch_id}") for _ in range(2)]
        shown = client.get(f"/api/v1/batches/{batch_id}").json()

    assert [reply.status_code for reply in replies] == [202, 202]
    assert replies[0].json() == {"batch_id": batch_id, "state": "cancelling", "n_jobs": 1}
    assert shown["progress"]["is_cancelling"]
    with runtime.store.read() as db:
        assert is_cancel_requested(db, batch_id)


def test_an_ended_batch_cannot_be_cancelled(client: TestClient) -> None:
    """Saying yes would be a lie."""
    reply = client.delete(f"/api/v1/batches/{SPRING}")

    assert reply.status_code == 409
    assert "succeeded" in reply.json()["detail"]


def test_a_batch_that_only_waits_is_withdrawn(tmp_path: Path) -> None:
    """Nothing was asked, so nothing has to end."""
    runtime = open_engine(tmp_path / "home")
    write_batch(runtime.inbox / "waits", n_students=3, settings=SETTINGS)

    with asking(runtime) as client:
        reply = client.delete("/api/v1/batches/waits")
        after = client.get("/api/v1/batches/waits")

    assert reply.json()["state"] == "withdrawn"
    assert after.status_code == 404
    assert list(runtime.inbox.iterdir()) == []


def test_metrics_are_served_for_prometheus(client: TestClient) -> None:
    """The same text as `cj metrics` prints."""
    reply = client.get("/metrics")

    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "cj_comparisons_total" in reply.text


def test_health_is_told_without_telling_anything_else(client: TestClient) -> None:
    """Whoever asks may be anybody."""
    assert client.get("/healthz").json() == {"status": "ok"}
