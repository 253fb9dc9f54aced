"""`make bench-api`: how fast the service answers while many follow a log, and if they miss a line.

`autotuner serve` as a process of its own, over a store with a made-up finished study of 200 trials
and one under way, whose log grows by 20 lines a second. 200 requests a second in turns, each at
its time whether or not those before it were answered, and measured from that time, so that a
stall counts for all whom it held up; 100 followers read the log and count its lines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import psutil

from autotuner.backends.guarded import this_process
from autotuner.store import Store
from autotuner.study.files import STUDY_LOG
from autotuner.study.metrics import METRICS
from autotuner.study.study import Study, StudyState, timestamp
from autotuner.study.trial import LoadPoint, Phase, Trial, TrialState
from tests.builders import spec
from tests.processes import started, tree
from tests.serving import service_port

TRIALS = 200
FINISHED, UNDER_WAY = "finished", "under-way"
LINES_PER_SECOND = 20
WARM_SECONDS, DRAIN_SECONDS, REQUEST_SECONDS = 3.0, 3.0, 30.0
TARGET_MS = 50.0

ROUTES: Mapping[str, str] = {
    "study list": "/v1/studies",
    "study": f"/v1/studies/{FINISHED}",
    "report": f"/v1/studies/{FINISHED}/report",
    "trial": f"/v1/studies/{FINISHED}/trials/{{number}}",
}


@dataclass
class Measured:
    """What came of the requests and of the lines.

    Attributes:
        seconds: by route, from when a request was due to its last byte.
        first: by route, the very first request of the service.
        delays: from the writing of a line until each follower had it, in seconds.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    lines: int = 0
    lost: int = 0
    repeated: int = 0
    delays: list[float] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rate", type=float, default=200, help="requests a second")
    arguments.add_argument("--followers", type=int, default=100)
    arguments.add_argument("--seconds", type=float, default=30)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        log = made_up(home)
        with serving(home) as (address, root, up):
            measured = asyncio.run(
                load(address, log, root, asked.rate, asked.followers, asked.seconds)
            )
    print(f"up after {up:.1f} s; {asked.rate:g} requests/s and {asked.followers} followers")
    print(f"for {asked.seconds:g} s; load of the machine {psutil.getloadavg()[0]:.1f}")
    show(measured, asked.seconds)
    every = sorted(value for values in measured.seconds.values() for value in values)
    good = quantile(every, 0.99) * 1e3 < TARGET_MS and not measured.errors
    sys.exit(not (good and measured.lost == measured.repeated == 0))


def made_up(home: Path) -> Path:
    """A store as after a long study, beside one that this process drives; its log."""
    store = Store(f"sqlite:///{home / 'autotuner.db'}")
    generator = random.Random(0)
    studies = home / "studies"
    done = spec(name=FINISHED, space={"max-num-seqs": {"type": "int", "low": 1, "high": 1024}})
    now = timestamp()
    whole = replace(Study(done, str(studies / FINISHED)), state=StudyState.COMPLETE)
    store.create(replace(whole, created_at=now, started_at=now, ended_at=now))
    for number in range(TRIALS):
        value = generator.uniform(500, 2000)
        metrics = dict.fromkeys(METRICS, value)
        point = LoadPoint(index=0, scenario="D(100,20)", concurrency=4, seconds=30, metrics=metrics)
        trial = Trial(
            number,
            {"max-num-seqs": number} if number else {},
            TrialState.COMPLETE,
            load_points=(point,),
            objectives=dict.fromkeys(done.objectives, value),
            phases=(Phase("deploy", 0, 20), Phase("load-0", 20, 52), Phase("stop", 52, 54)),
            node="127.0.0.1",
            gpu_ids=("0",),
            created_at=now,
            started_at=now,
            ended_at=now,
        )
        store.save(FINISHED, trial)
    directory = studies / UNDER_WAY
    directory.mkdir(parents=True)
    running = replace(Study(spec(name=UNDER_WAY), str(directory)), state=StudyState.RUNNING)
    store.create(replace(running, driver=this_process(), created_at=now, started_at=now))
    store.close()
    (directory / STUDY_LOG).touch()
    return directory / STUDY_LOG


@contextmanager
def serving(home: Path) -> Iterator[tuple[str, int, float]]:
    """`autotuner serve`: its address, its process, and the seconds until it served."""
    began = time.monotonic()
    variables = {"AUTOTUNER_REQUESTS_PER_SECOND": "100000"}  # they all come from one caller
    with started("serve", "--port", str(service_port()), home=home, **variables) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        if "serves at" not in said:
            sys.exit((home / "stderr.txt").read_text())
        yield said.split()[-1], process.pid, time.monotonic() - began
        process.terminate()
        process.wait(timeout=60)


