"""vLLM: its launch line, what it would refuse, and what its log says when it dies."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from autotuner.engines import signatures as said
from autotuner.engines.base import LOWER, RAISE, Diagnosis, Engine, Told
from autotuner.engines.catalog import release
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
    not_above,
    not_below,
    point_of,
    splits,
    unrelated_method,
    within,
)
from autotuner.engines.signatures import Signature, diagnose, observed
from autotuner.engines.vllm_harmless import HARMLESS
from autotuner.errors import ConfigError, FailureClass
from autotuner.serving import HERE, LaunchSpec, MemoryRequest, Place
from autotuner.study import telemetry
from autotuner.study.model import GIB
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.telemetry import Levers

IMAGE = "vllm/vllm-openai"
COMMAND = ("vllm", "serve")
IMAGE_COMMAND = ("python3", "-m", "vllm.entrypoints.openai.api_server")
"""Works in its images of every version; `vllm serve` in the newer ones."""

# Decode context parallelism is not among them: it shares the GPUs of the others.
_PARALLEL = (
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
    "prefill-context-parallel-size",
)

_OWNED = {
    "model": "say it as model.path",
    "served-model-name": "say it as model.served_name",
    "tokenizer": "say it as model.tokenizer",
    "host": "the backend binds the server",
    "port": "every trial gets a free port",
    "uds": "the benchmark needs a port",
    "hf-token": "set HF_TOKEN in the environment of the machine",
    "api-key": "trials run without a key; set it where you serve",
    "config": "give the flags here, so that they are checked",
    "headless": "a trial needs the API server",
    **dict.fromkeys(("nnodes", "node-rank", "master-addr", "master-port"), "say engine.nodes"),
}


_TOLD = Told(
    {
        # Named for GPUs up to 0.10; counters got their `_total` from the client library.
        telemetry.KV_USAGE: ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        telemetry.RUNNING: ("vllm:num_requests_running",),
        telemetry.WAITING: ("vllm:num_requests_waiting",),
        telemetry.PREEMPTIONS: ("vllm:num_preemptions_total",),
        telemetry.PREFIX_HITS: (
            "vllm:prefix_cache_hits_total",
            "vllm:gpu_prefix_cache_hits_total",
        ),
        telemetry.PREFIX_QUERIES: (
            "vllm:prefix_cache_queries_total",
            "vllm:gpu_prefix_cache_queries_total",
        ),
    }
)


class _VLLM:
    api = "vllm"
    told = _TOLD
    harmless = HARMLESS

    def check(self, spec: StudySpec) -> None:
        catalog = catalog_of(spec)
        check_flags(spec, catalog, _OWNED)
        if spec.engine.nodes > 1 and catalog.find("nnodes") is None:
            raise ConfigError(
                f"vLLM {catalog.version} spans nodes only on a Ray cluster of its own",
                where="engine.nodes",
                hint="a version with the flag --nnodes does without",
            )

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, place: Place = HERE
    ) -> LaunchSpec:
        point = point_of(spec, parameters)
        command = command_at(place, spec.engine, COMMAND, IMAGE_COMMAND)
        path, port = place.model_path or spec.model.path, place.port or port
        # `vllm serve` takes the model by position; the server's module only by name.
        model = [path] if command[-1] == "serve" else ["--model", path]
        own = [*model, "--served-model-name", spec.model.served_name]
        if spec.model.tokenizer:
            own += ["--tokenizer", spec.model.tokenizer]
        flags = tuple(point.catalog.argv(point.values))
        return LaunchSpec(
            command=command,
            arguments=(
                *(*own, "--host", place.host, "--port", str(port)),
                *_part(spec.engine.nodes, place),
                *flags,
            ),
            flags=flags,
            nodes=spec.engine.nodes,
            environment=point.environment,
            image=image_of(spec.engine, IMAGE, f"v{point.catalog.version}"),
            model_path=path,
            served_name=spec.model.served_name,
            port=port,
            gpus=math.prod(map(point.size, _PARALLEL)),
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
        fraction = point.catalog.find(_FRACTION)
        kv_bytes = point.whole("kv-cache-memory-bytes")
        # On a CPU the variable wins, on a GPU nobody sets it.
        kv_gib = _host_gib(point.environment.get(_HOST_KV)) or (kv_bytes and kv_bytes / GIB)
        said_fraction = point.real(_FRACTION) or (fraction.default if fraction else None)
        dtype = point.text("dtype")
        length = point.whole("max-model-len")
        return MemoryRequest(
            fraction=None if kv_gib else said_fraction,  # ignored beside a fixed KV cache
            kv_gib=kv_gib,
            tp=point.size("tensor-parallel-size"),
            pp=point.size("pipeline-parallel-size"),
            dp=point.size("data-parallel-size"),
            kv_split=point.size("decode-context-parallel-size")
            * point.size("prefill-context-parallel-size"),
            expert_parallel=point.on("enable-expert-parallel"),
            offload_gib=_offloaded(point),
            quantization=point.text("quantization"),
            weight_bytes=weight_bytes(point.text("quantization"), dtype),
            kv_bytes=element_bytes(point.text("kv-cache-dtype")) or element_bytes(dtype),
            max_length=length if length and length > 0 else None,  # -1: what fits
            sequences=point.whole("max-num-seqs"),
            batched_tokens=point.whole("max-num-batched-tokens"),
            block=point.whole("block-size"),
        )

    def levers(self, spec: StudySpec, parameters: Parameters) -> Levers:
        point = point_of(spec, parameters)
        each = point.whole("max-num-seqs")
        return Levers(
            sequences="max-num-seqs",
            most=each and each * point.size("data-parallel-size"),
            tokens="max-num-batched-tokens",
            memory=_FRACTION,
        )


def _part(nodes: int, place: Place) -> tuple[str, ...]:
    """The flags of one part of a server that spans nodes."""
    if nodes == 1:
        return ()
    host, _, port = place.meeting.rpartition(":")
    meeting = ("--master-addr", host, "--master-port", port)
    part = ("--nnodes", str(nodes), "--node-rank", str(place.rank), *meeting)
    return (*part, "--headless") if place.rank else part


_FRACTION = "gpu-memory-utilization"
_HOST_KV = "VLLM_CPU_KVCACHE_SPACE"


def _offloaded(point: Point) -> float:
    """GiB of each GPU's weights that lie elsewhere; where only layers are counted, all may."""
    return math.inf if point.whole("offload-group-size") else point.real("cpu-offload-gb") or 0.0


