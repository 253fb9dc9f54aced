"""The further parts of a server that spans nodes: an actor for each, in the trial's reservation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from autotuner.backends.base import Backend, Server
from autotuner.engines.base import Engine
from autotuner.errors import InfrastructureError
from autotuner.execution.reservation import GPU, Reservation
from autotuner.execution.trial import Assignment, free_port
from autotuner.plugins import load_kind
from autotuner.serving import Ending, Slot
from autotuner.settings import Site

ANSWER_SECONDS = 60.0
"""For the actor of a part to answer: it may have to start first."""


class RemotePart:
    """A `Part` in one of the reservation's bundles. Made by the trial's actor: Ray ends it when
    that one is gone, and its guard or reaper then ends what it started."""

    def __init__(
        self, assignment: Assignment, site: Site, reserved: Reservation, rank: int
    ) -> None:
        where = PlacementGroupSchedulingStrategy(
            placement_group=get_current_placement_group(), placement_group_bundle_index=rank
        )
        resources = {} if reserved.resource == GPU else {reserved.resource: reserved.share}
        self._actor: Any = (
            ray.remote(_Part)
            .options(
                num_cpus=reserved.cpus,
                num_gpus=reserved.share if reserved.resource == GPU else 0,
                resources=resources,
                scheduling_strategy=where,
            )
            .remote(assignment, site, rank)
        )

        self.node = ""
        """Address of its node, once it has started."""
        self.gpu_ids: tuple[str, ...] = ()
        """``NODE/GPU`` of each of its GPUs, once it has started."""

    def start(self, meeting: str) -> None:
        self.node, gpus = self._asked(self._actor.start.remote(meeting))
        self.gpu_ids = tuple(f"{self.node}/{gpu}" for gpu in gpus)

    def alive(self) -> bool:
        return bool(self._asked(self._actor.alive.remote()))

    def log(self) -> str:
        return str(self._asked(self._actor.log.remote()))

    def ending(self) -> Ending:
        found: Ending = self._asked(self._actor.ending.remote())
        return found

    def stop(self, seconds: float) -> None:
        try:
            self._asked(self._actor.stop.remote(seconds), seconds + ANSWER_SECONDS)
        finally:
            ray.kill(self._actor)

    def _asked(self, reference: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """The actor's answer.

        Raises:
            InfrastructureError: its own, or because it is gone.
        """
        try:
            return ray.get(reference, timeout=seconds)
        except ray.exceptions.RayTaskError as error:
            raise InfrastructureError(f"a part on another node: {error.cause}") from error
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise InfrastructureError("a part on another node is gone, or its node is") from error


class _Part:
    """Lives on the part's node."""

    def __init__(self, assignment: Assignment, site: Site, rank: int) -> None:
        self._assignment = assignment
        self._site = site
        self._rank = rank
        self._server: Server | None = None

    def start(self, meeting: str) -> tuple[str, tuple[str, ...]]:
        spec, assignment = self._assignment.spec, self._assignment
        engine: Engine = load_kind("engine", spec.engine.kinds[0])
        backend: Backend = load_kind("backend", spec.backend.kind).open(
            spec.backend.options, self._site
        )
        directory = Path(assignment.directory) / f"part-{self._rank}"
        directory.mkdir(parents=True, exist_ok=True)
        slot = Slot(
            study=spec.name,
            trial=assignment.number,
            port=free_port(self._site.ports),
            directory=str(directory),
            gpu_ids=tuple(str(each) for each in ray.get_gpu_ids()),
        )
        place = dataclasses.replace(backend.place, rank=self._rank, meeting=meeting)
        launch = engine.launch(spec, assignment.parameters, port=slot.port, place=place)
        backend.prepare(launch, lambda text: None)
        self._server = backend.start(backend.plan(launch, slot))
        return ray.util.get_node_ip_address(), slot.gpu_ids

    def alive(self) -> bool:
        return self._server is not None and self._server.alive()

    def log(self) -> str:
        return self._server.log() if self._server else ""

    def ending(self) -> Ending:
        return self._server.ending() if self._server else Ending()

    def stop(self, seconds: float) -> None:
        if self._server is not None:
            self._server.stop(seconds)
