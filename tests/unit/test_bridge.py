"""Between Tune and the loop: what is asked of the cluster for a trial, and what becomes of a place
that is no good any more. No Ray is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher as TuneSearcher

from autotuner.engines.rules import rules_of
from autotuner.execution.actor import (
    ASSIGNMENT,
    HELD_AS,
    NEWS,
    NODES,
    RESERVATION,
    News,
    TrialActor,
)
from autotuner.execution.bridge import (
    HUNG,
    HUNG_SECONDS,
    PENDING_SECONDS,
    PREPARING_SECONDS,
    Asker,
    Decider,
    Teller,
)
from autotuner.execution.loop import StudyLoop
from autotuner.execution.parcel import packed
from autotuner.execution.placer import SICK, Placer
from autotuner.execution.reservation import Node, Reservation, reservation
from autotuner.plugins import load_kind
from autotuner.store import Store
from autotuner.study.space import Parameters
from autotuner.study.study import Study
from autotuner.study.trial import Outcome, Phase, Trial, TrialState
from tests.builders import spec
from tests.replays import AnyFlags

A, B = Node(64, 8, "a", "10.0.0.1"), Node(64, 8, "b", "10.0.0.2")


class Nodes:
    """A cluster whose nodes come and go as a test says."""

    def __init__(self, *nodes: Node) -> None:
        self.there: Sequence[Node] = nodes
        self.expected: Sequence[Node] = nodes
        self.names: set[str] = set()

    def now(self) -> Sequence[Node]:
        return self.there

    def lately(self) -> Sequence[Node]:
        return self.expected

    def held(self, name: str) -> bool:
        return name in self.names


class Tune:
    """What the bridge sees of Tune: trials that it stops where it is told to."""

    def __init__(self, *ids: str) -> None:
        self.trials = {id: type("Trial", (), {"trial_id": id})() for id in ids}
        self.stopped: list[str] = []

    def get_trials(self) -> list[Any]:
        return list(self.trials.values())

    def stop_trial(self, trial: Any) -> None:
        self.stopped.append(trial.trial_id)


class Listed:
    """A searcher that knows what it will ask for."""

    def __init__(self, points: Sequence[Parameters]) -> None:
        self._points = list(points)

    def ask(self) -> Parameters | None:
        return self._points.pop(0) if self._points else None

    def tell(self, trial: Trial) -> None:
        pass


class Desk:
    """A study over sizes of trials, asked by hand."""

    def __init__(self, sizes: Sequence[int], nodes: Nodes, directory: Path) -> None:
        self.study = spec(
            engine={"kind": "vllm"},
            space={"tensor-parallel-size": [1, 2, 4, 8], "max-num-seqs": [1, 2, 3, 4, 5]},
            verdict={"finalists": 0},
            limits={"trial_seconds": 1000, "stop_seconds": 90},
        )
        self.store = Store("sqlite://")
        kept = Study(self.study, str(directory))
        self.store.create(kept)
        self.rules = AnyFlags()
        points = [
            {"tensor-parallel-size": size, "max-num-seqs": index}
            for index, size in enumerate(sizes, start=1)
        ]
        self.now = 0.0
        self.loop = StudyLoop(kept, self.store, Listed(points), self.rules, clock=lambda: self.now)
        self.loop.begin()
        self.nodes = nodes
        self.asker = Asker(
            self.loop, Placer(), nodes, self.reserved, beat=self.loop.renew, clock=lambda: self.now
        )
        self.asked = 0

    def reserved(self, point: Parameters) -> Reservation:
        launch = self.rules.launch(self.study, point, port=0)
        return reservation(launch, [A, B])

    def ask(self) -> Any:
        """What Tune is given for its next trial, whose id is a number from 0."""
        answer = self.asker.suggest(str(self.asked))
        self.asked += isinstance(answer, dict)
        return answer

    def start(self, trial: int, number: int) -> None:
        self.asker.started(str(trial))
        self.loop.started(number)

    def answer(self, trial: int, number: int) -> None:
        self.asker.on_trial_complete(str(trial))
        self.loop.answered(number, Outcome(TrialState.COMPLETE))

    def breaks(self, trial: int, number: int) -> None:
        self.asker.on_trial_complete(str(trial), error=True)
        self.loop.failed(number, "it broke")


@pytest.fixture
def nodes() -> Nodes:
    return Nodes(A, B)


@pytest.fixture
def desk(nodes: Nodes, tmp_path: Path) -> Iterator[Desk]:
    made = Desk([8, 8, 8], nodes, tmp_path)
    yield made
    made.store.close()


def test_each_trial_of_several_engines_reserves_the_gpus_of_its_own_launch(tmp_path: Path) -> None:
    study = spec(
        engine={"kind": ["vllm", "sglang"]},
        space={"vllm": {"tensor-parallel-size": [2, 4]}, "sglang": {"tp-size": [8]}},
        search={"kind": "grid"},
    )
    rules = rules_of(study)
    store = Store("sqlite://")
    kept = Study(study, str(tmp_path))
    store.create(kept)
    loop = StudyLoop(kept, store, load_kind("search", "grid").build(study), rules)
    loop.begin()
    nodes = Nodes(A, B)
    asker = Asker(
        loop,
        Placer(),
        nodes,
        lambda point: reservation(rules.launch(study, point, port=0), nodes.there),
    )
    reserved = []
    for number in range(4):
        asked = asker.suggest(str(number))
        reserved.append((asked[ASSIGNMENT].spec.engine.kind, asked[RESERVATION].gpus))
    assert reserved == [("vllm", 1), ("vllm", 2), ("vllm", 4), ("sglang", 8)]
    store.close()


def test_a_trial_is_pinned_to_its_place_in_what_is_asked_of_the_cluster() -> None:
    asked = TrialActor.default_resource_request(
        {RESERVATION: Reservation(2, 4), NODES: ("a",), HELD_AS: "trial 1"}
    )
    assert asked.bundles == [{"CPU": 2.0, "GPU": 4.0}]
    assert asked.strategy == "STRICT_PACK"
    selector = [{"ray.io/node-id": "a"}]
    assert asked._kwargs == {"bundle_label_selector": selector, "name": "trial 1"}


def test_one_over_several_nodes_asks_for_its_share_on_each() -> None:
    needed = Reservation(1, 8, nodes=2, resource="ome_gpu")
    asked = TrialActor.default_resource_request(
        {RESERVATION: needed, NODES: ("a", "b"), HELD_AS: "trial 1"}
    )
    assert asked.bundles == [{"CPU": 1.0, "ome_gpu": 4.0}] * 2
    assert asked.strategy == "STRICT_SPREAD"
    assert asked._kwargs["bundle_label_selector"] == [
        {"ray.io/node-id": "a"},
        {"ray.io/node-id": "b"},
    ]


def test_tune_gets_what_has_a_place_and_waits_for_the_rest(desk: Desk) -> None:
    baseline, first = desk.ask(), desk.ask()
    assert (baseline[ASSIGNMENT].number, baseline[NODES]) == (0, ("a",))
    assert first[NODES] == ("b",)
    assert desk.store.trials("small")[0].node == ""  # written once it starts
    assert desk.ask() is None
    desk.start(0, 0)
    assert desk.store.trials("small")[0].node == "10.0.0.1"


def test_tune_is_told_when_there_is_nothing_more_to_do(nodes: Nodes, tmp_path: Path) -> None:
    desk = Desk([8], nodes, tmp_path)
    for trial in range(2):
        assert isinstance(desk.ask(), dict)
        desk.start(trial, trial)
    assert desk.ask() is None
    for trial in range(2):
        desk.answer(trial, trial)
    assert desk.ask() == TuneSearcher.FINISHED
    desk.store.close()


def test_a_cancelled_study_asks_for_nothing_though_trials_wait(desk: Desk) -> None:
    while desk.ask() is not None:
        pass
    desk.loop.cancel("cancelled")
    assert desk.ask() == TuneSearcher.FINISHED


def test_a_broken_trial_is_handed_again_as_a_trial_of_its_own_on_another_node(desk: Desk) -> None:
    desk.ask()
    desk.start(0, 0)
    desk.breaks(0, 0)
    again = desk.ask()
    assert (again[ASSIGNMENT].number, again[NODES]) == (0, ("b",))


def test_a_trial_that_waits_on_a_dead_node_is_taken_from_tune_and_placed_anew(
    desk: Desk, nodes: Nodes
) -> None:
    lost, fine = desk.ask(), desk.ask()
    desk.start(1, 1)
    nodes.there = [B]
    tune = Tune("0", "1")
    decider = Decider(desk.loop, desk.asker)
    decider.choose_trial_to_run(tune)
    assert tune.stopped == ["0"]
    desk.asker.on_trial_complete("0")  # Tune says so when it stops one; it is not an end of ours
    assert desk.ask() is None
    desk.answer(1, fine[ASSIGNMENT].number)
    again = desk.ask()
    assert (again[ASSIGNMENT], again[NODES]) == (lost[ASSIGNMENT], ("b",))
    decider.choose_trial_to_run(tune)
    assert tune.stopped == ["0"]


def test_a_trial_whose_place_somebody_else_took_moves_to_one_that_is_free(desk: Desk) -> None:
    desk.ask()
    tune = Tune("0")
    decider = Decider(desk.loop, desk.asker)
    decider.choose_trial_to_run(tune)
    desk.now = PENDING_SECONDS + 1
    desk.nodes.there = [Node(64, 8, "a", gpus_used=8), B]
    decider.choose_trial_to_run(tune)
    assert tune.stopped == ["0"]
    moved = desk.ask()
    assert (moved[ASSIGNMENT].number, moved[NODES]) == (0, ("b",))


def test_one_that_has_its_place_and_only_starts_slowly_stays(desk: Desk) -> None:
    desk.nodes.names.add(desk.ask()[HELD_AS])
    desk.now = 10 * PENDING_SECONDS
    tune = Tune("0")
    Decider(desk.loop, desk.asker).choose_trial_to_run(tune)
    assert tune.stopped == []


def test_one_that_runs_or_has_nowhere_to_go_stays(nodes: Nodes, tmp_path: Path) -> None:
    desk = Desk([8, 8], nodes, tmp_path)
    for _ in range(2):
        desk.ask()
    desk.start(0, 0)
    desk.start(1, 1)
    desk.now = PENDING_SECONDS + 1
    tune = Tune("0", "1")
    Decider(desk.loop, desk.asker).choose_trial_to_run(tune)
    assert tune.stopped == []
    desk.store.close()


def test_a_point_that_waits_for_a_node_that_does_not_come_back_is_refused(
    nodes: Nodes, tmp_path: Path
) -> None:
    small = Node(64, 4, "small", "10.0.0.3")
    nodes.there = nodes.expected = [A, small]
    desk = Desk([8, 8, 2], nodes, tmp_path)
    assert [desk.ask()[RESERVATION].gpus for _ in range(3)] == [1, 8, 2]
    for number in (0, 1, 3):
        desk.start(min(number, 2), number)
    nodes.there = [small]
    assert desk.ask() is None
    assert desk.store.trials("small")[2].state is TrialState.PENDING
    nodes.expected = [small]
    assert desk.ask() is None
    refused = [t for t in desk.store.trials("small") if t.refused]
    assert [t.reason for t in refused] == ["needs 8 GPUs on one node; the largest of 1 nodes has 4"]
    assert not desk.loop.over
    desk.store.close()


def test_without_any_node_left_for_the_baseline_the_study_ends(desk: Desk, nodes: Nodes) -> None:
    desk.ask()
    nodes.there = []
    assert desk.ask() is None
    nodes.expected = [Node(64, 0, "head")]
    assert desk.ask() == TuneSearcher.FINISHED
    assert "needs 1 GPUs on one node; the largest of 1 nodes has 0" in desk.loop.broken


def test_a_node_on_which_trials_break_is_remarked(nodes: Nodes, tmp_path: Path) -> None:
    desk = Desk([1, 1, 1, 1], nodes, tmp_path)
    for turn in range(SICK):
        asked = desk.ask()
        number = asked[ASSIGNMENT].number
        assert asked[NODES] == ("a",)
        desk.start(2 * turn, number)
        desk.breaks(2 * turn, number)
        assert desk.loop.remarks == []
        assert desk.ask()[NODES] == ("b",)
        if turn == 0:
            desk.answer(1, number)
    desk.ask()
    assert desk.loop.remarks == [
        f"{SICK} trials in a row broke on node 10.0.0.1; others are preferred"
    ]
    desk.store.close()


class Told:
    """A trial of Tune's that a `Teller` hears of. It has no actor to be killed."""

    def __init__(self, desk: Desk) -> None:
        self.config = desk.ask()
        self.trial_id = str(desk.asked - 1)
        self.error_file = None
        self.temporary_state = type("State", (), {"ray_actor": None})()
        self._desk = desk
        self._decider = Decider(desk.loop, desk.asker)
        self.teller = Teller(
            desk.loop,
            desk.asker,
            lambda: None,
            desk.study.limits.trial_seconds,
            clock=lambda: desk.now,
        )
        self.teller.on_trial_start(0, [], self)

    def says(self, **news: Any) -> None:
        """A step of its actor is over, as Tune passes it on."""
        result = {NEWS: News(**{"node": "10.0.0.1", "gpu_ids": ("3",), **news})}
        self._decider.on_trial_result(None, self, result)
        self.teller.on_trial_result(0, [], self, result)

    def breaks(self) -> Trial:
        """Its actor is gone, or Tune looks whether it hangs; what is then known of the trial."""
        self.teller.on_step_begin(0, [self])
        self._desk.asker.on_trial_complete(self.trial_id, error=True)
        self.teller.on_trial_error(0, [], self)
        trials = self._desk.store.trials("small")
        return trials[int(self.config[ASSIGNMENT].number)]


