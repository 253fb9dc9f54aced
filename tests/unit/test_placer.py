"""Which waiting trial starts on which node."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.execution.placer import AHEAD, OVERTAKEN, SICK, Placed, Placer
from autotuner.execution.reservation import Node, Reservation, holds

A, B = Node(64, 8, "a"), Node(64, 8, "b")


def gpus(number: int, nodes: int = 1) -> Reservation:
    return Reservation(1, number, nodes)


def placer(*nodes: Node, **options: int) -> Placer:
    made = Placer(**options)
    made.see(nodes or (A, B))
    return made


def start(placer: Placer, sizes: Sequence[int], first: int = 0) -> list[Placed]:
    """Let trials of these sizes wait, and start all that fit."""
    for number, size in enumerate(sizes, start=first):
        placer.wait(number, gpus(size))
    return started(placer)


def started(placer: Placer) -> list[Placed]:
    found = []
    while (placed := placer.place()) is not None:
        placer.started(placed.number)
        found.append(placed)
    return found


def end(placer: Placer, number: int, *nodes: Node) -> None:
    """A trial comes to an answer, and the cluster's books say so."""
    placer.ended(number, broke=False)
    placer.see(nodes or (A, B))


def test_a_trial_goes_where_it_leaves_least_free() -> None:
    small = placer(A, replace(B, gpus=4))
    assert start(small, [4]) == [Placed(0, ("b",))]
    both = placer()
    assert start(both, [2, 1, 4]) == [Placed(2, ("a",)), Placed(0, ("a",)), Placed(1, ("a",))]
    assert start(both, [8], first=3) == [Placed(3, ("b",))]


def test_cpus_count_as_gpus_do() -> None:
    few = placer(replace(A, cpus=2), B)
    placed = start(few, [1, 1, 1])
    assert [each.nodes for each in placed] == [("a",), ("a",), ("b",)]


def test_on_a_cluster_without_gpus_cpus_alone_decide() -> None:
    cpus = placer(Node(8, 0, "a"), Node(4, 0, "b"))
    for number in range(4):
        cpus.wait(number, Reservation(4, 0))
    assert [each.nodes for each in started(cpus)] == [("b",), ("a",), ("a",)]


def test_others_fill_the_rest_while_a_node_is_emptied_for_a_large_trial() -> None:
    busy = placer(overtaken=1)
    start(busy, [4, 4, 4, 2])  # 4 + 4 on one, 4 + 2 on the other
    start(busy, [8, 2], first=4)  # 5 overtakes 4: now 4 is due
    # Node "a" has the older trials, so it is the one kept.
    end(busy, 0)
    assert start(busy, [1, 1, 4], first=6) == []
    end(busy, 3)
    assert start(busy, [2], first=9) == [Placed(9, ("b",))]
    end(busy, 1)
    assert started(busy)[0] == Placed(4, ("a",))


def test_what_a_kept_node_has_beyond_the_need_of_the_due_trial_is_used() -> None:
    one = placer(A, overtaken=0)
    start(one, [6, 1])
    assert start(one, [4, 1, 2], first=2) == [Placed(3, ("a",))]
    # With the 6 gone there will be 4 for the due trial and 2 beside it; 1 is taken, 0 is free.
    end(one, 1, A)
    assert started(one) == []  # 2 would fit tomorrow, but there is 1 GPU now
    end(one, 0, A)
    assert started(one) == [Placed(2, ("a",)), Placed(4, ("a",))]


def test_a_node_is_not_kept_while_others_than_ours_fill_it() -> None:
    theirs = placer(replace(A, gpus_used=4), overtaken=0)
    assert start(theirs, [8, 1]) == [Placed(1, ("a",))]
    theirs.see([replace(A, gpus_used=1)])
    assert start(theirs, [1], first=2) == []


def test_what_others_use_is_told_from_what_we_do() -> None:
    one = placer(replace(A, gpus_used=3))
    start(one, [4])
    assert start(one, [2], first=1) == []
    one.see([replace(A, gpus_used=7)])  # ours is counted now
    assert started(one) == []
    one.see([replace(A, gpus_used=5)])  # one of theirs left
    assert started(one) == [Placed(1, ("a",))]


