"""A further part of a server that spans nodes is prepared as the first is, and its
files come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotuner.engines.simulated import SIMULATED
from autotuner.errors import InfrastructureError
from autotuner.execution.gate import GATE_SECONDS
from autotuner.execution.nvidia import GpuMemory
from autotuner.execution.parcel import unpack
from autotuner.execution.part import PartRun, directory_of
from autotuner.execution.trial import TrialRun
from autotuner.serving import Ending
from autotuner.settings import Site
from tests.unit.test_servers_floor import (
    Clock,
    Runner,
    Stage,
    Started,
    assignment,
    kinds_of,
    runner,
    serving,
)

__all__ = ["runner"]

FULL, CLEAR = GpuMemory(used=70.0, total=80.0), GpuMemory(used=0.5, total=80.0)
MEETING = "10.0.0.1:29500"


def part(directory: Path, stage: Stage, gpus: GpuMemory = CLEAR, clock: Clock | None = None) -> Any:
    clock = clock or Clock()
    engine = {"kind": "simulated", "nodes": 2, "arguments": {"tensor-parallel-size": 2}}
    return PartRun(
        assignment(directory, engine=engine),
        Site(),
        1,
        SIMULATED,
        stage,  # type: ignore[arg-type]
        gpu_ids=("3",),
        gauge=lambda gpu: gpus,
        clock=clock,
        sleep=clock.sleep,
    )


def test_it_sweeps_and_prepares_and_waits_for_its_gpus_before_it_starts(tmp_path: Path) -> None:
    stage, clock = Stage(Started(None)), Clock()
    one = part(tmp_path, stage, FULL, clock)
    assert one.prepare(MEETING) == "GPU 3 held 70.0 of 80.0 GiB before the launch"
    assert clock.now >= GATE_SECONDS
    assert stage.done == ["sweep", "prepare"]
    assert not one.alive()
    one.start()
    assert stage.done == ["sweep", "prepare", "start"]
    assert one.alive()
    assert part(tmp_path / "b", Stage(Started(None))).prepare(MEETING) == ""
    elsewhere = Stage(Started(None), gpu_resource="ome_gpu")
    assert part(tmp_path / "c", elsewhere, FULL).prepare(MEETING) == "", "not this machine's"


def test_it_is_another_rank_that_meets_the_first(tmp_path: Path) -> None:
    stage = Stage(Started(None))
    part(tmp_path, stage).prepare(MEETING)
    assert stage.slot is not None
    assert stage.slot.gpu_ids == ("3",)
    assert Path(stage.slot.directory).name == "part-1"
    assert stage.launch is not None
    assert "--node-rank 1" in " ".join(stage.launch.arguments)
    assert MEETING in " ".join(stage.launch.arguments)


def test_what_an_earlier_attempt_left_on_its_node_moves_aside(tmp_path: Path) -> None:
    directory = directory_of(assignment(tmp_path), 1)
    directory.mkdir(parents=True)
    (directory / "server.log").write_text("of the first attempt")
    part(tmp_path, Stage(Started(None))).prepare(MEETING)
    assert list(directory.iterdir()) == []
    aside = directory.with_name("part-1.attempt-1")
    assert (aside / "server.log").read_text() == "of the first attempt"


def test_its_files_are_sent_where_its_disk_is_not_seen_and_only_there(tmp_path: Path) -> None:
    one = part(tmp_path / "there", Stage(Started(None)))
    one.prepare(MEETING)
    one.start()
    directory = directory_of(assignment(tmp_path / "there"), 1)
    (directory / "server.log").write_text("part 1 is connected")
    assert one.stop(5) == b""
    unpack(one.stop(5, True), tmp_path / "here" / "part-1")
    assert (tmp_path / "here" / "part-1" / "server.log").read_text() == "part 1 is connected"


class Elsewhere:
    """A part on another node that remembers what was asked of it."""

    def __init__(self, held: str = "", *, broken: InfrastructureError | None = None) -> None:
        self._held, self._broken = held, broken
        self.asked: list[str] = []

    def prepare(self, meeting: str) -> str:
        self.asked.append(f"prepare {meeting}")
        return self._held

    def start(self) -> None:
        self.asked.append("start")
        if self._broken is not None:
            raise self._broken

    def alive(self) -> bool:
        return True

    def log(self) -> str:
        return ""

    def ending(self) -> Ending:
        return Ending()

    def stop(self, seconds: float) -> None:
        self.asked.append("stop")


def test_a_trial_prepares_all_parts_before_any_starts_and_says_what_held_their_gpus(
    tmp_path: Path, runner: type[Runner]
) -> None:
    held, clear = Elsewhere("on 10.0.0.2 GPU 0 held 9.0 of 80.0 GiB before the launch"), Elsewhere()
    with serving() as url:
        stage = Stage(Started(url))
        run = TrialRun(
            assignment(tmp_path),
            kinds_of(stage),
            gpu_ids=("3",),
            gauge=lambda gpu: FULL,
            others=[held, clear],
            meeting=MEETING,
            clock=(clock := Clock()),
            sleep=clock.sleep,
        )
        run.prepare()
        assert stage.done == ["sweep", "prepare"]
        assert held.asked == clear.asked == [f"prepare {MEETING}"]
        run.deploy()
        assert held.asked == clear.asked == [f"prepare {MEETING}", "start"]
        run.stop()
    assert held.asked[-1] == clear.asked[-1] == "stop"
    assert run.outcome().reason == (
        "GPU 3 held 70.0 of 80.0 GiB before the launch, "
        "on 10.0.0.2 GPU 0 held 9.0 of 80.0 GiB before the launch"
    )


def test_where_one_part_cannot_start_all_are_stopped(tmp_path: Path, runner: type[Runner]) -> None:
    lost = InfrastructureError("its node is gone")
    one, other = Elsewhere(broken=lost), Elsewhere()
    with serving() as url:
        first = Started(url)
        run = TrialRun(assignment(tmp_path), kinds_of(Stage(first)), others=[one, other])
        with pytest.raises(InfrastructureError, match="its node is gone"):
            run.deploy()
        run.stop()
    assert first.stopped == 1
    assert one.asked[-1] == other.asked[-1] == "stop"
