"""The use cases, whoever asks: submit, start, cancel, resume, show, list, report. No Ray."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autotuner.backends import owners
from autotuner.backends.base import Backend
from autotuner.backends.guarded import is_running
from autotuner.backends.owners import this_owner
from autotuner.errors import (
    ConfigError,
    InfrastructureError,
    MissingStudyError,
    StudyStateError,
    TooManyStudiesError,
)
from autotuner.estimators.aiconfigurator import AIConfigurator
from autotuner.export import command_text, launch_of
from autotuner.job import Job
from autotuner.plugins import load_kind
from autotuner.prior import prior_of_model, prior_of_trials
from autotuner.report.rows import bare_row, row
from autotuner.report.summary import summary
from autotuner.settings import Site
from autotuner.study.budget import seconds_left
from autotuner.study.finals import winner
from autotuner.study.space import Parameters
from autotuner.study.spec import NAME_LENGTH, StudySpec
from autotuner.study.study import (
    LEASE_SECONDS,
    Study,
    StudyState,
    seconds_between,
    sees,
    timestamp,
)
from autotuner.study.trial import Trial, TrialState

if TYPE_CHECKING:
    from autotuner.store import Store, Stored  # a database library `check` can do without

START_SECONDS = 180.0
"""A job that has not begun its study after so long will not: its cluster has lost it."""


class Runner(Protocol):
    """Runs studies in jobs of their own, apart from whoever asks. InfrastructureError where the
    cluster does not answer."""

    def start(self, study: str, job: str) -> None:
        """Start the job; nothing happens where there is one of that id."""

    def stop(self, job: str) -> None:
        """Ask the job to end in order; returns at once."""

    def alive(self, job: str) -> bool:
        """Whether the job is there and has not ended."""


class NoRunner:
    """Where studies are run by who asks."""

    def start(self, study: str, job: str) -> None:
        raise InfrastructureError(f"nothing here runs {job} of {study!r}; see autotuner serve")

    def stop(self, job: str) -> None:
        raise InfrastructureError(f"nothing here can stop {job}; see autotuner serve")

    def alive(self, job: str) -> bool:  # noqa: ARG002
        return False


class Studies:
    """Studies in a store, with their files under a directory: all, or those that a team sees.

    Args:
        runner: starts them; by default they are run by who submits them.
        at_once: studies that may be under way at the same time; None: any number.
    """

    def __init__(
        self,
        store: Store,
        directory: Path,
        *,
        runner: Runner | None = None,
        at_once: int | None = None,
    ) -> None:
        self.store = store
        self._directory = directory
        self._runner = runner or NoRunner()
        self._at_once = at_once
        self._team = ""

    def of(self, team: str) -> Studies:
        """The same as a team sees them: its own are all that there are, and what it makes is its
        own. Of no team: all of them."""
        seen = copy.copy(self)
        seen._team = team
        return seen

    def study(self, name: str) -> Study:
        """The study of that name; every use of one that is there begins here.

        Raises:
            MissingStudyError: there is none, or none that is seen, which is told by nothing.
        """
        return self.store.study(name, self._team)

    def stored(self, name: str) -> Stored:
        """As `study`, of one that any version of autotuner stored."""
        return self.store.stored(name, self._team)

    def submit(self, job: Job, *, restart: bool = False) -> Study:
        """Store a new study.

        Args:
            restart: replace an ended study of that name, trials and files included.

        Raises:
            StudyStateError: the name is taken, or its study is running.
        """
        spec = job.spec
        existing = self._find(spec.name)
        if existing is not None:
            self._refuse_if_driven(existing)
            self._refuse_if_starting(existing)
            # One that was given to a job may have been begun before.
            begun = existing.state is not StudyState.PENDING or existing.job
            if begun and not restart:
                raise StudyStateError(
                    f"there already is a study named {spec.name!r} "
                    f"({self.true_state(existing)}).\n"
                    f"{self._way_on(spec.name)}"
                    f"  start it anew:  add --restart (its trials are deleted)\n"
                    f"  keep both:      add --name NEW-NAME"
                )
        study = replace(
            self._new(spec, self._team if existing is None else existing.team),
            driver=this_owner(),
            renewed_at=timestamp(),
        )
        if existing is None:
            self.store.create(study)
        else:
            with _aside(existing):
                self.store.replace(existing, study)
        Path(study.directory).mkdir(parents=True, exist_ok=True)
        return study

    def create(self, job: Job) -> Study:
        """Store a new study for later.

        Raises:
            StudyStateError: the name is taken.
        """
        study = self._new(job.spec, self._team)
        try:
            self.store.create(study)
        except StudyStateError as error:
            existing = self._find(study.name)
            if existing is None or not sees(self._team, existing.team):
                raise  # what others have is not explained
            raise StudyStateError(
                f"{error}; name the new one otherwise, or restart or delete that one"
            ) from error
        Path(study.directory).mkdir(parents=True, exist_ok=True)
        return study

    def edit(self, name: str, job: Job) -> Study:
        """Put another study, maybe of another name, in the place of one that is not under way.
        Its results and files are deleted.

        Raises:
            StudyStateError: none of that name, under way, or the new name is taken.
        """
        was = self.stored(name)
        self._refuse_if_under_way(was, "edit")
        study = replace(self._new(job.spec, was.team), created_at=was.created_at)
        with _aside(was):
            self.store.replace(was, study)
        Path(study.directory).mkdir(parents=True, exist_ok=True)
        return study

    def delete(self, name: str) -> None:
        """Remove a study that is not under way, its trials and files.

        Raises:
            StudyStateError: none of that name, or under way.
        """
        was = self.stored(name)
        self._refuse_if_under_way(was, "delete")
        with _aside(was):
            self.store.delete(was)

    def start(self, name: str) -> Study:
        """Have a study run that never was, as a job of its own.

        Raises:
            StudyStateError: none of that name, not PENDING, or too many are under way.
            InfrastructureError: the cluster does not take it.
        """
        study = self.study(name)
        self._refuse_if_under_way(study, "start")
        if study.state is not StudyState.PENDING or self.lost(study):
            verb = "restart" if study.state is StudyState.COMPLETE else "resume or restart"
            raise StudyStateError(
                f"study {name!r} is {self.standing(study)}, and only one that is PENDING can be "
                f"started; {verb} it"
            )
        return self._hand_over(study)

    def resume(self, name: str) -> Study:
        """Have a study go on that was cancelled, failed or lost its driver, as a job of its own.

        Raises:
            StudyStateError: see `start`; or it has nothing left to do.
            InfrastructureError: the cluster does not take it.
        """
        study = self.study(name)
        self._refuse_if_under_way(study, "resume")
        if study.state is StudyState.PENDING and not self.lost(study):
            raise StudyStateError(f"study {name!r} has never run; start it")
        trials = self.store.trials(name)
        self._refuse_if_done(study, trials)
        return self._hand_over(study, _broken_off(study, trials))

    def restart(self, name: str) -> Study:
        """Have an ended study run from its beginning: its results and files are deleted.

        Raises:
            StudyStateError: none of that name, or not ended.
            InfrastructureError: the cluster does not take it.
        """
        was = self.study(name)
        self._refuse_if_under_way(was, "restart")
        if was.state is StudyState.PENDING and not self.lost(was):
            raise StudyStateError(f"study {name!r} has never run; start it")
        trials = self.store.trials(name)
        study = replace(self._new(was.spec, was.team), created_at=was.created_at)
        with _aside(was) as files:
            self.store.replace(was, study)
            files.wanted = False
            Path(study.directory).mkdir(parents=True, exist_ok=True)
            try:
                return self._hand_over(study)
            except (InfrastructureError, TooManyStudiesError):
                # Nobody begins it anew, so what it had found is not lost; unless another has
                # taken it in the meantime.
                self.store.replace(study, was, trials)
                files.wanted = True
                raise

    def cancel(self, name: str) -> Stored:
        """Have a study end in order: its servers are stopped, what was measured is kept.

        One that is lost is CANCELLED at once; else its job is asked, and the state follows.

        Raises:
            StudyStateError: none of that name, not under way, or driven by no job.
            InfrastructureError: the cluster does not answer.
        """
        study = self.stored(name)
        if not self.under_way(study):
            if not self.lost(study):
                raise StudyStateError(
                    f"study {name!r} is {self.standing(study)}; only one under way can be cancelled"
                )
        elif study.driver:
            if not study.job or not self._runner.alive(study.job):
                raise StudyStateError(
                    f"study {name!r} is driven by {_shown(study.driver)}, which no job of this "
                    "service is; end that process: kill -INT"
                )
            self._runner.stop(study.job)
            return self.stored(name)
        reason = "cancelled before it began" if not study.driver else "cancelled when it was lost"
        # Taken from its job, so that one which is only now on its way finds nothing to run.
        taken = self.store.set_state(
            name,
            StudyState.CANCELLED,
            was=study,
            trials=_broken_off(study, self.store.trials(name)),
            reason=reason,
            driver="",
            job="",
            ended_at=timestamp(),
        )
        if study.job and self._runner.alive(study.job):
            # Its driver may have begun in the meantime, and then says itself that it ended.
            self._runner.stop(study.job)
        elif not taken:
            raise StudyStateError(f"study {name!r} has just been changed; look again")
        return self.stored(name)

    def duplicate(self, name: str) -> Study:
        """A new study that asks the same, PENDING, with a name of its own: NAME-copy,
        NAME-copy-2 and so on. It belongs to who asks for it.

        Raises:
            StudyStateError: none of that name.
        """
        spec = self.study(name).spec
        study = self._new(spec.model_copy(update={"name": self.free_name(name)}), self._team)
        self.store.create(study)
        Path(study.directory).mkdir(parents=True, exist_ok=True)
        return study

    def free_name(self, name: str) -> str:
        """A name like that of a study, which no other has."""
        stem = re.sub(r"-copy(-\d+)?$", "", name)
        taken = set(self.store.names())
        tries = (f"-copy-{count}" if count > 1 else "-copy" for count in itertools.count(1))
        return next(
            each for tail in tries if (each := stem[: NAME_LENGTH - len(tail)] + tail) not in taken
        )

    def with_prior(self, job: Job, aiconfigurator: Path | None = None) -> Job:
        """The job with what its prior believes; itself where it has no prior.

        Args:
            aiconfigurator: a Python that has it; this one by default.

        Raises:
            StudyStateError: the earlier study does not exist, or has nothing to say.
            ConfigError, InfrastructureError: see `prior.prior_of_model`.
        """
        asked = job.spec.prior
        if asked is None:
            return job
        if asked.study is None:
            model = AIConfigurator(aiconfigurator)
            return replace(job, prior=prior_of_model(job.spec, model, job.foresight().refuse))
        if asked.study == job.spec.name:
            raise StudyStateError(f"study {asked.study!r} cannot be its own prior")
        # Whoever drives a study, its prior is one that its own team sees.
        own = self._find(job.spec.name) if not self._team else None
        seen = self.of(own.team) if own is not None else self
        found = prior_of_trials(seen.show(asked.study)[1])
        if not found.predictions:
            raise StudyStateError(f"the prior, study {asked.study!r}, has no feasible trial")
        return replace(job, prior=found)

    def resumable(self, name: str, *, take_over: bool = False, job: str = "") -> Study:
        """A study that this process may run on, and from now on drives. Its directory is there.

        Args:
            take_over: do not believe a driver on another machine, nor that a job which was given
                the study and has not begun it lives.
            job: that this process is; one that is late must not run what another was given.

        Raises:
            StudyStateError: none of that name, nothing left to do, driven by another, or given
                to another.
            InfrastructureError: its files have no place here.
        """
        study, trials = self.show(name)
        if job and job != study.job:
            raise StudyStateError(f"study {name!r} was given to job {study.job!r}, not to {job!r}")
        if not (take_over and _lives(study.driver) is None):
            self._refuse_if_driven(study)
        if not job and not take_over:
            self._refuse_if_starting(study)
        self._refuse_if_done(study, trials)
        housed = replace(study, directory=str(self._place_of(study)))
        me, was = this_owner(), study.driver
        if not self.store.claim(name, me, was=was, renewed_at=study.renewed_at, job=job):
            raise StudyStateError(f"another process has just taken study {name!r}")
        if housed.directory != study.directory:
            # The trials first, as they are now that nobody else writes them: should this be cut
            # short, the next one goes on with the rest.
            for trial in self.store.trials(name):
                self.store.save(name, _moved(trial, study.directory, housed.directory), by=me)
            self.store.set_state(name, study.state, by=me, directory=housed.directory)
        return housed

    def backends_used(self, site: Site, *, only: str | None = None) -> Sequence[Backend]:
        """Backends that stored studies named, opened as they said; processes always.

        Args:
            only: a kind, even where no study named it.

        Raises:
            ConfigError: no such kind.
        """
        said: list[tuple[str, dict[str, Any]]] = [(only or "process", {})]
        said += [(s.spec.backend.kind, s.spec.backend.options) for s in self._studies()]
        different = {
            (kind, json.dumps(options, sort_keys=True)): load_kind("backend", kind).open(
                options, site
            )
            for kind, options in said
            if only in (None, kind)
        }
        for kind, options in (study.backend for study in self.unreadable()):
            # Another version may have had other kinds as well, and other options of them.
            with suppress(ConfigError):
                if only in (None, kind):
                    opened = load_kind("backend", kind).open(dict(options), site)
                    different.setdefault((kind, json.dumps(options, sort_keys=True)), opened)
        return list(different.values())

    def show(self, name: str) -> tuple[Study, list[Trial]]:
        return self.study(name), self.store.trials(name)

    def list(self) -> list[tuple[Study, list[Trial]]]:
        return [(study, self.store.trials(study.name)) for study in self._studies()]

    def unreadable(self) -> Sequence[Stored]:
        """Studies that another version of autotuner stored, and that this one cannot read; they
        can be cancelled, deleted and replaced."""
        return [each for each in self.store.unreadable() if sees(self._team, each.team)]

    def _studies(self) -> Sequence[Study]:
        return [each for each in self.store.studies() if sees(self._team, each.team)]

    def row(self, name: str) -> dict[str, Any]:
        """A study at a glance; see `report.rows`."""
        study, trials = self.show(name)
        return self._row(study, trials, self.store.latest(name)[name].events)

    def bare_row(self, name: str) -> dict[str, Any]:
        """As `row`, of a study that any version of autotuner stored: what can be said of it."""
        study = self.stored(name)
        event = self.store.latest(name)[name].events
        known = bare_row(study, self.store.trials(name), backend=study.backend[0])
        return {**known, **self.moment(study, ()), "event": event}

    def rows(self) -> Iterator[dict[str, Any]]:
        """All studies at a glance, the newest first."""
        latest = self.store.latest()
        for study, trials in self.glances():
            if study.name in latest:  # not made since
                yield self._row(study, trials, latest[study.name].events)

    def glances(self) -> Sequence[tuple[Study, Sequence[Trial]]]:
        """All studies with what a row shows of their trials, see `Store.all_trials`: in two
        questions to the store, however many there are."""
        studies, trials = self._studies(), self.store.all_trials()
        return [(study, trials.get(study.name, ())) for study in studies]

    def _row(self, study: Study, trials: Sequence[Trial], event: int) -> dict[str, Any]:
        return {**row(study, trials), **self.moment(study, trials), "event": event}

    def moment(self, study: Study | Stored, trials: Sequence[Trial]) -> dict[str, Any]:
        """What changes of a study at a glance without an event: with the time, or its driver."""
        spec = study.spec if isinstance(study, Study) and self.under_way(study) else None
        return {
            "state": self.standing(study),
            "seconds": seconds_between(study.started_at, study.ended_at or timestamp()),
            "eta": None if spec is None else seconds_left(spec, trials),
        }

    def report(self, name: str) -> dict[str, Any]:
        """See `report.summary`."""
        return self.report_of(*self.show(name))

    def report_of(self, study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
        """As `report`, of what was read."""
        report = summary(study, trials, command=self.command_of(study.spec, trials))
        report["study"]["state_text"] = self.true_state(study)
        return report

    def command_of(self, spec: StudySpec, trials: Sequence[Trial]) -> str:
        """The launch line of the trial to serve with; empty where there is none."""
        best = winner(spec, trials)
        return "" if best is None else command_text(launch_of(spec, best.parameters))

    def chosen(self, name: str, trial: int | None = None) -> tuple[StudySpec, Parameters]:
        """The study and the point to serve with: the winner's, or that of the trial named.

        Raises:
            StudyStateError: no feasible trial, or no trial of that number.
        """
        study, trials = self.show(name)
        if trial is None:
            chosen = winner(study.spec, trials)
            if chosen is None:
                raise StudyStateError(f"study {name!r} has no feasible trial; see its report")
        else:
            chosen = next((each for each in trials if each.number == trial), None)
            if chosen is None:
                raise MissingStudyError(f"study {name!r} has no trial {trial}")
        return study.spec, chosen.parameters

    def true_state(self, study: Study | Stored) -> str:
        """The state in words: a study whose driver is gone is not running, whatever is stored."""
        if self.lost(study):
            return f"{study.state.value}, but its driver is gone: autotuner resume {study.name}"
        return study.state.value

    def standing(self, study: Study | Stored) -> str:
        """The state in one word: the stored one, or STARTING, or LOST."""
        if self.lost(study):
            return "LOST"
        starting = study.state is StudyState.PENDING and self.under_way(study)
        return "STARTING" if starting else study.state.value

    def lost(self, study: Study | Stored) -> bool:
        """Whether the study runs no more, and nobody has said so."""
        begun = study.state is StudyState.RUNNING or study.driver or study.job
        return not study.state.ended and bool(begun) and not self.under_way(study)

    def under_way(self, study: Study | Stored) -> bool:
        """Whether a process drives the study, or a job is about to."""
        return self.driven(study) or self._starting(study)

    def driven(self, study: Study | Stored) -> bool:
        """Whether a process drives the study; one on another machine, while its lease lasts."""
        if study.state.ended or not study.driver:
            return False
        lives = _lives(study.driver)
        if lives is not None:
            return lives
        age = seconds_between(study.renewed_at or study.created_at, timestamp())
        return age is None or age < LEASE_SECONDS

    def _starting(self, study: Study | Stored) -> bool:
        if study.state is not StudyState.PENDING or study.driver or not study.job:
            return False
        age = seconds_between(study.renewed_at, timestamp())
        return age is not None and age < START_SECONDS

    def _new(self, spec: StudySpec, team: str) -> Study:
        directory = str(self._directory / spec.name)
        return Study(spec, directory, created_at=timestamp(), team=team)

    def _place_of(self, study: Study) -> Path:
        """A directory for the files of a study that may come from another machine, or whose home
        was moved: where they are, else where they were, else below this home."""
        there, here = Path(study.directory), self._directory / study.name
        for each in (here, there) if here.is_dir() and not there.is_dir() else (there, here):
            with suppress(OSError):
                each.mkdir(parents=True, exist_ok=True)
                if os.access(each, os.W_OK | os.X_OK):
                    return each
        raise InfrastructureError(
            f"the files of study {study.name!r} have no place: neither {there} nor {here} can be "
            "made here and written to; see AUTOTUNER_HOME"
        )

    def _refuse_if_under_way(self, study: Study | Stored, verb: str) -> None:
        if self.under_way(study):
            raise StudyStateError(
                f"study {study.name!r} is {self.standing(study)}; cancel it before you {verb} it"
            )

    def _refuse_if_starting(self, study: Study | Stored) -> None:
        """Whether a job lives is not asked: who runs a study may not be of its cluster."""
        if self._starting(study):
            raise StudyStateError(
                f"study {study.name!r} is STARTING: job {study.job} was given it at "
                f"{study.renewed_at}, and is about to run it\n"
                f"  to have it ended:  autotuner cancel {study.name} --address URL\n"
                f"  should the job be dead, the study is LOST {START_SECONDS:g} s after that; "
                f"at once:  autotuner resume {study.name} --take-over"
            )

    def _hand_over(self, study: Study, ended: Sequence[Trial] = ()) -> Study:
        job = f"autotuner-{study.name}-{secrets.token_hex(4)}"
        if not self.store.hand_over(study, job, ended):
            raise StudyStateError(f"study {study.name!r} has just been changed; look again")
        try:
            # Counted with this one among them: of two who come at once none slips through.
            self._refuse_if_too_many()
            self._runner.start(study.name, job)
        except (InfrastructureError, TooManyStudiesError):
            if self.store.take_back(study, job):
                raise
            # The job has begun all the same: it runs.
        return self.store.study(study.name)

    def _refuse_if_too_many(self) -> None:
        if self._at_once is None:
            return
        # Anybody's, and whatever version stored it.
        count = sum(map(self.under_way, self.store.all_stored()))
        if count > self._at_once:
            raise TooManyStudiesError(
                f"{count - 1} studies are under way, and no more than {self._at_once} may be "
                "(AUTOTUNER_STUDIES_AT_ONCE); wait for one, or cancel one"
            )

    def _way_on(self, name: str) -> str:
        """The line that leads to what a study found, or to more of it."""
        try:
            done = _done(*self.show(name))
        except StudyStateError:  # another version stored it, and that one would have to go on
            return ""
        if done:
            return f"  what it found:  autotuner report {name}\n"
        return f"  go on with it:  autotuner resume {name}\n"

    def _refuse_if_done(self, study: Study, trials: Sequence[Trial]) -> None:
        if _done(study, trials):
            raise StudyStateError(
                f"study {study.name!r} is complete; see autotuner report {study.name}"
            )

    def _refuse_if_driven(self, study: Study | Stored) -> None:
        if not self.driven(study):
            return
        hint = (
            "\n  it is alive on this machine; to end it: kill -INT "
            f"{study.driver.rpartition(' ')[2].partition(':')[0]}"
            if _lives(study.driver)
            else f", whose lease was renewed at {study.renewed_at}"
            f"\n  should it be dead there, the lease ends after {LEASE_SECONDS:g} s; at once:"
            f"  autotuner resume {study.name} --take-over"
        )
        raise StudyStateError(f"study {study.name!r} is driven by {_shown(study.driver)}{hint}")

    def _find(self, name: str) -> Stored | None:
        return self.store.stored(name) if name in self.store.names() else None


def _done(study: Study, trials: Sequence[Trial]) -> bool:
    """Whether it has nothing left to do; one that its limits ended early has."""
    complete = study.state is StudyState.COMPLETE and not study.reason
    return complete and all(each.state.answered for each in trials)


def _broken_off(study: Study | Stored, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that were under way when a study's driver was last heard of, as they ended then:
    once the study is another's nobody knows when that was, nor what they cost until then."""
    if not study.driver:
        return []
    last = study.renewed_at
    return [
        replace(
            trial.charged(
                len(trial.gpu_ids) * (seconds_between(trial.started_at, last) or 0.0) / 3600
            ),
            state=TrialState.CANCELLED,
            note="",
            reason="its driver was gone",
            ended_at=last or timestamp(),
        )
        for trial in trials
        if trial.started_at and not trial.state.ended
    ]


