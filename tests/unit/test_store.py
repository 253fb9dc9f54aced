"""The store: what is saved is what is read, in SQLite and, where one is given, in PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from autotuner.errors import (
    AutotunerError,
    FailureClass,
    InfrastructureError,
    MissingStudyError,
    StudyStateError,
)
from autotuner.store import SCHEMA_VERSION, Store, _patient
from autotuner.study.study import Study, StudyState, seconds_between, timestamp
from autotuner.study.trial import LoadPoint, Phase, Trial, TrialState
from tests import postgres
from tests.builders import spec, trial


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """A PostgreSQL database of the tests' own."""
    directory = postgres.programs()
    if directory is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.running(directory) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    database: str = request.getfixturevalue("database")
    engine = create_engine(database)
    with engine.begin() as connection:
        for table in ("load_points", "trials", "studies", "events", "schema_version"):
            connection.execute(text(f"DROP TABLE IF EXISTS {table} CASCADE"))
    engine.dispose()
    return database


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def study(name: str = "small", **more: Any) -> Study:
    return Study(spec(name=name, space={"max-num-seqs": [1, None]}), f"/studies/{name}", **more)


FULL = Trial(
    number=7,
    parameters={
        "max-num-seqs": 64,
        "gpu-memory-utilization": 0.9,
        "enable-prefix-caching": False,
        "compilation-config": {"mode": 3, "sizes": [1, 2.5, None, True]},
        "left-out": None,
        "env:X": "é \N{GRINNING FACE} 'quoted' \"twice\"",
    },
    state=TrialState.COMPLETE,
    note="load point 2 of 2",
    load_points=(
        LoadPoint(
            0,
            "D(100,20)",
            4,
            12.5,
            {"ttft_p99": 0.25, "tpot_p50": None},
            telemetry={"kv_usage_max": 0.98, "gpu_power_mean": None},
        ),
        LoadPoint(1, "D(100,20)", 8, 12.0, {"ttft_p99": 0.5, "requests": 100.0}),
    ),
    objectives={"output_throughput": 123.4567890123, "ttft_p99": None},
    violations={"ttft_p99": -0.5, "error_rate": 0.0},
    penalty=3.5,
    predicted={"ttft_p99": 0.2, "tpot_p50": None},
    observed={"kv_tokens": 524288.0},
    repeat_of=3,
    round=2,
    failure=FailureClass.MODEL,
    reason="one line",
    advice="lower gpu-memory-utilization",
    why="the KV cache was full",
    log_tail="two\nlines\n" + "x" * 10_000,
    phases=(Phase("deploy", 0.0, 3.25), Phase("D(100,20) x 4", 3.25, 16.0)),
    directory="/studies/small/trials/0007",
    node="10.0.0.7",
    gpu_ids=("0", "GPU-4f"),
    lost_gpu_hours=0.25,
    created_at="2026-11-22T03:04:05.678+00:00",
    started_at="2026-11-22T03:04:06.000+00:00",
    ended_at="2026-11-22T03:05:06.500+00:00",
)


def test_every_field_of_a_trial_is_read_back_as_it_was_saved(store: Store) -> None:
    store.create(study())
    store.save("small", FULL)
    (found,) = store.trials("small")
    assert found == FULL
    assert isinstance(found.load_points, tuple)
    assert isinstance(found.gpu_ids, tuple)
    assert list(found.parameters) == list(FULL.parameters)
    for field in dataclasses.fields(Trial):
        assert getattr(FULL, field.name) not in (field.default, "", (), {}), field.name
    assert [type(value) for value in found.parameters.values()] == [
        type(value) for value in FULL.parameters.values()
    ]


def test_every_field_of_a_study_is_read_back_as_it_was_saved(store: Store) -> None:
    full = Study(
        spec(
            description="A question",
            engine={"kind": "vllm", "arguments": {"a": None, "b": {"c": [True, 1.0]}}},
            space={"--x_y": [1, "1", True, None], "z": {"type": "float", "low": 0, "high": 1}},
            search={"kind": "optuna", "startup_trials": 3, "seed": 5},
            objectives=["ttft_p99", "goodput"],
            constraints={"error_rate": 0.01},
        ),
        "/studies/small",
        StudyState.RUNNING,
        "a reason",
        "host 12:34",
        "2026-11-22T03:04:05.678+00:00",
        "2026-11-22T03:04:06.000+00:00",
        "2026-11-22T03:05:06.500+00:00",
        team="chat",
    )
    store.create(full)
    found = store.study("small")
    assert found == full
    assert store.latest("small")["small"].team == "chat"
    assert found.spec.search.options == {"startup_trials": 3}
    assert found.spec.parameter_space == full.spec.parameter_space
    assert found.name == "small"


