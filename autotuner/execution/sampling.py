"""Sampling server, machine and load generator once a second while a load point runs.

It must not disturb what it watches, nor ever fail a trial: what cannot be read is None. A sample
costs this process one millisecond of CPU, and the server one answer to `/metrics`.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

import psutil

from autotuner.engines.base import Told
from autotuner.execution.nvidia import GpuUse
from autotuner.study import telemetry
from autotuner.study.model import GIB
from autotuner.study.telemetry import Samples

PERIOD_SECONDS = 1.0

TIMEOUT_SECONDS = 2.0
"""For an answer of the server's. A busy one that takes longer is not asked again meanwhile."""

SHORTEST_SECONDS = 0.1
"""CPU times are counted in hundredths of a second: of less than this they say nothing."""

Probe = Callable[[], Mapping[str, float | None]]
"""Values by signal, now."""

# No proxy: a server of ours is on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Sampler:
    """Takes samples in a thread of its own, from `start` to `stop`.

    Args:
        clock: of the samples' times, in seconds.
        wait: returns after so many seconds, or earlier and True once `stop` was called.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        period: float = PERIOD_SECONDS,
    ) -> None:
        self._probes = probes
        self._clock = clock
        self._ended = threading.Event()
        self._wait = wait or self._ended.wait
        self._period = period
        self._taken: list[tuple[float, dict[str, float | None]]] = []
        self._thread = threading.Thread(target=self.run, name="sampler", daemon=True)

    def start(self) -> None:
        if self._probes:
            self._thread.start()

    def stop(self) -> Samples:
        """All samples; the last one is taken now, so that counters are read to their end."""
        self._ended.set()
        if self._thread.is_alive():
            # A server that hangs must not hold its trial: the thread ends by itself.
            self._thread.join(2 * TIMEOUT_SECONDS)
        return self.samples()

    def run(self) -> None:
        """One sample a period until `wait` says that it is over, and one then."""
        due = self._clock()
        over = False
        while not over:
            self._take()
            # One that took longer than a period is followed by the next, not by those missed.
            due = max(due + self._period, self._clock())
            over = self._wait(max(due - self._clock(), 0.0))
        self._take()

    def samples(self) -> Samples:
        taken = list(self._taken)
        if not taken:
            return Samples()
        began = taken[0][0]
        found = {signal for _, values in taken for signal, v in values.items() if v is not None}
        return Samples(
            seconds=tuple(at - began for at, _ in taken),
            series={
                signal: tuple(values.get(signal) for _, values in taken)
                for signal in telemetry.SIGNALS
                if signal in found
            },
        )

    def _take(self) -> None:
        at = self._clock()
        values: dict[str, float | None] = {}
        for probe in self._probes:
            try:
                values.update(probe())
            except Exception:  # noqa: BLE001  # a driver, a race with a dying process: no answer
                continue
        self._taken.append((at, values))


def server_probe(url: str, told: Told) -> Probe:
    """What a server at a base URL tells of itself; nothing where it does not answer."""

    def probe() -> Mapping[str, float | None]:
        try:
            with _OPENER.open(url + told.path, timeout=TIMEOUT_SECONDS) as answer:
                text = answer.read().decode("utf-8", errors="replace")
        except (OSError, ValueError):
            return {}
        return signals_in(text, told.series)

    return probe


def signals_in(text: str, series: Mapping[str, Sequence[str]]) -> dict[str, float | None]:
    """Signals in a page of Prometheus' text format.

    Of several names the first that is there counts. Series of one name differ in their labels,
    such as replicas: their values are added up, of a share the highest is taken. A counter that
    is not there yet is 0 where its engine tells of anything at all.
    """
    values = _values(text, frozenset(name for names in series.values() for name in names))
    found: dict[str, float | None] = {}
    for signal, names in series.items():
        seen = next((values[name] for name in names if name in values), None)
        if seen is not None:
            found[signal] = max(seen) if signal == telemetry.KV_USAGE else sum(seen)
        elif values and signal in telemetry.COUNTERS:
            found[signal] = 0.0
    return found


def _values(text: str, names: frozenset[str]) -> dict[str, list[float]]:
    """Finite values by name. A scan for a few names is 50 times as fast as a parse of the page."""
    among = "|".join(re.escape(name) for name in sorted(names))
    line = rf'^({among})(?:\{{(?:[^"}}\n]|"(?:[^"\\\n]|\\.)*")*\}})?[ \t]+(\S+)'
    found: dict[str, list[float]] = {}
    for name, said in re.findall(line, text, re.MULTILINE) if names else ():
        try:
            value = float(said)
        except ValueError:
            continue
        if math.isfinite(value):
            found.setdefault(name, []).append(value)
    return found


def gpu_probe(gpu_ids: Sequence[str], use: Callable[[str], GpuUse | None]) -> Probe:
    """The trial's GPUs on this machine: memory of the fullest, utilisation on average, power of
    all together."""

    def probe() -> Mapping[str, float | None]:
        found = [each for gpu in gpu_ids if (each := use(gpu)) is not None]
        busy = [each.utilisation for each in found if each.utilisation is not None]
        power = [each.power for each in found if each.power is not None]
        return {
            telemetry.GPU_MEMORY: max((each.memory for each in found), default=None),
            telemetry.GPU_UTILISATION: sum(busy) / len(busy) if busy else None,
            telemetry.GPU_POWER: sum(power) if power else None,
        }

    return probe


class HostProbe:
    """CPUs that this process may use, as a share of their time since the last call; memory of the
    machine.

    Args:
        times: seconds that they were busy, and seconds of all of them.
    """

    def __init__(self, times: Callable[[], tuple[float, float]] | None = None) -> None:
        self._cpus = os.sched_getaffinity(0)
        self._times = times or (lambda: cpu_times(self._cpus))
        self._before = self._times()

    def __call__(self) -> Mapping[str, float | None]:
        return {
            telemetry.HOST_CPU: self._share(),
            telemetry.HOST_MEMORY: host_memory()[0],
        }

    def _share(self) -> float | None:
        busy, total = self._times()
        before_busy, before_total = self._before
        passed = total - before_total
        if passed < SHORTEST_SECONDS * len(self._cpus):
            return None
        self._before = busy, total
        return min(max((busy - before_busy) / passed, 0.0), 1.0)


def host_memory() -> tuple[float, float]:
    """GiB of this machine's memory that nobody else could have now, and GiB of all of it. What
    caches hold is not in use: it is there to be had."""
    memory = psutil.virtual_memory()
    return (memory.total - memory.available) / GIB, memory.total / GIB


def cpu_times(cpus: Set[int]) -> tuple[float, float]:
    """Seconds that some CPUs were busy since the machine's start, and seconds of all of them."""
    each = psutil.cpu_times(percpu=True)
    mine = [times for cpu, times in enumerate(each) if cpu in cpus] or each
    total = sum(sum(times[:8]) for times in mine)  # guests' time is in user's already
    idle = sum(times.idle + times.iowait for times in mine)
    return total - idle, total


