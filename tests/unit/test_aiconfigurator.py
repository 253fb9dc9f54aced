"""Questions to aiconfigurator and its recorded answers; its process with a small stand-in for the
package, and with the package itself where `AUTOTUNER_AICONFIGURATOR` names a Python that has it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import ConfigError, InfrastructureError
from autotuner.estimators.aiconfigurator import (
    AIConfigurator,
    Prediction,
    Question,
    prediction_of,
    question_of,
)
from autotuner.serving import MemoryRequest
from autotuner.study.metrics import METRICS
from tests.builders import spec

RECORDED = Path(__file__).parents[1] / "data" / "aiconfigurator" / "answers.json"
ANSWERS: Mapping[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))["answers"]

# A package of the same name: memory grows with sequences, time does not.
STAND_IN = """
from types import SimpleNamespace
print("aiconfigurator likes to talk")
def cli_estimate(*, batch_size, model_path, osl, tp_size, **rest):
    if model_path == "dies":
        raise SystemExit("no reason")
    if model_path == "unknown":
        raise ValueError("no such model")
    if model_path == "unmeasured":
        raise RuntimeError("perf database error")
    memory = 20 + 0.5 * batch_size
    if memory > 80 or model_path == "huge":
        raise RuntimeError("OOM: does not fit")
    return SimpleNamespace(
        ttft=100.0, tpot=10.0, request_latency=100.0 + 10.0 * (osl - 1), memory=memory,
        num_total_gpus=tp_size,
        summary=SimpleNamespace(get_mem_capacity_bytes=lambda: 80 * 2**30),
    )
