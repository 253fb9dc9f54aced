"""What the files are called that a study leaves, for those who write them and those who read."""

from __future__ import annotations

STUDY_LOG = "study.log"
"""In a study's directory: what happened, as lines for people."""

DRIVER_FILE = "driver"
"""In a study's directory: who drives it. Whoever reads it there sees what the driver sees."""

PLAN, SERVER_LOG, RUNNER_LOG = "plan.json", "server.log", "runner.log"
"""In a trial's directory: what its backend was asked for, what its server said, and its load
generator."""

TELEMETRY = "telemetry.json"
"""In the directory of a load point: what was sampled meanwhile."""


def load_directory(index: int) -> str:
    """The directory of a load point, in its trial's."""
    return f"load-{index}"


def part_directory(rank: int) -> str:
    """The directory of a further part of a server that spans nodes, in its trial's."""
    return f"part-{rank}"