def test_an_actor_says_which_gpus_it_holds_before_it_deploys_and_the_reason_names_them(
    desk: Desk,
) -> None:
    told = Told(desk)
    told.says()
    (deploying, *_) = desk.store.trials("small")
    assert (deploying.state, deploying.gpu_ids) == (TrialState.DEPLOYING, ("3",))
    broke = told.breaks()
    assert broke.reason == "broke on 10.0.0.1 (GPU 3): the actor died; started afresh"


def test_a_launch_that_broke_costs_what_was_reserved_from_its_start_on(
    nodes: Nodes, tmp_path: Path
) -> None:
    desk = Desk([8], nodes, tmp_path)
    Told(desk)
    told = Told(desk)
    desk.now = 900
    broke = told.breaks()
    assert broke.parameters["tensor-parallel-size"] == 8
    assert broke.gpu_hours == pytest.approx(2.0), "it never said a word"
    desk.store.close()


def test_an_answer_whose_logs_cannot_be_written_is_kept(desk: Desk, tmp_path: Path) -> None:
    told = Told(desk)
    directory = Path(told.config[ASSIGNMENT].directory)
    made = tmp_path / "made"
    made.mkdir()
    (made / "server.log").write_text("ready")
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.write_text("no directory")  # as a full disk: nothing can be put there
    told.says(outcome=Outcome(TrialState.COMPLETE), ended=True, files=packed(made))
    assert desk.store.trials("small")[0].state.ended
    assert directory.read_text() == "no directory"


