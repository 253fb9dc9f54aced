"""The use cases: what can be done with studies, whoever asks (command line, API, a program).

How trials run is not in here (see `execution.driver`), so that none of this needs Ray.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.backends.base import Backend, BackendKind
from autotuner.backends.guarded import is_running, this_process
from autotuner.benchmarks.base import Benchmark, Opened, Recorded
from autotuner.engines.rules import Rules, rules_of
from autotuner.errors import ConfigError, FailureClass, StudyStateError
from autotuner.estimators.aiconfigurator import AIConfigurator
from autotuner.foresight import AllForesight, Foresight
from autotuner.plugins import kinds, load_kind
from autotuner.prior import NO_PRIOR, Prior, prior_of_model, prior_of_trials
from autotuner.report.summary import summary
from autotuner.report.words import command_line
from autotuner.search.asha import scheduler_of
from autotuner.search.base import Scheduler, Searcher, SearchKind
from autotuner.search.primed import Primed
from autotuner.serving import LaunchSpec, Place, Slot
from autotuner.settings import Site
from autotuner.study.budget import LEAST_ROUNDS, verdict_launches
from autotuner.study.finals import winner
from autotuner.study.loading import StudyFile, located, parse_study, read_study
from autotuner.study.presets import expand
from autotuner.study.space import Parameters
from autotuner.study.spec import EngineSettings, StudySpec
from autotuner.study.study import LEASE_SECONDS, Study, StudyState, seconds_between, timestamp
from autotuner.study.task import is_task, study_of_task
from autotuner.study.trial import BASELINE, Trial, TrialState
from autotuner.study.workload import Load

if TYPE_CHECKING:
    from autotuner.store import Store  # a database library `check` can do without

EXPORT_PORT = 8000
"""Port in an exported command: the engines' own default."""

EVERYONE = Place(host="0.0.0.0")

START_GUESS = 60.0
"""Seconds from launch to ready that a plan assumes: nobody knows before the first trial."""

SHOWN = 10
"""Sets of flags that a plan lists of a quantization block."""

ASKED = 300
"""Points that a plan asks the searcher for, at most, to find those it shows."""

TOLD_APART = 2_000
"""Points of a space, at most, of which a plan says how many different launches they are."""

ENUMERATED, SAMPLED = 20_000, 1_000
"""Points of a space that a plan looks at, at most: all in order, or drawn where it is infinite."""


@dataclass(frozen=True)
class Job:
    """A study with the kinds it names, ready to be run.

    Attributes:
        notes: what became of the file on the way here: presets merged, keys renamed.
        prior: what is believed before the first launch, see `Studies.with_prior`.
    """

    spec: StudySpec
    rules: Rules
    backend: BackendKind
    benchmark: Benchmark | Opened | Recorded
    search: SearchKind
    notes: tuple[str, ...] = ()
    prior: Prior = NO_PRIOR

    def searcher(self) -> Searcher:
        """The study's searcher, which begins with what the prior thinks best."""
        searcher = self.search.build(self.spec)
        points = self.prior.first_points(self.spec)
        return Primed(searcher, points) if points else searcher

    def foresight(self) -> Foresight:
        return AllForesight(self.rules, self.spec, self.prior)

    def scheduler(self) -> Scheduler | None:
        return scheduler_of(self.spec)


def load_job(
    path: Path,
    *,
    name: str | None = None,
    backend: str | None = None,
    presets: Sequence[Path] = (),
) -> Job:
    """A study file, or the predecessor's task, checked as far as it can be without starting
    anything.

    Args:
        name: replaces the file's own name.
        backend: replaces the kind of the file's own backend.
        presets: directories with presets of the user's own.

    Raises:
        ConfigError: with every mistake found, its file and line.
    """
    file, notes = read_study(path), list[str]()
    if is_task(file.content):
        file, notes = _converted(file)
    if isinstance(file.content, Mapping):
        changes: dict[str, Any] = {} if name is None else {"name": name}
        if backend is not None:
            said = file.content.get("backend")
            changes["backend"] = {**(said if isinstance(said, Mapping) else {}), "kind": backend}
        file = replace(file, content={**file.content, **changes})
        file, merged = _expanded(file, presets)
        notes += merged
    spec = parse_study(file)
    try:
        return replace(checked(local_paths(spec, Path.cwd())), notes=tuple(notes))
    except ConfigError as error:
        raise located(error, file) from error


