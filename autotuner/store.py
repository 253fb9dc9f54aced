"""Studies and trials in one database: SQLite by default, PostgreSQL by URL.

The driver of a study is the only writer of its trials. Every change is one transaction, and the
event that tells of it is in the same one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    cast,
    create_engine,
    delete,
    event,
    false,
    func,
    insert,
    inspect,
    select,
    text,
    true,
    update,
)
from sqlalchemy.engine import URL, Connection, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.schema import CreateColumn, CreateTable

from autotuner import __version__
from autotuner.errors import (
    FailureClass,
    InfrastructureError,
    MissingStudyError,
    StudyStateError,
)
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState, sees, timestamp
from autotuner.study.trial import LoadPoint, Phase, Trial, TrialState

SCHEMA_VERSION = 4

DELETED = "DELETED"
"""State in the last event of a study that is no more."""

SPECS_KEPT = 1000
"""Specs that are not read again while their text is the same: a list looks at every study twice,
for those that it can read and for the others, and the service at every event of one."""

PREPARED_AT_ONCE = 4
"""Processes that may come to a new store at the same moment, or more with luck."""

CONNECT_SECONDS = 10
"""Until a PostgreSQL that says nothing is given up, where its URL says no `connect_timeout`."""

_METADATA = MetaData()
_SCHEMA = Table("schema_version", _METADATA, Column("version", Integer, primary_key=True))
_STUDIES = Table(
    "studies",
    _METADATA,
    Column("name", String(63), primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("directory", String, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String, nullable=False),
    Column("driver", String, nullable=False),
    Column("job", String(128), nullable=False, server_default=""),
    Column("renewed_at", String(32), nullable=False, server_default=""),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("ended_at", String(32), nullable=False),
    Column("team", String(63), nullable=False, server_default=""),
    Column("version", String, nullable=False, server_default=""),
    # How many events there were: raised first in every transaction, so that whoever reads them
    # in order never sees one before another that was written earlier.
    Column("events", Integer, nullable=False, server_default="0"),
)
_TRIALS = Table(
    "trials",
    _METADATA,
    Column("study", ForeignKey("studies.name", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("objectives", JSON, nullable=False),
    Column("violations", JSON, nullable=False),
    Column("penalty", Float, nullable=False, server_default="1"),
    Column("predicted", JSON, nullable=False, server_default="{}"),
    Column("observed", JSON, nullable=False, server_default="{}"),
    Column("repeat_of", Integer),
    Column("round", Integer, nullable=False, server_default="0"),
    Column("failure", String(32)),
    Column("reason", String, nullable=False),
    Column("advice", String, nullable=False, server_default=""),
    Column("why", String, nullable=False, server_default=""),
    Column("log_tail", String, nullable=False),
    Column("note", String, nullable=False),
    Column("phases", JSON, nullable=False),
    Column("directory", String, nullable=False),
    Column("node", String, nullable=False),
    Column("gpu_ids", JSON, nullable=False),
    Column("lost_gpu_hours", Float, nullable=False, server_default="0"),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("ended_at", String(32), nullable=False),
)
_LOAD_POINTS = Table(
    "load_points",
    _METADATA,
    Column("study", String(63), primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("scenario", String, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("probe", Boolean, nullable=False, server_default=false()),
    Column("telemetry", JSON, nullable=False, server_default="{}"),
    ForeignKeyConstraint(["study", "trial"], ["trials.study", "trials.number"], ondelete="CASCADE"),
)


# Outlives its study by one row, so that numbers go on where another of that name follows, and who
# followed the first hears that it was deleted although the next is there already.
_EVENTS = Table(
    "events",
    _METADATA,
    Column("study", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("content", JSON, nullable=False),
)

_ADDED_SINCE: Mapping[int, Mapping[Table, tuple[str, ...]]] = {
    1: {
        _STUDIES: ("renewed_at",),
        _TRIALS: ("penalty", "predicted", "observed", "repeat_of", "round", "advice"),
        _LOAD_POINTS: ("probe",),
    },
    2: {_STUDIES: ("job", "events"), _TRIALS: ("why",), _LOAD_POINTS: ("telemetry",)},
    3: {_STUDIES: ("team", "version"), _TRIALS: ("lost_gpu_hours",)},
}
"""Columns a store of each older schema version does not have; they all have defaults."""

_STUDY = select(
    *(each for each in _STUDIES.c if each.name != "spec"), cast(_STUDIES.c.spec, Text).label("spec")
)
"""A study's row, its spec as the text that it is stored as."""

