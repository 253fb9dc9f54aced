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
from typing import Any

import ray
from ray import tune

from autotuner.backends.base import Backend
from autotuner.benchmarks.base import Recorded
from autotuner.engines.rules import Rules
from autotuner.errors import InfrastructureError
from autotuner.execution.actor import TrialActor
from autotuner.execution.bridge import Asker, Canceller, Decider, Teller
from autotuner.execution.everywhere import prepare_everywhere, sweep_everywhere
from autotuner.execution.loop import Listener, StudyLoop
from autotuner.execution.nodes import connected
from autotuner.execution.reservation import (
    Node,
    Reservation,
    cannot_hold,
    reservation,
    slots,
)
from autotuner.foresight import Foresight
from autotuner.plugins import load_kind
from autotuner.search.base import Scheduler, Searcher
from autotuner.settings import Site
from autotuner.store import Store
from autotuner.study.space import Parameters
from autotuner.study.study import Study, StudyState

RETRIES = 1
"""Fresh starts of a trial whose machine failed."""

GONE_SECONDS = 10.0
"""How long the end of a study waits for killed trials' servers to be gone."""


def run_study(
    study: Study,
    store: Store,
    searcher: Searcher,
    engine: Rules,
    backend: Backend,
    *,
    foresight: Foresight | None = None,
    scheduler: Scheduler | None = None,
    site: Site | None = None,
    address: str | None = None,
    resume: bool = False,
    listener: Listener = lambda trial: None,
    begun: Callable[[StudyLoop], None] = lambda loop: None,
    tick: Callable[[], None] = lambda: None,
    said: Callable[[str], None] = lambda text: None,
) -> StudyState:
    """Run a study to its end on a Ray cluster.

    Args:
        address: of the cluster; that of RAY_ADDRESS by default. See `execution.cluster`.
        foresight, scheduler: see `StudyLoop`.
        site: what the operator says of the machines; all defaults by default.
        resume: go on from the trials in the store.
        listener: hears of every change of a trial.
        begun: hears of the loop once the cluster is there.
        tick: called several times a second.
        said: hears how the nodes get ready.

    Raises:
        InfrastructureError: no cluster, or one that cannot hold the baseline.
    """
    with connected(address):
        nodes = [
            Node(cpus=each["Resources"].get("CPU", 0), gpus=each["Resources"].get("GPU", 0))
            for each in ray.nodes()
            if each["Alive"]
        ]

        recorded = isinstance(load_kind("benchmark", study.spec.benchmark.kind), Recorded)

        def reserve(parameters: Parameters) -> Reservation:
            if recorded:  # nothing is started
                return Reservation(1, 0)
            launch = engine.launch(study.spec, parameters, port=0, place=backend.place)
            return reservation(launch, nodes)

        def can_hold(parameters: Parameters) -> str | None:
            return cannot_hold(reserve(parameters), nodes)

        impossible = can_hold({})
        if impossible:
            raise InfrastructureError(f"the baseline {impossible}")
        at_once = study.spec.search.parallel or _most_at_once(reserve({}), nodes)
        loop = StudyLoop(
            study,
            store,
            searcher,
            engine,
            known=store.trials(study.name) if resume else (),
            foresight=foresight,
            can_hold=can_hold,
            scheduler=scheduler,
            listener=listener,
        )
        site = site or Site()
        if not recorded:
            prepare_everywhere(study.spec, backend, site, said)
        loop.begin()
        begun(loop)
        try:
            with _signals(loop):
                _tune(study, loop, reserve, at_once, tick, site)
        except Exception as error:  # Tune's and Ray's are of many kinds
            loop.broken = loop.broken or f"the driver failed: {error!r}"[:300]
            raise InfrastructureError(loop.broken) from error
        finally:
            _wait_gone(backend, study.name)
            if len(nodes) > 1 and not recorded:
                sweep_everywhere(study.spec, site)
            state = loop.finish()
        if loop.broken and not loop.cancelled:
            raise InfrastructureError(loop.broken)
        return state


def _most_at_once(baseline: Reservation, nodes: Sequence[Node]) -> int:
    """Trials that may be under way: on GPUs, as many as the smallest kind of trial allows."""
    return slots(Reservation(baseline.cpus, 1) if baseline.gpus else baseline, nodes)


def _tune(
    study: Study,
    loop: StudyLoop,
    reserve: Callable[[Parameters], Reservation],
    at_once: int,
    tick: Callable[[], None],
    site: Site,
) -> None:
    spec = study.spec
    scratch = Path(study.directory) / "tune"
    tuner = tune.Tuner(
        # In Ray's object store, and not in the trials' configurations, which Tune writes to files.
        tune.with_parameters(TrialActor, site=site),
        tune_config=tune.TuneConfig(
            search_alg=Asker(loop, reserve),
            scheduler=Decider(loop),
            num_samples=-1,
            # Unset, Tune starts one trial at a time.
            max_concurrent_trials=at_once,
            trial_name_creator=lambda trial: f"{spec.name}-{trial.trial_id}",
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=str(scratch),
            stop=Canceller(loop),
            callbacks=[Teller(loop, tick, spec.limits.trial_seconds)],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
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


def _wait_gone(backend: Backend, study: str) -> None:
    """Until the guards of killed trials have done their work; what they left is swept."""
    deadline = time.monotonic() + GONE_SECONDS
    while backend.left(study) and time.monotonic() < deadline:
        time.sleep(0.1)
    backend.sweep(study, owned=False)
