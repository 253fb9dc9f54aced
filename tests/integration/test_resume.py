"""A study goes on from its store, wherever its files were: the home gone, moved, or another's."""

from __future__ import annotations

import gc
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.backends.guarded import Guarded
from autotuner.errors import InfrastructureError
from autotuner.store import Store
from autotuner.studies import Studies
from autotuner.study.files import STUDY_LOG
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import TrialState
from tests.builders import spec, trial
from tests.integration.test_cli import autotuner
from tests.processes import ours, started, wait_for
from tests.simulated import study_file

NAME = "small"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """With a cancelled study of a home that is not there."""
    found = Store(f"sqlite:///{tmp_path / 'elsewhere' / 'store.db'}")
    place = tmp_path / "old" / "studies" / NAME
    found.create(Study(spec(), str(place), StudyState.CANCELLED))
    found.save(NAME, trial(0, directory=str(place / "trials" / "0000")))
    found.save(NAME, trial(1, {"x": 1}, TrialState.INFEASIBLE))  # refused: it has no files
    found.save(
        NAME,
        trial(2, {"x": 2}, TrialState.CANCELLED, directory=str(place / "trials" / "0002")),
    )
    yield found
    found.close()


def made_again(old: Path, new: Path) -> Path:
    return old


def kept(old: Path, new: Path) -> Path:
    for home in (old, new):  # the new home has one of that name too, of another store
        (home / "studies" / NAME).mkdir(parents=True)
    return old


def moved_along(old: Path, new: Path) -> Path:
    (new / "studies" / NAME / "trials" / "0000").mkdir(parents=True)
    return new


def not_to_be_made(old: Path, new: Path) -> Path:
    old.write_text("no directory")
    return new


@pytest.mark.parametrize("how", [made_again, kept, moved_along, not_to_be_made])
def test_its_files_have_a_place_again(
    how: Callable[[Path, Path], Path], store: Store, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    place = how(old, new) / "studies" / NAME
    study = Studies(store, new / "studies").resumable(NAME)
    assert study.directory == store.study(NAME).directory == str(place)
    assert place.is_dir()
    directories = [each.directory for each in store.trials(NAME)]
    assert directories == [f"{place}/trials/0000", "", f"{place}/trials/0002"]


def test_what_its_driver_wrote_last_is_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the moment at which the study is read and that at which it is taken over."""
    moved_along(tmp_path / "old", tmp_path / "new")
    claim = store.claim

    def late(*arguments: Any, **named: Any) -> bool:
        store.save(NAME, trial(2, {"x": 2}, TrialState.COMPLETE, reason="just in time"))
        return claim(*arguments, **named)

    monkeypatch.setattr(store, "claim", late)
    Studies(store, tmp_path / "new" / "studies").resumable(NAME)
    assert store.trials(NAME)[2].reason == "just in time"


def test_without_any_place_it_is_left_to_others(store: Store, tmp_path: Path) -> None:
    for home in ("old", "new"):
        (tmp_path / home).write_text("no directory")
    with pytest.raises(InfrastructureError, match="have no place") as caught:
        Studies(store, tmp_path / "new" / "studies").resumable(NAME)
    assert str(tmp_path / "old") in str(caught.value)
    assert store.study(NAME).driver == ""


@pytest.mark.slow
def test_a_killed_study_ends_in_another_home(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for home in (old, new):
        home.mkdir()
    url = f"sqlite:///{tmp_path / 'store.db'}"
    file = study_file(
        old,
        name="moved",
        space={"max-num-seqs": [1, 2, 16]},
        search={"kind": "optuna", "trials": 3, "parallel": 1},
    )
    with started("run", str(file), home=old, AUTOTUNER_STORE=url) as driver:
        assert wait_for(lambda: len(answered(url)) >= 2, 90), (old / "stderr.txt").read_text()
        driver.kill()
    assert wait_for(lambda: ours("moved") == [], 20)
    before, done_before = launches(tmp_path), answered(url)
    shutil.move(old, tmp_path / "aside")
    old.write_text("what is there now is no directory")
    done = autotuner("resume", "moved", "--json", home=new, AUTOTUNER_STORE=url)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["study"]["state"] == "COMPLETE"
    points = [json.dumps(each["parameters"]) for each in report["trials"]]
    assert len(set(points)) == len(points) == 4
    files = new / "studies" / "moved"
    assert report["study"]["directory"] == str(files)
    assert (files / "report.html").exists()
    again = launches(tmp_path) - before
    assert sorted(again) == [f"{number:04d}" for number in range(4) if number not in done_before]
    assert "trial 3 COMPLETE" in (files / STUDY_LOG).read_text(encoding="utf-8")


def answered(url: str) -> list[int]:
    """Numbers of the trials that will not be run again."""
    store = Store(url)
    try:
        return [each.number for each in store.trials("moved") if each.state.answered]
    finally:
        store.close()


def launches(below: Path) -> Counter[str]:
    """Trials that have been planned, by number."""
    return Counter(path.parent.name for path in below.rglob("plan.json"))


def test_a_guard_that_cannot_start_closes_what_it_opened_once(tmp_path: Path) -> None:
    before = open_files()
    missing = str(tmp_path / "not there")
    with (
        (tmp_path / "output").open("wb") as output,
        pytest.raises(InfrastructureError, match="could not start"),
    ):
        Guarded(["true"], environment={}, directory=missing, output=output)
    gc.collect()  # a second closing would be told here, as an error
    assert open_files() - before == set()


def open_files() -> set[str]:
    """Pipes of this process."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{each.name} {each.readlink()}")
        except OSError:  # that of the listing itself
            continue
    return found
