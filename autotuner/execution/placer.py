"""Which waiting trial starts on which node. Pure: no Ray, no clock.

Ray alone lets a trial of eight GPUs wait for as long as smaller ones keep coming, and a budget of
GPUs for the whole cluster does not help, since what gets free is spread over the nodes. So places
are given here, node by node, and a trial is pinned to its place when it is handed to Ray.

The rules: the larger of the waiting trials goes first, to the node that it leaves least free. A
trial that was overtaken `OVERTAKEN` times is due: it goes before all others, and where it does not
fit, the nodes that will have room for it soonest, if all trials last equally long, are kept for it.
So it waits for none but trials that were running when it became due. Others go on filling the other
nodes, and what is left of the kept ones once it has its share.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autotuner.execution.reservation import Node, Reservation, holds

OVERTAKEN = 4
"""Trials that may start before one that was asked for earlier, until places are kept for it.
Emptying a node costs idle GPUs, and while it waits it often finds a place without: with 0 the
cluster of `make bench-packing` is 3 points less busy; with 8 it is a third of a point busier, and
the longest wait is a tenth longer."""

AHEAD = 2
"""Trials asked of the searcher before there is a place for them, so that one of them may fit where
the first does not. One that is asked ahead has not learnt from those that end before it starts,
which is like running so many more side by side: little with two, and much of what a searcher is
for with twenty. It is only done while a node has room that none of the waiting can use."""

UNLEARNT_AHEAD = 8
"""The same of a searcher whose points do not depend on answers: the more there are to choose from,
the better they fit. Beyond that, little is gained and large trials wait longer."""

SICK = 2
"""Trials that broke on a node, one after another, until others are preferred to it."""

_CRUMB = 1e-4
"""What Ray rounds resources to."""


class Room(NamedTuple):
    """Resources of one node, free or needed. The order is that of best fit."""

    gpus: float
    cpus: float

    def __sub__(self, other: Room) -> Room:
        return Room(self.gpus - other.gpus, self.cpus - other.cpus)

    def plus(self, other: Room) -> Room:
        return Room(self.gpus + other.gpus, self.cpus + other.cpus)

    def between(self, least: Room, most: Room) -> Room:
        """The nearest to this that is neither below `least` nor, if that allows it, above `most`;
        nor below nothing."""
        return Room(*(max(0.0, a, min(b, c)) for a, b, c in zip(least, most, self, strict=True)))

    def has(self, needed: Room) -> bool:
        return self.gpus + _CRUMB >= needed.gpus and self.cpus + _CRUMB >= needed.cpus


NOTHING = Room(0.0, 0.0)


@dataclass(frozen=True)
class Placed:
    """Where a trial is to run: ids of its nodes, the first of them its own."""

    number: int
    nodes: tuple[str, ...]


class _Kept(NamedTuple):
    """A node kept for a due trial, and what of it others may use without delaying that one."""

    number: int
    spare: Room


class _Scan(NamedTuple):
    """What could be started now, and what is free and kept for whom."""

    placed: Placed | None
    free: dict[str, Room]
    kept: dict[str, _Kept]


class Placer:
    """Places for the trials of one study.

    A trial is told of by `wait`, gets its place by `place`, runs from `started`, and gives its
    place back by `ended` or `take_back`.

    Args:
        at_once: trials that may have a place at the same time; as many as fit by default.
        ahead, overtaken: see AHEAD and OVERTAKEN.
    """

    def __init__(
        self, *, at_once: int | None = None, ahead: int = AHEAD, overtaken: int = OVERTAKEN
    ) -> None:
        self._at_once = at_once
        self._ahead = ahead
        self._allowed = overtaken
        self._nodes: dict[str, Node] = {}
        self._others: dict[str, Room] = {}
        self._leaving: dict[str, Room] = {}
        self._needed: dict[int, Reservation] = {}
        self._asked: dict[int, int] = {}
        self._waiting: list[int] = []
        self._overtaken: dict[int, int] = {}
        self._places: dict[int, Placed] = {}
        self._running: set[int] = set()
        self._broke_on: dict[int, frozenset[str]] = {}
        self._row: dict[str, int] = {}

    def see(self, nodes: Iterable[Node]) -> None:
        """The nodes as they are now; those left out are gone.

        Tells what others than this study use of a node from what we do. A trial of ours may or
        may not be part of what the cluster counts as used: between getting its place and its
        start, and after its end until its actor is gone. Within these bounds the last answer
        holds.
        """
        self._nodes = {node.id: node for node in nodes}
        placed, running = self._ours(self._places), self._ours(self._running)
        for id, node in self._nodes.items():
            used = Room(node.gpus_used, node.cpus_used)
            most = used - running.get(id, NOTHING)
            leaving = self._leaving.get(id, NOTHING)
            least = used - placed.get(id, NOTHING) - leaving
            others = self._others.get(id, NOTHING).between(least, most)
            self._others[id] = others
            self._leaving[id] = (most - others).between(NOTHING, leaving)

    def _ours(self, numbers: Iterable[int]) -> dict[str, Room]:
        """What these trials hold, by node."""
        held: dict[str, Room] = {}
        for number in numbers:
            share = _share(self._needed[number])
            for id in self._places[number].nodes:
                held[id] = held.get(id, NOTHING).plus(share)
        return held

    def wait(self, number: int, needed: Reservation) -> None:
        """A trial waits for a place: for the first time, or again after it broke."""
        self._needed[number] = needed
        self._asked.setdefault(number, len(self._asked))
        self._overtaken.setdefault(number, 0)
        bisect.insort(self._waiting, number, key=self._asked.__getitem__)

    def place(self) -> Placed | None:
        """The next trial to start, and where; it has that place from now on. None: none fits."""
        placed = self._scan().placed
        if placed is None:
            return None
        number = placed.number
        self._waiting.remove(number)
        for other in self._waiting:
            if self._asked[other] > self._asked[number]:
                break
            if not set(placed.nodes).isdisjoint(self._eligible(other)):
                self._overtaken[other] += 1
        self._places[number] = placed
        return placed

    @property
    def wants_more(self) -> bool:
        """Whether another trial is to be asked for: there is room that none of the waiting can
        use. To be asked when `place` has none."""
        if self._full or len(self._waiting) > self._ahead:
            return False
        if not self._waiting and not self._places:
            return True  # somebody has to find out that there is nothing more to do
        _, free, kept = self._scan()
        least = Room(
            min((min(1, each.share) for each in self._needed.values()), default=0),
            min((each.cpus for each in self._needed.values()), default=0),
        )
        healthy = [id for id in free if id not in self.sick] or list(free)
        return any(
            free[id].has(least) and (id not in kept or kept[id].spare.has(least)) for id in healthy
        )

    def started(self, number: int) -> None:
        """The trial runs in its place: from now on the cluster counts it."""
        self._running.add(number)

    def ended(self, number: int, *, broke: bool) -> None:
        """The trial gives its place back; the machine broke it, or it came to an answer."""
        for id in self._leave(number).nodes:
            left = self._leaving.get(id, NOTHING)
            self._leaving[id] = left.plus(_share(self._needed[number]))
            self._row[id] = self._row.get(id, 0) + 1 if broke else 0
            if broke:
                self._broke_on[number] = self._broke_on.get(number, frozenset()) | {id}

    def take_back(self, number: int) -> None:
        """The trial did not start in its place: it waits again, where it stood in the line."""
        self._leave(number)
        self.wait(number, self._needed[number])

    def drop(self, number: int) -> None:
        """The trial no longer waits."""
        self._waiting.remove(number)

    def reserved(self, number: int) -> Reservation:
        return self._needed[number]

    def pending(self, number: int) -> bool:
        """Whether a trial has a place and does not run yet."""
        return number in self._places and number not in self._running

    @property
    def waiting(self) -> Mapping[int, Reservation]:
        return {number: self._needed[number] for number in self._waiting}

    @property
    def lost(self) -> list[int]:
        """Trials that did not start, and a node of whose place is gone."""
        return [
            number
            for number, placed in self._places.items()
            if self.pending(number) and not all(id in self._nodes for id in placed.nodes)
        ]

    def fits_elsewhere(self, number: int) -> bool:
        """Whether there is room for a placed trial on other nodes than those of its place."""
        _, free, kept = self._scan()
        for id in self._places[number].nodes:
            free.pop(id, None)
        return self._fitting(number, free, kept) is not None

    @property
    def sick(self) -> dict[str, int]:
        """Nodes that others are preferred to, and how many trials in a row broke on them."""
        return {id: row for id, row in self._row.items() if row >= SICK and id in self._nodes}

    @property
    def _full(self) -> bool:
        return self._at_once is not None and len(self._places) >= self._at_once

    def _leave(self, number: int) -> Placed:
        self._running.discard(number)
        return self._places.pop(number)

    def _scan(self) -> _Scan:
        """Look at the waiting trials in their order of rank, and stop at the first that fits."""
        free = self._free()
        kept: dict[str, _Kept] = {}
        if self._full:
            return _Scan(None, free, kept)
        alike = set()
        for number in sorted(self._waiting, key=self._rank):
            shape = (self._needed[number], self._broke_on.get(number))
            if shape in alike:
                continue
            fitting = self._fitting(number, free, kept)
            if fitting is not None:
                return _Scan(Placed(number, fitting), free, kept)
            if self._due(number):
                kept |= self._to_keep(number, free, kept)
            else:
                alike.add(shape)  # those of the same shape, behind it in the line, fit no better
        return _Scan(None, free, kept)

    def _free(self) -> dict[str, Room]:
        ours = self._ours(self._places)
        free = {
            id: Room(node.gpus, node.cpus) - self._others[id] - ours.get(id, NOTHING)
            for id, node in self._nodes.items()
        }
        if not self._places:
            # Who waits for the last actors to be gone would wait for ever: with nothing handed to
            # it Tune sleeps, and does not hear of their end. A trial in their place it waits for.
            return free
        return {id: room - self._leaving.get(id, NOTHING) for id, room in free.items()}

    def _due(self, number: int) -> bool:
        return self._overtaken[number] >= self._allowed

    def _rank(self, number: int) -> tuple[object, ...]:
        """The due in order of asking; then the larger before the smaller, in order of asking."""
        asked = self._asked[number]
        if self._due(number):
            return (0, asked)
        needed = self._needed[number]
        return (1, -needed.gpus, -needed.cpus, asked)

    def _eligible(self, number: int) -> list[str]:
        """Nodes that can hold a share of a trial, if need be once all others are gone from them.

        Not those where it broke before, nor those where others broke, while there are others.
        """
        needed = self._needed[number]
        able = [id for id, node in self._nodes.items() if holds(node, needed)]
        broke_on, sick = self._broke_on.get(number, frozenset()), self.sick
        choices: Sequence[list[str]] = (
            [id for id in able if id not in broke_on and id not in sick],
            [id for id in able if id not in broke_on],
        )
        return next((ids for ids in choices if len(ids) >= needed.nodes), able)

    def _fitting(
        self, number: int, free: Mapping[str, Room], kept: Mapping[str, _Kept]
    ) -> tuple[str, ...] | None:
        """Nodes with room for a trial now, those that it leaves least free."""
        needed = self._needed[number]
        share = _share(needed)
        fit = [
            id
            for id in self._eligible(number)
            if id in free
            and free[id].has(share)
            and (id not in kept or kept[id].number == number or kept[id].spare.has(share))
        ]
        if len(fit) < needed.nodes:
            return None
        fit.sort(key=lambda id: (free[id], id))
        return tuple(fit[: needed.nodes])

    def _to_keep(
        self, number: int, free: Mapping[str, Room], kept: Mapping[str, _Kept]
    ) -> dict[str, _Kept]:
        """Nodes to keep for a due trial: those that will have room for its shares soonest.

        Trials are taken to end in the order in which they got their places. None where it waits
        for others than this study's trials: keeping a node would not bring them to an end.
        """
        needed = self._needed[number]
        share = _share(needed)
        found = []
        for id in self._eligible(number):
            if id in kept:
                continue
            room, last = free[id].plus(self._leaving.get(id, NOTHING)), -1
            for rank, (other, placed) in enumerate(self._places.items()):
                if room.has(share):
                    break
                if id in placed.nodes:
                    room, last = room.plus(_share(self._needed[other])), rank
            if room.has(share):
                found.append((last, id, _Kept(number, room - share)))
        if len(found) < needed.nodes:
            return {}
        return {id: each for _, id, each in sorted(found)[: needed.nodes]}


def _share(needed: Reservation) -> Room:
    return Room(needed.share, needed.cpus)