_UNTOLD: Mapping[str, Any] = {
    "predicted": {}, "observed": {}, "advice": "", "why": "", "log_tail": ""
}  # fmt: skip
"""In place of what no list shows of a trial."""

_ENDED = [state.value for state in TrialState if state.ended]

_ALONE = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "SELECT pg_advisory_xact_lock(7463914253)",
}
"""Keeps others out while tables are made or changed; any number of ours does for PostgreSQL."""


@dataclass(frozen=True)
class Event:
    """A change of a study (`kind` ``study``) or of one of its trials (``trial``).

    Attributes:
        number: from 1, without a gap while the study is there, and never used again for one of
            that name.
        at: ISO 8601 with zone, UTC.
    """

    number: int
    at: str
    kind: str
    content: Mapping[str, Any]

    @property
    def is_end(self) -> bool:
        """Whether the study was deleted by it; what follows is of another of its name."""
        return self.kind == "study" and self.content.get("state") == DELETED


@dataclass(frozen=True)
class Latest:
    """What changes of a study while it runs, and whose it is, see `Study`.

    Attributes:
        events: number of its last event; what was read of its trials holds while that does.
    """

    events: int
    driver: str
    job: str
    renewed_at: str
    team: str


@dataclass(frozen=True)
class Stored:
    """A study without what was asked, which another version of autotuner may have allowed and
    this one not. See `Study`, whose names these are.

    Attributes:
        backend: its kind, and the options of that kind, as they were stored.
        version: of the autotuner that stored it; empty before that was noted.
    """

    name: str
    directory: str
    state: StudyState
    reason: str
    driver: str
    job: str
    renewed_at: str
    created_at: str
    started_at: str
    ended_at: str
    team: str
    backend: tuple[str, Mapping[str, Any]]
    version: str


