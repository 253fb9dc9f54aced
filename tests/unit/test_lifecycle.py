"""Studies that jobs run: what their state allows, and that one never runs twice."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from autotuner import __version__
from autotuner.backends.guarded import this_process
from autotuner.backends.owners import this_owner
from autotuner.errors import (
    InfrastructureError,
    MissingStudyError,
    StudyStateError,
    TooManyStudiesError,
)
from autotuner.execution.loop import StudyLoop
from autotuner.job import Job, load_job
from autotuner.settings import Site
from autotuner.store import DELETED, Store, Stored
from autotuner.studies import START_SECONDS, Studies
from autotuner.study.study import Study, StudyState, sees
from autotuner.study.trial import Phase, Trial, TrialState
from tests.builders import trial
from tests.simulated import study_file
from tests.unit.test_lease import ago

DEAD = f"{this_process().split()[0]} 1:1"
"""A driver on this machine that is no more."""


class Jobs:
    """A cluster's jobs, as values."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self.stopped: list[str] = []
        self.living: set[str] = set()
        self.refusal = ""
        self.began: Callable[[str, str], object] | None = None
        """What a job does before the cluster, which has taken it, no longer answers."""

    def start(self, study: str, job: str) -> None:
        if self.refusal:
            raise InfrastructureError(self.refusal)
        self.started.append((study, job))
        self.living.add(job)
        if self.began is not None:
            self.began(study, job)
            raise InfrastructureError("timed out")

    def stop(self, job: str) -> None:
        self.stopped.append(job)

    def alive(self, job: str) -> bool:
        if not job:
            raise InfrastructureError("GET /api/jobs/: 404")
        return job in self.living


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def studies(tmp_path: Path, jobs: Jobs) -> Iterator[Studies]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield Studies(store, tmp_path / "studies", runner=jobs)
    store.close()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return load_job(study_file(tmp_path, name="asked"))


def named(job: Job, name: str) -> Job:
    return dataclasses.replace(job, spec=job.spec.model_copy(update={"name": name}))


def driven(studies: Studies, name: str, driver: str = "") -> Study:
    """What the job does when it begins."""
    studies.store.set_state(name, StudyState.RUNNING, driver=driver or this_process())
    return studies.store.study(name)


def ended(studies: Studies, name: str, state: StudyState, reason: str = "") -> Study:
    studies.store.set_state(name, state, reason=reason, driver="", ended_at=ago(0))
    return studies.store.study(name)


def standing(studies: Studies, name: str) -> str:
    return studies.standing(studies.store.study(name))


