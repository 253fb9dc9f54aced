"""Optuna's TPE: multivariate, grouped by condition, with constant liars for parallel trials.

Optuna holds no state of ours: its study lives in memory and is made of the trials told, and the
sampler is made anew for every ask from the seed and the count of points, so that a resumed study
goes on as the uninterrupted one would have.
"""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from pydantic import BaseModel, ConfigDict, Field

from autotuner.search.base import Searcher, SearchKind, stream, unseen
from autotuner.study.metrics import METRICS, Better
from autotuner.study.space import Choice, Float, Int, Parameter, Parameters, identity, point_key
from autotuner.study.spec import StudySpec, options_of
from autotuner.study.trial import Trial, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)

CONSTRAINT = "violation"
"""Optuna's name for our largest violation; feasible when <= 0."""

CRASHED = 1e3
"""Violation told for a point that gave no measurement: further out than any measured one."""

PROPOSALS = 20
"""Proposals the sampler may repeat before a new point is drawn at random."""


class Options(BaseModel):
    """Options of ``search: {kind: optuna}``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    startup_trials: int = Field(
        default=5, ge=1, description="Points drawn at random before the model is asked."
    )


class _Optuna:
    def __init__(self, spec: StudySpec, options: Options) -> None:
        self._space = spec.parameter_space
        self._seed = spec.search.seed
        self._startup = options.startup_trials
        self._objectives = list(spec.objectives)
        self._seen: set[str] = set()
        self._open: dict[str, optuna.trial.Trial] = {}
        self._study = optuna.create_study(
            directions=[
                "maximize" if METRICS[name].better is Better.HIGHER else "minimize"
                for name in self._objectives
            ]
        )

    def ask(self) -> Parameters | None:
        if not self._space.parameters:
            return self._remember({}) if not self._seen else None
        rng = stream(self._seed, len(self._seen))
        for _ in range(PROPOSALS):
            self._study.sampler = self._sampler(rng.randrange(2**32))
            proposal = self._study.ask()
            point = self._suggested(proposal)
            if point_key(point) not in self._seen:
                self._open[point_key(point)] = proposal
                return self._remember(point)
            # A repeated point teaches nothing; left open it would be counted as running.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._study.tell(proposal, state=optuna.trial.TrialState.FAIL)
        drawn = unseen(self._space, self._seen, lambda: self._space.sample(rng))
        return None if drawn is None else self._remember(drawn)

    def tell(self, trial: Trial) -> None:
        key = point_key(trial.parameters)
        self._seen.add(key)
        proposal = self._open.pop(key, None)
        if proposal is not None:
            # Told again below with its true values; this one only has to stop running.
            self._study.tell(proposal, state=optuna.trial.TrialState.FAIL)
        if trial.state.answered and self._known(trial):
            self._study.add_trial(self._answer(trial))

    def _remember(self, point: Parameters) -> Parameters:
        self._seen.add(point_key(point))
        return point

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            # multivariate, group and constant_liar are marked experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=seed,
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=self._startup,
            )

    def _suggested(self, proposal: optuna.trial.Trial) -> Parameters:
        chosen: Parameters = {}
        for parameter in self._space.parameters:
            if parameter.active(chosen):
                chosen[parameter.name] = _suggest(proposal, parameter)
        return chosen

    def _known(self, trial: Trial) -> bool:
        """Whether the trial is a point of this space: the baseline usually is not."""
        expected: Parameters = {}
        for parameter in self._space.parameters:
            if parameter.active(expected):
                if parameter.name not in trial.parameters:
                    return False
                expected[parameter.name] = trial.parameters[parameter.name]
        return set(expected) == set(trial.parameters)

    def _answer(self, trial: Trial) -> optuna.trial.FrozenTrial:
        by_name = {parameter.name: parameter for parameter in self._space.parameters}
        distributions = {name: _distribution(by_name[name]) for name in trial.parameters}
        parameters = {
            name: _internal(by_name[name], value) for name, value in trial.parameters.items()
        }
        values = [trial.objectives.get(name) for name in self._objectives]
        measured = trial.state is TrialState.COMPLETE and all(v is not None for v in values)
        violation = max(trial.violations.values(), default=0.0) if measured else CRASHED
        answer: optuna.trial.FrozenTrial = optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE,
            # TPE ranks infeasible trials by violation alone, so the values of a point that has
            # none are never compared; 0 only satisfies the type.
            values=[v if measured and v is not None else 0.0 for v in values],
            params=parameters,
            distributions=distributions,
            constraints={CONSTRAINT: violation},
        )
        return answer


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    domain = parameter.domain
    if isinstance(domain, Choice):
        # Categories are told by identity, so that 1, 1.0 and true stay apart and lists fit.
        return optuna.distributions.CategoricalDistribution([identity(v) for v in domain.values])
    if isinstance(domain, Int):
        return optuna.distributions.IntDistribution(
            domain.low, domain.grid()[-1], log=domain.log, step=domain.step or 1
        )
    top = domain.grid()[-1] if domain.step is not None else domain.high
    return optuna.distributions.FloatDistribution(domain.low, top, log=domain.log, step=domain.step)


def _suggest(proposal: optuna.trial.Trial, parameter: Parameter) -> Any:
    name, domain, within = parameter.name, parameter.domain, _distribution(parameter)
    if isinstance(within, optuna.distributions.CategoricalDistribution):
        chosen = proposal.suggest_categorical(name, within.choices)
        assert isinstance(domain, Choice)
        return next(value for value in domain.values if identity(value) == chosen)
    if isinstance(within, optuna.distributions.IntDistribution):
        return proposal.suggest_int(name, within.low, within.high, step=within.step, log=within.log)
    assert isinstance(within, optuna.distributions.FloatDistribution)
    value = proposal.suggest_float(name, within.low, within.high, step=within.step, log=within.log)
    assert isinstance(domain, Float)
    return domain.tidy(value) if within.step is None else round(value, 12)


def _internal(parameter: Parameter, value: Any) -> Any:
    return identity(value) if isinstance(parameter.domain, Choice) else value


class _OptunaKind:
    def check(self, spec: StudySpec) -> None:
        options_of(Options, spec.search.options, "search")

    def build(self, spec: StudySpec) -> Searcher:
        options: Options = options_of(Options, spec.search.options, "search")
        return _Optuna(spec, options)


OPTUNA: SearchKind = _OptunaKind()