def test_several_places_given_at_once_do_not_hide_what_others_use() -> None:
    one = placer(replace(A, gpus_used=4))
    for number in range(3):
        one.wait(number, gpus(2))
    assert [one.place() is None for _ in range(3)] == [False, False, True]
    one.see([replace(A, gpus_used=4)])  # neither of ours has reached the cluster's books
    assert one.place() is None
    one.see([replace(A, gpus_used=6)])  # one has
    assert one.place() is None


def test_gpus_that_a_trial_has_not_quite_given_back_are_not_free() -> None:
    two = placer()
    start(two, [8, 8])
    full = [replace(A, gpus_used=8), replace(B, gpus_used=8)]
    two.see(full)
    two.ended(0, broke=False)
    two.see(full)  # its actor is still ending
    assert start(two, [8], first=2) == []
    two.see([A, full[1]])
    assert started(two) == [Placed(2, ("a",))]


def test_but_with_nothing_else_to_wait_for_a_trial_is_handed_out_to_wait_for_them() -> None:
    one = placer(A)
    start(one, [8])
    one.see([replace(A, gpus_used=8)])
    one.ended(0, broke=False)
    one.see([replace(A, gpus_used=8)])
    assert start(one, [4, 4, 4], first=1) == [Placed(1, ("a",))]
    one.see([A])
    one.see([replace(A, gpus_used=4)])
    assert started(one) == [Placed(2, ("a",))]


def test_a_broken_trial_goes_to_another_node_where_there_is_one() -> None:
    two = placer()
    assert start(two, [2])[0].nodes == ("a",)
    two.ended(0, broke=True)
    two.wait(0, gpus(2))
    assert two.place() == Placed(0, ("b",))


@pytest.mark.parametrize("other", [replace(B, gpus=1), None])
def test_and_to_the_same_node_where_no_other_can_hold_it(other: Node | None) -> None:
    nodes = [A, other] if other else [A]
    one = placer(*nodes)
    start(one, [2])
    one.ended(0, broke=True)
    one.wait(0, gpus(2))
    assert one.place() == Placed(0, ("a",))


def test_a_broken_trial_waits_for_the_other_node_rather_than_breaking_again() -> None:
    two = placer()
    start(two, [8, 8])
    two.ended(0, broke=True)
    two.wait(0, gpus(8))
    assert two.place() is None
    end(two, 1)
    assert two.place() == Placed(0, ("b",))


def test_a_node_on_which_trials_broke_in_a_row_is_the_last_choice() -> None:
    two = placer()
    for number in range(SICK):
        assert start(two, [1], first=number)[0].nodes == ("a",)
        assert two.sick == {}
        two.ended(number, broke=True)
    assert two.sick == {"a": SICK}
    assert [each.nodes for each in start(two, [4, 4], first=10)] == [("b",), ("b",)]
    assert start(two, [4], first=12) == []  # "a" is free, and "b" can hold it
    two.see([A])
    assert started(two) == [Placed(12, ("a",))]
    two.ended(12, broke=False)
    assert two.sick == {}


def test_an_answer_ends_a_row_of_breaks() -> None:
    two = placer()
    for number in range(4 * SICK):
        start(two, [1], first=number)
        two.ended(number, broke=number % SICK != 0)
    assert two.sick == {}


def test_trials_that_did_not_start_on_a_lost_node_wait_again_in_their_old_order() -> None:
    two = placer()
    for number, size in enumerate([8, 8, 8]):
        two.wait(number, gpus(size))
    first, second = two.place(), two.place()
    assert first == Placed(0, ("a",))
    assert second == Placed(1, ("b",))
    two.started(1)
    two.see([])
    assert two.lost == [0]  # 1 ran: its actor's death says so
    two.take_back(0)
    assert list(two.waiting) == [0, 2]
    two.see([replace(A, id="a again")])
    assert two.place() == Placed(0, ("a again",))


def test_a_node_that_joins_is_used() -> None:
    one = placer(A)
    assert len(start(one, [8, 8])) == 1
    one.see([A, B])
    assert started(one) == [Placed(1, ("b",))]


def test_a_trial_that_does_not_start_may_move_where_there_is_room() -> None:
    two = placer()
    two.wait(0, gpus(8))
    two.place()
    assert two.fits_elsewhere(0)
    start(two, [1], first=1)
    assert not two.fits_elsewhere(0)


def test_no_more_than_asked_for_run_at_once() -> None:
    two = placer(at_once=2)
    assert len(start(two, [1, 1, 1])) == 2
    assert not two.wants_more
    end(two, 0)
    assert len(started(two)) == 1


