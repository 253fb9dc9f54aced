"""The study's models: defaults, strictness, domains and what follows from them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from autotuner.study.domains import canonical_keys, environment_text, space_of
from autotuner.study.metrics import METRICS
from autotuner.study.space import Choice, Float, Int
from autotuner.study.spec import StudySpec
from autotuner.study.workload import scenario
from tests.builders import spec, study_content


def problem(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        spec(**changes)
    return str(caught.value)


def test_a_small_study_gets_its_defaults() -> None:
    study = spec()
    assert study.backend.kind == "process"
    assert study.search.kind == "optuna"
    assert study.objectives == ["output_throughput"]
    assert study.space == {}
    assert study.constraints == {}
    assert study.budget == 20
    assert study.workload.max_error_rate == 0.05
    assert study.model.served_name == "tiny"
    assert study.tokenizer == "/models/tiny"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/tiny", "tiny"),
        ("/models/tiny/", "tiny"),
        ("Qwen/Qwen3-8B", "Qwen3-8B"),
        ("gpt2", "gpt2"),
    ],
)
def test_the_served_name_is_the_last_segment_of_the_path(path: str, name: str) -> None:
    assert spec(model={"path": path}).model.served_name == name
    assert spec(model={"path": path, "served_name": "mine"}).model.served_name == "mine"


def test_a_tokenizer_of_its_own_is_kept() -> None:
    assert spec(model={"path": "/m", "tokenizer": "/t"}).tokenizer == "/t"


@pytest.mark.parametrize("name", ["a", "a-1", "0", "a" * 63])
def test_a_name_of_small_letters_digits_and_dashes_is_allowed(name: str) -> None:
    assert spec(name=name).name == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a b", "a" * 64, "a\n", "a/b"])
def test_another_name_is_refused(name: str) -> None:
    assert "name" in problem(name=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"nmae": "x"},
        {"model": {"path": "/m", "pth": "x"}},
        {"engine": {"kind": "vllm", "argments": {}}},
        {"workload": {"scenarios": ["D(1,2)"], "concurrency": [1], "warmup": 3}},
        {"limits": {"hour": 3}},
    ],
    ids=str,
)
def test_an_unknown_key_is_an_error(changes: dict[str, Any]) -> None:
    assert "Extra inputs are not permitted" in problem(**changes)


def test_keys_of_a_kind_are_carried_along() -> None:
    study = spec(
        search={"kind": "optuna", "startup_trials": 7},
        backend={"kind": "ome", "ome": {"gpus": 2}, "docker": {"network": "bridge"}},
    )
    assert study.search.options == {"startup_trials": 7}
    assert study.backend.options == {"gpus": 2}


@pytest.mark.parametrize(
    "workload",
    [
        {"concurrency": ["4"]},
        {"concurrency": [0]},
        {"concurrency": [4.5]},
        {"concurrency": [True]},
        {"concurrency": []},
        {"concurrency": 4},
        {"concurrency": [4, 4]},
        {"scenarios": []},
        {"scenarios": ["D(1,2)", "D(1,2)"]},
        {"max_requests": 0},
        {"max_seconds": 0},
        {"max_seconds": "60"},
        {"warmup_requests": -1},
        {"max_error_rate": 1.5},
    ],
    ids=str,
)
def test_a_workload_that_measures_nothing_is_refused(workload: dict[str, Any]) -> None:
    problem(workload={"scenarios": ["D(1,2)"], "concurrency": [1], **workload})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "changes",
    [
        lambda value: {"constraints": {"ttft_p99": value}},
        lambda value: {"limits": {"hours": value}},
        lambda value: {
            "workload": {"scenarios": ["D(1,2)"], "concurrency": [1], "max_seconds": value}
        },
    ],
    ids=["constraint", "hours", "max_seconds"],
)
def test_a_number_that_is_not_finite_is_refused(changes: Any, value: float) -> None:
    problem(**changes(value))


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("D(100,20)", (100, 20)),
        ("N(480,240)/(300,150)", (480, 300)),
        ("U(50,100)/(200,250)", (75, 225)),
    ],
)
def test_a_scenario_of_the_grammar_has_its_means(text: str, means: tuple[float, float]) -> None:
    parsed = scenario(text)
    assert (parsed.input_tokens, parsed.output_tokens) == means


@pytest.mark.parametrize(
    "text",
    [
        "",
        "D(100)",
        "D(100, 20)",
        "d(100,20)",
        "X(1,2)",
        "U(50,100)",
        "U(100,50)/(1,2)",
        "U(1,2)/(9,4)",
        "D(0,20)",
        "D(100,1)",
        "D(100,20)x",
        "D(-1,20)",
        "N(1,2)",
        "I(512,512)",
    ],
)
def test_a_scenario_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"traffic scenario|minimum|tokens"):
        scenario(text)


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    text = problem(constraints={"throughput": 1.0})
    assert "'throughput' is not a metric" in text
    assert all(name in text for name in METRICS)
    text = problem(objectives=["throughput"])
    assert "'throughput' is not a metric; did you mean" in text
    assert "output_throughput" in text


def test_an_objective_is_listed_once() -> None:
    assert "listed twice" in problem(objectives=["ttft_p99", "ttft_p99"])
    problem(objectives=[])


@pytest.mark.parametrize(
    ("raw", "domain"),
    [
        ([1, 2], Choice((1, 2))),
        ([True, False], Choice((True, False))),
        (["8k", None, ""][:2], Choice(("8k", None))),
        ([1], Choice((1,))),
        ([{"mode": 3}, {}], Choice(({"mode": 3}, {}))),
        ([[1, 2], [4]], Choice(([1, 2], [4]))),
        ({"type": "choice", "values": [1, 2]}, Choice((1, 2))),
        ({"type": "categorical", "values": [1, 2]}, Choice((1, 2))),
        ({"values": [1, 2]}, Choice((1, 2))),
        ({"type": "int", "low": 1, "high": 9}, Int(1, 9)),
        ({"type": "integer", "low": 1, "high": 9, "step": 2}, Int(1, 9, step=2)),
        ({"type": "int", "low": 1, "high": 9, "log": True}, Int(1, 9, log=True)),
        ({"type": "float", "low": 0, "high": 1}, Float(0.0, 1.0)),
        ({"type": "continuous", "low": 0.5, "high": 0.9}, Float(0.5, 0.9)),
        ({"type": "float", "low": 0.5, "high": 0.9, "step": 0.1}, Float(0.5, 0.9, step=0.1)),
        ({"type": "float", "low": 0.1, "high": 1, "log": True}, Float(0.1, 1.0, log=True)),
        ({"type": "float", "low": 0.1, "high": 1, "step": None}, Float(0.1, 1.0)),
    ],
    ids=str,
)
def test_every_form_of_a_domain_is_read(raw: Any, domain: Any) -> None:
    (parameter,) = space_of({"a": raw}).parameters
    assert parameter.domain == domain
    assert type(parameter.domain) is type(domain)


def test_values_keep_their_json_types() -> None:
    values = [1, 1.5, "1", True, None, {"a": [1]}, ["x"]]
    (parameter,) = space_of({"a": values}).parameters
    assert isinstance(parameter.domain, Choice)
    kept = parameter.domain.values
    assert [type(value) for value in kept] == [type(value) for value in values]


@pytest.mark.parametrize("raw", [[], {"values": []}, {"type": "categorical", "values": []}])
def test_an_empty_list_is_not_tuned_and_never_zero_trials(raw: Any) -> None:
    assert space_of({"a": [1], "b": raw}).size() == 1
    assert space_of({"a": [1, 2], "b": raw, "c": [1, 2], "d": raw}).size() == 4
    assert list(space_of({"b": raw}).points()) == [{}]


def test_an_empty_space_is_exactly_one_point() -> None:
    assert spec(space={}).parameter_space.size() == 1


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (5, "5 is not a domain"),
        (True, "True is not a domain"),
        ("auto", "'auto' is not a domain"),
        (None, "None is not a domain"),
        ({"low": 1, "high": 2}, "allowed: choice, int, float"),
        ({"type": "range", "low": 1, "high": 2}, "type 'range' is not"),
        ({"type": "int", "low": 1}, "high must be a number of type int, not None"),
        ({"type": "int", "high": 1}, "low must be a number of type int, not None"),
        ({"type": "int", "low": 1.5, "high": 2}, "1.5"),
        ({"type": "int", "low": True, "high": 2}, "True"),
        ({"type": "int", "low": "1", "high": 2}, "'1'"),
        ({"type": "float", "low": "0.5", "high": 2}, "'0.5'"),
        ({"type": "int", "low": 3, "high": 2}, "low 3 is above high 2"),
        ({"type": "int", "low": 1, "high": 2, "step": 0}, "step must be above 0"),
        ({"type": "float", "low": 1, "high": 2, "step": -0.1}, "step must be above 0"),
        ({"type": "int", "low": 0, "high": 2, "log": True}, "low above 0"),
        ({"type": "int", "low": 1, "high": 9, "log": True, "step": 2}, "no step"),
        ({"type": "float", "low": 1, "high": 9, "log": "yes"}, "'yes'"),
        ({"type": "int", "low": 1, "high": 2, "values": [1]}, "unknown key 'values'"),
        ({"values": [1], "low": 1}, "unknown key 'low'"),
        ({"type": "choice", "values": 4}, "must be a list, not 4"),
        ({"type": "choice"}, "must be a list, not None"),
        ([1, 1.0], "listed twice"),
        ([None, None], "listed twice"),
        ([None, ""], "listed twice"),
        ({"values": [1], "when": "b"}, "not 'b'"),
        ({"values": [1], "when": {"b": 1}}, "'b', which does not vary"),
        ({"values": [1], "when": {"a": 1}}, "circle"),
    ],
    ids=str,
)
def test_a_wrong_domain_is_refused_with_its_value(raw: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        space_of({"a": raw})
    assert said in str(caught.value)


def test_true_and_one_are_different_choices() -> None:
    assert space_of({"a": [True, 1, "1"]}).size() == 3


def test_every_spelling_of_a_parameter_is_its_canonical_name() -> None:
    study = spec(
        space={"--max_num_seqs": [1, 2], "block_size": {"values": [1], "when": {"max_num_seqs": 2}}}
    )
    assert study.parameter_space.names == ("max-num-seqs", "block-size")
    assert list(study.space) == ["max-num-seqs", "block-size"]
    assert study.parameter_space.size() == 2


def test_two_spellings_of_one_name_are_refused() -> None:
    assert "another spelling" in problem(space={"a-b": [1], "a_b": [2]})
    assert "another spelling" in problem(
        engine={"kind": "vllm", "arguments": {"--a-b": 1, "a_b": 2}}
    )
    with pytest.raises(ValueError, match="another spelling"):
        canonical_keys({"--x": 1, "x": 2})


def test_parents_come_before_their_children_and_keep_the_file_order() -> None:
    space = space_of(
        {
            "c": {"values": [1], "when": {"b": 2}},
            "a": [1, 2, 3],
            "b": {"values": [2], "when": {"a": [1, 3]}},
        }
    )
    assert space.names == ("a", "b", "c")
    assert space.parameters[1].when == {"a": (1, 3)}


def test_a_condition_that_can_never_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="3"):
        space_of({"a": [1, 2], "b": {"values": [1], "when": {"a": [1, 3]}}})


def test_conditions_in_a_circle_are_refused() -> None:
    raw = {"a": {"values": [1], "when": {"b": 1}}, "b": {"values": [1], "when": {"a": 1}}}
    assert "circle" in problem(space=raw)


def test_a_flag_is_fixed_or_varied_but_not_both() -> None:
    text = problem(
        engine={"kind": "vllm", "arguments": {"--max-num-seqs": 4}}, space={"max_num_seqs": [1]}
    )
    assert "'max-num-seqs' is both fixed under engine and varied" in text
    text = problem(engine={"kind": "vllm", "environment": {"X": "1"}}, space={"env:X": [1]})
    assert "'env:X' is both fixed" in text


def test_a_fixed_flag_that_is_not_tuned_here_is_no_conflict() -> None:
    study = spec(
        engine={"kind": "vllm", "arguments": {"max-num-seqs": 4}}, space={"max-num-seqs": []}
    )
    assert study.engine.arguments == {"max-num-seqs": 4}


def test_fixed_arguments_keep_their_json_types_under_canonical_names() -> None:
    arguments = {"--compilation_config": {"mode": 3, "sizes": [1, 2]}, "a_b": 1.0, "c": None}
    study = spec(engine={"kind": "vllm", "arguments": arguments})
    assert study.engine.arguments == {
        "compilation-config": {"mode": 3, "sizes": [1, 2]},
        "a-b": 1.0,
        "c": None,
    }
    assert isinstance(study.engine.arguments["a-b"], float)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "1"), (False, "0"), (3, "3"), (0.5, "0.5"), ("x y", "x y"), ("", "")]
)
def test_an_environment_variable_is_text(value: Any, text: str) -> None:
    assert environment_text(value) == text
    engine = {"kind": "vllm", "environment": {"X": value}}
    assert spec(engine=engine).engine.environment == {"X": text}


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_a_structure_cannot_be_an_environment_variable(value: Any) -> None:
    problem(engine={"kind": "vllm", "environment": {"X": value}})


@pytest.mark.parametrize(
    ("search", "budget"),
    [
        ({"kind": "grid"}, None),
        ({"kind": "grid", "trials": 3}, 3),
        ({"kind": "random"}, 20),
        ({"kind": "optuna", "trials": 50}, 50),
    ],
)
def test_the_budget_is_the_whole_grid_or_twenty_trials(
    search: dict[str, Any], budget: int | None
) -> None:
    assert spec(search=search).budget == budget


def test_load_points_are_each_scenario_at_each_concurrency() -> None:
    study = spec(
        workload={
            "scenarios": ["D(100,20)", "D(50,10)"],
            "concurrency": [1, 8],
            "max_requests": 30,
            "max_seconds": 9,
            "request": {"temperature": 0, "stop": None},
        },
        search={"kind": "random", "seed": 2},
    )
    loads = study.loads()
    assert [load.name for load in loads] == [
        "D(100,20) x 1",
        "D(100,20) x 8",
        "D(50,10) x 1",
        "D(50,10) x 8",
    ]
    assert [load.index for load in loads] == [0, 1, 2, 3]
    assert [load.warmup_requests for load in loads] == [4, 8, 4, 8]
    assert [load.seed for load in loads] == [2000, 2001, 2002, 2003]
    assert {(load.max_requests, load.max_seconds) for load in loads} == {(30, 9.0)}
    assert all(load.request == {"temperature": 0, "stop": None} for load in loads)


def test_no_warmup_can_be_asked_for() -> None:
    work = {"scenarios": ["D(100,20)"], "concurrency": [8], "warmup_requests": 0}
    assert spec(workload=work).loads()[0].warmup_requests == 0


def test_a_study_read_back_from_its_own_json_is_equal() -> None:
    study = spec(
        space={
            "a": [1, None, True, "x", {"y": [1.5]}],
            "b": {"type": "int", "low": 1, "high": 8, "when": {"a": 1}},
            "env:X": [0, 1],
        },
        constraints={"ttft_p99": 0.5},
        search={"kind": "optuna", "startup_trials": 3},
    )
    again = StudySpec.model_validate(study.model_dump(mode="json"))
    assert again == study
    assert again.parameter_space == study.parameter_space
    assert again.search.options == {"startup_trials": 3}


@pytest.mark.parametrize("block", ["name", "model", "engine", "workload"])
def test_what_a_study_cannot_do_without_is_missed(block: str) -> None:
    content = study_content()
    del content[block]
    with pytest.raises(ValidationError, match="Field required"):
        StudySpec.model_validate(content)
