"""What the earlier system knew of places for servers, row by row of the list of its features and
of its bugs (D, H, N, BG), where no other test would notice that it is gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from socket import create_connection, create_server
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import SecretStr

from autotuner.addresses import free_port
from autotuner.backends import docker, process
from autotuner.backends.docker import DOCKER
from autotuner.backends.ome import OMEServer
from autotuner.backends.ome_cluster import Cluster
from autotuner.backends.ome_forward import Far, Forward
from autotuner.backends.ome_manifest import (
    BENCHMARK_JOB_RIGHTS,
    CLUSTER_RIGHTS,
    FORWARD_RIGHTS,
    RIGHTS,
    OMEOptions,
    as_yaml,
    inference_service,
)
from autotuner.backends.owners import this_owner
from autotuner.backends.process import PROCESS
from autotuner.benchmarks import ome_job_program
from autotuner.benchmarks.genai_bench import GENAI_BENCH
from autotuner.benchmarks.ome_job import OME_JOB
from autotuner.cli import cli
from autotuner.engines.base import Engine
from autotuner.engines.sglang import SGLANG
from autotuner.engines.simulated import SIMULATED
from autotuner.engines.vllm import VLLM
from autotuner.errors import ConfigError, FailureClass, InfrastructureError, TrialError
from autotuner.execution import loadrunner
from autotuner.execution import trial as execution
from autotuner.execution.gate import GATE_SECONDS
from autotuner.execution.loadrunner import LoadRunner
from autotuner.execution.nvidia import Gauge, GpuMemory
from autotuner.execution.readiness import NotReady, ServerDied, wait_ready
from autotuner.execution.reservation import Reservation, granted
from autotuner.execution.trial import Assignment, Kinds, TrialRun
from autotuner.job import load_job
from autotuner.kube import Missing
from autotuner.plan import plan
from autotuner.plugins import kinds, load_kind
from autotuner.report.text import plan_text
from autotuner.serving import HERE, Ending, Endpoint, LaunchSpec, Place, Plan, Slot
from autotuner.settings import Settings, Site
from autotuner.study.metrics import Measurement
from autotuner.study.trial import TrialState
from autotuner.study.workload import Load
from tests.builders import measurement, request, spec, study_content
from tests.processes import wait_for
from tests.trials import run_trial

ROOT = Path(__file__).parent.parent.parent
RECORDED = ROOT / "tests" / "data" / "genai-bench" / "load-0" / "results"
ENGINES: dict[str, Engine] = {"sglang": SGLANG, "vllm": VLLM}


class Clock:
    """Stands still but for those who sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


# D-01, D-17: the places there are.


def test_d01_d17_a_server_is_a_process_a_container_or_an_inference_service() -> None:
    assert {"process", "docker", "ome"} <= set(kinds("backend"))
    opened = [load_kind("backend", kind).open({}, Site()) for kind in ("process", "docker", "ome")]
    assert [each.place.image for each in opened] == [False, True, True]


# D-04: ports.


def test_d04_a_port_is_one_of_the_sites_that_nothing_listens_on() -> None:
    with create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InfrastructureError, match=f"no free port found from {port} to {port}"):
            free_port((port, port))
    assert free_port((port, port)) == port


# D-05, D-20, BG-03: what an engine's command line says of the model, in a container.


@pytest.mark.parametrize("kind", ENGINES)
def test_d05_bg03_a_container_serves_a_directory_that_it_has_and_no_variable_of_a_shell(
    kind: str,
) -> None:
    site = Site(models=Path("/models"))
    backend = DOCKER.open({}, site)
    for model, mounts in (
        ("/models/tiny", ["/models"]),
        ("/elsewhere/tiny", ["/elsewhere/tiny", "/models"]),
        ("org/tiny", ["/models", str(Path.home() / ".cache" / "huggingface")]),
    ):
        study = spec(engine={"kind": kind}, model={"path": model})
        launch = ENGINES[kind].launch(study, {}, port=23456, place=backend.place)
        create = backend.plan(launch, Slot("small", 1, 23456, "/out")).request["create"]
        assert create["Cmd"][1] == model
        assert [each["Target"] for each in create["HostConfig"]["Mounts"]] == mounts
        assert not any("$" in each for each in (*create["Entrypoint"], *create["Cmd"]))


# D-06, D-08, D-20, N-03, BG-37, BG-41: the life of a container.


class Daemon:
    """Docker's daemon, as far as one container asks it. The container ends by itself.

    Args:
        refusal: what is said of a program that cannot start.
        forgets: names of variables that the container is made without.
        running: the container ends only when it is told to.
    """

    def __init__(
        self,
        log: bytes = b"",
        *,
        refusal: str | None = None,
        forgets: Sequence[str] = (),
        running: bool = False,
    ) -> None:
        self._running = running
        self.body: dict[str, Any] = {}
        self.done: list[str] = []
        self._log, self._refusal, self._forgets = log, refusal, forgets

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None: ...

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        self.body = dict(body)
        self.done.append("create")
        return "id"

    def inspect(self, container: str) -> dict[str, Any] | None:
        if "remove" in self.done:
            return None
        kept = [each for each in self.body["Env"] if each.partition("=")[0] not in self._forgets]
        state = {"Running": self._running, "ExitCode": 3, "OOMKilled": False}
        return {"Id": "id", "Config": {"Env": kept}, "State": state}

    def start(self, container: str) -> str | None:
        self.done.append("start")
        return self._refusal

    def logs(self, container: str) -> bytes | None:
        self.done.append("logs")
        return None if "remove" in self.done else self._log

    def follow(self, container: str) -> Iterator[bytes]:
        yield self._log[:10]  # and then the connection is lost

    def stop(self, container: str, grace: float, *, within: float) -> None:
        self._running = False

    def remove(self, container: str, *, within: float = 0.0) -> None:
        self.done.append("remove")

    def close(self) -> None: ...


