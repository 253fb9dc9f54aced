"""The study file, field by field. `docs/study-file.md` is generated from these models.

What belongs to one kind of engine, backend or searcher is checked by that kind: here a kind is
only a name, and its own options are carried along.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from autotuner.errors import ConfigError
from autotuner.plugins import kinds
from autotuner.study.domains import (
    Misplaced,
    canonical_keys,
    environment_text,
    refuse_secret,
    refuse_variable,
    space_of,
)
from autotuner.study.metrics import MAX_LOAD, METRICS
from autotuner.study.objective import (
    Constraint,
    constraints_of,
    loads_met,
    objective_name,
    penalisable,
)
from autotuner.study.quantization import QUANTIZATION, QuantizationSpec
from autotuner.study.quantization import parameters_of as quantization_parameters
from autotuner.study.slo import SLOSpec, bound_problem
from autotuner.study.space import (
    ENVIRONMENT,
    Choice,
    Parameter,
    Parameters,
    Space,
    canonical_name,
)
from autotuner.study.trial import LoadPoint
from autotuner.study.workload import SCENARIO_FORMS, Load, load_levels, next_level, scenario

DEFAULT_TRIALS = 20
"""Trials besides the baseline where a study does not say, except for grid: its whole space."""

PROBES = 2
"""Smaller parts of a single load point that a scheduler may rank trials by, at most."""

LEAST_PROBED = 8
"""Requests below which a probe would tell nothing."""

ENGINE = "engine"
"""The parameter that says which of several engines a point is for."""

LOAD_PRECISION = 0.1
"""Relative distance between neighbouring concurrencies where `max_load` is sought."""

NUMBERS_OF_A_REQUEST = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "seed", "n", "best_of"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("max_tokens", "min_tokens"),
    )
)
"""Fields of a request that engines refuse as a text, with every single request."""

NAME_LENGTH = 63
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


class _Part(BaseModel):
    """Unknown keys are errors, values keep their types, nothing changes after reading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class ModelSpec(_Part):
    """The model to serve."""

    path: str = Field(min_length=1, description="A local directory, or an id on a model hub.")
    served_name: str = Field(
        default="", description="Name in requests; the last segment of `path` by default."
    )
    tokenizer: str | None = Field(
        default=None, description="Tokenizer directory or hub id; `path` by default."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, raw: Any) -> Any:
        if (
            isinstance(raw, Mapping)
            and not raw.get("served_name")
            and isinstance(raw.get("path"), str)
        ):
            return {**raw, "served_name": raw["path"].rstrip("/").rpartition("/")[2]}
        return raw


class EngineSettings(_Part):
    """What is fixed about the launch of an engine."""

    version: str | None = Field(
        default=None,
        description="Version of its flag catalog; the newest known by default.",
    )
    catalog: str | None = Field(
        default=None,
        description="A flag catalog file of your own, made by `autotuner catalog KIND --from-...`.",
    )
    command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="How the engine is started on this machine, as a list, without its flags; "
        "the engine's usual command by default.",
    )
    image: str | None = Field(
        default=None,
        description="Container image, or only a tag of the engine's official one; that one's "
        "tag for `version` by default.",
    )
    image_command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="How the engine is started in its image, as a list, without its flags; the "
        "engine's usual command by default.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        description="Nodes that one server spans, with equally many of its GPUs on each.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Fixed flags under the engine's own names. `true` is a bare flag, `false` "
        "leaves it out or becomes `--no-flag` where the engine defines that, `null` and an empty "
        "text leave it out; mappings stay JSON.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Fixed environment variables of the server."
    )

    @field_validator("arguments")
    @classmethod
    def _canonical(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if canonical_name(name) != "api-key":  # engines have better advice for that one
                refuse_secret(name)
        return canonical_keys(arguments)

    @field_validator("environment", mode="before")
    @classmethod
    def _numbers_as_text(cls, environment: Any) -> Any:
        if not isinstance(environment, Mapping):
            return environment
        for name in environment:
            refuse_variable(name)
        return {name: environment_text(value) for name, value in environment.items()}


class EngineSpec(EngineSettings):
    """The inference server program and what is fixed about its launch."""

    kind: str | list[str] = Field(
        description="Which engine: `vllm`, `sglang`, or `simulated` for trying things out; a list "
        "compares several in one search, the first of them being the baseline.",
    )
    settings: dict[str, EngineSettings] = Field(
        default_factory=dict,
        description="For several engines: the settings above by kind of engine.",
    )

    @field_validator("kind", mode="before")
    @classmethod
    def _one_or_several(cls, said: Any) -> Any:
        names = said if isinstance(said, list) else [said]
        if not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{short(said)} is not allowed: it must be the name of an engine, or a list of "
                f"several; allowed: {', '.join(kinds('engine'))}"
            )
        return said

    @model_validator(mode="after")
    def _several(self) -> EngineSpec:
        if isinstance(self.kind, str):
            if self.settings:
                raise Misplaced("is only for several kinds of engine", "settings")
            return self
        if len(self.kind) < 2 or len(set(self.kind)) < len(self.kind):
            raise Misplaced(f"{self.kind!r} must be two or more different engines", "kind")
        nothing = EngineSettings()
        others = [n for n in type(nothing).model_fields if getattr(self, n) != getattr(nothing, n)]
        if others:
            raise Misplaced(
                f"which engine is meant? Say it under settings.{self.kind[0]}", others[0]
            )
        strange = [kind for kind in self.settings if kind not in self.kind]
        if strange:
            raise Misplaced(
                f"{strange[0]!r} is none of the engines: {', '.join(self.kind)}", "settings"
            )
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.kind,) if isinstance(self.kind, str) else tuple(self.kind)

    def only(self, kind: str) -> EngineSpec:
        """The engine as a study of this kind alone would say it."""
        settings = self.settings.get(kind, EngineSettings())
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        return EngineSpec(kind=kind, **given)


