"""The best trial, and the Pareto front: nothing in it is dominated, nothing outside is missed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import FailureClass
from autotuner.study.pareto import best_of, dominates, pareto_front
from autotuner.study.trial import Trial, TrialState
from tests.builders import trial

TWO = ("output_throughput", "ttft_p99")


def point(number: int, throughput: float | None, ttft: float | None = 0.1) -> Trial:
    return trial(number, objectives={"output_throughput": throughput, "ttft_p99": ttft})


def numbers(trials: list[Trial]) -> list[int]:
    return [each.number for each in trials]


def test_a_trial_dominates_another_in_the_direction_of_each_objective() -> None:
    assert dominates(point(0, 100, 0.1), point(1, 50, 0.2), TWO)
    assert dominates(point(0, 100, 0.1), point(1, 100, 0.2), TWO)
    assert not dominates(point(0, 100, 0.1), point(1, 100, 0.1), TWO), "equal"
    assert not dominates(point(0, 100, 0.3), point(1, 50, 0.2), TWO), "a trade"
    assert not dominates(point(0, None), point(1, 50), TWO)
    assert not dominates(point(0, 50), point(1, None), TWO)


def test_the_front_holds_the_trades_best_in_the_first_objective_first() -> None:
    trials = [point(0, 50, 0.1), point(1, 100, 0.5), point(2, 40, 0.2), point(3, 75, 0.3)]
    assert numbers(pareto_front(trials, TWO)) == [1, 3, 0]
    assert numbers(pareto_front(trials, tuple(reversed(TWO)))) == [0, 3, 1]


def test_equal_trials_are_all_kept_the_earlier_first() -> None:
    trials = [point(2, 100), point(1, 100), point(0, 90)]
    assert numbers(pareto_front(trials, TWO)) == [1, 2]
    assert numbers(pareto_front(trials, TWO[:1])) == [1, 2]


def test_the_best_of_one_objective_is_best_in_its_direction() -> None:
    trials = [point(0, 50, 0.1), point(1, 100, 0.5)]
    best = best_of(trials, ["output_throughput"])
    fastest = best_of(trials, ["ttft_p99"])
    assert best is not None
    assert fastest is not None
    assert (best.number, fastest.number) == (1, 0)


def test_a_loser_out_of_bounds_is_no_winner_and_dominates_nobody() -> None:
    better = trial(1, objectives={"output_throughput": 900.0}, violations={"ttft_p99": 0.1})
    trials = [trial(0, objectives={"output_throughput": 1.0}, violations={"ttft_p99": 0}), better]
    assert numbers(pareto_front(trials, TWO[:1])) == [0]


@pytest.mark.parametrize(
    "state",
    [state for state in TrialState if state is not TrialState.COMPLETE],
)
def test_only_complete_trials_are_on_the_front(state: TrialState) -> None:
    unfinished = trial(1, state=state, objectives={"output_throughput": 900.0})
    assert not unfinished.feasible
    assert pareto_front([unfinished], TWO[:1]) == []
    assert best_of([unfinished], TWO[:1]) is None


def test_a_trial_with_an_unknown_objective_is_not_on_the_front() -> None:
    assert best_of([point(0, None)], TWO[:1]) is None
    assert best_of([], TWO) is None


def test_the_states_know_what_they_say_about_the_parameters() -> None:
    answered = {TrialState.COMPLETE, TrialState.INFEASIBLE, TrialState.STOPPED}
    assert {state for state in TrialState if state.answered} == answered
    silent = {TrialState.FAILED, TrialState.CANCELLED}
    assert {state for state in TrialState if state.ended} == answered | silent
    assert trial(3, state=TrialState.INFEASIBLE, failure=FailureClass.REFUSED).refused
    assert not trial(3, state=TrialState.INFEASIBLE, failure=FailureClass.CRASH).refused
    assert trial(0).is_baseline


VALUES = st.integers(0, 5).map(float) | st.none()
TRIALS = st.lists(
    st.tuples(VALUES, VALUES, VALUES, st.sampled_from([-0.5, 0.0, 0.2])), max_size=14
).map(
    lambda rows: [
        trial(
            number,
            objectives={"output_throughput": a, "ttft_p99": b, "goodput": c},
            violations={"error_rate": violation},
        )
        for number, (a, b, c, violation) in enumerate(rows)
    ]
)
THREE = (*TWO, "goodput")


@given(TRIALS, st.permutations(THREE), st.integers(1, 3))
def test_the_front_is_not_dominated_and_complete(
    trials: list[Trial], order: list[str], count: int
) -> None:
    objectives = order[:count]
    front = pareto_front(trials, objectives)
    feasible = [each for each in trials if each.feasible]
    for each in front:
        assert each in feasible
        assert not any(dominates(other, each, objectives) for other in feasible)
    for each in feasible:
        inside = each in front
        dominated = any(dominates(other, each, objectives) for other in front)
        assert inside != dominated, "whoever is left out is beaten by somebody on the front"
    assert bool(front) == bool(feasible)


@given(TRIALS)
def test_one_trial_never_dominates_itself_nor_both_each_other(trials: list[Trial]) -> None:
    for one in trials:
        assert not dominates(one, one, THREE)
        for other in trials:
            assert not (dominates(one, other, THREE) and dominates(other, one, THREE))


@given(TRIALS)
def test_the_best_of_one_objective_is_the_best_value_of_all(trials: list[Trial]) -> None:
    best = best_of(trials, ["ttft_p99"])
    values = [each.objectives["ttft_p99"] for each in trials if each.feasible]
    known = [value for value in values if value is not None]
    assert (best is None) == (not known)
    if best is not None:
        assert best.objectives["ttft_p99"] == min(known)
