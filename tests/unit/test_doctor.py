"""`autotuner doctor`: what a machine has, and what it says is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.execution.doctor import Patient, disk_at, gpus_by
from autotuner.execution.gate import GpuMemory
from autotuner.serving import Finding
from autotuner.settings import Site
from tests.builders import spec


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {each.name: each for each in findings}


def test_a_machine_is_examined_without_a_study(tmp_path: Path) -> None:
    found = by_name(Patient(None, "process", Site(), tmp_path).examined())
    assert found["python"].ok is True
    assert found["ray"].ok is True
    assert found["disk"].said.endswith(str(tmp_path))
    assert "engine" not in found


def test_what_a_study_needs_and_does_not_find_is_said_with_what_to_do(tmp_path: Path) -> None:
    study = spec(
        engine={"kind": "vllm", "command": ["/no/such/python", "-m", "vllm"]},
        model={"path": "/no/such/model"},
    )
    found = by_name(Patient(study, "process", Site(models=tmp_path / "none"), tmp_path).examined())
    for name, said in (
        ("engine", "/no/such/python"),
        ("model", "/no/such/model"),
        ("models", str(tmp_path / "none")),
    ):
        assert found[name].ok is False
        assert said in found[name].said
        assert found[name].hint


@pytest.mark.parametrize(("free", "ok"), [(4.9, False), (5.0, True)])
def test_a_disk_that_is_nearly_full_is_said(tmp_path: Path, free: float, ok: bool) -> None:
    found = disk_at(tmp_path / "not" / "yet", lambda path: free)
    assert found.ok is ok
    assert bool(found.hint) is not ok


def test_gpus_that_others_hold_are_said() -> None:
    memory = {"0": GpuMemory(0.5, 80.0), "1": GpuMemory(60.0, 80.0)}
    free, held = gpus_by(memory.get)
    assert (free.name, free.ok) == ("gpu 0", True)
    assert (held.ok, held.said) == (False, "60.0 of 80 GiB used")
    assert held.hint
    (none,) = gpus_by(lambda gpu: None)
    assert none.ok is None
