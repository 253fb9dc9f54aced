"""What a trial reserves of a cluster, as a function of its launch and the nodes. No Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.serving import LaunchSpec


@dataclass(frozen=True)
class Node:
    """A node's whole resources."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Reservation:
    """Resources one trial holds from its start until its server is gone."""

    cpus: float
    gpus: int


def reservation(launch: LaunchSpec, nodes: Sequence[Node]) -> Reservation:
    """What to reserve on these nodes.

    A cluster without any GPU runs engines built for CPUs. Such an engine takes every core of
    its machine by default, and two of them side by side would measure each other, so a trial
    then reserves the CPUs of a whole node (the smallest, so that every node can be one) unless
    the launch says how many it needs.
    """
    if launch.gpus and any(node.gpus for node in nodes):
        return Reservation(1.0 if launch.cpus is None else launch.cpus, launch.gpus)
    if launch.cpus is not None:
        return Reservation(launch.cpus, 0)
    return Reservation(max(1.0, min((node.cpus for node in nodes if node.cpus), default=1.0)), 0)


def cannot_hold(needed: Reservation, nodes: Sequence[Node]) -> str | None:
    """Why no single node can ever hold a trial, or None."""
    if any(node.gpus >= needed.gpus and node.cpus >= needed.cpus for node in nodes):
        return None
    gpus = max((node.gpus for node in nodes), default=0)
    cpus = max((node.cpus for node in nodes), default=0)
    return (
        f"needs {needed.gpus} GPUs and {needed.cpus:g} CPUs on one node; "
        f"the largest of {len(nodes)} nodes has {gpus:g} GPUs and {cpus:g} CPUs"
    )


def slots(needed: Reservation, nodes: Sequence[Node]) -> int:
    """How many such trials fit the cluster at once; at least 1."""
    fit = 0
    for node in nodes:
        limits = [node.cpus // needed.cpus] if needed.cpus else []
        limits += [node.gpus // needed.gpus] if needed.gpus else []
        fit += int(min(limits, default=1))
    return max(1, fit)
