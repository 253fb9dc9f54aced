"""The seam for searchers: where to look next, by ask and tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from autotuner.errors import ConfigError
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


class SearchKind(Protocol):
    """A kind of searcher: checks its own options and builds a searcher for a study."""

    def check(self, spec: StudySpec) -> None:
        """Raise ConfigError where the study asks for what this kind cannot do."""

    def build(self, spec: StudySpec) -> Searcher: ...


class NoOptions(BaseModel):
    """For kinds without options of their own."""

    model_config = ConfigDict(extra="forbid")


def options_of(model: type[BaseModel], options: Mapping[str, Any], where: str) -> Any:
    """A kind's own options, checked.

    Raises:
        ConfigError: an option the kind does not have, or a value it does not take.
    """
    try:
        return model.model_validate(options)
    except ValidationError as error:
        each = error.errors()[0]
        place = ".".join([where, *map(str, each["loc"])])
        if each["type"] == "extra_forbidden":
            raise ConfigError(
                f"unknown key {each['loc'][-1]!r} with value {each['input']!r}",
                where=place,
                allowed=["kind", *model.model_fields],
            ) from error
        raise ConfigError(f"{each['input']!r}: {each['msg']}", where=place) from error


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
