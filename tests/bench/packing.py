"""`make bench-packing`: how busy trials of 1, 2, 4 and 8 GPUs keep two nodes of 8 GPUs.

40 trials. First in virtual time, with drawn durations: the placer beside two who place without
it, and beside what no one can surpass. Then once for real, on a Ray cluster of two nodes on this
machine with GPUs that are numbers, with the simulated engine and the product's own driver.

    python -m tests.bench.packing [virtual|real]
"""

from __future__ import annotations

import heapq
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from autotuner.execution.placer import UNLEARNT_AHEAD, Placed, Placer
from autotuner.execution.reservation import Node, Reservation
from autotuner.store import Store
from autotuner.study.study import seconds_between
from tests.brief import KIND
from tests.fakenodes import fake_nodes
from tests.processes import started
from tests.simulated import study_file

SIZES = (1, 2, 4, 8)
TRIALS = 40
NODES = (Node(64, 8, "a"), Node(64, 8, "b"))
GPUS = int(sum(node.gpus for node in NODES))
SEEDS = 50
SPREAD = 0.4
"""Standard deviation of the logarithm of a trial's duration; its median is 1."""
TARGET = 0.85


class Job(NamedTuple):
    """A trial as the bench knows it; no placer is told how long it lasts."""

    gpus: int
    seconds: float


class Places(Protocol):
    """What the bench asks of who gives places; see `Placer`."""

    def wait(self, number: int, needed: Reservation) -> None: ...

    def place(self) -> Placed | None: ...

    @property
    def wants_more(self) -> bool: ...

    def started(self, number: int) -> None: ...

    def ended(self, number: int, *, broke: bool) -> None: ...

    def see(self, nodes: Iterable[Node]) -> None: ...


class FirstFit:
    """As without a placer: any node that has room, whoever comes first, nothing kept for anybody.

    Args:
        ahead: trials asked for before there is a place for them; with 0 nobody starts before
            those asked for earlier (FIFO).
    """

    def __init__(self, *, ahead: int) -> None:
        self._ahead = ahead
        self._free = {node.id: node.gpus for node in NODES}
        self._waiting: dict[int, Reservation] = {}
        self._places: dict[int, tuple[str, int]] = {}

    def wait(self, number: int, needed: Reservation) -> None:
        self._waiting[number] = needed

    def place(self) -> Placed | None:
        for number, needed in self._waiting.items():
            for node, free in self._free.items():
                if free >= needed.gpus:
                    self._free[node] -= needed.gpus
                    self._places[number] = (node, needed.gpus)
                    del self._waiting[number]
                    return Placed(number, (node,))
        return None

    @property
    def wants_more(self) -> bool:
        most = min(1 + self._ahead, GPUS - len(self._places))  # that many at once, at most
        return len(self._waiting) < most

    def started(self, number: int) -> None:
        pass

    def ended(self, number: int, *, broke: bool) -> None:
        node, gpus = self._places.pop(number)
        self._free[node] += gpus

    def see(self, nodes: Iterable[Node]) -> None:
        pass


@dataclass(frozen=True)
class Packed:
    """How a set of trials went.

    Attributes:
        busy: share of the GPU time that was used.
        longest_wait: of a trial of a whole node, from being asked for to its start.
        missed: trials that ended between the asking for a trial and its start, on average: what
            a searcher could have learnt from, had it been asked later.
    """

    busy: float
    longest_wait: float
    missed: float


def drawn(seed: int) -> list[Job]:
    draw = random.Random(seed)
    return [Job(draw.choice(SIZES), draw.lognormvariate(0, SPREAD)) for _ in range(TRIALS)]


def packed(jobs: Sequence[Job], placer: Places) -> Packed:
    """The trials in virtual time, each asked for when its placer wants one more."""
    now, waits, missed, ended = 0.0, [0.0], 0, 0
    asked: dict[int, tuple[float, int]] = {}
    ends: list[tuple[float, int]] = []
    while True:
        while True:
            while (placed := placer.place()) is not None:
                job = jobs[placed.number]
                placer.started(placed.number)
                heapq.heappush(ends, (now + job.seconds, placed.number))
                since, known = asked[placed.number]
                missed += ended - known
                if job.gpus == max(SIZES):
                    waits.append(now - since)
            if len(asked) == len(jobs) or not placer.wants_more:
                break
            number = len(asked)
            asked[number] = (now, ended)
            placer.wait(number, Reservation(1, jobs[number].gpus))
        if not ends:
            return Packed(work(jobs) / (GPUS * now), max(waits), missed / len(jobs))
        now, number = heapq.heappop(ends)
        ended += 1
        placer.ended(number, broke=False)
        placer.see(NODES)


def work(jobs: Sequence[Job]) -> float:
    """GPU-seconds."""
    return sum(job.gpus * job.seconds for job in jobs)