class LoadProbe:
    """Cores that a process and all below it used since the last call.

    Args:
        pid: tells which process; None until it is known.
    """

    def __init__(
        self, pid: Callable[[], int | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pid = pid
        self._clock = clock
        self._before = self._spent()
        self._at = clock()

    def __call__(self) -> Mapping[str, float | None]:
        now, spent = self._clock(), self._spent()
        before, passed = self._before, now - self._at
        if before and passed < SHORTEST_SECONDS:
            return {}
        self._before, self._at = spent, now
        if not before or not spent:
            return {}
        # One that is new has spent all of its time since; one that ended has taken its own along.
        used = sum(seconds - before.get(process, 0.0) for process, seconds in spent.items())
        return {telemetry.LOAD_CPU: used / passed}

    def _spent(self) -> dict[tuple[int, float], float]:
        """Seconds of CPU by process; PIDs are used again, so with its start."""
        pid = self._pid()
        if pid is None:
            return {}
        found = {}
        for each in family(pid):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(each)
                times = process.cpu_times()
                found[each, process.create_time()] = times.user + times.system
        return found


def family(pid: int) -> list[int]:
    """A process and all below it; those that are gone may be among them.

    Asked of the kernel for this family alone: psutil looks at every process of the machine, which
    takes tens of milliseconds where there are thousands.
    """
    if not _CHILDREN.exists():
        with contextlib.suppress(psutil.Error):
            return [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]
    found = [pid]
    for each in found:
        for listed in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, listed.read_text().split())
    return found


_CHILDREN = Path("/proc/thread-self/children")
"""Some kernels have none of these."""