SECRET = Site(hf_token=SecretStr("hf_not_to_be_seen"), https_proxy=SecretStr("http://a:pw@p:1"))


def contained(
    daemon: Daemon, directory: Path, monkeypatch: pytest.MonkeyPatch, site: Site = SECRET
) -> Any:
    """A server in a container, without a reaper."""
    monkeypatch.setattr(docker, "_Daemon", lambda: daemon)
    launch = VLLM.launch(spec(engine={"kind": "vllm"}), {}, port=1)
    plan = DOCKER.open({}, site).plan(launch, Slot("small", 7, 1, str(directory)))
    return docker._Container(daemon, plan.request, site.environment())  # type: ignore[arg-type]


def test_d06_bg37_bg41_a_dead_containers_log_is_read_whole_and_then_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = "the first line\n" + "line\n" * 5000 + "ValueError: no room\n"
    daemon = Daemon(log.encode())
    server = contained(daemon, tmp_path, monkeypatch)
    assert "AutoRemove" not in daemon.body["HostConfig"], "it loses exit code and log"
    assert not server.alive(), "D-08: at once"
    assert server.ending() == Ending(3)
    server.stop(10)
    assert daemon.done.index("logs") < daemon.done.index("remove")
    assert server.log() == log
    assert (tmp_path / "server.log").read_text() == log


def test_d06_bg37_the_log_of_a_container_that_is_stopped_is_read_whole_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = "the first line\n" + "line\n" * 5000
    server = contained(Daemon(log.encode(), running=True), tmp_path, monkeypatch)
    assert server.alive()
    server.stop(10)
    assert server.log() == log


class SDK:
    """Docker's client, as far as it reads logs."""

    def __init__(self, log: Sequence[bytes]) -> None:
        self._log = log

    def logs(self, container: str, *, tail: int | str = "all", **_: Any) -> Any:
        return b"".join(self._log if tail == "all" else self._log[-int(tail) :])


def test_bg41_the_log_of_a_container_begins_with_its_first_line() -> None:
    lines = [f"{number}\n".encode() for number in range(20_000)]
    daemon = object.__new__(docker._Daemon)
    daemon._api, daemon._failures = SDK(lines), (OSError,)  # type: ignore[assignment]
    assert daemon.logs("id") == b"".join(lines)


def test_d20_n02_bg63_a_container_gets_the_token_the_proxies_and_an_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon()
    contained(daemon, tmp_path, monkeypatch).stop(10)
    assert set(daemon.body["Env"]) >= {
        *("HF_TOKEN=hf_not_to_be_seen", "HUGGING_FACE_HUB_TOKEN=hf_not_to_be_seen"),
        *("HTTPS_PROXY=http://a:pw@p:1", "https_proxy=http://a:pw@p:1"),
    }
    assert not any(each.upper().startswith("HTTP_PROXY") for each in daemon.body["Env"])
    assert daemon.body["Labels"]["autotuner.owner"] == this_owner()


def test_n03_a_container_without_what_was_asked_is_told_by_names_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(forgets=["HF_TOKEN"])
    with pytest.raises(InfrastructureError, match=r"HF_TOKEN=\*\*\*") as caught:
        contained(daemon, tmp_path, monkeypatch)
    assert "hf_not" not in str(caught.value)
    assert daemon.done == ["create", "remove"]


def test_bg20_a_program_that_is_not_there_leaves_its_reason_and_no_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = 'exec: "python3": executable file not found in $PATH: unknown'
    daemon = Daemon(refusal=said)
    server = contained(daemon, tmp_path, monkeypatch)
    assert daemon.done == ["create", "start", "remove"]
    assert not server.alive()
    assert server.ending().failure is FailureClass.NOT_INSTALLED
    assert said in (tmp_path / "server.log").read_text()


def test_d20_n02_bg40_a_process_gets_them_too_and_none_to_itself(tmp_path: Path) -> None:
    names = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTPS_PROXY", "https_proxy", "no_proxy"]
    told = tmp_path / "told"
    code = f"import os; open({str(told)!r}, 'w').write(' '.join(map(os.environ.get, {names})))"
    launch = SIMULATED.launch(spec(), {}, port=1)
    launch = replace(launch, command=(sys.executable,), arguments=("-c", code))
    backend = PROCESS.open({}, SECRET)
    plan = backend.plan(launch, Slot("small", 1, 1, str(tmp_path)))
    assert "hf_not" not in json.dumps(plan.to_json())
    server = backend.start(plan)
    try:
        assert wait_for(lambda: not server.alive(), 20)
        *secrets, no_proxy = told.read_text().split()
        assert secrets == ["hf_not_to_be_seen"] * 2 + ["http://a:pw@p:1"] * 2
        assert {"127.0.0.1", "localhost"} <= set(no_proxy.split(","))
    finally:
        server.stop(10)


# D-07, D-08, BG-14, BG-40: waiting until a server serves.


