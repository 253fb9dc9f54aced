"""What the OME backend asks for, and what it reads out of pods and events: pure values."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotuner.backends.ome import OME, OMEBackend, generation_of, is_lost, runtime_problem
from autotuner.backends.ome_manifest import OMEOptions, inference_service, rbac, service_name
from autotuner.backends.ome_signs import (
    Sight,
    Trouble,
    about,
    container_port,
    is_ready,
    judge,
    url_of,
)
from autotuner.backends.owners import this_owner
from autotuner.engines.sglang import SGLANG
from autotuner.engines.vllm import VLLM
from autotuner.errors import ConfigError, FailureClass
from autotuner.serving import Ending, LaunchSpec, Slot
from autotuner.settings import Site
from tests.builders import spec
from tests.fakes.crd import MISSING, have_schemas, ome_resource, strict_problems
from tests.fakes.ome import SGLANG_RUNTIME, VLLM_RUNTIME

ROOT = Path(__file__).parent.parent.parent
OPTIONS: dict[str, Any] = {"model": "llama", "runtime": "vllm-llama"}
SLOT = Slot("llama-chat", 3, port=20001, directory="/trials/0003", gpu_ids=("0", "1"))


def backend(**options: Any) -> OMEBackend:
    opened = OME.open({**OPTIONS, **options}, Site())
    assert isinstance(opened, OMEBackend)
    return opened


def launch(kind: str = "vllm", flags: Mapping[str, Any] = {}) -> LaunchSpec:
    study = spec(engine={"kind": kind, "arguments": dict(flags)}, model={"path": "/models/llama"})
    engine = {"vllm": VLLM, "sglang": SGLANG}[kind]
    return engine.launch(study, {}, port=20001, place=backend().place)


def manifest(
    kind: str = "vllm", options: Mapping[str, Any] = {}, flags: Mapping[str, Any] = {}
) -> Any:
    plan = backend(**options).plan(launch(kind, flags), SLOT)
    return plan.request["manifest"]


def test_the_whole_manifest_of_a_trial() -> None:
    made = manifest("sglang", {"runtime": "srt-llama"}, {"tp-size": 2, "schedule-policy": "lpm"})
    gpus = {"nvidia.com/gpu": "2"}
    assert made == {
        "apiVersion": "ome.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "at-llama-chat-0003",
            "namespace": "autotuner",
            "labels": {
                "autotuner.io/managed": "true",
                "autotuner.io/study": "llama-chat",
                "autotuner.io/trial": "0003",
            },
            "annotations": {
                "ome.io/deploymentMode": "RawDeployment",
                "ome.io/autoscalerClass": "external",
            },
        },
        "spec": {
            "model": {"name": "llama"},
            "runtime": {"name": "srt-llama"},
            "engine": {
                "minReplicas": 1,
                "maxReplicas": 1,
                "deploymentStrategy": {"type": "Recreate"},
                "runner": {
                    "name": "ome-container",
                    "args": [
                        *("--served-model-name", "llama"),
                        *("--tp-size", "2", "--schedule-policy", "lpm"),
                    ],
                    "env": [{"name": "PROTOCOL_VERSION", "value": "sglang"}],
                    "resources": {"limits": gpus, "requests": gpus},
                },
            },
        },
    }


def test_vllm_gets_its_whole_list_of_arguments() -> None:
    runner = manifest(flags={"tensor-parallel-size": 2})["spec"]["engine"]["runner"]
    assert runner["args"] == [
        *("--model", "$(MODEL_PATH)", "--served-model-name", "llama"),
        *("--host", "0.0.0.0", "--port", "8080", "--tensor-parallel-size", "2"),
    ]
    assert runner["env"] == [{"name": "PROTOCOL_VERSION", "value": "vllm"}]
    assert runner["resources"]["limits"] == {"nvidia.com/gpu": "2"}


def test_arguments_as_the_runtime_needs_them() -> None:
    appended = manifest("vllm", {"arguments": "append"}, {"max-num-seqs": 64})
    assert appended["spec"]["engine"]["runner"]["args"] == [
        *("--served-model-name", "llama", "--max-num-seqs", "64"),
    ]
    whole = manifest("sglang", {"arguments": "replace", "port": 9000})
    runner = whole["spec"]["engine"]["runner"]
    assert runner["args"][:2] == ["--model-path", "$(MODEL_PATH)"]
    assert "--host" in runner["args"]


def test_the_port_is_the_runtimes() -> None:
    assert backend(port=9000).place.port == 9000


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_image_and_command_stay_the_runtimes_own(kind: str) -> None:
    runner = manifest(kind)["spec"]["engine"]["runner"]
    assert set(runner) == {"name", "args", "env", "resources"}
    assert runner["name"] == "ome-container"


def test_no_shell_variable_is_left_in_the_arguments() -> None:
    for kind in ("vllm", "sglang"):
        for each in manifest(kind)["spec"]["engine"]["runner"]["args"]:
            assert not re.search(r"\$(?!\()", each), "only $(NAME) is replaced in a pod"


def test_gpus_are_kubernetes_own() -> None:
    seeing = replace(launch(), environment={"CUDA_VISIBLE_DEVICES": "0", "VLLM_X": "1"})
    made = inference_service(seeing, SLOT, OMEOptions(**OPTIONS), "autotuner")
    names = [each["name"] for each in made["spec"]["engine"]["runner"]["env"]]
    assert names == ["PROTOCOL_VERSION", "VLLM_X"]
    runner = manifest("vllm", {"gpu": "amd.com/gpu"})["spec"]["engine"]["runner"]
    assert runner["resources"]["limits"] == {"amd.com/gpu": "1"}
    assert "resources" not in manifest("vllm", {"gpu": None})["spec"]["engine"]["runner"]


def test_protocol_version_may_be_said_by_the_study() -> None:
    said = replace(launch(), environment={"PROTOCOL_VERSION": "openai"})
    made = inference_service(said, SLOT, OMEOptions(**OPTIONS), "autotuner")
    assert made["spec"]["engine"]["runner"]["env"] == [
        {"name": "PROTOCOL_VERSION", "value": "openai"}
    ]


def test_more_labels_annotations_and_places() -> None:
    tolerations = [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    made = manifest(
        "vllm",
        {
            "labels": {"team": "llm"},
            "annotations": {"note": "x"},
            "node_selector": {"pool": "h100"},
            "tolerations": tolerations,
            "namespace": "tuning",
        },
    )
    assert made["metadata"]["namespace"] == "tuning"
    assert made["metadata"]["labels"]["team"] == "llm"
    assert made["metadata"]["annotations"]["note"] == "x"
    assert made["spec"]["engine"]["nodeSelector"] == {"pool": "h100"}
    assert made["spec"]["engine"]["tolerations"] == tolerations


def test_a_plan_is_a_function_of_its_arguments_and_holds_no_secret() -> None:
    site = Site.model_validate({"hf_token": "hf_secret", "ome_namespace": "elsewhere"})
    opened = OME.open(OPTIONS, site)
    one, other = (opened.plan(launch(), SLOT).to_json() for _ in range(2))
    assert one == other
    assert "hf_secret" not in repr(one)
    assert one["request"]["manifest"]["metadata"]["namespace"] == "elsewhere"


def test_a_brace_that_ome_would_take_for_a_template_is_refused() -> None:
    given = {"hf-overrides": {"rope_scaling": {"a": {"b": 1}}}}
    made = launch(flags=given)
    assert not any("{{" in each for each in made.arguments), "JSON with spaces passes"
    with pytest.raises(ConfigError, match="template"):
        backend().plan(replace(made, arguments=("--chat-template", "{{ x }}")), SLOT)


SHARED = (
    *("apiVersion", "kind", "metadata.name", "metadata.namespace", "metadata.labels.*"),
    *("metadata.annotations.*", "spec.model.name", "spec.runtime.name"),
    *("spec.engine.minReplicas", "spec.engine.maxReplicas"),
    *("spec.engine.deploymentStrategy.*", "spec.engine.nodeSelector.*"),
    *("spec.engine.tolerations.*", "spec.engine.runner.name", "spec.engine.runner.args.*"),
    *("spec.engine.runner.env.*", "spec.engine.runner.resources.*"),
)
"""What all generations of OME's v1beta1 have."""


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, f"{path}.-")
    else:
        yield path


