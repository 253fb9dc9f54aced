"""What every kind of searcher must do: the numbered behaviours in `search.base.Searcher`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from autotuner.errors import ConfigError, FailureClass
from autotuner.plugins import kinds, load_kind
from autotuner.search.base import Searcher, SearchKind
from autotuner.search.optuna import PACKAGES, Sampler
from autotuner.search.primed import Primed
from autotuner.study.space import Parameters, point_key
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial, TrialState
from tests.builders import spec, trial

ROOT = Path(__file__).parents[2]
SAMPLERS = [name for name in get_args(Sampler) if name != "auto"]

DOCUMENTED = "documented"
"""The searcher that docs/extending.md shows as a whole."""

WAYS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in kinds("search")},
    **{f"optuna-{each}": {"kind": "optuna", "sampler": each} for each in SAMPLERS},
    "hyperopt-anneal": {"kind": "hyperopt", "algorithm": "anneal"},
    "primed": {"kind": "optuna"},
    DOCUMENTED: {"kind": DOCUMENTED},
}
"""Every kind with its defaults, and the other ways of those that have several."""

Answer = Callable[[int, Parameters], Trial]

CONDITIONAL = {
    "tokens": {"type": "int", "low": 1, "high": 3, "when": {"mode": ["draft", None]}},
    "mode": ["plain", "draft", None],
    "exact": {"values": [True, False], "when": {"tokens": 3}},
}
MIXED = {
    "max-num-seqs": {"type": "int", "low": 1, "high": 5, "step": 4},
    "gpu-memory-utilization": {"type": "float", "low": 0.5, "high": 0.6, "step": 0.1},
    "enable-prefix-caching": [True, 1],
    "env:X": [None, {"a": [1.5]}],
}
LOG = {"x": {"type": "int", "low": 1, "high": 8, "log": True}, "y": [0.1, 0.2]}
ONE = {"x": ["only"], "y": {"type": "float", "low": 0.3, "high": 0.3}, "z": []}
FINITE = {"conditional": CONDITIONAL, "mixed": MIXED, "log": LOG, "one": ONE, "empty": {}}
WIDE = {"kv-cache-memory-bytes": {"type": "int", "low": 1, "high": 10**15}}
SEVERAL = ["output_throughput", "ttft_p99", "goodput"]
ENDLESS = {
    "fraction": {"type": "float", "low": 0.5, "high": 0.95},
    "rate": {"type": "float", "low": 0.001, "high": 1, "log": True, "when": {"mode": "draft"}},
    "mode": ["plain", "draft"],
}


@cache
def documented() -> SearchKind:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"`autotuner_climb.py`:\n\n```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(compile(block, "autotuner_climb.py", "exec", dont_inherit=True), names)
    found: SearchKind = names["CLIMB"]
    return found


def kind_of(name: str) -> SearchKind:
    found: SearchKind = documented() if name == DOCUMENTED else load_kind("search", name)
    return found


def study(way: str, space: dict[str, Any], seed: int = 3, **more: Any) -> StudySpec:
    return spec(search={**WAYS[way], "seed": seed}, space=space, **more)


def searcher(way: str, space: dict[str, Any], seed: int = 3, **more: Any) -> Searcher:
    asked = study(way, space, seed, **more)
    made: SearchKind = kind_of(asked.search.kind)
    made.check(asked)
    if way != "primed":
        return made.build(asked)
    rng = random.Random(seed)
    return Primed(made.build(asked), [asked.parameter_space.sample(rng) for _ in range(3)])


def able(space: dict[str, Any], **more: Any) -> list[str]:
    """The ways that take such a study. What the others say is tested by itself."""
    return [way for way in WAYS if refusal(way, space, **more) is None]


def refusal(way: str, space: dict[str, Any], **more: Any) -> ConfigError | None:
    asked = study(way, space, **more)
    try:
        kind_of(asked.search.kind).check(asked)
    except ConfigError as error:
        return error
    return None


def every(spaces: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrise by every way and every space that it takes."""
    pairs = [(way, name) for name, space in spaces.items() for way in able(space)]
    return pytest.mark.parametrize(
        ("way", "space"),
        [pytest.param(way, spaces[name], id=f"{way}-{name}") for way, name in pairs],
    )


def measured(number: int, parameters: Parameters) -> Trial:
    """An answer that depends on the point alone."""
    value = float(sum(map(ord, point_key(parameters))) % 97)
    return trial(number, parameters, objectives={"output_throughput": value})


