"""The command `catalog`: an engine's flags listed, compared with another's, or read anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autotuner.errors import ConfigError
from autotuner.terminal import AS_JSON, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autotuner.engines.catalog import Catalog, Flag

_MODES: dict[str, tuple[str, ...]] = {
    "without an ENGINE": (),
    "with --from-python": ("from_python", "output"),
    "with --from-help": ("from_help", "output", "version"),
    "with --against or --against-version": ("against", "against_version", "version"),
    "of the flags of an engine": ("search", "version"),
}
"""What the command can do, and the options that mean something there."""


@click.command()
@click.argument("engine", required=False)
@click.option("--version", help="Version shown, or written.")
@click.option("--search", help="Only flags whose name holds this text.")
@click.option("--against", help="Compare with the flags of this engine; the same one by default.")
@click.option("--against-version", help="Version of the other; its newest by default.")
@click.option(
    "--from-python",
    type=click.Path(path_type=Path, exists=True),
    help="Write a catalog: ask the engine installed for this Python.",
)
@click.option(
    "--from-help",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Write a catalog: read the text of the engine's --help (vLLM: --help=all).",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; ENGINE-VERSION.json by default.",
)
@AS_JSON
def catalog(engine: str | None, as_json: bool, **options: Any) -> None:
    """Show an engine's flags, or make the flag catalog of another version."""
    given = {name: value for name, value in options.items() if value}
    _refuse_strangers(_mode(engine, given), given)
    if engine is None:
        _list(as_json)
    elif "from_python" in given or "from_help" in given:
        _make(engine, given, as_json)
    elif "against" in given or "against_version" in given:
        _compare(engine, given, as_json)
    else:
        _show(engine, given, as_json)


def _mode(engine: str | None, given: Mapping[str, Any]) -> str:
    listing, python, text, comparing, showing = _MODES
    if engine is None:
        return listing
    if "from_python" in given:
        return python
    if "from_help" in given:
        return text
    return comparing if {"against", "against_version"} & given.keys() else showing


def _refuse_strangers(mode: str, given: Mapping[str, Any]) -> None:
    """An option that would be ignored was meant to do something."""
    strange = [f"--{name.replace('_', '-')}" for name in given if name not in _MODES[mode]]
    if strange:
        raise click.UsageError(f"{', '.join(strange)} means nothing {mode}")


def _list(as_json: bool) -> None:
    from autotuner.engines.catalog import known_engines, known_versions

    versions = {each: known_versions(each) for each in known_engines()}
    if as_json:
        print_json(versions)
        return
    for engine, known in versions.items():
        click.echo(f"{engine:<12} {', '.join(known)}")


def _make(engine: str, given: Mapping[str, Any], as_json: bool) -> None:
    from autotuner.engines.catalog import catalog_of_python, write_catalog

    made = (
        catalog_of_python(engine, given["from_python"])
        if "from_python" in given
        else _catalog_of_help(engine, given.get("version"), given["from_help"])
    )
    path = given.get("output") or Path(f"{engine}-{made.version}.json")
    write_catalog(made, path)
    if as_json:
        print_json({"file": str(path), "version": made.version, "flags": len(made.flags)})
        return
    click.echo(f"{path}: {len(made.flags)} flags of {engine} {made.version}")
    click.echo(f"use it with  engine: {{kind: {engine}, catalog: {path}}}")


def _catalog_of_help(engine: str, version: str | None, path: Path) -> Catalog:
    from autotuner.engines.catalog import catalog_of_help

    if version is None:
        raise ConfigError("a help text does not say its version", hint="add --version X.Y.Z")
    return catalog_of_help(engine, version, path.read_text(encoding="utf-8", errors="replace"))


def _compare(engine: str, given: Mapping[str, Any], as_json: bool) -> None:
    from autotuner.engines.catalog import load_catalog
    from autotuner.engines.compatibility import compatibility

    one = load_catalog(engine, given.get("version"))
    other = load_catalog(given.get("against") or engine, given.get("against_version"))
    found = compatibility(one, other)
    if as_json:
        print_json(found.to_json())
        return
    names = [f"{each.engine} {each.version}" for each in (one, other)]
    click.echo(f"{len(found.common)} flags of both {names[0]} and {names[1]}:")
    for shared in found.common:
        alias = f" (there --{shared.other.name})" if shared.one.name != shared.other.name else ""
        differs = f"  differs: {shared.differs}" if shared.differs else ""
        click.echo(f"  --{shared.one.name}{alias}{differs}")
    for name, only in zip(names, (found.only_one, found.only_other), strict=True):
        click.echo(f"{len(only)} flags of {name} only:")
        for flag in only:
            click.echo(f"  --{flag}")


def _show(engine: str, given: Mapping[str, Any], as_json: bool) -> None:
    from autotuner.engines.catalog import load_catalog

    shown = load_catalog(engine, given.get("version"))
    text = given.get("search", "")
    flags = [flag for flag in shown.flags if text in flag.name]
    if as_json:
        content = shown.to_json()
        names = {flag.name for flag in flags}
        print_json({**content, "flags": [f for f in content["flags"] if f["name"] in names]})
        return
    if not flags:
        click.echo(f"no flag of {shown.engine} {shown.version} has {text!r} in its name", err=True)
    for flag in flags:
        click.echo(_line(flag))


def _line(flag: Flag) -> str:
    choices = " {" + ",".join(map(str, flag.choices)) + "}" if flag.choices else ""
    default = "" if flag.default is None else f"  (default {flag.default})"
    return f"--{flag.name}  {flag.kind.value}{choices}{default}"
