"""Between trials: waiting until the GPUs of a slot are free again, as far as NVIDIA's library says.

A server's memory may outlive its process for some seconds, and others may use the machine too. A
trial that starts beside them runs out of memory, or measures them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autotuner.study.model import GIB

FLOOR_GIB = 1.0
"""Used by a GPU that serves nobody, at most: the driver's own, a display's."""

GATE_SECONDS = 30.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class GpuMemory:
    """Memory of one GPU in GiB."""

    used: float
    total: float


@dataclass(frozen=True)
class GpuUse:
    """What one GPU does: memory in GiB, share of the time that it computes (0 to 1), watts."""

    memory: float
    utilisation: float | None = None
    power: float | None = None


Gauge = Callable[[str], GpuMemory | None]
"""Memory of a GPU by its id; None where nobody can tell."""


def wait_clear(
    gpu_ids: Sequence[str],
    gauge: Gauge,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    seconds: float = GATE_SECONDS,
) -> str:
    """Return once every GPU is down to its floor, or after `seconds`.

    Returns:
        What is still held, in words; empty where nothing is, or nobody can tell.
    """
    deadline = clock() + seconds
    while held := _held(gpu_ids, gauge):
        if clock() >= deadline:
            return held
        sleep(POLL_SECONDS)
    return ""


def _held(gpu_ids: Sequence[str], gauge: Gauge) -> str:
    found = [(gpu, memory) for gpu in gpu_ids if (memory := gauge(gpu)) is not None]
    return ", ".join(
        f"GPU {gpu} held {memory.used:.1f} of {memory.total:.1f} GiB before the launch"
        for gpu, memory in found
        if memory.used > FLOOR_GIB
    )


def nvidia_gauge() -> Gauge:
    """What NVML says; a gauge that cannot tell where there is no NVIDIA driver."""
    library = _nvml()

    def memory(gpu: str) -> GpuMemory | None:
        try:
            found = library.nvmlDeviceGetMemoryInfo(_handle(library, gpu))
        except library.NVMLError:
            return None
        return GpuMemory(used=found.used / GIB, total=found.total / GIB)

    return memory if library is not None else lambda gpu: None


def nvidia_use(library: Any = None) -> Callable[[str], GpuUse | None]:
    """What a GPU does, by its id, as NVML says it; None where nobody can tell.

    Args:
        library: NVML, or what stands in for it.
    """
    library = library or _nvml()

    def use(gpu: str) -> GpuUse | None:
        try:
            handle = _handle(library, gpu)
            memory = library.nvmlDeviceGetMemoryInfo(handle).used / GIB
        except library.NVMLError:
            return None
        # A part of a GPU (MIG) has memory of its own, but neither of these.
        return GpuUse(
            memory,
            utilisation=_known(
                library, lambda: library.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            ),
            power=_known(library, lambda: library.nvmlDeviceGetPowerUsage(handle) / 1000),
        )

    return use if library is not None else lambda gpu: None


def _nvml() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001  # no package, no driver, no GPU: all the same here
        return None
    return pynvml


def _handle(library: Any, gpu: str) -> Any:
    """Ray's GPU ids are indices in NVML's order, which is that of CUDA where all GPUs of a node
    are alike, or the UUIDs of CUDA_VISIBLE_DEVICES."""
    if gpu.isdigit():
        return library.nvmlDeviceGetHandleByIndex(int(gpu))
    return library.nvmlDeviceGetHandleByUUID(gpu)


def _known(library: Any, ask: Callable[[], float]) -> float | None:
    try:
        return ask()
    except library.NVMLError:
        return None
