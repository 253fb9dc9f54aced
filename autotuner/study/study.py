"""A study as it is kept: its spec, its state, and who drives it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from autotuner.study.spec import StudySpec

LEASE_SECONDS = 60.0
"""A driver on another machine that has not renewed its lease for so long is dead."""


class StudyState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    """Ended with at least one feasible trial."""
    FAILED = "FAILED"
    """Ended without one, or the infrastructure broke; the reason says which."""
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return self not in (StudyState.PENDING, StudyState.RUNNING)


@dataclass(frozen=True)
class Study:
    """One stored study.

    Attributes:
        directory: absolute; the trials' plans, logs and results lie in it.
        driver: the process that runs it, while it is RUNNING; see `backends.owners`.
        job: id of the job that was last asked to run it; empty for one that a person runs.
        team: whose it is, see `sees`; empty: of none.
        renewed_at: when the driver last said that it is alive; its lease is LEASE_SECONDS long.
        created_at, started_at, ended_at: ISO 8601 with zone, UTC; empty until then.
    """

    spec: StudySpec
    directory: str
    state: StudyState = StudyState.PENDING
    reason: str = ""
    driver: str = ""
    job: str = ""
    renewed_at: str = ""
    created_at: str = ""
    started_at: str = ""
    ended_at: str = ""
    team: str = ""

    @property
    def name(self) -> str:
        return self.spec.name


def sees(team: str, owner: str) -> bool:
    """Whether who is of a team sees a study that belongs to another; of no team, one sees all.

    The one place that decides it: whatever looks a study up for a caller asks here.
    """
    return not team or team == owner


def timestamp() -> str:
    """Now, as stored."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds_between(start: str, end: str) -> float | None:
    """Seconds from one stored time to another; None where one is empty."""
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
