"""`autotuner doctor`: what a machine has, and what it says is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.execution.doctor import Patient, disk_at, gpus_by
from autotuner.execution.nvidia import GpuMemory
from autotuner.serving import Inspection
from autotuner.settings import Site
from autotuner.study.spec import StudySpec
from tests.builders import spec


def by_name(inspections: list[Inspection]) -> dict[str, Inspection]:
    return {each.name: each for each in inspections}


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


def test_a_study_whose_answers_are_known_needs_no_engine_and_no_model(tmp_path: Path) -> None:
    missing = {
        "engine": {"kind": "vllm", "command": ["/no/such/python", "-m", "vllm"]},
        "model": {"path": "/no/such/model"},
    }
    table = tmp_path / "table.csv"
    study = spec(**missing, benchmark={"kind": "replay", "table": str(table)})
    found = by_name(Patient(study, "process", Site(), tmp_path).examined())
    assert found.keys() == {"python", "ray", "disk"}
    assert all(each.ok for each in found.values())


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
    (unknown,) = gpus_by(lambda gpu: None, "nvidia-ml-py is not installed")
    assert (unknown.ok, unknown.said) == (None, "not known: nvidia-ml-py is not installed")
    assert "extra ray" in unknown.hint


def patient(study: StudySpec | None = None, kind: str = "process") -> Patient:
    return Patient(study, kind, Site(), Path("/"))


@pytest.mark.parametrize(
    ("counted", "gpus", "ok", "said"),
    [
        ({"CPU": 64.0, "GPU": 8.0}, 8, True, "64 CPUs, 8 GPUs"),
        ({"CPU": 64.0}, 0, True, "64 CPUs, 0 GPUs"),
        ({}, 0, True, "0 CPUs, 0 GPUs"),
        ({"CPU": 64.0}, 8, False, "64 CPUs, 0 GPUs; 8 are there"),
        ({"CPU": 64.0, "GPU": 4.0}, 8, None, "64 CPUs, 4 GPUs; 8 are there"),
        # The library may not know them: AMD's.
        ({"CPU": 64.0, "GPU": 8.0}, 0, True, "64 CPUs, 8 GPUs"),
        (
            {"CPU": 4.0, "GPU": 8.0},
            8,
            False,
            "4 CPUs, 8 GPUs: CPUs for 4 trials at once, GPUs for 8",
        ),
    ],
)
def test_what_ray_counts_on_a_node_is_compared_with_what_is_there(
    counted: dict[str, float], gpus: int, ok: bool | None, said: str
) -> None:
    found = patient().of_node(counted, gpus)
    assert (found.name, found.ok, found.said) == ("ray counts", ok, said)
    assert bool(found.hint) is (ok is not True)


def test_gpus_of_kubernetes_need_as_many_cpus_of_ray_as_trials_run_at_once() -> None:
    head = {"CPU": 4.0, "ome_gpu": 16.0}
    found = patient(kind="ome").of_node(head, 0)
    assert found.ok is False
    assert found.said.endswith("16 ome_gpu: CPUs for 4 trials at once, ome_gpu for 16")
    assert "--num-cpus=16" in found.hint
    large = {"kind": "vllm", "arguments": {"tensor-parallel-size": 4}}
    ome = {"kind": "ome", "ome": {"model": "m", "runtime": "r"}}
    study = spec(engine=large, backend=ome)
    assert patient(study, "ome").of_node(head, 0).ok is True, "four of four GPUs each"
    assert patient(kind="ome").of_node({"CPU": 64.0}, 8).ok is True, "its GPUs are not asked for"


@pytest.mark.parametrize(
    ("counted", "ok", "said"),
    [
        ([{"CPU": 8.0, "GPU": 8.0}], True, "a trial of it holds 4 GPUs, 1 CPUs"),
        (
            [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}],
            False,
            "needs 4 GPUs on one node; the largest of 2 nodes has 2",
        ),
        ([{"CPU": 8.0}, {"CPU": 4.0}], True, "a trial of it holds 4 CPUs"),
    ],
)
def test_whether_a_cluster_can_hold_the_baseline(
    counted: list[dict[str, float]], ok: bool, said: str
) -> None:
    study = spec(engine={"kind": "vllm", "arguments": {"tensor-parallel-size": 4}})
    (found,) = patient(study).of_cluster(counted)
    assert (found.name, found.ok, found.said) == ("baseline", ok, said)


def test_a_cluster_is_asked_for_every_engines_baseline_and_for_none_without_a_study() -> None:
    assert patient().of_cluster([{"CPU": 8.0}]) == []
    both = spec(engine={"kind": ["vllm", "sglang"]}, space={"vllm": {}, "sglang": {}})
    assert len(patient(both).of_cluster([{"CPU": 8.0, "GPU": 1.0}])) == 2


def test_ome_without_its_resource_is_said_with_what_to_do() -> None:
    study = spec(
        engine={"kind": "vllm"}, backend={"kind": "ome", "ome": {"model": "m", "runtime": "r"}}
    )
    (found,) = patient(study, "ome").of_cluster([{"CPU": 8.0, "GPU": 8.0}])
    assert found.ok is None
    assert "ome_gpu" in found.said
    assert "--resources='{\"ome_gpu\": N}'" in found.hint