WHOLE = {"node_selector": {"a": "b"}, "tolerations": [{"key": "a"}], "labels": {"a": "b"}}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_only_fields_that_every_generation_of_ome_has(kind: str) -> None:
    for leaf in leaves(manifest(kind, WHOLE)):
        fits = (
            leaf == each or (each.endswith("*") and leaf.startswith(each[:-1])) for each in SHARED
        )
        assert any(fits), leaf


@pytest.mark.skipif(not have_schemas(), reason=MISSING)
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_the_manifest_passes_omes_own_schema_strictly(kind: str) -> None:
    resource = ome_resource("inferenceservices")
    assert strict_problems(resource, manifest(kind, WHOLE)) == []
    exported = backend().exports(spec(engine={"kind": kind}, backend={"kind": "ome"}), {})
    assert strict_problems(resource, yaml.safe_load(exported["inferenceservice.yaml"])) == []


@pytest.mark.skipif(not have_schemas(), reason=MISSING)
@pytest.mark.parametrize(
    ("place", "field"),
    [("engine", "resources"), ("engine", "args"), ("runtime", "runtimeParameters")],
)
def test_the_schema_check_can_fail(place: str, field: str) -> None:
    made = manifest()
    made["spec"][place][field] = {}
    said = strict_problems(ome_resource("inferenceservices"), made)
    assert said == [f'unknown field "spec.{place}.{field}"']
    made = manifest()
    made["metadata"]["labels"]["autotuner.io/trial"] = 3
    assert strict_problems(ome_resource("inferenceservices"), made)


