"""`make bench-overhead`: what autotuner adds to the time a study needs anyway, on real vLLM.

Runs examples/01-laptop, one trial at a time, and prints

    wall time of the study / sum over its trials of (server start + load time)

from the moment Ray is up to the last server gone. Server start is the phase from launch to
healthy; load time is each load point's phase with its warm-up, without what the load generator
does before its first and after its last request. Everything else is overhead: Ray's actors,
planning, the load generator's own start and reports, stopping servers.

    python tests/bench/overhead.py REPORT.json

prints the same of a study that has been run, from its report and its directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
LIMIT = 1.10


def main() -> None:
    if len(sys.argv) > 1:
        show(json.loads(Path(sys.argv[1]).read_text()))
        return
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-m", "autotuner", "run", "examples/01-laptop/study.yaml", "--json"],
            cwd=ROOT,
            env={**os.environ, "AUTOTUNER_HOME": home},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"the study ended with exit code {done.returncode}")
        show(json.loads(done.stdout))


def show(report: dict[str, Any]) -> None:
    start = load = warmup = stop = 0.0
    for trial in report["trials"]:
        for phase in trial["phases"]:
            seconds = phase["end"] - phase["start"]
            if phase["name"] == "deploy":
                start += seconds
            elif phase["name"] == "stop":
                stop += seconds
        for point in trial["load_points"]:
            directory = Path(trial["directory"]) / f"load-{point['index']}"
            window = json.loads((directory / "window.json").read_text())
            load += window["seconds"]
            warmup += window["warmup_seconds"]
    launched = [trial for trial in report["trials"] if trial["phases"]]
    whole = sum(trial["seconds"] for trial in launched)
    wall = report["study"]["seconds"]
    between = wall - whole
    needed = start + load + warmup
    print(f"trials                             {len(launched)}")
    print(f"wall time of the study             {wall:8.1f} s")
    print(f"  server start                     {start:8.1f} s")
    print(f"  load: measured windows           {load:8.1f} s")
    print(f"  load: warm-up                    {warmup:8.1f} s")
    print(f"  load generator around its load   {whole - needed - stop:8.1f} s")
    print(f"  stop                             {stop:8.1f} s")
    print(f"  between trials                   {between:8.1f} s")
    print(f"wall / (start + load)              {wall / needed:8.3f}   limit {LIMIT:.2f}")
    print(f"wall / (start + load, no warm-up)  {wall / (start + load):8.3f}")


if __name__ == "__main__":
    main()
