"""The seam for engines: study and parameters in, command line out. Nothing here starts anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from autotuner.errors import FailureClass
from autotuner.serving import HERE, LaunchSpec, MemoryRequest, Place
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.telemetry import Levers

MACHINE_FAULTS = frozenset(
    {
        FailureClass.PORT,
        FailureClass.NCCL,
        FailureClass.SHARED_MEMORY,
        FailureClass.DEVICE,
        FailureClass.IMAGE,
        FailureClass.NOT_INSTALLED,
        # Whoever else runs on the machine may have taken it, and a kill is all the log shows.
        FailureClass.HOST_MEMORY,
    }
)
"""Classes that say nothing about the parameters: the trial is retried, nobody is told."""

RAISE, LOWER = "raise", "lower"


@dataclass(frozen=True)
class Diagnosis:
    """What a dead server's log says: a class, and one line in the engine's own words.

    Attributes:
        advice: which way to move, where the engine makes that clear, else empty.
        moves: the same by flag: ``raise`` or ``lower``; the likeliest cure first.
    """

    failure: FailureClass
    reason: str
    advice: str = ""
    moves: Mapping[str, str] = field(default_factory=dict)

    @property
    def machine_fault(self) -> bool:
        return self.failure in MACHINE_FAULTS


@dataclass(frozen=True)
class Told:
    """How an engine tells of itself while it serves: a page in Prometheus' text format.

    Attributes:
        series: signal of `study.telemetry` -> its names on the page, of the newest version first.
        path: of the page.
    """

    series: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    path: str = "/metrics"


@dataclass(frozen=True)
class Harmless:
    """What a study that a stranger wrote may set of an engine: with it the server reads no file,
    runs no code, opens no port and reaches no machine. What is named nowhere is not harmless.

    Flags are named as in `Flag.name` of the engine's catalogs.

    Attributes:
        flags: with numbers, switches, plain words, and JSON of these.
        values: flag -> the only values with which it is harmless.
        keys: flag of JSON -> the only keys with which it is harmless.
        models: flags whose value is a model, harmless if it is one that may be served; `flag.key`
            for a key of a flag in `keys`.
        code: values of `keys` that have the engine import what another key names.
        variables: environment variables that only make a server slower or faster, or say more
            or less.
    """

    flags: frozenset[str] = frozenset()
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    models: frozenset[str] = frozenset()
    code: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()

    @property
    def decided(self) -> frozenset[str]:
        """Every flag that may be given with some value."""
        models = (each for each in self.models if "." not in each)
        return self.flags.union(self.values, self.keys, models)


class Engine(Protocol):
    """An inference server program. Pure: no processes, no GPUs, no clock.

    1. `check` and `launch` agree: what `check` accepts, `launch` turns into arguments that the
       engine's own parser takes.
    2. `launch` of equal values is equal; every argument is one item of a list.
    3. `refuse` is provable: a point it refuses would not have started. A guess returns None.
    4. `diagnose` never fails; a log without a known signature is a CRASH with its last line.
    5. `observe` and `memory` never fail either: what cannot be read is left out.
    6. `told` names no signal that the engine has not, and `levers` no flag that it has not.

    It may say besides which of its flags are harmless, see `Decided`.
    """

    @property
    def api(self) -> str:
        """The dialect of its HTTP API, in the benchmark's words: ``vllm``, ``sglang``."""

    @property
    def told(self) -> Told:
        """Where it tells of its KV cache and its queue while it serves."""

    def check(self, spec: StudySpec) -> None:
        """Raise ConfigError where a flag or a value is not the engine's."""

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, place: Place = HERE
    ) -> LaunchSpec:
        """The launch in a place, on `port` unless the place has one of its own."""

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None:
        """Why this point cannot start, or None."""

    def diagnose(self, log: str) -> Diagnosis: ...

    def observe(self, log: str) -> Mapping[str, float]:
        """What a server's log says of its memory, as far as it does.

        ``kv_tokens`` (tokens of one replica), ``kv_gib`` and ``weights_gib`` (GiB of one GPU),
        ``concurrency`` (sequences of full length that the KV cache holds).
        """

    def memory(self, spec: StudySpec, parameters: Parameters) -> MemoryRequest | None:
        """What the point's flags say of GPU memory; None: this engine's cannot be told."""

    def levers(self, spec: StudySpec, parameters: Parameters) -> Levers:
        """What bounds how much a server at this point does at once."""


@runtime_checkable
class Decided(Protocol):
    """An engine of whose flags a person has decided which are harmless, one by one.

    The engine itself says it, beside what makes it an `Engine`. Of one that does not, nothing is
    harmless, and studies that come by HTTP set only what the operator names.
    """

    @property
    def harmless(self) -> Harmless: ...


def harmless_of(engine: Engine) -> Harmless:
    """What an engine says of itself; nothing, where it says nothing."""
    return engine.harmless if isinstance(engine, Decided) else Harmless()
