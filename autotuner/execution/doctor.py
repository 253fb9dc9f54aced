"""Whether a machine can run a study's trials, and a cluster hold them: what is there, and what is
missing. No Ray."""

from __future__ import annotations

import math
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autotuner.backends.base import Backend, BackendKind
from autotuner.benchmarks.base import is_recorded
from autotuner.engines.rules import rules_of
from autotuner.execution.gate import FLOOR_GIB
from autotuner.execution.nvidia import Gauge, GpuMemory, nvidia_gauge, unasked
from autotuner.execution.reservation import GPU, Node, Reservation, cannot_hold, reservation
from autotuner.plugins import load_kind
from autotuner.serving import Inspection, LaunchSpec, Place
from autotuner.settings import Site
from autotuner.study.model import GIB
from autotuner.study.spec import StudySpec

LEAST_DISK_GIB = 5.0
"""Free where logs and reports go: a warning below."""


@dataclass(frozen=True)
class Examined:
    """What a machine says of itself, and how many GPUs NVIDIA's library knows there."""

    inspections: list[Inspection]
    gpus: int


@dataclass(frozen=True)
class Patient:
    """What a machine is examined for.

    Attributes:
        spec: a study that is to run here; None: none was named.
        kind: of backend.
        home: where the studies' files go.
    """

    spec: StudySpec | None
    kind: str
    site: Site
    home: Path

    def examined(self) -> list[Inspection]:
        """What this machine has of what trials need; never raises."""
        spec, backend = self.spec, self.backend
        found = [_python(), _package("ray"), disk_at(self.home)]
        if self.recorded:
            return found
        found.append(_package("genai-bench"))
        if self.site.models is not None:
            found.append(_directory("models", self.site.models, "AUTOTUNER_MODELS"))
        here = backend.gpu_resource == GPU
        if spec is not None and spec.model.path.startswith("/") and here:
            found.append(_directory("model", Path(spec.model.path), "model.path"))
        found += gpus_by(nvidia_gauge(), unasked()) if here else []
        launches = baselines(spec, backend.place) if spec else [None]
        return [*found, *(each for launch in launches for each in backend.examine(launch))]

    def looked_at(self) -> Examined:
        """`examined`, for whoever compares it with what Ray counts of this machine."""
        return Examined(self.examined(), len(_memories(nvidia_gauge())))

    @property
    def recorded(self) -> bool:
        """Whether the study's answers are known: its trials start nothing."""
        return self.spec is not None and is_recorded(self.spec)

    @property
    def backend(self) -> Backend:
        kind: BackendKind = load_kind("backend", self.kind)
        return kind.open(self.spec.backend.options if self.spec else {}, self.site)

    def needed(self, nodes: Sequence[Node]) -> list[Reservation]:
        """What the baseline of each engine would hold of these nodes; without a study one GPU."""
        spec, backend = self.spec, self.backend
        if spec is None:
            return [Reservation(1.0, 1, resource=backend.gpu_resource)]
        if self.recorded:
            return [Reservation(1.0, 0)]
        return [
            reservation(launch, nodes, resource=backend.gpu_resource)
            for launch in baselines(spec, backend.place)
        ]

    def of_cluster(self, counted: Sequence[Mapping[str, float]]) -> list[Inspection]:
        """Whether a cluster can hold the study's baseline.

        Args:
            counted: what Ray counts on each of its nodes, by resource.
        """
        if self.spec is None:
            return []
        nodes = [self._node(each) for each in counted]
        return [_held(each, nodes, self.backend.gpu_resource) for each in self.needed(nodes)]

    def of_node(self, counted: Mapping[str, float], gpus: int) -> Inspection:
        """What Ray counts on a node, and what of it no trial would get.

        Args:
            gpus: that NVIDIA's library knows there.
        """
        least = min(self.needed([self._node(counted)]), key=lambda each: each.share)
        return _counted(counted, gpus, least, self.backend.gpu_resource)

    def _node(self, counted: Mapping[str, float]) -> Node:
        return Node(counted.get("CPU", 0.0), counted.get(self.backend.gpu_resource, 0.0))


def baselines(spec: StudySpec, place: Place) -> list[LaunchSpec]:
    """The launch of each engine's defaults: together they name every program and image."""
    alone = [spec.alone(kind) for kind in spec.engine.kinds]
    return [rules_of(each).launch(each, {}, port=0, place=place) for each in alone]