class BackendSpec(BaseModel):
    """Where servers run. A further key is a kind of backend, and holds its options: only `kind`
    changes when the study moves."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str = Field(
        default="process",
        description="`process`: a program on the trial's machine; `docker`: a container there; "
        "`ome`: an InferenceService on Kubernetes.",
    )

    @property
    def blocks(self) -> dict[str, Any]:
        """Options by kind, as written."""
        return dict(self.model_extra or {})

    @property
    def options(self) -> dict[str, Any]:
        """Those of the kind."""
        return dict(self.blocks.get(self.kind) or {})


class WorkloadSpec(_Part):
    """The load every trial is measured under: each scenario at each concurrency."""

    scenarios: list[str] = Field(
        min_length=1,
        description="Traffic scenarios: " + "; ".join(f"`{f}`" for f in SCENARIO_FORMS),
    )
    concurrency: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(
        min_length=1, description="Requests kept in flight; one load point each."
    )
    max_requests: int = Field(
        default=100, ge=1, description="Measured requests per load point, at most."
    )
    max_seconds: float = Field(
        default=60.0, gt=0, description="Measured seconds per load point, at most."
    )
    warmup_requests: int | None = Field(
        default=None,
        ge=0,
        description="Requests finished at the same concurrency before measuring starts; "
        "by default the concurrency, at least 4.",
    )
    max_error_rate: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of failed requests above which a load point counts as not measured.",
    )
    request: dict[str, Any] = Field(
        default_factory=dict, description="Fields added to every request; JSON types are kept."
    )

    @field_validator("scenarios")
    @classmethod
    def _grammar(cls, scenarios: list[str]) -> list[str]:
        for each in scenarios:
            scenario(each)
        if len(set(scenarios)) < len(scenarios):
            raise ValueError("a scenario is listed twice")
        return scenarios

    @field_validator("request")
    @classmethod
    def _whole_answers(cls, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("ignore_eos") is False:
            raise Misplaced(
                "false would give every trial answers of other lengths; leave it out", "ignore_eos"
            )
        for name in NUMBERS_OF_A_REQUEST & set(request):
            if isinstance(request[name], str):
                raise Misplaced(f"{request[name]!r} is a text where engines want a number", name)
        return request

    @field_validator("concurrency")
    @classmethod
    def _different(cls, concurrency: list[int]) -> list[int]:
        if len(set(concurrency)) < len(concurrency):
            raise ValueError("a concurrency is listed twice")
        return concurrency


class BenchmarkSpec(BaseModel):
    """Who measures. Further options belong to the kind."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str = Field(
        default="genai-bench",
        description="`genai-bench`; `ome-job`, the same as a BenchmarkJob of OME; or `replay`, "
        "which answers from a table and starts nothing.",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class SearchSpec(BaseModel):
    """Who proposes trials. Further options belong to the kind."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str = Field(default="optuna", description="`grid`, `random`, `optuna` or `hyperopt`.")
    trials: int | None = Field(default=None, ge=1, description="Another place for `limits.trials`.")
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of the search and of the prompts."
    )
    parallel: int | None = Field(
        default=None,
        ge=1,
        description="Trials at the same time, at most; as many as fit the cluster by default.",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class SchedulerSpec(_Part):
    """Who stops weak trials early. Without it every trial is measured at every load point."""

    kind: Literal["asha"] = Field(
        default="asha", description="`asha`: asynchronous successive halving."
    )
    reduction_factor: int = Field(
        default=3, ge=2, description="Of so many trials at a rung, one goes on."
    )
    grace: int = Field(
        default=1, ge=1, description="Load points that every trial may measure before it is ranked."
    )


class PriorSpec(_Part):
    """What is believed before the first launch; it only orders what is tried."""

    kind: Literal["study", "aiconfigurator"] = Field(
        default="study",
        description="`study`: trials of an earlier study. `aiconfigurator`: NVIDIA's performance "
        "model of GPUs.",
    )
    study: str | None = Field(default=None, description="`kind: study`: its name.")
    system: str | None = Field(
        default=None, description="`kind: aiconfigurator`: the GPUs, such as `h100_sxm`."
    )
    first: int = Field(
        default=5, ge=1, description="Points of the best predicted to try before the search."
    )

    @model_validator(mode="after")
    def _complete(self) -> PriorSpec:
        needed = {"study": self.study, "aiconfigurator": self.system}
        for kind, name in (("study", "study"), ("aiconfigurator", "system")):
            if self.kind == kind and not needed[kind]:
                raise Misplaced(f"is needed by the prior {kind!r}", name)
            if self.kind != kind and needed[kind]:
                raise Misplaced(f"is only for the prior {kind!r}", name)
        return self


class HardwareSpec(_Part):
    """The GPUs of the cluster, as far as what fits on them is to be told before a launch."""

    gpu_memory_gib: float | None = Field(
        default=None,
        gt=0,
        description="Memory of one GPU in GiB, of the largest kind; without it nothing is said "
        "of what fits, beyond what the engine's own rules say.",
    )


class VerdictSpec(_Part):
    """How the winner is confirmed: launched again beside the baseline, in turns."""

    finalists: int = Field(
        default=3,
        ge=0,
        le=10,
        description="Best trials to measure again; 0 takes the best of the search as it is.",
    )
    rounds: int = Field(
        default=5, ge=2, le=50, description="Launches of each finalist and the baseline, at most."
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="Of all the verdict's statements together."
    )


class Limits(_Part):
    """What a study may cost; all of it is enforced by autotuner itself."""

    trials: int | None = Field(
        default=None,
        ge=1,
        description="Trials of the search besides the baseline; refused points cost none. "
        "By default the whole space for `grid`, 20 otherwise.",
    )
    gpu_hours: float | None = Field(
        default=None,
        gt=0,
        description="GPUs times hours of all trials together; nothing on a machine without GPUs.",
    )
    ready_seconds: float = Field(default=600.0, gt=0, description="Launch to healthy, at most.")
    stop_seconds: float = Field(
        default=10.0, ge=5, description="Stop to gone, at most; SIGKILL comes after 3 s."
    )
    trial_seconds: float = Field(default=3600.0, gt=0, description="A whole trial, at most.")
    hours: float = Field(
        default=24.0,
        gt=0,
        description="The whole study, at most. The search ends in time for the verdict; what "
        "still runs at the end is cancelled.",
    )


class StudySpec(_Part):
    """One question: which flags serve this model best under this load?"""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="Unique; lower case letters, digits and dashes, at most 63.",
    )
    description: str = Field(default="", description="Free text, shown in reports.")
    model: ModelSpec
    engine: EngineSpec
    backend: BackendSpec = BackendSpec()
    space: dict[str, Any] = Field(
        default_factory=dict,
        description="Flags that vary: a list of choices, or "
        "`{type: int|float|choice, low, high, log, step, values, when}`. `env:NAME` varies an "
        "environment variable. An empty list is not tuned; an empty space is the baseline alone. "
        "For several engines: such a space by kind of engine.",
    )
    presets: list[str] = Field(
        default_factory=list,
        description="Ready-made spaces to start from, by name or file; `space` goes over them.",
    )
    merge: Literal["union", "intersection", "last_wins"] = Field(
        default="union", description="How several presets become one space."
    )
    quantization: QuantizationSpec | None = Field(
        default=None,
        description="Number formats to use or to try, in one language for all engines.",
    )
    workload: WorkloadSpec
    benchmark: BenchmarkSpec = BenchmarkSpec()
    objectives: list[str] = Field(
        default=["output_throughput"],
        min_length=1,
        description="Metrics to improve; the first decides between equals.",
    )
    constraints: dict[str, float] = Field(
        default_factory=dict,
        description="Metric -> bound that every load point must meet: an upper bound where lower "
        "is better, else a lower bound. Short for `slo` rows.",
    )
    slo: SLOSpec | None = Field(
        default=None, description="Service level objectives: bounds with weights, soft or hard."
    )
    search: SearchSpec = SearchSpec()
    scheduler: SchedulerSpec | None = Field(
        default=None, description="Stops weak trials early; none by default."
    )
    prior: PriorSpec | None = Field(default=None, description="Orders what is tried first.")
    hardware: HardwareSpec = HardwareSpec()
    verdict: VerdictSpec = VerdictSpec()
    limits: Limits = Limits()

    @field_validator("space")
    @classmethod
    def _domains(cls, raw: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        engine = info.data.get("engine")
        if not isinstance(engine, EngineSpec) or isinstance(engine.kind, str):
            space_of(raw)
            return canonical_keys(raw)
        for kind, own in raw.items():
            if kind not in engine.kinds or not isinstance(own, Mapping):
                raise Misplaced(
                    "with several engines the space has one block of flags for each: "
                    + ", ".join(engine.kinds),
                    kind,
                )
            try:
                space_of(own)
            except Misplaced as error:
                raise Misplaced(error.problem, kind, *error.place) from error
        return {kind: canonical_keys(own) for kind, own in raw.items()}

    @field_validator("objectives")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        names = [objective_name(name) for name in names]
        if len(set(names)) < len(names):
            raise ValueError("an objective is listed twice")
        return names

    @field_validator("constraints")
    @classmethod
    def _bounds(cls, bounds: dict[str, float]) -> dict[str, float]:
        for name in bounds:
            _known_metric(name)
            if name == MAX_LOAD:
                raise Misplaced("is an objective; it has no bound", name)
            problem = bound_problem(name, bounds[name])
            if problem:
                raise Misplaced(problem, name)
        return bounds

    @model_validator(mode="after")
    def _fixed_or_varied(self) -> StudySpec:
        for kind in self.engine.kinds:
            alone = self.alone(kind)
            fixed = set(alone.engine.arguments)
            fixed |= {ENVIRONMENT + name for name in alone.engine.environment}
            for name in space_of(alone.space).names:
                if name in fixed:
                    place = ("space", name) if alone is self else ("space", kind, name)
                    raise Misplaced(f"{name!r} is both fixed under engine and varied here", *place)
        return self

    @model_validator(mode="after")
    def _said_once(self) -> StudySpec:
        if self.search.trials is not None and self.limits.trials is not None:
            raise Misplaced("is also said by limits.trials; say it once", "search", "trials")
        for name in self.constraints:
            if self.slo is not None and name in self.slo.rows:
                raise Misplaced("is also bound by slo; say it once", "constraints", name)
        return self

    @model_validator(mode="after")
    def _penalties_show(self) -> StudySpec:
        if self.slo is not None and self.slo.mode == "penalty":
            for name in self.objectives:
                if not penalisable(name):
                    raise Misplaced(
                        f"a penalty on {name} does not show where it is 0; use mode: constraint",
                        "slo",
                        "mode",
                    )
        return self

    @model_validator(mode="after")
    def _one_ladder(self) -> StudySpec:
        if self.scheduler is not None and len(self.objectives) > 1:
            raise Misplaced(
                "ranks trials by one objective, and this study has "
                f"{len(self.objectives)}; leave the scheduler out",
                "scheduler",
            )
        if self.scheduler is not None and len(self.loads()) < 2:
            raise Misplaced(
                f"has nothing to rank by: one load point of {self.workload.max_requests} requests "
                "is too small to be led up to by smaller ones",
                "scheduler",
            )
        if not self.seeks_max_load:
            return self
        if self.slo is not None and self.slo.mode == "penalty":
            raise Misplaced(
                f"{MAX_LOAD} is the highest load that breaks no bound: there is nothing to "
                "penalise; use mode: constraint",
                "slo",
                "mode",
            )
        if self.scheduler is not None:
            raise Misplaced(
                f"cannot be combined with the objective {MAX_LOAD}, whose load points are other "
                "ones for every trial",
                "scheduler",
            )
        if not self.bounds:
            raise Misplaced(
                f"{MAX_LOAD} is the highest load that meets the bounds, and there is none; "
                "add slo or constraints",
                "objectives",
            )
        work = self.workload
        if len(work.scenarios) > 1:
            raise Misplaced(f"{MAX_LOAD} is sought for one scenario", "workload", "scenarios")
        if len(work.concurrency) != 2 or work.concurrency[0] >= work.concurrency[1]:
            raise Misplaced(
                f"for {MAX_LOAD} write [lowest, highest], not {work.concurrency}",
                "workload",
                "concurrency",
            )
        return self

    @property
    def parameter_space(self) -> Space:
        engine = self.engine
        own = space_of(self.space) if isinstance(engine.kind, str) else self._space_of_several()
        shared = quantization_parameters(self.quantization) if self.quantization else ()
        return Space((*own.parameters, *shared))

    def _space_of_several(self) -> Space:
        """The engine as the first parameter, and each engine's own under it."""
        parameters = [Parameter(ENGINE, Choice(self.engine.kinds))]
        for kind in self.engine.kinds:
            for each in space_of(self.space.get(kind, {})).parameters:
                when = {f"{kind}:{parent}": values for parent, values in each.when.items()}
                parameters.append(
                    Parameter(f"{kind}:{each.name}", each.domain, {ENGINE: (kind,), **when})
                )
        return Space(tuple(parameters))

    def alone(self, kind: str) -> StudySpec:
        """The study with one of its engines only; itself where it has no other."""
        if isinstance(self.engine.kind, str):
            return self
        return self.model_copy(
            update={"engine": self.engine.only(kind), "space": self.space.get(kind, {})}
        )

    def at(self, point: Parameters) -> tuple[StudySpec, Parameters]:
        """A point of this study as its engine knows it: the study of that engine alone, and the
        point under the engine's own names. The baseline is the first engine's."""
        if isinstance(self.engine.kind, str):
            return self, point
        kind = str(point.get(ENGINE, self.engine.kinds[0]))
        own = {
            name.removeprefix(f"{kind}:"): value
            for name, value in point.items()
            if name.startswith((f"{kind}:", QUANTIZATION))
        }
        return self.alone(kind), own

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The short `constraints` and the rows of `slo`, as one list."""
        return constraints_of(self.constraints, self.slo)

    @property
    def budget(self) -> int | None:
        """Launches besides the baseline, at most; None where only the space ends the search."""
        trials = self.limits.trials or self.search.trials
        if trials is not None or self.search.kind == "grid":
            return trials
        return DEFAULT_TRIALS

    @property
    def tokenizer(self) -> str:
        return self.model.tokenizer or self.model.path

    @property
    def seeks_max_load(self) -> bool:
        return MAX_LOAD in self.objectives

    def loads(self) -> tuple[Load, ...]:
        """The load points of every trial, in the order they are measured.

        With a scheduler the busiest come first, since those tell most about a launch's limits
        and are what most studies are about; a single load point is led up to by probes of it
        with fewer requests. Where `max_load` is sought these are its two ends.
        """
        work = self.workload
        pairs = [(each, level) for each in work.scenarios for level in work.concurrency]
        loads = [self._load(index, *pair) for index, pair in enumerate(pairs)]
        if self.scheduler is None:
            return tuple(loads)
        if len(loads) == 1:
            return (*self._probes(loads[0], self.scheduler.reduction_factor), loads[0])
        return tuple(sorted(loads, key=lambda load: (-load.concurrency, load.index)))

    def next_load(self, measured: Sequence[LoadPoint]) -> Load | None:
        """What to measure next on a server with these load points behind it; None at the end."""
        if self.seeks_max_load:
            low, high = self.workload.concurrency
            levels = load_levels(low, high, LOAD_PRECISION)
            level = next_level(levels, loads_met(self.bounds, measured))
            if level is None:
                return None
            return self._load(levels.index(level), self.workload.scenarios[0], level)
        done = {point.index for point in measured}
        return next((load for load in self.loads() if load.index not in done), None)

    def _load(self, index: int, scenario: str, level: int) -> Load:
        work = self.workload
        return Load(
            index=index,
            scenario=scenario,
            concurrency=level,
            max_requests=work.max_requests,
            max_seconds=work.max_seconds,
            warmup_requests=(
                max(4, level) if work.warmup_requests is None else work.warmup_requests
            ),
            seed=self.search.seed * 1000 + index,
            request=work.request,
        )

    def _probes(self, load: Load, factor: int) -> Iterator[Load]:
        """Smaller parts of a load, growing, each on prompts of its own."""
        parts = [PROBES - step for step in range(PROBES)]
        for index, part in enumerate(parts, start=1):
            requests = load.max_requests // factor**part
            if requests >= LEAST_PROBED:
                yield replace(
                    load,
                    index=index,
                    max_requests=requests,
                    max_seconds=load.max_seconds / factor**part,
                    seed=load.seed + index,
                    probe=True,
                )


class NoOptions(BaseModel):
    """For kinds without options of their own."""

    model_config = ConfigDict(extra="forbid")


def options_of(model: type[BaseModel], options: Mapping[str, Any], where: str) -> Any:
    """The options that belong to a kind, checked by the kind's own model.

    Raises:
        ConfigError: an option the kind does not have, or a value it does not take.
    """
    try:
        return model.model_validate(options)
    except ValidationError as error:
        first, *others = (_refused(dict(each), model, where) for each in error.errors())
        raise first.with_others(others) from error


_BESIDE = {"search": tuple(SearchSpec.model_fields), "benchmark": tuple(BenchmarkSpec.model_fields)}
"""Block -> the keys of all kinds, where those of one stand beside them."""


def _refused(each: Mapping[str, Any], model: type[BaseModel], where: str) -> ConfigError:
    place = ".".join([where, *map(str, each["loc"])])
    if each["type"] == "extra_forbidden":
        return ConfigError(
            f"unknown key {each['loc'][-1]!r} with value {short(each['input'])}",
            where=place,
            allowed=[*_BESIDE.get(where, ()), *model.model_fields],
        )
    field = model.model_fields.get(str(each["loc"][0])) if each["loc"] else None
    return ConfigError(problem_of(each), where=place, hint=(field and field.description) or "")


def problem_of(each: Mapping[str, Any]) -> str:
    """What is wrong in the words of a study file, of one mistake as pydantic lists it."""
    kind, value = each["type"], each["input"]
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        said = str(each["ctx"]["error"])
        # A whole block is no value that anybody looks for.
        return said if isinstance(value, Mapping) else f"{short(value)}: {said}"
    demand = _demand(kind, value, each.get("ctx", {}), each["msg"])
    return f"{short(value)} is not allowed: it {demand}"


def short(value: Any) -> str:
    """A value as it is shown in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_DEMANDS: Mapping[str, str] = {
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}
"""What pydantic asks of a value, by its name for the mistake, in the words of a study file."""


