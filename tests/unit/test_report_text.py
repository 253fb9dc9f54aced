"""Reports for a terminal: numbers, durations, remarks, and the sentences of a verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from autotuner.errors import FailureClass
from autotuner.report.live import LONGEST_VALUE, Display
from autotuner.report.rows import LIST_HEADING, list_line, row, status_lines
from autotuner.report.summary import counts, gains, parameters_text, summary
from autotuner.report.text import (
    accuracy_text,
    comparison_table,
    failures_table,
    finals_table,
    plan_text,
    remark,
    report_text,
    trials_table,
    verdict_text,
)
from autotuner.report.words import apart, command_line
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import LoadPoint, Phase, Trial, TrialState
from tests.builders import spec, trial


def plain(part: RenderableType) -> str:
    console = Console(file=StringIO(), width=160)
    with console.capture() as capture:
        console.print(part)
    return capture.get()


def test_a_point_is_one_line_and_the_baseline_says_so() -> None:
    assert parameters_text({}) == "(engine defaults)"
    point = {"a": 1, "b": "x", "c": True, "d": None, "e": {"f": [1.0]}}
    assert parameters_text(point) == 'a=1 b=x c=true d=null e={"f":[1]}'


def test_a_launch_is_a_line_a_shell_takes() -> None:
    line = command_line(["vllm", "serve", "/a b", '{"x": 1}'], {"X": "it's"})
    assert line == "X='it'\"'\"'s' vllm serve '/a b' '{\"x\": 1}'"


# A small study with everything in it.

OBJECTIVES = ["output_throughput", "ttft_p90"]


def complete(number: int, throughput: float, ttft: float, **more: Any) -> Trial:
    metrics = {"output_throughput": throughput, "ttft_p90": ttft, "error_rate": 0.0}
    return trial(
        number,
        {"max-num-seqs": number} if number else {},
        objectives={"output_throughput": throughput, "ttft_p90": ttft},
        load_points=(LoadPoint(0, "D(100,20)", 4, 10.0, metrics),),
        phases=(Phase("deploy", 0.0, 5.0), Phase("D(100,20) x 4", 5.0, 66.0)),
        **more,
    )


BASELINE = complete(0, 100.0, 0.2)
BEST = complete(1, 150.0, 0.25)
FASTEST = complete(2, 80.0, 0.1)
OUTSIDE = complete(3, 900.0, 0.9, violations={"ttft_p90": 0.8})
CRASHED = trial(
    4,
    {"max-num-seqs": 4},
    TrialState.INFEASIBLE,
    failure=FailureClass.KV_CACHE,
    reason="No available memory",
)
REFUSED = trial(
    5, {"max-num-seqs": 5}, TrialState.INFEASIBLE, failure=FailureClass.REFUSED, reason="too few"
)
ALL = [BASELINE, BEST, FASTEST, OUTSIDE, CRASHED, REFUSED]


def report(*trials: Trial, objectives: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    study = Study(
        spec(
            space={"max-num-seqs": {"type": "int", "low": 1, "high": 9}},
            objectives=objectives or OBJECTIVES,
            constraints={"ttft_p90": 0.5},
        ),
        "/studies/small",
        StudyState.COMPLETE,
        **{
            "started_at": "2026-11-22T03:00:00.000+00:00",
            "ended_at": "2026-11-22T03:20:00.000+00:00",
            **changes,
        },
    )
    return summary(study, trials, command="vllm serve /models/tiny")


def test_a_summary_is_json_and_says_best_front_and_gain() -> None:
    found = report(*ALL)
    assert json.loads(json.dumps(found)) is not None
    assert (found["best"], found["baseline"]) == (1, 0)
    assert found["front"] == [1, 0, 2]
    assert found["gain"] == pytest.approx({"output_throughput": 0.5, "ttft_p90": -0.2})
    assert found["counts"] == {"COMPLETE": 4, "INFEASIBLE": 1, "REFUSED": 1}
    assert found["study"]["seconds"] == 1200.0
    assert found["study"]["constraints"] == ["ttft_p90 <= 0.5 s"]
    assert found["study"]["loads"] == ["D(100,20) x 4"]
    assert found["study"]["objectives"][1] == {"name": "ttft_p90", "unit": "s", "better": "lower"}
    assert found["trials"][0]["baseline"]
    assert found["trials"][4]["failure"] == "KV cache too small"
    assert found["trials"][1]["seconds"] == 66.0


def test_a_summary_of_nothing_has_no_best_and_no_gain() -> None:
    found = report()
    assert (found["best"], found["baseline"], found["front"]) == (None, None, [])
    assert found["gain"] == {"output_throughput": None, "ttft_p90": None}
    assert counts([]) == {}


@pytest.mark.parametrize(
    "baseline",
    [
        None,
        trial(0, state=TrialState.INFEASIBLE, failure=FailureClass.CRASH),
        trial(0, state=TrialState.STOPPED, objectives={"output_throughput": 5.0}),
        trial(0, objectives={"output_throughput": None}),
    ],
)
def test_without_a_measured_baseline_there_is_no_gain(baseline: Trial | None) -> None:
    assert gains(BEST, baseline, OBJECTIVES[:1]) == {"output_throughput": None}


def test_the_verdict_names_the_best_its_values_and_the_gain() -> None:
    first, second = verdict_text(report(BASELINE, BEST, objectives=OBJECTIVES[:1])).splitlines()
    assert first == (
        "Trial 1 reaches 150 tok/s output throughput, +50 % over simulated's defaults (100 tok/s)."
    )
    assert "measured once" in second


def test_the_verdict_of_several_objectives_names_the_front() -> None:
    said = verdict_text(report(*ALL))
    assert "+50 % over simulated's defaults" in said
    assert "250 ms TTFT p90, -20 % in speed (200 ms)" in said
    assert "also on the Pareto front: 0, 2" in said


def test_a_verdict_without_a_baseline_claims_no_gain() -> None:
    said = verdict_text(report(BEST, objectives=OBJECTIVES[:1]))
    assert said.startswith("Trial 1 reaches 150 tok/s output throughput.")
    assert "%" not in said


def test_a_baseline_that_nothing_beats_is_said_to_be_unbeaten() -> None:
    slower = complete(1, 50.0, 0.4)
    said = verdict_text(report(BASELINE, slower))
    assert said.startswith("Nothing tried beats simulated's defaults")


def test_a_study_without_a_feasible_trial_says_why() -> None:
    assert verdict_text(report(OUTSIDE, CRASHED)).splitlines() == [
        "No trial met every constraint.",
        "Closest is trial 3: TTFT p90 80 % above its bound (severe).",
    ]
    said = verdict_text(report(CRASHED, reason="no feasible trial: all crashed"))
    assert said.splitlines() == ["No trial was measured.", "no feasible trial: all crashed"]


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (CRASHED, "KV cache too small: No available memory"),
        (OUTSIDE, "TTFT p90 80 % above its bound (severe)"),
        (
            trial(6, state=TrialState.STOPPED, reason="stopped after D(9,9) x 4: 2 were better"),
            "after D(9,9) x 4: 2 were better",
        ),
        (BEST, ""),
        (trial(6, state=TrialState.BENCHMARKING, note="load point 1 of 2"), "load point 1 of 2"),
        (trial(6, state=TrialState.FAILED, reason="the node died"), "the node died"),
    ],
)
def test_a_remark_says_what_the_numbers_do_not(of: Trial, said: str) -> None:
    (row,) = report(of)["trials"]
    assert remark(row, {"ttft_p90": 0.5}) == said


def test_the_table_marks_the_best_and_leaves_refused_points_out() -> None:
    lines = plain(trials_table(report(*ALL))).splitlines()
    rows = [line.split() for line in lines if line.strip()]
    assert any(row[:3] == ["*", "1", "COMPLETE"] for row in rows)
    assert any(row[:2] == ["0", "COMPLETE"] and "defaults)" in row for row in rows)
    assert not any("5" in row[:2] for row in rows)
    assert "1 min 6 s" in "\n".join(lines)


def test_the_comparison_is_the_best_beside_the_defaults() -> None:
    table = comparison_table(report(*ALL))
    assert table is not None
    said = plain(table)
    assert "D(100,20) x 4" in said
    assert "+50 %" in said
    assert "200 ms" in said
    assert "+25 %" in said
    assert "worse" in said
    assert comparison_table(report(BEST)) is None
    assert comparison_table(report(BASELINE)) is None
    assert comparison_table(report(trial(0, state=TrialState.INFEASIBLE), BEST)) is None


def test_the_whole_report_has_every_part() -> None:
    said = "\n".join(plain(part) for part in report_text(report(*ALL)))
    for part in (
        "small",
        "constraints: ttft_p90 <= 0.5 s",
        "took 20 min",
        "1 point was refused before launch",
        "Trial 1 reaches",
        "vllm serve /models/tiny",
    ):
        assert part in said


def test_a_report_of_a_study_that_has_not_begun_can_be_shown() -> None:
    said = "\n".join(plain(part) for part in report_text(report(started_at="", ended_at="")))
    assert "No trial was started" in said
    assert "took" not in said


def test_a_plan_says_size_duration_refusals_and_launch_lines() -> None:
    plan = {
        "name": "small",
        "size": 1234,
        "trials": 20,
        "load_points": ["D(100,20) x 4"],
        "load_seconds_at_most": 60.0,
        "seconds_expected": 2520.0,
        "seconds_at_most": 7200.0,
        "finals": 8,
        "gpu_hours_expected": 5.6,
        "limits": {"trials": 20, "hours": 1.5, "gpu_hours": 6.0},
        "quantization": {
            "vllm": {
                "count": 25,
                "arguments": [{"kv-cache-dtype": "fp8"}, {}],
                "notes": ["fp4 needs a newer GPU"],
            },
        },
        "notes": ["preset vllm/throughput merged"],
        "baseline_refused": None,
        "refused": {f"reason {number}": number for number in range(1, 13)},
        "refusals": [
            {"reason": f"reason {letter}", "count": number, "reasons": number}
            for number, letter in enumerate("abcdefghijkl", start=1)
        ],
        "doubted": {"it will hardly fit": 3},
        "doubts": [{"reason": "it will hardly fit", "count": 3, "reasons": 1}],
        "looked_at": 1234,
        "launches": [
            {
                "name": "baseline",
                "parameters": {},
                "gpus": 1,
                "argv": ["vllm", "serve", "a b"],
                "environment": {"X": "1"},
                "image": None,
                "runtime": None,
            },
            {
                "name": "first",
                "parameters": {"tp": 2},
                "gpus": 2,
                "argv": [],
                "environment": {},
                "image": "vllm/vllm-openai:v0.32.0",
                "runtime": None,
            },
        ],
    }
    said = plain(plan_text(plan))
    assert "tp=2  (2 GPUs, in vllm/vllm-openai:v0.32.0)" in said
    assert "1,234 points" in said
    assert "the baseline and 20 trials, then 8 or more for the verdict" in said
    assert "about 5.60 GPU-hours" in said
    assert "20 trials, 1 h 30 min, 6 GPU-hours" in said
    assert "vllm: 25 sets of flags" in said
    assert "kv-cache-dtype=fp8" in said
    assert "... and 23 more" in said
    assert "note: fp4 needs a newer GPU" in said
    assert "preset vllm/throughput merged" in said
    assert "about 42 min" in said
    assert "2 h at most" in said
    assert "78 of 1,234 points looked at" in said
    assert "       1  reason a\n" in said
    assert "       2  e.g. reason b\n" in said
    assert "       3  it will hardly fit\n" in said
    assert "and 2 more reasons" in said
    assert "baseline: (engine defaults)  (1 GPU)" in said
    assert "X=1 vllm serve 'a b'" in said
    limits = {"trials": None, "hours": 2.0, "gpu_hours": None}
    small = {"finals": 0, "quantization": {}, "gpu_hours_expected": 0.0, "limits": limits}
    endless = plain(plan_text({**plan, **small, "size": None, "trials": None}))
    assert "verdict" not in endless
    assert "GPU-hours" not in endless
    assert "limits       2 h\n" in endless
    assert "infinite" in endless
    assert "as many trials as the space holds" in endless
    single = plain(plan_text({**plan, "size": 1, "doubted": {"tight": 1}}))
    assert "space        1 point\n" in single
    assert "doubted      1 point, tried last\n" in single


# Long values, finals, failures, predictions.

SPECULATIVE = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}


def test_a_long_value_is_written_once_below_the_table() -> None:
    other = {**SPECULATIVE, "num_speculative_tokens": 8}
    trials = [
        replace(BEST, number=n, parameters={"speculative-config": value})
        for n, value in enumerate([SPECULATIVE, other, SPECULATIVE, None], start=1)
    ]
    said = plain(trials_table(report(*trials)))
    assert said.count("speculative-config=<A>") == 2
    assert said.count("speculative-config=<B>") == 1
    assert said.count("speculative-config=null") == 1
    assert said.count('"num_speculative_tokens":8') == 1
    assert 'A = {"method":"ngram"' in said


REPEATS = [
    replace(complete(number, value, 0.2), repeat_of=of, round=round_)
    for number, (of, round_, value) in enumerate(
        [(0, 1, 100.0), (1, 1, 150.0), (1, 2, 152.0), (0, 2, 101.0)], start=6
    )
]


def test_repeats_are_in_the_finals_and_not_in_the_search() -> None:
    found = report(*ALL, *REPEATS)
    rows = [line.split() for line in plain(trials_table(found)).splitlines() if line.strip()]
    assert not any(row[0] in ("6", "7", "8", "9") for row in rows)
    table = finals_table(found)
    assert table is not None
    said = plain(table)
    assert "Finals" in said
    defaults, winner = (line for line in said.splitlines() if "simulated" in line or "1 " in line)
    assert defaults.split()[-1] == "reference"
    assert winner.split()[:4] == ["*", "trial", "1", "2"]
    assert winner.split()[-1] == "better"
    assert " to " in winner
    assert finals_table(report(*ALL)) is None


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        ({"candidate": 0}, "reference"),
        ({"candidate": 1, "out": "killed"}, "out: killed"),
        ({"candidate": 1}, "not compared yet"),
        ({"candidate": 1, "gain": 0.1}, "not told apart"),
        ({"candidate": 1, "gain": 0.1, "separated": True}, "better"),
        ({"candidate": 1, "gain": -0.1, "separated": True}, "worse"),
    ],
)
def test_a_standing_says_whether_it_was_told_apart(standing: dict[str, Any], said: str) -> None:
    assert apart({"gain": None, "separated": False, "out": "", **standing}, 0) == said


def test_failures_come_with_the_way_to_move() -> None:
    advised = replace(CRASHED, advice="lower max-model-len")
    table = failures_table(report(BASELINE, advised, replace(CRASHED, number=6)))
    assert table is not None
    said = plain(table)
    assert "KV cache too small        2   No available memory" in said
    assert "-> lower max-model-len" in said
    assert failures_table(report(BASELINE)) is None


def test_predictions_stand_beside_what_was_measured() -> None:
    predicted = [
        replace(each, predicted={"output_throughput": 110.0}) for each in (BASELINE, BEST, FASTEST)
    ]
    found = report(*predicted)
    assert "predicted" in plain(trials_table(found))
    said = accuracy_text(found)
    assert said is not None
    assert "output throughput: 3 trials, off by 27 % (median)" in said.plain
    assert accuracy_text(report(BASELINE)) is None
    assert "predicted" not in plain(trials_table(report(*ALL)))


def test_the_cost_has_gpu_hours_where_there_are_gpus() -> None:
    said = "\n".join(plain(part) for part in report_text(report(BASELINE, BEST)))
    assert "took 20 min; 2 launches, 2 min 12 s of trials\n" in said
    on_gpus = [replace(each, gpu_ids=("0", "1")) for each in (BASELINE, BEST)]
    said = "\n".join(plain(part) for part in report_text(report(*on_gpus)))
    assert "of trials, 0.0733 GPU-hours" in said


def test_a_report_fits_eighty_columns() -> None:
    long = replace(BEST, parameters={"speculative-config": SPECULATIVE, "max-num-seqs": 256})
    found = report(BASELINE, long, FASTEST, OUTSIDE, CRASHED, REFUSED, *REPEATS)
    console = Console(file=StringIO(), width=80)
    with console.capture() as capture:
        console.print(*report_text(found), sep="\n")
    said = capture.get()
    assert max(len(line) for line in said.splitlines()) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in said


# Progress.


class Loop:
    """What a display sees of a running study."""

    def __init__(self, *trials: Trial) -> None:
        self.trials = list(trials)


def lines(capsys: pytest.CaptureFixture[str], loop: Loop, *changed: Trial) -> list[str]:
    """What a log hears of the changes, without the times at the beginning."""
    times = iter(range(0, 10_000, 60))
    study = Study(spec(objectives=["output_throughput"], limits={"trials": 5}), "/studies/small")
    with Display(study, clock=lambda: next(times)) as display:
        display.begun(Loop())
        display.begun(loop)
        for each in changed:
            display.changed(each)
            display.tick()
    said = capsys.readouterr().err.splitlines()
    return [line.partition("] ")[2] for line in said][2:]


def of_one(each: Trial) -> Trial:
    objectives = {"output_throughput": each.objectives["output_throughput"]}
    return replace(each, objectives=objectives, gpu_ids=("0",))


def test_progress_says_where_the_search_is_what_it_cost_and_the_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    baseline, best = of_one(BASELINE), of_one(BEST)
    (line,) = lines(capsys, Loop(baseline, best), best)
    assert line.startswith("trial 1 COMPLETE  output_throughput 150 tok/s; search 1 of 1; "), (
        "of all the points there are"
    )
    assert "0.0367 GPU-hours; best so far: trial 1, 150 tok/s (+50 %)" in line


def test_progress_in_the_finals_names_the_trial_that_is_measured_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = replace(of_one(REPEATS[2]), objectives={"output_throughput": 152.0})
    deploying = replace(again, state=TrialState.DEPLOYING)
    first, line = lines(capsys, Loop(of_one(BASELINE), of_one(BEST), again), deploying, again)
    assert first == "trial 1 again (round 2) DEPLOYING"
    assert line.startswith("trial 1 again (round 2) COMPLETE  output_throughput 152 tok/s; ")
    assert "finals round 2 of at most 5; " in line
    # Of the least that finals take, two rounds of four launches: one was made.
    assert line.endswith("; about 7 min 42 s left")


def test_progress_beyond_the_least_rounds_of_the_finals_knows_no_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = replace(of_one(REPEATS[2]), objectives={"output_throughput": 152.0})
    repeats = [replace(again, number=number) for number in range(10, 18)]
    (line,) = lines(capsys, Loop(of_one(BASELINE), of_one(BEST), *repeats), repeats[-1])
    assert "left" not in line


def test_progress_names_a_stop_and_a_failure_with_its_advice_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped = trial(2, {}, TrialState.STOPPED, reason="stopped after D(9,9) x 4: 2 were better")
    crashed = replace(CRASHED, advice="lower max-model-len")
    assert lines(capsys, Loop(), stopped, stopped, crashed) == [
        "trial 2 STOPPED  after D(9,9) x 4: 2 were better",
        "trial 4 INFEASIBLE  KV cache too small: No available memory -> lower max-model-len",
    ]


def test_progress_cuts_long_values(capsys: pytest.CaptureFixture[str]) -> None:
    point = {"max-num-seqs": 8, "speculative-config": SPECULATIVE}
    (line,) = lines(capsys, Loop(), trial(1, point, TrialState.DEPLOYING))
    name, _, value = line.rpartition("=")
    assert name == "trial 1 DEPLOYING  max-num-seqs=8 speculative-config"
    assert value == '{"method":"ngram","num_speculative_tokens":4,"prompt_look...'
    assert len(value) == LONGEST_VALUE


def test_the_time_left_of_a_resumed_study_is_that_of_its_trials(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, *[600.0] * 20])
    asked = spec(
        objectives=["output_throughput"],
        space={"max-num-seqs": [1, 2, 4, 8]},
        verdict={"finalists": 0},
    )
    study = Study(asked, "/studies/small")
    loop = Loop(of_one(BASELINE), of_one(FASTEST))
    with Display(study, clock=lambda: next(times)) as display:
        display.begun(loop)
        loop.trials.append(of_one(BEST))
        display.changed(loop.trials[-1])
    # Two points of 66 s are left, whenever this run began.
    assert "about 2 min 12 s left" in capsys.readouterr().err


def test_what_is_waited_for_before_the_first_trial_is_said_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    study = Study(spec(), "/studies/small")
    with Display(study, log=tmp_path / "log", first="starting Ray"):
        assert capsys.readouterr().err.endswith("] starting Ray\n")
    assert (tmp_path / "log").read_text().endswith(" starting Ray\n")
    with Display(study):
        assert capsys.readouterr().err == "", "a cluster that is there is not started"


def test_a_list_counts_trials_as_their_limit_does_and_launches_of_the_finals_apart() -> None:
    refused = trial(3, state=TrialState.INFEASIBLE, failure=FailureClass.REFUSED)
    again = [replace(of_one(BASELINE), number=n, repeat_of=0, round=1) for n in (4, 5)]
    study = Study(spec(objectives=["output_throughput"]), "/studies/small")
    content = row(study, [of_one(BASELINE), of_one(FASTEST), of_one(BEST), refused, *again])
    shown = {**content, "state": "COMPLETE", "eta": None, "created_at": "2026-01-01T00:00:00Z"}
    assert LIST_HEADING.split()[:5] == ["study", "state", "engine", "trials", "finals"]
    assert list_line(shown).split()[:5] == ["small", "COMPLETE", "simulated", "2", "2"]
    assert list_line(shown).index("COMPLETE") == LIST_HEADING.index("state")
    one = {**shown, "finals": {"round": 1, "launches": 1}}
    assert "  finals: round 1, 1\N{NO-BREAK SPACE}launch" in status_lines(one)
    assert shown["counts"] == {"COMPLETE": 3, "REFUSED": 1}, "repeats are no trials"


def at_a_glance(state: str, found: Mapping[int, float], once: float = 150.0) -> dict[str, Any]:
    """A study whose trial 1 gave `once`, and whose finals gave these means, as a row."""
    asked = spec(objectives=["output_throughput"], verdict={"finalists": 1, "rounds": 4})
    values = [(0, 100.0), (1, once)]
    trials = [of_one(complete(number, value, 0.2)) for number, value in values]
    for round_, noise in enumerate((0.99, 1.0, 1.01, 1.0), start=1):
        for number, mean in found.items():
            again = of_one(complete(len(trials), mean * noise, 0.2))
            trials.append(replace(again, repeat_of=number, round=round_))
    content = row(Study(asked, "/studies/small"), trials)
    return {**content, "state": state, "eta": None}


def test_the_value_beside_a_gain_of_the_repeats_is_theirs() -> None:
    gained = at_a_glance("COMPLETE", {0: 90.0, 1: 300.0})
    assert gained["best"]["number"] == 1
    assert gained["best"]["value"] == pytest.approx(300, rel=0.01)
    assert gained["baseline"] == pytest.approx(90, rel=0.01)
    assert gained["gain"] == pytest.approx(gained["best"]["value"] / gained["baseline"] - 1)
    searched = at_a_glance("COMPLETE", {})
    assert (searched["best"]["value"], searched["baseline"]) == (150.0, 100.0)


def test_what_a_status_calls_the_best_depends_on_what_the_finals_found() -> None:
    def said(content: Mapping[str, Any]) -> str:
        return "\n".join(status_lines(content)).replace("\N{NO-BREAK SPACE}", " ")

    gain, none = {0: 100.0, 1: 300.0}, {0: 100.0, 1: 100.0}
    assert "  best so far: trial 1, 150 tok/s (+50 %)" in said(at_a_glance("RUNNING", {}))
    assert "  best: trial 1, 150 tok/s (+50 %)" in said(at_a_glance("CANCELLED", {}))
    assert "  winner: trial 1, 300 tok/s (+200 %)" in said(at_a_glance("COMPLETE", gain))
    kept = said(at_a_glance("COMPLETE", none, once=104.0))
    assert "  no significant gain: keep the defaults, 100 tok/s" in kept
    assert "best" not in kept


@pytest.mark.parametrize("state", ["LOST", "CANCELLED", "FAILED", "COMPLETE", "RUNNING"])
def test_a_study_that_was_broken_off_says_how_to_go_on(state: str) -> None:
    last = status_lines(at_a_glance(state, {}))[-1]
    broken_off = state in ("LOST", "CANCELLED", "FAILED")
    assert last.endswith("to go on: autotuner resume small") == broken_off
    assert ("its driver is gone" in last) == (state == "LOST")


def test_the_time_left_is_that_of_the_points_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, *[240.0] * 20])
    asked = spec(objectives=["output_throughput"], space={"max-num-seqs": [1, 2, 4, 8]})
    trials = [of_one(each) for each in (BASELINE, FASTEST, OUTSIDE, BEST)]
    loop = Loop()
    with Display(Study(asked, "/studies/small"), clock=lambda: next(times)) as display:
        display.begun(loop)
        loop.trials = trials
        display.changed(trials[-1])
    said = capsys.readouterr().err
    assert "search 3 of 4" in said
    # One more point, and two rounds of three finalists and the baseline: nine of 66 s.
    assert "about 9 min 54 s left" in said
