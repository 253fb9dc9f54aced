"""The loop of a study, without Ray: what runs next, and what an answer changes.

Whoever has a place to run a trial takes `next` and later says what became of it; the loop
keeps the store and the searcher in step. It is the only writer of the study's rows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from autotuner.backends.guarded import this_process
from autotuner.engines.base import Engine
from autotuner.errors import FailureClass
from autotuner.execution.trial import Assignment
from autotuner.search.base import Searcher
from autotuner.store import Store
from autotuner.study.objective import objective_values, violations
from autotuner.study.pareto import best_of
from autotuner.study.space import Parameters
from autotuner.study.study import Study, StudyState, timestamp
from autotuner.study.trial import BASELINE, Outcome, Trial, TrialState

FAILURES_IN_A_ROW = 3
"""Trials the infrastructure broke, one after another, before the study gives up."""

REFUSALS_IN_A_ROW = 1000
"""Refused points, one after another, before the search is called exhausted."""

Listener = Callable[[Trial], None]


class StudyLoop:
    """One run of one study. Not thread-safe.

    Args:
        known: trials of an earlier run: their answers are told to the searcher, and those
            that have none are run again under their numbers.
        can_hold: why the cluster can never hold a point, or None.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        searcher: Searcher,
        engine: Engine,
        *,
        known: Sequence[Trial] = (),
        can_hold: Callable[[Parameters], str | None] = lambda parameters: None,
        listener: Listener = lambda trial: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._spec = study.spec
        self._store = store
        self._searcher = searcher
        self._engine = engine
        self._can_hold = can_hold
        self._listener = listener
        self._clock = clock
        self._began = clock()
        self._trials: dict[int, Trial] = {}
        self._launches: dict[str, int] = {}
        self._twins: dict[int, list[Parameters]] = {}
        self._again: list[Trial] = []
        self._failures = 0
        self.broken: str = ""
        """Why the infrastructure ended the study, or empty."""
        self.ended_early: str = ""
        """Why no further trial is started, or empty."""
        self.cancelled: str = ""
        """Who cancelled the study, or empty."""
        self.expired: str = ""
        """Which limit of time was reached, or empty."""
        for trial in known:
            self._recall(trial)

    def begin(self) -> None:
        """Mark the study as running, driven by this process."""
        self._store.set_state(
            self._spec.name,
            StudyState.RUNNING,
            reason="",
            driver=this_process(),
            started_at=self._study.started_at or timestamp(),
            ended_at="",
        )

    def next(self) -> Assignment | None:
        """The next trial to launch; None when there is none left to start."""
        if self.over or self.ended_early:
            return None
        if self._again:
            return self._assign(self._again.pop(0))
        if BASELINE not in self._trials:
            self._launches[self._identity({})] = BASELINE
            return self._assign(self._new({}, BASELINE))
        for _ in range(REFUSALS_IN_A_ROW):
            if self.remaining == 0:
                return None
            point = self._searcher.ask()
            if point is None:
                return None
            reason = self._engine.refuse(self._spec, point) or self._can_hold(point)
            if reason:
                self._refuse(point, reason)
                continue
            twin = self._launches.get(self._identity(point))
            if twin is not None:
                self._answer_like(twin, point)
                continue
            trial = self._new(point)
            self._launches[self._identity(point)] = trial.number
            return self._assign(trial)
        self.ended_early = f"{REFUSALS_IN_A_ROW} points in a row were refused or known"
        return None

    def started(self, number: int) -> None:
        self._change(number, state=TrialState.DEPLOYING, started_at=timestamp(), note="")

    def placed(self, number: int, *, node: str, gpu_ids: tuple[str, ...]) -> None:
        """Where a trial runs; written with the next change."""
        self._trials[number] = dataclasses.replace(self._trials[number], node=node, gpu_ids=gpu_ids)

    def progressed(self, number: int, note: str, outcome: Outcome) -> None:
        """A load point begins; `outcome` holds what was measured so far."""
        self._change(
            number,
            state=TrialState.BENCHMARKING,
            note=note,
            load_points=outcome.load_points,
            phases=outcome.phases,
        )

    def answered(self, number: int, outcome: Outcome) -> None:
        """A trial ended with an answer; the searcher learns it."""
        metrics = [point.metrics for point in outcome.load_points]
        complete = outcome.state is TrialState.COMPLETE
        broken = violations(self._spec.bounds, metrics) if complete else {}
        trial = self._trials[number].with_outcome(
            outcome,
            objectives=objective_values(self._spec.objectives, metrics) if complete else {},
            violations=broken,
            ended_at=timestamp(),
        )
        missing = [name for name, value in trial.objectives.items() if value is None]
        missing += [name for name in self._spec.constraints if complete and name not in broken]
        if missing:
            trial = dataclasses.replace(
                trial,
                state=TrialState.INFEASIBLE,
                failure=FailureClass.BENCHMARK,
                reason=f"{missing[0]} could not be measured at every load point",
                objectives={},
                violations={},
            )
        self._failures = 0
        self._keep(trial)
        self._searcher.tell(trial)
        for point in self._twins.pop(number, []):
            self._searcher.tell(dataclasses.replace(trial, parameters=point))
        if trial.is_baseline and trial.failure is FailureClass.MODEL:
            self.ended_early = f"no trial can load this model: {trial.reason}"

    def failed(self, number: int, reason: str) -> None:
        """The infrastructure broke the trial, retries included; nobody is told."""
        self._end(number, TrialState.FAILED, reason)
        trial = self._trials[number]
        # Nothing is learnt from it, but it is no longer under way, and neither are its twins.
        self._searcher.tell(trial)
        self._launches.pop(self._identity(trial.parameters), None)
        for point in self._twins.pop(number, []):
            self._searcher.tell(dataclasses.replace(trial, parameters=point))
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self.broken = f"{self._failures} trials in a row failed; the last: {reason}"

    def cancel(self, reason: str) -> None:
        """Start nothing more; whoever runs trials is to stop them."""
        self.cancelled = self.cancelled or reason

    def finish(self) -> StudyState:
        """Close the study: what still runs is cancelled, and the state says how it ended."""
        for trial in list(self._trials.values()):
            if not trial.state.ended:
                reason = self.cancelled or self.expired or "the study ended"
                self._end(trial.number, TrialState.CANCELLED, reason)
        state, reason = self._verdict()
        self._store.set_state(
            self._spec.name, state, reason=reason, driver="", ended_at=timestamp()
        )
        return state

    @property
    def over(self) -> bool:
        """Whether nothing more starts and what runs is to be stopped."""
        hours = self._spec.limits.hours
        if not self.expired and self._clock() - self._began >= hours * 3600:
            self.expired = f"the study's limit of {hours:g} h was reached"
        return bool(self.cancelled or self.expired or self.broken)

    @property
    def trials(self) -> list[Trial]:
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    @property
    def remaining(self) -> int | None:
        """Trials still to be started, at most; None where the space decides."""
        budget = self._spec.budget
        return None if budget is None else max(0, budget - self._launched())

    def _verdict(self) -> tuple[StudyState, str]:
        if self.cancelled:
            return StudyState.CANCELLED, self.cancelled
        if self.broken:
            return StudyState.FAILED, self.broken
        if best_of(self.trials, self._spec.objectives) is not None:
            return StudyState.COMPLETE, self.ended_early or self.expired
        early = self.ended_early or self.expired
        return StudyState.FAILED, early or "no feasible trial: " + self._commonest()

    def _commonest(self) -> str:
        """The most frequent reason why a trial is not feasible."""
        reasons: dict[str, int] = {}
        for trial in self._trials.values():
            reason = trial.reason
            if trial.state is TrialState.COMPLETE:
                broken = [name for name, v in trial.violations.items() if v > 0]
                reason = f"{', '.join(broken)} out of bounds" if broken else ""
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
        if not reasons:
            return "none was measured"
        reason, count = max(reasons.items(), key=lambda item: item[1])
        return f"{reason} ({count} of {len(self._trials)} trials)"

    def _launched(self) -> int:
        """Trials that count against the budget; those the infrastructure broke do not."""
        return sum(
            not trial.is_baseline and not trial.refused and trial.state is not TrialState.FAILED
            for trial in self._trials.values()
        )

    def _identity(self, point: Parameters) -> str:
        """Two points with the same identity would start the very same server."""
        launch = self._engine.launch(self._spec, point, port=0)
        return repr((launch.argv, sorted(launch.environment.items())))

    def _answer_like(self, number: int, point: Parameters) -> None:
        twin = self._trials[number]
        if twin.state.answered:
            self._searcher.tell(dataclasses.replace(twin, parameters=point))
        else:
            self._twins.setdefault(number, []).append(point)

    def _new(self, point: Parameters, number: int | None = None) -> Trial:
        if number is None:
            number = max(self._trials, default=BASELINE) + 1
        directory = Path(self._study.directory) / "trials" / f"{number:04d}"
        trial = Trial(number, point, directory=str(directory), created_at=timestamp())
        self._keep(trial)
        return trial

    def _refuse(self, point: Parameters, reason: str) -> None:
        trial = dataclasses.replace(
            self._new(point),
            state=TrialState.INFEASIBLE,
            failure=FailureClass.REFUSED,
            reason=reason,
            directory="",
            ended_at=timestamp(),
        )
        self._keep(trial)
        self._searcher.tell(trial)

    def _assign(self, trial: Trial) -> Assignment:
        return Assignment(self._spec, trial.number, trial.parameters, trial.directory)

    def _recall(self, trial: Trial) -> None:
        if not trial.state.answered:
            trial = Trial(
                trial.number,
                trial.parameters,
                directory=trial.directory,
                created_at=trial.created_at,
            )
            self._again.append(trial)
        self._trials[trial.number] = trial
        if not trial.refused:
            self._launches[self._identity(trial.parameters)] = trial.number
        self._searcher.tell(trial)

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        self._change(number, state=state, reason=reason, note="", ended_at=timestamp())

    def _change(self, number: int, **changes: object) -> None:
        self._keep(dataclasses.replace(self._trials[number], **changes))  # type: ignore[arg-type]

    def _keep(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._store.save(self._spec.name, trial)
        self._listener(trial)
