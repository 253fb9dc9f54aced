"""Flag catalogs: each engine version's true command-line schema, and what follows from it.

One JSON file per version lies beside this module: name, aliases, kind, default, choices of
every flag; the facts, not the help sentences. `autotuner catalog` makes more of them.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from autotuner.errors import ConfigError
from autotuner.study.space import canonical_name


class FlagKind(StrEnum):
    SWITCH = "switch"
    """Given or not; has no opposite."""
    NEGATABLE = "negatable"
    """Has a ``--no-`` form."""
    SWITCH_OR_VALUE = "switch or value"
    INT = "int"
    FLOAT = "float"
    TEXT = "text"
    JSON = "json"
    LIST = "list"
    """Several values after one flag."""
    REPEATED = "repeated"
    """The flag again for each value."""
    ANY = "any"
    """A value whose type the schema does not say (read from a help text)."""


@dataclass(frozen=True)
class Flag:
    """One flag. `name` and `aliases` are canonical (no dashes in front)."""

    name: str
    kind: FlagKind
    aliases: tuple[str, ...] = ()
    default: Any = None
    choices: tuple[Any, ...] | None = None
    suffixes: bool = False
    """Takes human numbers such as 8k (8000) or 8K (8192)."""
    auto: bool = False
    """Takes the word `auto` for a number."""
    deprecated: bool = False

    @property
    def is_json_key(self) -> bool:
        """A key inside a JSON flag, such as compilation-config.mode: any JSON value goes."""
        return self.kind is FlagKind.JSON and "." in self.name

    def problem(self, value: Any) -> str | None:
        """Why the engine's parser would not take this value, or None."""
        if value is None or value == "":
            return None
        switch = isinstance(value, bool)
        if self.kind in (FlagKind.SWITCH, FlagKind.NEGATABLE):
            return None if switch else "must be true or false"
        if switch:
            takes = self.kind is FlagKind.SWITCH_OR_VALUE or self.is_json_key
            return None if takes else f"takes a {self.kind.value} value"
        if self.kind in (FlagKind.LIST, FlagKind.REPEATED):
            items = value if isinstance(value, list) else [value]
            if self.kind is FlagKind.LIST and any(_like_a_flag(_text(item)) for item in items):
                return "has an item that the engine would take for a flag"
            return next((p for item in items if (p := self._outside(item))), None)
        if self.kind is FlagKind.JSON:
            return None
        if isinstance(value, list | Mapping):
            return f"takes one {self.kind.value} value"
        if self.kind is FlagKind.INT and not self._whole(value):
            return "must be a whole number"
        if self.kind is FlagKind.FLOAT and not isinstance(value, int | float):
            return "must be a number"
        return self._outside(value)

    def _whole(self, value: Any) -> bool:
        if isinstance(value, str):
            if value == "auto":
                return self.auto
            return self.suffixes and whole_number(value) is not None
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())

    def _outside(self, value: Any) -> str | None:
        if self.choices is None or _text(value) in map(_text, self.choices):
            return None
        return "is not one of its choices"

    def items(self, value: Any, name: str) -> list[str]:
        """The command-line items for a value that `problem` accepts."""
        flag = f"--{name}"
        if value is None or value == "":
            return []
        if isinstance(value, bool) and not self.is_json_key:
            if value:
                return [flag]
            return [f"--no-{name}"] if self.kind is FlagKind.NEGATABLE else []
        if self.kind is FlagKind.LIST and isinstance(value, list):
            return [flag, *map(_text, value)] if value else []
        if self.kind is FlagKind.REPEATED and isinstance(value, list):
            return [item for each in value for item in _pair(flag, _text(each))]
        return _pair(flag, _text(value))


def _pair(flag: str, text: str) -> list[str]:
    return [f"{flag}={text}"] if _like_a_flag(text) else [flag, text]


def _like_a_flag(text: str) -> bool:
    """argparse takes a text that starts with a dash for a flag, unless it is a number, and
    vLLM's parser takes even -0.5 for a dotted flag."""
    return text.startswith("-") and not re.fullmatch(r"-\d+", text)


