"""What a trial reserves of a cluster, as a function of its launch and the nodes. No Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.serving import LaunchSpec

GPU = "GPU"
"""What Ray itself counts GPUs in; a backend may count them in another resource of the cluster."""


@dataclass(frozen=True)
class Node:
    """A node's whole resources, and what of them is in use, by whomever.

    Attributes:
        id: the cluster's own, of this life of the node: a node that comes back has another.
        name: what people call it.
    """

    cpus: float
    gpus: float
    id: str = ""
    name: str = ""
    cpus_used: float = 0.0
    gpus_used: float = 0.0


@dataclass(frozen=True)
class Reservation:
    """Resources one trial holds from its start until its server is gone.

    Attributes:
        cpus: on each of its nodes.
        gpus: on all of its nodes together, equally many on each.
        nodes: how many different nodes it lies on.
        resource: what the cluster counts those GPUs in.
    """

    cpus: float
    gpus: int
    nodes: int = 1
    resource: str = GPU

    @property
    def share(self) -> int:
        """GPUs on each of its nodes."""
        return self.gpus // self.nodes

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What is to be held on each node, in Ray's words; the trial itself runs on the first."""
        return [{"CPU": self.cpus, self.resource: self.share}] * self.nodes


def reservation(launch: LaunchSpec, nodes: Sequence[Node], *, resource: str = GPU) -> Reservation:
    """What to reserve on these nodes.

    A cluster without any GPU runs engines built for CPUs. Such an engine takes every core of
    its machine by default, and two of them side by side would measure each other, so a trial
    then reserves the CPUs of a whole node (the smallest, so that every node can be one) unless
    the launch says how many it needs.

    Args:
        resource: what the GPUs of the nodes were counted in.
    """
    if launch.gpus and any(node.gpus for node in nodes):
        cpus = 1.0 if launch.cpus is None else launch.cpus
        return Reservation(cpus, launch.gpus, launch.nodes, resource)
    if launch.cpus is not None:
        return Reservation(launch.cpus, 0, launch.nodes)
    cpus = min((node.cpus for node in nodes if node.cpus), default=1.0)
    return Reservation(max(1.0, cpus), 0, launch.nodes)


def granted(reserved: Reservation, named: tuple[str, ...], *, trial: int) -> tuple[str, ...]:
    """The GPUs that a trial holds on its first node, as they are recorded and counted.

    Args:
        named: the ids that Ray gave it; of a resource that is not its own it knows only how many.
        trial: its number, so that no two trials claim the same one where nobody names them.
    """
    if reserved.resource == GPU:
        return named
    return tuple(f"{reserved.resource}/{trial}.{each}" for each in range(reserved.share))


def holds(node: Node, needed: Reservation) -> bool:
    """Whether a node, with nothing else on it, has room for its share of a trial."""
    return node.gpus >= needed.share and node.cpus >= needed.cpus


def cannot_hold(needed: Reservation, nodes: Sequence[Node]) -> str | None:
    """Why these nodes can never hold a trial, with their numbers; None where they can."""
    if needed.gpus % needed.nodes:
        return f"needs {needed.gpus} GPUs, which cannot be shared equally by {needed.nodes} nodes"
    fit = sum(holds(node, needed) for node in nodes)
    if fit >= needed.nodes:
        return None
    named = "GPUs" if needed.resource == GPU else f"GPUs ({needed.resource})"
    gpus = max((node.gpus for node in nodes), default=0)
    cpus = max((node.cpus for node in nodes), default=0)
    of = f"the largest of {len(nodes)} nodes has"
    both = f"{needed.share} {named} and {needed.cpus:g} CPUs"
    if needed.nodes > 1:
        return f"needs {both} on each of {needed.nodes} nodes; {fit} of {len(nodes)} have them"
    if gpus < needed.gpus:
        return f"needs {needed.gpus} {named} on one node; {of} {gpus:g}"
    if cpus < needed.cpus:
        return f"needs {needed.cpus:g} CPUs on one node; {of} {cpus:g}"
    return f"needs {both} on one node; none of {len(nodes)} has both"
