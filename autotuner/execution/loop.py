"""The loop of a study, without Ray: what runs next, and what an answer changes.

Whoever has a place to run a trial takes `next` and later says what became of it; the loop
keeps the store and the searcher in step. It is the only writer of the study's rows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuner.backends.owners import this_owner
from autotuner.engines.rules import Rules
from autotuner.errors import FailureClass, StudyStateError
from autotuner.execution.trial import Assignment
from autotuner.foresight import EngineRules, Foresight
from autotuner.search.base import Scheduler, Searcher
from autotuner.store import Store
from autotuner.study import finals
from autotuner.study.budget import launched, typical, why_no_round, why_no_trial
from autotuner.study.pareto import best_of
from autotuner.study.reasons import by_cause
from autotuner.study.scoring import scored
from autotuner.study.space import Parameters
from autotuner.study.study import LEASE_SECONDS, Study, StudyState, seconds_between, timestamp
from autotuner.study.trial import BASELINE, Outcome, Trial, TrialState

FAILURES_IN_A_ROW = 3
"""Trials the infrastructure broke, one after another, before the study gives up."""

RETRIES = 1
"""Fresh starts of a trial that the infrastructure broke."""

REFUSALS_IN_A_ROW = 1000
"""Refused points, one after another, before the search is called exhausted."""

DOUBTS_IN_A_ROW = 20
"""Points set aside, one after another, before one of them is tried: a guess may be wrong."""

FAILED = TrialState.FAILED

RENEWALS = 6
"""Renewals of the driver's lease within its length."""

Listener = Callable[[Trial], None]


@dataclass(frozen=True)
class _Attempt:
    """A launch under way: when it was started, by the loop's clock, and the GPUs it reserved."""

    began: float
    gpus: int


