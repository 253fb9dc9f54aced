"""The Docker backend against a real daemon: what every backend promises, and what is Docker's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from autotuner.addresses import free_port
from autotuner.backends.base import Backend, Server
from autotuner.backends.container import container_name
from autotuner.backends.docker import DOCKER
from autotuner.backends.guarded import process_identity
from autotuner.backends.owners import this_owner
from autotuner.errors import FailureClass, InfrastructureError
from autotuner.serving import LaunchSpec, Slot
from autotuner.settings import Site
from tests import dockerd
from tests.dockerd import daemon
from tests.processes import wait_for

__all__ = ["daemon"]

pytestmark = pytest.mark.slow

STUDY = "docker-contract"
TOKEN = "hf_a-token-of-the-tests"
IGNORES_SIGTERM = "trap '' TERM; echo first line; while true; do sleep 1; done"


@pytest.fixture(scope="module", autouse=True)
def _image(daemon: str) -> None:
    dockerd.busybox_image(daemon)


@pytest.fixture(autouse=True)
def _nothing_is_left(daemon: str) -> Iterator[None]:
    yield
    left = [each["Names"][0] for each in dockerd.containers(daemon)]
    for name in left:
        dockerd.remove(daemon, name.lstrip("/"))
    assert left == []


def backend(site: Site | None = None, **options: Any) -> Backend:
    return DOCKER.open(options, site or Site())


def launch(script: str, model: Path, **changes: Any) -> LaunchSpec:
    said: dict[str, Any] = {
        "command": ("/bin/sh", "-c"),
        "arguments": (script,),
        "environment": {"CONTRACT": "two words"},
        "image": dockerd.BUSYBOX,
        "model_path": str(model),
        "served_name": "none",
        "port": 1,
        **changes,
    }
    return LaunchSpec(**said)


def start(
    script: str,
    directory: Path,
    *,
    of: Backend | None = None,
    gpus: tuple[str, ...] = (),
    **changes: Any,
) -> Server:
    of = of or backend()
    directory.mkdir(exist_ok=True)
    return of.start(of.plan(launch(script, directory, **changes), slot(directory, gpus)))


def slot(directory: Path, gpus: tuple[str, ...] = ()) -> Slot:
    return Slot(STUDY, 7, port=1, directory=str(directory), gpu_ids=gpus)


def ended(server: Server) -> Server:
    assert wait_for(lambda: not server.alive(), 20)
    return server


def test_the_log_is_there_while_it_runs_and_whole_after_death(daemon: str, tmp_path: Path) -> None:
    script = "echo first; printf unfinished; sleep 1; echo; echo last >&2; exit 3"
    server = start(script, tmp_path)
    log = tmp_path / "server.log"
    assert wait_for(lambda: "first" in log.read_text(), 10)
    assert server.alive()
    ended(server)
    assert sorted(server.log().split()) == ["first", "last", "unfinished"]
    assert server.ending().exit_code == 3
    assert server.ending().failure is None
    server.stop(20)
    assert dockerd.containers(daemon, STUDY) == []
    assert sorted(log.read_text().split()) == ["first", "last", "unfinished"]


def test_a_server_beyond_its_memory_is_known_for_it(tmp_path: Path) -> None:
    hungry = "echo first; exec dd if=/dev/zero of=/dev/null bs=200M count=1"
    server = ended(start(hungry, tmp_path, of=backend(memory="32m")))
    ending = server.ending()
    assert (ending.exit_code, ending.failure) == (137, FailureClass.HOST_MEMORY)
    assert server.log().splitlines()[0] == "first"
    server.stop(20)


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program", "/etc/"])
def test_a_program_that_is_not_in_the_image_leaves_no_container(
    daemon: str, tmp_path: Path, program: str
) -> None:
    server = start("", tmp_path, command=(program,))
    assert not server.alive()
    ending = server.ending()
    assert ending.failure is FailureClass.NOT_INSTALLED
    assert program.rstrip("/") in ending.reason
    assert dockerd.BUSYBOX in ending.reason
    assert program.rstrip("/") in server.log()
    assert dockerd.containers(daemon, STUDY) == []
    server.stop(5)


def test_a_machine_without_nvidias_runtime_is_the_operators(daemon: str, tmp_path: Path) -> None:
    inspections = {each.name: each for each in backend().examine(launch("", tmp_path, gpus=1))}
    if inspections["docker GPUs"].ok:
        pytest.skip("this machine has NVIDIA's container runtime")
    with pytest.raises(InfrastructureError, match="NVIDIA Container Toolkit"):
        start("true", tmp_path, gpus=("0",))
    assert dockerd.containers(daemon, STUDY) == []


def test_a_model_that_is_not_on_the_machine_is_the_operators(daemon: str, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"/no/such/model.*on every node"):
        start("true", tmp_path, model_path="/no/such/model")
    assert dockerd.containers(daemon, STUDY) == []


def test_stop_ends_what_ignores_it_and_may_be_called_twice(daemon: str, tmp_path: Path) -> None:
    server = start(IGNORES_SIGTERM, tmp_path)
    assert wait_for(lambda: "first line" in server.log(), 10)
    server.stop(20)
    assert dockerd.containers(daemon, STUDY) == []
    assert not server.alive()
    server.stop(20)
    assert server.log() == "first line\n"


def test_a_container_that_somebody_removed_is_a_dead_server(daemon: str, tmp_path: Path) -> None:
    server = start("echo first; sleep 600", tmp_path)
    assert wait_for(lambda: "first" in server.log(), 10)
    dockerd.remove(daemon, server.name)
    assert not server.alive()
    assert "removed by somebody else" in server.ending().reason
    assert server.log() == "first\n"
    server.stop(20)


def test_a_port_is_published_on_this_machine_and_given_once(daemon: str, tmp_path: Path) -> None:
    port = free_port()
    script = f"echo fine > /tmp/health; exec httpd -f -p 0.0.0.0:{port} -h /tmp"
    with dockerd.network(daemon, "autotuner-test") as name:
        of = backend(network=name)
        server = start(script, tmp_path, of=of, port=port)
        assert wait_for(lambda: answer(f"{server.url}/health") == "fine\n", 10)
        other = start(script, tmp_path / "other", of=of, port=port)
        assert not other.alive()
        assert other.ending().failure is FailureClass.PORT
        other.stop(5)
        assert server.alive()
        server.stop(20)


def answer(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=2) as found:
            return str(found.read().decode())
    except OSError:
        return ""


def test_what_the_container_sees(tmp_path: Path) -> None:
    models, cache = tmp_path / "models", tmp_path / "hub"
    models.mkdir()
    (models / "config.json").write_text("{}")
    script = (
        f"cat {models}/config.json; (echo x > {models}/new) 2>/dev/null || echo read-only; "
        f"echo y > {cache}/new; echo $CONTRACT $HF_HOME"
    )
    site = Site(models=models, hub_cache=cache)
    server = ended(start(script, tmp_path, of=backend(site), model_path=str(models)))
    assert server.log() == f"{{}}read-only\ntwo words {cache}\n"
    assert (cache / "new").read_text() == "y\n"
    server.stop(20)


def test_secrets_reach_the_server_and_nothing_that_is_kept(daemon: str, tmp_path: Path) -> None:
    site = Site(
        hf_token=SecretStr(TOKEN),
        https_proxy=SecretStr("http://user:a-password@proxy:3128"),
    )
    of = backend(site)
    script = "test $HF_TOKEN = $HUGGING_FACE_HUB_TOKEN && echo same; echo $HF_TOKEN $https_proxy"
    plan = of.plan(launch(script, tmp_path), slot(tmp_path))
    server = of.start(plan)
    found = dockerd.inspected(daemon, server.name)
    assert f"HF_TOKEN={TOKEN}" in found["Config"]["Env"]
    ended(server)
    server.stop(20)
    assert server.log() == "same\n*** http://user:***@proxy:3128\n"
    kept = json.dumps([plan.to_json(), found["Config"]["Labels"], found["Name"]])
    assert plan.request["secrets"] == [
        *("HF_TOKEN", "HTTPS_PROXY", "HUGGING_FACE_HUB_TOKEN", "NO_PROXY"),
        *("https_proxy", "no_proxy"),
    ]
    assert TOKEN not in kept
    assert "a-password" not in kept
    for reaper in dockerd.reapers(daemon):
        seen = [*reaper.cmdline(), *reaper.environ().values()]
        assert not any(TOKEN in each or "a-password" in each for each in seen)


OWNER = """
import sys, time
from pathlib import Path
from tests.integration.test_docker_backend import IGNORES_SIGTERM, start
server = start(IGNORES_SIGTERM, Path(sys.argv[1]))
print("started", flush=True)
time.sleep(600)
"""


def owner(directory: Path) -> subprocess.Popen[str]:
    """A process that starts a server and then only waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "started"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_started_is_gone_soon_after_its_owner(
    daemon: str, tmp_path: Path, number: int
) -> None:
    process = owner(tmp_path)
    assert len(dockerd.containers(daemon, STUDY)) == 1
    assert len(dockerd.reapers(daemon)) == 1
    os.kill(process.pid, number)
    process.communicate()
    assert wait_for(lambda: not dockerd.containers(daemon, STUDY), backend().gone_seconds)


