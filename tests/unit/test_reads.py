"""What is kept of studies for the service's answers, and that many may ask at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.api.reads import KEPT_AT_MOST, Reads
from autotuner.job import load_job
from autotuner.store import Store
from autotuner.studies import Studies
from autotuner.study.study import StudyState
from autotuner.study.trial import Trial
from tests.builders import trial
from tests.simulated import study_file
from tests.unit.test_lifecycle import named, unreadable


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Studies]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield Studies(store, tmp_path / "studies")
    store.close()


def test_rows_are_kept_under_the_lock_that_others_go_through_them_with(
    studies: Studies, tmp_path: Path
) -> None:
    studies.create(load_job(study_file(tmp_path, name="asked")))
    reads = Reads(studies)
    kept = list[bool]()

    class Rows(dict[str, Any]):
        def __setitem__(self, name: str, row: Any) -> None:
            kept.append(reads._lock.locked())
            super().__setitem__(name, row)

    reads._rows = Rows()
    assert [each["name"] for each in reads.rows()] == ["asked"]
    assert reads.row("asked") == reads.rows()[0]
    assert kept == [True]


class Asked(Store):
    """A store that knows whose trials it was asked for, study by study."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked = list[str]()

    def trials(self, study: str) -> list[Trial]:
        self.asked.append(study)
        return super().trials(study)


def test_many_studies_are_read_together_and_as_each_alone(tmp_path: Path) -> None:
    store = Asked(f"sqlite:///{tmp_path / 'store.db'}")
    studies = Studies(store, tmp_path / "studies")
    job = load_job(study_file(tmp_path, name="asked"))
    names = [f"study-{number}" for number in range(KEPT_AT_MOST + 3)]
    for name in names:
        studies.create(named(job, name))
        store.save(name, trial(0, objectives={"output_throughput": 5.0}, log_tail="long"))
        store.set_state(name, StudyState.COMPLETE, started_at="2026-11-22T12:00:00+00:00",
                        ended_at="2026-11-22T13:00:00+00:00")  # fmt: skip
    unreadable(studies, tmp_path, names[0])
    reads = Reads(studies)
    rows = reads.rows()
    assert sorted(each["name"] for each in rows) == sorted(names[1:])
    assert set(store.asked) <= {names[0]}
    store.asked.clear()
    assert reads.rows() == rows
    assert store.asked == []
    alone = Reads(studies)
    assert [alone.row(each["name"]) for each in rows] == rows
    assert list(studies.rows()) == [studies.row(each["name"]) for each in rows]
    # What changes since is seen, in the one that it is of.
    store.save(names[1], trial(1, objectives={"output_throughput": 6.0}))
    assert reads.row(names[1])["best"] == {"number": 1, "value": 6.0}
    assert next(each for each in reads.rows() if each["name"] == names[1])["best"]["number"] == 1
    store.close()
