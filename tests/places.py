"""For each kind of backend: what it needs to start servers here, what is left of a study there, and
which processes matter; or the reason why it cannot be here.

Docker gets a daemon of our own, and OME a small true API server whose pods run for real.
"""

from __future__ import annotations

import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotuner.backends.base import Backend, BackendKind
from autotuner.backends.guarded import LABEL_TRIAL, labelled, said
from autotuner.backends.reaper import Post
from autotuner.plugins import load_kind
from autotuner.serving import LaunchSpec
from autotuner.settings import Site
from tests import dockerd
from tests.fakes.crd import ome_resources
from tests.fakes.kube import FakeKube
from tests.fakes.ome import SERVICES, FakeOME, runs_for_real
from tests.processes import command_holds, wait_for

ROOT = Path(__file__).parent.parent
PYTHON = Path(sys.executable)
NAMESPACE = "autotuner"
LEASE_SECONDS = 8
SERVER = "autotuner.engines.simulated_server"

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "process": {},
    "docker": {},
    "ome": {"model": "tiny", "runtime": "python", "lease_seconds": LEASE_SECONDS, "gpu": None},
}
"""The block of each kind, for plans that are never started too."""


class Ground(ABC):
    """Where servers of one kind can be started.

    Attributes:
        kind: of the backend.
        environment: variables that a process needs to start servers there, or to look after them.
        engine: more of a study's block `engine`, for the simulated engine to run there.
        block: the study's block of the kind.
        image: that has this Python.
    """

    kind: str
    environment: Mapping[str, str]
    engine: Mapping[str, Any]
    image = "unused"

    @property
    def options(self) -> Mapping[str, Any]:
        return OPTIONS[self.kind]

    @property
    def block(self) -> Mapping[str, Any]:
        return self.options

    @property
    def site(self) -> Site:
        return Site()

    def opened(self) -> Backend:
        kind: BackendKind = load_kind("backend", self.kind)
        return kind.open(self.options, self.site)

    def program(self, code: str) -> LaunchSpec:
        """A small Python program, as an engine would want it started there."""
        return LaunchSpec(
            command=(sys.executable,),
            arguments=("-c", code),
            environment={"CONTRACT": "1"},
            image=self.image,
            model_path=str(ROOT / "tests"),
            served_name="none",
            port=1,
        )

    def left(self, study: str, trial: int | None = None) -> list[str]:
        """Everything of a study, its local Ray included, or of one trial that is still there,
        whether or not it runs."""
        here = [
            said(process, labels)
            for process, labels in labelled(study, ray=True)
            if trial is None or labels.get(LABEL_TRIAL) == str(trial)
        ]
        return here + self._elsewhere(study, trial)

    @abstractmethod
    def servers(self, study: str) -> list[psutil.Process]:
        """The first process of each server that runs."""

    @abstractmethod
    def cleaners(self, study: str) -> list[psutil.Process]:
        """What ends a study's servers when their owners are killed."""

    @abstractmethod
    def broken(self) -> Iterator[LaunchSpec]:
        """While no program can be started there: one that is tried in vain. Use by `unable`."""

    @abstractmethod
    def _elsewhere(self, study: str, trial: int | None) -> list[str]: ...

    @contextmanager
    def unable(self) -> Iterator[LaunchSpec]:
        yield from self.broken()


class _Machine(Ground):
    kind = "process"
    environment: Mapping[str, str] = {}
    engine: Mapping[str, Any] = {"arguments": {"spawn-children": 2}}

    def servers(self, study: str) -> list[psutil.Process]:
        return [
            process
            for process, _ in labelled(study)
            if command_holds(process, SERVER) and not command_holds(process, "guard.py")
        ]

    def cleaners(self, study: str) -> list[psutil.Process]:
        # Not that of the load generator, which is the same for all kinds.
        return [
            process
            for process, _ in labelled(study)
            if command_holds(process, "guard.py") and not command_holds(process, "genai_bench")
        ]

    def broken(self) -> Iterator[LaunchSpec]:
        yield LaunchSpec(("/no/such/program",), (), {}, "unused", "/m", "m", 1)

    def _elsewhere(self, study: str, trial: int | None) -> list[str]:
        return []


