"""A server that spans nodes: its parts find each other, are one trial, and end together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotuner.study.trial import TrialState
from tests.brief import KIND
from tests.fakenodes import CPUS, FakeNodes, fake_nodes
from tests.integration.test_cli import autotuner
from tests.integration.test_packing import trials_of
from tests.processes import ours, started, wait_for
from tests.simulated import study_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNodes]:
    with fake_nodes(4, 4, directory=tmp_path_factory.mktemp("nodes")) as found:
        yield found


def spanning_study(directory: Path, name: str, seconds: float) -> Path:
    return study_file(
        directory,
        name=name,
        engine={"kind": "simulated", "nodes": 2, "arguments": {"tensor-parallel-size": 4}},
        space={"max-num-seqs": [4, 16]},
        workload={"scenarios": ["D(50,20)"], "concurrency": [4], "max_seconds": seconds},
        benchmark={"kind": KIND},
        search={"kind": "grid", "parallel": 1},
    )


def test_a_server_spans_two_nodes_and_leaves_nothing_on_either(
    nodes: FakeNodes, tmp_path: Path
) -> None:
    file = spanning_study(tmp_path, "spans", 1)
    with started("run", str(file), home=tmp_path, **nodes.environment) as driver:
        assert driver.wait(timeout=300) == 0, (tmp_path / "stderr.txt").read_text()
    assert ours("spans") == []
    trials = trials_of(tmp_path, "spans")
    assert len(trials) == 3
    for trial in trials:
        assert trial.state is TrialState.COMPLETE, trial
        assert sorted(trial.node.split(", ")) == ["127.0.0.2", "127.0.0.3"]
        assert len(trial.gpu_ids) == len(set(trial.gpu_ids)) == 4
        second = trial.node.split(", ")[1]
        assert sum(gpu.startswith(f"{second}/") for gpu in trial.gpu_ids) == 2
        part = Path(trial.directory) / "part-1" / "server.log"
        assert "part 1 is connected" in part.read_text()


def test_a_part_that_dies_is_the_machines_fault_and_the_trial_is_made_again(
    nodes: FakeNodes, tmp_path: Path
) -> None:
    file = spanning_study(tmp_path, "loses-a-part", 8)

    def parts() -> list[psutil.Process]:
        return [
            process
            for process in ours("loses-a-part")
            if "--node-rank 1" in " ".join(process.cmdline())
            and "guard.py" not in " ".join(process.cmdline())
        ]

    with started("run", str(file), home=tmp_path, **nodes.environment) as driver:
        assert wait_for(
            lambda: any(
                trial.state is TrialState.BENCHMARKING
                for trial in trials_of(tmp_path, "loses-a-part")
            ),
            120,
        ), (tmp_path / "stderr.txt").read_text()
        (part,) = parts()
        part.kill()
        assert driver.wait(timeout=300) == 0, (tmp_path / "stderr.txt").read_text()
    assert ours("loses-a-part") == []
    baseline = trials_of(tmp_path, "loses-a-part")[0]
    assert baseline.state is TrialState.COMPLETE
    assert "second attempt" in baseline.reason
    assert "NCCL" in baseline.reason


def test_doctor_says_what_the_cluster_counts_and_whether_it_holds_the_baseline(
    nodes: FakeNodes, tmp_path: Path
) -> None:
    def doctor(name: str, tp: int) -> tuple[int, dict[str, dict[str, Any]]]:
        engine = {"kind": "simulated", "nodes": 2, "arguments": {"tensor-parallel-size": tp}}
        file = study_file(tmp_path, name=name, engine=engine, space={"max-num-seqs": [4]})
        done = autotuner("doctor", str(file), "--json", home=tmp_path, **nodes.environment)
        found = json.loads(done.stdout)["nodes"]
        return done.returncode, {n: {f["name"]: f for f in each} for n, each in found.items()}

    _, found = doctor("fits", 8)
    assert found["the cluster"]["baseline"]["ok"] is True
    said = sorted(each["ray counts"]["said"] for node, each in found.items() if "127" in node)
    assert said[-2:] == [f"{CPUS} CPUs, 4 GPUs"] * 2
    code, found = doctor("too-large", 16)
    assert code == 3
    baseline = found["the cluster"]["baseline"]
    assert (baseline["ok"], baseline["said"]) == (
        False,
        "needs 8 GPUs and 1 CPUs on each of 2 nodes; 0 of 3 have them",
    )
