"""The OME backend against a true Kubernetes API server, with OME and a kubelet played by hooks."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autotuner.backends.base import Backend
from autotuner.backends.ome import OME, OMEServer
from autotuner.backends.ome_cluster import Cluster
from autotuner.backends.ome_manifest import OMEOptions
from autotuner.errors import FailureClass, InfrastructureError
from autotuner.execution.readiness import wait_ready
from autotuner.serving import Ending, LaunchSpec, Plan, Slot
from autotuner.settings import Site
from tests.fakes.crd import ome_resources
from tests.fakes.kube import FakeKube, Refused
from tests.fakes.ome import NODE, SERVICES, Behaviour, FakeOME, Pod, serves, stays_pending
from tests.processes import wait_for

NS = "autotuner"
STUDY = "contract"
OPTIONS: dict[str, Any] = {"model": "tiny", "runtime": "vllm-tiny"}
LAUNCH = LaunchSpec(
    command=("python3", "-m", "vllm.entrypoints.openai.api_server"),
    arguments=(
        *("--model", "$(MODEL_PATH)", "--served-model-name", "tiny-llama"),
        *("--host", "0.0.0.0", "--port", "8080", "--max-num-seqs", "4"),
    ),
    environment={"VLLM_X": "1"},
    image="vllm/vllm-openai:v0.32.0",
    model_path="$(MODEL_PATH)",
    served_name="tiny-llama",
    port=8080,
    flags=("--max-num-seqs", "4"),
)
ELSEWHERE = "host another-boot pid:[1] 17:1700000000"


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A cluster with OME, and a clock for the servers started in it."""

    kube: FakeKube
    ome: FakeOME
    directory: Path
    clock: Clock

    def backend(self, **options: Any) -> Backend:
        return OME.open({**OPTIONS, **options}, Site())

    def plan(self, trial: int = 7, **options: Any) -> Plan:
        return self.backend(**options).plan(LAUNCH, Slot(STUDY, trial, 1, str(self.directory)))

    def started(self, behave: Behaviour = serves, **options: Any) -> OMEServer:
        """A server as `start` makes it, on a clock of ours and without the reaper."""
        self.ome.behave = behave
        return OMEServer(
            Cluster(NS),
            self.plan(**options),
            OMEOptions(**{**OPTIONS, **options}),
            clock=self.clock,
            sleep=lambda seconds: None,
        )

    def until_dead(self, server: OMEServer) -> Ending:
        """Look every second of our clock until the server is no longer alive."""
        assert wait_for(lambda: not self.looked(server), 20, every=0.02)
        return server.ending()

    def looked(self, server: OMEServer) -> bool:
        self.clock.now += 1
        return server.alive()

    def service(self) -> dict[str, Any]:
        (found,) = self.kube.find(SERVICES)
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with FakeKube(ome_resources()) as kube, FakeOME(kube, serves) as ome:
        monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield World(kube, ome, tmp_path, Clock())


def answered(url: str, path: str = "/v1/models") -> str:
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return str(answer.read().decode())


def ready(world: World, server: OMEServer) -> str:
    wait_ready(
        server,
        "tiny-llama",
        "/health",
        deadline=world.clock.now + 60,
        clock=world.clock,
        sleep=lambda seconds: setattr(world.clock, "now", world.clock.now + 1),
    )
    assert server.url is not None
    return server.url


def test_a_trial_from_start_to_gone_through_a_port_forward(world: World) -> None:
    server = world.started()
    url = ready(world, server)
    assert url.startswith("http://127.0.0.1:")
    assert "tiny-llama" in answered(url)
    assert server.log() == "first line\nserving\n"
    (pod,) = world.kube.find("pods")
    assert url not in repr(world.service()), "the way there is this machine's own"
    server.stop(5)
    assert world.kube.find(SERVICES) == world.kube.find("pods") == []
    assert world.kube.find("deployments") == []
    assert not server.alive()
    assert server.log() == "first line\nserving\n", "read before its pod went"
    assert (world.directory / "server.log").read_text() == "first line\nserving\n"
    with pytest.raises(OSError):
        answered(url)
    server.stop(5)
    assert pod["metadata"]["labels"]["ome.io/inferenceservice"] == server.name


def test_a_port_forward_carries_many_connections_at_once(world: World) -> None:
    server = world.started()
    url = ready(world, server)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: answered(url), range(48)))
    assert len(set(answers)) == 1
    server.stop(5)


