"""Objectives and constraints: which metrics decide, in which direction, within which bounds."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

from autotuner.study.metrics import (
    LATENCIES,
    MAX_LOAD,
    METRICS,
    STATISTICS,
    Better,
    Combine,
    Metric,
    combined,
)
from autotuner.study.slo import FAIL_RATIO, WEIGHT, SLOSpec
from autotuner.study.workload import highest_met

MetricValues: TypeAlias = Mapping[str, float | None]

ALIASES = {
    "minimize_latency": "e2e_latency_mean",
    "maximize_throughput": "total_throughput",
    "minimize_ttft": "ttft_mean",
    "minimize_tpot": "tpot_mean",
}
"""The earlier system's objectives."""

SEVERE = 0.2
"""Relative distance beyond a bound above which a violation is no longer minor."""

PENALTY_LIMIT = 1e250
"""A float ends at 1.8e308, and an infinity is no JSON: the curve is cut where a value
multiplied by it, or divided, is still a number above zero."""

_STEEP_END = 200 * math.log(10)
"""The exponent from which on the curve grows as a power of it, as there is room for no more: who
breaks a bound by more must not come to rank by what the breaking gains."""

_POWER = 10


class Severity(StrEnum):
    MINOR = "minor"
    SEVERE = "severe"
    HARD_FAIL = "hard fail"


@dataclass(frozen=True)
class Constraint:
    """A metric with a bound: an upper bound where lower is better, a lower one otherwise.

    Attributes:
        weight: share in the penalty.
        hard: whether a violation above `fail_ratio` makes a trial infeasible, penalty or not.
    """

    metric: Metric
    bound: float
    weight: float = WEIGHT
    hard: bool = False
    fail_ratio: float = FAIL_RATIO

    def violation(self, value: float) -> float:
        """Relative distance beyond the bound; feasible when <= 0.

        Relative, so that constraints in seconds and in tokens per second weigh alike; with a
        bound of 0 the distance itself.
        """
        distance = value - self.bound if self.metric.better is Better.LOWER else self.bound - value
        return distance / abs(self.bound) if self.bound else distance

    @property
    def text(self) -> str:
        sign = "<=" if self.metric.better is Better.LOWER else ">="
        return f"{self.metric.name} {sign} {self.bound:g} {self.metric.unit}".rstrip()


class Point(Protocol):
    """A load point, as far as it decides anything."""

    @property
    def concurrency(self) -> int: ...
    @property
    def metrics(self) -> MetricValues: ...


class Evaluation(NamedTuple):
    """What a trial's load points say: a value per objective, a violation per constraint."""

    objectives: dict[str, float | None]
    violations: dict[str, float]


def objective_name(text: str) -> str:
    """The metric behind an objective, under its own name or the earlier system's.

    Raises:
        ValueError: neither, with the names that are near.
    """
    name = ALIASES.get(text, text)
    if name in METRICS:
        return name
    near = difflib.get_close_matches(text, [*METRICS, *ALIASES], n=3)
    rest = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(METRICS)}"
    raise ValueError(f"{text!r} is not a metric; {rest}")


def constraints_of(
    bounds: Mapping[str, float], slo: SLOSpec | None = None
) -> tuple[Constraint, ...]:
    """One list of both spellings: metric -> bound, and the rows of `slo`.

    Raises:
        ValueError: a metric is bounded in both.
    """
    rows = slo.rows if slo else {}
    for name in rows:
        if name in bounds:
            raise ValueError(f"{name} has a bound under constraints and another under slo")
    return (
        *(Constraint(METRICS[name], bound) for name, bound in bounds.items()),
        *(
            Constraint(METRICS[name], row.bound, row.weight, row.hard, row.fail_ratio)
            for name, row in rows.items()
        ),
    )


def latency_bounds(constraints: Sequence[Constraint]) -> dict[str, float]:
    """The bounds a single request must meet to be goodput: the tightest per latency."""
    bounds: dict[str, float] = {}
    for constraint in constraints:
        latency, _, statistic = constraint.metric.name.rpartition("_")
        if latency in LATENCIES and statistic in STATISTICS:
            bounds[latency] = min(constraint.bound, bounds.get(latency, float("inf")))
    return bounds


def evaluated(
    names: Sequence[str], constraints: Sequence[Constraint], points: Sequence[Point]
) -> Evaluation:
    """Objectives and violations of a trial.

    Where `max_load` is asked for, both are read at that load alone: beyond it the bounds were
    broken on purpose.
    """
    if MAX_LOAD not in names:
        metrics = [point.metrics for point in points]
        return Evaluation(objective_values(names, metrics), violations(constraints, metrics))
    found, there = at_max_load(constraints, points)
    metrics = [{**point.metrics, MAX_LOAD: found} for point in there]
    return Evaluation(objective_values(names, metrics), violations(constraints, metrics))


