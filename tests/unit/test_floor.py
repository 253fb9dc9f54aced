"""What the earlier system could do, where no other test would notice that it is gone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.benchmarks.genai_bench import GENAI_BENCH
from autotuner.engines.base import Engine
from autotuner.engines.quantization import already_quantized, sglang, tensorrt_llm, vllm
from autotuner.engines.sglang import SGLANG
from autotuner.engines.vllm import VLLM
from autotuner.errors import FailureClass
from autotuner.execution.loop import StudyLoop
from autotuner.job import load_job
from autotuner.plan import plan
from autotuner.plugins import kinds, load_kind
from autotuner.search.base import Searcher
from autotuner.store import Store
from autotuner.studies import Studies
from autotuner.study.presets import find_preset
from autotuner.study.quantization import ALLOWED, PRESETS, Fields, QuantizationSpec, combinations
from autotuner.study.study import StudyState
from autotuner.study.trial import LoadPoint, Outcome, TrialState
from tests.builders import spec, study_content, trial
from tests.replays import replayed
from tests.simulated import study_file


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Studies]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield Studies(store, tmp_path / "studies")
    store.close()


# Parameters.

WAYS: dict[str, dict[str, Any]] = {
    "random": {"kind": "random"},
    "optuna": {"kind": "optuna"},
    "optuna-tpe": {"kind": "optuna", "sampler": "tpe"},
    "hyperopt": {"kind": "hyperopt"},
    "hyperopt-anneal": {"kind": "hyperopt", "algorithm": "anneal"},
}


def searcher(search: dict[str, Any], space: dict[str, Any]) -> Searcher:
    study = spec(search={"seed": 5, **search}, space=space)
    made: Searcher = load_kind("search", study.search.kind).build(study)
    return made


def answered(found: Searcher, asks: int, sign: float = 0.0) -> list[float]:
    """The values of `x` asked for, where the objective is as large as `sign` times it."""
    asked = []
    for number in range(1, asks + 1):
        point = found.ask()
        assert point is not None
        asked.append(point["x"])
        found.tell(trial(number, point, objectives={"output_throughput": 100 + sign * point["x"]}))
    return asked


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["int", "float"])
def test_a_log_range_is_searched_by_its_magnitudes(way: str, kind: str) -> None:
    # The earlier system read `log` and never passed it on.
    low, high = (1, 10_000) if kind == "int" else (0.0001, 1.0)
    log = {"x": {"type": kind, "low": low, "high": high, "log": True}}
    asked = answered(searcher(WAYS[way], log), 20)
    low_ones = sum(value < high / 100 for value in asked)
    assert 4 <= low_ones <= 16, "half of its magnitudes, and a hundredth of an even range"


@pytest.mark.parametrize("startup", [2, 8])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "random"])
def test_so_many_points_are_tried_before_answers_count_as_the_study_says(
    way: str, startup: int
) -> None:
    wide = {"x": {"type": "float", "low": 0.0, "high": 10.0}}
    search = {**WAYS[way], "startup_trials": startup}
    up, down = (answered(searcher(search, wide), startup + 8, sign) for sign in (1.0, -1.0))
    assert up[:startup] == down[:startup]
    assert up[startup : startup + 4] != down[startup : startup + 4]


@pytest.mark.parametrize(
    ("engine", "kind", "flag", "without"),
    [
        (VLLM, "vllm", "enforce-eager", ("--no-enforce-eager",)),
        (SGLANG, "sglang", "enable-mixed-chunk", ()),
    ],
)
def test_true_and_false_are_a_launch_with_the_flag_and_one_without(
    engine: Engine, kind: str, flag: str, without: tuple[str, ...]
) -> None:
    study = spec(engine={"kind": kind}, space={flag: [True, False]})
    defaults = engine.launch(study, {}, port=1).arguments
    launches = [engine.launch(study, each, port=1) for each in study.parameter_space.points()]
    assert [each.arguments for each in launches] == [
        (*defaults, f"--{flag}"),
        (*defaults, *without),
    ]


@pytest.mark.parametrize("kind", kinds("search"))
@pytest.mark.parametrize("space", [{}, {"x": [], "y": {"type": "choice", "values": []}}])
def test_a_study_with_nothing_to_vary_is_one_launch_whoever_searches(
    tmp_path: Path, kind: str, space: dict[str, Any]
) -> None:
    rows = [{"output_throughput": 100.0}]
    limits = {"trials": 10}
    state, _, trials = replayed(tmp_path, rows, space=space, search={"kind": kind}, limits=limits)
    assert state is StudyState.COMPLETE
    assert [each.parameters for each in trials] == [{}]


@pytest.mark.parametrize("kind", kinds("search"))
def test_the_budget_ends_every_search(tmp_path: Path, kind: str) -> None:
    rows = [{"x": x, "output_throughput": 100.0 + x} for x in range(1, 13)]
    rows.append({"output_throughput": 100})
    _, _, trials = replayed(
        tmp_path,
        rows,
        space={"x": list(range(1, 13))},
        search={"kind": kind},
        limits={"trials": 4},
        verdict={"finalists": 0},
    )
    assert len(trials) == 1 + 4
    if kind == "grid":
        assert [each.parameters for each in trials[1:]] == [{"x": x} for x in (1, 2, 3, 4)]


# Objectives and service levels.


def test_a_bound_whose_metric_is_missing_is_not_met(tmp_path: Path) -> None:
    # The earlier system ignored it, and so preferred what it could not measure.
    rows: list[dict[str, Any]] = [
        {"output_throughput": 100.0, "ttft_p99": 0.2},
        {"x": 1, "output_throughput": 900.0, "ttft_p99": ""},
    ]
    _, _, trials = replayed(
        tmp_path,
        rows,
        space={"x": [1]},
        slo={"ttft_p99": {"max": 0.5}},
        verdict={"finalists": 0},
    )
    unknown = trials[1]
    assert (unknown.state, unknown.failure) == (TrialState.INFEASIBLE, FailureClass.BENCHMARK)
    assert "ttft_p99" in unknown.reason


def test_the_earlier_systems_penalty_has_the_steepness_of_the_study(tmp_path: Path) -> None:
    rows = [{"output_throughput": 1.0, "e2e_latency_mean": 3.0, "e2e_latency_p90": 6.0}]
    slo = {"mode": "penalty", "steepness": 0.05, "e2e_latency_p90": {"max": 5.0, "weight": 2.0}}
    _, _, trials = replayed(
        tmp_path, rows, space={}, objectives=["minimize_latency"], slo=slo, limits={"trials": 1}
    )
    assert trials[0].penalty == pytest.approx(110.196, rel=1e-5)
    assert trials[0].scores["e2e_latency_mean"] == pytest.approx(3.0 * 110.196, rel=1e-5)


MEASURED = Outcome(
    TrialState.COMPLETE,
    load_points=(LoadPoint(0, "D(50,20)", 4, 1.0, {"output_throughput": 10.0}),),
)


def loop_of(studies: Studies, directory: Path, **changes: Any) -> StudyLoop:
    job = load_job(study_file(directory, **changes))
    loop = StudyLoop(studies.submit(job), studies.store, job.searcher(), job.rules)
    loop.begin()
    return loop


def test_without_a_trial_no_study_is_complete(studies: Studies, tmp_path: Path) -> None:
    loop = loop_of(studies, tmp_path)
    assert studies.store.trials("quick") == []
    assert loop.finish() is StudyState.FAILED


def test_a_trial_is_a_row_once_it_is_asked_for_and_not_before(
    studies: Studies, tmp_path: Path
) -> None:
    loop = loop_of(studies, tmp_path, space={"max-num-seqs": [1, 2, 3, 4]})
    for number in range(3):
        assert len(studies.store.trials("quick")) == number
        assignment = loop.next()
        assert assignment is not None
        assert len(studies.store.trials("quick")) == number + 1
        loop.answered(number, MEASURED)


# Benchmark files.


def test_other_json_beside_the_results_is_not_read(tmp_path: Path) -> None:
    recorded = Path(__file__).parents[1] / "data" / "genai-bench" / "load-0"
    into = tmp_path / "load-0"
    shutil.copytree(recorded, into)
    for name in ("experiment_metadata.json", "D100_100_metadata.json"):
        (into / "results" / name).write_text('{"aggregated_metrics": {}}', encoding="utf-8")
    assert GENAI_BENCH.read(into, max_error_rate=0.05) == GENAI_BENCH.read(
        recorded, max_error_rate=0.05
    )


# Number formats: the tables of the earlier system, without what could not start.


def test_the_formats_are_those_of_the_four_fields() -> None:
    floats = {"float16", "bfloat16"}
    cache = {"fp16", "bfloat16", "fp8", "fp8_e5m2", "fp8_e4m3", "int8", "int4"}
    assert {name: set(values) for name, values in ALLOWED.items()} == {
        "gemm": {"auto", "float32", "fp8", "int8"} | floats,
        "kv_cache": {"auto"} | cache,
        "attention": {"auto", "fp8", "fp8_e5m2", "fp8_e4m3", "fp8_block"} | floats,
        "moe": {"auto", "fp8", "w4afp8", "mxfp4", "int8"} | floats,
    }


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("default", ("auto", "auto", "auto", "auto")),
        ("kv-cache-fp8", ("auto", "fp8_e5m2", "auto", "auto")),
        ("dynamic-fp8", ("fp8", "fp8_e5m2", "fp8", "fp8")),
        ("bf16-stable", ("bfloat16", "fp8_e5m2", "auto", "auto")),
        ("aggressive-moe", ("bfloat16", "fp8_e5m2", "fp8", "w4afp8")),
    ],
)
def test_a_preset_of_formats_is_that_of_the_table(name: str, fields: tuple[str, ...]) -> None:
    assert PRESETS[name] == Fields(*fields)


def test_a_field_left_empty_beside_a_preset_says_nothing() -> None:
    found = QuantizationSpec.model_validate({"preset": "kv-cache-fp8", "gemm_dtype": [], "moe": []})
    assert combinations(found) == (PRESETS["kv-cache-fp8"],)


def quantized(value: str) -> dict[str, str]:
    return {"quantization": value}


FLASHINFER = {"attention-backend": "flashinfer"}
FMHA = {"fmha-quant-algo": "FP8"}
NONE: dict[str, str] = {}


def cached(value: str) -> dict[str, str]:
    return {"kv-cache-dtype": value}


@pytest.mark.parametrize(
    ("fields", "on_vllm", "on_sglang", "on_tensorrt_llm"),
    [
        (Fields(gemm="float16"), {"dtype": "float16"}, {"dtype": "float16"}, NONE),
        (Fields(gemm="float32"), {"dtype": "float32"}, {"dtype": "float32"}, NONE),
        (Fields(gemm="fp8"), quantized("fp8"), quantized("fp8"), {"quant-algo": "FP8"}),
        (Fields(gemm="int8"), quantized("int8"), quantized("int8"), {"quant-algo": "INT8"}),
        (Fields(kv_cache="fp16"), cached("float16"), cached("fp16"), NONE),
        (
            Fields(kv_cache="fp8"),
            cached("fp8"),
            cached("fp8"),
            {"kv-cache-quant-algo": "FP8"},
        ),
        (
            Fields(kv_cache="fp8_e4m3"),
            cached("fp8_e4m3"),
            cached("fp8_e4m3"),
            {"kv-cache-quant-algo": "FP8"},
        ),
        (
            Fields(kv_cache="int8"),
            cached("int8"),
            cached("int8"),
            {"kv-cache-quant-algo": "INT8"},
        ),
        (
            Fields(kv_cache="int4"),
            cached("int4"),
            cached("int4"),
            {"kv-cache-quant-algo": "INT4"},
        ),
        (Fields(attention="fp8"), NONE, FLASHINFER, FMHA),
        (Fields(attention="fp8_e5m2"), NONE, FLASHINFER, FMHA),
        (Fields(attention="fp8_e4m3"), NONE, FLASHINFER, FMHA),
        (Fields(attention="fp8_block"), NONE, NONE, {"fmha-quant-algo": "FP8_BLOCK"}),
        (Fields(attention="bfloat16"), NONE, NONE, NONE),
        (Fields(moe="fp8"), NONE, {"moe-runner-backend": "flashinfer_cutlass"}, NONE),
        (
            Fields(moe="w4afp8"),
            NONE,
            {"quantization": "w4afp8", "moe-runner-backend": "flashinfer_mxfp4"},
            NONE,
        ),
        (
            Fields(gemm="fp8", moe="mxfp4"),
            quantized("fp8"),
            {"quantization": "mxfp4", "moe-runner-backend": "flashinfer_mxfp4"},
            {"quant-algo": "FP8"},
        ),
        (Fields(moe="int8"), NONE, NONE, NONE),
        (Fields(moe="bfloat16"), NONE, NONE, NONE),
    ],
    ids=str,
)
def test_a_format_becomes_the_flags_of_the_table(
    fields: Fields,
    on_vllm: dict[str, str],
    on_sglang: dict[str, str],
    on_tensorrt_llm: dict[str, str],
) -> None:
    found = [mapper(fields).arguments for mapper in (vllm, sglang, tensorrt_llm)]
    assert found == [on_vllm, on_sglang, on_tensorrt_llm]


@pytest.mark.parametrize(
    "method",
    ["awq", "gptq", "gguf", "squeezellm", "marlin", "nvfp4", "fp8", "bitsandbytes", "hqq"],
)
def test_every_method_of_quantized_models_is_known(tmp_path: Path, method: str) -> None:
    config = {"quantization_config": {"quant_method": method}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert already_quantized(str(tmp_path)) == already_quantized(f"org/model-{method}") == method


def test_points_of_equal_flags_are_launched_once(studies: Studies, tmp_path: Path) -> None:
    loop = loop_of(
        studies,
        tmp_path,
        engine={"kind": "vllm"},
        model={"path": "org/model"},
        space={},
        quantization={"gemm": ["auto", "fp8"], "attention": ["auto", "fp8"]},
    )
    launched = []
    while (assignment := loop.next()) is not None:
        launch = VLLM.launch(assignment.spec, assignment.parameters, port=1)
        launched.append(launch.arguments[-2:])
        loop.answered(assignment.number, MEASURED)
    assert launched == [("--port", "1"), ("--quantization", "fp8")]


def test_a_plan_lists_the_first_ten_sets_of_flags_and_counts_all(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    formats = {
        "gemm": ["auto", "float16", "bfloat16", "fp8"],
        "kv_cache": ["auto", "fp8", "fp8_e5m2", "fp8_e4m3"],
        "attention": ["auto", "fp8"],
    }
    content = study_content(
        engine={"kind": "vllm"},
        model={"path": "some/model"},
        quantization=formats,
        search={"kind": "grid"},
    )
    path.write_text(json.dumps(content), encoding="utf-8")
    shown = plan(load_job(path), trials=0)["quantization"]["vllm"]
    assert shown["count"] == 4 * 4
    assert len(shown["arguments"]) == 10
    assert len({json.dumps(each, sort_keys=True) for each in shown["arguments"]}) == 10


# Presets.

SYSTEM = {
    "memory-efficient": {"tp-size": [1], "mem-fraction-static": [0.7, 0.75]},
    "high-throughput": {
        "tp-size": [2, 4],
        "mem-fraction-static": [0.9],
        "schedule-policy": ["fcfs"],
    },
    "low-latency": {
        "tp-size": [1, 2],
        "schedule-policy": ["lpm"],
        "mem-fraction-static": [0.85],
    },
    "balanced": {
        "tp-size": [1, 2],
        "mem-fraction-static": [0.85],
        "schedule-policy": ["fcfs", "lpm"],
    },
}


@pytest.mark.parametrize("name", SYSTEM)
def test_the_earlier_systems_presets_hold_its_values(name: str) -> None:
    assert find_preset(f"system/{name}").parameters == SYSTEM[name]


def test_a_preset_keeps_texts_truth_values_and_numbers_down_to_the_launch(tmp_path: Path) -> None:
    # The earlier system saved all but numbers as an empty list.
    mine = {
        "engine": "vllm",
        "parameters": {
            "kv-cache-dtype": ["auto"],
            "enable_prefix_caching": [True],
            "gpu-memory-utilization": [0.8],
            "quantization": [""],
        },
    }
    (tmp_path / "mine.json").write_text(json.dumps(mine), encoding="utf-8")
    path = tmp_path / "study.json"
    content = study_content(engine={"kind": "vllm"}, model={"path": "some/model"}, presets=["mine"])
    path.write_text(json.dumps(content), encoding="utf-8")
    study = load_job(path, presets=[tmp_path]).spec
    (point,) = study.parameter_space.points()
    assert json.dumps(list(point.values())) == '["auto", true, 0.8, ""]'
    assert VLLM.launch(study, point, port=1).arguments[-5:] == (
        *("--kv-cache-dtype", "auto", "--enable-prefix-caching"),
        *("--gpu-memory-utilization", "0.8"),
    )


def test_what_presets_prints_as_json_is_a_preset(tmp_path: Path) -> None:
    shown = find_preset("vllm/latency")
    (tmp_path / "mine.json").write_text(json.dumps(dataclasses.asdict(shown)), encoding="utf-8")
    assert find_preset("mine", [tmp_path]) == dataclasses.replace(shown, name="mine")


# Storing, and starting anew.


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_no_score_is_stored_that_json_does_not_have(
    studies: Studies, tmp_path: Path, value: float
) -> None:
    studies.submit(load_job(study_file(tmp_path)))
    with pytest.raises(Exception, match="JSON compliant"):
        studies.store.save("quick", trial(0, objectives={"output_throughput": value}))
    assert studies.store.trials("quick") == []


def test_a_study_started_anew_has_nothing_of_the_old_one(studies: Studies, tmp_path: Path) -> None:
    # The earlier system kept the rows and the counts.
    job = load_job(study_file(tmp_path))
    old = studies.submit(job)
    studies.store.set_state(
        "quick", StudyState.COMPLETE, driver="", ended_at="2026-01-01T00:00:00Z"
    )
    studies.store.save("quick", trial(0, objectives={"output_throughput": 9.0}))
    file = Path(old.directory) / "trial-0.log"
    file.write_text("old", encoding="utf-8")
    studies.submit(job, restart=True)
    study, trials = studies.show("quick")
    assert (study.state, study.ended_at, trials) == (StudyState.PENDING, "", [])
    assert not file.exists()
