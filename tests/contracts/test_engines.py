"""What every kind of engine must do: the numbered behaviours in `engines.base.Engine`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotuner.engines.base import Engine
from autotuner.engines.flags import catalog_of
from autotuner.errors import ConfigError, FailureClass
from autotuner.plugins import kinds, load_kind
from autotuner.serving import Place
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.telemetry import SIGNALS, Levers
from tests.builders import spec

KINDS = kinds("engine")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(kind: str) -> Engine:
    found: Engine = load_kind("engine", kind)
    return found


@dataclass(frozen=True)
class Words:
    """The same things in an engine's own words."""

    sequences: str
    """Whole number: requests at the same time."""
    tokens: str
    """Whole number: tokens in one step."""
    block: str
    impossible: Mapping[str, int]
    """A point that cannot start; its values are all in the reason."""


WORDS = {
    "sglang": Words(
        "max-running-requests",
        "chunked-prefill-size",
        "page-size",
        {"tp-size": 4, "moe-dense-tp-size": 2},
    ),
}
DEFAULT_WORDS = Words(
    "max-num-seqs",
    "max-num-batched-tokens",
    "block-size",
    {"max-num-batched-tokens": 4, "max-num-seqs": 64},
)


def words(kind: str) -> Words:
    return WORDS.get(kind, DEFAULT_WORDS)


def study(kind: str, **engine: Any) -> StudySpec:
    """A study of two flags, the second one spelled with underscores, and a variable."""
    own = words(kind)
    return spec(
        engine={"kind": kind, **engine},
        space={
            own.sequences: [8, None],
            own.tokens.replace("-", "_"): {"type": "int", "low": 64, "high": 128},
            "env:VARIABLE": ["a", None],
        },
    )


def point(kind: str) -> Parameters:
    return {words(kind).sequences: 8, words(kind).tokens: 64, "env:VARIABLE": "a"}


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
    launch = engine.launch(found, point(kind), port=1)
    argv = launch.arguments
    assert argv[argv.index(f"--{words(kind).sequences}") + 1] == "8"
    assert argv[argv.index(f"--{words(kind).tokens}") + 1] == "64"
    assert launch.environment == {"VARIABLE": "a"}


def test_null_and_the_empty_text_leave_flag_and_variable_out(engine: Engine, kind: str) -> None:
    found = study(kind)
    nothing = {words(kind).sequences: None, words(kind).tokens: "", "env:VARIABLE": None}
    assert engine.launch(found, nothing, port=1) == engine.launch(found, {}, port=1)


def test_the_command_host_and_image_of_the_study_are_used(engine: Engine, kind: str) -> None:
    found = study(kind, command=["/opt/python", "-m", "server"], image="mine:1")
    launch = engine.launch(found, {}, port=1, place=Place(host="0.0.0.0"))
    assert launch.command == ("/opt/python", "-m", "server")
    assert launch.image == "mine:1"
    assert "0.0.0.0" in launch.arguments
    assert "127.0.0.1" not in launch.arguments


# 2. Equal values give equal launches, every argument one item.


def test_equal_values_give_equal_launches(engine: Engine, kind: str) -> None:
    name, mine = words(kind).block, point(kind)
    spelled = "--" + name.replace("-", "_")
    one = engine.launch(study(kind, arguments={spelled: 16}), {}, port=1)
    assert one == engine.launch(study(kind, arguments={name: 16}), {}, port=1)
    assert engine.launch(study(kind), mine, port=1) == engine.launch(study(kind), mine, port=1)
    assert engine.launch(study(kind), mine, port=1) != engine.launch(study(kind), mine, port=2)


def test_every_item_of_a_launch_is_a_text(engine: Engine, kind: str) -> None:
    found = study(kind, environment={"N": 1})
    whole = {words(kind).sequences: 8.0, "env:VARIABLE": 2.5}
    launch = engine.launch(found, whole, port=1)
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
        engine.check(study(kind, arguments={words(kind).sequences + "x": 4}))
    assert f"--{words(kind).sequences}x" in caught.value.problem
    assert caught.value.where == f"engine.arguments.{words(kind).sequences}x"
    assert f"--{words(kind).sequences}" in caught.value.hint