def _lives(driver: str) -> bool | None:
    """Whether the process that drives a study runs; None: that cannot be told from here, and the
    lease decides."""
    host, _, identity = driver.partition(" ")
    if " " in identity:
        return owners.lives(driver)
    # So named by an earlier version, which took whatever had this machine's name for its own.
    return is_running(identity) if host == socket.gethostname() else None


def _shown(driver: str) -> str:
    """A driver for people: ``HOST PID:START``."""
    return f"{driver.partition(' ')[0]} {driver.rpartition(' ')[2]}"


def _moved(trial: Trial, was: str, now: str) -> Trial:
    """A trial whose study's directory is another now; a refused one has no files."""
    place = Path(trial.directory)
    if not trial.directory or not place.is_relative_to(was):
        return trial
    return replace(trial, directory=str(Path(now, place.relative_to(was))))


@dataclass
class _Files:
    """Files of a study that were put aside.

    Attributes:
        wanted: whether they go back where something goes wrong.
    """

    wanted: bool = True


@contextmanager
def _aside(study: Study | Stored) -> Iterator[_Files]:
    """Have a study's files out of the way, and back where it goes wrong; else they are removed."""
    directory = Path(study.directory)
    aside = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    files = _Files()
    if directory.is_dir():
        directory.rename(aside)
    try:
        yield files
    except BaseException:
        if files.wanted and aside.is_dir():
            _put_back(aside, directory)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put_back(aside: Path, directory: Path) -> None:
    """What another driver of the study has written there meanwhile stays."""
    directory.mkdir(exist_ok=True)
    for each in aside.iterdir():
        if not (directory / each.name).exists():
            each.rename(directory / each.name)