"""


def recorded(name: str) -> tuple[Question, Prediction]:
    question = Question(**ANSWERS[name]["question"])
    return question, prediction_of(question, ANSWERS[name]["answer"])


def asked(**more: Any) -> Question:
    plain = Question("known", "h100_sxm", "vllm", concurrency=16, isl=1000, osl=101)
    return replace(plain, **more)


def question_for(request: MemoryRequest, **changes: Any) -> Question | None:
    study = spec(
        **{
            "engine": {"kind": "vllm"},
            "model": {"path": "Qwen/Qwen3-8B"},
            "workload": {"scenarios": ["N(1024,5)/(256,2)"], "concurrency": [64]},
            **changes,
        }
    )
    return question_of(study, request, study.loads()[0], system="h100_sxm")


def test_a_point_in_its_terms() -> None:
    request = MemoryRequest(
        fraction=0.85,
        tp=4,
        dp=2,
        expert_parallel=True,
        sequences=128,
        batched_tokens=4096,
        quantization="fp8",
        weight_bytes=1.0,
        kv_bytes=1.0,
    )
    found = question_for(request)
    assert found == Question(
        model="Qwen/Qwen3-8B",
        system="h100_sxm",
        backend="vllm",
        concurrency=64,
        isl=1024,
        osl=256,
        tp=4,
        dp=2,
        expert_parallel=True,
        sequences=128,
        ctx_tokens=4096,
        fraction=0.85,
        gemm="fp8",
        kv_cache="fp8",
    )
    assert found.gpus == 8
    arguments = found.to_json()["arguments"]
    assert (arguments["moe_tp_size"], arguments["moe_ep_size"]) == (1, 8)
    assert found.to_json()["batch"] == 32


def test_replicas_of_sglang_share_nothing() -> None:
    found = question_for(MemoryRequest(dp=2), engine={"kind": "sglang"})
    assert found is not None
    assert (found.backend, found.dp, found.replicas, found.gpus) == ("sglang", 1, 2, 2)
    assert found.to_json()["batch"] == 32


@pytest.mark.parametrize(
    "request_",
    [
        MemoryRequest(offload_gib=4),
        MemoryRequest(kv_split=2),
        MemoryRequest(weight_bytes=4),
        MemoryRequest(quantization="bitsandbytes", weight_bytes=0.5),
        MemoryRequest(kv_bytes=0.5),
    ],
    ids=str,
)
def test_what_it_does_not_model_is_not_asked(request_: MemoryRequest) -> None:
    assert question_for(request_) is None


def test_other_engines_are_not_asked_about() -> None:
    assert question_for(MemoryRequest(), engine={"kind": "simulated"}) is None


def test_a_quantized_checkpoint_is_what_it_is(tmp_path: Path) -> None:
    config = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "quantization_config": {"quant_method": "awq", "bits": 4},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    request = MemoryRequest(quantization="awq", weight_bytes=0.5)
    found = question_for(request, model={"path": str(tmp_path)})
    assert found is not None
    assert found.gemm is None
    assert question_for(request) is None


def test_units_of_a_recorded_answer() -> None:
    _, found = recorded("one GPU")
    # It printed: TTFT 137.618 ms, TPOT 16.104 ms, 15.0799 requests/s.
    assert found.metrics["ttft_mean"] == pytest.approx(0.137618, rel=1e-5)
    assert found.metrics["tpot_mean"] == pytest.approx(0.016104, rel=1e-4)
    assert found.metrics["request_throughput"] == pytest.approx(15.0799, rel=1e-5)
    assert found.metrics["output_throughput"] == pytest.approx(256 * 15.0799, rel=1e-5)
    assert found.metrics["output_throughput_per_gpu"] == found.metrics["output_throughput"]
    assert (found.gpus, found.sequences) == (1, 64)
    assert found.memory_gib == pytest.approx(30.18, abs=0.01)


@pytest.mark.parametrize(
    "name", [name for name, each in ANSWERS.items() if "ttft" in each["answer"]]
)
def test_recorded_answers_agree_with_themselves(name: str) -> None:
    question, found = recorded(name)
    metrics = found.metrics
    assert set(metrics) <= set(METRICS)
    # Little's law, whoever waits.
    in_flight = metrics["request_throughput"] * metrics["e2e_latency_mean"]
    assert in_flight == pytest.approx(question.concurrency)
    generating = metrics["tpot_mean"] * (question.osl - 1)
    assert metrics["e2e_latency_mean"] == pytest.approx(metrics["ttft_mean"] + generating, rel=1e-3)
    per_gpu = metrics["output_throughput_per_gpu"] * question.gpus
    assert per_gpu == pytest.approx(metrics["output_throughput"])
    assert found.gpus == question.gpus
    assert found.gpus == ANSWERS[name]["answer"]["gpus"] * question.replicas


def test_ranks_and_replicas_count_together() -> None:
    # Two ranks or two replicas with 32 requests each do nearly the same on a dense model.
    _, ranks = recorded("dense ranks")
    _, alone = recorded("one GPU")
    assert ranks.sequences == 32
    assert 1.3 < ranks.metrics["output_throughput"] / alone.metrics["output_throughput"] < 2


def test_what_does_not_fit_waits() -> None:
    _, alone = recorded("one GPU")
    _, few = recorded("few sequences")
    _, small = recorded("small fraction")
    _, many = recorded("more than fit")
    assert few.sequences == 16
    assert few.metrics["ttft_mean"] > 10 * alone.metrics["ttft_mean"]
    assert few.metrics["output_throughput"] < alone.metrics["output_throughput"]
    assert 1 < small.sequences < 64
    assert small.memory_gib is not None
    assert small.memory_gib <= 0.3 * 80
    assert 256 < many.sequences < 2000
    assert not many.infeasible


def test_weights_that_do_not_fit_are_a_guess_of_infeasible() -> None:
    _, found = recorded("too large")
    assert found.infeasible.startswith("aiconfigurator expects h100_sxm to run out of memory")
    assert found.metrics == {}


@pytest.mark.parametrize("name", ["unknown model", "unknown system"])
def test_what_it_does_not_know_is_a_problem(name: str) -> None:
    _, found = recorded(name)
    assert found.problem
    assert found.metrics == {}
    assert found.infeasible == ""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AIConfigurator:
    package = tmp_path / "packages" / "aiconfigurator"
    (package / "cli").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli" / "__init__.py").touch()
    (package / "cli" / "api.py").write_text(STAND_IN)
    (package / "sdk").mkdir()
    (package / "sdk" / "__init__.py").touch()
    (package / "sdk" / "perf_database.py").write_text(
        "def get_latest_database_version(system, backend):\n    return '1.0'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return AIConfigurator(Path(sys.executable))


def test_many_questions_in_one_process(stand_in: AIConfigurator) -> None:
    questions = [asked(), asked(model="huge"), asked(model="unknown"), asked(sequences=4), asked()]
    plain, huge, unknown, few, again = stand_in.answers(questions)
    assert plain.metrics["e2e_latency_mean"] == pytest.approx(1.1)
    assert (plain.sequences, few.sequences) == (16, 4)
    assert huge.infeasible
    assert unknown.problem == "ValueError: no such model"
    assert again is plain


def test_only_out_of_memory_is_that(stand_in: AIConfigurator) -> None:
    assert stand_in.answers([asked(model="unmeasured")])[0].problem


@pytest.mark.parametrize(
    ("fraction", "fits"), [(1.0, 120), (0.9, 104), (0.5, 40), (0.3, 8), (0.28, 4), (0.26, 1)]
)
def test_as_many_sequences_as_fit(stand_in: AIConfigurator, fraction: float, fits: int) -> None:
    # 20 GiB and half a GiB for each sequence, of 80; below eight only four and one are tried.
    (found,) = stand_in.answers([asked(concurrency=500, fraction=fraction)])
    assert found.sequences == fits


def test_not_even_one_sequence(stand_in: AIConfigurator) -> None:
    (found,) = stand_in.answers([asked(concurrency=500, fraction=0.25)])
    assert found.infeasible


def test_answered_questions_are_not_asked_again(
    stand_in: AIConfigurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stand_in.answers([asked()])
    monkeypatch.setenv("PYTHONPATH", "")
    assert stand_in.answers([asked()]) == first
    assert stand_in.answers([]) == []
    with pytest.raises(ConfigError):
        stand_in.answers([asked(osl=7)])


def test_a_process_that_breaks_off(stand_in: AIConfigurator) -> None:
    with pytest.raises(InfrastructureError, match="broke off: no reason"):
        stand_in.answers([asked(), asked(model="dies")])


def test_a_python_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(ConfigError, match="has no package 'aiconfigurator'") as caught:
        AIConfigurator(Path(sys.executable)).answers([asked()])
    assert "AUTOTUNER_AICONFIGURATOR" in caught.value.hint
    with pytest.raises(ConfigError, match="is not installed"):
        AIConfigurator().answers([asked()])
    with pytest.raises(ConfigError, match="cannot be started"):
        AIConfigurator(tmp_path / "none").answers([asked()])


@pytest.mark.slow
@pytest.mark.skipif(
    "AUTOTUNER_AICONFIGURATOR" not in os.environ,
    reason="AUTOTUNER_AICONFIGURATOR names no Python that has aiconfigurator",
)
def test_the_real_one_answers_as_recorded() -> None:
    names = ("one GPU", "too large", "small fraction", "unknown system")
    expected = [recorded(name) for name in names]
    real = AIConfigurator(Path(os.environ["AUTOTUNER_AICONFIGURATOR"]))
    found = real.answers([question for question, _ in expected])
    for one, (_, other) in zip(found, expected, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=0.01)
        assert (one.sequences, one.infeasible) == (other.sequences, other.infeasible)
        assert bool(one.problem) == bool(other.problem)
