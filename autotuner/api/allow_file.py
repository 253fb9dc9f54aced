"""What the operator allows studies that come by HTTP, besides what is harmless: the file of
AUTOTUNER_ALLOW, and what the names in it mean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from autotuner.errors import ConfigError
from autotuner.report.words import shortened
from autotuner.study.loading import StudyFile, read_study_text
from autotuner.study.space import canonical_name

Options = dict[str, dict[str, list[Any]]]


class Named(BaseModel):
    """The operator's file. A `*` in a name stands for any text without a slash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    everything: bool = Field(
        default=False,
        description="Whoever may send studies is trusted like whoever started the service.",
    )
    models: tuple[str, ...] = Field(
        default=(),
        description="Ids on the hub, such as `Qwen/*`; directories with all below them, such as "
        "`/data/models`, besides AUTOTUNER_MODELS.",
    )
    commands: tuple[tuple[str, ...], ...] = Field(
        default=(), description="Whole lists that `engine.command` may be."
    )
    image_commands: tuple[tuple[str, ...], ...] = Field(
        default=(), description="Whole lists that `engine.image_command` may be."
    )
    images: tuple[str, ...] = Field(
        default=(), description="Container images, as studies write them: `vllm/vllm-openai:*`."
    )
    environment: tuple[str, ...] = Field(
        default=(),
        description="Environment variables of servers. One that runs programs, leads elsewhere or "
        "is a secret must be named in full.",
    )
    flags: tuple[str, ...] = Field(
        default=(), description="Flags of engines, in full, with any value."
    )
    request: tuple[str, ...] = Field(default=(), description="Fields under `workload.request`.")
    files: tuple[str, ...] = Field(
        default=(), description="Directories of tables (`benchmark.table`) and `engine.catalog`."
    )
    backend: Options = Field(
        default={}, description="Kind -> option -> its values; `*` for any value."
    )
    benchmark: Options = Field(
        default={}, description="Kind -> option -> its values; `*` for any value."
    )

    @field_validator("flags")
    @classmethod
    def _canonical(cls, flags: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(canonical_name, flags))


_ON_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
_LOCAL = ("/", ".", "~")


@dataclass(frozen=True)
class Allowance:
    """What studies may choose.

    Attributes:
        named: by the operator.
        models: AUTOTUNER_MODELS, below which any model may be chosen.
        base: where relative paths of studies begin; this process's directory by default.
    """

    named: Named = field(default_factory=Named)
    models: Path | None = None
    base: Path | None = None

    @classmethod
    def everything(cls) -> Allowance:
        """For a service that nobody asks but whoever started it."""
        return cls(Named(everything=True))

    def has_model(self, said: str) -> bool:
        """Whether it is an allowed id on the hub, or a directory that is truly in an allowed one.

        What is on this machine under the very name of one on the hub is what would be served.
        """
        if said.startswith(_LOCAL) or os.path.lexists(self.absolute(said)):
            roots = [each for each in self.named.models if each.startswith(_LOCAL)]
            more = [str(self.models)] if self.models else []
            return self._below(said, [*roots, *more])
        return bool(_ON_HUB.fullmatch(said)) and matches(said, self.named.models)

    def has_file(self, said: str) -> bool:
        """Whether it is truly in a directory whose tables and catalogs may be read."""
        return self._below(said, self.named.files)

    def absolute(self, said: str) -> Path:
        """A path of a study's, its links not followed."""
        try:
            path = Path(said).expanduser()
        except RuntimeError:  # the home of nobody
            path = Path(said)
        return (self.base or Path.cwd()) / path

    def _below(self, said: str, roots: Sequence[str]) -> bool:
        """Whether a path, all its links followed, is one of the roots or in one."""
        try:
            real = Path(os.path.realpath(self.absolute(said)))
            real_roots = [Path(os.path.realpath(self.absolute(root))) for root in roots]
        except (OSError, ValueError):  # no path at all, such as one with a zero byte
            return False
        return any(real == root or root in real.parents for root in real_roots)


def matches(said: str, patterns: Sequence[str]) -> bool:
    """Whether a name is as one of the patterns, segment by segment."""
    parts = said.split("/")
    return any(
        len(parts) == len(pattern.split("/")) and all(map(fnmatchcase, parts, pattern.split("/")))
        for pattern in patterns
    )


def read_allowance(path: Path, models: Path | None = None, base: Path | None = None) -> Allowance:
    """The allowance that the file of AUTOTUNER_ALLOW says.

    Raises:
        ConfigError: it cannot be read, or says something else; every mistake is in it.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        raise ConfigError(
            f"cannot be read: {error}", file=str(path), where="AUTOTUNER_ALLOW"
        ) from error
    file = read_study_text(text, str(path))
    try:
        named = Named.model_validate({} if file.content is None else file.content)
    except ValidationError as error:
        first, *others = (_mistake(dict(each), file) for each in error.errors())
        raise first.with_others(others) from None
    return Allowance(named, models, base)


def _mistake(each: Mapping[str, Any], file: StudyFile) -> ConfigError:
    place = each["loc"]
    if each["type"] == "extra_forbidden":
        names = list(Named.model_fields)
        return file.error(place, f"unknown key {place[-1]!r}", allowed=names)
    return file.error(place, f"{shown(each['input'])}: {each['msg']}")


def shown(value: Any) -> str:
    """A value within a sentence."""
    return shortened(repr(value), 80)