def _converted(file: StudyFile) -> tuple[StudyFile, list[str]]:
    try:
        converted = study_of_task(file.content)
    except ConfigError as error:
        raise located(error, file) from error
    return replace(file, content=converted.content), list(converted.notes)


def _expanded(file: StudyFile, directories: Sequence[Path]) -> tuple[StudyFile, list[str]]:
    try:
        content, notes = expand(file.content, directories)
    except ConfigError as error:
        raise located(error, file) from error
    return replace(file, content=content), notes


def checked(spec: StudySpec) -> Job:
    """The kinds of a study, each having checked what is its own."""
    rules = rules_of(spec)
    backend: BackendKind = load_kind("backend", spec.backend.kind)
    benchmark: Benchmark | Opened | Recorded = load_kind("benchmark", spec.benchmark.kind)
    search: SearchKind = load_kind("search", spec.search.kind)
    rules.check(spec)
    _check_nodes(spec, rules)
    _check_backends(spec)
    benchmark.check(spec)
    search.check(spec)
    return Job(spec, rules, backend, benchmark, search)


def _check_nodes(spec: StudySpec, rules: Rules) -> None:
    """That the engines' defaults can span the nodes, for they are measured first."""
    if all(spec.alone(kind).engine.nodes == 1 for kind in spec.engine.kinds):
        return
    if spec.backend.kind == "ome":
        raise ConfigError("servers of ome do not span nodes yet", where="engine.nodes")
    reason = rules.refuse(spec, {})
    if reason:
        raise ConfigError(
            f"the baseline cannot start: {reason}",
            where="engine.nodes",
            hint="fix the parallel sizes of the baseline under engine.arguments",
        )


def _check_backends(spec: StudySpec) -> None:
    """Every block of options, that of a backend which is not chosen too."""
    known = kinds("backend")
    for kind, options in {spec.backend.kind: {}, **spec.backend.blocks}.items():
        where = f"backend.{kind}"
        if kind not in known:
            raise ConfigError(
                f"unknown key {kind!r}",
                where=where,
                allowed=["kind", *known],
                hint=f"an option of {spec.backend.kind} is said under "
                f"backend.{spec.backend.kind}.{kind}",
            )
        if not isinstance(options, Mapping):
            raise ConfigError(f"{options!r} is no mapping of options", where=where)
        load_kind("backend", kind).check(options)


def local_paths(spec: StudySpec, base: Path) -> StudySpec:
    """The spec with its local paths made absolute: trials run in other directories.

    Raises:
        ConfigError: a path that can only be local does not exist.
    """
    replayed = spec.benchmark.kind == "replay"
    model = {"path": spec.model.path}
    if not replayed:
        model["path"] = _model_path(spec.model.path, base, "model.path")
    if spec.model.tokenizer and not replayed:
        model["tokenizer"] = _model_path(spec.model.tokenizer, base, "model.tokenizer")
    local = spec.backend.kind == "process" and not replayed
    engine = _local_engine(spec.engine, base, "engine", local=local)
    settings = {
        kind: each.model_copy(
            update=_local_engine(each, base, f"engine.settings.{kind}", local=local)
        )
        for kind, each in spec.engine.settings.items()
    }
    benchmark = dict(spec.benchmark.options)
    if isinstance(benchmark.get("table"), str):
        benchmark["table"] = os.path.abspath(base / benchmark["table"])
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update=model),
            "engine": spec.engine.model_copy(update={**engine, "settings": settings}),
            "benchmark": type(spec.benchmark)(kind=spec.benchmark.kind, **benchmark),
        }
    )


