"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from autotuner.report.summary import gains, parameters_text, summary
from autotuner.report.text import plain, trials_table
from autotuner.report.words import duration, measured, percent
from autotuner.study.pareto import best_of
from autotuner.study.study import Study
from autotuner.study.trial import Trial, TrialState, baseline_of

REFRESH_SECONDS = 0.5


class Counting(Protocol):
    """What a display asks of the loop."""

    @property
    def trials(self) -> list[Trial]: ...

    @property
    def remaining(self) -> int | None: ...


class Display(AbstractContextManager["Display"]):
    """Shows a running study. `changed` hears of trials, `tick` of time passing."""

    def __init__(self, study: Study, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._study = study
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
        self._say(f"study {self._study.name}: {', '.join(_loads(self._study))}")

    def changed(self, trial: Trial) -> None:
        seen = (trial.state, trial.note)
        if trial.state is TrialState.PENDING or self._said.get(trial.number) == seen:
            return
        self._said[trial.number] = seen
        if self._live is None:
            self._say(self._line(trial))

    def tick(self) -> None:
        now = self._clock()
        if self._live is not None and now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._live.update(self._picture(), refresh=True)

    def _say(self, text: str) -> None:
        if self._live is None:
            print(f"[{plain(duration(self._elapsed)):>9}] {text}", file=sys.stderr, flush=True)

    @property
    def _elapsed(self) -> float:
        return self._clock() - self._began

    def _line(self, trial: Trial) -> str:
        text = f"trial {trial.number} {trial.state.value}"
        if trial.state is TrialState.DEPLOYING:
            return f"{text}  {parameters_text(trial.parameters)}"
        if trial.failure:
            return f"{text}  {trial.failure.value}: {trial.reason}"
        if trial.note or trial.reason:
            return f"{text}  {trial.note or trial.reason}"
        values = ", ".join(
            f"{name} {plain(measured(value, name))}" for name, value in trial.objectives.items()
        )
        return f"{text}  {values}; {self._summary()}"

    def _summary(self) -> str:
        """Best so far and the time that is left."""
        trials = self._loop.trials if self._loop else []
        names = self._study.spec.objectives
        best = best_of(trials, names)
        parts = []
        if best is not None:
            gain = gains(best, baseline_of(trials), names)[names[0]]
            value = plain(measured(best.objectives[names[0]], names[0]))
            parts.append(f"best so far: trial {best.number}, {value} ({plain(percent(gain))})")
        parts.append(self._left(trials))
        return "; ".join(part for part in parts if part)

    def _left(self, trials: list[Trial]) -> str:
        remaining = self._loop.remaining if self._loop else None
        ended = [trial for trial in trials if trial.state.ended and trial.phases]
        if remaining is None or not ended:
            return ""
        running = sum(not t.state.ended for t in trials if t.state is not TrialState.PENDING)
        each = self._elapsed / len(ended)
        left = (remaining + running / 2) * each
        return f"about {plain(duration(left))} left" if remaining or running else ""

    def _picture(self) -> Group:
        trials = self._loop.trials if self._loop else []
        head = Text(
            f"{self._study.name}  {plain(duration(self._elapsed))} elapsed  {self._summary()}",
            style="bold",
        )
        if not self._loop:
            return Group(Text(f"{self._study.name}  starting Ray"))
        return Group(head, trials_table(summary(self._study, trials)))


def _loads(study: Study) -> list[str]:
    return [load.name for load in study.spec.loads()]