class Store:
    """The database. Methods raise InfrastructureError when it cannot be reached."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            if "@" in (parsed.host or ""):
                raise ArgumentError("its password holds an @, which is written %40 there")
            # A query may hold a password too.
            self._place = parsed.set(query={}).render_as_string(hide_password=True)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if self._sqlite and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(_patient(parsed), json_serializer=_dumps)
        except (ArgumentError, ValueError) as error:
            # The URL may hold a password, so it is not said.
            raise InfrastructureError(
                f"AUTOTUNER_STORE is not a database URL that can be used: {_first_line(error)}"
            ) from error
        except (ModuleNotFoundError, OSError) as error:
            raise InfrastructureError(f"the store cannot be used: {error}") from error
        if self._sqlite:
            event.listen(self._engine, "connect", _sqlite_pragmas)
        event.listen(self._engine, "handle_error", self._explain)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def create(self, study: Study) -> None:
        """Add a study.

        Raises:
            StudyStateError: the name is taken.
        """
        try:
            with self._writing() as connection:
                _create(connection, study)
        except IntegrityError as error:
            raise StudyStateError(f"there already is a study named {study.name!r}") from error

    def replace(self, was: Study | Stored, study: Study, trials: Sequence[Trial] = ()) -> None:
        """Put a study in the place of another, whose trials are removed; it may have a new name.

        Args:
            trials: of the new one.

        Raises:
            StudyStateError: the old one has changed since it was read, or the new name is taken.
        """
        try:
            with self._writing() as connection:
                anew = study.name == was.name
                last = _delete(connection, was, tell=not anew)
                _create(connection, study, last=last if anew else None)
                for trial in trials:
                    _tell(connection, study.name, "trial", _told(trial))
                    _save(connection, study.name, trial)
        except IntegrityError as error:
            raise StudyStateError(f"there already is a study named {study.name!r}") from error

    def study(self, name: str, team: str = "") -> Study:
        """A study as a team sees it.

        Raises:
            MissingStudyError: there is none of that name, or none that the team sees.
            StudyStateError: another version of autotuner stored it, and this one cannot read it.
        """
        return _study(self._row(name, team))

    def stored(self, name: str, team: str = "") -> Stored:
        """As `study`, of a study that any version of autotuner stored."""
        return _stored(self._row(name, team))

    def _row(self, name: str, team: str) -> Mapping[Any, Any]:
        with self._reading() as connection:
            row = connection.execute(_STUDY.where(_STUDIES.c.name == name)).first()
        if row is None or not sees(team, row.team):
            raise self.missing(name, among=() if team else self.names())
        return row._mapping

    def missing(self, name: str, among: Sequence[str] = ()) -> MissingStudyError:
        """What is said of a study that is not there.

        Args:
            among: names, the nearest of which may be meant. It is said beside the place: who asks
                from afar learns neither.
        """
        near = difflib.get_close_matches(name, among, n=1)
        hint = f"\n  did you mean {near[0]!r}?" if near else ""
        hint += "\n  autotuner list shows them"
        hint += "; AUTOTUNER_HOME says where they are kept" if self._sqlite else ""
        return MissingStudyError(f"there is no study named {name!r}", self._place + hint)

    def names(self) -> list[str]:
        with self._reading() as connection:
            return list(connection.execute(select(_STUDIES.c.name)).scalars())

    def studies(self) -> list[Study]:
        """All that can be read, the newest first; see `unreadable` for the others."""
        return [study for row in self._rows() if (study := _readable(row)) is not None]

    def unreadable(self) -> list[Stored]:
        """Those that another version of autotuner stored, and that this one cannot read."""
        return [_stored(row) for row in self._rows() if _readable(row) is None]

    def all_stored(self) -> list[Stored]:
        """All, the newest first, whatever stored them."""
        return [_stored(row) for row in self._rows()]

    def _rows(self) -> list[Mapping[Any, Any]]:
        query = _STUDY.order_by(_STUDIES.c.created_at.desc(), _STUDIES.c.name)
        with self._reading() as connection:
            return [row._mapping for row in connection.execute(query)]

    def set_state(
        self,
        name: str,
        state: StudyState,
        *,
        was: Study | Stored | None = None,
        by: str | None = None,
        trials: Sequence[Trial] = (),
        **more: str,
    ) -> bool:
        """Change a study's state, and with it its reason, driver or times.

        Args:
            was: change it only while state, driver and job are these.
            by: change it only while this one drives it.
            trials: of it, that change with it where they have not ended.

        Returns:
            Whether it was changed.
        """
        only = (true() if was is None else _unchanged(was)) & _driven_by(by)
        return self._become(name, only, {"state": state.value, **more}, trials)

    def hand_over(self, was: Study, job: str, trials: Sequence[Trial] = ()) -> bool:
        """Have a study wait for the job that is to run it; False when it has changed since it
        was read.

        Args:
            trials: of it, that change with it where they have not ended.
        """
        waiting = {
            "state": StudyState.PENDING.value,
            "reason": "",
            "driver": "",
            "job": job,
            "renewed_at": timestamp(),
            "ended_at": "",
        }
        return self._become(was.name, _unchanged(was), waiting, trials)

    def take_back(self, was: Study, job: str) -> bool:
        """Have a study be as it was before it was handed over; False when the job has begun."""
        waiting = replace(was, state=StudyState.PENDING, driver="", job=job)
        names = ("reason", "driver", "job", "renewed_at", "ended_at")
        before = {"state": was.state.value, **{name: getattr(was, name) for name in names}}
        return self._become(was.name, _unchanged(waiting), before)

    def _become(
        self,
        name: str,
        only: ColumnElement[bool],
        values: Mapping[str, str],
        trials: Sequence[Trial] = (),
    ) -> bool:
        own = (_STUDIES.c.name == name) & only
        with self._writing() as connection:
            if connection.execute(update(_STUDIES).where(own).values(values)).rowcount == 0:
                return False
            said = connection.execute(
                select(_STUDIES.c.state, _STUDIES.c.reason, _STUDIES.c.job).where(
                    _STUDIES.c.name == name
                )
            ).one()
            _tell(connection, name, "study", said._asdict())
            # Whoever drove it until now may have ended one since it was read.
            going = (_TRIALS.c.study == name) & _TRIALS.c.state.not_in(_ENDED)
            open_ = connection.execute(select(_TRIALS.c.number).where(going)).scalars().all()
            for trial in (each for each in trials if each.number in open_):
                _tell(connection, name, "trial", _told(trial))
                _save(connection, name, trial)
        return True

    def renew(self, name: str, driver: str) -> bool:
        """Renew the driver's lease; False when the study is not its any more."""
        own = (_STUDIES.c.name == name) & (_STUDIES.c.driver == driver)
        with self._writing() as connection:
            return (
                connection.execute(
                    update(_STUDIES).where(own).values(renewed_at=timestamp())
                ).rowcount
                == 1
            )

    def claim(
        self,
        name: str,
        driver: str,
        *,
        was: str,
        renewed_at: str | None = None,
        job: str | None = None,
    ) -> bool:
        """Become the driver of a study in place of `was`; False when another was faster.

        Args:
            renewed_at: when `was` renewed its lease last, as far as the claimant knows.
            job: that the driver is, or empty: one that is still to come finds nothing to run.
                By default it stays the one that it was.
        """
        own = (_STUDIES.c.name == name) & (_STUDIES.c.driver == was)
        if renewed_at is not None:
            own &= _STUDIES.c.renewed_at == renewed_at
        now = {"driver": driver, "renewed_at": timestamp()} | ({} if job is None else {"job": job})
        with self._writing() as connection:
            changed = connection.execute(update(_STUDIES).where(own).values(now))
        return changed.rowcount == 1

    def delete(self, was: Study | Stored) -> None:
        """Remove a study and its trials from the database; its files stay.

        Raises:
            StudyStateError: it has changed since it was read.
        """
        with self._writing() as connection:
            _delete(connection, was)

    def events(self, study: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """What happened to a study, in order, from the event after that number; from the first on,
        without the end of an earlier one of its name."""
        query = (
            select(_EVENTS)
            .where((_EVENTS.c.study == study) & (_EVENTS.c.number > after))
            .order_by(_EVENTS.c.number)
            .limit(limit + 1)
        )
        with self._reading() as connection:
            found = [
                Event(row.number, row.at, row.kind, row.content)
                for row in connection.execute(query)
            ]
        earlier = after == 0 and len(found) > 1 and found[0].is_end
        return found[1:] if earlier else found[:limit]

    def last_event(self, study: str) -> int:
        """Number of the last event that is kept of a study; 0 where there is none."""
        query = select(func.max(_EVENTS.c.number)).where(_EVENTS.c.study == study)
        with self._reading() as connection:
            return connection.execute(query).scalar() or 0

    def latest(self, name: str | None = None) -> dict[str, Latest]:
        """Of every study, or of one, what tells whether something about it has changed: cheap."""
        columns = (_STUDIES.c.name, *(_STUDIES.c[each.name] for each in fields(Latest)))
        query = select(*columns)
        if name is not None:
            query = query.where(_STUDIES.c.name == name)
        with self._reading() as connection:
            return {row.name: Latest(*row[1:]) for row in connection.execute(query)}

    def save(self, study: str, trial: Trial, *, by: str | None = None) -> bool:
        """Write one trial with its load points, new or not.

        Args:
            by: write it only while this one drives the study.

        Returns:
            Whether it was written.
        """
        with self._writing() as connection:
            # First of all: the lock that this takes keeps another from claiming it meanwhile.
            told = _tell(connection, study, "trial", _told(trial), by=by)
            if not told and by is not None:
                return False
            _save(connection, study, trial)
        return True

    def trials(self, study: str) -> list[Trial]:
        """The trials of a study by number."""
        points: dict[int, list[LoadPoint]] = {}
        with self._reading() as connection:
            for row in connection.execute(
                select(_LOAD_POINTS).where(_LOAD_POINTS.c.study == study).order_by("index")
            ):
                values = dict(row._mapping)
                del values["study"]
                points.setdefault(values.pop("trial"), []).append(LoadPoint(**values))
            rows = connection.execute(
                select(_TRIALS).where(_TRIALS.c.study == study).order_by("number")
            ).all()
        return [_trial(row._mapping, tuple(points.get(row.number, ()))) for row in rows]

    def all_trials(self) -> dict[str, list[Trial]]:
        """The trials of every study that has some, by number, for lists: without their load points
        and their servers' logs, which are most of what is stored."""
        found: dict[str, list[Trial]] = {}
        columns = (each for each in _TRIALS.c if each.name not in _UNTOLD)
        query = select(*columns).order_by(_TRIALS.c.study, _TRIALS.c.number)
        with self._reading() as connection:
            for row in connection.execute(query):
                found.setdefault(row.study, []).append(_trial({**row._mapping, **_UNTOLD}, ()))
        return found

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._answered(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._answered(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise InfrastructureError(
                f"the store {self._place} does not answer: all connections to it are in use"
            ) from error

    def _explain(self, context: ExceptionContext) -> BaseException | None:
        error = context.sqlalchemy_exception
        if error is None or isinstance(error, IntegrityError):
            return None
        return InfrastructureError(f"the store {self._place} cannot be used: {_first_line(error)}")

    def _prepare(self) -> None:
        """Make the tables, or bring those of an older version up to date.

        Other processes may want the same at this very moment: one after another.
        """
        for attempt in range(PREPARED_AT_ONCE):
            try:
                with self._writing() as connection:
                    # Both end with the transaction. Python's SQLite begins none by itself
                    # for what changes tables.
                    alone = _ALONE.get(connection.dialect.name)
                    if alone:
                        connection.exec_driver_sql(alone)
                    for table in _METADATA.sorted_tables:
                        connection.execute(CreateTable(table, if_not_exists=True))
                    self._to_this_version(connection)
                return
            except (InfrastructureError, IntegrityError) as error:
                # SQLite may be locked all the same. A server that refuses would do so again.
                again = self._sqlite or isinstance(error, IntegrityError)
                if not again or attempt == PREPARED_AT_ONCE - 1:
                    raise

    def _to_this_version(self, connection: Connection) -> None:
        version = connection.execute(select(_SCHEMA.c.version)).scalar()
        if version is None:
            connection.execute(insert(_SCHEMA).values(version=SCHEMA_VERSION))
        elif version in _ADDED_SINCE:
            for older, added in _ADDED_SINCE.items():
                if version <= older:
                    self._add_columns(connection, added)
            connection.execute(update(_SCHEMA).values(version=SCHEMA_VERSION))
        elif version != SCHEMA_VERSION:
            raise InfrastructureError(
                f"the store {self._place} has schema version {version}, this autotuner "
                f"writes {SCHEMA_VERSION}; name another by AUTOTUNER_STORE"
            )

    def _add_columns(self, connection: Connection, added: Mapping[Table, tuple[str, ...]]) -> None:
        dialect = connection.dialect
        for table, names in added.items():
            there = {column["name"] for column in inspect(connection).get_columns(table.name)}
            for name in names:
                if name not in there:  # two processes may have come to the same old store
                    definition = CreateColumn(table.c[name]).compile(dialect=dialect)
                    connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _patient(url: URL) -> URL:
    """With a time to connect in, of drivers that know it by libpq's name."""
    if not url.get_driver_name().startswith("psycopg") or "connect_timeout" in url.query:
        return url
    return url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})


def _create(connection: Connection, study: Study, last: int | None = None) -> None:
    """Add a study, whose events go on after the last one of that name."""
    now = {"created_at": study.created_at or timestamp(), "version": __version__}
    row = {**_study_row(study), **now}
    if last is None:
        earlier = _EVENTS.c.study == study.name
        last = connection.execute(select(func.max(_EVENTS.c.number)).where(earlier)).scalar()
    connection.execute(insert(_STUDIES).values({**row, "events": last or 0}))
    told = {"state": study.state.value, "reason": study.reason, "job": study.job}
    _tell(connection, study.name, "study", told)


def _delete(connection: Connection, was: Study | Stored, *, tell: bool = True) -> int:
    """Remove a study; the number of its last event.

    Args:
        tell: by one event more, which outlives it.
    """
    own = (_STUDIES.c.name == was.name) & _unchanged(was)
    # The lock that this takes keeps another from claiming it meanwhile.
    if connection.execute(update(_STUDIES).where(own).values(driver=was.driver)).rowcount == 0:
        raise StudyStateError(f"study {was.name!r} has just been changed by another; look again")
    name = was.name
    count = select(_STUDIES.c.events).where(_STUDIES.c.name == name)
    last: int = connection.execute(count).scalar_one()
    connection.execute(delete(_STUDIES).where(_STUDIES.c.name == name))
    connection.execute(delete(_EVENTS).where(_EVENTS.c.study == name))
    if tell:
        last += 1
        gone = {"study": name, "number": last, "at": timestamp(), "kind": "study"}
        connection.execute(insert(_EVENTS).values(**gone, content={"state": DELETED}))
    return last


def _unchanged(was: Study | Stored) -> ColumnElement[bool]:
    return (
        (_STUDIES.c.state == was.state.value)
        & (_STUDIES.c.driver == was.driver)
        & (_STUDIES.c.job == was.job)
        # One that was deleted, and made anew by others, is not the one that was read.
        & (_STUDIES.c.team == was.team)
    )


def _driven_by(driver: str | None) -> ColumnElement[bool]:
    """Whether a study is its; of None, it does not matter whose it is."""
    return true() if driver is None else _STUDIES.c.driver == driver


def _save(connection: Connection, study: str, trial: Trial) -> None:
    row = _trial_row(study, trial)
    key = (_TRIALS.c.study == study) & (_TRIALS.c.number == trial.number)
    points = (_LOAD_POINTS.c.study == study) & (_LOAD_POINTS.c.trial == trial.number)
    if connection.execute(update(_TRIALS).where(key).values(row)).rowcount == 0:
        connection.execute(insert(_TRIALS).values(row))
    connection.execute(delete(_LOAD_POINTS).where(points))
    if trial.load_points:
        connection.execute(
            insert(_LOAD_POINTS),
            [
                {"study": study, "trial": trial.number, **dataclasses.asdict(point)}
                for point in trial.load_points
            ],
        )


def _next_number(connection: Connection, study: str, by: str | None) -> int | None:
    own = (_STUDIES.c.name == study) & _driven_by(by)
    raised = update(_STUDIES).where(own).values(events=_STUDIES.c.events + 1)
    return connection.execute(raised.returning(_STUDIES.c.events)).scalar()


def _tell(
    connection: Connection,
    study: str,
    kind: str,
    content: Mapping[str, Any],
    *,
    by: str | None = None,
) -> bool:
    """Add an event; False where the study is not there, or driven by another than this one."""
    number = _next_number(connection, study, by)
    if number is None:
        return False
    connection.execute(
        insert(_EVENTS).values(
            study=study, number=number, at=timestamp(), kind=kind, content=dict(content)
        )
    )
    return True


def _told(trial: Trial) -> dict[str, Any]:
    """What an event says of a trial; what is large is read with the trial itself."""
    names = ("number", "parameters", "note", "objectives", "repeat_of", "round", "reason")
    return {
        **{name: getattr(trial, name) for name in names},
        "reason": _printable(trial.reason),
        "state": trial.state.value,
        "failure": trial.failure.value if trial.failure else None,
        "feasible": trial.feasible,
        "load_points": len(trial.load_points),
    }


def _printable(text: str) -> str:
    # PostgreSQL takes no NUL, and a dying server's log may hold some.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _sqlite_pragmas(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    # Readers (status, report) go on while the driver writes.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _study_row(study: Study) -> dict[str, Any]:
    row = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    return {
        **row,
        "name": study.name,
        "state": study.state.value,
        "spec": study.spec.model_dump(mode="json"),
    }


def _study(row: Mapping[Any, Any]) -> Study:
    values = {key: row[key] for key in row if key not in ("name", "events", "version")}
    try:
        spec = _spec(values["spec"])
    except ValidationError as error:
        raise StudyStateError(
            f"study {row['name']!r} was stored by another version of autotuner, which allowed "
            f"what this one does not: {_first_problem(error)}\n"
            f"  {_writer(row['version'])} wrote it; delete it, or read it with that"
        ) from error
    return Study(
        **{
            **values,
            "spec": spec,
            "state": StudyState(values["state"]),
        }
    )


@lru_cache(maxsize=SPECS_KEPT)
def _spec(text: str) -> StudySpec:
    return StudySpec.model_validate(json.loads(text))


def _readable(row: Mapping[Any, Any]) -> Study | None:
    try:
        return _study(row)
    except StudyStateError:
        return None


def _stored(row: Mapping[Any, Any]) -> Stored:
    values = {key: row[key] for key in row if key not in ("spec", "events")}
    said = json.loads(row["spec"])
    spec = said if isinstance(said, dict) else {}
    backend = spec.get("backend") or {}
    kind = backend.get("kind", "process")
    return Stored(
        **{
            **values,
            "state": StudyState(values["state"]),
            "backend": (kind, backend.get(kind) or {}),
        }
    )


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def _writer(version: str) -> str:
    return f"autotuner {version}" if version else "an earlier autotuner"


def _trial_row(study: str, trial: Trial) -> dict[str, Any]:
    row = dataclasses.asdict(trial)
    del row["load_points"]
    return {
        **row,
        "study": study,
        "state": trial.state.value,
        "failure": trial.failure.value if trial.failure else None,
        **{name: _printable(getattr(trial, name)) for name in ("reason", "log_tail", "advice")},
    }


def _trial(row: Mapping[Any, Any], points: tuple[LoadPoint, ...]) -> Trial:
    values = {key: row[key] for key in row if key != "study"}
    return Trial(
        **{
            **values,
            "state": TrialState(values["state"]),
            "failure": FailureClass(values["failure"]) if values["failure"] else None,
            "phases": tuple(Phase(**phase) for phase in values["phases"]),
            "gpu_ids": tuple(values["gpu_ids"]),
            "load_points": points,
        }
    )
