"""A trial as a Ray Tune actor: it holds the resources, says where it is, starts the server, and
takes one load point a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from autotuner.addresses import free_port
from autotuner.benchmarks.base import Opened, Recorded
from autotuner.errors import InfrastructureError, TrialError
from autotuner.execution.parcel import files_for
from autotuner.execution.part import RemotePart
from autotuner.execution.recorded import RecordedRun
from autotuner.execution.reservation import Reservation, granted
from autotuner.execution.spanning import Part
from autotuner.execution.trial import Assignment, Kinds, TrialRun
from autotuner.plugins import load_kind
from autotuner.serving import HERE
from autotuner.settings import Site
from autotuner.study.trial import BASELINE, Outcome

ASSIGNMENT, RESERVATION, NODES, NEWS = "assignment", "reservation", "nodes", "news"
HELD_AS = "held-as"
"""Keys of an actor's config, and of its results."""

NODE_LABEL = "ray.io/node-id"
"""Label that Ray gives every node."""


@dataclass(frozen=True)
class News:
    """What a step reports.

    Attributes:
        node: empty as long as not all of its nodes have said their names.
        gpu_ids: of a server that spans nodes, those of the others are known once it has started.
        outcome: what was measured so far, final when `ended`; None before there is a server.
        note: what begins now.
        deploying: whether the launch itself begins now, and with it the trial's time.
        files: of an ended trial that the driver cannot see, see `parcel`.
    """

    node: str
    gpu_ids: tuple[str, ...]
    outcome: Outcome | None = None
    note: str = ""
    deploying: bool = False
    ended: bool = False
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
        self._steps = self._life()

    def step(self) -> dict[str, Any]:
        try:
            news = next(self._steps)
        except Exception:
            # This process goes on for a while, and what it owns with it: the next attempt may
            # get the same GPUs at once.
            if self._run is not None:
                self._stop()
            raise
        return {NEWS: news, "done": news.ended}

    def cleanup(self) -> None:
        if self._run is not None:
            self._run.stop()

    def _life(self) -> Iterator[News]:
        """What each step reports, in order. The first says where the trial is, before anything can
        take long or break."""
        yield self._news()
        spec = self._assignment.spec
        self._others = self._parts()
        run = self._run = run_of(
            self._assignment,
            self._gpu_ids,
            self._site,
            others=self._others,
            meeting=f"{self._node}:{free_port(self._site.ports, self._node)}",
        )
        failure: TrialError | None = None
        try:
            if isinstance(run, TrialRun):
                run.prepare()
            yield self._news(deploying=True)
            run.deploy()
            while (load := spec.next_load(run.load_points)) is not None:
                yield self._news(outcome=run.outcome(), note=load.name)
                run.measure(load)
        except TrialError as error:
            failure = error
        yield self._ended(run, failure)

    def _parts(self) -> list[RemotePart]:
        ranks = range(1, self._reserved.nodes)
        return [RemotePart(self._assignment, self._site, self._reserved, rank) for rank in ranks]

    def _ended(self, run: TrialRun | RecordedRun, failure: TrialError | None) -> News:
        late = self._stop()
        outcome = run.outcome(failure)
        return self._news(
            outcome=dataclasses.replace(outcome, reason=outcome.reason or late),
            ended=True,
            files=files_for(self._driver, Path(self._assignment.directory)),
        )

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

    def _news(self, **more: Any) -> News:
        run, number = self._run, self._assignment.number
        first = (run.node if isinstance(run, TrialRun) else None) or self._node
        nodes = [first, *(part.node for part in self._others)]
        known = len(nodes) == self._reserved.nodes and all(nodes)
        return News(
            node=", ".join(nodes) if known else "",
            gpu_ids=(
                *granted(self._reserved, self._gpu_ids, trial=number),
                *(gpu for part in self._others for gpu in part.gpu_ids),
            ),
            **more,
        )


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
