"""What a trial reserves of a cluster, and whether it can ever fit."""

from __future__ import annotations

import dataclasses

import pytest

from autotuner.execution.reservation import (
    Node,
    Reservation,
    cannot_hold,
    reservation,
)
from autotuner.serving import LaunchSpec


def launch(gpus: int, cpus: float | None = None) -> LaunchSpec:
    return LaunchSpec(("serve",), (), {}, "", "/m", "m", 8000, gpus=gpus, cpus=cpus)


@pytest.mark.parametrize(
    ("gpus", "cpus", "nodes", "needed"),
    [
        (2, None, [Node(16, 8)], Reservation(1.0, 2)),
        (2, 4.0, [Node(16, 8)], Reservation(4.0, 2)),
        (2, None, [Node(16, 0), Node(16, 8)], Reservation(1.0, 2)),
        (1, None, [Node(16, 0)], Reservation(16.0, 0)),
        (1, None, [Node(16, 0), Node(4, 0)], Reservation(4.0, 0)),
        (1, None, [Node(0, 0), Node(4, 0)], Reservation(4.0, 0)),
        (1, 2.0, [Node(16, 0)], Reservation(2.0, 0)),
        (0, 1.0, [Node(16, 8)], Reservation(1.0, 0)),
        (1, None, [Node(0.5, 0)], Reservation(1.0, 0)),
        (1, None, [], Reservation(1.0, 0)),
    ],
)
def test_a_trial_reserves_its_gpus_or_the_cpus_of_a_whole_node(
    gpus: int, cpus: float | None, nodes: list[Node], needed: Reservation
) -> None:
    assert reservation(launch(gpus, cpus), nodes) == needed


def test_gpus_are_those_that_the_backend_counts() -> None:
    needed = reservation(launch(4), [Node(16, 8)], resource="ome_gpu")
    assert needed == Reservation(1.0, 4, resource="ome_gpu")
    assert needed.bundles == [{"CPU": 1.0, "ome_gpu": 4}]


@pytest.mark.parametrize("gpus", [8, 0])
def test_a_server_over_several_nodes_reserves_its_share_on_each(gpus: int) -> None:
    spread = dataclasses.replace(launch(16, 2.0), nodes=2)
    needed = reservation(spread, [Node(16, gpus), Node(16, gpus)])
    assert needed.bundles == [{"CPU": 2.0, "GPU": gpus}, {"CPU": 2.0, "GPU": gpus}]


@pytest.mark.parametrize(
    ("needed", "nodes", "fits"),
    [
        (Reservation(1, 2), [Node(8, 2)], True),
        (Reservation(1, 4), [Node(8, 2), Node(8, 2)], False),
        (Reservation(9, 0), [Node(8, 2)], False),
        (Reservation(8, 2), [Node(8, 0), Node(1, 2)], False),
        (Reservation(1, 0), [], False),
        (Reservation(1, 4, nodes=2), [Node(8, 2), Node(8, 2)], True),
        (Reservation(1, 4, nodes=2), [Node(8, 4)], False),
        (Reservation(1, 4, nodes=2), [Node(8, 3), Node(8, 1)], False),
        (Reservation(1, 3, nodes=2), [Node(8, 2), Node(8, 2)], False),
    ],
)
def test_a_trial_fits_only_whole_shares_on_nodes(
    needed: Reservation, nodes: list[Node], fits: bool
) -> None:
    assert (cannot_hold(needed, nodes) is None) == fits


@pytest.mark.parametrize(
    ("needed", "nodes", "said"),
    [
        (
            Reservation(1, 16),
            [Node(16, 8), Node(32, 2)],
            "needs 16 GPUs on one node; the largest of 2 nodes has 8",
        ),
        (
            Reservation(1, 16, resource="ome_gpu"),
            [Node(16, 8)],
            "needs 16 GPUs (ome_gpu) on one node; the largest of 1 nodes has 8",
        ),
        (
            Reservation(40, 2),
            [Node(16, 4), Node(32, 2)],
            "needs 40 CPUs on one node; the largest of 2 nodes has 32",
        ),
        (
            Reservation(20, 4),
            [Node(16, 4), Node(32, 2)],
            "needs 4 GPUs and 20 CPUs on one node; none of 2 has both",
        ),
        (
            Reservation(1, 16, nodes=2),
            [Node(16, 8), Node(32, 2)],
            "needs 8 GPUs and 1 CPUs on each of 2 nodes; 1 of 2 have them",
        ),
        (
            Reservation(1, 5, nodes=2),
            [Node(16, 8), Node(32, 8)],
            "needs 5 GPUs, which cannot be shared equally by 2 nodes",
        ),
    ],
)
def test_why_a_trial_can_never_run_is_said_with_the_clusters_numbers(
    needed: Reservation, nodes: list[Node], said: str
) -> None:
    assert cannot_hold(needed, nodes) == said
