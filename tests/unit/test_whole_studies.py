"""Whole studies in virtual time: what SLOs, penalties, loads, priors and refusals do to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import ConfigError, FailureClass, StudyStateError
from autotuner.job import load_job
from autotuner.plan import plan
from autotuner.store import Store
from autotuner.studies import Studies
from autotuner.study.finals import winner
from autotuner.study.loading import parse_study, read_study_text
from autotuner.study.pareto import pareto_front
from autotuner.study.spec import StudySpec
from autotuner.study.study import StudyState
from autotuner.study.trial import Trial, TrialState
from tests.builders import LLAMA_8B, spec, study_content, trial
from tests.replays import replayed
from tests.simulated import study_file

ONCE: dict[str, Any] = {"verdict": {"finalists": 0}, "search": {"kind": "grid"}}


def point(trials: list[Trial], **parameters: Any) -> Trial:
    return next(each for each in trials if each.parameters == parameters)


# SLOs. The predecessor rewarded violations of a maximised metric, and crowned what had failed.

FAST_BUT_LATE: list[dict[str, Any]] = [
    {"output_throughput": 100.0, "ttft_p99": 0.2},
    {"x": 1, "output_throughput": 120.0, "ttft_p99": 0.4},
    {"x": 2, "output_throughput": 200.0, "ttft_p99": 0.6},
    {"x": 3, "failure": FailureClass.MEMORY_AT_LOAD.value, "reason": "CUDA out of memory"},
]


def best(directory: Path, rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any] | None:
    _, study, trials = replayed(directory, rows, space={"x": [1, 2, 3]}, **ONCE, **changes)
    found = winner(study, trials)
    return None if found is None else found.parameters


@pytest.mark.parametrize("mode", ["constraint", "penalty"])
def test_a_violation_is_worse_for_a_maximised_metric_too(tmp_path: Path, mode: str) -> None:
    assert best(tmp_path, FAST_BUT_LATE) == {"x": 2}
    assert best(tmp_path, FAST_BUT_LATE, slo={"mode": mode, "ttft_p99": {"max": 0.5}}) == {"x": 1}


def test_a_penalty_is_traded_against_what_it_buys(tmp_path: Path) -> None:
    mild = {"mode": "penalty", "steepness": 10.0, "ttft_p99": {"max": 0.5, "weight": 0.1}}
    _, _, trials = replayed(tmp_path, FAST_BUT_LATE, space={"x": [1, 2, 3]}, slo=mild, **ONCE)
    late = point(trials, x=2)
    assert late.penalty == pytest.approx(1 + 0.1 * 2.718281828 ** (0.2 / 10.0))
    assert late.scores["output_throughput"] == pytest.approx(200 / late.penalty)
    assert late.objectives["output_throughput"] == pytest.approx(200.0), "as it was measured"
    assert best(tmp_path, FAST_BUT_LATE, slo=mild) == {"x": 2}


@pytest.mark.parametrize("mode", ["constraint", "penalty"])
def test_beyond_a_hard_bound_a_trial_is_infeasible_and_its_violation_kept(
    tmp_path: Path, mode: str
) -> None:
    slo = {"mode": mode, "ttft_p99": {"max": 0.5, "hard": True, "fail_ratio": 0.1}}
    _, _, trials = replayed(tmp_path, FAST_BUT_LATE, space={"x": [1, 2, 3]}, slo=slo, **ONCE)
    late = point(trials, x=2)
    assert (late.state, late.failure) == (TrialState.INFEASIBLE, FailureClass.SLO)
    assert late.violations == {"ttft_p99": pytest.approx(0.2)}
    assert late.load_points
    assert "20% beyond its hard bound of 0.5 s" in late.reason
    borne = {"mode": mode, "ttft_p99": {"max": 0.5, "hard": True, "fail_ratio": 0.2}}
    _, _, trials = replayed(tmp_path, FAST_BUT_LATE, space={"x": [1, 2, 3]}, slo=borne, **ONCE)
    assert point(trials, x=2).state is TrialState.COMPLETE, "exactly the ratio is still borne"


@pytest.mark.parametrize("objective", ["ttft_p99", "output_throughput"])
def test_what_failed_never_wins_whatever_the_direction(tmp_path: Path, objective: str) -> None:
    rows = [FAST_BUT_LATE[0], FAST_BUT_LATE[3]]
    found = best(tmp_path, rows, objectives=[objective])
    assert found == {}, "the baseline is all there is"


def test_without_a_feasible_trial_a_study_has_failed_and_says_why(tmp_path: Path) -> None:
    state, _, trials = replayed(
        tmp_path, FAST_BUT_LATE, space={"x": [1, 2, 3]}, slo={"ttft_p99": {"max": 0.1}}, **ONCE
    )
    assert state is StudyState.FAILED
    assert not any(each.feasible for each in trials)


def test_several_objectives_keep_their_front(tmp_path: Path) -> None:
    _, study, trials = replayed(
        tmp_path,
        FAST_BUT_LATE,
        space={"x": [1, 2, 3]},
        objectives=["output_throughput", "ttft_p99"],
        **ONCE,
    )
    front = pareto_front(trials, study.objectives)
    assert [each.parameters for each in front] == [{"x": 2}, {"x": 1}, {}]


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("minimize_latency", "e2e_latency_mean"),
        ("maximize_throughput", "total_throughput"),
        ("minimize_ttft", "ttft_mean"),
        ("minimize_tpot", "tpot_mean"),
    ],
)
def test_the_predecessors_objectives_are_known_by_their_names(alias: str, name: str) -> None:
    assert spec(objectives=[alias]).objectives == [name]


# The highest load within the bounds.


def loads(**latency: float) -> list[dict[str, Any]]:
    """One point whose TTFT grows with the concurrency by so much a request."""
    levels = range(1, 65)
    rows: list[dict[str, Any]] = []
    for parameters, each in (({}, latency["defaults"]), ({"x": 1}, latency["tuned"])):
        rows += [
            {
                **parameters,
                "concurrency": level,
                "output_throughput": 10.0 * level,
                "ttft_p99": each * level,
            }
            for level in levels
        ]
    return rows


def test_the_highest_load_is_found_within_one_launch(tmp_path: Path) -> None:
    _, study, trials = replayed(
        tmp_path,
        loads(defaults=0.05, tuned=0.025),
        space={"x": [1]},
        objectives=["max_load", "output_throughput"],
        slo={"ttft_p99": {"max": 1.0}},
        workload={"scenarios": ["D(100,20)"], "concurrency": [1, 64]},
        **ONCE,
    )
    defaults, tuned = trials
    assert defaults.objectives == {"max_load": 20.0, "output_throughput": pytest.approx(200.0)}
    highest = tuned.objectives["max_load"]
    assert highest is not None
    assert 36 <= highest <= 40, "40 would be exact, levels are up to a tenth apart"
    assert len(tuned.load_points) <= 6
    assert all(each <= 0 for each in tuned.violations.values())
    assert {p.concurrency for p in tuned.load_points} != set(study.workload.concurrency)


def test_a_launch_that_bears_not_even_the_lowest_load_is_out_of_bounds(tmp_path: Path) -> None:
    _, _, trials = replayed(
        tmp_path,
        loads(defaults=2.0, tuned=0.1),
        space={"x": [1]},
        objectives=["max_load"],
        slo={"ttft_p99": {"max": 1.0}},
        workload={"scenarios": ["D(100,20)"], "concurrency": [1, 64]},
        **ONCE,
    )
    assert not trials[0].feasible
    assert trials[0].violations == {"ttft_p99": pytest.approx(1.0)}
    assert trials[1].objectives["max_load"] == 10.0


@pytest.mark.parametrize(
    ("changes", "where", "word"),
    [
        ({"slo": None}, "objectives", "bounds"),
        ({"workload": {"scenarios": ["D(9,9)"], "concurrency": [4]}}, "workload.conc", "lowest"),
        ({"scheduler": {}}, "scheduler", "max_load"),
        ({"slo": {"mode": "penalty", "ttft_p99": {"max": 1.0}}}, "slo.mode", "penalise"),
        ({"constraints": {"max_load": 3.0}}, "constraints.max_load", "objective"),
    ],
)
def test_what_the_highest_load_needs_is_said(
    changes: dict[str, Any], where: str, word: str
) -> None:
    content = study_content(
        objectives=["max_load"],
        slo={"ttft_p99": {"max": 1.0}},
        workload={"scenarios": ["D(9,9)"], "concurrency": [1, 64]},
    )
    error = mistake({**content, **changes})
    assert error.where.startswith(where)
    assert word in str(error)


# Said once, and where.


def mistake(content: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_study(read_study_text(json.dumps(content), "study.json"))
    return caught.value


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"limits": {"trials": 3}, "search": {"kind": "random", "trials": 3}}, "search.trials"),
        (
            {"constraints": {"ttft_p99": 1.0}, "slo": {"ttft_p99": {"max": 2.0}}},
            "constraints.ttft_p99",
        ),
        ({"prior": {"kind": "study"}}, "prior.study"),
        ({"prior": {"kind": "aiconfigurator"}}, "prior.system"),
        ({"prior": {"kind": "aiconfigurator", "study": "x"}}, "prior.study"),
        ({"prior": {"kind": "crystal-ball"}}, "prior.kind"),
        ({"engine": {"kind": ["vllm"]}}, "engine.kind"),
        ({"engine": {"kind": ["vllm", "vllm"]}}, "engine.kind"),
        ({"engine": {"kind": ["vllm", "simulated"], "version": "1"}}, "engine.version"),
        (
            {"engine": {"kind": ["vllm", "simulated"], "settings": {"sglang": {}}}},
            "engine.settings",
        ),
        ({"engine": {"kind": "vllm", "settings": {"vllm": {}}}}, "engine.settings"),
        (
            {"engine": {"kind": ["vllm", "simulated"]}, "space": {"max-num-seqs": [1]}},
            "space.max-num-seqs",
        ),
        (
            {
                "engine": {
                    "kind": ["vllm", "simulated"],
                    "settings": {"vllm": {"arguments": {"max-num-seqs": 1}}},
                },
                "space": {"vllm": {"max-num-seqs": [1]}},
            },
            "space.vllm.max-num-seqs",
        ),
        ({"slo": {"mode": "penalty"}, "objectives": ["error_rate"]}, "slo.mode"),
        ({"verdict": {"finalists": -1}}, "verdict.finalists"),
        ({"verdict": {"confidence": 1.0}}, "verdict.confidence"),
        ({"limits": {"gpu_hours": 0}}, "limits.gpu_hours"),
        ({"merge": "sum"}, "merge"),
        (
            {
                "scheduler": {},
                "workload": {"scenarios": ["D(9,9)"], "concurrency": [1], "max_requests": 20},
            },
            "scheduler",
        ),
    ],
)
def test_a_mistake_in_a_block_has_its_place(changes: dict[str, Any], where: str) -> None:
    assert mistake(study_content(**changes)).where == where


def test_the_budget_may_be_said_in_two_places() -> None:
    assert spec(limits={"trials": 7}).budget == 7
    assert spec(search={"kind": "random", "trials": 7}).budget == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"slo": {"mode": "penalty", "ttft_p99": {"max": 1.0, "hard": True}}},
        {"quantization": {"gemm": ["auto", "fp8"], "kv_cache": "fp8"}},
        {"quantization": {"presets": ["default", "kv-cache-fp8"]}},
        {"scheduler": {"kind": "asha"}, "prior": {"study": "x"}, "presets": ["a"]},
        {
            "engine": {"kind": ["vllm", "simulated"], "settings": {"vllm": {"version": "0.32.0"}}},
            "space": {"vllm": {"max-num-seqs": [1]}},
        },
    ],
)
def test_a_stored_spec_is_read_back_as_it_was(changes: dict[str, Any]) -> None:
    study = spec(**changes)
    stored = json.loads(json.dumps(study.model_dump(mode="json")))
    assert StudySpec.model_validate(stored) == study


# Quantization: one mapper for the plan and for the trials.


def test_the_quantization_block_is_part_of_the_space_and_equal_launches_run_once(
    tmp_path: Path,
) -> None:
    """`auto` stays an option, and what the plan counts is what is launched."""
    path = tmp_path / "study.json"
    content = study_content(
        engine={"kind": "vllm", "version": "0.32.0"},
        model={"path": "some/model"},
        quantization={"gemm": ["auto", "fp8"], "attention": ["auto", "fp8"]},
        search={"kind": "grid"},
    )
    path.write_text(json.dumps(content))
    planned = plan(load_job(path), trials=10)
    assert planned["size"] == 4
    assert planned["quantization"]["vllm"]["count"] == 2, "vLLM has no attention dtype"
    launches = planned["launches"]
    assert len(launches) == 2, "the baseline is the one with auto"
    assert ["--quantization" in each["argv"] for each in launches] == [False, True]
    assert not any("--dtype" in each["argv"] for each in launches)


def test_a_users_own_flag_goes_before_the_quantization_block() -> None:
    from autotuner.plugins import load_kind

    study = spec(
        engine={"kind": "vllm", "arguments": {"kv-cache-dtype": "fp8_e4m3"}},
        quantization={"kv_cache": "fp8_e5m2"},
    )
    argv = load_kind("engine", "vllm").launch(study, {}, port=1).argv
    assert argv[argv.index("--kv-cache-dtype") + 1] == "fp8_e4m3"
    assert argv.count("--kv-cache-dtype") == 1


# Presets, on the way from the file to the study.


def test_presets_are_merged_when_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.yaml").write_text(
        "why: as I like it\nengine: simulated\n"
        "parameters: {max-num-seqs: [2, 4], block-size: [16]}\n"
    )
    path = study_file(tmp_path, presets=["mine"], space={"block-size": [32]})
    job = load_job(path, presets=[tmp_path / "presets"])
    assert job.spec.space == {"max-num-seqs": [2, 4], "block-size": [32]}
    assert job.spec.presets == ["mine"]


# A prior.


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Studies]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield Studies(store, tmp_path / "studies")
    store.close()


def test_a_study_begins_with_what_an_earlier_one_found_best(
    studies: Studies, tmp_path: Path
) -> None:
    space = {"max-num-seqs": [1, 2, 4, 8, 16, 32]}
    earlier = load_job(study_file(tmp_path, space=space))
    studies.submit(earlier)
    for number, (sequences, value) in enumerate([(1, 10.0), (8, 90.0), (32, 50.0)], start=1):
        done = trial(number, {"max-num-seqs": sequences}, objectives={"output_throughput": value})
        studies.store.save("quick", done)
    path = study_file(tmp_path, name="later", space=space, prior={"study": "quick", "first": 2})
    job = studies.with_prior(load_job(path))
    assert job.prior.first_points(job.spec)[0] == {"max-num-seqs": 8}
    searcher = job.searcher()
    asked = [searcher.ask() for _ in range(6)]
    assert asked[0] == {"max-num-seqs": 8}
    assert len({str(each) for each in asked}) == 6
    assert job.foresight().predict({"max-num-seqs": 8}) == {"output_throughput": 90.0}


def test_a_prior_that_does_not_exist_is_said(studies: Studies, tmp_path: Path) -> None:
    path = study_file(tmp_path, prior={"study": "nowhere"})
    with pytest.raises(StudyStateError, match="nowhere"):
        studies.with_prior(load_job(path))


# What a plan counts, and what a check finds.


def test_a_plan_counts_launches_and_not_points(tmp_path: Path) -> None:
    path = study_file(
        tmp_path, space={"max-num-seqs": [None, 4, 8], "env:X": [None, "", 1][1:]}, search={}
    )
    planned = plan(load_job(path))
    assert planned["size"] == 6
    assert planned["trials"] == 5, "one of the points is the baseline"
    assert planned["seconds_expected"] <= planned["seconds_at_most"]


def test_what_is_expected_is_never_more_than_what_is_allowed(tmp_path: Path) -> None:
    path = study_file(tmp_path, limits={"hours": 0.01, "trial_seconds": 5, "ready_seconds": 5})
    planned = plan(load_job(path))
    assert planned["seconds_expected"] <= planned["seconds_at_most"] <= 36
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(dict(LLAMA_8B)))
    engine = {"kind": "vllm", "version": "0.32.0", "arguments": {"tensor-parallel-size": 2}}
    for hours in (0.002, 0.02, 0.2, 2):
        content = study_content(
            engine=engine,
            model={"path": str(model)},
            space={"max-num-seqs": [16, 32, 64]},
            limits={"gpu_hours": hours, "hours": 1},
        )
        path.write_text(json.dumps(content))
        planned = plan(load_job(path))
        assert planned["gpu_hours_expected"] <= min(hours, 2 * 1)
        assert planned["seconds_expected"] <= planned["seconds_at_most"] <= 3600


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "top_p"])
def test_a_number_of_a_request_is_no_text(name: str) -> None:
    content = study_content()
    content["workload"] = {**content["workload"], "request": {name: "0.0"}}
    error = mistake(content)
    assert error.where == f"workload.request.{name}"
    assert "'0.0'" in str(error)


def test_a_mistake_in_a_preset_is_blamed_on_the_presets_file(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.yaml").write_text("why: x\ncolour: red\nparameters: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_job(study_file(tmp_path, presets=["mine"]), presets=[tmp_path / "presets"])
    assert "mine.yaml" in caught.value.file


def test_a_mistake_in_a_task_has_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    path.write_text(
        json.dumps(
            {
                "task_name": "t",
                "model": {"id_or_path": "m", "namespace": "n"},
                "base_runtime": "vllm",
                "parameters": {},
                "optimization": {"strategy": "genetic"},
                "benchmark": {"traffic_scenarios": ["D(9,9)"], "num_concurrency": [1]},
            },
            indent=1,
        )
    )
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    assert (caught.value.file, caught.value.where) == (str(path), "optimization.strategy")
    assert caught.value.line == 10


# What a user tried, and a check should have found.


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"space": {"quantization:gemm": ["auto", "fp8"]}}, "space.quantization:gemm"),
        ({"space": {"x": {"type": "int", "low": 1, "high": 10**30}}}, "space.x"),
        (
            {"space": {"x": {"type": "float", "low": 0.1, "high": 0.9, "step": 1e-12}}},
            "space.x",
        ),
        ({"search": {"kind": "random", "seed": 2**40}}, "search.seed"),
        ({"constraints": {"error_rate": 5}}, "constraints.error_rate"),
        ({"constraints": {"ttft_p90": -1}}, "constraints.ttft_p90"),
        ({"constraints": {"requests": 3}}, "constraints.requests"),
        ({"slo": {"error_rate": {"max": 5}}}, "slo.error_rate.max"),
    ],
)
def test_what_can_mean_nothing_is_refused(changes: dict[str, Any], where: str) -> None:
    assert mistake(study_content(**changes)).where == where


def test_a_misspelt_flag_is_found_though_its_list_is_empty(tmp_path: Path) -> None:
    path = study_file(tmp_path, space={"max-num-sqs": [], "block-size": []})
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    assert caught.value.where == "space.max-num-sqs"
    assert not caught.value.others


def test_a_plan_of_a_large_space_looks_at_a_part_of_it(tmp_path: Path) -> None:
    space = {
        "max-num-seqs": {"type": "int", "low": 1, "high": 10**8},
        "max-num-batched-tokens": [1024, 2048],
    }
    planned = plan(load_job(study_file(tmp_path, space=space, search={"kind": "random"})))
    assert planned["looked_at"] == 1000
    assert planned["trials"] == 20


def test_a_plan_without_a_point_to_try_has_no_verdict(tmp_path: Path) -> None:
    space = {"max-num-batched-tokens": [1, 2], "max-num-seqs": [16]}
    planned = plan(load_job(study_file(tmp_path, space=space, verdict={})))
    assert (planned["trials"], planned["finals"]) == (0, 0)


def test_the_highest_load_allowed_is_said_to_be_that(tmp_path: Path) -> None:
    from autotuner.report.sentences import statement
    from autotuner.report.summary import summary
    from autotuner.study.study import Study

    _, study, trials = replayed(
        tmp_path,
        loads(defaults=0.001, tuned=0.001),
        space={"x": [1]},
        objectives=["max_load"],
        slo={"ttft_p99": {"max": 1.0}},
        workload={"scenarios": ["D(100,20)"], "concurrency": [1, 64]},
        **ONCE,
    )

    def notes_of(spec: StudySpec, of: list[Trial]) -> tuple[str, ...]:
        return statement(summary(Study(spec, "/x", StudyState.COMPLETE), of)).notes

    notes = notes_of(study, trials)
    assert any("2 trials bore 64 requests in flight, the highest" in note for note in notes)
    again = replace(trials[-1], number=9, repeat_of=trials[-1].number, round=1)
    one = [replace(trials[0], objectives={"max_load": 32.0}), trials[-1], again]
    (note,) = [n for n in notes_of(study, one) if "bore" in n]
    assert note == (
        f"Trial {trials[-1].number} bore 64 requests in flight, the highest that the study allows: "
        "raise the upper concurrency to see how much more it bears."
    )


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_engine_that_is_not_installed_is_the_operators_to_install(kind: str) -> None:
    from autotuner.plugins import load_kind

    found = load_kind("engine", kind).diagnose(
        f"Traceback (most recent call last):\nModuleNotFoundError: No module named '{kind}'\n"
    )
    assert found.machine_fault
    assert found.reason == f"No module named '{kind}'"


def test_a_plan_counts_what_is_doubted_and_shows_what_comes_before_it(tmp_path: Path) -> None:
    """A model whose weights leave room for a short context on this GPU and not for a long one."""
    (tmp_path / "config.json").write_text(json.dumps(dict(LLAMA_8B)))
    path = tmp_path / "study.json"
    content = study_content(
        engine={"kind": "vllm", "version": "0.32.0"},
        model={"path": str(tmp_path)},
        hardware={"gpu_memory_gib": 24},
        space={"max-model-len": [58000, 4096]},
        search={"kind": "grid"},
    )
    path.write_text(json.dumps(content))
    planned = plan(load_job(path))
    assert sum(planned["doubted"].values()) == 1
    assert planned["refused"] == {}
    assert [each["parameters"] for each in planned["launches"]] == [{}, {"max-model-len": 4096}]