_NUMBER = re.compile(r"(-?\d+)|(\d+(?:\.\d+)?)([kmgt])|(\d+)([KMGT])")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def whole_number(value: Any) -> int | None:
    """A whole number as vLLM reads it: 1.5k is 1500, 8K is 8192; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return int(value) if float(value).is_integer() else None
    match = _NUMBER.fullmatch(value)
    if match is None:
        return None
    if match[1]:
        return int(match[1])
    if match[4]:
        return int(match[4]) * int(1024 ** _POWERS[match[5].lower()])
    number = float(match[2]) * 1000 ** _POWERS[match[3]]
    return int(number) if number.is_integer() else None


def _text(value: Any) -> str:
    if isinstance(value, bool | list | Mapping):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # both engines refuse 4096.0 for a whole number
    return str(value)


@dataclass(frozen=True)
class Catalog:
    """Every flag of one version of an engine."""

    engine: str
    version: str
    flags: tuple[Flag, ...]
    source: str = ""
    _index: dict[str, Flag] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for flag in self.flags:
            for name in (flag.name, *flag.aliases):
                self._index.setdefault(name, flag)

    def find(self, name: str) -> Flag | None:
        """The flag of a canonical name or alias; a dotted name is a key of a JSON flag."""
        flag = self._index.get(name)
        if flag is None and "." in name:
            base = self._index.get(name.partition(".")[0])
            if base is not None and base.kind is FlagKind.JSON:
                return Flag(base.name + name[name.index(".") :], FlagKind.JSON)
        return flag

    def check(self, name: str, value: Any, where: str) -> None:
        """Raise ConfigError where this version has no such flag or would not take the value."""
        flag = self.find(name)
        if flag is None:
            positive = self._index.get(name.removeprefix("no-"))
            if name.startswith("no-") and positive is not None:
                raise ConfigError(
                    f"--{name} is the negative form of a flag",
                    where=where,
                    hint=f"write {positive.name}: false",
                )
            near = difflib.get_close_matches(name, self._index, n=3, cutoff=0.6)
            raise ConfigError(
                f"{self.engine} {self.version} has no flag --{name}",
                where=where,
                hint=f"nearest: {', '.join('--' + n for n in near)}" if near else "",
            )
        problem = flag.problem(value)
        if problem:
            raise ConfigError(
                f"--{flag.name}: {value!r} {problem}",
                where=where,
                allowed=[str(choice) for choice in flag.choices or ()],
            )

    def argv(self, values: Mapping[str, Any]) -> list[str]:
        """The command-line items of checked values, in their order."""
        items: list[str] = []
        for name, value in values.items():
            flag = self.find(name)
            assert flag is not None, f"{name} was not checked"
            items += flag.items(value, flag.name)
        return items

    def to_json(self) -> dict[str, Any]:
        """As it is stored: one object per flag, without what is the default of the format."""
        empty = asdict(Flag("", FlagKind.ANY))
        return {
            "engine": self.engine,
            "version": self.version,
            "source": self.source,
            "flags": [
                {
                    key: value
                    for key, value in asdict(flag).items()
                    if key in ("name", "kind") or value != empty[key]
                }
                for flag in self.flags
            ],
        }


def write_catalog(catalog: Catalog, path: Path) -> None:
    """One flag a line, so that versions can be compared with diff."""
    content = catalog.to_json()
    lines = ",\n".join("  " + json.dumps(flag, default=str) for flag in content["flags"])
    head = {key: value for key, value in content.items() if key != "flags"}
    path.write_text(json.dumps(head)[:-1] + ', "flags": [\n' + lines + "\n]}\n", encoding="utf-8")


def read_catalog(path: Path) -> Catalog:
    """Raises ConfigError where the file is missing or is not a catalog."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a flag catalog: {error}",
            where="engine.catalog",
            hint="make one: autotuner catalog KIND --from-python PYTHON, or --from-help FILE",
        ) from error


