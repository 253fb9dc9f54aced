"""The sampler: its clock, what it asks, and that nothing it meets fails a trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from autotuner.engines.base import Told
from autotuner.engines.sglang import SGLANG
from autotuner.engines.vllm import VLLM
from autotuner.execution import sampling
from autotuner.execution import trial as execution
from autotuner.execution.nvidia import GpuUse, nvidia_use
from autotuner.execution.sampling import (
    HostProbe,
    LoadProbe,
    Sampler,
    family,
    gpu_probe,
    server_probe,
    signals_in,
)
from autotuner.execution.trial import Assignment
from autotuner.study import telemetry
from autotuner.study.model import GIB
from autotuner.study.trial import Outcome, TrialState
from tests.trials import run_trial
from tests.unit.test_servers_floor import Runner, Stage, Started, assignment, kinds_of

DATA = Path(__file__).parent.parent / "data" / "metrics"


class Clock:
    """Time that passes only while somebody waits, until it is over."""

    def __init__(self, until: float) -> None:
        self.now = 100.0
        self._until = 100.0 + until

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now = min(self.now + seconds, self._until)
        return self.now >= self._until


def test_one_sample_a_period_and_one_at_the_end() -> None:
    clock = Clock(until=3.4)
    sampler = Sampler([lambda: {telemetry.RUNNING: clock.now}], clock=clock, wait=clock.wait)
    sampler.run()
    found = sampler.samples()
    assert found.seconds == pytest.approx((0.0, 1.0, 2.0, 3.0, 3.4))
    assert found.series == {telemetry.RUNNING: pytest.approx((100.0, 101.0, 102.0, 103.0, 103.4))}


def test_a_sample_that_takes_longer_than_a_period_is_not_made_up_for() -> None:
    clock = Clock(until=10)

    def slow() -> Mapping[str, float | None]:
        clock.now += 2.5
        return {telemetry.RUNNING: 1.0}

    sampler = Sampler([slow], clock=clock, wait=clock.wait)
    sampler.run()
    assert sampler.samples().seconds == pytest.approx((0.0, 2.5, 5.0, 7.5, 10.0))


def test_a_probe_that_breaks_costs_its_own_values_only() -> None:
    clock, asked = Clock(until=2), [0]

    def broken() -> Mapping[str, float | None]:
        asked[0] += 1
        if asked[0] == 2:
            raise RuntimeError("the driver is gone")
        return {telemetry.GPU_POWER: 300.0}

    sampler = Sampler([broken, lambda: {telemetry.HOST_CPU: 0.5}], clock=clock, wait=clock.wait)
    sampler.run()
    series = sampler.samples().series
    assert series[telemetry.GPU_POWER] == (300.0, None, 300.0)
    assert series[telemetry.HOST_CPU] == (0.5, 0.5, 0.5)


def test_a_signal_that_never_was_is_no_series() -> None:
    clock = Clock(until=1)
    sampler = Sampler([lambda: {telemetry.GPU_POWER: None}], clock=clock, wait=clock.wait)
    sampler.run()
    assert sampler.samples().series == {}


def test_without_probes_there_are_no_samples_and_no_thread() -> None:
    sampler = Sampler([])
    sampler.start()
    assert sampler.stop().seconds == ()
    assert "sampler" not in {thread.name for thread in threading.enumerate()}


def test_its_thread_ends_with_it() -> None:
    sampler = Sampler([lambda: {telemetry.HOST_CPU: 0.5}])
    sampler.start()
    found = sampler.stop()
    assert 1 <= len(found.seconds) <= 2
    assert "sampler" not in {thread.name for thread in threading.enumerate()}


# The page of a server.

PAGE = r"""# HELP sim:running Requests.
# TYPE sim:running gauge
sim:running{engine="0",model_name="a b}\"{x"} 3.0
sim:running{engine="1",model_name="/m"} 4 1700000000000
sim:usage{engine="0"} 0.25
sim:usage{engine="1"} 0.75
sim:running_by_reason{reason="capacity"} 99
sim:old_hits_total 10
sim:hits_total 20
sim:broken NaN
"""


def test_series_are_added_up_over_their_labels_and_of_a_share_the_highest_counts() -> None:
    found = signals_in(
        PAGE,
        {
            telemetry.RUNNING: ("sim:running",),
            telemetry.KV_USAGE: ("sim:usage",),
            telemetry.PREFIX_HITS: ("sim:hits_total", "sim:old_hits_total"),
            telemetry.PREFIX_QUERIES: ("sim:queries_total", "sim:old_hits_total"),
            telemetry.PREEMPTIONS: ("sim:preemptions_total",),
            telemetry.WAITING: ("sim:broken",),
        },
    )
    assert found == {
        telemetry.RUNNING: 7.0,
        telemetry.KV_USAGE: 0.75,
        telemetry.PREFIX_HITS: 20.0,
        telemetry.PREFIX_QUERIES: 10.0,
        telemetry.PREEMPTIONS: 0.0,  # a counter that is not there yet
    }


def test_a_page_of_something_else_says_nothing_not_even_that_counters_are_0() -> None:
    names = {telemetry.PREEMPTIONS: ("sim:preemptions_total",), telemetry.RUNNING: ("sim:x",)}
    assert signals_in(PAGE, names) == {}
    assert signals_in("<html>not found</html>", names) == {}
    assert signals_in(PAGE, {}) == {}


OLDER_NAMES = """\
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:gpu_prefix_cache_queries_total{model_name="m"} 256.0
vllm:gpu_prefix_cache_queries_created{model_name="m"} 1.7e+09
vllm:gpu_prefix_cache_hits_total{model_name="m"} 64.0
"""
"""vLLM's before they lost their `gpu`; up to 0.10 there were both."""

