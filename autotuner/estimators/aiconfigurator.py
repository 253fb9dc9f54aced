"""Predicted speed of a point on NVIDIA GPUs, from aiconfigurator's measured kernels.

It ranks well and promises badly: right for what to try first, not for whether an SLO is met. What
it does not model is left out of the question: prefix caching, scheduling, eager mode.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotuner.errors import ConfigError, InfrastructureError
from autotuner.serving import MemoryRequest
from autotuner.study.model import model_shape
from autotuner.study.spec import StudySpec
from autotuner.study.workload import Load, scenario

PROGRAM = Path(__file__).with_name("aiconfigurator_program.py")

BACKENDS = ("vllm", "sglang")
"""Engines that it knows, under our names and its own."""

START_SECONDS = 120.0
QUESTION_SECONDS = 15.0
"""Time allowed for its import and for each question; they take about 3 s and 1 to 4 s."""

ASSUMED_FRACTION = 0.9
ASSUMED_TOKENS = 8192
"""Where a point leaves them to its engine: what engines choose on GPUs with 80 GB."""

# Bytes of an element of the KV cache -> its word.
_KV_CACHE = {1.0: "fp8", 2.0: "bfloat16"}


@dataclass(frozen=True)
class Question:
    """One launch under one load point, in aiconfigurator's terms.

    Attributes:
        model: a directory with a `config.json`, or one of the hub ids that it has on board.
        system: its name of the GPUs, such as `h100_sxm`.
        tp, pp: GPUs of one rank, `dp` ranks that share a mixture's experts, `replicas` of it all.
        concurrency: requests in flight, all replicas together.
        sequences: at the same time in one rank, at most; None leaves them to memory.
        isl, osl: tokens of prompt and output.
        ctx_tokens: prompt tokens in one step.
        fraction: of the GPU's memory that the engine may use.
        gemm, kv_cache: number formats in its words; None as the checkpoint is.
    """

    model: str
    system: str
    backend: str
    concurrency: int
    isl: int
    osl: int
    tp: int = 1
    pp: int = 1
    dp: int = 1
    replicas: int = 1
    expert_parallel: bool = False
    sequences: int | None = None
    ctx_tokens: int = ASSUMED_TOKENS
    fraction: float = ASSUMED_FRACTION
    gemm: str | None = None
    kv_cache: str | None = None

    @property
    def gpus(self) -> int:
        return self.tp * self.pp * self.dp * self.replicas

    def to_json(self) -> dict[str, Any]:
        """The question as its program reads it."""
        ranks = self.dp * self.replicas
        batch = math.ceil(self.concurrency / ranks)
        shared = self.tp * self.dp
        formats = {
            "gemm_quant_mode": self.gemm,
            "moe_quant_mode": self.gemm,
            "kvcache_quant_mode": self.kv_cache,
        }
        return {
            "batch": min(batch, self.sequences or batch),
            "fraction": self.fraction,
            "arguments": {
                "model_path": self.model,
                "system_name": self.system,
                "backend_name": self.backend,
                "isl": self.isl,
                "osl": self.osl,
                "ctx_tokens": self.ctx_tokens,
                "tp_size": self.tp,
                "pp_size": self.pp,
                "attention_dp_size": self.dp,
                # Of a mixture of experts; a dense model takes no notice.
                "moe_tp_size": 1 if self.expert_parallel else shared,
                "moe_ep_size": shared if self.expert_parallel else 1,
                **{name: each for name, each in formats.items() if each is not None},
            },
        }


@dataclass(frozen=True)
class Prediction:
    """What is expected of one launch under one load point; never proven.

    Attributes:
        metrics: by name and in the units of `METRICS`, all GPUs together; means, no percentiles.
        gpus: all that the launch holds.
        sequences: in flight in one rank: what was asked for, or fewer where memory ends.
        memory_gib: of one GPU.
        infeasible: why it probably cannot start.
        problem: why nothing can be said; there are no metrics then.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    gpus: int = 0
    sequences: int = 0
    memory_gib: float | None = None
    infeasible: str = ""
    problem: str = ""