def test_a_sweep_removes_what_has_no_owner_in_any_state(daemon: str, tmp_path: Path) -> None:
    process = owner(tmp_path)
    dockerd.end_reapers(daemon)  # they would be first
    assert backend().sweep(STUDY) == []
    gone = dead_owner(process)
    dockerd.put(daemon, "dead-created", labels(gone), start=False)
    dockerd.put(daemon, "dead-running", labels(gone))
    dockerd.put(daemon, "alive", labels(this_owner()))
    dockerd.put(daemon, "elsewhere", labels("another-host a-boot pid:[1] 1:1"))
    dockerd.put(daemon, "no-owner", {"autotuner.study": STUDY})
    assert len(backend().left(STUDY)) == 6
    assert sum("whose owner cannot be seen" in each for each in backend().left(STUDY)) == 2
    assert backend().sweep("another-study", owned=True) == []
    removed = sorted(each.split()[1] for each in backend().sweep(STUDY))
    assert removed[0].startswith(f"autotuner-{STUDY}-7-")
    assert removed[1:] == ["dead-created", "dead-running"]
    assert sorted(each.split()[1] for each in backend().sweep(STUDY, owned=True)) == [
        *("alive", "elsewhere", "no-owner"),
    ]
    assert backend().left(STUDY) == []