@pytest.mark.parametrize("failure", [None, *FailureClass])
def test_every_failure_class_has_room(store: Store, failure: FailureClass | None) -> None:
    store.create(study())
    store.save("small", trial(0, state=TrialState.INFEASIBLE, failure=failure))
    assert store.trials("small")[0].failure is failure


@pytest.mark.parametrize("state", TrialState)
def test_every_state_of_a_trial_is_kept(store: Store, state: TrialState) -> None:
    store.create(study())
    store.save("small", trial(0, state=state))
    assert store.trials("small")[0].state is state


def test_a_log_of_broken_bytes_can_be_saved(store: Store) -> None:
    # A dying process writes what it likes; PostgreSQL's texts take no NUL.
    broken = b"before \x00 \xff after".decode(errors="replace")
    store.create(study())
    store.save("small", trial(0, state=TrialState.INFEASIBLE, reason=broken, log_tail=broken))
    (found,) = store.trials("small")
    assert found.log_tail.startswith("before")
    assert found.log_tail.endswith("after")


def test_what_is_stored_survives_the_process(url: str) -> None:
    first = Store(url)
    first.create(study())
    first.save("small", FULL)
    first.close()
    second = Store(url)
    assert second.trials("small") == [FULL]
    assert second.study("small").spec == study().spec
    second.close()


def test_a_name_is_taken_once(store: Store) -> None:
    store.create(study())
    with pytest.raises(StudyStateError, match="already is a study named 'small'"):
        store.create(study())
    assert len(store.studies()) == 1


def test_an_unknown_study_is_the_callers_mistake(store: Store) -> None:
    with pytest.raises(StudyStateError, match="no study named 'nothing'"):
        store.study("nothing")
    assert store.trials("nothing") == []


def test_a_study_without_a_time_gets_one(store: Store) -> None:
    store.create(study())
    assert store.study("small").created_at


def test_studies_are_listed_newest_first(store: Store) -> None:
    assert store.studies() == []
    for name, day in (("b", "02"), ("a", "03"), ("c", "01")):
        store.create(study(name, created_at=f"2026-11-{day}T00:00:00.000+00:00"))
    assert [each.name for each in store.studies()] == ["a", "b", "c"]


@pytest.mark.parametrize("state", StudyState)
def test_a_state_is_changed_with_what_belongs_to_it(store: Store, state: StudyState) -> None:
    store.create(study())
    store.create(study("other"))
    store.set_state("small", state, reason="why", driver="host 1:2")
    found = store.study("small")
    assert (found.state, found.reason, found.driver) == (state, "why", "host 1:2")
    assert found.spec == study().spec
    assert store.study("other").state is StudyState.PENDING


def test_a_study_has_ended_in_three_of_its_states() -> None:
    ended = {StudyState.COMPLETE, StudyState.FAILED, StudyState.CANCELLED}
    assert {state for state in StudyState if state.ended} == ended


def test_a_trial_saved_again_replaces_itself_and_its_load_points(store: Store) -> None:
    store.create(study())
    store.save("small", FULL)
    store.save("small", dataclasses.replace(FULL, state=TrialState.STOPPED, load_points=()))
    (found,) = store.trials("small")
    assert found.state is TrialState.STOPPED
    assert found.load_points == ()
    store.save("small", FULL)
    assert store.trials("small") == [FULL]


def test_trials_come_by_number_with_their_own_load_points(store: Store) -> None:
    for name in ("small", "other"):
        store.create(study(name))
        for number in (10, 2, 0):
            point = LoadPoint(number, name, 1, 1.0, {})
            store.save(name, trial(number, load_points=(point,)))
    found = store.trials("small")
    assert [each.number for each in found] == [0, 2, 10]
    assert [[p.scenario for p in each.load_points] for each in found] == [["small"]] * 3
    assert [each.load_points[0].index for each in found] == [0, 2, 10]


def test_a_deleted_study_takes_its_trials_along_and_frees_its_name(store: Store) -> None:
    store.create(study())
    store.create(study("other"))
    store.save("small", FULL)
    store.save("other", FULL)
    store.delete(store.study("small"))
    assert [each.name for each in store.studies()] == ["other"]
    assert store.trials("small") == []
    assert store.trials("other") == [FULL]
    store.create(study())
    assert store.trials("small") == []