def test_what_start_adds_to_the_plan(world: World) -> None:
    plan = world.plan()
    server = world.started()
    made, planned = world.service(), plan.request["manifest"]
    name = made["metadata"].pop("name")
    assert name == server.name
    assert re.fullmatch(rf"{planned['metadata']['name']}-[0-9a-f]{{5}}", name)
    annotations = made["metadata"]["annotations"]
    assert str(os.getpid()) in annotations["autotuner.io/owner"]
    assert annotations["autotuner.io/lease-seconds"] == "60"
    assert annotations["autotuner.io/renewed-at"].endswith("+00:00")
    for key, value in planned["metadata"]["labels"].items():
        assert made["metadata"]["labels"][key] == value
    runner = made["spec"]["engine"]["runner"]
    assert runner == planned["spec"]["engine"]["runner"]
    assert made["spec"]["engine"]["maxReplicas"] == 1
    (request,) = (each for each in world.kube.requests if each.method == "POST")
    assert request.query["fieldValidation"] == "Strict"


def test_two_attempts_of_a_trial_do_not_meet(world: World) -> None:
    one, other = world.started(), world.started()
    assert one.name != other.name
    one.stop(5)
    assert [each["metadata"]["name"] for each in world.kube.find(SERVICES)] == [other.name]


def test_in_the_cluster_the_url_is_omes_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_its_service(pod: Pod) -> None:
        pod.is_served_at(1, url=f"http://{pod.service}.{NS}.svc.cluster.local")

    server = world.started(at_its_service, reach="url")
    assert server.url is None, "not known yet"
    assert wait_for(lambda: world.looked(server) and server.url, 10)
    assert server.url == f"http://{server.name}.{NS}.svc.cluster.local:8080"
    # `auto` knows where it is; the kubeconfig still says whom to ask.
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    inside = world.started(at_its_service)
    assert wait_for(lambda: world.looked(inside) and inside.url, 10)
    assert inside.url == f"http://{inside.name}.{NS}.svc.cluster.local:8080"


def test_no_url_before_ome_says_ready(world: World) -> None:
    pods: list[Pod] = []
    server = world.started(pods.append)
    assert wait_for(lambda: pods, 10)
    pods[0].runs()
    assert world.looked(server)
    assert server.url is None
    pods[0].is_served_at(1)
    assert wait_for(lambda: world.looked(server) and server.url, 10)


def test_a_port_forward_to_nobody_closes_its_connections(world: World) -> None:
    def deaf(pod: Pod) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        pod.is_served_at(port)

    server = world.started(deaf)
    assert wait_for(lambda: world.looked(server) and server.url, 10)
    assert server.url is not None
    with pytest.raises(OSError):
        answered(server.url)
    assert world.looked(server), "the server is judged by its pod"
    server.stop(5)


def test_the_log_grows_while_the_server_comes_up_and_is_there_after_a_kill(world: World) -> None:
    pods: list[Pod] = []
    server = world.started(pods.append)
    file = world.directory / "server.log"
    assert file.read_text() == "", "there from the beginning, for whoever follows it"
    assert wait_for(lambda: pods, 10)
    pods[0].log("loading\n")
    pods[0].runs()
    asked_before = logs_read(world)
    for _ in range(20):
        assert world.looked(server)
    assert file.read_text() == "loading\n", "nobody asked for it, and nothing is ready"
    assert 3 <= logs_read(world) - asked_before <= 5, "every five seconds"
    pods[0].log("loading\nloaded\nhal")
    for _ in range(6):
        assert world.looked(server)
    assert file.read_text() == "loading\nloaded\n"
    server.stop(5)
    assert file.read_text() == "loading\nloaded\nhal"


def test_a_log_that_takes_long_to_read_is_read_seldom(world: World) -> None:
    pods: list[Pod] = []
    server = world.started(pods.append)
    assert wait_for(lambda: pods, 10)
    pods[0].log("loading\n")
    pods[0].runs()
    for _ in range(6):
        assert world.looked(server)
    read = server._read_log

    def slowly() -> str:
        world.clock.now += 4
        return read()

    server._read_log = slowly  # type: ignore[method-assign]
    before = logs_read(world)
    for _ in range(100):
        assert world.looked(server)
    assert 1 <= logs_read(world) - before <= 2


