"""The shape of a model, read from its `config.json` alone: what divides, how much it weighs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

GIB = 2**30

# Where families of models keep the same number; the first that is there counts.
_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels"),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "intermediate": ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
    "expert_intermediate": ("moe_intermediate_size", "expert_intermediate_size"),
    "shared_intermediate": ("shared_expert_intermediate_size",),
}

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
)

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")

# Families whose weights are exactly the matrices counted in `_parameters`, biases and norms aside.
_COUNTED = frozenset(
    [
        "llama",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "gemma2",
        "phi3",
        "granite",
        "olmo",
        "olmo2",
        "deepseek_v2",
        "deepseek_v3",
        "kimi_k2",
        "internlm2",
        "internlm3",
        "yi",
        "seed_oss",
    ]
)

# Families whose feed-forward part has two matrices; all others gate it with a third.
_UNGATED = frozenset(
    [
        "gpt2",
        "gptj",
        "gpt_neox",
        "gpt_neo",
        "gpt_bigcode",
        "opt",
        "bloom",
        "falcon",
        "mpt",
        "phi",
        "starcoder2",
        "nemotron",
    ]
)

# Families whose output embedding is the input's unless the configuration says otherwise.
_TIED = frozenset(
    ("gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode", "opt", "bloom", "cohere")
)

# Bytes of one weight where engines are left to choose: float32 checkpoints are served in half.
_HALF = 2.0


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides how it can be split and how much memory it takes.

    Attributes:
        layers: hidden layers; `attention_layers` of them keep keys and values of every token, the
            others a window or a state whose size does not grow with the text.
        kv_heads: heads whose keys and values are cached; 1 where latents are cached instead.
        latent: cached numbers per token and layer of multi-head latent attention; 0 without.
        intermediate: width of a dense layer's feed-forward part.
        experts: routed experts of one layer; 0 for a dense model.
        max_length: the longest text in tokens that any engine derives from the configuration;
            None where it does not say.
        dtype_bytes: bytes of one weight that is not quantized, as engines hold it by default.
        quantization: method of an already quantized checkpoint; None without.
        quantized_bytes: bytes of one quantized weight, scales included; None without.
        embeddings: parameters that stay unquantized: input and output embeddings.
        matrices: all other parameters; `parameters` is their sum. Of them, `routed` are experts'.
        exact: whether the family is known to consist of what was counted.
        windowed: whether engines may keep fewer or other numbers of a token than counted here.
        stored_bytes: size of its weight files, where they lie beside the configuration.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    intermediate: int
    embeddings: int
    matrices: int
    attention_layers: int
    max_length: int | None = None
    dtype_bytes: float = _HALF
    experts: int = 0
    routed: int = 0
    latent: int = 0
    quantization: str | None = None
    quantized_bytes: float | None = None
    exact: bool = False
    windowed: bool = False
    stored_bytes: int | None = None

    @property
    def parameters(self) -> int:
        return self.embeddings + self.matrices

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights as the checkpoint has them, split over no GPUs."""
        return self.weight_bytes_at(None)

    def weight_bytes_at(self, matrix_bytes: float | None) -> float:
        """Bytes of all weights when a weight of a matrix takes `matrix_bytes`; None as stored.

        Embeddings are not quantized, and a quantized checkpoint stays what it is.
        """
        each = self.matrix_bytes(matrix_bytes)
        return self.embeddings * max(self.dtype_bytes, each) + self.matrices * each

    def matrix_bytes(self, wanted: float | None = None) -> float:
        """Bytes of one weight of a matrix where a launch asks for `wanted`."""
        if self.quantized_bytes is not None:
            return self.quantized_bytes
        return self.dtype_bytes if wanted is None else wanted

    def kv_bytes_per_token(
        self, element_bytes: float | None = None, *, tp: int = 1, pp: int = 1
    ) -> float:
        """Bytes that one GPU keeps of one token; `element_bytes` as the weights by default.

        Heads are split over `tp` GPUs until each has one, latents are not split at all; of the
        stages of a pipeline it is the one with most layers.
        """
        each = self.dtype_bytes if element_bytes is None else element_bytes
        layers = math.ceil(self.attention_layers / pp)
        if self.latent:
            return layers * self.latent * each
        return layers * 2 * max(1, math.ceil(self.kv_heads / tp)) * self.head_dim * each