def limit(jobs: Sequence[Job]) -> float:
    """A busy share that no one surpasses, whatever they know: all of the work evenly spread, the
    longest trial, and those of a whole node one after another on each."""
    whole = sum(job.seconds for job in jobs if job.gpus > max(SIZES) // 2)
    longest = max(job.seconds for job in jobs)
    return work(jobs) / GPUS / max(work(jobs) / GPUS, longest, whole / len(NODES))


def seeing(placer: Placer) -> Placer:
    placer.see(NODES)
    return placer


PEERS: dict[str, Callable[[], Places]] = {
    "FIFO": lambda: FirstFit(ahead=0),
    "first fit, 2 asked ahead, no pins": lambda: FirstFit(ahead=2),
    "first fit, 16 at a time, no pins": lambda: FirstFit(ahead=GPUS),
    "placer, 0 asked ahead": lambda: seeing(Placer(ahead=0)),
    "placer, 1 asked ahead": lambda: seeing(Placer(ahead=1)),
    "**placer** (2 asked ahead)": lambda: seeing(Placer()),
    "placer, places kept at once": lambda: seeing(Placer(overtaken=0)),
    "placer, places kept after 8": lambda: seeing(Placer(overtaken=8)),
    "**placer** (8 asked ahead, for searchers that do not learn)": lambda: seeing(
        Placer(ahead=UNLEARNT_AHEAD, overtaken=UNLEARNT_AHEAD)
    ),
    "placer, all asked ahead, none kept": lambda: seeing(Placer(ahead=TRIALS, overtaken=TRIALS)),
}


def virtual() -> bool:
    """Print the table of the virtual runs; whether the placer reaches the target."""
    sets = [drawn(seed) for seed in range(SEEDS)]
    head = ("busy, mean", "least", "longest wait, mean", "most", "answers missed")
    print(f"| {SEEDS} seeds, {TRIALS} trials on 2 x 8 GPUs | {' | '.join(head)} |")
    print("|---" * (len(head) + 1) + "|")
    means = {}
    for name, placer in PEERS.items():
        runs = [packed(jobs, placer()) for jobs in sets]
        busy, waits = [run.busy for run in runs], [run.longest_wait for run in runs]
        means[name] = statistics.mean(busy)
        missed = statistics.mean(run.missed for run in runs)
        print(
            f"| {name} | {means[name]:.1%} | {min(busy):.1%} "
            f"| {statistics.mean(waits):.1f} | {max(waits):.1f} | {missed:.1f} |"
        )
    limits = [limit(jobs) for jobs in sets]
    print(f"| limit | {statistics.mean(limits):.1%} | {min(limits):.1%} | | | |")
    print()
    return all(mean >= TARGET for name, mean in means.items() if name.startswith("**"))


SECONDS = 120.0
"""Median length of a trial's load in the real run; its start takes another few."""


def real() -> bool:
    """Print the table of one study through the driver; whether it reaches the target."""
    with tempfile.TemporaryDirectory() as place:
        directory, name = Path(place), "packing"
        file = study_file(
            directory,
            name=name,
            space={
                "tensor-parallel-size": list(SIZES),
                "max-num-seqs": {"type": "int", "low": 1, "high": 64},
            },
            workload={"scenarios": ["D(50,20)"], "concurrency": [4], "max_seconds": SECONDS},
            benchmark={"kind": KIND},
            search={"kind": "random"},
            limits={"trials": TRIALS, "trial_seconds": 900},
        )
        with (
            fake_nodes(*(int(node.gpus) for node in NODES), directory=directory) as nodes,
            started("run", str(file), home=directory, **nodes.environment) as driver,
        ):
            if driver.wait():
                print((directory / "stderr.txt").read_text())
                return False
        store = Store(f"sqlite:///{directory / 'autotuner.db'}")
        trials = store.trials(name)
        store.close()
    begun = min(trial.started_at for trial in trials)
    makespan = seconds_between(begun, max(trial.ended_at for trial in trials))
    assert makespan
    used = sum(len(trial.gpu_ids) * trial.seconds for trial in trials)
    waits = [
        seconds_between(trial.created_at, trial.started_at) or 0.0
        for trial in trials
        if len(trial.gpu_ids) == max(SIZES)
    ]
    jobs = [Job(len(trial.gpu_ids), trial.seconds) for trial in trials]
    expected = packed(jobs, seeing(Placer(ahead=UNLEARNT_AHEAD, overtaken=UNLEARNT_AHEAD)))
    sizes = Counter(job.gpus for job in jobs)
    print("| one study through the driver | |")
    print("|---|---|")
    print(f"| trials, of 1, 2, 4 and 8 GPUs | {', '.join(str(sizes[size]) for size in SIZES)} |")
    print(f"| median trial | {statistics.median(job.seconds for job in jobs):.1f} s |")
    print(f"| from the first start to the last end | {makespan:.0f} s |")
    print(f"| **busy** | **{used / (GPUS * makespan):.1%}** |")
    print(f"| busy, the same trials in virtual time | {expected.busy:.1%} |")
    print(f"| limit for them | {limit(jobs):.1%} |")
    print(f"| longest wait of a trial of 8 GPUs | {max(waits, default=0):.0f} s |")
    return used / (GPUS * makespan) >= TARGET


def main() -> int:
    parts = {"virtual": virtual, "real": real}
    asked = sys.argv[1:] or list(parts)
    met = [parts[part]() for part in asked]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
