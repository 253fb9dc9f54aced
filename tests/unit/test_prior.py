"""Beliefs before the first launch: what they are made of, and what they may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import FailureClass
from autotuner.estimators.aiconfigurator import AIConfigurator, Prediction, Question
from autotuner.foresight import AllForesight
from autotuner.plugins import load_kind
from autotuner.prior import Prior, prior_of_model, prior_of_trials
from autotuner.study.space import point_key
from autotuner.study.spec import StudySpec
from autotuner.study.trial import LoadPoint, TrialState
from tests.builders import LLAMA_8B, spec, trial

SPACE = {"tensor-parallel-size": [1, 2, 4, 8], "max-num-seqs": [16, 64]}


class Model(AIConfigurator):
    """Predicts that throughput grows with tensor parallelism, and that 8 GPUs do not fit."""

    def __init__(self, problem: str = "") -> None:
        super().__init__()
        self.asked: list[Question] = []
        self._problem = problem

    def answers(self, questions: Sequence[Question]) -> list[Prediction]:
        self.asked += questions
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Prediction:
        if self._problem:
            return Prediction(problem=self._problem)
        if question.tp == 8:
            return Prediction(infeasible="does not fit")
        value = 100.0 * question.tp + (question.sequences or 0)
        return Prediction(metrics={"output_throughput": value, "ttft_mean": 1 / value})


def study(**changes: Any) -> StudySpec:
    return spec(
        **{
            "engine": {"kind": "vllm", "version": "0.32.0"},
            "model": {"path": "some/model"},
            "space": SPACE,
            "prior": {"kind": "aiconfigurator", "system": "h100_sxm", "first": 2},
            **changes,
        }
    )


def believed(asked: StudySpec, model: Model) -> Prior:
    return prior_of_model(asked, model, lambda point: None)


def test_the_best_predicted_come_first() -> None:
    prior = believed(study(), Model())
    assert prior.first_points(study())[0] == {"tensor-parallel-size": 4, "max-num-seqs": 64}
    assert len(prior.first_points(study())) == 2


def test_a_percentile_is_ranked_by_the_mean_and_not_shown_as_one() -> None:
    asked = study(objectives=["ttft_p99"])
    prior = believed(asked, Model())
    first = prior.first_points(asked)[0]
    assert first == {"tensor-parallel-size": 4, "max-num-seqs": 64}
    assert "ttft_p99" not in prior.predictions[point_key(first)]


def test_every_load_point_is_asked_about_and_combined() -> None:
    asked = study(workload={"scenarios": ["D(100,20)"], "concurrency": [1, 4]})
    model = Model()
    prior = believed(asked, model)
    assert len(model.asked) == 8 * 2
    point = {"tensor-parallel-size": 2, "max-num-seqs": 16}
    assert prior.predictions[point_key(point)]["output_throughput"] == pytest.approx(216.0)


def test_points_that_are_refused_are_not_asked_about() -> None:
    model = Model()
    prior_of_model(study(), model, lambda p: "no" if p["max-num-seqs"] == 16 else None)
    assert {question.sequences for question in model.asked} == {64}


def test_a_large_space_is_asked_about_in_part() -> None:
    model = Model()
    space = {"max-num-seqs": {"type": "int", "low": 1, "high": 5000}}
    believed(study(space=space), model)
    assert len(model.asked) == 150
    assert len({question.sequences for question in model.asked}) == 150


def test_an_expected_lack_of_memory_is_a_doubt_and_no_refusal() -> None:
    asked = study()
    prior = believed(asked, Model())
    foresight = AllForesight(load_kind("engine", "vllm"), asked, prior)
    large = {"tensor-parallel-size": 8, "max-num-seqs": 16}
    assert foresight.doubt(large) == "does not fit"
    assert foresight.refuse(large) is None
    assert point_key(large) not in prior.predictions


def test_a_model_that_knows_nothing_says_so_and_changes_nothing() -> None:
    prior = believed(study(), Model(problem="no such system"))
    assert prior.problem == "no such system"
    assert prior.first_points(study()) == []


def test_an_earlier_study_gives_its_values_and_its_failures() -> None:
    trials = [
        trial(0, {}, objectives={"output_throughput": 999.0}),
        trial(1, {"x": 1}, objectives={"output_throughput": 10.0}),
        trial(2, {"x": 2}, objectives={"output_throughput": 20.0}),
        trial(
            3,
            {"x": 3},
            TrialState.INFEASIBLE,
            failure=FailureClass.MEMORY_AT_LOAD,
            reason="CUDA out of memory",
        ),
        trial(4, {"x": 2}, objectives={"output_throughput": 1.0}, repeat_of=2, round=1),
    ]
    prior = prior_of_trials(trials)
    assert prior.predictions[point_key({"x": 2})] == {"output_throughput": 20.0}
    assert set(prior.doubts) == {point_key({"x": 3})}
    later = spec(space={"x": [1, 2, 3, 4]}, prior={"study": "earlier", "first": 2})
    assert prior.first_points(later) == [{"x": 2}, {"x": 1}]


def measured(scenario: str, concurrency: int, **metrics: float) -> LoadPoint:
    return LoadPoint(0, scenario, concurrency, 10.0, metrics)


def test_an_earlier_study_of_another_objective_says_what_it_measured_beside_it() -> None:
    trials = [
        trial(
            number,
            {"x": number},
            objectives={"output_throughput": 10.0 * number},
            load_points=(
                replace(measured("D(100,20)", 4, ttft_p99=9.0), probe=True),
                measured("D(100,20)", 4, ttft_p99=ttft, output_throughput=1.0, goodput=2.0),
                measured("D(100,20)", 16, ttft_p99=4 * ttft, output_throughput=1.0),
            ),
        )
        for number, ttft in enumerate([0.3, 0.1, 0.2], start=1)
    ]
    prior = prior_of_trials(trials)

    def begun(*levels: int, **changes: Any) -> list[Any]:
        work = {"scenarios": ["D(100,20)"], "concurrency": list(levels)}
        asked = {"space": {"x": [1, 2, 3]}, "prior": {"study": "earlier", "first": 2}}
        later = spec(workload=work, **{**asked, "objectives": ["ttft_p99"], **changes})
        return prior.first_points(later)

    assert begun(4, 16) == [{"x": 2}, {"x": 3}]
    assert begun(4) == [{"x": 2}, {"x": 3}], "it measured more, this among it"
    assert begun(4, 64) == [], "another load"
    assert begun(4, objectives=["goodput"]) == [], "it depends on the other study's bounds"
    assert begun(64, objectives=["output_throughput"]) == [{"x": 3}, {"x": 2}], "its own, as ever"

    both = spec(
        workload={"scenarios": ["D(100,20)"], "concurrency": [4, 16]},
        objectives=["output_throughput"],
        constraints={"ttft_p99": 1.0},
    )
    said = AllForesight(load_kind("engine", "simulated"), both, prior).predict({"x": 2})
    assert said == {"output_throughput": 20.0, "ttft_p99": pytest.approx(0.2)}


def test_memory_is_refused_only_when_it_is_proven(tmp_path: Path) -> None:
    """Eight billion weights of 16 bits: 16 GB cannot be on a GPU with 8, and can on one with 80."""
    import json

    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_8B, "max_position_embeddings": 8192}))

    def foresight(gib: float | None) -> AllForesight:
        asked = study(model={"path": str(tmp_path)}, hardware={"gpu_memory_gib": gib}, prior=None)
        return AllForesight(load_kind("engine", "vllm"), asked)

    one, eight = {"tensor-parallel-size": 1}, {"tensor-parallel-size": 8}
    assert foresight(8).refuse(one)
    assert foresight(8).refuse(eight) is None
    assert foresight(80).refuse(one) is None
    assert foresight(80).doubt(one) is None
    assert foresight(None).refuse(one) is None, "nothing is known of the GPU"
    learning = foresight(80)
    half = {"gpu-memory-utilization": 0.42}
    assert learning.doubt(half) is None
    learned = trial(1, one, observed={"kv_tokens": 300_000.0, "kv_gib": 36.6, "weights_gib": 15.0})
    learning.learn(learned)
    said = learning.doubt(half)
    assert said is not None
    assert said.startswith("weights 15.0 GiB and working memory 22.0 GiB"), "as the log has it"
    assert learning.refuse(half) is None, "what logs teach is no proof"


def test_an_earlier_study_counts_in_a_space_without_end() -> None:
    trials = [trial(1, {"x": 0.123456}, objectives={"output_throughput": 10.0})]
    endless = {"x": {"type": "float", "low": 0, "high": 1}}
    later = spec(space=endless, prior={"study": "earlier"})
    assert prior_of_trials(trials).first_points(later) == [{"x": 0.123456}]
    elsewhere = spec(
        space={"x": {"type": "float", "low": 2, "high": 3}}, prior={"study": "earlier"}
    )
    assert prior_of_trials(trials).first_points(elsewhere) == [], "no point of this space"
