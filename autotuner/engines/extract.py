"""Print an engine's own command-line schema as JSON. A program, run by the engine's Python:

    PYTHON extract.py vllm > vllm.json

It needs nothing of autotuner, so it also runs inside an engine's container image.
"""

from __future__ import annotations

import argparse
import enum
import importlib
import json
import sys
from pathlib import Path
from typing import Any


def vllm_parser() -> tuple[argparse.ArgumentParser, str]:
    """vLLM's `serve` parser; its modules moved between versions."""
    version = importlib.import_module("vllm").__version__
    utils = _first("vllm.utils.argparse_utils", "vllm.utils")
    cli = _first("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
    return cli.make_arg_parser(utils.FlexibleArgumentParser(prog="vllm serve")), version


def sglang_parser() -> tuple[argparse.ArgumentParser, str]:
    version = importlib.import_module("sglang").__version__
    arguments = importlib.import_module("sglang.srt.server_args").ServerArgs
    parser = argparse.ArgumentParser(prog="sglang")
    arguments.add_cli_args(parser)
    return parser, version


def _first(*names: str) -> Any:
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return importlib.import_module(names[-1])


def type_name(converter: Any) -> str | None:
    """Name of an argument's converter; vLLM wraps the true one in closures."""
    if converter is None:
        return None
    for cell in getattr(converter, "__closure__", None) or ():
        if callable(cell.cell_contents):
            return type_name(cell.cell_contents)
    name = str(getattr(converter, "__name__", converter))
    return "json" if name in ("loads", "parse_dataclass", "union_dict_and_str") else name


def plain(value: Any) -> Any:
    if value is argparse.SUPPRESS:
        return None
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str | int | float) else value.name
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


def row(action: argparse.Action) -> dict[str, Any]:
    kind = type(action).__name__
    known = {"_StoreAction": "store", "_StoreTrueAction": "store_true", "_AppendAction": "append"}
    long_names = [name for name in action.option_strings if name.startswith("--")]
    flag = (long_names or action.option_strings or [action.dest])[0]
    converter = type_name(action.type)
    listed = action.nargs in ("+", "*") or (isinstance(action.nargs, int) and action.nargs > 1)
    if action.nargs == "?" and action.const is True:
        value_kind: str | None = "bool_or_value"
    elif listed:
        value_kind = "list"
    else:
        value_kind = "enum" if action.choices else converter or "str"
    return {
        "flag": flag,
        "aliases": [name for name in action.option_strings if name != flag],
        "type": converter,
        "kind": value_kind,
        "default": plain(action.default),
        "choices": None if action.choices is None else plain(list(action.choices)),
        "nargs": action.nargs,
        "action": known.get(kind, kind),
        "positional": not action.option_strings,
        "deprecated": "deprecated" in kind.lower()
        or str(action.help or "").lower().lstrip("[(").startswith("deprecated"),
    }


def main(engine: str) -> None:
    sys.argv = [engine, "--help"]  # vLLM only builds its whole parser when help is asked for
    parser, version = {"vllm": vllm_parser, "sglang": sglang_parser}[engine]()
    rows = [row(action) for action in parser._actions if action.dest != "help"]
    json.dump({"engine": engine, "version": version, "args": rows}, sys.stdout, default=str)


if __name__ == "__main__":
    # A script's own directory comes first among modules, and ours holds a vllm.py and a sglang.py.
    here = Path(__file__).resolve().parent
    sys.path[:] = [each for each in sys.path if Path(each or ".").resolve() != here]
    main(sys.argv[1])
