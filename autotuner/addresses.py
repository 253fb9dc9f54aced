"""This machine's own addresses: which are nobody else's, and which of its ports are free."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

from autotuner.errors import InfrastructureError

LOOPBACK = "127.0.0.1"
OWN_NAMES = (LOOPBACK, "localhost")
"""Never asked through a proxy."""

FIRST_PORT, LAST_PORT = 20000, 31999
"""Above Ray's worker ports (10002-19999) and below what the kernel hands out (32768 and up)."""

TRIES = 100
"""Ports that are looked at, at most, to find one that is free."""


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine and nobody else."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def free_port(ports: tuple[int, int] = (FIRST_PORT, LAST_PORT), host: str = LOOPBACK) -> int:
    """A port, from the first to the last of `ports`, that nothing listens on at this moment.

    Raises:
        InfrastructureError: none found.
    """
    return free_ports(1, ports, host)[0]


def free_ports(
    count: int, ports: tuple[int, int] = (FIRST_PORT, LAST_PORT), host: str = LOOPBACK
) -> list[int]:
    """Different ones; see `free_port`."""
    among = range(ports[0], ports[1] + 1)
    found: list[int] = []
    for port in random.SystemRandom().sample(among, min(len(among), TRIES)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((host, port))
            found.append(port)
        if len(found) == count:
            return found
    raise InfrastructureError(f"no free port found from {ports[0]} to {ports[1]}")