def _host_gib(text: str | None) -> float | None:
    """The KV cache of vLLM on a CPU, which takes it from a variable; 0 lets it choose."""
    return float(text) if text and text.isdigit() and int(text) else None


_NUMBERS = {
    # "GPU KV cache size: 524,288 tokens"; on a CPU, "CPU KV cache size".
    "kv_tokens": r"KV cache size: <n> tokens",
    # With fixed sizes: "Explicitly set (1.0/10.71) GiB for KV cache", "reserved 4.0 GiB memory
    # for KV Cache as specified".
    "kv_gib": r"(?:Available KV cache memory: <n> GiB"
    r"|(?:Explicitly|Auto) set \(<n>/[\d.]+\) GiB for KV cache"
    r"|reserved <n> GiB memory for KV)",
    "weights_gib": r"Model loading took <n> Gi?B",
    "concurrency": r"Maximum concurrency for [\d,]+ tokens per request: <n>x",
}


_HEARD = (0, 19)
"""From here on `--no-enable-chunked-prefill` is heard. Of 0.10 and 0.11 it is known that they
switch chunked prefill on whatever is said (`_set_default_args` in engine/arg_utils.py)."""


_READ = (0, 32)
"""The release that was read. What 0.10.0 does not say as well is refused from here on only."""


def _unchunked(point: Point) -> str | None:
    batched, length = point.whole("max-num-batched-tokens"), point.whole("max-model-len")
    if point.value("enable-chunked-prefill") is not False or batched is None:
        return None
    if release(point.catalog.version) < _HEARD:
        return None
    name = "max-model-len"
    if point.value("max-model-len") is None:
        name, length = "the model's own length", _own_length(point)
    if length is None or batched >= length:
        return None
    return f"max-num-batched-tokens {batched} is below {name} {length} without chunked prefill"


