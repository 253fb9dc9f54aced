"""What the service says of studies and trials, as the OpenAPI document has it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Standing = Literal["PENDING", "STARTING", "RUNNING", "COMPLETE", "FAILED", "CANCELLED", "LOST"]
TrialStateName = Literal[
    "PENDING",
    "DEPLOYING",
    "BENCHMARKING",
    "COMPLETE",
    "INFEASIBLE",
    "STOPPED",
    "FAILED",
    "CANCELLED",
]


class Objective(BaseModel):
    """What is sought, and which way is better."""

    name: str = Field(examples=["output_throughput"])
    unit: str = Field(examples=["tok/s"])
    better: Literal["higher", "lower"]


class Block(BaseModel):
    """A launched trial of the search, as the smallest thing that shows it."""

    number: int
    state: TrialStateName
    feasible: bool
    parameters: dict[str, Any]
    note: str = Field(description="What happens now, while it runs.")


class Running(BaseModel):
    """A trial that has not ended, or its repetition in the finals."""

    trial: int = Field(description="The trial; of a repetition, the one that it repeats.")
    round: int = Field(description="Of the finals; 0 in the search.")
    state: TrialStateName
    note: str = Field(description="What happens now.")


class Finals(BaseModel):
    """How far the finals are."""

    round: int = Field(description="The last one begun; 0 before the finals.")
    launches: int


class Best(BaseModel):
    """The best trial so far."""

    number: int
    value: float | None = Field(description="Of the first objective, in its unit.")


_ROW: dict[str, Any] = {
    "name": "llama-3-8b",
    "team": "",
    "description": "",
    "state": "RUNNING",
    "reason": "",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "engine": "vllm",
    "backend": "process",
    "objectives": [{"name": "output_throughput", "unit": "tok/s", "better": "higher"}],
    "counts": {"COMPLETE": 1, "BENCHMARKING": 1, "REFUSED": 3},
    "blocks": [
        {"number": 0, "state": "COMPLETE", "feasible": True, "parameters": {}, "note": ""},
        {
            "number": 4,
            "state": "BENCHMARKING",
            "feasible": False,
            "parameters": {"max-num-seqs": 256},
            "note": "D(1024,256) x 64",
        },
    ],
    "more": 0,
    "running": [{"trial": 4, "round": 0, "state": "BENCHMARKING", "note": "D(1024,256) x 64"}],
    "finals": {"round": 0, "launches": 0},
    "budget": 20,
    "best": {"number": 0, "value": 2310.5},
    "baseline": 2310.5,
    "gain": 0.0,
    "seconds": 431.2,
    "eta": 5200.0,
    "created_at": "2026-11-22T12:00:00.000+00:00",
    "started_at": "2026-11-22T12:00:05.000+00:00",
    "ended_at": "",
    "event": 17,
}
_TRIAL: dict[str, Any] = {
    "number": 4,
    "state": "INFEASIBLE",
    "parameters": {"max-num-seqs": 256},
    "objectives": {},
    "violations": {},
    "load_points": [
        {
            "index": 0,
            "scenario": "D(1024,256)",
            "concurrency": 64,
            "name": "D(1024,256) x 64",
            "seconds": 60.0,
            "metrics": {"output_throughput": 2618.0, "ttft_p90": 1.2},
            "probe": False,
            "telemetry": {"kv_usage_max": 0.71, "waiting_max": 0.0},
        }
    ],
    "phases": [{"name": "deploy", "start": 0.0, "end": 48.0}],
    "feasible": False,
    "refused": False,
    "searched": True,
    "baseline": False,
    "failure": "out of memory under load",
    "reason": "CUDA out of memory",
    "advice": "lower gpu-memory-utilization",
    "why": "",
    "node": "10.0.0.7",
    "gpu_ids": ["0"],
    "seconds": 122.0,
    "gpu_hours": 0.034,
    "created_at": "2026-11-22T12:03:00.000+00:00",
    "started_at": "2026-11-22T12:03:00.000+00:00",
    "ended_at": "2026-11-22T12:05:02.000+00:00",
}


class StudyRow(BaseModel):
    """A study as a list shows it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ROW]})

    name: str = Field(examples=["llama-3-8b"])
    team: str = Field(description="Whose it is, who alone sees it; empty: of the whole service.")
    description: str
    state: Standing = Field(
        description="STARTING: a job is about to run it; LOST: its driver is gone, resume it."
    )
    reason: str = Field(description="Why it ended so, or what its operator should know.")
    model: str
    engine: str
    backend: str
    objectives: list[Objective]
    counts: dict[str, int] = Field(
        description="Trials by state; refused points, which cost no launch, apart.",
        examples=[{"COMPLETE": 12, "INFEASIBLE": 2, "REFUSED": 5}],
    )
    blocks: list[Block] = Field(description="The first 50.")
    more: int = Field(description="Trials beyond those.")
    running: list[Running] = Field(description="Trials and repeats that have not ended.")
    finals: Finals
    budget: int | None = Field(description="Trials at most; null: the space decides.")
    best: Best | None
    baseline: float | None = Field(description="The engine's defaults, in the first objective.")
    gain: float | None = Field(description="Of the best over the defaults: 0.25 is 25 %.")
    seconds: float | None = Field(description="Since it started, or that it took.")
    eta: float | None = Field(description="Seconds left, about, while it runs.")
    created_at: str
    started_at: str
    ended_at: str
    event: int = Field(description="Number of its last event.")


