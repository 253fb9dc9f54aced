"""The quantization block: four number formats, each one value or several, without engine names.

What a value means on a command line belongs to each engine: `engines.quantization`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from autotuner.study.space import Choice, Parameter, Value

QUANTIZATION = "quantization:"
"""Prefix of the parameters of this block, which are no flags themselves."""

AUTO = "auto"
"""The engine's own choice: no flag. An option like any other."""

ALLOWED: dict[str, tuple[str, ...]] = {
    "gemm": (AUTO, "float16", "bfloat16", "float32", "fp8", "int8"),
    "kv_cache": (AUTO, "fp16", "bfloat16", "fp8", "fp8_e5m2", "fp8_e4m3", "int8", "int4"),
    "attention": (AUTO, "float16", "bfloat16", "fp8", "fp8_e5m2", "fp8_e4m3", "fp8_block"),
    "moe": (AUTO, "float16", "bfloat16", "fp8", "w4afp8", "mxfp4", "int8"),
}
"""Field -> its values. Not every engine takes every value."""

# The earlier system's names of the same fields.
_SPELLINGS = {
    "gemm_dtype": "gemm",
    "kvcache_dtype": "kv_cache",
    "attention_dtype": "attention",
    "moe_dtype": "moe",
}


@dataclass(frozen=True)
class Fields:
    """One value per field: what a single trial runs with."""

    gemm: str = AUTO
    kv_cache: str = AUTO
    attention: str = AUTO
    moe: str = AUTO


PRESETS: dict[str, Fields] = {
    # What the engine does by itself.
    "default": Fields(),
    # Half the KV cache memory at little loss; works with already quantized models too.
    "kv-cache-fp8": Fields(kv_cache="fp8_e5m2"),
    # Everything in eight bits, for GPUs that compute in them (Ada, Hopper and later).
    "dynamic-fp8": Fields("fp8", "fp8_e5m2", "fp8", "fp8"),
    # For models whose float16 overflows.
    "bf16-stable": Fields("bfloat16", "fp8_e5m2"),
    # Experts in four bits; only SGLang has them.
    "aggressive-moe": Fields("bfloat16", "fp8_e5m2", "fp8", "w4afp8"),
}


class QuantizationSpec(BaseModel):
    """Number formats of the launch, beside its flags; a flag given elsewhere wins.

    One value is fixed for all trials, a list is searched. `preset: NAME` is `presets: [NAME]`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    gemm: list[str] = Field(
        default=[AUTO],
        description="Matrix products: "
        + ", ".join(f"`{each}`" for each in ALLOWED["gemm"])
        + ". `fp8` quantizes the weights while loading, so it is ignored for a model that is "
        "quantized already.",
    )
    kv_cache: list[str] = Field(
        default=[AUTO],
        description="KV cache: " + ", ".join(f"`{each}`" for each in ALLOWED["kv_cache"]) + ".",
    )
    attention: list[str] = Field(
        default=[AUTO],
        description="Attention: " + ", ".join(f"`{each}`" for each in ALLOWED["attention"]) + ".",
    )
    moe: list[str] = Field(
        default=[AUTO],
        description="Experts: " + ", ".join(f"`{each}`" for each in ALLOWED["moe"]) + ".",
    )
    presets: list[str] = Field(
        default=[],
        description="Instead of the fields: " + ", ".join(f"`{each}`" for each in PRESETS) + ".",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, raw: Any) -> Any:
        return respelled(raw) if isinstance(raw, Mapping) else raw

    @field_validator("gemm", "kv_cache", "attention", "moe", "presets", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("gemm", "kv_cache", "attention", "moe")
    @classmethod
    def _formats(cls, values: list[str], field: Any) -> list[str]:
        _check(values, ALLOWED[field.field_name])
        return values or [AUTO]

    @field_validator("presets")
    @classmethod
    def _known_presets(cls, names: list[str]) -> list[str]:
        _check(names, tuple(PRESETS))
        return names

    @model_validator(mode="after")
    def _presets_or_fields(self) -> QuantizationSpec:
        said = [field for field in ALLOWED if getattr(self, field) != [AUTO]]
        if self.presets and said:
            raise ValueError(f"{said[0]} and presets are both given; a preset sets all four fields")
        return self


def respelled(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The block under this project's names.

    Raises:
        ValueError: one field under two names.
    """
    result: dict[str, Any] = {}
    for key, value in raw.items():
        name = "presets" if key == "preset" else _SPELLINGS.get(key, key)
        if name in result:
            raise ValueError(f"{key!r} and another spelling of it are both given")
        # A field left empty is as not written.
        if value is not None:
            result[name] = value
    return result


def _check(values: list[str], allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise ValueError(f"{value!r} is not allowed; allowed: {', '.join(allowed)}")
    if len(set(values)) < len(values):
        raise ValueError("a value is listed twice")


def parameters_of(quantization: QuantizationSpec | None) -> tuple[Parameter, ...]:
    """What the block adds to the search space: one parameter per field with several values."""
    options: dict[str, list[str]]
    if quantization is None:
        options = {}
    elif quantization.presets:
        options = {"preset": quantization.presets}
    else:
        options = {field: getattr(quantization, field) for field in ALLOWED}
    return tuple(
        Parameter(QUANTIZATION + name, Choice(tuple(values)))
        for name, values in options.items()
        if len(values) > 1
    )


def chosen(quantization: QuantizationSpec | None, parameters: Mapping[str, Value]) -> Fields:
    """The four values of one point. What varies and is not in the point, as in the baseline,
    is auto."""
    if quantization is None:
        return Fields()
    if quantization.presets:
        only = quantization.presets[0] if len(quantization.presets) == 1 else "default"
        return PRESETS[parameters.get(QUANTIZATION + "preset", only)]
    values = {}
    for field in ALLOWED:
        options = getattr(quantization, field)
        only = options[0] if len(options) == 1 else AUTO
        values[field] = parameters.get(QUANTIZATION + field, only)
    return Fields(**values)


def combinations(quantization: QuantizationSpec | None) -> tuple[Fields, ...]:
    """The fields of every point of the block, the last field varying fastest."""
    varied = parameters_of(quantization)
    return tuple(
        chosen(quantization, dict(zip((p.name for p in varied), values, strict=True)))
        for values in itertools.product(*(p.domain.grid() for p in varied))
    )
