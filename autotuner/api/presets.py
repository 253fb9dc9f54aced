"""The service's own presets: files that the command line reads as well, beside the shipped ones.

A shipped preset is never changed; an own one of the same name goes before it.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from autotuner.api.allow_file import Allowance
from autotuner.api.allowance import preset_refusals
from autotuner.api.documents import measure
from autotuner.api.logfiles import below
from autotuner.api.problems import NotFound
from autotuner.errors import ConfigError, InfrastructureError, StudyStateError
from autotuner.files import locked, replace
from autotuner.plugins import kinds
from autotuner.study.loading import StudyFile, yaml_text
from autotuner.study.presets import Preset, preset_of, presets, read_preset

SUFFIXES = (".yaml", ".yml", ".json")
LONGEST = 128
"""Letters of a name."""
RESERVED = ("import", "export", "merge")
"""Names that addresses have already."""

_PART = r"[a-z0-9][a-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})*")


@dataclass(frozen=True)
class Kept:
    """A preset, and whose it is.

    Attributes:
        own: of this service, not shipped.
        shadows: goes before a shipped one of the same name.
    """

    preset: Preset
    own: bool = False
    shadows: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**content_of(self.preset), "own": self.own, "shadows": self.shadows}


class Presets:
    """The presets of a service; the own ones are files below a directory.

    Methods raise InfrastructureError where the files cannot be read or written, and ConfigError
    where a preset holds what is not allowed: once it is kept, the command line reads it too,
    where nobody asks what it may hold.
    """

    def __init__(self, directory: Path, allowed: Callable[[], Allowance]) -> None:
        self._directory = directory
        self._allowed = allowed

    def all(self) -> tuple[list[Kept], list[str]]:
        """Every preset by name, and what is wrong with files that are none."""
        shipped = _shipped()
        found = {name: Kept(preset) for name, preset in shipped.items()}
        problems = []
        for name, path in self._files().items():
            try:
                found[name] = Kept(_read(path, name), own=True, shadows=name in shipped)
            except ConfigError as error:
                problems.append(error.text())
        return [found[name] for name in sorted(found)], problems

    def find(self, name: str) -> Kept:
        """Raises NotFound where there is none of that name; ConfigError where its file is
        broken."""
        shipped = _shipped()
        path = self._files().get(name)
        if path is not None:
            return Kept(_read(path, name), own=True, shadows=name in shipped)
        if name in shipped:
            return Kept(shipped[name])
        raise NotFound(f"there is no preset {name!r}")

    def create(self, preset: Preset) -> Kept:
        """Keep a new preset.

        Raises:
            StudyStateError: there is an own one of that name.
        """
        text = self._text(preset)
        with self._alone():
            if preset.name in self._files():
                raise StudyStateError(f"there already is a preset named {preset.name!r}; edit it")
            self._write({preset.name: text})
        return self.find(preset.name)

    def put(self, preset: Preset) -> Kept:
        """Keep a preset in the place of that of its name; a shipped one stays below it."""
        text = self._text(preset)
        with self._alone():
            self._write({preset.name: text})
        return self.find(preset.name)

    def change(self, name: str, changes: Mapping[str, Any]) -> Kept:
        """Keep a preset with other fields, maybe under another name.

        Raises:
            NotFound: there is none.
            StudyStateError: there is another of the new name.
        """
        with self._alone():
            was = self.find(name)
            changed = checked({**content_of(was.preset), **changes})
            text = self._text(changed)
            renamed = changed.name != name
            if renamed and changed.name in self._files():
                raise StudyStateError(f"there already is a preset named {changed.name!r}")
            self._write({changed.name: text})
            if renamed and was.own:
                self._remove(name)
        return self.find(changed.name)

    def delete(self, name: str) -> None:
        """Remove an own preset; a shipped one of its name is there again.

        Raises:
            NotFound: there is none.
            StudyStateError: it is a shipped one.
        """
        with self._alone():
            if not self.find_own(name):
                raise StudyStateError(f"preset {name!r} comes with autotuner and stays")
            self._remove(name)

    def find_own(self, name: str) -> bool:
        """Whether it is an own one, although its file may be broken; NotFound where there is
        none."""
        if name in self._files():
            return True
        self.find(name)
        return False

    def take(self, given: Sequence[Preset], *, replace: bool) -> tuple[list[Kept], list[str]]:
        """Keep several, all or none; those whose name is there already are left out, unless they
        replace.

        Returns:
            Those kept, and the names of those left out.
        """
        texts = {each.name: self._text(each, within=f"{each.name}: ") for each in given}
        with self._alone():
            there = {*self._files(), *_shipped()}
            skipped = [name for name in texts if name in there and not replace]
            self._write({name: text for name, text in texts.items() if name not in skipped})
        return [self.find(name) for name in texts if name not in skipped], skipped

    def _files(self) -> dict[str, Path]:
        """Name -> file, as `study.presets` finds them."""
        found: dict[str, Path] = {}
        try:
            for path in sorted(self._directory.rglob("*")):
                if path.suffix in SUFFIXES and path.is_file():
                    name = path.relative_to(self._directory).with_suffix("").as_posix()
                    found.setdefault(name, path)
        except OSError as error:
            raise InfrastructureError(f"{self._directory}: {error.strerror}") from error
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While two write at once, one waits: else the last would undo the first."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with locked(self._directory / ".lock"):
                yield
        except OSError as error:
            raise InfrastructureError(f"{self._directory}: {error.strerror}") from error

    def _write(self, texts: Mapping[str, str]) -> None:
        """All or none."""
        before = self._files()
        paths = {name: below(self._directory, f"{name}.yaml") for name in texts}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        replace({paths[name]: text.encode() for name, text in texts.items()}, mode=0o644)
        for name, path in paths.items():
            if before.get(name, path) != path:  # a person's, with another ending
                before[name].unlink(missing_ok=True)

    def _text(self, preset: Preset, within: str = "") -> str:
        """The preset as its file."""
        refused = preset_refusals(preset, self._allowed(), within)
        if refused:
            raise refused[0].with_others(refused[1:])
        return _text(preset)

    def _remove(self, name: str) -> None:
        path = self._files()[name]
        path.unlink()
        for directory in path.parents:
            if directory == self._directory or any(directory.iterdir()):
                return
            directory.rmdir()


def content_of(preset: Preset) -> dict[str, Any]:
    """A preset as it is written, with its name."""
    return {
        "name": preset.name,
        "why": preset.why,
        "engine": preset.engine,
        "category": preset.category,
        "parameters": dict(preset.parameters),
    }


def checked(content: Mapping[str, Any]) -> Preset:
    """A preset that may be kept, from its content.

    Raises:
        ConfigError: its name, its engine or its parameters are none.
    """
    refuse_unsayable(content)
    name = content.get("name")
    if not isinstance(name, str) or not usable(name):
        raise ConfigError(
            f"{name!r} is no name for a preset",
            where="name",
            hint=f"small letters, digits and . _ -, in parts joined by /, at most {LONGEST}, such "
            f"as team/long-prompts; not {', '.join(RESERVED)}, and no file's ending",
        )
    preset = preset_of(dict(content), name)
    if preset.engine is not None and preset.engine not in kinds("engine"):
        raise ConfigError(
            f"{preset.engine!r} is no engine", where="engine", allowed=kinds("engine")
        )
    return preset


def refuse_unsayable(content: Any, where: str = "") -> None:
    """Raises ConfigError where content holds what no answer could say again in JSON."""
    try:
        measure(StudyFile("", {where: content} if where else content, None))
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:  # a date, not a number, half a letter
        said = str(error).encode(errors="replace").decode()
        raise ConfigError(f"holds what JSON does not: {said}", where=where) from error


def usable(name: str) -> bool:
    """Whether a preset may be kept under a name: as a file it stays below its directory."""
    return (
        len(name) <= LONGEST
        and _NAME.fullmatch(name) is not None
        and not any(part.endswith(SUFFIXES) for part in name.split("/"))
        and name not in RESERVED
    )


def _text(preset: Preset) -> str:
    """The preset as its file, which says the same when it is read again."""
    content = {key: value for key, value in content_of(preset).items() if key != "name"}
    if preset.engine is None:
        del content["engine"]
    text = yaml_text(content)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "preset.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            again = read_preset(path, preset.name)
        except ConfigError as error:
            raise ConfigError(f"cannot be kept: {error.problem}", where=error.where) from error
    if content_of(again) != content_of(preset):
        raise ConfigError("holds letters that a file cannot keep", where="parameters")
    return text


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Preset]:
    """Those that come with autotuner do not change while it runs."""
    return {each.name: each for each in presets()}


def _read(path: Path, name: str) -> Preset:
    try:
        found = path.stat()
        return _read_once(path, name, found.st_mtime_ns, found.st_ino, found.st_size)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error


@lru_cache(maxsize=1024)
def _read_once(path: Path, name: str, _changed: int, _inode: int, _size: int) -> Preset:
    return read_preset(path, name)
