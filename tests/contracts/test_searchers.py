"""What every kind of searcher must do: the numbered behaviours in `search.base.Searcher`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autotuner.errors import ConfigError, FailureClass
from autotuner.plugins import kinds, load_kind
from autotuner.search.base import Searcher, SearchKind
from autotuner.study.space import Parameters, point_key
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial, TrialState
from tests.builders import spec, trial

KINDS = kinds("search")

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
ENDLESS = {
    "fraction": {"type": "float", "low": 0.5, "high": 0.95},
    "rate": {"type": "float", "low": 0.001, "high": 1, "log": True, "when": {"mode": "draft"}},
    "mode": ["plain", "draft"],
}


def study(kind: str, space: dict[str, Any], seed: int = 3, **more: Any) -> StudySpec:
    return spec(search={"kind": kind, "seed": seed}, space=space, **more)


def searcher(kind: str, space: dict[str, Any], seed: int = 3, **more: Any) -> Searcher:
    made: SearchKind = load_kind("search", kind)
    study_spec = study(kind, space, seed, **more)
    made.check(study_spec)
    return made.build(study_spec)


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


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[name for name in KINDS if name != "grid"])
def sampling(request: pytest.FixtureRequest) -> str:
    """The kinds that take an infinite space."""
    return str(request.param)


# 1. No point twice, and None once all were asked for or told.


@pytest.mark.parametrize("space", FINITE.values(), ids=FINITE)
@pytest.mark.parametrize("answer", [measured, crashed], ids=["measured", "crashed"])
def test_a_finite_space_is_exhausted_point_by_point(
    kind: str, space: dict[str, Any], answer: Answer
) -> None:
    domain = study(kind, space).parameter_space
    found = searcher(kind, space)
    asked = list(walk(found, answer))
    assert len(asked) == domain.size()
    assert sorted(keys(asked)) == sorted(map(point_key, domain.points()))
    assert found.ask() is None
    assert found.ask() is None, "exhausted is for good"


@pytest.mark.parametrize("space", FINITE.values(), ids=FINITE)
def test_points_in_flight_are_not_asked_for_again(kind: str, space: dict[str, Any]) -> None:
    found = searcher(kind, space)
    asked = [point for _ in range(40) if (point := found.ask()) is not None]
    size = study(kind, space).parameter_space.size() or 0
    assert len({point_key(point) for point in asked}) == len(asked) == min(40, size)


def test_an_empty_space_is_exactly_one_point(kind: str) -> None:
    found = searcher(kind, {})
    assert found.ask() == {}
    assert found.ask() is None


def test_an_empty_space_whose_point_was_told_is_exhausted(kind: str) -> None:
    found = searcher(kind, {})
    found.tell(measured(0, {}))
    assert found.ask() is None


def test_a_point_that_was_told_is_never_asked_for(kind: str) -> None:
    space = study(kind, CONDITIONAL).parameter_space
    foreign = list(space.points())[1::2]
    found = searcher(kind, CONDITIONAL)
    for number, point in enumerate(foreign, start=1):
        found.tell(measured(number, point))
    asked = list(walk(found))
    told = {point_key(point) for point in foreign}
    assert not told & set(keys(asked))
    assert len(asked) + len(foreign) == space.size()


def test_the_baseline_is_told_though_it_is_no_point_of_the_space(kind: str) -> None:
    found = searcher(kind, MIXED)
    found.tell(measured(0, {}))
    assert len(list(walk(found))) == study(kind, MIXED).parameter_space.size()


def test_a_point_that_leaves_every_flag_out_is_the_baseline_and_not_asked_for(kind: str) -> None:
    found = searcher(kind, {"x": [None, 1], "y": ["", 2]})
    found.tell(measured(0, {}))
    assert len(list(walk(found))) == 3


def test_an_endless_space_gives_new_points(sampling: str) -> None:
    asked = []
    for each in walk(searcher(sampling, ENDLESS), limit=25):
        asked.append(each)
        assert 0.5 <= each.parameters["fraction"] <= 0.95
        assert ("rate" in each.parameters) == (each.parameters["mode"] == "draft")
    assert len(set(keys(asked))) == 25
    assert {each.parameters["mode"] for each in asked} == {"plain", "draft"}


def test_a_wide_range_is_asked_at_once(kind: str) -> None:
    space = {"kv-cache-memory-bytes": {"type": "int", "low": 1, "high": 10**15}}
    found = searcher(kind, space)
    asked = list(walk(found, limit=5))
    assert len(set(keys(asked))) == 5
    assert all(isinstance(each.parameters["kv-cache-memory-bytes"], int) for each in asked)


def test_values_keep_their_json_types(kind: str) -> None:
    allowed: dict[str, set[type]] = {
        "max-num-seqs": {int},
        "gpu-memory-utilization": {float},
        "enable-prefix-caching": {bool, int},
        "env:X": {type(None), dict},
    }
    for point in points(list(walk(searcher(kind, MIXED)))):
        assert list(point) == list(MIXED)
        assert all(type(value) in allowed[name] for name, value in point.items())


# 2. Telling the stored trials in their order is how a study is resumed.


@pytest.mark.parametrize("space", [CONDITIONAL, MIXED], ids=["conditional", "mixed"])
@pytest.mark.parametrize("told", [1, 6])
def test_a_resumed_study_goes_on_as_the_uninterrupted_one(
    kind: str, space: dict[str, Any], told: int
) -> None:
    baseline = measured(0, {})
    whole = searcher(kind, space)
    whole.tell(baseline)
    uninterrupted = list(walk(whole))
    resumed = searcher(kind, space)
    for each in [baseline, *uninterrupted[:told]]:
        resumed.tell(each)
    continued = list(walk(resumed))
    assert not set(keys(continued)) & set(keys(uninterrupted[:told]))
    assert points(continued) == points(uninterrupted[told:])


def test_a_study_resumed_with_trials_in_flight_repeats_none_of_the_told(kind: str) -> None:
    first = searcher(kind, MIXED)
    asked = [point for _ in range(12) if (point := first.ask()) is not None]
    told = [measured(number, point) for number, point in list(enumerate(asked, start=1))[::2]]
    resumed = searcher(kind, MIXED)
    for each in told:
        resumed.tell(each)
    continued = list(walk(resumed))
    size = study(kind, MIXED).parameter_space.size() or 0
    assert not set(keys(continued)) & set(keys(told))
    assert len(continued) == size - len(told), "what was in flight is asked for again"


def test_answers_may_come_in_any_order(kind: str) -> None:
    found = searcher(kind, LOG)
    asked = [point for _ in range(6) if (point := found.ask()) is not None]
    for number in (3, 0, 5, 1, 4, 2):
        found.tell(measured(number + 1, asked[number]))
    rest = list(walk(found))
    assert len(rest) == 16 - 6
    assert not set(keys(rest)) & {point_key(point) for point in asked}


# 3. Only answers teach.


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.CANCELLED])
def test_a_trial_without_an_answer_teaches_nothing(kind: str, state: TrialState) -> None:
    def silent(value: float) -> Answer:
        def answer(number: int, parameters: Parameters) -> Trial:
            if number % 2:
                return measured(number, parameters)
            return trial(number, parameters, state, objectives={"output_throughput": value})

        return answer

    one = list(walk(searcher(kind, LOG), silent(1e6)))
    other = list(walk(searcher(kind, LOG), silent(-1e6)))
    assert points(one) == points(other)
    assert len(one) == 16, "it is not asked for again either"


def test_infeasible_and_stopped_trials_are_accepted(kind: str) -> None:
    def answer(number: int, parameters: Parameters) -> Trial:
        if number % 3 == 0:
            return crashed(number, parameters)
        if number % 3 == 1:
            return trial(number, parameters, TrialState.STOPPED)
        violated = {"ttft_p99": 0.5 if number % 2 else -0.5}
        return trial(number, parameters, objectives={"output_throughput": 5.0}, violations=violated)

    assert len(list(walk(searcher(kind, LOG), answer))) == 16


def test_a_complete_trial_with_an_unknown_objective_is_accepted(kind: str) -> None:
    def answer(number: int, parameters: Parameters) -> Trial:
        return trial(number, parameters, objectives={"output_throughput": None})

    assert len(list(walk(searcher(kind, LOG), answer))) == 16


def test_several_objectives_are_accepted(kind: str) -> None:
    names = ["output_throughput", "ttft_p99", "goodput"]

    def answer(number: int, parameters: Parameters) -> Trial:
        if number % 4 == 0:
            return crashed(number, parameters)
        values = {name: float(number % (index + 5)) for index, name in enumerate(names)}
        return trial(number, parameters, objectives=values, violations={"error_rate": -0.1})

    found = searcher(kind, CONDITIONAL, objectives=names, constraints={"error_rate": 0.1})
    size = study(kind, CONDITIONAL).parameter_space.size()
    assert len(list(walk(found, answer))) == size


# 4. The same seed and the same answers give the same sequence.


@pytest.mark.parametrize("space", FINITE.values(), ids=FINITE)
def test_the_same_seed_and_answers_give_the_same_sequence(kind: str, space: dict[str, Any]) -> None:
    one, other = (list(walk(searcher(kind, space))) for _ in range(2))
    assert points(one) == points(other)


def test_the_same_seed_gives_the_same_sequence_in_an_endless_space(sampling: str) -> None:
    one, other = (list(walk(searcher(sampling, ENDLESS), limit=12)) for _ in range(2))
    assert points(one) == points(other)


def test_another_seed_gives_another_sequence(sampling: str) -> None:
    one, other = (list(walk(searcher(sampling, MIXED, seed), limit=12)) for seed in (1, 2))
    assert points(one) != points(other)


# Options and limits of a kind.


def test_an_unknown_option_is_a_config_error_with_its_place(kind: str) -> None:
    made: SearchKind = load_kind("search", kind)
    with pytest.raises(ConfigError) as caught:
        made.check(spec(search={"kind": kind, "nonsense": 3}))
    assert caught.value.where == "search.nonsense"
    assert "3" in caught.value.problem
    assert "kind" in caught.value.allowed


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


# A searcher that learns.


def hill(kind: str, seed: int, better: str, asks: int = 16) -> float:
    """Mean value of the later half of the asks on a hill of 30 choices."""
    space = {"x": {"type": "int", "low": 0, "high": 29}}
    values: list[float] = []

    def answer(number: int, parameters: Parameters) -> Trial:
        height = 1000.0 - (parameters["x"] - 21) ** 2
        values.append(height)
        value = height if better == "output_throughput" else -height
        return trial(number, parameters, objectives={better: value})

    for _ in walk(searcher(kind, space, seed, objectives=[better]), answer, limit=asks):
        pass
    return sum(values[asks // 2 :]) / (asks - asks // 2)


@pytest.mark.parametrize("objective", ["output_throughput", "ttft_p99"])
def test_optuna_learns_which_way_is_up(objective: str) -> None:
    seeds = range(6)
    learned = sum(hill("optuna", seed, objective) for seed in seeds) / len(seeds)
    drawn = sum(hill("random", seed, objective) for seed in seeds) / len(seeds)
    assert learned > drawn + 20


def test_optuna_learns_to_stay_where_it_is_feasible() -> None:
    space = {"x": {"type": "int", "low": 0, "high": 39}}

    def answer(number: int, parameters: Parameters) -> Trial:
        x = parameters["x"]
        if x >= 30:
            return crashed(number, parameters)
        violation = {"ttft_p99": x / 12 - 1}
        return trial(
            number, parameters, objectives={"output_throughput": float(x)}, violations=violation
        )

    def feasible(kind: str) -> int:
        return sum(
            each.parameters["x"] <= 12
            for seed in range(4)
            for each in list(walk(searcher(kind, space, seed), answer, limit=14))[7:]
        )

    assert feasible("optuna") > feasible("random")