def test_a_server_over_several_nodes_holds_its_share_on_each() -> None:
    c = Node(64, 8, "c")
    three = placer(A, B, c)
    start(three, [6])
    three.wait(1, gpus(8, nodes=2))
    assert three.place() == Placed(1, ("b", "c"))
    three.wait(2, gpus(8, nodes=2))
    assert three.place() == Placed(2, ("b", "c"))
    three.wait(3, gpus(2, nodes=2))
    assert three.place() is None  # two GPUs are free, both on "a"


def test_nodes_are_kept_for_a_due_trial_that_spans_them() -> None:
    two = placer(overtaken=0)
    start(two, [7, 7])
    two.wait(2, gpus(4, nodes=2))
    two.wait(3, gpus(1))
    # 1 GPU is free on each, and 6 are to spare on each once both are empty: 1 delays nobody.
    assert two.place() == Placed(3, ("a",))
    two.started(3)
    end(two, 0)
    assert two.place() is None
    end(two, 1)
    assert two.place() == Placed(2, ("a", "b"))


def test_more_is_asked_for_only_while_there_is_room_that_nobody_can_use() -> None:
    two = placer()
    assert two.wants_more  # nobody knows yet what there is to do
    start(two, [4, 4, 8])
    assert not two.wants_more
    end(two, 0)
    assert two.wants_more
    asked = 3
    while two.wants_more:
        assert start(two, [8], first=asked) == []
        asked += 1
    assert asked == 3 + 1 + AHEAD
    end(two, 1)
    assert [each.number for each in started(two)] == [3]


def test_nothing_is_asked_ahead_for_a_node_that_is_being_emptied() -> None:
    one = placer(A, overtaken=0)
    start(one, [4, 4])
    start(one, [8], first=2)
    end(one, 0, A)
    assert one.place() is None
    assert not one.wants_more


def test_somebody_asks_whether_there_is_more_to_do_though_others_use_every_node() -> None:
    full = placer(replace(A, gpus_used=8))
    assert full.wants_more
    start(full, [1])
    assert not full.wants_more


SIZES = st.sampled_from([1, 1, 2, 3, 4, 8])
NEEDS = st.builds(
    lambda size, cpus, nodes: Reservation(cpus, size * nodes, nodes),
    SIZES,
    st.sampled_from([1.0, 1.0, 5.0]),
    st.sampled_from([1, 1, 1, 2]),
)


class World:
    """Trials that are asked for, placed and end in any order; looks on while they do."""

    def __init__(self, nodes: Sequence[Node], needs: Sequence[Reservation], **options: int) -> None:
        self.nodes, self.needs = {node.id: node for node in nodes}, needs
        self.placer = placer(*nodes, **options)
        self.places: dict[int, Placed] = {}
        self.waits: list[int] = []
        self.overtaken = dict.fromkeys(range(len(needs)), 0)
        self.order: list[int] = []
        self.asked = 0
        self.allowed = options.get("overtaken", OVERTAKEN)
        self.first_due: tuple[int, set[int]] | None = None

    def fill(self) -> None:
        """Ask and place until neither is wanted nor possible."""
        while True:
            while (placed := self.placer.place()) is not None:
                self._note(placed)
            if self.asked == len(self.needs) or not self.placer.wants_more:
                return
            self.placer.wait(self.asked, self.needs[self.asked])
            self.waits.append(self.asked)
            self.asked += 1

    def _note(self, placed: Placed) -> None:
        self.waits.remove(placed.number)
        self.places[placed.number] = placed
        self.placer.started(placed.number)
        needed = self.needs[placed.number]
        assert len(set(placed.nodes)) == needed.nodes
        for id, node in self.nodes.items():
            on = [self.needs[n] for n, each in self.places.items() if id in each.nodes]
            assert sum(each.share for each in on) <= node.gpus
            assert sum(each.cpus for each in on) <= node.cpus
        for other in self.waits:
            able = [n for n, node in self.nodes.items() if holds(node, self.needs[other])]
            if other < placed.number and not set(able).isdisjoint(placed.nodes):
                self.overtaken[other] += 1

    def end(self, number: int) -> None:
        self.placer.ended(number, broke=False)
        self.placer.see(self.nodes.values())
        del self.places[number]

    def fits(self, number: int) -> bool:
        """Whether a waiting trial has room now, whoever else waits."""
        needed = self.needs[number]
        fit = 0
        for id, node in self.nodes.items():
            on = [self.needs[n] for n, each in self.places.items() if id in each.nodes]
            gpus = node.gpus - sum(each.share for each in on)
            cpus = node.cpus - sum(each.cpus for each in on)
            fit += gpus >= needed.share and cpus >= needed.cpus
        return fit >= needed.nodes

    def look(self) -> None:
        """The bound: the first of the due trials waits for none that started after it was so."""
        due = [number for number in self.waits if self.overtaken[number] >= self.allowed]
        if not due:
            self.first_due = None
            # No GPU idles beside a trial that could use it.
            assert not any(self.fits(number) for number in self.waits)
            return
        if self.first_due is None or self.first_due[0] != due[0]:
            self.first_due = (due[0], set(self.places))
        assert self.first_due[1] & set(self.places), f"{due[0]} waits for those started after it"
        assert not self.fits(due[0])