@pytest.mark.parametrize("study", ["a", "7-tuning", "llama-chat", "x" * 63, "a-" * 31 + "b"])
@pytest.mark.parametrize("trial", [0, 3, 12345])
def test_names_are_valid_and_short(study: str, trial: int) -> None:
    name = service_name(study, trial)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(f"{name}-12345") <= 50


def test_names_differ_between_studies_and_trials() -> None:
    studies = ["x" * 62 + "a", "x" * 62 + "b", "x", "x-1"]
    names = {service_name(study, trial) for study in studies for trial in (0, 1, 10, 10000)}
    assert len(names) == 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "ClusterBaseModel is missing"),
        ({"model": "m"}, "ClusterServingRuntime is missing"),
        (OPTIONS | {"nonsense": 1}, "nonsense"),
        (OPTIONS | {"reach": "telnet"}, "telnet"),
        (OPTIONS | {"arguments": "prepend"}, "prepend"),
        (OPTIONS | {"namespace": "Not_Valid"}, "Not_Valid"),
        (OPTIONS | {"lease_seconds": 7}, "7 is not allowed: it must be greater than or equal to 8"),
        (OPTIONS | {"labels": {"autotuner.io/study": "x"}}, "the backend's own"),
        (OPTIONS | {"annotations": {"ome.io/autoscalerClass": "hpa"}}, "the backend's own"),
    ],
)
def test_wrong_options_are_the_users(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        OME.check(options)
    assert caught.value.where.startswith("backend.ome")


def test_the_client_library_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    (found,) = backend().examine()
    assert found.ok is False
    assert "pip install 'autotuner[kubernetes]'" in found.said


def test_a_sweep_needs_no_model() -> None:
    assert OME.open({}, Site()).gone_seconds == 60


# What pods and events say.


def service(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "at-s-0001", "uid": "u1"}, "status": status}