class Answering(BaseHTTPRequestHandler):
    """Says 503 as often as it is told, and then that it is healthy."""

    unhealthy = 0
    model = "tiny"

    def do_GET(self) -> None:
        kind = type(self)
        if self.path == "/health":
            kind.unhealthy -= 1
        self.send_response(503 if self.path == "/health" and kind.unhealthy >= 0 else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": kind.model}]}).encode())

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(model: str = "tiny", *, unhealthy: int = 0) -> Iterator[str]:
    """The URL of a server that is healthy after so many times that it is not."""
    handler = type("Handler", (Answering,), {"model": model, "unhealthy": unhealthy})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Started:
    """A server that somebody started.

    Args:
        url: as long as it is None, it is not known yet.
        broken: what is wrong with its place.
    """

    name = "started"
    node: str | None = None

    def __init__(
        self,
        url: str | None,
        *,
        dead: bool = False,
        log: str = "",
        ending: Ending = Ending(),  # noqa: B008
        broken: InfrastructureError | None = None,
    ) -> None:
        self.url, self.dead, self.stopped = url, dead, 0
        self._log, self._ending, self._broken = log, ending, broken

    def alive(self) -> bool:
        if self._broken is not None:
            raise self._broken
        return not self.dead

    def log(self) -> str:
        return self._log

    def ending(self) -> Ending:
        return self._ending

    def stop(self, seconds: float) -> None:
        self.stopped += 1


def waited(server: Started, seconds: float = 60.0) -> float:
    """Seconds of its own clock until the server was ready."""
    clock = Clock()
    wait_ready(server, "tiny", "/health", deadline=seconds, clock=clock, sleep=clock.sleep)
    return clock.now


def test_d07_a_server_is_ready_when_its_health_says_so_and_no_later() -> None:
    with serving() as url:
        assert waited(Started(url)) == 0
    with serving(unhealthy=20) as url:
        assert waited(Started(url)) == pytest.approx(2.0)


def test_d08_what_is_dead_is_not_waited_for() -> None:
    with pytest.raises(ServerDied):
        waited(Started(None, dead=True))


def test_d07_what_never_serves_or_is_another_is_given_up_at_the_deadline() -> None:
    with pytest.raises(NotReady):
        waited(Started(None))
    with serving("of-an-earlier-trial") as url, pytest.raises(NotReady):
        waited(Started(url), seconds=1.0)
    with serving(unhealthy=10_000) as url, pytest.raises(NotReady):
        waited(Started(url), seconds=1.0)


def test_d08_what_is_doomed_is_not_waited_for() -> None:
    clock = Clock()
    with pytest.raises(NotReady):
        wait_ready(
            Started(None),
            "tiny",
            "/health",
            deadline=600,
            clock=clock,
            sleep=clock.sleep,
            doomed=lambda: clock.now >= 7,
        )
    assert clock.now == pytest.approx(10, abs=0.3), "its log is read every five seconds"


def test_d08_a_server_that_lingers_on_a_taken_port_is_the_machines_fault_within_seconds(
    tmp_path: Path, runner: type[Runner]
) -> None:
    """SGLang does, until somebody kills it."""
    log = ROOT / "tests" / "data" / "engine-logs" / "sglang-0.5.23-port.txt"
    until = "Waiting for application shutdown."
    said = log.read_text(encoding="utf-8").partition(until)[0] + until
    clock = Clock()
    given = assignment(tmp_path, engine={"kind": "sglang"}, limits={"ready_seconds": 600.0})
    kinds = replace(kinds_of(Stage(Started(None, log=said))), engine=SGLANG)
    run = TrialRun(given, kinds, clock=clock, sleep=clock.sleep)
    with pytest.raises(InfrastructureError, match=r"port taken: \[Errno 98\]"):
        run.deploy()
    run.stop()
    assert clock.now < 11


def test_bg40_no_proxy_stands_between_us_and_a_server() -> None:
    """In a process of its own: proxies are read once."""
    ask = "import sys; from autotuner.execution.readiness import models; print(models(sys.argv[1]))"
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:1")
    kept = {k: v for k, v in os.environ.items() if k.upper() != "NO_PROXY"}
    with serving() as url:
        done = subprocess.run(
            [sys.executable, "-c", ask, url],
            env={**kept, **proxies},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.strip() == "['tiny']"


# D-18, H-04, BG-05, BG-06, BG-08, BG-11, BG-63: a trial, whatever becomes of it.


class Stage:
    """A backend, as far as a trial asks it; remembers what was asked."""

    gone_seconds = 1.0

    def __init__(
        self,
        server: Started,
        *,
        gpu_resource: str = "GPU",
        place: Place = HERE,
        unprepared: InfrastructureError | None = None,
    ) -> None:
        self.gpu_resource, self.place = gpu_resource, place
        self.done: list[str] = []
        self.launch: LaunchSpec | None = None
        self.slot: Slot | None = None
        self._server, self._unprepared = server, unprepared

    def plan(self, launch: LaunchSpec, slot: Slot) -> Plan:
        self.launch, self.slot = launch, slot
        return Plan("stage", {"argv": list(launch.argv)})

    def sweep(self, study: str | None = None, *, owned: bool = False) -> list[str]:
        self.done.append("sweep of what is owned" if owned else "sweep")
        return []

    def prepare(self, launch: LaunchSpec, said: Callable[[str], None]) -> None:
        self.done.append("prepare")
        if self._unprepared is not None:
            raise self._unprepared

    def start(self, plan: Plan) -> Started:
        self.done.append("start")
        return self._server


class Runner:
    """A load generator that answers at once: with 0, or as `answers` says.

    An answer is an exit code, None where the time was up, or an error.
    """

    answers: Sequence[int | BaseException | None] = ()
    made: list[Runner]

    def __init__(self, argv: Sequence[str], directory: Path, **more: Any) -> None:
        self.argv, self.more = argv, more
        self.commands: list[list[str]] = []
        self.deadlines: list[float] = []
        self.stopped = 0
        type(self).made.append(self)

    def run(
        self,
        argv: list[str],
        into: Path,
        *,
        deadline: float,
        clock: Callable[[], float],
        watch: Callable[[], None],
    ) -> int | None:
        self.commands.append(argv)
        self.deadlines.append(deadline)
        number = len(self.commands) - 1
        answer = self.answers[number] if number < len(self.answers) else 0
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self, seconds: float) -> None:
        self.stopped += 1


class Measures:
    """genai-bench's command line, and files that say what a test wants."""

    def __init__(self, error: TrialError | None = None) -> None:
        self._error = error

    def check(self, spec: object) -> None: ...

    def command(self, *args: Any, **more: Any) -> list[str]:
        return GENAI_BENCH.command(*args, **more)

    def runner(self, tokenizer: str) -> list[str]:
        return ["runner", tokenizer]

    def seconds_at_most(self, load: Load) -> float:
        return load.seconds_at_most

    def read(self, into: Path, *, max_error_rate: float) -> Measurement:
        if self._error is not None:
            raise self._error
        return measurement(request())


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> type[Runner]:
    """The load generator of the trials of a test."""
    made = type("TheRunner", (Runner,), {"made": []})
    monkeypatch.setattr(execution, "LoadRunner", made)
    monkeypatch.setattr(execution, "LATE_DEATH_SECONDS", 0.0)
    return made


def kinds_of(stage: Stage, benchmark: Measures | None = None) -> Kinds:
    return Kinds(SIMULATED, stage, benchmark or Measures())  # type: ignore[arg-type]


def assignment(directory: Path, **changes: Any) -> Assignment:
    return Assignment(spec(**changes), 1, {}, str(directory / "trial"))


SECONDS = {"ready_seconds": 5.0, "trial_seconds": 100.0}


def test_d04_bg63_a_trial_sweeps_and_prepares_and_then_starts_on_a_port_of_the_site(
    tmp_path: Path, runner: type[Runner]
) -> None:
    with serving() as url:
        stage = Stage(Started(url))
        port = free_port()
        site = Site(ports=(port, port))
        outcome = run_trial(assignment(tmp_path), kinds_of(stage), site=site)
    assert outcome.state is TrialState.COMPLETE
    assert stage.done == ["sweep", "prepare", "start"]
    assert stage.slot is not None
    assert stage.slot.port == port
    planned = json.loads((tmp_path / "trial" / "plan.json").read_text())["request"]["argv"]
    assert planned[planned.index("--port") + 1] == str(port)


LOST = InfrastructureError("it is lost")


@pytest.mark.parametrize(
    ("server", "answers", "unread"),
    [
        ({}, [], None),
        ({"dead": True, "log": "it died"}, [], None),
        ({"broken": LOST}, [], None),
        ({}, [LOST], None),
        ({}, [None], None),
        ({}, [KeyboardInterrupt()], None),
        ({}, [], TrialError(FailureClass.BENCHMARK, "no files")),
    ],
    ids=["ended", "died", "place", "load", "time", "interrupted", "unread"],
)
def test_d18_whatever_becomes_of_a_trial_its_server_is_stopped(
    tmp_path: Path,
    runner: type[Runner],
    server: dict[str, Any],
    answers: list[Any],
    unread: TrialError | None,
) -> None:
    runner.answers = answers
    with serving() as url:
        started = Started(url, **server)
        try:
            outcome = run_trial(assignment(tmp_path), kinds_of(Stage(started), Measures(unread)))
        except (InfrastructureError, KeyboardInterrupt) as error:
            assert error is LOST or answers  # noqa: PT017
        else:
            bad = bool(server or answers or unread)
            assert outcome.state is (TrialState.INFEASIBLE if bad else TrialState.COMPLETE)
    assert started.stopped == 1
    assert [each.stopped for each in runner.made] == [1]


def test_bg05_without_its_image_nothing_is_started(tmp_path: Path, runner: type[Runner]) -> None:
    stage = Stage(Started(None), unprepared=InfrastructureError("no such image"))
    with pytest.raises(InfrastructureError, match="no such image"):
        run_trial(assignment(tmp_path), kinds_of(stage))
    assert stage.done == ["sweep", "prepare"]
    assert runner.made == []


def gated(
    directory: Path, gauge: Gauge, *, gpu_resource: str = "GPU", gpu_ids: tuple[str, ...] = ("3",)
) -> tuple[float, str]:
    """Seconds until a trial had started its server, and what its outcome remarks."""
    clock = Clock()
    with serving() as url:
        stage = Stage(Started(url), gpu_resource=gpu_resource)
        run = TrialRun(
            assignment(directory),
            kinds_of(stage),
            gpu_ids=gpu_ids,
            gauge=gauge,
            clock=clock,
            sleep=clock.sleep,
        )
        run.deploy()
        run.stop()
    assert stage.slot is not None
    assert stage.slot.gpu_ids == gpu_ids
    return clock.now, run.outcome().reason


def test_h04_bg06_a_gpu_that_others_hold_is_waited_for_and_then_remarked(
    tmp_path: Path, runner: type[Runner]
) -> None:
    full = GpuMemory(used=70.0, total=80.0)
    seconds, said = gated(tmp_path, lambda gpu: full if gpu == "3" else None)
    assert seconds >= GATE_SECONDS
    assert said == "GPU 3 held 70.0 of 80.0 GiB before the launch"
    assert gated(tmp_path / "b", lambda gpu: GpuMemory(0.5, 80.0)) == (0, "")


def test_h05_gpus_that_kubernetes_gives_are_not_looked_for_on_this_machine(
    tmp_path: Path, runner: type[Runner]
) -> None:
    full = GpuMemory(used=70.0, total=80.0)
    assert gated(tmp_path, lambda gpu: full, gpu_resource="ome_gpu") == (0, "")


def test_bg11_bg40_a_server_that_is_never_ready_is_given_up_with_its_last_words(
    tmp_path: Path, runner: type[Runner]
) -> None:
    clock = Clock()
    started = Started(None, log="the first line\nloading\n\n")
    given = assignment(tmp_path, limits={"ready_seconds": 7.0})
    run = TrialRun(given, kinds_of(Stage(started)), clock=clock, sleep=clock.sleep)
    with pytest.raises(TrialError, match="not ready after 7 s") as caught:
        run.deploy()
    run.stop()
    assert caught.value.failure is FailureClass.TIMEOUT
    assert caught.value.reason == "not ready after 7 s (limits.ready_seconds); last: loading"
    assert caught.value.advice == "raise limits.ready_seconds, or use a quieter machine"
    assert caught.value.log_tail.startswith("the first line")
    assert clock.now == pytest.approx(7.0, abs=0.2)


def test_a_server_that_the_trial_has_no_time_to_wait_for_names_that_limit(
    tmp_path: Path, runner: type[Runner]
) -> None:
    clock = Clock()
    given = assignment(tmp_path, limits={"ready_seconds": 60.0, "trial_seconds": 20.0})
    run = TrialRun(
        given, kinds_of(Stage(Started(None, log="some " * 60))), clock=clock, sleep=clock.sleep
    )
    with pytest.raises(TrialError) as caught:
        run.deploy()
    run.stop()
    said, _, last = caught.value.reason.partition("; last: ")
    assert said == "not ready after 20 s (limits.trial_seconds)"
    assert caught.value.advice.startswith("raise limits.trial_seconds")
    assert len(last) <= 200
    assert last.endswith("some some …")  # cut where it is seen, and at a word


def test_bg11_a_trial_out_of_time_keeps_what_it_measured(
    tmp_path: Path, runner: type[Runner]
) -> None:
    runner.answers = [0, None]
    clock = Clock()
    given = assignment(
        tmp_path,
        workload={"scenarios": ["D(100,20)"], "concurrency": [1, 4], "max_seconds": 30.0},
        limits={"trial_seconds": 50.0},
    )
    with serving() as url:
        run = TrialRun(given, kinds_of(Stage(Started(url))), clock=clock, sleep=clock.sleep)
        run.deploy()
        for number, load in enumerate(given.spec.loads()):
            clock.now = 10.0 * number
            if number == 0:
                run.measure(load)
                continue
            with pytest.raises(TrialError) as caught:
                run.measure(load)
        run.stop()
    outcome = run.outcome(caught.value)
    assert (outcome.state, outcome.failure) == (TrialState.INFEASIBLE, FailureClass.TIMEOUT)
    assert [each.concurrency for each in outcome.load_points] == [1]
    (only,) = runner.made
    assert only.deadlines[-1] == 50.0, "its own time would be longer than the trial's"


def test_d20_n05_a_load_generator_gets_the_sites_secrets(
    tmp_path: Path, runner: type[Runner]
) -> None:
    with serving() as url:
        run_trial(assignment(tmp_path), kinds_of(Stage(Started(url))), site=SECRET)
    (only,) = runner.made
    assert only.more["site"] == SECRET


@pytest.mark.parametrize("said", [None, "org/tokenizer"])
def test_bg08_the_tokenizer_is_the_studys_own_wherever_the_model_lies(
    tmp_path: Path, runner: type[Runner], said: str | None
) -> None:
    model = {"path": "org/tiny", "served_name": "tiny", **({"tokenizer": said} if said else {})}
    with serving() as url:
        stage = Stage(Started(url), place=Place("0.0.0.0", 8080, "$(MODEL_PATH)", image=True))
        run_trial(assignment(tmp_path, model=model), kinds_of(stage))
    assert stage.launch is not None
    assert stage.launch.model_path == "$(MODEL_PATH)"
    (only,) = runner.made
    (argv,) = only.commands
    assert argv[argv.index("--model-tokenizer") + 1] == (said or "org/tiny")
    assert only.argv == ["runner", said or "org/tiny"]


# D-09, D-10: what a person is shown.


def test_d10_a_plan_shows_the_image_that_the_study_chose(tmp_path: Path) -> None:
    engine = {"kind": "vllm", "image": "nightly-of-mine"}
    content = study_content(engine=engine, backend={"kind": "docker"}, model={"path": "org/tiny"})
    (tmp_path / "study.json").write_text(json.dumps(content), encoding="utf-8")
    shown = plan(load_job(tmp_path / "study.json"), site=Site(registry="mirror.local"))
    assert "in mirror.local/vllm/vllm-openai:nightly-of-mine" in str(plan_text(shown))
    (baseline, *_) = shown["launches"]
    asked = baseline["request"]
    assert asked["create"]["Image"] == "mirror.local/vllm/vllm-openai:nightly-of-mine"
    assert asked["name"].startswith("autotuner-small-0-"), "D-09"


# D-12, BG-01, BG-16: what Kubernetes is asked for.

LOOK_ALIKE = [
    *("on", "Off", "yes", "NO", "y", "N", "true", "null", "~", "", "007", "1_000", "1e3", "0x1f"),
    *("12:30:00", "1:30", ".5", "2026-01-01", "=", "nan", ".nan", "a: b", "- a", "x #y"),
]


def test_bg01_texts_that_look_like_something_else_stay_texts_in_exported_files() -> None:
    """kubectl reads the older YAML, in which `on` is true and `1:30` is ninety."""
    labels = {f"l{number}": each for number, each in enumerate(LOOK_ALIKE)}
    text = as_yaml([{"labels": labels, "args": LOOK_ALIKE, "count": 1, "on": True}])
    read = yaml.safe_load(text)
    assert read == {"labels": labels, "args": LOOK_ALIKE, "count": 1, "on": True}
    # Of one letter PyYAML makes no truth value, other readers do.
    assert not re.search(r"(?m)[-:] [yn]$", text, re.IGNORECASE)


def test_bg01_a_study_that_is_called_like_a_number_has_labels_that_are_texts() -> None:
    launch = VLLM.launch(spec(engine={"kind": "vllm"}), {}, port=8080)
    options = OMEOptions(model="m", runtime="r")
    made = inference_service(launch, Slot("007", 12, 1, "/t"), options, "autotuner")
    metadata = made["metadata"]
    assert metadata["labels"]["autotuner.io/study"] == "007"
    for each in (*metadata["labels"].values(), *metadata["annotations"].values()):
        assert isinstance(each, str)
    assert yaml.safe_load(as_yaml([made])) == made


def test_bg15_nothing_of_the_clusters_webhooks_is_ours_to_touch() -> None:
    rights = (*RIGHTS, *FORWARD_RIGHTS, *BENCHMARK_JOB_RIGHTS, *CLUSTER_RIGHTS)
    assert not any("admissionregistration" in group for group, _, _ in rights)
    assert {verb for _, _, verbs in CLUSTER_RIGHTS for verb in verbs} == {"get", "list"}


# D-14, BG-12: how a BenchmarkJob ends.


class Jobs:
    """A cluster with one server, in which every BenchmarkJob comes to the same end."""

    def __init__(self, status: Mapping[str, Any], volume: Path | None = None) -> None:
        self.status, self.looks = status, 0
        self.made: list[Mapping[str, Any]] = []
        self._volume = volume

    def service(self, name: str, namespace: str) -> Mapping[str, Any]:
        metadata = {"name": name, "namespace": namespace, "uid": "u"}
        return {"apiVersion": "ome.io/v1beta1", "kind": "InferenceService", "metadata": metadata}

    def create(self, item: Mapping[str, Any]) -> None:
        self.made.append(item)
        if self._volume is not None:
            shutil.copytree(RECORDED, self._volume / "bench" / item["spec"]["resultFolderName"])

    def job(self, name: str, namespace: str) -> Mapping[str, Any] | None:
        self.looks += 1
        return {"status": self.status} if self.made else None

    def pods(self, namespace: str, **_: str) -> list[Any]:
        return []

    def delete(self, item: Mapping[str, Any], **_: float) -> None:
        self.made.remove(item)


def ran(jobs: Jobs, into: Path, monkeypatch: pytest.MonkeyPatch, **options: str) -> int:
    """The exit code of one load point."""
    monkeypatch.setattr(ome_job_program, "looks", lambda: iter((0.0, 1.0, 2.0, 400.0)))
    study = spec(
        backend={"kind": "ome", "ome": {"model": "m", "runtime": "r"}},
        benchmark={"kind": "ome-job", "pvc": "results", "path": "bench", **options},
    )
    (load,) = study.loads()
    endpoint = Endpoint("http://10.0.0.1:8080", "tiny", "at-small-0001-ab12c")
    benchmark = OME_JOB.open(study, Site())
    argv = benchmark.command(endpoint, load, into, api="vllm", tokenizer="/models/tiny")
    return ome_job_program.run(argv[argv.index("run") + 1 :], lambda context: jobs)  # type: ignore[arg-type, return-value]


def test_d14_bg12_a_job_whose_state_is_failed_is_over_whatever_its_conditions_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs({"state": "Failed", "failureMessage": "image crashed"})
    assert ran(jobs, tmp_path, monkeypatch) == ome_job_program.EXIT_FAILED
    assert jobs.looks == 2, "once to see it, and once to see it gone"
    assert jobs.made == []
    assert "failed: image crashed" in (tmp_path / "genai-bench.log").read_text()


def test_d14_a_job_whose_state_is_completed_has_its_results_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is spelled so; the earlier system waited for `Complete`, which never came."""
    into, volume = tmp_path / "load-0", tmp_path / "volume"
    into.mkdir()
    jobs = Jobs({"state": "Completed"}, volume)
    assert ran(jobs, into, monkeypatch, mounted=str(volume)) == 0
    assert len(GENAI_BENCH.read(into, max_error_rate=0.0).completed) == 41
    assert jobs.made == []


def test_bg12_a_job_is_not_over_because_a_condition_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs({"state": "Running", "conditions": [{"type": "Complete", "status": "True"}]})
    with pytest.raises(InfrastructureError, match="did not start within 400 s"):
        ran(jobs, tmp_path, monkeypatch)
    assert jobs.made == []


# D-15, BG-14: the way to a pod.


class Kube:
    """A cluster whose only InferenceService is ready before it has a pod."""

    inside = False

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self.there: list[dict[str, Any]] = []
        self.asked: list[tuple[str, int]] = []
        self._service: dict[str, Any] | None = None

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def create(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        metadata = {**manifest["metadata"], "uid": "u"}
        self._service = {**manifest, "metadata": metadata, "status": ready}
        return self._service

    def service(self, name: str) -> Mapping[str, Any]:
        if self._service is None:
            raise Missing(name)
        return self._service

    def delete(self, service: Mapping[str, Any], *, unchanged: bool = False) -> None:
        self._service, self.there = None, []

    def pods(self, service: str) -> list[dict[str, Any]]:
        return self.there

    def warnings(self) -> list[dict[str, Any]]:
        return []

    def log(self, pod: str, container: str, *, previous: bool = False) -> str:
        return "first line\n"

    def connect(self, pod: str, port: int) -> Far:
        self.asked.append((pod, port))
        return Far(create_connection(("127.0.0.1", self._port)), lambda: None)


POD: Mapping[str, Any] = {
    "metadata": {"name": "the-pod"},
    "spec": {"containers": [{"name": "ome-container", "ports": [{"containerPort": 9000}]}]},
    "status": {},
}


def test_d15_bg14_a_port_forward_leads_to_a_pod_and_waits_for_one(tmp_path: Path) -> None:
    clock, options = Clock(), OMEOptions(model="m", runtime="r")
    launch = VLLM.launch(spec(engine={"kind": "vllm"}), {}, port=8080)
    manifest = inference_service(launch, Slot("small", 1, 1, "/t"), options, "autotuner")
    plan = Plan("ome", {"manifest": manifest, "directory": str(tmp_path)})
    with serving() as url:
        kube = Kube(url)
        cluster: Cluster = kube  # type: ignore[assignment]
        server = OMEServer(cluster, plan, options, clock=clock, sleep=clock.sleep)
        clock.now += 2
        assert server.alive()
        assert server.url is None, "OME says ready, and nobody is there"
        kube.there = [dict(POD)]
        clock.now += 2
        assert server.alive()
        assert server.url is not None
        assert server.url.startswith("http://127.0.0.1:")
        assert answered(server.url)
        assert kube.asked == [("the-pod", 9000)]
        forwarded = server.url
        server.stop(5)
    with pytest.raises(OSError):
        answered(forwarded)
    assert (tmp_path / "server.log").read_text() == "first line\n"


def answered(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/v1/models", timeout=10) as answer:
        return "tiny" in answer.read().decode()


def test_d15_a_port_forward_to_nobody_closes_and_ends_twice() -> None:
    def nobody() -> Far:
        raise InfrastructureError("no such pod")

    forward = Forward(nobody)
    with pytest.raises(OSError):
        answered(forward.url)
    forward.close()
    forward.close()
    with pytest.raises(OSError):
        create_connection(("127.0.0.1", int(forward.url.rpartition(":")[2])), timeout=1)


def test_bg21_no_program_of_kubernetes_is_ever_run() -> None:
    found = [
        (path.name, program)
        for path in (ROOT / "autotuner").rglob("*.py")
        for program in re.findall(
            r"""["'](kubectl|helm|docker run)["' ]""", path.read_text(encoding="utf-8")
        )
    ]
    assert found == []