def crashed(number: int, parameters: Parameters) -> Trial:
    return trial(number, parameters, TrialState.INFEASIBLE, failure=FailureClass.CRASH)


def walk(found: Searcher, answer: Answer = measured, limit: int = 500) -> Iterator[Trial]:
    """Ask and tell until the space is exhausted."""
    for number in range(1, limit + 1):
        point = found.ask()
        if point is None:
            return
        answered = answer(number, point)
        yield answered
        found.tell(answered)


def points(trials: list[Trial]) -> list[Parameters]:
    return [each.parameters for each in trials]


def keys(trials: list[Trial]) -> list[str]:
    return [point_key(each.parameters) for each in trials]


# 1. No point twice, and None once all were asked for or told.


@every(FINITE)
@pytest.mark.parametrize("answer", [measured, crashed], ids=["measured", "crashed"])
def test_a_finite_space_is_exhausted_point_by_point(
    way: str, space: dict[str, Any], answer: Answer
) -> None:
    domain = study(way, space).parameter_space
    found = searcher(way, space)
    asked = list(walk(found, answer))
    assert len(asked) == domain.size()
    assert sorted(keys(asked)) == sorted(map(point_key, domain.points()))
    assert found.ask() is None
    assert found.ask() is None, "exhausted is for good"


@every(FINITE)
def test_points_in_flight_are_not_asked_for_again(way: str, space: dict[str, Any]) -> None:
    found = searcher(way, space)
    asked = [point for _ in range(40) if (point := found.ask()) is not None]
    size = study(way, space).parameter_space.size() or 0
    assert len({point_key(point) for point in asked}) == len(asked) == min(40, size)


@pytest.mark.parametrize("way", able({}))
def test_an_empty_space_is_exactly_one_point(way: str) -> None:
    found = searcher(way, {})
    assert found.ask() == {}
    assert found.ask() is None


@pytest.mark.parametrize("way", able({}))
def test_an_empty_space_whose_point_was_told_is_exhausted(way: str) -> None:
    found = searcher(way, {})
    found.tell(measured(0, {}))
    assert found.ask() is None


@pytest.mark.parametrize("way", able(CONDITIONAL))
def test_a_point_that_was_told_is_never_asked_for(way: str) -> None:
    space = study(way, CONDITIONAL).parameter_space
    foreign = list(space.points())[1::2]
    found = searcher(way, CONDITIONAL)
    for number, point in enumerate(foreign, start=1):
        found.tell(measured(number, point))
    asked = list(walk(found))
    told = {point_key(point) for point in foreign}
    assert not told & set(keys(asked))
    assert len(asked) + len(foreign) == space.size()


@pytest.mark.parametrize("way", able(MIXED))
def test_the_baseline_is_told_though_it_is_no_point_of_the_space(way: str) -> None:
    found = searcher(way, MIXED)
    found.tell(measured(0, {}))
    assert len(list(walk(found))) == study(way, MIXED).parameter_space.size()


@pytest.mark.parametrize("way", able({"x": [None, 1], "y": ["", 2]}))
def test_a_point_that_leaves_every_flag_out_is_the_baseline_and_not_asked_for(way: str) -> None:
    found = searcher(way, {"x": [None, 1], "y": ["", 2]})
    found.tell(measured(0, {}))
    assert len(list(walk(found))) == 3


@pytest.mark.parametrize("way", able(ENDLESS))
def test_an_endless_space_gives_new_points(way: str) -> None:
    asked = []
    for each in walk(searcher(way, ENDLESS), limit=25):
        asked.append(each)
        assert 0.5 <= each.parameters["fraction"] <= 0.95
        assert ("rate" in each.parameters) == (each.parameters["mode"] == "draft")
    assert len(set(keys(asked))) == 25
    assert {each.parameters["mode"] for each in asked} == {"plain", "draft"}


@pytest.mark.parametrize("way", able(WIDE))
def test_a_wide_range_is_asked_at_once(way: str) -> None:
    found = searcher(way, WIDE)
    asked = list(walk(found, limit=5))
    assert len(set(keys(asked))) == 5
    assert all(isinstance(each.parameters["kv-cache-memory-bytes"], int) for each in asked)