class StudyLoop:
    """One run of one study: the search, then the verdict. Not thread-safe.

    Args:
        known: trials of an earlier run: their answers are told to the searcher, and those
            that have none are run again under their numbers.
        foresight: refuses and doubts points before their launch; the engine's rules by default.
        can_hold: why the cluster can never hold a point, or None.
        scheduler: stops weak trials; none by default.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        searcher: Searcher,
        engine: Rules,
        *,
        known: Sequence[Trial] = (),
        foresight: Foresight | None = None,
        can_hold: Callable[[Parameters], str | None] = lambda parameters: None,
        scheduler: Scheduler | None = None,
        listener: Listener = lambda trial: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._spec = study.spec
        self._store = store
        self._searcher = searcher
        self._engine = engine
        self._foresight = foresight or EngineRules(engine, study.spec)
        self._can_hold = can_hold
        self._scheduler = scheduler
        self._listener = listener
        self._me = this_owner()
        self._clock = clock
        self._began = clock()
        self._trials: dict[int, Trial] = {}
        self._launches: dict[Hashable, int] = {}
        self._twins: dict[int, list[Parameters]] = {}
        self._again: list[Trial] = []
        self._broke: dict[int, list[str]] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._aside: list[Parameters] = []
        self._failures = 0
        self._renewed = self._began
        self.broken: str = ""
        """Why the infrastructure ended the study, or empty."""
        self.ended_early: str = ""
        """Why the search ended before its budget did, or empty."""
        self.finals_ended: str = ""
        """Why the finals ended before the verdict's rounds did, or empty."""
        self.cancelled: str = ""
        """Who cancelled the study, or empty."""
        self.expired: str = ""
        """Which limit of time was reached, or empty."""
        self.remarks: list[str] = []
        """What the operator should know of the machines, in order of finding it out."""
        self.usurped: bool = False
        """Whether another driver has taken the study: nothing more of it is written."""
        again = self._to_run_again(known)
        for trial in known:
            self._recall(trial, again=trial.number in again)

    def begin(self) -> None:
        """Mark the study as running, driven by this process.

        Raises:
            StudyStateError: another process has taken it in the meantime.
        """
        me, store = self._me, self._store
        self._heed(any(store.claim(self._spec.name, me, was=mine) for mine in (me, "")))
        self._become(
            StudyState.RUNNING,
            reason="",
            renewed_at=timestamp(),
            started_at=self._study.started_at or timestamp(),
            ended_at="",
        )
        if self.usurped:
            raise StudyStateError(f"another process has just taken study {self._spec.name!r}")

    def renew(self) -> None:
        """Keep the driver's lease; to be called often, writes seldom."""
        now = self._clock()
        if now - self._renewed < LEASE_SECONDS / RENEWALS:
            return
        self._renewed = now
        self._heed(self._store.renew(self._spec.name, self._me))

    def next(self) -> Assignment | None:
        """The next trial to launch; None when there is none to start now: see `waiting`."""
        if self.over:
            return None
        if self._again:
            return self._assign(self._again.pop(0))
        if BASELINE not in self._trials and (baseline := self._baseline()) is not None:
            return self._assign(baseline)
        if not self._in_finals and not self.ended_early:
            trial = self._next_of_search()
            if trial is not None:
                return self._assign(trial)
        if self.waiting:
            return None
        trial = self._next_of_finals()
        return None if trial is None else self._assign(trial)

    @property
    def waiting(self) -> bool:
        """Whether what runs now may still lead to further trials."""
        return not self.over and any(not trial.state.ended for trial in self._trials.values())

    def _baseline(self) -> Trial | None:
        """The engine's own defaults. Where they provably cannot start they are kept as refused,
        None is returned, and the study goes on as it does without a feasible baseline."""
        trial = self._new({}, BASELINE)
        self._launches[self._identity({})] = BASELINE
        reason = self._foresight.refuse({})
        if reason is None:
            return trial
        self._keep(_refused(trial, reason))
        self._learn(self._trials[BASELINE])
        return None

    def _next_of_search(self) -> Trial | None:
        for _ in range(REFUSALS_IN_A_ROW):
            self.renew()
            if self.remaining == 0 or self._too_early or self._too_much():
                return None
            point = self._point()
            if point is None:
                return None
            reason = self._foresight.refuse(point) or self._can_hold(point)
            if reason:
                self._refuse(point, reason)
                continue
            twin = self._launches.get(self._identity(point))
            if twin is not None:
                self._answer_like(twin, point)
                continue
            gpus = self._engine.launch(self._spec, point, port=0).gpus
            if self._too_much(gpus):
                return None
            trial = self._new(point)
            self._launches[self._identity(point)] = trial.number
            return trial
        self.ended_early = f"{REFUSALS_IN_A_ROW} points in a row were refused or known"
        return None

    @property
    def _too_early(self) -> bool:
        """Whether nothing is to run beside the first trial: nobody knows what one costs yet."""
        limited = self._spec.limits.gpu_hours is not None
        return limited and self.waiting and typical(self.trials) is None

    def _too_much(self, gpus: int | None = None) -> bool:
        """Whether the limits end the search here."""
        short = why_no_trial(self._spec, self.trials, elapsed=self._elapsed, gpus=gpus)
        self.ended_early = short or self.ended_early
        return bool(short)

    def _point(self) -> Parameters | None:
        """The searcher's next point; doubtful ones wait until there are no others."""
        for index, point in enumerate(self._aside):
            if self._foresight.doubt(point) is None:  # a trial since then has shown otherwise
                return self._aside.pop(index)
        for _ in range(DOUBTS_IN_A_ROW):
            asked = self._searcher.ask()
            if asked is None:
                break
            if self._foresight.refuse(asked) or self._foresight.doubt(asked) is None:
                return asked
            self._aside.append(asked)
        return self._aside.pop(0) if self._aside else None

    def _next_of_finals(self) -> Trial | None:
        due = finals.due(self._spec, self.trials)
        if not due.numbers:
            return None
        if due.opens:
            self.finals_ended = (
                why_no_round(
                    self._spec,
                    self.trials,
                    len(due.numbers),
                    elapsed=self._elapsed,
                )
                or ""
            )
            if self.finals_ended:
                return None
        number = due.numbers[0]
        return self._new(self._trials[number].parameters, repeat_of=number, round_=due.round)

    def started(self, number: int, *, gpus: int = 0) -> None:
        """A trial begins.

        Args:
            gpus: reserved for it, which it costs from now on though it may never say a word.
        """
        self._attempts[number] = _Attempt(self._clock(), gpus)
        self._change(number, state=TrialState.DEPLOYING, started_at=timestamp(), note="")

    def remark(self, text: str) -> None:
        """Say something of the machines that the study runs on, beside the study's state."""
        if text in self.remarks:
            return
        self.remarks.append(text)
        if not self.cancelled:  # else the end of the study says it
            self._become(StudyState.RUNNING, reason="; ".join(self.remarks))

    def placed(self, number: int, *, gpu_ids: tuple[str, ...], node: str = "") -> None:
        """Where a trial runs: written at once when it is under way, else when it starts.

        Args:
            node: where this is not known, what was known before holds.
        """
        before = self._trials[number]
        trial = dataclasses.replace(before, node=node or before.node, gpu_ids=gpu_ids)
        self._trials[number] = trial
        if trial != before and number in self._attempts:
            self._keep(trial)

    def progressed(self, number: int, note: str, outcome: Outcome) -> bool:
        """A load point begins; `outcome` holds what was measured so far.

        Returns:
            Whether the trial is to go on; if not, it is STOPPED, and its server is to be ended.
        """
        self._change(
            number,
            state=TrialState.BENCHMARKING,
            note=note,
            load_points=outcome.load_points,
            phases=outcome.phases,
            observed=outcome.observed or self._trials[number].observed,
        )
        trial = self._trials[number]
        weak = self._scheduler and trial.searched and self._scheduler.weak(trial, self.trials)
        if not weak:
            return True
        self._end(number, TrialState.STOPPED, weak)
        self._failures = 0
        self._learn(self._trials[number])
        return False

    def answered(self, number: int, outcome: Outcome) -> None:
        """A trial ended with an answer; the searcher learns it."""
        trial = scored(self._spec, self._trials[number], outcome, ended_at=timestamp())
        if number in self._broke and trial.state is TrialState.COMPLETE and not trial.reason:
            said = f"second attempt; the first broke {self._broke[number][0]}"
            trial = dataclasses.replace(trial, reason=said)
        self._failures = 0
        self._attempts.pop(number, None)
        self._keep(trial)
        self._learn(trial)
        if trial.is_baseline and trial.failure is FailureClass.MODEL:
            self.ended_early = f"no trial can load this model: {trial.reason}"

    def _learn(self, trial: Trial) -> None:
        self._foresight.learn(trial)
        if not trial.searched:
            return
        self._searcher.tell(trial)
        for point in self._twins.pop(trial.number, []):
            self._searcher.tell(dataclasses.replace(trial, parameters=point))

    def failed(self, number: int, reason: str) -> None:
        """The infrastructure broke the trial. It is due again, as the next one, and FAILED once
        it has used up its RETRIES; nobody is told."""
        trial = self._trials[number]
        broke = self._broke.setdefault(number, [])
        broke.append(f"{_where(trial)}: {reason}")
        if len(broke) <= RETRIES:
            said = f"broke {broke[-1]}; started afresh"
            trial = dataclasses.replace(_afresh(self._charged(trial)), reason=said)
            self._again.insert(0, trial)
            self._keep(trial)
            return
        self._end(number, TrialState.FAILED, "; before that ".join(reversed(broke)))
        trial = self._trials[number]
        # Nothing is learnt from it, but it is no longer under way, and neither are its twins.
        self._learn(trial)
        if trial.searched:
            self._launches.pop(self._identity(trial.parameters), None)
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self.broken = f"{self._failures} trials in a row failed; the last: {reason}"

    def unplaceable(self, number: int, reason: str) -> None:
        """No node can hold the trial any more, before it was started: a point of the search is
        refused; without the baseline, or a round of the finals, there is no study."""
        trial = self._trials[number]
        if trial.is_baseline or not trial.searched:
            self.broken = f"trial {number} has no place any more: it {reason}"
            return
        self._keep(_refused(trial, reason))
        self._learn(self._trials[number])

    def cancel(self, reason: str) -> None:
        """Start nothing more; whoever runs trials is to stop them."""
        self.cancelled = self.cancelled or reason

    def close(self) -> None:
        """Write that a study was cancelled before its servers are gone: `ray job stop` gives its
        driver 3 s. `finish` still comes, if there is time."""
        if not self.cancelled:
            return
        for trial in list(self._trials.values()):
            if not trial.state.ended:
                self._end(trial.number, TrialState.CANCELLED, self.cancelled)
        self._become(StudyState.CANCELLED, reason=self.cancelled)

    def finish(self) -> StudyState:
        """Close the study: what still runs is cancelled, and the state says how it ended."""
        for trial in list(self._trials.values()):
            if not trial.state.ended:
                reason = self.cancelled or self.expired or "the study ended"
                self._end(trial.number, TrialState.CANCELLED, reason)
        state, reason = self._state()
        reason = "; ".join(filter(None, (reason, *self.remarks)))
        self._become(state, reason=reason, driver="", ended_at=timestamp())
        return state

    @property
    def over(self) -> bool:
        """Whether nothing more starts and what runs is to be stopped."""
        hours = self._spec.limits.hours
        if not self.expired and self._elapsed >= hours * 3600:
            self.expired = f"the study's limit of {hours:g} h was reached"
        return bool(self.cancelled or self.expired or self.broken)

    @property
    def trials(self) -> list[Trial]:
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    def parameters(self, number: int) -> Parameters:
        return self._trials[number].parameters

    @property
    def remaining(self) -> int | None:
        """Trials still to be started, at most; None where the space decides."""
        budget = self._spec.budget
        return None if budget is None else max(0, budget - launched(self.trials))

    @property
    def _elapsed(self) -> float:
        return self._clock() - self._began

    @property
    def _in_finals(self) -> bool:
        return any(not trial.searched for trial in self._trials.values())

    def _state(self) -> tuple[StudyState, str]:
        if self.cancelled:
            return StudyState.CANCELLED, self.cancelled
        if self.broken:
            return StudyState.FAILED, self.broken
        if best_of(self.trials, self._spec.objectives) is not None:
            early = self.ended_early or self.finals_ended or self.expired
            return StudyState.COMPLETE, early
        early = self.ended_early or self.expired
        nothing = "no feasible trial: " + self._commonest()
        return StudyState.FAILED, f"{early}; {nothing}" if early else nothing

    def _commonest(self) -> str:
        """The most frequent reason why a trial is not feasible."""
        reasons = []
        for trial in self._trials.values():
            reason = trial.reason
            if trial.state is TrialState.COMPLETE:
                broken = [name for name, v in trial.violations.items() if v > 0]
                reason = f"{', '.join(broken)} out of bounds" if broken else ""
            if reason:
                reasons.append(reason)
        if not reasons:
            return "none was measured"
        (reason, count), *_ = by_cause(reasons)
        return f"{reason} ({count} of {len(self._trials)} trials)"

    def _identity(self, point: Parameters) -> Hashable:
        return self._engine.launch(self._spec, point, port=0).identity

    def _answer_like(self, number: int, point: Parameters) -> None:
        twin = self._trials[number]
        if twin.state.answered:
            self._searcher.tell(dataclasses.replace(twin, parameters=point))
        else:
            self._twins.setdefault(number, []).append(point)

    def _new(
        self,
        point: Parameters,
        number: int | None = None,
        *,
        repeat_of: int | None = None,
        round_: int = 0,
    ) -> Trial:
        if number is None:
            number = max(self._trials, default=BASELINE) + 1
        directory = Path(self._study.directory) / "trials" / f"{number:04d}"
        trial = Trial(
            number,
            point,
            repeat_of=repeat_of,
            round=round_,
            predicted=self._foresight.predict(point),
            directory=str(directory),
            created_at=timestamp(),
        )
        self._keep(trial)
        return trial

    def _refuse(self, point: Parameters, reason: str) -> None:
        trial = _refused(self._new(point), reason)
        self._keep(trial)
        self._searcher.tell(trial)

    def _assign(self, trial: Trial) -> Assignment:
        spec, parameters = self._spec.at(trial.parameters)
        return Assignment(spec, trial.number, parameters, trial.directory)

    def _to_run_again(self, known: Sequence[Trial]) -> set[int]:
        """Numbers of the trials without an answer that are launched again.

        What was interrupted is. What the machine broke was made up for by another trial, so it
        is launched again only while there is budget, or its round of the finals lacks it.
        """
        again = {t.number for t in known if not t.state.answered and t.state is not FAILED}
        in_finals = any(not t.searched for t in known)
        searched = [t for t in known if t.searched and not t.is_baseline and not t.refused]
        budget = self._spec.budget
        left = len(searched) if budget is None else budget
        left -= sum(t.state is not FAILED for t in searched)
        for trial in (t for t in known if t.state is FAILED):
            if trial.is_baseline:
                again.add(trial.number)
            elif trial.searched and not in_finals and left > 0:
                again.add(trial.number)
                left -= 1
            # A repeat that broke is due again by itself, see `finals.due`.
        return again

    def _recall(self, trial: Trial, *, again: bool) -> None:
        if again:
            trial = _afresh(self._interrupted(trial))
            self._again.append(trial)
        self._trials[trial.number] = trial
        if trial.searched and not trial.refused and trial.state is not FAILED:
            self._launches[self._identity(trial.parameters)] = trial.number
        self._learn(trial)

    def _interrupted(self, trial: Trial) -> Trial:
        """A trial of an earlier run, with what it cost until that run's driver was last heard of,
        if it was under way then. Where the study was handed to a job in between, nobody knows
        when that was: what the phases tell is the least."""
        if trial.state.ended or not self._study.driver:
            return trial
        seconds = seconds_between(trial.started_at, self._study.renewed_at) or 0.0
        return trial.charged(len(trial.gpu_ids) * seconds / 3600)

    def _charged(self, trial: Trial) -> Trial:
        """A trial whose attempt ends here without an answer, with what that cost."""
        attempt = self._attempts.pop(trial.number, None)
        if attempt is None:  # it never started
            return trial
        gpus = max(attempt.gpus, len(trial.gpu_ids))
        return trial.charged(gpus * (self._clock() - attempt.began) / 3600)

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        if not state.answered:
            self._trials[number] = self._charged(self._trials[number])
        self._attempts.pop(number, None)
        self._change(number, state=state, reason=reason, note="", ended_at=timestamp())

    def _change(self, number: int, **changes: object) -> None:
        self._keep(dataclasses.replace(self._trials[number], **changes))  # type: ignore[arg-type]

    def _keep(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        if not self.usurped:
            self._heed(self._store.save(self._spec.name, trial, by=self._me))
        self._listener(trial)

    def _become(self, state: StudyState, **more: Any) -> None:
        if not self.usurped:
            name, me = self._spec.name, self._me
            self._heed(self._store.set_state(name, state, was=None, by=me, **more))

    def _heed(self, ours: bool) -> None:
        """Hear from the store whether the study is still ours."""
        if not ours:
            self.usurped = True
            self.broken = "another process has taken the study over"


def _where(trial: Trial) -> str:
    """Node and GPUs of a trial, as its reason says them."""
    on = f"on {trial.node or 'an unknown node'}"
    if not trial.gpu_ids:
        return on
    return f"{on} (GPU{'s' if len(trial.gpu_ids) > 1 else ''} {', '.join(trial.gpu_ids)})"


def _afresh(trial: Trial) -> Trial:
    """The trial as it was before it was started, but for what it has cost."""
    return Trial(
        trial.number,
        trial.parameters,
        predicted=trial.predicted,
        repeat_of=trial.repeat_of,
        round=trial.round,
        directory=trial.directory,
        lost_gpu_hours=trial.gpu_hours,
        created_at=trial.created_at,
    )


def _refused(trial: Trial, reason: str) -> Trial:
    """The trial as one that is answered without a launch."""
    return dataclasses.replace(
        trial,
        state=TrialState.INFEASIBLE,
        failure=FailureClass.REFUSED,
        reason=reason,
        directory="",
        ended_at=timestamp(),
    )