def _local_engine(engine: EngineSettings, base: Path, where: str, *, local: bool) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if engine.command:
        program = engine.command[0]
        found = os.path.abspath(base / program) if "/" in program else shutil.which(program)
        if local and not (found and os.access(found, os.X_OK)):
            raise ConfigError(
                f"{program!r} is not a program on this machine",
                where=f"{where}.command",
                hint="install the engine, or name its Python or console script",
            )
        changed["command"] = [found or program, *engine.command[1:]]
    if engine.catalog:
        changed["catalog"] = str((base / engine.catalog).absolute())
    return changed


def _model_path(path: str, base: Path, where: str) -> str:
    local = base / Path(path).expanduser()
    if local.is_dir():
        return os.path.abspath(local)
    # Hub ids are `name` or `organisation/name`; anything else was meant as a directory.
    if path.startswith(("/", ".", "~")) or path.count("/") > 1 or local.exists():
        raise ConfigError(
            f"{path!r} is not a directory",
            where=where,
            hint=f"looked at {local}; give a model directory or a hub id",
        )
    return path


class Studies:
    """Studies in a store, with their files under a directory."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self._directory = directory

    def submit(self, job: Job, *, restart: bool = False) -> Study:
        """Store a new study.

        Args:
            restart: replace an ended study of that name, trials and files included.

        Raises:
            StudyStateError: the name is taken, or its study is running.
        """
        spec = job.spec
        existing = self._find(spec.name)
        if existing is not None:
            self._refuse_if_driven(existing)
            begun = existing.state is not StudyState.PENDING
            if begun and not restart:
                raise StudyStateError(
                    f"there already is a study named {spec.name!r} "
                    f"({self.true_state(existing)}).\n"
                    f"  go on with it:  autotuner resume {spec.name}\n"
                    f"  start it anew:  add --restart (its trials are deleted)\n"
                    f"  keep both:      add --name NEW-NAME"
                )
            self.store.delete(spec.name)
            shutil.rmtree(existing.directory, ignore_errors=True)
        directory = self._directory / spec.name
        study = Study(
            spec,
            str(directory),
            driver=this_process(),
            renewed_at=timestamp(),
            created_at=timestamp(),
        )
        self.store.create(study)
        directory.mkdir(parents=True, exist_ok=True)
        return study

    def with_prior(self, job: Job, aiconfigurator: Path | None = None) -> Job:
        """The job with what its prior believes; itself where it has no prior.

        Args:
            aiconfigurator: a Python that has it; this one by default.

        Raises:
            StudyStateError: the earlier study does not exist, or has nothing to say.
            ConfigError, InfrastructureError: see `prior.prior_of_model`.
        """
        asked = job.spec.prior
        if asked is None:
            return job
        if asked.study is None:
            model = AIConfigurator(aiconfigurator)
            return replace(job, prior=prior_of_model(job.spec, model, job.foresight().refuse))
        if asked.study == job.spec.name:
            raise StudyStateError(f"study {asked.study!r} cannot be its own prior")
        found = prior_of_trials(self.show(asked.study)[1])
        if not found.predictions:
            raise StudyStateError(f"the prior, study {asked.study!r}, has no feasible trial")
        return replace(job, prior=found)

    def resumable(self, name: str, *, take_over: bool = False) -> Study:
        """A study that this process may run on, and from now on drives.

        Args:
            take_over: do not believe a driver on another machine.

        Raises:
            StudyStateError: none of that name, nothing left to do, or driven by another.
        """
        study, trials = self.show(name)
        if not (take_over and not self._driver_is_here(study)):
            self._refuse_if_driven(study)
        # One that its limits ended early has something left to do.
        done = study.state is StudyState.COMPLETE and not study.reason
        if done and all(each.state.answered for each in trials):
            raise StudyStateError(f"study {name!r} is complete; see autotuner report {name}")
        was = study.driver
        if not self.store.claim(name, this_process(), was=was, renewed_at=study.renewed_at):
            raise StudyStateError(f"another process has just taken study {name!r}")
        return study

    def backends_used(self, site: Site, *, only: str | None = None) -> Sequence[Backend]:
        """Backends that stored studies named, opened as they said; processes always.

        Args:
            only: a kind, even where no study named it.

        Raises:
            ConfigError: no such kind.
        """
        said: list[tuple[str, dict[str, Any]]] = [(only or "process", {})]
        said += [(s.spec.backend.kind, s.spec.backend.options) for s, _ in self.list()]
        different = {
            (kind, json.dumps(options, sort_keys=True)): load_kind("backend", kind).open(
                options, site
            )
            for kind, options in said
            if only in (None, kind)
        }
        return list(different.values())

    def show(self, name: str) -> tuple[Study, list[Trial]]:
        return self.store.study(name), self.store.trials(name)

    def list(self) -> list[tuple[Study, list[Trial]]]:
        return [(study, self.store.trials(study.name)) for study in self.store.studies()]

    def report(self, name: str) -> dict[str, Any]:
        """See `report.summary`."""
        study, trials = self.show(name)
        best = winner(study.spec, trials)
        command = ""
        if best is not None:
            command = command_text(launch_of(study.spec, best.parameters))
        report = summary(study, trials, command=command)
        report["study"]["state_text"] = self.true_state(study)
        return report

    def chosen(self, name: str, trial: int | None = None) -> tuple[StudySpec, Parameters]:
        """The study and the point to serve with: the winner's, or that of the trial named.

        Raises:
            StudyStateError: no feasible trial, or no trial of that number.
        """
        study, trials = self.show(name)
        if trial is None:
            chosen = winner(study.spec, trials)
            if chosen is None:
                raise StudyStateError(f"study {name!r} has no feasible trial; see its report")
        else:
            chosen = next((each for each in trials if each.number == trial), None)
            if chosen is None:
                raise StudyStateError(f"study {name!r} has no trial {trial}")
        return study.spec, chosen.parameters

    def true_state(self, study: Study) -> str:
        """The state in words: a study whose driver is gone is not running, whatever is stored."""
        if self.lost(study):
            return f"{study.state.value}, but its driver is gone: autotuner resume {study.name}"
        return study.state.value

    def lost(self, study: Study) -> bool:
        """Whether the study runs no more, and nobody has said so."""
        return not study.state.ended and not self.driven(study)

    def driven(self, study: Study) -> bool:
        """Whether a process drives the study; one on another machine, while its lease lasts."""
        if study.state.ended or not study.driver:
            return False
        if self._driver_is_here(study):
            return is_running(study.driver.partition(" ")[2])
        age = seconds_between(study.renewed_at or study.created_at, timestamp())
        return age is None or age < LEASE_SECONDS

    def _driver_is_here(self, study: Study) -> bool:
        return study.driver.partition(" ")[0] in ("", socket.gethostname())

    def _refuse_if_driven(self, study: Study) -> None:
        if self.driven(study):
            elsewhere = (
                ""
                if self._driver_is_here(study)
                else f", whose lease was renewed at {study.renewed_at}"
                f"\n  should it be dead there, the lease ends after {LEASE_SECONDS:g} s; at once:"
                f"  autotuner resume {study.name} --take-over"
            )
            here = (
                f"\n  it is alive on this machine; to end it: kill -INT "
                f"{study.driver.partition(' ')[2].partition(':')[0]}"
            )
            raise StudyStateError(
                f"study {study.name!r} is driven by {study.driver}{elsewhere or here}"
            )

    def _find(self, name: str) -> Study | None:
        return self.store.study(name) if name in self.store.names() else None


def plan(job: Job, *, trials: int = 3, site: Site | None = None) -> dict[str, Any]:
    """What a study would do, as JSON; nothing is started.

    Keys: ``size`` of the space (None: infinite), ``refused`` (reason -> count, with ``looked_at``
    points), ``doubted`` (reason -> count of points that are tried last), ``launches`` (the
    baseline and the first trials, each with its exact argv and the ``request`` that its backend
    would send), ``gpus`` per launch, ``exports`` (files such a study needs beside, by name; see
    `Backend.exports`), ``trials`` to launch, launches of the ``finals`` at least,
    ``seconds_expected`` (a start of a minute assumed), ``seconds_at_most`` for all of them one
    after another, ``gpu_hours_expected`` (as if each took as many GPUs as the largest shown),
    ``limits``, ``quantization`` (by engine: how many different sets of flags, and the first
    ten), ``notes``.
    """
    spec, foresight = job.spec, job.foresight()
    space = spec.parameter_space
    known_of = _known(job, foresight)
    looked_at, refused = known_of.looked_at, known_of.refused
    searcher = job.searcher()
    site = site or Site()
    backend = job.backend.open(spec.backend.options, site)
    seconds_at_most = _load_seconds(job, site)
    launches = [_planned(job, backend, {}, 0)]
    # Told as the loop of a study does, so that the same points come in the same order, as long
    # as the searcher does not look at answers, which a plan has none of.
    searcher.tell(Trial(BASELINE, {}, state=TrialState.CANCELLED))
    for _ in range(ASKED):
        point = searcher.ask() if len(launches) <= trials else None
        if point is None:
            break
        planned = _planned(job, backend, point, len(launches))
        if foresight.refuse(point) is not None:
            refusal = FailureClass.REFUSED
            searcher.tell(Trial(len(launches), point, state=TrialState.INFEASIBLE, failure=refusal))
        elif foresight.doubt(point) is not None:
            continue  # tried after the others, as in the loop of a study
        elif not _same_server(planned, launches):
            launches.append(planned)
    loads, limits = spec.loads(), spec.limits
    each = min(
        limits.trial_seconds,
        limits.ready_seconds + limits.stop_seconds + sum(map(seconds_at_most, loads)),
    )
    known = [number for number in (known_of.launches, spec.budget) if number is not None]
    budget = min(known, default=space.size())
    finals = LEAST_ROUNDS * verdict_launches(spec) if budget != 0 else 0
    launched = None if budget is None else 1 + budget + finals
    expected = min(each, START_GUESS + sum(load.max_seconds for load in loads))
    most = limits.hours * 3600
    # A table needs none.
    gpus = 0 if isinstance(job.benchmark, Recorded) else max(each["gpus"] for each in launches)
    return {
        "name": spec.name,
        "size": space.size(),
        "looked_at": looked_at,
        "refused": refused,
        "doubted": known_of.doubted,
        "trials": budget,
        "load_points": [load.name for load in loads],
        "load_seconds_at_most": sum(load.max_seconds for load in loads),
        "finals": finals,
        "seconds_expected": None if launched is None else min(launched * expected, most),
        "seconds_at_most": None if launched is None else min(launched * each, most),
        "gpu_hours_expected": None
        if launched is None
        else min(launched * expected, most) * gpus / 3600,
        "limits": {
            "trials": spec.budget,
            "hours": limits.hours,
            "gpu_hours": limits.gpu_hours,
        },
        "quantization": _quantization(spec),
        "notes": list(job.notes),
        "launches": launches,
        "exports": dict(backend.exports(spec)),
    }


def _quantization(spec: StudySpec) -> dict[str, Any]:
    if spec.quantization is None:
        return {}
    from autotuner.engines.flags import quantization_preview  # only where it is needed

    previews = {kind: quantization_preview(spec.alone(kind)) for kind in spec.engine.kinds}
    return {
        kind: {
            "count": each.count,
            "arguments": [dict(some) for some in each.combinations[:SHOWN]],
            "notes": list(each.notes),
        }
        for kind, each in previews.items()
    }


@dataclass(frozen=True)
class _Known:
    """What can be said of a space without a launch.

    Attributes:
        looked_at: points; of a large space a part.
        refused, doubted: reason -> how many of them.
        launches: different ones besides the baseline; None where the space is too large to say.
    """

    looked_at: int
    refused: dict[str, int]
    doubted: dict[str, int]
    launches: int | None


def _known(job: Job, foresight: Foresight) -> _Known:
    space, size = job.spec.parameter_space, job.spec.parameter_space.size()
    points: Iterable[Parameters]
    if size is not None and size <= ENUMERATED:
        points = space.points()
    else:
        rng = random.Random(job.spec.search.seed)
        points = [space.sample(rng) for _ in range(SAMPLED)]
    looked_at, refused, doubted = 0, Counter[str](), Counter[str]()
    launched: list[Parameters] = []
    for point in points:
        looked_at += 1
        reason = foresight.refuse(point)
        if reason:
            refused[reason] += 1
            continue
        launched.append(point)
        doubt = foresight.doubt(point)
        doubted.update([doubt] if doubt else [])
    launches: int | None = None
    if size is not None and size <= looked_at:
        launches = len(launched)
        if size <= TOLD_APART:
            servers = {_server(job, {})} | {_server(job, point) for point in launched}
            launches = len(servers) - 1
    by_count = dict(refused.most_common()), dict(doubted.most_common())
    return _Known(looked_at, *by_count, launches)


def _server(job: Job, point: Parameters) -> tuple[object, ...]:
    launch = job.rules.launch(job.spec, point, port=EXPORT_PORT)
    return (launch.argv, *sorted(launch.environment.items()))


def _planned(job: Job, backend: Backend, point: Parameters, number: int) -> dict[str, Any]:
    launch = job.rules.launch(job.spec, point, port=EXPORT_PORT, place=backend.place)
    slot = Slot(job.spec.name, number, port=EXPORT_PORT, directory="")
    recorded = isinstance(job.benchmark, Recorded)
    return {
        "name": f"trial {number}" if number else "baseline",
        "parameters": point,
        "argv": list(launch.argv),
        "environment": dict(launch.environment),
        "gpus": launch.gpus,
        "image": launch.image if backend.place.image else None,
        "request": {} if recorded else dict(backend.plan(launch, slot).request),
    }


def first_plan(job: Job, site: Site) -> None:
    """Plan the baseline, for what only the whole launch shows.

    Raises:
        ConfigError: the backend cannot start such a server.
    """
    if not isinstance(job.benchmark, Recorded):
        _planned(job, job.backend.open(job.spec.backend.options, site), {}, 0)


def _load_seconds(job: Job, site: Site) -> Callable[[Load], float]:
    """How long a load point may take, by its benchmark."""
    benchmark = job.benchmark
    if isinstance(benchmark, Recorded):
        return lambda load: load.seconds_at_most
    opened = benchmark.open(job.spec, site) if isinstance(benchmark, Opened) else benchmark
    return opened.seconds_at_most


def _same_server(planned: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> bool:
    return any(
        planned["argv"] == other["argv"] and planned["environment"] == other["environment"]
        for other in others
    )


def launch_of(spec: StudySpec, parameters: Parameters, place: Place = EVERYONE) -> LaunchSpec:
    """The launch to use outside of trials: on the engine's default port, for everyone."""
    return rules_of(spec).launch(spec, parameters, port=EXPORT_PORT, place=place)


def command_text(launch: LaunchSpec) -> str:
    """A launch as one line for a shell."""
    return command_line(launch.argv, launch.environment)


def docker_text(spec: StudySpec, parameters: Parameters) -> str:
    """A launch as a `docker run` line; local model directories are mounted read-only.

    The entry point is said, because images of different versions have different ones.
    """
    spec, parameters = spec.at(parameters)
    launch = launch_of(spec, parameters, replace(EVERYONE, image=True))
    program, *rest = launch.command
    parts = ["docker", "run", "--rm", "--network=host", "--ipc=host", "--entrypoint", program]
    if launch.gpus:
        parts += ["--gpus", str(launch.gpus)]
    for name, value in launch.environment.items():
        parts += ["--env", f"{name}={value}"]
    for path in dict.fromkeys((spec.model.path, spec.tokenizer)):
        if path.startswith("/"):
            parts += ["--volume", f"{path}:{path}:ro"]
    return shlex.join([*parts, launch.image, *rest, *launch.arguments])


def arguments_text(launch: LaunchSpec) -> str:
    """The flags alone, one item a line: for a manifest's `args`."""
    return "\n".join(launch.arguments)
