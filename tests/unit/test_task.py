"""The earlier system's tasks as studies: the same question, and a word on all that changed."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from autotuner.engines.flags import catalog_of, check_flags, flag_values
from autotuner.errors import ConfigError
from autotuner.study.loading import plain
from autotuner.study.spec import StudySpec
from autotuner.study.task import is_task, parse_values, split_list, study_of_task
from tests.builders import study_content

TASKS = Path(__file__).parent.parent / "data" / "tasks"
NAMES = sorted(path.stem for path in TASKS.glob("*.json"))

# Different launches of each, as the predecessor counted its experiments; None for ranges.
COUNTS = {
    "bayesian_task": None,
    "docker_task": 2,
    "docker_task_advanced": 12,
    "docker_task_with_slo": 3,
    "form_task": 2 * 2 * 2 * 505,
    "quant_custom_task": 12,
    "quant_multi_preset_task": 3,
    "quant_preset_task": 1,
    "simple_task": 3,
    "tuning_task": 4,
}


def task(name: str = "docker_task") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((TASKS / f"{name}.json").read_text())
    return content


def converted(**changes: Any) -> dict[str, Any]:
    return study_of_task({**task(), **changes}).content


def notes(**changes: Any) -> list[str]:
    return study_of_task({**task(), **changes}).notes


def benchmark(**changes: Any) -> dict[str, Any]:
    content = {**task(), "benchmark": {**task()["benchmark"], **changes}}
    workload: dict[str, Any] = study_of_task(content).content["workload"]
    return workload


# Whole tasks.


@pytest.mark.parametrize("name", NAMES)
def test_a_task_becomes_the_study_that_is_expected(name: str) -> None:
    text = (TASKS / "studies" / f"{name}.yaml").read_text()
    assert study_of_task(task(name)).content == plain(YAML(typ="safe", pure=True).load(text))


@pytest.mark.parametrize("name", NAMES)
def test_the_study_is_valid_and_as_large_as_the_task_was(name: str) -> None:
    found = StudySpec.model_validate(study_of_task(task(name)).content)
    check_flags(found, catalog_of(found), {})
    assert found.parameter_space.size() == COUNTS[name]


def test_three_presets_without_parameters_are_three_different_launches() -> None:
    found = StudySpec.model_validate(study_of_task(task("quant_multi_preset_task")).content)
    launched = [flag_values(found, point) for point in found.parameter_space.points()]
    assert launched == [
        {},
        {"kv-cache-dtype": "fp8_e5m2"},
        {"quantization": "fp8", "kv-cache-dtype": "fp8_e5m2"},
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_told_from_a_study(name: str) -> None:
    assert is_task(task(name))
    assert not is_task(study_of_task(task(name)).content)
    assert not is_task(study_content())
    assert not is_task([task(name)])


WHOLE = ("parameters.", "quant_config.", "benchmark.", "optimization.", "slo.t", "slo.latency.")


def leaves(node: Any, path: str = "") -> list[str]:
    """Paths of the keys of a task as its notes spell them, down to what is taken as one."""
    whole = path.startswith((*WHOLE, "system_config"))
    if isinstance(node, dict) and node and not whole:
        return [leaf for k, v in node.items() for leaf in leaves(v, f"{path}.{k}".lstrip("."))]
    return [path] if node not in (None, "", {}, []) else []


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_task_is_kept_or_has_a_note(name: str) -> None:
    said = "\n".join(study_of_task(task(name)).notes)
    same = {"description", "benchmark.task", "slo.steepness"}
    if name != "form_task":
        same.add("benchmark.model_tokenizer")  # where it is the model's own
    if study_of_task(task(name)).content["name"] == task(name)["task_name"]:
        same.add("task_name")
    for leaf in leaves(task(name)):
        assert leaf in same or leaf in said, leaf


def test_what_has_no_place_here_is_named_with_its_value() -> None:
    found = notes(system_config={"gpu_type": "h100"}, metadata={}, priority=7)
    assert any(line.startswith("priority: left out") and "7" in line for line in found)
    assert any(line.startswith("system_config: left out") for line in found)
    assert not any(line.startswith("metadata") for line in found)


def test_the_names_of_the_predecessors_database_are_taken_too() -> None:
    stored = task()
    for old, new in (("model", "model_config"), ("benchmark", "benchmark_config")):
        stored[new] = stored.pop(old)
    assert study_of_task(stored).content == study_of_task(task()).content


# Name, engine, model, place.


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("docker-simple", "docker-simple"),
        ("My Task_2 (night)", "my-task-2-night"),
        ("--", "task"),
        ("x" * 62 + "_yz", "x" * 62),
        ("Ünï", "n"),
    ],
)
def test_a_name_becomes_a_studys_name(said: str, name: str) -> None:
    found = converted(task_name=said)
    assert found["name"] == name
    told = any(line.startswith("task_name") for line in notes(task_name=said))
    assert told == (name != said), "no note where nothing changed"
    StudySpec.model_validate(found)


@pytest.mark.parametrize(
    ("runtime", "tag", "engine"),
    [
        ("sglang", None, {"kind": "sglang"}),
        ("SGLang-v2", "nightly", {"kind": "sglang", "image": "lmsysorg/sglang:nightly"}),
        (
            "vllm",
            "v0.10.0",
            {"kind": "vllm", "version": "0.10.0", "image": "vllm/vllm-openai:v0.10.0"},
        ),
    ],
)
def test_the_engine_is_found_by_its_beginning_and_its_image_by_the_tag(
    runtime: str, tag: str | None, engine: dict[str, Any]
) -> None:
    found = converted(base_runtime=runtime, runtime_image_tag=tag, parameters={})
    assert found["engine"] == engine


def test_the_tokenizer_is_said_only_where_it_is_another() -> None:
    own = {"id_or_path": "org/model"}
    found = study_of_task(
        {
            **task(),
            "model": own,
            "benchmark": {**task()["benchmark"], "model_tokenizer": "org/model"},
        }
    ).content
    assert "tokenizer" not in found["model"]


def test_a_namespace_belongs_to_kubernetes() -> None:
    assert converted(deployment_mode="ome")["backend"] == {
        "kind": "ome",
        "ome": {"namespace": "autotuner"},
    }
    assert converted()["backend"] == {"kind": "docker"}
    assert any(line.startswith("model.namespace: left out") for line in notes())


# Parameters.


@pytest.mark.parametrize(
    ("said", "domain"),
    [
        ([1, 2], [1, 2]),
        ({"type": "choice", "values": ["a", True]}, ["a", True]),
        ({"type": "categorical", "values": [1, 2.5]}, [1, 2.5]),
        ({"values": [1, 2]}, [1, 2]),
        (
            {"type": "continuous", "low": 0.1, "high": 0.9},
            {"type": "float", "low": 0.1, "high": 0.9},
        ),
        (
            {"type": "integer", "low": 1, "high": 9, "log": True},
            {"type": "int", "low": 1, "high": 9, "log": True},
        ),
        ([True, False], [True, False]),
        (["", "x"], ["", "x"]),
        ([1, 1, 2], [1, 2]),
    ],
)
def test_every_format_of_a_parameter_is_a_domain(said: Any, domain: Any) -> None:
    found = converted(parameters={"--some_flag": said})
    assert json.dumps(found["space"]) == json.dumps({"some-flag": domain})
    StudySpec.model_validate(found)


@pytest.mark.parametrize("said", [[4], 4, {"type": "choice", "values": [4]}])
def test_one_value_is_fixed_so_that_the_baseline_has_it_too(said: Any) -> None:
    found = converted(parameters={"tp-size": said})
    assert found["engine"]["arguments"] == {"tp-size": 4}
    assert found["space"] == {}


@pytest.mark.parametrize("said", [[], [""], [None], {"type": "choice", "values": []}, ""])
def test_no_value_leaves_the_flag_out_and_never_empties_the_space(said: Any) -> None:
    found = converted(parameters={"a": [1, 2], "b": said})
    assert found["space"] == {"a": [1, 2]}
    assert "b" not in found["engine"].get("arguments", {})
    assert any("parameters.b: left out" in line for line in notes(parameters={"b": said}))


@pytest.mark.parametrize(
    "spelled", ["tp-size", "tp_size", "--tp-size", "tensor-parallel-size", "tp"]
)
def test_the_number_of_gpus_has_the_engines_own_name(spelled: str) -> None:
    for runtime, name in (("sglang", "tp-size"), ("vllm", "tensor-parallel-size")):
        found = converted(base_runtime=runtime, parameters={spelled: [1, 2]})
        assert found["space"] == {name: [1, 2]}


# Load.


@pytest.mark.parametrize(
    "said",
    [
        ["D(100,100)", "N(480,240)/(300,150)"],
        "D(100,100), N(480,240)/(300,150)",
        ["D(100,100),N(480,240)/(300,150)"],
        ["D(100", "100)", "N(480", "240)/(300", "150)"],
        ["D(100, 100)", "N(480, 240) / (300, 150)", "D(100,100)"],
    ],
)
def test_scenarios_are_parted_outside_their_brackets(said: Any) -> None:
    assert benchmark(traffic_scenarios=said)["scenarios"] == ["D(100,100)", "N(480,240)/(300,150)"]


@pytest.mark.parametrize("said", [[1, 4], ["1", "4"], "1, 4", [1, 4, 4]])
def test_concurrency_is_whole_numbers(said: Any) -> None:
    assert benchmark(num_concurrency=said)["concurrency"] == [1, 4]
    assert benchmark(num_concurrency=8)["concurrency"] == [8]


def test_minutes_become_seconds_and_it_is_said() -> None:
    assert benchmark(max_time_per_iteration=2)["max_seconds"] == 120
    changed = {**task()["benchmark"], "max_time_per_iteration": 2}
    assert any("2 (minutes) -> workload.max_seconds 120" in n for n in notes(benchmark=changed))


@pytest.mark.parametrize(
    ("said", "request_fields"),
    [
        ({"temperature": 0.0, "max_tokens": 256}, {"temperature": 0.0, "max_tokens": 256}),
        ({"temperature": "0.0", "top_k": "-1"}, {"temperature": 0.0, "top_k": -1}),
        ({"stop": "a, b", "echo": "true"}, {"stop": "a, b", "echo": True}),
        ('{"temperature": "0.7"}', {"temperature": 0.7}),
        ({"stop": '"7"'}, {"stop": '"7"'}),
        ({"ignore_eos": True}, {"ignore_eos": True}),
    ],
)
def test_request_fields_are_of_the_types_an_engine_compares(
    said: Any, request_fields: dict[str, Any]
) -> None:
    found = benchmark(additional_params=said)["request"]
    assert json.dumps(found) == json.dumps(request_fields)


def test_nothing_to_add_adds_nothing() -> None:
    for said in (None, {}, "", {"ignore_eos": False}):
        assert "request" not in benchmark(additional_params=said)


# Search and service levels.


@pytest.mark.parametrize(
    ("said", "search", "limits"),
    [
        ({}, {"kind": "grid"}, None),
        ({"strategy": "grid_search", "max_iterations": 7}, {"kind": "grid"}, {"trials": 7}),
        ({"strategy": "random"}, {"kind": "random"}, {"trials": 100}),
        (
            {"strategy": "bayesian", "n_initial_random": 3, "timeout_per_iteration": 1200},
            {"kind": "optuna", "startup_trials": 3},
            {"trials": 100, "trial_seconds": 1200},
        ),
    ],
)
def test_a_strategy_is_a_searcher(
    said: dict[str, Any], search: dict[str, Any], limits: dict[str, Any] | None
) -> None:
    found = converted(optimization=said)
    assert found["search"] == search
    assert found.get("limits") == limits
    assert found["objectives"] == ["e2e_latency_mean"]


@pytest.mark.parametrize(
    ("said", "metric"),
    [
        ("minimize_latency", "e2e_latency_mean"),
        ("maximize_throughput", "total_throughput"),
        ("minimize_ttft", "ttft_mean"),
        ("minimize_tpot", "tpot_mean"),
    ],
)
def test_an_objective_is_a_metric(said: str, metric: str) -> None:
    assert converted(optimization={"objective": said})["objectives"] == [metric]


def test_service_levels_are_penalties_as_they_were() -> None:
    row = {"threshold": 2.0, "weight": 1.0, "hard_fail": False, "fail_ratio": 0.5}
    found = converted(slo={"latency": {"p50": row}, "ttft": {"threshold": 1.0}, "steepness": 0.2})
    assert found["slo"] == {
        "mode": "penalty",
        "steepness": 0.2,
        "e2e_latency_p50": {"max": 2.0, "weight": 1.0, "hard": False, "fail_ratio": 0.5},
        "ttft_mean": {"max": 1.0},
    }
    assert StudySpec.model_validate(found).slo is not None


@pytest.mark.parametrize("said", [None, {}, {"steepness": 0.1}, {"ttft": {"weight": 2.0}}])
def test_service_levels_without_a_bound_are_none(said: Any) -> None:
    assert "slo" not in converted(slo=said)


# Mistakes.


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"task_name": None}, "task_name"),
        ({"model": {}}, "model.id_or_path"),
        ({"model": "llama"}, "model"),
        ({"base_runtime": "trt"}, "base_runtime"),
        ({"deployment_mode": "slurm"}, "deployment_mode"),
        ({"parameters": {"a": {"type": "loguniform"}}}, "parameters.a.type"),
        ({"parameters": {"a-b": [1], "a_b": [2]}}, "parameters"),
        ({"parameters": {"tp": [1], "tp-size": [2]}}, "parameters"),
        ({"optimization": {"strategy": "genetic"}}, "optimization.strategy"),
        ({"optimization": {"objective": "balanced"}}, "optimization.objective"),
        ({"quant_config": {"gemm": "fp8", "gemm_dtype": "fp8"}}, "quant_config"),
        ({"slo": {"latency": 3}}, "slo.latency"),
    ],
)
def test_what_is_no_task_says_where(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        converted(**changes)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("task", "text-to-image"),
        ("traffic_scenarios", []),
        ("num_concurrency", None),
        ("num_concurrency", ["many"]),
        ("num_concurrency", [1.5]),
        ("max_time_per_iteration", "long"),
        ("additional_params", "{"),
        ("additional_params", [1]),
    ],
)
def test_what_is_no_benchmark_says_where(key: str, said: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        benchmark(**{key: said})
    assert caught.value.where == f"benchmark.{key}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=4) | st.just(0.5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(node: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = (
        [p for k, v in node.items() for p in places(v, (*path, k))]
        if isinstance(node, dict)
        else []
    )
    return [path, *below] if path else below


@given(st.sampled_from(NAMES), st.data())
@settings(max_examples=300)
def test_whatever_stands_in_a_task_is_converted_or_is_the_users_to_mend(
    name: str, data: st.DataObject
) -> None:
    odd = copy.deepcopy(task(name))
    *above, last = data.draw(st.sampled_from(places(odd)))
    node = odd
    for key in above:
        node = node[key]
    node[last] = data.draw(JSON)
    before = copy.deepcopy(odd)
    with contextlib.suppress(ConfigError):
        study_of_task(odd)
    assert odd == before


# Values as people type them.


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1, 2,4", [1, 2, 4]),
        ("0.7, 1e-3, .5, -2", [0.7, 0.001, 0.5, -2]),
        ("auto, True, 0.8, FALSE", ["auto", True, 0.8, False]),
        (
            "4bit, 127.0.0.1, 1_000, inf, nan, 0x10",
            ["4bit", "127.0.0.1", "1_000", "inf", "nan", "0x10"],
        ),
        (" , ,fcfs,", ["fcfs"]),
        ("", []),
        ("\"1\", 'true'", ["1", "true"]),
        ("1e999", ["1e999"]),
        ("1" * 400, ["1" * 400]),
        ("1., 1e3, ٣", [1.0, 1000.0, "٣"]),
    ],
)
def test_each_value_is_what_the_whole_of_it_is(text: str, values: list[Any]) -> None:
    found = parse_values(text)
    assert [(type(v), v) for v in found] == [(type(v), v) for v in values]


def test_brackets_keep_their_commas() -> None:
    assert split_list("D(100,100), D(200,200)") == ["D(100,100)", "D(200,200)"]
    assert split_list("N(480,240)/(300,150),U(1,2)/(3,4)") == [
        "N(480,240)/(300,150)",
        "U(1,2)/(3,4)",
    ]
    assert split_list("a),b") == ["a)", "b"]


@given(
    st.lists(
        st.one_of(
            st.integers(-(10**17), 10**17),
            st.floats(0, 1),
            st.booleans(),
            st.sampled_from(["auto", "4bit", "x y"]),
        )
    )
)
def test_what_is_typed_from_values_gives_the_values(values: list[Any]) -> None:
    found = parse_values(", ".join(str(value) for value in values))
    assert [(type(v), v) for v in found] == [(type(v), v) for v in values]