@cache
def _read(path: Path, _changed: int) -> Catalog:
    """Kept until the file changes: a plan asks for it with every point."""
    return _catalog(json.loads(path.read_text(encoding="utf-8")))


def known_versions(engine: str) -> list[str]:
    """Versions with a catalog of their own, oldest first."""
    names = [entry.name for entry in files(__package__).iterdir()]
    versions = [n[len(engine) + 1 : -5] for n in names if re.fullmatch(rf"{engine}-\d.*\.json", n)]
    return sorted(versions, key=release)


def known_engines() -> list[str]:
    """Engines with a catalog of any version."""
    names = [entry.name for entry in files(__package__).iterdir()]
    return sorted({n.partition("-")[0] for n in names if n.endswith(".json")})


@cache
def load_catalog(engine: str, version: str | None = None) -> Catalog:
    """A built-in catalog, the newest by default.

    Raises:
        ConfigError: no catalog of that version.
    """
    versions = known_versions(engine)
    if not versions:
        raise ConfigError(
            f"there is no flag catalog for {engine!r}; built in are those of "
            + ", ".join(known_engines()),
            where="engine",
            hint="name a file as engine.catalog; "
            f"make one: autotuner catalog {engine} --from-help FILE --version X.Y.Z",
        )
    chosen = (version or versions[-1]).removeprefix("v")
    if chosen not in versions:
        raise ConfigError(
            f"there is no flag catalog for {engine} {chosen}",
            where="engine.version",
            allowed=versions,
            hint=f"make one: autotuner catalog {engine} --from-python PYTHON, then name the file "
            "as engine.catalog",
        )
    text = files(__package__).joinpath(f"{engine}-{chosen}.json").read_text(encoding="utf-8")
    return _catalog(json.loads(text))


def _catalog(content: Mapping[str, Any]) -> Catalog:
    return Catalog(
        engine=content["engine"],
        version=content["version"],
        source=content.get("source", ""),
        flags=tuple(_flag(each) for each in content["flags"]),
    )


def _flag(each: Mapping[str, Any]) -> Flag:
    choices = each.get("choices")
    return Flag(
        **{
            **each,
            "kind": FlagKind(each["kind"]),
            "aliases": tuple(each.get("aliases", ())),
            "choices": None if choices is None else tuple(choices),
        }
    )


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, which order as versions do."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def catalog_of_python(engine: str, python: Path) -> Catalog:
    """A catalog from the engine installed for a Python interpreter, by its own parser.

    Raises:
        ConfigError: that Python cannot import the engine.
    """
    program = files("autotuner.engines").joinpath("extract.py")
    done = subprocess.run(
        [str(python), str(program), engine], capture_output=True, text=True, check=False
    )
    start = done.stdout.find('{"engine"')
    if done.returncode != 0 or start < 0:
        said = (done.stderr.strip().splitlines() or ["it printed no schema"])[-1]
        raise ConfigError(f"{python} gives no schema of {engine}: {said}", where="--from-python")
    content = json.loads(done.stdout[start:])
    return catalog_of_parser(engine, content["version"], content["args"])


def catalog_of_parser(engine: str, version: str, rows: Iterable[Mapping[str, Any]]) -> Catalog:
    """A catalog from what `engines/extract.py` printed about the engine's own parser."""
    flags = [_parsed(row) for row in rows if not row.get("positional")]
    return Catalog(engine, version, tuple(sorted(flags, key=lambda f: f.name)), "parser")


def _parsed(row: Mapping[str, Any]) -> Flag:
    names = [canonical_name(name) for name in (row["flag"], *row["aliases"])]
    kind = _kind(row)
    default, choices = row.get("default"), row.get("choices")
    return Flag(
        name=names[0],
        kind=kind,
        aliases=tuple(
            dict.fromkeys(
                n for n in names[1:] if not (kind is FlagKind.NEGATABLE and n.startswith("no-"))
            )
        ),
        default=None if default == "==SUPPRESS==" else default,
        choices=None if choices is None else tuple(c for c in choices if c is not None),
        suffixes="human_readable" in str(row.get("type")),
        auto="or_auto" in str(row.get("type")),
        deprecated=bool(row.get("deprecated")),
    )


