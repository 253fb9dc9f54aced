"""Small values for tests: a study and a trial with as little said as possible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuner.study.metrics import Measurement, Request
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial, TrialState

LLAMA_8B: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
"""What the config.json of a Llama with eight billion weights says."""


def study_content(**changes: Any) -> dict[str, Any]:
    """What a small study file says; `changes` replace its blocks."""
    return {
        "name": "small",
        "model": {"path": "/models/tiny"},
        "engine": {"kind": "simulated"},
        "workload": {"scenarios": ["D(100,20)"], "concurrency": [4]},
        **changes,
    }


def spec(**changes: Any) -> StudySpec:
    """The study of `study_content`."""
    return StudySpec.model_validate(study_content(**changes))


def trial(
    number: int,
    parameters: Mapping[str, Any] | None = None,
    state: TrialState = TrialState.COMPLETE,
    **more: Any,
) -> Trial:
    """A trial; complete without objectives unless they are given."""
    return Trial(number, dict(parameters or {}), state, **more)


def request(
    ttft: float | None = 0.1,
    tpot: float | None = 0.01,
    e2e_latency: float | None = 0.5,
    *,
    tokens: tuple[int, int] = (100, 20),
    error: str | None = None,
) -> Request:
    """A completed request; with `error`, one that failed."""
    if error is not None:
        return Request(None, None, None, 0, 0, error)
    return Request(ttft, tpot, e2e_latency, *tokens)


def measurement(*requests: Request, seconds: float = 2.0, **more: Any) -> Measurement:
    return Measurement(seconds, requests, **more)
