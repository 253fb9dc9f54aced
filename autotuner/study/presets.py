"""Presets: ready-made search spaces by name, merged with each other and with a study's own.

A preset is a YAML file: `why`, `engine` (none is for every engine), `category`, `parameters`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from autotuner.errors import ConfigError
from autotuner.shipped import shipped
from autotuner.study.domains import canonical_keys, space_of
from autotuner.study.space import (
    ENVIRONMENT,
    Choice,
    Domain,
    Float,
    Int,
    Parameter,
    identity,
    left_out,
)

SUFFIXES = (".yaml", ".yml", ".json")
"""Of a preset's file; a name that ends so is a path."""
# The name is a file's own path; `autotuner presets NAME --json` prints it, and that is a file too.
_KEYS = ("name", "why", "engine", "category", "parameters")


@dataclass(frozen=True)
class Preset:
    """A named search space.

    Attributes:
        engine: the kind it is for; None where its names are every engine's.
        parameters: as under `space` of a study, by canonical name.
    """

    name: str
    why: str
    engine: str | None
    category: str
    parameters: Mapping[str, Any]


class How(StrEnum):
    """How several presets become one space."""

    UNION = "union"
    """Every parameter, with all values."""
    INTERSECTION = "intersection"
    """The parameters that all of them have, with the values they have in common."""
    LAST_WINS = "last_wins"
    """Every parameter, as the last one has it."""


@dataclass(frozen=True)
class Merge:
    """One space out of several.

    Attributes:
        conflicts: `parameter: what could not be agreed on, and what was done`.
    """

    parameters: Mapping[str, Any]
    conflicts: tuple[str, ...] = ()


def presets(directories: Sequence[Path] = ()) -> list[Preset]:
    """Every preset: those of the user's directories, then those that come with autotuner.

    Raises:
        ConfigError: a file that is no preset.
    """
    return [read_preset(path, name) for name, path in _files(directories).items()]


def find_preset(name: str, directories: Sequence[Path] = ()) -> Preset:
    """A preset by name (``vllm/throughput``), or by the path of its file.

    Raises:
        ConfigError: there is none of that name, or its file is no preset.
    """
    if name.endswith(SUFFIXES):
        return read_preset(Path(name), name)
    files = _files(directories)
    if name not in files:
        near = difflib.get_close_matches(name, files, n=1, cutoff=0.5)
        raise ConfigError(
            f"there is no preset {name!r}",
            where="presets",
            allowed=list(files),
            hint=f"did you mean {near[0]!r}?" if near else "",
        )
    return read_preset(files[name], name)


def _files(directories: Sequence[Path]) -> dict[str, Path]:
    """Name -> file; a user's own goes before a shipped one of the same name."""
    files: dict[str, Path] = {}
    for directory in (*directories, shipped("presets")):
        for path in sorted(directory.rglob("*")):
            if path.suffix in SUFFIXES:
                name = path.relative_to(directory).with_suffix("").as_posix()
                files.setdefault(name, path)
    return files


def read_preset(path: Path, name: str = "") -> Preset:
    """Raises ConfigError where the file cannot be read or says no preset."""
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        said = (str(error).splitlines() or ["unreadable"])[0]
        raise ConfigError(f"cannot be read: {said}", file=str(path), where="presets") from error
    try:
        return preset_of(content, name or path.stem)
    except ConfigError as error:
        raise ConfigError(
            error.problem, where=error.where, file=str(path), allowed=error.allowed
        ) from error


def preset_of(content: Any, name: str) -> Preset:
    """A preset from its parsed content, which need not come from a file.

    Raises:
        ConfigError: not a preset.
    """
    if not isinstance(content, Mapping):
        raise ConfigError("a preset is a mapping", allowed=_KEYS)
    unknown = [key for key in content if key not in _KEYS]
    if unknown:
        raise ConfigError(f"unknown key {unknown[0]!r}", where=str(unknown[0]), allowed=_KEYS)
    for key in ("why", "engine", "category"):
        if not isinstance(content.get(key) or "", str):
            raise ConfigError(f"{content[key]!r} must be a text", where=key)
    parameters = content.get("parameters")
    if not isinstance(parameters, Mapping) or not all(isinstance(key, str) for key in parameters):
        raise ConfigError("must map flags to lists or ranges", where="parameters")
    try:
        space_of(parameters)
        parameters = canonical_keys(parameters)
    except ValueError as error:
        raise ConfigError(str(error), where="parameters") from error
    return Preset(
        name=name,
        why=content.get("why") or "",
        engine=content.get("engine") or None,
        category=content.get("category") or "general",
        parameters=parameters,
    )


