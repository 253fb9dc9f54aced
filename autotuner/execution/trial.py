"""One trial, from plan to outcome, without Ray: deploy, measure one load point after another,
stop, always. Every wait has a deadline."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autotuner.addresses import free_port
from autotuner.backends.base import Backend, Server
from autotuner.benchmarks.base import Benchmark
from autotuner.engines.base import Diagnosis, Engine
from autotuner.engines.signatures import cannot_listen
from autotuner.errors import ConfigError, FailureClass, InfrastructureError, TrialError
from autotuner.execution.gate import wait_clear
from autotuner.execution.loadrunner import LoadRunner
from autotuner.execution.nvidia import Gauge, nvidia_gauge, nvidia_use
from autotuner.execution.readiness import NotReady, ServerDied, wait_ready
from autotuner.execution.reservation import GPU
from autotuner.execution.sampling import (
    HostProbe,
    LoadProbe,
    Probe,
    Sampler,
    gpu_probe,
    server_probe,
)
from autotuner.execution.spanning import Part, SpanningServer
from autotuner.serving import HERE, Endpoint, LaunchSpec, Plan, Slot
from autotuner.settings import Site
from autotuner.study.files import PLAN, TELEMETRY, load_directory
from autotuner.study.metrics import METRICS, metrics_of
from autotuner.study.objective import latency_bounds
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.telemetry import summed, why
from autotuner.study.trial import LoadPoint, Outcome, Phase, TrialState
from autotuner.study.workload import Load

TAIL_LINES = 40

DEPLOY, STOP = "deploy", "stop"

LATE_DEATH_SECONDS = 3.0


@dataclass(frozen=True)
class Kinds:
    """The kinds a study names, loaded."""

    engine: Engine
    backend: Backend
    benchmark: Benchmark


LONGEST_REASON = 200
"""Characters of a log's line in a reason, which tables and lists show whole."""


@dataclass(frozen=True)
class Assignment:
    """One trial as it is given to whoever runs it."""

    spec: StudySpec
    number: int
    parameters: Parameters
    directory: str
    """Absolute; made if missing."""


