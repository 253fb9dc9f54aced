"""Studies and trials in one database: SQLite by default, PostgreSQL by URL.

The driver of a study is the only writer of its rows. Every change is one transaction.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    false,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import Connection, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.schema import CreateColumn, CreateTable

from autotuner.errors import FailureClass, InfrastructureError, StudyStateError
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState, timestamp
from autotuner.study.trial import LoadPoint, Phase, Trial, TrialState

SCHEMA_VERSION = 2

PREPARED_AT_ONCE = 4
"""Processes that may come to a new store at the same moment, or more with luck."""

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
    Column("renewed_at", String(32), nullable=False, server_default=""),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("ended_at", String(32), nullable=False),
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
    Column("log_tail", String, nullable=False),
    Column("note", String, nullable=False),
    Column("phases", JSON, nullable=False),
    Column("directory", String, nullable=False),
    Column("node", String, nullable=False),
    Column("gpu_ids", JSON, nullable=False),
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
    ForeignKeyConstraint(["study", "trial"], ["trials.study", "trials.number"], ondelete="CASCADE"),
)


_ADDED_IN_2 = {
    _STUDIES: ("renewed_at",),
    _TRIALS: ("penalty", "predicted", "observed", "repeat_of", "round", "advice"),
    _LOAD_POINTS: ("probe",),
}
"""Columns a store of schema version 1 does not have; they all have defaults."""

_ALONE = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "SELECT pg_advisory_xact_lock(7463914253)",
}
"""Keeps others out while tables are made or changed; any number of ours does for PostgreSQL."""


class Store:
    """The database. Methods raise InfrastructureError when it cannot be reached."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            if "@" in (parsed.host or ""):
                raise ArgumentError("its password holds an @, which is written %40 there")
            # A query may hold a password too.
            self._place = parsed.set(query={}).render_as_string(hide_password=True)
            sqlite = parsed.get_backend_name() == "sqlite"
            if sqlite and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(parsed, json_serializer=_dumps)
        except (ArgumentError, ValueError) as error:
            # The URL may hold a password, so it is not said.
            raise InfrastructureError(
                f"AUTOTUNER_STORE is not a database URL that can be used: {_first_line(error)}"
            ) from error
        except (ModuleNotFoundError, OSError) as error:
            raise InfrastructureError(f"the store cannot be used: {error}") from error
        if sqlite:
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
        row = {**_study_row(study), "created_at": study.created_at or timestamp()}
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_STUDIES).values(row))
        except IntegrityError as error:
            raise StudyStateError(f"there already is a study named {study.name!r}") from error

    def study(self, name: str) -> Study:
        """Raises StudyStateError where there is none of that name."""
        with self._engine.connect() as connection:
            row = connection.execute(select(_STUDIES).where(_STUDIES.c.name == name)).first()
        if row is None:
            raise StudyStateError(f"there is no study named {name!r} in {self._place}")
        return _study(row._mapping)

    def names(self) -> list[str]:
        with self._engine.connect() as connection:
            return list(connection.execute(select(_STUDIES.c.name)).scalars())

    def studies(self) -> list[Study]:
        """All, the newest first."""
        query = select(_STUDIES).order_by(_STUDIES.c.created_at.desc(), _STUDIES.c.name)
        with self._engine.connect() as connection:
            return [_study(row._mapping) for row in connection.execute(query)]

    def set_state(self, name: str, state: StudyState, **more: str) -> None:
        """Change a study's state, and with it its reason, driver or times."""
        with self._engine.begin() as connection:
            connection.execute(
                update(_STUDIES).where(_STUDIES.c.name == name).values(state=state.value, **more)
            )

    def renew(self, name: str, driver: str) -> bool:
        """Renew the driver's lease; False when the study is not its any more."""
        own = (_STUDIES.c.name == name) & (_STUDIES.c.driver == driver)
        with self._engine.begin() as connection:
            return (
                connection.execute(
                    update(_STUDIES).where(own).values(renewed_at=timestamp())
                ).rowcount
                == 1
            )

    def claim(self, name: str, driver: str, *, was: str, renewed_at: str | None = None) -> bool:
        """Become the driver of a study in place of `was`; False when another was faster.

        Args:
            renewed_at: when `was` renewed its lease last, as far as the claimant knows.
        """
        own = (_STUDIES.c.name == name) & (_STUDIES.c.driver == was)
        if renewed_at is not None:
            own &= _STUDIES.c.renewed_at == renewed_at
        with self._engine.begin() as connection:
            changed = connection.execute(
                update(_STUDIES).where(own).values(driver=driver, renewed_at=timestamp())
            )
        return changed.rowcount == 1

    def delete(self, name: str) -> None:
        """Remove a study and its trials from the database; its files stay."""
        with self._engine.begin() as connection:
            connection.execute(delete(_STUDIES).where(_STUDIES.c.name == name))

    def save(self, study: str, trial: Trial) -> None:
        """Write one trial with its load points, new or not."""
        row = _trial_row(study, trial)
        key = (_TRIALS.c.study == study) & (_TRIALS.c.number == trial.number)
        points = (_LOAD_POINTS.c.study == study) & (_LOAD_POINTS.c.trial == trial.number)
        with self._engine.begin() as connection:
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

    def trials(self, study: str) -> list[Trial]:
        """The trials of a study by number."""
        points: dict[int, list[LoadPoint]] = {}
        with self._engine.connect() as connection:
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

    def close(self) -> None:
        self._engine.dispose()

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
                with self._engine.begin() as connection:
                    # Both end with the transaction. Python's SQLite begins none by itself
                    # for what changes tables.
                    alone = _ALONE.get(connection.dialect.name)
                    if alone:
                        connection.exec_driver_sql(alone)
                    for table in _METADATA.sorted_tables:
                        connection.execute(CreateTable(table, if_not_exists=True))
                    self._to_this_version(connection)
                return
            except (InfrastructureError, IntegrityError):
                if attempt == PREPARED_AT_ONCE - 1:
                    raise

    def _to_this_version(self, connection: Connection) -> None:
        version = connection.execute(select(_SCHEMA.c.version)).scalar()
        if version is None:
            connection.execute(insert(_SCHEMA).values(version=SCHEMA_VERSION))
        elif version == 1:
            self._add_columns(connection)
            connection.execute(update(_SCHEMA).values(version=SCHEMA_VERSION))
        elif version != SCHEMA_VERSION:
            raise InfrastructureError(
                f"the store {self._place} has schema version {version}, this autotuner "
                f"writes {SCHEMA_VERSION}; name another by AUTOTUNER_STORE"
            )

    def _add_columns(self, connection: Connection) -> None:
        dialect = connection.dialect
        for table, names in _ADDED_IN_2.items():
            there = {column["name"] for column in inspect(connection).get_columns(table.name)}
            for name in names:
                if name not in there:  # two processes may have come to the same old store
                    definition = CreateColumn(table.c[name]).compile(dialect=dialect)
                    connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


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
    values = {key: row[key] for key in row if key != "name"}
    try:
        spec = StudySpec.model_validate(values["spec"])
    except ValidationError as error:
        raise StudyStateError(
            f"study {row['name']!r} was stored by another version of autotuner, which allowed "
            f"what this one does not: {_first_line(error)}"
        ) from error
    return Study(
        **{
            **values,
            "spec": spec,
            "state": StudyState(values["state"]),
        }
    )


def _trial_row(study: str, trial: Trial) -> dict[str, Any]:
    row = dataclasses.asdict(trial)
    del row["load_points"]
    return {
        **row,
        "study": study,
        "state": trial.state.value,
        "failure": trial.failure.value if trial.failure else None,
        # PostgreSQL takes no NUL, and a dying server's log may hold some.
        "reason": trial.reason.replace("\0", "\N{REPLACEMENT CHARACTER}"),
        "log_tail": trial.log_tail.replace("\0", "\N{REPLACEMENT CHARACTER}"),
        "advice": trial.advice.replace("\0", "\N{REPLACEMENT CHARACTER}"),
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
