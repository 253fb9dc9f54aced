"""For research and tests: the loop of a study in virtual time. The same searcher, scheduler, store
and verdict as on a cluster, in one process, with a benchmark that knows its answers."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from autotuner.benchmarks.base import Recorded
from autotuner.engines.rules import Rules
from autotuner.errors import TrialError
from autotuner.execution.loop import Listener, StudyLoop
from autotuner.execution.recorded import RecordedRun
from autotuner.foresight import Foresight
from autotuner.search.base import Scheduler, Searcher
from autotuner.store import Store
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import Trial

NODE = "virtual"


class _Event(NamedTuple):
    """A step of a trial ends at `time`; equal times go in the order of starting."""

    time: float
    number: int
    run: RecordedRun
    error: TrialError | None
    began: float


def replay_study(
    study: Study,
    store: Store,
    searcher: Searcher,
    rules: Rules,
    benchmark: Recorded,
    *,
    at_once: int = 1,
    foresight: Foresight | None = None,
    scheduler: Scheduler | None = None,
    known: Sequence[Trial] = (),
    listener: Listener = lambda trial: None,
) -> StudyState:
    """Run a study to its end, as fast as the table can be read.

    Args:
        at_once: trials that run side by side.
    """
    now = 0.0
    loop = StudyLoop(
        study,
        store,
        searcher,
        rules,
        known=known,
        foresight=foresight,
        scheduler=scheduler,
        listener=listener,
        clock=lambda: now,
    )
    loop.begin()
    events: list[_Event] = []
    while True:
        while len(events) < at_once:
            assignment = loop.next()
            if assignment is None:
                break
            gpus = rules.launch(study.spec, loop.parameters(assignment.number), port=0).gpus
            ids = tuple(f"{NODE}-{index}" for index in range(gpus))
            loop.placed(assignment.number, node=NODE, gpu_ids=ids)
            loop.started(assignment.number, gpus=gpus)
            run = RecordedRun(assignment, benchmark)
            heapq.heappush(events, _step(run, assignment.number, now, first=True))
        if not events or loop.over:
            break
        event = heapq.heappop(events)
        now = event.time
        following = _told(loop, study, event)
        if following is not None:
            heapq.heappush(events, following)
    return loop.finish()


def _step(run: RecordedRun, number: int, began: float, *, first: bool) -> _Event:
    """The next step of a run, taken now and ending later."""
    error: TrialError | None = None
    try:
        if first:
            run.deploy()
        else:
            load = run.assignment.spec.next_load(run.load_points)
            assert load is not None
            run.measure(load)
    except TrialError as caught:
        error = caught
    return _Event(began + run.seconds, number, run, error, began)


def _told(loop: StudyLoop, study: Study, event: _Event) -> _Event | None:
    """The loop hears of a step; the next one of that trial, if it goes on."""
    run, number = event.run, event.number
    load = None if event.error else study.spec.next_load(run.load_points)
    if load is None:
        loop.answered(number, run.outcome(event.error))
        return None
    if not loop.progressed(number, load.name, run.outcome()):
        return None
    return _step(run, number, event.began, first=False)