def logs_read(world: World) -> int:
    return sum(each.path.endswith("/log") for each in world.kube.requests)


def test_its_node_is_its_pods_and_stays_known(world: World) -> None:
    pods: list[Pod] = []
    server = world.started(pods.append)
    assert wait_for(lambda: pods, 10)
    assert world.looked(server)
    assert server.node is None, "not scheduled yet"
    pods[0].runs()
    assert wait_for(lambda: world.looked(server) and server.node, 10)
    assert server.node == NODE
    server.stop(5)
    assert server.node == NODE


def no_program(pod: Pod) -> None:
    pod.waits("RunContainerError", 'exec: "vllm": executable file not found in $PATH')


@pytest.mark.parametrize(
    ("behave", "failure", "code", "words"),
    [
        (
            lambda pod: pod.waits("ImagePullBackOff", 'Back-off pulling image "x"'),
            FailureClass.IMAGE,
            None,
            "Back-off pulling",
        ),
        (no_program, FailureClass.NOT_INSTALLED, None, "executable file not found"),
        (lambda pod: pod.dies(1, log="no room\n"), None, 1, ""),
        (lambda pod: pod.dies(1, log="no room\n", restarted=False), None, 1, ""),
        (
            lambda pod: pod.dies(137, reason="OOMKilled", log="loading\n"),
            FailureClass.HOST_MEMORY,
            137,
            "memory",
        ),
    ],
)
def test_a_server_that_dies_says_how(
    world: World, behave: Behaviour, failure: FailureClass | None, code: int | None, words: str
) -> None:
    server = world.started(behave)
    ending = world.until_dead(server)
    assert (ending.failure, ending.exit_code) == (failure, code)
    assert words in ending.reason
    assert not server.alive()
    server.stop(5)
    assert world.kube.find("pods") == []


@pytest.mark.parametrize("restarted", [True, False])
def test_the_log_is_that_of_the_engine_that_crashed(world: World, restarted: bool) -> None:
    text = "first\n" + "line\n" * 2000 + "ValueError: no room\n"
    server = world.started(lambda pod: pod.dies(1, log=text, restarted=restarted))
    world.until_dead(server)
    assert server.log() == text
    server.stop(5)
    assert server.log() == text
    assert (world.directory / "server.log").read_text() == text


def broken(world: World, server: OMEServer, seconds: float = 20) -> str:
    """What the server raises of its place, within so many real seconds."""
    with pytest.raises(InfrastructureError) as caught:
        wait_for(lambda: not world.looked(server), seconds, every=0.02)
    with pytest.raises(InfrastructureError, match=re.escape(str(caught.value))):
        server.alive()
    return str(caught.value)


def test_what_no_node_takes_is_waited_for_a_while(world: World) -> None:
    pods: list[Pod] = []

    def behave(pod: Pod) -> None:
        pods.append(pod)
        pod.is_unschedulable("0/4 nodes are available: 4 Insufficient nvidia.com/gpu.")

    server = world.started(behave, unschedulable_seconds=20.0)
    assert wait_for(lambda: pods, 10)
    for _ in range(20):
        assert world.looked(server)
    said = broken(world, server)
    assert "4 Insufficient nvidia.com/gpu" in said
    assert "for 20 s" in said
    server.stop(5)


def test_a_gpu_that_comes_free_in_time_is_taken(world: World) -> None:
    pods: list[Pod] = []

    def behave(pod: Pod) -> None:
        pods.append(pod)
        pod.is_unschedulable("0/4 nodes are available: 4 Insufficient nvidia.com/gpu.")

    server = world.started(behave, unschedulable_seconds=20.0)
    assert wait_for(lambda: pods, 10)
    for _ in range(15):
        assert world.looked(server)
    pods[0].runs()
    for _ in range(3):
        assert world.looked(server)
    pods[0].is_unschedulable("again")
    for _ in range(15):
        assert world.looked(server), "counted anew"
    server.stop(5)


def test_an_error_of_ome_before_there_is_any_pod(world: World) -> None:
    world.kube.delete("clusterservingruntimes", "vllm-tiny")
    server = world.started()
    said = broken(world, server)
    assert "OME: RuntimeFetchError" in said
    assert "vllm-tiny" in said
    server.stop(5)


