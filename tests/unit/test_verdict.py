"""The verdict: its statistics against textbook ones, its rules, and its error rates in small.

`make bench-verdict` has the error rates in full.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import statistics
from collections.abc import Mapping
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import studentized_range

from autotuner.study.metrics import METRICS
from autotuner.study.verdict import Contest, Finding, Verdict, judge
from tests.bench.verdict import CASES, EXPECTED, HEAVY, Summary, answers

Round = Mapping[int, float | None]

THROUGHPUT, LATENCY = METRICS["output_throughput"], METRICS["ttft_p99"]

CLEAR: list[Round] = [
    {0: 100.0, 1: 130.0, 2: 101.0},
    {0: 101.0, 1: 131.0, 2: 99.0},
    {0: 99.0, 1: 129.5, 2: 100.5},
]
"""Finalist 1 is better by some 30 %, finalist 2 is as the baseline."""


def judged(*rounds: Round, overrides: Mapping[int, int] | None = None, **more: Any) -> Verdict:
    return judge(
        Contest(
            **{
                "objective": THROUGHPUT,
                "baseline": 0,
                "overrides": {1: 1, 2: 1} if overrides is None else overrides,
                "rounds": rounds,
                **more,
            }
        )
    )


def test_the_first_round_launches_everyone() -> None:
    verdict = judged()
    assert verdict.finding is Finding.UNDECIDED
    assert not verdict.decided
    assert verdict.active == (0, 1, 2)
    assert verdict.winner is None
    assert verdict.noise is None
    assert [each.gain for each in verdict.standings] == [None] * 3


def test_one_round_says_nothing_however_large_the_difference() -> None:
    verdict = judged({0: 1.0, 1: 1000.0, 2: 1.0})
    assert verdict.finding is Finding.UNDECIDED
    assert set(verdict.active) == {0, 1, 2}


def test_a_clear_gain_is_declared_with_its_interval() -> None:
    verdict = judged(*CLEAR)
    assert verdict.finding is Finding.GAIN
    assert verdict.decided
    assert verdict.active == ()
    assert (verdict.winner, verdict.tied, verdict.reference) == (1, (1,), 0)
    assert (verdict.rounds, verdict.launches, verdict.confidence) == (3, 9, 0.95)
    best, other = verdict.standing(1), verdict.standing(2)
    assert best.gain == pytest.approx(0.301, abs=0.002)
    assert best.low is not None
    assert best.high is not None
    assert 0.2 < best.low < 0.301 < best.high < 0.4
    assert best.separated
    assert not other.separated
    assert verdict.standing(0).gain is None
    assert best.value == pytest.approx(statistics.geometric_mean([130.0, 131.0, 129.5]))
    assert verdict.noise == pytest.approx(0.01, abs=0.005)


def test_the_estimates_are_those_of_the_textbook() -> None:
    # A balanced two-way table without interaction: differences of means, and the residual mean
    # square after rows and columns, by hand in numpy.
    table = numpy.log([[each[c] or 0.0 for c in (0, 1, 2)] for each in CLEAR])
    means = table.mean(axis=0)
    residuals = table - means - table.mean(axis=1, keepdims=True) + table.mean()
    sigma = math.sqrt((residuals**2).sum() / (2 * 2))
    verdict = judged(*CLEAR)
    assert verdict.noise == pytest.approx(sigma)
    best = verdict.standing(1)
    assert best.gain == pytest.approx(math.exp(means[1] - means[0]) - 1)
    # Four looks at most: 5 % / 4 each. All pairs of three at once: the studentized range.
    apart = table[:, 1] - table[:, 0]
    error = max(sigma * math.sqrt(2 / 3), apart.std(ddof=1) / math.sqrt(3))
    half = studentized_range.isf(0.05 / 4, 3, 4) / math.sqrt(2) * error
    assert best.low == pytest.approx(math.exp(means[1] - means[0] - half) - 1)
    assert best.high == pytest.approx(math.exp(means[1] - means[0] + half) - 1)


def test_drift_between_rounds_cancels() -> None:
    drifted = [
        {c: value * level for c, value in each.items() if value}
        for each, level in zip(CLEAR, (1.0, 0.5, 3.0), strict=True)
    ]
    still, moved = judged(*CLEAR), judged(*drifted)
    assert moved.noise == pytest.approx(still.noise)
    for one, other in zip(still.standings[1:], moved.standings[1:], strict=True):
        assert one.gain == pytest.approx(other.gain)
        assert one.low == pytest.approx(other.low)


def test_half_the_latency_is_as_much_gain_as_twice_the_throughput() -> None:
    inverse = [{c: 1 / value for c, value in each.items() if value} for each in CLEAR]
    up, down = judged(*CLEAR), judged(*inverse, objective=LATENCY)
    assert down.winner == 1
    assert down.standing(1).gain == pytest.approx(up.standing(1).gain)
    assert down.standing(1).low == pytest.approx(up.standing(1).low)
    assert down.standing(1).value == pytest.approx(1 / (up.standing(1).value or 0.0))


def test_without_a_difference_it_says_so_and_stops() -> None:
    verdict = judged({0: 100, 1: 100.3, 2: 99.5}, {0: 100.4, 1: 99.9, 2: 100.1})
    assert verdict.finding is Finding.NO_GAIN
    assert verdict.decided, "five rounds could not tell so little apart"
    assert (verdict.winner, verdict.tied, verdict.active) == (None, (), ())


def test_the_last_round_decides_whatever_it_says() -> None:
    rounds = [{0: 100.0, 1: 106.0 + i, 2: 95.0 - i} for i in (0, 3, -2)]
    assert not judged(*rounds).decided
    verdict = judged(*rounds, most_rounds=3)
    assert verdict.decided
    assert verdict.finding is Finding.NO_GAIN


def test_what_was_cut_off_before_it_was_compared_is_not_no_gain() -> None:
    # Interrupted in the last round: the defaults were launched once only.
    verdict = judged({0: 100.0, 1: 130.0}, {1: 131.0}, overrides={1: 1}, most_rounds=2)
    assert verdict.standing(1).low is None
    assert verdict.finding is Finding.UNDECIDED
    assert (verdict.winner, verdict.active) == (None, ())


def test_all_worse_than_the_defaults_is_no_gain() -> None:
    verdict = judged(*[{0: 100.0 + i, 1: 50.0 + i, 2: 60.0 + i} for i in (0, 1, 2)])
    assert verdict.finding is Finding.NO_GAIN
    assert verdict.standing(1).separated
    assert (verdict.standing(1).high or 0) < 0


TWINS: list[Round] = [
    {0: 100.0, 1: 131.0, 2: 130.0},
    {0: 101.0, 1: 132.0, 2: 131.5},
    {0: 99.0, 1: 130.5, 2: 130.0},
]


@pytest.mark.parametrize(
    ("overrides", "winner"), [({1: 5, 2: 1}, 2), ({1: 1, 2: 5}, 1), ({2: 2, 1: 2}, 1)]
)
def test_of_those_not_told_apart_the_one_nearest_to_the_defaults_wins(
    overrides: Mapping[int, int], winner: int
) -> None:
    verdict = judged(*TWINS, overrides=overrides)
    assert verdict.winner == winner
    assert verdict.tied == (winner, 3 - winner)


def test_fewer_overrides_do_not_help_against_what_is_clearly_better() -> None:
    verdict = judged(*CLEAR, overrides={1: 9, 2: 1})
    assert verdict.winner == 1
    both = [{0: 100.0 + i, 1: 200.0 + i, 2: 150.0 + i} for i in (0.0, 0.4, 0.2)]
    assert judged(*both, overrides={1: 9, 2: 1}).winner == 1


def test_whoever_is_told_apart_is_not_launched_again() -> None:
    # 1 leads clearly; 2 is clearly worse; 3 may still win, and has fewer overrides.
    rounds = [
        {0: 100.0, 1: 160.0, 2: 60.0, 3: 118.0},
        {0: 101.0, 1: 161.0, 2: 61.0, 3: 112.0},
        {0: 100.5, 1: 159.0, 2: 60.5, 3: 106.0},
    ]
    verdict = judged(*rounds, overrides={1: 1, 2: 1, 3: 1})
    assert verdict.decided
    assert verdict.winner == 1
    close = [{0: 100.0, 1: 107.0, 2: 60.0}, {0: 102.0, 1: 106.0, 2: 60.0}]
    verdict = judged(*close)
    assert not verdict.decided
    assert set(verdict.active) == {0, 1}


def test_what_was_told_apart_stays_so_although_it_is_not_launched_again() -> None:
    # After two rounds 1 beats the baseline, and only 1 and 2 are compared; then 2 scatters, so
    # that the pooled noise alone would take the gain back.
    rounds: list[Round] = [
        {0: 100.0, 1: 200.0, 2: 180.0, 3: 100.0},
        {0: 100.5, 1: 200.5, 2: 179.0, 3: 100.2},
    ]
    before = judged(*rounds, overrides={1: 3, 2: 1, 3: 1})
    assert before.standing(1).separated
    after = judged(*rounds, {1: 200.0, 2: 390.0}, {1: 200.0, 2: 20.0}, overrides={1: 3, 2: 1, 3: 1})
    assert after.standing(1).separated
    assert (after.standing(1).low or 0.0) > 0
    assert after.finding is Finding.GAIN


def test_a_finalist_that_another_beats_is_not_measured_against_the_baseline() -> None:
    # The baseline scatters, so that both may still be above it; 2 is clearly below 1.
    quiet = {1: 245.0, 2: 145.0, 3: 100.0, 4: 100.0, 5: 100.0}
    verdict = judged({0: 100.0, **quiet}, {0: 130.0, **quiet}, overrides=dict.fromkeys(quiet, 1))
    assert verdict.finding is Finding.UNDECIDED
    assert set(verdict.active) == {0, 1}


def test_one_with_fewer_overrides_is_measured_on_until_it_is_better_too() -> None:
    # 1 is above the baseline; 2, nearer to the defaults, is not yet.
    rounds = [{0: 100.0, 1: 112.0, 2: 105.5}, {0: 101.5, 1: 112.0, 2: 106.5}]
    verdict = judged(*rounds, overrides={1: 3, 2: 1})
    assert (verdict.finding, verdict.winner, verdict.decided) == (Finding.GAIN, 1, False)
    assert set(verdict.active) == {0, 2}
    assert judged(*rounds, overrides={1: 1, 2: 3}).decided, "2 could win nothing any more"


def test_one_that_the_machine_kept_from_its_repeats_may_still_lead() -> None:
    rounds: list[Round] = [{0: 100.0, 1: 130.0, 2: 160.0, 3: 99.5}, {0: 100.3, 1: 130.0, 3: 100.0}]
    verdict = judged(*rounds, overrides={1: 1, 2: 2, 3: 1})
    assert (verdict.finding, verdict.winner, verdict.decided) == (Finding.GAIN, 1, False)
    assert set(verdict.active) == {0, 2}


def test_the_best_is_measured_on_only_against_whom_it_may_take_the_win_from() -> None:
    rounds = [{0: 100.0, 1: 206.0, 2: 200.0}, {0: 100.8, 1: 208.0, 2: 200.3}]
    verdict = judged(*rounds, overrides={1: 3, 2: 1})
    assert (verdict.winner, verdict.decided) == (2, False)
    assert set(verdict.active) == {1, 2}
    assert judged(*rounds, overrides={1: 1, 2: 3}).decided
    bare = [{c: value for c, value in each.items() if c} for each in rounds]
    verdict = judged(*bare, baseline=None, overrides={1: 3, 2: 1}, most_rounds=30)
    assert (verdict.winner, verdict.decided) == (2, False)


@pytest.mark.parametrize("percent", [x / 10 for x in range(1, 80, 3)])
def test_a_finalist_is_measured_on_while_it_has_a_chance_of_one_in_twenty(percent: float) -> None:
    better = 1 + percent / 100
    verdict = judged({0: 100.0, 1: 101.0 * better}, {0: 101.0, 1: 100.0 * better}, overrides={1: 1})
    assert verdict.noise == pytest.approx(0.00995, abs=1e-4)
    error, share = verdict.noise or 0.0, 2 / 5
    # With both launched on, each of the three rounds left adds a degree of freedom to the one.
    half = studentized_range.isf(0.05 / 4, 2, 4) / math.sqrt(2) * error * math.sqrt(share)
    chance = 1 - statistics.NormalDist(math.log(better), error * math.sqrt(1 - share)).cdf(half)
    assert verdict.decided == (chance < 0.05)


def test_a_single_value_is_no_repeat() -> None:
    rest: list[Round] = [{c: value for c, value in each.items() if c != 1} for each in CLEAR[1:]]
    verdict = judged(CLEAR[0], *rest, most_rounds=3)
    assert verdict.finding is Finding.NO_GAIN
    assert verdict.standing(1).gain is None
    assert verdict.standing(1).value is not None


def test_the_order_of_launches_moves_on_every_round() -> None:
    noisy = [{0: 100.0, 1: 110.0, 2: 108.0}, {0: 104.0, 1: 108.0, 2: 110.0}]
    assert judged().active == (0, 1, 2)
    assert judged(noisy[0]).active == (1, 2, 0)
    assert judged(*noisy).active == (2, 0, 1)


def test_a_finalist_that_crashed_cannot_win() -> None:
    rounds = [*CLEAR[:2], {0: 99.0, 1: None, 2: 100.5}]
    verdict = judged(*rounds)
    assert verdict.winner is None
    assert verdict.finding is Finding.NO_GAIN
    assert verdict.standing(1).out == "round 3 gave no value"
    assert verdict.standing(1).gain == pytest.approx(0.3, abs=0.01), "what it showed is kept"


def test_a_finalist_that_broke_a_bound_cannot_win() -> None:
    verdict = judged(*CLEAR, out={1: "ttft_p99 0.8 s is above 0.5 s"})
    assert verdict.winner is None
    assert "ttft_p99" in verdict.standing(1).out
    assert judged(out={1: "x"}).active == (0, 2)


def test_a_baseline_that_breaks_a_bound_is_compared_all_the_same() -> None:
    verdict = judged(CLEAR[0], out={0: "ttft_p99 is out of bounds"})
    assert set(verdict.active) == {0, 1, 2}
    verdict = judged(*CLEAR, out={0: "ttft_p99 is out of bounds"})
    assert (verdict.reference, verdict.winner) == (0, 1)
    assert "ttft_p99" in verdict.standing(0).out


def test_when_nobody_is_left_it_ends() -> None:
    assert judged({0: 100.0, 1: None, 2: None}).finding is Finding.NO_FINALIST
    assert judged({0: 100.0, 1: None, 2: None}).decided
    assert judged(overrides={}).finding is Finding.NO_FINALIST


def test_a_launch_that_the_machine_broke_is_no_entry_and_only_costs_time() -> None:
    rounds: list[Round] = [CLEAR[0], {0: 101.0, 2: 99.0}]
    verdict = judged(*rounds)
    assert not verdict.decided
    assert {0, 1} <= set(verdict.active)
    assert verdict.standing(1).out == ""
    verdict = judged(*rounds, CLEAR[1], CLEAR[2])
    assert verdict.winner == 1
    assert verdict.standing(1).repeats == 3


@pytest.mark.parametrize("rounds", [CLEAR, [{0: None, **{c: v for c, v in CLEAR[0].items() if c}}]])
def test_without_a_baseline_the_finalists_are_compared_among_themselves(
    rounds: list[Round],
) -> None:
    bare: list[Round] = [{c: value for c, value in each.items() if c} for each in CLEAR]
    failed = rounds[0].get(0) is None
    verdict = judged(*([rounds[0], *bare[1:]] if failed else bare), baseline=0 if failed else None)
    assert verdict.finding is Finding.NO_BASELINE
    assert verdict.decided
    assert verdict.winner == verdict.reference == 1
    assert verdict.standing(2).gain is not None
    assert verdict.standing(2).gain == pytest.approx(100.17 / 130.17 - 1, abs=0.002)
    assert verdict.standing(2).separated


def test_without_a_baseline_ties_go_to_the_fewest_overrides() -> None:
    bare = [{c: value for c, value in each.items() if c} for each in TWINS]
    assert judged(*bare, baseline=None, overrides={1: 5, 2: 1}).winner == 2


def test_a_single_finalist_without_a_baseline_is_launched_twice_all_the_same() -> None:
    alone: dict[str, Any] = {"baseline": None, "overrides": {4: 2}}
    assert judged(**alone).active == (4,)
    assert judged({4: 10.0}, **alone).active == (4,)
    verdict = judged({4: 10.0}, {4: 11.0}, **alone)
    assert (verdict.winner, verdict.decided) == (4, True)
    assert verdict.finding is Finding.NO_BASELINE


def test_a_baseline_that_crashed_once_still_counts_where_it_was_measured_twice() -> None:
    verdict = judged(*CLEAR[:2], {0: None, 1: 129.5, 2: 100.5})
    assert verdict.reference == 0
    assert verdict.winner == 1


def test_nobody_is_launched_against_a_baseline_that_cannot_be_launched_again() -> None:
    rounds = [{0: 100.0, 1: 107.0, 2: 60.0}, {0: 102.0, 1: 106.0, 2: 60.0}]
    assert set(judged(*rounds).active) == {0, 1}
    verdict = judged(*rounds, {0: None, 1: 106.5})
    assert (verdict.finding, verdict.decided) == (Finding.NO_GAIN, True)


def test_a_value_of_zero_has_no_ratio() -> None:
    verdict = judged({0: 100.0, 1: 0.0, 2: 101.0}, {0: 100.0, 2: 101.0})
    assert verdict.standing(1).out == "round 1 gave 0, which has no ratio"
    for value in (math.nan, math.inf, -1.0):
        assert judged({0: 100.0, 1: value, 2: 101.0}).standing(1).out


def test_values_that_repeat_exactly_are_told_apart_by_any_difference() -> None:
    for value in (100.0, 1.0):
        same = judged(*[{0: value, 1: value, 2: value}] * 2)
        assert same.finding is Finding.NO_GAIN
    other = judged(*[{0: 100.0, 1: 100.1, 2: 100.0}] * 2)
    assert (other.finding, other.winner, other.decided) == (Finding.GAIN, 1, True)


def test_steps_of_the_objective_are_no_gain() -> None:
    step = [{0: 100.0, 1: 110.0, 2: 100.0}] * 3
    assert judged(*step, resolution=0.1).winner is None
    assert judged(*step, resolution=0.05).winner == 1
    assert judged(*[{0: 100.0, 1: 133.1, 2: 100.0}] * 3, resolution=0.1).winner == 1


def test_a_pair_that_scatters_more_than_the_others_is_judged_by_itself() -> None:
    # 1 and 2 repeat well, the baseline does not: pooled noise alone would call it a gain.
    loud = [
        {0: 100.0, 1: 160.0, 2: 160.0, 3: 160.0, 4: 160.0},
        {0: 140.0, 1: 160.5, 2: 160.0, 3: 160.2, 4: 160.1},
        {0: 95.0, 1: 160.0, 2: 160.5, 3: 160.1, 4: 160.2},
    ]
    verdict = judged(*loud, overrides=dict.fromkeys((1, 2, 3, 4), 1), most_rounds=3)
    assert verdict.finding is Finding.NO_GAIN


def test_a_higher_confidence_widens_the_interval() -> None:
    wide, narrow = judged(*CLEAR, confidence=0.99), judged(*CLEAR, confidence=0.8)
    assert (wide.standing(1).low or 0) < (narrow.standing(1).low or 0)
    assert (wide.standing(1).high or 0) > (narrow.standing(1).high or 0)


def test_more_looks_cost_width() -> None:
    assert (judged(*CLEAR, most_rounds=9).standing(1).low or 0) < (
        judged(*CLEAR, most_rounds=3).standing(1).low or 0
    )


@pytest.mark.parametrize(
    "wrong", [{"most_rounds": 1}, {"confidence": 1.0}, {"confidence": 0.0}, {"confidence": 95}]
)
def test_what_cannot_be_judged_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        judged(**wrong)


CELL = st.one_of(st.none(), st.just(0.0), st.floats(1e-6, 1e6))
ROUNDS = st.lists(st.dictionaries(st.integers(0, 3), CELL), max_size=5)


@settings(max_examples=150, deadline=None)
@given(ROUNDS, st.sampled_from([0, None]), st.dictionaries(st.integers(1, 3), st.integers(0, 4)))
def test_whatever_was_measured_there_is_a_verdict_that_can_be_stored(
    rounds: list[dict[int, float | None]], baseline: int | None, overrides: dict[int, int]
) -> None:
    verdict = judged(*rounds, baseline=baseline, overrides=overrides)
    json.dumps(dataclasses.asdict(verdict), allow_nan=False)
    assert verdict.decided == (not verdict.active)
    assert len(rounds) < 5 or verdict.decided
    assert (verdict.winner is None) == (not verdict.tied)
    if verdict.winner is not None:
        assert not verdict.standing(verdict.winner).out
        if verdict.finding is Finding.GAIN:
            assert verdict.standing(verdict.winner).separated
            assert (verdict.standing(verdict.winner).low or 0) > 0
    assert all(not verdict.standing(each).out for each in verdict.active)


@given(st.floats(0.01, 1000.0), st.permutations([0, 1, 2]))
@settings(max_examples=25, deadline=None)
def test_neither_units_nor_order_change_anything(unit: float, order: list[int]) -> None:
    other = [{c: (each[c] or 0.0) * unit for c in order} for each in CLEAR]
    one, two = judged(*CLEAR), judged(*other)
    assert two.winner == one.winner
    assert two.standing(1).gain == pytest.approx(one.standing(1).gain)
    assert two.standing(1).low == pytest.approx(one.standing(1).low)


BY_NAME = {case.name: case for case in CASES}


def summary(name: str, seeds: int = 50) -> Summary:
    return Summary.of(BY_NAME[name], list(answers(BY_NAME[name], seeds)))


@pytest.mark.parametrize(
    "name", ["null, noise 1 %", "null, noise 10 %", "null, baseline 5 %, others 1 %"]
)
def test_where_all_is_noise_nothing_is_declared(name: str) -> None:
    assert summary(name).declared <= 0.10


def test_a_real_gain_is_declared_and_the_winner_is_truly_better() -> None:
    found = summary(EXPECTED)
    assert found.declared >= 0.95
    assert found.right >= 0.95
    assert found.covered >= 0.90


def test_heavy_gains_end_soon() -> None:
    found = summary(HEAVY)
    assert found.right >= 0.95
    assert found.rounds <= 3
    assert found.soon >= 0.85


def test_two_candidates_alone_are_held_to_the_same_error() -> None:
    wrong = 0
    for seed in range(200):
        chance, rounds = random.Random(seed), list[Round]()
        while not (verdict := judged(*rounds, overrides={1: 1})).decided:
            rounds.append({each: 100 * math.exp(chance.gauss(0, 0.05)) for each in verdict.active})
        wrong += verdict.finding is Finding.GAIN
    assert wrong <= 10
