"""The parts searchers are made of: lines, lessons, the process, what is asked first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import FailureClass
from autotuner.search.axes import Axis, axes_of
from autotuner.search.lessons import CRASHED, lessons, losses
from autotuner.search.ranking import promising
from autotuner.search.surrogate import Layout, Surrogate, explained
from autotuner.study.domains import space_of
from autotuner.study.space import Choice, Float, Int, Parameter, same
from autotuner.study.trial import Trial, TrialState
from tests.builders import trial

# Lines.

DOMAINS = [
    Choice((512, 256, 8192)),
    Choice(("a", None, True, 1, {"b": [1]})),
    Choice((0.9,)),
    Int(1, 17, step=4),
    Int(1, 10**15, log=True),
    Int(3, 3),
    Float(0.5, 0.95),
    Float(1e-4, 1.0, log=True),
    Float(0.1, 0.95, step=0.1),
]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@given(share=st.floats(0.0, 1.0))
def test_every_place_is_a_value_and_every_value_has_its_place(domain: Any, share: float) -> None:
    axis = Axis(Parameter("x", domain))
    low, high = axis.ends
    value = axis.value(low + share * (high - low))
    assert domain.holds(value)
    assert low <= axis.place(value) <= high
    again = axis.value(axis.place(value))
    assert same(again, value) or again == pytest.approx(value, rel=1e-5), "six digits of a float"


def test_listed_numbers_are_neighbours_in_their_order() -> None:
    axis = Axis(Parameter("max-num-seqs", Choice((512, 64, 4096))))
    assert axis.ordered
    assert [axis.place(value) for value in (64, 512, 4096)] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("values", [(True, False), (1, 2), ("a", "b", "c"), (None, 1, 2)])
def test_what_has_no_order_is_not_given_one(values: tuple[Any, ...]) -> None:
    assert not Axis(Parameter("x", Choice(values))).ordered


# Lessons.

SPACE = space_of({"x": {"type": "int", "low": 0, "high": 9}})


def done(x: int, value: float | None, **more: Any) -> Trial:
    return trial(x + 1, {"x": x}, objectives={"output_throughput": value}, **more)


def test_less_is_better_in_a_lesson_whatever_the_direction() -> None:
    values = {"output_throughput": 5.0, "ttft_p99": 0.2}
    (lesson,) = lessons(SPACE, list(values), [trial(1, {"x": 1}, objectives=values)])
    assert lesson.costs == (-5.0, 0.2)
    assert lesson.violation <= 0


def test_a_stopped_trial_counts_as_the_worst_that_was_completed() -> None:
    stopped = trial(4, {"x": 4}, TrialState.STOPPED)
    found = lessons(SPACE, ["output_throughput"], [done(1, 5.0), stopped, done(2, 3.0)])
    assert [lesson.costs for lesson in found] == [(-5.0,), (-3.0,), (-3.0,)]


def test_a_stopped_trial_teaches_nothing_while_none_is_complete() -> None:
    assert lessons(SPACE, ["output_throughput"], [trial(4, {"x": 4}, TrialState.STOPPED)]) == []


def test_a_point_measured_again_for_the_verdict_is_one_lesson() -> None:
    again = done(1, 9.0, repeat_of=2)
    assert [
        each.costs for each in lessons(SPACE, ["output_throughput"], [done(1, 5.0), again])
    ] == [(-5.0,)]


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.CANCELLED])
def test_no_answer_is_no_lesson(state: TrialState) -> None:
    assert lessons(SPACE, ["output_throughput"], [trial(1, {"x": 1}, state)]) == []


def test_points_of_another_space_are_no_lessons() -> None:
    others = [trial(0, {}), trial(1, {"x": 10}), trial(2, {"x": 1, "y": 2})]
    assert lessons(SPACE, ["output_throughput"], others) == []


def test_what_is_paid_for_in_the_score_is_no_violation() -> None:
    paid = done(1, 5.0, violations={"ttft_p99": 0.5}, penalty=2.0)
    (lesson,) = lessons(SPACE, ["output_throughput"], [paid])
    assert lesson.violation <= 0
    assert lesson.costs is not None
    assert lesson.costs[0] > -5.0, "the penalty is in it"


def test_losses_put_bounds_before_values_and_crashes_last() -> None:
    trials = [
        done(0, 1.0),
        done(1, 900.0, violations={"ttft_p99": 0.1}),
        done(2, 1.0, violations={"ttft_p99": 3.0}),
        trial(4, {"x": 3}, TrialState.INFEASIBLE, failure=FailureClass.CRASH),
        done(4, 100.0),
    ]
    found = lessons(SPACE, ["output_throughput"], trials)
    order = sorted(range(5), key=losses(found).__getitem__)
    assert order == [4, 0, 1, 2, 3]
    assert found[3].violation == CRASHED


# The process.


def surrogate(points: list[dict[str, Any]], values: list[float], layout: Layout) -> Surrogate:
    return Surrogate(layout.rows(points), np.array(values), np.random.default_rng(1))


def test_the_process_goes_through_its_answers_and_is_unsure_elsewhere() -> None:
    space = space_of({"x": {"type": "int", "low": 0, "high": 20}})
    layout = Layout(axes_of(space))
    known = [{"x": x} for x in (0, 5, 10, 20)]
    found = surrogate(known, [1.0, 2.0, 4.0, 3.0], layout).predict(layout.rows([*known, {"x": 15}]))
    mean = found.weight @ found.mean
    assert mean[:4] == pytest.approx([1.0, 2.0, 4.0, 3.0], abs=0.1)
    assert (found.deviation[:, 4] > 2 * found.deviation[:, :4].max(axis=1)).all()


def test_effects_of_several_parameters_are_added_up() -> None:
    """From one change at a time the process foresees what both changes do."""
    space = space_of({"x": ["a", "b"], "y": {"type": "int", "low": 0, "high": 3}})
    layout = Layout(axes_of(space))
    known = [{"x": "a", "y": y} for y in range(4)] + [{"x": "b", "y": 0}]
    values = [0.0, 1.0, 2.0, 3.0, 2.0]
    asked = layout.rows([{"x": "b", "y": 3}, {"x": "b", "y": 1}])
    found = surrogate(known, values, layout).predict(asked)
    both, one = found.weight @ found.mean
    assert both > one
    assert both > 3.0, "more than any that was seen"


def test_evidence_is_that_of_numerical_integration() -> None:
    """Over the mean, which may be anything, and the variance, of which one value of 1 was seen."""
    x = np.array([0.0, 0.1, 0.25, 0.4, 0.5, 0.7, 0.85, 1.0])
    y = np.array([-1.1, -0.9, 0.2, 1.3, 0.9, 0.1, -1.4, 0.9])
    apart = np.abs(x[:, None] - x) / np.array([0.2, 0.5, 1.0, 3.0])[:, None, None]
    matrices = np.exp(-apart) + 1e-3 * np.eye(len(x))
    means, deviations = np.linspace(-60, 60, 6001), np.exp(np.linspace(-3, 4, 701))
    integrals, variances = [], []
    for matrix in matrices:
        rest = y[:, None] - means
        squares = (rest * np.linalg.solve(matrix, rest)).sum(axis=0)
        # By steps of the deviation's logarithm: n are the likelihood's, one is the prior's.
        likelihood = deviations ** -(len(y) + 1.0) * np.exp(
            -0.5 * (squares[:, None] + 1.0) / deviations**2
        )
        weights = likelihood.sum(axis=0)
        integrals.append(weights.sum() / np.sqrt(np.linalg.det(matrix)))
        variances.append(weights.sum() / (weights / deviations**2).sum())
    found = explained(matrices, y)
    truth = np.log(integrals)
    assert found.evidence - found.evidence[0] == pytest.approx(truth - truth[0], abs=1e-3)
    assert np.ptp(truth) > 0.5, "the kernels differ"
    assert found.variance == pytest.approx(variances, rel=1e-3)


@pytest.mark.parametrize("values", [[1.0, 5, 2, 7, 3, 9], [1.0, 2, 3, 4, 5, 6]], ids=str)
def test_points_under_way_only_lower_the_uncertainty(values: list[float]) -> None:
    space = space_of({"x": {"type": "int", "low": 0, "high": 100}})
    layout = Layout(axes_of(space))
    known = layout.rows([{"x": x} for x in (0, 8, 16, 24, 32, 40)])
    near, far = (layout.rows([{"x": x} for x in places]) for places in ((4, 20), (70, 90)))
    under_way = layout.rows([{"x": x} for x in (60, 65, 75, 80, 85, 92, 96, 100)])

    def change(asked: list[Any]) -> Any:
        """Of the deviations, as a factor."""
        after, before = (
            Surrogate(known, np.array(values), np.random.default_rng(1), waiting)
            .predict(asked)
            .deviation
            for waiting in (under_way, None)
        )
        return after / before

    assert (change(under_way) < 0.3).all()
    assert (change(far) < 0.3).all()
    assert (change(near) > 0.85).all(), "answers there say the same as before"
    assert (change(near) < 1).all()


# What is asked first.


def test_the_best_predicted_comes_first_and_no_two_are_alike() -> None:
    space = space_of({"x": {"type": "int", "low": 0, "high": 99}, "y": ["a", "b"]})
    predicted = [(point, float(point["x"])) for point in space.points()]
    chosen = promising(space, predicted, count=4)
    assert chosen[0]["x"] == 99
    assert all(point["x"] >= 80 for point in chosen), "only from what is called good"
    assert {point["y"] for point in chosen} == {"a", "b"}
    assert len({point["x"] for point in chosen}) >= 2


@pytest.mark.parametrize("known", [0, 2])
def test_fewer_predictions_than_asked_for_are_all_taken(known: int) -> None:
    predicted = [({"x": x}, 1.0) for x in range(known)]
    assert len(promising(SPACE, predicted)) == known


def test_beyond_a_hard_bound_the_distance_is_learnt_and_no_value() -> None:
    space = space_of({"x": [1, 2, 3]})
    found = lessons(
        space,
        ["output_throughput"],
        [
            trial(
                1,
                {"x": 1},
                TrialState.INFEASIBLE,
                failure=FailureClass.SLO,
                objectives={"output_throughput": 9.0},
                violations={"ttft_p99": 0.7},
            ),
            trial(2, {"x": 2}, TrialState.INFEASIBLE, failure=FailureClass.CRASH),
        ],
    )
    assert [(each.costs, each.violation) for each in found] == [(None, 0.7), (None, CRASHED)]


def test_of_few_predictions_the_worst_is_not_among_the_first() -> None:
    predicted = [({"x": x}, float(x)) for x in range(10)]
    assert min(point["x"] for point in promising(SPACE, predicted, 3)) >= 5
