"""Bytes of one number, by the engines' words for its format: a lower bound where only that is sure.

What is fit only for a guess may err either way; what refuses a point may not, so that a format
not listed here counts as the smallest there is.
"""

from __future__ import annotations

_BYTES = {
    "float": 4.0,
    "float32": 4.0,
    "half": 2.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "fp8_inc": 1.0,
    "fp8_per_token_head": 1.0,
    "int8_per_token_head": 1.0,
    "mxfp8": 1.0,
    "w8a8_int8": 1.0,
    "w8a8_fp8": 1.0,
}

_LEAST_ELEMENT = 3 / 8
"""Three bits, the smallest format of a KV cache there is."""

_LEAST_WEIGHT = 4 / 8
"""Four bits: what is sure of a weight under a method that may quantize while it loads."""


def element_bytes(word: str | None) -> float | None:
    """Of one computed or cached number, at the least; None: the engine is left to choose."""
    return None if word in (None, "auto") else _BYTES.get(word, _LEAST_ELEMENT)


def weight_bytes(method: str | None, dtype: str | None) -> float | None:
    """Of one weight under a quantization method, else in a format; None: as it is stored."""
    return element_bytes(dtype) if method is None else _BYTES.get(method, _LEAST_WEIGHT)
