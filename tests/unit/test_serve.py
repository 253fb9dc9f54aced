"""What `autotuner serve` says before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.api.serve import HANDED_OUT, lent


@pytest.mark.parametrize(
    ("port", "warned"), [(8000, False), (40000, True), (40001, True), (50000, True), (50001, False)]
)
def test_a_port_that_the_kernel_hands_out_is_warned_of(
    tmp_path: Path, port: int, warned: bool
) -> None:
    ports = tmp_path / "ip_local_port_range"
    ports.write_text("40000\t50000\n", encoding="ascii")
    said = lent(port, ports)
    assert bool(said) is warned
    assert not warned or said.endswith("choose one below 40000")


def test_this_machine_says_which_ports_it_hands_out() -> None:
    first = int(HANDED_OUT.read_text(encoding="ascii").split()[0])
    assert lent(first)
    assert lent(40000, Path("/no/such/file")) == ""
