"""A node as Ray counts it."""

from __future__ import annotations

from autotuner.execution.nodes import Counted


def node(free: dict[str, float] | None, **resources: float) -> Counted:
    return Counted("ab12", "10.0.0.7", "gpu-7", True, resources, free)


def test_what_is_held_is_what_is_not_free() -> None:
    found = node({"CPU": 3.0}, CPU=16.0, GPU=8.0)
    assert found.of("CPU") == (16.0, 13.0)
    assert found.of("GPU") == (8.0, 8.0), "Ray leaves out what is all held"
    assert found.of("autotuner_gpu") == (0.0, 0.0)
    assert found.name == "gpu-7 (10.0.0.7)"


def test_what_ray_does_not_say_yet_is_free() -> None:
    assert node(None, CPU=16.0).of("CPU") == (16.0, 0.0)
