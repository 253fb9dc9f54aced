"""A study file, YAML or JSON, into a StudySpec; every mistake with its file, line and place."""

from __future__ import annotations

import difflib
import io
import json
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from autotuner.errors import ConfigError
from autotuner.study.domains import Misplaced
from autotuner.study.space import canonical_name
from autotuner.study.spec import StudySpec, problem_of, short


@dataclass(frozen=True)
class StudyFile:
    """The text of a study file, parsed: its plain values, and where each of them stands."""

    path: str
    content: Any
    marks: Any

    def line(self, place: Sequence[str | int]) -> int | None:
        """Line of a place, counted from 1: of the deepest part of it that exists."""
        node, line = self.marks, None
        for key in place:
            # A key that came in by a merge (<<) has no line of its own.
            if isinstance(node, CommentedMap) and key in (node.lc.data or {}):
                line = node.lc.key(key)[0] + 1
            elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
                line = node.lc.item(key)[0] + 1
            else:
                break
            node = node[key]
        return line

    def line_of(self, where: str) -> int | None:
        """Line of a dotted place; the name of a flag may be spelled otherwise in the file and
        may hold dots itself."""
        place: list[str | int] = []
        node, rest = self.content, where
        while rest and isinstance(node, Mapping):
            spelled = {spelling: k for k in node for spelling in (canonical_name(k), k)}
            head = next((s for s in spelled if (rest + ".").startswith(s + ".")), None)
            if head is None:
                break
            place.append(spelled[head])
            node, rest = node[spelled[head]], rest[len(head) + 1 :]
        return self.line(place)

    def error_below(
        self, place: Sequence[str | int], below: Sequence[str], problem: str
    ) -> ConfigError:
        """An error at canonical names below a place."""
        where = ".".join([*map(str, place), *below])
        return ConfigError(problem, where=where, file=self.path, line=self.line_of(where))

    def error(self, place: Sequence[str | int], problem: str, **more: Any) -> ConfigError:
        return ConfigError(
            problem,
            where=".".join(map(str, place)),
            file=self.path,
            line=self.line(place),
            **more,
        )


def read_study(path: Path) -> StudyFile:
    """The file's values and marks, not yet checked."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {error}", file=str(path), hint="give the path of a study file"
        ) from error
    return read_study_text(text, str(path))


def read_study_text(text: str, name: str) -> StudyFile:
    """As `read_study`, from text; JSON is tried first where the name or the text says so."""
    parsed: Any = None
    if name.endswith(".json"):
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"is not JSON: {error.msg}", file=name, line=error.lineno) from error
    # YAML 1.2 contains JSON, keeps `on` and `no` as text and 1e-3 as a number; its parser
    # refuses a key given twice, which JSON's own silently overwrites.
    try:
        marks = YAML(typ="rt", pure=True).load(text)
        values = parsed if parsed is not None else YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = str(error.problem).split(" with value")[0]
        raise ConfigError(problem, file=name, line=line) from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError(
            f"is not YAML: {error.problem}", file=name, line=line, hint=str(error.context or "")
        ) from error
    except YAMLError as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise ConfigError(f"is not YAML: {first}", file=name) from error
    return StudyFile(name, plain(values), marks)


def yaml_text(content: Mapping[str, Any]) -> str:
    """A study's content as a study file."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = None
    yaml.width = 100
    # An empty place is easily overlooked.
    yaml.representer.add_representer(type(None), _null)
    stream = io.StringIO()
    yaml.dump(dict(content), stream)
    return stream.getvalue()


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def parse_study(file: StudyFile) -> StudySpec:
    """Check the values of a study file.

    Raises:
        ConfigError: with every mistake found.
    """
    if not isinstance(file.content, Mapping):
        raise ConfigError(
            "a study file is a mapping",
            file=file.path,
            allowed=list(StudySpec.model_fields),
        )
    endless = next(_not_finite(file.content), None)
    if endless is not None:
        place, value = endless
        raise file.error(place, f"{value} is not a number that can be used")
    try:
        return StudySpec.model_validate(file.content)
    except ValidationError as error:
        raise config_error(error, file) from error


def located(error: ConfigError, file: StudyFile) -> ConfigError:
    """The same error, found after parsing, with the file and line of its place; one that is
    about another file keeps that."""
    if error.file:
        return error
    return ConfigError(
        error.problem,
        where=error.where,
        file=file.path,
        line=file.line_of(error.where),
        allowed=error.allowed,
        hint=error.hint,
        others=[located(other, file) for other in error.others],
    )


def config_error(error: ValidationError, file: StudyFile) -> ConfigError:
    """One ConfigError of all that pydantic found."""
    first, *others = (_explained(dict(each), file) for each in error.errors())
    return first.with_others(others)


def _explained(each: Mapping[str, Any], file: StudyFile) -> ConfigError:
    place = tuple(each["loc"])
    kind = each["type"]
    if kind == "extra_forbidden":
        allowed = _fields(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), allowed, n=1)
        return file.error(
            place,
            f"unknown key {place[-1]!r} with value {short(each['input'])}",
            allowed=allowed,
            hint=f"did you mean {near[0]!r}?" if near else "",
        )
    if kind == "value_error":
        error = each["ctx"]["error"]
        if isinstance(error, Misplaced):
            return file.error_below(place, error.place, error.problem)
        return file.error(place, str(error))
    return file.error(place, problem_of(each), hint=_described(place))


def _fields(place: Sequence[str | int]) -> list[str]:
    """Names of the fields at a place of the models."""
    model: type[BaseModel] = StudySpec
    for key in place:
        field = model.model_fields.get(str(key))
        if field is None:
            continue
        inner = [
            each
            for each in (field.annotation, *typing.get_args(field.annotation))
            if isinstance(each, type) and issubclass(each, BaseModel)
        ]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _described(place: Sequence[str | int]) -> str:
    model: type[BaseModel] = StudySpec
    place = [key for key in place if not isinstance(key, int)]  # an item is as its list
    for key in place:
        field = model.model_fields.get(str(key))
        if field is None:
            break
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
            description = (model.__doc__ or "").splitlines()[0]
        else:
            description = field.description or ""
        if key == place[-1]:
            return description
    return ""


def _not_finite(
    node: Any, place: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], float]]:
    """Places of infinities and of what is not a number: JSON has neither."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _not_finite(value, (*place, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _not_finite(value, (*place, index))
    elif isinstance(node, float) and not math.isfinite(node):
        yield place, node


def plain(node: Any) -> Any:
    """Parsed YAML as JSON values: a key is a text, and so is a date."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    return node if node is None or isinstance(node, bool | int | float | str) else str(node)