def _held(needed: Reservation, nodes: Sequence[Node], resource: str) -> Inspection:
    """Whether these nodes can hold a baseline that needs this."""
    impossible = cannot_hold(needed, nodes)
    if impossible:
        hint = "start Ray with what is there, or give the baseline less in engine.arguments"
        return Inspection("baseline", False, impossible, hint)
    gpus = f"{needed.gpus} {_gpus(needed.resource)}, " if needed.gpus else ""
    said = f"a trial of it holds {gpus}{needed.cpus:g} CPUs"
    if needed.nodes > 1:
        said += f" on each of {needed.nodes} nodes"
    if resource != GPU and not needed.gpus:
        hint = f"""say `ray start --resources='{{"{resource}": N}}'` on one node, see docs/ome.md"""
        return Inspection("baseline", None, f"{said}: no node has {resource}", hint)
    return Inspection("baseline", True, said)


def _counted(
    counted: Mapping[str, float], gpus: int, needed: Reservation, resource: str
) -> Inspection:
    cpus, rays, held = (counted.get(name, 0.0) for name in ("CPU", GPU, resource))
    said = f"{cpus:g} CPUs, {rays:g} GPUs"
    if resource != GPU:
        said += f", {held:g} {resource}"
    elif rays < gpus:
        hint = f"start Ray there with --num-gpus={gpus}, and without CUDA_VISIBLE_DEVICES"
        # Some may be left to others; all of them hardly are.
        return Inspection("ray counts", None if rays else False, f"{said}; {gpus} are there", hint)
    by_gpus, by_cpus = held // max(needed.share, 1), cpus // max(needed.cpus, 1.0)
    if by_cpus < by_gpus:
        lacking = f"CPUs for {by_cpus:g} trials at once, {_gpus(resource)} for {by_gpus:g}"
        hint = f"start Ray there with --num-cpus={math.ceil(by_gpus * needed.cpus)}"
        return Inspection("ray counts", False, f"{said}: {lacking}", hint)
    return Inspection("ray counts", True, said)


def _gpus(resource: str) -> str:
    return "GPUs" if resource == GPU else resource


def _python() -> Inspection:
    here = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Inspection("python", supported, here, "" if supported else "use Python 3.11 or 3.12")


def _package(name: str) -> Inspection:
    """One that our extra of the same name brings."""
    try:
        return Inspection(name, True, version(name))
    except PackageNotFoundError:
        hint = f"install autotuner with its extra {name} on this machine"
        return Inspection(name, False, "not installed", hint)


def disk_at(home: Path, free_gib: Callable[[Path], float] | None = None) -> Inspection:
    """Whether logs and reports have room.

    Args:
        free_gib: of a directory's disk; the true one by default.
    """
    disk = free_gib or (lambda path: shutil.disk_usage(path).free / GIB)
    there = next((each for each in (home, *home.parents) if each.exists()), Path("/"))
    try:
        free = disk(there)
    except OSError as error:
        return Inspection("disk", False, f"{there}: {error}", "set AUTOTUNER_HOME to another place")
    enough = free >= LEAST_DISK_GIB
    hint = "" if enough else "logs of long studies may fill it; set AUTOTUNER_HOME"
    return Inspection("disk", enough, f"{free:.0f} GiB free at {there}", hint)


def _directory(name: str, path: Path, said_by: str) -> Inspection:
    if path.is_dir():
        return Inspection(name, True, str(path))
    hint = f"{said_by} names it; it must be at the same path on every node"
    return Inspection(name, False, f"no directory {path}", hint)


def gpus_by(gauge: Gauge, problem: str = "") -> list[Inspection]:
    """An inspection of each GPU that the gauge knows, counted from 0.

    Args:
        problem: why NVIDIA's library cannot be asked here, or nothing.
    """
    if problem:
        hint = "install autotuner with its extra ray: else no trial waits until its GPUs are empty"
        return [Inspection("gpus", None, f"not known: {problem}", hint)]
    found = [_gpu(str(gpu), memory) for gpu, memory in enumerate(_memories(gauge))]
    return found or [Inspection("gpus", None, "NVIDIA's library knows none on this machine")]


def _memories(gauge: Gauge) -> list[GpuMemory]:
    """Of each GPU that the gauge knows, counted from 0."""
    found: list[GpuMemory] = []
    while (memory := gauge(str(len(found)))) is not None:
        found.append(memory)
    return found


def _gpu(gpu: str, memory: GpuMemory) -> Inspection:
    said = f"{memory.used:.1f} of {memory.total:.0f} GiB used"
    if memory.used <= FLOOR_GIB:
        return Inspection(f"gpu {gpu}", True, said)
    return Inspection(f"gpu {gpu}", False, said, "end what holds it: trials would run beside it")
