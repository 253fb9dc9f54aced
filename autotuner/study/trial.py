"""A trial: one point of the space, tried once. Its states, phases and outcome, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from autotuner.errors import FailureClass
from autotuner.study.objective import penalised
from autotuner.study.space import Parameters


class TrialState(StrEnum):
    PENDING = "PENDING"
    DEPLOYING = "DEPLOYING"
    BENCHMARKING = "BENCHMARKING"
    COMPLETE = "COMPLETE"
    """Measured at every load point."""
    INFEASIBLE = "INFEASIBLE"
    """Refused, crashed or not measurable: the parameters' answer."""
    STOPPED = "STOPPED"
    """Ended early by the scheduler."""
    FAILED = "FAILED"
    """The infrastructure broke: no answer."""
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return self not in (TrialState.PENDING, TrialState.DEPLOYING, TrialState.BENCHMARKING)

    @property
    def answered(self) -> bool:
        """Whether the state says something about the parameters."""
        return self in (TrialState.COMPLETE, TrialState.INFEASIBLE, TrialState.STOPPED)


@dataclass(frozen=True)
class LoadPoint:
    """One load point as it was measured; `metrics` by name, None where one cannot be said.

    A `probe` was a smaller part of the load, for the scheduler to rank: it is in no objective.
    `telemetry` is what was seen of server and machine meanwhile, see `study.telemetry`.
    """

    index: int
    scenario: str
    concurrency: int
    seconds: float
    metrics: Mapping[str, float | None]
    probe: bool = False
    telemetry: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.scenario} x {self.concurrency}"


@dataclass(frozen=True)
class Phase:
    """A stretch of a trial: deploy, one load point, stop. Seconds since the trial began."""

    name: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Outcome:
    """What a trial came to. `advice`: which way to move, where its engine makes that clear;
    `observed`: what the server's log said of its memory (see `Engine.observe`); `why`: what the
    telemetry says of what held it back, in one sentence."""

    state: TrialState
    load_points: tuple[LoadPoint, ...] = ()
    failure: FailureClass | None = None
    reason: str = ""
    advice: str = ""
    log_tail: str = ""
    phases: tuple[Phase, ...] = ()
    observed: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


BASELINE = 0
"""Number of the trial that runs the engine's own defaults."""


@dataclass(frozen=True)
class Trial:
    """One trial as it is stored.

    Attributes:
        number: from 0, in order of asking; 0 is the baseline.
        note: what is happening now, while it runs.
        objectives: value per objective, once complete.
        violations: relative violation per constraint; feasible when all are <= 0.
        penalty: factor on the cost for SLOs broken in penalty mode; 1 without.
        predicted: what the prior said of its objectives and other metrics, where it did.
        observed: what its server's log said of its memory.
        why: what held it back, as far as its telemetry shows, in one sentence.
        repeat_of, round: number of the trial that this one measures again for the verdict, and in
            which round, from 1; round 0 is the search.
        directory: where its plan, logs and results lie.
        node, gpu_ids: where it ran.
        lost_gpu_hours: what attempts that broke or were interrupted cost beyond what `phases` tell.
        created_at, started_at, ended_at: ISO 8601 with zone, UTC.
    """

    number: int
    parameters: Parameters
    state: TrialState = TrialState.PENDING
    note: str = ""
    load_points: tuple[LoadPoint, ...] = ()
    objectives: Mapping[str, float | None] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    penalty: float = 1.0
    predicted: Mapping[str, float | None] = field(default_factory=dict)
    observed: Mapping[str, float] = field(default_factory=dict)
    repeat_of: int | None = None
    round: int = 0
    failure: FailureClass | None = None
    reason: str = ""
    advice: str = ""
    why: str = ""
    log_tail: str = ""
    phases: tuple[Phase, ...] = ()
    directory: str = ""
    node: str = ""
    gpu_ids: tuple[str, ...] = ()
    lost_gpu_hours: float = 0.0
    created_at: str = ""
    started_at: str = ""
    ended_at: str = ""

    @property
    def is_baseline(self) -> bool:
        return self.number == BASELINE

    @property
    def refused(self) -> bool:
        """Answered without a launch."""
        return self.failure is FailureClass.REFUSED

    @property
    def searched(self) -> bool:
        """Whether it belongs to the search: repeats for the verdict do not."""
        return self.repeat_of is None

    @property
    def feasible(self) -> bool:
        """Measured, every objective known, and every constraint met or paid for."""
        return (
            self.state is TrialState.COMPLETE
            and all(value is not None for value in self.objectives.values())
            and (self.penalty > 1 or all(each <= 0 for each in self.violations.values()))
        )

    @property
    def scores(self) -> dict[str, float | None]:
        """The objectives as they are ranked: with the penalty for broken SLOs in them."""
        return {
            name: None if value is None else penalised(name, value, self.penalty)
            for name, value in self.objectives.items()
        }

    @property
    def seconds(self) -> float:
        """From the start of the launch to the server gone."""
        return max((phase.end for phase in self.phases), default=0.0)

    @property
    def gpu_hours(self) -> float:
        """Of all its attempts."""
        return self.lost_gpu_hours + self._told_gpu_hours

    @property
    def _told_gpu_hours(self) -> float:
        return len(self.gpu_ids) * self.seconds / 3600

    def charged(self, gpu_hours: float) -> Trial:
        """With an attempt that cost so much and brought nothing; its phases tell a part of it."""
        untold = max(0.0, gpu_hours - self._told_gpu_hours)
        return replace(self, lost_gpu_hours=self.lost_gpu_hours + untold)

    def with_outcome(
        self,
        outcome: Outcome,
        *,
        objectives: Mapping[str, float | None],
        violations: Mapping[str, float],
        penalty: float = 1.0,
        ended_at: str,
    ) -> Trial:
        return replace(
            self,
            state=outcome.state,
            note="",
            load_points=outcome.load_points,
            failure=outcome.failure,
            reason=outcome.reason,
            advice=outcome.advice,
            why=outcome.why,
            log_tail=outcome.log_tail,
            phases=outcome.phases or self.phases,
            observed=outcome.observed,
            objectives=objectives,
            violations=violations,
            penalty=penalty,
            ended_at=ended_at,
        )


def baseline_of(trials: Sequence[Trial]) -> Trial | None:
    return next((trial for trial in trials if trial.is_baseline), None)
