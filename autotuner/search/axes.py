"""A parameter as a line: where its values lie on it, and which value a place on it means.

Samplers think in numbers. Ranges are as they are, or their logarithm where the study says so;
listed numbers are in order, one apart, so that 256, 512, 1024 and 8192 are neighbours as they
are written; other choices are numbered too, but no number is nearer than another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from autotuner.study.space import Choice, Domain, Float, Int, Parameter, Space, Value, identity


@dataclass(frozen=True)
class Axis:
    """The line of one parameter."""

    parameter: Parameter

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def domain(self) -> Domain:
        return self.parameter.domain

    @cached_property
    def listed(self) -> tuple[Value, ...]:
        """The values of a choice, numbers in order; of a range none."""
        if not isinstance(self.domain, Choice):
            return ()
        values = self.domain.values
        return tuple(sorted(values)) if _numbers(values) else values

    @cached_property
    def ordered(self) -> bool:
        """Whether near places mean near values."""
        return not self.listed or (len(self.listed) > 2 and _numbers(self.listed))

    @property
    def constant(self) -> bool:
        return self.domain.size == 1

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest place; whole numbers have half a step of room at either side."""
        domain = self.domain
        if isinstance(domain, Choice):
            return -0.5, len(self.listed) - 0.5
        if isinstance(domain, Int):
            half = (domain.step or 1) / 2
            low, high = domain.low - half, domain.grid()[-1] + half
        else:
            half = (domain.step or 0.0) / 2
            top = domain.grid()[-1] if domain.step is not None else domain.high
            low, high = domain.low - half, top + half
        return (math.log(low), math.log(high)) if domain.log else (low, high)

    def place(self, value: Value) -> float:
        """Where a value of the domain lies."""
        if isinstance(self.domain, Choice):
            return float(self._places[identity(value)])
        return math.log(value) if self.domain.log else float(value)

    def value(self, place: float) -> Value:
        """The value of the domain that is nearest to a place."""
        domain = self.domain
        if isinstance(domain, Choice):
            return self.listed[min(max(round(place), 0), len(self.listed) - 1)]
        number = math.exp(place) if domain.log else place
        if isinstance(domain, Float) and domain.step is None:
            return domain.tidy(number)
        grid = domain.grid()
        index = round((number - domain.low) / (domain.step or 1))
        return grid[min(max(index, 0), len(grid) - 1)]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {identity(value): index for index, value in enumerate(self.listed)}


def axes_of(space: Space) -> tuple[Axis, ...]:
    return tuple(Axis(parameter) for parameter in space.parameters)


def _numbers(values: Sequence[Value]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
