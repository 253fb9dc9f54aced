"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from autotuner.report.summary import gains, load_names, overview, parameters_text, value_text
from autotuner.report.text import plain, trials_table
from autotuner.report.words import duration, measured, percent, shortened
from autotuner.report.words import gpu_hours as gpu_hours_text
from autotuner.study.budget import gpu_hours, launched, seconds_left, trials_left
from autotuner.study.pareto import best_of
from autotuner.study.space import Parameters
from autotuner.study.study import Study, timestamp
from autotuner.study.trial import Trial, TrialState, baseline_of

REFRESH_SECONDS = 0.5

LONGEST_VALUE = 60
"""Characters of a parameter's value in a line of progress."""


class Counting(Protocol):
    """What a display asks of the loop."""

    @property
    def trials(self) -> list[Trial]: ...


class Display(AbstractContextManager["Display"]):
    """Shows a running study. `changed` hears of trials, `tick` of time passing.

    Args:
        log: file that gets the plain lines in any case; those of an earlier run stay.
        first: said at once, as what is waited for until `begun`.
    """

    def __init__(
        self,
        study: Study,
        *,
        log: Path | None = None,
        first: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._log = log
        self._first = first
        self._clock = clock
        self._began = clock()
        self._loop: Counting | None = None
        self._drawn = 0.0
        self._said: dict[int, tuple[TrialState, str]] = {}
        # Progress goes to standard error: standard output is for results.
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.__enter__()
            self._live.update(self._picture(), refresh=True)
        if self._first:
            self._say(self._first)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def begun(self, loop: Counting) -> None:
        """The cluster is there and trials begin."""
        self._loop = loop
        self._say(f"study {self._study.name}: {', '.join(load_names(self._study.spec))}")

    def said(self, text: str) -> None:
        """Something that is neither a trial's nor the loop's, such as an image on its way."""
        if self._live is not None:
            self._live.console.print(text)
        self._say(text)

    def changed(self, trial: Trial) -> None:
        seen = (trial.state, trial.note)
        if trial.state is TrialState.PENDING or self._said.get(trial.number) == seen:
            return
        self._said[trial.number] = seen
        self._say(self._line(trial))

    def tick(self) -> None:
        now = self._clock()
        if self._live is not None and now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._live.update(self._picture(), refresh=True)

    def _say(self, text: str) -> None:
        if self._live is None:
            print(f"[{plain(duration(self._elapsed)):>9}] {text}", file=sys.stderr, flush=True)
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{timestamp()} {text}\n")

    @property
    def _elapsed(self) -> float:
        return self._clock() - self._began

    def _line(self, trial: Trial) -> str:
        text = f"{_name(trial)} {trial.state.value}"
        if trial.state is TrialState.DEPLOYING:
            return f"{text}  {short_parameters(trial.parameters)}" if trial.searched else text
        if trial.failure:
            advice = f" -> {trial.advice}" if trial.advice else ""
            return f"{text}  {trial.failure.value}: {trial.reason}{advice}"
        if trial.note or trial.reason:
            return f"{text}  {trial.note or trial.reason.removeprefix('stopped ')}"
        values = ", ".join(
            f"{name} {plain(measured(value, name))}" for name, value in trial.objectives.items()
        )
        return f"{text}  {values}; {self._summary()}"

    def _summary(self) -> str:
        """Where the study is, what it has cost, its best so far, and the time that is left."""
        trials = self._loop.trials if self._loop else []
        names = self._study.spec.objectives
        best = best_of(trials, names)
        parts = [self._phase(trials)]
        hours = gpu_hours(trials)
        if hours > 0:
            parts.append(plain(gpu_hours_text(hours)))
        if best is not None:
            gain = gains(best, baseline_of(trials), names)[names[0]]
            value = plain(measured(best.objectives[names[0]], names[0]))
            parts.append(f"best so far: trial {best.number}, {value} ({plain(percent(gain))})")
        parts.append(self._left(trials))
        return "; ".join(part for part in parts if part)

    def _phase(self, trials: Sequence[Trial]) -> str:
        """The search, or a round of the finals; how far it is."""
        now = max((trial.round for trial in trials), default=0)
        if now:
            return f"finals round {now} of at most {self._study.spec.verdict.rounds}"
        ended = sum(
            trial.state.answered and not trial.is_baseline and not trial.refused for trial in trials
        )
        left = trials_left(self._study.spec, trials)
        return f"search {ended}" + ("" if left is None else f" of {launched(trials) + left}")

    def _left(self, trials: Sequence[Trial]) -> str:
        """Of the search and the finals' least rounds; how many there will be, nobody knows."""
        left = seconds_left(self._study.spec, trials)
        return f"about {plain(duration(left))} left" if left else ""

    def _picture(self) -> Group:
        if not self._loop:
            return Group(Text(f"{self._study.name}  {self._first}".rstrip()))
        trials = self._loop.trials
        head = Text(
            f"{self._study.name}  {plain(duration(self._elapsed))} elapsed  {self._summary()}",
            style="bold",
        )
        again = [Text(self._line(t)) for t in trials if not t.searched and not t.state.ended]
        return Group(head, trials_table(overview(self._study, trials)), *again)


def short_parameters(parameters: Parameters) -> str:
    """A point in one line, long values cut."""
    short = {
        name: shortened(text, LONGEST_VALUE)
        if len(text := value_text(value)) > LONGEST_VALUE
        else value
        for name, value in parameters.items()
    }
    return parameters_text(short)


def _name(trial: Trial) -> str:
    """A repeat goes by the trial that it measures again."""
    if trial.repeat_of is None:
        return f"trial {trial.number}"
    return f"trial {trial.repeat_of} again (round {trial.round})"
