"""Answers questions about speed with NVIDIA's aiconfigurator, one JSON line for each.

It runs in the Python that has aiconfigurator, which need not be autotuner's, and imports nothing of
autotuner: questions on standard input, answers on standard output, everything else on standard
error. Times stay in aiconfigurator's milliseconds here.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

GIB = 2**30

# Sequences at which memory is looked at besides one: the difference is what a sequence takes.
_FEW = 8


def answer(question: dict[str, Any], estimate: Callable[..., Any]) -> dict[str, Any]:
    """What is predicted for `batch` sequences in flight, or for as many as fit.

    Engines let what does not fit into the KV cache wait, while aiconfigurator calls it out of
    memory, so only what does not even hold one sequence is that here.
    """
    arguments, batch = question["arguments"], question["batch"]

    def free(found: Any) -> float:
        capacity = float(found.summary.get_mem_capacity_bytes()) / GIB
        return capacity * float(question["fraction"]) - float(found.memory)

    def at(sequences: int) -> Any | None:
        try:
            found = estimate(batch_size=sequences, **arguments)
        except RuntimeError as error:
            if str(error).startswith("OOM"):
                return None
            raise
        return found if free(found) >= 0 else None

    try:
        found, batch = _most(at, free, batch)
    except Exception as error:  # noqa: BLE001 - its errors have no base in common
        return {"problem": f"{type(error).__name__}: {error}"}
    if found is None:
        return {"oom": True}
    return {
        "batch": batch,
        "ttft": float(found.ttft),
        "tpot": float(found.tpot),
        "request_latency": float(found.request_latency),
        "memory": float(found.memory),
        "gpus": int(found.num_total_gpus),
    }


def _most(
    at: Callable[[int], Any | None], free: Callable[[Any], float], batch: int
) -> tuple[Any | None, int]:
    """The estimate for `batch` sequences, or for the most that fit.

    Memory grows evenly with sequences, so two small batches tell where it ends.
    """
    found = at(batch)
    if found is not None or batch == 1:
        return found, batch
    one = at(1)
    if one is None:
        return None, 1
    few = at(_FEW) if batch > _FEW else None
    if few is None:
        half = at(_FEW // 2) if batch > _FEW // 2 else None
        return (one, 1) if half is None else (half, _FEW // 2)
    each = max((free(one) - free(few)) / (_FEW - 1), 1e-9)
    sequences = min(batch - 1, int(1 + free(one) / each))
    while sequences > _FEW:
        found = at(sequences)
        if found is not None:
            return found, sequences
        sequences = int(sequences * 0.95)
    return few, _FEW


def main() -> None:
    # Libraries print; answers go where nothing else does.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from aiconfigurator.cli.api import cli_estimate
    from aiconfigurator.sdk.perf_database import get_latest_database_version

    # It would look for the newest again at every call, which takes most of a second.
    newest = functools.cache(get_latest_database_version)

    def estimate(**arguments: Any) -> Any:
        system, backend = arguments["system_name"], arguments["backend_name"]
        return cli_estimate(backend_version=newest(system, backend), **arguments)

    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line), estimate)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
