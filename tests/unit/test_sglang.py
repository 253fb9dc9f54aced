"""SGLang: its launch lines, what it refuses, and what its real messages are diagnosed as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotuner.engines.flags import extremes
from autotuner.engines.sglang import SGLANG
from autotuner.errors import ConfigError, FailureClass
from autotuner.serving import Place
from autotuner.study.loading import parse_study, read_study_text
from autotuner.study.spec import StudySpec
from tests.builders import spec

LOGS = Path(__file__).parents[1] / "data" / "engine-logs"
EXAMPLE = Path(__file__).parents[2] / "examples" / "04-sglang" / "study.yaml"


def study(
    arguments: dict[str, Any] | None = None, path: str = "/models/tiny", **engine: Any
) -> StudySpec:
    return spec(
        model={"path": path}, engine={"kind": "sglang", "arguments": arguments or {}, **engine}
    )


@pytest.fixture
def llama(tmp_path: Path) -> str:
    """A directory with the configuration of Llama-3-8B."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(tmp_path)


# The launch line.


def test_the_baseline_is_the_server_module_with_the_engines_defaults() -> None:
    launch = SGLANG.launch(study(), {}, port=8001)
    assert launch.argv == (
        *("python", "-m", "sglang.launch_server", "--model-path", "/models/tiny"),
        *("--served-model-name", "tiny", "--host", "127.0.0.1", "--port", "8001"),
        "--enable-metrics",
    )
    assert launch.image == "lmsysorg/sglang:v0.5.23"
    assert launch.health_path == "/health"
    assert (launch.port, launch.gpus, launch.cpus) == (8001, 1, None)
    assert SGLANG.api == "sglang"


def test_booleans_are_bare_flags_or_nothing_and_numbers_keep_their_form() -> None:
    arguments = {
        "disable_radix_cache": True,
        "enable-mixed-chunk": False,
        "chunked-prefill-size": -1,
        "mem_fraction_static": 0.85,
    }
    launch = SGLANG.launch(study(arguments), {"max-running-requests": 64.0}, port=1)
    assert launch.arguments[9:] == (
        *("--disable-radix-cache", "--chunked-prefill-size", "-1"),
        *("--mem-fraction-static", "0.85", "--max-running-requests", "64"),
    )


@pytest.mark.parametrize("version", ["0.5.23", "0.5.2"])
def test_it_tells_of_its_queue_unless_the_study_says_otherwise(version: str) -> None:
    def launched(**arguments: Any) -> tuple[str, ...]:
        found = spec(engine={"kind": "sglang", "version": version, "arguments": arguments})
        return SGLANG.launch(found, {}, port=1).arguments

    assert launched().count("--enable-metrics") == 1
    assert launched(enable_metrics=True).count("--enable-metrics") == 1
    assert "--enable-metrics" not in launched(enable_metrics=False)


def test_the_tokenizer_and_an_older_image_can_be_chosen() -> None:
    found = spec(
        model={"path": "org/name", "tokenizer": "/t"}, engine={"kind": "sglang", "version": "0.5.2"}
    )
    launch = SGLANG.launch(found, {}, port=1)
    assert launch.arguments[:6] == (
        *("--model-path", "org/name", "--served-model-name", "name"),
        *("--tokenizer-path", "/t"),
    )
    assert launch.image == "lmsysorg/sglang:v0.5.2-cu126"


@pytest.mark.parametrize(
    ("arguments", "gpus"),
    [
        ({}, 1),
        ({"tp_size": 4}, 4),
        ({"tensor-parallel-size": 2, "pp-size": 2}, 4),
        ({"tp-size": 2, "dp-size": 3}, 6),
        # Attention data parallelism shares the GPUs, in its new spelling and in the old one.
        ({"tp-size": 8, "attn-dp-size": 4}, 8),
        ({"tp-size": 8, "dp-size": 8, "enable-dp-attention": True}, 8),
        ({"tp-size": 2, "dp-size": 2, "enable-dp-attention": False}, 4),
    ],
)
def test_attention_groups_cost_no_gpus_of_their_own(arguments: dict[str, Any], gpus: int) -> None:
    assert SGLANG.launch(study(arguments), {}, port=1).gpus == gpus


