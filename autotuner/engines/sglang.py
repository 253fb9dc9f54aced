"""SGLang: its launch line, what it would refuse, and what its log says when it dies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from autotuner.engines import signatures as said
from autotuner.engines.base import LOWER, RAISE, Diagnosis, Engine, Told
from autotuner.engines.flags import (
    catalog_of,
    check_flags,
    command_at,
    image_of,
)
from autotuner.engines.formats import element_bytes, weight_bytes
from autotuner.engines.refusal import (
    Point,
    Rule,
    at_least,
    evenly,
    first_refusal,
    kv_heads_split,
    point_of,
    splits,
    unrelated_method,
    within,
)
from autotuner.engines.sglang_harmless import HARMLESS
from autotuner.engines.signatures import Signature, diagnose, observed
from autotuner.errors import ConfigError, FailureClass
from autotuner.serving import HERE, LaunchSpec, MemoryRequest, Place
from autotuner.study import telemetry
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.telemetry import Levers

IMAGE = "lmsysorg/sglang"
COMMAND = ("python", "-m", "sglang.launch_server")
IMAGE_COMMAND = ("python3", "-m", "sglang.launch_server")

_TAGS = {"0.5.2": "v0.5.2-cu126"}
"""Images of versions whose tags all name what they are built for; elsewhere `v` and the version."""

_OWNED = {
    "model-path": "say it as model.path",
    "served-model-name": "say it as model.served_name",
    "tokenizer-path": "say it as model.tokenizer",
    "host": "the backend binds the server",
    "port": "every trial gets a free port",
    "api-key": "trials run without a key; set it where you serve",
    "admin-api-key": "trials run without a key; set it where you serve",
    "config": "give the flags here, so that they are checked",
    "grpc-mode": "the benchmark speaks HTTP",
    "smg-grpc-mode": "the benchmark speaks HTTP",
    **dict.fromkeys(("nnodes", "node-rank", "dist-init-addr"), "say it as engine.nodes"),
}


# Counters appear with their first event. Its gauge of the cache hit rate is of the last batches
# only; these are of all prompts.
_TOLD = Told(
    {
        telemetry.KV_USAGE: ("sglang:token_usage",),
        telemetry.RUNNING: ("sglang:num_running_reqs",),
        telemetry.WAITING: ("sglang:num_queue_reqs",),
        telemetry.PREEMPTIONS: ("sglang:num_retracted_requests_total",),
        telemetry.PREFIX_HITS: ("sglang:cached_tokens_total",),
        telemetry.PREFIX_QUERIES: ("sglang:prompt_tokens_total",),
    }
)


class _SGLang:
    api = "sglang"
    told = _TOLD
    harmless = HARMLESS

    def check(self, spec: StudySpec) -> None:
        check_flags(spec, catalog_of(spec), _OWNED)
        _check_name(spec.model.served_name)

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, place: Place = HERE
    ) -> LaunchSpec:
        point = point_of(spec, parameters)
        path, port = place.model_path or spec.model.path, place.port or port
        own = ["--model-path", path, "--served-model-name", spec.model.served_name]
        if spec.model.tokenizer:
            own += ["--tokenizer-path", spec.model.tokenizer]
        flags = tuple(point.catalog.argv(point.values))
        return LaunchSpec(
            command=command_at(place, spec.engine, COMMAND, IMAGE_COMMAND),
            arguments=(
                *(*own, "--host", place.host, "--port", str(port)),
                *_part(spec.engine.nodes, place),
                *_metrics(point),
                *flags,
            ),
            flags=flags,
            environment=point.environment,
            image=image_of(spec.engine, IMAGE, _tag(point.catalog.version)),
            model_path=path,
            served_name=spec.model.served_name,
            port=port,
            gpus=point.size("tp-size") * point.size("pp-size") * _replicas(point),
            nodes=spec.engine.nodes,
        )

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None:
        return first_refusal(_RULES, point_of(spec, parameters))

    def diagnose(self, log: str) -> Diagnosis:
        return diagnose(log, _SIGNATURES, _PREFIX)

    def observe(self, log: str) -> Mapping[str, float]:
        return observed(log, _NUMBERS)

    def memory(self, spec: StudySpec, parameters: Parameters) -> MemoryRequest | None:
        point = point_of(spec, parameters)
        if point.overridden:
            return None
        dtype = point.text("dtype")
        return MemoryRequest(
            fraction=point.real(_FRACTION),  # else it follows from the GPU and other flags
            kv_tokens=point.whole("max-total-tokens"),
            tp=point.size("tp-size"),
            pp=point.size("pp-size"),
            dp=_replicas(point),
            kv_split=point.size("dcp-size"),
            expert_parallel=point.size("ep-size") > 1,
            offload_gib=point.real("cpu-offload-gb") or 0.0,
            quantization=point.text("quantization"),
            weight_bytes=weight_bytes(point.text("quantization"), dtype),
            kv_bytes=element_bytes(point.text("kv-cache-dtype")) or element_bytes(dtype),
            # It starts with a KV cache that holds less than its context, and refuses requests.
            max_length=None,
            sequences=point.whole("max-running-requests"),
            batched_tokens=_chunk(point),
            block=point.whole("page-size"),
        )

    def levers(self, spec: StudySpec, parameters: Parameters) -> Levers:
        point = point_of(spec, parameters)
        each = point.whole("max-running-requests")
        return Levers(
            sequences="max-running-requests",
            # Groups that share GPUs share the number too (pool_configurator.py:1142).
            most=each and each * _replicas(point),
            tokens="chunked-prefill-size",
            memory=_FRACTION,
        )


_FRACTION = "mem-fraction-static"


def _metrics(point: Point) -> tuple[str, ...]:
    """Off by default, and without it nobody sees its queue; a study may say otherwise."""
    told = point.value("enable-metrics") is not None
    return () if told or point.catalog.find("enable-metrics") is None else ("--enable-metrics",)


def _tag(version: str) -> str:
    return _TAGS.get(version, f"v{version}")


def _part(nodes: int, place: Place) -> tuple[str, ...]:
    """The flags of one part of a server that spans nodes."""
    if nodes == 1:
        return ()
    part = ("--nnodes", str(nodes), "--node-rank", str(place.rank))
    return (*part, "--dist-init-addr", place.meeting)


def _check_name(served_name: str) -> None:
    """Raise ConfigError for a name that it takes for ``model:adapter`` in requests
    (arg_groups/validation_hook.py:214, which leaves out names of object stores)."""
    if ":" in served_name and "://" not in served_name:
        raise ConfigError(
            f"SGLang serves no name with a colon, such as {served_name!r}",
            where="model.served_name",
            hint="give one without; what follows the colon is an adapter's name there",
        )


_NUMBERS = {
    # At the end of the start; while the pool is allocated, and in older versions only there.
    "kv_tokens": r"(?:max_total_num_tokens=<n>|KV Cache is allocated\..*?#tokens: <n>)",
    # Its GB are of 1024 cubed.
    "kv_gib": r"KV Cache is allocated\..*?(?:K size: <n> GB, V size: <n> GB"
    r"|KV size: <n> GB)",
    "weights_gib": r"Load weight end\..*mem usage=<n> GB",
}


def _attention_groups(point: Point) -> int:
    """Groups that share the tensor-parallel GPUs: attention data parallelism in either spelling."""
    old = point.size("dp-size") if point.on("enable-dp-attention") else 1
    return max(point.size("attn-dp-size"), old)


def _replicas(point: Point) -> int:
    """Whole copies of the model, each with GPUs of its own."""
    return 1 if point.on("enable-dp-attention") else point.size("dp-size")


def _chunk(point: Point) -> int | None:
    chunk = point.whole("chunked-prefill-size")
    return chunk if chunk and chunk > 0 else point.whole("max-prefill-tokens")


# Where others are chosen, the engine may replace the page size by one of its own, 64 or a
# multiple of it (arg_groups/overrides.py:1146-1336).
_KEEP_PAGES = ("triton", "flashinfer", "fa3", "torch_native")


def _other_chunks(point: Point) -> bool:
    """Whether the engine may take other chunks or pages than it is told, or compares neither:
    for families of models (arg_groups/model_overrides/, model_hook.py), among groups that share
    the chunk (parallel_hook.py:331; so did 0.5.2), and for what needs its prompts whole."""
    known = point.shape is not None and point.shape.exact and not point.shape.latent
    return (
        not known
        or _attention_groups(point) > 1
        or point.text("disaggregation-mode") == "decode"
        or point.value("dllm-algorithm") is not None
        or point.on("enable-mis")
        or point.on("is-embedding")
    )


def _pages(point: Point) -> str | None:
    chunk, page = point.whole("chunked-prefill-size"), point.whole("page-size")
    if chunk is None or chunk <= 0 or page is None or page < 1 or chunk % page == 0:
        return None
    backends = [point.text(f"{part}attention-backend") for part in ("", "prefill-", "decode-")]
    kept = backends[0] in _KEEP_PAGES and {*backends[1:]} <= {None, *_KEEP_PAGES}
    if (not kept and chunk % 64 == 0) or _other_chunks(point):
        return None
    return f"chunked-prefill-size {chunk} is not a multiple of page-size {page}"


def _true(point: Point, name: str) -> bool:
    """Whether a variable says yes in any spelling that some version takes (EnvBool in
    environ.py; 0.5.2 takes only the first two)."""
    return point.environment.get(name, "").lower() in ("true", "1", "yes", "y")


def _fraction(point: Point) -> str | None:
    """Accepted and fatal: above 1 it fills the memory, and at 0 nothing is left for a token.

    A pool of a size of its own fills nothing, and a CPU's memory is filled only when it is used.
    """
    bounded = point.whole("max-total-tokens") is not None or _on_cpu(point)
    return within(_FRACTION, 0, math.inf if bounded else 1, closed=False)(point)


def _on_cpu(point: Point) -> bool:
    flagged = point.text("device")
    return flagged == "cpu" or "SGLANG_USE_CPU_ENGINE" in point.environment


def _heads(point: Point) -> str | None:
    # On a CPU, odd numbers of heads are padded (configs/update_config.py:226).
    if point.shape is None or _on_cpu(point) or point.size("attn-cp-size") > 1:
        return None
    tp, groups = point.size("tp-size"), _attention_groups(point)
    if tp % groups:
        return None
    each, flags = tp // groups, "tp-size" if groups == 1 else f"tp-size {tp} / {groups} groups ="
    heads = splits(point.shape.heads, "attention heads", each, flags)
    return heads or (kv_heads_split(point.shape, each, flags) if point.shape.exact else None)


def _length(point: Point) -> str | None:
    length, longest = point.whole("context-length"), point.shape and point.shape.max_length
    # In its own tests it allows it as well.
    names = ("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", "SGLANG_IS_IN_CI", "SGLANG_IS_IN_CI_AMD")
    allowed = any(_true(point, name) for name in names)
    if not length or not longest or length <= longest or allowed:
        return None
    return (
        f"context-length {length} is above the model's {longest} "
        "(the variable SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1 would allow it)"
    )


def _priorities(point: Point) -> str | None:
    on = point.on("enable-priority-scheduling")
    policy = point.text("schedule-policy") or "fcfs"
    if on and policy not in ("fcfs", "lof"):
        return f"enable-priority-scheduling needs schedule-policy fcfs or lof, not {policy}"
    if point.text("retraction-policy") == "priority" and not on:
        return "retraction-policy priority needs enable-priority-scheduling"
    return None


def _padding(point: Point) -> str | None:
    if not (point.on("disable-cuda-graph-padding") and point.on("enable-torch-compile")):
        return None
    return "disable-cuda-graph-padding and enable-torch-compile exclude each other"


def _dense(point: Point) -> str | None:
    size, tp = point.whole("moe-dense-tp-size"), point.size("tp-size")
    if size in (None, 1, tp):
        return None
    return f"moe-dense-tp-size {size} is neither 1 nor tp-size {tp}"


def _nodes(point: Point) -> str | None:
    nodes, replicas = point.spec.engine.nodes, _replicas(point)
    if nodes > 1 and replicas > 1:
        return f"dp-size {replicas} runs on one node only, not on {nodes}"
    return evenly(lambda each: each.size("tp-size") * each.size("pp-size"))(point)


def _speculation(point: Point) -> str | None:
    backend, algorithm = point.text("attention-backend"), point.text("speculative-algorithm")
    if backend != "flex_attention" or algorithm is None:
        return None
    return f"attention-backend flex_attention knows no speculative-algorithm, such as {algorithm}"


def _conservativeness(point: Point) -> str | None:
    value = point.real("schedule-conservativeness")
    return f"schedule-conservativeness {value:g} is below 0" if value and value < 0 else None


def _multiplexing(point: Point) -> str | None:
    """What `check_server_args` asserts of PD multiplexing."""
    if not point.on("enable-pdmux"):
        return None
    if point.size("pp-size") > 1:
        return f"enable-pdmux needs pp-size 1, not {point.size('pp-size')}"
    chunk = point.whole("chunked-prefill-size")
    if chunk is not None and chunk != -1:
        return f"enable-pdmux needs chunked-prefill-size -1, not {chunk}"
    return None


_READ = (0, 5, 23)
"""The release that was read. What 0.5.2 does not say as well is refused from here on only."""

# Sources: SGLang 0.5.23, srt/, and `check_server_args` of 0.5.2. Pipelines switch the overlapping
# scheduler off by themselves, and vocabularies are padded: neither is refused.
_RULES = (
    Rule(_pages, "arg_groups/validation_hook.py:244"),
    Rule(_fraction, "model_executor/pool_configurator.py:96, mem_cache/kv_cache_configurator.py"),
    Rule(_heads, "layers/linear.py:1139, models/llama.py:183"),
    Rule(_length, "configs/model_config.py:1296"),
    Rule(_priorities, "arg_groups/validation_hook.py:288, :312"),
    Rule(_padding, "arg_groups/validation_hook.py:188", since=_READ),
    Rule(_dense, "arg_groups/validation_hook.py:207"),
    Rule(_nodes, "arg_groups/validation_hook.py:179, :199"),
    Rule(_speculation, "arg_groups/attention_hook.py:161", since=_READ),
    Rule(unrelated_method, "configs/model_config.py:2144"),
    Rule(_multiplexing, "arg_groups/validation_hook.py:250", since=_READ),
    Rule(at_least("pp-max-micro-batch-size", 1), "arg_groups/validation_hook.py:183"),
    Rule(_conservativeness, "arg_groups/validation_hook.py:323"),
)


# "[2026-11-22 03:04:05 TP0] " in front of what is said.
_PREFIX = re.compile(r"^\[[\d-]+ [\d:]+(?: [\w ]+)?\] ")

_READY = "The server is fired up and ready to roll"
_EXCEPTION = "Scheduler hit an exception"

# Of these only `quantization` is the model's as well, so that no way is clear.
_QUANTIZATION = (
    r"The quantization method .* is not supported.*",
    r".*does not match the quantization method specified.*",
    r"Invalid quantization method.*",
    r".*argument --quantization: invalid choice.*",
    r"\w+LinearMethod on CPU requires.*",
    r"ValueError: CPU FP8 KV cache requires.*",
    r"Cannot find the config file for \w+.*",
)

# In this order: the specific before the general. Sources: SGLang 0.5.23's own messages, and of
# 0.5.2 where they differed. What it says at the start and under load asks for opposite moves of
# one flag: the fraction holds weights and KV cache, the rest is for activations and graphs.
_SIGNATURES = (
    *(Signature(FailureClass.QUANTIZATION, pattern) for pattern in _QUANTIZATION),
    *said.ARGUMENTS,
    *said.PORT,
    Signature(FailureClass.PORT, r"Port is already in use\. .*"),
    # It waits for such a port before it gives up, and says so in the same words.
    Signature(FailureClass.PORT, r"ValueError: .*\w is used by a process already\..*"),
    *said.NOT_INSTALLED,
    *said.IMAGE,
    *said.SHARED_MEMORY,
    Signature(FailureClass.DEVICE, r"The memory capacity is unbalanced.*"),
    Signature(FailureClass.DEVICE, r"SGLANG_CPU_OMP_THREADS_BIND is not set.*"),
    Signature(
        FailureClass.KV_CACHE,
        r"Not enough memory\. Please try to increase --mem-fraction-static.*",
        {_FRACTION: RAISE, "tp-size": RAISE},
    ),
    Signature(
        FailureClass.KV_CACHE,
        r"Loaded weights leave no GPU memory for the KV cache.*",
        {_FRACTION: RAISE, "tp-size": RAISE},
    ),
    Signature(
        FailureClass.MEMORY_AT_LOAD,
        r"Capture cuda graph failed: .*out of memory.*",
        {_FRACTION: LOWER, "cuda-graph-max-bs-decode": LOWER},
    ),
    Signature(
        FailureClass.MEMORY_UNDER_LOAD,
        said.OUT_OF_MEMORY,
        {_FRACTION: LOWER, "chunked-prefill-size": LOWER, "max-running-requests": LOWER},
        after=_READY,
    ),
    Signature(
        FailureClass.MEMORY_AT_LOAD,
        said.OUT_OF_MEMORY,
        {_FRACTION: LOWER, "chunked-prefill-size": LOWER, "cuda-graph-max-bs-decode": LOWER},
        after="Load weight end",
    ),
    Signature(FailureClass.MEMORY_AT_LOAD, said.OUT_OF_MEMORY, {"tp-size": RAISE}),
    Signature(
        FailureClass.MEMORY_UNDER_LOAD,
        r".*(?:Prefill|Decode) out of memory\. Try to lower your batch size.*",
        {"max-running-requests": LOWER, "chunked-prefill-size": LOWER, _FRACTION: RAISE},
    ),
    Signature(
        FailureClass.MEMORY_UNDER_LOAD,
        r".*alloc_req_slots runs out of memory.*",
        {"max-running-requests": LOWER},
    ),
    *said.MODEL,
    Signature(
        FailureClass.ARGUMENT,
        r"(?:User-specified|Target model's) context_length \(\d+\) is greater than.*",
    ),
    Signature(FailureClass.ARGUMENT, r"AssertionError: (?P<reason>.*\bmust be divisible by.*)"),
    Signature(FailureClass.ARGUMENT, r"AssertionError: (?P<reason>\d+ is not divisible by \d+.*)"),
    Signature(FailureClass.ARGUMENT, r".*(?:MHA|MLA) backend .*(?:requires|only supported).*"),
    Signature(FailureClass.ARGUMENT, r".*with minimum required version .* is not installed.*"),
    Signature(FailureClass.ARGUMENT, r"ValueError: (?P<reason>--[\w-]+ .*)"),
    # Raised while it reads its flags, whatever it says.
    Signature(
        FailureClass.ARGUMENT,
        r"^(?:AssertionError|ValueError): (?P<reason>.+)",
        after="sglang/srt/arg_groups/",
    ),
    *said.NCCL,
    *said.DEVICE,
    # Exit code -9 is the kernel's own, when the machine's memory is full; or SGLang's, which ends
    # all its processes so after an exception in one.
    Signature(
        FailureClass.HOST_MEMORY,
        r".*scheduler died during initialization \(exit code: -9\).*",
        without=_EXCEPTION,
    ),
    Signature(
        FailureClass.HOST_MEMORY,
        r"Subprocess \w+ \(pid=\d+\) crashed with exit code -9\b.*",
        without=_EXCEPTION,
    ),
    Signature(FailureClass.TIMEOUT, r"Health check failed\. Server couldn't get a response.*"),
    Signature(FailureClass.TIMEOUT, r".*[Ww]atchdog ?[Tt]imeout.*"),
)

SGLANG: Engine = _SGLang()
