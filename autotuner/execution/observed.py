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

import ray

from autotuner.execution.nodes import Counted, counted, on_every_node
from autotuner.execution.nvidia import Device, devices, unasked
from autotuner.execution.reservation import GPU
from autotuner.execution.sampling import host_memory

EVERY_SECONDS = 5.0
"""Between two looks, at least."""
ANSWER_SECONDS = 10.0
"""For a node to answer; one that does not is shown without its devices."""
PATIENCE_SECONDS = 2.0
"""Whoever asks waits for a look that has begun, at most."""


@dataclass(frozen=True)
class Sample:
    """What a machine says of itself: memory in GiB, and its GPUs.

    Attributes:
        unasked: why it cannot say anything of GPUs, or nothing.
    """

    memory_gib: float
    memory_used_gib: float
    devices: tuple[Device, ...] = ()
    unasked: str = ""


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
        "problem": _problem(seen, said),
    }


def _problem(seen: Seen, said: Sample | str | None) -> str:
    if isinstance(said, Sample):  # where Ray counts no GPU, nobody misses what is said of them
        return f"nothing is known of its GPUs: {said.unasked}" if seen.gpus and said.unasked else ""
    return said or ""


def sample() -> Sample:
    """What this machine says of itself."""
    used, total = host_memory()
    return Sample(total, used, tuple(devices()), unasked())


def _nodes() -> list[Seen]:
    if not ray.is_initialized():  # asked, it would start a cluster of its own
        raise RuntimeError("this process is on none")
    known = counted(held=True, gone=True)
    living = {node.address for node in known if node.alive}
    # Ray remembers every node there ever was, also those that came back.
    return [_seen(node) for node in known if node.alive or node.address not in living]


def _seen(node: Counted) -> Seen:
    (cpus, cpus_used), (gpus, gpus_used) = map(node.of, ("CPU", GPU))
    return Seen(
        id=node.id,
        name=node.address,
        host=node.host,
        alive=node.alive,
        cpus=cpus,
        cpus_used=cpus_used,
        gpus=gpus,
        gpus_used=gpus_used,
    )


def _samples(seen: Sequence[Seen]) -> dict[str, Sample | str]:
    answers = on_every_node(sample, seconds=ANSWER_SECONDS, name="autotuner looks at a node")
    said = {each.node: each.answer or each.problem for each in answers}
    named = {node.id: said.get(f"{node.host} ({node.name})") for node in seen}
    return {id: each for id, each in named.items() if each is not None}
