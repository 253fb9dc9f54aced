"""The `slo` block of a study: bounds on metrics, what each weighs, and what breaking it does."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML

from autotuner.shipped import shipped
from autotuner.study.metrics import METRICS, Better

WEIGHT = 1.0
FAIL_RATIO = 0.5
STEEPNESS = 0.1

_UNBOUNDED = {"requests", "prompt_overlap", "max_load"}
"""What is counted, or found by the bounds themselves, is no service level."""


class SLO(BaseModel):
    """A bound on one metric: `max` where lower is better, else `min`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    max: float | None = Field(default=None, ge=0, description="Upper bound, in the metric's unit.")
    min: float | None = Field(default=None, ge=0, description="Lower bound, in the metric's unit.")
    weight: float = Field(default=WEIGHT, gt=0, description="Its share in the penalty.")
    hard: bool = Field(
        default=False, description="Beyond `fail_ratio` the trial is infeasible, in either mode."
    )
    fail_ratio: float = Field(
        default=FAIL_RATIO,
        ge=0,
        description="Relative distance beyond the bound above which a hard one fails.",
    )

    @model_validator(mode="after")
    def _one_bound(self) -> SLO:
        if (self.max is None) == (self.min is None):
            raise ValueError("give either max or min")
        return self

    @property
    def bound(self) -> float:
        bound = self.min if self.max is None else self.max
        assert bound is not None
        return bound


class SLOSpec(BaseModel):
    """Service levels: one row per metric, beside the keys below."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, SLO] = Field(init=False)

    mode: Literal["constraint", "penalty"] = Field(
        default="constraint",
        description="`constraint` tells the searcher how far out of bounds a trial is; `penalty` "
        "makes its objectives worse by 1 + sum of weight * exp(violation / steepness).",
    )
    steepness: float = Field(
        default=STEEPNESS, gt=0, description="Of the penalty's curve; the smaller, the steeper."
    )
    profile: str | None = Field(
        default=None,
        description="A set of rows out of `configs/slo/`. They take its place when the study is "
        "read, so that a stored study does not change with the file; own rows go before.",
    )

    @model_validator(mode="before")
    @classmethod
    def _rows(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        named = raw.get("profile")
        if isinstance(named, str):
            if named not in profiles():
                raise _refused([(("profile",), named, _unknown("a profile", named, profiles()))])
            raw = {**profile(named), **raw, "profile": None}
        mistakes = [each for name in raw for each in _mistakes(cls, name, raw[name])]
        if mistakes:
            raise _refused(mistakes)
        return raw

    @property
    def rows(self) -> dict[str, SLO]:
        """The rows by metric, in the order given; the profile's first."""
        return dict(self.__pydantic_extra__ or {})


def profiles() -> list[str]:
    """The names of the profiles that come with autotuner."""
    return sorted(path.stem for path in shipped("slo").glob("*.yaml"))


def profile(name: str) -> dict[str, Any]:
    """The rows of one of `profiles()`, as written."""
    path: Path = shipped("slo") / f"{name}.yaml"
    return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def bound_problem(name: str, bound: float) -> str:
    """Why a bound on a metric can mean nothing, or empty."""
    if name not in bounded_metrics():
        return "is counted, not promised: it has no bound"
    if bound < 0:
        return f"{bound:g} is below 0, which {name} never is"
    if METRICS[name].unit == "" and bound > 1:
        return f"{bound:g} is more than all: {name} is a share, 0 to 1"
    return ""


def bounded_metrics() -> list[str]:
    """The metrics a service level may be about."""
    return [name for name in METRICS if name not in _UNBOUNDED]


_Mistake = tuple[tuple[str, ...], Any, str]
"""Place below the block, value, problem."""


def _mistakes(model: type[BaseModel], name: str, row: Any) -> Iterator[_Mistake]:
    """What is wrong with one key that only this block can say."""
    if name in model.model_fields:
        return
    if name not in bounded_metrics():
        also = bounded_metrics() + list(model.model_fields)
        yield (str(name),), row, _unknown("a metric that can have an SLO", name, also)
        return
    wrong, right = ("min", "max") if METRICS[name].better is Better.LOWER else ("max", "min")
    if isinstance(row, SLO):
        row = row.model_dump(exclude_none=True)
    if not isinstance(row, Mapping):
        yield (str(name),), row, f"{row!r} is not a row; write {{{right}: NUMBER}}"
        return
    bound = row.get(right)
    if isinstance(bound, int | float) and bound >= 0 and (why := bound_problem(name, bound)):
        yield (name, right), bound, why
    for key in row:
        if key not in SLO.model_fields:
            yield (name, str(key)), row[key], _unknown("a key of an SLO", key, SLO.model_fields)
    if row.get(wrong) is not None:
        better = METRICS[name].better.value
        yield (name, wrong), row[wrong], f"{better} is better for {name}: write {right}"


def _unknown(what: str, name: object, allowed: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(str(name), list(allowed), n=3)
    rest = f"did you mean {' or '.join(near)}?" if near else f"allowed: {', '.join(allowed)}"
    return f"{name!r} is not {what}; {rest}"


def _refused(mistakes: list[_Mistake]) -> ValidationError:
    return ValidationError.from_exception_data(
        "SLOSpec",
        [
            {
                "type": "value_error",
                "loc": place,
                "input": value,
                "ctx": {"error": ValueError(text)},
            }
            for place, value, text in mistakes
        ],
    )
