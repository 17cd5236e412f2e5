"""The files for a deployment agree with the code, with one another and with their own schemas."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.judging.provider_definitions import known_providers
from cj_pipeline.service.auth import OPEN_PATHS
from cj_pipeline.store.quack_store import attach_statement
from tests.support import ROOT
from tests.support.postgres_server import postgres_server

DEPLOY = ROOT / "deploy"


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _compose() -> dict[str, Any]:
    compose: dict[str, Any] = _yaml(DEPLOY / "compose.yaml")
    return compose


def _manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def _pod(name: str) -> dict[str, Any]:
    """Return what the one workload of a file of manifests runs."""
    (workload,) = [
        document
        for document in _manifests(name)
        if document["kind"] in {"StatefulSet", "Deployment"}
    ]
    pod: dict[str, Any] = workload["spec"]["template"]
    return pod


def _commands() -> list[list[str]]:
    from_compose = [s["command"] for s in _compose()["services"].values() if "command" in s]
    pods = [_pod(f"kubernetes-{name}.yaml") for name in ("store", "serve", "ui")]
    return [*from_compose, *(pod["spec"]["containers"][0]["command"] for pod in pods)]


@pytest.mark.parametrize("command", [c for c in _commands() if c[0] == "cj"], ids=" ".join)
def test_commands_of_ours_exist_with_those_options(command: list[str]) -> None:
    """A renamed option would show only when the container starts."""
    words = [word for word in command[1:] if not word.startswith("-")]
    known = CliRunner().invoke(app, [*words[: 2 if words[0] == "store" else 1], "--help"])
    options = [word for word in command if word.startswith("--")]

    assert known.exit_code == 0
    assert all(option in re.sub(r"\x1b\[[0-9;]*m", "", known.output) for option in options)


def test_the_stores_address_can_be_used() -> None:
    """Both ways of deploying name the server as the code expects it."""
    values = _yaml(DEPLOY / "dagster-values.yaml")
    environment = values["dagster-user-deployments"]["deployments"][0]["env"]
    in_cluster = next(e["value"] for e in environment if e["name"] == "CJ_STORE")
    served = _pod("kubernetes-serve.yaml")["spec"]["containers"][0]["env"]
    in_compose = _compose()["services"]["code"]["environment"]["CJ_STORE"]

    assert "cj-store:9494" in attach_statement(in_cluster)
    assert next(e["value"] for e in served if e["name"] == "CJ_STORE") == in_cluster
    assert "store:9494" in attach_statement(in_compose)


def test_every_secret_comes_from_outside() -> None:
    """No password, token or key may stand in a file that is committed."""
    text = "\n".join(p.read_text() for p in DEPLOY.iterdir() if p.suffix in {".yaml", ".example"})

    assert re.findall(r"(?im)^\s*\w*(?:password|token|api_key)[:=] *(?!\$\{|false)\S+", text) == []


def test_only_three_doors_are_open_and_only_to_this_machine() -> None:
    """Essays are personal data: what can be reached asks for a token before anything else."""
    services = _compose()["services"]
    ports = {name: s["ports"] for name, s in services.items() if "ports" in s}

    assert ports == {
        "ui": ["127.0.0.1:3000:3001"],
        "api": ["127.0.0.1:8421:8421"],
        "metrics": ["127.0.0.1:9464:9464"],
    }
    assert all("CJ_SERVE_TOKEN" in services[name]["environment"] for name in ports)
    assert services["webserver"]["networks"] == ["inside"]


def test_what_only_looks_has_the_token_for_looking() -> None:
    """Metrics count; whoever takes that container over can write no verdict."""
    services = _compose()["services"]
    reading = services["store"]["environment"]["CJ_STORE_READING_TOKEN"]
    (container,) = _pod("kubernetes-store.yaml")["spec"]["containers"]
    keys = {e["name"]: e["valueFrom"]["secretKeyRef"]["key"] for e in container["env"]}

    assert services["metrics"]["environment"]["CJ_STORE_TOKEN"] == reading
    assert services["code"]["environment"]["CJ_STORE_TOKEN"] != reading
    assert keys == {"CJ_STORE_TOKEN": "token", "CJ_STORE_READING_TOKEN": "reading-token"}


@pytest.mark.parametrize(
    "command",
    [
        ["ui", "--dagster", "http://webserver:3000", "--host", "0.0.0.0", "--port", "0"],  # noqa: S104
        ["serve", "--host", "0.0.0.0", "--port", "0"],  # noqa: S104
        ["metrics", "--serve", "0.0.0.0:0"],
        ["emulator", "--host", "0.0.0.0", "--port", "0"],  # noqa: S104
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("token", [None, "changemechangeme"])
def test_nothing_listens_to_others_without_a_strong_token(
    command: list[str], token: str | None, tmp_path: Path
) -> None:
    """Whoever leaves the line in `.env` empty is told before anything listens."""
    environment = {"CJ_HOME": str(tmp_path), "CJ_SERVE_TOKEN": token, "CJ_EMULATOR_TOKEN": token}

    done = CliRunner().invoke(app, command, env=environment)

    assert done.exit_code == 1
    assert "_TOKEN" in done.output


def test_the_image_copies_only_what_exists_and_runs_as_nobody_special() -> None:
    """A build would stop at the first missing file; a root container has no excuse."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(?:--chown=\S+ )?(.+) \S+$", dockerfile, re.MULTILINE)
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()

    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert any(f"!{source}" == line for line in allowed), source
    assert re.search(r"^USER 10001$", dockerfile, re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [
        ("hadolint", "Dockerfile"),
        ("kubernetes-validate", "--strict", "kubernetes-store.yaml"),
        ("kubernetes-validate", "--strict", "kubernetes-serve.yaml"),
        ("kubernetes-validate", "--strict", "kubernetes-ui.yaml"),
        ("compose-lint", "--fail-on", "high", "compose.yaml"),
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_their_own_tools_accept_the_files(command: tuple[str, ...]) -> None:
    """Nothing here is built or started, so whoever knows the formats best has to read them."""
    tool = Path(sys.executable).with_name(command[0])

    done = subprocess.run(
        [tool, *command[1:]], cwd=DEPLOY, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_container_of_ours_can_write_to_its_own_files() -> None:
    """Whoever takes one over can change no program in it, and starves no other process."""
    services = _compose()["services"]
    (values,) = _yaml(DEPLOY / "dagster-values.yaml")["dagster-user-deployments"]["deployments"]
    pods = [_pod(f"kubernetes-{name}.yaml")["spec"] for name in ("store", "serve", "ui")]
    bound = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    bound |= {"capabilities": {"drop": ["ALL"]}}

    for name, service in services.items():
        assert service["read_only"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert "/tmp" in service["tmpfs"], name  # noqa: S108 -- in the container
    for pod in pods:
        (container,) = pod["containers"]
        assert container["securityContext"] == bound
        assert container["resources"]["limits"]["memory"]
        assert pod["securityContext"]["runAsNonRoot"]
    assert values["securityContext"] == bound
    assert values["podSecurityContext"] == pods[0]["securityContext"]
    assert "/tmp" in {each["mountPath"] for each in values["volumeMounts"]}  # noqa: S108


def test_pods_that_are_called_call_only_what_they_need() -> None:
    """The store calls nobody; the service no address inside the cluster but the store's."""
    policies = {
        policy["metadata"]["name"]: policy["spec"]
        for name in ("store", "serve", "ui")
        for policy in _manifests(f"kubernetes-{name}.yaml")
        if policy["kind"] == "NetworkPolicy"
    }
    store, serve, ui = (policies[f"cj-{name}"] for name in ("store", "serve", "ui"))

    assert all("Egress" in each["policyTypes"] for each in (store, serve, ui))
    assert store["egress"] == []
    pods = [
        each["podSelector"]["matchLabels"]
        for rule in serve["egress"]
        for each in rule["to"]
        if "podSelector" in each
    ]
    assert pods == [{"app": "cj-store"}]
    (outside,) = [
        each["ipBlock"] for rule in serve["egress"] for each in rule["to"] if "ipBlock" in each
    ]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} == set(
        outside["except"]
    )
    reached = [
        each.get("podSelector", {}).get("matchLabels")
        for rule in ui["egress"]
        for each in rule["to"]
    ]
    assert reached == [None, {"component": "dagster-webserver"}]


def test_manifests_name_what_the_chart_refers_to() -> None:
    """A claim or a secret by another name would leave the pods waiting for ever."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes-store.yaml").read_text()))
    named = {(document["kind"], document["metadata"]["name"]) for document in documents}
    values = _yaml(DEPLOY / "dagster-values.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]

    claim = deployment["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert ("PersistentVolumeClaim", claim) in named
    assert {("Service", "cj-store"), ("StatefulSet", "cj-store")} <= named
    assert all(document["apiVersion"] for document in documents)


def test_the_api_in_a_cluster_reaches_what_it_needs_and_no_more() -> None:
    """It shares the pipeline's inbox and store, asks for a token, and says when it is ready."""
    pod = _pod("kubernetes-serve.yaml")
    (container,) = pod["spec"]["containers"]
    store = _manifests("kubernetes-store.yaml")
    (values,) = _yaml(DEPLOY / "dagster-values.yaml")["dagster-user-deployments"]["deployments"]
    (policy,) = [each for each in store if each["kind"] == "NetworkPolicy"]
    let_in = [each["podSelector"]["matchLabels"] for each in policy["spec"]["ingress"][0]["from"]]

    assert pod["metadata"]["labels"] in let_in
    assert pod["spec"]["volumes"][0] == values["volumes"][0]
    assert container["volumeMounts"][0] == values["volumeMounts"][0]
    assert container["envFrom"] == [{"secretRef": secret} for secret in values["envSecrets"]]
    needs = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"][::2]}
    assert needs == {
        "CJ_SERVE_TOKEN": {"name": "cj-serve", "key": "token"},
        "CJ_STORE_TOKEN": {"name": "cj-store", "key": "token"},
    }
    assert container["readinessProbe"]["httpGet"]["path"] in OPEN_PATHS


_SAME_EVERYWHERE = ("sensors", "run_monitoring", "run_retries", "retention")


def _snake(value: Any) -> Any:
    """Return a chart's value with its keys as `dagster.yaml` spells them."""
    if isinstance(value, list):
        return [_snake(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key if key == "applyLimitPerUniqueValue" else re.sub("[A-Z]", _lower, key): _snake(each)
        for key, each in value.items()
    }


def _lower(letter: re.Match[str]) -> str:
    return f"_{letter[0].lower()}"


def _of_the_chart() -> dict[str, Any]:
    """Return what the chart's values make of `dagster.yaml`, as far as we set it."""
    values = _yaml(DEPLOY / "dagster-values.yaml")
    daemon = _snake(values["dagsterDaemon"])
    queue = daemon["run_coordinator"]["config"]["queued_run_coordinator"]
    runs = {key: queue.pop(key) for key in ("max_concurrent_runs", "tag_concurrency_limits")}
    retention = _snake(values["retention"])
    assert retention.pop("enabled")
    return {
        "run_coordinator": {"config": queue},
        "concurrency": {"runs": runs},
        "sensors": daemon["sensors"],
        "run_monitoring": daemon["run_monitoring"],
        "run_retries": daemon["run_retries"],
        "retention": retention,
    }


def test_limits_are_the_same_wherever_dagster_runs() -> None:
    """A provider's pool that one of three files left out is no pool, and nobody would see it."""
    here, composed = _yaml(ROOT / "dagster.yaml"), _yaml(DEPLOY / "dagster.yaml")
    charted = _of_the_chart()
    pools = here["concurrency"]["runs"]["tag_concurrency_limits"]

    for there in (composed, charted):
        assert {key: there[key] for key in _SAME_EVERYWHERE} == {
            key: here[key] for key in _SAME_EVERYWHERE
        }
        assert there["concurrency"]["runs"]["tag_concurrency_limits"] == pools
        assert there["run_coordinator"]["config"] == here["run_coordinator"]["config"]
    assert composed["concurrency"] == charted["concurrency"]


def test_every_provider_has_a_pool() -> None:
    """A provider without one takes all runs there are, and a slow one holds up the others.

    People are asked by a page, and not by runs.
    """
    pools = _yaml(ROOT / "dagster.yaml")["concurrency"]["runs"]["tag_concurrency_limits"]

    assert {f"dagster/cj-provider-{name}" for name in known_providers() if name != "human"} == {
        pool["key"] for pool in pools
    } - {"dagster/partition"}


def test_in_a_cluster_only_the_login_reaches_dagsters_webserver() -> None:
    """Whoever reaches Dagster can run anything, and it asks nobody who they are."""
    pod = _pod("kubernetes-ui.yaml")
    (container,) = pod["spec"]["containers"]
    policies = {
        str(each["spec"]["podSelector"]["matchLabels"]): each["spec"]["ingress"]
        for each in _manifests("kubernetes-ui.yaml")
        if each["kind"] == "NetworkPolicy"
    }
    (to_dagster,) = policies["{'component': 'dagster-webserver'}"]
    served = _pod("kubernetes-serve.yaml")["spec"]

    assert to_dagster["from"] == [{"podSelector": {"matchLabels": pod["metadata"]["labels"]}}]
    name = _yaml(DEPLOY / "dagster-values.yaml")["dagsterWebserver"]["nameOverride"]
    assert f"http://dagster-{name}:80" in container["command"]
    assert str(pod["metadata"]["labels"]) in policies
    assert [each["name"] for each in container["env"]] == ["CJ_SERVE_TOKEN"]
    assert container["env"][0] == served["containers"][0]["env"][0]
    assert pod["spec"]["securityContext"] == served["securityContext"]
    assert container["securityContext"] == served["containers"][0]["securityContext"]


def test_dagster_accepts_the_deployments_configuration() -> None:
    """Dagster checks names and types before it connects to anything."""
    code = (
        "import sys; from dagster._core.instance.config import dagster_instance_config\n"
        "print(sorted(dagster_instance_config(sys.argv[1])[0]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(DEPLOY)],
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "storage" in done.stdout


@pytest.mark.slow
@pytest.mark.postgres
def test_dagster_keeps_its_events_in_a_real_postgresql(tmp_path: Path) -> None:
    """Runs and what they materialized survive in the database, for every process that asks."""
    configuration = (DEPLOY / "dagster.yaml").read_text()
    code = """
import sys, dagster as dg
@dg.asset
def essays(): return dg.MaterializeResult(metadata={"n_essays": 3})
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    assert dg.materialize([essays], instance=instance).success
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    event = instance.get_latest_materialization_event(dg.AssetKey("essays"))
    print(type(instance.event_log_storage).__name__, event.asset_materialization.metadata)
"""
    with postgres_server() as port:
        (tmp_path / "dagster.yaml").write_text(configuration.replace("5432", str(port)))
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=os.environ
            | {
                "DAGSTER_POSTGRES_HOST": "127.0.0.1",
                "DAGSTER_POSTGRES_USER": "cj",
                "DAGSTER_POSTGRES_PASSWORD": "trusted",
                "DAGSTER_POSTGRES_DB": "postgres",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert "PostgresEventLogStorage" in done.stdout
    assert "3" in done.stdout