def pod(state: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    container = {"name": "ome-container", "state": state or {}, "restartCount": 0}
    status = {
        "phase": "Running",
        "containerStatuses": [container | more.pop("container", {})],
        **more.pop("status", {}),
    }
    return {"metadata": {"name": "at-s-0001-engine-x", **more}, "status": status}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod({"waiting": {"reason": reason, "message": message}})


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


NO_PROGRAM = 'exec: "vllm": executable file not found in $PATH: unknown'


@pytest.mark.parametrize(
    ("seen", "code", "failure", "words"),
    [
        (waiting("ImagePullBackOff", "Back-off"), None, FailureClass.IMAGE, "ImagePullBackOff"),
        (waiting("ErrImagePull", "not found"), None, FailureClass.IMAGE, "not found"),
        (waiting("InvalidImageName"), None, FailureClass.IMAGE, "InvalidImageName"),
        (waiting("RunContainerError", NO_PROGRAM), None, FailureClass.NOT_INSTALLED, "vllm"),
        (waiting("CreateContainerError", NO_PROGRAM), None, FailureClass.NOT_INSTALLED, "vllm"),
        (waiting("RunContainerError", "nvml error"), None, FailureClass.DEVICE, "nvml"),
        (waiting("CrashLoopBackOff", "back-off 10s"), None, None, "back-off 10s"),
        (pod(ended(1)), 1, None, ""),
        (pod(ended(0, "Completed")), 0, None, ""),
        (pod(ended(137, "OOMKilled")), 137, FailureClass.HOST_MEMORY, "more memory"),
        (pod(ended(137)), 137, None, "killed"),
        (pod(ended(128, "StartError", NO_PROGRAM)), 128, FailureClass.NOT_INSTALLED, "vllm"),
        (
            pod({"running": {}}, container={"restartCount": 1, "lastState": ended(3)}),
            3,
            None,
            "",
        ),
        (
            pod(
                {"waiting": {"reason": "CrashLoopBackOff"}},
                container={"restartCount": 2, "lastState": ended(137, "OOMKilled")},
            ),
            137,
            FailureClass.HOST_MEMORY,
            "memory",
        ),
        (pod({"running": {}}, container={"restartCount": 1}), None, None, "restarted"),
        (
            pod(status={"initContainerStatuses": [{"name": "i", "state": ended(2)}]}),
            2,
            None,
            "",
        ),
    ],
)
def test_how_a_server_ended(
    seen: dict[str, Any], code: int | None, failure: FailureClass | None, words: str
) -> None:
    found = judge(Sight(service(), [seen]))
    assert isinstance(found, Ending)
    assert (found.exit_code, found.failure) == (code, failure)
    assert words in found.reason
    assert "\n" not in found.reason


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return pod(status={"conditions": [condition | {"message": message}], "containerStatuses": []})


@pytest.mark.parametrize(
    ("sight", "words", "at_once"),
    [
        (Sight(None), "deleted by somebody else", True),
        (
            Sight({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "now"}}),
            "being deleted",
            True,
        ),
        (
            Sight(service(), [unscheduled("0/4 nodes: 4 Insufficient nvidia.com/gpu.")]),
            "4 Insufficient nvidia.com/gpu",
            False,
        ),
        (
            Sight(service(), [unscheduled("didn't match Pod's node affinity/selector")]),
            "model agent",
            False,
        ),
        (Sight(service(), [pod(deletionTimestamp="now")]), "being deleted", True),
        (
            Sight(
                service(), [pod(status={"phase": "Failed", "reason": "Evicted", "message": "m"})]
            ),
            "Evicted: m",
            True,
        ),
        (
            Sight(service(), [waiting("CreateContainerConfigError", 'secret "x" not found')]),
            'secret "x" not found',
            True,
        ),
        (
            Sight(
                service(
                    modelStatus={
                        "transitionStatus": "InvalidSpec",
                        "lastFailureInfo": {"reason": "RuntimeDisabled", "message": "off"},
                    }
                )
            ),
            "RuntimeDisabled: off",
            True,
        ),
        (Sight(service(modelStatus={"transitionStatus": "BlockedByFailedLoad"})), "loaded", True),
        (Sight(service()), "has not taken it up", False),
    ],
)
def test_why_no_server_can_come_up(sight: Sight, words: str, at_once: bool) -> None:
    found = judge(sight)
    assert isinstance(found, Trouble)
    assert words in found.said
    assert found.at_once == at_once


def test_what_ome_read_of_a_dead_container_will_do_where_its_pod_is_gone() -> None:
    failure = {"reason": "ModelLoadFailed", "message": "Traceback", "exitCode": 1}
    status = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}
    assert judge(Sight(service(modelStatus=status))) == Ending(
        1, None, "ModelLoadFailed: Traceback"
    )


LIVING = [
    pod({"running": {}}),
    waiting("ContainerCreating"),
    waiting("PodInitializing"),
    pod(status={"containerStatuses": []}),
    pod(status={"initContainerStatuses": [{"name": "i", "state": ended(0)}]}),
]


@pytest.mark.parametrize("seen", LIVING)
def test_what_lives_or_may_still_come(seen: dict[str, Any]) -> None:
    assert judge(Sight(service(), [seen])) is None


