"""The cluster: what its nodes do, who holds what, who waits; and when each trial ran where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from autotuner.api import examples
from autotuner.api.examples import shown
from autotuner.api.problems import answers
from autotuner.api.schemas import Standing, TrialStateName
from autotuner.api.security import needs
from autotuner.api.service import Asked, Service, Serving
from autotuner.api.tokens import Caller, Role
from autotuner.benchmarks.base import is_recorded
from autotuner.errors import AutotunerError, MissingStudyError
from autotuner.export import launch_of
from autotuner.study.space import Parameters
from autotuner.study.study import Study, sees, timestamp
from autotuner.study.trial import Trial, TrialState

router = APIRouter(tags=["cluster"])

VIEWER = [Depends(needs(Role.VIEWER))]

UNDER_WAY = ("STARTING", "RUNNING")
HOLDING = (TrialState.DEPLOYING, TrialState.BENCHMARKING)

ANOTHERS = "another team's"
"""In place of the name of a study that the caller does not see; no study can have it."""


class DeviceRow(BaseModel):
    """A GPU; null is what its driver does not say."""

    index: int
    uuid: str
    name: str
    memory_gib: float | None
    memory_used_gib: float | None
    utilisation: float | None = Field(description="Share of the time it computed, 0 to 1.")
    temperature_c: float | None
    power_w: float | None


class NodeRow(BaseModel):
    """A node of the Ray cluster; `used` is what Ray has given away."""

    id: str
    name: str = Field(description="Its address, as trials name their node.")
    host: str
    alive: bool
    cpus: float
    cpus_used: float
    gpus: float
    gpus_used: float
    memory_gib: float | None
    memory_used_gib: float | None
    devices: list[DeviceRow]
    problem: str = Field(description="Why it says nothing of itself, or of its GPUs; or empty.")


class Hold(BaseModel):
    """A trial that runs, on one of its nodes."""

    node: str
    gpu_ids: list[str]
    study: str = Field(description=f"Or `{ANOTHERS}`; then nothing more is said of it.")
    trial: int | None = Field(description="Null: another team's.")
    state: TrialStateName | Literal["HELD"] = Field(description="HELD: by another team.")
    since: str = Field(description="Empty: another team's.")


class Waiting(BaseModel):
    """A trial that waits for a place, or a study for its first."""

    study: str = Field(description=f"Or `{ANOTHERS}`; then nothing more is said of it.")
    trial: int | None
    gpus: int | None = Field(description="That it needs; null: not known.")
    waiting: str = Field(description="For what.")


class ClusterView(BaseModel):
    """The cluster at a glance; nodes are a few seconds old, and `studies` those of the caller."""

    model_config = ConfigDict(json_schema_extra=shown(examples.CLUSTER))

    nodes: list[NodeRow]
    holds: list[Hold]
    queue: list[Waiting]
    studies: dict[Standing, int]
    problem: str = Field(description="Why there are no nodes, or empty.")


class TrialPhase(BaseModel):
    """A stretch of a trial: deploy, a load point, stop. Seconds since the trial began."""

    name: str
    start: float
    end: float


class TrialSpan(BaseModel):
    """When a trial ran, and where."""

    study: str
    number: int
    repeat_of: int | None
    state: TrialStateName
    feasible: bool
    node: str
    gpu_ids: list[str]
    started_at: str
    ended_at: str = Field(description="Empty while it runs.")
    phases: list[TrialPhase]
    note: str = Field(description="What happens now, while it runs.")
    objectives: dict[str, float | None]


class Timeline(BaseModel):
    """The trials that ran in a stretch of time, by start."""

    model_config = ConfigDict(populate_by_name=True, json_schema_extra=shown(examples.TIMELINE))

    now: str
    from_: str = Field(alias="from")
    trials: list[TrialSpan]


@router.get("/cluster", response_model=ClusterView)
def cluster(
    asked: Asked, whole: Serving, caller: Annotated[Caller, Depends(needs(Role.VIEWER))]
) -> Response:
    """Nodes and devices, who holds what, and who waits for what. Of other teams is said that they
    hold or wait, and no more."""
    rows = whole.reads.rows()
    own = rows if asked.reads.sees_all else asked.reads.rows()
    holds: list[dict[str, Any]] = []
    queue: list[dict[str, Any]] = []
    for row in rows:
        if row["state"] in UNDER_WAY:
            for study, trials in _read(whole, row["name"]):
                held = [hold for trial in trials for hold in _holds(study, trial)]
                waiting = list(_queue(study, trials, row["state"]))
                seen = sees(caller.team, study.team)
                holds += held if seen else map(_held_by_another, held)
                queue += waiting if seen else [dict(_ANOTHER_WAITS) for _ in waiting]
    said = {"holds": holds, "queue": queue, "studies": Counter(row["state"] for row in own)}
    return JSONResponse({**whole.cluster(), **said})


@router.get("/timeline", dependencies=VIEWER, response_model=Timeline, responses=answers(404))
def timeline(
    asked: Asked,
    hours: Annotated[
        float, Query(gt=0, le=24 * 366, description="That it goes back from now.")
    ] = 24.0,
    study: Annotated[
        str | None, Query(max_length=200, description="This one only, from its first trial.")
    ] = None,
) -> Response:
    """The trials of the last hours, or all of one study: when each ran, on which node and GPUs.
    Other teams' trials are not among them."""
    now = timestamp()
    if study is not None:
        found, trials = asked.reads.study(study)
        under_way = asked.studies.under_way(found)
        spans = [_span(found, trial, under_way) for trial in trials if trial.started_at]
        since = min((span["started_at"] for span in spans), default=now)
    else:
        since = _before(now, hours)
        spans = list(_spans(asked, since))
    spans.sort(key=lambda span: (span["started_at"], span["study"], span["number"]))
    return JSONResponse({"now": now, "from": since, "trials": spans})


