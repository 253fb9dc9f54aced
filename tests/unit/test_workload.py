"""The search for the highest bearable load: its levels, and bisection over them."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.study.workload import highest_met, level_step, load_levels, next_level


def search(levels: tuple[int, ...], limit: float) -> dict[int, bool]:
    """What is measured on a server that bears every load up to `limit`."""
    met: dict[int, bool] = {}
    while (level := next_level(levels, met)) is not None:
        assert level not in met
        met[level] = level <= limit
    return met


RANGES = st.tuples(st.integers(1, 300), st.integers(1, 3000)).map(lambda ends: tuple(sorted(ends)))


@given(RANGES, st.floats(0.01, 2.0))
def test_levels_are_as_close_as_was_asked(ends: tuple[int, int], precision: float) -> None:
    levels = load_levels(*ends, precision)
    assert (levels[0], levels[-1]) == ends
    for lower, upper in itertools.pairwise(levels):
        assert lower < upper
        assert upper == lower + 1 or upper <= lower * (1 + precision)


@given(RANGES, st.floats(0.02, 1.0), st.floats(0, 4000))
def test_bisection_finds_the_highest_load_in_few_measurements(
    ends: tuple[int, int], precision: float, limit: float
) -> None:
    levels = load_levels(*ends, precision)
    met = search(levels, limit)
    assert highest_met(met) == max((level for level in levels if level <= limit), default=0)
    assert len(met) <= math.ceil(math.log2(len(levels) + 1))


@given(RANGES, st.lists(st.booleans(), min_size=30, max_size=30))
def test_whatever_noise_answers_the_search_ends_between_what_it_was_told(
    ends: tuple[int, int], answers: list[bool]
) -> None:
    levels = load_levels(*ends, 0.1)
    met: dict[int, bool] = {}
    for answer in answers:
        level = next_level(levels, met)
        if level is None:
            break
        met[level] = answer
    assert next_level(levels, met) is None
    found = highest_met(met)
    assert found == 0 or (found is not None and met[found])
    assert all(level > (found or 0) for level, good in met.items() if not good)


def test_it_starts_in_the_middle_and_asks_the_lowest_only_when_all_else_failed() -> None:
    levels = load_levels(4, 256, 0.1)
    first = next_level(levels, {})
    assert first is not None
    assert 16 <= first <= 64
    assert list(search(levels, 0))[-1] == 4
    assert 4 not in search(levels, 300)
    assert list(search(levels, 300))[-1] == 256


def test_a_search_costs_what_the_page_says() -> None:
    assert load_levels(4, 256, 0.1)[:8] == (4, 5, 6, 7, 8, 9, 10, 11)
    assert max(len(search(load_levels(4, 256, 0.1), limit)) for limit in range(260)) == 6


def test_nothing_measured_is_no_answer_and_nothing_met_is_zero() -> None:
    assert highest_met({}) is None
    assert highest_met({8: False, 4: False}) == 0
    assert highest_met({8: True}) == 8


def test_a_load_above_one_that_failed_does_not_count() -> None:
    assert highest_met({4: True, 8: False, 16: True}) == 4


def test_one_level_is_measured_once() -> None:
    assert load_levels(8, 8, 0.1) == (8,)
    assert search((8,), 10) == {8: True}
    assert search((8,), 1) == {8: False}


@pytest.mark.parametrize(
    ("low", "high", "precision"), [(0, 4, 0.1), (8, 4, 0.1), (1, 4, 0.0), (1, 4, -1.0)]
)
def test_a_range_upside_down_or_without_steps_is_refused(
    low: int, high: int, precision: float
) -> None:
    with pytest.raises(ValueError):
        load_levels(low, high, precision)


def test_a_load_is_known_up_to_the_next_level() -> None:
    levels = load_levels(4, 256, 0.1)
    assert level_step(levels, 4) == 0.25
    assert level_step(levels, 0) == 0.25
    assert 0 < level_step(levels, 100) <= 0.1
    assert level_step(levels, 256) == 0
