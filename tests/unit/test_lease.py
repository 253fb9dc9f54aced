"""One driver at a time, by a lease in the store."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autotuner.backends.guarded import this_process
from autotuner.backends.owners import this_owner
from autotuner.errors import StudyStateError
from autotuner.execution.loop import StudyLoop
from autotuner.job import checked, load_job
from autotuner.plugins import load_kind
from autotuner.store import Store
from autotuner.studies import Studies
from autotuner.study.study import LEASE_SECONDS, Study, StudyState
from autotuner.study.trial import Outcome, TrialState
from tests.simulated import study_file

ELSEWHERE = "another-machine 4711:1"


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Studies]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield Studies(store, tmp_path / "studies")
    store.close()


def submitted(studies: Studies, directory: Path, **changes: Any) -> Study:
    return studies.submit(load_job(study_file(directory, **changes)))


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def driven_elsewhere(studies: Studies, name: str, *, renewed: float) -> None:
    studies.store.set_state(name, StudyState.RUNNING, driver=ELSEWHERE, renewed_at=ago(renewed))


def test_a_driver_on_another_machine_holds_the_study_while_its_lease_lasts(
    studies: Studies, tmp_path: Path
) -> None:
    study = submitted(studies, tmp_path)
    driven_elsewhere(studies, study.name, renewed=LEASE_SECONDS - 10)
    assert studies.driven(studies.store.study(study.name))
    with pytest.raises(StudyStateError) as caught:
        studies.resumable(study.name)
    assert ELSEWHERE in str(caught.value)
    assert "--take-over" in str(caught.value)


def test_a_lease_that_ran_out_holds_nothing(studies: Studies, tmp_path: Path) -> None:
    study = submitted(studies, tmp_path)
    driven_elsewhere(studies, study.name, renewed=LEASE_SECONDS + 1)
    assert studies.lost(studies.store.study(study.name))
    assert studies.resumable(study.name).name == study.name
    assert studies.store.study(study.name).driver == this_owner()


def test_of_two_who_resume_at_once_one_is_refused(studies: Studies, tmp_path: Path) -> None:
    study = submitted(studies, tmp_path)
    driven_elsewhere(studies, study.name, renewed=LEASE_SECONDS + 1)
    assert studies.store.claim(study.name, "first 1:1", was=ELSEWHERE)
    assert not studies.store.claim(study.name, "second 2:2", was=ELSEWHERE)


def test_a_driver_of_this_machine_is_believed_only_while_its_process_lives(
    studies: Studies, tmp_path: Path
) -> None:
    study = submitted(studies, tmp_path)
    assert studies.driven(study), "this very process"
    dead = dataclasses.replace(study, driver=f"{this_process().split()[0]} {os.getpid()}:1")
    assert not studies.driven(dead), "the number of a process is used again"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def loop_of(studies: Studies, study: Study, clock: Clock) -> StudyLoop:
    loop = StudyLoop(
        study,
        studies.store,
        checked(study.spec).searcher(),
        load_kind("engine", "simulated"),
        clock=clock,
    )
    loop.begin()
    return loop


def test_the_lease_is_renewed_while_the_study_runs_and_not_more_often_than_needed(
    studies: Studies, tmp_path: Path
) -> None:
    study, clock = submitted(studies, tmp_path), Clock()
    loop = loop_of(studies, study, clock)
    studies.store.set_state(study.name, StudyState.RUNNING, renewed_at="long ago")
    clock.now = LEASE_SECONDS / 10
    loop.renew()
    assert studies.store.study(study.name).renewed_at == "long ago"
    clock.now = LEASE_SECONDS / 4
    loop.renew()
    assert studies.store.study(study.name).renewed_at > ago(5)


def test_a_driver_that_lost_its_study_starts_and_writes_nothing_more(
    studies: Studies, tmp_path: Path
) -> None:
    study, clock = submitted(studies, tmp_path), Clock()
    loop = loop_of(studies, study, clock)
    first = loop.next()
    assert first is not None
    assert studies.store.claim(study.name, ELSEWHERE, was=this_owner())
    before = studies.store.trials(study.name)
    clock.now = LEASE_SECONDS
    loop.renew()
    assert loop.over
    assert loop.next() is None
    loop.finish()
    assert studies.store.trials(study.name) == before
    assert studies.store.study(study.name).driver == ELSEWHERE
    assert studies.store.study(study.name).state is StudyState.RUNNING


@pytest.mark.parametrize(
    "write",
    [
        lambda loop: loop.finish(),
        lambda loop: (loop.cancel("cancelled by SIGINT"), loop.close()),
        lambda loop: (loop.cancel("cancelled by SIGINT"), loop.finish()),
        lambda loop: loop.remark("a node has left"),
        lambda loop: loop.progressed(0, "load point 1 of 1", Outcome(TrialState.COMPLETE)),
        lambda loop: loop.answered(0, Outcome(TrialState.INFEASIBLE, reason="it died")),
        lambda loop: loop.failed(0, "its node left"),
        lambda loop: (loop.remark("a node has left"), loop.finish()),
    ],
    ids=["finish", "close", "cancel", "remark", "progressed", "answered", "failed", "two"],
)
def test_a_driver_that_does_not_know_yet_that_it_lost_its_study_writes_nothing_either(
    studies: Studies, tmp_path: Path, write: Callable[[StudyLoop], object]
) -> None:
    study = submitted(studies, tmp_path)
    loop, store = loop_of(studies, study, Clock()), studies.store
    assert loop.next() is not None
    loop.started(0)
    assert store.claim(study.name, ELSEWHERE, was=store.study(study.name).driver)
    answer = dataclasses.replace(store.trials(study.name)[0], state=TrialState.COMPLETE)
    store.save(study.name, answer, by=ELSEWHERE)
    before = store.study(study.name), store.events(study.name)
    write(loop)
    assert store.trials(study.name) == [answer]
    assert (store.study(study.name), store.events(study.name)) == before
    assert loop.usurped
    assert loop.over
    assert loop.next() is None


def test_a_complete_study_is_resumed_only_where_its_limits_cut_it_short(
    studies: Studies, tmp_path: Path
) -> None:
    study = submitted(studies, tmp_path)
    complete, at = StudyState.COMPLETE, ago(5)
    studies.store.set_state(study.name, complete, reason="", driver="", ended_at=at)
    with pytest.raises(StudyStateError, match="is complete"):
        studies.resumable(study.name)
    reason = "another round would not end within 1 h"
    studies.store.set_state(study.name, complete, reason=reason, driver="", ended_at=at)
    assert studies.resumable(study.name).name == study.name


def test_a_study_that_was_taken_before_it_began_is_not_begun(
    studies: Studies, tmp_path: Path
) -> None:
    study = submitted(studies, tmp_path)
    assert studies.store.claim(study.name, ELSEWHERE, was=this_owner())
    with pytest.raises(StudyStateError, match="taken"):
        loop_of(studies, study, Clock())
    assert studies.store.study(study.name).driver == ELSEWHERE


def test_a_driver_that_renewed_its_lease_since_it_was_looked_at_keeps_it(
    studies: Studies, tmp_path: Path
) -> None:
    study = submitted(studies, tmp_path)
    driven_elsewhere(studies, study.name, renewed=LEASE_SECONDS + 1)
    seen = studies.store.study(study.name)
    assert studies.store.renew(study.name, ELSEWHERE)
    store = studies.store
    assert not store.claim(study.name, "me 1:1", was=ELSEWHERE, renewed_at=seen.renewed_at)


def named(identity: str, *, host: str = "", boot: str = "", namespace: str = "") -> str:
    """A driver as `this_owner` names it: this machine's where nothing else is said."""
    here, *place, _ = this_owner().split(" ")
    return " ".join((host or here, boot or place[0], namespace or place[1], identity))


