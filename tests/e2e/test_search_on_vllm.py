"""Searching on real vLLM: going on after a death, and stopping early; takes minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from autotuner.backends.guarded import labelled
from autotuner.store import Store
from autotuner.study.trial import Trial, TrialState
from tests.e2e.test_vllm import MODEL, VLLM
from tests.processes import alive, local_ray, ours, started, tree, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(not VLLM.exists() or not MODEL.exists(), reason="run `make vllm model`"),
]

STUDY = """
name: {name}
model: {{path: {model}, served_name: tiny-llama}}
engine:
  kind: vllm
  command: [{python}, -m, vllm.entrypoints.openai.api_server]
  arguments: {{max-model-len: 2048, enforce-eager: true}}
  environment:
    VLLM_CPU_KVCACHE_SPACE: 1
    HF_HUB_OFFLINE: 1
    VLLM_ENABLE_V1_MULTIPROCESSING: 0
    OMP_NUM_THREADS: 1
    OMP_WAIT_POLICY: passive
    NUMBA_NUM_THREADS: 1
space: {{max-num-seqs: {sequences}}}
workload:
  scenarios: ["D(32,32)"]
  concurrency: {concurrency}
  max_requests: 200
  max_seconds: 3
  warmup_requests: 8
search: {{kind: grid}}
verdict: {{finalists: 0}}
limits: {{ready_seconds: 150, trial_seconds: 300}}
{more}
"""


def study_file(directory: Path, name: str, sequences: list[int], more: str = "") -> Path:
    path = directory / "study.yaml"
    concurrency = [8, 1] if more else [4]
    path.write_text(
        STUDY.format(
            name=name,
            model=MODEL.parent,
            python=VLLM,
            sequences=sequences,
            concurrency=concurrency,
            more=more,
        )
    )
    return path


def trials(home: Path, name: str) -> list[Trial]:
    if not (home / "autotuner.db").exists():
        return []
    store = Store(f"sqlite:///{home / 'autotuner.db'}")
    try:
        return store.trials(name)
    finally:
        store.close()


def reached(home: Path, name: str, number: int, state: TrialState) -> Callable[[], bool]:
    return lambda: any(t.number == number and t.state is state for t in trials(home, name))


@pytest.mark.timeout(420)
def test_killed_in_its_third_trial_a_study_goes_on_without_repeating_or_losing_any(
    tmp_path: Path,
) -> None:
    name = "goes-on"
    file = study_file(tmp_path, name, [4, 8, 16])
    with started("run", str(file), home=tmp_path, HF_HUB_OFFLINE="1") as driver:
        third = reached(tmp_path, name, 2, TrialState.BENCHMARKING)
        assert wait_for(third, 240), (tmp_path / "stderr.txt").read_text()
        family = tree(driver.pid) + local_ray(name)
        psutil.Process(driver.pid).kill()
        assert wait_for(lambda: not any(map(alive, family)) and not ours(name), 15)
    before = {t.number: t for t in trials(tmp_path, name) if t.state.ended}
    assert set(before) == {0, 1}
    with started("resume", name, "--json", home=tmp_path, HF_HUB_OFFLINE="1") as driver:
        again = reached(tmp_path, name, 2, TrialState.DEPLOYING)
        assert wait_for(again, 60), (tmp_path / "stderr.txt").read_text()
        second = subprocess.run(
            [sys.executable, "-m", "autotuner", "resume", name],
            env={**os.environ, "AUTOTUNER_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 2
        assert f" {driver.pid}:" in second.stderr, "it says who holds the study"
        driver.communicate(timeout=300)
        assert driver.returncode == 0
    after = trials(tmp_path, name)
    assert [(t.number, t.parameters) for t in after] == [
        (0, {}),
        (1, {"max-num-seqs": 4}),
        (2, {"max-num-seqs": 8}),
        (3, {"max-num-seqs": 16}),
    ]
    assert all(t.state is TrialState.COMPLETE for t in after)
    assert {t.number: t for t in after if t.number in before} == before
    assert ours(name) == []


@pytest.mark.timeout(420)
def test_a_stopped_trials_server_is_gone_and_the_next_trial_starts_within_five_seconds(
    tmp_path: Path,
) -> None:
    name = "stops-early"
    # With one sequence at a time the load of eight at once is far behind any other.
    file = study_file(
        tmp_path, name, [16, 1, 32], more="scheduler: {kind: asha, reduction_factor: 2}"
    )
    with started("run", str(file), "--json", home=tmp_path, HF_HUB_OFFLINE="1") as driver:
        stopped = reached(tmp_path, name, 2, TrialState.STOPPED)
        assert wait_for(stopped, 300), (tmp_path / "stderr.txt").read_text()
        following = reached(tmp_path, name, 3, TrialState.DEPLOYING)
        assert wait_for(following, 30)
        left = [p for p, labels in labelled(name) if labels.get("AUTOTUNER_TRIAL") == "2"]
        assert left == []
        driver.communicate(timeout=200)
        assert driver.returncode == 0
    _, one, weak, last = trials(tmp_path, name)
    assert len(weak.load_points) == 1, "what it measured is kept"
    assert weak.load_points[0].concurrency == 8, "the busiest load comes first"
    assert one.state is last.state is TrialState.COMPLETE
    waited = datetime.fromisoformat(last.started_at) - datetime.fromisoformat(weak.ended_at)
    assert waited.total_seconds() <= 5
    print(f"the next trial started {waited.total_seconds():.2f} s after the decision")
