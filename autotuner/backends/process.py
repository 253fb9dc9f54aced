"""Servers as programs on the trial's own machine, each under a guard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.backends.base import Backend, Server
from autotuner.backends.guarded import Guarded, labelled, labels, said, sweep_processes
from autotuner.errors import InfrastructureError
from autotuner.serving import LaunchSpec, Plan, Slot
from autotuner.study.spec import NoOptions, options_of

LOG = "server.log"

_NOT_INHERITED = (
    *("RAY_", "AUTOTUNER_", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("VLLM_API_KEY", "MODEL_API_KEY"),
)
"""Names and beginnings of names. What Ray puts into its workers' environment would change the
server's own defaults, and its token is none of the server's business; a key would lock our own
load out. A study sets what it wants under engine.environment."""


class _Process:
    def check(self, options: Mapping[str, Any]) -> None:
        options_of(NoOptions, options, "backend")

    def plan(self, launch: LaunchSpec, slot: Slot) -> Plan:
        environment = dict(launch.environment)
        if slot.gpu_ids:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpu_ids)
        return Plan(
            "process",
            {
                "argv": list(launch.argv),
                "environment": environment,
                "directory": slot.directory,
                "study": slot.study,
                "trial": slot.trial,
            },
        )

    def start(self, plan: Plan) -> Server:
        return _ProcessServer(plan)

    def left(self, study: str | None = None) -> list[str]:
        return [said(process, environment) for process, environment in labelled(study)]

    def sweep(self, study: str | None = None, *, owned: bool = False) -> list[str]:
        return sweep_processes(study, owned=owned)


class _ProcessServer:
    def __init__(self, plan: Plan) -> None:
        request = plan.request
        self._log = Path(request["directory"]) / LOG
        self._program = request["argv"][0]
        with self._log.open("wb") as output:
            self._guarded = Guarded(
                request["argv"],
                environment={
                    **inherited(),
                    **request["environment"],
                    **labels(request["study"], request["trial"]),
                },
                directory=request["directory"],
                output=output,
            )

    def alive(self) -> bool:
        running = self._guarded.alive()
        if self._guarded.failure:
            raise InfrastructureError(
                f"{self._program!r} cannot be run on this machine: {self._guarded.failure}"
            )
        return running

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self, seconds: float) -> None:
        self._guarded.stop(seconds)


def inherited() -> dict[str, str]:
    """This machine's environment as a server should see it."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
    }


PROCESS: Backend = _Process()
