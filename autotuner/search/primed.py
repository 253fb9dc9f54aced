"""A searcher that is told where to begin: given points first, then its own."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.search.base import Searcher
from autotuner.study.space import Parameters, point_key
from autotuner.study.trial import Trial


class Primed:
    """Asks for the given points in their order, then hands over to another searcher.

    The other one is told of every trial, so that what the first points taught is not lost; and
    it is told before it is asked, so that it repeats none of them.

    Args:
        points: where to begin, the most promising first. Points of the space.
    """

    def __init__(self, searcher: Searcher, points: Sequence[Parameters]) -> None:
        self._searcher = searcher
        self._points = list(points)
        self._seen: set[str] = set()

    def ask(self) -> Parameters | None:
        for point in self._points:
            if point_key(point) not in self._seen:
                self._seen.add(point_key(point))
                return dict(point)
        return self._after()

    def tell(self, trial: Trial) -> None:
        self._seen.add(point_key(trial.parameters))
        self._searcher.tell(trial)

    def _after(self) -> Parameters | None:
        """The other searcher's next point; those under way from here it does not know."""
        while (point := self._searcher.ask()) is not None:
            if point_key(point) not in self._seen:
                self._seen.add(point_key(point))
                return point
        return None
