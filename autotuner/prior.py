"""What is believed of a study's points before its first launch: an earlier study's answers, or a
performance model's. It orders what is tried; it decides nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from autotuner.engines.rules import engine_at
from autotuner.estimators.aiconfigurator import AIConfigurator, Question, question_of
from autotuner.study.metrics import LATENCIES, METRICS, Better, combined
from autotuner.study.space import Parameters, point_key
from autotuner.study.spec import StudySpec
from autotuner.study.trial import LoadPoint, Trial

ASKED = 150
"""Points that a performance model is asked about, at most: it takes about a second for each."""

ENUMERATED = 20_000
"""Points of a space that are looked at for those, at most."""

Refuse = Callable[[Parameters], str | None]


@dataclass(frozen=True)
class Prior:
    """Beliefs by the identity of a point.

    Attributes:
        points: those it has predictions of.
        predictions: metrics by name; an objective among them is ranked by.
        doubts: why a point probably cannot start.
        problem: why it believes nothing, where that is so.
        measured: what an earlier study measured of its points, whole load points only.
    """

    points: tuple[Parameters, ...] = ()
    predictions: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    measured: Mapping[str, Sequence[LoadPoint]] = field(default_factory=dict)

    def about(self, spec: StudySpec) -> Prior:
        """The same with all that it can say of what a study asks for.

        A study of other objectives measured these too, where it had the same load points: what
        is combined of them goes under what it predicts anyway.
        """
        if not self.measured or spec.seeks_max_load:
            return self
        asked = {*spec.objectives, *(each.metric.name for each in spec.bounds)} - _OF_ITS_BOUNDS
        loads = [(load.scenario, load.concurrency) for load in spec.loads() if not load.probe]
        predictions = {
            key: {**_combined(self.measured.get(key, ()), loads, asked), **known}
            for key, known in self.predictions.items()
        }
        return replace(self, predictions=predictions)

    def first_points(self, spec: StudySpec) -> list[Parameters]:
        """The points of a study's space to begin with, the best predicted first."""
        if spec.prior is None:
            return []
        from autotuner.search.lessons import within
        from autotuner.search.ranking import promising  # brings scipy: only where it is needed

        objective, predictions = spec.objectives[0], self.about(spec).predictions
        sign = 1 if METRICS[objective].better is Better.HIGHER else -1
        scored = [
            (point, sign * value)
            for point in self.points
            if within(spec.parameter_space, point)
            and (value := _ranked_by(objective, predictions[point_key(point)])) is not None
        ]
        return promising(spec.parameter_space, scored, spec.prior.first)


NO_PRIOR = Prior()

_OF_ITS_BOUNDS = frozenset({"goodput", "goodput_per_gpu"})
"""Metrics that count by the bounds of the study that measured them."""


def prior_of_trials(trials: Sequence[Trial]) -> Prior:
    """The beliefs of an earlier study: what it measured, and what did not start there."""
    searched = [each for each in trials if each.searched and not each.is_baseline]
    # A penalised value was not measured, and what was measured broke an SLO.
    feasible = [each for each in searched if each.feasible and each.penalty == 1]
    return Prior(
        points=tuple(each.parameters for each in feasible),
        predictions={point_key(each.parameters): each.objectives for each in feasible},
        measured={
            point_key(each.parameters): [p for p in each.load_points if not p.probe]
            for each in feasible
        },
        doubts={
            point_key(t.parameters): f"an earlier study found: {t.reason}"
            for t in searched
            if t.failure is not None and not t.load_points
        },
    )


def prior_of_model(spec: StudySpec, model: AIConfigurator, refuse: Refuse) -> Prior:
    """The beliefs of aiconfigurator, about as many points as can be asked in a few minutes.

    Args:
        refuse: points that are refused anyway are not asked about.

    Raises:
        ConfigError, InfrastructureError: as `AIConfigurator.answers`.
    """
    assert spec.prior is not None
    assert spec.prior.system is not None
    questions: dict[str, list[Question]] = {}
    points: dict[str, Parameters] = {}
    for point in _spread(spec, ASKED, refuse):
        alone, own = spec.at(point)
        request = engine_at(spec, point).memory(alone, own)
        asked = [
            question
            for load in spec.loads()
            if not load.probe
            and request is not None
            and (question := question_of(alone, request, load, system=spec.prior.system))
        ]
        if asked:
            questions[point_key(point)] = asked
            points[point_key(point)] = point
    answers = model.answers([each for asked in questions.values() for each in asked])
    predictions: dict[str, Mapping[str, float | None]] = {}
    doubts: dict[str, str] = {}
    rest = iter(answers)
    for key, asked in questions.items():
        found = list(islice(rest, len(asked)))
        out = next((each.infeasible for each in found if each.infeasible), "")
        if out:
            doubts[key] = out
        elif not any(each.problem for each in found):
            names = [name for name in METRICS if all(name in each.metrics for each in found)]
            predictions[key] = {
                name: combined(name, [each.metrics[name] for each in found]) for name in names
            }
    problem = ""
    if not predictions and not doubts:
        problem = next((each.problem for each in answers if each.problem), "")
        problem = problem or "no point of this space can be put to it as a question"
    return Prior(tuple(points[key] for key in predictions), predictions, doubts, problem)


def _combined(
    points: Sequence[LoadPoint], loads: Sequence[tuple[str, int]], names: Collection[str]
) -> dict[str, float | None]:
    """Metrics over these load points; nothing where one of them was not measured."""
    by_load = {(point.scenario, point.concurrency): point.metrics for point in points}
    if any(load not in by_load for load in loads):
        return {}
    values = {name: combined(name, [by_load[load].get(name) for load in loads]) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _ranked_by(objective: str, metrics: Mapping[str, float | None]) -> float | None:
    """The objective, or the mean of the same latency: models know no percentiles, and this is
    good enough to order by."""
    value = metrics.get(objective)
    if value is not None:
        return value
    family = next((each for each in LATENCIES if objective.startswith(f"{each}_")), None)
    return metrics.get(f"{family}_mean") if family else None


def _spread(spec: StudySpec, most: int, refuse: Refuse) -> list[Parameters]:
    """So many points of the space, drawn evenly from all that are not refused."""
    rng = random.Random(spec.search.seed)
    space = spec.parameter_space
    size = space.size()
    if size is not None and size <= ENUMERATED:
        points = list(space.points())
        rng.shuffle(points)
    else:
        drawn = (space.sample(rng) for _ in range(10 * most))
        points = list({point_key(point): point for point in drawn}.values())
    return list(islice((point for point in points if refuse(point) is None), most))
