"""What engines with argparse command lines share: flags checked, merged and written out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autotuner.engines.catalog import Catalog, load_catalog, read_catalog
from autotuner.engines.quantization import (
    Mapper,
    Preview,
    already_quantized,
    check_quantization,
    mapper_of,
    preview,
)
from autotuner.errors import ConfigError
from autotuner.serving import Place
from autotuner.study.domains import environment_text
from autotuner.study.quantization import QUANTIZATION, chosen
from autotuner.study.space import ENVIRONMENT, Choice, Float, Parameter, Parameters
from autotuner.study.spec import EngineSettings, StudySpec


def catalog_of(spec: StudySpec) -> Catalog:
    """The flag catalog the study is checked against: its own file, or a built-in version."""
    if spec.engine.catalog:
        return read_catalog(Path(spec.engine.catalog))
    return load_catalog(spec.engine.kinds[0], spec.engine.version)


def check_flags(spec: StudySpec, catalog: Catalog, owned: Mapping[str, str]) -> None:
    """Check every fixed and varied flag of a study, and those its number formats become.

    Args:
        owned: flags autotuner sets itself -> where the user says it instead.

    Raises:
        ConfigError: with every mistake found.
    """
    checks = _Checks(catalog, owned)
    for name, value in spec.engine.arguments.items():
        checks.flag(name, [value], f"engine.arguments.{name}")
    for parameter in spec.parameter_space.parameters:
        where = f"space.{parameter.name}"
        if parameter.name.startswith(ENVIRONMENT):
            checks.errors += _environment_errors(parameter, where)
        elif not parameter.name.startswith(QUANTIZATION):
            checks.flag(parameter.name, extremes(parameter), where)
    varied = spec.parameter_space.names
    for name in (n for n in spec.space if n not in varied and not n.startswith(ENVIRONMENT)):
        if catalog.find(name) is None:  # an empty list takes nothing out under a wrong name
            checks.value(name, "", f"space.{name}")
    if spec.quantization is not None:
        settled = _settled(spec, catalog)
        checks.errors += check_quantization(spec.quantization, catalog, settled)
    if checks.errors:
        raise checks.errors[0].with_others(checks.errors[1:])


class _Checks:
    """A study's flags, checked one after another; each may be set in one place only.

    Args:
        owned: see `check_flags`.
    """

    def __init__(self, catalog: Catalog, owned: Mapping[str, str]) -> None:
        self._catalog, self._owned = catalog, owned
        self._seen: dict[str, str] = {}
        self.errors: list[ConfigError] = []

    def flag(self, name: str, values: Iterable[Any], where: str) -> None:
        """A flag and the values that it gets, as far as the first wrong one."""
        flag = self._catalog.find(name)
        true_name = flag.name if flag else name
        mistake = self._mistake(true_name, where)
        if mistake is not None:
            self.errors.append(mistake)
            return
        self._seen[true_name] = where
        for value in values:
            if not self.value(name, value, where):
                break

    def value(self, name: str, value: Any, where: str) -> bool:
        """Whether the flag takes it."""
        try:
            self._catalog.check(name, value, where)
        except ConfigError as error:
            self.errors.append(error)
            return False
        return True

    def _mistake(self, name: str, where: str) -> ConfigError | None:
        """Why a flag cannot be set here, whatever its value."""
        if name in self._owned:
            return ConfigError(f"--{name} is set by autotuner", where=where, hint=self._owned[name])
        if name in self._seen:
            return ConfigError(f"--{name} is already set by {self._seen[name]}", where=where)
        # vLLM takes a dotted key for the whole JSON again, and the last one wins.
        clash = next((each for each in self._seen if _same_json(each, name)), None)
        if clash is not None:
            return ConfigError(
                f"--{name} and --{clash} would overwrite each other",
                where=where,
                hint="give the whole JSON, or all of it by dotted keys",
            )
        return None


def _settled(spec: StudySpec, catalog: Catalog) -> frozenset[str]:
    """True names of the flags that the study gives in every trial, whatever its formats."""
    always = [p.name for p in spec.parameter_space.parameters if not p.when]
    return _true_names([*spec.engine.arguments, *always], catalog)


def _true_names(names: Iterable[str], catalog: Catalog) -> frozenset[str]:
    return frozenset(flag.name if (flag := catalog.find(n)) else n for n in names)


def quantization_preview(spec: StudySpec) -> Preview:
    """Every different set of flags that the study's number formats make.

    Raises:
        ConfigError: the engine has no number formats.
    """
    catalog = catalog_of(spec)
    return preview(
        spec.quantization,
        catalog.engine,
        quantized=already_quantized(spec.model.path),
        settled=_settled(spec, catalog),
    )


def _same_json(one: str, other: str) -> bool:
    return one.startswith(other + ".") or other.startswith(one + ".")


def extremes(parameter: Parameter) -> tuple[Any, ...]:
    """The values that stand for a domain in a check: all choices, or both ends; and of a
    range of floats, one between, which is no whole number unless the step makes all whole."""
    domain = parameter.domain
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain, Float):
        inside = (domain.low + domain.high) / math.e
        steps = [] if domain.step is None else [domain.low + i * domain.step for i in range(3)]
        first = [round(each, 12) for each in steps if each <= domain.high]
        return (domain.low, domain.high, *(first or [inside]))
    return (domain.low, domain.high)


def _environment_errors(parameter: Parameter, where: str) -> list[ConfigError]:
    errors = []
    for value in extremes(parameter):
        try:
            environment_text("" if value is None else value)
        except ValueError as error:
            errors.append(ConfigError(str(error), where=where))
    return errors


def flag_values(
    spec: StudySpec, parameters: Parameters, mapper: Mapper | None = None
) -> dict[str, Any]:
    """The flags of the point's number formats, then the fixed ones, then the point's own, under
    canonical names; a flag that the user gives under any of its names wins over a format."""
    other = (ENVIRONMENT, QUANTIZATION)
    varied = {k: v for k, v in parameters.items() if not k.startswith(other)}
    said = {**spec.engine.arguments, **varied}
    if spec.quantization is None:
        return said
    catalog = catalog_of(spec)
    fields = chosen(spec.quantization, parameters)
    mapped = (mapper or mapper_of(catalog.engine))(
        fields, quantized=already_quantized(spec.model.path)
    )
    users = _true_names(said, catalog)
    formats = {k: v for k, v in mapped.arguments.items() if not _true_names([k], catalog) & users}
    return {**formats, **said}


def environment(spec: StudySpec, parameters: Parameters) -> dict[str, str]:
    """Fixed variables, then the point's; None and an empty text leave one out."""
    varied = {
        name.removeprefix(ENVIRONMENT): environment_text(value)
        for name, value in parameters.items()
        if name.startswith(ENVIRONMENT) and value is not None and value != ""
    }
    return {**spec.engine.environment, **varied}


def given(catalog: Catalog, values: Mapping[str, Any], name: str) -> Any:
    """The value a study gives a flag under any of its names, or None.

    Which of its names comes first differs between versions: `tp-size` was once the second.
    """
    meant = catalog.find(name)
    for key, value in values.items():
        flag = catalog.find(key)
        if flag is not None and flag is meant:
            return value
    return None


def command_at(
    place: Place, engine: EngineSettings, here: tuple[str, ...], in_image: tuple[str, ...]
) -> tuple[str, ...]:
    """The engine's program in a place: the study's own, else the engine's usual."""
    if place.image:
        return tuple(engine.image_command or in_image)
    return tuple(engine.command or here)


def image_of(engine: EngineSettings, official: str, tag: str) -> str:
    """The whole reference of the study's image, which it may say by its tag alone."""
    said = engine.image or tag
    return said if "/" in said or ":" in said or "@" in said else f"{official}:{said}"