def test_a_controller_that_does_nothing_is_noticed(world: World) -> None:
    world.ome.asleep = True
    server = world.started(unschedulable_seconds=30.0)
    assert "is its controller running" in broken(world, server)
    server.stop(5)


def test_who_deletes_a_running_server_is_not_the_parameters(world: World) -> None:
    server = world.started()
    ready(world, server)
    world.kube.delete(SERVICES, server.name, NS)
    assert "deleted" in broken(world, server)
    server.stop(5)


def test_a_drained_node_is_not_the_parameters(world: World) -> None:
    server = world.started()
    ready(world, server)
    (pod,) = world.kube.find("pods")
    world.ome.asleep = True
    world.kube.delete("pods", pod["metadata"]["name"], NS)
    assert "drained" in broken(world, server)
    world.kube.patch("pods", pod["metadata"]["name"], {"metadata": {"finalizers": None}}, NS)
    world.ome.asleep = False
    server.stop(5)


def test_a_webhooks_refusal_is_told_in_its_words(world: World) -> None:
    with pytest.raises(InfrastructureError, match=r"base model 'other' not found"):
        world.started(model="other")


def test_a_webhook_that_does_not_answer_is_told(world: World) -> None:
    def down(resource: object, item: object) -> None:
        raise Refused(
            500,
            "InternalError",
            'Internal error occurred: failed calling webhook "inferenceservice": '
            "context deadline exceeded",
        )

    world.kube.admission.append(down)
    with pytest.raises(InfrastructureError, match="failed calling webhook"):
        world.started()


def test_a_missing_right_is_named(world: World) -> None:
    world.kube.denied.add(("create", SERVICES))
    with pytest.raises(InfrastructureError, match=r"cannot create.*rbac\.yaml"):
        world.started()


def test_a_namespace_that_is_not_there_is_named(world: World) -> None:
    options = OMEOptions(**OPTIONS, namespace="nowhere")
    plan = OME.open(options.model_dump(), Site()).plan(LAUNCH, Slot(STUDY, 1, 1, "/tmp"))
    with pytest.raises(InfrastructureError, match=r'namespaces "nowhere" not found'):
        OMEServer(Cluster("nowhere"), plan, options)


def test_an_api_server_away_for_a_moment_is_borne_and_then_not(world: World) -> None:
    server = world.started(lease_seconds=10)
    ready(world, server)
    world.kube.denied |= {("get", SERVICES)}
    for _ in range(9):
        assert world.looked(server)
    world.kube.denied.clear()
    assert world.looked(server)
    world.kube.denied |= {("get", SERVICES)}
    for _ in range(9):
        assert world.looked(server)
    with pytest.raises(InfrastructureError, match="cannot get"):
        world.looked(server)
    world.kube.denied.clear()
    server.stop(5)


def test_a_finalizer_that_stays_is_said(world: World) -> None:
    server = world.started()
    ready(world, server)
    world.ome.asleep = True

    def slept(seconds: float) -> None:
        world.clock.now += 10 * seconds

    server._sleep = slept
    with pytest.raises(InfrastructureError, match=r"inferenceservice\.finalizers"):
        server.stop(5)
    world.ome.asleep = False
    world.kube.patch(SERVICES, server.name, {"metadata": {"finalizers": None}}, NS)
    world.ome.asleep = True
    with pytest.raises(InfrastructureError, match=f"pods {server.name}-engine"):
        server.stop(5)
    (pod,) = world.kube.find("pods")
    world.kube.patch("pods", pod["metadata"]["name"], {"metadata": {"finalizers": None}}, NS)
    server.stop(5)


# Leases and sweeps.


def renewals(world: World) -> int:
    return sum(each.method == "PATCH" for each in world.kube.requests)


def test_a_lease_is_renewed_by_looking_and_not_too_often(world: World) -> None:
    server = world.started(stays_pending, lease_seconds=20)
    for _ in range(4):
        assert world.looked(server)
    assert renewals(world) == 0
    world.looked(server)
    assert renewals(world) == 1
    for _ in range(20):
        world.looked(server)
    assert renewals(world) == 5
    requests = len(world.kube.requests)
    assert server.alive()
    assert len(world.kube.requests) == requests, "asked again within the second"
    server.stop(5)