def test_no_key_may_lock_the_load_out() -> None:
    for name in ("api-key", "admin-api-key"):
        with pytest.raises(ConfigError, match="is set by autotuner"):
            SGLANG.check(spec(engine={"kind": "sglang"}, space={name: ["x", None]}))


def test_each_part_of_a_server_that_spans_nodes_knows_which_it_is() -> None:
    spanning = study({"tp-size": 16}, nodes=2)
    parts = [
        SGLANG.launch(spanning, {}, port=1, place=Place(rank=rank, meeting="10.0.0.1:29500"))
        for rank in (0, 1)
    ]
    for rank, part in enumerate(parts):
        assert part.arguments[8:14] == (
            *("--nnodes", "2", "--node-rank", str(rank)),
            *("--dist-init-addr", "10.0.0.1:29500"),
        )
        assert part.flags == ("--tp-size", "16")
        assert (part.nodes, part.gpus) == (2, 16)
    alone = SGLANG.launch(study({"tp-size": 8}), {}, port=1)
    assert alone.nodes == 1
    assert "--nnodes" not in alone.arguments


@pytest.mark.parametrize("name", ["org/a:b", "a:", ":"])
def test_a_name_with_a_colon_is_refused_because_the_colon_is_for_adapters(name: str) -> None:
    found = spec(model={"path": "/m", "served_name": name}, engine={"kind": "sglang"})
    with pytest.raises(ConfigError, match="no name with a colon") as caught:
        SGLANG.check(found)
    assert caught.value.where == "model.served_name"
    assert caught.value.hint


@pytest.mark.parametrize("name", ["org/a-b", "s3://bucket/model"])
def test_any_other_name_is_served(name: str) -> None:
    SGLANG.check(spec(model={"path": "/m", "served_name": name}, engine={"kind": "sglang"}))


@pytest.mark.parametrize(
    "name",
    [
        *("model-path", "model", "tokenizer-path", "api-key", "config", "grpc-mode"),
        *("nnodes", "node-rank", "dist-init-addr", "smg-grpc-mode"),
    ],
)
def test_a_flag_autotuner_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SGLANG.check(study({name: True if name.endswith("grpc-mode") else "x"}))
    assert "is set by autotuner" in caught.value.problem
    assert caught.value.hint


def test_the_example_checks_and_every_flag_it_varies_reaches_the_server() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    found = parse_study(read_study_text(text, str(EXAMPLE)))
    SGLANG.check(found)
    parameters = found.parameter_space.parameters
    for end in (0, -1):
        point = {each.name: extremes(each)[end] for each in parameters}
        launch = SGLANG.launch(found, point, port=1)
        assert {f"--{each.name}" for each in parameters} <= set(launch.flags)
        assert launch.gpus == point["tp-size"]
        assert SGLANG.refuse(found, point) is None


# What cannot start.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"chunked-prefill-size": 100, "page-size": 48},
            "chunked-prefill-size 100 is not a multiple of page-size 48",
        ),
        (
            {"chunked-prefill-size": 128, "page-size": 48, "attention-backend": "triton"},
            "chunked-prefill-size 128 is not a multiple of page-size 48",
        ),
        ({"mem-fraction-static": 1.5}, "mem-fraction-static 1.5 is not above 0 and below 1"),
        ({"mem-fraction-static": 0.0}, "mem-fraction-static 0 is not above 0"),
        ({"mem-fraction-static": 0.0, "max-total-tokens": 9}, "mem-fraction-static 0 is not above"),
        (
            {"enable-priority-scheduling": True, "schedule-policy": "lpm"},
            "needs schedule-policy fcfs or lof, not lpm",
        ),
        ({"retraction-policy": "priority"}, "needs enable-priority-scheduling"),
        (
            {"disable-cuda-graph-padding": True, "enable-torch-compile": True},
            "disable-cuda-graph-padding and enable-torch-compile",
        ),
        ({"tp-size": 4, "moe-dense-tp-size": 2}, "moe-dense-tp-size 2 is neither 1 nor tp-size 4"),
        (
            {"attention-backend": "flex_attention", "speculative-algorithm": "NGRAM"},
            "flex_attention knows no speculative-algorithm, such as NGRAM",
        ),
        ({"enable-pdmux": True, "pp-size": 2}, "enable-pdmux needs pp-size 1, not 2"),
        (
            {"enable-pdmux": True, "chunked-prefill-size": 4096},
            "enable-pdmux needs chunked-prefill-size -1, not 4096",
        ),
        ({"pp-max-micro-batch-size": 0}, "pp-max-micro-batch-size 0 is below 1"),
        ({"schedule-conservativeness": -0.5}, "schedule-conservativeness -0.5 is below 0"),
        ({"tp-size": 3}, "32 attention heads cannot be split by tp-size 3"),
        (
            {"tp-size": 6, "attn-dp-size": 2},
            "32 attention heads cannot be split by tp-size 6 / 2 groups = 3",
        ),
        ({"context-length": 9000}, "context-length 9000 is above the model's 8192"),
        ({"context-length": "16k"}, "context-length 16000 is above the model's 8192"),
    ],
)
def test_what_sglang_itself_would_refuse_is_refused(
    llama: str, arguments: dict[str, Any], said: str
) -> None:
    reason = SGLANG.refuse(study(arguments, llama), {})
    assert reason is not None
    assert said in reason


