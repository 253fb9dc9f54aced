"""The seam for load generators: command, run, read; and for what stands in for all of a launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from autotuner.errors import TrialError
from autotuner.plugins import load_kind
from autotuner.serving import Endpoint
from autotuner.settings import Site
from autotuner.study.metrics import Measurement
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.workload import Load


class Benchmark(Protocol):
    """A program that puts load on an endpoint and leaves files behind.

    1. `command` is a whole command line: pasted into a shell it does the same measurement. It
       warms up at the load's own concurrency before it measures.
    2. `runner` is a program that is started early, beside the server, so that what the commands
       have in common (imports, the tokenizer) is done by the time the server is ready. It says
       ``{"ready": true}`` and then answers each line ``{"argv": [...], "into": DIRECTORY}`` with
       ``{"exit": CODE}`` once that command has ended.
    3. `check` raises ConfigError where the study's options are not this kind's.
    4. After `seconds_at_most` the runner of a command is given up.
    5. `read` trusts the files and no exit code. TrialError(BENCHMARK) where they are missing,
       where nothing completed, or where more failed than the workload allows; it never returns
       a zero or an infinity for what was not measured.
    """

    def check(self, spec: StudySpec) -> None: ...

    def command(
        self, endpoint: Endpoint, load: Load, into: Path, *, api: str, tokenizer: str
    ) -> list[str]: ...

    def runner(self, tokenizer: str) -> list[str]: ...

    def seconds_at_most(self, load: Load) -> float: ...

    def read(self, into: Path, *, max_error_rate: float) -> Measurement: ...


@runtime_checkable
class Opened(Protocol):
    """A benchmark whose commands depend on its options, or on the site: `open` gives the one of
    a study, whose `seconds_at_most` says how long a load point may take there."""

    def check(self, spec: StudySpec) -> None: ...

    def open(self, spec: StudySpec, site: Site) -> Benchmark: ...


@dataclass(frozen=True)
class Answer:
    """A load point that was not measured now: its metrics by name, and how long it took."""

    metrics: Mapping[str, float | None]
    seconds: float


@dataclass(frozen=True)
class Launched:
    """A launch that was not made now: seconds until it was ready or failed, and why it did."""

    seconds: float
    error: TrialError | None = None


@runtime_checkable
class Recorded(Protocol):
    """A benchmark that knows its answers: no server is started, no time passes.

    `deploy` is the launch, which may have failed; `measure` raises TrialError where the load did.
    """

    def check(self, spec: StudySpec) -> None: ...

    def deploy(self, spec: StudySpec, parameters: Parameters) -> Launched: ...

    def measure(
        self, spec: StudySpec, parameters: Parameters, load: Load, *, trial: int
    ) -> Answer: ...


def is_recorded(spec: StudySpec) -> bool:
    """Whether a study's answers are those of earlier launches: then it starts no server."""
    return isinstance(load_kind("benchmark", spec.benchmark.kind), Recorded)
