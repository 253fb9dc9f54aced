"""Mirrors: a study's trials shown in another program while it runs. None can break the study."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from autotuner.masking import without_passwords
from autotuner.study.study import Study
from autotuner.study.trial import Trial

LAST_SECONDS = 30.0
"""How long the end of a study waits for its mirrors to hear of it."""


class Mirror(Protocol):
    """Shows the trials of one study elsewhere.

    1. All is called by one thread, in the order of what happened; a trial that changes several
       times while the mirror is busy may be told in its latest state alone.
    2. The store is the truth: a mirror may be told what it has been told before, in this run of
       the study or an earlier one, and then changes nothing.
    3. It may raise whatever it likes, and take as long as it takes: see `Mirroring`.
    """

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def begun(self, study: Study, trials: Sequence[Trial]) -> None:
        """The study begins, or goes on with these trials."""

    def changed(self, trial: Trial) -> None:
        """A trial is new, or is not what it was."""

    def ended(self) -> None:
        """Nothing more will happen; what is still on its way is delivered now."""


class Mirroring:
    """Tells mirrors of a study, each in a thread of its own, so that a server that does not
    answer never holds up a trial or the driver's lease. One that fails is told nothing more, and
    that is said once.

    Args:
        said: hears what went wrong, from the thread that calls.
        last_seconds: how long `ended` waits, all mirrors together.
    """

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        said: Callable[[str], None] = lambda text: None,
        *,
        last_seconds: float = LAST_SECONDS,
    ) -> None:
        self._said = said
        self._last_seconds = last_seconds
        self._tellers = [_Teller(mirror) for mirror in mirrors]

    def begun(self, study: Study, trials: Sequence[Trial]) -> None:
        for teller in self._tellers:
            teller.start(study, trials)

    def changed(self, trial: Trial) -> None:
        for teller in self._tellers:
            teller.tell(trial)
        self._say()

    def ended(self) -> None:
        for teller in self._tellers:
            teller.end()
        left = self._last_seconds
        for teller in self._tellers:
            left = teller.wait(left)
        self._say()

    def _say(self) -> None:
        for teller in self._tellers:
            if not teller.problems.empty():
                self._said(teller.problems.get())


class _Teller:
    """One mirror and its thread, which ends with the process whatever the mirror does."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._changes: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.problems: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self, study: Study, trials: Sequence[Trial]) -> None:
        self._thread = threading.Thread(
            target=self._run,
            args=(study, tuple(trials)),
            name=f"mirror {self._mirror.name}",
            daemon=True,
        )
        self._thread.start()

    def tell(self, trial: Trial) -> None:
        self._changes.put(trial)

    def end(self) -> None:
        self._changes.put(None)

    def wait(self, seconds: float) -> float:
        """Wait for the thread; the seconds that are left."""
        if self._thread is None:
            return seconds
        began = time.monotonic()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.problems.put(f"{self._mirror.name} has not taken all of the study's end in time")
        return max(0.0, seconds - (time.monotonic() - began))

    def _run(self, study: Study, trials: Sequence[Trial]) -> None:
        try:
            self._mirror.begun(study, trials)
            over = False
            while not over:
                changed, over = self._latest()
                for trial in changed:
                    self._mirror.changed(trial)
            self._mirror.ended()
        except Exception as error:  # noqa: BLE001 - theirs have no base in common
            said = (str(error).strip().splitlines() or [""])[0]
            self.problems.put(
                f"{self._mirror.name} is told nothing more of this study: "
                f"{type(error).__name__}: {without_passwords(said)[:300]}"
            )

    def _latest(self) -> tuple[list[Trial], bool]:
        """Trials that changed, each once; and whether that was all."""
        found: dict[int, Trial] = {}
        trial = self._changes.get()
        while trial is not None:
            found.pop(trial.number, None)
            found[trial.number] = trial
            if self._changes.empty():
                return list(found.values()), False
            trial = self._changes.get()
        return list(found.values()), True
