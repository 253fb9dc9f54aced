"""Optuna's samplers, asked one point at a time.

Optuna holds no state of ours: for every ask its study is made anew, in memory, of the trials told
and of the points under way, and its sampler of the seed and the count of points, so that a
resumed study goes on as the uninterrupted one would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from autotuner.search.axes import Axis, axes_of
from autotuner.search.base import stream, unseen
from autotuner.search.lessons import CRASHED, Lesson, lessons, losses
from autotuner.study.space import Choice, Float, Int, Parameters, Value, identity, point_key
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)

CONSTRAINT = "violation"
"""Optuna's name for our largest violation; feasible when <= 0."""

PROPOSALS = 8
"""Proposals the sampler may repeat before a new point is drawn at random."""


class Sampled:
    """A searcher; see `search.base.Searcher`.

    Args:
        sampler: `tpe`, `nsga2`, `nsga3`, `gp` or `cmaes`.
        startup: points drawn at random before the model of `tpe` or `gp` is asked.
        population: points of one generation of the others.
    """

    def __init__(self, spec: StudySpec, sampler: str, startup: int, population: int) -> None:
        self._space = spec.parameter_space
        self._seed = spec.search.seed
        self._objectives = tuple(spec.objectives)
        self._axes = {axis.name: axis for axis in axes_of(self._space)}
        self._kind = sampler
        self._startup = startup
        self._population = population
        self._told: list[Trial] = []
        self._asked: dict[str, Parameters] = {}
        self._seen: set[str] = set()

    def ask(self) -> Parameters | None:
        rng = stream(self._seed, len(self._seen))
        point = self._proposed(lambda: rng.randrange(2**32)) if self._axes else None
        if point is None:
            point = unseen(self._space, self._seen, lambda: self._space.sample(rng))
        if point is not None:
            self._seen.add(point_key(point))
            self._asked[point_key(point)] = point
        return point

    def tell(self, trial: Trial) -> None:
        self._seen.add(point_key(trial.parameters))
        self._asked.pop(point_key(trial.parameters), None)
        self._told.append(trial)

    def _proposed(self, seed: Callable[[], int]) -> Parameters | None:
        """The sampler's proposal; None where it only repeats itself."""
        with warnings.catch_warnings():
            # multivariate, group, constant_liar and the GP are marked experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = self._study()
            for _ in range(PROPOSALS):
                study.sampler = self._sampler(seed())
                proposal = study.ask()
                point = self._suggested(proposal)
                if point_key(point) not in self._seen:
                    return point
                study.tell(proposal, state=optuna.trial.TrialState.FAIL)
        return None

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self._kind == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed,
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=self._startup,
            )
        if self._kind == "gp":
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=self._startup, deterministic_objective=False
            )
        if self._kind == "cmaes":
            return optuna.samplers.CmaEsSampler(
                seed=seed, popsize=self._population, warn_independent_sampling=False
            )
        if self._kind == "nsga3":
            return optuna.samplers.NSGAIIISampler(seed=seed, population_size=self._population)
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=self._population)

    def _study(self) -> optuna.Study:
        study = optuna.create_study(
            directions=["minimize"] * len(self._objectives), sampler=self._sampler(self._seed)
        )
        found = lessons(self._space, self._objectives, self._told)
        learnt: Mapping[str, Any] = {}
        for index, (lesson, values) in enumerate(zip(found, self._values(found), strict=True)):
            generation, born = divmod(index, self._population)
            if self._kind == "cmaes" and generation and not born:
                learnt = _optimizer(study)
            study.add_trial(
                optuna.trial.create_trial(
                    values=values,
                    constraints=self._constraints(lesson),
                    system_attrs={**dict.fromkeys(GENERATIONS, generation), **learnt},
                    **self._coordinates(lesson.point),
                )
            )
        for point in self._asked.values():
            running = optuna.trial.TrialState.RUNNING
            study.add_trial(optuna.trial.create_trial(state=running, **self._coordinates(point)))
        return study

    def _values(self, found: list[Lesson]) -> list[list[float]]:
        """What is to be made less, per lesson. CMA-ES knows no bounds: they are in its one loss.
        For the others, what was not measured is as bad as the worst that was."""
        if self._kind == "cmaes":
            return [[loss] for loss in losses(found)]
        measured = [lesson.costs for lesson in found if lesson.costs is not None]
        worst = tuple(map(max, zip(*measured, strict=True))) or (0.0,) * len(self._objectives)
        return [list(lesson.costs or worst) for lesson in found]

    def _constraints(self, lesson: Lesson) -> dict[str, float] | None:
        if self._kind == "cmaes":
            return None
        # Processes are fitted to violations, so that one far out would hide all others from it.
        largest = 1.0 if self._kind == "gp" else CRASHED
        return {CONSTRAINT: min(lesson.violation, largest)}

    def _coordinates(self, point: Parameters) -> dict[str, Any]:
        axes = [self._axes[name] for name in point]
        return {
            "params": {axis.name: _told(axis, point[axis.name]) for axis in axes},
            "distributions": {axis.name: _distribution(axis) for axis in axes},
        }

    def _suggested(self, proposal: optuna.trial.Trial) -> Parameters:
        chosen: Parameters = {}
        for parameter in self._space.parameters:
            if parameter.active(chosen):
                chosen[parameter.name] = _suggest(proposal, self._axes[parameter.name])
        return chosen