@pytest.mark.parametrize("way", able(MIXED))
def test_values_keep_their_json_types(way: str) -> None:
    allowed: dict[str, set[type]] = {
        "max-num-seqs": {int},
        "gpu-memory-utilization": {float},
        "enable-prefix-caching": {bool, int},
        "env:X": {type(None), dict},
    }
    for point in points(list(walk(searcher(way, MIXED)))):
        assert list(point) == list(MIXED)
        assert all(type(value) in allowed[name] for name, value in point.items())


# 2. Telling the stored trials in their order is how a study is resumed.


@every({"conditional": CONDITIONAL, "mixed": MIXED})
@pytest.mark.parametrize("told", [1, 6])
def test_a_resumed_study_goes_on_as_the_uninterrupted_one(
    way: str, space: dict[str, Any], told: int
) -> None:
    baseline = measured(0, {})
    whole = searcher(way, space)
    whole.tell(baseline)
    uninterrupted = list(walk(whole))
    resumed = searcher(way, space)
    for each in [baseline, *uninterrupted[:told]]:
        resumed.tell(each)
    continued = list(walk(resumed))
    assert not set(keys(continued)) & set(keys(uninterrupted[:told]))
    assert points(continued) == points(uninterrupted[told:])


@pytest.mark.parametrize("way", able(MIXED))
def test_a_study_resumed_with_trials_in_flight_repeats_none_of_the_told(way: str) -> None:
    first = searcher(way, MIXED)
    asked = [point for _ in range(12) if (point := first.ask()) is not None]
    told = [measured(number, point) for number, point in list(enumerate(asked, start=1))[::2]]
    resumed = searcher(way, MIXED)
    for each in told:
        resumed.tell(each)
    continued = list(walk(resumed))
    size = study(way, MIXED).parameter_space.size() or 0
    assert not set(keys(continued)) & set(keys(told))
    assert len(continued) == size - len(told), "what was in flight is asked for again"


@pytest.mark.parametrize("way", able(LOG))
def test_answers_may_come_in_any_order(way: str) -> None:
    found = searcher(way, LOG)
    asked = [point for _ in range(6) if (point := found.ask()) is not None]
    for number in (3, 0, 5, 1, 4, 2):
        found.tell(measured(number + 1, asked[number]))
    rest = list(walk(found))
    assert len(rest) == 16 - 6
    assert not set(keys(rest)) & {point_key(point) for point in asked}


# 3. Only answers teach.


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.CANCELLED])
@pytest.mark.parametrize("way", able(LOG))
def test_a_trial_without_an_answer_teaches_nothing(way: str, state: TrialState) -> None:
    def silent(value: float) -> Answer:
        def answer(number: int, parameters: Parameters) -> Trial:
            if number % 2:
                return measured(number, parameters)
            return trial(number, parameters, state, objectives={"output_throughput": value})

        return answer

    one = list(walk(searcher(way, LOG), silent(1e6)))
    other = list(walk(searcher(way, LOG), silent(-1e6)))
    assert points(one) == points(other)
    assert len(one) == 16, "it is not asked for again either"


@pytest.mark.parametrize("way", able(LOG))
def test_infeasible_and_stopped_trials_are_accepted(way: str) -> None:
    def answer(number: int, parameters: Parameters) -> Trial:
        if number % 3 == 0:
            return crashed(number, parameters)
        if number % 3 == 1:
            return trial(number, parameters, TrialState.STOPPED)
        violated = {"ttft_p99": 0.5 if number % 2 else -0.5}
        return trial(number, parameters, objectives={"output_throughput": 5.0}, violations=violated)

    assert len(list(walk(searcher(way, LOG), answer))) == 16


@pytest.mark.parametrize("way", able(LOG))
def test_a_complete_trial_with_an_unknown_objective_is_accepted(way: str) -> None:
    def answer(number: int, parameters: Parameters) -> Trial:
        return trial(number, parameters, objectives={"output_throughput": None})

    assert len(list(walk(searcher(way, LOG), answer))) == 16


@pytest.mark.parametrize("way", able(CONDITIONAL, objectives=SEVERAL))
def test_several_objectives_are_accepted(way: str) -> None:
    def answer(number: int, parameters: Parameters) -> Trial:
        if number % 4 == 0:
            return crashed(number, parameters)
        values = {name: float(number % (index + 5)) for index, name in enumerate(SEVERAL)}
        return trial(number, parameters, objectives=values, violations={"error_rate": -0.1})

    found = searcher(way, CONDITIONAL, objectives=SEVERAL, constraints={"error_rate": 0.1})
    size = study(way, CONDITIONAL).parameter_space.size()
    assert len(list(walk(found, answer))) == size


