"""The default search: a Gaussian process and Optuna's TPE by turns; Optuna's samplers alone where
the study names one."""

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
"""Answers up to which the Gaussian process is asked: its time grows with their square."""

STARTUP = {"auto": 3, "tpe": 5, "gp": 5}
"""Points spread over the space or drawn at random first, where a study does not say."""

TURNS = 3
"""Every how many points TPE is asked instead of the process."""

Sampler = Literal["auto", "tpe", "nsga2", "nsga3", "gp", "cmaes"]

PACKAGES = {"gp": "torch", "cmaes": "cmaes"}
"""What a sampler needs beside Optuna."""


class Options(BaseModel):
    """Options of ``search: {kind: optuna}``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sampler: Sampler = Field(
        default="auto",
        description="`auto`: a small Gaussian process and `tpe` by turns, `tpe` alone after "
        f"{SMALL} answers; or one of Optuna's own: `tpe`, `nsga2`, `nsga3`, `gp` (needs torch), "
        "`cmaes` (needs cmaes).",
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
    """A Gaussian process and TPE by turns; past `SMALL` answers TPE alone.

    The process finds its way with few answers, but believes that effects are smooth, and stays
    on the wrong hill where they are not. TPE believes nothing of the kind. Both are told all.
    """

    def __init__(self, spec: StudySpec, options: Options) -> None:
        from autotuner.search.gaussian import Gaussian

        self._startup = options.startup("auto")
        self._process: Searcher = Gaussian(spec, self._startup)
        self._tpe = sampled(spec, options, "tpe")
        self._seen: set[str] = set()
        self._launched = 0

    def ask(self) -> Parameters | None:
        searcher = self._tpe if self._turn_of_tpe else self._process
        while (point := searcher.ask()) is not None:
            if point_key(point) not in self._seen:  # neither knows what the other has under way
                self._seen.add(point_key(point))
                return point
        return None

    def tell(self, trial: Trial) -> None:
        self._seen.add(point_key(trial.parameters))
        self._launched += trial.state.answered and not trial.refused
        self._tpe.tell(trial)
        if self._launched <= SMALL:
            self._process.tell(trial)

    @property
    def _turn_of_tpe(self) -> bool:
        if self._launched > SMALL:
            return True
        return self._launched > self._startup and len(self._seen) % TURNS == 0


def sampled(spec: StudySpec, options: Options, sampler: str) -> Searcher:
    """A searcher by one of Optuna's samplers, which is imported here: it takes a second."""
    from autotuner.search.samplers import Sampled

    return Sampled(spec, sampler, options.startup(sampler), options.population)


class _OptunaKind:
    learns = True

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
