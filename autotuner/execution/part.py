"""The further parts of a server that spans nodes: an actor for each, in the trial's reservation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from autotuner.addresses import free_port
from autotuner.backends.base import Backend, Server
from autotuner.engines.base import Engine
from autotuner.errors import InfrastructureError
from autotuner.execution.gate import GATE_SECONDS, wait_clear
from autotuner.execution.nvidia import Gauge, nvidia_gauge
from autotuner.execution.parcel import packed, unpack
from autotuner.execution.reservation import GPU, Reservation
from autotuner.execution.trial import Assignment, fresh
from autotuner.plugins import load_kind
from autotuner.serving import Ending, Plan, Slot
from autotuner.settings import Site
from autotuner.study.files import part_directory

ANSWER_SECONDS = 60.0
"""For the actor of a part to answer: it may have to start first."""

PREPARE_SECONDS = GATE_SECONDS + 2 * ANSWER_SECONDS
"""The image was pulled before the study began, unless the node is new."""


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

        self._directory = directory_of(assignment, rank)
        self.node = ""
        """Address of its node, once it is prepared."""
        self.gpu_ids: tuple[str, ...] = ()
        """``NODE/GPU`` of each of its GPUs, once it is prepared."""

    def prepare(self, meeting: str) -> str:
        self.node, gpus = self._asked(self._actor.place.remote())
        self.gpu_ids = tuple(f"{self.node}/{gpu}" for gpu in gpus)
        held = self._asked(self._actor.prepare.remote(meeting), PREPARE_SECONDS)
        return f"on {self.node} {held}" if held else ""

    def start(self) -> None:
        self._asked(self._actor.start.remote())

    def alive(self) -> bool:
        return bool(self._asked(self._actor.alive.remote()))

    def log(self) -> str:
        return str(self._asked(self._actor.log.remote()))

    def ending(self) -> Ending:
        found: Ending = self._asked(self._actor.ending.remote())
        return found

    def stop(self, seconds: float) -> None:
        # On a disk that the nodes share its files are here already.
        lacking = not self._directory.exists()
        try:
            files = self._asked(self._actor.stop.remote(seconds, lacking), seconds + ANSWER_SECONDS)
        finally:
            ray.kill(self._actor)
        if files:
            with suppress(OSError):  # its log is lost, and not what was measured
                unpack(files, self._directory)

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


class PartRun:
    """A part's server, on the part's own node; without Ray."""

    def __init__(
        self,
        assignment: Assignment,
        site: Site,
        rank: int,
        engine: Engine,
        backend: Backend,
        *,
        gpu_ids: tuple[str, ...],
        gauge: Gauge | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._assignment, self._site, self._rank = assignment, site, rank
        self._engine, self._backend = engine, backend
        self._gpu_ids, self._gauge = gpu_ids, gauge
        self._clock, self._sleep = clock, sleep
        self._directory = directory_of(assignment, rank)
        self._plan: Plan | None = None
        self._server: Server | None = None

    def prepare(self, meeting: str) -> str:
        """As `TrialRun.prepare` does for the first part; what holds its GPUs, in words."""
        assignment, backend = self._assignment, self._backend
        fresh(self._directory)
        slot = Slot(
            study=assignment.spec.name,
            trial=assignment.number,
            port=free_port(self._site.ports),
            directory=str(self._directory),
            gpu_ids=self._gpu_ids,
        )
        place = dataclasses.replace(backend.place, rank=self._rank, meeting=meeting)
        launch = self._engine.launch(
            assignment.spec, assignment.parameters, port=slot.port, place=place
        )
        self._plan = backend.plan(launch, slot)
        backend.sweep()
        backend.prepare(launch, lambda text: None)
        return wait_clear(
            self._gpu_ids if backend.gpu_resource == GPU else (),
            self._gauge or nvidia_gauge(),
            clock=self._clock,
            sleep=self._sleep,
        )

    def start(self) -> None:
        assert self._plan is not None, "prepare first"
        self._server = self._backend.start(self._plan)

    def alive(self) -> bool:
        return self._server is not None and self._server.alive()

    def log(self) -> str:
        return self._server.log() if self._server else ""

    def ending(self) -> Ending:
        return self._server.ending() if self._server else Ending()

    def stop(self, seconds: float, files: bool = False) -> bytes:
        """Stop it; with `files`, what it wrote, for a disk that is not this node's."""
        if self._server is not None:
            self._server.stop(seconds)
        return packed(self._directory) if files and self._directory.is_dir() else b""


class _Part(PartRun):
    """What lives on the part's node."""

    def __init__(self, assignment: Assignment, site: Site, rank: int) -> None:
        spec = assignment.spec
        super().__init__(
            assignment,
            site,
            rank,
            load_kind("engine", spec.engine.kinds[0]),
            load_kind("backend", spec.backend.kind).open(spec.backend.options, site),
            gpu_ids=tuple(str(each) for each in ray.get_gpu_ids()),
        )

    def place(self) -> tuple[str, tuple[str, ...]]:
        """Address of the node, and its GPUs."""
        return ray.util.get_node_ip_address(), self._gpu_ids


def directory_of(assignment: Assignment, rank: int) -> Path:
    """Where a part's logs go, in its trial's directory; at the same path on every node."""
    return Path(assignment.directory) / part_directory(rank)
