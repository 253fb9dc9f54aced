"""OME and a kubelet for `FakeKube`: an InferenceService becomes a Deployment and a pod, as OME
makes them, and the pod does what a test wants, up to running the rendered command for real.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from tests.fakes.crd import Object, Resource
from tests.fakes.kube import Change, FakeKube, Refused
from tests.processes import tree

SERVICES, CONTAINER, LABEL = "inferenceservices", "ome-container", "ome.io/inferenceservice"
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
NODE = "node-1"
"""Where every pod is put that is put anywhere."""

_HELD = ["tests/kubelet"]

Behaviour = Callable[["Pod"], None]
"""What a pod does once it is there; called in the controller's thread, so it returns at once."""

VLLM_RUNTIME: Mapping[str, Any] = {
    "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
    "args": ["--port=8080", "--model=$(MODEL_PATH)", "--served-model-name=vllm-model"],
}
SGLANG_RUNTIME: Mapping[str, Any] = {
    "command": [
        *("python3", "-m", "sglang.launch_server", "--host=0.0.0.0", "--port=8080"),
        *("--model-path=$(MODEL_PATH)", "--tp-size=$(PARALLELISM_SIZE)"),
    ],
}


class FakeOME:
    """The controller, its webhook and a kubelet; a context manager.

    Attributes:
        behave: of the pods made from now on.
        asleep: while true nothing is done, as when OME's controller is down.
    """

    def __init__(
        self,
        kube: FakeKube,
        behave: Behaviour,
        *,
        models: Mapping[str, str] | None = None,
        runtimes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.kube, self.behave, self.asleep = kube, behave, False
        self.pods: dict[str, Pod] = {}
        for name, path in (models or {"tiny": "/models/tiny"}).items():
            kube.create("clusterbasemodels", _model(name, path))
            kube.set_status("clusterbasemodels", name, {"state": "Ready", "nodesReady": ["node-1"]})
        runtimes = runtimes or {"vllm-tiny": VLLM_RUNTIME, "srt-tiny": SGLANG_RUNTIME}
        for name, runner in runtimes.items():
            kube.create("clusterservingruntimes", _runtime(name, runner))
        kube.admission.append(self._webhook)
        kube.on_change(self._controller)

    def __enter__(self) -> FakeOME:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in list(self.pods.values()):
            pod.end()

    def _webhook(self, resource: Resource, item: Object) -> None:
        if resource.plural != SERVICES:
            return
        name = item["metadata"]["name"]
        if not _NAME.fullmatch(name):
            raise _denied(f"the InferenceService {name!r} is invalid: a DNS-1035 name")
        model = item["spec"]["model"]["name"]
        if not self.kube.find("clusterbasemodels", fields=f"metadata.name={model}"):
            raise _denied(f"base model {model!r} not found")
        item["metadata"].setdefault("annotations", {}).setdefault(
            "ome.io/deploymentMode", "RawDeployment"
        )
        item["spec"]["engine"].setdefault("minReplicas", 1)
        item["spec"]["engine"].setdefault("maxReplicas", 3)

    def _controller(self, change: Change) -> None:
        if self.asleep:
            return
        if change.plural == SERVICES and change.type == "ADDED":
            self._begin(change.object)
        if "deletionTimestamp" in change.object["metadata"] and change.type == "MODIFIED":
            if change.plural == SERVICES:
                self._release(change)
            elif change.plural == "pods" and (pod := self.pods.get(change.key[2])):
                pod.end()
                self._release(change)

    def _release(self, change: Change) -> None:
        plural, namespace, name = change.key
        with contextlib.suppress(Refused):
            self.kube.patch(plural, name, {"metadata": {"finalizers": None}}, namespace)

    def _begin(self, service: Object) -> None:
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        held = {"metadata": {"finalizers": ["inferenceservice.finalizers"]}}
        service = self.kube.patch(SERVICES, name, held, namespace)
        try:
            container = self._container(service)
        except Refused as refused:
            self.kube.event(service, "RuntimeFetchError", refused.message)
            return
        own = {**service["metadata"]["labels"], LABEL: name, "component": "engine"}
        deployment = self.kube.create(
            "deployments",
            {
                "metadata": {
                    "name": f"{name}-engine",
                    "namespace": namespace,
                    "labels": own,
                    "ownerReferences": [_owned(service)],
                },
                "spec": {"strategy": service["spec"]["engine"].get("deploymentStrategy")},
            },
        )
        made = self.kube.create(
            "pods",
            {
                "metadata": {
                    "generateName": f"{name}-engine-6f8d9c-",
                    "namespace": namespace,
                    "labels": {**own, "app": f"{name}-engine"},
                    "finalizers": _HELD,
                    "ownerReferences": [_owned(deployment)],
                },
                "spec": {"containers": [container]},
                "status": {"phase": "Pending"},
            },
        )
        waiting = {"type": "EngineReady", "status": "False", "reason": "Initializing"}
        self.kube.set_status(
            SERVICES,
            name,
            {"conditions": [waiting], "modelStatus": {"transitionStatus": "InProgress"}},
            namespace,
        )
        pod = Pod(self.kube, service, made)
        self.pods[pod.name] = pod
        self.behave(pod)

    def _container(self, service: Object) -> Object:
        """The runtime's runner with the service's over it: lists replace, the rest merges."""
        spec = service["spec"]
        runtime = self.kube.get("clusterservingruntimes", spec["runtime"]["name"])
        model = self.kube.get("clusterbasemodels", spec["model"]["name"])
        merged = copy.deepcopy(runtime["spec"]["engineConfig"]["runner"])
        own = spec["engine"]["runner"]
        merged |= {name: own[name] for name in ("image", "command", "args") if name in own}
        merged.setdefault("resources", {}).update(own.get("resources") or {})
        named = {each["name"]: each for each in (merged.get("env") or []) + (own.get("env") or [])}
        named["MODEL_PATH"] = {"name": "MODEL_PATH", "value": model["spec"]["storage"]["path"]}
        gpus = (merged["resources"].get("limits") or {}).get("nvidia.com/gpu", "1")
        named["PARALLELISM_SIZE"] = {"name": "PARALLELISM_SIZE", "value": gpus}
        return {**merged, "name": own["name"], "env": list(named.values())}


class Pod:
    """One pod of an InferenceService, in the hands of a test."""

    def __init__(self, kube: FakeKube, service: Object, pod: Object) -> None:
        self.kube, self._service, self._pod = kube, service, pod
        self.name: str = pod["metadata"]["name"]
        self.namespace: str = pod["metadata"]["namespace"]
        self.service: str = service["metadata"]["name"]
        self._restarts = 0
        self._at_end: list[Callable[[], None]] = []

    @property
    def object(self) -> Object:
        return self._pod

    @property
    def environment(self) -> dict[str, str]:
        return {each["name"]: each["value"] for each in self._container["env"]}

    @property
    def command(self) -> list[str]:
        """What the container runs: `$(NAME)` replaced as the kubelet does."""
        line = [*self._container["command"], *self._container.get("args", [])]
        known = self.environment
        return [
            re.sub(r"\$\((\w+)\)", lambda found: known.get(found[1], found[0]), each)
            for each in line
        ]

    def log(self, text: str | Path, *, previous: str | Path | None = None) -> None:
        self.kube.set_log(self.namespace, self.name, CONTAINER, text, previous=previous)

    def runs(self) -> None:
        self._status({"running": {"startedAt": "2026-01-01T00:00:00Z"}}, phase="Running")

    def waits(self, reason: str, message: str = "") -> None:
        self._status({"waiting": {"reason": reason, "message": message}})

    def dies(
        self, code: int, *, reason: str = "Error", log: str | Path = "", restarted: bool = True
    ) -> None:
        """The container ends; a restarted one has begun again, and printed little so far."""
        ended = {"terminated": {"exitCode": code, "reason": reason}}
        if restarted:
            self._restarts += 1
            self.log("beginning again\n", previous=log)
            self._status({"running": {}}, last=ended, phase="Running")
        else:
            self.log(log)
            self._status(ended, phase="Running")

    def is_unschedulable(self, message: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        self._put({"phase": "Pending", "conditions": [condition | {"message": message}]})

    def fails(self, reason: str, message: str) -> None:
        self._put({"phase": "Failed", "reason": reason, "message": message})

    def is_served_at(self, port: int, *, url: str | None = None) -> None:
        """Ready, by a server on this machine; its pod's port leads there, and so does its URL."""
        self.kube.ports[(self.namespace, self.name, 8080)] = ("127.0.0.1", port)
        self.runs()
        ready = [
            {"type": kind, "status": "True"} for kind in ("EngineReady", "IngressReady", "Ready")
        ]
        status = {
            "conditions": ready,
            "url": url or f"http://127.0.0.1:{port}",
            "modelStatus": {"transitionStatus": "UpToDate"},
        }
        with contextlib.suppress(KeyError):  # deleted meanwhile
            self.kube.set_status(SERVICES, self.service, status, self.namespace)

    def at_end(self, what: Callable[[], None]) -> None:
        self._at_end.append(what)

    def end(self) -> None:
        while self._at_end:
            self._at_end.pop()()

    @property
    def _container(self) -> Object:
        container: Object = self._pod["spec"]["containers"][0]
        return container

    def _status(self, state: Object, *, last: Object | None = None, phase: str = "Pending") -> None:
        container = {
            "name": CONTAINER,
            "state": state,
            "lastState": last or {},
            "restartCount": self._restarts,
        }
        scheduled = [{"type": "PodScheduled", "status": "True"}]
        with contextlib.suppress(Refused):  # deleted meanwhile
            bound = {"spec": {"nodeName": NODE}}
            self.kube.patch("pods", self.name, bound, self.namespace)
        self._put({"phase": phase, "conditions": scheduled, "containerStatuses": [container]})

    def _put(self, status: Object) -> None:
        with contextlib.suppress(KeyError):  # deleted meanwhile
            self.kube.set_status("pods", self.name, status, self.namespace)


def stays_pending(pod: Pod) -> None:
    """Nothing happens."""


def serves(pod: Pod) -> None:
    """Answers as an OpenAI server does that is asked only whether it is there."""
    line = pod.command
    name = line[line.index("--served-model-name") + 1]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps({"data": [{"id": name}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    pod.at_end(server.server_close)
    pod.at_end(server.shutdown)
    pod.log("first line\nserving\n")
    pod.is_served_at(int(server.server_address[1]))


def runs_for_real(program: Sequence[str], logs: Path) -> Behaviour:
    """The rendered command as a process of this machine, its program replaced by `program`.

    Args:
        logs: directory for what the processes print.
    """

    def behave(pod: Pod) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        line = pod.command
        line = [*program, *line[line.index("-m") :]] if "-m" in line else [*program, *line[1:]]
        here = {"0.0.0.0": "127.0.0.1", "8080": str(port)}
        file = logs / f"{pod.name}.log"
        with file.open("wb") as output:
            process = subprocess.Popen(
                [here.get(each, each) for each in line],
                stdout=output,
                stderr=output,
                env={**os.environ, **pod.environment},
                start_new_session=True,
            )

        def end() -> None:
            for each in tree(process.pid):  # as a container ends: with all that is in it
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()

        def watch() -> None:
            code = process.wait()
            if pod.name in {each["metadata"]["name"] for each in pod.kube.find("pods")}:
                pod.dies(code if code >= 0 else 128 - code, log=file)

        pod.at_end(end)
        pod.log(file)
        # Ready at once, as OME up to v0.1.4 says it: whoever believes that sends requests too soon.
        pod.is_served_at(port)
        threading.Thread(target=watch, daemon=True).start()

    return behave


def _model(name: str, path: str) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "modelFormat": {"name": "safetensors", "version": "1.0.0"},
            "modelFramework": {"name": "transformers", "version": "4.42.3"},
            "modelArchitecture": "LlamaForCausalLM",
            "modelParameterSize": "3M",
            "storage": {"storageUri": f"local://{path}", "path": path},
        },
    }


def _runtime(name: str, runner: Mapping[str, Any]) -> Object:
    resources = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}
    whole = {
        "name": CONTAINER,
        "image": "example.com/engine:1",
        "ports": [{"containerPort": 8080}],
        "resources": resources,
        **runner,
    }
    return {
        "metadata": {"name": name},
        "spec": {
            "supportedModelFormats": [
                {
                    "modelFormat": {"name": "safetensors", "version": "1.0.0"},
                    "modelFramework": {"name": "transformers", "version": "4.42.3"},
                }
            ],
            "engineConfig": {"runner": copy.deepcopy(whole)},
        },
    }


def _owned(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def _denied(said: str) -> Refused:
    webhook = "inferenceservice.ome-webhook-server.validator"
    return Refused(403, "Forbidden", f'admission webhook "{webhook}" denied the request: {said}')
