"""`make bench-search`: how far from the best a search ends after 6, 10 and 15 trials.

Every table in tests/bench/tables is a whole space with the answer to each of its points. A search
asks, is told the table's answer with 1 % noise, and is judged by the true value of the point that
it would have chosen: the best of those told as feasible. Refused points cost no trial, as in the
product. Priors are another table's answers, never the table's own.

    regret = (best - chosen) / best, of what is to be raised; (chosen - best) / chosen of what is
    to be lowered; 1 where no feasible point was found

    python tests/bench/search.py [--seeds 100:120] [TABLE ...]
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from autotuner.errors import FailureClass
from autotuner.plugins import load_kind
from autotuner.search.base import Searcher, SearchKind
from autotuner.search.primed import Primed
from autotuner.search.ranking import promising
from autotuner.study.metrics import METRICS, Better
from autotuner.study.objective import objective_values, violations
from autotuner.study.space import Parameters, identity, point_key
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial, TrialState
from tests.builders import spec

TABLES = Path(__file__).parent / "tables"

NOISE = 0.01
"""Standard deviation of the logarithm of what is told."""

BUDGETS = (6, 10, 15)

REFUSALS = 1000
"""Refused points in a row after which a search has nothing left to ask."""


@dataclass(frozen=True)
class Question:
    """What is asked of a table, and which other table is its prior."""

    objective: str = "output_throughput"
    constraints: Mapping[str, float] = field(default_factory=dict)
    prior: str = "qwen3-8b-h100-vllm"


QUESTIONS = {
    "qwen3-8b-h100-vllm": Question(
        "output_throughput_per_gpu", {"tpot_mean": 0.01}, "qwen3-8b-a100-vllm"
    ),
    "qwen3-8b-h100-vllm-ladder": Question(prior="qwen3-8b-a100-vllm"),
    "qwen3-8b-a100-vllm": Question(prior="qwen3-8b-h100-vllm"),
    "qwen3-32b-h100-vllm": Question(
        "output_throughput_per_gpu", {"ttft_mean": 2.0, "tpot_mean": 0.03}, "qwen3-32b-a100-vllm"
    ),
    "qwen3-32b-a100-vllm": Question(constraints={"ttft_mean": 2.0}, prior="qwen3-32b-h100-vllm"),
    "qwen3-30b-a3b-h100-sglang": Question(prior="qwen3-30b-a3b-a100-sglang"),
    "qwen3-30b-a3b-a100-sglang": Question(
        "output_throughput_per_gpu", {"ttft_mean": 1.0}, "qwen3-30b-a3b-h100-sglang"
    ),
    "qwen3-8b-l40s-sglang": Question("e2e_latency_mean", prior="qwen3-30b-a3b-a100-sglang"),
}
"""A table that is not named here is asked for throughput."""


@dataclass(frozen=True)
class Answer:
    """What the table says of one point: its metrics per load point, or why there are none."""

    parameters: Parameters
    loads: tuple[Mapping[str, float], ...]
    failure: FailureClass | None = None


@dataclass(frozen=True)
class Table:
    name: str
    answers: Mapping[str, Answer]
    baseline: Answer | None

    @property
    def question(self) -> Question:
        return QUESTIONS.get(self.name, Question())

    @cached_property
    def space(self) -> dict[str, list[Any]]:
        """The values of each parameter, in the order of the file; None where one is left out."""
        points = [answer.parameters for answer in self.answers.values()]
        names = dict.fromkeys(name for point in points for name in point)
        return {
            name: list({identity(v): v for v in (point.get(name) for point in points)}.values())
            for name in names
        }

    @cached_property
    def best(self) -> float:
        """The true value of the best feasible point."""
        feasible = [t for a in self.answers.values() if (t := self.told(0, a)).feasible]
        return self.value(self.chosen(feasible))

    @property
    def higher(self) -> bool:
        return METRICS[self.question.objective].better is Better.HIGHER

    def study(self, kind: str, seed: int, **options: Any) -> StudySpec:
        return spec(
            search={"kind": kind, "seed": seed, **options},
            space=self.space,
            objectives=[self.question.objective],
            constraints=dict(self.question.constraints),
        )

    @cached_property
    def _bounds(self) -> Any:
        return self.study("random", 0).bounds

    def told(self, number: int, answer: Answer, noise: Callable[[], float] = lambda: 1.0) -> Trial:
        """The trial as the search is told of it."""
        if answer.failure is not None:
            state = TrialState.INFEASIBLE
            return Trial(number, answer.parameters, state, failure=answer.failure)
        loads = [{name: value * noise() for name, value in load.items()} for load in answer.loads]
        return Trial(
            number,
            answer.parameters,
            TrialState.COMPLETE,
            objectives=objective_values([self.question.objective], loads),
            violations=violations(self._bounds, loads),
        )

    def chosen(self, trials: Sequence[Trial]) -> Trial:
        pick = max if self.higher else min
        return pick(trials, key=self.value)

    def value(self, trial: Trial) -> float:
        value = trial.objectives[self.question.objective]
        assert value is not None
        return value

    def regret(self, trials: Sequence[Trial]) -> float:
        feasible = [trial for trial in trials if trial.feasible]
        if not feasible:
            return 1.0
        found = self.answers[point_key(self.chosen(feasible).parameters)]
        value = self.value(self.told(0, found))
        lost = 1 - value / self.best if self.higher else 1 - self.best / value
        return max(0.0, lost)  # noise may have let a point pass that breaks its bound by a hair


def read_table(path: Path) -> Table:
    answers: dict[str, Answer] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            kept = {n: v for n, v in row.items() if v != ""}
            parameters = {n: json.loads(v) for n, v in kept.items() if n not in _KNOWN}
            metrics = {n: float(v) for n, v in kept.items() if n in METRICS}
            failure = FailureClass(kept["failure"]) if "failure" in kept else None
            # A point whose flags are all left out is not the baseline's row, but has its key.
            key = point_key(parameters) if parameters else ""
            before = answers.get(key)
            loads = (*(before.loads if before else ()), *([metrics] if metrics else ()))
            answers[key] = Answer(parameters, loads, failure)
    baseline = answers.pop("", None)
    return Table(path.stem, answers, baseline)


_KNOWN = {*METRICS, "scenario", "concurrency", "seconds", "failure", "reason"}


def searched(table: Table, searcher: Searcher, budget: int, seed: int) -> Iterator[Trial]:
    """The trials of one search that cost a launch."""
    # String seeds, so that neighbouring seeds share nothing.
    rng = random.Random(f"noise of {table.name} {seed}")

    def noise() -> float:
        return math.exp(rng.gauss(0.0, NOISE))

    if table.baseline is not None:
        searcher.tell(table.told(0, table.baseline, noise))
    number = launched = refused = 0
    while launched < budget and refused < REFUSALS:
        point = searcher.ask()
        if point is None:
            return
        number += 1
        known = table.answers.get(point_key(point), Answer(point, (), FailureClass.REFUSED))
        trial = table.told(number, dataclasses.replace(known, parameters=point), noise)
        searcher.tell(trial)
        if trial.refused:
            refused += 1
        else:
            launched += 1
            refused = 0
            yield trial


def predictions(table: Table, other: Table) -> list[tuple[Parameters, Trial]]:
    """What another table would say of this one's points: of the nearest of its own points, by
    the parameters both have; the mean where several are as near."""
    shared = [name for name in table.space if name in other.space]
    near = {
        (name, identity(value)): _nearest(value, other.space[name])
        for name in shared
        for value in table.space[name]
    }
    groups: dict[tuple[str, ...], list[Answer]] = {}
    for answer in other.answers.values():
        if answer.failure is None:
            key = tuple(identity(answer.parameters.get(name)) for name in shared)
            groups.setdefault(key, []).append(answer)
    found = []
    for point in (answer.parameters for answer in table.answers.values()):
        like = groups.get(tuple(near[name, identity(point.get(name))] for name in shared))
        if like:
            loads = [_mean([load for answer in like for load in answer.loads])]
            found.append((point, table.told(0, Answer(point, tuple(loads)))))
    return found


def _nearest(value: Any, values: Sequence[Any]) -> str:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if isinstance(value, bool) or not isinstance(value, int | float) or not numbers:
        return identity(value)
    return identity(
        min(numbers, key=lambda each: abs(math.log(max(each, 1e-9) / max(value, 1e-9))))
    )


def _mean(loads: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(load[name] for load in loads) for name in loads[0]}


def prior(table: Table, other: Table, *, reverse: bool = False) -> list[tuple[Parameters, float]]:
    """Predicted score of each point that is not refused, more is better; with `reverse` the very
    opposite. A study asks its engine, which refuses for free, before it asks a prior."""
    scored = []
    for point, trial in predictions(table, other):
        if table.answers[point_key(point)].failure is not FailureClass.REFUSED:
            broken = max(0.0, *trial.violations.values()) if trial.violations else 0.0
            score = (1 if table.higher else -1) * math.log(table.value(trial)) - broken
            scored.append((point, -score if reverse else score))
    return scored


Contestant = Callable[[Table, int], Searcher]


def built(kind: str, **options: Any) -> Contestant:
    made: SearchKind = load_kind("search", kind)
    return lambda table, seed: made.build(table.study(kind, seed, **options))


def primed(tables: Mapping[str, Table], *, reverse: bool = False) -> Contestant:
    default = built("optuna")

    def build(table: Table, seed: int) -> Searcher:
        study = table.study("optuna", seed)
        scored = prior(table, tables[table.question.prior], reverse=reverse)
        return Primed(default(table, seed), promising(study.parameter_space, scored))

    return build


def regrets(table: Table, contestant: Contestant, budget: int, seed: int) -> list[float]:
    """Regret after each trial; the last one's again where the space was exhausted."""
    trials: list[Trial] = []
    found = []
    for trial in searched(table, contestant(table, seed), budget, seed):
        trials.append(trial)
        found.append(table.regret(trials))
    return found + found[-1:] * (budget - len(found))


