"""The seam for searchers: where to look next, by ask and tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from typing import Protocol

from autotuner.study.space import Parameters, Space, point_key
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial


class Searcher(Protocol):
    """Proposes points and learns from trials. Nothing in it has to survive a restart.

    1. `ask` never returns a point that was asked for or told before, and returns None once
       every point of the space was: the space is exhausted.
    2. `tell` takes any ended trial of the study, asked for by this searcher or not; telling
       the stored trials to a new searcher in their order is how a study is resumed.
    3. Only answers teach (COMPLETE, INFEASIBLE, STOPPED); a trial that FAILED or was CANCELLED
       says nothing about its parameters.
    4. The same seed and the same answers give the same sequence.
    """

    def ask(self) -> Parameters | None: ...

    def tell(self, trial: Trial) -> None: ...


class Scheduler(Protocol):
    """Stops trials that are weak at a rung. Keeps nothing: it judges from the trials alone, so
    that a resumed study judges as the uninterrupted one would have."""

    def weak(self, trial: Trial, trials: Sequence[Trial]) -> str | None:
        """Why the trial, which has just measured a load point, is to be stopped; None if not.

        Args:
            trials: all of the study, this one among them.
        """


class SearchKind(Protocol):
    """A kind of searcher: checks its own options and builds a searcher for a study."""

    @property
    def learns(self) -> bool:
        """Whether its points depend on answers, so that one asked for early knows less."""

    def check(self, spec: StudySpec) -> None:
        """Raise ConfigError where the study asks for what this kind cannot do."""

    def build(self, spec: StudySpec) -> Searcher: ...


RESAMPLES = 200
"""Draws before a finite space is enumerated for what is left of it."""

ENUMERATED = 200_000
"""Points looked at, at most, to find one that is left."""


def unseen(space: Space, seen: Container[str], draw: Callable[[], Parameters]) -> Parameters | None:
    """A drawn point that was not seen; None when the space holds no other."""
    for _ in range(RESAMPLES):
        point = draw()
        if point_key(point) not in seen:
            return point
    if not space.finite:
        return None
    for index, point in enumerate(space.points()):
        if point_key(point) not in seen:
            return point
        if index >= ENUMERATED:
            break
    return None


def stream(seed: int, count: int) -> random.Random:
    """The random numbers of the `count`-th ask: a function of both, so that a restarted
    searcher goes on with the same ones."""
    return random.Random(f"{seed}:{count}")