def test_a_wrong_value_is_refused_with_its_place(engine: Engine, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine.check(spec(engine={"kind": kind}, space={words(kind).sequences: [1, "many"]}))
    assert caught.value.where == f"space.{words(kind).sequences}"
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
    impossible = words(kind).impossible
    reason = engine.refuse(study(kind), dict(impossible))
    assert reason is not None
    assert all(name in reason and str(value) in reason for name, value in impossible.items())
    assert engine.refuse(study(kind), point(kind)) is None


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
@example("sglang", "[2026-11-22 03:04:05 TP0] ")
def test_any_log_is_diagnosed_with_one_line_of_reason(kind: str, log: str) -> None:
    engine: Engine = load_kind("engine", kind)
    diagnosis = engine.diagnose(log)
    assert isinstance(diagnosis.failure, FailureClass)
    assert diagnosis.failure is not FailureClass.REFUSED
    assert diagnosis.reason.strip()
    assert len(diagnosis.reason.splitlines()) == 1
    assert engine.diagnose(log) == diagnosis
    assert set(diagnosis.moves.values()) <= {"raise", "lower"}
    assert bool(diagnosis.advice) == bool(diagnosis.moves)


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


# 4. What a diagnosis advises is a flag that the engine has.


def test_what_is_advised_is_a_flag_of_the_engine(engine: Engine, kind: str) -> None:
    catalog = catalog_of(study(kind))
    logs = (
        "Application startup complete.\nOutOfMemoryError: CUDA out of memory.",
        "No available memory for the cache blocks. Try increasing",
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
    )
    moves = [each for log in logs for each in engine.diagnose(log).moves]
    assert moves
    assert all(catalog.find(name) is not None for name in moves if not name.startswith("env:"))


# 5. `observe` and `memory` never fail either.


@given(st.sampled_from(KINDS), st.lists(LINES, max_size=8).map("\n".join))
@example("vllm", "KV cache size: ,, tokens")
@example("sglang", "Load weight end. mem usage=. GB, KV Cache is allocated. KV size: ... GB")
def test_any_log_is_observed(kind: str, log: str) -> None:
    engine: Engine = load_kind("engine", kind)
    seen = engine.observe(log)
    assert set(seen) <= {"kv_tokens", "kv_gib", "weights_gib", "concurrency"}
    assert all(type(value) is float and value >= 0 for value in seen.values())
    assert engine.observe("") == {}


@given(
    st.sampled_from(KINDS),
    st.sampled_from([None, "", 0, -1, 8, 8.0, "8k", "auto", True, "many", [1], {"a": 1}]),
    st.sampled_from(["sequences", "tokens", "block"]),
)
def test_any_value_of_a_flag_can_be_asked_for_its_memory(kind: str, value: Any, word: str) -> None:
    engine: Engine = load_kind("engine", kind)
    point = {getattr(words(kind), word): value}
    engine.memory(study(kind), point)
    engine.refuse(study(kind), point)


def test_memory_speaks_of_what_the_flags_say(engine: Engine, kind: str) -> None:
    request = engine.memory(study(kind), point(kind))
    if kind == "simulated":
        assert request is None
        return
    assert request is not None
    assert (request.sequences, request.batched_tokens) == (8, 64)
    assert (request.tp, request.pp, request.dp) == (1, 1, 1)
    assert engine.memory(study(kind), {words(kind).block: 32}).block == 32  # type: ignore[union-attr]


# 6. What it tells while it serves, in its own words.


def test_what_an_engine_tells_is_of_known_signals_under_names_of_its_own(
    engine: Engine, kind: str
) -> None:
    told = engine.told
    assert told.path.startswith("/")
    assert {"kv_usage", "running", "waiting", "preemptions"} <= set(told.series) <= set(SIGNALS)
    names = [name for each in told.series.values() for name in each]
    assert all(told.series.values())
    assert len(names) == len(set(names)), "no name tells two signals"
    assert all(name.partition(":")[0] == {"simulated": "sim"}.get(kind, kind) for name in names)


def test_levers_are_flags_of_the_engine(engine: Engine, kind: str) -> None:
    catalog, levers = catalog_of(study(kind)), engine.levers(study(kind), point(kind))
    assert levers.sequences == words(kind).sequences
    assert levers.most == 8
    assert levers.tokens == words(kind).tokens
    assert all(catalog.find(name) for name in (levers.sequences, levers.tokens, levers.memory))


def test_a_bound_that_is_fixed_for_the_study_holds_for_its_trials(
    engine: Engine, kind: str
) -> None:
    found = spec(engine={"kind": kind, "arguments": {words(kind).sequences: 12}})
    assert engine.levers(found, {}).most == 12


def test_a_bound_that_is_not_said_is_the_engines_own(engine: Engine, kind: str) -> None:
    # Only the simulated engine's defaults are what its catalog says, whatever the machine.
    assert engine.levers(spec(engine={"kind": kind}), {}).most == (
        16 if kind == "simulated" else None
    )


@given(st.sampled_from(KINDS), st.sampled_from([None, "", 0, -1, 8.0, "8k", True, "many", [1]]))
def test_any_value_of_a_flag_can_be_asked_for_its_levers(kind: str, value: Any) -> None:
    engine: Engine = load_kind("engine", kind)
    assert isinstance(engine.levers(study(kind), {words(kind).sequences: value}), Levers)
