"""What the cluster looks like: its nodes, what of them is taken, and what their devices do.

For people who look at it, as often as they like: every node is asked once in a while, by a task
that takes none of its resources, and whoever asks gets what was heard last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import ray
from ray._private.state import available_resources_per_node

from autotuner.execution.nodes import on_every_node
from autotuner.execution.reservation import GPU
from autotuner.study.model import GIB

EVERY_SECONDS = 5.0
"""Between two looks, at least."""
ANSWER_SECONDS = 10.0
"""For a node to answer; one that does not is shown without its devices."""
PATIENCE_SECONDS = 2.0
"""Whoever asks waits for a look that has begun, at most."""


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


@dataclass(frozen=True)
class Sample:
    """What a machine says of itself: memory in GiB, and its GPUs."""

    memory_gib: float
    memory_used_gib: float
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True)
class Seen:
    """A node as Ray counts it.

    Attributes:
        name: its address, as trials name their node.
        host: what its machine calls itself.
    """

    id: str
    name: str
    host: str
    alive: bool
    cpus: float = 0.0
    cpus_used: float = 0.0
    gpus: float = 0.0
    gpus_used: float = 0.0


class Observed:
    """The cluster of this process, as JSON; may be called by several threads.

    Args:
        look: the nodes as Ray counts them.
        sample: what each says of itself, or why it does not, by its id.
    """

    def __init__(
        self,
        look: Callable[[], Sequence[Seen]] | None = None,
        sample: Callable[[Sequence[Seen]], Mapping[str, Sample | str]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._look, self._sample = look or _nodes, sample or _samples
        self._clock, self._every, self._patience = clock, every, patience
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._looked: float | None = None
        self._said: dict[str, Any] = {"nodes": [], "problem": "the cluster has not answered yet"}

    def __call__(self) -> dict[str, Any]:
        """Nodes with their devices, and what is wrong with the cluster, or empty."""
        with self._lock:
            now = self._clock()
            looking = self._looking is not None and self._looking.is_alive()
            if not looking and (self._looked is None or now - self._looked >= self._every):
                self._looked = now
                self._looking = threading.Thread(target=self._refresh, daemon=True)
                self._looking.start()
            thread = self._looking
        if thread is not None:
            thread.join(self._patience)
        return self._said

    def _refresh(self) -> None:
        try:
            seen = self._look()
            said = self._sample([node for node in seen if node.alive])
        except Exception as error:  # noqa: BLE001  # Ray's are of many kinds
            first = (str(error).strip().splitlines() or [repr(error)])[0]
            self._said = {"nodes": [], "problem": f"the Ray cluster does not answer: {first}"}
            return
        self._said = {"nodes": [_node(each, said.get(each.id)) for each in seen], "problem": ""}


def _node(seen: Seen, said: Sample | str | None) -> dict[str, Any]:
    sample = said if isinstance(said, Sample) else None
    return {
        **asdict(seen),
        "memory_gib": sample.memory_gib if sample else None,
        "memory_used_gib": sample.memory_used_gib if sample else None,
        "devices": [asdict(device) for device in sample.devices] if sample else [],
        "problem": said if isinstance(said, str) else "",
    }


def sample() -> Sample:
    """What this machine says of itself."""
    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    return Sample(memory.total / GIB, used / GIB, tuple(devices()))


def devices(library: Any = None) -> list[Device]:
    """The NVIDIA GPUs of this machine; none where there is no driver.

    Args:
        library: NVML, or what stands in for it.
    """
    if library is None:
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # noqa: BLE001  # no package, no driver, no GPU: all the same here
            return []
        library = pynvml
    try:
        return [_device(library, index) for index in range(library.nvmlDeviceGetCount())]
    except library.NVMLError:
        return []


def _device(library: Any, index: int) -> Device:
    handle = library.nvmlDeviceGetHandleByIndex(index)

    def said(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except library.NVMLError:  # not of every kind of GPU, nor of a part of one
            return None

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


def _nodes() -> list[Seen]:
    if not ray.is_initialized():  # asked, it would start a cluster of its own
        raise RuntimeError("this process is on none")
    known = ray.nodes()
    free = available_resources_per_node()
    living = {each["NodeManagerAddress"] for each in known if each["Alive"]}
    return [
        _seen(each, free.get(each["NodeID"]))
        for each in known
        # Ray remembers every node there ever was, also those that came back.
        if each["Alive"] or each["NodeManagerAddress"] not in living
    ]


def _seen(node: Mapping[str, Any], free: Mapping[str, float] | None) -> Seen:
    alive = bool(node["Alive"])
    # Of a node that is gone, nothing is there to be had.
    cpus, gpus = (node["Resources"].get(name, 0.0) if alive else 0.0 for name in ("CPU", GPU))
    left = {"CPU": cpus, GPU: gpus} if free is None else free
    return Seen(
        id=node["NodeID"],
        name=node["NodeManagerAddress"],
        host=node["NodeManagerHostname"],
        alive=alive,
        cpus=cpus,
        cpus_used=cpus - left.get("CPU", 0.0),
        gpus=gpus,
        gpus_used=gpus - left.get(GPU, 0.0),
    )


def _samples(seen: Sequence[Seen]) -> dict[str, Sample | str]:
    answers = on_every_node(sample, seconds=ANSWER_SECONDS, name="autotuner looks at a node")
    said = {each.node: each.answer or each.problem for each in answers}
    named = {node.id: said.get(f"{node.host} ({node.name})") for node in seen}
    return {id: each for id, each in named.items() if each is not None}