def question_of(
    spec: StudySpec, request: MemoryRequest, load: Load, *, system: str
) -> Question | None:
    """The question for a point of a study of one engine; None where it cannot be asked.

    `request` is what `Engine.memory` says of the point: sizes of all kinds, in no engine's words.
    """
    engine = spec.engine.kinds[0]
    if engine not in BACKENDS or request.offload_gib or request.kv_split > 1:
        return None
    shape = model_shape(spec.model.path)
    stored = shape is not None and shape.quantization is not None
    # 32-bit weights are in no table, nor are formats made while loading, except eight bits.
    if not stored and request.weight_bytes not in (None, 1.0, 2.0):
        return None
    if request.kv_bytes is not None and request.kv_bytes not in _KV_CACHE:
        return None
    traffic = scenario(load.scenario)
    # vLLM's data parallel ranks share the experts; SGLang's are servers of their own.
    shared = engine == "vllm"
    return Question(
        model=spec.model.path,
        system=system,
        backend=engine,
        concurrency=load.concurrency,
        isl=round(traffic.input_tokens),
        osl=round(traffic.output_tokens),
        tp=request.tp,
        pp=request.pp,
        dp=request.dp if shared else 1,
        replicas=1 if shared else request.dp,
        expert_parallel=request.expert_parallel,
        sequences=request.sequences,
        ctx_tokens=request.batched_tokens or ASSUMED_TOKENS,
        fraction=request.fraction or ASSUMED_FRACTION,
        gemm="fp8" if request.weight_bytes == 1 and not stored else None,
        kv_cache=None if request.kv_bytes is None else _KV_CACHE[request.kv_bytes],
    )


def prediction_of(question: Question, answer: Mapping[str, Any]) -> Prediction:
    """The program's answer in our units: seconds, and all GPUs together.

    Requests beyond the sequences in flight wait, by Little's law: with C requests always there and
    X finished in a second, each takes C / X seconds.
    """
    if problem := answer.get("problem"):
        return Prediction(gpus=question.gpus, problem=str(problem))
    if answer.get("oom"):
        return Prediction(
            gpus=question.gpus,
            infeasible=f"aiconfigurator expects {question.system} to run out of memory with tp "
            f"{question.tp} and pp {question.pp}",
        )
    served = answer["request_latency"] / 1000
    tpot = answer["tpot"] / 1000
    slots = answer["batch"] * question.dp * question.replicas
    rate = min(question.concurrency, slots) / served
    e2e = question.concurrency / rate
    whole = {
        "request_throughput": rate,
        "output_throughput": rate * question.osl,
        "input_throughput": rate * question.isl,
        "total_throughput": rate * (question.isl + question.osl),
    }
    return Prediction(
        metrics={
            "ttft_mean": e2e - served + answer["ttft"] / 1000,
            "tpot_mean": tpot,
            "e2e_latency_mean": e2e,
            **whole,
            **{f"{name}_per_gpu": value / question.gpus for name, value in whole.items()},
        },
        gpus=question.gpus,
        sequences=answer["batch"],
        memory_gib=answer["memory"],
    )


class AIConfigurator:
    """Asks it, many questions in one process, none of them twice.

    `python`: another Python that has it; this one by default.
    """

    def __init__(self, python: Path | None = None) -> None:
        self._python = python
        self._known: dict[Question, Prediction] = {}

    def answers(self, questions: Sequence[Question]) -> list[Prediction]:
        """A prediction for each question, about a second for each that is new.

        Raises:
            ConfigError: no Python has aiconfigurator.
            InfrastructureError: its process broke off, or took too long.
        """
        new = [each for each in dict.fromkeys(questions) if each not in self._known]
        if new:
            for question, answer in zip(new, self._ask(new), strict=True):
                self._known[question] = prediction_of(question, answer)
        return [self._known[each] for each in questions]

    def _ask(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        # -P: this file, beside the program, has the name of the package that it imports.
        command = [str(self._interpreter()), "-P", str(PROGRAM)]
        lines = "".join(json.dumps(each.to_json()) + "\n" for each in questions)
        seconds = START_SECONDS + QUESTION_SECONDS * len(questions)
        try:
            done = subprocess.run(
                command,
                input=lines,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                # Models that it has on board need no hub, and no study should wait for one.
                env={"HF_HUB_OFFLINE": "1", **os.environ},
            )
        except subprocess.TimeoutExpired as error:
            raise InfrastructureError(
                f"aiconfigurator did not answer {len(questions)} questions in {seconds:.0f} s"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{command[0]} cannot be started: {error.strerror}", where="prior.kind"
            ) from error
        found = [json.loads(line) for line in done.stdout.splitlines()]
        if len(found) == len(questions):
            return found
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        if "ModuleNotFoundError" in last and "aiconfigurator" in last:
            raise _missing(f"{command[0]} has no package 'aiconfigurator'")
        raise InfrastructureError(f"aiconfigurator broke off: {last}")

    def _interpreter(self) -> Path:
        if self._python is not None:
            return self._python
        if importlib.util.find_spec("aiconfigurator") is None:
            raise _missing("the package 'aiconfigurator' is not installed")
        return Path(sys.executable)


def _missing(problem: str) -> ConfigError:
    return ConfigError(
        problem,
        where="prior.kind",
        hint="install autotuner[aiconfigurator], or name a Python that has it in "
        "AUTOTUNER_AICONFIGURATOR",
    )
