"""What every kind of engine must do: the numbered behaviours in `engines.base.Engine`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotuner.engines.base import Engine
from autotuner.engines.flags import catalog_of
from autotuner.errors import ConfigError, FailureClass
from autotuner.plugins import kinds, load_kind
from autotuner.study.spec import StudySpec
from tests.builders import spec

KINDS = kinds("engine")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(kind: str) -> Engine:
    found: Engine = load_kind("engine", kind)
    return found


def study(kind: str, **engine: Any) -> StudySpec:
    """Flags that every engine here has."""
    return spec(
        engine={"kind": kind, **engine},
        space={
            "max-num-seqs": [8, None],
            "max_num_batched_tokens": {"type": "int", "low": 64, "high": 128},
            "env:VARIABLE": ["a", None],
        },
    )


POINT = {"max-num-seqs": 8, "max-num-batched-tokens": 64, "env:VARIABLE": "a"}


def test_the_api_is_a_dialect_of_the_benchmarks(engine: Engine) -> None:
    assert engine.api in ("vllm", "sglang", "openai")


# 1. What `check` accepts, `launch` turns into arguments.


def test_the_baseline_can_be_launched(engine: Engine, kind: str) -> None:
    found = study(kind)
    engine.check(found)
    launch = engine.launch(found, {}, port=8123)
    assert launch.argv == launch.command + launch.arguments
    assert launch.argv[: len(launch.command)] == launch.command
    assert launch.port == 8123
    assert "8123" in launch.arguments
    assert "127.0.0.1" in launch.arguments
    assert launch.model_path == "/models/tiny"
    assert "/models/tiny" in launch.arguments
    assert launch.served_name == "tiny"
    assert launch.environment == {}
    assert launch.image
    assert launch.health_path.startswith("/")
    assert launch.gpus >= 0
    assert engine.refuse(found, {}) is None


def test_every_point_that_is_accepted_can_be_launched(engine: Engine, kind: str) -> None:
    found = study(kind)
    engine.check(found)
    launch = engine.launch(found, POINT, port=1)
    argv = launch.arguments
    assert argv[argv.index("--max-num-seqs") + 1] == "8"
    assert argv[argv.index("--max-num-batched-tokens") + 1] == "64"
    assert launch.environment == {"VARIABLE": "a"}


def test_null_and_the_empty_text_leave_flag_and_variable_out(engine: Engine, kind: str) -> None:
    found = study(kind)
    nothing = {"max-num-seqs": None, "max-num-batched-tokens": "", "env:VARIABLE": None}
    assert engine.launch(found, nothing, port=1) == engine.launch(found, {}, port=1)


def test_the_command_host_and_image_of_the_study_are_used(engine: Engine, kind: str) -> None:
    found = study(kind, command=["/opt/python", "-m", "server"], image="mine:1")
    launch = engine.launch(found, {}, port=1, host="0.0.0.0")
    assert launch.command == ("/opt/python", "-m", "server")
    assert launch.image == "mine:1"
    assert "0.0.0.0" in launch.arguments
    assert "127.0.0.1" not in launch.arguments


# 2. Equal values give equal launches, every argument one item.


def test_equal_values_give_equal_launches(engine: Engine, kind: str) -> None:
    one = engine.launch(study(kind, arguments={"--block_size": 16}), {}, port=1)
    other = engine.launch(study(kind, arguments={"block-size": 16}), {}, port=1)
    assert one == other
    assert engine.launch(study(kind), POINT, port=1) == engine.launch(study(kind), POINT, port=1)
    assert engine.launch(study(kind), POINT, port=1) != engine.launch(study(kind), POINT, port=2)


def test_every_item_of_a_launch_is_a_text(engine: Engine, kind: str) -> None:
    found = study(kind, environment={"N": 1})
    point = {"max-num-seqs": 8.0, "env:VARIABLE": 2.5}
    launch = engine.launch(found, point, port=1)
    assert all(type(item) is str for item in launch.argv)
    assert all(type(value) is str for value in launch.environment.values())
    assert launch.environment == {"N": "1", "VARIABLE": "2.5"}
    assert "8" in launch.arguments


@given(st.sampled_from(KINDS), st.text(min_size=1, max_size=12))
@settings(max_examples=40)
def test_a_text_stays_one_item_and_is_never_split_by_a_shell(kind: str, text: str) -> None:
    found = spec(engine={"kind": kind}, model={"path": "/m/" + text, "served_name": "a b"})
    engine: Engine = load_kind("engine", kind)
    launch = engine.launch(found, {}, port=1)
    assert launch.argv.count("/m/" + text) == 1
    assert launch.argv.count("a b") == 1


# What `check` refuses, with its place.


def test_an_unknown_flag_is_refused_with_the_nearest(engine: Engine, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine.check(study(kind, arguments={"max-num-sequences": 4}))
    assert "--max-num-sequences" in caught.value.problem
    assert caught.value.where == "engine.arguments.max-num-sequences"
    assert "--max-num-seqs" in caught.value.hint


def test_a_wrong_value_is_refused_with_its_place(engine: Engine, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine.check(spec(engine={"kind": kind}, space={"max-num-seqs": [1, "many"]}))
    assert caught.value.where == "space.max-num-seqs"
    assert "'many'" in caught.value.problem


@pytest.mark.parametrize("name", ["host", "port", "model", "served-model-name"])
def test_a_flag_autotuner_sets_is_refused(engine: Engine, kind: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine.check(spec(engine={"kind": kind, "arguments": {name: "1"}}))
    assert "is set by autotuner" in caught.value.problem


def test_a_version_without_a_catalog_is_refused(engine: Engine, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine.check(study(kind, version="0.0.0"))
    assert caught.value.where == "engine.version"
    assert caught.value.allowed


def test_every_flag_of_the_catalog_can_be_left_out(engine: Engine, kind: str) -> None:
    found = study(kind)
    nothing = dict.fromkeys((flag.name for flag in catalog_of(found).flags), None)
    assert engine.launch(found, nothing, port=1) == engine.launch(found, {}, port=1)


# 3. Only the provable is refused.


def test_an_impossible_point_is_refused_with_its_reason(engine: Engine, kind: str) -> None:
    reason = engine.refuse(study(kind), {"max-num-batched-tokens": 4, "max-num-seqs": 64})
    assert reason is not None
    assert "4" in reason
    assert "64" in reason
    assert engine.refuse(study(kind), POINT) is None


# 4. `diagnose` never fails.


LINES = st.text(max_size=80) | st.sampled_from(
    [
        "Traceback (most recent call last):",
        "RuntimeError: Engine core initialization failed. See root cause above.",
        "error: argument --x: invalid",
        "Value error,   [type=value_error",
        "Value error, ",
        "Error:",
        "\t \x1b[31m\x1b[0m",
        "NCCL error",
    ]
)


@given(st.sampled_from(KINDS), st.lists(LINES, max_size=8).map("\n".join))
@example("vllm", "")
@example("vllm", "\n\n \n")
@example("vllm", "(EngineCore pid=1) ERROR 11-22 03:04:05 [core.py:1] ")
@example("simulated", "INFO 11-22 03:04:05 ")
def test_any_log_is_diagnosed_with_one_line_of_reason(kind: str, log: str) -> None:
    engine: Engine = load_kind("engine", kind)
    diagnosis = engine.diagnose(log)
    assert isinstance(diagnosis.failure, FailureClass)
    assert diagnosis.failure is not FailureClass.REFUSED
    assert diagnosis.reason.strip()
    assert len(diagnosis.reason.splitlines()) == 1
    assert engine.diagnose(log) == diagnosis


def test_a_log_without_a_known_signature_is_a_crash_with_its_last_line(engine: Engine) -> None:
    diagnosis = engine.diagnose("starting\nsomething odd happened\n\n")
    assert diagnosis.failure is FailureClass.CRASH
    assert diagnosis.reason == "something odd happened"
    assert not diagnosis.machine_fault


def test_a_taken_port_is_the_machines_fault_and_a_bad_argument_is_not(engine: Engine) -> None:
    taken = engine.diagnose("OSError: [Errno 98] Address already in use")
    assert taken.failure is FailureClass.PORT
    assert taken.machine_fault
    bad = engine.diagnose("serve: error: unrecognized arguments: --x\n")
    assert bad.failure is FailureClass.ARGUMENT
    assert not bad.machine_fault