# D-16, BG-18: what is shipped for a cluster.


def shipped(name: str) -> Any:
    return yaml.safe_load((ROOT / "cluster" / "ome" / name).read_text(encoding="utf-8"))


def test_d16_the_namespace_and_the_volume_are_those_that_the_settings_mean() -> None:
    namespace, claim = shipped("namespace.yaml"), shipped("pvc.yaml")
    assert namespace["metadata"]["name"] == claim["metadata"]["namespace"] == Site().ome_namespace
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", claim["metadata"]["name"])


def test_bg18_the_shipped_model_says_its_format() -> None:
    model = shipped("model.yaml")["spec"]
    assert model["modelFormat"]["name"]
    assert model["modelArchitecture"]


# H-03, H-06: which GPUs.


def test_h03_which_gpus_is_rays_to_say_and_not_the_studys() -> None:
    launch = VLLM.launch(spec(engine={"kind": "vllm"}), {}, port=1)
    launch = replace(launch, environment={"CUDA_VISIBLE_DEVICES": "7"})
    slot = Slot("small", 1, 1, "/t", gpu_ids=("2", "3"))
    planned = PROCESS.open({}, Site()).plan(launch, slot).request["environment"]
    assert planned["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_h03_a_study_that_chooses_gpus_for_containers_is_refused_before_it_begins(
    tmp_path: Path,
) -> None:
    file = tmp_path / "study.json"
    engine = {"kind": "vllm", "environment": {"CUDA_VISIBLE_DEVICES": "0"}}
    content = study_content(engine=engine, backend={"kind": "docker"}, model={"path": "org/tiny"})
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES: cannot be set by a study"):
        CliRunner().invoke(cli, ["check", str(file)], catch_exceptions=False)


