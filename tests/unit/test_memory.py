"""The memory model against the log of a real server, and against a GPU whose overhead is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.estimators.memory import (
    RUNTIME_GIB,
    MemoryEstimate,
    MemoryModel,
    Observation,
    step_gib,
)
from autotuner.serving import MemoryRequest
from autotuner.study.model import GIB, ModelShape, shape_of
from tests.unit.test_model import LLAMA_8B, MIXTRAL

LLAMA = shape_of(LLAMA_8B)
LLAMA_70B: Mapping[str, Any] = {
    **LLAMA_8B,
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
GPU = 79.1
"""GiB of an H100 with 80 GB."""

# The model in the end-to-end tests, which vLLM 0.32 served on a CPU with 1 GiB of KV cache:
# "CPU KV cache size: 524,288 tokens".
TINY: Mapping[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 2000,
    "intermediate_size": 512,
    "max_position_embeddings": 4096,
}


def model(config: Mapping[str, Any] = LLAMA_8B, gpu_gib: float | None = GPU) -> MemoryModel:
    shape = shape_of(config)
    assert shape is not None
    return MemoryModel(shape, gpu_gib)


def said_by(shape: ModelShape, request: MemoryRequest, overhead: float) -> dict[str, float]:
    """What a server would log whose working memory is this many GiB."""
    weights = shape.weight_bytes / request.tp / GIB
    kv = (request.fraction or 0.9) * GPU - weights - overhead
    tokens = kv * GIB / shape.kv_bytes_per_token(tp=request.tp)
    return {"weights_gib": weights, "kv_gib": kv, "kv_tokens": tokens}


def longest(model: MemoryModel, request: MemoryRequest) -> int:
    """Tokens of the longest sequence that the model lets pass: what the KV cache holds."""
    fits, not_any_more = 0, 2**30
    while not_any_more - fits > 1:
        middle = (fits + not_any_more) // 2
        if model.estimate(replace(request, max_length=middle)).infeasible:
            not_any_more = middle
        else:
            fits = middle
    return fits


def deviations(model: MemoryModel, request: MemoryRequest) -> float:
    """How many of its standard deviations the model sees a point from what just fits."""
    return NormalDist().inv_cdf((model.estimate(request).sure + 1) / 2)


def test_tokens_of_a_real_server() -> None:
    request = MemoryRequest(kv_gib=1.0, max_length=2048)
    assert longest(model(TINY, None), request) == 524_288
    found = model(TINY, None).estimate(request)
    assert found.infeasible == ""
    assert found.sure > 0.99


def test_weights_that_no_fraction_makes_fit_are_proven() -> None:
    found = model(LLAMA_70B).estimate(MemoryRequest(fraction=0.95))
    assert found.proven
    assert found.infeasible.startswith("the weights take at least 131.4 GiB of each GPU")
    assert found.sure == 1
    assert not model(LLAMA_70B).estimate(MemoryRequest(fraction=0.95, tp=2)).proven
    # Where the engine chooses the fraction, it is the whole GPU that is too small.
    assert model(LLAMA_70B, 131.0).estimate(MemoryRequest()).proven
    assert not model(LLAMA_70B, 132.0).estimate(MemoryRequest()).proven


def test_a_sequence_that_no_cache_can_hold_is_proven() -> None:
    long = MemoryRequest(fraction=0.9, max_length=500_000)
    found = model().estimate(long)
    assert found.proven
    assert "one sequence of 500000 tokens takes at least 61.0 GiB" in found.infeasible
    assert not model().estimate(replace(long, tp=2)).proven
    assert not model().estimate(replace(long, kv_bytes=1.0)).proven


def test_the_stage_with_most_layers_may_have_few_weights() -> None:
    # 64 KiB a token on each of two stages, of which one may have next to no weights.
    stages = MemoryRequest(fraction=0.9, pp=2)
    assert not model().estimate(replace(stages, max_length=1_064_960)).proven
    assert model().estimate(replace(stages, max_length=1_200_000)).proven


def test_a_fixed_cache_needs_no_gpu_to_be_too_small() -> None:
    found = model(TINY, None).estimate(MemoryRequest(kv_gib=0.001, max_length=2048))
    assert found.proven
    assert "2048" in found.infeasible


@pytest.mark.parametrize(
    "more",
    [
        {"offload_gib": 60.0},
        {"quantization": "bitsandbytes"},
        {"quantization": "fp8", "weight_bytes": 1.0},
        {"tp": 2},
        {"pp": 2},
    ],
    ids=str,
)
def test_what_makes_the_weights_smaller_takes_the_proof_away(more: dict[str, Any]) -> None:
    assert model(LLAMA_70B).estimate(MemoryRequest()).proven
    assert not model(LLAMA_70B).estimate(replace(MemoryRequest(), **more)).proven


@pytest.mark.parametrize(
    "config",
    [
        {**LLAMA_70B, "model_type": "novel"},
        {**LLAMA_70B, "quantization_config": {"quant_method": "novel"}},
    ],
    ids=["family", "quantization"],
)
def test_a_model_that_is_not_known_well_proves_nothing(config: Mapping[str, Any]) -> None:
    found = model(config).estimate(MemoryRequest(fraction=0.9))
    assert found.infeasible
    assert not found.proven
    assert found.sure <= 0.5


def test_experts_may_be_shared_by_replicas() -> None:
    one = MemoryRequest(fraction=0.9)
    assert model(MIXTRAL).estimate(one).proven
    assert not model(MIXTRAL).estimate(replace(one, dp=2)).proven
    # A dense model's replicas are whole.
    assert model(LLAMA_70B).estimate(replace(one, dp=2)).proven
    four = replace(one, dp=4)
    assert model(MIXTRAL, 40.0).estimate(four).infeasible
    assert model(MIXTRAL, 40.0).estimate(replace(four, expert_parallel=True)).infeasible == ""


def test_a_window_is_no_proof() -> None:
    request = MemoryRequest(fraction=0.9, max_length=500_000)
    found = model({**LLAMA_8B, "sliding_window": 4096}).estimate(request)
    assert found.infeasible
    assert not found.proven


def test_little_room_is_a_guess_and_sure_by_its_distance() -> None:
    def at(fraction: float) -> MemoryEstimate:
        return model().estimate(MemoryRequest(fraction=fraction, max_length=8192))

    near, far, fits = at(0.22), at(0.21), at(0.9)
    assert near.infeasible
    assert not near.proven
    assert "below the 1.0 of one sequence of 8192 tokens" in near.infeasible
    assert near.sure < far.sure < 1
    assert fits.infeasible == ""
    assert fits.sure > 0.99


def test_a_fixed_cache_beside_the_weights() -> None:
    assert "are probably more than" in model().estimate(MemoryRequest(kv_gib=64)).infeasible
    assert model().estimate(MemoryRequest(kv_gib=30)).infeasible == ""
    assert model().estimate(MemoryRequest(kv_gib=70)).proven


def test_nothing_is_said_of_a_gpu_that_is_not_known() -> None:
    found = model(gpu_gib=None).estimate(MemoryRequest(fraction=0.9, max_length=8192))
    assert found == MemoryEstimate(sure=0, infeasible="", proven=False)


def test_a_fixed_cache_that_probably_holds_no_sequence() -> None:
    # A model with windows proves nothing; of its longest sequence everything might be kept.
    windowed = model({**TINY, "sliding_window": 512}, None)
    found = windowed.estimate(MemoryRequest(kv_gib=1.0, max_length=600_000))
    assert not found.proven
    assert found.infeasible == (
        "1.0 GiB of KV cache are probably less than the 1.1 of one sequence of 600000 tokens"
    )
    assert found.sure > 0.99


@pytest.mark.parametrize("overhead", [0.8, 2.5, 6.0])
def test_one_log_corrects_the_guess(overhead: float) -> None:
    assert LLAMA is not None
    seen = MemoryRequest(fraction=0.9, sequences=256, batched_tokens=8192)
    other = replace(seen, fraction=0.8)
    learnt = model().calibrated([(seen, said_by(LLAMA, seen, overhead))])
    truth = said_by(LLAMA, other, overhead)["kv_tokens"]
    assert longest(learnt, other) == pytest.approx(truth, rel=0.01)


def test_logs_of_different_flags_teach_what_flags_cost() -> None:
    assert LLAMA is not None
    seen = [
        MemoryRequest(fraction=0.9, sequences=256, batched_tokens=tokens)
        for tokens in (2048, 8192, 16384, 32768)
    ]
    # Each batched token takes twice what the formula says, beside a constant of 3 GiB.
    logs: list[Observation] = [
        (each, said_by(LLAMA, each, 3 + 2 * step_gib(LLAMA, each))) for each in seen
    ]
    learnt = model().calibrated(logs)
    assert learnt.calibration.slope == pytest.approx(2, rel=0.05)
    far = MemoryRequest(fraction=0.9, sequences=256, batched_tokens=65536)
    truth = said_by(LLAMA, far, 3 + 2 * step_gib(LLAMA, far))["kv_tokens"]
    assert longest(learnt, far) == pytest.approx(truth, rel=0.03)
    # Half of the bytes of a token more or less would be seen as well.
    assert learnt.calibration.kv == pytest.approx(1)


def as_foreseen(fresh: MemoryModel, request: MemoryRequest) -> Observation:
    """A launch of which the log says just what the model says without any."""
    overhead = RUNTIME_GIB + step_gib(fresh.shape, request)
    return request, said_by(fresh.shape, request, overhead)


@pytest.mark.parametrize(
    ("config", "request_"),
    [
        (LLAMA_8B, MemoryRequest(fraction=0.23, max_length=8192)),
        (LLAMA_70B, MemoryRequest(fraction=0.27, tp=8, max_length=8192)),
        (LLAMA_8B, MemoryRequest(fraction=0.042, tp=8, max_length=8192)),
    ],
    ids=["8B", "70B on 8", "8B on 8"],
)
def test_logs_that_agree_make_it_surer(config: Mapping[str, Any], request_: MemoryRequest) -> None:
    fresh = model(config)
    log = as_foreseen(fresh, request_)
    counts = (0, 1, 4, 16)
    away = [deviations(fresh.calibrated([log] * count), request_) for count in counts]
    assert away == sorted(away)
    assert away[1] > 2 * away[0]
    assert away[-1] > 3 * away[0]


def test_logs_that_disagree_leave_it_unsure() -> None:
    assert LLAMA is not None
    request = MemoryRequest(fraction=0.23, max_length=8192)
    mean = RUNTIME_GIB + step_gib(LLAMA, request)
    agreeing = [as_foreseen(model(), request)] * 6
    spread: list[Observation] = [
        (request, said_by(LLAMA, request, mean + each)) for each in (-1.5, -1, 0, 0, 1, 1.5)
    ]
    one, other = (deviations(model().calibrated(logs), request) for logs in (agreeing, spread))
    assert one > 1.5 * other


def test_logs_make_it_surer_of_a_fixed_cache_too() -> None:
    fixed = MemoryRequest(kv_gib=60.5)
    learnt = model().calibrated([as_foreseen(model(), MemoryRequest(fraction=0.9))] * 4)
    assert model().estimate(fixed).infeasible == learnt.estimate(fixed).infeasible == ""
    assert deviations(learnt, fixed) > 2 * deviations(model(), fixed)


def test_what_a_token_and_weights_really_take() -> None:
    request = MemoryRequest(kv_gib=10.0)
    found = model(gpu_gib=None).calibrated(
        [(request, {"kv_gib": 10.0, "kv_tokens": 40_960.0, "weights_gib": 29.92})]
    )
    assert longest(found, request) == pytest.approx(40_960, rel=1e-6)
    assert found.calibration.weights == pytest.approx(2, rel=0.001)
    assert replace(found, gpu_gib=40.0).estimate(request).infeasible
    assert model(gpu_gib=40.0).estimate(request).infeasible == ""


def test_the_log_of_a_real_sglang_is_too_coarse_to_learn_sizes_from() -> None:
    # SGLang 0.5.23 on a CPU: "#tokens: 32768, K size: 0.03 GB, V size: 0.03 GB", and of the
    # weights "mem usage=-0.01 GB".
    said = {"kv_tokens": 32768.0, "kv_gib": 0.06, "weights_gib": -0.01}
    request = MemoryRequest(kv_tokens=32768)
    found = model(TINY, None)
    assert found.calibrated([(request, said)]) == found
    kv_gib = 32768 * found.shape.kv_bytes_per_token() / GIB
    assert kv_gib == pytest.approx(said["kv_gib"], abs=0.005)


def test_a_method_that_says_only_the_least_still_proves_with_that() -> None:
    four_bits = MemoryRequest(fraction=0.9, quantization="bitsandbytes", weight_bytes=0.5)
    assert model(LLAMA_70B, 80).estimate(four_bits).infeasible == ""
    assert model(LLAMA_70B, 40).estimate(four_bits).infeasible
    assert not model(LLAMA_70B, 40).estimate(four_bits).proven
    assert model(LLAMA_70B, 24).estimate(four_bits).proven


def test_calibration_starts_over() -> None:
    request = MemoryRequest(kv_gib=10.0)
    logs: list[Observation] = [(request, {"kv_gib": 10.0, "kv_tokens": 40_960.0})]
    once = model(gpu_gib=None).calibrated(logs)
    assert once.calibrated(logs) == once


def test_logs_that_say_nothing_change_nothing() -> None:
    empty: list[Observation] = [(MemoryRequest(), {}), (MemoryRequest(), {"concurrency": 3.0})]
    assert model().calibrated(empty) == model()


def test_a_capped_cache_says_nothing_of_the_memory() -> None:
    request = MemoryRequest(fraction=0.9, kv_tokens=4096)
    assert model().calibrated([(request, {"kv_tokens": 4096.0})]) == model()


@given(
    fraction=st.floats(0.05, 1.0),
    tp=st.sampled_from([1, 2, 4, 8]),
    length=st.integers(1, 200_000),
    batched=st.integers(64, 65536),
)
def test_more_of_the_gpu_never_holds_less(
    fraction: float, tp: int, length: int, batched: int
) -> None:
    request = MemoryRequest(fraction=fraction, tp=tp, max_length=length, batched_tokens=batched)
    more = replace(request, fraction=min(1.0, fraction + 0.1))
    less, most = model().estimate(request), model().estimate(more)
    assert most.proven <= less.proven
    assert bool(most.infeasible) <= bool(less.infeasible)
    assert 0 <= less.sure <= 1
    # What is proven is also what the guess would have said.
    guessing = MemoryModel(replace(model().shape, exact=False), GPU)
    assert bool(guessing.estimate(request).infeasible) >= less.proven
