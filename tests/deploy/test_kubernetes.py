"""The manifests of deploy/k8s: valid by the schemas, and of one mind with the code."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

import m3
from m3 import cli, topology
from m3.settings import Settings

K8S = Path(__file__).parents[2] / "deploy/k8s"
SCHEMAS = Path(__file__).with_name("schemas")
#: The versions of Kubernetes that README.md promises: the oldest, and the newest whose schemas there are.
VERSIONS = ("1.31", kubernetes_validate.latest_version())
BUILDS = ["base", *sorted(f"overlays/{path.name}" for path in (K8S / "overlays").iterdir())]
SERVICES = ["agent", "gateway", "pusher", "recorder"]

Manifest = dict[str, Any]

every_build = pytest.mark.parametrize("name", BUILDS)


@pytest.fixture(scope="session", autouse=True)
def kubectl() -> str:
    """The command that builds the manifests, as the room's operator would."""
    found = shutil.which("kubectl", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if found is None:
        missing = "there is no kubectl, neither in the environment nor on the path"
        if os.environ.get("CI"):
            pytest.fail(f"CI must build the Kubernetes manifests: {missing}")
        pytest.skip(f"KUBERNETES MANIFESTS NOT TESTED: {missing}")
    return found


@pytest.fixture(scope="session")
def builds(kubectl: str) -> dict[str, list[Manifest]]:
    """What is built from the base and from each overlay."""
    return {name: build(kubectl, K8S / name) for name in BUILDS}


@pytest.fixture
def whole(builds: dict[str, list[Manifest]]) -> list[Manifest]:
    """The overlay that has everything."""
    return builds["overlays/whole"]


@every_build
def test_every_resource_is_valid(builds: dict[str, list[Manifest]], name: str) -> None:
    assert {one["metadata"]["name"] for one in of_kind(builds[name], "Deployment")} == set(SERVICES)
    for manifest in builds[name]:
        validate(manifest)


def test_the_overlay_that_the_readme_shows_is_built(kubectl: str, tmp_path: Path) -> None:
    [shown] = re.findall(r"```yaml\n(.*?)```", (K8S / "README.md").read_text("utf-8"), re.DOTALL)
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/mine"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(shown)
    manifests = build(kubectl, overlay)
    for manifest in manifests:
        validate(manifest)
    assert settings_of(manifests).llm_model == "my-model"
    assert {container["image"] for one in of_kind(manifests, "Deployment") for container in containers(one)} == {
        f"registry.example.com/m3-room:{m3.__version__}"
    }


def test_the_whole_has_every_component(whole: list[Manifest]) -> None:
    listed = yaml.safe_load((K8S / "overlays/whole/kustomization.yaml").read_text("utf-8"))["components"]
    assert sorted(path.name for path in (K8S / "components").iterdir()) == sorted(Path(path).name for path in listed)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0)),
        ("NetworkPolicy", ("spec", "podSelector")),
        ("ScaledObject", ("spec", "advanced", "scalingModifiers")),
        ("RabbitmqCluster", ("spec", "persistence")),
        ("Cluster", ("spec", "postgresql", "synchronous")),
        ("HTTPRoute", ("spec", "rules", 0, "timeouts")),
    ],
)
def test_a_misspelt_field_is_found(whole: list[Manifest], kind: str, path: tuple[str | int, ...]) -> None:
    manifest = of_kind(whole, kind)[0]
    place: Any = manifest
    for step in path:
        place = place[step]
    place["imagen"] = "m3-room"
    try:
        with pytest.raises(jsonschema.ValidationError, match="imagen"):
            validate(manifest)
    finally:
        del place["imagen"]


