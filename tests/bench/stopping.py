"""`make bench-stopping`: what early stopping saves, and whether it costs the winner.

Random search of 20 trials over tables with several load points, 40 seeds each, 1 % noise, once
without a scheduler and once with `asha`; the same points in the same order with the same noise,
so that the two differ by the scheduler alone. In virtual time, by the product's own loop.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from autotuner.study.pareto import best_of
from autotuner.study.trial import Trial, TrialState
from tests.replays import replayed

TABLES = Path(__file__).parent / "tables"
SEEDS = 40
TRIALS = 20
OWN = {"scenario", "concurrency", "seconds", "failure", "reason"}


def space_and_loads(path: Path) -> tuple[dict[str, list[Any]], str, list[int]]:
    """What varies in a table, and the loads it was measured at."""
    from autotuner.study.metrics import METRICS

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in METRICS and name not in OWN]
    space = {
        name: list({row[name]: json.loads(row[name]) for row in rows if row[name]}.values())
        for name in names
    }
    for name in names:  # a flag that may be absent has an empty cell beside other parameters
        if any(not row[name] and any(row[n] for n in names) for row in rows):
            space[name].append(None)
    levels = sorted({int(row["concurrency"]) for row in rows if row["concurrency"]})
    scenario = next(row["scenario"] for row in rows if row["scenario"])
    return space, scenario, levels


def study(path: Path, seed: int, **changes: Any) -> list[Trial]:
    space, scenario, levels = space_and_loads(path)
    with tempfile.TemporaryDirectory() as place:
        _, _, trials = replayed(
            Path(place),
            path,
            space=space,
            noise=0.01,
            seed=seed,
            workload={"scenarios": [scenario], "concurrency": levels, "max_seconds": 60},
            limits={"trials": TRIALS, "hours": 1000},
            verdict={"finalists": 0},
            **changes,
        )
    return trials


def main() -> int:
    rows = [
        "| table | loads | GPU time saved | same winner | stopped of 20 |",
        "|---|---|---|---|---|",
    ]
    failed = False
    for path in sorted(TABLES.glob("*.csv")):
        levels = space_and_loads(path)[2]
        if len(levels) < 2:
            continue
        saved, same, stopped = [], 0, 0
        for seed in range(SEEDS):
            whole = study(path, seed)
            halved = study(path, seed, scheduler={"kind": "asha"})
            saved.append(1 - sum(t.gpu_hours for t in halved) / sum(t.gpu_hours for t in whole))
            one, other = (best_of(each, ["output_throughput"]) for each in (whole, halved))
            same += (one and one.parameters) == (other and other.parameters)
            stopped += sum(t.state is TrialState.STOPPED for t in halved)
        mean = sum(saved) / SEEDS
        # The others have few load points, or points that mostly fail before the first of them.
        failed |= path.stem.endswith("ladder") and (mean < 0.25 or same < 0.95 * SEEDS)
        rows.append(
            f"| {path.stem} | {', '.join(map(str, levels))} | {mean:.0%} "
            f"| {same} of {SEEDS} | {stopped / SEEDS:.1f} |"
        )
    print("\n".join(rows))
    return failed


if __name__ == "__main__":
    sys.exit(main())