def _read(asked: Service, name: str) -> Iterator[tuple[Study, list[Trial]]]:
    try:
        yield asked.reads.study(name)
    except MissingStudyError:
        return  # deleted in the meantime


def _holds(study: Study, trial: Trial) -> Iterator[dict[str, Any]]:
    """A trial on each of its nodes, with the GPUs that it has there."""
    if trial.state not in HOLDING:
        return
    for node, gpu_ids in _gpus_by_node(trial).items():
        yield {
            "node": node,
            "gpu_ids": gpu_ids,
            "study": study.name,
            "trial": trial.number,
            "state": trial.state.value,
            "since": trial.started_at,
        }


def _gpus_by_node(trial: Trial) -> dict[str, list[str]]:
    """A trial's GPUs by node; those of its further nodes are stored as NODE/GPU."""
    nodes = trial.node.split(", ")
    found: dict[str, list[str]] = {node: [] for node in nodes}
    for gpu in trial.gpu_ids:
        # Other resources have a slash in their names too: nvidia.com/gpu/0.
        node = next((each for each in nodes if gpu.startswith(f"{each}/")), None)
        found[node or nodes[0]].append(gpu.removeprefix(f"{node}/") if node else gpu)
    return found


def _held_by_another(hold: dict[str, Any]) -> dict[str, Any]:
    place = {name: hold[name] for name in ("node", "gpu_ids")}
    return {**place, "study": ANOTHERS, "trial": None, "state": "HELD", "since": ""}


_ANOTHER_WAITS = {"study": ANOTHERS, "trial": None, "gpus": None, "waiting": "its turn"}


def _queue(study: Study, trials: list[Trial], standing: str) -> Iterator[dict[str, Any]]:
    if standing == "STARTING":
        waiting = "its job to begin"
        yield {"study": study.name, "trial": None, "gpus": _gpus(study, {}), "waiting": waiting}
        return
    for trial in trials:
        if trial.state is TrialState.PENDING:
            gpus = _gpus(study, trial.parameters)
            waiting = "a node with CPUs" if gpus == 0 else "free GPUs"
            if study.spec.search.parallel:
                waiting += f", or one of {study.spec.search.parallel} trials to end"
            yield {
                "study": study.name,
                "trial": trial.number,
                "gpus": gpus,
                "waiting": trial.note or waiting,
            }


def _gpus(study: Study, parameters: Parameters) -> int | None:
    if is_recorded(study.spec):
        return 0
    try:
        return launch_of(study.spec, parameters).computes_on
    except AutotunerError:
        return None  # it will be refused, and says why then


def _spans(asked: Service, since: str) -> Iterator[dict[str, Any]]:
    for row in asked.reads.rows():
        if not row["started_at"] or (row["ended_at"] and row["ended_at"] < since):
            continue
        under_way = row["state"] in UNDER_WAY
        for study, trials in _read(asked, row["name"]):
            spans = (_span(study, trial, under_way) for trial in trials if trial.started_at)
            yield from (each for each in spans if not each["ended_at"] or each["ended_at"] >= since)


def _span(study: Study, trial: Trial, under_way: bool) -> dict[str, Any]:
    ended_at = trial.ended_at
    if not ended_at and not under_way:
        # Its driver died, and nobody has said when: not before its last sign of life.
        ended_at = max(study.renewed_at, trial.started_at)
    return {
        "study": study.name,
        "number": trial.number,
        "repeat_of": trial.repeat_of,
        "state": trial.state.value,
        "feasible": trial.feasible,
        "node": trial.node,
        "gpu_ids": list(trial.gpu_ids),
        "started_at": trial.started_at,
        "ended_at": ended_at,
        "phases": [asdict(phase) for phase in trial.phases],
        "note": trial.note,
        "objectives": dict(trial.objectives),
    }


def _before(now: str, hours: float) -> str:
    at = datetime.fromisoformat(now).astimezone(UTC) - timedelta(hours=hours)
    return at.isoformat(timespec="milliseconds")
