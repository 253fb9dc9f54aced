"""A trial as a Ray Tune actor: it holds the resources, starts the server in its first step and
takes one load point a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from autotuner.benchmarks.base import Opened, Recorded
from autotuner.errors import InfrastructureError, TrialError
from autotuner.execution.parcel import files_for
from autotuner.execution.part import RemotePart
from autotuner.execution.recorded import RecordedRun
from autotuner.execution.reservation import Reservation, granted
from autotuner.execution.spanning import Part
from autotuner.execution.trial import Assignment, Kinds, TrialRun, free_port
from autotuner.plugins import load_kind
from autotuner.serving import HERE
from autotuner.settings import Site
from autotuner.study.trial import BASELINE, Outcome
from autotuner.study.workload import Load

ASSIGNMENT, RESERVATION, NODES, NEWS = "assignment", "reservation", "nodes", "news"
HELD_AS = "held-as"
"""Keys of an actor's config, and of its results."""

NODE_LABEL = "ray.io/node-id"
"""Label that Ray gives every node."""


@dataclass(frozen=True)
class News:
    """What a step reports.

    Attributes:
        outcome: what was measured so far; final when `ended`.
        note: what begins now.
        files: of an ended trial that the driver cannot see, see `parcel`.
    """

    outcome: Outcome
    note: str
    ended: bool
    node: str
    gpu_ids: tuple[str, ...]
    files: bytes = b""


class TrialActor(tune.Trainable):
    """Runs one assignment. Where the parameters fail it reports an answer; where the machine
    fails it raises, and the loop says what becomes of the trial."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        reserved: Reservation = config[RESERVATION]
        nodes: tuple[str, ...] = config[NODES]
        return tune.PlacementGroupFactory(
            reserved.bundles,
            strategy="STRICT_PACK" if reserved.nodes == 1 else "STRICT_SPREAD",
            # A trial is pinned when it is handed to Tune, see `placer`. Nothing keeps the pin.
            bundle_label_selector=[{NODE_LABEL: node} for node in nodes],
            name=config[HELD_AS],
        )

    def setup(self, config: dict[str, Any], site: Site | None = None, driver: str = "") -> None:
        self._site = site or Site()
        self._driver = driver
        self._assignment: Assignment = config[ASSIGNMENT]
        self._reserved: Reservation = config[RESERVATION]
        self._others: list[RemotePart] = []
        self._gpu_ids = tuple(str(each) for each in ray.get_gpu_ids())
        self._node = ray.util.get_node_ip_address()
        self._run: TrialRun | RecordedRun | None = None
        self._next: Load | None = None

    def step(self) -> dict[str, Any]:
        try:
            return self._step()
        except Exception:
            # This process goes on for a while, and what it owns with it: the next attempt may
            # get the same GPUs at once.
            if self._run is not None:
                self._stop()
            raise

    def cleanup(self) -> None:
        if self._run is not None:
            self._run.stop()

    def _step(self) -> dict[str, Any]:
        try:
            if self._run is None:
                self._others = self._parts()
                self._run = run_of(
                    self._assignment,
                    self._gpu_ids,
                    self._site,
                    others=self._others,
                    meeting=f"{self._node}:{free_port(self._site.ports, self._node)}",
                )
                self._run.deploy()
            elif self._next is not None:
                self._run.measure(self._next)
        except TrialError as error:
            return self._news(error)
        return self._news(None)

    def _parts(self) -> list[RemotePart]:
        ranks = range(1, self._reserved.nodes)
        return [RemotePart(self._assignment, self._site, self._reserved, rank) for rank in ranks]

    def _stop(self) -> str:
        """Stop before the report, so that the report holds how long it took. A stop that takes
        too long is said, and does not undo what was measured."""
        assert self._run is not None
        try:
            self._run.stop()
        except InfrastructureError as error:
            return str(error)
        return ""

    def __repr__(self) -> str:
        """What the Ray dashboard shows as the actor's name."""
        assignment = self._assignment
        point = " ".join(f"{name}={value}" for name, value in assignment.parameters.items())
        if assignment.number == BASELINE:
            point = "baseline"
        return f"{assignment.spec.name}/{assignment.number} {point}".strip()

    def _news(self, error: TrialError | None) -> dict[str, Any]:
        assert self._run is not None
        self._next = None if error else self._assignment.spec.next_load(self._run.load_points)
        ended = self._next is None
        late = self._stop() if ended else ""
        outcome = self._run.outcome(error)
        news = News(
            outcome=dataclasses.replace(outcome, reason=outcome.reason or late),
            note=self._next.name if self._next else "",
            ended=ended,
            node=", ".join([self._node, *(part.node for part in self._others)]),
            gpu_ids=(
                *granted(self._reserved, self._gpu_ids),
                *(gpu for part in self._others for gpu in part.gpu_ids),
            ),
            files=files_for(self._driver, Path(self._assignment.directory)) if ended else b"",
        )
        return {NEWS: news, "done": ended}


def run_of(
    assignment: Assignment,
    gpu_ids: tuple[str, ...],
    site: Site,
    *,
    others: Sequence[Part] = (),
    meeting: str = HERE.meeting,
) -> TrialRun | RecordedRun:
    """The run of an assignment, with the kinds its study names, loaded where the trial runs."""
    spec = assignment.spec
    benchmark = load_kind("benchmark", spec.benchmark.kind)
    if isinstance(benchmark, Recorded):
        return RecordedRun(assignment, benchmark)
    kinds = Kinds(
        engine=load_kind("engine", spec.engine.kinds[0]),
        backend=load_kind("backend", spec.backend.kind).open(spec.backend.options, site),
        benchmark=benchmark.open(spec, site) if isinstance(benchmark, Opened) else benchmark,
    )
    return TrialRun(assignment, kinds, gpu_ids=gpu_ids, site=site, others=others, meeting=meeting)
