"""The table of signatures: which one decides, what is kept as the reason, what is advised."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from autotuner.engines.base import MACHINE_FAULTS, Diagnosis
from autotuner.engines.signatures import (
    ARGUMENTS,
    DEVICE,
    IMAGE,
    MODEL,
    NCCL,
    PORT,
    REASON_LENGTH,
    SHARED_MEMORY,
    Signature,
    advice_of,
    diagnose,
    observed,
)
from autotuner.engines.vllm import VLLM
from autotuner.errors import FailureClass
from autotuner.study.model import GIB, shape_of

PREFIX = re.compile(r"^\[\d+\] ")


def said(log: str, *signatures: Signature) -> Diagnosis:
    return diagnose(log, signatures, PREFIX)


CACHE = Signature(FailureClass.KV_CACHE, r"no room.*", {"share": "raise", "length": "lower"})
ODD = Signature(FailureClass.ARGUMENT, r"odd (?P<reason>.*)")


def test_the_table_decides_and_not_the_place_in_the_log() -> None:
    log = "[1] odd value\n[2] no room for 7\n[3] the end"
    assert said(log, CACHE, ODD) == Diagnosis(
        FailureClass.KV_CACHE,
        "no room for 7",
        "raise share, or lower length",
        {"share": "raise", "length": "lower"},
    )
    assert said(log, ODD, CACHE) == Diagnosis(FailureClass.ARGUMENT, "value")


def test_a_signature_may_need_an_earlier_line() -> None:
    later = Signature(FailureClass.MEMORY_UNDER_LOAD, r"full", after="ready")
    assert said("full\nready", later).failure is FailureClass.CRASH
    assert said("ready full", later).failure is FailureClass.CRASH
    assert said("full\nready\nfull", later).failure is FailureClass.MEMORY_UNDER_LOAD


def test_a_signature_may_be_overruled_by_another_text_anywhere() -> None:
    killed = Signature(FailureClass.HOST_MEMORY, r"exit code -9", without="exception")
    assert said("exit code -9", killed).failure is FailureClass.HOST_MEMORY
    assert said("exit code -9\nan exception", killed).failure is FailureClass.CRASH


def test_a_signature_may_ask_for_a_number() -> None:
    much = Signature(FailureClass.DEVICE, r"used (\d+)", only=lambda match: int(match[1]) > 5)
    assert said("used 3", much).failure is FailureClass.CRASH
    assert said("used 3\nused 8", much).reason == "used 8"


def test_a_reason_may_go_on_in_the_next_lines() -> None:
    field = Signature(FailureClass.ARGUMENT, r"1 error for \w+", more=2)
    log = "[1] 1 error for Cache\n\tfraction\n  must be above 0 [type=greater, input_value=0]\nx"
    assert said(log, field).reason == "1 error for Cache: fraction: must be above 0"
    assert said("1 error for Cache", field).reason == "1 error for Cache"


def test_a_reason_is_one_short_line() -> None:
    long = said("odd " + "x" * 5000, ODD).reason
    assert len(long) == REASON_LENGTH
    assert said("odd   ", ODD).reason == "odd"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "the log is empty"),
        ("one\ntwo\n\n", "two"),
        ("KeyError: 'x'\nbye", "KeyError: 'x'"),
        (
            "KeyError: 'x'\nRuntimeError: Engine core initialization failed. See root",
            "KeyError: 'x'",
        ),
        ("RuntimeError: Engine core initialization failed.", "RuntimeError: Engine core"),
    ],
)
def test_without_a_signature_the_last_cause_speaks(log: str, words: str) -> None:
    diagnosis = said(log, CACHE)
    assert diagnosis.failure is FailureClass.CRASH
    assert diagnosis.reason.startswith(words)
    assert (diagnosis.advice, diagnosis.moves) == ("", {})


@pytest.mark.parametrize(
    ("moves", "advice"),
    [
        ({}, ""),
        ({"a": "lower"}, "lower a"),
        ({"a": "lower", "b": "lower"}, "lower a or b"),
        ({"a": "lower", "b": "raise", "c": "lower"}, "lower a or c, or raise b"),
        ({"b": "raise", "a": "lower"}, "raise b, or lower a"),
    ],
)
def test_advice_names_the_likeliest_cure_first(moves: dict[str, str], advice: str) -> None:
    assert advice_of(moves) == advice


def test_a_long_log_is_read_in_a_blink() -> None:
    anything = Signature(FailureClass.NCCL, r".*NCCL error.*")
    log = ("x" * 20_000 + "\n") * 20 + "here: NCCL error\n"
    began = time.process_time()
    assert said(log, anything).reason == "here: NCCL error"
    assert time.process_time() - began < 0.5  # 2.4 s where every place of a line is tried


# What the libraries under every engine say.


@pytest.mark.parametrize(
    ("line", "failure"),
    [
        ("OSError: [Errno 98] Address already in use", FailureClass.PORT),
        (
            "[Errno 98] error while attempting to bind on address ('::', 80): address already",
            FailureClass.PORT,
        ),
        (
            "The server socket has failed to listen on any local network address. port: 29500",
            FailureClass.PORT,
        ),
        (
            "Error while creating shared memory segment /dev/shm/nccl-x (size 9637888)",
            FailureClass.SHARED_MEMORY,
        ),
        (
            "Bus error. This might be caused by insufficient shared memory",
            FailureClass.SHARED_MEMORY,
        ),
        ('Failed to pull image "x": ErrImagePull', FailureClass.IMAGE),
        ("pull access denied for mine, repository does not exist", FailureClass.IMAGE),
        ("exec /usr/bin/python3: exec format error", FailureClass.IMAGE),
        ("Access to model x is restricted. Cannot access gated repo for url y", FailureClass.MODEL),
        (
            "The checkpoint has model type `x` but Transformers does not recognize this "
            "architecture.",
            FailureClass.MODEL,
        ),
        ("torch.distributed.DistBackendError: NCCL error in: x.cpp:1", FailureClass.NCCL),
        ("ncclSystemError: System call (e.g. socket, malloc) failed", FailureClass.NCCL),
        ("RuntimeError: No CUDA GPUs are available", FailureClass.DEVICE),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", FailureClass.DEVICE),
        ("serve: error: ambiguous option: --x could match --xa, --xb", FailureClass.ARGUMENT),
    ],
)
def test_what_libraries_say_is_known(line: str, failure: FailureClass) -> None:
    shared = (*ARGUMENTS, *PORT, *IMAGE, *SHARED_MEMORY, *MODEL, *NCCL, *DEVICE)
    diagnosis = said("[1] starting\n" + line + "\nthe end", *shared)
    assert diagnosis.failure is failure
    assert diagnosis.machine_fault is (failure in MACHINE_FAULTS)


def test_the_machines_faults_are_those_that_parameters_do_not_cause() -> None:
    F = FailureClass
    machine = {F.PORT, F.NCCL, F.SHARED_MEMORY, F.DEVICE, F.IMAGE, F.HOST_MEMORY}
    machine |= {F.NOT_INSTALLED}
    assert machine == MACHINE_FAULTS


# Numbers in a log.


def test_numbers_are_read_where_their_phrase_stands() -> None:
    phrases = {"kv_tokens": r"cache: <n> tokens", "kv_gib": r"K <n> GB, V <n> GB", "x": r"y <n>"}
    log = "cache: 524,288 tokens\nK 1.5 GB, V 2 GB\ncache: 7 tokens"
    assert observed(log, phrases) == {"kv_tokens": 524_288.0, "kv_gib": 3.5}
    assert observed("", phrases) == {}


@pytest.mark.parametrize("log", ["cache: ,, tokens", "cache: -3 tokens", "cache: 0.00 tokens"])
def test_what_is_no_number_or_was_rounded_to_nothing_is_left_out(log: str) -> None:
    assert observed(log, {"kv_tokens": r"cache: <n> tokens"}) == {}


# Memory on a CPU that is wrong either way (tests/data/engine-logs/README.md).

LOGS = Path(__file__).parents[1] / "data" / "engine-logs"


def recorded(name: str) -> str:
    return (LOGS / f"vllm-0.32.0-kv-{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "failure", "moves"),
    [
        (
            "fixed-small",
            FailureClass.KV_CACHE,
            {"gpu-memory-utilization": "raise", "max-model-len": "lower"},
        ),
        ("fraction-high", FailureClass.MEMORY_AT_LOAD, {"gpu-memory-utilization": "lower"}),
        ("fraction-low", FailureClass.KV_CACHE, {"gpu-memory-utilization": "raise"}),
        (
            "fixed-large",
            FailureClass.MEMORY_AT_LOAD,
            {"kv-cache-memory-bytes": "lower", "env:VLLM_CPU_KVCACHE_SPACE": "lower"},
        ),
    ],
)
def test_too_much_and_too_little_are_told_apart(
    name: str, failure: FailureClass, moves: dict[str, str]
) -> None:
    diagnosis = VLLM.diagnose(recorded(name))
    assert diagnosis.failure is failure
    assert moves.items() <= diagnosis.moves.items()
    assert set(diagnosis.moves.values()) == set(moves.values())


def test_the_tokens_a_log_counts_are_those_of_the_shape() -> None:
    shape = shape_of(
        {
            "model_type": "llama",
            "num_hidden_layers": 4,
            "hidden_size": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 32,
            "vocab_size": 2000,
            "intermediate_size": 512,
        }
    )
    assert shape is not None
    seen = VLLM.observe(recorded("fraction"))
    tokens = seen["kv_gib"] * GIB / shape.kv_bytes_per_token()
    assert tokens == pytest.approx(seen["kv_tokens"], rel=0.01)  # the log rounds to 0.01 GiB
    assert seen["concurrency"] == pytest.approx(seen["kv_tokens"] / 2048, rel=0.001)
