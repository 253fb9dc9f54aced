"""The values that engine, backend and benchmark exchange: place, launch spec, slot, plan,
endpoint, ending, finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from autotuner.errors import FailureClass


@dataclass(frozen=True)
class Place:
    """What a command line must know of where its server runs.

    Attributes:
        host: address to listen on, as seen there.
        port: port to listen on there; None: the slot's, free a moment ago.
        model_path: the model's directory there; None: as the study names it.
        image: whether the program is the image's own, not one of the machine.
        rank: which part of a server that spans nodes; the first answers requests.
        meeting: HOST:PORT on the first node, where the parts of such a server meet.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    model_path: str | None = None
    image: bool = False
    rank: int = 0
    meeting: str = "FIRST_NODE:29500"


HERE = Place()
"""This machine, for this machine."""


@dataclass(frozen=True)
class LaunchSpec:
    """What an engine wants started in a place.

    Attributes:
        command: the program, without its flags: the machine's, or the image's, see `Place`.
        arguments: its flags and values, each one item; never a shell string.
        flags: the study's own part of `arguments`: without model, names, host and port.
        environment: variables to set, none of them secret.
        image: container image that holds the program.
        model_path: the model as the arguments name it.
        served_name: the model's name in requests.
        health_path: answers 200 once the server can serve.
        gpus: GPUs to reserve (tensor x pipeline x data parallel).
        nodes: nodes that the server spans, with equally many of the GPUs on each.
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
    flags: tuple[str, ...] = ()
    nodes: int = 1

    @property
    def argv(self) -> tuple[str, ...]:
        return self.command + self.arguments

    @property
    def computes_on(self) -> int:
        """GPUs that it computes on. One that says how many CPUs it takes computes on those, and
        holds GPUs only where there are some; see `execution.reservation`."""
        return self.gpus if self.cpus is None else 0

    @property
    def identity(self) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """Equal for launches that would start the very same server, on the same port."""
        return self.argv, tuple(sorted(self.environment.items()))


@dataclass(frozen=True)
class MemoryRequest:
    """What a point's flags say of GPU memory; None where they leave it to the engine.

    Attributes:
        fraction: of each GPU's memory that the engine may use, 0 to 1.
        kv_gib: KV cache of each GPU (on a CPU: of each process) in GiB, where it is fixed.
        kv_tokens: tokens in the KV cache of one replica, at most.
        tp, pp: GPUs that share the weights of one replica; `dp` replicas of it.
        kv_split: GPUs, beyond `tp`, that share the KV cache of one sequence.
        expert_parallel: experts are shared among more GPUs than `tp`.
        offload_gib: weights of each GPU kept in the machine's own memory; infinite where that
            may be any of them.
        quantization: method that the weights are quantized with, in the engine's word.
        weight_bytes: of one weight, at the least, where a flag says it; None: as stored. What
            the model's own checkpoint is quantized to wins.
        kv_bytes: of one element of keys and values, at the least; None: as the weights are
            computed.
        max_length: tokens of prompt and output of one sequence, at most.
        sequences: at the same time, at most.
        batched_tokens: in one step, at most.
        block: tokens in one block (page) of the KV cache.
    """

    fraction: float | None = None
    kv_gib: float | None = None
    kv_tokens: int | None = None
    tp: int = 1
    pp: int = 1
    dp: int = 1
    kv_split: int = 1
    expert_parallel: bool = False
    offload_gib: float = 0.0
    quantization: str | None = None
    weight_bytes: float | None = None
    kv_bytes: float | None = None
    max_length: int | None = None
    sequences: int | None = None
    batched_tokens: int | None = None
    block: int | None = None


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
    """A server's address, without a path, and the model's name in requests.

    Attributes:
        server: its name in its place, such as that of its container.
    """

    url: str
    model: str
    server: str = ""


@dataclass(frozen=True)
class Ending:
    """How a server ended, as far as its place knows.

    Attributes:
        exit_code: None where the place cannot tell.
        failure: where the place knows it better than the log; None: the log decides.
        reason: one line; may be empty.
    """

    exit_code: int | None = None
    failure: FailureClass | None = None
    reason: str = ""


@dataclass(frozen=True)
class Inspection:
    """One thing that `autotuner doctor` looked at.

    Attributes:
        ok: None where it could not be looked at, or does not matter here.
        said: what was found.
        hint: what to do about it.
    """

    name: str
    ok: bool | None
    said: str
    hint: str = ""
