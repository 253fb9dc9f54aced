"""The finals: what is launched again, when they end, who wins; in virtual time over tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import FailureClass
from autotuner.store import Store
from autotuner.study import finals
from autotuner.study.study import StudyState
from autotuner.study.trial import BASELINE, Trial, TrialState
from autotuner.study.verdict import Finding
from tests.builders import spec, trial
from tests.replays import replayed

SPACE = {"x": list(range(1, 11))}


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store("sqlite://")
    yield store
    store.close()


def rows(gain: float = 0.0, better: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Ten points and the baseline, all equal but for the `better` ones."""
    points = [{"x": x, "output_throughput": 100 * (1 + gain * (x in better))} for x in SPACE["x"]]
    return [{"output_throughput": 100.0}, *points]


def repeats(trials: list[Trial]) -> list[tuple[int, int | None]]:
    return [(each.round, each.repeat_of) for each in trials if not each.searched]


def test_the_best_and_the_baseline_are_launched_again_in_rounds(tmp_path: Path) -> None:
    state, study, trials = replayed(
        tmp_path, rows(1.0, (4,)), space=SPACE, noise=0.01, search={"kind": "grid"}
    )
    assert state is StudyState.COMPLETE
    again = repeats(trials)
    assert {number for number, _ in again} >= {1, 2}
    assert all((number, BASELINE) in again for number in (1, 2))
    winner = finals.winner(study, trials)
    assert winner is not None
    assert winner.parameters == {"x": 4}
    found = finals.verdict(study, trials)
    assert found is not None
    assert found.finding is Finding.GAIN
    standing = next(each for each in found.standings if each.candidate == winner.number)
    assert standing.low is not None
    assert standing.high is not None
    assert standing.low < 1.0 < standing.high


def test_each_round_begins_with_another_candidate(tmp_path: Path) -> None:
    _, _, trials = replayed(
        tmp_path, rows(0.01, (2, 5, 7)), space=SPACE, noise=0.02, search={"kind": "grid"}
    )
    first: dict[int, int | None] = {}
    for number, candidate in repeats(trials):
        first.setdefault(number, candidate)
    assert len(set(first.values())) > 1


def test_points_that_are_all_equal_give_no_gain_and_the_defaults_win(tmp_path: Path) -> None:
    _, study, trials = replayed(tmp_path, rows(), space=SPACE, noise=0.01)
    found = finals.verdict(study, trials)
    assert found is not None
    assert found.finding is Finding.NO_GAIN
    winner = finals.winner(study, trials)
    assert winner is not None
    assert winner.is_baseline


def test_no_finalists_means_no_finals(tmp_path: Path) -> None:
    _, study, trials = replayed(
        tmp_path, rows(1.0, (4,)), space=SPACE, verdict={"finalists": 0}, search={"kind": "grid"}
    )
    assert repeats(trials) == []
    assert finals.verdict(study, trials) is None
    winner = finals.winner(study, trials)
    assert winner is not None
    assert winner.parameters == {"x": 4}


def test_nothing_better_than_the_defaults_is_launched_again(tmp_path: Path) -> None:
    worse = [{"output_throughput": 100.0}, {"x": 1, "output_throughput": 50.0}]
    _, _, trials = replayed(tmp_path, worse, space={"x": [1]}, search={"kind": "grid"})
    assert repeats(trials) == []


def test_repeats_cost_no_trial_of_the_budget_and_teach_the_searcher_nothing(
    tmp_path: Path,
) -> None:
    _, _, trials = replayed(
        tmp_path, rows(0.5, (1, 2, 3)), space=SPACE, noise=0.01, limits={"trials": 6}
    )
    searched = [each for each in trials if each.searched and not each.is_baseline]
    assert len(searched) == 6
    assert len({each.parameters["x"] for each in searched}) == 6
    assert repeats(trials)


def test_side_by_side_a_round_ends_before_the_next_begins(tmp_path: Path) -> None:
    _, _, trials = replayed(
        tmp_path, rows(0.02, (2, 5)), space=SPACE, noise=0.02, at_once=4, search={"kind": "grid"}
    )
    numbers = [number for number, _ in repeats(trials)]
    assert numbers == sorted(numbers)
    for number in set(numbers):
        of_round = [candidate for each, candidate in repeats(trials) if each == number]
        assert len(of_round) == len(set(of_round))


