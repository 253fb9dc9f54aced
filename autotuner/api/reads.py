"""What is read of studies, kept ready as long as nothing about them changes."""

from __future__ import annotations

import copy
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autotuner.errors import MissingStudyError, StudyStateError
from autotuner.report.rows import row
from autotuner.store import Latest
from autotuner.studies import Studies
from autotuner.study.study import Study, sees
from autotuner.study.trial import Trial

KEPT_AT_MOST = 32
"""Studies kept with all their trials; of the others their row in the list."""

MADE_AT_MOST = 8
"""Answers kept of one study, besides the study itself: there are six kinds."""


@dataclass
class _Kept:
    """A study as it was after one of its events."""

    event: int
    study: Study
    trials: list[Trial]
    made: dict[str, Any] = field(default_factory=dict)
    making: threading.Lock = field(default_factory=threading.Lock)


class Reads:
    """Studies and what is computed from them, read again when their last event is another.

    May be used by several threads. What many ask for at once is made by the first, and the others
    wait for it: on few cores all of them together would take as many times as long.
    """

    def __init__(self, studies: Studies) -> None:
        self._studies = studies
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._rows: dict[str, tuple[int, dict[str, Any], Study | None]] = {}
        self._reading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._team = ""

    def of(self, team: str) -> Reads:
        """The same as a team sees it, see `Studies.of`; what is kept is kept for all."""
        seen = copy.copy(self)
        seen._team = team
        return seen

    @property
    def sees_all(self) -> bool:
        return not self._team

    def is_anothers(self, name: str) -> bool:
        """Whether there is a study of that name which is not seen."""
        found = self._studies.store.latest(name).get(name)
        return found is not None and not sees(self._team, found.team)

    def study(self, name: str) -> tuple[Study, list[Trial]]:
        """Raises MissingStudyError where there is none of that name."""
        latest = self._latest(name)
        kept = self._fresh(name, latest)
        return _now(kept.study, latest), kept.trials

    def standing(self, name: str) -> str:
        return self._studies.standing(self.study(name)[0])

    def rows(self) -> list[dict[str, Any]]:
        """Every study as a list shows it, the newest first."""
        latest = self._studies.store.latest()
        with self._lock:
            for kept in (self._kept, self._rows, self._reading):
                for name in [each for each in kept if each not in latest]:
                    del kept[name]
        self._make_rows(latest)
        rows = []
        for name, each in latest.items():
            if not sees(self._team, each.team):
                continue
            try:
                rows.append(self._row(name, each))
            except StudyStateError:
                continue  # deleted in the meantime, or stored by another version of autotuner
        return sorted(rows, key=lambda row: (row["created_at"], row["name"]), reverse=True)

    def row(self, name: str) -> dict[str, Any]:
        """One study as a list shows it."""
        return self._row(name, self._latest(name))

    def any_row(self, name: str) -> dict[str, Any]:
        """As `row`; of one that another version of autotuner stored, what can be said of it."""
        try:
            return self.row(name)
        except MissingStudyError:
            raise
        except StudyStateError:
            return self._studies.of(self._team).bare_row(name)

    def made(self, name: str, what: str, make: Callable[[Study, list[Trial]], Any]) -> Any:
        """What `make` gives of a study and its trials; made once for each of its events.

        Args:
            what: tells apart what is made of the same study.
        """
        return self._made(self._fresh(name, self._latest(name)), what, make)

    def _made(self, kept: _Kept, what: str, make: Callable[[Study, list[Trial]], Any]) -> Any:
        with kept.making:
            if what not in kept.made:
                if len(kept.made) >= MADE_AT_MOST:
                    kept.made.pop(next(iter(kept.made)))
                kept.made[what] = make(kept.study, kept.trials)
            return kept.made[what]

    def report(self, name: str) -> bytes:
        """The report as JSON."""
        content: bytes = self.made(name, "report", self._report)
        standing = json.dumps({"standing": self.standing(name)}).encode()
        return standing[:-1] + b"," + content[1:]

    def _report(self, study: Study, trials: list[Trial]) -> bytes:
        content = self._studies.report_of(study, trials)
        return json.dumps(content, allow_nan=False).encode()

    def _make_rows(self, latest: Mapping[str, Latest]) -> None:
        """Where more are to be made than are kept whole, as for the first who asks, all at once."""
        with self._listing:
            with self._lock:
                made = {name: self._rows[name][0] for name in latest if name in self._rows}
            if sum(made.get(name) != each.events for name, each in latest.items()) <= KEPT_AT_MOST:
                return
            # Read after their numbers: what changed in between is read again the next time.
            read = {
                study.name: (study, row(study, trials)) for study, trials in self._studies.glances()
            }
            with self._lock:
                for name, each in latest.items():
                    study, shown = read.get(name, (None, {}))
                    if study is None or study.team == each.team:
                        self._rows[name] = (each.events, shown, study)

    def _row(self, name: str, latest: Latest) -> dict[str, Any]:
        with self._lock:
            event, made, study = self._rows.get(name, (-1, {}, None))
        if event != latest.events or study is None:
            kept = self._fresh(name, latest)
            made, study = self._made(kept, "row", row), kept.study
            with self._lock:
                self._rows[name] = (kept.event, made, study)
        study = _now(study, latest)
        # Of a study that has ended, which is most of them, they need not be at hand.
        trials = [] if study.state.ended else self._fresh(name, latest).trials
        return {**made, **self._studies.moment(study, trials), "event": latest.events}

    def _latest(self, name: str) -> Latest:
        found = self._studies.store.latest(name).get(name)
        if found is None or not sees(self._team, found.team):
            raise self._studies.store.missing(name)
        return found

    def _fresh(self, name: str, latest: Latest) -> _Kept:
        with self._lock:
            kept = self._kept.get(name)
            reading = self._reading.setdefault(name, threading.Lock())
            if kept is not None and kept.event == latest.events:
                self._kept.move_to_end(name)
                return kept
        with reading:
            with self._lock:
                kept = self._kept.get(name)
            if kept is None or kept.event != latest.events:
                # Read after its number: what changed in between is read again the next time.
                study, trials = self._studies.show(name)
                if study.team != latest.team:  # another's, made since
                    raise self._studies.store.missing(name)
                kept = _Kept(latest.events, study, trials)
                with self._lock:
                    self._kept[name] = kept
                    self._kept.move_to_end(name)
                    while len(self._kept) > KEPT_AT_MOST:
                        self._kept.popitem(last=False)
        return kept


def _now(study: Study, latest: Latest) -> Study:
    """The study with what changes without an event."""
    return replace(study, driver=latest.driver, job=latest.job, renewed_at=latest.renewed_at)
