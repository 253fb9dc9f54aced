"""What a report knows of a study's finals, its cost, its failures and its predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import FailureClass
from autotuner.report.accuracy import accuracies, accuracy
from autotuner.report.sentences import statement
from autotuner.report.summary import overview, summary
from autotuner.report.text import plain, refused_text
from autotuner.report.words import span
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import LoadPoint, Phase, Trial, TrialState
from tests.builders import spec, trial

NOISE = (0.99, 1.0, 1.01, 1.0)


def study(state: StudyState = StudyState.COMPLETE, reason: str = "", **changes: Any) -> Study:
    content = {
        "space": {"x": list(range(1, 10)), "y": [1, 2]},
        "engine": {"kind": "vllm"},
        "objectives": ["output_throughput"],
        "verdict": {"finalists": 3, "rounds": 4},
        **changes,
    }
    return Study(spec(**content), "/studies/small", state, reason=reason)


def measured(number: int, value: float, parameters: dict[str, Any], **more: Any) -> Trial:
    metrics = {"output_throughput": value, "ttft_p90": 10 / value}
    return trial(
        number,
        parameters,
        objectives={"output_throughput": value},
        load_points=(LoadPoint(0, "D(100,20)", 4, 10.0, metrics),),
        phases=(Phase("deploy", 0.0, 5.0), Phase("D(100,20) x 4", 5.0, 35.0)),
        **more,
    )


def searched(*values: float, both: bool = True) -> list[Trial]:
    """The baseline and trials after it; the even ones override two parameters."""
    points = [{"x": n, "y": 1} if n % 2 == 0 and both else {"x": n} for n in range(1, len(values))]
    return [
        measured(0, values[0], {}),
        *(measured(n, v, points[n - 1]) for n, v in enumerate(values[1:], start=1)),
    ]


def with_finals(
    trials: list[Trial],
    levels: dict[int, float],
    noise: tuple[float, ...] = NOISE,
    **more: Any,
) -> list[Trial]:
    """The trials, and repeats of some around their levels, in as many rounds as there is noise."""
    found = list(trials)
    for round_, _ in enumerate(noise, start=1):
        for place, (number, level) in enumerate(levels.items()):
            value = level * noise[(round_ + place) % len(noise)]
            again = measured(len(found), value, dict(trials[number].parameters), **more)
            found.append(_repeat(again, number, round_))
    return found


def _repeat(again: Trial, number: int, round_: int) -> Trial:
    return replace(again, repeat_of=number, round=round_)


def said(of: Study, trials: list[Trial]) -> tuple[str, str]:
    """The sentence and its notes, in the characters of a keyboard."""
    found = statement(summary(of, trials))
    return plain(found.sentence), plain(" ".join(found.notes))


def test_without_finals_there_is_no_verdict_and_the_search_has_the_best() -> None:
    found = summary(study(), searched(100, 150))
    assert found["verdict"] is None
    assert (found["winner"], found["best"], found["gain_interval"]) == (1, 1, None)
    assert found["gain"]["output_throughput"] == pytest.approx(0.5)


def test_a_gain_is_that_of_the_repeats_with_its_interval() -> None:
    trials = with_finals(searched(100, 150), {0: 100, 1: 300})
    found = json.loads(json.dumps(summary(study(), trials), allow_nan=False))
    assert (found["winner"], found["best"]) == (1, 1)
    assert found["gain"]["output_throughput"] == pytest.approx(2.0, abs=0.05)
    low, high = found["gain_interval"]
    assert 1.5 < low < found["gain"]["output_throughput"] < high < 2.5
    assert found["verdict"]["finding"] == "gain"
    assert found["verdict"]["reference"] == 0
    assert {each["candidate"]: each["repeats"] for each in found["verdict"]["standings"]} == {
        0: 4,
        1: 4,
    }
    sentence, notes = said(study(), trials)
    assert sentence == found["verdict"]["statement"].replace("\N{NO-BREAK SPACE}", " ")
    assert sentence.startswith("Trial 1 beats vLLM's defaults by 2")
    assert "% (95 % CI 1" in sentence
    assert sentence.endswith("in output throughput: 4 launches each, interleaved.")
    assert "Mean of the repeats: 300 tok/s (trial 1) and 100 tok/s (vLLM's defaults)" in notes
    assert "measured once" not in notes


def test_noise_is_no_gain_and_the_defaults_are_kept() -> None:
    trials = with_finals(searched(100, 104, 103, 102), {0: 100, 1: 100.4, 2: 100, 3: 99.9})
    found = summary(study(), trials)
    assert (found["winner"], found["best"]) == (0, 0)
    sentence, _ = said(study(), trials)
    assert sentence.startswith(
        "No significant gain: the best of 3 finalists is within noise of vLLM's defaults (+"
    )
    assert ", 95 % CI -" in sentence
    assert sentence.endswith("; keep the defaults.")


def test_of_a_large_gain_under_much_noise_it_says_how_to_find_out() -> None:
    advice = "a machine that does nothing else, or more verdict.rounds"
    noise = (0.4, 1.9, 0.7, 1.6)
    trials = with_finals(searched(100, 200), {0: 100, 1: 160}, noise=noise)
    sentence, notes = said(study(), trials)
    assert sentence.startswith("No significant gain: trial 1 is within noise of vLLM's defaults (+")
    assert sentence.endswith("; keep the defaults.")
    assert "The gain measured is large (+" in notes
    assert advice in notes
    small = with_finals(searched(100, 104), {0: 100, 1: 100.4})
    assert advice not in said(study(), small)[1], "a small one is not worth the launches"
    clear = with_finals(searched(100, 150), {0: 100, 1: 300})
    assert advice not in said(study(), clear)[1]


def test_a_finalist_that_is_behind_is_not_said_to_be_within_noise() -> None:
    trials = with_finals(searched(100, 150), {0: 100, 1: 50})
    sentence, _ = said(study(), trials)
    assert sentence.startswith("No gain: launched again, trial 1 is behind vLLM's defaults (-")


def test_of_candidates_that_cannot_be_told_apart_it_says_why_this_one() -> None:
    trials = with_finals(searched(100, 200, 210), {0: 100, 1: 200, 2: 201})
    sentence, notes = said(study(), trials)
    assert sentence.startswith("Trial 1 beats")
    assert "Trials 1 and 2 cannot be told apart; trial 1 overrides fewer defaults." in notes
    alike = with_finals(searched(100, 200, 210, both=False), {0: 100, 1: 200, 2: 201})
    assert "trial 2 measured best." in said(study(), alike)[1]
    levels: dict[int, float] = {0: 100, 1: 200, 2: 201, 3: 202}
    three = with_finals(searched(100, 200, 210, 205), levels)
    assert (
        "Trials 1, 2 and 3 cannot be told apart; "
        "trial 3 overrides the fewest defaults, and measured better."
    ) in said(study(), three)[1]


@pytest.mark.parametrize(
    ("state", "reason", "begins"),
    [
        (StudyState.RUNNING, "", "The finals are under way, 1 round so far: not yet clear"),
        (StudyState.CANCELLED, "interrupted", "Undecided: the finals ended after 1 round, before"),
    ],
)
def test_finals_that_were_cut_short_are_undecided(
    state: StudyState, reason: str, begins: str
) -> None:
    trials = with_finals(searched(100, 150), {0: 100, 1: 300}, (1.0,))
    found = summary(study(state, reason), trials)
    assert found["best"] == 1
    assert found["gain"]["output_throughput"] == pytest.approx(0.5)
    sentence, notes = said(study(state, reason), trials)
    assert sentence.startswith(begins)
    assert "150 tok/s output throughput, +50 % over vLLM's defaults (100 tok/s)" in notes
    assert "measured once" in notes
    assert notes.startswith(reason)


def test_a_gain_that_is_not_proven_is_not_taken_from_the_repeats() -> None:
    trials = with_finals(searched(100, 150), {0: 100, 1: 160}, (0.95, 1.05))
    found = summary(study(), trials)
    assert found["verdict"]["finding"] == "undecided"
    assert found["verdict"]["standings"][1]["gain"] is not None
    assert found["gain_interval"] is None
    assert found["gain"]["output_throughput"] == pytest.approx(0.5)
    assert "whether trial 1 can be told from vLLM's defaults (" in said(study(), trials)[0]


def test_finals_that_ended_early_say_so() -> None:
    trials = with_finals(searched(100, 200, 210), {0: 100, 1: 200, 2: 210}, NOISE[:3])
    found = summary(study(), trials)["verdict"]
    assert (found["finding"], found["decided"]) == ("gain", False)
    assert "The finals ended early, after 3 rounds." in said(study(), trials)[1]


def test_without_a_baseline_the_finalists_are_compared_among_themselves() -> None:
    crashed = trial(0, state=TrialState.INFEASIBLE, failure=FailureClass.CRASH, reason="gone")
    trials = with_finals([crashed, *searched(100, 200, 110)[1:]], {1: 200, 2: 100})
    sentence, notes = said(study(), trials)
    assert sentence == (
        "Trial 1 is the best of 2 finalists: 200 tok/s output throughput, "
        "4 launches each, interleaved."
    )
    assert "vLLM's defaults gave no measurement" in notes
    assert summary(study(), trials)["gain_interval"] is None


def test_finalists_that_do_not_come_through_are_named_with_the_reason() -> None:
    trials = searched(100, 150)
    again = trial(
        2,
        {"x": 1},
        TrialState.INFEASIBLE,
        failure=FailureClass.CRASH,
        reason="killed",
        repeat_of=1,
        round=1,
    )
    trials += [again, *(_repeat(measured(n, 100, {}), 0, n - 2) for n in (3, 4))]
    sentence, notes = said(study(), trials)
    assert sentence == "No finalist came through its repeats; keep the defaults."
    assert "Trial 1 cannot win: killed." in notes


def test_of_several_objectives_the_verdict_is_on_the_first() -> None:
    of = study(objectives=["output_throughput", "ttft_p90"])

    def both(trials: list[Trial]) -> list[Trial]:
        return [replace(t, objectives={**t.objectives, "ttft_p90": t.number + 1.0}) for t in trials]

    trials = both(with_finals(searched(100, 300), {0: 100, 1: 300}))
    _, notes = said(of, trials)
    assert (
        "The verdict is on the first objective, output throughput; also on the Pareto front: 0."
    ) in notes


def test_the_gain_of_a_time_is_a_speed_up() -> None:
    of = study(objectives=["ttft_p90"])
    trials = [
        Trial(**{**vars(t), "objectives": {"ttft_p90": 30 / t.objectives["output_throughput"]}})  # type: ignore[operator]
        for t in with_finals(searched(100, 200), {0: 100, 1: 200})
    ]
    sentence, _ = said(of, trials)
    assert "in the speed of TTFT p90: 4 launches each" in sentence


def test_a_winner_that_pays_for_its_slo_says_so() -> None:
    of = study(slo={"mode": "penalty", "ttft_p90": {"max": 0.05}})
    broken = {"violations": {"ttft_p90": 0.1}, "penalty": 2.0}
    trials = [measured(0, 100, {}), measured(1, 400, {"x": 1}, **broken)]
    assert (
        "Trial 1 breaks its SLO: TTFT p90 10 % above its bound (minor); it is ranked as 200"
        in (said(of, trials)[1])
    )
    row = summary(of, trials)["trials"][1]
    assert row["scores"] == {"output_throughput": 200.0}
    assert row["severity"] == {"ttft_p90": "minor"}


def test_a_verdict_over_values_with_penalties_says_that_they_are_no_measurements() -> None:
    of = study(slo={"mode": "penalty", "ttft_p90": {"max": 0.05}})
    trials = [
        replace(each, violations={"ttft_p90": 0.1}, penalty=2.0)
        if 0 in (each.number, each.repeat_of)
        else each
        for each in with_finals(searched(100, 100), {0: 100, 1: 100})
    ]
    sentence, notes = said(of, trials)
    assert "in output throughput, the penalty of broken SLOs included: " in sentence
    assert "Mean of the repeats, penalties included: " in notes
    assert "defaults break the SLO: TTFT p90 10 % above its bound (minor); they are ranked" in notes


def test_trials_that_were_measured_and_cannot_be_ranked_say_why() -> None:
    reason = "tpot_p90 could not be measured at every load point"
    trials = [
        replace(each, state=TrialState.INFEASIBLE, reason=reason)
        for each in [measured(0, 100, {}), measured(1, 200, {"x": 1})]
    ]
    assert trials[0].load_points
    sentence, notes = said(study(), trials)
    assert sentence == "No trial can be ranked."
    assert f"Of 2 trials: {reason}." in notes


@pytest.mark.parametrize(
    ("violation", "severity"),
    [(-0.1, {}), (0.1, {"ttft_p90": "minor"}), (0.3, {"ttft_p90": "severe"})],
)
def test_a_violation_has_its_severity(violation: float, severity: dict[str, str]) -> None:
    of = study(slo={"ttft_p90": {"max": 0.05, "hard": True}})
    rows = [measured(0, 100, {}, violations={"ttft_p90": violation})]
    assert summary(of, rows)["trials"][0]["severity"] == severity
    assert summary(of, rows)["study"]["bounds"] == {"ttft_p90": 0.05}
    assert summary(of, rows)["study"]["constraints"] == ["ttft_p90 <= 0.05 s (hard)"]
    hard = [measured(0, 100, {}, violations={"ttft_p90": 0.6})]
    assert summary(of, hard)["trials"][0]["severity"] == {"ttft_p90": "hard fail"}


def test_the_cost_adds_up_what_was_launched() -> None:
    trials = [
        measured(0, 100, {}, gpu_ids=("0", "1")),
        trial(1, {}, TrialState.INFEASIBLE, failure=FailureClass.REFUSED, reason="no"),
        trial(2, {}, TrialState.PENDING),
        measured(3, 100, {"x": 1}, gpu_ids=("0",), repeat_of=0, round=1),
    ]
    assert overview(study(), trials)["cost"] == {
        "launches": 2,
        "seconds": 70.0,
        "gpu_hours": pytest.approx(3 * 35 / 3600),
    }


def test_failures_are_grouped_by_class_and_refusals_by_reason() -> None:
    memory = {"failure": FailureClass.MEMORY_AT_LOAD, "advice": "raise mem-fraction-static"}
    refused = {"failure": FailureClass.REFUSED}
    trials = [
        trial(0, state=TrialState.FAILED, reason="node died"),
        trial(1, {"x": 1}, TrialState.INFEASIBLE, reason="2 GiB", **memory),
        trial(2, {"x": 2}, TrialState.INFEASIBLE, reason="4 GiB", **memory),
        trial(3, {"x": 3}, TrialState.INFEASIBLE, reason="4 GiB", **memory),
        trial(4, {"x": 4}, TrialState.INFEASIBLE, reason="heads", **refused),
        trial(5, {"x": 5}, TrialState.INFEASIBLE, reason="heads", **refused),
        trial(6, {"x": 6}, TrialState.STOPPED, reason="stopped after the first"),
    ]
    found = summary(study(), trials)
    assert found["failures"] == [
        {
            "failure": "out of memory at load",
            "count": 3,
            "trials": [1, 2, 3],
            "reasons": [{"reason": "4 GiB", "count": 3, "reasons": 2}],
            "advice": ["raise mem-fraction-static"],
        },
        {
            "failure": "infrastructure",
            "count": 1,
            "trials": [0],
            "reasons": [{"reason": "node died", "count": 1, "reasons": 1}],
            "advice": [],
        },
    ]
    assert found["refused"] == [{"reason": "heads", "count": 2, "trials": [4, 5]}]
    assert found["refusals"] == [{"reason": "heads", "count": 2, "reasons": 1}]


def test_refusals_that_differ_in_their_numbers_are_one() -> None:
    refused = {"failure": FailureClass.REFUSED}
    reasons = ["may use 13.3", "may use 12.4", "heads", "may use 12.4"]
    trials = [
        trial(number, {"x": number}, TrialState.INFEASIBLE, reason=reason, **refused)
        for number, reason in enumerate(reasons, start=1)
    ]
    found = summary(study(), trials)
    assert found["refusals"] == [
        {"reason": "may use 12.4", "count": 3, "reasons": 2},
        {"reason": "heads", "count": 1, "reasons": 1},
    ]
    assert len(found["refused"]) == 3, "each in its own words"
    said = refused_text(found)
    assert said is not None
    assert str(said).splitlines()[1:] == [
        "4 points were refused before launch",
        "       3  e.g. may use 12.4",
        "       1  heads",
    ]


def test_predictions_are_compared_with_what_was_measured() -> None:
    said_too = {"output_throughput": 110.0, "ttft_p90": 0.1, "tpot_p90": 1.0}
    trials = [
        measured(1, 100, {"x": 1}, predicted=said_too),
        measured(2, 200, {"x": 2}, predicted={"output_throughput": 160.0, "ttft_p90": None}),
        measured(3, 300, {"x": 3}, predicted={"output_throughput": 200.0}),
        measured(4, 900, {"x": 1}, predicted=said_too, repeat_of=1, round=1),
        trial(5, {"x": 5}, TrialState.STOPPED, predicted=said_too),
    ]
    found = accuracies(trials)
    assert set(found) == {"output_throughput", "ttft_p90"}
    assert [each.trials for each in found.values()] == [3, 1]
    assert [each.error for each in found.values()] == pytest.approx([0.2, 0.0])
    assert found["output_throughput"].rank_correlation == pytest.approx(1.0)
    assert found["ttft_p90"].rank_correlation is None


def test_a_reversed_order_has_a_rank_correlation_of_minus_one() -> None:
    assert accuracy([(1.0, 3.0), (2.0, 2.0), (9.0, 1.0)]).rank_correlation == pytest.approx(-1)


_VALUES = st.floats(0, 1e9, allow_nan=False)


@given(st.lists(st.tuples(_VALUES, _VALUES), max_size=6))
def test_an_accuracy_stands_on_any_pairs(pairs: list[tuple[float, float]]) -> None:
    found = accuracy(pairs)
    assert found.trials == len(pairs)
    assert found.error is None or found.error >= 0
    assert found.rank_correlation is None or -1.000001 <= found.rank_correlation <= 1.000001


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.81, 2.17, "181 to 217 %"),
        (-0.012, 0.02, "-1.2 to +2.0 %"),
        (0.021, 0.08, "2.1 to 8.0 %"),
        (0.047, 1.881, "4.7 to 188 %"),
        (-0.5, -0.3, "-50 to -30 %"),
        (None, 0.1, "-"),
    ],
)
def test_an_interval_has_signs_where_it_reaches_below_zero(
    low: float | None, high: float | None, text: str
) -> None:
    assert plain(span(low, high)) == text


@pytest.mark.parametrize(("overlap", "said"), [(0.9, True), (0.1, False), (None, False)])
def test_prompts_that_begin_alike_are_warned_of(overlap: float | None, said: bool) -> None:
    metrics = {"output_throughput": 5.0, "prompt_overlap": overlap}
    points = (LoadPoint(0, "D(100,20)", 4, 10.0, metrics),)
    only = trial(0, {}, objectives={"output_throughput": 5.0}, load_points=points)
    notes = " ".join(statement(summary(study(), [only])).notes)
    assert ("too alike" in notes) == said
    assert ("90%" in notes) == said