async def load(
    address: str, log: Path, root: int, rate: float, followers: int, seconds: float
) -> Measured:
    """Ask and follow; see the module."""
    measured = Measured({route: [] for route in ROUTES})
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, connector=connector, timeout=timeout) as session:
        for name in ROUTES:  # each alone: what it takes to read a study and compute what is kept
            await one(session, name, 1, time.perf_counter(), first := Measured({name: []}))
            measured.first[name] = first.seconds[name][0]
        seen = [Counter[int]() for _ in range(followers)]
        writer = asyncio.create_task(write(log))
        follow = [asyncio.create_task(followed(session, each, measured)) for each in seen]
        await ask(session, rate, WARM_SECONDS, Measured({route: [] for route in ROUTES}))
        before, own = cpu_seconds(root), time.process_time()
        measured.delays.clear()
        await ask(session, rate, seconds, measured)
        after = cpu_seconds(root)
        measured.cpu = {
            name: (value - before.get(name, 0)) / seconds for name, value in after.items()
        }
        measured.cpu["this load"] = (time.process_time() - own) / seconds
        writer.cancel()
        await asyncio.sleep(DRAIN_SECONDS)
        for each in follow:
            if each.done() and not each.cancelled():
                measured.errors[f"a follower ended: {each.exception()!r}"] += 1
            each.cancel()
        await asyncio.gather(*follow, return_exceptions=True)
    measured.lines = len(log.read_text().splitlines())
    for lines in seen:
        measured.lost += sum(lines[number] == 0 for number in range(measured.lines))
        measured.repeated += sum(count - 1 for count in lines.values() if count > 1)
    return measured


async def write(log: Path) -> None:
    """A line after the other, each with its number and the time."""
    began, number = time.monotonic(), 0
    with log.open("a") as file:
        while True:
            file.write(f"{number} {time.monotonic()} trial {number} BENCHMARKING  D(100,20) x 4\n")
            file.flush()
            number += 1
            await asyncio.sleep(max(0, began + number / LINES_PER_SECOND - time.monotonic()))


async def followed(session: aiohttp.ClientSession, lines: Counter[int], into: Measured) -> None:
    """Follow the log, from its first line on."""
    async with session.get(f"/v1/studies/{UNDER_WAY}/logs?follow=true") as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not line.startswith(b"data: ["):
                continue
            now = time.monotonic()
            for each in json.loads(line[6:]):
                number, written, _ = each.split(" ", 2)
                lines[int(number)] += 1
                into.delays.append(now - float(written))


async def ask(session: aiohttp.ClientSession, rate: float, seconds: float, into: Measured) -> None:
    """Requests at their times, in turns through the routes."""
    began = time.perf_counter()
    names = list(ROUTES)
    asked = []
    for count in range(int(rate * seconds)):
        due = began + count / rate
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        name = names[count % len(names)]
        asked.append(asyncio.create_task(one(session, name, count % TRIALS, due, into)))
    _, late = await asyncio.wait(asked, timeout=REQUEST_SECONDS)
    for each in late:
        each.cancel()
        into.errors["not answered"] += 1


async def one(
    session: aiohttp.ClientSession, name: str, number: int, due: float, into: Measured
) -> None:
    try:
        async with session.get(ROUTES[name].format(number=number)) as answer:
            into.bytes += len(await answer.read())
            if answer.status != 200:
                into.errors[f"{name}: {answer.status}"] += 1
    except (aiohttp.ClientError, OSError) as error:
        into.errors[f"{name}: {error!r}"] += 1
    into.seconds[name].append(time.perf_counter() - due)


def cpu_seconds(root: int) -> dict[str, float]:
    """What all processes of the service have used, by what they are."""
    used: dict[str, float] = {}
    # The guard has left the family, and all of Ray with it.
    family = [*tree(root), *(p for p in psutil.process_iter() if _of_service(p, root))]
    for process in {each.pid: each for each in family}.values():
        try:
            times, title = process.cpu_times(), process.cmdline()
        except psutil.Error:
            continue
        name = _called(title)
        used[name] = used.get(name, 0) + times.user + times.system
    return used


def _of_service(process: psutil.Process, root: int) -> bool:
    try:
        return process.environ().get("AUTOTUNER_OWNER", "").split(":")[0] == str(root)
    except psutil.Error:
        return False


def _called(title: Sequence[str]) -> str:
    text = " ".join(title)
    for part in ("ServeReplica", "ProxyActor", "ServeController"):
        if part in text:
            return part
    return "the rest of Ray"


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that this share of them does not exceed; NaN of none."""
    return values[min(len(values), math.ceil(share * len(values))) - 1] if values else math.nan


def show(measured: Measured, seconds: float) -> None:
    columns = ("requests", "p50", "p95", "p99", "most", "the first")
    print(f"\n{'ms':12}", *(f"{each:>9}" for each in columns))
    every = [value for values in measured.seconds.values() for value in values]
    delays = measured.delays
    for name, values in (*measured.seconds.items(), ("all", every), ("a line", delays)):
        values = sorted(values)
        figures = [f"{quantile(values, q) * 1e3:9.1f}" for q in (0.5, 0.95, 0.99, 1)]
        figures += [f"{measured.first[name] * 1e3:9.1f}"] if name in measured.first else []
        print(f"{name:12} {len(values):9}", *figures)
    print(f"\nerrors {sum(measured.errors.values())}", dict(measured.errors.most_common(5)))
    print(f"lines {measured.lines}: lost {measured.lost}, repeated {measured.repeated}")
    print(f"answers {measured.bytes / 2**20 / seconds:.1f} MiB/s")
    for name, cores in sorted(measured.cpu.items(), key=lambda each: -each[1]):
        print(f"{name:16} {cores:6.2f} cores")


if __name__ == "__main__":
    main()
