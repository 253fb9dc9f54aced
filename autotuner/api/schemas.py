"""What the service says of studies and trials, as the OpenAPI document has it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from autotuner.api import examples
from autotuner.api.examples import shown

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
    finding: str | None = Field(description="What their verdict says so far; null before them.")


class Best(BaseModel):
    """The best trial so far."""

    number: int
    value: float | None = Field(
        description="Of the first objective, in its unit; the repeats' mean after a gain."
    )


class StudyRow(BaseModel):
    """A study as a list shows it."""

    model_config = ConfigDict(json_schema_extra=shown(examples.ROW))

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

    model_config = ConfigDict(json_schema_extra=shown(examples.page(examples.ROW)))

    items: list[StudyRow]
    total: int = Field(description="Of all pages.")
    page: int
    per_page: int


class StudyCreated(StudyRow):
    """A study that was stored, and what became of its text on the way."""

    model_config = ConfigDict(json_schema_extra=shown(examples.ROW | {"notes": []}))

    notes: list[str]


class StudyDetail(StudyRow):
    """A study with what was asked."""

    model_config = ConfigDict(json_schema_extra=shown(examples.STUDY_DETAIL))

    spec: dict[str, Any] = Field(description="As it is stored: presets merged, defaults filled in.")
    yaml: str = Field(description="As a study file.")
    job: str = Field(description="Ray job that ran it last, or empty.")
    driver: str = Field(description="Process that drives it, or empty.")
    command: str = Field(description="Launch line of its best trial, or empty.")
    directory: str = Field(description="Of its files, on the service's machine.")


class Report(BaseModel):
    """The whole report; see `autotuner report --json`."""

    model_config = ConfigDict(extra="allow", json_schema_extra=shown(examples.REPORT))

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

    model_config = ConfigDict(extra="allow", json_schema_extra=shown(examples.TRIAL))

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

    model_config = ConfigDict(json_schema_extra=shown(examples.page(examples.TRIAL)))

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

    model_config = ConfigDict(extra="allow", json_schema_extra=shown(examples.TRIAL_DETAIL))

    argv: list[str] = Field(description="As its server is started, on the engine's default port.")
    command: str
    plan: dict[str, Any] | None = Field(description="The exact request its backend sent.")
    telemetry: list[Series]
    files: list[str]
    logs: Sizes


class Planned(BaseModel):
    """What a study would do; see `autotuner plan --json`."""

    model_config = ConfigDict(extra="allow", json_schema_extra=shown(examples.PLANNED))

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
        extra="forbid",
        json_schema_extra=shown({"yaml": examples.YAML}, {"content": examples.STUDY}),
    )

    yaml: str | None = None
    content: dict[str, Any] | None = None


class Converted(BaseModel):
    """A study in both forms, and what is wrong with it."""

    model_config = ConfigDict(json_schema_extra=shown(examples.CONVERTED))

    content: dict[str, Any] | None = Field(description="Null: the text is no mapping.")
    yaml: str
    notes: list[str]
    problems: list[dict[str, Any]]


class StudyEvent(BaseModel):
    """What a study is now: the data of an event `study`."""

    model_config = ConfigDict(json_schema_extra=shown(examples.STUDY_EVENT))

    at: str = Field(description="When, in UTC.")
    state: Literal["PENDING", "RUNNING", "COMPLETE", "FAILED", "CANCELLED", "DELETED"] = Field(
        description="As it is stored: whether a driver lives is no event. After DELETED, which "
        "says nothing else, the stream ends."
    )
    reason: str = Field(
        default="", description="Why it ended so, or what its operator should know."
    )
    job: str = Field(default="", description="Ray job that it was given to, or empty.")


class TrialEvent(BaseModel):
    """What a trial is now: the data of an event `trial`. What is large is read with the trial."""

    model_config = ConfigDict(json_schema_extra=shown(examples.TRIAL_EVENT))

    at: str = Field(description="When, in UTC.")
    number: int
    state: TrialStateName
    note: str = Field(description="What happens now, while it runs.")
    parameters: dict[str, Any]
    objectives: dict[str, float | None]
    feasible: bool
    failure: str | None = Field(description="Class of its failure, such as `crash`.")
    reason: str
    load_points: int = Field(description="How many are measured.")
    repeat_of: int | None = Field(description="The trial that it is launched again for.")
    round: int = Field(description="Of the finals; 0 in the search.")