@pytest.mark.parametrize(
    ("nodes", "arguments", "said"),
    [
        (2, {"dp-size": 2, "tp-size": 2}, "dp-size 2 runs on one node only, not on 2"),
        (3, {"tp-size": 4}, "4 GPUs do not divide among 3 nodes"),
        (2, {"tp-size": 2, "pp-size": 3}, None),
        # Attention data parallelism shares the GPUs, and spans nodes.
        (2, {"tp-size": 8, "dp-size": 8, "enable-dp-attention": True}, None),
    ],
)
def test_a_server_that_spans_nodes_has_equally_many_gpus_on_each(
    nodes: int, arguments: dict[str, Any], said: str | None
) -> None:
    assert SGLANG.refuse(study(arguments, nodes=nodes), {}) == said


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"chunked-prefill-size": 4096, "page-size": 64},
        {"chunked-prefill-size": -1, "page-size": 64},
        {"chunked-prefill-size": 4096},
        # Some backends put their own page size in the place of this one.
        {"chunked-prefill-size": 128, "page-size": 48},
        {"chunked-prefill-size": 128, "page-size": 48, "attention-backend": "flashmla"},
        {"chunked-prefill-size": 100, "page-size": 64, "disaggregation-mode": "decode"},
        # The chunk is shared by the groups, or not taken at all.
        {"chunked-prefill-size": 129, "page-size": 64, "tp-size": 2, "attn-dp-size": 2},
        {"chunked-prefill-size": 100, "page-size": 64, "enable-mis": True},
        {
            "chunked-prefill-size": 128,
            "page-size": 48,
            "attention-backend": "triton",
            "decode-attention-backend": "trtllm_mha",
        },
        {"mem-fraction-static": 0.99},
        # The pool has a size of its own, whatever the fraction.
        {"mem-fraction-static": 1.0, "max-total-tokens": 1000},
        {"mem-fraction-static": 1.0, "device": "cpu"},
        # A pipeline switches the overlapping scheduler off by itself.
        {"pp-size": 2},
        {"pp-size": 2, "disable-overlap-schedule": False},
        {"enable-priority-scheduling": True},
        {"enable-priority-scheduling": True, "schedule-policy": "lof"},
        {"enable-priority-scheduling": True, "retraction-policy": "priority"},
        {"tp-size": 4, "moe-dense-tp-size": 1},
        {"tp-size": 4},
        {"tp-size": 32},
        {"tp-size": 6, "attn-dp-size": 4},  # not ours to say what that becomes
        {"tp-size": 3, "device": "cpu"},
        {"tp-size": 3, "attn-cp-size": 3},
        {"context-length": 8192},
        {"tp-size": 3, "json-model-override-args": {"num_attention_heads": 33}},
        {"tp-size": 3, "decrypted-config-file": "/models/other.json"},
        {"quantization": "fp8", "moe-runner-backend": "flashinfer_cutlass"},
        {"attention-backend": "flex_attention"},
        {"attention-backend": "triton", "speculative-algorithm": "NGRAM"},
        # Switched off by itself, with a warning.
        {"enable-mixed-chunk": True, "speculative-algorithm": "NGRAM"},
    ],
)
def test_what_might_start_is_not_refused(llama: str, arguments: dict[str, Any]) -> None:
    assert SGLANG.refuse(study(arguments, llama), {}) is None


