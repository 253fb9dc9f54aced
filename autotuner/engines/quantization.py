"""Number formats as flags: one pure mapper per engine, for previews and for trials alike.

Differences from the earlier system's tables, each of which made a launch that could not start:
`auto` and a format the model keeps give no flag (no ``--dtype auto``); ``--dtype`` only ever
takes a float format; SGLang's fp8 experts bring no ``flashinfer_cutlass``, which it refuses
beside ``--quantization fp8``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from autotuner.engines.catalog import Catalog
from autotuner.errors import ConfigError
from autotuner.study.quantization import (
    ALLOWED,
    AUTO,
    PRESETS,
    Fields,
    QuantizationSpec,
    combinations,
)


@dataclass(frozen=True)
class Mapped:
    """The flags of four formats, under canonical names, and what they could not say."""

    arguments: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


class Mapper(Protocol):
    """Four formats -> flags of one engine. `quantized` is the model's own method, or None.

    1. `auto` everywhere gives no flag and no note.
    2. Every format either sets a flag or leaves a note, unless it is what the flags already say.
    """

    def __call__(self, fields: Fields, *, quantized: str | None = None) -> Mapped: ...


_FLOATS = ("float16", "bfloat16", "float32")
_FP8 = ("fp8", "fp8_e5m2", "fp8_e4m3")


def vllm(fields: Fields, *, quantized: str | None = None) -> Mapped:
    """vLLM: ``--dtype`` or ``--quantization``, and ``--kv-cache-dtype``."""
    arguments, ignored = _gemm(fields.gemm, quantized)
    if fields.kv_cache != AUTO:
        # vLLM has always said float16 where others say fp16.
        arguments["kv-cache-dtype"] = {"fp16": "float16"}.get(fields.kv_cache, fields.kv_cache)
    if fields.attention != AUTO:
        ignored.append(f"attention {fields.attention}: vLLM's attention follows gemm and kv_cache")
    if fields.moe != AUTO:
        ignored.append(f"moe {fields.moe}: vLLM's experts follow gemm")
    return Mapped(arguments, tuple(ignored))


def sglang(fields: Fields, *, quantized: str | None = None) -> Mapped:
    """SGLang: as vLLM, and a format of the experts, which wins over that of all layers."""
    if fields.moe in ("w4afp8", "mxfp4") and quantized in (None, fields.moe):
        arguments = {"quantization": fields.moe, "moe-runner-backend": "flashinfer_mxfp4"}
        ignored = [] if fields.gemm == AUTO else [f"gemm {fields.gemm}: moe {fields.moe} wins"]
    else:
        arguments, ignored = _gemm(fields.gemm, quantized)
        _experts(fields.moe, quantized, arguments, ignored)
    if fields.kv_cache != AUTO:
        arguments["kv-cache-dtype"] = fields.kv_cache
    if fields.attention in _FP8:
        arguments["attention-backend"] = "flashinfer"
    elif fields.attention != AUTO:
        ignored.append(f"attention {fields.attention}: SGLang has no flag for it")
    return Mapped(arguments, tuple(ignored))


def _experts(
    moe: str, quantized: str | None, arguments: dict[str, str], ignored: list[str]
) -> None:
    if moe == AUTO:
        return
    if quantized and moe not in _FLOATS:
        ignored.append(f"moe {moe}: the model is quantized already ({quantized})")
    elif moe == "fp8" and "quantization" in arguments:
        # SGLang, server_args: flashinfer_cutlass only without a quantization or with modelopt's.
        ignored.append(f"moe fp8: SGLang quantizes the experts by gemm {arguments['quantization']}")
    elif moe == "fp8":
        arguments["moe-runner-backend"] = "flashinfer_cutlass"
    else:
        ignored.append(f"moe {moe}: SGLang's experts follow gemm")


def _gemm(gemm: str, quantized: str | None) -> tuple[dict[str, str], list[str]]:
    if gemm == AUTO:
        return {}, []
    if gemm in _FLOATS:
        return {"dtype": gemm}, []
    if quantized:
        return {}, [f"gemm {gemm}: the model is quantized already ({quantized})"]
    return {"quantization": gemm}, []


def tensorrt_llm(fields: Fields, *, quantized: str | None = None) -> Mapped:
    """TensorRT-LLM: an algorithm each for weights, KV cache and attention (FMHA)."""
    arguments: dict[str, str] = {}
    ignored: list[str] = []
    if fields.gemm in ("fp8", "int8") and not quantized:
        arguments["quant-algo"] = fields.gemm.upper()
    elif fields.gemm in ("fp8", "int8"):
        ignored.append(f"gemm {fields.gemm}: the model is quantized already ({quantized})")
    elif fields.gemm != AUTO:
        ignored.append(f"gemm {fields.gemm}: TensorRT-LLM keeps the model's own format")
    cache_format = "fp8" if fields.kv_cache in _FP8 else fields.kv_cache
    if cache_format in ("fp8", "int8", "int4"):
        arguments["kv-cache-quant-algo"] = cache_format.upper()
    elif cache_format != AUTO:
        ignored.append(f"kv_cache {cache_format}: TensorRT-LLM keeps the model's own format")
    if fields.attention in _FP8:
        arguments["fmha-quant-algo"] = "FP8"
    elif fields.attention == "fp8_block":
        arguments["fmha-quant-algo"] = "FP8_BLOCK"
    elif fields.attention != AUTO:
        ignored.append(f"attention {fields.attention}: TensorRT-LLM keeps the model's own format")
    if fields.moe != AUTO:
        ignored.append(f"moe {fields.moe}: TensorRT-LLM's experts follow gemm")
    return Mapped(arguments, tuple(ignored))


MAPPERS: dict[str, Mapper] = {"vllm": vllm, "sglang": sglang, "tensorrt_llm": tensorrt_llm}
"""By kind of engine; the last is not launched yet."""


def mapper_of(engine: str) -> Mapper:
    """Raises ConfigError for an engine without number formats."""
    if engine not in MAPPERS:
        raise ConfigError(
            f"the engine {engine!r} has no number formats to choose",
            where="quantization",
            allowed=list(MAPPERS),
        )
    return MAPPERS[engine]


# Where a catalog says "any text" and the engine refuses all but its own words when it starts:
# those of the mapper's values that it has (vLLM 0.10.0 and 0.32.0, QUANTIZATION_METHODS).
_WORDS = {("vllm", "quantization"): ("fp8",)}


def check_quantization(
    quantization: QuantizationSpec, catalog: Catalog, settled: Collection[str] = ()
) -> list[ConfigError]:
    """Every format of the block that this version of the engine would not take.

    Args:
        settled: true names of flags the user gives anyway, so that the block's are not used.

    Raises:
        ConfigError: the engine has no number formats.
    """
    mapper = mapper_of(catalog.engine)

    def refused(fields: Fields) -> str | None:
        return _refused(mapper(fields), catalog, settled)

    if quantization.presets:
        return [
            _not_taken(
                catalog,
                "presets",
                name,
                why,
                [each for each, fields in PRESETS.items() if not refused(fields)],
            )
            for name in quantization.presets
            if (why := refused(PRESETS[name]))
        ]
    errors = []
    for name, allowed in ALLOWED.items():
        # Alone: what one format sets, another may hide, but never change.
        taken = [value for value in allowed if not refused(replace(Fields(), **{name: value}))]
        for value in getattr(quantization, name):
            if value not in taken:
                why = refused(replace(Fields(), **{name: value})) or ""
                errors.append(_not_taken(catalog, name, value, why, taken))
    return errors


def _refused(mapped: Mapped, catalog: Catalog, settled: Collection[str]) -> str | None:
    """The first flag that the catalog would not take, or None."""
    for name, value in mapped.arguments.items():
        flag = catalog.find(name)
        if flag is not None and flag.name in settled:
            continue
        words = _WORDS.get((catalog.engine, name))
        if flag is None or flag.problem(value) or (words is not None and value not in words):
            return f"--{name} {value}"
    return None


def _not_taken(
    catalog: Catalog, where: str, value: str, flag: str, taken: list[str]
) -> ConfigError:
    return ConfigError(
        f"{value!r} would be {flag}, which {catalog.engine} {catalog.version} does not take",
        where=f"quantization.{where}",
        allowed=taken,
    )


@dataclass(frozen=True)
class Preview:
    """Every different set of flags that a block makes, in the order of its values.

    Attributes:
        combinations: without repeats; an empty one is the engine's own choice.
        notes: what had to be ignored, each once.
    """

    combinations: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.combinations)


def preview(
    quantization: QuantizationSpec | None,
    engine: str,
    *,
    quantized: str | None = None,
    settled: Collection[str] = (),
) -> Preview:
    """What trials will be launched with, by the mapper that launches them.

    Args:
        quantized: the model's own method, see `already_quantized`.
        settled: flags the user gives anyway.

    Raises:
        ConfigError: the engine has no number formats.
    """
    mapper = mapper_of(engine)
    found: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
    notes: dict[str, None] = {}
    for fields in combinations(quantization):
        mapped = mapper(fields, quantized=quantized)
        arguments = {k: v for k, v in mapped.arguments.items() if k not in settled}
        found.setdefault(tuple(sorted(arguments.items())), arguments)
        notes.update(dict.fromkeys(mapped.ignored))
    return Preview(tuple(found.values()), tuple(notes))


# Methods by the words that people put into the names of models.
_NAMED = {
    **{
        name: name
        for name in ("awq", "gptq", "gguf", "squeezellm", "marlin", "nvfp4", "fp8", "hqq")
    },
    "bitsandbytes": "bitsandbytes",
    "bnb": "bitsandbytes",
    "w4a16": "compressed-tensors",
    "w8a8": "compressed-tensors",
    "w8a16": "compressed-tensors",
}


def already_quantized(path: str) -> str | None:
    """The method a model's weights are quantized by, or None.

    Its ``config.json`` decides where it can be read; otherwise the words of the last segment
    of the path, since a directory above it says nothing about the model.
    """
    for name in ("config.json", "hf_quant_config.json"):
        file = Path(path) / name
        try:
            method = _method(file, file.stat().st_mtime_ns)
        except (OSError, ValueError):
            if name == "config.json":
                return _by_name(path)
        else:
            if method:
                return method
    return None


def _by_name(path: str) -> str | None:
    words = re.split(r"[^a-z0-9]+", path.rstrip("/").rpartition("/")[2].lower())
    return next((_NAMED[word] for word in words if word in _NAMED), None)


@cache
def _method(file: Path, _changed: int) -> str | None:
    """Kept until the file changes: it is asked with every point."""
    content: Any = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, Mapping):
        return None
    if file.name == "hf_quant_config.json":  # ModelOpt's own file
        algorithm = (content.get("quantization") or {}).get("quant_algo")
        return f"modelopt {algorithm}" if algorithm else None
    section = content.get("quantization_config")
    if not isinstance(section, Mapping):
        return None
    return str(section.get("quant_method") or "unnamed")
