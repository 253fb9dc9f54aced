"""The search space: names, identities, domains, conditions, counting and sampling."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.study.space import (
    Choice,
    Float,
    Int,
    Parameter,
    Space,
    canonical_name,
    identity,
    point_key,
    same,
)

JSON_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(-1e6, 1e6)
    | st.text(max_size=5)
)
JSON_VALUES = st.recursive(
    JSON_SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("max-num-seqs", "max-num-seqs"),
        ("--max-num-seqs", "max-num-seqs"),
        ("--max_num_seqs", "max-num-seqs"),
        ("max_num_seqs", "max-num-seqs"),
        ("-tp", "tp"),
        ("env:VLLM_USE_V1", "env:VLLM_USE_V1"),
        ("--compilation_config.cudagraph_mode", "compilation-config.cudagraph_mode"),
    ],
)
def test_every_spelling_of_a_name_is_one_name(written: str, canonical: str) -> None:
    assert canonical_name(written) == canonical
    assert canonical_name(canonical) == canonical


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (False, 0, False),
        (None, "", False),
        ("1", 1, False),
        (-0.0, 0, True),
        ([1, 2], [2, 1], False),
        ([1, 2.0], [1.0, 2], True),
        ({"a": 1, "b": [True]}, {"b": [True], "a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        (10**20, 1e20, True),
    ],
)
def test_values_are_the_same_as_json_values_are(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal


@given(JSON_VALUES, JSON_VALUES)
def test_identity_is_shared_exactly_by_values_with_the_same_json(one: Any, other: Any) -> None:
    def numbers(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, list):
            return [numbers(each) for each in value]
        if isinstance(value, dict):
            return {key: numbers(each) for key, each in value.items()}
        return value

    ours = identity(one) == identity(other)
    theirs = json.dumps(numbers(one), sort_keys=True) == json.dumps(numbers(other), sort_keys=True)
    assert ours == theirs


def test_a_point_is_known_whatever_the_order_of_its_parameters() -> None:
    assert point_key({"a": 1, "b": 2}) == point_key({"b": 2.0, "a": 1})


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_value_that_leaves_a_flag_out_is_the_same_point_as_its_absence(nothing: Any) -> None:
    assert point_key({"a": nothing, "b": 1}) == point_key({"b": 1})
    assert point_key({"a": nothing}) == point_key({})


@pytest.mark.parametrize("kept", [False, 0, [], {}])
def test_a_value_that_says_something_is_part_of_the_point(kept: Any) -> None:
    assert point_key({"a": kept}) != point_key({})


def test_an_empty_space_is_exactly_one_point() -> None:
    assert Space().size() == 1
    assert list(Space().points()) == [{}]
    assert Space().sample(random.Random(0)) == {}


def test_points_come_in_the_order_of_the_file_the_last_parameter_fastest() -> None:
    space = Space((Parameter("b", Choice((2, 1))), Parameter("a", Choice(("x", None)))))
    assert list(space.points()) == [
        {"b": 2, "a": "x"},
        {"b": 2, "a": None},
        {"b": 1, "a": "x"},
        {"b": 1, "a": None},
    ]
    assert space.size() == 4
    assert space.names == ("b", "a")


@pytest.mark.parametrize(
    ("domain", "grid"),
    [
        (Int(1, 4), (1, 2, 3, 4)),
        (Int(1, 8, step=3), (1, 4, 7)),
        (Int(5, 5), (5,)),
        (Int(1, 4, log=True), (1, 2, 3, 4)),
        (Float(0.5, 0.7, step=0.1), (0.5, 0.6, 0.7)),
        (Float(0.5, 0.75, step=0.1), (0.5, 0.6, 0.7)),
        (Float(0.0, 1.0, step=0.25), (0.0, 0.25, 0.5, 0.75, 1.0)),
        (Float(0.3, 0.3), (0.3,)),
        (Choice((True, False)), (True, False)),
    ],
)
def test_a_finite_domain_lists_its_values(
    domain: Int | Float | Choice, grid: tuple[Any, ...]
) -> None:
    assert tuple(domain.grid()) == grid
    assert domain.size == len(grid)


def test_a_float_without_a_step_makes_the_space_infinite() -> None:
    space = Space((Parameter("a", Choice((1,))), Parameter("x", Float(0.0, 1.0))))
    assert not space.finite
    assert space.size() is None
    with pytest.raises(ValueError, match="without a step"):
        space.points()
    with pytest.raises(ValueError, match="without a step"):
        Float(0.0, 1.0).grid()


def test_a_wide_range_of_whole_numbers_is_walked_without_being_listed() -> None:
    # kv-cache-memory-bytes is such a range; 10**15 numbers fit no memory.
    space = Space((Parameter("bytes", Int(1, 10**15)),))
    assert space.size() == 10**15
    assert next(space.points()) == {"bytes": 1}


def test_a_parameter_is_active_only_where_all_its_conditions_hold() -> None:
    parameter = Parameter("c", Choice((1,)), {"a": (1, 2), "b": (True,)})
    assert parameter.active({"a": 2, "b": True})
    assert parameter.active({"a": 2.0, "b": True})
    assert not parameter.active({"a": 3, "b": True})
    assert not parameter.active({"a": 1, "b": 1}), "true is not 1"
    assert not parameter.active({"a": 1})


CONDITIONAL = Space(
    (
        Parameter("mode", Choice(("plain", "draft"))),
        Parameter("tokens", Int(1, 3), {"mode": ("draft",)}),
        Parameter("heads", Choice((1, 2)), {"tokens": (3,)}),
    )
)


def test_an_inactive_parameter_is_absent_and_multiplies_nothing() -> None:
    assert list(CONDITIONAL.points()) == [
        {"mode": "plain"},
        {"mode": "draft", "tokens": 1},
        {"mode": "draft", "tokens": 2},
        {"mode": "draft", "tokens": 3, "heads": 1},
        {"mode": "draft", "tokens": 3, "heads": 2},
    ]
    assert CONDITIONAL.size() == 5


def test_counting_a_conditional_space_stops_at_the_limit_with_an_upper_bound() -> None:
    assert CONDITIONAL.size(limit=4) == 2 * 3 * 2


def test_every_sample_of_a_conditional_space_is_one_of_its_points() -> None:
    keys = {point_key(point) for point in CONDITIONAL.points()}
    rng = random.Random(1)
    drawn = {point_key(CONDITIONAL.sample(rng)) for _ in range(200)}
    assert drawn == keys


SIMPLE_VALUES = st.booleans() | st.integers(0, 3) | st.text("ab", min_size=1, max_size=2)
CHOICES = st.lists(SIMPLE_VALUES, min_size=1, max_size=4, unique_by=identity).map(
    lambda values: Choice(tuple(values))
)
INTS = st.builds(
    lambda low, width, step: Int(low, low + width, step=step),
    st.integers(-5, 5),
    st.integers(0, 6),
    st.none() | st.integers(1, 3),
)
FLOATS = st.builds(
    lambda low, width, step: Float(low / 10, (low + width) / 10, step=step / 10),
    st.integers(-5, 5),
    st.integers(0, 6),
    st.integers(1, 3),
)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Finite spaces, conditions included."""
    parameters: list[Parameter] = []
    for index in range(draw(st.integers(0, 4))):
        when: dict[str, tuple[Any, ...]] = {}
        if index and draw(st.booleans()):
            parent = parameters[draw(st.integers(0, index - 1))]
            values = list(parent.domain.grid())
            when = {parent.name: tuple(draw(st.lists(st.sampled_from(values), max_size=2)))}
        parameters.append(Parameter(f"p{index}", draw(CHOICES | INTS | FLOATS), when))
    return Space(tuple(parameters))


