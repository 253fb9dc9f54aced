"""The first few dozen trials: a Gaussian process chooses where most improvement is expected.

A study of an LLM server has 6 to 30 trials for hundreds of points, too few for TPE to tell good
from bad. Most flags act smoothly on throughput and latency, and much alike whatever the others
are; a process that assumes so learns something of every flag from every trial.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autotuner.search.axes import Axis, axes_of
from autotuner.search.base import stream, unseen
from autotuner.search.lessons import Lesson, lessons
from autotuner.search.surrogate import Array, Layout, Surrogate, distances, stacked
from autotuner.study.space import Parameters, point_key
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial

CANDIDATES = 400
"""Points drawn for the process to choose from, besides the neighbours of the best."""

LISTED = 5000
"""Points of a space, at most, that are listed once instead of drawn each time."""

SPACED = 32
"""Points drawn at the start, of which the one furthest from all others is taken."""

FEW = 20
"""Values of a parameter, at most, that are all tried as neighbours."""

REACH = 0.1
"""Typical distance of a neighbour on a longer line, relative to the line."""

REFUSED = 100
"""Refused points that are learnt from, at most, the latest: they cost nothing, and may be many."""

HOPE = 0.25
"""Probability of being feasible or accepted below which a point is not asked for."""

SMOOTHING = 0.05
"""Share of the sum in a scalar of several objectives, beside the worst of them (ParEGO)."""


class Gaussian:
    """A searcher; see `search.base.Searcher`.

    Args:
        startup: points launched, spread over the space, before the process is asked.
    """

    def __init__(self, spec: StudySpec, startup: int) -> None:
        self._space = spec.parameter_space
        self._seed = spec.search.seed
        self._objectives = tuple(spec.objectives)
        self._startup = startup
        self._axes = axes_of(self._space)
        self._layout = Layout(self._axes)
        size = self._space.size(limit=LISTED)
        listed = size is not None and size <= LISTED
        self._left = _keyed(self._space.points()) if listed else None
        self._places: dict[str, tuple[list[float], ...]] = {}
        self._told: list[Trial] = []
        self._asked: dict[str, Parameters] = {}
        self._seen: set[str] = set()

    def ask(self) -> Parameters | None:
        rng = stream(self._seed, len(self._seen))
        found = lessons(self._space, self._objectives, self._told)
        drawn = self._drawn(rng)
        if not drawn:
            point = unseen(self._space, self._seen, lambda: self._space.sample(rng))
        elif sum(not lesson.refused for lesson in found) < self._startup:
            point = self._spaced(drawn, found)
        else:
            point = self._promising(drawn, found, rng)
        if point is not None:
            self._asked[point_key(point)] = point
            self._see(point)
        return point

    def tell(self, trial: Trial) -> None:
        self._asked.pop(point_key(trial.parameters), None)
        self._see(trial.parameters)
        self._told.append(trial)

    def _see(self, point: Parameters) -> None:
        self._seen.add(point_key(point))
        if self._left is not None:
            self._left.pop(point_key(point), None)

    def _drawn(self, rng: random.Random) -> dict[str, Parameters]:
        """Points to choose from, in random order: some of those that are left."""
        if self._left is None:
            return self._new(self._space.sample(rng) for _ in range(CANDIDATES))
        keys = rng.sample(list(self._left), min(CANDIDATES, len(self._left)))
        return {key: self._left[key] for key in keys}

    def _new(self, points: Iterable[Parameters]) -> dict[str, Parameters]:
        return {key: point for key, point in _keyed(points).items() if key not in self._seen}

    def _rows(self, points: Mapping[str, Parameters]) -> list[Array]:
        for key, point in points.items():
            if key not in self._places:
                self._places[key] = self._layout.places(point)
        return stacked([self._places[key] for key in points])

    def _spaced(self, drawn: dict[str, Parameters], found: list[Lesson]) -> Parameters:
        """The one of a few drawn points that is furthest from all known or under way."""
        few = dict(itertools.islice(drawn.items(), SPACED))
        taken = _keyed(lesson.point for lesson in found) | self._asked
        if not taken:
            return next(iter(few.values()))
        apart = distances(self._rows(taken), self._rows(few)).sum(axis=0)
        return list(few.values())[int(apart.min(axis=0).argmax())]

    def _promising(
        self, drawn: dict[str, Parameters], found: list[Lesson], rng: random.Random
    ) -> Parameters:
        """The point of the most expected improvement, if it is feasible, times how probably."""
        measured = [lesson for lesson in found if lesson.costs is not None]
        scalar = _scalar(measured, rng)
        met = [i for i, lesson in enumerate(measured) if lesson.violation <= 0]
        best = min(met, key=lambda i: scalar[i], default=None)
        near = [] if best is None else _neighbours(measured[best].point, self._axes, rng)
        candidates = drawn | self._new(near)
        rows = self._rows(candidates)
        draws = np.random.default_rng(rng.randrange(2**32))
        worth: Array = np.ones(len(candidates))
        launched = [lesson for lesson in found if not lesson.refused]
        if best is not None:
            process = self._process(measured, scalar, draws)
            worth = process.predict(rows).shortfall(scalar[best])
        if any(lesson.violation > 0 for lesson in launched):
            over = [min(max(lesson.violation, -1.0), 1.0) for lesson in launched]
            feasible = self._process(launched, over, draws).predict(rows).below(0.0)
            worth = np.where(_likely(feasible), worth * feasible, 0.0)
        if len(launched) < len(found):
            # To be refused costs nothing, so a doubt is no reason to look elsewhere.
            latest = [lesson for lesson in found if lesson.refused][-REFUSED:]
            told = launched + latest
            refused = [1.0 if lesson.refused else -1.0 for lesson in told]
            accepted = self._process(told, refused, draws).predict(rows).below(0.0)
            worth = np.where(_likely(accepted), worth, 0.0)
        return list(candidates.values())[int(worth.argmax())]

    def _process(
        self, answered: list[Lesson], values: Sequence[float], draws: np.random.Generator
    ) -> Surrogate:
        rows = self._rows(_keyed(lesson.point for lesson in answered))
        under_way = self._rows(self._asked) if self._asked else None
        return Surrogate(rows, np.array(values), draws, under_way)


def _likely(probability: Array) -> NDArray[np.bool_]:
    """Which points are worth asking for: not those of which hardly any hope is left."""
    return np.asarray(probability >= min(HOPE, probability.max()))


def _keyed(points: Iterable[Parameters]) -> dict[str, Parameters]:
    return {point_key(point): point for point in points}


def _scalar(measured: list[Lesson], rng: random.Random) -> list[float]:
    """One number per lesson, less is better: the logarithm of a single cost; of several, the
    worst of them under weights drawn anew each time (Knowles 2006, ParEGO)."""
    columns = [_logarithms(each) for each in zip(*(m.costs or () for m in measured), strict=True)]
    if len(columns) == 1:
        return columns[0]
    shares = [rng.expovariate(1.0) for _ in columns]
    weighted = [
        [share * (value - min(column)) / (max(column) - min(column) or 1.0) for value in column]
        for share, column in zip(shares, columns, strict=True)
    ]
    return [max(each) + SMOOTHING * sum(each) for each in zip(*weighted, strict=True)]


def _logarithms(costs: Sequence[float]) -> list[float]:
    """In the order of the costs, where all have one sign; else the costs themselves."""
    if all(cost > 0 for cost in costs):
        return [math.log(cost) for cost in costs]
    return [-math.log(-cost) for cost in costs] if all(c < 0 for c in costs) else list(costs)


def _neighbours(point: Parameters, axes: tuple[Axis, ...], rng: random.Random) -> list[Parameters]:
    """Points that differ in one parameter on which no other depends."""
    parents = {name for axis in axes for name in axis.parameter.when}
    found = []
    for axis in axes:
        if axis.name in point and axis.name not in parents:
            found += [{**point, axis.name: value} for value in _values(axis, point, rng)]
    return found


def _values(axis: Axis, point: Parameters, rng: random.Random) -> list[object]:
    if (axis.domain.size or FEW + 1) <= FEW:
        return list(axis.domain.grid())
    low, high = axis.ends
    here = axis.place(point[axis.name])
    return [axis.value(rng.gauss(here, REACH * (high - low))) for _ in range(FEW)]
