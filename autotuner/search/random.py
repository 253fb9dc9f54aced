"""Random search: each active parameter drawn alone from its domain, never a point twice."""

from __future__ import annotations

from autotuner.search.base import Searcher, SearchKind, stream, unseen
from autotuner.study.space import Parameters, Space, point_key
from autotuner.study.spec import NoOptions, StudySpec, options_of
from autotuner.study.trial import Trial


class _Random:
    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._seen: set[str] = set()

    def ask(self) -> Parameters | None:
        rng = stream(self._seed, len(self._seen))
        point = unseen(self._space, self._seen, lambda: self._space.sample(rng))
        if point is not None:
            self._seen.add(point_key(point))
        return point

    def tell(self, trial: Trial) -> None:
        self._seen.add(point_key(trial.parameters))


class _RandomKind:
    learns = False

    def check(self, spec: StudySpec) -> None:
        options_of(NoOptions, spec.search.options, "search")

    def build(self, spec: StudySpec) -> Searcher:
        self.check(spec)
        return _Random(spec.parameter_space, spec.search.seed)


RANDOM: SearchKind = _RandomKind()