@every_build
def test_containers_have_no_rights_and_write_nowhere_but_in_tmp(builds: dict[str, list[Manifest]], name: str) -> None:
    for deployment in of_kind(builds[name], "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(deployment):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
            assert writable == ["/tmp"]


@every_build
def test_every_image_has_a_version_and_the_rooms_is_this_one(builds: dict[str, list[Manifest]], name: str) -> None:
    images = {
        str(value) for manifest in builds[name] for key, value in leaves(manifest) if key in {"image", "imageName"}
    }
    assert f"m3-room:{m3.__version__}" in images
    for image in images:
        assert image.rpartition(":")[2] not in {"", image, "latest"}


@every_build
def test_no_secret_is_kept_here(builds: dict[str, list[Manifest]], name: str) -> None:
    assert not of_kind(builds[name], "Secret")


def test_what_is_set_are_settings_with_values_that_they_take(whole: list[Manifest]) -> None:
    assert {name.lower() for name in configured(whole)} <= set(Settings.model_fields)
    settings_of(whole)


def test_secrets_are_files_named_like_settings(whole: list[Manifest]) -> None:
    for deployment in of_kind(whole, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == "secrets"]
        items = [item for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
        told = {item["path"] for item in items}
        assert {"database_url", "broker_url", "token_keys", "content_keys"} < told <= set(Settings.model_fields)
        assert volume["projected"]["defaultMode"] == 0o440
        for container in containers(deployment):
            assert {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True} in container["volumeMounts"]


def test_containers_run_commands_that_there_are(whole: list[Manifest]) -> None:
    commands = typer.main.get_group(cli.app).commands
    for deployment in of_kind(whole, "Deployment"):
        migrate, service = containers(deployment)
        assert migrate["args"] == ["migrate"]
        assert service["args"] == [deployment["metadata"]["name"]]
        assert {*migrate["args"], *service["args"]} <= set(commands)


def test_a_pod_has_longer_to_stop_than_its_service_takes(whole: list[Manifest]) -> None:
    settings = settings_of(whole)
    slack = 5.0
    for deployment in of_kind(whole, "Deployment"):
        service = containers(deployment)[-1]
        takes = service.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) + settings.grace
        if deployment["metadata"]["name"] == "agent":
            takes += settings.turn_timeout
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= takes + slack


def test_a_roll_out_takes_no_service_away(whole: list[Manifest]) -> None:
    for deployment in of_kind(whole, "Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert deployment["spec"].get("replicas", 2) >= 2


def test_whatever_selects_pods_finds_some(whole: list[Manifest]) -> None:
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind(whole, "Deployment")]
    selectors = [
        *(one["spec"]["selector"] for one in of_kind(whole, "Service")),
        *(one["spec"]["selector"]["matchLabels"] for one in of_kind(whole, "Deployment")),
        *(one["spec"]["selector"]["matchLabels"] for one in of_kind(whole, "PodDisruptionBudget")),
        *(one["spec"]["podSelector"]["matchLabels"] for one in of_kind(whole, "NetworkPolicy")),
    ]
    for selector in selectors:
        assert any(selector.items() <= labels.items() for labels in pods), selector
    assert sorted(one["metadata"]["name"] for one in of_kind(whole, "PodDisruptionBudget")) == SERVICES


def test_the_doors_are_reached_at_the_port_that_the_image_listens_on(whole: list[Manifest]) -> None:
    image = (K8S.parent / "Dockerfile").read_text("utf-8")
    assert {"HOST=0.0.0.0", "PORT=8888", "METRICS_PORT=8888", "10001:10001"} <= set(image.split())
    for deployment in of_kind(whole, "Deployment"):
        service = containers(deployment)[-1]
        assert service["ports"] == [{"name": "http", "containerPort": 8888}]
        for probe, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
            assert service[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "http"}
    services = {one["metadata"]["name"]: one["spec"]["ports"] for one in of_kind(whole, "Service")}
    http = [{"name": "http", "port": 80, "targetPort": "http"}]
    assert services == {"gateway": http, "pusher": http}
    [route] = of_kind(whole, "HTTPRoute")
    for rule in route["spec"]["rules"]:
        assert [(backend["name"] in services, backend["port"]) for backend in rule["backendRefs"]] == [(True, 80)]
        assert rule["timeouts"] == {"request": "0s"}
    _, gateway = route["spec"]["rules"]
    paths = {(match["path"]["type"], match["path"]["value"]) for match in gateway["matches"]}
    assert {("Exact", "/"), ("PathPrefix", "/assets"), ("PathPrefix", "/api")} <= paths


def test_agents_are_scaled_by_the_sum_of_their_queues_a_place_for_each_knock(whole: list[Manifest]) -> None:
    [scaled], [authentication] = of_kind(whole, "ScaledObject"), of_kind(whole, "TriggerAuthentication")
    spec = scaled["spec"]
    [target] = [
        one for one in of_kind(whole, "Deployment") if one["metadata"]["name"] == spec["scaleTargetRef"]["name"]
    ]
    assert "replicas" not in target["spec"], "else applying the manifests would undo the scaling"
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]

    queues = [trigger["metadata"]["queueName"] for trigger in spec["triggers"]]
    assert queues == [topology.AGENT_USER.name, topology.AGENT_API.name]
    for trigger in spec["triggers"]:
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
        assert (trigger["metadata"]["protocol"], trigger["metadata"]["mode"]) == ("http", "QueueLength")
        assert "excludeUnacknowledged" not in trigger["metadata"]
        assert trigger["metadata"]["value"] == spec["advanced"]["scalingModifiers"]["target"]
    modifiers = spec["advanced"]["scalingModifiers"]
    assert modifiers["formula"] == " + ".join(trigger["name"] for trigger in spec["triggers"])
    assert modifiers["target"] == str(settings_of(whole).agent_concurrency)