def test_h03_a_point_that_the_backend_cannot_start_is_infeasible_and_not_a_machines_fault(
    tmp_path: Path, runner: type[Runner]
) -> None:
    class Unable(Stage):
        def plan(self, launch: LaunchSpec, slot: Slot) -> Plan:
            raise ConfigError("it cannot be", where="engine.environment", hint="leave it out")

    stage = Unable(Started(None))
    outcome = run_trial(assignment(tmp_path), kinds_of(stage))
    assert outcome.state is TrialState.INFEASIBLE
    assert outcome.failure is FailureClass.ARGUMENT
    assert outcome.reason == "it cannot be; leave it out"
    assert stage.done == []


def test_h06_the_gpus_of_a_trial_are_counted_where_nobody_names_them() -> None:
    assert granted(Reservation(1, 2), ("2", "3"), trial=7) == ("2", "3")
    assert granted(Reservation(1, 0), (), trial=7) == ()
    four = Reservation(1, 4, nodes=2, resource="ome_gpu")
    assert granted(four, (), trial=7) == ("ome_gpu/7.0", "ome_gpu/7.1")
    assert not set(granted(four, (), trial=7)) & set(granted(four, (), trial=77))
    assert granted(Reservation(4, 0, resource="ome_gpu"), (), trial=7) == ()


