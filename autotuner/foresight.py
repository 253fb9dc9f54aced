"""What can be said of a point before its launch, all of it together: the engine's rules, models of
memory and speed, earlier studies. It refuses, doubts and predicts; it learns from every trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from autotuner.engines.rules import Rules, engine_at
from autotuner.estimators.memory import MemoryEstimate, MemoryModel, Observation
from autotuner.prior import NO_PRIOR, Prior
from autotuner.study.model import model_shape
from autotuner.study.space import Parameters, point_key
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


def baseline_problem(foresight: Foresight) -> str | None:
    """What a person should change, where it is proven that the baseline cannot start; or None.

    No error: what varies may start all the same, and is then compared among itself.
    """
    reason = foresight.refuse({})
    return reason and f"the baseline cannot start: {reason}; fix it under engine.arguments"


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


DOUBTFUL = 0.5
"""How sure a guess must be that a point does not fit, for it to wait."""


class AllForesight:
    """The engine's rules, the memory model, and a prior.

    The memory model is calibrated by every log so far; one engine's logs say nothing about
    another's.
    """

    def __init__(self, rules: Rules, spec: StudySpec, prior: Prior = NO_PRIOR) -> None:
        self._rules = rules
        self._spec = spec
        self._prior = prior.about(spec)
        self._observations: dict[str, list[Observation]] = {}
        self._models: dict[str, MemoryModel | None] = {}

    def refuse(self, point: Parameters) -> str | None:
        reason = self._rules.refuse(self._spec, point)
        if reason:
            return reason
        found = self.memory(point)
        return found.infeasible if found is not None and found.proven else None

    def doubt(self, point: Parameters) -> str | None:
        found = self.memory(point)
        if found is not None and found.infeasible and found.sure >= DOUBTFUL:
            return found.infeasible
        return self._prior.doubts.get(point_key(point))

    def predict(self, point: Parameters) -> Mapping[str, float | None]:
        return self._prior.predictions.get(point_key(point), {})

    def learn(self, trial: Trial) -> None:
        if not trial.observed:
            return
        alone, own = self._spec.at(trial.parameters)
        request = engine_at(self._spec, trial.parameters).memory(alone, own)
        if request is None:
            return
        kind = alone.engine.kinds[0]
        self._observations.setdefault(kind, []).append((request, trial.observed))
        self._models.pop(kind, None)

    def memory(self, point: Parameters) -> MemoryEstimate | None:
        """What the point needs of each GPU; None where nothing can be said of it."""
        alone, own = self._spec.at(point)
        request = engine_at(self._spec, point).memory(alone, own)
        model = self._model(alone.engine.kinds[0])
        return None if request is None or model is None else model.estimate(request)

    def _model(self, kind: str) -> MemoryModel | None:
        if kind not in self._models:
            shape = model_shape(self._spec.model.path)
            fresh = MemoryModel(shape, self._spec.hardware.gpu_memory_gib) if shape else None
            known = self._observations.get(kind, [])
            self._models[kind] = fresh.calibrated(known) if fresh and known else fresh
        return self._models[kind]
