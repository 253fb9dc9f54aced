"""An engine from a package outside autotuner, over HTTP: what it says of its flags is what counts.

The engine is the one that docs/extending.md shows, once as it is written there, once without its
`harmless`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from autotuner.api.allowance import variables
from autotuner.api.app import application
from autotuner.api.service import service
from autotuner.engines.base import Decided, Harmless, harmless_of
from autotuner.engines.catalog import Catalog, Flag, FlagKind, write_catalog
from autotuner.plugins import kinds, load_kind
from autotuner.settings import Settings
from tests.builders import study_content

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SAID = re.compile(r"^    harmless = .*?^    \)\n", re.M | re.S)


def sources() -> dict[str, str]:
    """Kind -> its module."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (mine,) = [each for each in blocks if "class _Mine" in each]
    assert SAID.search(mine)
    return {"mine": mine, "silent": SAID.sub("", mine)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with both engines installed in it, and a catalog of their flags."""
    directory = tmp_path_factory.mktemp("plugins")
    for kind, source in sources().items():
        (directory / f"engine_{kind}.py").write_text(source)
        entry = directory / f"{kind}-0.dist-info"
        entry.mkdir()
        (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {kind}\nVersion: 0\n")
        (entry / "entry_points.txt").write_text(
            f"[autotuner.engine]\n{kind} = engine_{kind}:MINE\n"
        )
    numbers = [Flag(name, FlagKind.INT) for name in ("gpus", "max-tokens", "prefill-tokens")]
    flags = (*numbers, Flag("draft", FlagKind.TEXT), Flag("plugin", FlagKind.TEXT))
    write_catalog(Catalog("mine", "1.0", flags), directory / "mine-1.0.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        yield directory
    for kind in sources():
        sys.modules.pop(f"engine_{kind}", None)


@pytest.fixture
def client(place: Path, tmp_path: Path) -> Iterator[TestClient]:
    """Of a service whose operator names a model, and where catalogs are."""
    allow = tmp_path / "allow.yaml"
    allow.write_text(f"models: [Qwen/*]\nfiles: [{place}]\nflags: [plugin]\n")
    made = service(Settings(_env_file=None, home=tmp_path / "home", allow=allow))
    with TestClient(application(made), base_url="http://127.0.0.1:8000") as client:
        yield client
    made.studies.store.close()


def sent(client: TestClient, place: Path, kind: str, **arguments: Any) -> Any:
    content = study_content(
        model={"path": "Qwen/Qwen3-0.6B"},
        engine={"kind": kind, "catalog": str(place / "mine-1.0.json"), "arguments": arguments},
        space={"prefill-tokens": [8, 16]},
    )
    return client.post("/v1/studies", json=content)


def test_an_engine_that_says_what_its_flags_do_is_served(client: TestClient, place: Path) -> None:
    assert isinstance(load_kind("engine", "mine"), Decided)
    answer = sent(client, place, "mine", **{"max-tokens": 64, "draft": "Qwen/draft"})
    assert answer.status_code == 201, answer.text


def test_of_its_flags_those_alone_that_it_names(client: TestClient, place: Path) -> None:
    assert sent(client, place, "mine", plugin="a.b").status_code == 201  # the operator's word
    for flag, value in (("draft", "evil/draft"), ("gpus", 2), ("max-tokens", "/etc/passwd")):
        answer = sent(client, place, "mine", **{flag: value})
        assert answer.status_code == 422
        assert f"engine.arguments.{flag}" in answer.text
        assert f"name {flag} under `flags`" in answer.text
        assert "the author" not in answer.text


def test_its_variables_are_those_of_its_own_studies(place: Path) -> None:
    assert place  # where it is installed
    assert set(variables("mine")) - set(variables("vllm")) == {"MINE_THREADS"}
    assert variables("silent") == variables("vllm") == variables(None)


def test_one_that_says_nothing_is_refused_and_told_what_to_do(
    client: TestClient, place: Path
) -> None:
    assert harmless_of(load_kind("engine", "silent")) == Harmless()
    answer = sent(client, place, "silent")
    assert answer.status_code == 422
    assert "--prefill-tokens 8 may not be chosen by a study that comes by HTTP" in answer.text
    assert "ask the operator to name prefill-tokens under `flags`" in answer.text
    assert "the author of the engine silent to have it say what is `harmless`" in answer.text


def test_one_that_is_not_installed_has_no_author_to_ask(client: TestClient, place: Path) -> None:
    answer = sent(client, place, "nobodys")
    assert answer.status_code == 422
    assert "the author" not in answer.text


@pytest.mark.parametrize("kind", kinds("engine"))
def test_every_engine_of_autotuners_own_says_it(kind: str) -> None:
    assert isinstance(load_kind("engine", kind), Decided)
    assert harmless_of(load_kind("engine", kind)).flags