def test_a_trial_of_no_study_is_not_saved(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        store.save("nothing", trial(0))


def test_what_another_driver_writes_is_not_taken(store: Store) -> None:
    store.create(study(driver="new 1:1"))
    at_load = dataclasses.replace(FULL, state=TrialState.BENCHMARKING, load_points=())
    assert store.save("small", FULL, by="new 1:1")
    before = store.study("small"), store.trials("small"), store.events("small")
    assert not store.save("small", at_load, by="old 1:1")
    assert not store.save("small", trial(8), by="old 1:1")
    assert not store.save("nothing", trial(0), by="new 1:1")
    assert not store.set_state("small", StudyState.CANCELLED, by="old 1:1", driver="")
    assert (store.study("small"), store.trials("small"), store.events("small")) == before
    assert store.set_state("small", StudyState.CANCELLED, by="new 1:1", driver="")
    assert not store.save("small", trial(8), by="new 1:1"), "nobody's is not its"


def test_another_schema_version_is_refused_with_a_way_out(url: str) -> None:
    Store(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE schema_version SET version = {SCHEMA_VERSION + 1}"))
    engine.dispose()
    with pytest.raises(InfrastructureError) as caught:
        Store(url)
    assert f"schema version {SCHEMA_VERSION + 1}" in str(caught.value)
    assert "AUTOTUNER_STORE" in str(caught.value)


def test_two_stores_see_each_others_writes(url: str) -> None:
    writer, reader = Store(url), Store(url)
    writer.create(study())
    assert reader.trials("small") == []
    writer.save("small", FULL)
    assert reader.trials("small") == [FULL]
    writer.close()
    reader.close()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["a", "b-c", "env:D"]), JSON))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_value_of_a_parameter_is_read_back(
    store: Store, parameters: dict[str, object]
) -> None:
    if not store.studies():
        store.create(study())
    store.save("small", trial(1, parameters))
    (found,) = store.trials("small")
    assert found.parameters == parameters
    assert repr(found.parameters) == repr(parameters)


# The database and its troubles.


def test_a_sqlite_file_is_made_with_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "store.db"
    Store(f"sqlite:///{path}").close()
    assert path.is_file()


@pytest.mark.parametrize("url", ["nonsense", "", "foo://host/name", "postgresql+nodriver://h/n"])
def test_an_address_that_means_nothing_is_an_error_of_ours(url: str) -> None:
    with pytest.raises(AutotunerError):
        Store(url)


def test_a_directory_that_cannot_be_made_is_the_operators(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InfrastructureError):
        Store(f"sqlite:///{tmp_path / 'file' / 'store.db'}")