def merged(presets: Sequence[Preset], how: How | str = How.UNION) -> Merge:
    """One space out of the presets' own.

    Lists are joined or cut value by value as JSON, in order of appearance; ranges by their
    ends. Where two cannot be (a list and a range, other steps, other conditions), the later
    one is taken and the conflict reported.
    """
    how = How(how)
    if how is How.LAST_WINS or len(presets) < 2:
        return Merge({name: raw for each in presets for name, raw in each.parameters.items()})
    parameters: dict[str, Any] = {}
    conflicts: list[str] = []
    for name in dict.fromkeys(name for each in presets for name in each.parameters):
        having = [each for each in presets if name in each.parameters]
        if how is How.INTERSECTION and len(having) < len(presets):
            conflicts.append(f"{name}: only in {_listed(having)}; left out")
            continue
        domain, conflict = _agreed([each.parameters[name] for each in having], name, how)
        if conflict:
            conflicts.append(f"{name}: {conflict} ({_listed(having)})")
        if domain is not None:
            parameters[name] = domain
    return Merge(parameters, tuple(conflicts))


def _listed(presets: Iterable[Preset]) -> str:
    return ", ".join(each.name for each in presets)


def _agreed(domains: Sequence[Any], name: str, how: How) -> tuple[Any, str]:
    """One domain out of several, as a study file says it, and what was in the way."""
    if how is How.UNION:
        # An empty list is not tuned, and so adds nothing.
        domains = [raw for raw in domains if _parsed(name, raw) is not None] or domains[-1:]
    found, conflict = domains[0], ""
    for raw in domains[1:]:
        one, other = _parsed(name, found), _parsed(name, raw)
        if one is None or other is None:
            return None, "one of them does not tune it; left out"
        if identity(one.when) != identity(other.when):
            found, conflict = raw, "under different conditions; the last is taken"
            continue
        both = _joined(one.domain, other.domain) if how is How.UNION else _cut(one, other)
        if both is None and how is How.INTERSECTION:
            return None, "nothing in common; left out"
        if both is None:
            found, conflict = raw, "a list and a range, or different ranges; the last is taken"
        else:
            found = written(replace(one, domain=both))
    return found, conflict


def _parsed(name: str, raw: Any) -> Parameter | None:
    """The parameter alone; its condition names others that may not be here."""
    when = {}
    if isinstance(raw, Mapping):
        when = {key: _as_tuple(value) for key, value in (raw.get("when") or {}).items()}
        raw = {key: value for key, value in raw.items() if key != "when"}
    found = space_of({name: raw}).parameters
    return replace(found[0], when=when) if found else None


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _key(value: Any) -> str:
    # None and an empty text both leave the flag out.
    return "" if left_out(value) else identity(value)


def _joined(one: Domain, other: Domain) -> Domain | None:
    """Both domains together, or None where no one domain says it."""
    if isinstance(one, Choice) and isinstance(other, Choice):
        different = {_key(value): value for value in reversed((*one.values, *other.values))}
        order = dict.fromkeys(_key(value) for value in (*one.values, *other.values))
        return Choice(tuple(different[key] for key in order))
    if isinstance(one, Choice):
        return other if all(other.holds(value) for value in one.values) else None
    if isinstance(other, Choice):
        return one if all(one.holds(value) for value in other.values) else None
    if not _comparable(one, other) or max(one.low, other.low) > min(one.high, other.high):
        return None
    return _between(one, min(one.low, other.low), max(one.high, other.high))


def _cut(first: Parameter, second: Parameter) -> Domain | None:
    """What both domains hold, or None where that is nothing."""
    one, other = first.domain, second.domain
    if isinstance(other, Choice) and not isinstance(one, Choice):
        one, other = other, one
    if isinstance(one, Choice):
        keys = {_key(value) for value in other.values} if isinstance(other, Choice) else None
        values = tuple(
            value
            for value in one.values
            if (_key(value) in keys if keys is not None else other.holds(value))
        )
        return Choice(values) if values else None
    if isinstance(other, Choice) or not _comparable(one, other):
        return None
    low, high = max(one.low, other.low), min(one.high, other.high)
    return _between(one, low, high) if low <= high else None


