"""Objectives and constraints: which metrics decide, in which direction, within which bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from autotuner.study.metrics import LATENCIES, METRICS, STATISTICS, Better, Metric, combined

MetricValues: TypeAlias = Mapping[str, float | None]


@dataclass(frozen=True)
class Constraint:
    """A metric with a bound: an upper bound where lower is better, a lower one otherwise."""

    metric: Metric
    bound: float

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


def constraints_of(bounds: Mapping[str, float]) -> tuple[Constraint, ...]:
    return tuple(Constraint(METRICS[name], bound) for name, bound in bounds.items())


def latency_bounds(constraints: Sequence[Constraint]) -> dict[str, float]:
    """The bounds a single request must meet to be goodput: the tightest per latency."""
    bounds: dict[str, float] = {}
    for constraint in constraints:
        latency, _, statistic = constraint.metric.name.rpartition("_")
        if latency in LATENCIES and statistic in STATISTICS:
            bounds[latency] = min(constraint.bound, bounds.get(latency, float("inf")))
    return bounds


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
