"""The seam for engines: study and parameters in, command line out. Nothing here starts anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autotuner.errors import FailureClass
from autotuner.serving import LaunchSpec
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec

MACHINE_FAULTS = frozenset(
    {FailureClass.PORT, FailureClass.NCCL, FailureClass.SHARED_MEMORY, FailureClass.DEVICE}
)
"""Classes that say nothing about the parameters: the trial is retried, nobody is told."""


@dataclass(frozen=True)
class Diagnosis:
    """What a dead server's log says: a class, and one line in the engine's own words."""

    failure: FailureClass
    reason: str

    @property
    def machine_fault(self) -> bool:
        return self.failure in MACHINE_FAULTS


class Engine(Protocol):
    """An inference server program. Pure: no processes, no GPUs, no clock.

    1. `check` and `launch` agree: what `check` accepts, `launch` turns into arguments that the
       engine's own parser takes.
    2. `launch` of equal values is equal; every argument is one item of a list.
    3. `refuse` is provable: a point it refuses would not have started. A guess returns None.
    4. `diagnose` never fails; a log without a known signature is a CRASH with its last line.
    """

    @property
    def api(self) -> str:
        """The dialect of its HTTP API, in the benchmark's words: ``vllm``, ``sglang``."""

    def check(self, spec: StudySpec) -> None:
        """Raise ConfigError where a flag or a value is not the engine's."""

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, host: str = "127.0.0.1"
    ) -> LaunchSpec: ...

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None:
        """Why this point cannot start, or None."""

    def diagnose(self, log: str) -> Diagnosis: ...
