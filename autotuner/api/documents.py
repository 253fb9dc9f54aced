"""Studies as they come by HTTP: text or JSON, checked without touching more than is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    ScalarEvent,
)

from autotuner.api.allowance import refusals
from autotuner.api.problems import ProblemError, mistake
from autotuner.api.service import Service
from autotuner.errors import ConfigError
from autotuner.job import Job, job_of
from autotuner.study.loading import StudyFile, parse_study, read_study_text, yaml_text
from autotuner.study.presets import SUFFIXES
from autotuner.study.study import Study
from autotuner.study.task import is_task, study_of_task

YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
JSON_TYPES = ("application/json",)

ALIASES = 20
"""Of a YAML text, at most: each may stand for the others many times over."""

LONGEST = 2**15
"""Characters of a study, at most."""

LARGEST = 20_000
"""Values in a study, at most, each alias counted as what it stands for."""

DEEPEST = 40
"""Levels of a text, at most."""

WHOLE = 2**53
"""Whole numbers up to here are the same for all who read JSON: browsers round larger ones."""

NAME = "study"
"""What an error calls the text that was sent."""


async def sent(request: Request) -> StudyFile:
    """The study in a request's body, as it was written.

    Raises:
        ConfigError: it cannot be read.
        ProblemError: it is neither JSON nor YAML.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (*JSON_TYPES, *YAML_TYPES):
        raise ProblemError(
            415,
            "media-type",
            f"{kind or 'no content type'!r} is not allowed; send a study as "
            "application/yaml or application/json",
        )
    body = await request.body()
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", file=NAME) from error
    return read_text(text, as_json=kind in JSON_TYPES)


def read_text(text: str, *, as_json: bool = False) -> StudyFile:
    """As `loading.read_study_text`, of a text that nobody here has written."""
    try:
        if as_json:
            json.loads(text)  # one that is not is said to be no JSON, although YAML might be
        _refuse_bombs(text)
        read = read_study_text(text, f"{NAME}.json" if as_json else NAME)
        measure(read)
    except json.JSONDecodeError as error:
        raise ConfigError(f"is not JSON: {error.msg}", file=NAME, line=error.lineno) from error
    except RecursionError as error:
        raise ConfigError(f"has more than {DEEPEST} levels", file=NAME) from error
    except ValueError as error:
        said = str(error).splitlines()[0].encode(errors="replace").decode()
        raise ConfigError(f"cannot be read: {said}", file=NAME) from error
    return read


def measure(read: StudyFile) -> None:
    """Refuse what can be read, but not be kept or said again.

    Raises:
        ConfigError: too many levels, or a whole number beyond WHOLE.
        ValueError: half a character.
    """
    _measure(read, read.content, ())


def _measure(read: StudyFile, content: Any, place: tuple[Any, ...]) -> None:
    if len(place) == DEEPEST:
        raise ConfigError(f"has more than {DEEPEST} levels", file=read.path)
    if isinstance(content, Mapping):
        for key, value in content.items():
            _measure(read, key, place)
            _measure(read, value, (*place, key))
    elif isinstance(content, list | tuple):
        for number, each in enumerate(content):
            _measure(read, each, (*place, number))
    elif isinstance(content, str):
        content.encode()  # half a character is no text that anybody could be answered with
    elif isinstance(content, int) and abs(content) > WHOLE:
        # It is not said: Python writes no number of more than some thousand digits.
        raise read.error(place, "is a whole number beyond 2^53, which not everybody can read")


def job(service: Service, read: StudyFile) -> Job:
    """A study that was sent, checked: its own files, programs and images only as allowed.

    Raises:
        ConfigError: with every mistake found.
    """
    _refuse_files(read.content)
    allowed = service.allowed
    return job_of(
        read,
        presets=[service.presets],
        base=service.directory,
        refusals=lambda spec: refusals(spec, allowed),
    )


def refuse_stored(service: Service, study: Study) -> None:
    """Raises ConfigError where a stored study chooses what it may not any more: the operator may
    have taken something off the list since, or it came by the command line, which has none."""
    refused = refusals(study.spec, service.allowed)
    if refused:
        raise refused[0].with_others(refused[1:])


