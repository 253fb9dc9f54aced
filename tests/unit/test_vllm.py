"""vLLM: its launch lines, what it refuses, and what its real messages are diagnosed as."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from autotuner.engines.catalog import Catalog, Flag, FlagKind, load_catalog, write_catalog
from autotuner.engines.signatures import REASON_LENGTH
from autotuner.engines.vllm import VLLM
from autotuner.errors import ConfigError, FailureClass
from autotuner.serving import Place
from autotuner.study.spec import StudySpec
from tests.builders import spec

LOGS = Path(__file__).parents[1] / "data" / "engine-logs"

_FRACTION = "gpu-memory-utilization"

TINY = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 2000,
    "max_position_embeddings": 4096,
}
"""The model that the recorded logs are of."""


def study(
    arguments: dict[str, Any] | None = None,
    space: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    **engine: Any,
) -> StudySpec:
    return spec(
        model=model or {"path": "/models/tiny"},
        engine={"kind": "vllm", "arguments": arguments or {}, **engine},
        space=space or {},
    )


def problems(study: StudySpec) -> list[ConfigError]:
    with pytest.raises(ConfigError) as caught:
        VLLM.check(study)
    return [caught.value, *caught.value.others]


# The launch line.


def test_the_baseline_is_vllm_serve_with_the_engines_defaults() -> None:
    launch = VLLM.launch(study(), {}, port=8001)
    assert launch.argv == (
        *("vllm", "serve", "/models/tiny", "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", "8001"),
    )
    assert launch.environment == {}
    assert launch.image == "vllm/vllm-openai:v0.32.0"
    assert launch.health_path == "/health"
    assert (launch.port, launch.gpus, launch.cpus) == (8001, 1, None)
    assert (launch.model_path, launch.served_name) == ("/models/tiny", "tiny")


@pytest.mark.parametrize(
    ("command", "model"),
    [
        (["vllm", "serve"], ["/models/tiny"]),
        (["/opt/venv/bin/vllm", "serve"], ["/models/tiny"]),
        (["/opt/python", "-m", "vllm.entrypoints.cli.main", "serve"], ["/models/tiny"]),
        (
            ["/opt/python", "-m", "vllm.entrypoints.openai.api_server"],
            ["--model", "/models/tiny"],
        ),
    ],
)
def test_the_model_stands_where_the_command_takes_it(command: list[str], model: list[str]) -> None:
    launch = VLLM.launch(study(command=command), {}, port=1)
    assert launch.command == tuple(command)
    assert launch.arguments[: len(model) + 1] == (*model, "--served-model-name")


def test_fixed_arguments_come_first_and_then_the_point() -> None:
    arguments = {"max_model_len": "8k", "enforce-eager": True, "enable-prefix-caching": False}
    launch = VLLM.launch(
        study(arguments),
        {"max-num-seqs": 64, "block-size": None},
        port=1,
        place=Place(host="0.0.0.0"),
    )
    assert launch.arguments[5:] == (
        *("--port", "1"),
        *("--max-model-len", "8k", "--enforce-eager", "--no-enable-prefix-caching"),
        *("--max-num-seqs", "64"),
    )
    assert launch.arguments[3:5] == ("--host", "0.0.0.0")


def test_the_model_block_says_name_and_tokenizer() -> None:
    model = {"path": "org/name", "served_name": "mine", "tokenizer": "/t"}
    launch = VLLM.launch(study(model=model), {}, port=1)
    assert launch.arguments[:5] == ("org/name", "--served-model-name", "mine", "--tokenizer", "/t")
    assert launch.served_name == "mine"


def test_the_image_and_the_version_can_be_chosen() -> None:
    assert VLLM.launch(study(image="mine:1"), {}, port=1).image == "mine:1"
    assert VLLM.launch(study(version="0.10.0"), {}, port=1).image == "vllm/vllm-openai:v0.10.0"


@pytest.mark.parametrize(
    ("arguments", "parameters", "gpus"),
    [
        ({}, {}, 1),
        ({}, {"tensor-parallel-size": 4}, 4),
        ({"tp": 2}, {}, 2),
        ({"-tp": 2, "-pp": 2}, {"data-parallel-size": 2}, 8),
        ({"tensor_parallel_size": 2}, {"pp": 3}, 6),
        ({"tp": None}, {"dp": ""}, 1),
        ({"tp": 2.0}, {}, 2),
        ({"tp": 2, "prefill-context-parallel-size": 2}, {}, 4),
        ({"tp": 8}, {"decode-context-parallel-size": 2}, 8),
    ],
)
def test_the_gpus_are_the_product_of_the_parallel_sizes(
    arguments: dict[str, Any], parameters: dict[str, Any], gpus: int
) -> None:
    assert VLLM.launch(study(arguments), parameters, port=1).gpus == gpus


def test_environment_variables_are_fixed_or_varied_but_no_flags() -> None:
    point = {
        "env:VLLM_ATTENTION_BACKEND": "FLASHINFER",
        "env:OMP_NUM_THREADS": 4,
        "env:VLLM_USE_X": True,
        "env:LEFT_OUT": None,
        "env:EMPTY": "",
        "max-num-seqs": 2,
    }
    launch = VLLM.launch(study(environment={"FIXED": 1}), point, port=1)
    assert launch.environment == {
        "FIXED": "1",
        "VLLM_ATTENTION_BACKEND": "FLASHINFER",
        "OMP_NUM_THREADS": "4",
        "VLLM_USE_X": "1",
    }
    assert not any("env" in item or "FLASHINFER" in item for item in launch.arguments)


def test_json_flags_stay_json_whole_or_dotted() -> None:
    arguments = {"compilation_config.cudagraph_mode": "NONE", "limit-mm-per-prompt": {"image": 2}}
    launch = VLLM.launch(study(arguments), {}, port=1)
    assert launch.arguments[-4:] == (
        *("--compilation-config.cudagraph_mode", "NONE"),
        *("--limit-mm-per-prompt", '{"image":2}'),
    )


# What is checked before anything is launched.


def test_a_usual_study_passes_the_check() -> None:
    VLLM.check(
        study(
            {"--max-model-len": "auto", "dtype": "bfloat16", "enable_prefix_caching": True},
            {
                "max-num-seqs": [64, None, 256],
                "gpu-memory-utilization": {"type": "float", "low": 0.8, "high": 0.95},
                "max_num_batched_tokens": ["8k", 2048],
                "compilation-config.cudagraph_mode": ["NONE", "PIECEWISE"],
                "env:VLLM_ATTENTION_BACKEND": ["FLASHINFER", None],
            },
        )
    )


@pytest.mark.parametrize(
    "name",
    ["model", "served-model-name", "tokenizer", "host", "--port", "uds", "api-key", "config"],
)
@pytest.mark.parametrize("fixed", [True, False])
def test_a_flag_autotuner_sets_itself_is_refused(name: str, fixed: bool) -> None:
    found = problems(study({name: "x"}) if fixed else study(space={name: ["x", "y"]}))
    canonical = name.removeprefix("--")
    assert found[0].problem == f"--{canonical} is set by autotuner"
    assert found[0].where == f"{'engine.arguments' if fixed else 'space'}.{canonical}"
    assert found[0].hint


def test_every_wrong_flag_is_found_in_one_check() -> None:
    found = problems(
        study(
            {"max-num-sequences": 4, "max-num-seqs": "many"},
            {"enforce-eager": ["yes", "no"], "block-size": [16], "block-siz": [16]},
        )
    )
    assert [each.where for each in found] == [
        "engine.arguments.max-num-sequences",
        "engine.arguments.max-num-seqs",
        "space.enforce-eager",
        "space.block-siz",
    ]
    assert "--max-num-seqs" in found[0].hint


def test_the_ends_of_a_range_are_checked() -> None:
    found = problems(study(space={"max-num-seqs": {"type": "float", "low": 1.5, "high": 8}}))
    assert "1.5 must be a whole number" in found[0].problem


def test_two_names_of_one_flag_are_refused() -> None:
    found = problems(study({"tp": 2}, {"tensor-parallel-size": [1, 2]}))
    assert "already set by engine.arguments.tp" in found[0].problem
    assert found[0].where == "space.tensor-parallel-size"


@pytest.mark.parametrize("fixed", ["compilation-config", "cc"])
def test_a_json_flag_and_a_key_inside_it_are_refused_together(fixed: str) -> None:
    # vLLM appends the dotted keys as a whole new JSON, and the last one wins.
    found = problems(study({fixed: {"mode": 3}}, {"compilation-config.backend": ["x"]}))
    assert found[0].where == "space.compilation-config.backend"


def test_several_keys_inside_one_json_flag_are_fine() -> None:
    VLLM.check(study({"compilation-config.mode": 3}, {"compilation-config.backend": ["x"]}))


def test_an_environment_variable_must_be_text() -> None:
    assert problems(study(space={"env:X": [{"a": 1}]}))[0].where == "space.env:X"


def test_flags_are_those_of_the_chosen_version(tmp_path: Path) -> None:
    VLLM.check(study({"swap-space": 4}, version="0.10.0"))
    assert "vllm 0.32.0 has no flag --swap-space" in problems(study({"swap-space": 4}))[0].problem
    path = tmp_path / "mine.json"
    write_catalog(Catalog("vllm", "7.0", (Flag("my-flag", FlagKind.INT),)), path)
    VLLM.check(study({"my-flag": 4}, catalog=str(path)))
    assert "vllm 7.0" in problems(study({"swap-space": 4}, catalog=str(path)))[0].problem


def test_a_version_without_a_catalog_is_refused() -> None:
    assert problems(study(version="9.9"))[0].where == "engine.version"


# What cannot start.


@pytest.mark.parametrize(
    ("arguments", "parameters", "said"),
    [
        ({}, {"max-num-batched-tokens": 8, "max-num-seqs": 64}, "8 is below max-num-seqs 64"),
        ({"max-num-seqs": 10_000}, {"max-num-batched-tokens": "8k"}, "8000 is below"),
        (
            {"enable-chunked-prefill": False, "max-model-len": "8K"},
            {"max-num-batched-tokens": "8k"},
            "8000 is below max-model-len 8192",
        ),
        (
            {"max-model-len": 100},
            {"long-prefill-token-threshold": 200},
            "200 is above max-model-len 100",
        ),
    ],
)
def test_what_vllm_itself_would_refuse_is_refused(
    arguments: dict[str, Any], parameters: dict[str, Any], said: str
) -> None:
    reason = VLLM.refuse(study(arguments), parameters)
    assert reason is not None
    assert said in reason


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, {}),
        ({}, {"max-num-batched-tokens": 64, "max-num-seqs": 64}),
        ({}, {"max-num-batched-tokens": "8K", "max-num-seqs": 8192}),
        ({}, {"max-num-batched-tokens": 8}),
        ({}, {"max-num-seqs": 10**6}),
        ({"max-model-len": 8192}, {"max-num-batched-tokens": 2048}),
        ({"max-model-len": 8192, "enable-chunked-prefill": True}, {"max-num-batched-tokens": 2048}),
        ({"enable-chunked-prefill": False}, {"max-num-batched-tokens": 2048}),
        (
            {"max-model-len": "auto", "enable-chunked-prefill": False},
            {"max-num-batched-tokens": 1},
        ),
        ({"max-model-len": -1}, {"long-prefill-token-threshold": 512}),
        (
            {"max-model-len": -1, "enable-chunked-prefill": False},
            {"max-num-batched-tokens": 2048},
        ),
        ({"max-model-len": None}, {"long-prefill-token-threshold": 512}),
    ],
)
def test_what_might_start_is_not_refused(
    arguments: dict[str, Any], parameters: dict[str, Any]
) -> None:
    assert VLLM.refuse(study(arguments), parameters) is None


def of_model(directory: Path, **changes: Any) -> dict[str, Any]:
    """The model block of a directory with a configuration."""
    (directory / "config.json").write_text(json.dumps({**TINY, **changes}), encoding="utf-8")
    return {"path": str(directory)}


MOE = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
UNCHUNKED = {"enable-chunked-prefill": False, "max-num-batched-tokens": 2048}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024}
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        ({}, {"tp": 3}, "8 attention heads cannot be split by tensor-parallel-size 3"),
        ({}, {"tp": 16}, "8 attention heads"),
        (
            {"num_attention_heads": 24, "num_key_value_heads": 8},
            {"tp": 3},
            "8 KV heads can neither be split nor repeated by tensor-parallel-size 3",
        ),
        ({}, {"max-model-len": 4097}, "max-model-len 4097 is above the model's 4096"),
        ({}, {"enable-expert-parallel": True}, "mixtures of experts"),
        ({}, {"tp": 2, "dcp": 2}, "above the model's 4 KV heads, not 2"),
        ({}, {"tp": 4, "dcp": 3}, "cannot be split by decode-context-parallel-size 3"),
        ({}, {"tp": 8, "dcp": 4}, "decode-context-parallel-size 4 is above 2"),
        (AWQ, {"quantization": "gptq"}, "quantization gptq does not match the model's awq"),
        ({}, {"gpu-memory-utilization": 0.0}, "gpu-memory-utilization 0 is not above 0"),
        ({}, {"gpu-memory-utilization": 1.01}, "gpu-memory-utilization 1.01"),
        ({}, {"max-num-seqs": 0}, "max-num-seqs 0 is below 1"),
        ({}, {"block-size": 0}, "block-size 0 is below 1"),
        ({}, {"pp": -1}, "pipeline-parallel-size -1 is below 1"),
        ({}, {"max-num-active-seqs": 9, "max-num-seqs": 8}, "max-num-active-seqs 9 is above"),
        ({}, UNCHUNKED, "2048 is below the model's own length 4096 without chunked prefill"),
        ({"rope_scaling": LLAMA3}, UNCHUNKED, "2048 is below the model's own length 4096"),
    ],
)
def test_what_the_model_cannot_do_is_refused(
    tmp_path: Path, model: dict[str, Any], arguments: dict[str, Any], said: str
) -> None:
    reason = VLLM.refuse(study(arguments, model=of_model(tmp_path, **model)), {})
    assert reason is not None
    assert said in reason


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ({}, {"tp": 8}),
        ({"vocab_size": 2001}, {"tp": 2}),  # vLLM pads it
        ({"num_key_value_heads": 2}, {"tp": 8}),  # KV heads are repeated
        ({"model_type": "of-tomorrow", "num_attention_heads": 24}, {"tp": 3, "ep": True}),
        ({}, {"max-model-len": 4096}),
        ({}, {"max-model-len": -1}),
        ({"max_position_embeddings": None}, {"max-model-len": 10**6}),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            {"max-model-len": 4 * 4096},
        ),
        ({}, {"max-model-len": 8192, "hf-overrides": {"max_position_embeddings": 8192}}),
        (MOE, {"enable-expert-parallel": True}),
        ({}, {"tp": 8, "dcp": 2}),
        (AWQ, {"quantization": "awq_marlin"}),
        ({}, {"quantization": "fp8"}),
        ({}, {"gpu-memory-utilization": 1.0}),
        ({}, {"kv-cache-dtype": "fp8", "attention-backend": "FLEX_ATTENTION"}),  # device decides
        ({}, {**UNCHUNKED, "max-num-batched-tokens": 4096}),
        ({}, {**UNCHUNKED, "max-model-len": 1024}),
        ({}, {**UNCHUNKED, "max-model-len": -1}),
        ({}, {**UNCHUNKED, "enable-chunked-prefill": True}),
        ({}, {"enable-chunked-prefill": False}),
        ({}, {**UNCHUNKED, "hf-overrides": {"max_position_embeddings": 1024}}),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, UNCHUNKED),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, UNCHUNKED),
        ({"model_type": "mistral", "sliding_window": 1024}, UNCHUNKED),
        ({"model_type": "of-tomorrow"}, UNCHUNKED),
        ({"model_max_length": 1024}, UNCHUNKED),
    ],
)
def test_what_the_model_might_do_is_not_refused(
    tmp_path: Path, model: dict[str, Any], arguments: dict[str, Any]
) -> None:
    assert VLLM.refuse(study(arguments, model=of_model(tmp_path, **model)), {}) is None


def test_versions_that_chunk_anyway_are_not_refused_for_it(tmp_path: Path) -> None:
    """0.10 switches chunked prefill on whatever is said."""
    model = of_model(tmp_path)
    for arguments in (UNCHUNKED, {**UNCHUNKED, "max-model-len": 4096}):
        assert VLLM.refuse(study(arguments, model=model, version="0.32.0"), {}) is not None
        assert VLLM.refuse(study(arguments, model=model, version="0.10.0"), {}) is None


def test_what_mistrals_own_file_may_say_is_not_refused(tmp_path: Path) -> None:
    """vLLM reads `params.json` first, where the weights are of that format as well."""
    model = of_model(tmp_path)
    for arguments in ({"max-model-len": 9000}, UNCHUNKED):
        (tmp_path / "params.json").unlink(missing_ok=True)
        assert VLLM.refuse(study(arguments, model=model), {}) is not None
        (tmp_path / "params.json").write_text("{}", encoding="utf-8")
        (tmp_path / "consolidated.safetensors").touch()
        assert VLLM.refuse(study(arguments, model=model), {}) is None


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    "arguments",
    [
        {"rope-scaling": YARN, "max-model-len": 16384},
        {"rope-scaling.factor": 4.0, "max-model-len": 16384},
        {"rope-theta": 1e6, "max-model-len": 16384},
        {"config-format": "mistral", "max-model-len": 16384},
        {"long-prefill-token-threshold": 9000, "max-model-len": 2048},
        {"gpu-memory-utilization": 0.0},
        {"max-num-seqs": 0},
    ],
)
def test_the_older_version_is_judged_by_its_own_rules(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    older = study(arguments, model=of_model(tmp_path), version="0.10.0")
    assert VLLM.refuse(older, {}) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rope-scaling": None, "max-model-len": 16384}, "max-model-len 16384 is above"),
        (
            {
                "long-prefill-token-threshold": 9000,
                "max-model-len": 2048,
                "max-num-partial-prefills": 2,
            },
            "9000 is above max-model-len 2048",
        ),
        ({"gpu-memory-utilization": 1.01}, "gpu-memory-utilization 1.01 is not at most 1"),
    ],
)
def test_what_the_older_version_refuses_is_refused(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    older = study(arguments, model=of_model(tmp_path), version="0.10.0")
    assert said in str(VLLM.refuse(older, {}))


def test_of_a_model_that_is_scaled_nothing_is_said_of_memory() -> None:
    point = study({"rope-scaling": YARN}, version="0.10.0")
    assert VLLM.memory(point, {}) is None


def test_a_variable_can_allow_what_a_flag_alone_cannot(tmp_path: Path) -> None:
    model, long = of_model(tmp_path), {"max-model-len": 99_999}
    name = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
    assert VLLM.refuse(study(long, model=model, environment={name: "1"}), {}) is None
    assert VLLM.refuse(study(long, model=model, environment={name: "0"}), {}) is not None
    assert VLLM.refuse(study(long, model=model), {f"env:{name}": 1}) is None


@pytest.mark.parametrize(
    ("log", "arguments"),
    [
        ("heads", {"tensor-parallel-size": 3}),
        ("length", {"max-model-len": 99_999}),
        ("batched", {"max-num-batched-tokens": 8, "max-num-seqs": 64}),
        (
            "chunked",
            {
                "max-num-batched-tokens": 512,
                "enable-chunked-prefill": False,
                "max-model-len": 2048,
            },
        ),
        ("experts", {"enable-expert-parallel": True}),
        ("context-parallel", {"tensor-parallel-size": 2, "decode-context-parallel-size": 2}),
        ("field", {"gpu-memory-utilization": 0.0}),
    ],
)
def test_what_is_refused_is_what_vllm_refused(
    tmp_path: Path, log: str, arguments: dict[str, Any]
) -> None:
    assert VLLM.refuse(study(arguments, model=of_model(tmp_path)), {}) is not None
    diagnosis = VLLM.diagnose(recorded(log))
    assert diagnosis.failure is FailureClass.ARGUMENT
    assert not diagnosis.machine_fault


# What a dead server's log says. Messages as vLLM 0.32.0 writes them.

ENGINE = "(EngineCore pid=4711) ERROR 11-22 03:04:05 [core.py:946] "
SERVER = "(APIServer pid=4242) "

WRAPPERS = """\
(EngineCore pid=4711) ERROR 11-22 03:04:05 [core.py:946] EngineCore failed to start.
(EngineCore pid=4711) ERROR 11-22 03:04:05 [core.py:946] Traceback (most recent call last):
"""
END = """\
(Worker_TP0 pid=4800) ERROR 11-22 03:04:06 [multiproc_executor.py:772] WorkerProc failed to start.
(EngineCore pid=4711) ERROR 11-22 03:04:06 [async_llm.py:708] EngineCore encountered an issue. \
See stack trace (above) for the root cause.
(APIServer pid=4242) Traceback (most recent call last):
(APIServer pid=4242) RuntimeError: Engine core initialization failed. See root cause above. \
Failed core proc(s): {}
"""

SAID = [
    (
        FailureClass.ARGUMENT,
        "vllm serve: error: unrecognized arguments: --max-num-sequences 4",
        "error: unrecognized arguments: --max-num-sequences 4",
    ),
    (
        FailureClass.ARGUMENT,
        "vllm serve: error: argument --block-size: invalid choice: 7 (choose from 8, 16)",
        "invalid choice: 7",
    ),
    (
        FailureClass.ARGUMENT,
        "vllm serve: error: argument --max-num-seqs: invalid int value: '4096.0'",
        "invalid int value: '4096.0'",
    ),
    (
        FailureClass.ARGUMENT,
        SERVER + "  Value error, max_num_batched_tokens (8) must be greater than or equal to "
        "max_num_seqs (64). [type=value_error, input_value=ArgsKwargs((), {'runner_t...}), "
        "input_type=ArgsKwargs]",
        "max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (64).",
    ),
    (
        FailureClass.ARGUMENT,
        SERVER + "  Value error, Total number of attention heads (8) must be divisible by tensor "
        "parallel size (3). [type=value_error, input_value=...]",
        "Total number of attention heads (8) must be divisible by tensor parallel size (3).",
    ),
    (
        FailureClass.ARGUMENT,
        SERVER + "  Value error, User-specified max_model_len (99999) is greater than the derived "
        "max_model_len (max_position_embeddings=512). [type=value_error]",
        "User-specified max_model_len (99999) is greater than",
    ),
    (
        FailureClass.ARGUMENT,
        ENGINE + "ValueError: No valid attention backend found for cuda with AttentionSelector",
        "No valid attention backend found for cuda",
    ),
    (
        FailureClass.KV_CACHE,
        ENGINE + "ValueError: No available memory for the cache blocks. Try increasing "
        "`gpu_memory_utilization` when initializing the engine.",
        "No available memory for the cache blocks.",
    ),
    (
        FailureClass.KV_CACHE,
        ENGINE + "ValueError: To serve at least one request with the model's max seq len (131072), "
        "(16.0 GiB KV cache is needed, which is larger than the available KV cache memory "
        "(9.5 GiB). Based on the available memory, the estimated maximum model length is 77824.",
        "To serve at least one request with the model's max seq len (131072)",
    ),
    (
        FailureClass.DEVICE,
        ENGINE + "ValueError: Free memory on device cuda:0 (10.2/79.1 GiB) on startup is less than "
        "desired GPU memory utilization (0.92, 72.8 GiB).",
        "Free memory on device cuda:0 (10.2/79.1 GiB)",
    ),
    (
        FailureClass.DEVICE,
        SERVER + "  Value error, World size (8) is larger than the number of available GPUs (1) in "
        "this node. [type=value_error]",
        "World size (8) is larger than the number of available GPUs (1)",
    ),
    (
        FailureClass.DEVICE,
        "RuntimeError: Failed to infer device type, please set the environment variable",
        "Failed to infer device type",
    ),
    (
        FailureClass.MEMORY_AT_LOAD,
        ENGINE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. GPU 0 "
        "has a total capacity of 79.11 GiB of which 512.00 MiB is free.",
        "CUDA out of memory. Tried to allocate 1.25 GiB",
    ),
    (
        FailureClass.MEMORY_AT_LOAD,
        ENGINE
        + "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy "
        "requests. Please try lowering `max_num_seqs`.",
        "warming up sampler with 1024",
    ),
    (
        FailureClass.QUANTIZATION,
        SERVER + "  Value error, Unknown quantization method: int3. Must be one of ['awq'].",
        "Unknown quantization method: int3",
    ),
    (
        FailureClass.QUANTIZATION,
        SERVER + "  Value error, Quantization method specified in the model config (awq) does not "
        "match the quantization method specified in the `quantization` argument (gptq).",
        "(awq) does not match",
    ),
    (
        FailureClass.QUANTIZATION,
        SERVER + "  Value error, The quantization method fp8 is not supported for the current GPU. "
        "Minimum capability: 89. Current capability: 80.",
        "The quantization method fp8 is not supported",
    ),
    (
        FailureClass.QUANTIZATION,
        ENGINE + "ValueError: Cannot find the config file for awq",
        "Cannot find the config file for awq",
    ),
    (
        FailureClass.MODEL,
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or "
        "'namespace/repo_name': '/nowhere/model'.",
        "Repo id must be in the form",
    ),
    (
        FailureClass.MODEL,
        "OSError: org/nosuch is not a local folder and is not a valid model identifier listed on "
        "'https://huggingface.co/models'",
        "org/nosuch is not a local folder",
    ),
    (
        FailureClass.MODEL,
        ENGINE + "RuntimeError: Cannot find any model weights with `/models/tiny`",
        "Cannot find any model weights with",
    ),
    (
        FailureClass.MODEL,
        "OSError: You are trying to access a gated repo.",
        "trying to access a gated repo",
    ),
    (
        FailureClass.MODEL,
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-2)",
        "401 Client Error",
    ),
    (
        FailureClass.MODEL,
        SERVER + "  Value error, Model architectures ['NoSuchForCausalLM'] are not supported for "
        "now. Supported architectures: ['LlamaForCausalLM'] [type=value_error]",
        "Model architectures ['NoSuchForCausalLM'] are not supported",
    ),
    (
        FailureClass.MODEL,
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't "
        "find them in the cached files.",
        "We couldn't connect to",
    ),
    (
        FailureClass.PORT,
        SERVER + "OSError: [Errno 98] Address already in use",
        "[Errno 98] Address already in use",
    ),
    (
        FailureClass.NCCL,
        ENGINE + "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO)",
        "NCCL error: unhandled system error",
    ),
    (
        FailureClass.SHARED_MEMORY,
        "Error while creating shared memory segment /dev/shm/nccl-Xa12 (size 9637888)",
        "/dev/shm/nccl-Xa12",
    ),
]


@pytest.mark.parametrize(("failure", "line", "reason"), SAID, ids=lambda each: str(each)[:40])
def test_a_signature_decides_wherever_in_the_log_it_stands(
    failure: FailureClass, line: str, reason: str
) -> None:
    for log in (line, WRAPPERS + line + "\n" + END, line + "\n" + WRAPPERS + END):
        diagnosis = VLLM.diagnose(log)
        assert diagnosis.failure is failure
        assert reason in diagnosis.reason
        assert "pid=" not in diagnosis.reason
        assert "[type=" not in diagnosis.reason


def test_shared_memory_is_the_cause_and_nccl_the_consequence() -> None:
    log = "\n".join(
        [
            ENGINE + "RuntimeError: NCCL error: unhandled system error",
            "Error while creating shared memory segment /dev/shm/nccl-Xa12 (size 9637888)",
        ]
    )
    assert VLLM.diagnose(log).failure is FailureClass.SHARED_MEMORY


def test_memory_that_ends_after_the_start_is_memory_under_load() -> None:
    log = "\n".join(
        [
            SERVER + "INFO:     Application startup complete.",
            ENGINE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB.",
            END,
        ]
    )
    assert VLLM.diagnose(log).failure is FailureClass.MEMORY_UNDER_LOAD
    assert VLLM.diagnose(END + log).failure is FailureClass.MEMORY_UNDER_LOAD


OOM = ENGINE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB.\n"
LOADED = ENGINE + "Model loading took 14.99 GiB memory and 1.2 seconds\n"
ALLOCATED = LOADED + ENGINE + "GPU KV cache size: 524,288 tokens, Maximum concurrency\n"


@pytest.mark.parametrize(
    ("log", "failure", "first"),
    [
        (OOM, FailureClass.MEMORY_AT_LOAD, ("tensor-parallel-size", "raise")),
        (LOADED + OOM, FailureClass.MEMORY_AT_LOAD, ("max-num-batched-tokens", "lower")),
        (ALLOCATED + OOM, FailureClass.MEMORY_AT_LOAD, ("gpu-memory-utilization", "lower")),
        (
            ALLOCATED + "Application startup complete.\n" + OOM,
            FailureClass.MEMORY_UNDER_LOAD,
            ("gpu-memory-utilization", "lower"),
        ),
        (
            "ValueError: No available memory for the cache blocks.",
            FailureClass.KV_CACHE,
            ("gpu-memory-utilization", "raise"),
        ),
    ],
)
def test_the_stage_says_what_helps_most(
    log: str, failure: FailureClass, first: tuple[str, str]
) -> None:
    diagnosis = VLLM.diagnose(log)
    assert diagnosis.failure is failure
    assert next(iter(diagnosis.moves.items())) == first
    assert diagnosis.advice.startswith(" ".join(reversed(first)))


def test_too_little_room_for_one_sequence_asks_for_more_memory_or_a_shorter_one() -> None:
    log = "ValueError: To serve at least one request with the model's max seq len (131072), (16.0"
    assert VLLM.diagnose(log).advice == (
        "raise gpu-memory-utilization or tensor-parallel-size, or lower max-model-len"
    )


@pytest.mark.parametrize(
    ("free", "failure"),
    [
        ("78.6/79.1", FailureClass.MEMORY_AT_LOAD),  # nobody else is there: 0.995 was too much
        ("77.7/79.1", FailureClass.MEMORY_AT_LOAD),
        ("77.5/79.1", FailureClass.DEVICE),
        ("10.2/79.1", FailureClass.DEVICE),
    ],
)
def test_memory_that_others_hold_is_the_machines_fault(free: str, failure: FailureClass) -> None:
    diagnosis = VLLM.diagnose(
        f"ValueError: Free memory on device cuda:0 ({free} GiB) on startup is less than desired "
        "GPU memory utilization (0.995, 78.7 GiB). Decrease GPU memory utilization"
    )
    assert diagnosis.failure is failure
    assert diagnosis.machine_fault is (failure is FailureClass.DEVICE)
    assert diagnosis.moves == ({} if diagnosis.machine_fault else {_FRACTION: "lower"})


def test_a_killed_worker_is_out_of_the_machines_memory() -> None:
    killed = ENGINE + "Worker proc VllmWorker-1 died unexpectedly (exit code: {}), shutting down\n"
    diagnosis = VLLM.diagnose(killed.format(-9) + END)
    assert diagnosis.failure is FailureClass.HOST_MEMORY
    assert diagnosis.machine_fault
    assert VLLM.diagnose(killed.format(-11) + END).failure is FailureClass.CRASH
    assert VLLM.diagnose(OOM + killed.format(-9)).failure is FailureClass.MEMORY_AT_LOAD


def test_a_harmless_start_is_no_memory_failure() -> None:
    log = ENGINE + "torch.OutOfMemoryError: CUDA out of memory.\nApplication startup complete"
    assert VLLM.diagnose(log).failure is FailureClass.MEMORY_AT_LOAD


def test_generic_wrappers_never_decide() -> None:
    diagnosis = VLLM.diagnose(WRAPPERS + END)
    assert diagnosis.failure is FailureClass.CRASH
    assert diagnosis.reason.startswith("RuntimeError: Engine core initialization failed.")
    odd = VLLM.diagnose(WRAPPERS + ENGINE + "ZeroDivisionError: division by zero\n")
    assert odd.failure is FailureClass.CRASH
    assert odd.reason == "ZeroDivisionError: division by zero"


# True logs (tests/data/engine-logs/README.md says how they were made).


def recorded(name: str) -> str:
    return (LOGS / f"vllm-0.32.0-{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "failure", "reason"),
    [
        ("heads", FailureClass.ARGUMENT, "Total number of attention heads (8) must be divisible"),
        ("length", FailureClass.ARGUMENT, "User-specified max_model_len (99999) is greater"),
        (
            "field",
            FailureClass.ARGUMENT,
            "1 validation error for CacheConfig: gpu_memory_utilization: Input should be greater",
        ),
        ("model", FailureClass.MODEL, "huggingface_hub.errors.HFValidationError: Repo id must be"),
        ("quantization", FailureClass.QUANTIZATION, "Cannot find the config file for awq"),
        ("crash", FailureClass.CRASH, "RuntimeError: _C::static_scaled_fp8_quant() expected"),
        ("start", FailureClass.CRASH, "INFO:     127.0.0.1"),
    ],
)
def test_a_recorded_log_is_diagnosed(name: str, failure: FailureClass, reason: str) -> None:
    diagnosis = VLLM.diagnose(recorded(name))
    assert diagnosis.failure is failure
    assert reason in diagnosis.reason


def test_a_recorded_start_says_what_it_found_of_memory() -> None:
    assert VLLM.observe(recorded("start")) == {
        "kv_tokens": 524_288,
        "kv_gib": 1.0,
        "concurrency": 256.0,
    }


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (
            ENGINE + "Model loading took 14.9889 GiB memory and 1.2 seconds",
            {"weights_gib": 14.9889},
        ),
        (ENGINE + "Available KV cache memory: 50.87 GiB", {"kv_gib": 50.87}),
        (
            ENGINE + "GPU KV cache size: 416,704 tokens, Maximum concurrency for 8,192 tokens per "
            "request: 50.87x",
            {"kv_tokens": 416_704, "concurrency": 50.87},
        ),
        (
            # 0.10.0 used two lines.
            ENGINE + "GPU KV cache size: 416,704 tokens\n" + ENGINE + "Maximum concurrency for "
            "8,192 tokens per request: 50.87x",
            {"kv_tokens": 416_704, "concurrency": 50.87},
        ),
        (ENGINE + "CPU KV cache usage: 0.4%, Prefix cache hit rate: 0.0%", {}),
    ],
)
def test_a_log_says_what_was_found_of_memory(line: str, seen: dict[str, float]) -> None:
    assert VLLM.observe(line) == seen


def test_what_the_flags_say_of_memory() -> None:
    arguments = {
        "tp": 4,
        "pp": 2,
        "dp": 2,
        "max-model-len": "8k",
        "kv-cache-dtype": "fp8",
        "block-size": 16,
        "cpu-offload-gb": 2.5,
        "enable-expert-parallel": True,
        "decode-context-parallel-size": 2,
    }
    request = VLLM.memory(study(arguments), {_FRACTION: 0.85, "max-num-batched-tokens": 4096})
    assert request is not None
    assert (request.fraction, request.kv_gib) == (0.85, None)
    assert (request.tp, request.pp, request.dp, request.kv_split) == (4, 2, 2, 2)
    assert (request.expert_parallel, request.offload_gib) == (True, 2.5)
    assert (request.quantization, request.weight_bytes, request.kv_bytes) == (None, None, 1.0)
    assert (request.max_length, request.batched_tokens, request.sequences) == (8000, 4096, None)
    assert request.block == 16


@pytest.mark.parametrize(
    ("version", "fraction"), [("0.32.0", 0.92), ("0.10.0", 0.9)], ids=["new", "old"]
)
def test_without_a_fraction_the_versions_own_counts(version: str, fraction: float) -> None:
    request = VLLM.memory(study(version=version), {})
    assert request is not None
    assert request.fraction == fraction


def test_a_fixed_cache_is_not_bounded_by_the_fraction() -> None:
    fixed = VLLM.memory(study({"kv-cache-memory-bytes": "4G"}), {_FRACTION: 0.5})
    on_cpu = VLLM.memory(study(environment={"VLLM_CPU_KVCACHE_SPACE": 2}), {})
    assert fixed is not None
    assert on_cpu is not None
    assert (fixed.fraction, fixed.kv_gib) == (None, 4.0)
    assert (on_cpu.fraction, on_cpu.kv_gib) == (None, 2.0)


@pytest.mark.parametrize(
    ("arguments", "weight", "element"),
    [
        ({}, None, None),
        ({"dtype": "auto", "kv-cache-dtype": "auto"}, None, None),
        ({"dtype": "float32"}, 4.0, 4.0),
        ({"quantization": "fp8", "dtype": "bfloat16"}, 1.0, 2.0),
        ({"quantization": "bitsandbytes"}, 0.5, None),  # what is sure: four bits
        ({"kv-cache-dtype": "turboquant_3bit_nc"}, None, 0.375),
    ],
)
def test_number_formats_count_as_no_more_than_is_sure(
    arguments: dict[str, Any], weight: float | None, element: float | None
) -> None:
    request = VLLM.memory(study(arguments), {})
    assert request is not None
    assert (request.weight_bytes, request.kv_bytes) == (weight, element)


def test_of_a_model_that_flags_change_nothing_is_said() -> None:
    assert VLLM.memory(study({"hf-overrides": {"num_hidden_layers": 2}}), {}) is None
    request = VLLM.memory(study({"offload-group-size": 8}), {})
    assert request is not None
    assert request.offload_gib == math.inf


@pytest.mark.parametrize("log", ["", "\n \n", "\x00\x0c\n", ENGINE, ENGINE + "\n\n"])
def test_a_log_that_says_nothing_is_a_crash_with_a_reason(log: str) -> None:
    diagnosis = VLLM.diagnose(log)
    assert diagnosis.failure is FailureClass.CRASH
    assert diagnosis.reason


def test_a_reason_is_short_and_never_empty() -> None:
    assert len(VLLM.diagnose("Value error, " + "x" * 5000).reason) == REASON_LENGTH
    assert VLLM.diagnose("Value error,   [type=value_error").reason.strip()


@pytest.mark.parametrize(
    ("failure", "machine"),
    [
        (FailureClass.PORT, True),
        (FailureClass.NCCL, True),
        (FailureClass.DEVICE, True),
        (FailureClass.SHARED_MEMORY, True),
        (FailureClass.KV_CACHE, False),
        (FailureClass.CRASH, False),
    ],
)
def test_faults_of_the_machine_are_told_from_those_of_the_parameters(
    failure: FailureClass, machine: bool
) -> None:
    found = [VLLM.diagnose(line) for each, line, _ in SAID if each is failure]
    found = found or [VLLM.diagnose("odd")]
    assert all(diagnosis.machine_fault is machine for diagnosis in found)


def test_every_flag_of_the_catalog_that_autotuner_owns_exists() -> None:
    catalog = load_catalog("vllm", "0.32.0")
    owned = ("served-model-name", "tokenizer", "host", "port", "uds", "api-key", "config")
    assert all(catalog.find(name) is not None for name in owned)
