"""The `space` block of a study file, and names as it writes them, read into domains.

Each mistake says its place below the block."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autotuner.study.quantization import QUANTIZATION
from autotuner.study.space import (
    ENVIRONMENT,
    Choice,
    Domain,
    Float,
    Int,
    Parameter,
    Space,
    canonical_name,
    identity,
    left_out,
)

MOST_STEPS = 100_000
"""Values of a float range with a step, at most: they are listed."""


class Misplaced(ValueError):
    """A mistake at a place below the block that is being checked.

    Attributes:
        place: keys from that block down to the mistake.
    """

    def __init__(self, problem: str, *place: str) -> None:
        super().__init__(f"{'.'.join(place)}: {problem}")
        self.problem = problem
        self.place = place


_SECRETS = re.compile(
    r"(^|[_:-])TOKEN$|SECRET|PASSWORD|PASSWD|CREDENTIAL|(API|ACCESS|PRIVATE)[_-]?KEY$", re.I
)


def refuse_secret(name: str) -> None:
    """A study is stored, planned and reported in clear, so no secret may be in it."""
    if _SECRETS.search(name):
        raise Misplaced(
            "a secret does not belong in a study file; set it in the environment of the "
            "machine the servers run on, which they inherit",
            name,
        )


def refuse_variable(name: str) -> None:
    """What no study may say of its servers' environment, fixed or varied: secrets, and GPUs.

    Args:
        name: with or without the prefix of a parameter.
    """
    refuse_secret(name)
    if name.endswith("VISIBLE_DEVICES"):
        raise Misplaced(
            "cannot be set by a study: each trial is given GPUs of its own, as many as its "
            "parallel sizes need. Leave it out; to keep GPUs of a machine out of all studies, set "
            "CUDA_VISIBLE_DEVICES where autotuner, or the node's Ray, is started",
            name,
        )


def canonical_keys(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping under canonical names.

    Raises:
        ValueError: two spellings of one name.
    """
    result: dict[str, Any] = {}
    for name, value in mapping.items():
        key = canonical_name(name)
        if key in result:
            raise ValueError(f"{name!r} and another spelling of it are both given")
        result[key] = value
    return result


def environment_text(value: Any) -> str:
    """An environment variable's text; numbers as they are written, booleans are 1 and 0."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int | float | str):
        return str(value)
    raise ValueError(f"{value!r} cannot be the value of an environment variable")


def space_of(raw: Mapping[str, Any]) -> Space:
    """Domains and conditions out of the file's ``space`` block, parents before children.

    Raises:
        ValueError: naming the parameter, the value and what is allowed.
    """
    parameters: dict[str, Parameter] = {}
    for name, value in canonical_keys(raw).items():
        if name.startswith(ENVIRONMENT):
            refuse_variable(name)
        if name.startswith(QUANTIZATION):
            raise Misplaced("number formats are varied under quantization, as lists there", name)
        parameter = _parameter(name, value)
        if parameter is not None:
            parameters[name] = parameter
    for parameter in parameters.values():
        for parent in parameter.when:
            if parent not in parameters:
                raise Misplaced(
                    f"when names {parent!r}, which does not vary in this space", parameter.name
                )
            domain = parameters[parent].domain
            never = [value for value in parameter.when[parent] if not domain.holds(value)]
            if never:
                raise Misplaced(
                    f"when names {parent}: {never[0]!r}, which it never is", parameter.name
                )
    return Space(tuple(_parents_first(parameters)))


def _parents_first(parameters: Mapping[str, Parameter]) -> list[Parameter]:
    ordered: list[Parameter] = []
    waiting = list(parameters.values())
    while waiting:
        placed = {parameter.name for parameter in ordered}
        ready = next((p for p in waiting if set(p.when) <= placed), None)
        if ready is None:
            names = ", ".join(p.name for p in waiting)
            raise ValueError(f"the conditions of {names} depend on each other in a circle")
        ordered.append(ready)
        waiting.remove(ready)
    return ordered


_KEYS = {
    "choice": {"type", "values", "when"},
    "int": {"type", "low", "high", "log", "step", "when"},
    "float": {"type", "low", "high", "log", "step", "when"},
}
# The earlier system's words for the same three domains.
TYPES = {
    "categorical": "choice",
    "integer": "int",
    "continuous": "float",
    **{kind: kind for kind in _KEYS},
}


def _parameter(name: str, raw: Any) -> Parameter | None:
    """One parameter, or None where it has no values and so is not tuned."""
    if isinstance(raw, list):
        return _choice(name, raw, {})
    if not isinstance(raw, Mapping):
        raise Misplaced(
            f"{raw!r} is not a domain; write a list of choices, {{type: int, low, high}} "
            f"or {{type: float, low, high}}, or move a fixed value to engine.arguments",
            name,
        )
    kind = TYPES.get(str(raw.get("type", "choice" if "values" in raw else "")))
    if kind is None:
        raise Misplaced(
            f"type {raw.get('type')!r} is not a domain; allowed: choice, int, float", name
        )
    unknown = sorted(set(raw) - _KEYS[kind])
    if unknown:
        raise Misplaced(
            f"unknown key {unknown[0]!r} with value {raw[unknown[0]]!r}; "
            f"allowed: {', '.join(sorted(_KEYS[kind]))}",
            name,
        )
    when = _when(name, raw.get("when") or {})
    if kind == "choice":
        return _choice(name, raw.get("values"), when)
    return Parameter(name, _range(name, kind, raw), when)


def _choice(name: str, values: Any, when: Mapping[str, tuple[Any, ...]]) -> Parameter | None:
    if not isinstance(values, list):
        raise Misplaced(f"values must be a list, not {values!r}", name)
    # None and an empty text both leave the flag out: the same point under two names.
    different = {"" if left_out(value) else identity(value) for value in values}
    if len(different) < len(values):
        raise Misplaced(f"a value is listed twice in {values!r}", name)
    return Parameter(name, Choice(tuple(values)), when) if values else None


def _when(name: str, raw: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(raw, Mapping):
        raise Misplaced(f"when must map a parameter to a value, not {raw!r}", name)
    return {
        canonical_name(parent): tuple(value) if isinstance(value, list) else (value,)
        for parent, value in raw.items()
    }


def _range(name: str, kind: str, raw: Mapping[str, Any]) -> Domain:
    low, high, step = raw.get("low"), raw.get("high"), raw.get("step")
    log = raw.get("log", False)
    numbers = (int,) if kind == "int" else (int, float)
    for key, value in (("low", low), ("high", high), ("step", step)):
        if value is None and key == "step":
            continue
        if isinstance(value, bool) or not isinstance(value, numbers):
            raise Misplaced(f"{key} must be a number of type {kind}, not {value!r}", name)
    assert low is not None
    assert high is not None
    if not isinstance(log, bool):
        raise Misplaced(f"log must be true or false, not {log!r}", name)
    if low > high:
        raise Misplaced(f"low {low} is above high {high}", name)
    if step is not None and step <= 0:
        raise Misplaced(f"step must be above 0, not {step}", name)
    if max(abs(low), abs(high)) > 2**53:
        raise Misplaced(f"a range within 2**53 either way is meant, not {low} to {high}", name)
    if kind == "float" and step is not None and (high - low) / step > MOST_STEPS:
        raise Misplaced(
            f"step {step} makes more than {MOST_STEPS:,} values; leave it out for a range without "
            "steps",
            name,
        )
    if log and (low <= 0 or step is not None):
        raise Misplaced("a log range needs low above 0 and no step", name)
    if kind == "int":
        return Int(low, high, log, step)
    return Float(float(low), float(high), log, None if step is None else float(step))