@pytest.mark.parametrize("kept", range(12, 19))
def test_a_study_interrupted_anywhere_in_its_finals_ends_as_it_would_have(
    tmp_path: Path, kept: int, store: Store
) -> None:
    arguments: dict[str, Any] = {"space": SPACE, "noise": 0.03, "search": {"kind": "grid"}}
    whole = replayed(tmp_path, rows(0.1, (2, 5)), **arguments)
    assert len(whole[2]) > 18
    replayed(tmp_path, rows(0.1, (2, 5)), store=store, **arguments)
    resumed = replayed(
        tmp_path,
        rows(0.1, (2, 5)),
        store=store,
        known=lambda each: each.number < kept,
        **arguments,
    )
    assert repeats(resumed[2]) == repeats(whole[2])
    assert [each.objectives for each in resumed[2]] == [each.objectives for each in whole[2]]


def measured(number: int, value: float, **more: Any) -> Trial:
    point = {} if number == BASELINE else {"x": number, "y": 1}
    return trial(number, point, objectives={"output_throughput": value}, **more)


def again(number: int, of: int, value: float, round_: int, **more: Any) -> Trial:
    return dataclasses.replace(measured(number, value, **more), repeat_of=of, round=round_)


def test_a_finalist_that_does_not_start_again_cannot_win() -> None:
    study = spec(space={"x": [1, 2], "y": [1]})
    trials = [measured(0, 100.0), measured(1, 200.0), measured(2, 150.0)]
    for round_ in (1, 2):
        trials += [
            again(10 * round_, 0, 100.0 + round_, round_),
            again(10 * round_ + 1, 2, 150.0 + round_, round_),
        ]
    crashed = trial(40, {"x": 1, "y": 1}, TrialState.INFEASIBLE, failure=FailureClass.CRASH)
    trials.append(dataclasses.replace(crashed, repeat_of=1, round=1, reason="it died"))
    found = finals.verdict(study, trials)
    assert found is not None
    assert found.winner == 2
    assert next(each.out for each in found.standings if each.candidate == 1) == "it died"


def test_what_the_machine_broke_is_launched_again_in_its_round() -> None:
    study = spec(space={"x": [1], "y": [1]})
    trials = [measured(0, 100.0), measured(1, 200.0), again(2, 0, 100.0, 1)]
    failed = trial(3, {"x": 1, "y": 1}, TrialState.FAILED, repeat_of=1, round=1)
    assert finals.due(study, [*trials, failed]) == finals.Due(1, (1,), opens=False)


def test_a_bound_broken_on_average_puts_a_finalist_out_and_once_does_not() -> None:
    study = spec(space={"x": [1], "y": [1]}, constraints={"ttft_p99": 1.0})
    trials = [measured(0, 100.0), measured(1, 200.0)]
    for round_, violation in ((1, 0.05), (2, -0.2)):
        trials.append(again(2 * round_, 0, 100.0 + round_, round_, violations={"ttft_p99": -0.1}))
        trials.append(
            again(2 * round_ + 1, 1, 200.0 + round_, round_, violations={"ttft_p99": violation})
        )
    found = finals.verdict(study, trials)
    assert found is not None
    assert found.winner == 1
    assert finals.due(study, trials[:4]).numbers, "after one round nobody is out for good"
    assert not finals.contest(study, trials[:4]).out
    broken = dataclasses.replace(trials[-1], violations={"ttft_p99": 0.5})
    found = finals.verdict(study, [*trials[:-1], broken])
    assert found is not None
    assert found.winner is None


def test_the_finals_are_left_out_where_their_rounds_would_not_fit(tmp_path: Path) -> None:
    # 60 s to start and 60 s of load, once per trial: 12 search launches take 24 minutes.
    _, _, trials = replayed(
        tmp_path, rows(1.0, (4,)), space=SPACE, search={"kind": "grid"}, limits={"hours": 0.5}
    )
    searched = [each for each in trials if each.searched]
    assert len(searched) < 11, "the search ends early"
    assert sum(each.round == 2 for each in trials) >= 2, "to leave time for two rounds"


def test_what_leaves_every_flag_out_is_no_override() -> None:
    study = spec(space={"x": [1, None]}, quantization={"gemm": ["auto", "fp8"]})
    plain = {"x": None, "quantization:gemm": "auto"}
    trials = [
        trial(0, {}, objectives={"output_throughput": 1.0}),
        trial(1, plain, objectives={"output_throughput": 2.0}),
        trial(2, {"x": 1, "quantization:gemm": "fp8"}, objectives={"output_throughput": 2.0}),
    ]
    assert finals.contest(study, trials).overrides == {1: 0, 2: 2}


def test_values_whose_best_is_zero_have_no_ratio_and_so_no_finals() -> None:
    study = spec(objectives=["error_rate"], space={"x": [1]})
    trials = [
        trial(0, {}, objectives={"error_rate": 0.04}),
        trial(1, {"x": 1}, objectives={"error_rate": 0.0}),
    ]
    assert finals.due(study, trials).numbers == ()
    winner = finals.winner(study, trials)
    assert winner is not None
    assert winner.number == 1
