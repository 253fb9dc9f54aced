"""The loop of a study: what runs next, and what an answer changes. No Ray, no processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import FailureClass
from autotuner.execution.loop import StudyLoop
from autotuner.execution.trial import Assignment
from autotuner.job import checked
from autotuner.plugins import load_kind
from autotuner.store import Store
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import LoadPoint, Outcome, Phase, Trial, TrialState
from tests.simulated import study_file


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def study_of(directory: Path, **changes: Any) -> Study:
    import json

    spec = StudySpec.model_validate(json.loads(study_file(directory, **changes).read_text()))
    return Study(spec, str(directory / "studies" / spec.name))


def loop_of(study: Study, store: Store, **more: Any) -> StudyLoop:
    if not any(each.name == study.name for each in store.studies()):
        store.create(study)
    loop = StudyLoop(
        study, store, checked(study.spec).searcher(), load_kind("engine", "simulated"), **more
    )
    loop.begin()
    return loop


def complete(throughput: float, ttft: float = 0.1) -> Outcome:
    metrics = {"output_throughput": throughput, "ttft_p90": ttft}
    return Outcome(TrialState.COMPLETE, load_points=(LoadPoint(0, "D(50,20)", 4, 1.0, metrics),))


def infeasible(failure: FailureClass, reason: str = "it died") -> Outcome:
    return Outcome(TrialState.INFEASIBLE, failure=failure, reason=reason)


def assigned(loop: StudyLoop) -> Assignment:
    assignment = loop.next()
    assert assignment is not None
    loop.started(assignment.number)
    return assignment


def broken(loop: StudyLoop, reason: str) -> int:
    """The next trial, broken by the machine as often as it is started; its number."""
    number = -1
    for node in ("10.0.0.1", "10.0.0.2"):
        again = assigned(loop).number
        assert number in (-1, again)
        number = again
        loop.placed(number, node=node, gpu_ids=("0",))
        loop.failed(number, reason)
    return number


def play(loop: StudyLoop, value: float = 100.0) -> list[Assignment]:
    """Run the loop to its end, every trial measured alike."""
    done = []
    while (assignment := loop.next()) is not None:
        loop.started(assignment.number)
        loop.answered(assignment.number, complete(value + assignment.number))
        done.append(assignment)
    return done


def test_the_baseline_comes_first_and_has_no_parameters(tmp_path: Path, store: Store) -> None:
    first = assigned(loop_of(study_of(tmp_path), store))
    assert (first.number, first.parameters) == (0, {})


def test_an_empty_space_is_the_baseline_alone(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path, space={}), store)
    assert [each.parameters for each in play(loop)] == [{}]
    assert loop.finish() is StudyState.COMPLETE


def test_an_empty_list_is_not_tuned(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path, space={"max-num-seqs": [1], "block-size": []}), store)
    assert [each.parameters for each in play(loop)] == [{}, {"max-num-seqs": 1}]


def test_refused_points_are_kept_told_and_cost_no_trial(tmp_path: Path, store: Store) -> None:
    space = {"max-num-batched-tokens": [8, 9, 512, 1024], "max-num-seqs": [16]}
    loop = loop_of(study_of(tmp_path, space=space, search={"kind": "grid", "trials": 2}), store)
    launched = play(loop)
    assert [each.parameters.get("max-num-batched-tokens") for each in launched] == [None, 512, 1024]
    refused = [trial for trial in store.trials("quick") if trial.refused]
    assert [trial.state for trial in refused] == [TrialState.INFEASIBLE] * 2
    assert "below" in refused[0].reason


def test_what_the_cluster_cannot_hold_is_refused(tmp_path: Path, store: Store) -> None:
    loop = loop_of(
        study_of(tmp_path),
        store,
        can_hold=lambda point: "too big" if point.get("max-num-seqs") == 16 else None,
    )
    assert [each.parameters for each in play(loop)] == [{}, {"max-num-seqs": 1}]
    assert loop.trials[-1].reason == "too big"


def test_points_that_would_start_the_same_server_are_launched_once(
    tmp_path: Path, store: Store
) -> None:
    loop = loop_of(study_of(tmp_path, space={"max-num-seqs": [None, 4]}), store)
    assert [each.parameters for each in play(loop)] == [{}, {"max-num-seqs": 4}]


def test_the_budget_counts_launches_besides_the_baseline(tmp_path: Path, store: Store) -> None:
    space = {"max-num-seqs": {"type": "int", "low": 1, "high": 64}}
    loop = loop_of(study_of(tmp_path, space=space, search={"kind": "random", "trials": 3}), store)
    assert loop.remaining == 3
    assert len(play(loop)) == 4
    assert loop.remaining == 0


def test_an_answer_is_scored_and_kept(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path, constraints={"ttft_p90": 0.05}), store)
    assigned(loop)
    loop.answered(0, complete(100.0, ttft=0.1))
    trial = store.trials("quick")[0]
    assert trial.objectives == {"output_throughput": pytest.approx(100.0)}
    assert trial.violations == {"ttft_p90": pytest.approx(1.0)}
    assert not trial.feasible


def test_a_missing_objective_makes_a_trial_infeasible_never_zero(
    tmp_path: Path, store: Store
) -> None:
    loop = loop_of(study_of(tmp_path, objectives=["tpot_mean"]), store)
    assigned(loop)
    loop.answered(0, complete(100.0))
    trial = store.trials("quick")[0]
    assert (trial.state, trial.failure) == (TrialState.INFEASIBLE, FailureClass.BENCHMARK)
    assert "tpot_mean" in trial.reason


def test_an_infeasible_trial_does_not_end_the_study(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path), store)
    assigned(loop)
    loop.answered(0, infeasible(FailureClass.MEMORY_AT_LOAD))
    assert len(play(loop)) == 2
    assert loop.finish() is StudyState.COMPLETE


def test_a_model_that_cannot_be_loaded_ends_the_study(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path), store)
    assigned(loop)
    loop.answered(0, infeasible(FailureClass.MODEL, "no such model"))
    assert loop.next() is None
    assert loop.finish() is StudyState.FAILED
    assert "no such model" in store.study("quick").reason


def test_without_a_feasible_trial_the_study_fails_with_the_commonest_reason(
    tmp_path: Path, store: Store
) -> None:
    loop = loop_of(study_of(tmp_path), store)
    for reason in ("a", "b", "b"):
        loop.answered(assigned(loop).number, infeasible(FailureClass.CRASH, reason))
    assert loop.finish() is StudyState.FAILED
    assert store.study("quick").reason == "no feasible trial: b (2 of 3 trials)"


def test_reasons_that_differ_in_their_numbers_are_one(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path), store)
    for reason in ("an odd crash", "tried 2.1 GiB of 14", "tried 3 GiB of 14"):
        loop.answered(assigned(loop).number, infeasible(FailureClass.MEMORY_AT_LOAD, reason))
    loop.finish()
    assert store.study("quick").reason == ("no feasible trial: tried 2.1 GiB of 14 (2 of 3 trials)")


def test_a_limit_that_ends_a_study_does_not_hide_why_nothing_was_found(
    tmp_path: Path, store: Store
) -> None:
    study = study_of(tmp_path, limits={"hours": 0.5})
    clock = [0.0]
    loop = loop_of(study, store, clock=lambda: clock[0])
    loop.answered(assigned(loop).number, infeasible(FailureClass.CRASH, "no kernel"))
    clock[0] = 3600.0
    assert loop.next() is None
    assert loop.finish() is StudyState.FAILED
    reason = store.study("quick").reason
    assert "0.5" in reason
    assert reason.endswith("; no feasible trial: no kernel (1 of 1 trials)")


def test_failed_trials_cost_no_budget_and_several_in_a_row_break_the_study(
    tmp_path: Path, store: Store
) -> None:
    space = {"max-num-seqs": [1, 2, 3, 4, 5]}
    loop = loop_of(study_of(tmp_path, space=space, search={"kind": "grid", "trials": 2}), store)
    loop.answered(assigned(loop).number, complete(1))
    for _ in range(3):
        assert loop.remaining == 2
        broken(loop, "disk gone")
    assert loop.next() is None
    assert loop.finish() is StudyState.FAILED
    assert "disk gone" in store.study("quick").reason


def test_an_answer_ends_a_row_of_failures(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path, space={"max-num-seqs": [1, 2, 3, 4, 5]}), store)
    for round_ in range(6):
        if round_ % 3 == 2:
            loop.answered(assigned(loop).number, complete(1))
        else:
            broken(loop, "flaky")
    assert not loop.broken


def test_what_the_machine_broke_is_started_afresh_at_once_and_says_so(
    tmp_path: Path, store: Store
) -> None:
    loop = loop_of(study_of(tmp_path, space={"max-num-seqs": [1, 2]}), store)
    loop.answered(assigned(loop).number, complete(1))
    first, second = assigned(loop), assigned(loop)
    loop.placed(first.number, node="10.0.0.1", gpu_ids=("0", "1"))
    loop.failed(first.number, "no such device")
    waiting = store.trials("quick")[first.number]
    assert (waiting.state, waiting.node, waiting.gpu_ids) == (TrialState.PENDING, "", ())
    assert waiting.reason == "broke on 10.0.0.1 (GPUs 0, 1): no such device; started afresh"
    assert loop.waiting
    assert loop.next() == first
    loop.started(first.number)
    loop.answered(first.number, complete(2))
    answered = store.trials("quick")[first.number]
    assert answered.state is TrialState.COMPLETE
    assert answered.reason == (
        "second attempt; the first broke on 10.0.0.1 (GPUs 0, 1): no such device"
    )
    assert store.trials("quick")[second.number].reason == ""


def test_where_a_trial_is_is_known_from_its_first_second(tmp_path: Path, store: Store) -> None:
    heard: list[Trial] = []
    loop = loop_of(study_of(tmp_path), store, listener=heard.append)
    loop.placed(loop.next().number, node="10.0.0.1", gpu_ids=())  # type: ignore[union-attr]
    assert store.trials("quick")[0].node == "", "it waits there for others to end"
    loop.started(0, gpus=2)
    told = len(store.events("quick"))
    loop.placed(0, gpu_ids=("0", "1"))
    known = store.trials("quick")[0]
    assert (known.state, known.node, known.gpu_ids) == (
        TrialState.DEPLOYING,
        "10.0.0.1",
        ("0", "1"),
    )
    assert len(store.events("quick")) == told + 1
    assert heard[-1] == known
    loop.placed(0, gpu_ids=("0", "1"), node="10.0.0.1")
    assert len(store.events("quick")) == told + 1, "it is no news"


def test_every_attempt_costs_its_gpus_though_it_never_said_a_word(
    tmp_path: Path, store: Store
) -> None:
    clock = Clock()
    loop = loop_of(study_of(tmp_path), store, clock=clock)
    loop.started(loop.next().number, gpus=4)  # type: ignore[union-attr]
    clock.now += 900
    loop.failed(0, "the actor died")
    assert store.trials("quick")[0].gpu_hours == pytest.approx(1.0)
    loop.started(loop.next().number, gpus=4)  # type: ignore[union-attr]
    loop.placed(0, node="10.0.0.2", gpu_ids=("0", "1", "2", "3"))
    clock.now += 900
    phases = (Phase("deploy", 0.0, 450.0),)
    loop.progressed(0, "D(50,20) x 4", Outcome(TrialState.BENCHMARKING, phases=phases))
    assert store.trials("quick")[0].gpu_hours == pytest.approx(1.5), "as far as it said"
    loop.failed(0, "the actor died")
    failed = store.trials("quick")[0]
    assert failed.state is TrialState.FAILED
    assert failed.gpu_hours == pytest.approx(2.0)


def test_an_answer_costs_what_its_phases_tell_and_what_was_lost_before(
    tmp_path: Path, store: Store
) -> None:
    clock = Clock()
    loop = loop_of(study_of(tmp_path), store, clock=clock)
    for _ in range(2):
        loop.started(loop.next().number, gpus=1)  # type: ignore[union-attr]
        loop.placed(0, node="10.0.0.1", gpu_ids=("0",))
        clock.now += 1800
        if clock.now == 1800:
            loop.failed(0, "flaky")
    answer = dataclasses.replace(complete(1), phases=(Phase("deploy", 0.0, 1790.0),))
    loop.answered(0, answer)
    assert store.trials("quick")[0].gpu_hours == pytest.approx((1800 + 1790) / 3600)


def test_gpu_hours_that_were_lost_end_the_search(tmp_path: Path, store: Store) -> None:
    clock = Clock()
    study = study_of(
        tmp_path,
        space={"max-num-seqs": [1, 2]},
        limits={"gpu_hours": 1.0},
        verdict={"finalists": 0},
    )
    loop = loop_of(study, store, clock=clock)
    loop.started(loop.next().number, gpus=4)  # type: ignore[union-attr]
    clock.now += 1000
    loop.failed(0, "the actor died")
    loop.started(loop.next().number, gpus=4)  # type: ignore[union-attr]
    clock.now += 10
    loop.placed(0, node="10.0.0.1", gpu_ids=("0", "1", "2", "3"))
    loop.answered(0, dataclasses.replace(complete(1), phases=(Phase("deploy", 0.0, 10.0),)))
    assert loop.next() is None
    loop.finish()
    assert "more than 1 GPU-hours" in store.study("quick").reason


def test_what_was_interrupted_has_cost_its_gpus_when_it_runs_again(
    tmp_path: Path, store: Store
) -> None:
    clock = Clock()
    study = study_of(tmp_path)
    loop = loop_of(study, store, clock=clock)
    loop.started(loop.next().number, gpus=2)  # type: ignore[union-attr]
    clock.now += 1800
    loop.cancel("cancelled by SIGINT")
    loop.close()
    loop.finish()
    cancelled = store.trials("quick")
    assert cancelled[0].gpu_hours == pytest.approx(1.0)
    again = loop_of(study, store, known=cancelled)
    play(again)
    assert store.trials("quick")[0].gpu_hours == pytest.approx(1.0)


@pytest.mark.parametrize(("driver", "hours"), [("gone 1:1", 0.5), ("", 0.1)])
def test_what_a_driver_left_behind_has_cost_its_gpus_until_it_was_last_heard_of(
    tmp_path: Path, store: Store, driver: str, hours: float
) -> None:
    """A service hands the study to a job first, and the time is that of the handing."""
    left = Trial(
        0,
        {},
        TrialState.BENCHMARKING,
        phases=(Phase("deploy", 0.0, 180.0),),
        gpu_ids=("0", "1"),
        started_at="2026-11-22T10:00:00+00:00",
    )
    study = dataclasses.replace(
        study_of(tmp_path), driver=driver, renewed_at="2026-11-22T10:15:00+00:00"
    )
    loop = loop_of(study_of(tmp_path), store)
    loop.finish()
    again = StudyLoop(
        study, store, checked(study.spec).searcher(), load_kind("engine", "simulated"), known=[left]
    )
    assert again.trials[0].gpu_hours == pytest.approx(hours)
    assert again.trials[0].phases == ()


def test_a_baseline_that_cannot_start_is_kept_refused_and_the_study_goes_on(
    tmp_path: Path, store: Store
) -> None:
    engine = {"kind": "simulated", "arguments": {"max-num-seqs": 4096}}
    study = study_of(tmp_path, engine=engine, space={"max-num-batched-tokens": [8, 4096, 8192]})
    loop = loop_of(study, store)
    launched = play(loop)
    assert [each.parameters for each in launched] == [
        {"max-num-batched-tokens": 4096},
        {"max-num-batched-tokens": 8192},
    ]
    baseline = store.trials("quick")[0]
    assert (baseline.state, baseline.failure) == (TrialState.INFEASIBLE, FailureClass.REFUSED)
    assert "below" in baseline.reason
    assert not baseline.started_at
    assert loop.finish() is StudyState.COMPLETE
    again = loop_of(study, store, known=store.trials("quick"))
    assert play(again) == [], "neither is it asked for again"


def test_an_answer_of_the_second_attempt_keeps_its_own_reason(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path), store)
    loop.failed(assigned(loop).number, "flaky")
    loop.answered(assigned(loop).number, infeasible(FailureClass.CRASH, "it died"))
    assert store.trials("quick")[0].reason == "it died"


def test_a_trial_that_broke_twice_failed_and_says_where(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path), store)
    number = broken(loop, "no such device")
    trial = store.trials("quick")[number]
    assert trial.state is TrialState.FAILED
    assert trial.reason == (
        "on 10.0.0.2 (GPU 0): no such device; before that on 10.0.0.1 (GPU 0): no such device"
    )
    assert assigned(loop).number != number


def test_a_resumed_study_runs_a_trial_again_that_waited_for_its_second_attempt(
    tmp_path: Path, store: Store
) -> None:
    study = study_of(tmp_path)
    loop = loop_of(study, store)
    loop.failed(assigned(loop).number, "flaky")
    again = loop_of(study, store, known=store.trials("quick"))
    assert [each.number for each in play(again)] == [0, 1, 2]
    assert store.trials("quick")[0].reason == ""


def test_a_point_that_no_node_can_hold_any_more_is_refused(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path), store)
    loop.answered(assigned(loop).number, complete(1))
    waiting = loop.next()
    assert waiting is not None
    loop.unplaceable(waiting.number, "needs 8 GPUs")
    refused = store.trials("quick")[waiting.number]
    assert refused.refused
    assert refused.reason == "needs 8 GPUs"
    assert len(play(loop)) == 1
    assert loop.finish() is StudyState.COMPLETE


def test_a_baseline_that_no_node_can_hold_any_more_ends_the_study(
    tmp_path: Path, store: Store
) -> None:
    loop = loop_of(study_of(tmp_path), store)
    waiting = loop.next()
    assert waiting is not None
    loop.unplaceable(waiting.number, "needs 8 GPUs")
    assert loop.finish() is StudyState.FAILED
    assert "needs 8 GPUs" in store.study("quick").reason
    assert [
        each.number
        for each in play(loop_of(study_of(tmp_path), store, known=store.trials("quick")))
    ] == [0, 1, 2]


def test_what_is_remarked_of_the_machines_stands_beside_the_studys_state(
    tmp_path: Path, store: Store
) -> None:
    loop = loop_of(study_of(tmp_path), store)
    for text in ("node a is lame", "node b is too", "node a is lame"):
        loop.remark(text)
    assert store.study("quick").state is StudyState.RUNNING
    assert store.study("quick").reason == "node a is lame; node b is too"
    play(loop)
    loop.finish()
    assert store.study("quick").reason == "node a is lame; node b is too"


def test_cancelling_starts_nothing_more_and_cancels_what_runs(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path), store)
    loop.answered(assigned(loop).number, complete(1))
    assigned(loop)
    loop.cancel("cancelled by SIGINT")
    assert loop.next() is None
    assert loop.finish() is StudyState.CANCELLED
    states = [trial.state for trial in store.trials("quick")]
    assert states == [TrialState.COMPLETE, TrialState.CANCELLED]
    assert store.trials("quick")[1].reason == "cancelled by SIGINT"


def test_the_time_limit_cancels(tmp_path: Path, store: Store) -> None:
    clock = Clock()
    loop = loop_of(study_of(tmp_path, limits={"hours": 2.0}), store, clock=clock)
    assigned(loop)
    clock.now = 7201
    assert loop.next() is None
    assert "2 h" in loop.expired
    assert loop.finish() is StudyState.FAILED
    assert store.trials("quick")[0].state is TrialState.CANCELLED


def test_resuming_runs_what_has_no_answer_and_repeats_nothing(tmp_path: Path, store: Store) -> None:
    study = study_of(tmp_path, space={"max-num-seqs": [1, 2, 3]})
    loop = loop_of(study, store)
    for value in (100.0, 110.0):
        loop.answered(assigned(loop).number, complete(value))
    interrupted = assigned(loop)
    again = loop_of(study, store, known=store.trials("quick"))
    done = play(again)
    assert [(each.number, each.parameters) for each in done] == [
        (interrupted.number, {"max-num-seqs": 2}),
        (3, {"max-num-seqs": 3}),
    ]
    assert again.finish() is StudyState.COMPLETE
    assert [t.objectives["output_throughput"] for t in store.trials("quick")][:2] == [
        pytest.approx(100.0),
        pytest.approx(110.0),
    ]


def test_listeners_hear_every_change(tmp_path: Path, store: Store) -> None:
    heard: list[Trial] = []
    loop = loop_of(study_of(tmp_path, space={}), store, listener=heard.append)
    assigned(loop)
    loop.progressed(0, "D(50,20) x 4", Outcome(TrialState.BENCHMARKING))
    loop.answered(0, complete(1))
    assert [trial.state.value for trial in heard] == [
        "PENDING",
        "DEPLOYING",
        "BENCHMARKING",
        "COMPLETE",
    ]


def test_the_study_says_who_drives_it_only_while_it_runs(tmp_path: Path, store: Store) -> None:
    loop = loop_of(study_of(tmp_path, space={}), store)
    running = store.study("quick")
    assert running.state is StudyState.RUNNING
    assert running.driver
    assert not running.ended_at
    play(loop)
    loop.finish()
    ended = store.study("quick")
    assert not ended.driver
    assert ended.ended_at


def failed(number: int, x: int, **more: Any) -> Trial:
    return Trial(number, {"max-num-seqs": x}, TrialState.FAILED, **more)


def done(number: int, x: int) -> Trial:
    objectives = {"output_throughput": 1.0 + number}
    return Trial(
        number, {"max-num-seqs": x} if x else {}, TrialState.COMPLETE, objectives=objectives
    )


@pytest.mark.parametrize(("budget", "again"), [(2, []), (3, [1]), (4, [1, 2])])
def test_what_the_machine_broke_is_run_again_only_while_there_is_budget(
    tmp_path: Path, store: Store, budget: int, again: list[int]
) -> None:
    space = {"max-num-seqs": [1, 2, 3, 4]}
    study = study_of(tmp_path, space=space, search={"kind": "grid"}, limits={"trials": budget})
    known = [done(0, 0), failed(1, 1), failed(2, 2), done(3, 3), done(4, 4)]
    loop = loop_of(study, store, known=known)
    assert [each.number for each in play(loop)] == again
    searched = [t for t in loop.trials if t.state is TrialState.COMPLETE and not t.is_baseline]
    assert len(searched) == budget
