"""What a study that comes by HTTP may choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import ConfigError
from autotuner.study.spec import StudySpec


@dataclass(frozen=True)
class Allowance:
    """Stub: SECURITY fills it."""

    @classmethod
    def everything(cls) -> Allowance:
        return cls()


def read_allowance(path: Path, models: Path | None = None) -> Allowance:  # noqa: ARG001
    """Of AUTOTUNER_ALLOW. Raises ConfigError."""
    return Allowance()


def refusals(spec: StudySpec, allowed: Allowance) -> Sequence[ConfigError]:  # noqa: ARG001
    return ()
