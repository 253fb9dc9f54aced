"""Errors: what they say, and that they survive the way from one process to another."""

from __future__ import annotations

import pickle

import pytest

from autotuner.errors import (
    AutotunerError,
    ConfigError,
    FailureClass,
    InfrastructureError,
    StudyStateError,
    TrialError,
)


def test_a_config_error_says_place_problem_allowed_and_next_step() -> None:
    error = ConfigError(
        "5 is wrong",
        where="space.a",
        file="study.yaml",
        line=7,
        allowed=["1", "2"],
        hint="choose one",
        others=[ConfigError("also this", file="study.yaml")],
    )
    assert str(error) == (
        "study.yaml:7: space.a: 5 is wrong\n  allowed: 1, 2\n  choose one\nstudy.yaml: also this"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("wrong"), "wrong"),
        (ConfigError("wrong", file="a.yaml"), "a.yaml: wrong"),
        (ConfigError("wrong", where="x.y", line=3), "x.y: wrong"),
        (TrialError(FailureClass.KV_CACHE, "too small"), "KV cache too small: too small"),
    ],
)
def test_an_error_says_only_what_is_known(error: AutotunerError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("wrong", where="a", file="f", line=2, allowed=["x"], hint="h"),
        ConfigError("wrong", others=[ConfigError("other")]),
        TrialError(FailureClass.BENCHMARK, "nothing finished", "the last line"),
        InfrastructureError("the daemon is gone"),
        StudyStateError("there is no study"),
    ],
)
def test_an_error_survives_the_way_to_another_process(error: AutotunerError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name in ("failure", "reason", "log_tail", "problem", "where", "line", "allowed", "hint"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_every_error_on_purpose_is_one_of_four() -> None:
    kinds = {ConfigError, TrialError, InfrastructureError, StudyStateError}
    assert set(AutotunerError.__subclasses__()) >= kinds
    assert not any(issubclass(one, other) for one in kinds for other in kinds if one is not other)
