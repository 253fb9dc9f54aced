"""The service with its page for a browser: true studies in a store, runs that are only noted.

The studies come out of the product's own loop, over tables of answers in virtual time; their
hours are then spread over the last day, as if they had been measured.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from autotuner.api.app import application
from autotuner.api.service import Service, service
from autotuner.backends.guarded import this_process
from autotuner.benchmarks.base import Recorded
from autotuner.execution.virtual import replay_study
from autotuner.job import Job, checked, local_paths
from autotuner.settings import Settings
from autotuner.study.files import STUDY_LOG
from autotuner.study.loading import parse_study, read_study
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import Trial, TrialState

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "tests" / "bench" / "tables"
EXAMPLE = ROOT / "examples" / "03-a-search-in-a-table" / "study.yaml"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
"""When the last of the finished studies ended."""

GONE = "999999:1"
"""A process that does not run on this machine."""


@dataclass
class NotedRuns:
    """A Runner that notes what it was asked, and whose jobs live until they are stopped."""

    started: list[tuple[str, str]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def start(self, study: str, job: str) -> None:
        self.started.append((study, job))

    def stop(self, job: str) -> None:
        self.stopped.append(job)

    def alive(self, job: str) -> bool:
        return job in (each for _, each in self.started) and job not in self.stopped


@dataclass
class Hosted:
    """A service that listens, and what it was made of."""

    url: str
    service: Service
    runs: NotedRuns


@contextmanager
def hosted(home: Path, **settings: Any) -> Iterator[Hosted]:
    """A service over an empty store, on a free port of this machine."""
    given: dict[str, Any] = {"home": home, "timezone": "Europe/Berlin", **settings}
    runs = NotedRuns()
    made = service(Settings(_env_file=None, **given), runner=runs)
    server = uvicorn.Server(
        uvicorn.Config(application(made), log_level="warning", timeout_graceful_shutdown=1)
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Hosted(f"http://127.0.0.1:{listening.getsockname()[1]}", made, runs)
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            made.studies.store.close()


class Halt(Exception):
    """Ends a replay in the middle, as a driver that dies."""


def example_content(**changes: Any) -> dict[str, Any]:
    """Example 03 as a mapping; `changes` replace its blocks."""
    return {**dict(read_study(EXAMPLE).content), **changes}


def replayed(
    made: Service,
    content: Mapping[str, Any],
    *,
    at_once: int = 1,
    halt_after: int | None = None,
    ended: datetime = NOW,
) -> Study:
    """A study that runs over its table; its times end at `ended`.

    Args:
        halt_after: trials after which its driver is gone, the study still RUNNING.
    """
    job = job_for(made, content)
    study = Study(
        job.spec,
        str(made.settings.studies / job.spec.name),
        created_at=_text(ended - timedelta(hours=5)),
    )
    made.studies.store.create(study)
    Path(study.directory).mkdir(parents=True, exist_ok=True)
    benchmark = job.benchmark
    assert isinstance(benchmark, Recorded)
    over = 0

    def heard(trial: Trial) -> None:
        nonlocal over
        over += trial.state.ended and not trial.refused
        if halt_after is not None and over >= halt_after and not trial.state.ended:
            raise Halt

    with suppress(Halt):
        replay_study(
            study,
            made.studies.store,
            job.searcher(),
            job.rules,
            benchmark,
            at_once=at_once,
            foresight=job.foresight(),
            scheduler=job.scheduler(),
            listener=heard,
        )
    _date(made, study.name, ended, lanes=at_once)
    return made.studies.store.study(study.name)


def job_for(made: Service, content: Mapping[str, Any]) -> Job:
    spec = StudySpec.model_validate(content)
    return made.studies.with_prior(checked(local_paths(spec, ROOT)))


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def _date(made: Service, name: str, ended: datetime, *, lanes: int) -> None:
    """Spread what took no time over the hours that it would have taken, ending at `ended`."""
    store = made.studies.store
    trials = store.trials(name)
    free = [0.0] * lanes
    starts: dict[int, float] = {}
    for trial in trials:
        lane = free.index(min(free))
        starts[trial.number] = free[lane]
        free[lane] += trial.seconds if trial.seconds else 0.0
    began = ended - timedelta(seconds=max(free, default=0.0))

    def moment(seconds: float) -> str:
        return _text(began + timedelta(seconds=seconds))

    for trial in trials:
        start = starts[trial.number]
        launched = bool(trial.started_at) and not trial.refused
        store.save(
            name,
            replace(
                trial,
                created_at=moment(start),
                started_at=moment(start) if launched else "",
                ended_at=moment(start + trial.seconds) if trial.state.ended else "",
            ),
        )
    study = store.study(name)
    store.set_state(
        name,
        study.state,
        was=study,
        reason=study.reason,
        driver=study.driver,
        started_at=moment(0),
        ended_at=moment(max(free, default=0.0)) if study.state.ended else "",
    )


def table_content(name: str, table: str, **changes: Any) -> dict[str, Any]:
    """A study over one of the tables of `make bench-search`."""
    return {
        "name": name,
        "model": {"path": "Qwen/Qwen3-8B"},
        "engine": {"kind": "vllm", "version": "0.32.0"},
        "workload": {"scenarios": ["D(1024,256)"], "concurrency": [1, 4, 16, 64, 256]},
        "benchmark": {"kind": "replay", "table": str(TABLES / f"{table}.csv"), "noise": 0.02},
        "search": {"kind": "random", "seed": 1},
        "verdict": {"finalists": 0},
        **changes,
    }


LADDER_SPACE = {
    "tensor-parallel-size": [1, 2, 4, 8],
    "max-num-seqs": [16, 32, 64, 128, 256],
    "max-num-batched-tokens": [512, 1024, 2048, 4096, 8192],
    "kv-cache-dtype": ["auto", "fp8"],
}


def fill(made: Service) -> None:
    """Studies of every standing, and of every kind of answer."""
    day = timedelta(hours=1)
    replayed(made, example_content(), ended=NOW - 2 * day)
    replayed(made, pareto_content(), at_once=2, ended=NOW - 5 * day)
    replayed(made, predicted_content(), at_once=2, ended=NOW - 3 * day)
    replayed(made, failing_content(), at_once=2, ended=NOW - 1 * day)
    replayed(made, hopeless_content(), ended=NOW - 7 * day)
    cancelled(made)
    running(made)
    lost(made)
    waiting(made)
    quantized(made)


def pareto_content() -> dict[str, Any]:
    """Two objectives, many trials."""
    return table_content(
        "qwen3-8b-throughput-and-latency",
        "qwen3-8b-h100-vllm-ladder",
        description="Throughput per GPU against the time to the first token",
        space=LADDER_SPACE,
        objectives=["output_throughput_per_gpu", "ttft_mean"],
        search={"kind": "optuna", "seed": 3},
        limits={"trials": 60, "hours": 100},
    )


def predicted_content() -> dict[str, Any]:
    """A prior: what it said and what was measured."""
    return table_content(
        "qwen3-8b-with-a-prior",
        "qwen3-8b-h100-vllm-ladder",
        space=LADDER_SPACE,
        prior={"study": "qwen3-8b-throughput-and-latency"},
        objectives=["output_throughput_per_gpu"],
        search={"kind": "optuna", "seed": 5},
        slo={"ttft_mean": {"max": 0.4}, "tpot_mean": {"max": 0.02, "hard": True}},
        verdict={"finalists": 2, "rounds": 4},
        limits={"trials": 24, "hours": 100},
    )


def failing_content() -> dict[str, Any]:
    """Out of memory, invalid arguments, and service levels of every severity."""
    return table_content(
        "qwen3-30b-moe-limits",
        "qwen3-30b-a3b-h100-sglang",
        description="Mixture of experts on SGLang, with service levels",
        model={"path": "Qwen/Qwen3-30B-A3B"},
        engine={"kind": "sglang", "version": "0.5.23"},
        workload={"scenarios": ["D(1024,256)"], "concurrency": [16, 64, 256]},
        space={
            "tp-size": [1, 2, 4, 8],
            "ep-size": [1, 2, 4, 8],
            "max-running-requests": [32, 64, 128, 256, 512],
            "chunked-prefill-size": [1024, 2048, 4096, 8192, 16384],
            "mem-fraction-static": [0.8, 0.88, 0.94],
        },
        slo={
            "ttft_mean": {"max": 2.0, "weight": 2},
            "tpot_mean": {"max": 0.02},
            "e2e_latency_mean": {"max": 15.0, "hard": True, "fail_ratio": 0.5},
        },
        limits={"trials": 30, "hours": 100},
    )


def hopeless_content() -> dict[str, Any]:
    """No trial can meet what is asked: FAILED, with the commonest reason."""
    return example_content(
        name="nothing-is-fast-enough",
        description="A bound that nothing here can meet",
        slo={"ttft_p90": {"max": 0.001, "hard": True, "fail_ratio": 0.1}},
        limits={"trials": 8, "hours": 1},
        verdict={"finalists": 0},
    )


def cancelled(made: Service) -> None:
    content = table_content("cancelled-halfway", "qwen3-8b-h100-vllm-ladder", space=LADDER_SPACE)
    study = replayed(made, content, halt_after=7, ended=NOW - timedelta(hours=9))
    stop_trials(made, study.name)
    made.studies.store.set_state(
        study.name,
        StudyState.CANCELLED,
        reason="cancelled by ada",
        driver="",
        ended_at=_text(NOW - timedelta(hours=9)),
    )


def stop_trials(made: Service, name: str) -> None:
    """What still ran is CANCELLED, as the loop does it."""
    for trial in made.studies.store.trials(name):
        if not trial.state.ended:
            made.studies.store.save(name, replace(trial, state=TrialState.CANCELLED, note=""))


def running(made: Service, name: str = "running-now") -> Study:
    """Under way, its driver being this process, one trial under load and one being deployed."""
    content = table_content(
        name,
        "qwen3-8b-h100-vllm-ladder",
        space=LADDER_SPACE,
        objectives=["output_throughput"],
        limits={"trials": 40, "hours": 100},
    )
    study = replayed(made, content, at_once=2, halt_after=12, ended=datetime.now(UTC))
    store = made.studies.store
    store.set_state(study.name, StudyState.RUNNING, driver=this_process(), ended_at="")
    under_way = [each for each in store.trials(name) if not each.state.ended]
    states = (
        (TrialState.BENCHMARKING, "D(1024,256) x 16"),
        (TrialState.DEPLOYING, "waiting for the server"),
    )
    for trial, (state, note) in zip(under_way, states, strict=False):
        store.save(name, replace(trial, state=state, note=note))
    log = Path(study.directory) / STUDY_LOG
    log.write_text("".join(f"line {number} of the study\n" for number in range(40)))
    return study


def lost(made: Service) -> None:
    content = table_content("lost-its-driver", "qwen3-8b-h100-vllm-ladder", space=LADDER_SPACE)
    study = replayed(made, content, halt_after=5, ended=NOW - timedelta(hours=4))
    gone = f"{socket.gethostname()} {GONE}"
    made.studies.store.set_state(study.name, StudyState.RUNNING, driver=gone, ended_at="")


def waiting(made: Service, name: str = "not-started-yet") -> Study:
    """PENDING, and never started."""
    content = example_content(name=name, description="A study that waits to be started")
    return made.studies.create(job_for(made, content))


def quantized(made: Service) -> None:
    """PENDING, with the quantization block: its fields are multiple choices."""
    content = table_content(
        "quantized-formats",
        "qwen3-8b-h100-vllm-ladder",
        space={"max-num-seqs": [64, 256]},
        quantization={"gemm": ["auto", "fp8"], "kv_cache": ["auto", "fp8_e5m2"]},
    )
    made.studies.create(job_for(made, content))


def study_of(path: Path) -> StudySpec:
    """The spec of a study file."""
    return parse_study(read_study(path))


# The browser


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's or any other Chromium of this machine; skips with the reason where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page of the browser, and everything that it complained of."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def go(self, address: str) -> Page:
        """Show a view, such as ``/studies``, and wait until it is drawn."""
        self.page.goto(f"{self.url}/#{address}")
        self.page.wait_for_selector("main h1")
        return self.page

    def excuse(self, text: str) -> None:
        """Forget complaints with this in them: the browser reports every 4xx that was wanted."""
        self.complaints = [each for each in self.complaints if text not in each]


@contextmanager
def watched(
    browser: Browser, url: str, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[Watched]:
    """A page that fails its test by errors on the console and breaches of the policy."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
        accept_downloads=True,
    )
    found = Watched(context.new_page(), url)

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            found.complaints.append(f"{message.type}: {message.text} ({message.location})")

    found.page.on("console", said)
    found.page.on("pageerror", lambda error: found.complaints.append(f"uncaught: {error}"))
    found.page.set_default_timeout(15_000)
    try:
        yield found
        assert not found.complaints, "\n".join(found.complaints)
    finally:
        context.close()


def violations(page: Page, *, leave_out: Sequence[str] = ()) -> list[str]:
    """What axe-core finds against WCAG 2.1 AA, as lines."""
    options = {
        "runOnly": ["wcag2a", "wcag2aa", "wcag21aa"],
        "rules": {rule: {"enabled": False} for rule in leave_out},
    }
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {node['html'][:200]} {node.get('failureSummary', '')[:200]}"
        for each in found
        for node in each["nodes"][:5]
    ]
