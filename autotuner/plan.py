"""What a study would do, without starting anything."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from autotuner.backends.base import Backend
from autotuner.benchmarks.base import Opened, Recorded
from autotuner.errors import FailureClass
from autotuner.export import EXPORT_PORT
from autotuner.foresight import Foresight, baseline_problem
from autotuner.job import Job
from autotuner.report.words import by_cause
from autotuner.serving import Plan, Slot
from autotuner.settings import Site
from autotuner.study.budget import LEAST_ROUNDS, verdict_launches
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.trial import BASELINE, Trial, TrialState
from autotuner.study.workload import Load

START_GUESS = 60.0
"""Seconds from launch to ready that a plan assumes: nobody knows before the first trial."""

SHOWN = 10
"""Sets of flags that a plan lists of a quantization block."""

ASKED = 300
"""Points that a plan asks the searcher for, at most, to find those it shows."""

TOLD_APART = 2_000
"""Points of a space, at most, of which a plan says how many different launches they are."""

ENUMERATED, SAMPLED = 20_000, 1_000
"""Points of a space that a plan looks at, at most: all in order, or drawn where it is infinite."""


def plan(job: Job, *, trials: int = 3, site: Site | None = None) -> dict[str, Any]:
    """What a study would do, as JSON; nothing is started.

    Keys: ``size`` of the space (None: infinite), ``refused`` (reason -> count, with ``looked_at``
    points), ``doubted`` (reason -> count of points that are tried last), ``refusals`` and
    ``doubts`` (the same by cause, see `report.words.by_cause`), ``baseline_refused`` (why the
    baseline is not launched, or None), ``launches`` (the baseline and the first trials, each with
    the ``request`` that its backend would send, and that request's ``argv``, ``environment`` and
    ``image``; where image and command are those of a serving ``runtime``, argv is what comes
    after), ``gpus`` that a launch computes on, ``exports`` (files such a study needs beside, by
    name; see `Backend.exports`), ``trials`` to launch, launches of the ``finals`` at least,
    ``seconds_expected`` (a start of a minute assumed), ``seconds_at_most`` for all of them one
    after another, ``gpu_hours_expected`` (as if each took as many GPUs as the largest shown),
    ``limits``, ``quantization`` (by engine: how many different sets of flags, and the first ten),
    ``notes``.
    """
    spec, foresight = job.spec, job.foresight()
    space = spec.parameter_space
    known_of = _known(job, foresight)
    refusal = foresight.refuse({})
    site = site or Site()
    backend = job.backend.open(spec.backend.options, site)
    launches = [] if refusal else [_planned(job, backend, {}, 0)]
    launches += _first_trials(job, backend, foresight, trials)
    known = [number for number in (known_of.launches, spec.budget) if number is not None]
    budget = min(known, default=space.size())
    gpus = max((each["gpus"] for each in launches), default=0)
    cost = _cost(spec, budget, gpus, _load_seconds(job, site), baseline=refusal is None)
    warning = baseline_problem(foresight)
    return {
        "name": spec.name,
        "size": space.size(),
        **known_of.said(),
        "baseline_refused": refusal,
        "trials": budget,
        "load_points": [load.name for load in spec.loads()],
        "load_seconds_at_most": sum(load.max_seconds for load in spec.loads()),
        **cost.said(gpus),
        "limits": {
            "trials": spec.budget,
            "hours": spec.limits.hours,
            "gpu_hours": spec.limits.gpu_hours,
        },
        "quantization": _quantization(spec),
        "notes": [*job.notes, *filter(None, [warning, cost.ended_by])],
        "launches": launches,
        "exports": dict(backend.exports(spec, {})),
    }


def _first_trials(
    job: Job, backend: Backend, foresight: Foresight, most: int
) -> list[dict[str, Any]]:
    """The first trials of the search, those left out that start the same server as another."""
    searcher = job.searcher()
    # Told as the loop of a study does, so that the same points come in the same order, as long
    # as the searcher does not look at answers, which a plan has none of.
    searcher.tell(Trial(BASELINE, {}, state=TrialState.CANCELLED))
    found: list[dict[str, Any]] = []
    launched = {_identity(job, {})}
    for _ in range(ASKED):
        point = searcher.ask() if len(found) < most else None
        if point is None:
            break
        number = len(found) + 1
        if foresight.refuse(point) is not None:
            refusal = FailureClass.REFUSED
            searcher.tell(Trial(number, point, state=TrialState.INFEASIBLE, failure=refusal))
        elif foresight.doubt(point) is not None:
            continue  # tried after the others, as in the loop of a study
        elif (identity := _identity(job, point)) not in launched:
            launched.add(identity)
            found.append(_planned(job, backend, point, number))
    return found


class _Cost(NamedTuple):
    """What a study takes, one launch after another.

    Attributes:
        finals: launches of the verdict, at least.
        expected, at_most: seconds; None where nobody knows how many launches there are.
        ended_by: which limit ends the search before its trials do, or nothing.
    """

    finals: int
    expected: float | None
    at_most: float | None
    ended_by: str

    def said(self, gpus: int) -> dict[str, Any]:
        """As a plan says it, for launches of so many GPUs."""
        hours = None if self.expected is None else self.expected * gpus / 3600
        return {
            "finals": self.finals,
            "seconds_expected": self.expected,
            "seconds_at_most": self.at_most,
            "gpu_hours_expected": hours,
        }


def _cost(
    spec: StudySpec,
    budget: int | None,
    gpus: int,
    seconds_at_most: Callable[[Load], float],
    *,
    baseline: bool,
) -> _Cost:
    """What the launches of a study take.

    Args:
        budget: trials of the search; None: nobody knows.
        gpus: of a launch.
        baseline: whether it is launched, and so a candidate of the verdict.
    """
    loads, limits = spec.loads(), spec.limits
    most = min(
        limits.trial_seconds,
        limits.ready_seconds + limits.stop_seconds + sum(map(seconds_at_most, loads)),
    )
    each = min(most, START_GUESS + sum(load.max_seconds for load in loads))
    round_of = max(0, verdict_launches(spec) - (not baseline))
    finals = LEAST_ROUNDS * round_of if budget != 0 else 0
    if budget is None:
        return _Cost(finals, None, None, "")
    launched = baseline + budget + finals
    allowed, limit = limits.hours * 3600, f"{limits.hours:g} h"
    if limits.gpu_hours is not None and gpus and limits.gpu_hours * 3600 / gpus < allowed:
        allowed, limit = limits.gpu_hours * 3600 / gpus, f"{limits.gpu_hours:g} GPU-hours"
    ended_by = ""
    if launched * each > allowed:
        # The search leaves as much as the verdict takes; a first launch is never too many.
        searched = max(1 - baseline, math.floor(allowed / each) - baseline - finals)
        after = "the baseline" if searched == 0 else f"about {searched:,} trials"
        after = "about 1 trial" if searched == 1 else after
        ended_by = f"the limit of {limit} ends the search after {after}, one at a time"
    return _Cost(
        finals,
        min(launched * each, allowed),
        min(launched * most, limits.hours * 3600),
        ended_by,
    )


def _quantization(spec: StudySpec) -> dict[str, Any]:
    if spec.quantization is None:
        return {}
    from autotuner.engines.flags import quantization_preview  # only where it is needed

    previews = {kind: quantization_preview(spec.alone(kind)) for kind in spec.engine.kinds}
    return {
        kind: {
            "count": each.count,
            "arguments": [dict(some) for some in each.combinations[:SHOWN]],
            "notes": list(each.notes),
        }
        for kind, each in previews.items()
    }


@dataclass(frozen=True)
class _Known:
    """What can be said of a space without a launch.

    Attributes:
        looked_at: points; of a large space a part.
        refused, doubted: reason -> how many of them.
        launches: different ones besides the baseline; None where the space is too large to say.
    """

    looked_at: int
    refused: dict[str, int]
    doubted: dict[str, int]
    launches: int | None

    def said(self) -> dict[str, Any]:
        return {
            "looked_at": self.looked_at,
            "refused": self.refused,
            "refusals": by_cause(self.refused),
            "doubted": self.doubted,
            "doubts": by_cause(self.doubted),
        }


def _known(job: Job, foresight: Foresight) -> _Known:
    space, size = job.spec.parameter_space, job.spec.parameter_space.size()
    points: Iterable[Parameters]
    if size is not None and size <= ENUMERATED:
        points = space.points()
    else:
        rng = random.Random(job.spec.search.seed)
        points = [space.sample(rng) for _ in range(SAMPLED)]
    looked_at, refused, doubted = 0, Counter[str](), Counter[str]()
    launched: list[Parameters] = []
    for point in points:
        looked_at += 1
        reason = foresight.refuse(point)
        if reason:
            refused[reason] += 1
            continue
        launched.append(point)
        doubt = foresight.doubt(point)
        doubted.update([doubt] if doubt else [])
    launches: int | None = None
    if size is not None and size <= looked_at:
        launches = len(launched)
        if size <= TOLD_APART:
            launches = len({_identity(job, point) for point in ({}, *launched)}) - 1
    by_count = dict(refused.most_common()), dict(doubted.most_common())
    return _Known(looked_at, *by_count, launches)


def _identity(job: Job, point: Parameters) -> Hashable:
    return job.rules.launch(job.spec, point, port=EXPORT_PORT).identity


def _planned(job: Job, backend: Backend, point: Parameters, number: int) -> dict[str, Any]:
    launch = job.rules.launch(job.spec, point, port=EXPORT_PORT, place=backend.place)
    # Ids as a node with GPUs gives them; the true ones are known when the trial has its place.
    gpus = tuple(map(str, range(launch.gpus))) if backend.place.image else ()
    slot = Slot(job.spec.name, number, port=EXPORT_PORT, directory="", gpu_ids=gpus)
    asked = Plan("") if job.recorded else backend.plan(launch, slot)
    return {
        "name": f"trial {number}" if number else "baseline",
        "parameters": point,
        "argv": list(launch.argv),
        "environment": dict(launch.environment),
        "image": launch.image if backend.place.image else None,
        "runtime": None,
        **({} if job.recorded else backend.shown(asked)),
        "gpus": 0 if job.recorded else launch.computes_on,
        "request": dict(asked.request),
    }


def first_plan(job: Job, site: Site) -> None:
    """Plan the baseline, for what only the whole launch shows.

    Raises:
        ConfigError: the backend cannot start such a server.
    """
    if not job.recorded:
        _planned(job, job.backend.open(job.spec.backend.options, site), {}, 0)


def _load_seconds(job: Job, site: Site) -> Callable[[Load], float]:
    """How long a load point may take, by its benchmark."""
    benchmark = job.benchmark
    if isinstance(benchmark, Recorded):
        return lambda load: load.seconds_at_most
    opened = benchmark.open(job.spec, site) if isinstance(benchmark, Opened) else benchmark
    return opened.seconds_at_most