# 4. The same seed and the same answers give the same sequence.


@every({"conditional": CONDITIONAL, "log": LOG})
def test_the_same_seed_and_answers_give_the_same_sequence(way: str, space: dict[str, Any]) -> None:
    one, other = (list(walk(searcher(way, space))) for _ in range(2))
    assert points(one) == points(other)


@pytest.mark.parametrize("way", able(ENDLESS))
def test_the_same_seed_gives_the_same_sequence_in_an_endless_space(way: str) -> None:
    one, other = (list(walk(searcher(way, ENDLESS), limit=12)) for _ in range(2))
    assert points(one) == points(other)


@pytest.mark.parametrize("way", [way for way in able(MIXED) if way != "grid"])
def test_another_seed_gives_another_sequence(way: str) -> None:
    one, other = (list(walk(searcher(way, MIXED, seed), limit=12)) for seed in (1, 2))
    assert points(one) != points(other)


# Options and limits of a kind.


@pytest.mark.parametrize("kind", kinds("search"))
def test_an_unknown_option_is_a_config_error_with_its_place(kind: str) -> None:
    made: SearchKind = load_kind("search", kind)
    with pytest.raises(ConfigError) as caught:
        made.check(spec(search={"kind": kind, "nonsense": 3}))
    assert caught.value.where == "search.nonsense"
    assert "3" in caught.value.problem
    assert "kind" in caught.value.allowed


@pytest.mark.parametrize("way", ["hyperopt", "hyperopt-anneal"])
def test_hyperopt_refuses_several_objectives_and_says_what_takes_them(way: str) -> None:
    error = refusal(way, MIXED, objectives=SEVERAL)
    assert error is not None
    assert error.where == "objectives"
    assert "3" in error.problem
    assert "optuna" in error.hint


