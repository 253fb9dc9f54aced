"""The Ray cluster we are connected to: something done on each of its nodes, and what they say."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autotuner.errors import InfrastructureError
from autotuner.execution.cluster import reached

Answer = TypeVar("Answer")

SECONDS = 60.0
"""For a node to answer, where nothing else is said."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connected to a cluster: that of RAY_ADDRESS by default.

    Raises:
        InfrastructureError: it cannot be used.
    """
    place = address or os.environ.get("RAY_ADDRESS", "")
    reached(place)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        raise InfrastructureError(f"the Ray cluster at {place} cannot be used: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Said(Generic[Answer]):
    """What a node answered, or why it did not."""

    node: str
    answer: Answer | None
    problem: str = ""


def asked_of_every_node(
    what: Callable[[], Answer], *, name: str = ""
) -> dict[ray.ObjectRef[Answer], str]:
    """Call `what` on each living node at the same time, whatever else runs there.

    Args:
        what: pickled; imports what it needs.
        name: of the task, as the Ray dashboard shows it.

    Returns:
        What stands for each node's answer -> the node.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(_called)
    return {
        task.options(
            name=name,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(what): node.name
        for node in counted()
    }


@dataclass(frozen=True)
class Counted:
    """A node as Ray counts it.

    Attributes:
        id: Ray's own, of this life of the node.
        host: what its machine calls itself.
        resources: all of them, by name; none of a node that is gone.
        free: those that nobody holds; None where Ray was not asked, or does not say it yet.
    """

    id: str
    address: str
    host: str
    alive: bool
    resources: Mapping[str, float]
    free: Mapping[str, float] | None

    @property
    def name(self) -> str:
        """What it answers by, see `Said.node`."""
        return f"{self.host} ({self.address})"

    def of(self, resource: str) -> tuple[float, float]:
        """How much of a resource it has, and how much of that is held. What is not said is taken
        as free: Ray keeps a trial waiting where it is not."""
        there = self.resources.get(resource, 0.0)
        return there, 0.0 if self.free is None else there - self.free.get(resource, 0.0)


def counted(*, held: bool = False, gone: bool = False) -> list[Counted]:
    """The living nodes.

    Args:
        held: also what of them is held, which nobody can ask through ray://.
        gone: also those that are gone.
    """
    free = available_resources_per_node() if held else {}
    return [
        Counted(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            host=node["NodeManagerHostname"],
            alive=node["Alive"],
            resources=node["Resources"] if node["Alive"] else {},
            free=free.get(node["NodeID"]) if node["Alive"] else None,
        )
        for node in ray.nodes()
        if node["Alive"] or gone
    ]


def answered(
    asked: Mapping[ray.ObjectRef[Answer], str],
    late: Sequence[ray.ObjectRef[Answer]],
    *,
    seconds: float,
) -> tuple[list[Said[Answer]], list[ray.ObjectRef[Answer]]]:
    """Of the late ones, those who have answered after at most `seconds`, and the rest."""
    ready, rest = ray.wait(list(late), num_returns=len(late), timeout=seconds)
    return [_answer(each, asked[each]) for each in ready], rest


def on_every_node(
    what: Callable[[], Answer], *, seconds: float = SECONDS, name: str = ""
) -> list[Said[Answer]]:
    """What each node says within `seconds`; see `asked_of_every_node`."""
    asked = asked_of_every_node(what, name=name)
    said: list[Said[Answer]]
    said, late = answered(asked, list(asked), seconds=seconds)
    for each in late:
        ray.cancel(each, force=True)
        said.append(Said(asked[each], None, f"did not answer within {seconds:g} s"))
    return said


def _called(what: Callable[[], Answer]) -> Answer:
    return what()


def _answer(reference: ray.ObjectRef[Answer], node: str) -> Said[Answer]:
    try:
        return Said(node, ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        return Said(node, None, str(error.cause))
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return Said(node, None, (lines or [repr(error)])[-1].strip())