def owned_by(world: World, owner: str, *, ago: float = 0) -> None:
    """As if the only server's owner were another, silent for so long."""
    now = Cluster(NS).now().timestamp() - ago
    said = datetime.fromtimestamp(now, UTC).isoformat()
    annotations = {"autotuner.io/owner": owner, "autotuner.io/renewed-at": said}
    name = world.service()["metadata"]["name"]
    world.kube.patch(SERVICES, name, {"metadata": {"annotations": annotations}}, NS)


def test_a_sweep_spares_the_living_and_takes_the_silent(world: World) -> None:
    server = world.started()
    backend = world.backend()
    assert backend.left(STUDY) == [f"InferenceService {NS}/{server.name} of study {STUDY}, trial 7"]
    assert backend.left("another") == []
    assert backend.sweep(STUDY) == [], "its owner is this process"
    owned_by(world, ELSEWHERE, ago=50)
    assert backend.sweep() == [], "its lease still holds"
    owned_by(world, ELSEWHERE, ago=61)
    assert backend.sweep("another") == []
    assert backend.sweep(STUDY) == backend.left(STUDY) or not backend.left(STUDY)
    assert wait_for(lambda: not world.kube.find("pods"), 10)
    assert backend.left() == backend.sweep() == []


def test_a_sweep_of_all_takes_the_living_too_when_told(world: World) -> None:
    world.started()
    assert world.backend().sweep("another", owned=True) == []
    assert len(world.backend().sweep(STUDY, owned=True)) == 1
    assert wait_for(lambda: not world.kube.find("pods"), 10)


def test_an_owner_that_speaks_up_in_time_is_spared(world: World) -> None:
    world.started()
    owned_by(world, ELSEWHERE, ago=61)
    found = Cluster(NS).services("")
    owned_by(world, ELSEWHERE)
    with pytest.raises(InfrastructureError, match="Precondition failed"):
        Cluster(NS).delete(found[0], unchanged=True)
    assert world.backend().sweep() == []


def test_what_somebody_applied_by_hand_is_left_alone(world: World) -> None:
    by_hand = world.plan().request["manifest"]
    world.kube.create(SERVICES, by_hand)
    assert world.backend().sweep() == []
    assert len(world.backend().left()) == 1


OWNER = """
import sys, time
from pathlib import Path
from tests.integration.test_ome_backend import LAUNCH, OPTIONS, STUDY
from autotuner.backends.ome import OME, OMEServer
from autotuner.backends.ome_cluster import Cluster
from autotuner.backends.ome_manifest import OMEOptions
from autotuner.serving import Slot
from autotuner.settings import Site
options = {**OPTIONS, "lease_seconds": int(sys.argv[2])}
plan = OME.open(options, Site()).plan(LAUNCH, Slot(STUDY, 7, 1, sys.argv[1]))
server = OMEServer(Cluster("autotuner"), plan, OMEOptions(**options))
print("started", flush=True)
while True:
    server.alive()
    time.sleep(0.5)
"""


