"""What NVIDIA's library (NVML) says of this machine's GPUs; nothing where there is no driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from autotuner.study.model import GIB


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


@dataclass(frozen=True)
class Device:
    """One GPU. What its driver does not say is None.

    Attributes:
        index: as Ray numbers it.
        memory_gib, memory_used_gib: of all processes on it.
        utilisation: share of the time in which it computed, 0 to 1.
    """

    index: int
    uuid: str
    name: str
    memory_gib: float | None
    memory_used_gib: float | None
    utilisation: float | None
    temperature_c: float | None
    power_w: float | None


PACKAGE = "nvidia-ml-py"
"""Python's door to NVML; comes with the extra `ray`."""


def unasked(*, there: Callable[[str], object | None] = find_spec) -> str:
    """Why nobody here can ask NVML at all; empty where its package is installed.

    Args:
        there: whether Python finds a module.
    """
    return "" if there("pynvml") else f"{PACKAGE} is not installed"


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


def devices(library: Any = None) -> list[Device]:
    """The NVIDIA GPUs of this machine; none where there is no driver.

    Args:
        library: NVML, or what stands in for it.
    """
    library = library or _nvml()
    if library is None:
        return []
    try:
        return [_device(library, index) for index in range(library.nvmlDeviceGetCount())]
    except library.NVMLError:
        return []


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


def _known(library: Any, ask: Callable[[], Any]) -> Any:
    """An answer; None where there is none: not of every kind of GPU, nor of a part of one."""
    try:
        return ask()
    except library.NVMLError:
        return None


def _device(library: Any, index: int) -> Device:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    said = partial(_known, library)
    memory = said(lambda: library.nvmlDeviceGetMemoryInfo(handle))
    rates = said(lambda: library.nvmlDeviceGetUtilizationRates(handle))
    power = said(lambda: library.nvmlDeviceGetPowerUsage(handle))
    celsius = library.NVML_TEMPERATURE_GPU
    return Device(
        index=index,
        uuid=_text(said(lambda: library.nvmlDeviceGetUUID(handle))),
        name=_text(said(lambda: library.nvmlDeviceGetName(handle))),
        memory_gib=None if memory is None else memory.total / GIB,
        memory_used_gib=None if memory is None else memory.used / GIB,
        utilisation=None if rates is None else rates.gpu / 100,
        temperature_c=said(lambda: library.nvmlDeviceGetTemperature(handle, celsius)),
        power_w=None if power is None else power / 1000,
    )


def _text(said: str | bytes | None) -> str:
    # NVML's older bindings say bytes.
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""
