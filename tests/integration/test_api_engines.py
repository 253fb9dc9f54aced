"""Engines over HTTP: true flags of every version, and the ones that people tune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from autotuner.api.app import application
from autotuner.api.service import service
from autotuner.engines.catalog import known_engines, known_versions, load_catalog
from autotuner.engines.catalog.tuned import COMMONLY_TUNED, commonly_tuned
from autotuner.plugins import kinds
from autotuner.settings import Settings
from autotuner.study.presets import presets
from autotuner.study.space import canonical_name

CATALOGS = [(kind, version) for kind in known_engines() for version in known_versions(kind)]

NOT_FOR_SPEED = {
    "host", "port", "api-key", "served-model-name", "log-level", "log-requests", "log-stats",
    "otlp-traces-endpoint", "download-dir", "model-loader-extra-config",
    "override-neuron-config", "ssl-keyfile", "ssl-certfile", "disable-fastapi-docs",
    "trust-remote-code", "model", "model-path", "tokenizer", "seed",
}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    home: Path = tmp_path_factory.mktemp("home")
    made = service(Settings(home=home))
    with TestClient(application(made), base_url="http://127.0.0.1:8000") as client:
        yield client
    made.studies.store.close()


def read(client: TestClient, path: str, **query: Any) -> Any:
    answer = client.get(f"/v1/engines{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_engine_with_the_versions_that_are_known(client: TestClient) -> None:
    items = read(client, "")["items"]
    assert [each["kind"] for each in items] == kinds("engine")
    for each in items:
        assert each["versions"] == known_versions(each["kind"])
        assert each["default"] == load_catalog(each["kind"]).version


@pytest.mark.parametrize(("kind", "version"), CATALOGS)
def test_every_flag_of_every_version(client: TestClient, kind: str, version: str) -> None:
    found = read(client, f"/{kind}/{version}/flags")
    catalog = load_catalog(kind, version)
    assert (found["engine"], found["version"]) == (kind, version)
    assert found["count"] == len(found["flags"]) == len(catalog.flags)
    for said, flag in zip(found["flags"], catalog.flags, strict=True):
        assert (said["name"], said["kind"], said["default"]) == (
            flag.name, flag.kind.value, flag.default,
        )  # fmt: skip
        assert said["choices"] == (None if flag.choices is None else list(flag.choices))
    tuned = {each["name"] for each in found["flags"] if each["commonly_tuned"]}
    only = read(client, f"/{kind}/{version}/flags", commonly_tuned=True)
    assert [each["name"] for each in only["flags"]] == [f.name for f in commonly_tuned(catalog)]
    assert {each["name"] for each in only["flags"]} == tuned
    assert only["count"] == len(tuned) > 5


def test_flags_are_found_by_any_of_their_names(client: TestClient) -> None:
    def found(q: str) -> list[str]:
        return [each["name"] for each in read(client, "/sglang/0.5.2/flags", q=q)["flags"]]

    assert "tensor-parallel-size" in found("tp-size")
    assert found("--MEM_fraction_Static") == ["mem-fraction-static"]
    assert found("no such flag") == []


def test_what_is_commonly_tuned_is_known_and_is_about_speed() -> None:
    for kind, names in COMMONLY_TUNED.items():
        catalogs = [load_catalog(kind, version) for version in known_versions(kind)]
        unknown = [name for name in names if not any(each.find(name) for each in catalogs)]
        assert unknown == []
        assert len(set(names)) == len(names) <= 60
        assert not NOT_FOR_SPEED & {*names}
        for flag in commonly_tuned(catalogs[-1]):
            assert not flag.deprecated, flag.name


def test_what_the_shipped_presets_vary_is_commonly_tuned() -> None:
    for preset in presets():
        if preset.engine is None:
            continue
        tuned = {flag.name for flag in commonly_tuned(load_catalog(preset.engine))}
        catalog = load_catalog(preset.engine)
        for name in preset.parameters:
            flag = catalog.find(canonical_name(name))
            assert flag is not None
            assert flag.name in tuned


def test_two_engines_are_compared(client: TestClient) -> None:
    found = read(client, "/compatibility", one="vllm", other="sglang")
    one, other = found["engines"]
    assert (one["engine"], other["engine"]) == ("vllm", "sglang")
    assert ["tensor-parallel-size", "tp-size"] in [each["names"] for each in found["common"]]
    assert "gpu-memory-utilization" in one["only"]
    assert "mem-fraction-static" in other["only"]
    older = read(
        client, "/compatibility", one="vllm", other="vllm", one_version="0.10.0",
        other_version="0.32.0",
    )  # fmt: skip
    assert [each["version"] for each in older["engines"]] == ["0.10.0", "0.32.0"]
    assert "swap-space" in older["engines"][0]["only"]


@pytest.mark.parametrize(
    ("name", "value", "valid", "said"),
    [
        ("max-num-seqs", 64, True, ""),
        ("--max_num_seqs", 64, True, ""),
        ("max-num-seqs", "many", False, "whole number"),
        ("max-num-sequences", 64, False, "max-num-seqs"),
        ("no-enable-prefix-caching", True, False, "enable-prefix-caching: false"),
        ("kv-cache-dtype", "fp9", False, "one of auto"),
        ("enforce-eager", [1, {"a": None}], False, "true or false"),
        ("x" * 200, None, False, "no flag"),
        ("", 1, False, "no flag"),
    ],
)
def test_a_value_fits_a_flag_or_it_is_said_why_not(
    client: TestClient, name: str, value: Any, valid: bool, said: str
) -> None:
    answer = client.post("/v1/engines/vllm/0.32.0/validate", json={"name": name, "value": value})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["valid"], found["name"]) == (valid, canonical_name(name))
    assert said in f"{found['problem']}; {found['suggestion']}"
    assert bool(found["problem"]) != valid


@pytest.mark.parametrize(
    "path",
    [
        "/vlm/0.32.0/flags",
        "/vllm/9.9/flags",
        "/(/1/flags",
        "/.*/1/flags",
        "/vllm/..%2Fx/flags",
        "/compatibility?one=vllm&other=nothing",
        "/compatibility?one=vllm&other=sglang&other_version=1",
    ],
)
def test_what_is_not_known_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(f"/v1/engines{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
