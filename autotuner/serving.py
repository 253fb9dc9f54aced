"""The values that engine, backend and benchmark exchange: launch spec, slot, plan, endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LaunchSpec:
    """What an engine wants started; nothing in it knows where.

    Attributes:
        command: the program, without its flags, as started on a machine (not in an image).
        arguments: its flags and values, each one item; never a shell string.
        environment: variables to set, none of them secret.
        image: container image that holds the program.
        model_path: the model as the arguments name it.
        served_name: the model's name in requests.
        health_path: answers 200 once the server can serve.
        gpus: GPUs to reserve (tensor x pipeline x data parallel).
        cpus: CPUs to reserve; None lets the cluster decide (see `execution.reservation`).
    """

    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    image: str
    model_path: str
    served_name: str
    port: int
    health_path: str = "/health"
    gpus: int = 1
    cpus: float | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        return self.command + self.arguments


@dataclass(frozen=True)
class Slot:
    """Where one trial runs: made by whoever holds the resources, and passed in.

    Attributes:
        gpu_ids: the GPUs granted; empty on a CPU.
        port: free a moment ago on this machine.
        directory: absolute; logs and plans of the trial go here.
    """

    study: str
    trial: int
    port: int
    directory: str
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The exact request a backend will carry out, as JSON: printable, storable, comparable."""

    backend: str
    request: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Endpoint:
    """A server's address, without a path, and the model's name in requests."""

    url: str
    model: str
