"""Kinds by name: a table of ``kind -> "module:name"``, imported when asked for.

A package outside autotuner adds a kind by an entry point in the group ``autotuner.<table>``.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from autotuner.errors import ConfigError

KINDS: dict[str, dict[str, str]] = {
    "engine": {
        "vllm": "autotuner.engines.vllm:VLLM",
        "sglang": "autotuner.engines.sglang:SGLANG",
        "simulated": "autotuner.engines.simulated:SIMULATED",
    },
    "backend": {
        "process": "autotuner.backends.process:PROCESS",
        "docker": "autotuner.backends.docker:DOCKER",
        "ome": "autotuner.backends.ome:OME",
    },
    "benchmark": {
        "genai-bench": "autotuner.benchmarks.genai_bench:GENAI_BENCH",
        "ome-job": "autotuner.benchmarks.ome_job:OME_JOB",
        "replay": "autotuner.benchmarks.replay:REPLAY",
    },
    "search": {
        "grid": "autotuner.search.grid:GRID",
        "random": "autotuner.search.random:RANDOM",
        "optuna": "autotuner.search.optuna:OPTUNA",
        "hyperopt": "autotuner.search.hyperopt:HYPEROPT",
    },
}


def kinds(table: str) -> list[str]:
    """The names a table knows, built in first."""
    names = list(KINDS[table])
    names += [e.name for e in entry_points(group=f"autotuner.{table}") if e.name not in names]
    return names


def load_kind(table: str, kind: str) -> Any:
    """The object behind a kind.

    Raises:
        ConfigError: no such kind, or its package is not installed.
    """
    target = KINDS[table].get(kind)
    found = {} if target else {e.name: e for e in entry_points(group=f"autotuner.{table}")}
    if target is None and kind not in found:
        names = kinds(table)
        near = difflib.get_close_matches(kind, names, n=1)
        raise ConfigError(
            f"{kind!r} is not a kind of {table}",
            where=f"{table}.kind",
            allowed=names,
            hint=f"did you mean {near[0]!r}?" if near else "",
        )
    try:
        if target is None:
            return found[kind].load()
        module, _, name = target.partition(":")
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("autotuner."):
            raise
        raise ConfigError(
            f"{kind!r} needs the package {error.name!r}, which is not installed",
            where=f"{table}.kind",
            hint=f"install it beside autotuner, or choose another of {', '.join(kinds(table))}",
        ) from error
    except (ImportError, AttributeError) as error:
        if target is not None:
            raise
        raise ConfigError(
            f"{kind!r} cannot be loaded from {found[kind].value}: {error}",
            where=f"{table}.kind",
            hint="its package and this autotuner do not fit",
        ) from error
