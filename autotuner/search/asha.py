"""Asynchronous successive halving (ASHA; Li et al. 2020, arXiv:1810.05934), stopping kind.

Rungs are load points: the first `grace` of them, then `reduction_factor` times as many, and so on.
A trial that is not among the best 1/`reduction_factor` of the trials that reached its rung is
stopped there. Trials are compared only by the load points of that rung, which all of them have
measured, under the same prompts; the first `reduction_factor` to arrive go on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotuner.search.base import Scheduler
from autotuner.study.metrics import METRICS, Better
from autotuner.study.objective import objective_values, penalised, penalty, violations
from autotuner.study.spec import SchedulerSpec, StudySpec
from autotuner.study.trial import LoadPoint, Trial


class _Asha:
    def __init__(self, spec: StudySpec, options: SchedulerSpec) -> None:
        self._spec = spec
        self._objective = spec.objectives[0]
        self._factor = options.reduction_factor
        # By index: a stored trial's load points are not in the order of their measuring.
        self._ladder = [load.index for load in spec.loads()]
        self._rungs = rungs(options.grace, options.reduction_factor, len(self._ladder))

    def weak(self, trial: Trial, trials: Sequence[Trial]) -> str | None:
        rung = len(trial.load_points)
        if trial.is_baseline or rung not in self._rungs:
            return None
        others = [
            self._rank(other, rung)
            for other in trials
            if other.number != trial.number
            and other.searched
            and len(self._climbed(other, rung)) == rung
        ]
        own = self._rank(trial, rung)
        if len(others) < self._factor:
            return None
        better = sum(other < own for other in others)
        if better < math.ceil((len(others) + 1) / self._factor):
            return None
        last = self._climbed(trial, rung)[-1]
        part = f"a probe of {last.name}" if last.probe else last.name
        return f"stopped after {part}: {better} of {len(others)} trials were better there"

    def _rank(self, trial: Trial, rung: int) -> tuple[float, float]:
        """Smaller is better: how far out of bounds, then the objective as a cost."""
        points = _telling(self._climbed(trial, rung))
        metrics = [point.metrics for point in points]
        broken = violations(self._spec.bounds, metrics)
        value = objective_values([self._objective], metrics)[self._objective]
        if value is None:
            return (math.inf, math.inf)
        slo = self._spec.slo
        if slo is not None and slo.mode == "penalty":
            factor = penalty(self._spec.bounds, broken, slo.steepness)
            return (0.0, self._cost(penalised(self._objective, value, factor)))
        return (max([0.0, *broken.values()]), self._cost(value))

    def _climbed(self, trial: Trial, rung: int) -> list[LoadPoint]:
        """The load points up to a rung that a trial has measured, in the order of measuring."""
        by_index = {point.index: point for point in trial.load_points}
        return [by_index[index] for index in self._ladder[:rung] if index in by_index]

    def _cost(self, value: float) -> float:
        return -value if METRICS[self._objective].better is Better.HIGHER else value


def rungs(grace: int, factor: int, loads: int) -> frozenset[int]:
    """Numbers of load points after which trials are ranked; the last is no rung, since there is
    nothing left to save."""
    found = []
    rung = grace
    while rung < loads:
        found.append(rung)
        rung *= factor
    return frozenset(found)


def _telling(points: Sequence[LoadPoint]) -> Sequence[LoadPoint]:
    """What a trial is ranked by: its whole load points, or the largest probe so far."""
    whole = [point for point in points if not point.probe]
    return whole or points[-1:]


def scheduler_of(spec: StudySpec) -> Scheduler | None:
    """The scheduler a study asks for, or None."""
    return _Asha(spec, spec.scheduler) if spec.scheduler is not None else None
