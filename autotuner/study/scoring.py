"""What an outcome is worth to its study: objectives, violations, penalty. Pure."""

from __future__ import annotations

import dataclasses

from autotuner.errors import FailureClass
from autotuner.study.metrics import METRICS
from autotuner.study.objective import Constraint, evaluated, hard_failure, penalty
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Outcome, Trial, TrialState


def scored(spec: StudySpec, trial: Trial, outcome: Outcome, *, ended_at: str) -> Trial:
    """The trial with its outcome.

    A complete measurement becomes INFEASIBLE where an objective or a bound could not be measured
    at every load point, and where a hard bound was broken beyond its `fail_ratio`; its violations
    are kept then, so that the searcher learns how far away it was.
    """
    if outcome.state is not TrialState.COMPLETE:
        return trial.with_outcome(outcome, objectives={}, violations={}, ended_at=ended_at)
    points = [point for point in outcome.load_points if not point.probe]
    objectives, violations = evaluated(spec.objectives, spec.bounds, points)
    missing = [name for name, value in objectives.items() if value is None]
    missing += [each.metric.name for each in spec.bounds if each.metric.name not in violations]
    if missing:
        reason = f"{missing[0]} could not be measured at every load point"
        return _infeasible(trial, outcome, FailureClass.BENCHMARK, reason, ended_at)
    penalises = spec.slo is not None and spec.slo.mode == "penalty"
    kept = trial.with_outcome(
        outcome,
        objectives=objectives,
        violations=violations,
        penalty=penalty(spec.bounds, violations, spec.slo.steepness)
        if spec.slo is not None and penalises
        else 1.0,
        ended_at=ended_at,
    )
    broken = hard_failure(spec.bounds, violations)
    if broken is None:
        return kept
    return dataclasses.replace(
        kept,
        state=TrialState.INFEASIBLE,
        failure=FailureClass.SLO,
        reason=_beyond(broken, violations[broken.metric.name]),
    )


def _infeasible(
    trial: Trial, outcome: Outcome, failure: FailureClass, reason: str, ended_at: str
) -> Trial:
    refused = dataclasses.replace(
        outcome, state=TrialState.INFEASIBLE, failure=failure, reason=reason
    )
    return trial.with_outcome(refused, objectives={}, violations={}, ended_at=ended_at)


def _beyond(broken: Constraint, violation: float) -> str:
    unit = METRICS[broken.metric.name].unit
    return (
        f"{broken.metric.name} is {violation:.0%} beyond its hard bound of "
        f"{broken.bound:g} {unit}".rstrip()
        + f" (at most {broken.fail_ratio:.0%} is borne)"
    )
