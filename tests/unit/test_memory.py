"""The memory model against the log of a real server, and against a GPU whose overhead is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.estimators.memory import MemoryEstimate, MemoryModel, Observation, step_gib
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


def test_tokens_of_a_real_server() -> None:
    found = model(TINY, None).estimate(MemoryRequest(kv_gib=1.0, max_length=2048))
    assert found.kv_tokens == 524_288
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
    shared = replace(one, dp=4, expert_parallel=True)
    assert model(MIXTRAL).estimate(shared).weights_gib < 30


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
    assert (found.kv_tokens, found.total_gib, found.infeasible, found.sure) == (None, None, "", 0)
    assert found.weights_gib == pytest.approx(14.96, abs=0.01)


def test_caps_and_blocks() -> None:
    request = MemoryRequest(kv_gib=1.0, kv_tokens=1000, block=16)
    assert model(gpu_gib=None).estimate(request).kv_tokens == 992


@pytest.mark.parametrize("overhead", [0.8, 2.5, 6.0])
def test_one_log_corrects_the_guess(overhead: float) -> None:
    assert LLAMA is not None
    seen = MemoryRequest(fraction=0.9, sequences=256, batched_tokens=8192)
    other = replace(seen, fraction=0.8)
    learnt = model().calibrated([(seen, said_by(LLAMA, seen, overhead))])
    truth = said_by(LLAMA, other, overhead)["kv_tokens"]
    assert learnt.estimate(other).kv_tokens == pytest.approx(truth, rel=0.01)
    assert learnt.estimate(other).error_gib < model().estimate(other).error_gib
    assert learnt.calibration.logs == 1


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
    assert learnt.estimate(far).kv_tokens == pytest.approx(truth, rel=0.03)
    # Half of the bytes of a token more or less would be seen as well.
    assert learnt.calibration.kv == pytest.approx(1)


def test_more_logs_make_it_surer() -> None:
    assert LLAMA is not None
    request = MemoryRequest(fraction=0.23, max_length=8192)
    log: Observation = (request, said_by(LLAMA, request, 1.6))
    errors = [model().calibrated([log] * n).estimate(request).error_gib for n in (0, 1, 4, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3


def test_logs_that_disagree_leave_it_unsure() -> None:
    assert LLAMA is not None
    request = MemoryRequest(fraction=0.9)
    agreeing = [(request, said_by(LLAMA, request, 2.0))] * 6
    spread = [(request, said_by(LLAMA, request, each)) for each in (0.5, 1, 2, 2, 3, 3.5)]
    one, other = (
        model().calibrated(logs).estimate(request).error_gib for logs in (agreeing, spread)
    )
    assert other > 1.5 * one


def test_what_a_token_and_weights_really_take() -> None:
    request = MemoryRequest(kv_gib=10.0)
    found = model(gpu_gib=None).calibrated(
        [(request, {"kv_gib": 10.0, "kv_tokens": 40_960.0, "weights_gib": 29.92})]
    )
    assert found.estimate(request).kv_tokens == pytest.approx(40_960, rel=1e-6)
    assert found.estimate(request).weights_gib == pytest.approx(29.92, rel=0.001)


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
    assert model().calibrated([(request, {"kv_tokens": 4096.0})]).calibration.logs == 0


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
    assert less.kv_tokens is not None
    assert most.kv_tokens is not None
    assert less.kv_tokens <= most.kv_tokens
    assert most.proven <= less.proven
    assert 0 <= less.sure <= 1
    # What is proven is also what the guess would have said.
    assert not less.proven or less.kv_tokens < length
