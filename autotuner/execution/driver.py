"""Runs a study through Ray Tune on a cluster, and leaves nothing of ours on it."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.util import placement_group_table

from autotuner.backends.base import Backend
from autotuner.backends.guarded import this_process
from autotuner.engines.rules import Rules
from autotuner.errors import InfrastructureError, StudyStateError
from autotuner.execution.actor import TrialActor
from autotuner.execution.bridge import Asker, Canceller, Cluster, Decider, Teller
from autotuner.execution.everywhere import prepare_everywhere, sweep_everywhere
from autotuner.execution.gate import unwatched
from autotuner.execution.loop import StudyLoop
from autotuner.execution.nodes import Counted, connected, counted
from autotuner.execution.nvidia import unasked
from autotuner.execution.placer import AHEAD, OVERTAKEN, UNLEARNT_AHEAD, Placer
from autotuner.execution.prometheus import Telemetry
from autotuner.execution.reservation import GPU, Node, Reservation, cannot_hold, reservation
from autotuner.job import Job
from autotuner.mirrors.base import Mirror, Mirroring
from autotuner.settings import Site
from autotuner.store import Store
from autotuner.study.files import DRIVER_FILE
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import Trial

LOOK_SECONDS = 0.2
"""Between two looks at the nodes, which take a few tenths of a millisecond."""

RETURN_SECONDS = 300.0
"""How long a node that left is expected back: a restart of its machine, or of its pod."""

MANY = 10_000
"""More trials than ever have a place at the same time: the placer says how many do."""

GONE_SECONDS = 10.0
"""How long the end of a study waits for killed trials' servers to be gone."""


class Watcher(Protocol):
    """Who is shown how a study gets on."""

    def said(self, text: str) -> None:
        """Hears how the nodes get ready, and what the study left on them."""

    def begun(self, loop: StudyLoop) -> None:
        """Hears of the loop once the cluster is there and trials begin."""

    def changed(self, trial: Trial) -> None:
        """Hears of every change of a trial."""

    def tick(self) -> None:
        """Is called several times a second."""


def run_study(
    job: Job,
    study: Study,
    store: Store,
    watcher: Watcher,
    *,
    site: Site,
    address: str | None = None,
    resume: bool = False,
    mirrors: Sequence[Mirror] = (),
) -> StudyState:
    """Run a study to its end on a Ray cluster.

    Args:
        job: the kinds that the study names.
        site: what the operator says of the machines.
        address: of the cluster; that of RAY_ADDRESS by default. See `execution.cluster`.
        resume: go on from the trials in the store.
        mirrors: show the study elsewhere; none of them can break it.

    Raises:
        InfrastructureError: no cluster, or one that cannot hold the baseline.
        StudyStateError: another process has taken the study over.
    """
    backend = job.backend.open(study.spec.backend.options, site)
    with connected(address):
        cluster = _Cluster(backend.gpu_resource)
        nodes = list(cluster.now())
        reserve = _nothing if job.recorded else _reserving(study.spec, job.rules, backend, nodes)

        def can_hold(parameters: Parameters) -> str | None:
            return cannot_hold(reserve(parameters), cluster.lately())

        impossible = can_hold({})
        if impossible:
            raise InfrastructureError(f"the baseline {impossible}")
        telemetry = Telemetry(study.name, study.spec.objectives)
        mirroring = Mirroring(mirrors, watcher.said)

        def heard(trial: Trial) -> None:
            telemetry.changed(trial)
            mirroring.changed(trial)
            watcher.changed(trial)

        loop = StudyLoop(
            study,
            store,
            job.searcher(),
            job.rules,
            known=store.trials(study.name) if resume else (),
            foresight=job.foresight(),
            can_hold=can_hold,
            scheduler=job.scheduler(),
            listener=heard,
        )
        if not job.recorded:
            if backend.gpu_resource == GPU and (warning := unwatched(nodes, unasked())):
                watcher.said(warning)
            prepare_everywhere(study.spec, backend, site, watcher.said)
        loop.begin()
        try:
            with _signals(loop), _faults(loop):
                telemetry.begun(loop)
                mirroring.begun(store.study(study.name), loop.trials)  # as it is since it began
                watcher.begun(loop)
                _tune(study, loop, cluster, reserve, job.search.learns, watcher.tick, site)
        finally:
            state = _ended(loop, backend, study.name)
            mirroring.ended()
            if len(nodes) > 1 and not job.recorded:
                for line in sweep_everywhere(study.spec, site):
                    watcher.said(f"left by the study: {line}")
        if loop.usurped:  # what becomes of it is for its driver to say
            raise StudyStateError(loop.broken)
        if loop.broken and not loop.cancelled:
            raise InfrastructureError(loop.broken)
        return state


def _nothing(_: Parameters) -> Reservation:
    """What a trial reserves that starts nothing: a CPU for its actor."""
    return Reservation(1, 0)


