"""The seam for load generators: command, run, read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from autotuner.serving import Endpoint
from autotuner.study.metrics import Measurement
from autotuner.study.workload import Load


class Benchmark(Protocol):
    """A program that puts load on an endpoint and leaves files behind.

    1. `command` is a whole command line: pasted into a shell it does the same measurement. It
       warms up at the load's own concurrency before it measures.
    2. `runner` is a program that is started early, beside the server, so that what the commands
       have in common (imports, the tokenizer) is done by the time the server is ready. It says
       ``{"ready": true}`` and then answers each line ``{"argv": [...], "into": DIRECTORY}`` with
       ``{"exit": CODE}`` once that command has ended.
    3. `read` trusts the files and no exit code. TrialError(BENCHMARK) where they are missing,
       where nothing completed, or where more failed than the workload allows; it never returns
       a zero or an infinity for what was not measured.
    """

    def command(
        self, endpoint: Endpoint, load: Load, into: Path, *, api: str, tokenizer: str
    ) -> list[str]: ...

    def runner(self, tokenizer: str) -> list[str]: ...

    def read(self, into: Path, *, max_error_rate: float) -> Measurement: ...