def _kind(row: Mapping[str, Any]) -> FlagKind:
    action, kind = str(row.get("action")), str(row.get("kind"))
    if action == "BooleanOptionalAction":
        return FlagKind.NEGATABLE
    if row.get("nargs") == 0:
        return FlagKind.SWITCH
    if kind == "bool_or_value":
        return FlagKind.SWITCH_OR_VALUE
    if action == "append":
        return FlagKind.REPEATED
    if kind == "list" or row.get("nargs") in ("+", "*"):
        return FlagKind.LIST
    if kind == "json":
        return FlagKind.JSON
    kind = str(row.get("type")) if kind == "enum" else kind
    return {
        "int": FlagKind.INT,
        "human_readable_int": FlagKind.INT,
        "human_readable_int_or_auto": FlagKind.INT,
        "float": FlagKind.FLOAT,
        "str": FlagKind.TEXT,
        "nullable_str": FlagKind.TEXT,
        "None": FlagKind.TEXT,
    }.get(kind, FlagKind.ANY)


_HELP_FLAG = re.compile(r"^ {1,4}(-{1,2}[A-Za-z].*)$")


def catalog_of_help(engine: str, version: str, text: str) -> Catalog:
    """A catalog from the text of ``--help`` (vLLM: ``--help=all``).

    The text says names, aliases, choices, which flags are switches and which take several
    values, but no types and no defaults; other values are therefore not checked.

    Raises:
        ConfigError: there is no flag in the text.
    """
    flags: dict[str, Flag] = {}
    for line in text.splitlines():
        match = _HELP_FLAG.match(line)
        if match is None:
            continue
        # Two spaces end the invocation and begin the sentence of help.
        flag = _helped(re.split(r" {2,}", match[1].strip())[0])
        if flag is not None and flag.name != "help":
            flags.setdefault(flag.name, flag)
    if not flags:
        raise ConfigError("no flags were found in this help text", hint="vLLM: use --help=all")
    return Catalog(engine, version, tuple(flags[name] for name in sorted(flags)), "help text")


def _helped(invocation: str) -> Flag | None:
    """One flag of an invocation such as ``-tp N, --tensor-parallel-size N``."""
    if re.search(r"['\"]", invocation):
        return None  # an example in the epilog, such as --json-arg '{"a": 1}'
    listed = re.search(r"\{([^}]*)\}(.*)", invocation)
    # "{a,b} or a name registered elsewhere" lists no closed set.
    closed = listed is not None and not re.match(r" (or|and) ", listed[2])
    choices = tuple(map(str.strip, listed[1].split(","))) if listed and closed else None
    parts = re.sub(r"\{[^}]*\}", "CHOICE", invocation).split(", ")
    names = [part.split()[0] for part in parts if part.startswith("-")]
    long_names = [name for name in names if name.startswith("--")]
    if not long_names or any(char in long_names[0] for char in ".+"):
        return None
    first = next((n for n in long_names if not n.startswith("--no-")), long_names[0])
    negatable = f"--no-{first[2:]}" in long_names
    others = [n for n in names if n != first and not (negatable and n.startswith("--no-"))]
    value = " ".join(" ".join(part.split()[1:]) for part in parts).strip()
    return Flag(
        canonical_name(first),
        FlagKind.NEGATABLE if negatable else _value_kind(value),
        tuple(canonical_name(n) for n in others),
        choices=choices,
    )


def _value_kind(metavar: str) -> FlagKind:
    """The kind that argparse's picture of a value tells: ``X``, ``[X]``, ``X [X ...]``."""
    if not metavar:
        return FlagKind.SWITCH
    if "..." in metavar:
        return FlagKind.LIST
    return FlagKind.SWITCH_OR_VALUE if metavar.startswith("[") else FlagKind.ANY
