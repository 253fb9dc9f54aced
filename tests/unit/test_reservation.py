"""What a trial reserves of a cluster, whether it can ever fit, and how many fit at once."""

from __future__ import annotations

import pytest

from autotuner.execution.reservation import (
    Node,
    Reservation,
    cannot_hold,
    reservation,
    slots,
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


@pytest.mark.parametrize(
    ("needed", "nodes", "fits"),
    [
        (Reservation(1, 2), [Node(8, 2)], True),
        (Reservation(1, 4), [Node(8, 2), Node(8, 2)], False),
        (Reservation(9, 0), [Node(8, 2)], False),
        (Reservation(8, 2), [Node(8, 0), Node(1, 2)], False),
        (Reservation(1, 0), [], False),
    ],
)
def test_only_a_single_node_can_hold_a_trial(
    needed: Reservation, nodes: list[Node], fits: bool
) -> None:
    assert (cannot_hold(needed, nodes) is None) == fits


def test_why_a_trial_can_never_run_is_said_with_its_numbers() -> None:
    said = cannot_hold(Reservation(1, 8), [Node(16, 4), Node(32, 2)])
    assert said == (
        "needs 8 GPUs and 1 CPUs on one node; the largest of 2 nodes has 4 GPUs and 32 CPUs"
    )


@pytest.mark.parametrize(
    ("needed", "nodes", "count"),
    [
        (Reservation(1, 2), [Node(16, 8)], 4),
        (Reservation(1, 3), [Node(16, 8)], 2),
        (Reservation(1, 4), [Node(16, 6), Node(16, 6)], 2),
        (Reservation(4, 1), [Node(8, 8)], 2),
        (Reservation(4, 0), [Node(8, 0), Node(4, 0), Node(2, 0)], 3),
        (Reservation(1, 1), [Node(8, 0), Node(8, 2)], 2),
        (Reservation(1, 8), [Node(8, 2)], 1),
        (Reservation(1, 1), [], 1),
    ],
)
def test_as_many_trials_run_at_once_as_fit_whole_on_nodes(
    needed: Reservation, nodes: list[Node], count: int
) -> None:
    assert slots(needed, nodes) == count