ENGINES_SIGNALS = (
    *(telemetry.KV_USAGE, telemetry.RUNNING, telemetry.WAITING),
    *(telemetry.PREEMPTIONS, telemetry.PREFIX_HITS, telemetry.PREFIX_QUERIES),
)


@pytest.mark.parametrize(
    ("told", "page", "expected"),
    [
        (VLLM.told, "vllm-0.32.0.txt", (0.0009768009768009733, 2, 14, 0, 0, 8849)),
        # Nothing was retracted yet, so that its counter is not there.
        (SGLANG.told, "sglang-0.5.23.txt", (0.01, 2, 14, 0, 391, 3743)),
    ],
)
def test_what_real_engines_say_is_found(told: Told, page: str, expected: tuple[float, ...]) -> None:
    text = (DATA / page).read_text(encoding="utf-8")
    found = signals_in(text, told.series)
    assert found == pytest.approx(dict(zip(ENGINES_SIGNALS, expected, strict=True)))


def test_older_names_of_vllm_are_found() -> None:
    assert signals_in(OLDER_NAMES, VLLM.told.series) == {
        telemetry.KV_USAGE: 0.5,
        telemetry.PREEMPTIONS: 0.0,
        telemetry.PREFIX_HITS: 64.0,
        telemetry.PREFIX_QUERIES: 256.0,
    }


@pytest.mark.parametrize("page", sorted(path.name for path in DATA.glob("*.txt")))
def test_the_scan_reads_what_a_whole_parser_reads(page: str) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    text = (DATA / page).read_text(encoding="utf-8")
    names = 0
    for each in parser.text_string_to_metric_families(text):
        for name in {sample.name for sample in each.samples}:
            values = [sample.value for sample in each.samples if sample.name == name]
            found = signals_in(text, {telemetry.RUNNING: (name,)})
            assert found == {telemetry.RUNNING: pytest.approx(sum(values))}
            names += 1
    assert names >= 5


