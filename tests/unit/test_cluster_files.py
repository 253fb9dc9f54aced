"""The files in cluster/: valid where a validator is at hand, and of one mind with the project."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT.parent / "shared" / "crds"

KUBERAY = sorted(CLUSTER.glob("kuberay/*.yaml"))

# The fields of ray.io/v1 that these files may have, from KubeRay's reference of it (v1.6).
_CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": str},
    "enableInTreeAutoscaling": bool,
    "headGroupSpec": {"rayStartParams": dict, "template": dict},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "numOfHosts": int,
            "rayStartParams": dict,
            "template": dict,
        }
    ],
}
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "RayCluster": _CLUSTER,
    "RayJob": {
        "submissionMode": str,
        "clusterSelector": dict,
        "entrypoint": str,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "metadata": dict,
        "runtimeEnvYAML": str,
    },
    "RayService": {"serveConfigV2": str, "rayClusterConfig": _CLUSTER},
}


def manifest(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def unknown(fields: Any, value: Any, where: str) -> Iterator[str]:
    """Places in a manifest that its kind does not have, or has of another type."""
    if isinstance(fields, Mapping):
        for key, each in value.items():
            if key not in fields:
                yield f"{where}.{key}"
            else:
                yield from unknown(fields[key], each, f"{where}.{key}")
    elif isinstance(fields, list):
        for number, each in enumerate(value):
            yield from unknown(fields[0], each, f"{where}[{number}]")
    elif not isinstance(value, fields):
        yield f"{where} is no {fields.__name__}"


def clusters() -> Iterator[tuple[str, dict[str, Any]]]:
    """The specs of Ray clusters, alone or in a service."""
    for path in KUBERAY:
        content = manifest(path)
        if content["kind"] == "RayCluster":
            yield path.name, content["spec"]
        elif content["kind"] == "RayService":
            yield path.name, content["spec"]["rayClusterConfig"]


def groups(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def ray_pin() -> str:
    """2.60, from the extra `ray`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = re.fullmatch(r"ray\[.*\]==([\d.]+)\.\*", project["optional-dependencies"]["ray"][0])
    assert found
    return found[1]


def test_the_files_the_readme_names_are_there() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)", (CLUSTER / "README.md").read_text())
    assert named
    assert [name for name in named if not (CLUSTER / name).exists()] == []


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_kuberay_manifests_have_only_fields_of_their_kinds(path: Path) -> None:
    content = manifest(path)
    assert content["apiVersion"] == "ray.io/v1"
    assert set(content) == {"apiVersion", "kind", "metadata", "spec"}
    assert list(unknown(FIELDS[content["kind"]], content["spec"], "spec")) == []


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_kuberay_manifests_pass_the_schemas_of_kuberay_strictly(path: Path) -> None:
    content = manifest(path)
    file = SCHEMAS / f"ray.io_{content['kind'].lower()}s.yaml"
    if not file.exists():
        pytest.skip("KubeRay's CRDs are not in shared/crds beside the repository")
    from tests.fakes.crd import Resource, strict_problems

    versions = yaml.safe_load(file.read_text())["spec"]["versions"]
    schema = next(v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v1")
    kind = content["kind"]
    resource = Resource("ray.io", "v1", f"{kind.lower()}s", kind, schema=schema)
    assert strict_problems(resource, content) == []


@pytest.mark.parametrize(("name", "spec"), list(clusters()), ids=lambda each: str(each)[:20])
def test_pod_templates_have_only_fields_that_kubernetes_knows(
    name: str, spec: dict[str, Any]
) -> None:
    models = pytest.importorskip("kubernetes.client.models")

    def strange(type_name: str, value: Any, where: str) -> Iterator[str]:
        if matched := re.fullmatch(r"list\[(.+)\]", type_name):
            for number, each in enumerate(value):
                yield from strange(matched[1], each, f"{where}[{number}]")
        elif (model := getattr(models, type_name, None)) is not None:
            fields = {model.attribute_map[key]: of for key, of in model.openapi_types.items()}
            for key, each in value.items():
                if key not in fields:
                    yield f"{where}.{key}"
                else:
                    yield from strange(fields[key], each, f"{where}.{key}")

    for group in groups(spec):
        assert list(strange("V1PodTemplateSpec", group["template"], name)) == []
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.parametrize(("name", "spec"), list(clusters()), ids=lambda each: str(each)[:20])
def test_every_pod_says_how_ray_authenticates(name: str, spec: dict[str, Any]) -> None:
    assert spec["authOptions"] == {"mode": "token"}
    for group in groups(spec):
        for container in group["template"]["spec"]["containers"]:
            modes = [e["value"] for e in container["env"] if e["name"] == "RAY_AUTH_MODE"]
            assert modes == ["token"], (name, container["name"])


def test_a_rayjob_says_so_too_and_how_it_is_stopped() -> None:
    spec = manifest(CLUSTER / "kuberay" / "rayjob.yaml")["spec"]
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_JOB_STOP_SIGNAL"] in ("SIGTERM", "SIGINT")
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) > 10
    assert all(isinstance(value, str) for value in variables.values()), "Ray takes text alone"
    assert spec["entrypoint"].startswith("autotuner run ")
    named = [content["metadata"]["name"] for content in map(manifest, KUBERAY)]
    assert spec["clusterSelector"]["ray.io/cluster"] in named