GENERATIONS = ("NSGAIISampler:generation", "NSGAIIISampler:generation", "cma:generation")
"""Under these names Optuna's samplers note on a trial of which generation it is. The trials are
made anew from what was told, so the notes are too."""

OPTIMIZER = "cma:optimizer"
"""Beginning of the names under which CMA-ES keeps its state on a trial."""


def _optimizer(study: optuna.Study) -> dict[str, Any]:
    """State of CMA-ES once a generation is complete, for the trials of the next one."""
    question = study.ask()
    noted = study.get_trials(deepcopy=False)[question.number].system_attrs
    state = {name: value for name, value in noted.items() if name.startswith(OPTIMIZER)}
    study.tell(question, state=optuna.trial.TrialState.FAIL)
    return state


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    domain = axis.domain
    if isinstance(domain, Choice):
        if axis.ordered:
            return optuna.distributions.IntDistribution(0, len(axis.listed) - 1)
        # Categories are told by identity, so that 1, 1.0 and true stay apart and lists fit.
        return optuna.distributions.CategoricalDistribution([identity(v) for v in axis.listed])
    if isinstance(domain, Int):
        return optuna.distributions.IntDistribution(
            domain.low, domain.grid()[-1], log=domain.log, step=domain.step or 1
        )
    top = domain.grid()[-1] if domain.step is not None else domain.high
    return optuna.distributions.FloatDistribution(domain.low, top, log=domain.log, step=domain.step)


def _suggest(proposal: optuna.trial.Trial, axis: Axis) -> Value:
    name, within = axis.name, _distribution(axis)
    if isinstance(within, optuna.distributions.CategoricalDistribution):
        chosen = proposal.suggest_categorical(name, within.choices)
        return next(value for value in axis.listed if identity(value) == chosen)
    if isinstance(within, optuna.distributions.IntDistribution):
        whole = proposal.suggest_int(
            name, within.low, within.high, step=within.step, log=within.log
        )
        return axis.listed[whole] if axis.listed else whole
    assert isinstance(within, optuna.distributions.FloatDistribution)
    value = proposal.suggest_float(name, within.low, within.high, step=within.step, log=within.log)
    assert isinstance(axis.domain, Float)
    return axis.domain.tidy(value) if within.step is None else round(value, 12)


def _told(axis: Axis, value: Value) -> Value:
    if not axis.listed:
        return value
    return int(axis.place(value)) if axis.ordered else identity(value)
