"""Study files: YAML 1.2 and JSON, and every mistake with its file, line and place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import ConfigError
from autotuner.study.loading import located, parse_study, read_study, read_study_text
from autotuner.study.spec import StudySpec
from tests.builders import spec, study_content

HEAD = """\
name: small
model:
  path: /models/tiny
engine: {kind: vllm}
workload:
  scenarios:
    - D(100,20)
  concurrency: [1, 4]
"""
LAST = len(HEAD.splitlines())


def read(text: str, name: str = "study.yaml") -> StudySpec:
    return parse_study(read_study_text(text, name))


def error(text: str, name: str = "study.yaml") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text, name)
    return caught.value


def test_a_yaml_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(HEAD + "space:\n  max-num-seqs: [1, 2]\n", encoding="utf-8")
    study = parse_study(read_study(path))
    assert study.name == "small"
    assert study.space == {"max-num-seqs": [1, 2]}
    assert study.workload.concurrency == [1, 4]


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_a_json_file_says_the_same(tmp_path: Path, indent: Any) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(study_content(), indent=indent), encoding="utf-8")
    assert parse_study(read_study(path)) == spec()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-1.5e-5", -1.5e-05),
        (".5", 0.5),
        ("1.0", 1.0),
        ("8", 8),
        ("0x10", 16),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ('""', ""),
        ("8k", "8k"),
        ("12:30", "12:30"),
        ('"1"', "1"),
        ("2024-01-01", "2024-01-01"),
        ("{mode: 3, sizes: [1, 2.5]}", {"mode": 3, "sizes": [1, 2.5]}),
        ("'{\"mode\": 3}'", '{"mode": 3}'),
        ("18446744073709551616", 2**64),
    ],
)
def test_yaml_values_are_those_of_yaml_1_2(written: str, value: Any) -> None:
    (read_value,) = read(HEAD + f"space: {{x: [{written}]}}\n").space["x"]
    assert read_value == value
    assert type(read_value) is type(value)


def test_a_value_under_an_anchor_keeps_its_type() -> None:
    text = HEAD + "space:\n  a: [&yes true, false]\n  b: [*yes, &n 3, &f 0.5, &t text]\n"
    space = read(text).space
    assert space == {"a": [True, False], "b": [True, 3, 0.5, "text"]}
    assert [type(value) for value in space["b"]] == [bool, int, float, str]


def test_a_merged_mapping_is_read_as_if_it_were_written_out() -> None:
    text = HEAD + "space:\n  a: &r {type: int, low: 1, high: 4}\n  b: {<<: *r, high: 2}\n"
    assert read(text).parameter_space.size() == 8


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("1E+3", 1000.0),
        ('"on"', "on"),
        ("true", True),
        ("null", None),
        (r'"a\/b\u00e9\n"', "a/b\u00e9\n"),
        (r'"\ud83d\ude00"', "\N{GRINNING FACE}"),
    ],
)
def test_json_values_are_those_of_json(written: str, value: Any) -> None:
    text = json.dumps(study_content())[:-1] + f', "space": {{"x": [{written}]}}}}'
    (read_value,) = read(text, "study.json").space["x"]
    assert read_value == value
    assert type(read_value) is type(value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        read_study(Path("/nowhere/study.yaml"))
    assert caught.value.file == "/nowhere/study.yaml"
    assert caught.value.hint


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_study(path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just text\n", "3\n"])
def test_a_file_that_is_no_mapping_is_told_what_a_study_has(text: str) -> None:
    found = error(text)
    assert "mapping" in found.problem
    assert "workload" in found.allowed


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: small\nspace: [1\n", 3),
        ("name: small\nspace:\n\ta: 1\n", 3),
        ("name: small\n  model: x\n", 2),
        ("name: small\nspace: *nowhere\n", 2),
        ("name: small\n---\nname: other\n", 2),
    ],
)
def test_broken_yaml_is_an_error_with_its_line(text: str, line: int) -> None:
    found = error(text)
    assert found.file == "study.yaml"
    assert found.line == line
    assert "not YAML" in found.problem


@pytest.mark.parametrize("character", ["\x00", "\x01", "\x7f"])
def test_a_control_character_is_an_error_and_no_crash(character: str) -> None:
    assert error(HEAD + f"description: a{character}b\n").file == "study.yaml"


def test_broken_json_is_an_error_with_its_line() -> None:
    found = error('{"name": "small",\n "model": {"path": "/m",},\n}', "study.json")
    assert found.line == 2
    assert "not JSON" in found.problem


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("name: a\nmodel: {path: /m}\nname: b\n", "study.yaml", 3),
        (HEAD + "space:\n  a: [1]\n  b: [1]\n  a: [2]\n", "study.yaml", LAST + 4),
        ('{"name": "a",\n "name": "b"}', "study.json", 2),
    ],
)
def test_a_key_given_twice_is_an_error_with_its_line(text: str, name: str, line: int) -> None:
    found = error(text, name)
    assert "duplicate key" in found.problem
    assert found.line == line


@pytest.mark.parametrize(
    ("text", "where", "line", "key", "allowed", "near"),
    [
        (HEAD + "sapce:\n  a: [1]\n", "sapce", LAST + 1, "sapce", "space", "'space'"),
        (
            HEAD + "limits:\n  hours: 1\n  trial_second: 7\n",
            "limits.trial_second",
            LAST + 3,
            "trial_second",
            "trial_seconds",
            "'trial_seconds'",
        ),
        (
            HEAD.replace("{kind: vllm}", "{kind: vllm, argument: {}}"),
            "engine.argument",
            4,
            "argument",
            "arguments",
            "'arguments'",
        ),
    ],
)
def test_an_unknown_key_says_where_it_is_and_what_is_allowed(
    text: str, where: str, line: int, key: str, allowed: str, near: str
) -> None:
    found = error(text)
    assert (found.file, found.line, found.where) == ("study.yaml", line, where)
    assert f"unknown key {key!r} with value" in found.problem
    assert allowed in found.allowed
    assert near in found.hint


def test_an_unknown_key_in_json_has_its_line_too() -> None:
    text = json.dumps(study_content(limits={"hours": 1, "minutes": 3}), indent=1)
    found = error(text, "study.json")
    assert found.where == "limits.minutes"
    assert found.line == 1 + next(
        number for number, line in enumerate(text.splitlines()) if '"minutes"' in line
    )
    assert "3" in found.problem


def test_an_unknown_key_from_a_merge_is_an_error_and_no_crash() -> None:
    found = error(HEAD + "limits:\n  <<: {minutes: 3}\n")
    assert "unknown key 'minutes'" in found.problem
    assert found.file == "study.yaml"


def test_a_wrong_value_is_an_error_with_its_place_and_its_value() -> None:
    found = error(HEAD.replace("[1, 4]", "\n    - 1\n    - four\n"))
    assert found.where == "workload.concurrency.1"
    assert found.line == LAST + 2
    assert "'four' is not allowed" in found.problem
    assert found.hint.startswith("Requests kept in flight")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("name: small", "name: My Llama"), "it must be lower-case letters, digits and -"),
        (("[1, 4]", "8"), "8 is not allowed: it must be a list: write [8]"),
        (("[1, 4]", "[x]"), "'x' is not allowed: it must be a whole number"),
        (("[1, 4]", "[]"), "[] is not allowed: it must not be empty"),
        (("\n    - D(100,20)", " D(100,20)"), """it must be a list: write ["D(100,20)"]"""),
        (("[1, 4]", "[0]"), "0 is not allowed: it must be greater than or equal to 1"),
    ],
)
def test_what_is_asked_of_a_value_is_said_in_a_study_files_words(
    changed: tuple[str, str], said: str
) -> None:
    assert changed[0] in HEAD
    found = error(HEAD.replace(*changed))
    assert said in found.problem


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("description: 4\n", 'it must be text: write "4"'),
        ("description: [4]\n", "[4] is not allowed: it must be text"),
        ("objectives: ttft_p90\n", "it must be a list: write [ttft_p90]"),
        ("constraints: vllm serve\n", "it must be a mapping"),
        ("presets: a b\n", "it must be a list"),
        ("presets: {a: b}\n", "it must be a list"),
        ("limits: 3\n", "3 is not allowed: it must be a mapping"),
        ("limits: {hours: long}\n", "'long' is not allowed: it must be a number"),
        ("merge: x\n", "it must be 'union', 'intersection' or 'last_wins'"),
    ],
)
def test_a_value_of_another_form_says_how_to_write_it(more: str, said: str) -> None:
    assert error(HEAD + more).problem.endswith(said)


def test_a_missing_block_says_what_it_is_for() -> None:
    found = error(HEAD.replace("engine: {kind: vllm}\n", ""))
    assert found.where == "engine"
    assert "is missing" in found.problem
    assert "inference server" in found.hint


def test_every_mistake_is_found_in_one_reading() -> None:
    text = HEAD.replace("name: small", "name: Not Small") + "limits: {hours: 0}\nspaec: {}\n"
    found = error(text)
    assert {each.where for each in (found, *found.others)} == {"name", "limits.hours", "spaec"}
    message = str(found)
    assert message.count("study.yaml:") == 3


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        ("{type: int, low: 1, high: 4, hihg: 4}", "hihg"),
        ("{type: range, low: 1, high: 4}", "range"),
        ("{type: int, low: 9, high: 4}", "9"),
        ("5", "5"),
    ],
)
def test_a_wrong_domain_is_an_error_at_its_own_line_and_place(domain: str, value: str) -> None:
    found = error(HEAD + f"space:\n  block-size: [8, 16]\n  max-num-seqs: {domain}\n")
    assert value in found.problem
    assert found.where.startswith("space.max-num-seqs")
    assert found.line == LAST + 3


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize(
    "line",
    [
        "space: {{a: [0.5, {}]}}",
        "space: {{a: {{type: float, low: 0.5, high: {}}}}}",
        "space: {{a: {{type: float, low: {}, high: 0.5}}}}",
        "constraints: {{ttft_p99: {}}}",
        "limits: {{hours: {}}}",
        "description: {}",
    ],
)
def test_a_number_that_is_not_finite_is_an_error_with_its_line(line: str, number: str) -> None:
    found = error(HEAD + line.format(number) + "\n")
    assert found.line == LAST + 1
    assert found.where.startswith(line.partition(":")[0])


def test_a_number_that_is_not_finite_is_an_error_in_json_too() -> None:
    text = json.dumps(study_content(space={"a": [1.0, float("nan")]}))
    assert error(text, "study.json").where.startswith("space.a")


def test_a_flag_both_fixed_and_varied_is_an_error_with_a_line() -> None:
    text = HEAD.replace("{kind: vllm}", "{kind: vllm, arguments: {max-num-seqs: 3}}")
    found = error(text + "space:\n  block-size: [8]\n  max_num_seqs: [1, 2]\n")
    assert "both fixed" in found.problem
    assert found.line == LAST + 3


def test_a_wrong_scenario_says_which_forms_there_are() -> None:
    found = error(HEAD.replace("D(100,20)", "X(100,20)"))
    assert found.where.startswith("workload.scenarios")
    assert "'X(100,20)'" in str(found)
    assert "D(input,output)" in str(found)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("engine.arguments.max-num-seqs", 3),
        ("engine.arguments.compilation-config.cudagraph_mode", 4),
        ("engine.arguments", 2),
        ("engine.nothing", 1),
        ("space.env:MY_VARIABLE", 7),
        ("space.block-size", 6),
        ("nothing", None),
    ],
)
def test_an_error_found_later_gets_the_line_of_its_place(where: str, line: int | None) -> None:
    text = """\
engine:
  arguments:
    --max_num_seqs: 3
    compilation_config.cudagraph_mode: NONE
space:
  block_size: [8]
  env:MY_VARIABLE: [1]
"""
    file = read_study_text(text, "study.yaml")
    first = ConfigError("wrong", where=where, allowed=["x"], hint="do", others=[ConfigError("o")])
    found = located(first, file)
    assert (found.file, found.line) == ("study.yaml", line)
    assert (found.problem, found.allowed, found.hint) == ("wrong", ("x",), "do")
    assert found.others[0].file == "study.yaml"