def test_a_file_that_is_no_database_is_the_operators(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("text " * 1000, encoding="utf-8")
    with pytest.raises(InfrastructureError, match="cannot be used"):
        Store(f"sqlite:///{tmp_path / 'store.db'}")


def test_a_database_that_breaks_while_in_use_is_the_operators(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = Store(f"sqlite:///{path}")
    store.create(study())
    connection = sqlite3.connect(path)
    for table in ("load_points", "trials", "studies"):
        connection.execute(f"DROP TABLE {table}")
    connection.close()
    for use in (
        store.studies,
        lambda: store.study("small"),
        lambda: store.trials("small"),
        lambda: store.save("small", FULL),
        lambda: store.create(study("other")),
        lambda: store.set_state("small", StudyState.RUNNING),
        lambda: store.delete(store.study("small")),
    ):
        with pytest.raises(InfrastructureError):
            use()
    store.close()


def test_a_password_is_never_said() -> None:
    with pytest.raises(AutotunerError) as caught:
        Store("postgresql+psycopg://someone:secret@127.0.0.1:9/none?connect_timeout=1")
    assert "secret" not in str(caught.value)


def test_times_are_utc_with_their_zone_and_can_be_subtracted() -> None:
    now = timestamp()
    assert now.endswith("+00:00")
    assert len(now) <= 32
    assert seconds_between(FULL.started_at, FULL.ended_at) == 60.5
    assert seconds_between("", now) is None
    assert seconds_between(now, "") is None


def test_a_new_store_may_be_made_by_many_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as several:
        stores = list(several.map(Store, [url] * 8))
    assert all(each.studies() == [] for each in stores)
    for each in stores:
        each.close()


def test_a_store_of_the_first_version_is_brought_up_to_date_with_what_it_holds(url: str) -> None:
    added = {
        "studies": ["renewed_at", "job", "events", "team", "version"],
        "trials": [
            *("penalty", "predicted", "observed", "repeat_of", "round", "advice", "why"),
            "lost_gpu_hours",
        ],
        "load_points": ["probe", "telemetry"],
    }
    old = Store(url)
    old.create(study())
    old.save("small", FULL)
    old.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        for table, columns in added.items():
            for column in columns:
                connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(text("UPDATE schema_version SET version = 1"))
    engine.dispose()
    with ThreadPoolExecutor(4) as several:
        stores = list(several.map(Store, [url] * 4))
    (found,) = stores[0].trials("small")
    assert found == dataclasses.replace(
        FULL,
        penalty=1.0,
        predicted={},
        observed={},
        repeat_of=None,
        round=0,
        advice="",
        why="",
        lost_gpu_hours=0.0,
        load_points=tuple(dataclasses.replace(p, telemetry={}) for p in FULL.load_points),
    )
    assert stores[0].study("small").renewed_at == ""
    for each in stores:
        each.close()


def test_a_store_from_before_teams_holds_studies_of_none(url: str) -> None:
    old = Store(url)
    old.create(study())
    old.save("small", FULL)
    old.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE studies DROP COLUMN team"))
        connection.execute(text("ALTER TABLE trials DROP COLUMN lost_gpu_hours"))
        connection.execute(text("UPDATE schema_version SET version = 3"))
    engine.dispose()
    new = Store(url)
    assert new.study("small").team == new.latest()["small"].team == ""
    assert new.trials("small") == [dataclasses.replace(FULL, lost_gpu_hours=0.0)]
    new.create(study("theirs", team="chat"))
    assert new.study("theirs").team == "chat"
    new.close()


def test_a_team_finds_its_own_and_others_are_as_those_that_are_not_there(store: Store) -> None:
    for name, team in (("ours", "chat"), ("theirs", "search"), ("older", "")):
        store.create(study(name, team=team))
    assert store.study("ours", "chat").name == "ours"
    assert [store.study(name).name for name in ("ours", "theirs", "older")]
    for name in ("theirs", "older", "nothing"):
        with pytest.raises(MissingStudyError) as caught:
            store.study(name, "chat")
        assert caught.value.said == f"there is no study named {name!r}"


def test_a_mistyped_name_is_helped_here_and_never_from_afar(store: Store) -> None:
    store.create(study("a-search-in-a-table", team="search"))
    with pytest.raises(MissingStudyError, match="did you mean 'a-search-in-a-table'") as caught:
        store.study("a-search-in-a-tabl")
    assert "autotuner list shows them" in str(caught.value)
    assert "a-search-in-a-table" not in caught.value.said
    with pytest.raises(MissingStudyError) as caught:
        store.study("a-search-in-a-tabl", "chat")
    assert "a-search-in-a-table" not in str(caught.value)


def test_a_study_of_another_team_is_not_changed_for_one_that_had_its_name(store: Store) -> None:
    was = study(team="chat")
    store.create(was)
    store.delete(was)
    store.create(study(team="search"))
    with pytest.raises(StudyStateError, match="just been changed"):
        store.delete(was)
    assert not store.hand_over(was, "a job")
    assert not store.set_state("small", StudyState.CANCELLED, was=was)
    assert store.study("small") == study(team="search", created_at=store.study("small").created_at)


def test_for_lists_trials_are_read_together_without_what_is_large(store: Store) -> None:
    for name in ("small", "other", "empty"):
        store.create(study(name))
    store.save("small", FULL)
    store.save("small", dataclasses.replace(FULL, number=FULL.number + 1))
    store.save("other", FULL)
    found = store.all_trials()
    assert {name: len(trials) for name, trials in found.items()} == {"small": 2, "other": 1}
    assert found["other"] == [
        dataclasses.replace(
            FULL, load_points=(), predicted={}, observed={}, advice="", why="", log_tail=""
        )
    ]


def test_what_a_study_asks_is_read_once_while_it_is_the_same(store: Store) -> None:
    store.create(study("small"))
    (listed,) = store.studies()
    assert store.unreadable() == []
    assert store.study("small").spec is listed.spec


def test_a_server_that_hangs_up_is_asked_once() -> None:
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    each, _ = listening.accept()
                    asked.append(each)
                    each.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        port = listening.getsockname()[1]
        with pytest.raises(InfrastructureError, match="cannot be used"):
            Store(f"postgresql+psycopg://someone@127.0.0.1:{port}/none?sslmode=disable")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("url", "seconds"),
    [
        ("postgresql+psycopg://there/store", "10"),
        ("postgresql+psycopg://there/store?connect_timeout=2", "2"),
        ("sqlite:///store.db", None),
    ],
)
def test_a_server_that_says_nothing_is_given_up(url: str, seconds: str | None) -> None:
    assert _patient(make_url(url)).query.get("connect_timeout") == seconds
