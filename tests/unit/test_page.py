"""The report page: what it says, that it is whole and escaped, and its charts."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from autotuner.errors import FailureClass
from autotuner.report import page
from autotuner.report.plots import (
    SHAPES,
    Axis,
    Interval,
    Mark,
    Rule,
    chart,
    interval_chart,
    ticks,
)
from autotuner.report.summary import summary
from autotuner.report.text import plain
from autotuner.report.words import duration, percent, quantity
from autotuner.study.objective import objective_values, violations
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import LoadPoint, Phase, Trial, TrialState

CONCURRENCY = (1, 8, 64)
LOG = "INFO 01-05 starting\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.0 GiB"


def study(**changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "qwen-chat",
        "description": "Which scheduler flags serve chat best?",
        "model": {"path": "/models/Qwen2.5-0.5B-Instruct"},
        "engine": {"kind": "vllm", "version": "0.11.0", "arguments": {"max-model-len": 4096}},
        "space": {"max-num-seqs": [16, 64, 256], "enable-prefix-caching": [True, False]},
        "workload": {"scenarios": ["D(512,128)"], "concurrency": list(CONCURRENCY)},
        "objectives": ["output_throughput"],
        "constraints": {"ttft_p90": 0.9},
        **changes,
    }
    return Study(
        spec=StudySpec.model_validate(fields),
        directory="/var/lib/autotuner/qwen-chat",
        state=StudyState.COMPLETE,
        created_at="2026-01-05T12:00:00.000+00:00",
        started_at="2026-01-05T12:00:01.000+00:00",
        ended_at="2026-01-05T13:10:31.000+00:00",
    )


def load_point(index: int, throughput: float, ttft: float) -> LoadPoint:
    level = CONCURRENCY[index]
    tpot, rate = level / throughput, throughput / 128
    metrics: dict[str, float | None] = {
        "output_throughput": throughput,
        "request_throughput": rate,
        "goodput": rate * 0.9,
        "error_rate": 0.0,
        "requests": 100.0,
    }
    for statistic, factor in (("p50", 0.7), ("p90", 1.0), ("p99", 1.6)):
        metrics[f"ttft_{statistic}"] = ttft * factor
        metrics[f"tpot_{statistic}"] = tpot * factor
        metrics[f"e2e_latency_{statistic}"] = ttft * factor + 127 * tpot
    return LoadPoint(index, "D(512,128)", level, 60.0, metrics)


def complete(of: Study, number: int, speed: float, slow: float = 1.0, **parameters: Any) -> Trial:
    """A measured trial: `speed` scales its throughput, `slow` its TTFT."""
    points = tuple(
        load_point(index, 110.0 * level**0.8 * speed, 0.05 * level**0.6 * slow)
        for index, level in enumerate(CONCURRENCY)
    )
    metrics = [point.metrics for point in points]
    return Trial(
        number,
        parameters,
        TrialState.COMPLETE,
        load_points=points,
        objectives=objective_values(of.spec.objectives, metrics),
        violations=violations(of.spec.bounds, metrics),
        phases=(
            Phase("deploy", 0.0, 41.2),
            *(Phase(p.name, 41.2 + 60 * p.index, 101.2 + 60 * p.index) for p in points),
            Phase("stop", 221.2, 223.5),
        ),
    )


def failed(number: int, failure: FailureClass, reason: str, **parameters: Any) -> Trial:
    return Trial(
        number,
        parameters,
        TrialState.INFEASIBLE,
        failure=failure,
        reason=reason,
        log_tail="" if failure is FailureClass.REFUSED else LOG,
        phases=() if failure is FailureClass.REFUSED else (Phase("deploy", 0.0, 18.0),),
    )


def realistic(of: Study) -> list[Trial]:
    return [
        complete(of, 0, 1.0),
        complete(of, 1, 1.18, 0.9, **{"max-num-seqs": 64, "enable-prefix-caching": True}),
        failed(2, FailureClass.MEMORY_AT_LOAD, "CUDA out of memory", **{"max-num-seqs": 256}),
        complete(of, 3, 1.9, 1.8, **{"max-num-seqs": 256, "enable-prefix-caching": False}),
        failed(4, FailureClass.REFUSED, "no room in 4096 tokens", **{"max-num-seqs": 8192}),
        complete(of, 5, 1.74, 1.1, **{"max-num-seqs": 256, "enable-prefix-caching": True}),
        failed(6, FailureClass.MEMORY_AT_LOAD, "no room for the KV cache", **{"max-num-seqs": 256}),
        Trial(7, {"max-num-seqs": 16}, TrialState.FAILED, reason="GPU 0 fell off the bus"),
        complete(of, 8, 0.8, 0.7, **{"max-num-seqs": 16}),
        Trial(9, {"max-num-seqs": 17}, TrialState.BENCHMARKING, note="D(512,128) x 8"),
    ]


def rendered(of: Study, trials: Sequence[Trial], command: str = "") -> str:
    """The page, made from the JSON as it would be stored, and checked as every page must be."""
    stored = json.loads(json.dumps(summary(of, trials, command=command)))
    text = page.html(stored)
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert not re.search(r"\bsrc=|href=\"[^#]|url\(|@import|<script|<link|https?://", text)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
        assert not re.search(r"\b(nan|inf)\b", svg)
    return text


class Balanced(HTMLParser):
    """Raises where a tag is closed that is not open; ids are unique, links lead to them."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.targets: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            assert values["id"] not in self.ids
            self.ids.add(str(values["id"]))
        if tag == "a":
            self.targets.add(str(values["href"]).removeprefix("#"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def close(self) -> None:
        super().close()
        assert self.targets <= self.ids


def words(text: str) -> str:
    """The page's visible text, blanks squeezed."""
    body = re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)
    plain = body.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")
    return " ".join(unescape(plain).split())


def test_a_realistic_study_is_told_in_full() -> None:
    of = study()
    text = rendered(of, realistic(of), command="vllm serve /models/Qwen --max-num-seqs 256")
    said = words(text)
    assert "Trial 5 reaches" in said
    assert "+74 % over vLLM's defaults (581 tok/s)" in said
    assert "one run each" in said
    assert "1 h 10 min" in said
    assert "2026-01-05 12:00 UTC" in said
    assert "vllm serve /models/Qwen --max-num-seqs 256" in said
    assert "TTFT p90 21 % above its bound" in said
    assert "3 min 44 s deploy 41 s, load 3 min, stop 2.3 s" in said
    assert "out of memory at load 2 2 , 6 CUDA out of memory" in said
    assert "infrastructure 1 7 GPU 0 fell off the bus" in said
    assert "REFUSED" in said
    assert "Tried to allocate 2.0 GiB" in said


def test_every_ended_trial_is_a_mark_with_its_story() -> None:
    of = study()
    text = rendered(of, realistic(of))
    progress, loads = re.findall(r'<svg class="chart".*?</svg>', text, re.DOTALL)
    assert progress.count('<a class="mark') == 9
    assert progress.count('class="mark lost') == 4
    assert loads.count('<a class="mark') == 5 * len(CONCURRENCY)
    assert "out of memory at load\nCUDA out of memory</title>" in progress
    assert progress.count("hollow") == 1
    assert 'class="mark best"' in progress
    assert "log scale" in loads
    assert 'class="line bound"' in loads


def test_two_objectives_get_a_front() -> None:
    of = study(objectives=["output_throughput", "ttft_p90"], constraints={})
    text = rendered(of, realistic(of))
    assert text.count('<svg class="chart"') == 4
    said = words(text)
    assert "Trial 3 reaches" in said
    assert "also on the Pareto front: 5, 1, 8." in said
    assert "in speed (" in said
    assert "TTFT p90 over output throughput, per trial" in said


def test_an_only_baseline_is_said_to_be_that() -> None:
    of = study()
    said = words(rendered(of, [complete(of, 0, 1.0)]))
    assert "Only vLLM's defaults were measured: 581 tok/s output throughput." in said
    assert "one run each" not in said
    assert "difference" not in said


def test_nothing_better_than_the_baseline() -> None:
    of = study()
    worse = complete(of, 1, 0.9, **{"max-num-seqs": 16})
    said = words(rendered(of, [complete(of, 0, 1.0), worse]))
    assert "Nothing tried beats vLLM's defaults: 581 tok/s" in said
    assert "-10 %" in said


def test_no_feasible_trial_names_the_closest() -> None:
    of = study(constraints={"ttft_p90": 0.1})
    trials = [complete(of, 0, 1.0), complete(of, 1, 0.9, 0.5, **{"max-num-seqs": 16})]
    said = words(rendered(of, trials))
    assert "No trial met every constraint. Closest is trial 1: TTFT p90 203 % above" in said


def test_nothing_measured() -> None:
    of = study()
    assert "No trial was started." in words(rendered(of, []))
    text = rendered(of, [failed(0, FailureClass.CRASH, "gone"), failed(1, FailureClass.CRASH, "")])
    assert "No trial was measured." in words(text)
    assert "nothing measured" in text
    assert text.count('<svg class="chart"') == 1


def test_an_unmeasured_baseline_leaves_the_gain_unknown() -> None:
    of = study()
    best = complete(of, 1, 1.2, **{"max-num-seqs": 16})
    said = words(rendered(of, [failed(0, FailureClass.KV_CACHE, "too long"), best]))
    assert "Trial 1 reaches 697 tok/s output throughput. vLLM's defaults gave no" in said
    assert "(KV cache too small: too long)" in said
    assert "one run each" not in said
    assert "were not tried: the gain is unknown" in words(rendered(of, [best]))


def test_an_infeasible_baseline_is_named_beside_the_loss() -> None:
    of = study(constraints={"ttft_p90": 0.5})
    trials = [complete(of, 0, 1.0), complete(of, 1, 0.9, 0.5, **{"max-num-seqs": 16})]
    said = words(rendered(of, trials))
    assert "-10 % over vLLM's defaults" in said
    assert "defaults break a constraint: TTFT" in said


def test_texts_of_the_study_are_escaped() -> None:
    evil = '<script>alert("x")</script>'
    of = study(
        description=evil,
        space={"max-num-seqs": [16], "env:X": [evil]},
        engine={"kind": "vllm", "arguments": {"x": evil}},
        model={"path": evil},
    )
    hostile: dict[str, Any] = {"env:X": evil, evil: {evil: [evil]}}
    trials = [
        complete(of, 0, 1.0),
        complete(of, 1, 1.2, **hostile),
        Trial(2, {}, TrialState.INFEASIBLE, failure=FailureClass.CRASH, reason=evil, log_tail=evil),
    ]
    text = rendered(of, trials, command=evil)
    assert "&lt;script&gt;" in text
    assert 'alert("x")' not in text


def again(of: Study, number: int, repeats: int, round_: int, speed: float) -> Trial:
    return replace(complete(of, number, speed), repeat_of=repeats, round=round_)


def finals(of: Study) -> list[Trial]:
    """Two rounds after the search: trial 5 is better than the baseline, trial 1 is not sure."""
    speeds = [(0, 1, 1.0), (5, 1, 1.74), (1, 1, 1.1), (5, 2, 1.75), (1, 2, 1.0), (0, 2, 1.01)]
    trials = [each for each in realistic(of) if each.state.ended]
    return trials + [
        again(of, 20 + place, repeats, round_, speed)
        for place, (repeats, round_, speed) in enumerate(speeds)
    ]


def test_the_verdict_comes_first_with_its_intervals() -> None:
    of = study()
    text = rendered(of, finals(of))
    said = words(text)
    assert re.search(
        r"Trial 5 beats vLLM's defaults by \d+ % \(95 % CI [\d.]+ to [\d.]+ %\) in output", said
    )
    assert "2 launches each, interleaved" in said
    assert "one run each" not in said
    assert text.index('id="finals"') < text.index('id="best"')
    intervals = re.findall(r'<svg class="chart".*?</svg>', text, re.DOTALL)[0]
    assert intervals.count('class="interval') == 2
    assert intervals.count('class="interval best"') == 1
    assert 'href="#trial-5"' in intervals
    assert "vLLM&#x27;s defaults</text>" in intervals
    assert "vLLM's defaults 2 " in said
    assert "reference" in said


def test_repeats_have_a_table_of_their_own_and_no_marks() -> None:
    of = study()
    text = rendered(of, finals(of))
    search, _, rest = text[text.index('id="trials"') :].partition("<details><summary>6 repeats")
    assert 'id="trial-5"' in search
    assert 'id="trial-20"' not in search
    assert 'id="trial-20"' in rest
    assert "trial 5, round 2" in words(rest)
    _, progress, loads = re.findall(r'<svg class="chart".*?</svg>', text, re.DOTALL)
    assert progress.count('<a class="mark') == 9
    assert loads.count('<a class="mark') == 5 * len(CONCURRENCY)


def test_the_gain_of_a_verdict_stands_beside_the_values_it_is_made_of() -> None:
    of = study()
    once = words(rendered(of, [t for t in finals(of) if t.searched]))
    repeated = words(rendered(of, finals(of)))
    assert "1,010 tok/s 581 tok/s +74 %" in once
    assert "1,010 tok/s 581 tok/s" not in repeated.partition("Charts")[0]
    assert "mean of the repeats" in repeated


def test_finals_without_an_interval_yet_say_so() -> None:
    of = replace(study(), state=StudyState.RUNNING)
    text = rendered(of, finals(of)[:-3])
    assert "The finals are under way, 1 round so far" in words(text)
    assert text.count("not compared yet") >= 2
    assert 'class="interval' not in text


def test_loads_are_named_as_they_were_measured_whatever_their_order() -> None:
    of = study(scheduler={"kind": "asha"})
    assert [load.concurrency for load in of.spec.loads()] == [64, 8, 1]
    text = rendered(of, [complete(of, 0, 1.0), complete(of, 1, 2.0, **{"max-num-seqs": 16})])
    table = words(text[text.index("D(512,128) x 64</caption>") :])
    assert table.startswith("D(512,128) x 64 trial 1 baseline difference output throughput 6,129")
    loads = re.findall(r'<svg class="chart".*?</svg>', text, re.DOTALL)[1]
    busiest = re.findall(r"D\(512,128\) x 64\n[^<]*</title><path d=\"([^\"]*)\"", loads)
    assert set(busiest) == {SHAPES["circle"]}


def test_probes_are_not_shown_as_load_points() -> None:
    of = study()
    best = complete(of, 1, 1.2, **{"max-num-seqs": 16})
    probe = replace(load_point(0, 7.0, 0.1), index=9, concurrency=77, probe=True)
    text = rendered(
        of, [complete(of, 0, 1.0), replace(best, load_points=(probe, *best.load_points))]
    )
    assert "x 77" not in text


def test_how_badly_a_bound_is_broken_is_said_in_a_word() -> None:
    of = study(constraints={}, slo={"ttft_p90": {"max": 0.5, "hard": True}})
    slow = complete(of, 3, 1.9, 1.8, **{"max-num-seqs": 256})
    text = rendered(of, [complete(of, 0, 1.0), slow])
    assert '<span class="badge severe">severe</span>' in text
    assert '<span class="badge hard-fail">hard fail</span>' in text
    assert 'class="line bound"' in text


def test_failures_have_reasons_and_the_way_to_move() -> None:
    of = study()
    crashed = failed(1, FailureClass.MEMORY_UNDER_LOAD, "no block left")
    trials = [
        complete(of, 0, 1.0),
        replace(crashed, advice="lower gpu-memory-utilization"),
        *(failed(n, FailureClass.REFUSED, "32 heads by 3") for n in (2, 3)),
    ]
    said = words(rendered(of, trials))
    assert "out of memory under load 1 1 no block left lower gpu-memory-utilization" in said
    assert "Refused before launch reason points 32 heads by 3 2" in said


def test_predictions_get_a_column_a_chart_and_their_accuracy() -> None:
    of = study()
    trials = [
        replace(complete(of, n, 1.0 + n, **({"max-num-seqs": n} if n else {})), predicted=said)
        for n, said in enumerate(
            [{"output_throughput": value, "ttft_p90": None} for value in (500.0, 900.0, 2000.0)]
        )
    ]
    text = rendered(of, trials)
    said = words(text)
    assert "output throughput: predicted and measured" in said
    assert "How well the prior predicted: output throughput: 3 trials, off by" in said
    assert "2,000 tok/s" in said
    plain_page = words(rendered(of, [complete(of, 0, 1.0)]))
    assert "predicted" not in plain_page


@pytest.mark.parametrize(
    "ends",
    [
        [(None, None, None)],
        [(0.0, 0.0, 0.0)],
        [(-0.2, -0.5, 0.1), (3.0, 2.0, 900.0), (None, None, None)],
    ],
)
def test_intervals_stand_on_any_values(
    ends: list[tuple[float | None, float | None, float | None]],
) -> None:
    rows = [Interval("a < b", "#trial-1", "t", *each, told="x & y") for each in ends]
    svg = interval_chart("any", Axis("gain", "share"), rows, "zero")
    ElementTree.fromstring(svg)
    assert svg.count('class="interval') == sum(value is not None for value, _, _ in ends)
    places = [float(x) for x in re.findall(r"translate\((\S+) ", svg)]
    assert all(0 <= x <= 480 for x in places)


@pytest.mark.parametrize(
    ("gain", "text"),
    [(None, "-"), (0.25, "+25 %"), (-0.031, "-3.1 %"), (0.0, "+0 %"), (12.5, "+1,250 %")],
)
def test_a_gain_has_its_sign(gain: float | None, text: str) -> None:
    assert plain(percent(gain)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.44, "0.4 s"), (42.3, "42 s"), (185.0, "3 min 5 s"), (90061.0, "25 h 1 min")],
)
def test_a_duration_has_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert plain(duration(seconds)) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.132, "s", "132 ms"),
        (0.9996, "s", "1.00 s"),
        (1.0, "s", "1.00 s"),
        (0.00123, "s", "1.23 ms"),
        (2612.6, "tok/s", "2,613 tok/s"),
        (99.96, "req/s", "100 req/s"),
        (0.0123, "share", "1.23 %"),
        (0.0, "share", "0 %"),
        (42.0, "", "42"),
        (0.00001234, "", "1.23e-05"),
        (None, "s", "-"),
        (math.nan, "s", "-"),
    ],
)
def test_quantities_have_three_digits(value: float | None, unit: str, text: str) -> None:
    assert plain(quantity(value, unit)) == text


def test_ticks_are_round() -> None:
    assert ticks(0, 1000) == [0, 200, 400, 600, 800, 1000]
    assert ticks(-0.6, 3.6, whole=True) == [0, 1, 2, 3]
    assert ticks(0.02, 1.2, log=True) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1])
    assert ticks(0.001, 200, log=True) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])


@pytest.mark.parametrize(
    "values", [[], [None], [5.0], [5.0, 5.0], [0.0, 0.0], [-3.0, None], [1e-9, 1e9]]
)
def test_a_chart_stands_on_any_values(values: list[float | None]) -> None:
    marks = [Mark(x, y, "a < b", "#trial-0") for x, y in enumerate(values)]
    rules = [Rule(7.0, "reference"), Rule(0.0, "bound", upright=True)]
    for log in (False, True):
        svg = chart("any", Axis("trial", whole=True), Axis("y", "s", log=log), marks, rules)
        ElementTree.fromstring(svg)
        places = re.findall(r"translate\((\S+) (\S+)\)", svg)
        assert len(places) == len(values)
        assert all(0 <= float(x) <= 480 and 0 <= float(y) <= 300 for x, y in places)