def model_shape(path: str) -> ModelShape | None:
    """The shape of a model in a local directory; None for a hub id, or where it cannot be told."""
    file = Path(path) / "config.json"
    try:
        changed = file.stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    return _read(file, changed)


@lru_cache(maxsize=32)
def _read(file: Path, changed: int) -> ModelShape | None:  # noqa: ARG001 - part of the key
    # Asked once for every point of a space, which may be thousands.
    config = _json(file)
    if config is None:
        return None
    # Older quantized checkpoints say so in a file of its own.
    beside = _json(file.with_name("hf_quant_config.json"))
    if beside is not None and "quantization_config" not in config:
        config = {**config, "quantization_config": beside}
    stored = sum(each.stat().st_size for each in file.parent.glob("*.safetensors"))
    return shape_of(config, stored_bytes=stored or None)


def _json(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def shape_of(config: Mapping[str, Any], *, stored_bytes: int | None = None) -> ModelShape | None:
    """The shape that a parsed `config.json` describes; None where essential numbers are missing."""
    text = _text_part(config)
    numbers = {name: _first(text, keys) for name, keys in _NAMES.items()}
    layers, hidden, heads = numbers["layers"], numbers["hidden"], numbers["heads"]
    vocabulary = numbers["vocabulary"]
    if not (layers and hidden and heads and vocabulary):
        return None
    family = str(text.get("model_type") or config.get("model_type") or "")
    head_dim = numbers["head_dim"] or hidden // heads
    kv_heads = numbers["kv_heads"] or (1 if text.get("multi_query") else heads)
    latent_rank = _number(text, "kv_lora_rank")
    latent = latent_rank + _number(text, "qk_rope_head_dim") if latent_rank else 0
    intermediate = numbers["intermediate"] or 4 * hidden
    attention_layers, windowed = _attention_layers(text, layers)
    method, quantized_bytes = _quantization(
        text.get("quantization_config") or config.get("quantization_config")
    )
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", family in _TIED))
    attention = (
        _latent_attention(text, hidden, heads)
        if latent
        else hidden * head_dim * (2 * heads + 2 * kv_heads)
    )
    forward, routed = _feed_forward(text, numbers, family, layers, hidden, intermediate)
    return ModelShape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=1 if latent else kv_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        intermediate=intermediate,
        embeddings=vocabulary * hidden * (1 if tied else 2),
        matrices=layers * attention + forward,
        attention_layers=attention_layers,
        max_length=_max_length(text),
        dtype_bytes=_dtype_bytes(text, config),
        experts=numbers["experts"],
        routed=routed,
        latent=latent,
        quantization=method,
        quantized_bytes=quantized_bytes,
        exact=family in _COUNTED and (method is None or quantized_bytes is not None),
        windowed=windowed,
        stored_bytes=stored_bytes,
    )


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in _NESTED:
        part = config.get(name)
        if isinstance(part, Mapping):
            return _text_part(part)
    return config


