"""A study with the kinds it names: read from a file, checked, ready to be planned or run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotuner.backends.base import BackendKind
from autotuner.benchmarks.base import Benchmark, Opened, Recorded
from autotuner.engines.rules import Rules, rules_of
from autotuner.errors import ConfigError
from autotuner.foresight import AllForesight, Foresight
from autotuner.plugins import kinds, load_kind
from autotuner.prior import NO_PRIOR, Prior
from autotuner.search.asha import scheduler_of
from autotuner.search.base import Scheduler, Searcher, SearchKind
from autotuner.search.primed import Primed
from autotuner.study.loading import StudyFile, located, parse_study, read_study
from autotuner.study.presets import expand
from autotuner.study.spec import EngineSettings, StudySpec
from autotuner.study.task import is_task, study_of_task


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

    @property
    def recorded(self) -> bool:
        """Whether its answers are those of earlier launches: then it starts no server."""
        return isinstance(self.benchmark, Recorded)

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
    """A study file, or a task of the earlier system, checked as far as it can be without starting
    anything.

    Args:
        name: replaces the file's own name.
        backend: replaces the kind of the file's own backend.
        presets: directories with presets of the user's own.

    Raises:
        ConfigError: with every mistake found, its file and line.
    """
    return job_of(read_study(path), name=name, backend=backend, presets=presets)


def anything(spec: StudySpec) -> Sequence[ConfigError]:  # noqa: ARG001
    """What a study may not choose: whoever runs it here may choose all."""
    return ()


def job_of(
    file: StudyFile,
    *,
    name: str | None = None,
    backend: str | None = None,
    presets: Sequence[Path] = (),
    base: Path | None = None,
    refusals: Callable[[StudySpec], Sequence[ConfigError]] = anything,
) -> Job:
    """As `load_job`, of what was read.

    Args:
        base: where its relative paths begin; this process's directory by default.
        refusals: what is not allowed, asked before anything of this machine is looked at.

    Raises:
        ConfigError: with every mistake found.
    """
    notes = list[str]()
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
    refused = [located(each, file) for each in refusals(spec)]
    if refused:
        raise refused[0].with_others(refused[1:])
    try:
        return replace(checked(local_paths(spec, base or Path.cwd())), notes=tuple(notes))
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
    _check_nodes(spec, rules, backend)
    _check_backends(spec)
    benchmark.check(spec)
    search.check(spec)
    return Job(spec, rules, backend, benchmark, search)


def _check_nodes(spec: StudySpec, rules: Rules, backend: BackendKind) -> None:
    """That the engines' defaults can span the nodes, for they are measured first."""
    if all(spec.alone(kind).engine.nodes == 1 for kind in spec.engine.kinds):
        return
    if not backend.spans_nodes:
        raise ConfigError(
            f"servers of {spec.backend.kind} do not span nodes yet", where="engine.nodes"
        )
    reason = rules.refuse(spec, {})
    if reason:
        raise ConfigError(
            f"the baseline cannot start: {reason}",
            where="engine.nodes",
            hint="fix the parallel sizes of the baseline under engine.arguments",
        )


def _check_backends(spec: StudySpec) -> None:
    """The options of the kind; of the others, which may lack something as yet, only the names."""
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
        if kind == spec.backend.kind:
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
    backend: BackendKind = load_kind("backend", spec.backend.kind)
    local = backend.local and not replayed
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
    if path.startswith("-"):
        raise ConfigError(f"{path!r} is neither a directory nor a hub id", where=where)
    try:
        local = base / Path(path).expanduser()
        there, is_directory = local.exists(), local.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long, nobody's home, a zero byte
        raise ConfigError(f"{path[:100]!r} cannot be looked at: {error}", where=where) from error
    if is_directory:
        return os.path.abspath(local)
    # Hub ids are `name` or `organisation/name`; anything else was meant as a directory.
    if path.startswith(("/", ".", "~")) or path.count("/") > 1 or there:
        raise ConfigError(
            f"{path!r} is not a directory",
            where=where,
            hint=f"looked at {local}; give a model directory or a hub id",
        )
    return path
