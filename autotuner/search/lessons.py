"""What the trials of a study teach a searcher, as numbers: the one place that says how a trial
that crashed, broke a bound or was stopped counts against those that were measured to the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autotuner.study.metrics import METRICS, Better
from autotuner.study.space import Parameters, Space, point_key
from autotuner.study.trial import Trial, TrialState

CRASHED = 1e3
"""Violation of a point that gave no measurement: further out than any measured one."""


@dataclass(frozen=True)
class Lesson:
    """What one point taught.

    Attributes:
        costs: per objective, less is better; None where nothing was measured.
        violation: the largest; feasible when <= 0.
        refused: known without a launch.
    """

    point: Parameters
    costs: tuple[float, ...] | None
    violation: float
    refused: bool = False


def lessons(space: Space, objectives: Sequence[str], trials: Iterable[Trial]) -> list[Lesson]:
    """One lesson per answered point of the space; the trials of the verdict repeat some.

    A STOPPED trial was weak where it was stopped, and what it would have come to is not known:
    it counts as the worst of what was completed, so that it is never preferred to any, and
    teaches nothing while there is nothing to compare it with. FAILED and CANCELLED trials
    say nothing about their parameters.
    """
    told = [t for t in trials if t.state.answered and t.searched and within(space, t.parameters)]
    answered = list({point_key(trial.parameters): trial for trial in told}.values())
    known = {id(trial): costs_of(trial, objectives) for trial in answered}
    complete = [costs for costs in known.values() if costs is not None]
    worst = tuple(map(max, zip(*complete, strict=True)))
    found = []
    for trial in answered:
        costs = known[id(trial)]
        if trial.state is TrialState.STOPPED:
            if worst:
                found.append(Lesson(trial.parameters, worst, 0.0))
        elif costs is None:
            # Beyond a hard bound it was measured, and how far is known.
            broken = max(trial.violations.values(), default=0.0)
            violation = min(broken, CRASHED) if broken > 0 else CRASHED
            found.append(Lesson(trial.parameters, None, violation, trial.refused))
        else:
            found.append(Lesson(trial.parameters, costs, _violation(trial)))
    return found


def within(space: Space, point: Parameters) -> bool:
    """Whether a point is one of the space: the baseline usually is not."""
    expected: Parameters = {}
    for parameter in space.parameters:
        if parameter.active(expected):
            value = point.get(parameter.name)
            if parameter.name not in point or not parameter.domain.holds(value):
                return False
            expected[parameter.name] = value
    return set(expected) == set(point)


def costs_of(trial: Trial, objectives: Sequence[str]) -> tuple[float, ...] | None:
    """The objectives as ranked, turned so that less is better; None unless all are known."""
    if trial.state is not TrialState.COMPLETE:
        return None
    scores = trial.scores
    values = [scores.get(name) for name in objectives]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return tuple(
        -value if METRICS[name].better is Better.HIGHER else value
        for name, value in zip(objectives, known, strict=True)
    )


def losses(found: Sequence[Lesson]) -> list[float]:
    """One number per lesson of a study with one objective, for searchers that know no bounds:
    what broke a bound is worse than all that did not, by how far; what crashed is the worst."""
    costs = [lesson.costs[0] for lesson in found if lesson.costs is not None]
    worst, spread = max(costs, default=0.0), (max(costs, default=0.0) - min(costs, default=0.0))
    spread = spread or abs(worst) or 1.0
    return [
        lesson.costs[0]
        if lesson.costs is not None and lesson.violation <= 0
        else worst + spread * (1 + lesson.violation / (1 + lesson.violation))
        for lesson in found
    ]


def _violation(trial: Trial) -> float:
    """The largest violation, or that of none where it is paid for in the score."""
    largest = max(trial.violations.values(), default=0.0)
    return min(largest, 0.0) if trial.feasible else largest
