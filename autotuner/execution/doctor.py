"""Whether a machine can run a study's trials: what is there, and what is missing. No Ray."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autotuner.backends.base import Backend
from autotuner.execution.gate import FLOOR_GIB, Gauge
from autotuner.serving import Finding, LaunchSpec
from autotuner.settings import Site

GIB = 2**30
LEAST_DISK_GIB = 5.0
"""Free where logs and reports go: a warning below."""


def examine(
    *,
    backend: Backend,
    launch: LaunchSpec | None,
    site: Site,
    home: Path,
    gpus: Iterable[str] = (),
    gauge: Gauge = lambda gpu: None,
    disk: Callable[[Path], float] = lambda path: shutil.disk_usage(path).free / GIB,
) -> list[Finding]:
    """What this machine has of what trials need; never raises.

    Args:
        launch: a server that is to run here; None: no study was named.
        gpus: ids of the GPUs that Ray has here.
    """
    found = [_python(), *_packages(), _disk(home, disk)]
    if site.models is not None:
        found.append(_directory("models", site.models, "AUTOTUNER_MODELS"))
    if launch is not None and launch.model_path.startswith("/"):
        found.append(_directory("model", Path(launch.model_path), "model.path"))
    found += [_gpu(each, gauge) for each in gpus]
    return [*found, *backend.examine(launch)]


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


def _disk(home: Path, disk: Callable[[Path], float]) -> Finding:
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


def _gpu(gpu: str, gauge: Gauge) -> Finding:
    memory = gauge(gpu)
    if memory is None:
        return Finding(f"gpu {gpu}", None, "NVIDIA's library does not know it")
    said = f"{memory.used:.1f} of {memory.total:.0f} GiB used"
    if memory.used <= FLOOR_GIB:
        return Finding(f"gpu {gpu}", True, said)
    return Finding(f"gpu {gpu}", False, said, "end what holds it: trials would run beside it")