def objective_values(
    names: Sequence[str], points: Sequence[MetricValues]
) -> dict[str, float | None]:
    """The trial's value of each objective: its load points combined by the metric's own rule."""
    return {name: combined(name, [point.get(name) for point in points]) for name in names}


def violations(
    constraints: Sequence[Constraint], points: Sequence[MetricValues]
) -> dict[str, float]:
    """Violation of each constraint at the load point that is worst for it.

    Every load point must meet every constraint. One whose metric is missing at a load point and
    that no other load point breaks is left out: neither met nor broken.
    """
    worst: dict[str, float] = {}
    for constraint in constraints:
        name = constraint.metric.name
        known = [value for point in points if (value := point.get(name)) is not None]
        broken = max((constraint.violation(value) for value in known), default=0.0)
        if broken > 0 or (known and len(known) == len(points)):
            worst[name] = broken
    return worst


def loads_met(constraints: Sequence[Constraint], points: Sequence[Point]) -> dict[int, bool]:
    """Concurrency -> whether every constraint was met there, in every scenario measured.

    A metric that is missing was not met: nobody can say that the server bears this load.
    """
    met: dict[int, bool] = {}
    for point in points:
        found = violations(constraints, [point.metrics])
        here = len(found) == len(constraints) and all(value <= 0 for value in found.values())
        met[point.concurrency] = here and met.get(point.concurrency, True)
    return met


def at_max_load(
    constraints: Sequence[Constraint], points: Sequence[Point]
) -> tuple[float | None, list[Point]]:
    """The highest concurrency that meets every constraint, and the load points at it.

    0 where none did, with the points at the lowest that was measured, whose violations say how
    far away the trial is; None of no points.
    """
    met = loads_met(constraints, points)
    found = highest_met(met)
    if found is None:
        return None, []
    level = found or min(met)
    return float(found), [point for point in points if point.concurrency == level]


def penalty(
    constraints: Sequence[Constraint], violations: Mapping[str, float], steepness: float
) -> float:
    """The multiplier of a cost: 1 + sum over the violated of weight * exp(violation / steepness).

    The earlier system's curve: exactly 1 up to the bound, at least 1 + weight beyond it. Above
    1e200 it grows more slowly, and never above PENALTY_LIMIT. A constraint without a known
    violation counts nothing.
    """
    total = sum(
        constraint.weight * _exp(violation / steepness)
        for constraint in constraints
        if (violation := violations.get(constraint.metric.name, 0.0)) > 0
    )
    return min(1 + total, PENALTY_LIMIT)


def penalised(name: str, value: float, multiplier: float) -> float:
    """The value with the penalty on its cost, in its own unit and direction.

    The cost of a metric of which higher is better is its inverse: a negated throughput, made
    larger, would be rewarded.
    """
    return value * multiplier if METRICS[name].better is Better.LOWER else value / multiplier


def penalisable(name: str) -> bool:
    """Whether a penalty always shows: not where lower is better and the best is 0, times
    whatever."""
    metric = METRICS[name]
    return metric.better is Better.HIGHER or metric.combine is Combine.GEOMETRIC


def severity(constraint: Constraint, violation: float) -> Severity | None:
    """How bad a violation is; None where the bound is met."""
    if violation <= 0:
        return None
    if constraint.hard and violation > constraint.fail_ratio:
        return Severity.HARD_FAIL
    return Severity.SEVERE if violation > SEVERE else Severity.MINOR


def hard_failure(
    constraints: Sequence[Constraint], violations: Mapping[str, float]
) -> Constraint | None:
    """The hard constraint broken furthest beyond its `fail_ratio`; None where none is."""
    failed = [
        constraint
        for constraint in constraints
        if severity(constraint, violations.get(constraint.metric.name, 0.0)) is Severity.HARD_FAIL
    ]
    return max(failed, key=lambda each: violations[each.metric.name], default=None)


def _exp(exponent: float) -> float:
    """``exp``, and beyond `_STEEP_END` a power that ends with PENALTY_LIMIT."""
    beyond = max(1.0, exponent / _STEEP_END)
    most = (PENALTY_LIMIT / math.exp(_STEEP_END)) ** (1 / _POWER)
    return float(math.exp(min(exponent, _STEEP_END)) * min(beyond, most) ** _POWER)