def _demand(kind: str, value: Any, context: Mapping[str, Any], message: str) -> str:
    """What is asked of a value, and how to write it where that is its form only.

    Args:
        kind, context, message: pydantic's, of the mistake.
    """
    if kind == "string_pattern_mismatch":
        if context["pattern"] == NAME_PATTERN:
            return "must be lower-case letters, digits and -, at most 63, with no - at either end"
        return f"must be like {context['pattern']}"
    if kind in ("string_too_short", "too_short") and context["min_length"] == 1:
        return "must not be empty"
    if kind == "list_type":
        # A text with spaces may be a command line, which is no list of one.
        one = isinstance(value, bool | int | float) or (isinstance(value, str) and " " not in value)
        return "must be a list" + (f": write [{_written(value)}]" if one else "")
    if kind == "string_type":
        written = isinstance(value, bool | int | float)
        return "must be text" + (f': write "{_written(value)}"' if written else "")
    # "Input should be 'a' or 'b'", "String should have at most 3 characters"
    return _DEMANDS.get(kind, re.sub(r"^\w+ should ", "must ", message))


def _written(scalar: bool | int | float | str) -> str:
    """A value as a list of a study file has it; a text such as D(50,20) needs quotes there."""
    plain_text = isinstance(scalar, str) and scalar.replace("_", "").isalnum()
    return str(scalar) if plain_text else json.dumps(scalar)


def _known_metric(name: str) -> None:
    if name not in METRICS:
        raise ValueError(f"{name!r} is not a metric; allowed: {', '.join(METRICS)}")