@dataclass(frozen=True)
class Column:
    name: str
    contestant: Contestant
    budgets: tuple[int, ...]


def columns_of(tables: Mapping[str, Table]) -> list[Column]:
    return [
        Column("random", built("random"), BUDGETS),
        Column("hyperopt", built("hyperopt"), BUDGETS),
        Column("tpe", built("optuna", sampler="tpe"), (15,)),
        Column("default", built("optuna"), BUDGETS),
        Column("prior", primed(tables), (6,)),
        Column("reversed prior", primed(tables, reverse=True), (15,)),
    ]


Results = dict[tuple[str, str, int], float]
"""Mean regret by table, column and budget."""


def measure(tables: Mapping[str, Table], names: Sequence[str], seeds: range) -> Results:
    results: Results = {}
    for name in names:
        for column in columns_of(tables):
            each = [regrets(tables[name], column.contestant, max(column.budgets), s) for s in seeds]
            for budget in column.budgets:
                results[name, column.name, budget] = statistics.fmean(r[budget - 1] for r in each)
    return results


@dataclass(frozen=True)
class Demand:
    """One regret that must not be above a multiple of another."""

    column: str
    budget: int
    factor: float
    other: str
    other_budget: int

    def met(self, results: Results, name: str) -> bool:
        bound = self.factor * results[name, self.other, self.other_budget]
        return results[name, self.column, self.budget] <= bound + 1e-12


