"""Studies on nodes with GPUs that are numbers: Ray, the simulated engine, and trials of 1 to 8 GPUs
side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from autotuner.store import Store
from autotuner.study.trial import Trial, TrialState
from tests.brief import KIND
from tests.fakenodes import FakeNodes, fake_nodes
from tests.processes import ours, started, wait_for
from tests.simulated import study_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def packing_study(directory: Path, name: str, seconds: float, **changes: Any) -> Path:
    """A study whose trials last about so many seconds beside their start."""
    workload = {"scenarios": ["D(50,20)"], "concurrency": [4], "max_seconds": seconds}
    changes = {"workload": workload, "benchmark": {"kind": KIND}, **changes}
    return study_file(directory, name=name, **changes)


def trials_of(home: Path, name: str) -> list[Trial]:
    store = Store(f"sqlite:///{home / 'autotuner.db'}")
    try:
        return store.trials(name)
    finally:
        store.close()


def never_twice(trials: list[Trial]) -> None:
    """No GPU belonged to two trials at the same time."""
    launched = [trial for trial in trials if trial.gpu_ids]
    assert all(len(set(trial.gpu_ids)) == len(trial.gpu_ids) for trial in launched)
    for one, other in combinations(launched, 2):
        apart = one.ended_at <= other.started_at or other.ended_at <= one.started_at
        shared = one.node == other.node and set(one.gpu_ids) & set(other.gpu_ids)
        assert apart or not shared, (one.number, other.number, one.node, shared)


def together(trials: list[Trial]) -> int:
    """On how many nodes trials ran at the same time, at most."""
    return max(
        len({o.node for o in trials if o.started_at <= trial.started_at < o.ended_at})
        for trial in trials
        if trial.started_at
    )


def test_a_node_killed_in_the_middle_costs_its_trials_their_first_attempt_only(
    tmp_path: Path,
) -> None:
    name, lost = "loses-a-node", "127.0.0.3"
    file = packing_study(
        tmp_path,
        name,
        6,
        space={"tensor-parallel-size": [1, 2, 4, 8, 16], "max-num-seqs": [4, 16]},
    )

    def measuring() -> list[int]:
        return [
            trial.number
            for trial in trials_of(tmp_path, name)
            if trial.node == lost and trial.state is TrialState.BENCHMARKING
        ]

    with fake_nodes(8, 8, directory=tmp_path) as nodes:
        with started("run", str(file), home=tmp_path, **nodes.environment) as driver:
            assert wait_for(measuring, 120), (tmp_path / "stderr.txt").read_text()
            struck = measuring()
            nodes.kill(lost)
            assert driver.wait(timeout=240) == 0, (tmp_path / "stderr.txt").read_text()
        assert ours(name) == []
    trials = trials_of(tmp_path, name)
    refused = [trial for trial in trials if trial.refused]
    assert [trial.parameters["tensor-parallel-size"] for trial in refused] == [16, 16]
    assert {trial.reason for trial in refused} == {
        "needs 16 GPUs on one node; the largest of 3 nodes has 8"
    }
    launched = [trial for trial in trials if not trial.refused]
    assert [trial.state for trial in launched] == [TrialState.COMPLETE] * 9
    for trial in launched:
        assert len(trial.gpu_ids) == trial.parameters.get("tensor-parallel-size", 1)
        again = trial.reason.startswith(f"second attempt; the first broke on {lost} (GPU")
        assert again or trial.number not in struck
        assert trial.node == "127.0.0.2" or not again
        assert trial.directory
        aside = Path(f"{trial.directory}.attempt-1")
        # An attempt that ended before its actor did anything left no files.
        assert aside.exists() == again or (again and trial.number not in struck)
    never_twice(trials)


def test_a_trial_that_is_pinned_to_a_dead_node_is_placed_anew(tmp_path: Path) -> None:
    """A cluster takes some ten seconds to see that a machine is gone. What is pinned to it until
    then would wait for ever."""
    name, lost = "pinned", "127.0.0.3"
    engine = {"kind": "simulated", "arguments": {"tensor-parallel-size": 8, "speed": 20}}
    file = packing_study(tmp_path, name, 4, engine=engine, space={"max-num-seqs": [1, 2]})
    with fake_nodes(8, 8, directory=tmp_path) as nodes:
        with started("run", str(file), home=tmp_path, **nodes.environment) as driver:
            nodes.kill(lost)  # the driver needs a few seconds until it places its first trials
            assert driver.wait(timeout=240) == 0, (tmp_path / "stderr.txt").read_text()
        assert ours(name) == []
    trials = trials_of(tmp_path, name)
    assert [(trial.state, trial.node) for trial in trials] == [
        (TrialState.COMPLETE, "127.0.0.2")
    ] * 3
    never_twice(trials)


@pytest.fixture(scope="module")
def four_by_four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNodes]:
    with fake_nodes(4, 4, 4, 4, directory=tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


def test_trials_fill_the_nodes_and_never_share_a_gpu(
    four_by_four: FakeNodes, tmp_path: Path
) -> None:
    name = "fills"
    space = {"tensor-parallel-size": [4, 2, 1, 8], "max-num-seqs": [4, 16]}
    file = packing_study(tmp_path, name, 4, space=space)
    with started("run", str(file), home=tmp_path, **four_by_four.environment) as driver:
        assert driver.wait(timeout=300) == 0, (tmp_path / "stderr.txt").read_text()
    trials = trials_of(tmp_path, name)
    assert Counter(trial.state for trial in trials) == {
        TrialState.COMPLETE: 7,
        TrialState.INFEASIBLE: 2,
    }
    assert {trial.reason for trial in trials if trial.refused} == {
        "needs 8 GPUs on one node; the largest of 5 nodes has 4"
    }
    assert {trial.node for trial in trials if not trial.refused} <= {
        f"127.0.0.{number}" for number in range(2, 6)
    }
    assert together(trials) >= 3
    never_twice(trials)


def test_a_trial_that_breaks_while_it_starts_has_said_its_gpus_and_costs_them(
    four_by_four: FakeNodes, tmp_path: Path
) -> None:
    name = "breaks"
    engine = {"kind": "simulated", "arguments": {"start-seconds": 3, "speed": 20}}
    space = {"fail-at-start": ["port"], "tensor-parallel-size": [2]}
    file = packing_study(tmp_path, name, 1, engine=engine, space=space, verdict={"finalists": 0})

    def starting() -> bool:
        found = trials_of(tmp_path, name)
        return any(t.gpu_ids and t.state is TrialState.DEPLOYING and not t.phases for t in found)

    with started("run", str(file), home=tmp_path, **four_by_four.environment) as driver:
        assert wait_for(starting, 120), (tmp_path / "stderr.txt").read_text()
        assert driver.wait(timeout=300) == 0, (tmp_path / "stderr.txt").read_text()
    baseline, broken = trials_of(tmp_path, name)
    assert (baseline.state, broken.state) == (TrialState.COMPLETE, TrialState.FAILED)
    assert baseline.phases[0].name == "deploy"
    assert baseline.phases[1].name != "deploy"
    second, _, first = broken.reason.partition("; before that ")
    for said in (second, first):
        assert re.match(r"on 127\.0\.0\.[2-5] \(GPUs [0-3], [0-3]\): .*port", said), broken.reason
    assert len(broken.gpu_ids) == 2
    assert broken.gpu_hours > 0


def test_a_study_whose_baseline_no_node_can_hold_starts_nothing(
    four_by_four: FakeNodes, tmp_path: Path
) -> None:
    engine = {"kind": "simulated", "arguments": {"tensor-parallel-size": 16}}
    file = packing_study(tmp_path, "too-large", 4, engine=engine)
    with started("run", str(file), home=tmp_path, **four_by_four.environment) as driver:
        assert driver.wait(timeout=120) == 3
    said = (tmp_path / "stderr.txt").read_text()
    assert "the baseline needs 16 GPUs on one node; the largest of 5 nodes has 4" in said
    assert trials_of(tmp_path, "too-large") == []
