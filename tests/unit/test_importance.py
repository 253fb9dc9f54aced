"""Which parameters explain the spread of the first objective, and when nothing is said."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from autotuner.report.importance import importance, trials_needed
from autotuner.report.page import html
from autotuner.report.summary import summary
from autotuner.report.text import importance_text
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import Trial, TrialState
from tests.builders import spec, trial

SPACE: dict[str, Any] = {
    "seqs": {"type": "int", "low": 8, "high": 512, "log": True},
    "share": {"type": "float", "low": 0.5, "high": 0.9},
    "tokens": [512, 1024, 2048, 4096],
    "graphs": [True, False],
    "guess": [None, {"method": "ngram", "tokens": 4}, {"method": "ngram", "tokens": 8}],
}


def study(space: dict[str, Any] | None = None, **changes: Any) -> StudySpec:
    return spec(
        engine={"kind": "vllm"},
        space=space or SPACE,
        objectives=["output_throughput", "ttft_p90"],
        **changes,
    )


def sampled(
    of: StudySpec, count: int, value: Callable[[dict[str, Any]], float], noise: float = 0.03
) -> list[Trial]:
    """Trials at random points whose value has a relative noise."""
    rng = random.Random(1)
    points = [of.parameter_space.sample(rng) for _ in range(count)]
    values = [value(point) * math.exp(rng.gauss(0, noise)) for point in points]
    return [
        trial(number, point, objectives={"output_throughput": each, "ttft_p90": 1.0})
        for number, (point, each) in enumerate(zip(points, values, strict=True), start=1)
    ]


CAUSES: dict[str, Callable[[dict[str, Any]], float]] = {
    "seqs": lambda point: 100 * point["seqs"] ** 0.5,
    "share": lambda point: 1000 / point["share"] ** 3,
    "tokens": lambda point: 100 if point["tokens"] in (1024, 2048) else 80,  # best in the middle
    "graphs": lambda point: 150 if point["graphs"] else 100,
    "guess": lambda point: 150 if point["guess"] else 100,  # null is a value
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_parameter_that_matters_has_nearly_all_of_the_spread(cause: str) -> None:
    found = importance(study(), sampled(study(), 30, CAUSES[cause]))
    assert next(iter(found)) == cause, "the largest first"
    assert found[cause] > 0.7
    assert all(0 <= share < 0.15 for name, share in found.items() if name != cause)
    assert sum(found.values()) <= 1.001


def test_values_of_a_choice_may_differ_inside_a_dict_only() -> None:
    eight = {"method": "ngram", "tokens": 8}
    found = importance(
        study(), sampled(study(), 30, lambda point: 150 if point["guess"] == eight else 100)
    )
    assert next(iter(found)) == "guess"


def test_two_that_add_up_share_and_two_that_need_each_other_too() -> None:
    def added(point: dict[str, Any]) -> float:
        return 100 * (1.5 if point["graphs"] else 1) * (1.5 if point["tokens"] > 1024 else 1)

    def together(point: dict[str, Any]) -> float:
        return 150 if point["graphs"] and point["tokens"] > 1024 else 100

    for cause in (added, together):
        found = importance(study(), sampled(study(), 40, cause))
        assert set(list(found)[:2]) == {"graphs", "tokens"}
        assert min(found["graphs"], found["tokens"]) > 0.2


def test_pure_noise_explains_nothing() -> None:
    assert importance(study(), sampled(study(), 30, lambda point: 100, noise=0.1)) == {}
    assert importance(study(), sampled(study(), 30, lambda point: 100, noise=0.0)) == {}


def test_too_few_trials_say_nothing_and_how_many_it_takes_is_known() -> None:
    needed = trials_needed(study())
    assert needed == 12, "two for each of five parameters, and two"
    assert trials_needed(study({"seqs": [1, 2], "fixed": [7]})) == 8
    trials = sampled(study(), needed, CAUSES["graphs"])
    assert importance(study(), trials)
    assert importance(study(), trials[:-1]) == {}


def test_only_complete_trials_of_the_search_count() -> None:
    trials = sampled(study(), 14, CAUSES["graphs"])
    expected = importance(study(), trials)
    objectives = {"output_throughput": 1e6, "ttft_p90": 1.0}
    others = [
        trial(0, {}, objectives=objectives),  # whose parameters are the engine's secret
        trial(20, trials[0].parameters, objectives=objectives, repeat_of=1, round=1),
        trial(21, trials[1].parameters, TrialState.STOPPED, objectives=objectives),
        trial(22, trials[2].parameters, TrialState.INFEASIBLE),
        trial(23, trials[3].parameters, objectives={"output_throughput": None, "ttft_p90": 1.0}),
    ]
    assert importance(study(), [*others, *trials]) == expected
    assert importance(study(), trials[:11] + others) == {}


def test_a_conditional_parameter_matters_where_it_is_active() -> None:
    space = {
        "guess": ["none", "ngram"],
        "length": {"type": "choice", "values": [2, 4, 8, 16], "when": {"guess": "ngram"}},
        "graphs": [True, False],
    }
    of = study(space)
    trials = sampled(of, 30, lambda point: 100 + 20 * math.log2(point.get("length", 2)))
    assert any("length" not in each.parameters for each in trials)
    found = importance(of, trials)
    assert next(iter(found)) == "length"
    assert found["graphs"] < 0.1


def test_a_parameter_that_never_varied_is_left_out() -> None:
    of = study({**SPACE, "fixed": [3]})
    found = importance(of, sampled(of, 30, CAUSES["graphs"]))
    assert "fixed" not in found


def test_it_is_the_same_every_time_and_for_latencies_too() -> None:
    of = spec(engine={"kind": "vllm"}, space=SPACE, objectives=["ttft_p90"])
    trials = [
        trial(each.number, each.parameters, objectives={"ttft_p90": 1 / (value or 1)})
        for each in sampled(study(), 30, CAUSES["graphs"])
        for value in [each.objectives["output_throughput"]]
    ]
    found = importance(of, trials)
    assert found == importance(of, trials)
    assert next(iter(found)) == "graphs"


def test_zero_is_a_value_of_an_objective() -> None:
    trials = sampled(study(), 30, lambda point: 1.0 if point["graphs"] else 0.0)
    assert next(iter(importance(study(), trials))) == "graphs"


# As it is shown.


def report(trials: list[Trial], of: StudySpec | None = None) -> dict[str, Any]:
    found = of or study()
    return summary(Study(found, "/studies/small", StudyState.COMPLETE), trials)


def text(shown: dict[str, Any]) -> str:
    found = importance_text(shown)
    return "" if found is None else found.plain


def test_the_report_has_shares_bars_and_a_table() -> None:
    found = report(sampled(study(), 30, CAUSES["graphs"]))
    assert json.loads(json.dumps(found["importance"])) == found["importance"]
    first = text(found).splitlines()[2]
    share = found["importance"]["graphs"]
    assert first.split() == ["graphs", "#" * round(20 * share), f"{share * 100:.1f}", "%"]
    assert "Where the differences in output throughput come from\n" in text(found)
    page = html(found)
    assert '<h2 id="importance">What matters</h2>' in page
    assert f'value="{share}"' in page


def test_the_report_says_how_many_trials_are_missing_or_that_all_is_noise() -> None:
    few = report(sampled(study(), 5, CAUSES["graphs"]))
    assert few["importance"] == {}
    assert text(few).endswith(
        "come from can be said from 12 complete trials on, the baseline not counted"
    )
    assert "What matters" not in html(few)
    noise = report(sampled(study(), 30, lambda point: 100, noise=0.1))
    assert text(noise).endswith("come from: no parameter can be told from noise")


def test_of_a_single_parameter_nobody_asks_what_matters() -> None:
    one = study({"graphs": [True, False]})
    shown = report(sampled(one, 4, CAUSES["graphs"]), one)
    assert shown["importance_needs"] is None
    assert text(shown) == ""