@pytest.mark.parametrize(("over", "reason"), [(0, "the actor died"), (1, HUNG)])
def test_a_trials_time_begins_with_its_launch_and_leaves_some_for_two_stops(
    desk: Desk, over: float, reason: str
) -> None:
    told = Told(desk)
    told.says()
    desk.now = 3500  # an image on its way
    told.teller.on_step_begin(0, [told])
    told.says(deploying=True)
    assert desk.store.trials("small")[0].state is TrialState.DEPLOYING
    desk.now += 900
    phases = (Phase("deploy", 0.0, 4400.0),)
    told.says(outcome=Outcome(TrialState.COMPLETE, phases=phases), note="D(100,20) x 4")
    assert desk.store.trials("small")[0].state is TrialState.BENCHMARKING
    desk.now = 3500 + 1000 + 2 * 90 + HUNG_SECONDS + over
    assert told.breaks().reason == f"broke on 10.0.0.1 (GPU 3): {reason}; started afresh"


@pytest.mark.parametrize(("over", "reason"), [(0, "the actor died"), (1, HUNG)])
def test_preparing_has_an_end_of_its_own(desk: Desk, over: float, reason: str) -> None:
    told = Told(desk)
    told.says()
    desk.now = PREPARING_SECONDS + HUNG_SECONDS + over
    assert told.breaks().reason == f"broke on 10.0.0.1 (GPU 3): {reason}; started afresh"
