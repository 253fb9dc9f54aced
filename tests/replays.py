"""Studies over a table in virtual time: the whole loop of a study, without a server."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from autotuner.benchmarks.replay import REPLAY
from autotuner.execution.virtual import replay_study
from autotuner.plugins import load_kind
from autotuner.search.asha import scheduler_of
from autotuner.serving import HERE, LaunchSpec, Place
from autotuner.store import Store
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import Trial
from tests.builders import spec as small_spec

_GPUS = ("gpus", "tp-size", "dp-size", "tensor-parallel-size", "data-parallel-size")


class AnyFlags:
    """Rules of an engine that takes every flag, on as many GPUs as the flags say."""

    def check(self, spec: StudySpec) -> None:
        pass

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, place: Place = HERE
    ) -> LaunchSpec:
        arguments = tuple(f"--{name}={json.dumps(value)}" for name, value in parameters.items())
        return LaunchSpec(
            command=("server",),
            arguments=arguments,
            environment={},
            image="",
            model_path="",
            served_name="",
            port=port,
            gpus=math.prod(int(parameters.get(name, 1)) for name in _GPUS),
        )

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None:
        return "known to be refused" if parameters.get("refused") else None


def table(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A table of these rows: parameters and metrics by name."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(
            {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows
        )
    return path


def replayed(
    directory: Path,
    rows: Path | Iterable[Mapping[str, Any]],
    *,
    space: Mapping[str, Any],
    noise: float = 0.0,
    seed: int = 0,
    at_once: int = 1,
    known: Callable[[Trial], bool] | None = None,
    store: Store | None = None,
    **changes: Any,
) -> tuple[StudyState, StudySpec, list[Trial]]:
    """Run a study over a table to its end: how it ended, its spec, its trials.

    Args:
        rows: the table's rows, or its file.
        known: which of the trials already in `store` are kept, for a study that goes on.
    """
    path = rows if isinstance(rows, Path) else table(directory / "table.csv", rows)
    search = {"kind": "random", "seed": seed, **changes.pop("search", {})}
    spec = small_spec(
        space=dict(space),
        benchmark={"kind": "replay", "table": str(path), "noise": noise, "seed": seed},
        search=search,
        **changes,
    )
    kept = [] if store is None else [t for t in store.trials(spec.name) if known and known(t)]
    store = store or Store("sqlite://")
    study = Study(spec, str(directory / "studies" / spec.name))
    if all(each.name != spec.name for each in store.studies()):
        store.create(study)
    state = replay_study(
        study,
        store,
        load_kind("search", spec.search.kind).build(spec),
        AnyFlags(),
        REPLAY,
        at_once=at_once,
        scheduler=scheduler_of(spec),
        known=kept,
    )
    return state, spec, store.trials(spec.name)