def test_a_trial_ran_where_its_server_did(tmp_path: Path, runner: type[Runner]) -> None:
    with serving() as url:
        server = Started(url)
        run = TrialRun(assignment(tmp_path), kinds_of(Stage(server)))
        assert run.node is None
        run.deploy()
        assert run.node is None, "beside us"
        server.node = "node-7"
        assert run.node == "node-7"
        run.stop()
    assert run.node == "node-7"


@pytest.mark.parametrize(
    ("gpu_resource", "gpu_ids"), [("GPU", ("2", "3", "4", "5")), ("ome_gpu", ())]
)
def test_h06_what_is_said_per_gpu_is_divided_by_those_that_the_trial_held(
    tmp_path: Path, runner: type[Runner], gpu_resource: str, gpu_ids: tuple[str, ...]
) -> None:
    engine = {"kind": "simulated", "arguments": {"tensor-parallel-size": 4}}
    with serving() as url:
        kinds = kinds_of(Stage(Started(url), gpu_resource=gpu_resource))
        outcome = run_trial(assignment(tmp_path, engine=engine), kinds, gpu_ids=gpu_ids)
    (point,) = outcome.load_points
    whole, each = (point.metrics[f"output_throughput{end}"] for end in ("", "_per_gpu"))
    assert whole is not None
    assert each == pytest.approx(whole / 4)