DEMANDS = (
    Demand("default", 15, 0.5, "random", 15),
    Demand("prior", 6, 1.0, "default", 10),
    Demand("reversed prior", 15, 1.25, "random", 15),
)


def lines(results: Results, names: Sequence[str]) -> Iterator[str]:
    """The results as a markdown table, and which demands are met."""
    heads = list(dict.fromkeys((column, budget) for _, column, budget in results))
    for head in heads:
        results[MEAN, *head] = statistics.fmean(results[name, *head] for name in names)
    width = max(map(len, [*names, MEAN]))
    yield f"| {'table':{width}} | " + " | ".join(f"{c} @{b}" for c, b in heads) + " |"
    yield (
        f"| :{'-' * (width - 1)} | "
        + " | ".join("-" * (len(f"{c} @{b}") - 1) + ":" for c, b in heads)
        + " |"
    )
    for name in [*names, MEAN]:
        cells = [f"{results[name, c, b]:{len(f'{c} @{b}')}.3f}" for c, b in heads]
        yield f"| {name:{width}} | " + " | ".join(cells) + " |"
    yield ""
    for demand in DEMANDS:
        d = demand
        text = f"{d.column} @{d.budget} <= {d.factor:g} x {d.other} @{d.other_budget}"
        missed = [name for name in names if not d.met(results, name)]
        verdict = "met" if d.met(results, MEAN) else "MISSED"
        yield f"{verdict} on the mean: {text}" + (f"; not on {', '.join(missed)}" if missed else "")


MEAN = "mean"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--seeds", default="0:20")
    chosen = parser.parse_args()
    tables = {path.stem: read_table(path) for path in sorted(TABLES.glob("*.csv"))}
    names = chosen.tables or list(tables)
    first, last = map(int, chosen.seeds.split(":"))
    began = time.monotonic()
    results = measure(tables, names, range(first, last))
    print(f"Mean regret over {last - first} seeds, {NOISE:.0%} noise\n")
    print("\n".join(lines(results, names)))
    print(f"\n{time.monotonic() - began:.0f} s")
    sys.exit(not all(demand.met(results, MEAN) for demand in DEMANDS))


if __name__ == "__main__":
    main()
