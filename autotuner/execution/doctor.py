"""Whether a machine can run a study's trials: what is there, and what is missing. No Ray."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autotuner.backends.base import BackendKind
from autotuner.engines.rules import rules_of
from autotuner.execution.gate import FLOOR_GIB, Gauge, GpuMemory, nvidia_gauge
from autotuner.execution.reservation import GPU
from autotuner.plugins import load_kind
from autotuner.serving import Finding, LaunchSpec, Place
from autotuner.settings import Site
from autotuner.study.model import GIB
from autotuner.study.spec import StudySpec

LEAST_DISK_GIB = 5.0
"""Free where logs and reports go: a warning below."""


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

    def examined(self) -> list[Finding]:
        """What this machine has of what trials need; never raises."""
        kind: BackendKind = load_kind("backend", self.kind)
        spec = self.spec
        backend = kind.open(spec.backend.options if spec else {}, self.site)
        found = [_python(), *_packages(), disk_at(self.home)]
        if self.site.models is not None:
            found.append(_directory("models", self.site.models, "AUTOTUNER_MODELS"))
        here = backend.gpu_resource == GPU
        if spec is not None and spec.model.path.startswith("/") and here:
            found.append(_directory("model", Path(spec.model.path), "model.path"))
        found += gpus_by(nvidia_gauge()) if here else []
        launches = baselines(spec, backend.place) if spec else [None]
        return [*found, *(each for launch in launches for each in backend.examine(launch))]


def baselines(spec: StudySpec, place: Place) -> list[LaunchSpec]:
    """The launch of each engine's defaults: together they name every program and image."""
    alone = [spec.alone(kind) for kind in spec.engine.kinds]
    return [rules_of(each).launch(each, {}, port=0, place=place) for each in alone]


def _python() -> Finding:
    here = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Finding("python", supported, here, "" if supported else "use Python 3.11 or 3.12")


def _packages() -> list[Finding]:
    found = []
    for package, extra in (("ray", "ray"), ("genai-bench", "genai-bench")):
        try:
            found.append(Finding(package, True, version(package)))
        except PackageNotFoundError:
            hint = f"install autotuner with its extra {extra} on this machine"
            found.append(Finding(package, False, "not installed", hint))
    return found


def disk_at(home: Path, free_gib: Callable[[Path], float] | None = None) -> Finding:
    """Whether logs and reports have room.

    Args:
        free_gib: of a directory's disk; the true one by default.
    """
    disk = free_gib or (lambda path: shutil.disk_usage(path).free / GIB)
    there = next((each for each in (home, *home.parents) if each.exists()), Path("/"))
    try:
        free = disk(there)
    except OSError as error:
        return Finding("disk", False, f"{there}: {error}", "set AUTOTUNER_HOME to another place")
    enough = free >= LEAST_DISK_GIB
    hint = "" if enough else "logs of long studies may fill it; set AUTOTUNER_HOME"
    return Finding("disk", enough, f"{free:.0f} GiB free at {there}", hint)


def _directory(name: str, path: Path, said_by: str) -> Finding:
    if path.is_dir():
        return Finding(name, True, str(path))
    hint = f"{said_by} names it; it must be at the same path on every node"
    return Finding(name, False, f"no directory {path}", hint)


def gpus_by(gauge: Gauge) -> list[Finding]:
    """A finding for each GPU that the gauge knows, counted from 0."""
    found: list[Finding] = []
    while (memory := gauge(str(len(found)))) is not None:
        found.append(_gpu(str(len(found)), memory))
    return found or [Finding("gpus", None, "NVIDIA's library knows none on this machine")]


def _gpu(gpu: str, memory: GpuMemory) -> Finding:
    said = f"{memory.used:.1f} of {memory.total:.0f} GiB used"
    if memory.used <= FLOOR_GIB:
        return Finding(f"gpu {gpu}", True, said)
    return Finding(f"gpu {gpu}", False, said, "end what holds it: trials would run beside it")