@contextmanager
def serving(status: int, body: bytes, **pages: bytes) -> Iterator[str]:
    """A server that answers everything alike, but the last part of a path that has its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(pages.get(self.path.rpartition("/")[2], body))

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


TOLD = Told({telemetry.RUNNING: ("sim:running",)})


def test_a_server_is_asked_for_its_page() -> None:
    with serving(200, PAGE.encode()) as url:
        assert server_probe(url, TOLD)() == {telemetry.RUNNING: 7.0}


@pytest.mark.parametrize(("status", "body"), [(404, b""), (500, b"x"), (200, b"\xff\x00 1\n")])
def test_a_server_that_does_not_tell_says_nothing(status: int, body: bytes) -> None:
    with serving(status, body) as url:
        assert server_probe(url, TOLD)() == {}
    assert server_probe(url, TOLD)() == {}, "gone"


# GPUs, the machine, the load generator.


def test_of_several_gpus_the_fullest_the_average_and_the_sum_count() -> None:
    uses = {"0": GpuUse(70.0, 0.9, 600.0), "1": GpuUse(60.0, 0.5, 400.0)}
    assert gpu_probe(("0", "1", "2"), uses.get)() == {
        telemetry.GPU_MEMORY: 70.0,
        telemetry.GPU_UTILISATION: pytest.approx(0.7),
        telemetry.GPU_POWER: 1000.0,
    }
    parts = gpu_probe(("MIG-1",), lambda gpu: GpuUse(9.0))()
    assert parts == {
        telemetry.GPU_MEMORY: 9.0,
        telemetry.GPU_UTILISATION: None,
        telemetry.GPU_POWER: None,
    }


class Library:
    """NVML as far as it is asked: GPU 0, and a part of GPU 1 that has no use of its own."""

    class NVMLError(Exception): ...

    used = 3 * GIB
    gpu = 87

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index > 1:
            raise self.NVMLError
        return f"GPU-{index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Library:
        return self

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Library:
        if handle.startswith("MIG"):
            raise self.NVMLError
        return self

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        if handle.startswith("MIG"):
            raise self.NVMLError
        return 350_500


def test_what_nvml_says_in_our_units() -> None:
    use = nvidia_use(Library())
    assert use("0") == GpuUse(3.0, 0.87, 350.5)
    assert use("GPU-1") == GpuUse(3.0, 0.87, 350.5)
    assert use("MIG-1/2/3") == GpuUse(3.0, None, None)
    assert use("7") is None


def test_a_machine_without_the_driver_has_no_use_to_tell() -> None:
    assert nvidia_use()("77") is None


def test_a_host_has_a_share_of_its_cpus_and_memory() -> None:
    cpus = len(os.sched_getaffinity(0))
    seconds = [(5.0, 9.0), (5.25, 10.0), (5.26, 10.05), (6.0, 11.0)]
    times = iter([(busy * cpus, every * cpus) for busy, every in seconds])
    probe = HostProbe(lambda: next(times))
    assert probe()[telemetry.HOST_CPU] == pytest.approx(0.25)
    assert probe()[telemetry.HOST_CPU] is None, "of a moment nothing can be said"
    found = probe()
    assert found[telemetry.HOST_CPU] == pytest.approx(0.75), "and it is not lost"
    assert (found[telemetry.HOST_MEMORY] or 0) > 0.01


def test_memory_that_is_there_to_be_had_is_not_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    said = SimpleNamespace(total=64 * GIB, available=48 * GIB, used=30 * GIB, free=2 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: said)
    assert sampling.host_memory() == (16.0, 64.0)


def test_cpus_are_counted_one_by_one() -> None:
    mine = os.sched_getaffinity(0)
    busy, total = sampling.cpu_times(mine)
    assert 0 < busy < total
    one = sampling.cpu_times({min(mine)})[1]
    assert one == pytest.approx(total / len(mine), rel=0.5)


def test_a_load_generator_and_its_forks_are_counted_in_cores() -> None:
    program = "import os, time\nos.fork()\nwhile True: time.sleep(0.001) or sum(range(20000))"
    load = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    try:
        known: list[int] = []
        probe = LoadProbe(lambda: known[0] if known else None)
        assert probe() == {}, "not started yet"
        known.append(load.pid)
        assert probe() == {}, "nothing to compare with"
        seen = _until(lambda: probe().get(telemetry.LOAD_CPU) or 0.0)
        assert seen > 0
        assert LoadProbe(lambda: os.getpid(), clock=lambda: 5.0)() == {}, "no time has passed"
    finally:
        os.killpg(load.pid, 9)
        load.wait()
    assert probe() == {}, "gone"


@pytest.mark.parametrize("listed", [True, False])
def test_a_family_is_a_process_and_all_below_it(
    listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not listed:  # as on kernels that list no children
        monkeypatch.setattr(sampling, "_CHILDREN", Path("/proc/nowhere"))
    deep = "import os, time; os.fork(); os.fork(); time.sleep(60)"
    root = subprocess.Popen([sys.executable, "-c", deep], start_new_session=True)
    try:
        assert _until(lambda: len(family(root.pid)) == 4)
        assert family(root.pid)[0] == root.pid
        assert set(family(root.pid)) <= set(family(os.getpid()))
    finally:
        os.killpg(root.pid, 9)
        root.wait()
    assert len(family(root.pid)) == 1, "gone"


def _until(value: Callable[[], float], seconds: float = 10.0) -> float:
    deadline = time.monotonic() + seconds
    while not (found := value()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


# A trial, with all of it.


class Load(Runner):
    """A load generator that says who it is before its first load."""

    def run(self, *args: Any, **more: Any) -> int | None:
        self.more["started"](os.getpid())
        return super().run(*args, **more)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Assignment, Stage], Outcome]:
    monkeypatch.setattr(execution, "LoadRunner", type("TheLoad", (Load,), {"made": []}))
    return lambda assignment, stage: run_trial(assignment, kinds_of(stage))


QUEUED_PAGE = b"""sim:num_requests_running 16
sim:num_requests_waiting 37
sim:kv_cache_usage_perc 0.98
"""


def test_a_trial_keeps_what_was_seen_and_says_what_held_it_back(
    tmp_path: Path, run: Callable[[Assignment, Stage], Outcome]
) -> None:
    models = json.dumps({"data": [{"id": "tiny"}]}).encode()
    with serving(200, b"", models=models, metrics=QUEUED_PAGE) as url:
        outcome = run(assignment(tmp_path), Stage(Started(url)))
    assert outcome.state is TrialState.COMPLETE
    (point,) = outcome.load_points
    assert point.telemetry["waiting_max"] == 37
    assert point.telemetry["preemptions"] == 0
    assert (point.telemetry["host_memory_gib_max"] or 0) > 0
    kept = json.loads((tmp_path / "trial" / "load-0" / "telemetry.json").read_text())
    assert kept["series"]["running"] == [16.0] * len(kept["seconds"])
    assert outcome.why == (
        "the queue grew to 37 while the KV cache stood at 98 %: more `max-num-seqs` cannot help"
    )


def test_what_was_seen_is_kept_though_the_load_failed(
    tmp_path: Path, run: Callable[[Assignment, Stage], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Load, "answers", [None])
    models = json.dumps({"data": [{"id": "tiny"}]}).encode()
    with serving(200, b"", models=models, metrics=QUEUED_PAGE) as url:
        outcome = run(assignment(tmp_path), Stage(Started(url)))
    assert (outcome.state, outcome.load_points) == (TrialState.INFEASIBLE, ())
    assert (tmp_path / "trial" / "load-0" / "telemetry.json").exists()


def test_of_a_server_elsewhere_nothing_is_sampled(
    tmp_path: Path, run: Callable[[Assignment, Stage], Outcome]
) -> None:
    models = json.dumps({"data": [{"id": "tiny"}]}).encode()
    with serving(200, b"", models=models, metrics=QUEUED_PAGE) as url:
        outcome = run(assignment(tmp_path), Stage(Started(url), gpu_resource="elsewhere_gpu"))
    assert outcome.state is TrialState.COMPLETE
    assert outcome.load_points[0].telemetry == {}
    assert outcome.why == ""
    assert not (tmp_path / "trial" / "load-0" / "telemetry.json").exists()


def test_a_server_that_tells_nothing_fails_no_trial(
    tmp_path: Path, run: Callable[[Assignment, Stage], Outcome]
) -> None:
    models = json.dumps({"data": [{"id": "tiny"}]}).encode()
    with serving(200, b"", models=models, metrics=b"<html>") as url:
        outcome = run(assignment(tmp_path), Stage(Started(url)))
    assert outcome.state is TrialState.COMPLETE
    assert "waiting_max" not in outcome.load_points[0].telemetry
    assert "host_memory_gib_max" in outcome.load_points[0].telemetry