def _reserving(
    spec: StudySpec, engine: Rules, backend: Backend, nodes: Sequence[Node]
) -> Callable[[Parameters], Reservation]:
    """What a trial of the study reserves, by its parameters.

    Args:
        nodes: as they were when the study began. Whether the cluster has GPUs at all was said
            then: that its last node with GPUs has left does not make a trial one for CPUs.
    """

    def reserve(parameters: Parameters) -> Reservation:
        launch = engine.launch(spec, parameters, port=0, place=backend.place)
        return reservation(launch, nodes, resource=backend.gpu_resource)

    return reserve


class _Cluster:
    """The nodes of the cluster that we are connected to; see `bridge.Cluster`.

    Args:
        resource: what their GPUs are counted in.
    """

    def __init__(self, resource: str) -> None:
        self._resource = resource
        self._looked = -LOOK_SECONDS
        self._nodes: list[Node] = []
        self._seen: dict[str, tuple[float, Node]] = {}

    def now(self) -> Sequence[Node]:
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._nodes = [self._node(each) for each in counted(held=True)]
            self._seen.update((node.id, (now, node)) for node in self._nodes)
        return self._nodes

    def lately(self) -> Sequence[Node]:
        since = time.monotonic() - RETURN_SECONDS
        self._seen = {id: each for id, each in self._seen.items() if each[0] >= since}
        return [node for _, node in self._seen.values()]

    def held(self, name: str) -> bool:
        groups = placement_group_table().values()
        return any(each["name"] == name and each["state"] == "CREATED" for each in groups)

    def _node(self, each: Counted) -> Node:
        (cpus, cpus_used), (gpus, gpus_used) = map(each.of, ("CPU", self._resource))
        return Node(
            cpus=cpus,
            gpus=gpus,
            id=each.id,
            name=each.address,
            cpus_used=cpus_used,
            gpus_used=gpus_used,
        )


def _tune(
    study: Study,
    loop: StudyLoop,
    cluster: Cluster,
    reserve: Callable[[Parameters], Reservation],
    learns: bool,
    tick: Callable[[], None],
    site: Site,
) -> None:
    spec = study.spec
    scratch = Path(study.directory) / "tune"

    def beat() -> None:
        tick()
        loop.renew()

    Path(study.directory, DRIVER_FILE).write_text(this_process(), encoding="utf-8")
    ahead = AHEAD if learns else UNLEARNT_AHEAD
    placer = Placer(at_once=spec.search.parallel, ahead=ahead, overtaken=max(ahead, OVERTAKEN))
    asker = Asker(loop, placer, cluster, reserve, beat=beat)
    teller = Teller(loop, asker, beat, spec.limits.trial_seconds)
    tuner = tune.Tuner(
        _with_site(site),
        tune_config=tune.TuneConfig(
            search_alg=asker,
            scheduler=Decider(loop, asker),
            num_samples=-1,
            # Unset, Tune starts one trial at a time.
            max_concurrent_trials=spec.search.parallel or MANY,
            trial_name_creator=lambda trial: f"{spec.name}-{trial.trial_id}",
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=str(scratch),
            stop=Canceller(loop, teller),
            callbacks=[teller],
            # What the machine broke is started afresh by the loop, on another node.
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        tuner.fit()
    finally:
        # Tune's own record of the experiment; ours is the store.
        shutil.rmtree(scratch, ignore_errors=True)


def _with_site(site: Site) -> Any:
    """The trials' actor, with what the operator says in Ray's object store: Tune writes the
    trials' configurations to files."""
    actor = tune.with_parameters(TrialActor, site=site, driver=this_process())
    # What the process is called, in the dashboard and in `ps`.
    actor.__name__ = actor.__qualname__ = TrialActor.__name__
    return actor


@contextmanager
def _signals(loop: StudyLoop) -> Iterator[None]:
    """The first SIGINT or SIGTERM cancels the study in order; a second interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(number: int, _: Any) -> None:
        if loop.cancelled:
            raise KeyboardInterrupt
        loop.cancel(f"cancelled by {signal.Signals(number).name}")

    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _faults(loop: StudyLoop) -> Iterator[None]:
    """What Tune and Ray raise, which is of many kinds, breaks the study, unless it is another
    driver's by now."""
    try:
        yield
    except Exception as error:
        if loop.usurped:
            raise StudyStateError(loop.broken) from error
        loop.broken = loop.broken or f"the driver failed: {error!r}"[:300]
        raise InfrastructureError(loop.broken) from error


def _ended(loop: StudyLoop, backend: Backend, study: str) -> StudyState:
    """Close the study once nothing of its trials is there; whoever cannot say so does not keep it
    open, and is remarked."""
    try:
        _wait_gone(backend, study)
    except InfrastructureError as error:
        said = str(error).splitlines()[0]
        loop.remark(f"whether its trials left anything is not known, see autotuner sweep: {said}")
    return loop.finish()


def _wait_gone(backend: Backend, study: str) -> None:
    """Until the guards of killed trials have done their work; what they left is swept."""
    deadline = time.monotonic() + GONE_SECONDS
    while backend.left(study) and time.monotonic() < deadline:
        time.sleep(0.1)
    backend.sweep(study, owned=False)
