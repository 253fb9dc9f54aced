"""The use cases, whoever asks: submit, show, list, report, resume. No Ray."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.backends.base import Backend
from autotuner.backends.guarded import is_running, this_process
from autotuner.errors import StudyStateError
from autotuner.estimators.aiconfigurator import AIConfigurator
from autotuner.plugins import load_kind
from autotuner.prior import prior_of_model, prior_of_trials
from autotuner.report.summary import summary
from autotuner.settings import Site
from autotuner.study.finals import winner
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.study import LEASE_SECONDS, Study, StudyState, seconds_between, timestamp
from autotuner.study.trial import Trial

if TYPE_CHECKING:
    from autotuner.store import Store  # a database library `check` can do without

from autotuner.export import command_text, launch_of
from autotuner.job import Job


class Studies:
    """Studies in a store, with their files under a directory."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.store = store
        self._directory = directory

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
            begun = existing.state is not StudyState.PENDING
            if begun and not restart:
                raise StudyStateError(
                    f"there already is a study named {spec.name!r} "
                    f"({self.true_state(existing)}).\n"
                    f"  go on with it:  autotuner resume {spec.name}\n"
                    f"  start it anew:  add --restart (its trials are deleted)\n"
                    f"  keep both:      add --name NEW-NAME"
                )
            self.store.delete(spec.name)
            shutil.rmtree(existing.directory, ignore_errors=True)
        directory = self._directory / spec.name
        study = Study(
            spec,
            str(directory),
            driver=this_process(),
            renewed_at=timestamp(),
            created_at=timestamp(),
        )
        self.store.create(study)
        directory.mkdir(parents=True, exist_ok=True)
        return study

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
        found = prior_of_trials(self.show(asked.study)[1])
        if not found.predictions:
            raise StudyStateError(f"the prior, study {asked.study!r}, has no feasible trial")
        return replace(job, prior=found)

    def resumable(self, name: str, *, take_over: bool = False) -> Study:
        """A study that this process may run on, and from now on drives.

        Args:
            take_over: do not believe a driver on another machine.

        Raises:
            StudyStateError: none of that name, nothing left to do, or driven by another.
        """
        study, trials = self.show(name)
        if not (take_over and not self._driver_is_here(study)):
            self._refuse_if_driven(study)
        # One that its limits ended early has something left to do.
        done = study.state is StudyState.COMPLETE and not study.reason
        if done and all(each.state.answered for each in trials):
            raise StudyStateError(f"study {name!r} is complete; see autotuner report {name}")
        was = study.driver
        if not self.store.claim(name, this_process(), was=was, renewed_at=study.renewed_at):
            raise StudyStateError(f"another process has just taken study {name!r}")
        return study

    def backends_used(self, site: Site, *, only: str | None = None) -> Sequence[Backend]:
        """Backends that stored studies named, opened as they said; processes always.

        Args:
            only: a kind, even where no study named it.

        Raises:
            ConfigError: no such kind.
        """
        said: list[tuple[str, dict[str, Any]]] = [(only or "process", {})]
        said += [(s.spec.backend.kind, s.spec.backend.options) for s, _ in self.list()]
        different = {
            (kind, json.dumps(options, sort_keys=True)): load_kind("backend", kind).open(
                options, site
            )
            for kind, options in said
            if only in (None, kind)
        }
        return list(different.values())

    def show(self, name: str) -> tuple[Study, list[Trial]]:
        return self.store.study(name), self.store.trials(name)

    def list(self) -> list[tuple[Study, list[Trial]]]:
        return [(study, self.store.trials(study.name)) for study in self.store.studies()]

    def report(self, name: str) -> dict[str, Any]:
        """See `report.summary`."""
        study, trials = self.show(name)
        best = winner(study.spec, trials)
        command = ""
        if best is not None:
            command = command_text(launch_of(study.spec, best.parameters))
        report = summary(study, trials, command=command)
        report["study"]["state_text"] = self.true_state(study)
        return report

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
                raise StudyStateError(f"study {name!r} has no trial {trial}")
        return study.spec, chosen.parameters

    def true_state(self, study: Study) -> str:
        """The state in words: a study whose driver is gone is not running, whatever is stored."""
        if self.lost(study):
            return f"{study.state.value}, but its driver is gone: autotuner resume {study.name}"
        return study.state.value

    def lost(self, study: Study) -> bool:
        """Whether the study runs no more, and nobody has said so."""
        return not study.state.ended and not self.driven(study)

    def driven(self, study: Study) -> bool:
        """Whether a process drives the study; one on another machine, while its lease lasts."""
        if study.state.ended or not study.driver:
            return False
        if self._driver_is_here(study):
            return is_running(study.driver.partition(" ")[2])
        age = seconds_between(study.renewed_at or study.created_at, timestamp())
        return age is None or age < LEASE_SECONDS

    def _driver_is_here(self, study: Study) -> bool:
        return study.driver.partition(" ")[0] in ("", socket.gethostname())

    def _refuse_if_driven(self, study: Study) -> None:
        if self.driven(study):
            elsewhere = (
                ""
                if self._driver_is_here(study)
                else f", whose lease was renewed at {study.renewed_at}"
                f"\n  should it be dead there, the lease ends after {LEASE_SECONDS:g} s; at once:"
                f"  autotuner resume {study.name} --take-over"
            )
            here = (
                f"\n  it is alive on this machine; to end it: kill -INT "
                f"{study.driver.partition(' ')[2].partition(':')[0]}"
            )
            raise StudyStateError(
                f"study {study.name!r} is driven by {study.driver}{elsewhere or here}"
            )

    def _find(self, name: str) -> Study | None:
        return self.store.study(name) if name in self.store.names() else None
