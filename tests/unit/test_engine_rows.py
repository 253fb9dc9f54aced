"""What the earlier system knew of engines, row by row: E-01 to E-16 of the list of its features.
Each is behaviour, under its own name here; what was wrong in it is kept out, and said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autotuner.cli import cli
from autotuner.engines.base import Engine
from autotuner.engines.catalog import Catalog, Flag, FlagKind, load_catalog
from autotuner.engines.compatibility import compatibility
from autotuner.engines.quantization import tensorrt_llm
from autotuner.engines.sglang import SGLANG
from autotuner.engines.vllm import VLLM
from autotuner.errors import ConfigError
from autotuner.plugins import load_kind
from autotuner.serving import Place
from autotuner.study.presets import presets
from autotuner.study.quantization import Fields
from autotuner.study.spec import StudySpec
from tests.builders import LLAMA_8B, spec

IN_IMAGE = Place(host="0.0.0.0", port=30000, model_path="/models/tiny", image=True)
ENGINES: dict[str, Engine] = {"sglang": SGLANG, "vllm": VLLM}


def study(kind: str, version: str | None = None, **more: Any) -> StudySpec:
    engine = {"kind": kind, "version": version, **more.pop("engine", {})}
    return spec(engine=engine, **more)


def old(engine: str) -> Catalog:
    """Of the versions that the earlier system knew."""
    return load_catalog(engine, {"sglang": "0.5.2", "vllm": "0.10.0"}[engine])


def flag(catalog: Catalog, name: str) -> Flag:
    found = catalog.find(name)
    assert found is not None, f"{catalog.engine} {catalog.version} has no --{name}"
    return found


# E-01, E-02: images, and how the program in them is called.


def test_e01_sglangs_image_and_how_its_program_is_called() -> None:
    launch = SGLANG.launch(study("sglang", "0.5.2"), {}, port=1, place=IN_IMAGE)
    assert launch.image == "lmsysorg/sglang:v0.5.2-cu126"
    assert launch.argv == (
        *("python3", "-m", "sglang.launch_server", "--model-path", "/models/tiny"),
        *("--served-model-name", "tiny", "--host", "0.0.0.0", "--port", "30000"),
        "--enable-metrics",
    )


def test_e02_vllms_image_and_how_its_program_is_called() -> None:
    launch = VLLM.launch(study("vllm", "0.10.0"), {}, port=1, place=IN_IMAGE)
    assert launch.image == "vllm/vllm-openai:v0.10.0"
    assert launch.argv == (
        *("python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "/models/tiny"),
        *("--served-model-name", "tiny", "--host", "0.0.0.0", "--port", "30000"),
    )


@pytest.mark.parametrize(
    ("engine", "newest"),
    [("sglang", "lmsysorg/sglang:v0.5.23"), ("vllm", "vllm/vllm-openai:v0.32.0")],
)
def test_e01_e02_the_image_is_that_of_the_version_or_a_tag_or_a_whole_one(
    engine: str, newest: str
) -> None:
    official = newest.partition(":")[0]
    for said, image in (
        (None, newest),
        ("nightly", f"{official}:nightly"),
        ("mine/engine:1", "mine/engine:1"),
        ("registry:5000/engine@sha256:0", "registry:5000/engine@sha256:0"),
    ):
        found = study(engine, engine={"image": said})
        assert ENGINES[engine].launch(found, {}, port=1, place=IN_IMAGE).image == image


# E-03: an engine that was never run.


def test_e03_tensorrt_llm_is_no_engine_to_launch() -> None:
    with pytest.raises(ConfigError) as caught:
        load_kind("engine", "tensorrt_llm")
    assert {"sglang", "vllm"} <= set(caught.value.allowed)


# E-04, E-08: the flags of each, and what they share.


@pytest.mark.parametrize(("engine", "count"), [("sglang", 210), ("vllm", 158)])
def test_e04_every_flag_of_the_versions_it_knew(engine: str, count: int) -> None:
    assert len(old(engine).flags) == count


def test_e04_the_names_that_both_engines_know() -> None:
    ours, theirs = ({each.name for each in old(engine).flags} for engine in ("sglang", "vllm"))
    assert (len(ours & theirs), len(ours - theirs), len(theirs - ours)) == (27, 183, 131)


def test_e08_two_catalogs_side_by_side() -> None:
    found = compatibility(old("sglang"), old("vllm"))
    # One more than by the first names: the model's path, which vLLM knows as --model.
    assert (len(found.common), len(found.only_one), len(found.only_other)) == (28, 182, 130)
    assert ("model-path", "model") in [(each.one.name, each.other.name) for each in found.common]
    assert "schedule-policy" in found.only_one
    assert "max-num-seqs" in found.only_other
    differs = {each.one.name: each.differs for each in found.common}
    assert differs["dtype"] == ""
    assert differs["kv-cache-dtype"] == "choices"
    assert differs["enable-lora"] == "switch and negatable"


def test_e08_the_other_way_round_says_the_same() -> None:
    for ours, theirs in (
        (old("sglang"), old("vllm")),
        (load_catalog("sglang"), load_catalog("vllm")),
        (old("vllm"), load_catalog("vllm")),
    ):
        one, other = compatibility(ours, theirs), compatibility(theirs, ours)
        assert {(s.one.name, s.other.name) for s in one.common} == {
            (s.other.name, s.one.name) for s in other.common
        }
        assert (one.only_one, one.only_other) == (other.only_other, other.only_one)
        assert len(one.common) + len(one.only_one) == len(ours.flags)


def test_e08_of_one_engine_it_says_what_came_and_went() -> None:
    found = compatibility(old("sglang"), load_catalog("sglang"))
    assert len(found.only_one) == 27
    assert {"cuda-graph-max-bs", "torchao-config", "enable-ep-moe"} <= set(found.only_one)
    assert len(compatibility(old("vllm"), load_catalog("vllm")).only_one) == 34


def test_e08_the_report_is_json() -> None:
    content = compatibility(old("sglang"), old("vllm")).to_json()
    assert json.loads(json.dumps(content)) == content
    assert [(each["engine"], each["version"], each["flags"]) for each in content["engines"]] == [
        ("sglang", "0.5.2", 210),
        ("vllm", "0.10.0", 158),
    ]
    assert [len(each["only"]) for each in content["engines"]] == [182, 130]
    assert {"names": ["dtype", "dtype"], "differs": ""} in content["common"]


# E-05, E-06, E-07: what is worth tuning.

NOT_FOR_SPEED = (
    *("host", "port", "api-key", "served-model-name", "log-level", "log-requests", "log-stats"),
    *("disable-log-requests", "disable-log-stats", "otlp-traces-endpoint", "download-dir"),
    *("model-loader-extra-config", "override-neuron-config", "ssl-keyfile", "ssl-certfile"),
    "disable-fastapi-docs",
)


def test_e05_no_preset_varies_what_is_not_about_speed() -> None:
    found = presets()
    assert {each.engine for each in found} == {"sglang", "vllm"}
    assert not {name for each in found for name in each.parameters} & set(NOT_FOR_SPEED)


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
@pytest.mark.parametrize("name", ["host", "port", "api-key", "served-model-name"])
def test_e05_what_would_break_the_measuring_is_refused(engine: str, name: str) -> None:
    with pytest.raises(ConfigError, match="is set by autotuner"):
        ENGINES[engine].check(study(engine, space={name: ["a", "b"]}))


THIRTEEN = {
    "tensor-parallel-size": [1, 2],
    "mem-fraction-static": [0.8, 0.9],
    "schedule-policy": ["lpm", "fcfs"],
    "max-running-requests": [64, 256],
    "max-total-tokens": [8192, 65536],
    "chunked-prefill-size": [2048, 8192],
    "max-prefill-tokens": [8192, 16384],
    "dtype": ["auto", "bfloat16"],
    "kv-cache-dtype": ["auto", "fp8_e5m2"],
    "quantization": [None, "fp8"],
    "enable-mixed-chunk": [False, True],
    "schedule-conservativeness": [0.5, 1.0],
    "cuda-graph-max-bs": [32, 256],
}
TWELVE = {
    "tensor-parallel-size": [1, 2],
    "gpu-memory-utilization": [0.85, 0.9],
    "max-num-seqs": [64, 256],
    "max-num-batched-tokens": [2048, 8192],
    "max-model-len": [2048, 4096],
    "dtype": ["auto", "bfloat16"],
    "kv-cache-dtype": ["auto", "fp8"],
    "quantization": [None, "fp8"],
    "enable-chunked-prefill": [False, True],
    "block-size": [16, 32],
    "swap-space": [0, 4],
    "scheduling-policy": ["fcfs", "priority"],
}


@pytest.mark.parametrize(
    ("engine", "version", "space", "gone"),
    [
        ("sglang", "0.5.2", THIRTEEN, set()),
        ("sglang", "0.5.23", THIRTEEN, {"cuda-graph-max-bs"}),
        ("vllm", "0.10.0", TWELVE, set()),
        ("vllm", "0.32.0", TWELVE, {"swap-space"}),
    ],
)
def test_e06_e07_the_flags_it_tuned_can_be_tuned_wherever_they_exist(
    engine: str, version: str, space: dict[str, list[Any]], gone: set[str]
) -> None:
    kept = {name: values for name, values in space.items() if name not in gone}
    found = study(engine, version, space=kept)
    ENGINES[engine].check(found)
    last = {name: values[-1] for name, values in kept.items()}
    argv = ENGINES[engine].launch(found, last, port=1).flags
    catalog = load_catalog(engine, version)
    assert {f"--{flag(catalog, name).name}" for name in kept} <= set(argv)
    for name in gone:
        with pytest.raises(ConfigError, match=f"has no flag --{name}"):
            ENGINES[engine].check(study(engine, version, space={name: space[name]}))


def test_e06_the_gpus_of_a_trial_are_counted_by_every_name_of_a_flag_in_every_version() -> None:
    for version in ("0.5.2", "0.5.23"):
        for tp, pp, dp in (
            ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"),
            ("tp-size", "pp-size", "dp-size"),
        ):
            point = {tp: 2, pp: 3, dp: 4}
            found = study("sglang", version)
            assert SGLANG.launch(found, point, port=1).gpus == 24
            request = SGLANG.memory(found, point)
            assert request is not None
            assert (request.tp, request.pp, request.dp) == (2, 3, 4)


# E-09: booleans.

SGLANG_BOOLEANS = (
    *("enable-mixed-chunk", "enable-lora", "enable-torch-compile", "disable-cuda-graph"),
    *("disable-radix-cache", "disable-overlap-schedule", "enable-hierarchical-cache"),
    "enable-dp-attention",
)
VLLM_BOOLEANS = (
    *("enable-chunked-prefill", "enable-prefix-caching", "enable-lora", "enforce-eager"),
    *("disable-custom-all-reduce", "disable-sliding-window", "multi-step-stream-outputs"),
    "disable-async-output-proc",
)


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        *(("sglang", name) for name in SGLANG_BOOLEANS),
        *(("vllm", name) for name in VLLM_BOOLEANS),
    ],
)
def test_e09_a_boolean_is_a_bare_flag_its_negative_form_or_nothing(engine: str, name: str) -> None:
    catalog = old(engine)
    found = study(engine, catalog.version)
    launch = ENGINES[engine].launch
    assert launch(found, {name: True}, port=1).flags == (f"--{name}",)
    negatable = flag(catalog, name).kind is FlagKind.NEGATABLE
    assert launch(found, {name: False}, port=1).flags == ((f"--no-{name}",) if negatable else ())
    for text in ("true", "on", 1):
        with pytest.raises(ConfigError, match="must be true or false"):
            ENGINES[engine].check(study(engine, catalog.version, space={name: [text]}))


def test_e09_a_boolean_that_never_was_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no flag --enable-mla"):
        SGLANG.check(study("sglang", "0.5.2", space={"enable-mla": [True, False]}))


# E-10, E-11, E-12, E-13: values.


@pytest.mark.parametrize(
    ("engine", "version", "name", "taken", "refused"),
    [
        (
            *("sglang", "0.5.23", "dtype"),
            "auto half float16 bfloat16 float float32",
            "fp16 int8",
        ),
        (
            *("sglang", "0.5.23", "kv-cache-dtype"),
            "auto fp8_e5m2 fp8_e4m3 bf16 bfloat16",
            # It was documented, and then called otherwise.
            "fp4_e2m1 int8 fp8",
        ),
        ("sglang", "0.5.2", "kv-cache-dtype", "auto fp8_e5m2 fp8_e4m3", "bf16 bfloat16 fp8"),
        # `sjf` was documented and is none of any version's.
        ("sglang", "0.5.2", "schedule-policy", "lpm fcfs random lof dfs-weight", "sjf"),
        ("sglang", "0.5.23", "schedule-policy", "lpm fcfs random lof hrrn", "sjf"),
        ("vllm", "0.10.0", "kv-cache-dtype", "auto fp8 fp8_e4m3 fp8_e5m2 fp8_inc", "bfloat16"),
        ("vllm", "0.32.0", "kv-cache-dtype", "auto bfloat16 fp8 fp8_e4m3 fp8_e5m2 fp8_inc", "bf16"),
        (
            *("sglang", "0.5.2", "quantization"),
            "awq fp8 gptq marlin gptq_marlin awq_marlin bitsandbytes gguf modelopt modelopt_fp4 "
            "petit_nvfp4 w8a8_int8 w8a8_fp8 moe_wna16 qoq w4afp8 mxfp4",
            # Documented for it, and only of later ones.
            "modelopt_fp8 auto-round compressed-tensors",
        ),
        (
            *("sglang", "0.5.23", "quantization"),
            "awq fp8 gptq gptq_marlin awq_marlin bitsandbytes gguf modelopt modelopt_fp8 "
            "modelopt_fp4 petit_nvfp4 w8a8_int8 w8a8_fp8 moe_wna16 w4afp8 mxfp4 auto-round "
            "compressed-tensors",
            "marlin qoq",
        ),
    ],
)
def test_e10_e11_e13_the_values_of_a_flag_are_those_of_its_version(
    engine: str, version: str, name: str, taken: str, refused: str
) -> None:
    ENGINES[engine].check(study(engine, version, space={name: taken.split()}))
    for value in refused.split():
        with pytest.raises(ConfigError) as caught:
            ENGINES[engine].check(study(engine, version, space={name: [value]}))
        assert caught.value.where == f"space.{name}"
        assert set(taken.split()) <= set(caught.value.allowed)


@pytest.mark.parametrize(
    ("version", "name", "values"),
    [
        ("0.5.23", "modelopt-quant", "fp8 int4_awq w4a8_awq nvfp4 nvfp4_awq"),
        ("0.5.2", "torchao-config", "int8dq int8wo fp8wo fp8dq-per_tensor fp8dq-per_row int4wo-32"),
    ],
)
def test_e10_a_text_without_choices_reaches_the_engine(
    version: str, name: str, values: str
) -> None:
    found = study("sglang", version, space={name: values.split()})
    SGLANG.check(found)
    for value in values.split():
        assert SGLANG.launch(found, {name: value}, port=1).flags == (f"--{name}", value)


@pytest.mark.parametrize(
    ("said", "becomes"), [("auto", None), ("fp8", "FP8"), ("fp8_e4m3", "FP8"), ("int8", "INT8")]
)
def test_e12_tensorrt_llms_kv_cache_formats(said: str, becomes: str | None) -> None:
    arguments = tensorrt_llm(Fields(kv_cache=said)).arguments
    assert arguments.get("kv-cache-quant-algo") == becomes


# E-14: a checkpoint that is quantized already.


def checkpoint(directory: Path, method: str) -> str:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": method}}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(directory)


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_e14_a_quantized_checkpoint_gets_no_quantization_of_the_formats(
    tmp_path: Path, engine: str
) -> None:
    model = {"path": checkpoint(tmp_path, "awq")}
    formats = {"gemm": "fp8", "kv_cache": "fp8_e5m2"}
    quantized = ENGINES[engine].launch(study(engine, model=model, quantization=formats), {}, port=1)
    assert quantized.flags == ("--kv-cache-dtype", "fp8_e5m2")
    plain = ENGINES[engine].launch(study(engine, quantization=formats), {}, port=1)
    assert "--quantization" in plain.flags


@pytest.mark.parametrize("method", ["w8a8_int8", "w8a8_fp8"])
def test_e14_other_kernels_for_a_quantized_checkpoint_can_be_asked_for(
    tmp_path: Path, method: str
) -> None:
    model = {"path": checkpoint(tmp_path, "compressed-tensors")}
    found = study("sglang", model=model, space={"quantization": [method]})
    SGLANG.check(found)
    assert SGLANG.refuse(found, {"quantization": method}) is None
    assert SGLANG.launch(found, {"quantization": method}, port=1).flags[-1] == method


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
@pytest.mark.parametrize(("own", "other"), [("awq", "gptq"), ("gptq", "fp8"), ("fp8", "awq")])
def test_e14_another_method_than_the_checkpoints_is_refused(
    tmp_path: Path, engine: str, own: str, other: str
) -> None:
    found = study(engine, model={"path": checkpoint(tmp_path, own)})
    reason = ENGINES[engine].refuse(found, {"quantization": other})
    assert reason == f"quantization {other} does not match the model's {own}"
    assert ENGINES[engine].refuse(found, {"quantization": own}) is None


# E-15: readiness and metrics.


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_e15_a_server_is_ready_by_its_health(engine: str) -> None:
    assert ENGINES[engine].launch(study(engine), {}, port=1).health_path == "/health"


def test_e15_sglangs_metrics_are_off_by_default_and_a_study_may_ask_for_them() -> None:
    catalog = load_catalog("sglang")
    assert flag(catalog, "enable-metrics").default is False
    found = study("sglang", engine={"arguments": {"enable-metrics": True}})
    SGLANG.check(found)
    assert "--enable-metrics" in SGLANG.launch(found, {}, port=1).flags


# E-16: what its guide advised.


@pytest.mark.parametrize(
    ("point", "gpus"),
    [
        ({"tp-size": 1, "mem-fraction-static": 0.85, "schedule-policy": "fcfs"}, 1),
        ({"tp-size": 4, "mem-fraction-static": 0.92, "schedule-policy": "lpm"}, 4),
        ({"tp-size": 2, "mem-fraction-static": 0.88, "schedule-policy": "lpm"}, 2),
    ],
    ids=["latency", "throughput", "balanced"],
)
@pytest.mark.parametrize("version", ["0.5.2", "0.5.23"])
def test_e16_its_advice_can_be_launched(version: str, point: dict[str, Any], gpus: int) -> None:
    found = study("sglang", version, space={name: [value] for name, value in point.items()})
    SGLANG.check(found)
    assert SGLANG.refuse(found, point) is None
    assert SGLANG.launch(found, point, port=1).gpus == gpus


def test_two_catalogs_are_compared_on_the_command_line() -> None:
    done = CliRunner().invoke(cli, ["catalog", "sglang", "--against", "vllm", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert [each["engine"] for each in found["engines"]] == ["sglang", "vllm"]
    assert any(each["names"] == ["tp-size", "tensor-parallel-size"] for each in found["common"])
    said = CliRunner().invoke(
        cli, ["catalog", "sglang", "--version", "0.5.2", "--against-version", "0.5.23"]
    )
    assert "flags of both sglang 0.5.2 and sglang 0.5.23" in said.stdout
