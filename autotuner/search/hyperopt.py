"""HyperOpt's TPE and annealing, over the same lines as every other sampler.

HyperOpt holds no state of ours: its trials are written anew for every ask from what was told,
with one loss each, for it knows neither bounds nor several objectives.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field

from autotuner.errors import ConfigError
from autotuner.search.axes import Axis, axes_of
from autotuner.search.base import Searcher, SearchKind, stream, unseen
from autotuner.search.lessons import Lesson, lessons, losses
from autotuner.study.space import Parameters, Value, point_key
from autotuner.study.spec import StudySpec, options_of
from autotuner.study.trial import Trial

Suggest: TypeAlias = Callable[..., list[dict[str, Any]]]
"""HyperOpt's algorithms: new ids, domain, trials, seed -> documents."""

PROPOSALS = 10
"""Proposals that may repeat a point before a new one is drawn at random."""


class Options(BaseModel):
    """Options of ``search: {kind: hyperopt}``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    algorithm: Literal["tpe", "anneal"] = Field(
        default="tpe", description="`tpe`, or `anneal`: nearer and nearer to the best."
    )
    startup_trials: int = Field(
        default=5, ge=1, description="Points drawn at random before the algorithm is asked."
    )


class _HyperOpt:
    def __init__(self, spec: StudySpec, options: Options) -> None:
        self._space = spec.parameter_space
        self._seed = spec.search.seed
        self._objectives = tuple(spec.objectives)
        self._startup = options.startup_trials
        self._suggest = _suggest(options.algorithm)
        self._axes = [axis for axis in axes_of(self._space) if not axis.constant]
        self._domain = _domain(self._axes) if self._axes else None
        self._told: list[Trial] = []
        self._seen: set[str] = set()

    def ask(self) -> Parameters | None:
        rng = stream(self._seed, len(self._seen))
        point = self._proposed(rng)
        if point is None:
            point = unseen(self._space, self._seen, lambda: self._space.sample(rng))
        if point is not None:
            self._seen.add(point_key(point))
        return point

    def tell(self, trial: Trial) -> None:
        self._seen.add(point_key(trial.parameters))
        self._told.append(trial)

    def _proposed(self, rng: random.Random) -> Parameters | None:
        """The algorithm's proposal; None where it only repeats itself, or knows too little."""
        found = lessons(self._space, self._objectives, self._told)
        if len(found) < self._startup or not self._axes:
            return None
        trials = _trials(self._axes, found)
        for _ in range(PROPOSALS):
            point = self._point(
                self._suggest([len(found)], self._domain, trials, rng.getrandbits(31))
            )
            if point_key(point) not in self._seen:
                return point
        return None

    def _point(self, documents: list[dict[str, Any]]) -> Parameters:
        """The active part of a proposal: HyperOpt is not told of conditions, it only sees that
        some trials have no value of a parameter."""
        places = documents[0]["misc"]["vals"]
        axes = {axis.name: axis for axis in self._axes}
        chosen: Parameters = {}
        for parameter in self._space.parameters:
            name = parameter.name
            if parameter.active(chosen):
                varies = name in axes
                chosen[name] = (
                    axes[name].value(float(places[name][0]))
                    if varies
                    else parameter.domain.grid()[0]
                )
        return chosen


def _suggest(algorithm: str) -> Suggest:
    """HyperOpt is imported here, where a study begins: it takes seconds."""
    from hyperopt import anneal, tpe

    if algorithm == "anneal":
        return cast(Suggest, anneal.suggest)
    # Its own random start is never used: ours repeats nothing.
    return functools.partial(tpe.suggest, n_startup_jobs=0, verbose=False)


def _domain(axes: Sequence[Axis]) -> Any:
    from hyperopt import Domain, hp

    return Domain(
        None,
        {
            axis.name: hp.uniform(axis.name, *axis.ends)
            if axis.ordered
            else hp.randint(axis.name, len(axis.listed))
            for axis in axes
        },
    )


def _trials(axes: Sequence[Axis], found: Sequence[Lesson]) -> Any:
    from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials

    trials = Trials()
    documents = []
    for number, (lesson, loss) in enumerate(zip(found, losses(found), strict=True)):
        active = {axis.name: axis for axis in axes if axis.name in lesson.point}
        places = {
            axis.name: [_place(axis, lesson.point[axis.name])] if axis.name in active else []
            for axis in axes
        }
        miscellany = {
            "tid": number,
            "cmd": None,
            "workdir": None,
            "idxs": {name: [number] * len(place) for name, place in places.items()},
            "vals": places,
        }
        (document,) = trials.new_trial_docs(
            [number], [None], [{"status": STATUS_OK, "loss": loss}], [miscellany]
        )
        documents.append({**document, "state": JOB_STATE_DONE})
    trials.insert_trial_docs(documents)
    trials.refresh()
    return trials


def _place(axis: Axis, value: Value) -> float | int:
    return axis.place(value) if axis.ordered else int(axis.place(value))


class _HyperOptKind:
    learns = True

    def check(self, spec: StudySpec) -> None:
        options_of(Options, spec.search.options, "search")
        if len(spec.objectives) > 1:
            raise ConfigError(
                f"hyperopt takes one objective, not {len(spec.objectives)}",
                where="objectives",
                hint="keep one and make the others constraints, or use search.kind: optuna",
            )

    def build(self, spec: StudySpec) -> Searcher:
        self.check(spec)
        options: Options = options_of(Options, spec.search.options, "search")
        return _HyperOpt(spec, options)


HYPEROPT: SearchKind = _HyperOptKind()