@pytest.mark.parametrize(("name", "spec"), list(clusters()), ids=lambda each: str(each)[:20])
def test_ray_counts_the_gpus_that_kubernetes_gives(name: str, spec: dict[str, Any]) -> None:
    assert any("nvidia.com/gpu" in str(group) for group in spec["workerGroupSpecs"])
    for group in groups(spec):
        (container,) = group["template"]["spec"]["containers"]
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits == requests, (name, container["name"])
        assert group["rayStartParams"]["num-gpus"] == limits.get("nvidia.com/gpu", "0")
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        metrics = {port["name"]: port["containerPort"] for port in container["ports"]}["metrics"]
        assert group["rayStartParams"]["metrics-export-port"] == str(metrics)


def test_where_kubernetes_gpus_are_counted_there_is_a_cpu_for_each() -> None:
    file = CLUSTER / "kuberay" / "raycluster.yaml"
    head = manifest(file)["spec"]["headGroupSpec"]
    (container,) = head["template"]["spec"]["containers"]
    suggested = re.search(r'# resources: .*ome_gpu\\": (\d+)', file.read_text())
    assert suggested
    assert int(container["resources"]["limits"]["cpu"]) >= int(suggested[1])


def test_one_ray_and_one_python_everywhere() -> None:
    for name, spec in clusters():
        assert spec["rayVersion"].rpartition(".")[0] == ray_pin(), name
    base = re.search(r"^ARG BASE=python:(3\.\d+)-", (CLUSTER / "Dockerfile").read_text(), re.M)
    assert base
    assert base[1] in ("3.11", "3.12"), "genai-bench ends below 3.13"


def test_the_images_environment_says_how_ray_authenticates() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert re.search(r"\bRAY_AUTH_MODE=token\b", text)
    assert not re.search(r"(?i)auth_token|hf_token|api_key", text), "no secret in a layer"


def test_the_image_is_made_of_what_its_ignore_file_lets_through() -> None:
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    let = {line[1:] for line in ignored if line.startswith("!")}
    lines = re.findall(r"^COPY (.+)$", (CLUSTER / "Dockerfile").read_text(), re.M)
    copied = {source for line in lines for source in line.split()[:-1]}
    assert copied == let
    assert all((ROOT / source).exists() for source in copied)
    assert "*" in ignored, "nothing else: .env holds secrets"


def test_ray_up_takes_the_file() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(manifest(CLUSTER / "ray-up.yaml"))
    util.validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


def test_ray_up_says_how_ray_authenticates_on_every_node() -> None:
    config = manifest(CLUSTER / "ray-up.yaml")
    for which in ("head", "worker"):
        commands = config[f"{which}_start_ray_commands"]
        assert any("ray start" in command for command in commands)
        assert all("RAY_AUTH_MODE=token" in command for command in commands)
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_prometheus_reads_all_nodes_of_ray_up_at_the_port_they_were_given() -> None:
    config = manifest(CLUSTER / "ray-up.yaml")
    ports = {
        port
        for which in ("head", "worker")
        for command in config[f"{which}_start_ray_commands"]
        for port in re.findall(r"--metrics-export-port=(\d+)", command)
    }
    nodes = [config["provider"]["head_ip"], *config["provider"]["worker_ips"]]
    (job,) = manifest(CLUSTER / "prometheus.yml")["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [
        f"{node}:{port}" for port in ports for node in nodes
    ]


def test_grafanas_dashboard_is_one_that_can_be_imported() -> None:
    content = json.loads((CLUSTER / "grafana.json").read_text())
    assert content["title"] == "autotuner"
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids)) > 5
    for panel in content["panels"]:
        assert panel["targets"], panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
