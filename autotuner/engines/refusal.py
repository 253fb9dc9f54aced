"""Points that cannot start, as a table of rules: each a sentence or nothing, with its source.

A rule speaks only of what is given: a flag left out has a default that depends on the machine,
and nothing is refused because of a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from autotuner.engines.catalog import Catalog, release, whole_number
from autotuner.engines.flags import catalog_of, environment, flag_values, given
from autotuner.study.model import ModelShape, model_shape
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec

_OVERRIDES = frozenset(
    [
        *("hf-overrides", "hf-config-path", "config-format", "rope-scaling", "rope-theta"),
        *("json-model-override-args", "decrypted-config-file"),
    ]
)
"""Flags under which a model is not what its `config.json` says. The two of RoPE were vLLM's own up
to 0.10, which folds them into `hf-overrides` (`__post_init__` of ModelConfig in its config.py)."""


@dataclass(frozen=True)
class Point:
    """One point as its engine will read it: true flag names, whatever they are called."""

    spec: StudySpec
    catalog: Catalog
    values: Mapping[str, Any]
    environment: Mapping[str, str]

    @property
    def overridden(self) -> bool:
        """Whether a flag may make another model of the one that lies there."""
        return any(
            name.partition(".")[0] in _OVERRIDES and value is not None and value != ""
            for name, value in self.values.items()
        )

    @cached_property
    def shape(self) -> ModelShape | None:
        """The model's shape, where nothing on the command line changes it."""
        return None if self.overridden else model_shape(self.spec.model.path)

    def value(self, name: str) -> Any:
        """The flag's value, or None where it is left out."""
        found = given(self.catalog, self.values, name)
        return None if found == "" else found

    def whole(self, name: str) -> int | None:
        return whole_number(self.value(name))

    def size(self, name: str) -> int:
        """A parallel size: 1 where it is left out."""
        return self.whole(name) or 1

    def real(self, name: str) -> float | None:
        value = self.value(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if number else None

    def text(self, name: str) -> str | None:
        value = self.value(name)
        return value if isinstance(value, str) else None

    def on(self, name: str) -> bool:
        return self.value(name) is True


def point_of(spec: StudySpec, parameters: Parameters) -> Point:
    return Point(
        spec, catalog_of(spec), flag_values(spec, parameters), environment(spec, parameters)
    )


@dataclass(frozen=True)
class Rule:
    """Why a point cannot start, or None; `source`: where the engine itself says so.

    Attributes:
        since: the first release of which that is known, where it is not so of every release.
    """

    says: Callable[[Point], str | None]
    source: str
    since: tuple[int, ...] = ()


def first_refusal(rules: Iterable[Rule], point: Point) -> str | None:
    """The sentence of the first rule of the point's release that refuses it, or None."""
    version = release(point.catalog.version)
    asked = (rule for rule in rules if version >= rule.since)
    return next((reason for rule in asked if (reason := rule.says(point))), None)


def evenly(gpus: Callable[[Point], int]) -> Callable[[Point], str | None]:
    """The GPUs of a server that spans nodes, equally many of which are on each."""

    def says(point: Point) -> str | None:
        count, nodes = gpus(point), point.spec.engine.nodes
        return f"{count} GPUs do not divide among {nodes} nodes" if count % nodes else None

    return says


def not_above(low: str, high: str) -> Callable[[Point], str | None]:
    """Two whole numbers, of which the first must not be above the second."""

    def says(point: Point) -> str | None:
        one, other = point.whole(low), point.whole(high)
        if one is None or other is None or one <= other:
            return None
        return f"{low} {one} is above {high} {other}"

    return says


def not_below(high: str, low: str) -> Callable[[Point], str | None]:
    """The same said of the second, where that is the one to change."""

    def says(point: Point) -> str | None:
        one, other = point.whole(high), point.whole(low)
        if one is None or other is None or one >= other:
            return None
        return f"{high} {one} is below {low} {other}"

    return says


def at_least(name: str, least: int) -> Callable[[Point], str | None]:
    def says(point: Point) -> str | None:
        value = point.whole(name)
        return f"{name} {value} is below {least}" if value is not None and value < least else None

    return says


def within(name: str, low: float, high: float, *, closed: bool) -> Callable[[Point], str | None]:
    """A real number above `low`, and below `high` or, if `closed`, at most that; an end that is
    infinite is none."""

    def says(point: Point) -> str | None:
        value = point.real(name)
        if value is None or low < value < high or (closed and value == high):
            return None
        ends = {f"above {low:g}": low, f"{'at most' if closed else 'below'} {high:g}": high}
        said = " and ".join(words for words, end in ends.items() if math.isfinite(end))
        return f"{name} {value:g} is not {said}"

    return says


def splits(total: int, what: str, size: int, flags: str) -> str | None:
    """The sentence for a number of things that GPUs would have to share evenly."""
    return f"{total} {what} cannot be split by {flags} {size}" if total % size else None


def kv_heads_split(shape: ModelShape, size: int, flags: str) -> str | None:
    """KV heads are shared evenly, or repeated evenly where there are more GPUs than heads."""
    if shape.latent or shape.kv_heads % size == 0 or size % shape.kv_heads == 0:
        return None
    return f"{shape.kv_heads} KV heads can neither be split nor repeated by {flags} {size}"


_UNRELATED = {
    "awq": ("gptq", "fp8", "bitsandbytes"),
    "gptq": ("awq", "fp8", "bitsandbytes"),
    "fp8": ("awq", "gptq", "bitsandbytes"),
}
"""A checkpoint's method and those that cannot read it; those that convert (gptq_marlin ...) are not
among them."""


def unrelated_method(point: Point) -> str | None:
    """A `quantization` that cannot read the checkpoint's own."""
    own = point.shape.quantization if point.shape else None
    method = point.text("quantization")
    if method not in _UNRELATED.get(own or "", ()):
        return None
    return f"quantization {method} does not match the model's {own}"
