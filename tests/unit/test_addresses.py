"""This machine's own addresses, and its free ports."""

from __future__ import annotations

import pytest

from autotuner.addresses import free_ports, is_loopback
from autotuner.errors import InfrastructureError


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost.", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"],
)
def test_this_machine_is_known_by_all_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "localhost.example.org", "127.0.0.1.x"],
)
def test_others_are_not_taken_for_it(host: str) -> None:
    assert not is_loopback(host)


def test_several_ports_are_different_ones_or_none() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    with pytest.raises(InfrastructureError, match="no free port"):
        free_ports(2, (ports[0], ports[0]))