def event(reason: str, message: str = "", **about: str) -> dict[str, Any]:
    involved = {"kind": "InferenceService", "name": "at-s-0001", "uid": "u1", **about}
    return {"reason": reason, "message": message, "involvedObject": involved}


@pytest.mark.parametrize(
    "reason",
    [
        *("ModelReconcileError", "RuntimeValidationError", "RuntimeFetchError"),
        *("RuntimeSelectionError", "MergeSpecsError", "DeploymentModeError"),
        *("AcceleratorClassError", "InternalError", "UpdateFailed"),
    ],
)
def test_errors_that_leave_no_condition_are_told_in_omes_words(reason: str) -> None:
    found = judge(Sight(service(), [], [event(reason, "the runtime\nwill not do")]))
    assert found == Trouble(f"OME: {reason}: the runtime will not do")


def test_events_of_no_account() -> None:
    silent = Sight(service(conditions=[]), [pod(status={"containerStatuses": []})])
    conflict = "Operation cannot be fulfilled: the object has been modified; please apply"
    for each in (event("UpdateFailed", conflict), event("InferenceServiceNotReady", "no")):
        assert judge(replace(silent, events=[each])) is None
    mount = event("FailedMount", "volume not found")
    found = judge(replace(silent, events=[mount]))
    assert found == Trouble("FailedMount: volume not found", at_once=False)
    assert judge(replace(silent, pods=[pod({"running": {}})], events=[mount])) is None, "it passed"


def test_events_are_told_apart_by_what_they_are_about() -> None:
    ours = [
        event("InternalError"),
        event("FailedCreate", kind="ReplicaSet", name="at-s-0001-engine-6f8"),
    ]
    others = [
        event("InternalError", uid="that of an earlier one"),
        event("InternalError", name="at-s-0002"),
        event("FailedCreate", kind="ReplicaSet", name="at-s-0002-engine-6f8"),
    ]
    assert about(ours + others, service()) == ours


def test_ready_is_what_ome_says() -> None:
    engine = {"type": "EngineReady", "status": "True"}
    assert not is_ready(service(conditions=[engine]))
    assert is_ready(service(conditions=[engine]), engine_alone=True)
    assert is_ready(service(conditions=[engine, {"type": "Ready", "status": "True"}]))
    assert not is_ready({"metadata": {}})


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ("http://a.ns.svc.cluster.local:8080", "http://a.ns.svc.cluster.local:8080"),
        ("http://a.ns.svc.cluster.local", "http://a.ns.svc.cluster.local:9000"),
        ("http://a.example.com/", "http://a.example.com"),
        ("https://a.example.com:8443/v1", "https://a.example.com:8443"),
        ("", None),
        (None, None),
    ],
)
def test_the_url_of_a_service(said: str | None, url: str | None) -> None:
    assert url_of(service(url=said), 9000) == url


def test_the_port_of_a_pod_is_what_its_container_declares() -> None:
    containers = [{"name": "side"}, {"name": "ome-container", "ports": [{"containerPort": 9000}]}]
    assert container_port([{"spec": {"containers": containers}}], 8080) == 9000
    assert container_port([{"spec": {"containers": containers[:1]}}], 8080) == 8080
    assert container_port([], 8080) == 8080


NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def leased(owner: str, ago: float, seconds: str = "60") -> dict[str, Any]:
    annotations = {
        "autotuner.io/owner": owner,
        "autotuner.io/renewed-at": (NOW - timedelta(seconds=ago)).isoformat(),
        "autotuner.io/lease-seconds": seconds,
    }
    return {"metadata": {"annotations": annotations}}


def test_who_is_taken_for_dead() -> None:
    elsewhere = "host another-boot pid:[1] 17:1700000000"
    assert not is_lost(leased(elsewhere, 59), NOW)
    assert is_lost(leased(elsewhere, 61), NOW)
    assert not is_lost(leased(elsewhere, 61, "120"), NOW)
    assert not is_lost(leased(this_owner(), 3600), NOW), "seen to live"
    host, boot, namespace, _ = this_owner().split(" ")
    dead = f"{host} {boot} {namespace} 1:1"
    assert is_lost(leased(dead, 0), NOW), "seen to be dead"
    assert not is_lost({"metadata": {}}, NOW), "not made by start"
    assert not is_lost(leased(elsewhere, 61, "no number"), NOW)