# N-01, N-05: settings and the load generator's environment.


def test_n01_the_file_with_secrets_is_ignored_and_its_example_is_not() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored
    assert ".env.example" not in ignored
    assert not [each for each in ignored if each.startswith(".env") and "*" in each]
    assert (ROOT / ".env.example").is_file()


class Program:
    """A load generator that is not started; remembers its environment."""

    environment: Mapping[str, str]

    def __init__(self, argv: Sequence[str], *, environment: Mapping[str, str], **_: Any) -> None:
        type(self).environment = environment


def loads_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch, site: Site
) -> Mapping[str, str]:
    monkeypatch.setattr(loadrunner, "Guarded", Program)
    LoadRunner(["load"], directory, study="small", trial=1, site=site)
    return Program.environment


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has none."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def skips(no_proxy: str, host: str) -> bool:
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    return bool(bypass(host, {"no": no_proxy}))


@pytest.mark.parametrize("own", ["", ".example.com"])
def test_n05_load_goes_through_a_proxy_but_not_to_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxies: None, own: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, own)
    site = Site(http_proxy=SecretStr("http://p:1"), hf_token=SecretStr("hf_1"))
    found = loads_environment(tmp_path, monkeypatch, site)
    assert found["HTTP_PROXY"] == found["http_proxy"] == "http://p:1"
    assert found["HF_TOKEN"] == found["HUGGING_FACE_HUB_TOKEN"] == "hf_1"
    for name in ("NO_PROXY", "no_proxy"):
        for host in ("127.0.0.1:8000", "localhost:8000", "at-a-1.autotuner.svc.cluster.local:8080"):
            assert skips(found[name], host), host
        assert not skips(found[name], "huggingface.co")
        assert skips(found[name], "a.example.com") is bool(own), "this machine's own still counts"