def test_a_variable_can_allow_what_a_flag_alone_cannot(llama: str) -> None:
    on_cpu = {"SGLANG_USE_CPU_ENGINE": "1"}
    assert SGLANG.refuse(study({"tp-size": 3}, llama, environment=on_cpu), {}) is None


@pytest.mark.parametrize(
    ("name", "said", "allows"),
    [
        *(("ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", yes, True) for yes in ("1", "true", "Yes", "y")),
        *(("ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", no, False) for no in ("0", "false", "N", "")),
        ("IS_IN_CI", "1", True),
    ],
)
def test_a_longer_context_is_allowed_in_every_spelling(
    llama: str, name: str, said: str, allows: bool
) -> None:
    long = study({"context-length": 9000}, llama, environment={f"SGLANG_{name}": said})
    assert (SGLANG.refuse(long, {}) is None) is allows


@pytest.mark.parametrize(
    "arguments",
    [
        {"disable-cuda-graph-padding": True, "enable-torch-compile": True},
        {"enable-pdmux": True, "chunked-prefill-size": 4096},
        # Of a group that shares the chunk each has its own part.
        {
            "chunked-prefill-size": 129,
            "page-size": 64,
            "tp-size": 2,
            "dp-size": 2,
            "enable-dp-attention": True,
        },
    ],
)
def test_the_older_version_is_judged_by_its_own_rules(
    llama: str, arguments: dict[str, Any]
) -> None:
    assert SGLANG.refuse(study(arguments, llama, version="0.5.2"), {}) is None


def test_a_model_that_cannot_be_read_refuses_nothing() -> None:
    assert SGLANG.refuse(study({"tp-size": 3, "context-length": 10**6}, "org/model"), {}) is None
    paged = {"chunked-prefill-size": 100, "page-size": 48}
    assert SGLANG.refuse(study(paged, "org/model"), {}) is None


# What a dead server's log says.

AT = "[2026-11-22 03:04:05 TP0] "
WRAPPERS = (
    AT + "Received sigquit from a child process. It usually means the child failed.\n"
    "[2026-11-22 03:04:06] SIGQUIT received. signum=None, frame=None.\n"
    "[2026-11-22 03:04:06] kill_process_tree called: parent_pid=1, include_parent=True, pid=1\n"
    "[2026-11-22 03:04:06] Sleeping 5 seconds before crash diagnostics to let GPU settle.\n"
)
EXCEPTION = AT + "Scheduler hit an exception: Traceback (most recent call last):\n"
LOADED = AT + "Load weight end. elapsed=0.20 s, type=LlamaForCausalLM, mem usage=14.99 GB.\n"
READY = "[2026-11-22 03:04:05] The server is fired up and ready to roll!\n"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB."