def test_whether_a_driver_lives_is_told_only_where_its_processes_are_seen(
    studies: Studies, tmp_path: Path
) -> None:
    study = submitted(studies, tmp_path)
    assert study.driver == this_owner()
    me = study.driver.split(" ")[-1]
    known = {
        study.driver: True,
        this_process(): True,  # as earlier versions wrote it
        named(f"{os.getpid()}:1"): False,
        named(me, boot="an-earlier-one"): False,
        f"{this_process().split()[0]} {os.getpid()}:1": False,
    }
    for driver, lives in known.items():
        for renewed in (0, LEASE_SECONDS + 1):
            its = dataclasses.replace(study, driver=driver, renewed_at=ago(renewed))
            assert studies.driven(its) is lives, driver
    # A container with the host's network has the host's name, and processes of its own.
    for driver in (named("4711:1", namespace="pid:[1]"), named(me, host="other", boot="another")):
        its = dataclasses.replace(study, driver=driver, renewed_at=ago(LEASE_SECONDS - 10))
        assert studies.driven(its), driver
        its = dataclasses.replace(its, renewed_at=ago(LEASE_SECONDS + 1))
        assert studies.lost(its), driver


def test_a_driver_in_a_container_is_not_robbed_and_can_be_taken_over(
    studies: Studies, tmp_path: Path
) -> None:
    study = submitted(studies, tmp_path)
    there = named("4711:1", namespace="pid:[1]")
    studies.store.set_state(study.name, StudyState.RUNNING, driver=there, renewed_at=ago(5))
    with pytest.raises(StudyStateError, match=r"driven by .* 4711:1,.*\n.*--take-over") as caught:
        studies.resumable(study.name)
    assert "kill" not in str(caught.value)
    assert "pid:[1]" not in str(caught.value)
    studies.resumable(study.name, take_over=True)
    assert studies.store.study(study.name).driver == this_owner()


def test_who_lives_here_is_ended_and_not_taken_over(studies: Studies, tmp_path: Path) -> None:
    study = submitted(studies, tmp_path)
    with pytest.raises(StudyStateError, match=f"kill -INT {os.getpid()}$"):
        studies.resumable(study.name, take_over=True)