class StudyPage(BaseModel):
    """A page of studies."""

    items: list[StudyRow]
    total: int = Field(description="Of all pages.")
    page: int
    per_page: int


class StudyCreated(StudyRow):
    """A study that was stored, and what became of its text on the way."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ROW | {"notes": []}]})

    notes: list[str]


class StudyDetail(StudyRow):
    """A study with what was asked."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    spec: dict[str, Any] = Field(description="As it is stored: presets merged, defaults filled in.")
    yaml: str = Field(description="As a study file.")
    job: str = Field(description="Ray job that ran it last, or empty.")
    driver: str = Field(description="Process that drives it, or empty.")
    command: str = Field(description="Launch line of its best trial, or empty.")
    directory: str = Field(description="Of its files, on the service's machine.")


class Report(BaseModel):
    """The whole report; see `autotuner report --json`."""

    model_config = ConfigDict(extra="allow")

    standing: Standing
    study: dict[str, Any]
    counts: dict[str, int]
    baseline: int | None
    best: int | None
    winner: int | None
    front: list[int]
    gain: dict[str, float | None]
    gain_interval: list[float] | None
    verdict: dict[str, Any] | None
    statement: dict[str, Any] = Field(description="What can be said: sentence, and notes.")
    failures: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    accuracy: dict[str, Any]
    cost: dict[str, Any]
    trials: list[dict[str, Any]]
    command: str
    importance: dict[str, float] = Field(
        description="Of the spread of the first objective, by parameter; empty: not to be said."
    )
    importance_needs: int | None = Field(description="Trials it takes to say it, if more.")


class TrialRow(BaseModel):
    """A trial as it is stored, with what follows from it."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [_TRIAL]})

    number: int
    state: TrialStateName
    parameters: dict[str, Any]
    objectives: dict[str, float | None]
    violations: dict[str, float]
    load_points: list[dict[str, Any]]
    phases: list[dict[str, Any]]
    feasible: bool
    refused: bool
    searched: bool
    baseline: bool
    failure: str | None
    reason: str
    advice: str
    why: str
    node: str
    gpu_ids: list[str]
    seconds: float
    gpu_hours: float
    created_at: str
    started_at: str
    ended_at: str


class TrialPage(BaseModel):
    """A page of trials."""

    items: list[TrialRow]
    total: int
    page: int
    per_page: int


class Series(BaseModel):
    """What was seen of server and machine during a load point."""

    load: str
    index: int
    seconds: list[float] = Field(description="Since the load point began.")
    series: dict[str, list[float | None]]


class Sizes(BaseModel):
    """Bytes of a trial's logs so far; null: there is none."""

    server: int | None
    benchmark: int | None
    trial: int | None


class TrialDetail(TrialRow):
    """A trial with its launch, its telemetry and its files."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": []})

    argv: list[str] = Field(description="As its server is started, on the engine's default port.")
    command: str
    plan: dict[str, Any] | None = Field(description="The exact request its backend sent.")
    telemetry: list[Series]
    files: list[str]
    logs: Sizes


class Planned(BaseModel):
    """What a study would do; see `autotuner plan --json`."""

    model_config = ConfigDict(extra="allow")

    name: str
    size: int | None = Field(description="Points of the space; null: infinite.")
    looked_at: int
    refused: dict[str, int] = Field(description="Reason -> points refused before launch.")
    doubted: dict[str, int]
    trials: int | None
    load_points: list[str]
    launches: list[dict[str, Any]]
    seconds_expected: float | None
    gpu_hours_expected: float | None
    quantization: dict[str, Any]
    notes: list[str]


class Document(BaseModel):
    """A study in one of its two forms: give either."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"yaml": "name: llama-3-8b\n"}]}
    )

    yaml: str | None = None
    content: dict[str, Any] | None = None


class Converted(BaseModel):
    """A study in both forms, and what is wrong with it."""

    content: dict[str, Any] | None = Field(description="Null: the text is no mapping.")
    yaml: str
    notes: list[str]
    problems: list[dict[str, Any]]
