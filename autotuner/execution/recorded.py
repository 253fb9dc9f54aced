"""A trial whose benchmark knows its answers: the phases of a real one, in no time."""

from __future__ import annotations

from autotuner.benchmarks.base import Recorded
from autotuner.errors import TrialError
from autotuner.execution.trial import DEPLOY, Assignment, outcome_of
from autotuner.study.trial import LoadPoint, Outcome, Phase
from autotuner.study.workload import Load


class RecordedRun:
    """As `TrialRun`, without a server. `seconds` is how long the trial would have taken so far."""

    def __init__(self, assignment: Assignment, benchmark: Recorded) -> None:
        self.assignment = assignment
        self._benchmark = benchmark
        self.seconds = 0.0
        self.phases: list[Phase] = []
        self.load_points: list[LoadPoint] = []

    def deploy(self) -> None:
        assignment = self.assignment
        launched = self._benchmark.deploy(assignment.spec, assignment.parameters)
        self._pass(DEPLOY, launched.seconds)
        if launched.error is not None:
            raise launched.error

    def measure(self, load: Load) -> LoadPoint:
        assignment = self.assignment
        answer = self._benchmark.measure(
            assignment.spec, assignment.parameters, load, trial=assignment.number
        )
        self._pass(load.name, answer.seconds)
        point = LoadPoint(
            index=load.index,
            scenario=load.scenario,
            concurrency=load.concurrency,
            seconds=answer.seconds,
            metrics=answer.metrics,
            probe=load.probe,
        )
        self.load_points.append(point)
        return point

    def stop(self) -> None:
        """Nothing runs."""

    def outcome(self, error: TrialError | None = None) -> Outcome:
        return outcome_of(error, self.load_points, self.phases)

    def _pass(self, name: str, seconds: float) -> None:
        self.phases.append(Phase(name, self.seconds, self.seconds + seconds))
        self.seconds += seconds
