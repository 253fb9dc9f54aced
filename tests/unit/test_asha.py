"""Early stopping: who is ranked at which rung, by what, and what becomes of the stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import ConfigError
from autotuner.search.asha import rungs, scheduler_of
from autotuner.search.base import Scheduler
from autotuner.study.loading import parse_study, read_study_text
from autotuner.study.spec import StudySpec
from autotuner.study.trial import LoadPoint, Trial, TrialState
from tests.builders import spec, study_content, trial
from tests.replays import replayed

LADDER = {"scenarios": ["D(100,20)"], "concurrency": [1, 4, 16], "max_seconds": 60}


def ladder(**changes: Any) -> StudySpec:
    return spec(scheduler={"kind": "asha"}, workload=LADDER, **changes)


def scheduler(study: StudySpec) -> Scheduler:
    found = scheduler_of(study)
    assert found is not None
    return found


def at(number: int, *values: float, ttft: float = 0.1, probe: bool = False) -> Trial:
    """A trial with these throughputs at its first load points, in the order of the store."""
    points = [
        LoadPoint(
            load.index,
            load.scenario,
            load.concurrency,
            60.0,
            {"output_throughput": value, "ttft_p99": ttft},
            probe=probe,
        )
        for load, value in zip(ladder().loads(), values, strict=False)
    ]
    points.sort(key=lambda point: point.index)
    return trial(number, {"x": number}, TrialState.BENCHMARKING, load_points=tuple(points))


def test_without_a_scheduler_nothing_is_stopped() -> None:
    assert scheduler_of(spec(workload=LADDER)) is None


def test_the_busiest_load_comes_first_and_the_rest_in_falling_order() -> None:
    assert [load.concurrency for load in ladder().loads()] == [16, 4, 1]
    unordered = spec(workload=LADDER).loads()
    assert {(x.concurrency, x.seed) for x in ladder().loads()} == {
        (x.concurrency, x.seed) for x in unordered
    }


def test_rungs_grow_by_the_factor_and_leave_out_the_last_load_point() -> None:
    assert rungs(1, 3, 10) == {1, 3, 9}
    assert rungs(1, 3, 3) == {1}
    assert rungs(2, 2, 5) == {2, 4}
    assert rungs(1, 3, 1) == set()


def test_a_single_load_point_is_led_up_to_by_probes_on_prompts_of_their_own() -> None:
    study = spec(
        scheduler={"kind": "asha"},
        workload={"scenarios": ["D(10,10)"], "concurrency": [4], "max_requests": 90},
    )
    loads = study.loads()
    assert [(load.max_requests, load.probe) for load in loads] == [
        (10, True),
        (30, True),
        (90, False),
    ]
    assert len({load.seed for load in loads}) == len({load.index for load in loads}) == 3
    (whole,) = spec(
        workload={"scenarios": ["D(10,10)"], "concurrency": [4], "max_requests": 90}
    ).loads()
    assert loads[-1] == whole


def test_probes_are_in_no_objective(tmp_path: Path) -> None:
    rows = [{"output_throughput": 100.0}, {"x": 1, "output_throughput": 110.0}]
    _, _, trials = replayed(tmp_path, rows, space={"x": [1]}, noise=0.2, scheduler={"kind": "asha"})
    (whole,) = [point for point in trials[1].load_points if not point.probe]
    assert len(trials[1].load_points) == 3
    assert trials[1].objectives["output_throughput"] == pytest.approx(
        whole.metrics["output_throughput"]
    )


def test_the_best_third_goes_on() -> None:
    study = ladder()
    others = [at(number, value) for number, value in enumerate((100.0, 90.0, 80.0, 70.0, 60.0), 1)]
    assert scheduler(study).weak(at(9, 95.0), [*others, at(9, 95.0)]) is None
    reason = scheduler(study).weak(at(9, 85.0), [*others, at(9, 85.0)])
    assert reason is not None
    assert "2 of 5 trials were better" in reason
    assert "D(100,20) x 16" in reason


def test_the_first_to_arrive_go_on() -> None:
    others = [at(1, 100.0), at(2, 90.0)]
    assert scheduler(ladder()).weak(at(3, 1.0), others) is None


def test_the_baseline_goes_on_whatever_it_gives() -> None:
    others = [at(number, 100.0) for number in range(1, 8)]
    assert scheduler(ladder()).weak(at(0, 1.0), others) is None


def test_trials_are_ranked_only_where_they_all_have_been() -> None:
    """A later load point is better than any at the first; it must not raise the bar there."""
    ahead = [at(number, 50.0, 1000.0) for number in range(1, 5)]
    assert scheduler(ladder()).weak(at(9, 60.0), ahead) is None
    between = at(9, 40.0, 45.0)
    assert scheduler(ladder()).weak(between, ahead) is None, "2 load points are no rung"


def test_a_broken_bound_ranks_below_any_that_is_kept() -> None:
    study = ladder(constraints={"ttft_p99": 0.5})
    others = [at(number, 10.0) for number in range(1, 5)]
    assert scheduler(study).weak(at(9, 1000.0, ttft=0.9), others) is not None
    broken = [at(number, 1000.0, ttft=0.9) for number in range(1, 5)]
    assert scheduler(study).weak(at(9, 10.0), broken) is None


def test_less_is_better_for_a_latency() -> None:
    study = ladder(objectives=["ttft_p99"])
    others = [at(number, 1.0, ttft=0.1) for number in range(1, 5)]
    assert scheduler(study).weak(at(9, 1.0, ttft=0.05), others) is None
    assert scheduler(study).weak(at(9, 1.0, ttft=0.2), others) is not None


def test_a_penalty_counts_at_the_rungs_too() -> None:
    slo = {"mode": "penalty", "ttft_p99": {"max": 0.5}}
    others = [at(number, 100.0) for number in range(1, 5)]
    assert scheduler(ladder(slo=slo)).weak(at(9, 150.0, ttft=0.6), others) is not None
    assert scheduler(ladder()).weak(at(9, 150.0, ttft=0.6), others) is None


def test_a_stopped_trial_keeps_what_was_measured_and_saves_the_rest(tmp_path: Path) -> None:
    space = {"x": list(range(1, 16))}
    rows = [{"output_throughput": 100.0}]
    rows += [{"x": x, "output_throughput": 200.0 - 10 * x} for x in space["x"]]
    arguments: dict[str, Any] = {
        "space": space,
        "workload": LADDER,
        "search": {"kind": "grid"},
        "verdict": {"finalists": 0},
    }
    _, _, whole = replayed(tmp_path, rows, **arguments)
    _, _, stopped = replayed(tmp_path, rows, scheduler={"kind": "asha"}, **arguments)
    weak = [each for each in stopped if each.state is TrialState.STOPPED]
    assert len(weak) > 5
    assert all(len(each.load_points) == 1 and each.reason for each in weak)
    assert all(each.objectives == {} and not each.feasible for each in weak)
    saved = 1 - sum(each.gpu_hours for each in stopped) / sum(each.gpu_hours for each in whole)
    assert saved > 0.25


@pytest.mark.parametrize("kept", [3, 7, 11])
def test_rungs_are_rebuilt_from_the_stored_trials(tmp_path: Path, kept: int) -> None:
    from autotuner.store import Store

    space = {"x": list(range(1, 16))}
    rows = [{"output_throughput": 100.0}]
    rows += [
        {"x": x, "concurrency": level, "output_throughput": value}
        for x in space["x"]
        # The order at the busiest load is not that at the others.
        for level, value in ((16, 200.0 - 7 * (x * 5 % 16)), (4, 50.0 + x), (1, 30.0 - x))
    ]
    arguments: dict[str, Any] = {
        "space": space,
        "workload": LADDER,
        "scheduler": {"kind": "asha"},
        "search": {"kind": "grid"},
    }
    store = Store("sqlite://")
    _, _, whole = replayed(tmp_path, rows, store=store, **arguments)
    _, _, resumed = replayed(
        tmp_path, rows, store=store, known=lambda each: each.number < kept, **arguments
    )
    assert [(t.number, t.state, t.parameters) for t in resumed] == [
        (t.number, t.state, t.parameters) for t in whole
    ]
    store.close()


@pytest.mark.parametrize(
    ("changes", "place", "word"),
    [
        ({"objectives": ["output_throughput", "ttft_p99"]}, "scheduler", "one objective"),
        ({"scheduler": {"kind": "hyperband"}}, "scheduler.kind", "asha"),
        ({"scheduler": {"kind": "asha", "grace": 0}}, "scheduler.grace", "0"),
        ({"scheduler": {"kind": "asha", "reduction_factor": 1}}, "scheduler.reduction", "1"),
    ],
)
def test_what_it_cannot_do_is_said_with_its_place(
    changes: dict[str, Any], place: str, word: str
) -> None:
    import json

    content = {**study_content(scheduler={"kind": "asha"}), **changes}
    with pytest.raises(ConfigError) as caught:
        parse_study(read_study_text(json.dumps(content), "study.json"))
    assert caught.value.where.startswith(place)
    assert word in str(caught.value)
