"""The gate between trials: it waits for GPUs to be free, and says when they are not."""

from __future__ import annotations

import pytest

from autotuner.execution.gate import FLOOR_GIB, GATE_SECONDS, unwatched, wait_clear
from autotuner.execution.nvidia import GpuMemory, nvidia_gauge, unasked
from autotuner.execution.reservation import Node


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_memory_that_is_given_back_is_waited_for() -> None:
    clock = Clock()
    held = wait_clear(
        ("0", "1"),
        lambda gpu: GpuMemory(used=0.4 if gpu == "0" or clock.now >= 5 else 70.0, total=80.0),
        clock=clock,
        sleep=clock.sleep,
    )
    assert held == ""
    assert 5 <= clock.now < 6


def test_memory_that_others_keep_is_said_after_the_deadline() -> None:
    clock = Clock()
    held = wait_clear(
        ("0", "3"),
        lambda gpu: GpuMemory(used=12.06 if gpu == "3" else FLOOR_GIB, total=80.0),
        clock=clock,
        sleep=clock.sleep,
    )
    assert held == "GPU 3 held 12.1 of 80.0 GiB before the launch"
    assert clock.now == pytest.approx(GATE_SECONDS, abs=1)


@pytest.mark.parametrize("gpu_ids", [(), ("0",)])
def test_nothing_is_waited_for_where_nobody_can_tell(gpu_ids: tuple[str, ...]) -> None:
    clock = Clock()
    assert wait_clear(gpu_ids, lambda gpu: None, clock=clock, sleep=clock.sleep) == ""
    assert clock.now == 0


def test_a_machine_without_the_driver_has_a_gauge_that_cannot_tell() -> None:
    assert nvidia_gauge()("77") is None


def test_a_missing_package_is_said_where_there_are_gpus() -> None:
    missing = unasked(there=lambda module: None)
    assert unasked(there=lambda module: module) == ""
    assert missing == "nvidia-ml-py is not installed"
    gpus, none = Node(cpus=8.0, gpus=2.0), Node(cpus=8.0, gpus=0.0)
    assert missing in unwatched([none, gpus], missing)
    assert unwatched([none], missing) == "", "nobody misses it"
    assert unwatched([gpus], "") == ""
