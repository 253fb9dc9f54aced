"""docs/architecture.md names every module, in its place, and none that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "autotuner"


def listed() -> Iterator[str]:
    """The modules of the list, as paths below the package."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = text.split("## Modules", 1)[1].split("```text\nautotuner/\n", 1)[1].split("```", 1)[0]
    directory = last = ""
    for line in block.splitlines():
        if not line.startswith(" "):
            continue  # beside the package
        names = re.findall(r"(?<![\w/.])[\w.]+\.py\b", line)
        if re.match(r" {2}\w", line):
            first = line.split()[0]
            directory = first if first.endswith("/") else ""
        inner = re.match(r" {4}(\w+/)", line)
        place = directory + (inner[1] if inner else "")
        if line.startswith(" " * 12):  # a line that goes on describes what it hangs below
            place = last
        last = place
        yield from (place + name for name in names)


def test_the_list_is_the_tree() -> None:
    there = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    named = list(listed())
    assert len(named) == len(set(named))
    assert set(named) == there


def floors(text: str) -> list[set[str]]:
    return [set(re.findall(r"\w+", line)) for line in text.splitlines() if line.strip()]


def test_the_domains_floors_are_those_of_the_contract() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = text.split("Inside the domain:", 1)[1].split("```")[1].removeprefix("text")
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("The domain, from", 1)[1]
    layers = contract.split("layers = [", 1)[1].split("]", 1)[0]
    assert floors(drawn) == floors(layers)