class _Daemon(Ground):
    kind = "docker"

    def __init__(self, address: str) -> None:
        self._address = address
        self._mounts = (*dockerd.python_mounts(PYTHON), str(ROOT))
        self.environment = {"DOCKER_HOST": address, "AUTOTUNER_MOUNTS": ",".join(self._mounts)}
        self.image = dockerd.python_image(address, PYTHON)
        self.engine = {"image": self.image, "arguments": {"spawn-children": 2}}

    @property
    def site(self) -> Site:
        return Site(mounts=self._mounts)

    def servers(self, study: str) -> list[psutil.Process]:
        found = []
        for each in dockerd.containers(self._address, study):
            pid = dockerd.inspected(self._address, each["Id"])["State"]["Pid"]
            found += [psutil.Process(pid)] if pid else []
        return found

    def cleaners(self, study: str) -> list[psutil.Process]:
        return dockerd.reapers(self._address)

    def broken(self) -> Iterator[LaunchSpec]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", f"{self._address}-that-is-not-there")
            yield self.program("pass")

    def _elsewhere(self, study: str, trial: int | None) -> list[str]:
        return [
            f"container {each['Names'][0]} {each['Id'][:12]}"
            for each in dockerd.containers(self._address, study)
            if trial is None or each["Labels"]["autotuner.trial"] == str(trial)
        ]


class _Kubernetes(Ground):
    kind = "ome"

    def __init__(self, kube: FakeKube, file: Path) -> None:
        self._kube = kube
        self._file = file
        self.environment = {"KUBECONFIG": str(file)}
        self.engine = {}

    @property
    def block(self) -> Mapping[str, Any]:
        return {**self.options, "runtime": "simulated"}

    def servers(self, study: str) -> list[psutil.Process]:
        # What a pod runs is a child of ours; the API server knows nothing of processes.
        pods = self._kube.find("pods", labels=f"autotuner.io/study={study}")
        return _pods_programs() if pods else []

    def cleaners(self, study: str) -> list[psutil.Process]:
        return reapers("ome", f"{self._kube.url} {NAMESPACE}")

    def broken(self) -> Iterator[LaunchSpec]:
        with FakeKube() as short:
            gone = short.kubeconfig(self._file.with_name("gone"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(gone))
            yield self.program("pass")

    def _elsewhere(self, study: str, trial: int | None) -> list[str]:
        label = f"autotuner.io/study={study}"
        if trial is not None:
            label += f",autotuner.io/trial={trial:04d}"
        found = [
            f"{plural} {each['metadata']['name']}"
            for plural in (SERVICES, "deployments", "pods", "benchmarkjobs")
            for each in self._kube.find(plural, labels=label)
        ]
        if trial is None:
            found += [f"a pod's program {each.pid}" for each in _pods_programs()]
        return found


def why_not(kind: str) -> str | None:
    """Why servers of a kind cannot be started here; None where they can."""
    if kind == "docker":
        return dockerd.why_not()
    return None if kind in OPTIONS else f"tests/places.py does not know the kind {kind!r}"


@contextmanager
def place_of(kind: str) -> Iterator[Ground]:
    """A place for servers of a kind, empty, and gone with the block. Its environment is this
    process' too meanwhile."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        place = stack.enter_context(_PLACES[kind]())
        for name, value in place.environment.items():
            patch.setenv(name, value)
        yield place


@contextmanager
def _machine() -> Iterator[Ground]:
    yield _Machine()


@contextmanager
def _daemon() -> Iterator[Ground]:
    with dockerd.running() as address:
        yield _Daemon(address)


@contextmanager
def _kubernetes() -> Iterator[Ground]:
    runtimes = {
        "python": {"command": ["python3"]},
        "simulated": {"command": ["python3", "-m", SERVER]},
    }
    with (
        tempfile.TemporaryDirectory(prefix="ome-") as directory,
        FakeKube(ome_resources()) as kube,
        FakeOME(
            kube,
            runs_for_real([str(PYTHON)], Path(directory)),
            models={"tiny": str(ROOT / "tests" / "data" / "tokenizer")},
            runtimes=runtimes,
        ),
    ):
        try:
            yield _Kubernetes(kube, kube.kubeconfig(Path(directory, "kubeconfig")))
        finally:
            end_reapers("ome", f"{kube.url} {NAMESPACE}")


_PLACES = {"process": _machine, "docker": _daemon, "ome": _kubernetes}


def reapers(kind: str, place: str) -> list[psutil.Process]:
    """The reapers at work for a kind and a place."""
    line = f"autotuner.backends.reaper {kind} {place}"
    return [process for process in psutil.process_iter() if command_holds(process, line)]


def end_reapers(kind: str, place: str) -> None:
    """They would wait for a place that never comes back."""
    found = reapers(kind, place)
    for each in found:
        each.kill()
    assert wait_for(lambda: not any(each.is_running() for each in found), 10)
    log = Post.of(kind, place).log
    for file in log.parent.glob(f"{log.stem}.*"):
        file.unlink()


def _pods_programs() -> list[psutil.Process]:
    found = []
    for each in psutil.Process(os.getpid()).children():
        try:
            if "MODEL_PATH" in each.environ() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except (psutil.Error, OSError):
            continue
    return found