SAID = [
    (FailureClass.ARGUMENT, "sglang serve: error: unrecognized arguments: true", {}),
    (FailureClass.ARGUMENT, "sglang serve: error: ambiguous option: --cuda-graph-max-bs could", {}),
    (
        FailureClass.ARGUMENT,
        "launch_server.py: error: argument --max-running-requests: invalid int value: '4096.0'",
        {},
    ),
    (FailureClass.ARGUMENT, "AssertionError: chunked_prefill_size must be divisible by page_s", {}),
    (FailureClass.ARGUMENT, "AssertionError: 8 is not divisible by 3", {}),
    (
        FailureClass.ARGUMENT,
        "ValueError: Warning: User-specified context_length (99999) is greater than the derived "
        "context_length (4096). This may lead to incorrect model outputs or CUDA errors.",
        {},
    ),
    (
        FailureClass.ARGUMENT,
        "ValueError: TRTLLM MHA backend for prefill requires Hopper (SM90), Blackwell (SM100)",
        {},
    ),
    (
        FailureClass.ARGUMENT,
        "Exception: flashinfer_python with minimum required version 0.2 is not installed.",
        {},
    ),
    (
        FailureClass.KV_CACHE,
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
        "Current value: mem_fraction_static=0.3",
        {"mem-fraction-static": "raise", "tp-size": "raise"},
    ),
    (
        FailureClass.KV_CACHE,
        "ValueError: Loaded weights leave no GPU memory for the KV cache under "
        "--mem-fraction-static=0.5. Raise --mem-fraction-static above 0.612",
        {"mem-fraction-static": "raise", "tp-size": "raise"},
    ),
    (
        FailureClass.MEMORY_AT_LOAD,
        "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2 GiB.",
        {"mem-fraction-static": "lower", "cuda-graph-max-bs-decode": "lower"},
    ),
    (FailureClass.MEMORY_AT_LOAD, OOM, {"tp-size": "raise"}),
    (
        FailureClass.MEMORY_UNDER_LOAD,
        AT + "Prefill out of memory. Try to lower your batch size.",
        {"max-running-requests": "lower"},
    ),
    (
        FailureClass.MEMORY_UNDER_LOAD,
        AT + "Decode out of memory. Try to lower your batch size.",
        {"max-running-requests": "lower"},
    ),
    (
        FailureClass.MEMORY_UNDER_LOAD,
        "RuntimeError: alloc_req_slots runs out of memory. Please set a smaller number",
        {"max-running-requests": "lower"},
    ),
    (
        FailureClass.DEVICE,
        "ValueError: The memory capacity is unbalanced. Some GPUs may be occupied by others.",
        {},
    ),
    (
        FailureClass.DEVICE,
        "AssertionError: SGLANG_CPU_OMP_THREADS_BIND is not set, in this case, the total",
        {},
    ),
    (
        FailureClass.HOST_MEMORY,
        "RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). If exit code "
        "is -9 (SIGKILL), a common cause is the OS OOM killer.",
        {},
    ),
    (FailureClass.HOST_MEMORY, "Subprocess scheduler_0 (pid=12) crashed with exit code -9.", {}),
    (
        FailureClass.QUANTIZATION,
        "launch_server.py: error: argument --quantization: invalid choice: 'int3' (choose from",
        {},
    ),
    (
        FailureClass.QUANTIZATION,
        "ValueError: The quantization method fp8 is not supported for the current GPU. Minimum",
        {},
    ),
    (
        FailureClass.QUANTIZATION,
        "ValueError: Quantization method specified in the model config (awq) does not match the "
        "quantization method specified in the `quantization` argument (gptq).",
        {},
    ),
    (FailureClass.QUANTIZATION, "ValueError: Invalid quantization method: int3. Available", {}),
    (
        FailureClass.QUANTIZATION,
        "AssertionError: Fp8LinearMethod on CPU requires that CPU has AMX support",
        {},
    ),
    (FailureClass.MODEL, "OSError: Repo id must be in the form 'repo_name' or 'name/space'", {}),
    (FailureClass.MODEL, "OSError: We couldn't connect to 'https://huggingface.co' to load", {}),
    (FailureClass.MODEL, "RuntimeError: Cannot find any model weights with `/models/tiny`", {}),
    (FailureClass.MODEL, "OSError: You are trying to access a gated repo.", {}),
    (FailureClass.MODEL, "huggingface_hub.errors.GatedRepoError: 401 Client Error.", {}),
    (
        FailureClass.MODEL,
        "ValueError: has model type `nosuch` but Transformers does not recognize this architecture",
        {},
    ),
    (
        FailureClass.PORT,
        "[Errno 98] error while attempting to bind on address ('127.0.0.1', 1): address already",
        {},
    ),
    (FailureClass.PORT, "Port is already in use. dist_init_port=1 port_base=2", {}),
    (
        FailureClass.PORT,
        "ValueError: port_base at 30234 is not available in 30 seconds. port_base is used by a "
        "process already. process.name()='python3'",
        {},
    ),
    (FailureClass.NCCL, "torch.distributed.DistBackendError: NCCL error in: /src/NCCLUtils", {}),
    (FailureClass.NCCL, "RuntimeError: NCCL error: unhandled system error", {}),
    (
        FailureClass.SHARED_MEMORY,
        "Error while creating shared memory segment /dev/shm/nccl-Xa12 (size 9637888)",
        {},
    ),
    (
        FailureClass.TIMEOUT,
        "Health check failed. Server couldn't get a response from detokenizer for last 20 seconds.",
        {},
    ),
    (FailureClass.TIMEOUT, AT + "TpModelWorker watchdog timeout (self.watchdog_timeout=300", {}),
    (FailureClass.IMAGE, 'Back-off pulling image "x": ImagePullBackOff', {}),
    # What every engine's libraries say, and containers, is known of this one too.
    (FailureClass.IMAGE, "manifest unknown: manifest unknown", {}),
    (FailureClass.IMAGE, "exec /usr/bin/python3: exec format error", {}),
    (
        FailureClass.PORT,
        "DistNetworkError: The server socket has failed to listen on any local network address.",
        {},
    ),
    (FailureClass.NOT_INSTALLED, "ModuleNotFoundError: No module named 'sglang'", {}),
    (FailureClass.SHARED_MEMORY, "OSError: [Errno 28] No space left on device: '/dev/shm/x'", {}),
    (FailureClass.SHARED_MEMORY, "It might be insufficient shared memory (shm).", {}),
    (
        FailureClass.MODEL,
        "OSError: nosuch is not a local folder and is not a valid model identifier listed on",
        {},
    ),
    (FailureClass.MODEL, "ValueError: Model architectures ['X'] are not supported for now.", {}),
    (FailureClass.NCCL, "ncclSystemError: System call (e.g. socket, malloc) failed", {}),
    (FailureClass.DEVICE, "RuntimeError: CUDA error: uncorrectable ECC error encountered", {}),
    (FailureClass.DEVICE, "RuntimeError: No CUDA GPUs are available", {}),
    (FailureClass.DEVICE, "RuntimeError: CUDA driver version is insufficient for CUDA runtime", {}),
    (
        FailureClass.ARGUMENT,
        "ValueError: --grpc-port (8001) must differ from --port (8001)",
        {},
    ),
]


