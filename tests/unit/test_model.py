"""Shapes of published models, their parameters as their cards state them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.study.model import ModelShape, model_shape, shape_of

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
    },
}
QWEN3_30B: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "max_position_embeddings": 40960,
}
MIXTRAL: dict[str, Any] = {
    "model_type": "mixtral",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "intermediate_size": 14336,
    "num_local_experts": 8,
    "sliding_window": None,
}
DEEPSEEK_V3: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "vocab_size": 129280,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "max_position_embeddings": 163840,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
QWEN2_7B: dict[str, Any] = {
    "model_type": "qwen2",
    "num_hidden_layers": 28,
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "intermediate_size": 18944,
    "use_sliding_window": False,
    "sliding_window": 131072,
    "max_position_embeddings": 32768,
}


def shape(config: dict[str, Any], **more: Any) -> ModelShape:
    result = shape_of({**config, **more})
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LLAMA_8B, 8.03e9),
        (QWEN3_30B, 30.53e9),
        (MIXTRAL, 46.70e9),
        (DEEPSEEK_V3, 671.0e9),
        (QWEN2_7B, 7.616e9),
    ],
    ids=["llama", "qwen3-moe", "mixtral", "deepseek", "qwen2"],
)
def test_counts_what_the_model_card_states(config: dict[str, Any], parameters: float) -> None:
    assert shape(config).parameters == pytest.approx(parameters, rel=0.001)
    assert shape(config).exact


def test_most_of_a_mixture_is_experts() -> None:
    assert shape(QWEN3_30B).routed == 48 * 128 * 3 * 2048 * 768
    assert shape(LLAMA_8B).routed == 0


def test_llama_takes_128_kib_a_token() -> None:
    llama = shape(LLAMA_8B)
    assert llama.kv_bytes_per_token() == 131072
    assert llama.kv_bytes_per_token(1) == 65536
    assert llama.kv_bytes_per_token(tp=4) == 32768
    # Below one head a GPU there is nothing left to split.
    assert llama.kv_bytes_per_token(tp=16) == llama.kv_bytes_per_token(tp=8) == 16384
    assert llama.kv_bytes_per_token(pp=2) == 65536


def test_latents_are_small_and_on_every_gpu() -> None:
    deepseek = shape(DEEPSEEK_V3)
    assert deepseek.latent == 576
    assert deepseek.kv_bytes_per_token(2) == 61 * 576 * 2
    assert deepseek.kv_bytes_per_token(2, tp=8) == deepseek.kv_bytes_per_token(2)


def test_a_quantized_checkpoint_weighs_what_it_stores() -> None:
    awq = shape(LLAMA_8B, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128})
    assert awq.quantization == "awq"
    # The published AWQ checkpoint of this model has 5.73 GB.
    assert awq.weight_bytes == pytest.approx(5.73e9, rel=0.01)
    # A flag cannot quantize it again.
    assert awq.weight_bytes_at(1.0) == awq.weight_bytes
    assert shape(LLAMA_8B).weight_bytes_at(1.0) < shape(LLAMA_8B).weight_bytes


@pytest.mark.parametrize(
    ("block", "method", "bytes_each"),
    [
        ({"quant_method": "fp8"}, "fp8", 1.0),
        ({"quant_method": "mxfp4"}, "mxfp4", 0.53125),
        ({"quant_algo": "NVFP4"}, "modelopt", 0.5625),
        ({"quantization": {"quant_algo": "FP8"}}, "modelopt", 1.0),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 8}}},
            },
            "compressed-tensors",
            1.0,
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 0.5625),
        ({"quant_method": "novel"}, "novel", None),
        ({}, None, None),
        ("nonsense", None, None),
    ],
)
def test_methods_of_quantization(
    block: object, method: str | None, bytes_each: float | None
) -> None:
    model = shape(LLAMA_8B, quantization_config=block)
    assert (model.quantization, model.quantized_bytes) == (method, bytes_each)
    assert model.exact is (method is None or bytes_each is not None)


@pytest.mark.parametrize(
    ("more", "length"),
    [
        ({}, 131072),
        ({"rope_scaling": None}, 131072),
        ({"max_position_embeddings": None}, None),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                },
            },
            131072,
        ),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2}}, 8192),
        (
            {
                "max_position_embeddings": 4096,
                "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2}},
                "rope_scaling": None,
            },
            8192,
        ),
    ],
)
def test_longest_text(more: dict[str, Any], length: int | None) -> None:
    assert shape(LLAMA_8B, **more).max_length == length


def test_yarn_that_is_already_in_the_length() -> None:
    assert shape(DEEPSEEK_V3).max_length == 163840


def test_windows_keep_fewer_tokens() -> None:
    kinds = ["sliding_attention", "full_attention"] * 16
    half = shape(LLAMA_8B, layer_types=kinds)
    assert half.attention_layers == 16
    assert half.kv_bytes_per_token() == shape(LLAMA_8B).kv_bytes_per_token() / 2
    assert half.windowed
    assert shape(LLAMA_8B, sliding_window=4096).windowed
    assert not shape(QWEN2_7B).windowed


def test_an_unknown_family_is_counted_but_proves_nothing() -> None:
    strange = shape(LLAMA_8B, model_type="strange")
    assert strange.parameters == shape(LLAMA_8B).parameters
    assert not strange.exact


def test_the_text_part_of_a_larger_model() -> None:
    nested = shape_of({"model_type": "some_vl", "text_config": LLAMA_8B})
    assert nested is not None
    assert nested.heads == 32


def test_other_spellings() -> None:
    gpt2 = shape_of(
        {
            "model_type": "gpt2",
            "n_layer": 12,
            "n_head": 12,
            "n_embd": 768,
            "vocab_size": 50257,
            "n_positions": 1024,
            "tie_word_embeddings": True,
        }
    )
    assert gpt2 is not None
    assert gpt2.parameters == pytest.approx(124e6, rel=0.01)
    assert (gpt2.max_length, gpt2.kv_heads) == (1024, 12)


def test_from_a_directory(tmp_path: Path) -> None:
    assert model_shape("org/model") is None
    assert model_shape(str(tmp_path)) is None
    (tmp_path / "config.json").write_text("{")
    assert model_shape(str(tmp_path)) is None
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    read = model_shape(str(tmp_path))
    assert read == shape_of(LLAMA_8B, stored_bytes=5)
    assert model_shape(str(tmp_path)) is read


def test_quantization_in_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    (tmp_path / "hf_quant_config.json").write_text(
        json.dumps({"quantization": {"quant_algo": "NVFP4"}})
    )
    read = model_shape(str(tmp_path))
    assert read is not None
    assert read.quantized_bytes == 0.5625


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*DEEPSEEK_V3, "rope_parameters", "layer_types"]), _JSON))
def test_no_configuration_breaks_it(odd: dict[str, Any]) -> None:
    result = shape_of({**DEEPSEEK_V3, **odd})
    assert result is None or result.parameters > 0