def labels(owner: str) -> dict[str, str]:
    return {"autotuner.study": STUDY, "autotuner.trial": "1", "autotuner.owner": owner}


def dead_owner(process: subprocess.Popen[str]) -> str:
    """The label of a process, which is then killed."""
    host, boot, namespace, _ = this_owner().split(" ")
    start = process_start(process.pid)
    process.kill()
    process.communicate()
    return f"{host} {boot} {namespace} {process.pid}:{start}"


def process_start(pid: int) -> str:
    return process_identity(pid).partition(":")[2]


def test_a_second_attempt_takes_the_name_of_a_dead_one_and_not_of_a_living(
    daemon: str, tmp_path: Path
) -> None:
    process = owner(tmp_path)
    with pytest.raises(InfrastructureError, match=rf"autotuner-{STUDY}-7-\w+ already"):
        start("true", tmp_path)
    assert [each["State"] for each in dockerd.containers(daemon, STUDY)] == ["running"]
    dockerd.end_reapers(daemon)  # the name is to be taken still
    dead_owner(process)
    server = ended(start("echo second", tmp_path))
    assert server.log() == "second\n"
    server.stop(20)


def test_a_strangers_container_is_left_alone(daemon: str, tmp_path: Path) -> None:
    name = container_name(slot(tmp_path))
    dockerd.put(daemon, name, {})
    with pytest.raises(InfrastructureError, match="not ours"):
        start("true", tmp_path)
    assert backend().sweep(owned=True) == []
    dockerd.remove(daemon, name)


def test_examine_says_what_is_there_and_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, known = backend(), launch("", tmp_path)
    inspections = {each.name: each for each in of.examine(known)}
    assert inspections["docker"].ok
    assert inspections["docker image"].ok
    assert inspections["docker disk"].said
    unknown = {each.name: each for each in of.examine(launch("", tmp_path, image="nope:1"))}
    assert (unknown["docker image"].ok, unknown["docker image"].said) == (
        None,
        "nope:1 is not here yet",
    )
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/socket")
    (missing,) = of.examine(known)
    assert missing.ok is False
    assert "/no/such/socket" in missing.said
    with pytest.raises(InfrastructureError, match="/no/such/socket"):
        of.prepare(known, lambda text: None)
    # A cluster's head node may have no Docker, and then nothing of ours either.
    assert of.left() == of.sweep() == []


def test_an_image_that_is_here_is_not_asked_for(tmp_path: Path) -> None:
    said: list[str] = []
    backend().prepare(launch("", tmp_path), said.append)
    assert said == []


def test_an_image_that_cannot_be_had_is_named_with_the_registrys_words(tmp_path: Path) -> None:
    wanted = launch("", tmp_path, image="localhost:1/none:2")
    with pytest.raises(InfrastructureError, match=r"localhost:1/none:2.*refused.*docker pull"):
        backend().prepare(wanted, lambda text: None)


def test_several_at_once_pull_an_image_once(daemon: str, tmp_path: Path) -> None:
    with dockerd.registry("small", "1") as served:
        wanted = launch("", tmp_path, image=f"{served.address}/small:1")
        said: list[str] = []
        pulls = [
            threading.Thread(target=backend().prepare, args=(wanted, said.append)) for _ in range(3)
        ]
        for each in pulls:
            each.start()
        for each in pulls:
            each.join()
        assert served.blobs_sent == 2  # its configuration and its one layer
        assert sum("is here" in each for each in said) == 1
    server = ended(start("echo pulled", tmp_path, image=wanted.image))
    assert server.log() == "pulled\n"
    server.stop(20)