_UNSCALED = ("default", "llama3")
_LENGTHS = (
    *("n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions"),
    *("max_sequence_length", "max_seq_length", "seq_len"),
)
"""What may give a model another length than its `max_position_embeddings`."""


def _in_mistral_format(point: Point) -> bool:
    """Whether vLLM reads the model's `params.json`, whose length may be another than that of the
    `config.json` beside it (`get_config` of transformers_utils/config.py)."""
    model = Path(point.spec.model.path)
    return (model / "params.json").exists() and any(model.glob("consolidated*.safetensors"))


def _own_length(point: Point) -> int | None:
    """The length that vLLM takes where none is said (`_get_and_verify_max_len` of
    config/model.py); None where more than one number of the model's configuration decides."""
    known = point.shape is not None and point.shape.exact and not point.shape.windowed
    if not known or _in_mistral_format(point):
        return None
    file = Path(point.spec.model.path) / "config.json"
    return _plain_length(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _plain_length(file: Path, _changed: int) -> int | None:
    config = json.loads(file.read_text(encoding="utf-8"))
    scalings = [config.get(name) or {} for name in ("rope_scaling", "rope_parameters")]
    if any(
        each.get("rope_type", each.get("type", "default")) not in _UNSCALED
        or any(isinstance(part, Mapping) for part in each.values())
        for each in scalings
    ):
        return None
    length = config.get("max_position_embeddings")
    alone = not any(config.get(name) for name in _LENGTHS)
    return length if isinstance(length, int) and alone else None


def _long_prefill(point: Point) -> str | None:
    length = point.whole("max-model-len")
    if length is None or length < 1:  # -1 lets vLLM choose
        return None
    # Up to then compared only beside several partial prefills (config.py:2503 of 0.10.0).
    several = point.size("max-num-partial-prefills") > 1
    if release(point.catalog.version) < _READ and not several:
        return None
    return not_above("long-prefill-token-threshold", "max-model-len")(point)


def _heads(point: Point) -> str | None:
    if point.shape is None:
        return None
    tp = point.size("tensor-parallel-size")
    return splits(point.shape.heads, "attention heads", tp, "tensor-parallel-size")


def _kv_heads(point: Point) -> str | None:
    tp = point.size("tensor-parallel-size")
    # Families whose model files were read: each asserts it.
    if point.shape is None or not point.shape.exact:
        return None
    return kv_heads_split(point.shape, tp, "tensor-parallel-size")


def _length(point: Point) -> str | None:
    length, longest = point.whole("max-model-len"), point.shape and point.shape.max_length
    allowed = point.environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0") not in ("0", "")
    if not length or not longest or length <= longest or allowed or _in_mistral_format(point):
        return None
    return (
        f"max-model-len {length} is above the model's {longest} "
        "(the variable VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 would allow it)"
    )


def _context_parallel(point: Point) -> str | None:
    tp, dcp = point.size("tensor-parallel-size"), point.size("decode-context-parallel-size")
    if dcp == 1 or point.size("prefill-context-parallel-size") > 1:
        return None
    if tp % dcp:
        return f"tensor-parallel-size {tp} cannot be split by decode-context-parallel-size {dcp}"
    shape = point.shape
    if shape is None or shape.latent:
        return None
    if tp <= shape.kv_heads:
        return (
            f"decode-context-parallel-size {dcp} needs a tensor-parallel-size above the model's "
            f"{shape.kv_heads} KV heads, not {tp}"
        )
    most = tp // shape.kv_heads
    return f"decode-context-parallel-size {dcp} is above {most}" if dcp > most else None


def _experts(point: Point) -> str | None:
    shape = point.shape
    # A family that is not known may name its experts in a way that is not read.
    if shape is None or shape.experts or not shape.exact or not point.on("enable-expert-parallel"):
        return None
    return "enable-expert-parallel is for mixtures of experts, which this model is not"


def _fraction(point: Point) -> str | None:
    # 0.10.0 compares only with 1 (config.py:1722), and on a CPU asks no more of it.
    low = 0 if release(point.catalog.version) >= _READ else -math.inf
    return within(_FRACTION, low, 1, closed=True)(point)


# Sources: vLLM 0.32.0, and config.py of 0.10.0. Its vocabularies are padded, so that none has to be
# divisible; which attention backend takes which KV dtype depends on the device, so that is not
# refused here.
_RULES = (
    Rule(evenly(lambda point: math.prod(map(point.size, _PARALLEL))), "config/parallel.py"),
    Rule(not_below("max-num-batched-tokens", "max-num-seqs"), "config/scheduler.py:327"),
    Rule(not_above("max-num-active-seqs", "max-num-seqs"), "config/scheduler.py:334"),
    Rule(_unchunked, "config/scheduler.py:314"),
    Rule(_long_prefill, "config/scheduler.py:350"),
    Rule(_heads, "config/model.py:1545"),
    Rule(_kv_heads, "model_executor/models/llama.py:151"),
    Rule(_length, "config/model.py:2632"),
    Rule(_context_parallel, "config/parallel.py:596, config/model.py:1565"),
    Rule(_experts, "config/model.py:1485"),
    Rule(unrelated_method, "config/model.py:1444"),
    Rule(_fraction, "config/cache.py:102"),
    Rule(at_least("max-num-seqs", 1), "config/scheduler.py:62", since=_READ),
    Rule(at_least("max-num-batched-tokens", 1), "config/scheduler.py:48", since=_READ),
    Rule(at_least("tensor-parallel-size", 1), "config/parallel.py:141"),
    Rule(at_least("pipeline-parallel-size", 1), "config/parallel.py:139"),
    Rule(at_least("data-parallel-size", 1), "config/parallel.py:146"),
    Rule(at_least("block-size", 1), "config/cache.py:74", since=_READ),
)


# "(EngineCore pid=12) ERROR 11-22 03:04:05 [core.py:123] " in front of what is said.
_PREFIX = re.compile(r"^(\([\w ]+ pid=\d+\) )?((ERROR|WARNING|INFO) [\d-]+ [\d:]+ \[\S+:\d+\] ?)?")

OWN_GIB = 1.5
"""What a GPU that nobody else uses may lack at start: the driver's share and our own context."""


def _alone(match: re.Match[str]) -> bool:
    """Whether the GPU was as good as empty: then it is the fraction that asks for too much. What
    another process holds would be as much for any fraction, and is the machine's fault."""
    return float(match["total"]) - float(match["free"]) <= OWN_GIB


_FREE = r"Free memory on device .*?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\).* is less than .*"
_HOST_ROOM = r"Available memory on node .* is less than requested memory for kv"
_STARTED = "Application startup complete"

# In this order: the specific before the general. Sources: vLLM 0.32.0's own messages; the last
# phrase of the KV cache is 0.10.0's.
_SIGNATURES = (
    *said.ARGUMENTS,
    *said.PORT,
    *said.NOT_INSTALLED,
    *said.IMAGE,
    *said.SHARED_MEMORY,
    Signature(FailureClass.MEMORY_AT_LOAD, _FREE, {_FRACTION: LOWER}, only=_alone),
    Signature(FailureClass.DEVICE, r"Free memory on device .* is less than .*"),
    # A CPU's memory is never empty, and the fraction is of all of it.
    Signature(
        FailureClass.MEMORY_AT_LOAD,
        r"Available memory on node .* is less than desired CPU memory.*",
        {_FRACTION: LOWER},
    ),
    # "(-0.61/0.01 GiB)": the fraction leaves less than nothing; "(40.0 GiB)": a fixed size.
    Signature(FailureClass.KV_CACHE, _HOST_ROOM + r" \(-[\d.]+/.*", {_FRACTION: RAISE}),
    Signature(
        FailureClass.MEMORY_AT_LOAD,
        _HOST_ROOM + r" \([\d.]+ GiB\).*",
        {"kv-cache-memory-bytes": LOWER, f"env:{_HOST_KV}": LOWER},
    ),
    Signature(FailureClass.MEMORY_AT_LOAD, _HOST_ROOM + r".*", {_FRACTION: LOWER}),
    Signature(
        FailureClass.DEVICE, r"World size \(\d+\) is larger than the number of available GPUs.*"
    ),
    Signature(FailureClass.DEVICE, r"Failed to infer device type.*"),
    Signature(
        FailureClass.KV_CACHE,
        r"No available memory for the cache blocks.*",
        {
            _FRACTION: RAISE,
            "tensor-parallel-size": RAISE,
            "max-num-batched-tokens": LOWER,
            "max-num-seqs": LOWER,
        },
    ),
    Signature(
        FailureClass.KV_CACHE,
        r"To serve at least one request with the model.*",
        {_FRACTION: RAISE, "tensor-parallel-size": RAISE, "max-model-len": LOWER},
    ),
    Signature(
        FailureClass.KV_CACHE,
        r"Cannot auto-fit max_model_len: not enough GPU memory.*",
        {_FRACTION: RAISE, "tensor-parallel-size": RAISE},
    ),
    Signature(
        FailureClass.KV_CACHE,
        r".*larger than the maximum number of tokens that can be stored in KV.*",
        {_FRACTION: RAISE, "max-model-len": LOWER},
    ),
    Signature(
        FailureClass.MEMORY_AT_LOAD,
        r".*out of memory occurred when warming up sampler.*",
        {"max-num-seqs": LOWER, _FRACTION: LOWER},
    ),
    # The same message at four stages. While weights are read, only more GPUs help; the trial run
    # that measures activations follows the batch; only then is the fraction filled up.
    Signature(
        FailureClass.MEMORY_UNDER_LOAD,
        said.OUT_OF_MEMORY,
        {_FRACTION: LOWER, "max-num-seqs": LOWER, "max-num-batched-tokens": LOWER},
        after=_STARTED,
    ),
    Signature(
        FailureClass.MEMORY_AT_LOAD,
        said.OUT_OF_MEMORY,
        {_FRACTION: LOWER, "max-cudagraph-capture-size": LOWER, "max-num-seqs": LOWER},
        after="KV cache size",
    ),
    Signature(
        FailureClass.MEMORY_AT_LOAD,
        said.OUT_OF_MEMORY,
        {"max-num-batched-tokens": LOWER, "max-num-seqs": LOWER, _FRACTION: LOWER},
        after="Model loading took",
    ),
    Signature(FailureClass.MEMORY_AT_LOAD, said.OUT_OF_MEMORY, {"tensor-parallel-size": RAISE}),
    Signature(FailureClass.QUANTIZATION, r"Unknown quantization method.*"),
    Signature(FailureClass.QUANTIZATION, r"Quantization method specified in the model config.*"),
    Signature(
        FailureClass.QUANTIZATION, r"The quantization method .* is (?:not supported|deprec).*"
    ),
    Signature(FailureClass.QUANTIZATION, r"Cannot find the config file for \w+.*"),
    *said.MODEL,
    Signature(FailureClass.ARGUMENT, r"User-specified max_model_len .*"),
    Signature(FailureClass.ARGUMENT, r"Value error, (?P<reason>.*?)(?: \[type=.*)?$"),
    # The field and what is wrong with it stand on lines of their own.
    Signature(FailureClass.ARGUMENT, r"\d+ validation errors? for \w+Config.*", more=2),
    Signature(FailureClass.ARGUMENT, r"No valid attention backend found for.*"),
    Signature(FailureClass.ARGUMENT, r"No common block size for [^']*"),
    *said.NCCL,
    *said.DEVICE,
    # Exit code -9 is the kernel's own, when the machine's memory is full.
    Signature(FailureClass.HOST_MEMORY, r"Worker proc .* died unexpectedly \(exit code: -9\).*"),
    Signature(FailureClass.HOST_MEMORY, r"Engine core proc .* died .*exit ?code:? ?-9\b.*"),
    Signature(FailureClass.TIMEOUT, r"RPC call to .* timed out.*"),
)

VLLM: Engine = _VLLM()
