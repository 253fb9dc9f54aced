"""The whole of it on real vLLM with real genai-bench through Ray Tune; takes minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import alive, command_holds, local_ray, ours, started, tree, wait_for

ROOT = Path(__file__).parent.parent.parent
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
MODEL = ROOT / ".cache" / "tiny-llama" / "config.json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(not VLLM.exists() or not MODEL.exists(), reason="run `make vllm model`"),
]


def run_example(name: str, home: Path, *, seconds: float) -> tuple[int, dict[str, Any], str]:
    """Run an example's study; its exit code, its report and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "autotuner", "run", f"examples/{name}/study.yaml", "--json"],
        cwd=ROOT,
        env={**os.environ, "AUTOTUNER_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.timeout(1800)
def test_the_laptop_example_finds_a_gain_over_vllms_defaults(tmp_path: Path) -> None:
    code, report, said = run_example("01-laptop", tmp_path, seconds=1780)
    assert code == 0, said
    trials = [trial for trial in report["trials"] if not trial["refused"]]
    assert len(trials) >= 7, "at least six trials and the baseline"
    measured = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert len(measured) >= 6, said
    for trial in measured:
        assert [point["concurrency"] for point in trial["load_points"]] == [1, 8]
        for point in trial["load_points"]:
            assert point["metrics"]["error_rate"] == 0
            assert point["metrics"]["requests"] >= 10
    # What the example is about, once in the search and again by other launches: measured gains
    # were several times this, and a shared machine spoils no mean by as much.
    told = json.dumps(report["statement"], indent=1)
    reached = {
        trial["number"]: trial["objectives"]["output_throughput"]
        for trial in measured
        if not trial["round"]
    }
    assert max(reached.values()) / reached[0] - 1 > 0.2, told
    verdict = report["verdict"]
    assert verdict["rounds"] >= 2, "the winner and the defaults were launched again"
    finalist = verdict["standings"][1]
    assert {trial["repeat_of"] for trial in measured if trial["round"]} == {
        0,
        finalist["candidate"],
    }
    assert finalist["gain"] > 0.2, told
    # Whether chance is ruled out is for the machine's noise to say, and is said as it is.
    assert finalist["separated"] == (verdict["finding"] == "gain") == (finalist["low"] > 0), told
    if verdict["finding"] == "gain":
        assert report["winner"] == report["best"] == finalist["candidate"], told
        assert report["gain"]["output_throughput"] == pytest.approx(finalist["gain"]), told
    else:
        assert verdict["finding"] == "no significant gain", told
        assert report["best"] == report["baseline"] == 0, told
        assert report["gain"]["output_throughput"] == 0, told
    assert ".venv-vllm/bin/python" in report["command"]
    page = (tmp_path / "studies" / "tiny-llama-cpu" / "report.html").read_text()
    assert "tiny-llama-cpu" in page
    assert ours("tiny-llama-cpu") == []


@pytest.mark.timeout(420)
def test_a_flag_vllm_does_not_survive_is_infeasible_with_its_own_reason(tmp_path: Path) -> None:
    code, report, said = run_example("02-a-flag-that-fails", tmp_path, seconds=400)
    assert code == 0, said
    by_point = {json.dumps(trial["parameters"]): trial for trial in report["trials"]}
    died = by_point['{"block-size": 24, "max-num-batched-tokens": 2048}']
    assert (died["state"], died["failure"]) == ("INFEASIBLE", "invalid argument")
    assert "No common block size for 24" in died["reason"]
    assert died["reason"].split(" (")[0] in (Path(died["directory"]) / "server.log").read_text()
    assert died["log_tail"]
    refused = [trial for trial in report["trials"] if trial["refused"]]
    assert {trial["parameters"]["max-num-batched-tokens"] for trial in refused} == {32}
    went_on = by_point['{"block-size": 64, "max-num-batched-tokens": 2048}']
    assert went_on["state"] == "COMPLETE"
    assert went_on["number"] > died["number"]


KILL_STUDY = """
name: {name}
model: {{path: {model}, served_name: tiny-llama}}
engine:
  kind: vllm
  command: [{python}, -m, vllm.entrypoints.openai.api_server]
  arguments: {{max-model-len: 2048, enforce-eager: true}}
  environment: {{VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1}}
workload: {{scenarios: ["D(64,64)"], concurrency: [2], max_requests: 100000, max_seconds: 120}}
limits: {{ready_seconds: 150, trial_seconds: 600}}
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["driver", "actor", "child of the engine"])
def test_killed_by_sigkill_no_process_is_left_after_ten_seconds(
    tmp_path: Path, victim: str
) -> None:
    name = f"kill-{victim.replace(' ', '-')}"
    file = tmp_path / "study.yaml"
    file.write_text(KILL_STUDY.format(name=name, model=MODEL.parent, python=VLLM))
    with started("run", str(file), home=tmp_path, HF_HUB_OFFLINE="1") as driver:
        loading = tmp_path / "studies" / name / "trials" / "0000" / "load-0" / "genai-bench.log"
        assert wait_for(loading.exists, 180), (tmp_path / "stderr.txt").read_text()
        family, processes = tree(driver.pid) + local_ray(name), ours(name)
        # The server, its engine core, a worker, the load generator and the two guards.
        assert len(processes) >= 6, [p.cmdline() for p in processes]
        the(victim, driver.pid, name, processes).kill()
        assert wait_for(lambda: not any(map(alive, processes)), 10), [
            (p.pid, p.cmdline()) for p in processes if alive(p)
        ]
        if victim == "driver":
            assert wait_for(lambda: not any(map(alive, family)), 10), [
                (p.pid, p.cmdline()) for p in family if alive(p)
            ]
        if victim == "child of the engine":
            # The engine died of it: an answer about the trial, and the end of this study.
            assert driver.wait(timeout=60) == 1
            assert ours(name) == []


def the(victim: str, driver: int, name: str, processes: list[psutil.Process]) -> psutil.Process:
    """The one process to kill."""
    if victim == "driver":
        return psutil.Process(driver)
    if victim == "actor":
        return next(p for p in local_ray(name) if command_holds(p, "ray::TrialActor"))
    return next(p for p in processes if command_holds(p, "EngineCore"))