@pytest.mark.parametrize(("failure", "line", "moves"), SAID, ids=lambda each: str(each)[:40])
def test_a_signature_decides_wherever_in_the_log_it_stands(
    failure: FailureClass, line: str, moves: dict[str, str]
) -> None:
    for log in (line, line + "\n" + WRAPPERS, WRAPPERS + line + "\n" + WRAPPERS):
        diagnosis = SGLANG.diagnose(log)
        assert diagnosis.failure is failure
        assert moves.items() <= diagnosis.moves.items()
        assert bool(diagnosis.advice) == bool(moves)
        assert not diagnosis.reason.startswith("[") or failure is FailureClass.PORT


def test_a_port_that_it_waited_for_and_got_is_not_what_it_died_of() -> None:
    waited = AT + (
        "port 30234 is in use. Waiting for 3 seconds for port_base to be available. port_base is "
        "used by a process already. process.name()='python3'\n"
    )
    assert SGLANG.diagnose(waited + LOADED + OOM).failure is FailureClass.MEMORY_AT_LOAD


def test_the_same_flag_moves_up_at_the_start_and_down_under_load() -> None:
    start = SGLANG.diagnose(
        EXCEPTION + "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."
    )
    assert start.advice == "raise mem-fraction-static or tp-size"
    load = SGLANG.diagnose(LOADED + READY + EXCEPTION + OOM)
    assert load.failure is FailureClass.MEMORY_UNDER_LOAD
    assert load.moves["mem-fraction-static"] == "lower"


def test_the_stage_of_the_start_says_what_helps() -> None:
    reading = SGLANG.diagnose(AT + "Load weight begin. avail mem=20.06 GB\n" + OOM)
    assert reading.moves == {"tp-size": "raise"}
    allocating = SGLANG.diagnose(LOADED + OOM)
    assert allocating.failure is FailureClass.MEMORY_AT_LOAD
    assert allocating.moves["mem-fraction-static"] == "lower"
    assert "tp-size" not in allocating.moves


def test_a_kill_of_its_own_making_is_not_the_kernels() -> None:
    killed = "Subprocess scheduler_0 (pid=12) crashed with exit code -9. Triggering SIGQUIT.\n"
    log = EXCEPTION + AT + "ZeroDivisionError: division by zero\n" + killed + WRAPPERS
    diagnosis = SGLANG.diagnose(log)
    assert diagnosis.failure is FailureClass.CRASH
    assert diagnosis.reason == "ZeroDivisionError: division by zero"
    assert SGLANG.diagnose(killed + WRAPPERS).failure is FailureClass.HOST_MEMORY


