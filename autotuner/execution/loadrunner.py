"""The load generator of one trial: started beside the server, one load point after another."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotuner.backends.guarded import Guarded, labels
from autotuner.backends.process import surroundings
from autotuner.errors import InfrastructureError
from autotuner.settings import Site
from autotuner.study.files import RUNNER_LOG

WATCH_SECONDS = 0.5
STARTUP_SECONDS = 120.0

IN_CLUSTER = ".local"
"""Servers of a Kubernetes cluster. No proxy is between us and what we measure."""


class LoadRunner:
    """A benchmark's runner under a guard; see `Benchmark.runner`."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        study: str,
        trial: int,
        site: Site,
        started: Callable[[int], None] = lambda pid: None,
    ) -> None:
        """Start it; `started` hears its PID before the first load."""
        self._started = started
        self._log = directory / RUNNER_LOG
        with self._log.open("ab") as log:
            self._program = Guarded(
                argv,
                environment={**surroundings(site, IN_CLUSTER), **labels(study, trial)},
                directory=str(directory),
                output=log,
                errors=log,
                talk=True,
            )
        self._ready = False
        self._heard = b""

    def run(
        self,
        argv: Sequence[str],
        into: Path,
        *,
        deadline: float,
        clock: Callable[[], float],
        watch: Callable[[], None],
    ) -> int | None:
        """Run one command of the benchmark; its exit code, or None when the deadline passed.

        Args:
            watch: called about twice a second; what it raises ends the wait.

        Raises:
            InfrastructureError: the load generator itself died.
        """
        if not self._ready:
            if self._answer(min(clock() + STARTUP_SECONDS, deadline), clock, watch) is None:
                raise InfrastructureError(f"the load generator did not start: {self._last_line()}")
            self._ready = True
            self._program.alive()  # listens to the guard, which has the PID
            if self._program.pid is not None:
                self._started(self._program.pid)
        command = {"argv": list(argv), "into": str(into)}
        try:
            assert self._program.stdin is not None
            self._program.stdin.write(json.dumps(command).encode() + b"\n")
            self._program.stdin.flush()
        except OSError as error:
            raise InfrastructureError(f"the load generator is gone: {self._last_line()}") from error
        answer = self._answer(deadline, clock, watch)
        return None if answer is None else int(answer["exit"])

    def stop(self, seconds: float) -> None:
        self._program.stop(seconds)

    def _answer(
        self, deadline: float, clock: Callable[[], float], watch: Callable[[], None]
    ) -> dict[str, Any] | None:
        pipe = self._program.stdout
        assert pipe is not None
        while b"\n" not in self._heard:
            left = deadline - clock()
            if left <= 0:
                return None
            readable, _, _ = select.select([pipe], [], [], min(left, WATCH_SECONDS))
            if readable:
                heard = os.read(pipe.fileno(), 65536)
                if not heard:
                    raise InfrastructureError(f"the load generator died: {self._last_line()}")
                self._heard += heard
            else:
                watch()
        line, _, self._heard = self._heard.partition(b"\n")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise InfrastructureError(
                f"the load generator said {line[:200].decode(errors='replace')!r}"
            ) from error
        return answer

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")[:300]