def test_prometheus_asks_the_same_as_elsewhere_under_the_names_that_the_alerts_know(whole: list[Manifest]) -> None:
    scraped = yaml.safe_load((K8S.parent / "prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    [families] = [one["params"] for one in scraped if "params" in one]
    monitors = {one["metadata"]["name"]: one["spec"] for one in of_kind(whole, "PodMonitor")}
    named = {
        relabeling["replacement"]: endpoint.get("params")
        for name in ("broker", "database")
        for endpoint in monitors[name]["podMetricsEndpoints"]
        for relabeling in endpoint["relabelings"]
    }
    assert named == {"rabbitmq": None, "rabbitmq-queues": families, "postgres": None}
    assert monitors["room"]["jobLabel"] == "app.kubernetes.io/component"
    assert {one["job_name"] for one in scraped} == {*SERVICES, *named, "prometheus"}


def test_the_database_lets_in_all_that_may_run_in_a_roll_out(whole: list[Manifest]) -> None:
    settings = settings_of(whole)
    [database], [scaled] = of_kind(whole, "Cluster"), of_kind(whole, "ScaledObject")
    connections = (settings.database_pool + 1) * scaled["spec"]["maxReplicaCount"]  # each agent's locks have their own
    for deployment in of_kind(whole, "Deployment"):
        connections += settings.database_pool * deployment["spec"].get("replicas", 0)
    for_others = 20
    assert int(database["spec"]["postgresql"]["parameters"]["max_connections"]) >= 2 * connections + for_others


def build(kubectl: str, folder: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(subprocess.check_output([kubectl, "kustomize", folder], timeout=60)))


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def containers(deployment: Manifest) -> list[Manifest]:
    """The init containers, and last the service."""
    pod = deployment["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def configured(manifests: list[Manifest]) -> dict[str, str]:
    [settings] = of_kind(manifests, "ConfigMap")
    return dict(settings["data"])


def settings_of(manifests: list[Manifest]) -> Settings:
    return Settings.model_validate({name.lower(): value for name, value in configured(manifests).items()})


def leaves(node: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every value that is no list and no mapping, with the key that it stands at."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value, key)
    else:
        yield key, node


def validate(manifest: Manifest) -> None:
    """Raises jsonschema.ValidationError where a field is wrong or unknown, and FileNotFoundError without a schema."""
    try:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        group, version = manifest["apiVersion"].split("/")
        schema = strict_schema(f"{manifest['kind'].lower()}.{group}_{version}.json")
        jsonschema.Draft202012Validator(schema).validate(manifest)


@cache
def strict_schema(name: str) -> Manifest:
    schema: Manifest = json.loads((SCHEMAS / name).read_text("utf-8"))
    close(schema)
    del schema["properties"]["metadata"]
    schema["properties"]["metadata"] = {"type": "object"}  # which Kubernetes itself describes
    return schema


def close(schema: object) -> None:
    """Have each object refuse the fields that it does not name, as the API server does when it is asked to be strict."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            close(part)
    elif isinstance(schema, list):
        for part in schema:
            close(part)