@contextmanager
def owner(world: World, lease: int) -> Iterator[subprocess.Popen[str]]:
    """A process that starts a server and looks after it, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(world.directory), str(lease)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "started"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_killed_by_sigkill_its_server_is_swept_at_once_from_its_own_machine(world: World) -> None:
    with owner(world, lease=60) as process:
        assert wait_for(lambda: world.kube.find("pods"), 10)
        assert world.backend().sweep() == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(world.backend().sweep()) == 1
    assert wait_for(lambda: not world.kube.find("pods"), 10)


def test_killed_by_sigkill_its_server_is_gone_within_a_lease_from_anywhere_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As another machine sees it: its process cannot be looked for.
    monkeypatch.setattr("autotuner.backends.ome.lives", lambda owner: None)
    with owner(world, lease=8) as process:
        assert wait_for(lambda: world.kube.find("pods"), 10)
        for _ in range(5):
            assert not wait_for(lambda: world.backend().sweep(), 2), "it is looked after"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # Times are in whole seconds, and the sweep looks ten times a second.
        assert wait_for(lambda: world.backend().sweep(), 9.5)
    assert wait_for(lambda: not world.kube.find("pods"), 10)


# Looking before starting.


def inspections(backend: Backend, launch: LaunchSpec | None = LAUNCH) -> dict[str, tuple[Any, str]]:
    return {each.name: (each.ok, f"{each.said} {each.hint}") for each in backend.examine(launch)}


def test_a_cluster_in_order_is_found_in_order(world: World) -> None:
    world.kube.create("customresourcedefinitions", crd("certificates.cert-manager.io"))
    found = inspections(world.backend())
    assert {name for name, (ok, _) in found.items() if ok is not True} == set(), found
    assert found["Kubernetes"][1].startswith("v1.33.0-fake at http://127.0.0.1:")
    assert {"OME", "cert-manager", "model", "runtime", "right to pods/portforward"} <= set(found)
    assert "right to pods/portforward" not in inspections(world.backend(reach="url"))


def crd(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"versions": []}}


def without_ome(world: World) -> None:
    world.kube.delete("customresourcedefinitions", "inferenceservices.ome.io")


def without_model(world: World) -> None:
    world.kube.delete("clusterbasemodels", "tiny")


def formatless(world: World) -> None:
    world.kube.patch("clusterbasemodels", "tiny", {"spec": {"modelFormat": None}})


def in_transit(world: World) -> None:
    world.kube.set_status("clusterbasemodels", "tiny", {"state": "In_Transit"})


def without_runtime(world: World) -> None:
    world.kube.delete("clusterservingruntimes", "vllm-tiny")


def with_a_launch_line_in_command(world: World) -> None:
    line = {"command": ["python3", "-m", "vllm", "--model", "$(MODEL_PATH)"], "args": None}
    patch = {"spec": {"engineConfig": {"runner": line}}}
    world.kube.patch("clusterservingruntimes", "vllm-tiny", patch)


def without_right(world: World) -> None:
    world.kube.denied.add(("get", "pods/log"))


def old_without_keda(world: World) -> None:
    without_ome(world)
    schema: dict[str, Any] = {"properties": {"spec": {"properties": {"engine": {}}}}}
    version = {"name": "v1beta1", "storage": True, "schema": {"openAPIV3Schema": schema}}
    definition = crd("inferenceservices.ome.io") | {"spec": {"versions": [version]}}
    world.kube.create("customresourcedefinitions", definition)


@pytest.mark.parametrize(
    ("change", "name", "words", "stops"),
    [
        (without_ome, "OME", "no inferenceservices.ome.io is defined", False),
        (lambda world: None, "cert-manager", "no certificates.cert-manager.io", False),
        (old_without_keda, "KEDA", "restart OME's controller", False),
        (without_right, "right to pods/log", "not allowed in autotuner: get", False),
        (without_model, "model", "no ClusterBaseModel 'tiny'", True),
        (formatless, "model", "modelFormat, modelFramework", True),
        (in_transit, "model", "In_Transit", True),
        (without_runtime, "runtime", "no ClusterServingRuntime 'vllm-tiny'", True),
        (with_a_launch_line_in_command, "runtime", "arguments: append", True),
    ],
)
def test_what_is_missing_is_found_and_named(
    world: World, change: Callable[[World], None], name: str, words: str, stops: bool
) -> None:
    change(world)
    found = inspections(world.backend())
    assert found[name][0] is False
    assert words in found[name][1]
    if stops:
        with pytest.raises(InfrastructureError, match=re.escape(words)):
            world.backend().prepare(LAUNCH, lambda text: None)


def test_what_we_may_not_look_at_stops_nothing(world: World) -> None:
    world.kube.denied |= {("get", "clusterbasemodels"), ("get", "clusterservingruntimes")}
    found = inspections(world.backend())
    assert found["model"][0] is None
    assert found["runtime"][0] is None
    assert found["right to clusterbasemodels.ome.io"][0] is None
    world.backend().prepare(LAUNCH, lambda text: None)


def test_prepared_once_asks_no_more(world: World) -> None:
    backend = world.backend()
    said: list[str] = []
    backend.prepare(LAUNCH, said.append)
    asked = len(world.kube.requests)
    backend.prepare(replace(LAUNCH, flags=()), said.append)
    assert len(world.kube.requests) == asked
    assert len(said) == 1


def test_a_cluster_that_is_not_there_is_a_finding_and_an_operators_error(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeKube() as short:
        gone = short.kubeconfig(tmp_path / "gone")
    monkeypatch.setenv("KUBECONFIG", str(gone))
    (found,) = world.backend().examine()
    assert (found.name, found.ok) == ("Kubernetes", False)
    with pytest.raises(InfrastructureError, match="does not answer"):
        world.backend().sweep()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (found,) = world.backend().examine()
    assert "KUBECONFIG" in found.said
