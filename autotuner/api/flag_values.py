"""Whether a flag may have a value that came by HTTP, by what its engine says is harmless.

Values in, a reason out, or an empty text. An engine names flags (`engines.base.Harmless`); what
a plain word is, and how deep a value is looked into, is the same for all and stands here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from autotuner.api.allow_file import Allowance, shown
from autotuner.engines.base import Harmless
from autotuner.engines.catalog import Flag, FlagKind

_UNDECIDED = "nobody has decided that it is harmless"
WORD = re.compile(r"[A-Za-z0-9+][A-Za-z0-9_+,-]*|-?\d+(\.\d+)?")
"""A plain word, or a number: neither a path, an address nor a name in a Python module is one."""

_DOUBTFUL = re.compile(
    r"(^|[_-])(path|dir|file|folder|url|uri|module|class|cls|plugin|code|model|tokenizer|revision)"
    r"s?$",
    re.I,
)


def judged(name: str, value: Any, flag: Flag | None, harmless: Harmless, allowed: Allowance) -> str:
    """Why a flag may not have a value that the operator has not named it for.

    Args:
        name: the flag's own name, with the key inside its JSON where there is one.
        flag: as a catalog has it; None: there is no catalog to look into.
        harmless: what its engine says.
    """
    base, _, inside = name.partition(".")
    if value is None or value == "":
        return "" if base in harmless.decided else _UNDECIDED
    if base in harmless.models:
        fine = isinstance(value, str) and allowed.has_model(value)
        return "" if fine else "the operator names models under `models`"
    if base in harmless.values:
        said = value if isinstance(value, list) else [value]
        few = harmless.values[base]
        strange = [each for each in said if not isinstance(each, str) or each not in few]
        return f"{shown(strange[0])} is not one of its harmless values" if strange else ""
    if base not in harmless.flags and base not in harmless.keys:
        return _UNDECIDED
    if flag is not None and flag.choices and value in flag.choices:
        return ""
    content = _parsed(value)
    for part in reversed(inside.split(".") if inside else []):
        content = {part: content}
    if base in harmless.keys:
        return _keys(content, base, harmless, allowed)
    return _content(content)


def smuggled(value: Any, flag: Flag | None) -> str:
    """A list's items stand alone on the command line, where the engine would take one for a
    flag of its own; but JSON stays one text."""
    if not isinstance(value, list) or (flag is not None and flag.kind is FlagKind.JSON):
        return ""
    taken = [each for each in value if isinstance(each, str) and each.lstrip().startswith("-")]
    return f"{taken[0]!r} would be a flag of its own" if taken else ""


_BRACKETS = 100
"""In a text of JSON, at most: none of an engine's is so deep."""


def _parsed(value: Any) -> Any:
    """JSON that came as its text."""
    deep = isinstance(value, str) and value.count("{") + value.count("[")
    if not deep or deep > _BRACKETS:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _keys(content: Any, base: str, harmless: Harmless, allowed: Allowance) -> str:
    """Why a flag's JSON may not be, of which only some keys are known to be harmless."""
    if not isinstance(content, Mapping):
        return "it is not JSON with names"
    for key, value in content.items():
        if key not in harmless.keys[base]:
            return f"its key {shown(key)} is not one of the harmless ones"
        if f"{base}.{key}" in harmless.models:
            if not (isinstance(value, str) and allowed.has_model(value)):
                return f"{shown(value)} is no model that the operator names under `models`"
        elif value in harmless.code:
            return f"{key}: {shown(value)} is not harmless"
        elif problem := _content(value):
            return problem
    return ""


def _content(value: Any) -> str:
    """Why a value may not be that should hold numbers, switches and plain words."""
    if isinstance(value, Mapping):
        doubtful = [key for key in value if _DOUBTFUL.search(key) or not WORD.fullmatch(key)]
        if doubtful:
            return f"its key {shown(doubtful[0])} is not one of the harmless ones"
        value = list(value.values())
    if isinstance(value, list):
        return next((problem for each in value if (problem := _content(each))), "")
    if isinstance(value, str) and value and not WORD.fullmatch(value):
        return f"{shown(value)} is no plain word"
    return ""
