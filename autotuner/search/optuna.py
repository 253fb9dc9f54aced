"""The default search: a Gaussian process for the first few dozen answers, Optuna's samplers
beyond them or where the study names one."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from autotuner.errors import ConfigError
from autotuner.search.axes import axes_of
from autotuner.search.base import Searcher, SearchKind
from autotuner.study.space import Parameters, point_key
from autotuner.study.spec import StudySpec, options_of
from autotuner.study.trial import Trial

SMALL = 100
"""Answers up to which the Gaussian process is asked: its time grows with their cube."""

STARTUP = {"auto": 3, "tpe": 5, "gp": 5}
"""Points spread over the space or drawn at random first, where a study does not say."""

Sampler = Literal["auto", "tpe", "nsga2", "nsga3", "gp", "cmaes"]

PACKAGES = {"gp": "torch", "cmaes": "cmaes"}
"""What a sampler needs beside Optuna."""


class Options(BaseModel):
    """Options of ``search: {kind: optuna}``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sampler: Sampler = Field(
        default="auto",
        description=f"`auto`: a small Gaussian process up to {SMALL} answers, `tpe` after them; "
        "or one of Optuna's own: `tpe`, `nsga2`, `nsga3`, `gp` (needs torch), `cmaes`.",
    )
    startup_trials: int | None = Field(
        default=None,
        ge=1,
        description="Points tried before a model of `auto`, `tpe` or `gp` is asked; by default "
        + ", ".join(f"{count} for `{name}`" for name, count in STARTUP.items())
        + ".",
    )
    population: int = Field(
        default=10, ge=5, description="Points of one generation of `nsga2`, `nsga3` and `cmaes`."
    )

    def startup(self, sampler: str) -> int:
        return self.startup_trials or STARTUP.get(sampler, 1)


class _Auto:
    """The process while answers are few, then TPE, which is told all of them."""

    def __init__(self, spec: StudySpec, options: Options) -> None:
        from autotuner.search.gaussian import Gaussian

        self._spec = spec
        self._options = options
        self._searcher: Searcher = Gaussian(spec, options.startup("auto"))
        self._told: list[Trial] = []
        self._asked: set[str] = set()
        self._answers = 0

    def ask(self) -> Parameters | None:
        while (point := self._searcher.ask()) is not None:
            key = point_key(point)
            if key not in self._asked:  # TPE does not know of what was under way before it
                self._asked.add(key)
                return point
        return None

    def tell(self, trial: Trial) -> None:
        self._told.append(trial)
        self._searcher.tell(trial)
        self._answers += trial.state.answered
        if self._answers == SMALL + 1 and trial.state.answered:
            self._searcher = sampled(self._spec, self._options, "tpe")
            for each in self._told:
                self._searcher.tell(each)


def sampled(spec: StudySpec, options: Options, sampler: str) -> Searcher:
    """A searcher by one of Optuna's samplers, which is imported here: it takes a second."""
    from autotuner.search.samplers import Sampled

    return Sampled(spec, sampler, options.startup(sampler), options.population)


class _OptunaKind:
    def check(self, spec: StudySpec) -> None:
        options: Options = options_of(Options, spec.search.options, "search")
        problem = _problem(spec, options.sampler)
        if problem:
            raise ConfigError(
                f"{options.sampler} {problem}",
                where="search.sampler",
                allowed=[name for name in get_args(Sampler) if not _problem(spec, name)],
            )

    def build(self, spec: StudySpec) -> Searcher:
        self.check(spec)
        options: Options = options_of(Options, spec.search.options, "search")
        if options.sampler == "auto":
            return _Auto(spec, options)
        return sampled(spec, options, options.sampler)


def _problem(spec: StudySpec, sampler: str) -> str:
    """Why a sampler cannot search this study, or nothing."""
    package = PACKAGES.get(sampler)
    if package and find_spec(package) is None:
        return f"needs the package {package!r}, which is not installed"
    if sampler != "cmaes":
        return ""
    if len(spec.objectives) > 1:
        return f"takes one objective, not {len(spec.objectives)}"
    axes = axes_of(spec.parameter_space)
    conditional = [axis.name for axis in axes if axis.parameter.when]
    if conditional:
        return f"knows no conditions, and {conditional[0]!r} has one"
    if sum(axis.ordered and not axis.constant for axis in axes) < 2:
        return "needs at least two parameters that are ranges or lists of three or more numbers"
    return ""


OPTUNA: SearchKind = _OptunaKind()