@pytest.mark.parametrize(
    ("space", "more", "problem"),
    [
        (LOG, {"objectives": SEVERAL}, "one objective, not 3"),
        (CONDITIONAL, {}, "'tokens'"),
        ({"x": ["a", "b"], "y": [1, 2], "z": {"type": "int", "low": 1, "high": 9}}, {}, "two"),
    ],
    ids=["objectives", "conditions", "categories"],
)
def test_cmaes_refuses_what_it_cannot_search(
    monkeypatch: pytest.MonkeyPatch, space: dict[str, Any], more: dict[str, Any], problem: str
) -> None:
    monkeypatch.setitem(PACKAGES, "cmaes", "json")  # any package that is there
    error = refusal("optuna-cmaes", space, **more)
    assert error is not None
    assert error.where == "search.sampler"
    assert problem in error.problem
    assert "tpe" in error.allowed
    assert "cmaes" not in error.allowed


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_a_sampler_whose_package_is_missing_says_so(
    monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setitem(PACKAGES, sampler, "no_such_package")
    error = refusal(f"optuna-{sampler}", LOG)
    assert error is not None
    assert error.where == "search.sampler"
    assert "'no_such_package'" in error.problem
    assert sampler not in error.allowed


def test_grid_refuses_an_infinite_space_with_the_parameter_at_fault() -> None:
    made: SearchKind = load_kind("search", "grid")
    with pytest.raises(ConfigError) as caught:
        made.check(study("grid", ENDLESS))
    assert caught.value.where == "space.fraction"
    assert caught.value.hint


def test_grid_keeps_the_order_of_the_file() -> None:
    asked = points(list(walk(searcher("grid", {"a": [2, 1], "b": ["x", "y"]}))))
    assert [(point["a"], point["b"]) for point in asked] == [
        (2, "x"),
        (2, "y"),
        (1, "x"),
        (1, "y"),
    ]


@pytest.mark.parametrize("value", [0, -1, "5", True, 2.5])
def test_a_wrong_value_of_an_option_is_a_config_error(value: Any) -> None:
    made: SearchKind = load_kind("search", "optuna")
    with pytest.raises(ConfigError) as caught:
        made.check(spec(search={"kind": "optuna", "startup_trials": value}))
    assert caught.value.where == "search.startup_trials"


# Searchers that learn.


# How well they learn is asked of the shipped ones; a page's sample only has to keep the contract.
LEARNING = [way for way in able({}) if way not in ("grid", "random", DOCUMENTED)]
QUICK = ("optuna", "primed", "optuna-tpe", "optuna-gp", "hyperopt-anneal")
"""The ways that learn within 16 trials; the others think in generations or good quarters."""


def hill(way: str, seed: int, better: str, asks: int = 16) -> float:
    """Mean value of the later half of the asks on a hill over two lines of 12."""
    line = {"type": "int", "low": 0, "high": 11}
    values: list[float] = []

    def answer(number: int, parameters: Parameters) -> Trial:
        height = 1000.0 - 5 * ((parameters["x"] - 8) ** 2 + (parameters["y"] - 3) ** 2)
        values.append(height)
        value = height if better == "output_throughput" else 2000 - height
        return trial(number, parameters, objectives={better: value})

    found = searcher(way, {"x": line, "y": line}, seed, objectives=[better])
    for _ in walk(found, answer, limit=asks):
        pass
    return float(sum(values[asks // 2 :]) / (asks - asks // 2))


@pytest.mark.parametrize("objective", ["output_throughput", "ttft_p99"])
@pytest.mark.parametrize("way", [way for way in LEARNING if way != "optuna-gp"])  # it explores
def test_the_way_up_is_learnt(way: str, objective: str) -> None:
    seeds = range(5)
    asks = 16 if way in QUICK else 40
    learned = sum(hill(way, seed, objective, asks) for seed in seeds) / len(seeds)
    drawn = sum(hill("random", seed, objective, asks) for seed in seeds) / len(seeds)
    assert learned > drawn + 20


LINE = {"x": {"type": "int", "low": 0, "high": 39}, "y": {"type": "int", "low": 0, "high": 3}}


def later(way: str, answer: Answer, asks: int) -> list[int]:
    """Where the second half of the trials lies on the line."""
    walks = [list(walk(searcher(way, LINE, seed), answer, limit=asks)) for seed in range(5)]
    return [each.parameters["x"] for trials in walks for each in trials[asks // 2 :]]


def cliff(number: int, parameters: Parameters) -> Trial:
    """More is better up to 12 of 40, out of bounds from there, a crash from 30."""
    x = parameters["x"]
    if x >= 30:
        return crashed(number, parameters)
    violation = {"ttft_p99": x / 12 - 1}
    values = {"output_throughput": float(x)}
    return trial(number, parameters, objectives=values, violations=violation)


@pytest.mark.parametrize("way", LEARNING)
def test_infeasible_points_are_avoided_afterwards(way: str) -> None:
    def beyond(way: str) -> float:
        return sum(max(0, x - 12) for x in later(way, cliff, asks=24))

    assert beyond(way) < 0.8 * beyond("random")


@pytest.mark.parametrize("way", LEARNING)
def test_a_bound_broken_is_worse_than_any_value_is_good(way: str) -> None:
    """The value rises with the violation: who looked at values alone would climb away."""

    def answer(number: int, parameters: Parameters) -> Trial:
        x = parameters["x"]
        values = {"output_throughput": 10.0 ** (x / 4)}
        return trial(number, parameters, objectives=values, violations={"ttft_p99": x / 12 - 1})

    where = later(way, answer, asks=16 if way in QUICK else 40)
    assert sum(where) / len(where) < 18, "random is at 20"


@pytest.mark.parametrize("way", ["optuna", "optuna-nsga2"])
def test_a_stopped_trial_is_never_preferred_to_a_complete_one(way: str) -> None:
    """The better half of the line is stopped early: it is left, though its points are good."""

    def answer(number: int, parameters: Parameters) -> Trial:
        x = parameters["x"]
        if x >= 20:
            return trial(number, parameters, TrialState.STOPPED)
        return trial(number, parameters, objectives={"output_throughput": 100.0 + x})

    where = later(way, answer, asks=24)
    assert sum(x < 20 for x in where) > 0.6 * len(where)


# Given points first.


def test_given_points_come_first_and_in_their_order() -> None:
    given = [{"x": 5, "y": 0.2}, {"x": 1, "y": 0.1}, {"x": 8, "y": 0.2}]
    found = Primed(searcher("random", LOG), given)
    found.tell(measured(1, given[1]))
    asked = points(list(walk(found)))
    assert asked[:2] == [given[0], given[2]]
    assert len(asked) == 15


@pytest.mark.parametrize("way", WAYS)
def test_it_says_whether_it_learns(way: str) -> None:
    assert isinstance(kind_of(WAYS[way]["kind"]).learns, bool)