def both_forms(text: str | None, content: Mapping[str, Any] | None) -> dict[str, Any]:
    """A study as YAML and as JSON, given either, with what is wrong with it.

    A task of the earlier system becomes a study. A text that cannot be read stays as it is,
    and has no content.
    """
    notes, problems = list[str](), list[ConfigError]()
    read: StudyFile | None = None
    try:
        read = read_text(text) if text is not None else _read_content(content or {})
        if is_task(read.content):
            task = study_of_task(read.content)
            notes, text = list(task.notes), None
            read = StudyFile(NAME, task.content, None)
        parse_study(read)
    except ConfigError as error:
        problems = [error, *error.others]
    found = dict(read.content) if read and isinstance(read.content, Mapping) else None
    if found is not None and not _is_json(found):
        found = None  # the problems say where
    if text is None:
        text = yaml_text(found or {}) if found else ""
    return {
        "content": found,
        "yaml": text,
        "notes": notes,
        "problems": [mistake(each).model_dump() for each in problems],
    }


def _read_content(content: Mapping[str, Any]) -> StudyFile:
    read = StudyFile(NAME, dict(content), None)
    measure(read)
    if len(json.dumps(content)) > LONGEST:
        raise ConfigError(f"has more than {LONGEST:,} characters", file=NAME)
    return read


def _refuse_files(content: Any) -> None:
    """Presets may be named by their files, but not from afar."""
    names = content.get("presets") if isinstance(content, Mapping) else None
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str) and name.endswith(SUFFIXES):
            raise ConfigError(
                f"{name!r} is a file", where="presets", file=NAME, hint="name a preset: /v1/presets"
            )


def _is_json(content: Mapping[str, Any]) -> bool:
    try:
        json.dumps(content, allow_nan=False)
    except (ValueError, TypeError):
        return False
    return True


def _refuse_bombs(text: str) -> None:
    """Texts that take far longer to read than to send: whoever reads them whole is too late.

    Raises:
        ConfigError: too long, too deep, with too many aliases, or with too many values once each
            alias is what it stands for.
    """
    if len(text) > LONGEST:
        raise ConfigError(f"has more than {LONGEST:,} characters", file=NAME)
    counted = _Counted()
    try:
        for each in YAML(typ="safe", pure=True).parse(text):
            counted.take(each)
    except YAMLError:
        return  # whoever reads it says what is wrong


class _Counted:
    """What a YAML text holds, from its events: nothing is built."""

    def __init__(self) -> None:
        self._values = self._aliases = 0
        self._open: list[tuple[str | None, int]] = []
        self._anchored: dict[str, int] = {}

    def take(self, event: Event) -> None:
        """Raises ConfigError where that is too much."""
        if isinstance(event, AliasEvent):
            self._aliases += 1
            if any(anchor == event.anchor for anchor, _ in self._open):
                raise ConfigError(f"*{event.anchor} stands for what it is in", file=NAME)
            # What stands for nothing is said by whoever reads it.
            self._values += self._anchored.get(event.anchor, 1)
        elif isinstance(event, CollectionStartEvent):
            self._open.append((event.anchor, self._values))
            self._values += 1
        elif isinstance(event, CollectionEndEvent):
            anchor, before = self._open.pop()
            self._anchor(anchor, self._values - before)
        elif isinstance(event, ScalarEvent):
            self._values += 1
            self._anchor(event.anchor, 1)
        self._check()

    def _anchor(self, anchor: str | None, values: int) -> None:
        if anchor is not None:
            self._anchored[anchor] = values

    def _check(self) -> None:
        if len(self._open) > DEEPEST:
            raise ConfigError(f"has more than {DEEPEST} levels", file=NAME)
        if self._aliases > ALIASES:
            hint = "write them out"
            raise ConfigError(f"has more than {ALIASES} aliases", file=NAME, hint=hint)
        if self._values > LARGEST:
            raise ConfigError(f"holds more than {LARGEST:,} values", file=NAME)
