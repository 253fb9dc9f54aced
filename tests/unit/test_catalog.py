"""Flag catalogs: what a value becomes on the command line, what is refused, how one is made."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.engines.catalog import (
    Catalog,
    Flag,
    FlagKind,
    catalog_of_help,
    catalog_of_parser,
    catalog_of_python,
    known_engines,
    known_versions,
    load_catalog,
    read_catalog,
    write_catalog,
)
from autotuner.engines.extract import row
from autotuner.errors import ConfigError

VLLM_HELP = Path(__file__).parents[1] / "data" / "engine-help" / "vllm-0.32.0-excerpt.txt"

SMALL = Catalog(
    "small",
    "1.0",
    (
        Flag("enforce-eager", FlagKind.SWITCH),
        Flag("enable-prefix-caching", FlagKind.NEGATABLE),
        Flag("hf-token", FlagKind.SWITCH_OR_VALUE),
        Flag("max-num-seqs", FlagKind.INT),
        Flag("tensor-parallel-size", FlagKind.INT, ("tp",)),
        Flag("max-num-batched-tokens", FlagKind.INT, suffixes=True),
        Flag("block-size", FlagKind.INT, choices=(8, 16, 32)),
        Flag("gpu-memory-utilization", FlagKind.FLOAT),
        Flag("dtype", FlagKind.TEXT, choices=("auto", "bfloat16")),
        Flag("chat-template", FlagKind.TEXT),
        Flag("compilation-config", FlagKind.JSON, ("cc",)),
        Flag("cuda-graph-sizes", FlagKind.LIST),
        Flag("middleware", FlagKind.REPEATED),
        Flag("anything", FlagKind.ANY),
    ),
)


@pytest.mark.parametrize(
    ("name", "value", "items"),
    [
        ("enforce-eager", True, ["--enforce-eager"]),
        ("enforce-eager", False, []),
        ("enable-prefix-caching", True, ["--enable-prefix-caching"]),
        ("enable-prefix-caching", False, ["--no-enable-prefix-caching"]),
        ("hf-token", True, ["--hf-token"]),
        ("hf-token", False, []),
        ("hf-token", "abc", ["--hf-token", "abc"]),
        ("max-num-seqs", 64, ["--max-num-seqs", "64"]),
        ("max-num-seqs", 64.0, ["--max-num-seqs", "64"]),
        ("max-num-seqs", -1, ["--max-num-seqs", "-1"]),
        ("tp", 2, ["--tensor-parallel-size", "2"]),
        ("max-num-batched-tokens", "8k", ["--max-num-batched-tokens", "8k"]),
        ("max-num-batched-tokens", "8K", ["--max-num-batched-tokens", "8K"]),
        ("gpu-memory-utilization", 0.9, ["--gpu-memory-utilization", "0.9"]),
        ("gpu-memory-utilization", 1, ["--gpu-memory-utilization", "1"]),
        ("gpu-memory-utilization", 1e-05, ["--gpu-memory-utilization", "1e-05"]),
        ("dtype", "auto", ["--dtype", "auto"]),
        ("chat-template", "a b 'c'", ["--chat-template", "a b 'c'"]),
        ("chat-template", "true", ["--chat-template", "true"]),
        ("chat-template", "-x", ["--chat-template=-x"]),
        ("chat-template", "--x.y", ["--chat-template=--x.y"]),
        ("compilation-config", {"mode": 3}, ["--compilation-config", '{"mode":3}']),
        ("compilation-config", '{"mode": 3}', ["--compilation-config", '{"mode": 3}']),
        ("compilation-config", {"a": None, "b": [True]}, None),
        ("cc", {"mode": 3}, ["--compilation-config", '{"mode":3}']),
        ("compilation-config.cudagraph_mode", "NONE", None),
        ("cc.mode", 3, ["--compilation-config.mode", "3"]),
        ("compilation-config.sizes", [1, 2], ["--compilation-config.sizes", "[1,2]"]),
        ("cuda-graph-sizes", [1, 2, 4], ["--cuda-graph-sizes", "1", "2", "4"]),
        ("cuda-graph-sizes", 4, ["--cuda-graph-sizes", "4"]),
        ("cuda-graph-sizes", [], []),
        ("middleware", ["a.B", "c.D"], ["--middleware", "a.B", "--middleware", "c.D"]),
        ("middleware", "a.B", ["--middleware", "a.B"]),
        ("anything", 3, ["--anything", "3"]),
    ],
)
def test_a_value_becomes_these_items(name: str, value: Any, items: list[str] | None) -> None:
    SMALL.check(name, value, "space")
    argv = SMALL.argv({name: value})
    assert all(isinstance(item, str) for item in argv)
    if items is not None:
        assert argv == items


@pytest.mark.parametrize("flag", SMALL.flags, ids=lambda flag: flag.kind.name)
@pytest.mark.parametrize("nothing", [None, ""])
def test_null_and_the_empty_text_leave_any_flag_out(flag: Flag, nothing: Any) -> None:
    SMALL.check(flag.name, nothing, "space")
    assert SMALL.argv({flag.name: nothing}) == []


def test_nested_json_values_keep_their_types() -> None:
    value = {"a": None, "b": [True, 1.5, "x"], "c": {"d": 1.0}}
    flag, text = SMALL.argv({"compilation-config": value})
    assert flag == "--compilation-config"
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_inside_a_json_flag_is_a_json_boolean(value: bool) -> None:
    # vLLM reads `--compilation-config.x true` as JSON; bare it would be an IndexError there.
    name = "compilation-config.use_inductor"
    SMALL.check(name, value, "space")
    assert SMALL.argv({name: value}) == [f"--{name}", "true" if value else "false"]


def test_a_negative_fraction_is_one_item() -> None:
    # vLLM's parser takes an item that starts with a dash and holds a dot for a dotted flag.
    assert SMALL.argv({"gpu-memory-utilization": -0.5}) == ["--gpu-memory-utilization=-0.5"]


def test_flags_keep_their_order() -> None:
    values = {"max-num-seqs": 1, "dtype": None, "enforce-eager": True, "block-size": 8}
    assert SMALL.argv(values) == ["--max-num-seqs", "1", "--enforce-eager", "--block-size", "8"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enforce-eager", "true"),
        ("enforce-eager", 1),
        ("enable-prefix-caching", "on"),
        ("max-num-seqs", True),
        ("max-num-seqs", "64"),
        ("max-num-seqs", 64.5),
        ("max-num-seqs", "8k"),
        ("max-num-seqs", [64]),
        ("max-num-batched-tokens", "8 k"),
        ("max-num-batched-tokens", "eight"),
        ("max-num-batched-tokens", "1.5K"),
        ("max-num-batched-tokens", "-8k"),
        ("max-num-batched-tokens", "1.0"),
        ("max-num-batched-tokens", "auto"),
        ("block-size", 7),
        ("gpu-memory-utilization", "0.9"),
        ("gpu-memory-utilization", True),
        ("gpu-memory-utilization", {}),
        ("dtype", "float64"),
        ("dtype", True),
        ("chat-template", ["a"]),
        ("chat-template", {"a": 1}),
        ("compilation-config", True),
        ("anything", True),
        ("cuda-graph-sizes", True),
    ],
)
def test_a_value_the_engine_would_not_take_is_refused_with_its_place(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        SMALL.check(name, value, "space.x")
    assert caught.value.where == "space.x"
    assert repr(value) in caught.value.problem


def test_a_refused_choice_says_the_allowed_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        SMALL.check("block-size", 7, "space.block-size")
    assert caught.value.allowed == ("8", "16", "32")


def test_a_whole_float_is_one_of_the_choices_it_equals() -> None:
    SMALL.check("block-size", 16.0, "space")
    assert SMALL.argv({"block-size": 16.0}) == ["--block-size", "16"]


@pytest.mark.parametrize("value", ["8k", "8K", "2m", "1T", "1.5k", "4096", 4096, "-1"])
def test_human_numbers_are_taken_where_the_engine_takes_them(value: Any) -> None:
    SMALL.check("max-num-batched-tokens", value, "space")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("max-num-seq", "--max-num-seqs"),
        ("enable-prefix-cache", "--enable-prefix-caching"),
        ("tensor-paralel-size", "--tensor-parallel-size"),
    ],
)
def test_an_unknown_flag_names_the_nearest_ones(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SMALL.check(name, 1, "engine.arguments.x")
    assert f"small 1.0 has no flag --{name}" in caught.value.problem
    assert near in caught.value.hint


def test_a_prefix_of_a_flag_is_not_the_flag() -> None:
    assert SMALL.find("max-num") is None
    assert SMALL.find("tensor-parallel") is None


def test_a_dotted_name_needs_a_json_flag() -> None:
    assert SMALL.find("max-num-seqs.x") is None
    assert SMALL.find("nothing.x") is None


def test_a_negative_form_is_said_as_false() -> None:
    with pytest.raises(ConfigError) as caught:
        SMALL.check("no-enable-prefix-caching", True, "space")
    assert "enable-prefix-caching: false" in caught.value.hint


@given(st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text))
def test_whatever_a_text_holds_argparse_reads_it_back(text: str) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--chat-template")
    parser.add_argument("--max-num-seqs", type=int)
    argv = SMALL.argv({"chat-template": text, "max-num-seqs": 3})
    read = parser.parse_args(argv)
    assert (read.chat_template, read.max_num_seqs) == (text, 3)


COUNTS = {
    ("vllm", "0.10.0"): 158,
    ("vllm", "0.32.0"): 316,
    ("sglang", "0.5.2"): 210,
    ("sglang", "0.5.23"): 531,
}


@pytest.mark.parametrize(("engine", "version"), COUNTS, ids="-".join)
def test_a_shipped_catalog_holds_every_flag_of_its_version(engine: str, version: str) -> None:
    catalog = load_catalog(engine, version)
    assert (catalog.engine, catalog.version) == (engine, version)
    assert len(catalog.flags) == COUNTS[engine, version]
    names = [name for flag in catalog.flags for name in (flag.name, *flag.aliases)]
    assert len(set(names)) == len(names)
    assert all(name == name.lstrip("-") and "_" not in name for name in names)
    assert [flag.name for flag in catalog.flags] == sorted(flag.name for flag in catalog.flags)


@pytest.mark.parametrize(
    ("engine", "version", "kind", "count"),
    [
        ("vllm", "0.10.0", FlagKind.NEGATABLE, 42),
        ("vllm", "0.32.0", FlagKind.NEGATABLE, 88),
        ("vllm", "0.32.0", FlagKind.JSON, 37),
        ("vllm", "0.32.0", FlagKind.SWITCH, 5),
        ("sglang", "0.5.2", FlagKind.NEGATABLE, 0),
        ("sglang", "0.5.2", FlagKind.SWITCH, 62),
        ("sglang", "0.5.23", FlagKind.NEGATABLE, 12),
    ],
)
def test_a_shipped_catalog_knows_which_flags_are_switches(
    engine: str, version: str, kind: FlagKind, count: int
) -> None:
    flags = load_catalog(engine, version).flags
    assert sum(flag.kind is kind for flag in flags) == count


def test_vllm_takes_human_numbers_for_six_flags_and_auto_for_one() -> None:
    catalog = load_catalog("vllm", "0.32.0")
    assert {flag.name for flag in catalog.flags if flag.suffixes} == {
        "kv-cache-memory-bytes",
        "max-model-len",
        "max-num-batched-tokens",
        "max-num-queued-tokens",
        "max-num-scheduled-tokens",
        "safetensors-prefetch-block-size",
    }
    catalog.check("max-model-len", "auto", "space")
    with pytest.raises(ConfigError):
        catalog.check("max-num-batched-tokens", "auto", "space")


def test_flags_come_and_go_between_versions() -> None:
    old, new = load_catalog("vllm", "0.10.0"), load_catalog("vllm", "0.32.0")
    assert old.find("swap-space") is not None
    assert new.find("swap-space") is None
    assert new.find("tp") is new.find("tensor-parallel-size")


def test_the_newest_version_is_the_default_and_a_v_is_ignored() -> None:
    assert known_versions("vllm") == ["0.10.0", "0.32.0"]
    assert known_versions("sglang") == ["0.5.2", "0.5.23"], "by number, not by letter"
    assert load_catalog("vllm").version == "0.32.0"
    assert load_catalog("vllm", "v0.10.0").version == "0.10.0"
    assert {"vllm", "sglang", "simulated"} <= set(known_engines())


def test_a_version_without_a_catalog_says_which_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        load_catalog("vllm", "9.9")
    assert caught.value.where == "engine.version"
    assert caught.value.allowed == ("0.10.0", "0.32.0")
    with pytest.raises(ConfigError, match="no flag catalog for 'triton'") as caught:
        load_catalog("triton")
    assert caught.value.hint.startswith("name a file as engine.catalog")


def test_a_written_catalog_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    write_catalog(SMALL, path)
    assert read_catalog(path) == SMALL
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(SMALL.flags) + 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"engine": "a", "version": "1", "flags": 3}'])
def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_catalog(path)
    assert caught.value.where == "engine.catalog"
    assert str(path) in caught.value.problem


def test_a_missing_catalog_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a flag catalog"):
        read_catalog(tmp_path / "nothing.json")


def sample_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sample", allow_abbrev=False)
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--max-num-seqs", "-mns", type=int, default=256, help="How many.")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--prefix-caching", action=argparse.BooleanOptionalAction)
    parser.add_argument("--dtype", "--data-type", choices=["auto", "half"], default="auto")
    parser.add_argument("--fraction", type=float, default=0.9)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--plugin", action="append")
    parser.add_argument("--config", type=json.loads)
    parser.add_argument("--token", nargs="?", const=True)
    parser.add_argument("--name")
    return parser


def test_a_catalog_is_made_of_an_engines_own_parser() -> None:
    rows = [row(action) for action in sample_parser()._actions if action.dest != "help"]
    catalog = catalog_of_parser("sample", "1.0", rows)
    assert {flag.name: flag.kind for flag in catalog.flags} == {
        "config": FlagKind.JSON,
        "dtype": FlagKind.TEXT,
        "enforce-eager": FlagKind.SWITCH,
        "fraction": FlagKind.FLOAT,
        "max-num-seqs": FlagKind.INT,
        "name": FlagKind.TEXT,
        "plugin": FlagKind.REPEATED,
        "prefix-caching": FlagKind.NEGATABLE,
        "sizes": FlagKind.LIST,
        "token": FlagKind.SWITCH_OR_VALUE,
    }
    dtype = catalog.find("data-type")
    assert dtype is not None
    assert (dtype.name, dtype.choices, dtype.default) == ("dtype", ("auto", "half"), "auto")
    assert catalog.find("mns") == catalog.find("max-num-seqs")
    assert catalog.find("no-prefix-caching") is None


def test_what_a_catalog_of_a_parser_writes_the_parser_reads_back() -> None:
    parser = sample_parser()
    catalog = catalog_of_parser("sample", "1.0", [row(action) for action in parser._actions])
    values: dict[str, Any] = {
        "max-num-seqs": 8,
        "enforce-eager": True,
        "prefix-caching": False,
        "dtype": "half",
        "fraction": 0.5,
        "sizes": [1, 2],
        "plugin": ["a", "b"],
        "config": {"a": [1, None]},
        "token": True,
        "name": "-dash",
    }
    read = vars(parser.parse_args(catalog.argv(values)))
    assert read == {"model_tag": None} | {
        name.replace("-", "_"): value for name, value in values.items()
    }


def test_a_catalog_is_made_of_the_same_parsers_help_text() -> None:
    catalog = catalog_of_help("sample", "1.0", sample_parser().format_help())
    assert {flag.name: flag.kind for flag in catalog.flags} == {
        "config": FlagKind.ANY,
        "dtype": FlagKind.ANY,
        "enforce-eager": FlagKind.SWITCH,
        "fraction": FlagKind.ANY,
        "max-num-seqs": FlagKind.ANY,
        "name": FlagKind.ANY,
        "plugin": FlagKind.ANY,
        "prefix-caching": FlagKind.NEGATABLE,
        "sizes": FlagKind.LIST,
        "token": FlagKind.SWITCH_OR_VALUE,
    }
    dtype = catalog.find("data-type")
    assert dtype is not None
    assert (dtype.name, dtype.choices) == ("dtype", ("auto", "half"))
    assert catalog.find("mns") == catalog.find("max-num-seqs")


def test_vllms_real_help_text_is_read_without_its_sentences_and_examples() -> None:
    catalog = catalog_of_help("vllm", "0.32.0", VLLM_HELP.read_text(encoding="utf-8"))
    true_ones = load_catalog("vllm", "0.32.0")
    assert len(catalog.flags) == 21
    for flag in catalog.flags:
        true_one = true_ones.find(flag.name)
        assert true_one is not None, f"--{flag.name} is no flag"
        assert flag.aliases == true_one.aliases
        if true_one.kind in (FlagKind.SWITCH, FlagKind.NEGATABLE, FlagKind.SWITCH_OR_VALUE):
            assert flag.kind is true_one.kind
        if flag.choices is not None:
            assert set(flag.choices) == set(true_one.choices or ())
    assert catalog.argv({"enable-prefix-caching": False, "tp": 2}) == [
        "--no-enable-prefix-caching",
        "--tensor-parallel-size",
        "2",
    ]


@pytest.mark.parametrize("text", ["", "nothing here\n", "usage: x [-h] [--flag FLAG]\n"])
def test_a_text_without_flags_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no flags"):
        catalog_of_help("vllm", "1", text)


def test_an_engine_is_asked_itself_although_a_module_of_ours_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "vllm"
    modules = {
        "__init__.py": "__version__ = '7.8.9'",
        "utils/argparse_utils.py": "from argparse import ArgumentParser as FlexibleArgumentParser",
        "entrypoints/launchers/cli_args.py": (
            "def make_arg_parser(parser):\n"
            "    parser.add_argument('--max-num-seqs', type=int, default=9)\n"
            "    return parser\n"
        ),
    }
    for name, text in modules.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    catalog = catalog_of_python("vllm", Path(sys.executable))
    assert catalog.version == "7.8.9"
    assert [(flag.name, flag.default) for flag in catalog.flags] == [("max-num-seqs", 9)]


def test_a_python_without_the_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="gives no schema"):
        catalog_of_python("vllm", Path("/usr/bin/false"))


def test_an_item_of_a_list_is_never_a_flag_of_its_own() -> None:
    listed = Flag("cudagraph-capture-sizes", FlagKind.LIST)
    assert listed.problem([1, "--trust-remote-code"])
    assert listed.problem([1, -1]) is None
    repeated = Flag("middleware", FlagKind.REPEATED)
    assert repeated.items(["-x", "y"], "middleware") == ["--middleware=-x", "--middleware", "y"]
