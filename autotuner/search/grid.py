"""Grid search: every point once, in the order of the file, the last parameter fastest."""

from __future__ import annotations

from autotuner.errors import ConfigError
from autotuner.search.base import Searcher, SearchKind
from autotuner.study.space import Parameters, Space, point_key
from autotuner.study.spec import NoOptions, StudySpec, options_of
from autotuner.study.trial import Trial


class _Grid:
    def __init__(self, space: Space) -> None:
        self._points = space.points()
        self._seen: set[str] = set()

    def ask(self) -> Parameters | None:
        for point in self._points:
            key = point_key(point)
            if key not in self._seen:
                self._seen.add(key)
                return point
        return None

    def tell(self, trial: Trial) -> None:
        self._seen.add(point_key(trial.parameters))


class _GridKind:
    learns = False

    def check(self, spec: StudySpec) -> None:
        options_of(NoOptions, spec.search.options, "search")
        space = spec.parameter_space
        endless = [p.name for p in space.parameters if p.domain.size is None]
        if endless:
            raise ConfigError(
                "grid needs a finite space",
                where=f"space.{endless[0]}",
                hint="give it a step or a list of choices, or use search.kind: random or optuna",
            )

    def build(self, spec: StudySpec) -> Searcher:
        self.check(spec)
        return _Grid(spec.parameter_space)


GRID: SearchKind = _GridKind()
