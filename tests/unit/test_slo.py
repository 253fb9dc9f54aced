"""The `slo` block: rows, what is refused and where, profiles, and that it survives storing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from autotuner.study.metrics import METRICS, Better
from autotuner.study.slo import SLO, SLOSpec, bounded_metrics, profile, profiles


class Holder(BaseModel):
    """As the study file holds it."""

    slo: SLOSpec | None = None


def slo(**content: Any) -> SLOSpec:
    found = Holder.model_validate({"slo": content}).slo
    assert found is not None
    return found


def mistakes(**content: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        slo(**content)
    return {".".join(map(str, each["loc"])): each["msg"] for each in caught.value.errors()}


def test_a_row_says_a_bound_and_the_rest_has_the_predecessors_defaults() -> None:
    found = slo(ttft_p99={"max": 0.5}, output_throughput={"min": 100})
    assert found.rows == {
        "ttft_p99": SLO(max=0.5, weight=1.0, hard=False, fail_ratio=0.5),
        "output_throughput": SLO(min=100.0),
    }
    assert [row.bound for row in found.rows.values()] == [0.5, 100.0]
    assert (found.mode, found.steepness, found.profile) == ("constraint", 0.1, None)


@pytest.mark.parametrize("name", bounded_metrics())
def test_every_metric_takes_the_bound_that_fits_its_direction_and_no_other(name: str) -> None:
    right, wrong = ("max", "min") if METRICS[name].better is Better.LOWER else ("min", "max")
    assert slo(**{name: {right: 1}}).rows[name].bound == 1.0
    assert f"write {right}" in mistakes(**{name: {wrong: 1}})[f"slo.{name}.{wrong}"]


def test_the_metrics_of_the_predecessor_and_more_can_be_bounded() -> None:
    names = set(bounded_metrics())
    assert {
        f"{latency}_{statistic}"
        for latency in ("ttft", "tpot", "e2e_latency")
        for statistic in ("mean", "p50", "p90", "p95", "p99")
    } <= names
    assert {"error_rate", "goodput", "total_throughput", "output_throughput_per_gpu"} <= names
    assert names.isdisjoint({"requests", "max_load"})


def test_an_unknown_metric_is_answered_with_the_names_near_it() -> None:
    found = mistakes(ttft_p9={"max": 1}, ttft={"max": 2})
    assert "did you mean ttft_p99" in found["slo.ttft_p9"]
    assert "ttft_p9" in found["slo.ttft"]
    assert "allowed: ttft_mean" in mistakes(qqq={"max": 1})["slo.qqq"]
    assert "mode" in mistakes(mod="penalty")["slo.mod"]


@pytest.mark.parametrize(
    ("row", "place", "problem"),
    [
        ({}, "slo.ttft_p99", "either max or min"),
        ({"max": 1, "weight": 0}, "slo.ttft_p99.weight", "greater than 0"),
        ({"max": 1, "weight": -1}, "slo.ttft_p99.weight", "greater than 0"),
        ({"max": 1, "fail_ratio": -0.1}, "slo.ttft_p99.fail_ratio", "greater than or equal"),
        ({"max": -1}, "slo.ttft_p99.max", "greater than or equal"),
        ({"max": "1"}, "slo.ttft_p99.max", "valid number"),
        ({"max": 1, "hard": 1}, "slo.ttft_p99.hard", "boolean"),
        ({"max": float("inf")}, "slo.ttft_p99.max", "finite"),
        ({"threshold": 1}, "slo.ttft_p99.threshold", "allowed: max, min, weight"),
        ({"max": 1, "wieght": 2}, "slo.ttft_p99.wieght", "did you mean weight"),
        (0.5, "slo.ttft_p99", "write {max: NUMBER}"),
        (None, "slo.ttft_p99", "write {max: NUMBER}"),
    ],
)
def test_a_wrong_row_is_refused_where_it_is_wrong(row: Any, place: str, problem: str) -> None:
    assert problem in mistakes(ttft_p99=row)[place]


def test_both_bounds_are_refused() -> None:
    with pytest.raises(ValidationError, match="either max or min"):
        SLO(max=1.0, min=0.5)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"mode": "hard"}, "slo.mode"),
        ({"steepness": 0}, "slo.steepness"),
        ({"steepness": "0.1"}, "slo.steepness"),
        ({"profile": 3}, "slo.profile"),
    ],
)
def test_the_other_keys_are_checked_too(content: dict[str, Any], place: str) -> None:
    assert place in mistakes(**content)


def test_all_mistakes_of_a_block_are_said_together() -> None:
    assert len(mistakes(ttft_p9={"max": 1}, goodput={"max": 1}, error_rate=0.1)) == 3


def test_it_is_stored_and_read_again_unchanged() -> None:
    found = slo(mode="penalty", steepness=0.2, profile="balanced", goodput={"min": 3, "hard": True})
    stored = json.loads(json.dumps(Holder(slo=found).model_dump(mode="json")))
    again = Holder.model_validate(stored).slo
    assert again == found
    assert again is not None
    assert again.rows == found.rows
    assert Holder.model_validate(Holder(slo=found).model_dump(exclude_unset=True)).slo == found


def test_rows_made_in_code_are_checked_as_those_of_a_file() -> None:
    assert SLOSpec.model_validate({"ttft_p99": SLO(max=1.0)}).rows == {"ttft_p99": SLO(max=1.0)}
    with pytest.raises(ValidationError, match="write min"):
        SLOSpec.model_validate({"goodput": SLO(max=1.0)})


def test_nothing_changes_after_reading() -> None:
    found = slo(ttft_p99={"max": 0.5})
    with pytest.raises(ValidationError):
        found.mode = "penalty"
    with pytest.raises(ValidationError):
        found.rows["ttft_p99"].weight = 2.0
    found.rows.clear()
    assert found.rows


def test_the_profiles_are_the_three_that_were_promised_and_valid() -> None:
    assert profiles() == ["balanced", "high_throughput", "strict_latency"]
    for name in profiles():
        rows = slo(profile=name).rows
        assert list(rows) == list(profile(name))
        assert "error_rate" in rows


def test_a_stricter_profile_has_tighter_bounds() -> None:
    strict, loose = slo(profile="strict_latency").rows, slo(profile="high_throughput").rows
    for name in ("ttft_p99", "tpot_p99"):
        assert strict[name].bound < loose[name].bound
    assert strict["ttft_p99"].hard
    assert not loose["ttft_p99"].hard


def test_own_rows_go_before_those_of_the_profile() -> None:
    found = slo(profile="balanced", ttft_p90={"max": 9.0}, goodput={"min": 1})
    assert found.rows["ttft_p90"] == SLO(max=9.0)
    assert found.rows["tpot_p90"] == SLO(max=0.05, weight=2.0)
    assert list(found.rows) == ["ttft_p90", "tpot_p90", "error_rate", "goodput"]
    assert found.profile is None, "the rows have taken its place"


@pytest.mark.parametrize("name", ["strict", "../slo/balanced", "balanced.yaml", ""])
def test_an_unknown_profile_is_answered_with_the_names(name: str) -> None:
    problem = mistakes(profile=name)["slo.profile"]
    assert "strict_latency" in problem or "balanced" in problem
