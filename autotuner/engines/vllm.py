"""vLLM: its launch line, what it would refuse, and what its log says when it dies."""

from __future__ import annotations

import re

from autotuner.engines.base import Diagnosis, Engine
from autotuner.engines.catalog import whole_number
from autotuner.engines.flags import (
    catalog_of,
    check_flags,
    environment,
    flag_values,
    given,
)
from autotuner.engines.signatures import Signature, diagnose
from autotuner.errors import FailureClass
from autotuner.serving import LaunchSpec
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec

IMAGE = "vllm/vllm-openai"
COMMAND = ("vllm", "serve")

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
}


class _VLLM:
    api = "vllm"

    def check(self, spec: StudySpec) -> None:
        check_flags(spec, catalog_of(spec), _OWNED)

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, host: str = "127.0.0.1"
    ) -> LaunchSpec:
        catalog = catalog_of(spec)
        values = flag_values(spec, parameters)
        command = tuple(spec.engine.command or COMMAND)
        # `vllm serve` takes the model by position; the server's module only by name.
        model = [spec.model.path] if command[-1] == "serve" else ["--model", spec.model.path]
        own = [*model, "--served-model-name", spec.model.served_name]
        if spec.model.tokenizer:
            own += ["--tokenizer", spec.model.tokenizer]
        gpus = 1
        for name in ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"):
            gpus *= whole_number(given(catalog, values, name)) or 1
        return LaunchSpec(
            command=command,
            arguments=(*own, "--host", host, "--port", str(port), *catalog.argv(values)),
            environment=environment(spec, parameters),
            image=spec.engine.image or f"{IMAGE}:v{catalog.version}",
            model_path=spec.model.path,
            served_name=spec.model.served_name,
            port=port,
            gpus=gpus,
        )

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None:
        catalog = catalog_of(spec)
        values = flag_values(spec, parameters)

        def number(name: str) -> int | None:
            return whole_number(given(catalog, values, name))

        batched, sequences = number("max-num-batched-tokens"), number("max-num-seqs")
        length = number("max-model-len")
        if length is not None and length < 1:
            length = None  # -1 lets vLLM choose
        if batched is not None and sequences is not None and batched < sequences:
            return f"max-num-batched-tokens {batched} is below max-num-seqs {sequences}"
        chunked = given(catalog, values, "enable-chunked-prefill")
        if chunked is False and batched is not None and length is not None and batched < length:
            return (
                f"max-num-batched-tokens {batched} is below max-model-len {length} "
                "without chunked prefill"
            )
        threshold = number("long-prefill-token-threshold")
        if threshold is not None and length is not None and threshold > length:
            return f"long-prefill-token-threshold {threshold} is above max-model-len {length}"
        return None

    def diagnose(self, log: str) -> Diagnosis:
        return diagnose(log, _SIGNATURES, _PREFIX)


# "(EngineCore pid=12) ERROR 11-22 03:04:05 [core.py:123] " in front of what is said.
_PREFIX = re.compile(r"^(\([\w ]+ pid=\d+\) )?((ERROR|WARNING|INFO) [\d-]+ [\d:]+ \[\S+:\d+\] ?)?")

# In this order: the specific before the general. Sources: vLLM 0.32.0's own messages; those of
# CUDA, NCCL and the hub are the libraries'.
_SIGNATURES = (
    Signature(
        FailureClass.ARGUMENT, r"error: (?:unrecognized arguments|argument |ambiguous option).*"
    ),
    Signature(FailureClass.PORT, r"\[Errno 98\] .*[Aa]ddress already in use.*"),
    Signature(FailureClass.SHARED_MEMORY, r"Error while creating shared memory segment .*"),
    Signature(FailureClass.DEVICE, r"Free memory on device .* is less than desired GPU memory.*"),
    Signature(
        FailureClass.DEVICE, r"World size \(\d+\) is larger than the number of available GPUs.*"
    ),
    Signature(FailureClass.DEVICE, r"Failed to infer device type.*"),
    Signature(FailureClass.KV_CACHE, r"No available memory for the cache blocks.*"),
    Signature(FailureClass.KV_CACHE, r"To serve at least one request with the model.*"),
    Signature(
        FailureClass.KV_CACHE,
        r".*larger than the maximum number of tokens that can be stored in KV.*",
    ),
    Signature(
        FailureClass.MEMORY_AT_LOAD,
        r".*CUDA out of memory.*",
        after=r"Application startup complete",
        then=FailureClass.MEMORY_UNDER_LOAD,
    ),
    Signature(FailureClass.QUANTIZATION, r"Unknown quantization method.*"),
    Signature(FailureClass.QUANTIZATION, r"Quantization method specified in the model config.*"),
    Signature(FailureClass.QUANTIZATION, r"The quantization method .* is not supported.*"),
    Signature(FailureClass.QUANTIZATION, r"Cannot find the config file for \w+.*"),
    Signature(FailureClass.MODEL, r".*Repo id must be in the form.*"),
    Signature(FailureClass.MODEL, r".*is not a local folder and is not a valid model identifier.*"),
    Signature(FailureClass.MODEL, r"Cannot find any model weights with.*"),
    Signature(
        FailureClass.MODEL,
        r".*(?:[Aa]ccess (?:to )?(?:a )?gated repo|private or gated repo|401 Client Error).*",
    ),
    Signature(FailureClass.MODEL, r".*Transformers does not recognize this architecture.*"),
    Signature(FailureClass.MODEL, r"Model architectures .* are not supported.*"),
    Signature(FailureClass.MODEL, r".*We couldn't connect to 'https://huggingface.co'.*"),
    Signature(FailureClass.ARGUMENT, r"User-specified max_model_len .*"),
    Signature(FailureClass.ARGUMENT, r"Value error, (?P<reason>.*?)(?: \[type=.*)?$"),
    Signature(FailureClass.ARGUMENT, r"No valid attention backend found for.*"),
    Signature(FailureClass.ARGUMENT, r"No common block size for [^']*"),
    Signature(FailureClass.NCCL, r".*NCCL error.*"),
)

VLLM: Engine = _VLLM()
