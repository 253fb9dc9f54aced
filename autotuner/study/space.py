"""The search space: parameter -> domain, with conditions; pure values and their rules.

Parameter names are canonical: no leading dashes, ``-`` for ``_``. A name ``env:NAME`` is an
environment variable. The JSON types of values are kept.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Value: TypeAlias = Any
"""A JSON value: str, int, float, bool, None, list or dict."""

Parameters: TypeAlias = dict[str, Value]
"""Canonical name -> value, in the order of the space; inactive parameters are absent."""

ENVIRONMENT = "env:"


def canonical_name(name: str) -> str:
    """``--max_num_seqs`` -> ``max-num-seqs``; environment variables keep their spelling."""
    if name.startswith(ENVIRONMENT):
        return name
    head, dot, rest = name.lstrip("-").partition(".")
    # The part after a dot is a key inside a JSON-valued flag, which is the engine's own.
    return head.replace("_", "-") + dot + rest


@dataclass(frozen=True)
class Choice:
    """One of the listed values, all different as JSON."""

    values: tuple[Value, ...]

    @property
    def size(self) -> int | None:
        return len(self.values)

    def grid(self) -> Sequence[Value]:
        return self.values

    def holds(self, value: Value) -> bool:
        return any(same(value, each) for each in self.values)

    def sample(self, rng: random.Random) -> Value:
        return rng.choice(self.values)


@dataclass(frozen=True)
class Int:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False
    step: int | None = None

    @property
    def size(self) -> int | None:
        return (self.high - self.low) // (self.step or 1) + 1

    def grid(self) -> Sequence[int]:
        return range(self.low, self.high + 1, self.step or 1)

    def holds(self, value: Value) -> bool:
        return _is_number(value) and value in self.grid()

    def sample(self, rng: random.Random) -> int:
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(max(round(drawn), self.low), self.high)
        return rng.randrange(self.low, self.high + 1, self.step or 1)


@dataclass(frozen=True)
class Float:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def size(self) -> int | None:
        if self.step is not None:
            return math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return 1 if self.low == self.high else None

    def grid(self) -> Sequence[float]:
        if self.size is None:
            raise ValueError("a float without a step has no grid")
        step = self.step or 0.0
        return tuple(round(self.low + i * step, 12) for i in range(self.size))

    def holds(self, value: Value) -> bool:
        if not _is_number(value):
            return False
        return value in self.grid() if self.step is not None else self.low <= value <= self.high

    def sample(self, rng: random.Random) -> float:
        if self.step is not None:
            return rng.choice(self.grid())
        if self.log:
            return self.tidy(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return self.tidy(rng.uniform(self.low, self.high))

    def tidy(self, value: float) -> float:
        """The value as a person would write it: six significant digits, inside the range."""
        return min(max(float(f"{value:.6g}"), self.low), self.high)


Domain: TypeAlias = Choice | Int | Float


@dataclass(frozen=True)
class Parameter:
    """A flag or environment variable that varies.

    Attributes:
        when: other parameter -> values under which this one is active; all must hold.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def active(self, chosen: Mapping[str, Value]) -> bool:
        return all(
            name in chosen and any(same(chosen[name], value) for value in values)
            for name, values in self.when.items()
        )


@dataclass(frozen=True)
class Space:
    """The parameters, ordered so that a condition only refers to earlier ones."""

    parameters: tuple[Parameter, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def finite(self) -> bool:
        return all(parameter.domain.size is not None for parameter in self.parameters)

    def size(self, limit: int = 1_000_000) -> int | None:
        """Number of different points; None where a float without a step makes it infinite.

        Counted exactly up to `limit` where there are conditions, by product where there are
        none; above `limit` with conditions, the product, which is an upper bound.
        """
        if not self.finite:
            return None
        product = math.prod(p.domain.size or 1 for p in self.parameters)
        if not any(p.when for p in self.parameters) or product > limit:
            return product
        return sum(1 for _ in self.points())

    def points(self) -> Iterator[Parameters]:
        """Every point once, in declaration order with the last parameter varying fastest.

        Raises:
            ValueError: the space is infinite.
        """
        if not self.finite:
            raise ValueError("a space with a float parameter without a step has no grid")
        return self._points(0, {})

    def _points(self, index: int, chosen: Parameters) -> Iterator[Parameters]:
        if index == len(self.parameters):
            yield dict(chosen)
            return
        parameter = self.parameters[index]
        if not parameter.active(chosen):
            yield from self._points(index + 1, chosen)
            return
        for value in parameter.domain.grid():
            yield from self._points(index + 1, {**chosen, parameter.name: value})

    def sample(self, rng: random.Random) -> Parameters:
        """One point, each active parameter drawn alone from its domain."""
        chosen: Parameters = {}
        for parameter in self.parameters:
            if parameter.active(chosen):
                chosen[parameter.name] = parameter.domain.sample(rng)
        return chosen


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(one: Value, other: Value) -> bool:
    """Equality of JSON values: ``True`` is not ``1``, ``1`` is ``1.0``."""
    return identity(one) == identity(other)


def identity(value: Value) -> str:
    """A text that two values share exactly when they are the same JSON value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Mapping):
        return (
            "{"
            + ",".join(
                f"{json.dumps(str(key))}:{identity(value[key])}" for key in sorted(value, key=str)
            )
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(identity, value)) + "]"
    return json.dumps(value)


def left_out(value: Value) -> bool:
    """Whether a value leaves its flag out: None and the empty text do."""
    return value is None or value == ""


def point_key(parameters: Mapping[str, Value]) -> str:
    """Identity of a point, whatever the order of its parameters.

    A value that leaves the flag out (None, or an empty string) is the same as its absence.
    """
    return identity({k: v for k, v in parameters.items() if not left_out(v)})