class TrialRun:
    """The life of one trial's server. Not thread-safe; `stop` must be called, and may be twice.

    Args:
        gauge: tells the memory of GPUs; NVIDIA's library by default.
        others, meeting: further parts of a server that spans nodes, and where they meet.

    `prepare`, `deploy` and `measure` raise TrialError where the parameters are at fault, and
    InfrastructureError where the machine is.
    """

    def __init__(
        self,
        assignment: Assignment,
        kinds: Kinds,
        *,
        gpu_ids: tuple[str, ...] = (),
        site: Site | None = None,
        gauge: Gauge | None = None,
        others: Sequence[Part] = (),
        meeting: str = HERE.meeting,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._assignment = assignment
        self._spec = assignment.spec
        self._kinds = kinds
        self._gpu_ids = gpu_ids
        self._site = site or Site()
        self._gauge = gauge
        self._others = others
        self._meeting = meeting
        self._held = ""
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self._deadline = self._began + self._spec.limits.trial_seconds
        self._directory = Path(assignment.directory)
        self._server: Server | None = None
        self._runner: LoadRunner | None = None
        self._load_pid: int | None = None
        self._launch: LaunchSpec | None = None
        self._plan: Plan | None = None
        self._observed: Mapping[str, float] = {}
        self._node: str | None = None
        self.phases: list[Phase] = []
        self.load_points: list[LoadPoint] = []

    def prepare(self) -> None:
        """What comes before the launch, and is not the trial's time: its plan, an image to be
        pulled, memory of others to be freed."""
        spec, kinds = self._spec, self._kinds
        with self._phase(DEPLOY):
            fresh(self._directory)
            slot = Slot(
                study=spec.name,
                trial=self._assignment.number,
                port=free_port(self._site.ports),
                directory=str(self._directory),
                gpu_ids=self._gpu_ids,
            )
            backend = kinds.backend
            place = dataclasses.replace(backend.place, meeting=self._meeting)
            launch = kinds.engine.launch(
                spec, self._assignment.parameters, port=slot.port, place=place
            )
            plan = _planned(backend, launch, slot)
            _write_json(self._directory / PLAN, plan.to_json())
            self._launch = launch
            # What a killed trial left on this machine may still hold the GPU given to this one.
            backend.sweep()
            backend.prepare(launch, lambda text: None)
            held = wait_clear(
                self._gpu_ids if backend.gpu_resource == GPU else (),
                self._gauge or nvidia_gauge(),
                clock=self._clock,
                sleep=self._sleep,
            )
            elsewhere = [part.prepare(self._meeting) for part in self._others]
            self._held = ", ".join(each for each in (held, *elsewhere) if each)
            self._plan = plan

    def deploy(self) -> None:
        """Start the server and the load generator, and return when the server can serve. Prepares
        first, if that was not done."""
        if self._plan is None:
            self.prepare()
        assert self._plan is not None
        assert self._launch is not None
        spec, kinds = self._spec, self._kinds
        with self._phase(DEPLOY):
            self._deadline = self._clock() + spec.limits.trial_seconds
            self._server = SpanningServer(
                kinds.backend.start(self._plan), self._others, clock=self._clock, sleep=self._sleep
            )
            for part in self._others:
                part.start()
            self._runner = LoadRunner(
                kinds.benchmark.runner(spec.tokenizer),
                self._directory,
                study=spec.name,
                trial=self._assignment.number,
                site=self._site,
                started=self._load_started,
            )
            try:
                self._wait_ready(self._launch)
            finally:
                # A server that died for want of memory may have said how much it found.
                self._observed = kinds.engine.observe(self._server.log())

    def measure(self, load: Load) -> LoadPoint:
        """Put one load on the server and read what came of it."""
        assert self._runner is not None, "deploy first"
        assert self._launch is not None
        benchmark = self._kinds.benchmark
        into = self._directory / load_directory(load.index)
        into.mkdir(parents=True, exist_ok=True)
        command = benchmark.command(
            self._endpoint, load, into, api=self._kinds.engine.api, tokenizer=self._spec.tokenizer
        )
        sampler = Sampler(self._probes())
        with self._phase(load.name):
            sampler.start()
            try:
                exit_code = self._runner.run(
                    command,
                    into,
                    deadline=min(self._clock() + benchmark.seconds_at_most(load), self._deadline),
                    clock=self._clock,
                    watch=self._watch,
                )
            finally:
                samples = sampler.stop()
                if samples.seconds:
                    with suppress(OSError):  # a full disk has said so to the load generator
                        _write_json(into / TELEMETRY, samples.to_json(), indent=None)
            self._watch()
            if exit_code is None:
                raise TrialError(
                    FailureClass.TIMEOUT, f"{load.name} did not end in time", self._tail()
                )
            seconds, metrics = self._read(into)
        point = LoadPoint(
            index=load.index,
            scenario=load.scenario,
            concurrency=load.concurrency,
            seconds=seconds,
            metrics=metrics,
            probe=load.probe,
            telemetry=summed(samples, window=seconds),
        )
        self.load_points.append(point)
        return point

    @property
    def node(self) -> str | None:
        """Where the server runs, as its backend knows it; None: here, or not known yet."""
        if self._server is not None:
            self._node = self._server.node
        return self._node

    def _probes(self) -> list[Probe]:
        """Who is asked meanwhile; nobody where the server is not on this machine, of which the
        machine's numbers would say nothing."""
        if self._kinds.backend.gpu_resource != GPU:
            return []
        probes: list[Probe] = [
            server_probe(self._endpoint.url, self._kinds.engine.told),
            HostProbe(),
            LoadProbe(lambda: self._load_pid),
        ]
        if self._gpu_ids:
            probes.append(gpu_probe(self._gpu_ids, nvidia_use()))
        return probes

    def _load_started(self, pid: int) -> None:
        self._load_pid = pid

    def _read(self, into: Path) -> tuple[float, dict[str, float | None]]:
        """Seconds and metrics of a load point.

        Where the highest bearable load is sought, servers are overloaded on purpose: a load
        under which requests failed is one that did not meet its bounds.
        """
        try:
            measured = self._kinds.benchmark.read(
                into, max_error_rate=self._spec.workload.max_error_rate
            )
        except TrialError as error:
            # A death may be seen late: of a pod, a second or two after its server's.
            self._sleep(LATE_DEATH_SECONDS)
            self._watch()
            if not self._spec.seeks_max_load or error.failure is not FailureClass.BENCHMARK:
                raise
            return 0.0, dict.fromkeys(METRICS)
        measurement = dataclasses.replace(
            measured,
            gpus=self._gpus,
            latency_bounds=latency_bounds(self._spec.bounds),
        )
        return measurement.seconds, metrics_of(measurement)

    def stop(self) -> None:
        """End the server and the load generator; returns when nothing of them is left.

        Raises:
            InfrastructureError: something is still there after `limits.stop_seconds`.
        """
        self._node = self.node
        server, runner = self._server, self._runner
        self._server = self._runner = None
        if server is None and runner is None:
            return
        with self._phase(STOP):
            try:
                if runner is not None:
                    runner.stop(self._spec.limits.stop_seconds)
            finally:
                if server is not None:
                    server.stop(self._spec.limits.stop_seconds)

    def outcome(self, error: TrialError | None = None) -> Outcome:
        """What the trial came to: INFEASIBLE with an error, else COMPLETE."""
        outcome = outcome_of(error, self.load_points, self.phases, self._observed)
        said = "; ".join(part for part in (outcome.reason, self._held) if part)
        levers = self._kinds.engine.levers(self._spec, self._assignment.parameters)
        return dataclasses.replace(outcome, reason=said, why=why(self.load_points, levers))

    @property
    def _gpus(self) -> int:
        """That the server runs on; 0 on a CPU."""
        assert self._launch is not None
        if self._kinds.backend.gpu_resource != GPU:
            return self._launch.gpus
        return len(self._gpu_ids) * self._spec.engine.nodes

    @property
    def _endpoint(self) -> Endpoint:
        assert self._launch is not None
        assert self._server is not None
        url = self._server.url
        assert url is not None, "it was ready"
        return Endpoint(url, self._launch.served_name, self._server.name)

    def _wait_ready(self, launch: LaunchSpec) -> None:
        assert self._server is not None
        limits, log_of, began = self._spec.limits, self._server.log, self._clock()
        seconds, setting = min(
            (limits.ready_seconds, "limits.ready_seconds"),
            (self._deadline - began, "limits.trial_seconds"),
        )
        try:
            wait_ready(
                self._server,
                launch.served_name,
                launch.health_path,
                deadline=began + seconds,
                clock=self._clock,
                sleep=self._sleep,
                doomed=lambda: cannot_listen(log_of()),
            )
        except ServerDied:
            raise self._death() from None
        except NotReady:
            # Some engines linger after a failure that their log tells: SGLang on a taken port.
            said = self._kinds.engine.diagnose(log_of())
            if said.failure is not FailureClass.CRASH:
                raise self._death() from None
            waited = f"not ready after {round(seconds, 1):g} s ({setting})"
            raise TrialError(
                FailureClass.TIMEOUT,
                f"{waited}; last: {_last_line(log_of())}",
                self._tail(),
                advice=said.advice or f"raise {setting}, or use a quieter machine",
            ) from None

    def _watch(self) -> None:
        assert self._server is not None
        if not self._server.alive():
            raise self._death()

    def _death(self) -> TrialError | InfrastructureError:
        assert self._server is not None
        diagnosis = self._diagnosis()
        if diagnosis.machine_fault:
            return InfrastructureError(f"{diagnosis.failure.value}: {diagnosis.reason}")
        return TrialError(
            diagnosis.failure, diagnosis.reason, self._tail(), advice=diagnosis.advice
        )

    def _diagnosis(self) -> Diagnosis:
        """What the log says of the death; the place may know better, or how it ended."""
        assert self._server is not None
        said, ending = self._kinds.engine.diagnose(self._server.log()), self._server.ending()
        if ending.failure is not None:
            return Diagnosis(ending.failure, ending.reason or said.reason)
        if said.failure is not FailureClass.CRASH:
            return said
        reason = ending.reason or said.reason
        if ending.exit_code is not None:
            reason += f" (exit code {ending.exit_code})"
        return Diagnosis(said.failure, reason)

    def _tail(self) -> str:
        assert self._server is not None
        return "\n".join(self._server.log().splitlines()[-TAIL_LINES:])

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = self._clock() - self._began
        if self.phases and self.phases[-1].name == name:  # what was prepared is now deployed
            start = self.phases.pop().start
        try:
            yield
        finally:
            self.phases.append(Phase(name, start, self._clock() - self._began))


def outcome_of(
    error: TrialError | None,
    load_points: Sequence[LoadPoint],
    phases: Sequence[Phase],
    observed: Mapping[str, float] | None = None,
) -> Outcome:
    """The outcome of a trial that ended so: INFEASIBLE with an error, else COMPLETE."""
    return Outcome(
        state=TrialState.INFEASIBLE if error else TrialState.COMPLETE,
        load_points=tuple(load_points),
        failure=error.failure if error else None,
        reason=error.reason if error else "",
        advice=error.advice if error else "",
        log_tail=error.log_tail if error else "",
        phases=tuple(phases),
        observed=observed or {},
    )


def _planned(backend: Backend, launch: LaunchSpec, slot: Slot) -> Plan:
    """The plan of a trial.

    Raises:
        TrialError: the backend cannot start such a server; a study's own mistake is found before
            it begins, so that this is its parameters'.
    """
    try:
        return backend.plan(launch, slot)
    except ConfigError as error:
        said = "; ".join(part for part in (error.problem, error.hint) if part)
        raise TrialError(FailureClass.ARGUMENT, said) from error


def fresh(directory: Path) -> None:
    """Make the directory; what an earlier attempt left in it moves aside, not away."""
    if directory.exists() and any(directory.iterdir()):
        attempt = 1
        while (aside := directory.with_name(f"{directory.name}.attempt-{attempt}")).exists():
            attempt += 1
        shutil.move(directory, aside)
    directory.mkdir(parents=True, exist_ok=True)


def _write_json(path: Path, content: object, indent: int | None = 1) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def _last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return _cut(lines[-1].strip()) if lines else "the log is empty"


def _cut(line: str, longest: int = LONGEST_REASON) -> str:
    """A line of so many characters at most; what is left out is seen, and no word is halved."""
    if len(line) <= longest:
        return line
    whole, _, _ = line[: longest - 1].rpartition(" ")
    return f"{whole or line[: longest - 2]} …"
