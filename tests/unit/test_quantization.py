"""Number formats: what may be written, what a point has, and which flags they become."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autotuner.engines.catalog import load_catalog
from autotuner.engines.quantization import (
    MAPPERS,
    already_quantized,
    check_quantization,
    mapper_of,
    preview,
    sglang,
    tensorrt_llm,
    vllm,
)
from autotuner.errors import ConfigError
from autotuner.study.quantization import (
    ALLOWED,
    PRESETS,
    Fields,
    QuantizationSpec,
    chosen,
    combinations,
    parameters_of,
)

ANY_FIELDS = st.builds(
    Fields, **{name: st.sampled_from(values) for name, values in ALLOWED.items()}
)

# The predecessor's task 9: everything its form offered.
TASK_9: dict[str, Any] = {
    "gemm_dtype": ["auto", "float16", "bfloat16", "float32", "fp8"],
    "kvcache_dtype": list(ALLOWED["kv_cache"]),
    "attention_dtype": list(ALLOWED["attention"]),
    "moe_dtype": list(ALLOWED["moe"]),
}


def block(**said: Any) -> QuantizationSpec:
    return QuantizationSpec.model_validate(said)


# What may be written.


def test_a_block_that_says_nothing_is_auto() -> None:
    cases: list[dict[str, Any]] = [{}, {"gemm": []}, {"gemm": None}, {"presets": []}]
    for said in (*cases, {"preset": "default"}):
        assert combinations(block(**said)) == (Fields(),)
        assert parameters_of(block(**said)) == ()
    assert combinations(None) == (Fields(),)


def test_one_value_is_fixed_and_several_vary() -> None:
    found = block(gemm="bfloat16", kv_cache=["auto", "fp8_e5m2"], moe=[])
    (parameter,) = parameters_of(found)
    assert parameter.name == "quantization:kv_cache"
    assert parameter.domain.grid() == ("auto", "fp8_e5m2")
    assert chosen(found, {"quantization:kv_cache": "fp8_e5m2"}) == Fields("bfloat16", "fp8_e5m2")
    # The baseline has no parameters: what is fixed stays, what varies is the engine's own.
    assert chosen(found, {}) == Fields("bfloat16")


def test_the_predecessors_spellings_are_the_same_fields() -> None:
    found = block(gemm_dtype="fp8", kvcache_dtype=["fp8"], attention_dtype="fp8", moe_dtype="int8")
    assert combinations(found) == (Fields("fp8", "fp8", "fp8", "int8"),)


def test_auto_is_an_option_that_stays() -> None:
    # The predecessor dropped it, and with it the only point to compare with.
    found = combinations(block(kv_cache=["auto", "fp8"], gemm=["auto"]))
    assert [each.kv_cache for each in found] == ["auto", "fp8"]


def test_fields_multiply() -> None:
    found = combinations(
        block(
            gemm=["fp8", "bfloat16"],
            kv_cache=["auto", "fp8_e5m2", "fp8_e4m3"],
            attention=["auto", "fp8"],
            moe="auto",
        )
    )
    assert len(set(found)) == len(found) == 12


def test_presets_are_one_parameter() -> None:
    found = block(presets=["kv-cache-fp8", "dynamic-fp8"])
    assert [p.name for p in parameters_of(found)] == ["quantization:preset"]
    assert combinations(found) == (PRESETS["kv-cache-fp8"], PRESETS["dynamic-fp8"])
    assert chosen(found, {}) == Fields()
    one = block(preset="bf16-stable")
    assert parameters_of(one) == ()
    assert chosen(one, {}) == PRESETS["bf16-stable"]
    assert block(preset=["kv-cache-fp8"]) == block(presets=["kv-cache-fp8"])


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"gemm": "fp16"}, "'fp16' is not allowed; allowed: auto, float16"),
        ({"kv_cache": ["auto", "float16"]}, "'float16' is not allowed; allowed: auto, fp16"),
        ({"kv_cache": ["fp8", "fp8"]}, "listed twice"),
        ({"presets": ["fast"]}, "'fast' is not allowed; allowed: default, kv-cache-fp8"),
        ({"gemm": "fp8", "preset": "default"}, "gemm and presets are both given"),
        ({"gemm": "fp8", "gemm_dtype": "fp8"}, "another spelling"),
        ({"preset": "default", "presets": ["default"]}, "another spelling"),
        ({"tp_size": [1, 2]}, "Extra inputs"),
        ({"gemm": [8]}, "valid string"),
    ],
)
def test_what_is_not_the_blocks_is_refused(said: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem.replace("(", r"\(")):
        block(**said)


@given(st.sampled_from([TASK_9, {"presets": list(PRESETS)}, {"gemm": "fp8"}, {}]))
def test_a_stored_block_is_read_as_it_was(said: dict[str, Any]) -> None:
    found = block(**said)
    assert QuantizationSpec.model_validate(json.loads(found.model_dump_json())) == found


# What becomes of it, per engine: the predecessor's table without what could not start.

FP8_KV = {"kv-cache-dtype": "fp8_e5m2"}
EXPECTED: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str]]] = {
    "default": ({}, {}, {}),
    "kv-cache-fp8": (FP8_KV, FP8_KV, {"kv-cache-quant-algo": "FP8"}),
    "dynamic-fp8": (
        {"quantization": "fp8", **FP8_KV},
        {"quantization": "fp8", "attention-backend": "flashinfer", **FP8_KV},
        {"quant-algo": "FP8", "kv-cache-quant-algo": "FP8", "fmha-quant-algo": "FP8"},
    ),
    "bf16-stable": (
        {"dtype": "bfloat16", **FP8_KV},
        {"dtype": "bfloat16", **FP8_KV},
        {"kv-cache-quant-algo": "FP8"},
    ),
    "aggressive-moe": (
        {"dtype": "bfloat16", **FP8_KV},
        {
            "quantization": "w4afp8",
            "moe-runner-backend": "flashinfer_mxfp4",
            "attention-backend": "flashinfer",
            **FP8_KV,
        },
        {"kv-cache-quant-algo": "FP8", "fmha-quant-algo": "FP8"},
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_becomes_the_flags_of_the_table(name: str) -> None:
    fields = PRESETS[name]
    found = [mapper(fields).arguments for mapper in (vllm, sglang, tensorrt_llm)]
    assert found == list(EXPECTED[name])


@given(st.sampled_from(sorted(MAPPERS)), ANY_FIELDS, st.sampled_from([None, "awq", "fp8", "mxfp4"]))
@settings(max_examples=300)
def test_no_mapper_ever_says_what_no_engine_takes(
    engine: str, fields: Fields, quantized: str | None
) -> None:
    mapped = MAPPERS[engine](fields, quantized=quantized)
    assert mapped.arguments.get("dtype") in (None, "float16", "bfloat16", "float32")
    assert "auto" not in mapped.arguments.values()
    if engine == "vllm":
        assert not {"attention-backend", "moe-runner-backend"} & set(mapped.arguments)
    # SGLang ends at the start with these two together.
    if mapped.arguments.get("moe-runner-backend") == "flashinfer_cutlass":
        assert "quantization" not in mapped.arguments
    if quantized:
        assert mapped.arguments.get("quantization") in (None, quantized)
        assert "quant-algo" not in mapped.arguments


@given(st.sampled_from(sorted(MAPPERS)), ANY_FIELDS)
@settings(max_examples=300)
def test_a_format_is_a_flag_or_a_note(engine: str, fields: Fields) -> None:
    mapped = MAPPERS[engine](fields)
    said = sum(getattr(fields, name) != "auto" for name in ALLOWED)
    assert said <= len(mapped.arguments) + len(mapped.ignored)
    assert bool(mapped.arguments or mapped.ignored) == (said > 0)


@pytest.mark.parametrize("engine", MAPPERS)
@pytest.mark.parametrize("gemm", ["fp8", "int8"])
def test_a_model_quantized_already_keeps_its_weights_and_gets_the_cache(
    engine: str, gemm: str
) -> None:
    mapped = MAPPERS[engine](Fields(gemm, "fp8_e5m2"), quantized="awq")
    assert set(mapped.arguments) <= {"kv-cache-dtype", "kv-cache-quant-algo"}
    assert len(mapped.arguments) == 1
    assert mapped.ignored == (f"gemm {gemm}: the model is quantized already (awq)",)


def test_experts_in_the_format_of_the_checkpoint_are_not_ignored() -> None:
    assert sglang(Fields(moe="mxfp4"), quantized="mxfp4").arguments["quantization"] == "mxfp4"
    assert sglang(Fields(moe="mxfp4"), quantized="awq").arguments == {}


def test_tensorrt_llm_has_its_own_words() -> None:
    assert tensorrt_llm(Fields("int8", "int4", "fp8_block")).arguments == {
        "quant-algo": "INT8",
        "kv-cache-quant-algo": "INT4",
        "fmha-quant-algo": "FP8_BLOCK",
    }
    assert tensorrt_llm(Fields("bfloat16", "fp16", "float16", "fp8")).arguments == {}


def test_an_engine_without_formats_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        mapper_of("simulated")
    assert caught.value.where == "quantization"
    assert "sglang" in caught.value.allowed


# What a version of an engine takes.


@pytest.mark.parametrize(
    ("engine", "version", "said", "where", "allowed"),
    [
        ("vllm", "0.32.0", {"kv_cache": "int8"}, "kv_cache", "fp16"),
        ("vllm", "0.10.0", {"kv_cache": "fp16"}, "kv_cache", "fp8_e4m3"),
        ("vllm", "0.32.0", {"gemm": ["auto", "int8"]}, "gemm", "fp8"),
        ("sglang", "0.5.23", {"gemm": "int8"}, "gemm", "fp8"),
        ("sglang", "0.5.23", {"kv_cache": ["auto", "fp8"]}, "kv_cache", "bfloat16"),
        ("sglang", "0.5.2", {"kv_cache": "bfloat16"}, "kv_cache", "fp8_e5m2"),
    ],
)
def test_what_the_version_does_not_take_is_found_before_any_launch(
    engine: str, version: str, said: dict[str, Any], where: str, allowed: str
) -> None:
    (error,) = check_quantization(block(**said), load_catalog(engine, version))
    assert error.where == f"quantization.{where}"
    assert allowed in error.allowed
    value = said[where] if isinstance(said[where], str) else said[where][-1]
    assert value not in error.allowed
    assert f"{engine} {version}" in error.problem


@pytest.mark.parametrize(
    ("engine", "version"),
    [("vllm", "0.32.0"), ("vllm", "0.10.0"), ("sglang", "0.5.23"), ("sglang", "0.5.2")],
)
def test_every_preset_is_taken_by_every_version(engine: str, version: str) -> None:
    assert check_quantization(block(presets=list(PRESETS)), load_catalog(engine, version)) == []


def test_a_format_behind_a_flag_of_the_user_is_not_checked() -> None:
    catalog = load_catalog("sglang")
    assert check_quantization(block(kv_cache="int4"), catalog, {"kv-cache-dtype"}) == []


@given(
    st.sampled_from(
        [("vllm", "0.32.0"), ("vllm", "0.10.0"), ("sglang", "0.5.23"), ("sglang", "0.5.2")]
    ),
    ANY_FIELDS,
)
@settings(max_examples=200)
def test_what_the_check_takes_the_catalog_takes(where: tuple[str, str], fields: Fields) -> None:
    catalog = load_catalog(*where)
    if check_quantization(block(**vars(fields)), catalog):
        return
    for name, value in MAPPERS[where[0]](fields).arguments.items():
        catalog.check(name, value, "here")


# Previews.


# Counted by the mapper; the predecessor's had 40 for vLLM (with `--dtype auto`) and its worker
# ran 1,008 of the 1,960 raw combinations under names that are no flags.
@pytest.mark.parametrize(("engine", "count"), [("vllm", 40), ("tensorrt_llm", 24)])
def test_a_preview_counts_what_will_be_launched(engine: str, count: int) -> None:
    found = preview(block(**TASK_9), engine)
    assert found.count == count
    assert len(combinations(block(**TASK_9))) == 5 * 8 * 7 * 7


def test_sglangs_preview_has_no_repeats() -> None:
    found = preview(block(**TASK_9), "sglang")
    # Weights and experts: 5 gemm formats alone, moe fp8 beside 4 of them, w4afp8, mxfp4.
    assert found.count == (5 + 4 + 2) * 8 * 2
    assert found.combinations[0] == {}
    assert len(set(found.notes)) == len(found.notes)


def test_a_preview_leaves_out_what_the_user_settles_and_says_what_is_ignored() -> None:
    said = block(kv_cache=["auto", "fp8"], attention="fp8")
    assert preview(said, "vllm", settled={"kv-cache-dtype"}).combinations == ({},)
    (note,) = preview(said, "vllm").notes
    assert note.startswith("attention fp8")


# Models that are quantized already.


def model(directory: Path, config: Any, file: str = "config.json") -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / file).write_text(config if isinstance(config, str) else json.dumps(config))
    return str(directory)


def test_the_models_own_config_decides(tmp_path: Path) -> None:
    awq = {"quantization_config": {"quant_method": "awq"}}
    assert already_quantized(model(tmp_path / "plain-name", awq)) == "awq"
    assert already_quantized(model(tmp_path / "named-gptq", {"hidden_size": 8})) is None
    assert already_quantized(model(tmp_path / "odd", {"quantization_config": {}})) == "unnamed"
    own = model(tmp_path / "own", {})
    model(tmp_path / "own", {"quantization": {"quant_algo": "NVFP4"}}, "hf_quant_config.json")
    assert already_quantized(own) == "modelopt NVFP4"


def test_a_changed_config_is_read_again(tmp_path: Path) -> None:
    path = model(tmp_path / "m", {})
    assert already_quantized(path) is None
    model(tmp_path / "m", {"quantization_config": {"quant_method": "gptq"}})
    os.utime(tmp_path / "m" / "config.json", ns=(1, 1))
    assert already_quantized(path) == "gptq"


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("org/Llama-3-8B-AWQ", "awq"),
        ("org/Llama-3-8B-FP8-dynamic/", "fp8"),
        ("/models/mistral-7b.Q4.gguf", "gguf"),
        ("org/Qwen2-7B-quantized.w4a16", "compressed-tensors"),
        ("org/llama-bnb-4bit", "bitsandbytes"),
        # Only the model's own name, and only whole words of it.
        ("/models/awq/Llama-3-8B", None),
        ("org-gptq/Hawquila-7B", None),
        ("", None),
    ],
)
def test_without_a_config_the_words_of_the_models_name_decide(
    path: str, method: str | None
) -> None:
    assert already_quantized(path) == method


@pytest.mark.parametrize("text", ["{", "[]", '{"quantization_config": 4}'])
def test_an_odd_config_is_no_reason_to_stop(tmp_path: Path, text: str) -> None:
    assert already_quantized(model(tmp_path / "m", text)) is None
