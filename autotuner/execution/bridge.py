"""Between Ray Tune and the loop of a study: Tune asks here what to run, and says here what
happened. Our own bridge, because Tune's OptunaSearch cannot say that a point is infeasible and
forgets what failed (docs/decisions/0003)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher as TuneSearcher

from autotuner.errors import InfrastructureError
from autotuner.execution.actor import ASSIGNMENT, NEWS, RESERVATION, News
from autotuner.execution.loop import StudyLoop
from autotuner.execution.reservation import Reservation
from autotuner.study.space import Parameters

HUNG_SECONDS = 60.0
"""Beyond its own deadline, until a trial that says nothing is ended from outside."""


class _NotSnapshotted:
    """Tune pickles its parts for a restore we do not use: a study resumes from its store."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Asker(_NotSnapshotted, TuneSearcher):
    """Hands the loop's assignments to Tune."""

    def __init__(self, loop: StudyLoop, reserve: Callable[[Parameters], Reservation]) -> None:
        super().__init__()
        self._loop = loop
        self._reserve = reserve

    def suggest(self, trial_id: str) -> Any:
        assignment = self._loop.next()
        if assignment is None:
            return None if self._loop.waiting else TuneSearcher.FINISHED
        return {
            ASSIGNMENT: assignment,
            RESERVATION: self._reserve(self._loop.parameters(assignment.number)),
        }

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: `Teller` has told the loop already."""

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save, see `_NotSnapshotted`."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study resumes from its store")


class Canceller(_NotSnapshotted, Stopper):
    """Ends the experiment when the loop was cancelled or is broken."""

    def __init__(self, loop: StudyLoop) -> None:
        self._loop = loop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._loop.over


class Decider(_NotSnapshotted, FIFOScheduler):
    """Tells the loop how a trial gets on, and Tune whether it is to go on. Tune does not ask
    about a trial's last report: `Teller` hears of that."""

    def __init__(self, loop: StudyLoop) -> None:
        super().__init__()
        self._loop = loop

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        news: News = result[NEWS]
        number = _number(trial)
        self._loop.placed(number, node=news.node, gpu_ids=news.gpu_ids)
        going_on = self._loop.progressed(number, news.note, news.outcome)
        decision: str = FIFOScheduler.CONTINUE if going_on else FIFOScheduler.STOP
        return decision


class Teller(_NotSnapshotted, Callback):
    """Tells the loop when Tune's trials begin and break, and ends those that hang or were
    cancelled."""

    def __init__(self, loop: StudyLoop, tick: Callable[[], None], trial_seconds: float) -> None:
        self._loop = loop
        self._tick = tick
        self._allowed = trial_seconds + HUNG_SECONDS
        self._started: dict[str, float] = {}

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **_: Any) -> None:
        self._tick()
        self._loop.renew()
        over = self._loop.over
        for trial in trials:
            began = self._started.get(trial.trial_id)
            if began is None:
                continue
            if over or time.monotonic() - began > self._allowed:
                # A step that blocks hears nothing. Its guard ends what it started.
                self._started.pop(trial.trial_id)
                actor = trial.temporary_state.ray_actor
                if actor is not None:
                    ray.kill(actor)

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any
    ) -> None:
        self._started[trial.trial_id] = time.monotonic()
        self._loop.started(_number(trial))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        news: News = result[NEWS]
        if news.ended:
            self._loop.placed(_number(trial), node=news.node, gpu_ids=news.gpu_ids)
            self._loop.answered(_number(trial), news.outcome)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any
    ) -> None:
        self._started.pop(trial.trial_id, None)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any
    ) -> None:
        self._started.pop(trial.trial_id, None)
        if not self._loop.over:
            self._loop.failed(_number(trial), _reason(trial))


def _number(trial: TuneTrial) -> int:
    return int(trial.config[ASSIGNMENT].number)


def _reason(trial: TuneTrial) -> str:
    """One line of what Tune wrote about the trial's last failure: ours, where we raised it."""
    path = Path(trial.error_file) if trial.error_file else None
    if path is None or not path.exists():
        return "the actor died"
    failure = path.read_text(encoding="utf-8", errors="replace").split("Failure # ")[-1]
    lines = [line.strip() for line in failure.splitlines()[1:] if line.strip()]
    ours = [line for line in lines if line.startswith(f"{InfrastructureError.__module__}.")]
    if ours:
        return ours[-1].partition(": ")[2][:300]
    return (lines or ["the actor died"])[0][:300]
