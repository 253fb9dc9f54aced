"""What can be said of a point without knowing which engine it is for: its launch, its refusal.

In a study of several engines each point belongs to one of them (see `StudySpec.at`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from autotuner.engines.base import Engine
from autotuner.errors import ConfigError
from autotuner.plugins import load_kind
from autotuner.serving import HERE, LaunchSpec, Place
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec


class Rules(Protocol):
    """The part of an `Engine` that is about points; an engine has it, and so do several."""

    def check(self, spec: StudySpec) -> None: ...

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, place: Place = HERE
    ) -> LaunchSpec: ...

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None: ...


def rules_of(spec: StudySpec) -> Rules:
    """The rules of the study's engine, or of its engines. Where servers are programs of this
    machine they refuse by what those would inherit as well.

    Raises:
        ConfigError: a kind that does not exist.
    """
    engines: dict[str, Engine] = {kind: load_kind("engine", kind) for kind in spec.engine.kinds}
    rules = _Several(engines) if len(engines) > 1 else engines[spec.engine.kinds[0]]
    return (
        _Inheriting(rules, os.environ) if load_kind("backend", spec.backend.kind).local else rules
    )


def engine_at(spec: StudySpec, parameters: Parameters) -> Engine:
    """The engine a point is for."""
    engine: Engine = load_kind("engine", spec.at(parameters)[0].engine.kinds[0])
    return engine


class _Inheriting:
    """Rules under an environment, over which a study's own variables win, as they do at a start.

    Only a refusal asks for it: a launch says what the study says, and the server adds the rest.
    """

    def __init__(self, rules: Rules, environment: Mapping[str, str]) -> None:
        self._rules, self._environment = rules, dict(environment)

    def check(self, spec: StudySpec) -> None:
        self._rules.check(spec)

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, place: Place = HERE
    ) -> LaunchSpec:
        return self._rules.launch(spec, parameters, port=port, place=place)

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None:
        # First without: few points are refused, and an environment can only be a reason to allow.
        reason = self._rules.refuse(spec, parameters)
        if reason is None:
            return None
        alone, own = spec.at(parameters)
        there = {**self._environment, **alone.engine.environment}
        engine = alone.engine.model_copy(update={"environment": there})
        return self._rules.refuse(alone.model_copy(update={"engine": engine}), own)


class _Several:
    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def check(self, spec: StudySpec) -> None:
        errors = []
        for kind, engine in self._engines.items():
            try:
                engine.check(spec.alone(kind))
            except ConfigError as error:
                errors += [_moved(each, kind) for each in (error, *error.others)]
        if errors:
            raise errors[0].with_others(errors[1:])

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, place: Place = HERE
    ) -> LaunchSpec:
        alone, own = spec.at(parameters)
        return self._engine(alone).launch(alone, own, port=port, place=place)

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None:
        alone, own = spec.at(parameters)
        return self._engine(alone).refuse(alone, own)

    def _engine(self, alone: StudySpec) -> Engine:
        return self._engines[alone.engine.kinds[0]]


def _moved(error: ConfigError, kind: str) -> ConfigError:
    """The error at its place in the file of several engines."""
    head, _, rest = error.where.partition(".")
    places = {"space": f"space.{kind}", "engine": f"engine.settings.{kind}"}
    where = ".".join(part for part in (places.get(head, head), rest) if part)
    return ConfigError(error.problem, where=where, allowed=error.allowed, hint=error.hint)
