"""Servers as programs on the trial's own machine, each under a guard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autotuner.addresses import OWN_NAMES
from autotuner.backends.base import Backend, BackendKind, Server
from autotuner.backends.guarded import Guarded, labelled, labels, said, sweep_processes
from autotuner.errors import InfrastructureError
from autotuner.masking import masked
from autotuner.serving import HERE, Ending, Inspection, LaunchSpec, Plan, Slot
from autotuner.settings import Site, without_proxy
from autotuner.study.files import SERVER_LOG
from autotuner.study.space import Parameters
from autotuner.study.spec import NoOptions, StudySpec, options_of

GONE_SECONDS = 10.0

_NOT_INHERITED = (
    *("RAY_", "AUTOTUNER_", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("VLLM_API_KEY", "MODEL_API_KEY"),
)
"""Names and beginnings of names. What Ray puts into its workers' environment would change the
server's own defaults, and its token is none of the server's business; a key would lock our own
load out. A study sets what it wants under engine.environment."""


class _Process:
    local = True
    spans_nodes = True

    def check(self, options: Mapping[str, Any]) -> None:
        options_of(NoOptions, options, "backend.process")

    def open(self, options: Mapping[str, Any], site: Site) -> Backend:  # noqa: ARG002
        return _Programs(site)


class _Programs:
    place = HERE
    gone_seconds = GONE_SECONDS
    gpu_resource = "GPU"

    def __init__(self, site: Site) -> None:
        self._site = site

    def prepare(self, launch: LaunchSpec, said: Callable[[str], None]) -> None:
        """Nothing: the program is there, or its first trial says that it is not."""

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
                "port": launch.port,
                "study": slot.study,
                "trial": slot.trial,
            },
        )

    def shown(self, plan: Plan) -> Mapping[str, Any]:  # noqa: ARG002
        return {}

    def start(self, plan: Plan) -> Server:
        return _ProcessServer(plan, self._site)

    def left(self, study: str | None = None) -> list[str]:
        return [said(process, environment) for process, environment in labelled(study)]

    def sweep(self, study: str | None = None, *, owned: bool = False) -> list[str]:
        return sweep_processes(study, owned=owned)

    def examine(self, launch: LaunchSpec | None = None) -> list[Inspection]:
        if launch is None:
            return []
        program = launch.command[0]
        found = shutil.which(program)
        hint = "" if found else "install the engine there, or name its program in engine.command"
        return [Inspection("engine", found is not None, found or f"no program {program!r}", hint)]

    def exports(self, spec: StudySpec, point: Parameters) -> Mapping[str, str]:  # noqa: ARG002
        return {}


class _ProcessServer:
    node = None

    def __init__(self, plan: Plan, site: Site) -> None:
        request = plan.request
        self._log = Path(request["directory"]) / SERVER_LOG
        self._program = request["argv"][0]
        self._environment = {
            **surroundings(site),
            **request["environment"],
            **labels(request["study"], request["trial"]),
        }
        # Until its guard has masked it, nobody else may read what the server says of its secrets.
        with open(self._log, "wb", opener=_private) as output:
            self._guarded = Guarded(
                request["argv"],
                environment=self._environment,
                directory=request["directory"],
                output=output,
                log=self._log,
            )

        self.url = f"http://127.0.0.1:{request['port']}"

    @property
    def name(self) -> str:
        return str(self._guarded.pid or "")

    def alive(self) -> bool:
        running = self._guarded.alive()
        if self._guarded.failure:
            raise InfrastructureError(
                f"{self._program!r} cannot be run on this machine: {self._guarded.failure}"
            )
        return running

    def log(self) -> str:
        # It prints into the file itself, and what it prints may be what it was given.
        return masked(self._log.read_text(encoding="utf-8", errors="replace"), self._environment)

    def ending(self) -> Ending:
        return Ending(exit_code=self._guarded.exit_code)

    def stop(self, seconds: float) -> None:
        self._guarded.stop(seconds)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def inherited() -> dict[str, str]:
    """This machine's environment as a server should see it."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
    }


def surroundings(site: Site, *hosts: str) -> dict[str, str]:
    """The whole environment of a program of a trial, but for what its study says.

    Args:
        hosts: are reached without a proxy, as this machine is.
    """
    said_there = site.environment()
    found = {**inherited(), **said_there}
    if site.hub_cache is not None:
        found["HF_HOME"] = str(site.hub_cache)
    for name in ("NO_PROXY", "no_proxy"):
        said = f"{os.environ.get(name, '')},{said_there.get(name, '')}"
        found[name] = without_proxy(said, *OWN_NAMES, *hosts)
    return found


PROCESS: BackendKind = _Process()
