"""Presets: every shipped one is its engine's, and merging loses nothing without a word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.engines.catalog import load_catalog
from autotuner.engines.flags import check_flags
from autotuner.errors import ConfigError
from autotuner.shipped import shipped
from autotuner.study.domains import space_of
from autotuner.study.presets import (
    How,
    Preset,
    expand,
    find_preset,
    merged,
    preset_of,
    presets,
    written,
)
from autotuner.study.space import identity
from tests.builders import spec, study_content

VERSIONS = {"vllm": "0.32.0", "sglang": "0.5.23"}
SHIPPED = presets()


def preset(name: str, /, **parameters: Any) -> Preset:
    return preset_of({"parameters": {k.replace("_", "-"): v for k, v in parameters.items()}}, name)


def study(kind: Any = "vllm", **more: Any) -> dict[str, Any]:
    return study_content(engine={"kind": kind}, **more)


# What is shipped.


def test_the_goals_of_both_engines_and_the_predecessors_four_are_shipped() -> None:
    names = {each.name for each in SHIPPED}
    for engine in VERSIONS:
        assert {f"{engine}/{goal}" for goal in ("throughput", "latency", "balanced")} <= names
    found = {each.name: each for each in SHIPPED if each.name.startswith("system/")}
    assert {name: (each.engine, each.category) for name, each in found.items()} == {
        "system/memory-efficient": ("sglang", "memory"),
        "system/high-throughput": ("sglang", "performance"),
        "system/low-latency": ("sglang", "performance"),
        "system/balanced": ("sglang", "general"),
    }
    assert found["system/high-throughput"].parameters == {
        "tp-size": [2, 4],
        "mem-fraction-static": [0.9],
        "schedule-policy": ["fcfs"],
    }
    assert found["system/memory-efficient"].parameters == {
        "tp-size": [1],
        "mem-fraction-static": [0.7, 0.75],
    }


@pytest.mark.parametrize("each", SHIPPED, ids=lambda each: each.name)
def test_a_shipped_preset_is_one_its_engine_takes_and_small(each: Preset) -> None:
    assert each.engine is not None
    version = VERSIONS[each.engine]
    found = spec(engine={"kind": each.engine, "version": version}, space=dict(each.parameters))
    check_flags(found, load_catalog(each.engine, version), {})
    size = found.parameter_space.size()
    assert size is not None
    assert 1 < size <= 200


@pytest.mark.parametrize("each", SHIPPED, ids=lambda each: each.name)
def test_a_shipped_preset_says_why_for_itself_and_for_every_parameter(each: Preset) -> None:
    assert each.why
    lines = (shipped("presets") / f"{each.name}.yaml").read_text().splitlines()
    said = [lines[i - 1] for i, line in enumerate(lines) if re.match(r"  [a-z-]+:", line)]
    assert len(said) == len(each.parameters)
    assert all(line.startswith("  # ") for line in said)


# Finding.


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_preset_of_the_users_goes_before_a_shipped_one(tmp_path: Path) -> None:
    write(tmp_path / "vllm" / "latency.yaml", "engine: vllm\nparameters: {block_size: [16]}")
    write(tmp_path / "mine.json", '{"parameters": {"seed": [1]}, "engine": null}')
    assert find_preset("vllm/latency", [tmp_path]).parameters == {"block-size": [16]}
    assert find_preset("vllm/latency").parameters != {"block-size": [16]}
    mine = find_preset("mine", [tmp_path])
    assert (mine.name, mine.engine, mine.category) == ("mine", None, "general")
    names = [each.name for each in presets([tmp_path])]
    assert len(set(names)) == len(names) == len(SHIPPED) + 1


def test_a_path_is_a_preset_too(tmp_path: Path) -> None:
    path = write(
        tmp_path / "some.yaml", "why: because\nparameters: {x: {low: 1, high: 2, type: int}}"
    )
    assert find_preset(str(path)).why == "because"


def test_an_unknown_name_says_which_are_known() -> None:
    with pytest.raises(ConfigError) as caught:
        find_preset("vllm/thruput")
    assert "vllm/throughput" in caught.value.allowed
    assert "vllm/throughput" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("[1]", "", "mapping"),
        ("parameters: [", "presets", "cannot be read"),
        ("parameters: {a: 3}", "parameters", "3 is not a domain"),
        ("parameters: {a-b: [1], a_b: [2]}", "parameters", "another spelling"),
        ("why: x", "parameters", "must map"),
        ("runtime: vllm\nparameters: {}", "runtime", "unknown key"),
        ("engine: [vllm]\nparameters: {}", "engine", "must be a text"),
    ],
)
def test_what_is_no_preset_says_why_and_where(
    tmp_path: Path, text: str, where: str, problem: str
) -> None:
    path = write(tmp_path / "odd.yaml", text)
    with pytest.raises(ConfigError) as caught:
        find_preset(str(path))
    assert caught.value.file == str(path)
    assert caught.value.where == where
    assert problem in caught.value.problem


# Merging.

ONE = preset("one", a=[1, 2, True], b=["x"], c=[0.5])
TWO = preset("two", a=[2, 1.0, 3], b=["y"], d=[None])


def test_union_has_every_value_once_in_order() -> None:
    # As JSON: 1 is 1.0, and true is neither.
    found = merged([ONE, TWO], "union")
    assert found.parameters == {"a": [1, 2, True, 3], "b": ["x", "y"], "c": [0.5], "d": [None]}
    assert found.parameters["a"][2] is True
    assert found.conflicts == ()


def test_intersection_has_what_is_common_and_reports_the_rest() -> None:
    found = merged([ONE, TWO], "intersection")
    assert found.parameters == {"a": [1, 2]}
    assert found.conflicts == (
        "b: nothing in common; left out (one, two)",
        "c: only in one; left out",
        "d: only in two; left out",
    )


def test_the_last_wins() -> None:
    found = merged([ONE, TWO], How.LAST_WINS)
    assert found.parameters == {"a": [2, 1.0, 3], "b": ["y"], "c": [0.5], "d": [None]}
    assert found.conflicts == ()


def test_values_that_leave_a_flag_out_are_one() -> None:
    found = merged([preset("one", a=["", 1]), preset("two", a=[None, 2])])
    assert found.parameters == {"a": ["", 1, 2]}


def test_an_empty_list_adds_nothing_to_a_union() -> None:
    assert merged([preset("one", a=[]), preset("two", a=[1])]).parameters == {"a": [1]}
    assert merged([preset("one", a=[1]), preset("two", a=[])]).parameters == {"a": [1]}


def span(kind: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"type": kind, "low": low, "high": high, **more}


@pytest.mark.parametrize(
    ("one", "two", "union", "intersection"),
    [
        (span("int", 1, 4), span("int", 3, 8), span("int", 1, 8), span("int", 3, 4)),
        (span("float", 0, 1), span("float", 0.5, 2), span("float", 0, 2), span("float", 0.5, 1)),
        (span("int", 1, 9, log=True), span("int", 2, 20, log=True), None, None),
        (span("int", 0, 8, step=2), span("int", 4, 12, step=2), None, None),
        ([2, 3], span("int", 1, 4), span("int", 1, 4), [2, 3]),
        (span("int", 1, 4), [2, 30], "conflict", [2]),
        (span("int", 1, 2), span("int", 5, 6), "conflict", "conflict"),
        (span("int", 0, 8, step=2), span("int", 1, 9, step=2), "conflict", "conflict"),
        (span("int", 0, 8), span("float", 0, 8), "conflict", "conflict"),
    ],
)
def test_ranges_merge_by_their_ends_or_are_reported(
    one: Any, two: Any, union: Any, intersection: Any
) -> None:
    for how, expected in ((How.UNION, union), (How.INTERSECTION, intersection)):
        found = merged([preset("one", a=one), preset("two", a=two)], how)
        if expected == "conflict":
            assert len(found.conflicts) == 1
            assert found.parameters == ({"a": two} if how is How.UNION else {})
        else:
            assert found.conflicts == ()
            raw = found.parameters["a"]
            ends = (min, max) if how is How.UNION else (max, min)
            if expected is None:
                expected = {
                    **one,
                    "low": ends[0](one["low"], two["low"]),
                    "high": ends[1](one["high"], two["high"]),
                }
            assert raw == expected


def test_conditions_are_kept_and_different_ones_reported() -> None:
    def under(value: int, *values: Any) -> Preset:
        own = {"type": "choice", "values": list(values), "when": {"p": value}}
        return preset("under", p=[1, 2], a=own)

    same = merged([under(1, "x"), under(1, "y")])
    assert same.parameters["a"] == {"type": "choice", "values": ["x", "y"], "when": {"p": 1}}
    other = merged([under(1, "x"), under(2, "y")])
    assert other.parameters["a"]["values"] == ["y"]
    assert "different conditions" in other.conflicts[0]


def key(value: Any) -> str:
    return "" if value is None or value == "" else identity(value)


VALUES = st.lists(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "b", 1.0])),
    min_size=1,
    max_size=5,
    unique_by=lambda value: key(value),
)


@given(VALUES, VALUES)
def test_merging_lists_is_set_algebra(one: list[Any], two: list[Any]) -> None:
    def keys(values: list[Any]) -> set[str]:
        return {key(value) for value in values}

    both = [preset("one", a=one), preset("two", a=two)]
    union = merged(both).parameters["a"]
    assert keys(union) == keys(one) | keys(two)
    assert len(keys(union)) == len(union)
    common = merged(both, How.INTERSECTION)
    assert keys(common.parameters.get("a", [])) == keys(one) & keys(two)
    assert bool(common.conflicts) == (not keys(one) & keys(two))


@given(
    st.sampled_from(
        [
            [1, "a"],
            span("int", 1, 9),
            span("float", 0.5, 2.0, log=True),
            {"type": "choice", "values": [1], "when": {"p": [1, 2]}},
        ]
    )
)
def test_what_is_written_is_read_as_it_was(raw: Any) -> None:
    before = space_of({"p": [1, 2], "a": raw})
    again = space_of({each.name: written(each) for each in before.parameters})
    assert again == before


# In a study.


def test_a_study_without_presets_is_as_it_was() -> None:
    content = study(space={"a": [1]})
    assert expand(content) == (content, [])


def test_presets_go_under_the_own_space() -> None:
    content = study(
        presets=["vllm/throughput"],
        space={"max_num_seqs": [7], "stream-interval": [], "block-size": [16]},
    )
    found, notes = expand(content)
    own = find_preset("vllm/throughput").parameters
    assert found["space"]["max-num-seqs"] == [7]
    assert found["space"]["stream-interval"] == []
    assert found["space"]["block-size"] == [16]
    assert found["space"]["max-num-batched-tokens"] == own["max-num-batched-tokens"]
    assert notes == []
    assert found["presets"] == ["vllm/throughput"]
    assert expand(found) == (found, [])
    assert "stream-interval" not in spec(**found).parameter_space.names


def test_what_the_engine_fixes_is_not_varied() -> None:
    content = study(presets=["vllm/latency"])
    content["engine"]["arguments"] = {"tensor_parallel_size": 2}
    found, notes = expand(content)
    assert "tensor-parallel-size" not in found["space"]
    assert notes == [
        "tensor-parallel-size: fixed under engine, so the presets do not vary it",
    ]
    spec(**found)


def test_conflicts_are_reported() -> None:
    content = study(presets=["vllm/throughput", "vllm/latency"], merge="intersection")
    found, notes = expand(content)
    assert found["space"] == {
        "max-num-seqs": [128],
        "max-num-batched-tokens": [4096, 8192],
    }
    assert any(note.startswith("performance-mode: only in vllm/latency") for note in notes)


def test_several_engines_each_have_their_own_presets() -> None:
    content = study(
        ["vllm", "sglang"],
        presets=["vllm/latency", "sglang/latency"],
        space={"vllm": {"block-size": [16]}},
    )
    found, _ = expand(content)
    assert set(found["space"]) == {"vllm", "sglang"}
    assert found["space"]["sglang"] == find_preset("sglang/latency").parameters
    assert found["space"]["vllm"] == {
        **find_preset("vllm/latency").parameters,
        "block-size": [16],
    }
    spec(**found)


def test_a_preset_of_another_engine_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        expand(study("vllm", presets=["sglang/latency"]))
    assert caught.value.where == "presets"
    assert "vllm/latency" in caught.value.allowed
    assert not [name for name in caught.value.allowed if name.startswith("sglang")]


@pytest.mark.parametrize(
    "more",
    [
        {"presets": "vllm/latency"},
        {"presets": [1]},
        {"presets": ["vllm/latency"], "merge": "best"},
        {"presets": ["vllm/latency"], "space": [1]},
        {"presets": ["vllm/latency"], "engine": "vllm"},
    ],
)
def test_what_is_no_list_of_presets_is_left_for_the_studys_own_check(more: dict[str, Any]) -> None:
    content = {**study(), **more}
    assert expand(content) == (content, [])
