"""The seam for backends: where servers run. Plan, start, stop, and sweep what was left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from autotuner.serving import LaunchSpec, Plan, Slot


class Server(Protocol):
    """A started server.

    1. `alive` is False once the program has ended, whatever of it is left.
    2. `log` holds everything it printed from its first line, also after it died.
    3. `stop` may be called twice, and returns when nothing of it is left: no process, no GPU
       memory. InfrastructureError when that takes longer than `seconds`.
    """

    def alive(self) -> bool: ...

    def log(self) -> str: ...

    def stop(self, seconds: float) -> None: ...


class Backend(Protocol):
    """A place to run servers.

    1. `plan` starts nothing and is a function of its arguments; equal arguments give equal
       plans, and a plan is JSON without secrets.
    2. `start` returns at once: a server that cannot come up says so by dying.
       InfrastructureError, here or from `alive`, where the place cannot start programs.
    3. Whatever `start` made is gone within 10 s of the death of the process that called it,
       however that process died.
    4. What is started carries labels (study, trial, owner); `sweep` finds it by them alone.
    """

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise ConfigError where an option is not this backend's."""

    def plan(self, launch: LaunchSpec, slot: Slot) -> Plan: ...

    def start(self, plan: Plan) -> Server: ...

    def left(self, study: str | None = None) -> list[str]:
        """What is here that carries our labels, with or without an owner."""

    def sweep(self, study: str | None = None, *, owned: bool = False) -> list[str]:
        """Remove what has no living owner, of one study or of all; say what was removed.

        Args:
            owned: also what still has an owner.
        """
