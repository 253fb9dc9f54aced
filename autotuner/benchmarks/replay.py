"""A benchmark that answers from a table of measured or predicted trials and starts nothing.

The table is a CSV file (or Parquet, where pyarrow is installed), one row per point and load:

- columns named as metrics (see `study.metrics`) hold values; an empty cell is not known;
- `scenario` and `concurrency` say which load point a row is; without them it is every one;
- `seconds` is the time from launch to ready; `failure` and `reason` make a row an infeasible one;
- every other column is a parameter, its cells JSON (bare text is text), an empty cell its absence;
  the row without any parameter is the baseline.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autotuner.benchmarks.base import Answer, Launched, Recorded
from autotuner.errors import ConfigError, FailureClass, TrialError
from autotuner.study.metrics import METRICS
from autotuner.study.space import Parameters, point_key
from autotuner.study.spec import ENGINE, StudySpec, options_of
from autotuner.study.workload import Load

READY_SECONDS = 60.0
"""Launch to ready where the table does not say."""

_OWN = ("scenario", "concurrency", "seconds", "failure", "reason")


class Options(BaseModel):
    """Options of ``benchmark: {kind: replay}``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    table: str = Field(description="A CSV or Parquet file.")
    noise: float = Field(
        default=0.0, ge=0, description="Relative standard deviation of every answer."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the noise.")


@dataclass(frozen=True)
class Row:
    """One row of a table; `failure` None where the point was measured."""

    parameters: Parameters
    metrics: Mapping[str, float | None]
    scenario: str = ""
    concurrency: int | None = None
    seconds: float = READY_SECONDS
    failure: FailureClass | None = None
    reason: str = ""

    def is_about(self, load: Load) -> bool:
        return self.scenario in ("", load.scenario) and self.concurrency in (None, load.concurrency)


@dataclass(frozen=True)
class Table:
    """The rows of a file by the identity of their point."""

    rows: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    def of(self, parameters: Parameters) -> tuple[Row, ...]:
        return self.rows.get(point_key(parameters), ())

    def points(self) -> list[Parameters]:
        return [rows[0].parameters for rows in self.rows.values()]


def read_table(path: Path) -> Table:
    """A table from its file.

    Raises:
        ConfigError: it cannot be read, or a cell is not what its column holds.
    """
    rows: dict[str, list[Row]] = {}
    for number, cells in enumerate(_cells(path), start=2):
        if None in cells:  # where csv puts what no column is for
            raise ConfigError("has more cells than columns", file=str(path), line=number)
        row = _row(cells, path, number)
        rows.setdefault(point_key(row.parameters), []).append(row)
    if not rows:
        raise ConfigError("the table has no rows", file=str(path))
    return Table({key: tuple(each) for key, each in rows.items()})


def _cells(path: Path) -> Iterable[dict[str, str]]:
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            found = parquet.read_table(path).to_pylist()
            return [{name: _cell(value) for name, value in row.items()} for row in found]
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed", file=str(path), hint="or give a CSV"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read as a table: {error}", file=str(path)) from error


def _cell(value: Any) -> str:
    """A typed value as a cell of text: JSON, which keeps its type; what is not there is empty."""
    if value is None or value != value:  # what pandas writes of a missing number
        return ""
    return str(value) if isinstance(value, str | Decimal) else json.dumps(value, default=str)


def _row(cells: Mapping[str, str], path: Path, line: int) -> Row:
    def number(name: str) -> float | None:
        text = (cells.get(name) or "").strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{text!r} is not a number", where=name, file=str(path), line=line)
        return value

    failure = (cells.get("failure") or "").strip()
    if failure and failure not in list(FailureClass):
        raise ConfigError(
            f"{failure!r} is not a class of failure",
            where="failure",
            file=str(path),
            line=line,
            allowed=list(FailureClass),
        )
    concurrency, seconds = number("concurrency"), number("seconds")
    return Row(
        parameters={
            name: _value(cell)
            for name, cell in cells.items()
            if name not in METRICS and name not in _OWN and (cell or "").strip()
        },
        metrics={name: number(name) for name in METRICS if name in cells},
        scenario=(cells.get("scenario") or "").strip(),
        concurrency=None if concurrency is None else int(concurrency),
        seconds=READY_SECONDS if seconds is None else seconds,
        failure=FailureClass(failure) if failure else None,
        reason=(cells.get("reason") or "").strip(),
    )


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell.strip()


class _Replay:
    def check(self, spec: StudySpec) -> None:
        options: Options = options_of(Options, spec.benchmark.options, "benchmark")
        _table(options.table)

    def deploy(self, spec: StudySpec, parameters: Parameters) -> Launched:
        try:
            row = self._rows(spec, parameters)[0]
        except TrialError as error:
            return Launched(0.0, error)
        if row.failure is None:
            return Launched(row.seconds)
        return Launched(row.seconds, TrialError(row.failure, row.reason or "as the table has it"))

    def measure(self, spec: StudySpec, parameters: Parameters, load: Load, *, trial: int) -> Answer:
        options: Options = options_of(Options, spec.benchmark.options, "benchmark")
        row = next((r for r in self._rows(spec, parameters) if r.is_about(load)), None)
        if row is None:
            raise TrialError(FailureClass.BENCHMARK, f"the table has no row for {load.name}")
        rng = random.Random(f"{options.seed}:{trial}:{load.index}:{point_key(parameters)}")
        # One factor for all metrics: a server that is slow today is slow in all of them.
        factor = math.exp(rng.gauss(0.0, options.noise))
        metrics = {
            name: None if value is None else _with_noise(name, value, factor)
            for name, value in row.metrics.items()
        }
        return Answer(metrics, load.max_seconds)

    def _rows(self, spec: StudySpec, parameters: Parameters) -> tuple[Row, ...]:
        options: Options = options_of(Options, spec.benchmark.options, "benchmark")
        table = _table(options.table)
        # Of several engines in one table each has its own rows.
        named = {ENGINE: spec.engine.kinds[0], **parameters}
        rows = table.of(named) or table.of(parameters)
        if not rows:
            what = parameters or "the baseline"
            raise TrialError(FailureClass.BENCHMARK, f"the table has no row for {what}")
        return rows


def _with_noise(name: str, value: float, factor: float) -> float:
    metric = METRICS[name]
    if not metric.unit:
        return value
    return value * factor if metric.is_better(1, 0) else value / factor


def _table(path: str) -> Table:
    try:
        changed = Path(path).stat().st_mtime_ns
    except (OSError, ValueError) as error:  # a zero byte is no OSError
        raise ConfigError(
            f"cannot be read: {error}", where="benchmark.table", hint="give the path of a table"
        ) from error
    return _read(path, changed)


@lru_cache(maxsize=8)
def _read(path: str, _changed: int) -> Table:
    return read_table(Path(path))


REPLAY: Recorded = _Replay()