@given(spaces())
@settings(max_examples=60)
def test_a_space_has_as_many_different_points_as_it_says(space: Space) -> None:
    points = list(space.points())
    assert len(points) == space.size()
    assert len({point_key(point) for point in points}) == len(points)
    for point in points:
        for parameter in space.parameters:
            assert (parameter.name in point) == parameter.active(point)


@given(spaces(), st.integers(0, 2**32))
@settings(max_examples=60)
def test_a_sample_is_a_point_of_the_space(space: Space, seed: int) -> None:
    keys = {point_key(point) for point in space.points()}
    assert point_key(space.sample(random.Random(seed))) in keys


@given(
    st.floats(1e-6, 1e6),
    st.floats(1.0, 1e6),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_a_drawn_float_is_inside_its_range_and_short_to_write(
    low: float, factor: float, log: bool, seed: int
) -> None:
    domain = Float(low, low * factor, log)
    value = domain.sample(random.Random(seed))
    assert domain.low <= value <= domain.high
    assert value in (domain.low, domain.high) or value == float(f"{value:.6g}")


@given(st.integers(1, 1000), st.integers(0, 10**6), st.booleans(), st.integers(0, 2**32))
def test_a_drawn_whole_number_is_inside_its_range(
    low: int, width: int, log: bool, seed: int
) -> None:
    value = Int(low, low + width, log).sample(random.Random(seed))
    assert isinstance(value, int)
    assert low <= value <= low + width


def test_a_log_range_is_drawn_evenly_over_its_magnitudes() -> None:
    rng = random.Random(5)
    drawn = [Float(0.001, 1000.0, log=True).sample(rng) for _ in range(600)]
    below = sum(value < 1 for value in drawn) / len(drawn)
    assert 0.4 < below < 0.6
    assert math.isclose(min(drawn), 0.001, rel_tol=0.5)


def test_the_ends_of_a_whole_log_range_can_be_drawn() -> None:
    rng = random.Random(5)
    assert {Int(1, 3, log=True).sample(rng) for _ in range(100)} == {1, 2, 3}
