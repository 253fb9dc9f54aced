from __future__ import annotations

import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuner.estimators.accuracy import accuracies, accuracy, rank_correlation


def test_error_bias_and_order() -> None:
    found = accuracy([(110, 100), (220, 200), (270, 300), (480, 400)])
    assert found is not None
    assert found.n == 4
    assert found.error == pytest.approx(0.1)
    assert found.bias == pytest.approx(0.1)
    assert found.rank_correlation == pytest.approx(1)


def test_nothing_measured_is_no_accuracy() -> None:
    assert accuracy([]) is None
    assert accuracy([(1, 0)]) is None


def test_two_points_have_no_order() -> None:
    assert rank_correlation([(1, 2), (2, 1)]) is None
    assert rank_correlation([(1, 2), (2, 1), (3, 0)]) == pytest.approx(-1)
    assert rank_correlation([(1, 2), (1, 1), (1, 0)]) is None


def test_each_metric_by_the_points_that_have_both() -> None:
    found = accuracies(
        [
            ({"ttft_mean": 0.1, "output_throughput": 10}, {"ttft_mean": 0.2}),
            (
                {"ttft_mean": None, "output_throughput": 10},
                {"output_throughput": 20, "requests": 3},
            ),
        ]
    )
    assert {name: each.n for name, each in found.items()} == {
        "ttft_mean": 1,
        "output_throughput": 1,
    }
    assert found["ttft_mean"].error == pytest.approx(0.5)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=20))
def test_correlation_is_spearmans(pairs: list[tuple[float, float]]) -> None:
    one, other = zip(*pairs, strict=True)
    assume(len(set(one)) > 1 and len(set(other)) > 1)
    assert rank_correlation(pairs) == pytest.approx(scipy.stats.spearmanr(one, other).statistic)