@pytest.mark.parametrize(
    "line",
    [
        AT + "KV cache pool is full. Retract requests. #retracted_reqs: 1",
        "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
        WRAPPERS,
        EXCEPTION,
    ],
)
def test_pressure_single_requests_and_wrappers_never_decide(line: str) -> None:
    assert SGLANG.diagnose(line).failure is FailureClass.CRASH


# True logs (tests/data/engine-logs/README.md says how they were made).


@pytest.mark.parametrize(
    ("name", "failure", "reason"),
    [
        ("page", FailureClass.ARGUMENT, "chunked_prefill_size must be divisible by page_size"),
        ("priority", FailureClass.ARGUMENT, "To use priority scheduling, schedule_policy must be"),
        ("model", FailureClass.MODEL, "huggingface_hub.errors.HFValidationError: Repo id must be"),
        ("quantization", FailureClass.QUANTIZATION, "Fp8LinearMethod on CPU requires that CPU has"),
        ("length", FailureClass.ARGUMENT, "User-specified context_length (99999) is greater"),
        ("kv-format", FailureClass.QUANTIZATION, "ValueError: CPU FP8 KV cache requires Intel AMX"),
        ("checkpoint", FailureClass.QUANTIZATION, "Cannot find the config file for gptq"),
        ("attention", FailureClass.ARGUMENT, "ValueError: TRTLLM MHA backend for prefill requires"),
        ("name", FailureClass.ARGUMENT, "served_model_name cannot contain a colon (':')"),
        ("ranks", FailureClass.DEVICE, "SGLANG_CPU_OMP_THREADS_BIND is not set, in this case, the"),
        # It lingered after that, and the other server on the port answered for it.
        ("port", FailureClass.PORT, "[Errno 98] error while attempting to bind on address"),
    ],
)
def test_a_recorded_log_is_diagnosed(name: str, failure: FailureClass, reason: str) -> None:
    log = (LOGS / f"sglang-0.5.23-{name}.txt").read_text(encoding="utf-8")
    diagnosis = SGLANG.diagnose(log)
    assert diagnosis.failure is failure
    assert diagnosis.reason.startswith(reason)


def test_a_recorded_start_says_what_it_found_of_memory() -> None:
    log = (LOGS / "sglang-0.5.23-start.txt").read_text(encoding="utf-8")
    seen = SGLANG.observe(log)
    assert seen["kv_tokens"] == 32768
    assert seen["kv_gib"] == pytest.approx(0.06)  # K and V, 0.03 each
    assert "weights_gib" not in seen  # on a CPU it printed a negative number


def test_the_weights_of_a_gpu_are_observed() -> None:
    assert SGLANG.observe(LOADED) == {"weights_gib": 14.99}


def test_a_context_longer_than_the_cache_is_no_reason_not_to_start() -> None:
    log = (LOGS / "sglang-0.5.23-short.txt").read_text(encoding="utf-8")
    assert "The server is fired up" in log
    assert "context_len=4096" in log
    assert SGLANG.observe(log)["kv_tokens"] == 1200
    request = SGLANG.memory(study({"context-length": 4096, "max-total-tokens": 1200}), {})
    assert request is not None
    assert request.max_length is None


def test_what_the_flags_say_of_memory() -> None:
    request = SGLANG.memory(
        study(
            {
                "mem-fraction-static": 0.85,
                "tp-size": 2,
                "dp-size": 2,
                "enable-dp-attention": True,
                "kv-cache-dtype": "fp8_e5m2",
                "context-length": "8k",
                "max-total-tokens": 5000,
                "chunked-prefill-size": -1,
            }
        ),
        {"max-running-requests": 32},
    )
    assert request is not None
    assert (request.fraction, request.tp, request.dp) == (0.85, 2, 1)
    assert (request.kv_bytes, request.weight_bytes) == (1.0, None)
    assert (request.kv_tokens, request.sequences) == (5000, 32)
    assert request.batched_tokens is None
    assert SGLANG.memory(study({"json-model-override-args": "{}"}), {}) is None