def test_a_study_waits_until_it_is_started_and_then_for_its_job(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    assert standing(studies, "asked") == "PENDING"
    assert jobs.started == []
    started = studies.start("asked")
    assert jobs.started == [("asked", started.job)]
    assert standing(studies, "asked") == "STARTING"
    assert studies.resumable("asked", job=started.job).name == "asked"
    assert studies.driven(studies.store.study("asked"))


def test_of_many_who_start_a_study_at_once_one_does(
    tmp_path: Path, studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    replicas = [
        Studies(Store(f"sqlite:///{tmp_path / 'store.db'}"), tmp_path / "studies", runner=jobs)
        for _ in range(8)
    ]

    def start(replica: Studies) -> bool:
        try:
            replica.start("asked")
        except StudyStateError:
            return False
        return True

    with ThreadPoolExecutor(8) as several:
        assert sum(several.map(start, replicas)) == 1
    assert len(jobs.started) == 1
    for each in replicas:
        each.store.close()


def test_a_job_that_is_late_does_not_run_what_another_was_given(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    first = studies.start("asked").job
    ended(studies, "asked", StudyState.CANCELLED)
    second = studies.resume("asked").job
    assert first != second
    with pytest.raises(StudyStateError, match=second):
        studies.resumable("asked", job=first)
    studies.resumable("asked", job=second)
    assert studies.store.study("asked").driver == this_owner()


def test_a_cluster_that_takes_no_job_leaves_the_study_as_it_was(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    ended(studies, "asked", StudyState.FAILED, reason="the node burnt")
    before = studies.store.study("asked")
    jobs.refusal = "the cluster is away"
    with pytest.raises(InfrastructureError, match="away"):
        studies.resume("asked")
    after = studies.store.study("asked")
    assert (after.state, after.reason, after.job, after.driver, after.ended_at) == (
        before.state,
        before.reason,
        before.job,
        before.driver,
        before.ended_at,
    )


def test_a_job_that_never_begins_is_lost_and_can_be_resumed(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    started = studies.start("asked")
    studies.store.set_state("asked", StudyState.PENDING, renewed_at=ago(START_SECONDS + 1))
    jobs.living.clear()
    assert standing(studies, "asked") == "LOST"
    with pytest.raises(StudyStateError, match="resume or restart"):
        studies.start("asked")
    assert studies.resume("asked").job != started.job
    assert standing(studies, "asked") == "STARTING"


@pytest.mark.parametrize("verb", ["start", "resume", "restart", "delete", "edit"])
def test_what_is_under_way_is_cancelled_first(studies: Studies, job: Job, verb: str) -> None:
    studies.create(job)
    studies.start("asked")
    calls: dict[str, Callable[[], object]] = {
        "start": lambda: studies.start("asked"),
        "resume": lambda: studies.resume("asked"),
        "restart": lambda: studies.restart("asked"),
        "delete": lambda: studies.delete("asked"),
        "edit": lambda: studies.edit("asked", job),
    }
    for expected in ("STARTING", "RUNNING"):
        with pytest.raises(StudyStateError, match=f"{expected}; cancel it before you {verb} it"):
            calls[verb]()
        driven(studies, "asked")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETE", "FAILED", "CANCELLED"])
def test_what_each_state_allows(studies: Studies, jobs: Jobs, job: Job, state: str) -> None:
    """Rows K-02 to K-04 of the predecessor's rules, and `resume`, which it did not have."""
    allowed = {
        "PENDING": {"start"},
        "RUNNING": {"cancel"},
        "COMPLETE": {"restart"},
        "FAILED": {"resume", "restart"},
        "CANCELLED": {"resume", "restart"},
    }[state]
    for verb in ("start", "cancel", "resume", "restart"):
        name = f"{state.lower()}-{verb}"
        studies.create(named(job, name))
        if state == "RUNNING":
            jobs.living.add(studies.start(name).job)
            driven(studies, name)
        elif state != "PENDING":
            ended(studies, name, StudyState(state))
        if verb in allowed:
            getattr(studies, verb)(name)
        else:
            with pytest.raises(StudyStateError, match=name):
                getattr(studies, verb)(name)


def test_a_complete_study_that_its_limits_ended_goes_on(studies: Studies, job: Job) -> None:
    studies.create(job)
    ended(studies, "asked", StudyState.COMPLETE, reason="the study's limit of 1 h was reached")
    assert studies.resume("asked").state is StudyState.PENDING


def test_resume_keeps_the_trials_and_restart_does_not(studies: Studies, job: Job) -> None:
    study = studies.create(job)
    kept = Path(study.directory, "trials")
    kept.mkdir()
    studies.store.save("asked", trial(0))
    ended(studies, "asked", StudyState.CANCELLED, reason="by hand")
    resumed = studies.resume("asked")
    assert [each.number for each in studies.store.trials("asked")] == [0]
    assert (resumed.reason, resumed.ended_at) == ("", ""), "it is under way, so it has no end"
    ended(studies, "asked", StudyState.CANCELLED)
    restarted = studies.restart("asked")
    assert studies.store.trials("asked") == []
    assert not kept.exists()
    assert restarted.created_at == study.created_at
    assert standing(studies, "asked") == "STARTING"


def test_cancelling_asks_the_job_and_leaves_the_rest_to_the_driver(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    started = studies.start("asked")
    driven(studies, "asked")
    assert studies.cancel("asked").state is StudyState.RUNNING
    assert jobs.stopped == [started.job]


def test_a_study_cancelled_before_its_driver_begins_is_cancelled_at_once(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    started = studies.start("asked")
    assert studies.cancel("asked").state is StudyState.CANCELLED
    assert jobs.stopped == [started.job]


def test_a_lost_study_is_cancelled_without_a_job(studies: Studies, jobs: Jobs, job: Job) -> None:
    studies.create(job)
    studies.start("asked")
    driven(studies, "asked", DEAD)
    jobs.living.clear()
    assert standing(studies, "asked") == "LOST"
    cancelled = studies.cancel("asked")
    assert (cancelled.state, cancelled.driver) == (StudyState.CANCELLED, "")
    assert cancelled.ended_at
    assert jobs.stopped == []


def test_what_a_person_runs_is_not_cancelled_from_afar(studies: Studies, job: Job) -> None:
    studies.submit(job)
    driven(studies, "asked")
    with pytest.raises(StudyStateError, match="no job of this service"):
        studies.cancel("asked")


def test_no_more_studies_than_the_operator_allows(
    tmp_path: Path, studies: Studies, jobs: Jobs, job: Job
) -> None:
    few = Studies(studies.store, tmp_path / "studies", runner=jobs, at_once=1)
    few.create(job)
    few.create(named(job, "other"))
    few.start("asked")
    with pytest.raises(TooManyStudiesError, match="AUTOTUNER_STUDIES_AT_ONCE"):
        few.start("other")
    assert few.standing(few.store.study("other")) == "PENDING"
    ended(few, "asked", StudyState.COMPLETE)
    few.start("other")


def test_an_edited_study_waits_again_with_nothing_of_its_past(studies: Studies, job: Job) -> None:
    """Rows K-06, K-10, K-11 and D-07: a new name sticks, results and search state go."""
    created = studies.create(job)
    studies.store.save("asked", trial(0))
    ended(studies, "asked", StudyState.COMPLETE)
    edited = studies.edit("asked", named(job, "renamed"))
    assert (edited.name, edited.state, edited.ended_at) == ("renamed", StudyState.PENDING, "")
    assert edited.created_at == created.created_at
    assert studies.store.trials("renamed") == []
    assert studies.store.names() == ["renamed"]
    studies.create(job)
    with pytest.raises(StudyStateError, match="already is a study named 'renamed'"):
        studies.edit("asked", named(job, "renamed"))
    assert sorted(studies.store.names()) == ["asked", "renamed"]


def test_a_driver_that_comes_between_keeps_its_study(studies: Studies, job: Job) -> None:
    """Edit, delete and restart act on what they have looked at, or not at all."""
    read = studies.create(job)
    driven(studies, "asked")
    with pytest.raises(StudyStateError, match="changed"):
        studies.store.delete(read)
    with pytest.raises(StudyStateError, match="changed"):
        studies.store.replace(read, read)
    assert not studies.store.hand_over(read, "a-job")
    assert studies.store.study("asked").state is StudyState.RUNNING


def test_duplicates_have_names_of_their_own(studies: Studies, job: Job) -> None:
    """Row K-13: the second duplicate of the predecessor's took the first one's name."""
    studies.create(job)
    names = [studies.duplicate("asked").name for _ in range(3)]
    names.append(studies.duplicate("asked-copy-2").name)
    assert names == ["asked-copy", "asked-copy-2", "asked-copy-3", "asked-copy-4"]
    long = "x" * 63
    studies.create(named(job, long))
    assert [studies.duplicate(long).name for _ in range(2)] == [
        "x" * 58 + "-copy",
        "x" * 56 + "-copy-2",
    ]


def test_a_taken_name_says_what_can_be_done(studies: Studies, job: Job) -> None:
    studies.create(job)
    with pytest.raises(StudyStateError, match="'asked'; name the new one otherwise, or restart"):
        studies.create(job)
    studies.store.set_state("asked", StudyState.COMPLETE)
    studies.store.save("asked", trial(0, state=TrialState.COMPLETE))
    with pytest.raises(StudyStateError) as complete:
        studies.submit(job)
    assert "autotuner report asked" in str(complete.value)
    assert "resume" not in str(complete.value), "it has nothing left to do"
    studies.store.save("asked", trial(1, state=TrialState.CANCELLED))
    with pytest.raises(StudyStateError, match="autotuner resume asked"):
        studies.submit(job)


def test_what_is_not_there_is_said_so(studies: Studies, job: Job) -> None:
    for call in (studies.start, studies.cancel, studies.resume, studies.restart, studies.delete):
        with pytest.raises(MissingStudyError, match="'none'"):
            call("none")


def test_every_change_is_told_once_and_in_order(studies: Studies, jobs: Jobs, job: Job) -> None:
    studies.create(job)
    started = studies.start("asked")
    driven(studies, "asked")
    studies.store.save("asked", trial(0, {"max-num-seqs": 4}))
    ended(studies, "asked", StudyState.COMPLETE)
    told = studies.store.events("asked")
    assert [each.number for each in told] == [1, 2, 3, 4, 5]
    assert [each.kind for each in told] == ["study", "study", "study", "trial", "study"]
    assert told[1].content == {"state": "PENDING", "reason": "", "job": started.job}
    assert told[3].content["parameters"] == {"max-num-seqs": 4}
    assert [each.number for each in studies.store.events("asked", after=3)] == [4, 5]
    assert [each.number for each in studies.store.events("asked", after=1, limit=2)] == [2, 3]
    assert studies.store.latest()["asked"].events == 5


def test_the_numbers_of_events_go_on_when_a_study_is_deleted_and_made_again(
    studies: Studies, job: Job
) -> None:
    studies.create(job)
    studies.delete("asked")
    (last,) = studies.store.events("asked")
    assert (last.number, last.content) == (2, {"state": DELETED})
    studies.create(job)
    assert [each.number for each in studies.store.events("asked")] == [3]
    ended(studies, "asked", StudyState.COMPLETE)
    studies.restart("asked")
    numbers = [each.number for each in studies.store.events("asked")]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 4, "what was told before the restart is told no more"


def test_many_writers_leave_no_gap_and_no_repeat(
    tmp_path: Path, studies: Studies, job: Job
) -> None:
    studies.create(job)
    stores = [Store(f"sqlite:///{tmp_path / 'store.db'}") for _ in range(4)]

    def write(which: int) -> None:
        for number in range(20):
            stores[which].save("asked", trial(which * 100 + number))

    with ThreadPoolExecutor(4) as several:
        list(several.map(write, range(4)))
    assert [each.number for each in studies.store.events("asked")] == list(range(1, 82))
    for each in stores:
        each.close()


def test_a_restart_that_the_cluster_does_not_take_loses_nothing(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    study = studies.create(job)
    kept = Path(study.directory, "trials", "0000", "server.log")
    kept.parent.mkdir(parents=True)
    kept.write_text("ready\n", encoding="utf-8")
    studies.store.save("asked", trial(0))
    before = ended(studies, "asked", StudyState.COMPLETE, reason="as far as it went")
    jobs.refusal = "the cluster is away"
    with pytest.raises(InfrastructureError, match="away"):
        studies.restart("asked")
    after = studies.store.study("asked")
    assert (after.state, after.reason, after.ended_at) == (
        before.state,
        before.reason,
        before.ended_at,
    )
    assert [each.number for each in studies.store.trials("asked")] == [0]
    assert kept.read_text(encoding="utf-8") == "ready\n"
    assert [each.name for each in Path(study.directory).parent.iterdir()] == ["asked"]


def test_a_study_cancelled_while_its_job_is_on_its_way_is_not_run_by_it(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    started = studies.start("asked")
    jobs.living.clear()  # not there yet
    assert studies.cancel("asked").state is StudyState.CANCELLED
    with pytest.raises(StudyStateError, match="was given to job"):
        studies.resumable("asked", job=started.job)


def test_of_many_who_start_at_once_no_more_run_than_may(
    tmp_path: Path, studies: Studies, jobs: Jobs, job: Job
) -> None:
    few = Studies(studies.store, tmp_path / "studies", runner=jobs, at_once=2)
    names = [f"study-{number}" for number in range(8)]
    for name in names:
        few.create(named(job, name))

    def start(name: str) -> None:
        with suppress(TooManyStudiesError):
            few.start(name)

    with ThreadPoolExecutor(8) as several:
        list(several.map(start, names))
    assert len(jobs.started) <= 2
    standings = [standing(few, name) for name in names]
    assert standings.count("STARTING") == len(jobs.started)
    assert standings.count("PENDING") == 8 - len(jobs.started)


def test_who_was_away_while_a_study_was_begun_anew_misses_nothing(
    studies: Studies, job: Job
) -> None:
    studies.create(job)
    ended(studies, "asked", StudyState.COMPLETE)
    last = studies.store.latest()["asked"].events
    studies.edit("asked", job)
    assert [each.number for each in studies.store.events("asked", after=last)] == [last + 1]


# Teams.


def test_of_no_team_one_sees_all_and_of_a_team_its_own() -> None:
    assert [sees("", owner) for owner in ("", "chat")] == [True, True]
    assert [sees("chat", owner) for owner in ("", "chat", "search")] == [False, True, False]


def test_what_a_team_makes_is_its_own_and_a_duplicate_is_whose_it_was_made_for(
    studies: Studies, job: Job
) -> None:
    chat = studies.of("chat")
    assert chat.create(job).team == "chat"
    assert chat.duplicate("asked").team == "chat"
    assert studies.duplicate("asked").team == ""
    assert studies.create(named(job, "older")).team == ""
    assert [each.name for each, _ in chat.list()] == ["asked-copy", "asked"]
    assert len(studies.list()) == 4


def test_a_study_stays_its_teams_whoever_edits_renames_or_restarts_it(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.of("chat").create(job)
    assert studies.edit("asked", job).team == "chat"
    assert studies.edit("asked", named(job, "renamed")).team == "chat"
    ended(studies, "renamed", StudyState.COMPLETE)
    assert studies.restart("renamed").team == "chat"
    assert studies.store.study("renamed").team == "chat"
    ended(studies, "renamed", StudyState.CANCELLED)
    jobs.refusal = "the cluster is away"
    with pytest.raises(InfrastructureError):
        studies.restart("renamed")
    assert studies.store.study("renamed").team == "chat", "taken back"


def test_the_command_line_starts_a_teams_study_anew_as_the_teams(
    studies: Studies, job: Job
) -> None:
    studies.of("chat").create(job)
    ended(studies, "asked", StudyState.COMPLETE)
    assert studies.submit(job, restart=True).team == "chat"


def test_another_teams_study_is_as_one_that_is_not_there(studies: Studies, job: Job) -> None:
    studies.of("chat").create(job)
    before = studies.store.study("asked")
    for team in ("search", "cha", "chat2"):
        other = studies.of(team)
        uses = (
            other.study, other.show, other.report, other.chosen, other.start, other.cancel,
            other.resume, other.restart, other.delete, other.duplicate,
            lambda name, other=other: other.edit(name, job),
        )  # fmt: skip
        for use in uses:
            with pytest.raises(MissingStudyError) as there:
                use("asked")
            with pytest.raises(MissingStudyError) as not_there:
                use("nothing")
            assert str(there.value) == str(not_there.value).replace("nothing", "asked")
        assert other.list() == []
    assert studies.store.study("asked") == before
    assert studies.of("chat").study("asked") == before


def test_a_prior_is_one_that_the_studys_own_team_sees(
    tmp_path: Path, studies: Studies, job: Job
) -> None:
    studies.of("search").create(named(job, "theirs"))
    done = trial(1, {"max-num-seqs": 2}, objectives={"output_throughput": 5.0})
    studies.store.save("theirs", done)
    work = load_job(study_file(tmp_path, name="ours", prior={"study": "theirs"}))
    with pytest.raises(MissingStudyError, match="'theirs'"):
        studies.of("chat").with_prior(work)
    assert studies.with_prior(work).prior.predictions, "of no team one sees all"
    studies.of("chat").create(work)
    with pytest.raises(MissingStudyError, match="'theirs'"):
        studies.with_prior(work)  # as its driver asks, which is of no team
    assert studies.of("search").with_prior(work).prior.predictions


def test_a_study_that_nobody_can_read_keeps_no_other_from_its_start(
    tmp_path: Path, studies: Studies, jobs: Jobs, job: Job
) -> None:
    few = Studies(studies.store, tmp_path / "studies", runner=jobs, at_once=1)
    few.create(named(job, "unreadable"))
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("UPDATE studies SET spec = '{}'")
    connection.close()
    few.of("chat").create(job)
    assert few.of("chat").start("asked").job
    with pytest.raises(MissingStudyError):
        few.of("chat").study("unreadable")


# Several at once.


class Interrupted(Store):
    """A store in which something happens right before, or after, one of its calls."""

    def __init__(self, url: str, call: str, happens: Callable[[], object], *, after: bool) -> None:
        super().__init__(url)
        self._call, self._happens, self._after = call, happens, after

    def _at(self, call: str, *, after: bool) -> None:
        if (call, after) == (self._call, self._after):
            self._call = ""
            self._happens()

    def replace(self, was: Study | Stored, study: Study, trials: Sequence[Trial] = ()) -> None:
        self._at("replace", after=False)
        super().replace(was, study, trials)
        self._at("replace", after=True)

    def delete(self, was: Study | Stored) -> None:
        self._at("delete", after=False)
        super().delete(was)

    def take_back(self, was: Study, job: str) -> bool:
        taken = super().take_back(was, job)
        self._at("take_back", after=True)
        return taken


@pytest.fixture
def interrupted(tmp_path: Path, studies: Studies, jobs: Jobs) -> Iterator[Callable[..., Studies]]:
    stores: list[Store] = []

    def made(call: str, happens: Callable[[], object], *, after: bool = True) -> Studies:
        stores.append(Interrupted(f"sqlite:///{tmp_path / 'store.db'}", call, happens, after=after))
        return Studies(stores[-1], tmp_path / "studies", runner=jobs)

    yield made
    for each in stores:
        each.close()


def with_file(studies: Studies, job: Job, state: StudyState = StudyState.CANCELLED) -> Study:
    """A study that has ended, with a trial and a file of it."""
    study = studies.create(job)
    Path(study.directory, "old.log").write_text("old", encoding="utf-8")
    studies.store.save("asked", trial(0))
    return ended(studies, "asked", state, reason="as far as it went")


def files(studies: Studies) -> list[str]:
    """Those of the study, and whatever lies beside its directory."""
    home = Path(studies.store.study("asked").directory).parent
    return sorted(str(each.relative_to(home)) for each in home.rglob("*") if each.is_file())


def begun(studies: Studies) -> Callable[[str, str], object]:
    """A job that begins its study at once."""

    def begin(name: str, job: str) -> None:
        study = studies.resumable(name, job=job)
        studies.store.set_state(name, StudyState.RUNNING)
        Path(study.directory, "new.log").write_text("new", encoding="utf-8")
        studies.store.save(name, trial(0, {"max-num-seqs": 1}))

    return begin


@pytest.mark.parametrize("verb", ["start", "resume", "restart"])
def test_a_job_that_began_though_the_cluster_did_not_say_so_has_its_study(
    studies: Studies, jobs: Jobs, job: Job, verb: str
) -> None:
    if verb == "start":
        studies.create(job)
    else:
        with_file(studies, job)
    jobs.began = begun(studies)
    study = getattr(studies, verb)("asked")
    ((_, id),) = jobs.started
    assert (study.state, study.job) == (StudyState.RUNNING, id)
    assert studies.driven(study)
    assert studies.store.study("asked") == study
    assert [each.parameters for each in studies.store.trials("asked")] == [{"max-num-seqs": 1}]
    old = ["asked/old.log"] if verb == "resume" else []
    assert files(studies) == ["asked/new.log", *old]


def test_a_study_that_another_started_while_it_was_begun_anew_is_the_others(
    studies: Studies, jobs: Jobs, job: Job, interrupted: Callable[..., Studies]
) -> None:
    with_file(studies, job)

    def another_starts() -> None:
        begun(studies)("asked", studies.start("asked").job)

    with pytest.raises(StudyStateError, match="changed"):
        interrupted("replace", another_starts).restart("asked")
    ((_, id),) = jobs.started
    assert (standing(studies, "asked"), studies.store.study("asked").job) == ("RUNNING", id)
    assert len(studies.store.trials("asked")) == 1
    assert files(studies) == ["asked/new.log"]


def test_a_study_that_another_started_after_a_restart_was_not_taken_is_the_others(
    studies: Studies, jobs: Jobs, job: Job, interrupted: Callable[..., Studies]
) -> None:
    with_file(studies, job)
    jobs.refusal = "the cluster is away"

    def another_starts() -> None:
        jobs.refusal = ""
        begun(studies)("asked", studies.start("asked").job)

    with pytest.raises(StudyStateError, match="changed"):
        interrupted("take_back", another_starts).restart("asked")
    assert standing(studies, "asked") == "RUNNING"
    assert files(studies) == ["asked/new.log"]


@pytest.mark.parametrize("verb", ["edit", "delete", "submit", "restart"])
def test_a_study_that_goes_on_while_it_is_replaced_keeps_what_was_and_what_comes(
    studies: Studies, job: Job, interrupted: Callable[..., Studies], verb: str
) -> None:
    was = with_file(studies, job)

    def another_goes_on() -> None:
        Path(was.directory).mkdir(exist_ok=True)  # as its driver does
        begun(studies)("asked", studies.resume("asked").job)

    mine = interrupted("delete" if verb == "delete" else "replace", another_goes_on, after=False)
    calls: dict[str, Callable[[], object]] = {
        "edit": lambda: mine.edit("asked", job),
        "delete": lambda: mine.delete("asked"),
        "submit": lambda: mine.submit(job, restart=True),
        "restart": lambda: mine.restart("asked"),
    }
    with pytest.raises(StudyStateError, match="changed"):
        calls[verb]()
    assert standing(studies, "asked") == "RUNNING"
    assert files(studies) == ["asked/new.log", "asked/old.log"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_study_that_the_service_is_starting_is_not_taken_from_it(
    studies: Studies, job: Job, restart: bool
) -> None:
    studies.create(job)
    started = studies.start("asked")
    with pytest.raises(StudyStateError, match="STARTING"):
        studies.submit(job, restart=restart)
    assert studies.store.study("asked") == started


def test_a_study_whose_job_never_began_it_is_not_replaced_unasked(
    studies: Studies, job: Job
) -> None:
    with_file(studies, job)
    studies.resume("asked")
    studies.store.set_state("asked", StudyState.PENDING, renewed_at=ago(START_SECONDS + 1))
    with pytest.raises(StudyStateError, match="--restart"):
        studies.submit(job)
    assert files(studies) == ["asked/old.log"]
    studies.submit(job, restart=True)
    assert files(studies) == []


@pytest.mark.parametrize("verb", ["resume", "run --restart"])
def test_a_study_that_its_job_is_about_to_begin_is_not_taken_by_a_person(
    studies: Studies, jobs: Jobs, job: Job, verb: str
) -> None:
    """The command line, which cannot ask the cluster; and who holds it, and what to do is said."""
    with_file(studies, job)
    began = studies.resume("asked")
    here = Studies(studies.store, Path(began.directory).parent)
    calls: dict[str, Callable[[], object]] = {
        "resume": lambda: here.resumable("asked"),
        "run --restart": lambda: here.submit(job, restart=True),
    }
    with pytest.raises(StudyStateError) as caught:
        calls[verb]()
    for said in (began.job, "STARTING", "autotuner cancel asked", "180 s", "--take-over"):
        assert said in str(caught.value)
    assert studies.store.study("asked") == began
    assert here.resumable("asked", job=began.job).job == began.job, "its job has it"
    with pytest.raises(StudyStateError, match="driven by"):
        calls[verb]()


def test_a_study_whose_job_is_dead_is_anybodys_and_nothing_is_left_for_the_job(
    studies: Studies, job: Job
) -> None:
    with_file(studies, job)
    late = studies.resume("asked").job
    studies.store.set_state("asked", StudyState.PENDING, renewed_at=ago(START_SECONDS + 1))
    studies.resumable("asked")
    assert studies.store.study("asked").driver == this_owner()
    ended(studies, "asked", StudyState.CANCELLED)
    with pytest.raises(StudyStateError, match="was given to job ''"):
        studies.resumable("asked", job=late)
    at_once = studies.resume("asked").job
    assert studies.resumable("asked", take_over=True).name == "asked"
    ended(studies, "asked", StudyState.CANCELLED)
    with pytest.raises(StudyStateError, match="was given to job ''"):
        studies.resumable("asked", job=at_once)


# What a driver that was killed has cost.

LAST, HOUR_BEFORE = "2026-11-22T12:00:00.000+00:00", "2026-11-22T11:00:00.000+00:00"


def killed(studies: Studies, job: Job) -> None:
    """A study whose driver died an hour into a trial on two GPUs, of which its phases tell half."""
    studies.create(job)
    driven(studies, "asked", DEAD)
    studies.store.set_state("asked", StudyState.RUNNING, renewed_at=LAST)
    going = trial(
        0,
        state=TrialState.BENCHMARKING,
        phases=(Phase("deploy", 0.0, 1800.0),),
        gpu_ids=("0", "1"),
        note="D(100,20) x 4",
        started_at=HOUR_BEFORE,
    )
    waiting = trial(1, {"max-num-seqs": 1}, TrialState.PENDING)
    studies.store.save("asked", going)
    studies.store.save("asked", waiting)


def cost(studies: Studies) -> list[float]:
    return [each.gpu_hours for each in studies.store.trials("asked")]


def test_what_a_killed_driver_spent_is_known_when_a_job_goes_on(
    studies: Studies, jobs: Jobs, job: Job
) -> None:
    """As where a person resumes it, see `StudyLoop`; and once, however often it is tried."""
    killed(studies, job)
    jobs.refusal = "the cluster is away"
    for _ in range(2):
        with pytest.raises(InfrastructureError):
            studies.resume("asked")
    assert standing(studies, "asked") == "LOST"
    jobs.refusal = ""
    handed = studies.resume("asked")
    broken, waiting = studies.store.trials("asked")
    assert (broken.state, broken.ended_at, broken.note) == (TrialState.CANCELLED, LAST, "")
    assert waiting.state is TrialState.PENDING
    assert cost(studies) == [pytest.approx(2.0), 0.0]
    told = [
        each.content.get("number") for each in studies.store.events("asked") if each.kind == "trial"
    ]
    assert told == [0, 1, 0], "that it ended is told once"
    study = studies.resumable("asked", job=handed.job)
    known = studies.store.trials("asked")
    again, _ = StudyLoop(study, studies.store, job.searcher(), job.rules, known=known).trials
    assert again.state is TrialState.PENDING
    assert again.gpu_hours == pytest.approx(2.0)


def test_what_a_killed_driver_spent_is_known_when_its_study_is_cancelled(
    studies: Studies, job: Job
) -> None:
    killed(studies, job)
    assert studies.cancel("asked").state is StudyState.CANCELLED
    assert cost(studies) == [pytest.approx(2.0), 0.0]


def test_a_trial_that_its_driver_ended_meanwhile_is_as_that_said(
    studies: Studies, job: Job
) -> None:
    killed(studies, job)
    was, (going, _) = studies.store.study("asked"), studies.store.trials("asked")
    done = dataclasses.replace(going, state=TrialState.COMPLETE, ended_at=LAST)
    studies.store.save("asked", done, by=DEAD)
    late = dataclasses.replace(going, state=TrialState.CANCELLED, ended_at=LAST)
    assert studies.store.hand_over(was, "a-job", [late])
    assert studies.store.trials("asked")[0].state is TrialState.COMPLETE


# Studies that another version of autotuner stored.


def unreadable(studies: Studies, tmp_path: Path, name: str, version: str = "9.1") -> None:
    """A study whose spec holds what only another version allows."""
    with sqlite3.connect(tmp_path / "store.db") as connection:
        (text,) = connection.execute("SELECT spec FROM studies WHERE name = ?", (name,)).fetchone()
        spec = json.loads(text)
        spec["workload"]["scenarios"] = ["Z(1)"]
        connection.execute(
            "UPDATE studies SET spec = ?, version = ? WHERE name = ?",
            (json.dumps(spec), version, name),
        )
    connection.close()
    with pytest.raises(StudyStateError, match="another version"):
        studies.store.study(name)


def test_a_study_that_cannot_be_read_says_where_and_who_can(
    tmp_path: Path, studies: Studies, job: Job
) -> None:
    studies.create(job)
    assert studies.store.stored("asked").version == __version__
    unreadable(studies, tmp_path, "asked")
    for call in (studies.study, studies.start, studies.resume, studies.restart, studies.show):
        with pytest.raises(StudyStateError) as caught:
            call("asked")
        assert "workload.scenarios" in str(caught.value)
        assert "autotuner 9.1 wrote it; delete it, or read it with that" in str(caught.value)
    unreadable(studies, tmp_path, "asked", version="")
    with pytest.raises(StudyStateError, match="an earlier autotuner wrote it"):
        studies.study("asked")


def test_a_study_that_cannot_be_read_hides_no_other(
    tmp_path: Path, studies: Studies, job: Job
) -> None:
    for name in ("asked", "other", "third"):
        studies.of("chat" if name == "third" else "").create(named(job, name))
    unreadable(studies, tmp_path, "asked")
    unreadable(studies, tmp_path, "third")
    assert [each.name for each, _ in studies.list()] == ["other"]
    assert [each["name"] for each in studies.rows()] == ["other"]
    assert sorted(each.name for each in studies.unreadable()) == ["asked", "third"]
    assert [each.name for each in studies.of("chat").unreadable()] == ["third"]
    assert studies.of("search").unreadable() == []


def test_a_study_that_cannot_be_read_is_deleted_edited_and_replaced(
    tmp_path: Path, studies: Studies, job: Job
) -> None:
    for change in (
        lambda: studies.delete("asked"),
        lambda: studies.edit("asked", job),
        lambda: studies.submit(job, restart=True),
    ):
        with_file(studies, job)
        unreadable(studies, tmp_path, "asked")
        change()
        assert list((tmp_path / "studies").rglob("*.log")) == []
        assert studies.unreadable() == []
        if "asked" in studies.store.names():
            assert studies.store.trials("asked") == []
            studies.store.delete(studies.study("asked"))


def test_a_study_that_cannot_be_read_is_cancelled(
    tmp_path: Path, studies: Studies, jobs: Jobs, job: Job
) -> None:
    studies.create(job)
    started = studies.start("asked")
    driven(studies, "asked")
    unreadable(studies, tmp_path, "asked")
    with pytest.raises(StudyStateError, match="RUNNING; cancel it"):
        studies.delete("asked")
    assert studies.cancel("asked").state is StudyState.RUNNING
    assert jobs.stopped == [started.job]
    studies.store.set_state("asked", StudyState.RUNNING, driver=DEAD)
    jobs.living.clear()
    assert studies.cancel("asked").state is StudyState.CANCELLED
    assert studies.store.stored("asked").state is StudyState.CANCELLED
    studies.delete("asked")


def test_what_can_be_said_of_a_study_that_cannot_be_read_is_said(
    tmp_path: Path, studies: Studies, job: Job
) -> None:
    studies.create(job)
    studies.store.save("asked", trial(0, objectives={"output_throughput": 5.0}))
    ended(studies, "asked", StudyState.FAILED, reason="the node burnt")
    whole = studies.row("asked")
    unreadable(studies, tmp_path, "asked")
    bare = studies.bare_row("asked")
    assert bare.keys() == whole.keys()
    told = {key for key in whole if bare[key] == whole[key]}
    assert whole.keys() - told == {
        "model",
        "engine",
        "objectives",
        "best",
        "baseline",
        "gain",
    }


def test_a_study_that_cannot_be_read_counts_while_it_is_under_way(
    tmp_path: Path, studies: Studies, jobs: Jobs, job: Job
) -> None:
    few = Studies(studies.store, tmp_path / "studies", runner=jobs, at_once=1)
    few.create(job)
    few.create(named(job, "other"))
    few.start("asked")
    unreadable(few, tmp_path, "asked")
    with pytest.raises(TooManyStudiesError, match="1 studies"):
        few.start("other")
    few.store.set_state("asked", StudyState.COMPLETE)
    few.start("other")


def test_what_a_study_left_that_cannot_be_read_is_swept(
    tmp_path: Path, studies: Studies, job: Job
) -> None:
    other = {"kind": "docker", "docker": {"memory": "64g"}}
    studies.create(load_job(study_file(tmp_path, name="asked", backend=other)))
    studies.create(named(job, "gone"))
    for name in ("asked", "gone"):
        unreadable(studies, tmp_path, name)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute(
            """UPDATE studies SET spec = '{"backend": {"kind": "moon"}}' WHERE name = 'gone'"""
        )
    connection.close()
    used = studies.backends_used(Site())
    assert [each.place.image for each in used] == [False, True]
    assert len(studies.backends_used(Site(), only="docker")) == 2
