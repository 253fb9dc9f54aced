"""Between Ray Tune and the loop of a study: Tune asks here what to run, and says here what
happened. Our own bridge, because Tune's OptunaSearch cannot say that a point is infeasible and
forgets what failed (docs/decisions/0003)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher as TuneSearcher

from autotuner.errors import InfrastructureError
from autotuner.execution.actor import ASSIGNMENT, HELD_AS, NEWS, NODES, RESERVATION, News
from autotuner.execution.loop import StudyLoop
from autotuner.execution.parcel import unpack
from autotuner.execution.placer import Placed, Placer
from autotuner.execution.reservation import Node, Reservation, cannot_hold
from autotuner.execution.trial import Assignment
from autotuner.study.space import Parameters

HUNG_SECONDS = 60.0
"""Beyond its own deadlines, until a trial that says nothing is ended from outside."""

HUNG = "it said nothing for so long that it was ended"

PREPARING_SECONDS = 3600.0
"""From an actor's start to its launch, at most: a node that has just joined may have to pull a
large image on the way."""

PENDING_SECONDS = 30.0
"""Until a trial that does not get its place moves to one that is free: another study of the same
cluster may have been faster by a moment. Ray gives a free place in less than one second."""


class Cluster(Protocol):
    """The nodes that trials run on."""

    def now(self) -> Sequence[Node]:
        """The nodes that are there, and what of them is in use. Asked many times a second."""

    def lately(self) -> Sequence[Node]:
        """Those, and the nodes that left a short time ago and may come back."""

    def held(self, name: str) -> bool:
        """Whether the resources that were asked for under this name are held."""


class _NotSnapshotted:
    """Tune pickles its parts for a restore we do not use: a study resumes from its store."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Asker(_NotSnapshotted, TuneSearcher):
    """Hands the loop's assignments to Tune, one Tune trial for each attempt, pinned to its place.

    Args:
        beat: called each time Tune asks, which it does several times a second.
    """

    def __init__(
        self,
        loop: StudyLoop,
        placer: Placer,
        cluster: Cluster,
        reserve: Callable[[Parameters], Reservation],
        *,
        beat: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._placer = placer
        self._cluster = cluster
        self._reserve = reserve
        self._beat = beat
        self._clock = clock
        self._waiting: dict[int, Assignment] = {}
        self._handed: dict[str, tuple[Assignment, float]] = {}
        self._known: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        self._beat()
        self._look()
        while True:
            if self._loop.over:
                return TuneSearcher.FINISHED
            placed = self._placer.place()
            if placed is not None:
                return self._hand(trial_id, placed)
            if not self._placer.wants_more:
                return None
            assignment = self._loop.next()
            if assignment is None:
                return None if self._loop.waiting else TuneSearcher.FINISHED
            needed = self._reserve(self._loop.parameters(assignment.number))
            self._waiting[assignment.number] = assignment
            self._placer.wait(assignment.number, needed)

    def _look(self) -> None:
        """See the nodes as they are now, and tell the loop what that means."""
        self._placer.see(self._cluster.now())
        lately = self._cluster.lately()
        known = {node.id for node in lately}
        if known != self._known:
            self._known = known
            self._give_up(lately)
        for id, row in self._placer.sick.items():
            self._loop.remark(
                f"{row} trials in a row broke on node {self._names([id])}; others are preferred"
            )

    def _give_up(self, nodes: Sequence[Node]) -> None:
        """Give up what no node can hold any more, now that others have left for good."""
        lost = cannot_hold(self._reserve({}), nodes)
        if lost:
            self._loop.broken = self._loop.broken or f"nodes left, and the baseline now {lost}"
        for number, needed in self._placer.waiting.items():
            reason = cannot_hold(needed, nodes)
            if reason:
                self._placer.drop(number)
                del self._waiting[number]
                self._loop.unplaceable(number, reason)

    def _hand(self, trial_id: str, placed: Placed) -> dict[str, Any]:
        assignment = self._waiting.pop(placed.number)
        self._handed[trial_id] = (assignment, self._clock())
        self._loop.placed(placed.number, node=self._names(placed.nodes), gpu_ids=())
        return {
            ASSIGNMENT: assignment,
            RESERVATION: self._placer.reserved(placed.number),
            NODES: placed.nodes,
            HELD_AS: self._held_as(trial_id, placed.number),
        }

    def _held_as(self, trial_id: str, number: int) -> str:
        return f"autotuner trial {number} ({trial_id})"

    def _names(self, ids: Sequence[str]) -> str:
        names = {node.id: node.name for node in self._cluster.lately()}
        return ", ".join(names.get(id, "") or id for id in ids)

    def started(self, trial_id: str) -> None:
        """Tune has started the trial."""
        assignment, _ = self._handed[trial_id]
        self._placer.started(assignment.number)

    def misplaced(self) -> set[str]:
        """Tune's trials that are to be taken from it, because they will not start where they are
        pinned: their node is gone, or somebody else was faster. They wait for a place again."""
        self._placer.see(self._cluster.now())
        lost = set(self._placer.lost)
        found = {
            trial_id
            for trial_id, (assignment, since) in self._handed.items()
            if assignment.number in lost or self._passed_over(trial_id, assignment.number, since)
        }
        for trial_id in found:
            assignment, _ = self._handed.pop(trial_id)
            self._waiting[assignment.number] = assignment
            self._placer.take_back(assignment.number)
        return found

    def _passed_over(self, trial_id: str, number: int, since: float) -> bool:
        """Whether a trial waits for its place in vain, while there is room elsewhere."""
        return (
            self._clock() - since > PENDING_SECONDS
            and self._placer.pending(number)
            and self._placer.fits_elsewhere(number)
            and not self._cluster.held(self._held_as(trial_id, number))
        )

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The place is free again. What became of the trial `Teller` tells the loop."""
        handed = self._handed.pop(trial_id, None)
        if handed is not None:
            self._placer.ended(handed[0].number, broke=error and not self._loop.over)

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save, see `_NotSnapshotted`."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study resumes from its store")


class Canceller(_NotSnapshotted, Stopper):
    """Ends the experiment when the loop was cancelled or is broken."""

    def __init__(self, loop: StudyLoop, teller: Teller) -> None:
        self._loop = loop
        self._teller = teller
        self._closed = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Asked once a step, before Tune waits 5 s for the steps of actors that hear nothing."""
        if self._loop.over and not self._closed:
            self._closed = True
            self._teller.end_all()
            self._loop.close()
        return self._loop.over


class Decider(_NotSnapshotted, FIFOScheduler):
    """Tells the loop how a trial gets on, and Tune whether it is to go on. Tune does not ask
    about a trial's last report: `Teller` hears of that."""

    def __init__(self, loop: StudyLoop, asker: Asker) -> None:
        super().__init__()
        self._loop = loop
        self._asker = asker

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: trials start in the order in which they got their places. Tune asks this before
        it starts any, so here those are taken back whose place is no good any more: a placement
        group that is pinned to a dead node stays pending for ever, and nobody is told."""
        misplaced = self._asker.misplaced()
        for trial in tune_controller.get_trials() if misplaced else ():
            if trial.trial_id in misplaced:
                tune_controller.stop_trial(trial)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        news: News = result[NEWS]
        number = _number(trial)
        self._loop.placed(number, node=news.node, gpu_ids=news.gpu_ids)
        going_on = news.outcome is None or self._loop.progressed(number, news.note, news.outcome)
        decision: str = FIFOScheduler.CONTINUE if going_on else FIFOScheduler.STOP
        return decision


class Teller(_NotSnapshotted, Callback):
    """Tells the loop when Tune's trials begin and break, and ends those that hang or were
    cancelled."""

    def __init__(
        self,
        loop: StudyLoop,
        asker: Asker,
        beat: Callable[[], None],
        trial_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._asker = asker
        self._beat = beat
        self._trial_seconds = trial_seconds
        self._clock = clock
        self._until: dict[str, float] = {}
        self._hung: set[str] = set()
        self._trials: list[TuneTrial] = []

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **_: Any) -> None:
        self._beat()
        self._trials = trials
        now = self._clock()
        late = [t for t in trials if now > self._until.get(t.trial_id, now)]
        self._hung.update(trial.trial_id for trial in late)
        self._end(late)

    def end_all(self) -> None:
        self._end(self._trials)

    def _end(self, trials: list[TuneTrial]) -> None:
        """A step that blocks hears nothing. Its guard ends what it started."""
        for trial in trials:
            if self._until.pop(trial.trial_id, None) is None:
                continue
            actor = trial.temporary_state.ray_actor
            if actor is not None:
                ray.kill(actor)

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any
    ) -> None:
        self._until[trial.trial_id] = self._clock() + PREPARING_SECONDS + HUNG_SECONDS
        self._asker.started(trial.trial_id)
        reserved: Reservation = trial.config[RESERVATION]
        self._loop.started(_number(trial), gpus=reserved.gpus)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        news: News = result[NEWS]
        if news.deploying:
            self._until[trial.trial_id] = self._clock() + self._allowed(trial)
        if news.ended and news.outcome is not None:
            self._loop.placed(_number(trial), node=news.node, gpu_ids=news.gpu_ids)
            if news.files:
                with suppress(OSError):  # its logs are lost, and not what was measured
                    unpack(news.files, Path(trial.config[ASSIGNMENT].directory))
            self._loop.answered(_number(trial), news.outcome)

    def _allowed(self, trial: TuneTrial) -> float:
        """Seconds from the launch to the last report: its own limit, and then the load generator
        and the server are stopped, one after the other."""
        stopping = 2 * trial.config[ASSIGNMENT].spec.limits.stop_seconds
        return float(self._trial_seconds + stopping + HUNG_SECONDS)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any
    ) -> None:
        self._until.pop(trial.trial_id, None)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any
    ) -> None:
        self._until.pop(trial.trial_id, None)
        if not self._loop.over:
            hung = trial.trial_id in self._hung
            self._loop.failed(_number(trial), HUNG if hung else _reason(trial))


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
    said = (lines or ["the actor died"])[0]
    # What Ray says of the call that failed helps nobody whose machine was switched off.
    return said.partition(": ")[0] if said.startswith("The actor ") else said[:300]
