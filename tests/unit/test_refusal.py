"""By which environment a point is refused: by the one that its server would see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotuner.engines.rules import rules_of
from autotuner.study.spec import StudySpec
from tests.builders import spec

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}
LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"


@pytest.fixture
def model(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    return {"path": str(tmp_path)}


def study(model: dict[str, str], kind: str, arguments: dict[str, Any], **more: Any) -> StudySpec:
    engine = {"kind": kind, "arguments": arguments, **more.pop("engine", {})}
    return spec(model=model, engine=engine, **more)


@pytest.mark.parametrize(
    ("kind", "arguments", "name"),
    [
        ("vllm", {"max-model-len": 9000}, LONG),
        ("sglang", {"context-length": 9000}, "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"),
        ("sglang", {"tp-size": 4}, "SGLANG_USE_CPU_ENGINE"),
    ],
)
def test_what_a_program_inherits_counts(
    model: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    arguments: dict[str, Any],
    name: str,
) -> None:
    found = study(model, kind, arguments)
    monkeypatch.delenv(name, raising=False)
    assert rules_of(found).refuse(found, {}) is not None
    monkeypatch.setenv(name, "1")
    rules = rules_of(found)
    assert rules.refuse(found, {}) is None
    assert name not in rules.launch(found, {}, port=1).environment


def test_what_the_study_says_wins_over_what_is_inherited(
    model: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LONG, "1")
    off = study(model, "vllm", {"max-model-len": 9000}, engine={"environment": {LONG: "0"}})
    assert rules_of(off).refuse(off, {}) is not None
    left = study(model, "vllm", {"max-model-len": 9000})
    assert rules_of(left).refuse(left, {f"env:{LONG}": "0"}) is not None
    assert rules_of(left).refuse(left, {f"env:{LONG}": ""}) is None


def test_a_container_inherits_nothing(
    model: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LONG, "1")
    found = study(model, "vllm", {"max-model-len": 9000}, backend={"kind": "docker"})
    assert rules_of(found).refuse(found, {}) is not None


def test_of_several_engines_each_inherits(
    model: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LONG, "1")
    settings = {"vllm": {"arguments": {"max-model-len": 9000}}}
    found = spec(model=model, engine={"kind": ["vllm", "sglang"], "settings": settings})
    assert rules_of(found).refuse(found, {"engine": "vllm"}) is None
    sglang = {"engine": "sglang", "sglang:context-length": 9000}
    assert rules_of(found).refuse(found, sglang) is not None
