"""What can be said of a point before its launch, all of it together: the engine's rules, models of
memory and speed, earlier studies. It refuses, doubts and predicts; it learns from every trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from autotuner.engines.rules import Rules
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial


class Foresight(Protocol):
    """What is known of points; the loop of a study asks it before every launch.

    1. `refuse` is provable: such a point is told to the searcher as infeasible, unlaunched.
    2. `doubt` is a guess: such a point is tried after the others, and never lost.
    3. `learn` takes any ended trial; what was doubted may not be any more.
    """

    def refuse(self, point: Parameters) -> str | None:
        """Why the point cannot work, or None."""

    def doubt(self, point: Parameters) -> str | None:
        """Why the point probably will not work, or None."""

    def predict(self, point: Parameters) -> Mapping[str, float | None]:
        """Its metrics by name, as far as they can be told."""

    def learn(self, trial: Trial) -> None: ...


class EngineRules:
    """The least foresight there is: what the engine would refuse."""

    def __init__(self, rules: Rules, spec: StudySpec) -> None:
        self._rules = rules
        self._spec = spec

    def refuse(self, point: Parameters) -> str | None:
        return self._rules.refuse(self._spec, point)

    def doubt(self, point: Parameters) -> str | None:  # noqa: ARG002
        return None

    def predict(self, point: Parameters) -> Mapping[str, float | None]:  # noqa: ARG002
        return {}

    def learn(self, trial: Trial) -> None:
        pass
