"""A load generator for tests of everything but load: it takes the time it is told and next to
nothing of the machine, so that many trials at once do not slow each other.

It is a kind that autotuner does not know by itself: `installed` makes it one by an entry point. A
load lasts its `max_seconds` times a factor drawn for the trial.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.serving import Endpoint
    from autotuner.study.metrics import Measurement
    from autotuner.study.spec import StudySpec
    from autotuner.study.workload import Load

KIND = "brief"
SPREAD = 0.4
"""Standard deviation of the logarithm of the factor, whose median is 1."""


def installed(directory: Path) -> Path:
    """A directory that makes the kind known to every Python that has it in its path."""
    entry = directory / "brief-0.dist-info"
    entry.mkdir(parents=True)
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: brief\nVersion: 0\n")
    (entry / "entry_points.txt").write_text(f"[autotuner.benchmark]\n{KIND} = {__name__}:BRIEF\n")
    return directory


class _Brief:
    def check(self, spec: StudySpec) -> None:
        pass

    def command(
        self, endpoint: Endpoint, load: Load, into: Path, *, api: str, tokenizer: str
    ) -> list[str]:
        import random

        factor = random.Random(into.parent.name).lognormvariate(0, SPREAD)
        return [f"{endpoint.url}/health", str(load.max_seconds * factor)]

    def runner(self, tokenizer: str) -> list[str]:
        return [sys.executable, "-S", "-E", __file__]

    def seconds_at_most(self, load: Load) -> float:
        return 10 * load.max_seconds + 60

    def read(self, into: Path, *, max_error_rate: float) -> Measurement:
        from autotuner.study.metrics import Measurement, Request

        seconds = json.loads((into / "brief.json").read_text())["seconds"]
        return Measurement(seconds, (Request(0.1, 0.01, 0.5, 100, 20),))


BRIEF = _Brief()


def main() -> None:
    """The runner: for each line a request, a wait, and another."""
    import time
    import urllib.request

    said: dict[str, Any] = {"ready": True}
    print(json.dumps(said), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        url, seconds = asked["argv"]
        for wait in (float(seconds), 0):
            with urllib.request.urlopen(url) as answer:
                assert answer.status == 200
            time.sleep(wait)
        Path(asked["into"], "brief.json").write_text(json.dumps({"seconds": float(seconds)}))
        print(json.dumps({"exit": 0}), flush=True)


if __name__ == "__main__":
    main()
