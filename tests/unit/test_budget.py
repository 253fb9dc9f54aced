"""What a study may still cost: time and GPU-hours, with the verdict's share kept back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import FailureClass
from autotuner.study.budget import (
    gpu_hours,
    seconds_left,
    trials_left,
    typical,
    why_no_round,
    why_no_trial,
)
from autotuner.study.trial import Phase, Trial, TrialState
from tests.builders import spec, trial
from tests.replays import replayed


def took(seconds: float, gpus: int = 2, state: TrialState = TrialState.COMPLETE) -> Trial:
    phases = (Phase("deploy", 0.0, seconds),)
    ids = tuple(str(index) for index in range(gpus))
    return trial(1, {"x": 1}, state, phases=phases, gpu_ids=ids)


def test_nothing_is_known_before_the_first_trial_has_ended() -> None:
    assert typical([]) is None
    failed = typical([took(100, state=TrialState.INFEASIBLE)])
    assert failed is not None
    assert failed.seconds == 100, "what failed is better than nothing"
    both = typical([took(100, state=TrialState.INFEASIBLE), took(300)])
    assert both is not None
    assert both.seconds == 300
    assert why_no_trial(spec(limits={"hours": 0.001}), [], elapsed=9e9) is None


def test_gpu_hours_are_gpus_times_time_whatever_became_of_the_trial() -> None:
    trials = [took(1800, gpus=8), took(3600, gpus=1, state=TrialState.INFEASIBLE), took(99, 0)]
    assert gpu_hours(trials) == pytest.approx(5.0)


def test_an_attempt_that_was_lost_costs_what_its_phases_do_not_tell() -> None:
    told = took(1800, gpus=2)  # one GPU-hour
    assert told.charged(1.5).gpu_hours == pytest.approx(1.5)
    assert told.charged(0.2).gpu_hours == pytest.approx(1.0), "what was measured was spent"
    assert trial(1).charged(0.5).charged(0.5).gpu_hours == pytest.approx(1.0), "two attempts"
    assert gpu_hours([told.charged(1.5), took(3600, gpus=1)]) == pytest.approx(2.5)


def test_what_earlier_attempts_cost_counts_while_the_next_one_runs() -> None:
    study = spec(limits={"gpu_hours": 1.0}, verdict={"finalists": 0})
    ended = [took(360, gpus=2)] * 2  # 0.2 each
    running = trial(3, {}, TrialState.DEPLOYING, gpu_ids=("0", "1"))
    assert why_no_trial(study, [*ended, running], elapsed=0) is None
    assert why_no_trial(study, [*ended, running.charged(0.3)], elapsed=0) is not None


def test_a_limit_that_only_lost_attempts_have_used_up_is_reached_all_the_same() -> None:
    study = spec(limits={"gpu_hours": 1.0})
    lost = trial(0, {}, TrialState.FAILED).charged(1.1)
    assert typical([lost]) is None
    reason = why_no_trial(study, [lost], elapsed=0)
    assert reason == "another trial would cost more than 1 GPU-hours"


def answered(*numbers: int, **more: Any) -> list[Trial]:
    return [trial(n, {"x": n}, phases=(Phase("deploy", 0.0, 60.0),), **more) for n in numbers]


def test_no_more_trials_can_come_than_the_space_has_points() -> None:
    four = spec(space={"x": [1, 2, 3, 4]})
    assert trials_left(four, []) == 4
    three = answered(0, 1, 2, 3)
    assert trials_left(four, three) == 1
    refused = trial(4, {"x": 4}, TrialState.INFEASIBLE, failure=FailureClass.REFUSED)
    assert trials_left(four, [*three, refused]) == 0, "refused points are asked for only once"
    assert trials_left(spec(space={"x": [1, 2, 3, 4]}, limits={"trials": 2}), three[:2]) == 1
    many = spec(space={"x": list(range(30))})
    broke = trial(2, {"x": 2}, TrialState.FAILED)
    assert trials_left(many, [*three[:2], broke]) == 19, "what the machine broke does not count"
    endless = {"x": {"type": "float", "low": 0, "high": 1}}
    assert trials_left(spec(space=endless), three) == 17
    again = trial(5, {"x": 1}, TrialState.DEPLOYING, repeat_of=1, round=1)
    assert trials_left(many, [*three, again]) == 0, "the search is over"


def test_the_time_left_is_that_of_the_points_there_are_and_of_the_verdict() -> None:
    study = spec(space={"x": [1, 2, 3, 4]})
    # One point more, and two rounds of three finalists and the baseline: nine launches.
    assert seconds_left(study, answered(0, 1, 2, 3)) == pytest.approx(9 * 60)
    running = trial(4, {"x": 4}, TrialState.BENCHMARKING)
    assert seconds_left(study, [*answered(0, 1, 2, 3), running]) == pytest.approx(8.5 * 60)
    waiting = trial(4, {"x": 4}, TrialState.PENDING)
    assert seconds_left(study, [*answered(0, 1, 2, 3), waiting]) == pytest.approx(9 * 60)
    repeats = answered(5, 6, repeat_of=1, round=1)
    assert seconds_left(study, [*answered(0, 1), *repeats]) == pytest.approx(6 * 60)
    grid = spec(space={"x": [1, 2, 3, 4]}, search={"kind": "grid"})
    assert seconds_left(grid, answered(0, 1, 2, 3)) == pytest.approx(9 * 60), (
        "no budget, but an end"
    )
    assert seconds_left(study, []) is None


def test_the_search_is_shared_among_the_most_that_ran_side_by_side() -> None:
    study = spec(space={"x": list(range(1, 8))}, verdict={"finalists": 0})

    def ran(number: int, start: int, end: int) -> Trial:
        times = {"started_at": f"2026-01-01T00:{start:02}:00", "ended_at": ""}
        if end:
            return answered(number, **{**times, "ended_at": f"2026-01-01T00:{end:02}:00"})[0]
        return trial(number, {"x": number}, TrialState.BENCHMARKING, **times)

    alone = [ran(0, 0, 1), ran(1, 1, 2), ran(2, 2, 3), ran(3, 3, 4)]
    assert seconds_left(study, alone) == pytest.approx(4 * 60), "one after another"
    paired = [ran(0, 0, 1), ran(1, 1, 3), ran(2, 2, 3), ran(3, 3, 4)]
    assert seconds_left(study, paired) == pytest.approx(2 * 60), "none runs at this moment"
    one_of_two = [*paired, ran(4, 4, 0)]
    assert seconds_left(study, one_of_two) == pytest.approx(3.5 * 30), "the other is to come"


@pytest.mark.parametrize(
    ("elapsed", "finalists", "fits"),
    [
        (3600 - 100, 0, True),
        (3600 - 99, 0, False),
        # A trial, and two rounds of three finalists and the baseline, one after another.
        (3600 - 900, 3, True),
        (3600 - 899, 3, False),
    ],
)
def test_the_search_ends_in_time_for_the_verdict(
    elapsed: float, finalists: int, fits: bool
) -> None:
    study = spec(limits={"hours": 1.0}, verdict={"finalists": finalists})
    reason = why_no_trial(study, [took(100)], elapsed=elapsed)
    assert (reason is None) == fits
    assert reason is None or "1 h" in reason


def test_gpu_hours_of_running_trials_are_spoken_for() -> None:
    study = spec(limits={"gpu_hours": 1.0}, verdict={"finalists": 0})
    ended = [took(360, gpus=2)] * 3  # 0.2 each
    running = took(0, gpus=2, state=TrialState.BENCHMARKING)
    assert why_no_trial(study, [*ended, running], elapsed=0) is None
    reason = why_no_trial(study, [*ended, running, running], elapsed=0)
    assert reason is not None
    assert "1 GPU-hours" in reason


def test_a_round_that_would_not_fit_is_not_begun() -> None:
    study = spec(limits={"hours": 1.0, "gpu_hours": 100.0})
    assert why_no_round(study, [took(100)], 4, elapsed=3200) is None
    assert why_no_round(study, [took(100)], 4, elapsed=3201) is not None


def rows() -> list[dict[str, Any]]:
    points = [{"x": x, "output_throughput": 100.0 + 10 * x} for x in range(1, 31)]
    return [{"output_throughput": 100.0}, *points]


def test_why_the_finals_were_cut_short_is_kept_with_the_study(tmp_path: Path) -> None:
    from autotuner.store import Store

    store = Store("sqlite://")
    points = [{"x": x, "output_throughput": 100.0 + 2 * (x % 3)} for x in range(1, 11)]
    _, study, trials = replayed(
        tmp_path,
        [{"output_throughput": 100.0}, *points],
        store=store,
        space={"x": list(range(1, 11))},
        noise=0.02,
        search={"kind": "grid"},
        limits={"hours": 0.7},
    )
    assert max(each.round for each in trials) == 2
    assert "another round would not end within 0.7 h" in store.study(study.name).reason
    store.close()


@pytest.mark.parametrize("limit", [{"hours": 1.0}, {"gpu_hours": 1.0}])
def test_a_study_stays_within_its_limits_and_has_its_verdict(
    tmp_path: Path, limit: dict[str, float]
) -> None:
    """A trial takes two minutes here, on one GPU."""
    _, _, trials = replayed(
        tmp_path,
        rows(),
        space={"x": list(range(1, 31))},
        noise=0.001,
        search={"kind": "grid"},
        limits=limit,
    )
    assert 0.8 < sum(each.seconds for each in trials) / 3600 <= 1.0
    assert max(each.round for each in trials) >= 2
    assert all(each.state is TrialState.COMPLETE for each in trials), "none was broken off"


@pytest.mark.parametrize("at_once", [1, 4])
def test_gpu_hours_are_kept_though_every_trial_fails_and_many_run_at_once(
    tmp_path: Path, at_once: int
) -> None:
    failing: list[dict[str, Any]] = [{"output_throughput": 100.0}]
    failing += [
        {"x": x, "gpus": 8, "failure": "crash", "reason": "it died", "seconds": 60}
        for x in range(1, 31)
    ]
    _, _, trials = replayed(
        tmp_path,
        failing,
        space={"x": list(range(1, 31)), "gpus": [8]},
        search={"kind": "grid"},
        at_once=at_once,
        limits={"gpu_hours": 1.0},
        verdict={"finalists": 0},
    )
    assert 0.3 < sum(each.gpu_hours for each in trials) <= 1.0


def test_the_finals_have_their_time_though_the_search_ran_side_by_side(tmp_path: Path) -> None:
    _, study, trials = replayed(
        tmp_path,
        rows(),
        space={"x": list(range(1, 31))},
        noise=0.001,
        search={"kind": "grid"},
        at_once=4,
        limits={"hours": 0.6},
    )
    from autotuner.study.finals import verdict

    found = verdict(study, trials)
    assert found is not None
    assert found.decided