def definition(**fields: Any) -> dict[str, Any]:
    schema = {"properties": {"spec": {"properties": fields}}}
    return {"spec": {"versions": [{"storage": True, "schema": {"openAPIV3Schema": schema}}]}}


def test_the_generation_of_ome_is_told_by_what_it_has() -> None:
    assert generation_of(definition(engine={}, predictor={})) == ("v0.1.4 or older", True)
    assert generation_of(definition(engine={}, acceleratorSelector={}))[0].startswith("v0.1.5")
    assert generation_of(definition(acceleratorSelector={}, deploymentMode={}))[0].startswith(
        "v1.2"
    )
    assert generation_of(definition())[0] == "of an unknown version"


@pytest.mark.skipif(not have_schemas(), reason=MISSING)
def test_the_generation_whose_schemas_are_at_hand() -> None:
    schema = ome_resource("inferenceservices").schema
    found = {"spec": {"versions": [{"storage": True, "schema": {"openAPIV3Schema": schema}}]}}
    assert generation_of(found) == ("v0.1.5 or of its time", False)


def runtime(**runner: Any) -> dict[str, Any]:
    return {"spec": {"engineConfig": {"runner": runner}}}


def test_runtimes_that_would_lose_their_launch_line_are_noticed() -> None:
    options = OMEOptions(**OPTIONS)
    vllm, sglang = launch("vllm"), launch("sglang")
    assert runtime_problem(runtime(**VLLM_RUNTIME), vllm, options) is None
    assert runtime_problem(runtime(**SGLANG_RUNTIME), sglang, options) is None
    lost = runtime_problem(runtime(**VLLM_RUNTIME), sglang, options)
    assert lost is not None
    assert "arguments: replace" in lost[1]
    twice = runtime_problem(runtime(**SGLANG_RUNTIME), vllm, options)
    assert twice is not None
    assert "arguments: append" in twice[1]
    shell = runtime_problem(runtime(command=["/bin/sh", "-c", "exec vllm"]), vllm, options)
    assert shell is not None
    assert "shell script" in shell[0]
    assert runtime_problem({"spec": {}}, vllm, options) is not None


# What is exported, and what is shipped.


def test_exports_are_rights_and_the_baselines_service() -> None:
    study = spec(engine={"kind": "vllm"}, backend={"kind": "ome"})
    files = backend().exports(study, {})
    assert set(files) == {"rbac.yaml", "inferenceservice.yaml"}
    assert list(yaml.safe_load_all(files["rbac.yaml"])) == rbac("autotuner")
    exported = yaml.safe_load(files["inferenceservice.yaml"])
    assert exported["metadata"]["labels"] == {}, "applied by hand, no sweep may take it"
    assert exported["spec"]["engine"]["runner"]["args"][:2] == ["--model", "$(MODEL_PATH)"]


def test_the_shipped_rights_are_those_of_the_code() -> None:
    shipped = yaml.safe_load_all((ROOT / "cluster/ome/rbac.yaml").read_text())
    assert list(shipped) == rbac("autotuner", benchmark_jobs=True)


def shipped_documents() -> list[Any]:
    files = sorted((ROOT / "cluster/ome").glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text())]


def test_the_shipped_runtimes_take_our_arguments() -> None:
    runtimes = [each for each in shipped_documents() if each["kind"] == "ClusterServingRuntime"]
    options = OMEOptions(**OPTIONS)
    kinds = {"vllm": launch("vllm"), "sglang": launch("sglang")}
    assert len(runtimes) == 2
    for each in runtimes:
        runner = each["spec"]["engineConfig"]["runner"]
        kind = "sglang" if "sglang" in " ".join(runner["command"]) else "vllm"
        assert runner["name"] == "ome-container"
        assert runtime_problem(each, kinds[kind], options) is None
        assert ":latest" not in runner["image"]


@pytest.mark.skipif(not have_schemas(), reason=MISSING)
def test_the_shipped_manifests_pass_omes_own_schemas() -> None:
    plurals = {
        "ClusterServingRuntime": "clusterservingruntimes",
        "ClusterBaseModel": "clusterbasemodels",
    }
    checked = [
        strict_problems(ome_resource(plurals[each["kind"]]), each)
        for each in shipped_documents()
        if each["kind"] in plurals
    ]
    assert len(checked) >= 3
    assert not any(checked), checked
