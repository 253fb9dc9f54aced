"""Makes the tables of `make bench-search` out of aiconfigurator's performance model.

Run in an environment of its own, for aiconfigurator brings libraries of its own::

    pip install aiconfigurator==0.12.0
    HF_HUB_OFFLINE=1 python tests/bench/make_tables.py tests/bench/tables

aiconfigurator says how long a step takes and what a replica's memory holds. What a server makes
of its flags is added here: the batch that is running is the least of what clients send, of what
the flag allows and of what the KV cache holds; the others wait, so that by Little's law a request
takes concurrency / rate. It needs nothing of autotuner but the names of metrics and failures.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiconfigurator.cli.api import cli_estimate

GPUS = 8
"""GPUs of the node; a replica or several must fit."""

METRICS = (
    "output_throughput",
    "output_throughput_per_gpu",
    "request_throughput",
    "ttft_mean",
    "tpot_mean",
    "e2e_latency_mean",
)

GIB_PER_SECOND = 1.5
"""Weights read from disk, for the launch times; a made-up but usual figure."""

START_SECONDS = 35.0
"""Launch to ready without the weights: imports, compilation, graphs; made up as well."""


class Impossible(Exception):
    """A point that gives no measurement.

    Attributes:
        failure: value of autotuner's FailureClass.
    """

    def __init__(self, failure: str, reason: str) -> None:
        self.failure = failure
        super().__init__(reason)


@dataclass(frozen=True)
class Question:
    """A model on a node of eight GPUs, an engine, a load, and the flags that vary."""

    name: str
    model: str
    system: str
    memory: float  # GiB of one GPU
    engine: str
    version: str  # of aiconfigurator's measurements of the engine
    defaults: Mapping[str, Any]
    space: Mapping[str, list[Any]]
    input_tokens: int
    output_tokens: int
    concurrency: tuple[int, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        yield from self._answers({})
        for values in itertools.product(*self.space.values()):
            yield from self._answers(dict(zip(self.space, values, strict=True)))

    def _answers(self, point: dict[str, Any]) -> Iterator[dict[str, Any]]:
        cells = {name: json.dumps(value) for name, value in point.items()}
        scenario = f"D({self.input_tokens},{self.output_tokens})"
        try:
            answers = [measured(self, {**self.defaults, **point}, c) for c in self.concurrency]
        except Impossible as impossible:
            yield {**cells, "failure": impossible.failure, "reason": str(impossible)}
            return
        for level, answer in zip(self.concurrency, answers, strict=True):
            yield {**cells, "scenario": scenario, "concurrency": level, **answer}


@dataclass(frozen=True)
class Replica:
    """What aiconfigurator says of one server at one running batch."""

    tpot: float  # seconds
    rate: float  # requests per second
    weights: float  # GiB per GPU, as all below
    activations: float
    other: float
    kv_per_request: float


def measured(question: Question, flags: Mapping[str, Any], concurrency: int) -> dict[str, Any]:
    """Metrics of a point at one load.

    Raises:
        Impossible: the engine would refuse it, or not have the memory.
    """
    server = VLLM(flags) if question.engine == "vllm" else SGLang(flags)
    server.refuse()
    if server.tensor * server.replicas > GPUS:
        needed = server.tensor * server.replicas
        raise Impossible("refused", f"{needed} GPUs are needed, a node has {GPUS}")
    clients = math.ceil(concurrency / server.replicas)
    room = server.room(replica(question, server.layout, 1), question.memory)
    batch = min(clients, server.batch, room)
    found = replica(question, server.layout, batch)
    rate = server.replicas * found.rate * min(1.0, concurrency / (server.replicas * batch))
    latency = concurrency / rate
    gpus = server.tensor * server.replicas
    values = {
        "output_throughput": rate * question.output_tokens,
        "output_throughput_per_gpu": rate * question.output_tokens / gpus,
        "request_throughput": rate,
        "ttft_mean": max(latency - found.tpot * (question.output_tokens - 1), 1e-3),
        "tpot_mean": found.tpot,
        "e2e_latency_mean": latency,
        "seconds": START_SECONDS + found.weights * server.tensor / GIB_PER_SECOND,
    }
    return {name: f"{value:.5g}" for name, value in values.items()}


class VLLM:
    """How vLLM reads its flags."""

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self.tensor = flags["tensor-parallel-size"]
        self.replicas = flags["data-parallel-size"]
        self.batch = flags["max-num-seqs"]
        self.tokens = flags["max-num-batched-tokens"]
        self.fraction = flags["gpu-memory-utilization"]
        kv = "fp8" if flags["kv-cache-dtype"] == "fp8" else "bfloat16"
        gemm = "fp8" if flags["quantization"] == "fp8" else "bfloat16"
        self.layout = (self.tensor, 1, self.tokens, gemm, kv)

    def refuse(self) -> None:
        if self.tokens < self.batch:
            raise Impossible(
                "invalid argument",
                f"max_num_batched_tokens ({self.tokens}) must be greater than or equal to "
                f"max_num_seqs ({self.batch})",
            )

    def room(self, one: Replica, memory: float) -> int:
        """Requests whose KV cache fits beside weights and activations, inside the fraction."""
        if one.weights + one.other > memory:
            raise Impossible("out of memory at load", "CUDA out of memory loading the weights")
        left = self.fraction * memory - one.weights - one.activations - one.other
        if left < one.kv_per_request:
            raise Impossible("KV cache too small", "No available memory for the cache blocks")
        return int(left // one.kv_per_request)


class SGLang:
    """How SGLang reads its flags: the fraction holds weights and KV cache, the rest works."""

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self.tensor = flags["tp-size"]
        self.replicas = flags["dp-size"]
        self.batch = flags["max-running-requests"]
        self.tokens = flags["chunked-prefill-size"]
        self.fraction = flags["mem-fraction-static"]
        self.experts = flags["ep-size"]
        kv = "fp8" if flags["kv-cache-dtype"].startswith("fp8") else "bfloat16"
        gemm = "fp8" if flags["quantization"] == "fp8" else "bfloat16"
        self.layout = (self.tensor, self.experts, self.tokens, gemm, kv)

    def refuse(self) -> None:
        if self.tensor % self.experts:
            raise Impossible(
                "invalid argument", f"ep-size {self.experts} does not divide tp-size {self.tensor}"
            )

    def room(self, one: Replica, memory: float) -> int:
        left = self.fraction * memory - one.weights
        if left < one.kv_per_request:
            raise Impossible(
                "out of memory at load", "Not enough memory. Please try to increase mem-fraction"
            )
        if (1 - self.fraction) * memory < one.activations + one.other:
            raise Impossible(
                "out of memory under load", "CUDA out of memory in the forward pass: lower it"
            )
        return int(left // one.kv_per_request)


@functools.cache
def _estimate(
    question: str, layout: tuple[int, int, int, str, str], batch: int
) -> Replica | Impossible:
    asked = QUESTIONS[question]
    tensor, experts, tokens, gemm, kv = layout
    mixed = _mixture(tensor, experts, gemm) if asked.model == _MIXTURE_MODEL else {}
    try:
        found = cli_estimate(
            model_path=asked.model,
            system_name=asked.system,
            backend_name=asked.engine,
            backend_version=asked.version,  # found anew at every call otherwise, in 0.7 s
            isl=asked.input_tokens,
            osl=asked.output_tokens,
            tp_size=tensor,
            batch_size=batch,
            ctx_tokens=tokens,
            gemm_quant_mode=gemm,
            kvcache_quant_mode=kv,
            **mixed,
        )
    except RuntimeError as error:
        if type(error).__name__ in ("PerfDataNotAvailableError", "MissingSystemFlopsError"):
            if (gemm, kv) != ("bfloat16", "bfloat16"):
                return Impossible("quantization unsupported", f"gemm {gemm}, kv {kv}: no kernels")
            return Impossible("crash", f"no kernels for tp {tensor}, ep {experts}")
        if "OOM" in str(error):
            return Impossible("out of memory at load", "CUDA out of memory loading the weights")
        raise
    memory = found.summary.get_memory()
    return Replica(
        tpot=float(found.tpot) / 1000,
        rate=float(found.seq_per_second),
        weights=float(memory["weights"]),
        activations=float(memory["activations"]),
        other=float(memory["nccl"] + memory["others"]),
        kv_per_request=float(memory["kvcache"]) / batch,
    )


def _mixture(tensor: int, experts: int, gemm: str) -> dict[str, Any]:
    return {
        "moe_tp_size": tensor // experts,
        "moe_ep_size": experts,
        "moe_quant_mode": gemm,
    }


def replica(question: Question, layout: tuple[int, int, int, str, str], batch: int) -> Replica:
    """aiconfigurator's answer.

    Raises:
        Impossible: out of memory, or no kernels for the data types.
    """
    found = _estimate(question.name, layout, batch)
    if isinstance(found, Impossible):
        raise found
    return found


VLLM_DEFAULTS: dict[str, Any] = {
    "tensor-parallel-size": 1,
    "data-parallel-size": 1,
    "max-num-seqs": 256,
    "max-num-batched-tokens": 2048,
    "gpu-memory-utilization": 0.9,
    "kv-cache-dtype": "auto",
    "quantization": None,
}

SGLANG_DEFAULTS: dict[str, Any] = {
    "tp-size": 1,
    "dp-size": 1,
    "ep-size": 1,
    "max-running-requests": 256,
    "chunked-prefill-size": 8192,
    "mem-fraction-static": 0.85,
    "kv-cache-dtype": "auto",
    "quantization": None,
}

SMALL_VLLM: dict[str, list[Any]] = {
    "tensor-parallel-size": [1, 2, 4, 8],
    "data-parallel-size": [1, 2, 4, 8],
    "max-num-seqs": [16, 32, 64, 128, 256, 512],
    "max-num-batched-tokens": [512, 1024, 2048, 4096, 8192, 16384],
}

LARGE_VLLM: dict[str, list[Any]] = {
    "tensor-parallel-size": [1, 2, 4, 8],
    "max-num-seqs": [16, 32, 64, 128, 256, 512],
    "max-num-batched-tokens": [512, 1024, 2048, 4096, 8192],
    "gpu-memory-utilization": [0.8, 0.85, 0.9, 0.95],
}

MIXTURE_SGLANG: dict[str, list[Any]] = {
    "tp-size": [1, 2, 4, 8],
    "ep-size": [1, 2, 4, 8],
    "max-running-requests": [32, 64, 128, 256, 512],
    "chunked-prefill-size": [1024, 2048, 4096, 8192, 16384],
    "mem-fraction-static": [0.8, 0.88, 0.94],
}

SMALL_SGLANG: dict[str, list[Any]] = {
    "tp-size": [1, 2, 4, 8],
    "dp-size": [1, 2, 4, 8],
    "max-running-requests": [16, 32, 64, 128, 256],
    "chunked-prefill-size": [1024, 2048, 4096, 8192],
    "mem-fraction-static": [0.6, 0.75, 0.85, 0.92],
}

KV: dict[str, list[Any]] = {"kv-cache-dtype": ["auto", "fp8"]}
FP8: dict[str, list[Any]] = {"quantization": [None, "fp8"], **KV}

_SMALL_MODEL = "Qwen/Qwen3-8B"
_LARGE_MODEL = "Qwen/Qwen3-32B"
_MIXTURE_MODEL = "Qwen/Qwen3-30B-A3B"

QUESTIONS = {
    each.name: each
    for each in (
        Question(
            "qwen3-8b-h100-vllm",
            _SMALL_MODEL,
            "h100_sxm",
            80.0,
            "vllm",
            "0.24.0",
            VLLM_DEFAULTS,
            {**SMALL_VLLM, **KV},
            1024,
            256,
            (256,),
        ),
        Question(
            "qwen3-8b-a100-vllm",
            _SMALL_MODEL,
            "a100_sxm",
            80.0,
            "vllm",
            "0.14.0",
            VLLM_DEFAULTS,
            {**SMALL_VLLM, **KV},
            1024,
            256,
            (256,),
        ),
        Question(
            "qwen3-32b-h100-vllm",
            _LARGE_MODEL,
            "h100_sxm",
            80.0,
            "vllm",
            "0.24.0",
            VLLM_DEFAULTS,
            {**LARGE_VLLM, **FP8},
            2048,
            512,
            (128,),
        ),
        Question(
            "qwen3-32b-a100-vllm",
            _LARGE_MODEL,
            "a100_sxm",
            80.0,
            "vllm",
            "0.14.0",
            VLLM_DEFAULTS,
            LARGE_VLLM,
            2048,
            512,
            (128,),
        ),
        Question(
            "qwen3-30b-a3b-h100-sglang",
            _MIXTURE_MODEL,
            "h100_sxm",
            80.0,
            "sglang",
            "0.5.14",
            SGLANG_DEFAULTS,
            MIXTURE_SGLANG,
            1024,
            256,
            (16, 64, 256),
        ),
        Question(
            "qwen3-30b-a3b-a100-sglang",
            _MIXTURE_MODEL,
            "a100_sxm",
            80.0,
            "sglang",
            "0.5.10",
            SGLANG_DEFAULTS,
            MIXTURE_SGLANG,
            1024,
            256,
            (16, 64, 256),
        ),
        Question(
            "qwen3-8b-l40s-sglang",
            _SMALL_MODEL,
            "l40s",
            44.99,
            "sglang",
            "0.5.14",
            SGLANG_DEFAULTS,
            {**SMALL_SGLANG, **KV},
            1024,
            256,
            (128,),
        ),
        Question(
            "qwen3-8b-h100-vllm-ladder",
            _SMALL_MODEL,
            "h100_sxm",
            80.0,
            "vllm",
            "0.24.0",
            VLLM_DEFAULTS,
            {
                "tensor-parallel-size": [1, 2, 4, 8],
                "max-num-seqs": [16, 32, 64, 128, 256],
                "max-num-batched-tokens": [512, 1024, 2048, 4096, 8192],
                **KV,
            },
            1024,
            256,
            (1, 4, 16, 64, 256),
        ),
    )
}


def main(directory: Path, names: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    for name in names or list(QUESTIONS):
        question = QUESTIONS[name]
        columns = [*question.space, "scenario", "concurrency", *METRICS, "seconds"]
        path = directory / f"{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(
                file, [*columns, "failure", "reason"], restval="", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(question.rows())
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
