"""Number formats among the other flags: the user's own go first, all of them are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotuner.engines.flags import catalog_of, check_flags, flag_values, quantization_preview
from autotuner.errors import ConfigError
from autotuner.study.spec import StudySpec
from tests.builders import spec


def study(
    quantization: dict[str, Any] | None,
    arguments: dict[str, Any] | None = None,
    space: dict[str, Any] | None = None,
    **more: Any,
) -> StudySpec:
    return spec(
        engine={"kind": "vllm", "version": "0.32.0", "arguments": arguments or {}},
        space=space or {},
        quantization=quantization,
        **more,
    )


def problems(found: StudySpec) -> list[ConfigError]:
    try:
        check_flags(found, catalog_of(found), {})
    except ConfigError as error:
        return [error, *error.others]
    return []


KV = "quantization:kv_cache"


def test_a_study_without_the_block_is_as_before() -> None:
    found = study(None, {"max-num-seqs": 4}, {"block-size": [16], "env:X": ["1"]})
    assert flag_values(found, {"block-size": 16, "env:X": "1"}) == {
        "max-num-seqs": 4,
        "block-size": 16,
    }


def test_formats_become_flags_and_are_no_flags_themselves() -> None:
    found = study({"gemm": "bfloat16", "kv_cache": ["auto", "fp8"]}, {"max-num-seqs": 4})
    assert problems(found) == []
    assert flag_values(found, {KV: "fp8"}) == {
        "dtype": "bfloat16",
        "kv-cache-dtype": "fp8",
        "max-num-seqs": 4,
    }
    assert flag_values(found, {KV: "auto"}) == {"dtype": "bfloat16", "max-num-seqs": 4}
    assert catalog_of(found).argv(flag_values(found, {KV: "fp8"})) == [
        "--dtype",
        "bfloat16",
        "--kv-cache-dtype",
        "fp8",
        "--max-num-seqs",
        "4",
    ]


def test_the_block_is_part_of_the_search() -> None:
    # The predecessor ran ten trials that were all `{}`.
    found = study({"presets": ["default", "kv-cache-fp8", "dynamic-fp8"]})
    points = list(found.parameter_space.points())
    launched = [flag_values(found, point) for point in points]
    assert len({str(each) for each in launched}) == len(points) == 3
    assert quantization_preview(found).count == 3
    assert [dict(each) for each in quantization_preview(found).combinations] == launched


@pytest.mark.parametrize("name", ["kv-cache-dtype", "kv_cache_dtype"])
def test_a_flag_of_the_user_wins(name: str) -> None:
    fixed = study({"kv_cache": "fp8_e5m2"}, {name: "fp8_e4m3"})
    assert flag_values(fixed, {}) == {"kv-cache-dtype": "fp8_e4m3"}
    varied = study({"kv_cache": ["auto", "fp8"]}, space={name: ["fp8_e4m3", None]})
    point = {KV: "fp8", "kv-cache-dtype": "fp8_e4m3"}
    assert flag_values(varied, point) == {"kv-cache-dtype": "fp8_e4m3"}
    assert problems(fixed) == problems(varied) == []
    assert quantization_preview(fixed).count == quantization_preview(varied).count == 1


def test_a_flag_of_the_user_wins_under_its_other_name() -> None:
    found = study({"gemm": "fp8"}, {"q": "awq"})
    assert flag_values(found, {}) == {"q": "awq"}


def test_a_flag_that_the_user_leaves_out_stays_out() -> None:
    found = study({"kv_cache": "fp8"}, {"kv-cache-dtype": None})
    assert catalog_of(found).argv(flag_values(found, {})) == []


def test_a_conditional_flag_of_the_user_wins_where_it_is_active() -> None:
    found = study(
        {"kv_cache": "fp8"},
        space={
            "block-size": [16, 32],
            "kv-cache-dtype": {"values": ["auto"], "when": {"block-size": 16}},
        },
    )
    assert flag_values(found, {"block-size": 16, "kv-cache-dtype": "auto"}) == {
        "block-size": 16,
        "kv-cache-dtype": "auto",
    }
    assert flag_values(found, {"block-size": 32}) == {"kv-cache-dtype": "fp8", "block-size": 32}


def test_a_format_the_version_does_not_take_is_a_mistake_of_the_study() -> None:
    found = problems(study({"kv_cache": ["auto", "int8"], "gemm": "int8"}, {"nonsense": 1}))
    assert [each.where for each in found] == [
        "engine.arguments.nonsense",
        "quantization.gemm",
        "quantization.kv_cache",
    ]
    assert "fp8" in found[1].allowed
    assert "int8" not in found[1].allowed


def test_a_model_quantized_already_is_seen_in_trials_and_preview(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    found = study({"gemm": "fp8", "kv_cache": "fp8"}, model={"path": str(tmp_path)})
    assert flag_values(found, {}) == {"kv-cache-dtype": "fp8"}
    assert quantization_preview(found).combinations == ({"kv-cache-dtype": "fp8"},)
    assert "gptq" in quantization_preview(found).notes[0]


def test_another_mapper_can_be_given() -> None:
    from autotuner.engines.quantization import sglang

    found = study({"attention": "fp8"})
    assert flag_values(found, {}) == {}
    assert flag_values(found, {}, sglang) == {"attention-backend": "flashinfer"}
