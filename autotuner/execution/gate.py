"""Between trials: waiting until the GPUs of a slot are free again, as far as NVIDIA's library says.

A server's memory may outlive its process for some seconds, and others may use the machine too. A
trial that starts beside them runs out of memory, or measures them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotuner.execution.nvidia import Gauge
from autotuner.execution.reservation import Node

FLOOR_GIB = 1.0
"""Used by a GPU that serves nobody, at most: the driver's own, a display's."""

GATE_SECONDS = 30.0
POLL_SECONDS = 0.5


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


def unwatched(nodes: Sequence[Node], unasked: str) -> str:
    """What is said once of a study on these nodes where its GPUs cannot be asked, or nothing.

    Args:
        unasked: why NVIDIA's library cannot be, or nothing.
    """
    if not unasked or not any(node.gpus for node in nodes):
        return ""
    return (
        f"nobody waits until GPUs are empty, nor measures what they do: {unasked}; "
        "install autotuner with its extra ray"
    )


def _held(gpu_ids: Sequence[str], gauge: Gauge) -> str:
    found = [(gpu, memory) for gpu in gpu_ids if (memory := gauge(gpu)) is not None]
    return ", ".join(
        f"GPU {gpu} held {memory.used:.1f} of {memory.total:.1f} GiB before the launch"
        for gpu, memory in found
        if memory.used > FLOOR_GIB
    )