def _first(text: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    return next((value for key in keys if (value := _number(text, key))), 0)


def _number(text: Mapping[str, Any], key: str) -> int:
    value = text.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _attention_layers(text: Mapping[str, Any], layers: int) -> tuple[int, bool]:
    """Layers that keep every token, and whether others keep less."""
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        full = sum(kind in ("full_attention", "attention") for kind in kinds)
        return (full or layers), full < layers
    # Engines differ in what they save for a window; all layers is what none of them exceeds.
    window = text.get("sliding_window") and text.get("use_sliding_window", True)
    hybrid = any(key in text for key in ("linear_num_value_heads", "mamba_d_state", "ssm_cfg"))
    return layers, bool(window) or hybrid


def _latent_attention(text: Mapping[str, Any], hidden: int, heads: int) -> int:
    """Parameters of one layer's multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)."""
    rank, rope = _number(text, "kv_lora_rank"), _number(text, "qk_rope_head_dim")
    nope, value = _number(text, "qk_nope_head_dim"), _number(text, "v_head_dim")
    query_rank = _number(text, "q_lora_rank")
    query = heads * (nope + rope)
    queries = query_rank * (hidden + query) if query_rank else hidden * query
    return queries + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden


def _feed_forward(
    text: Mapping[str, Any],
    numbers: Mapping[str, int],
    family: str,
    layers: int,
    hidden: int,
    intermediate: int,
) -> tuple[int, int]:
    """Parameters of all layers' feed-forward parts, and those of them that are routed experts'."""
    one = (2 if family in _UNGATED else 3) * hidden
    experts = numbers["experts"]
    if not experts:
        return layers * one * intermediate, 0
    dense = _dense_layers(text, layers)
    expert = numbers["expert_intermediate"] or intermediate
    shared = numbers["shared_intermediate"] or _number(text, "n_shared_experts") * expert
    routed = (layers - dense) * one * experts * expert
    gates = (layers - dense) * hidden * experts
    beside = dense * one * intermediate + (layers - dense) * one * shared
    return routed + gates + beside, routed


def _dense_layers(text: Mapping[str, Any], layers: int) -> int:
    """Layers without experts in a model that has experts."""
    first = min(_number(text, "first_k_dense_replace"), layers)
    every = _number(text, "moe_layer_freq") or _number(text, "decoder_sparse_step") or 1
    only = text.get("mlp_only_layers")
    dense = set(range(first)) | set(only if isinstance(only, list) else ())
    if _number(text, "decoder_sparse_step"):
        dense |= {layer for layer in range(layers) if (layer + 1) % every}
    else:
        dense |= {layer for layer in range(layers) if layer % every}
    return len([layer for layer in dense if isinstance(layer, int) and layer < layers])


def _max_length(text: Mapping[str, Any]) -> int | None:
    """The longest context any engine derives: SGLang takes the configured length as it is where an
    original one is named, vLLM multiplies the original one by the factor."""
    lengths = [value for key in _LENGTHS if (value := _number(text, key))]
    if not lengths:
        return None
    configured = max(lengths)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(scaling, Mapping):
        return configured
    factors = [
        (_number(each, "original_max_position_embeddings") or configured) * float(factor)
        for each in (scaling, *scaling.values())
        if isinstance(each, Mapping)
        and isinstance(factor := each.get("factor"), int | float)
        and math.isfinite(factor)
        and each.get("rope_type", each.get("type")) not in ("llama3", "su", "longrope", "default")
    ]
    return max(configured, *(int(each) for each in factors), 0)


def _dtype_bytes(text: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    for part in (text, config):
        for key in ("dtype", "torch_dtype"):
            if str(part.get(key)).removeprefix("torch.") in ("float8_e4m3fn", "float8_e5m2"):
                return 1.0
    return _HALF


def _quantization(block: Any) -> tuple[str | None, float | None]:
    """Method of a quantized checkpoint, and bytes per quantized weight where it says.

    Four-bit formats carry a scale for each group of weights: 16 bits and a zero point for 128
    (AWQ, GPTQ), 8 bits for 32 (MXFP4) or for 16 (NVFP4).
    """
    if not isinstance(block, Mapping):
        return None, None
    inner = block.get("quantization")
    algorithm = str(
        block.get("quant_algo") or (inner.get("quant_algo") if isinstance(inner, Mapping) else "")
    ).lower()
    method = str(block.get("quant_method") or "").lower() or ("modelopt" if algorithm else None)
    if "fp4" in algorithm:
        return method, 4.5 / 8
    if "fp8" in algorithm or method in ("fp8", "fbgemm_fp8"):
        return method, 1.0
    if method == "mxfp4":
        return method, 4.25 / 8
    bits = _bits(block)
    if bits is None:
        return method, None
    group = block.get("group_size")
    scales = 20 / group if isinstance(group, int) and group > 0 and bits < 8 else 0.0
    return method, (bits + scales) / 8


def _bits(block: Mapping[str, Any]) -> float | None:
    if block.get("load_in_4bit"):
        return 4.5
    if block.get("load_in_8bit"):
        return 8.0
    groups = block.get("config_groups")
    if isinstance(groups, Mapping):
        weights = [each.get("weights") for each in groups.values() if isinstance(each, Mapping)]
        return (
            min(
                (float(_number(each, "num_bits")) for each in weights if isinstance(each, Mapping)),
                default=0.0,
            )
            or None
        )
    for key in ("bits", "w_bit", "weight_bits"):
        if _number(block, key):
            return float(_number(block, key))
    return None