def test_the_tokenizer_is_looked_for_in_the_sites_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node that reaches no hub it is nowhere else."""
    monkeypatch.setenv("HF_HOME", "/of/this/machine")
    found = loads_environment(tmp_path, monkeypatch, Site(hub_cache=Path("/shared/hf")))
    assert found["HF_HOME"] == "/shared/hf"
    assert loads_environment(tmp_path, monkeypatch, Site())["HF_HOME"] == "/of/this/machine"


@pytest.mark.parametrize(
    ("own", "told"), [(None, "/shared/hf"), ("/of/the/study", "/of/the/study")]
)
def test_a_process_gets_the_sites_cache_unless_its_study_says_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, told: str
) -> None:
    monkeypatch.setattr(process, "Guarded", Program)
    launch = SIMULATED.launch(spec(), {}, port=1)
    launch = replace(launch, environment={"HF_HOME": own} if own else {})
    backend = PROCESS.open({}, Site(hub_cache=Path("/shared/hf")))
    backend.start(backend.plan(launch, Slot("small", 1, 1, str(tmp_path))))
    assert Program.environment["HF_HOME"] == told


def test_n05_without_a_proxy_none_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxies: None
) -> None:
    """The earlier system had one built in, and failed where it was not."""
    found = loads_environment(tmp_path, monkeypatch, Site())
    names = {each.upper() for each in found if each.upper().endswith("_PROXY")}
    assert names <= {"NO_PROXY"}


@pytest.mark.parametrize("own", [None, ".example.com"])
def test_bg40_a_server_behind_a_proxy_reaches_itself(own: str | None) -> None:
    """SGLang asks itself for a first answer, over HTTP and as the environment says."""
    site = Site.model_validate({"https_proxy": "http://p:1", "no_proxy": own})
    found = site.environment()
    for name in ("NO_PROXY", "no_proxy"):
        assert skips(found[name], "127.0.0.1:8000")
        assert skips(found[name], "localhost:8000")
        assert skips(found[name], "a.example.com") is bool(own)
    twice = Site.model_validate({"https_proxy": "http://p:1", "no_proxy": found["no_proxy"]})
    assert twice.environment() == found
    everything = Site.model_validate({"https_proxy": "http://p:1", "no_proxy": "*"})
    assert everything.environment()["no_proxy"] == "*", "with others it would mean none"


# N-04, N-06: from the environment to where it is used.


def test_n04_n06_what_the_operator_says_goes_into_what_trials_get(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = ["AUTOTUNER_HOME=/shared/a", "AUTOTUNER_MODELS=/models", "HF_TOKEN=hf_1"]
    (tmp_path / ".env").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    for name in ("AUTOTUNER_HOME", "AUTOTUNER_STORE", "AUTOTUNER_MODELS", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings()
    assert settings.store_url == "sqlite:////shared/a/autotuner.db"
    assert not Path("/shared/a").exists(), "a path, and nothing made of it yet"
    launch = VLLM.launch(spec(engine={"kind": "vllm"}), {}, port=1)
    planned = DOCKER.open({}, settings.site).plan(launch, Slot("small", 1, 1, "/t")).request
    assert planned["create"]["HostConfig"]["Mounts"][0]["Source"] == "/models"
    assert planned["secrets"] == ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]


# BG-07, BG-13, BG-22: genai-bench's command line.


def test_bg13_every_option_is_one_that_genai_bench_has() -> None:
    found = find_spec("genai_bench")
    if found is None or found.origin is None:
        pytest.skip("genai-bench is not installed")
    sources = (Path(found.origin).parent / "cli").glob("*.py")
    known = {
        option
        for path in sources
        for option in re.findall(r'"(--[a-z][a-z-]+)"', path.read_text(encoding="utf-8"))
    }
    (load,) = spec().loads()
    argv = GENAI_BENCH.command(
        Endpoint("http://127.0.0.1:1", "tiny"), load, Path("/o"), api="vllm", tokenizer="/t"
    )
    theirs = argv[argv.index("--") + 1 :]
    used = {each for each in theirs if each.startswith("--")}
    assert used - known == set()
    assert {"--api-key", "--model-tokenizer", "--additional-request-params"} <= used
    assert json.loads(theirs[theirs.index("--additional-request-params") + 1]) is not None