def _comparable(one: Int | Float, other: Int | Float) -> bool:
    """Whether the two are parts of one range: the same kind, scale and steps."""
    if type(one) is not type(other) or one.log != other.log or one.step != other.step:
        return False
    if one.step is None:
        return True
    steps = (other.low - one.low) / one.step
    return abs(steps - round(steps)) < 1e-9


def _between(like: Int | Float, low: float, high: float) -> Domain:
    if isinstance(like, Int):
        return Int(int(low), int(high), like.log, like.step)
    return Float(low, high, like.log, like.step)


def written(parameter: Parameter) -> Any:
    """A parameter as a study file says it: a list where that is enough, else a mapping."""
    domain = parameter.domain
    when = {
        name: list(values) if len(values) > 1 else values[0]
        for name, values in parameter.when.items()
    }
    more = {"when": when} if when else {}
    if isinstance(domain, Choice):
        values = list(domain.values)
        return {"type": "choice", "values": values, **more} if more else values
    said: dict[str, Any] = {
        "type": "int" if isinstance(domain, Int) else "float",
        "low": domain.low,
        "high": domain.high,
    }
    if domain.log:
        said["log"] = True
    if domain.step is not None:
        said["step"] = domain.step
    return {**said, **more}


def expand(
    content: Mapping[str, Any], directories: Sequence[Path] = ()
) -> tuple[dict[str, Any], list[str]]:
    """A study's content with its presets merged under its own space, and what to know of it.

    An own entry replaces the presets' of the same flag (an empty list: not tuned), and a flag
    fixed under `engine` is not varied. What is no list of names is left for the study's own
    check. Expanding twice changes nothing.

    Raises:
        ConfigError: an unknown preset, one for another engine, or a file that is no preset.
    """
    names, how = content.get("presets"), content.get("merge", How.UNION)
    engine, space = content.get("engine"), content.get("space") or {}
    if not _listing(names) or how not in list(How):
        return dict(content), []
    if not isinstance(engine, Mapping) or not isinstance(space, Mapping):
        return dict(content), []
    kind = engine.get("kind")
    kinds = kind if isinstance(kind, list) else [kind]
    found = [_for_one_of(kinds, find_preset(name, directories), directories) for name in names]
    notes: dict[str, None] = {}

    def expanded(kind: Any, own: Any, settings: Any) -> Any:
        merge = merged([each for each in found if each.engine in (None, kind)], how)
        notes.update(dict.fromkeys(merge.conflicts))
        if not isinstance(own, Mapping):
            return own
        space, fixed = _over(merge.parameters, own, settings)
        notes.update(dict.fromkeys(fixed))
        return space

    if not isinstance(kind, list):
        return {**content, "space": expanded(kind, space, engine)}, list(notes)
    several = engine.get("settings")
    settings = several if isinstance(several, Mapping) else {}
    spaces = {each: expanded(each, space.get(each, {}), settings.get(each)) for each in kind}
    return {**content, "space": {**space, **spaces}}, list(notes)


def _listing(names: Any) -> TypeGuard[list[str]]:
    return bool(names) and isinstance(names, list) and all(isinstance(n, str) for n in names)


def _for_one_of(kinds: Sequence[Any], preset: Preset, directories: Sequence[Path]) -> Preset:
    if preset.engine is None or preset.engine in kinds:
        return preset
    raise ConfigError(
        f"{preset.name!r} is for {preset.engine}, and this study is for "
        + ", ".join(map(str, kinds)),
        where="presets",
        allowed=[each.name for each in presets(directories) if each.engine in (None, *kinds)],
    )


def _over(
    parameters: Mapping[str, Any], own: Mapping[str, Any], settings: Any
) -> tuple[dict[str, Any], list[str]]:
    """The presets' parameters under the study's own entries, and those the engine has fixed."""
    settings = settings if isinstance(settings, Mapping) else {}
    try:
        said = canonical_keys(own)
        fixed = set(canonical_keys(settings.get("arguments") or {}))
    except (ValueError, AttributeError):
        return dict(own), []  # the study's own check says what is wrong with it
    fixed |= {ENVIRONMENT + name for name in settings.get("environment") or {}}
    kept = {name: raw for name, raw in parameters.items() if name not in fixed}
    dropped = [name for name in parameters if name in fixed and name not in said]
    notes = [f"{name}: fixed under engine, so the presets do not vary it" for name in dropped]
    return {**kept, **said}, notes