@given(
    needs=st.lists(NEEDS, min_size=1, max_size=25),
    shapes=st.sampled_from([(8, 8), (4, 4, 4, 4), (8, 2, 1), (8,)]),
    ahead=st.sampled_from([0, 1, 2, 30]),
    overtaken=st.sampled_from([0, 1, 4, 100]),
    seed=st.integers(0, 2**20),
)
def test_in_any_order_of_ends_all_are_placed_within_capacity_and_the_bound(
    needs: list[Reservation], shapes: tuple[int, ...], ahead: int, overtaken: int, seed: int
) -> None:
    nodes = [Node(12, gpus, f"n{index}") for index, gpus in enumerate(shapes)]
    able = [n for n in needs if sum(holds(node, n) for node in nodes) >= n.nodes]
    world = World(nodes, able, ahead=ahead, overtaken=overtaken)
    draw = random.Random(seed)
    world.fill()
    world.look()
    while world.places:
        world.end(draw.choice(sorted(world.places)))
        world.fill()
        world.look()
    assert world.asked == len(able)
    assert world.waits == []


@given(
    needs=st.lists(NEEDS, min_size=1, max_size=15),
    seed=st.integers(0, 2**20),
)
def test_nodes_that_come_and_go_others_and_breaks_lose_no_trial(
    needs: list[Reservation], seed: int
) -> None:
    draw = random.Random(seed)
    made = Placer()
    whole = [Node(12, 8, "a"), Node(12, 8, "b")]
    able = [n for n in needs if all(holds(node, n) for node in whole)]
    pending: dict[int, Placed] = {}
    running: dict[int, Placed] = {}
    broken: set[int] = set()
    asked = ended = 0
    for step in range(20 * len(able) + 20):
        calm = step > 10 * len(able)
        there = whole if calm else [node for node in whole if draw.random() < 0.8]
        used = 0 if calm else draw.randrange(3)
        ours = {
            node.id: sum(
                able[n].share for n, p in {**pending, **running}.items() if node.id in p.nodes
            )
            for node in there
        }
        made.see(
            replace(node, gpus_used=min(8, ours[node.id] + used), cpus_used=0) for node in there
        )
        for number in made.lost:
            made.take_back(number)
            del pending[number]
        while asked < len(able) and made.wants_more:
            made.wait(asked, able[asked])
            asked += 1
        while (placed := made.place()) is not None:
            assert set(placed.nodes) <= {node.id for node in there}
            pending[placed.number] = placed
        for number in sorted(pending):
            if draw.random() < 0.7:
                made.started(number)
                running[number] = pending.pop(number)
        for number in sorted(running):
            if draw.random() < 0.5 or calm:
                breaks = number not in broken and draw.random() < 0.3
                made.ended(number, broke=breaks)
                del running[number]
                if breaks:
                    broken.add(number)
                    made.wait(number, able[number])
                else:
                    ended += 1
    assert ended == len(able)


def test_a_thousand_waiting_trials_of_few_shapes_are_looked_at_once_each_shape() -> None:
    class Counted(Placer):
        looks = 0

        def _fitting(self, *arguments: object) -> tuple[str, ...] | None:
            self.looks += 1
            return super()._fitting(*arguments)  # type: ignore[arg-type]

    many = Counted()
    many.see([A, B])
    for number in range(1000):
        many.wait(number, gpus((1, 2, 4, 8)[number % 4]))
    while many.place() is not None:
        many.looks = 0
    assert many.looks <= 4
