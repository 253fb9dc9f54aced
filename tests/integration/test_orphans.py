"""Nothing stays behind: every way in which a study, or a part of it, can end or die, on every kind
of backend. The servers are real programs of the simulated engine, started as real trials start
them: as processes, in containers of a daemon of our own, and behind a small true API server.

The seconds until nothing was left are printed: `pytest -rP tests/integration/test_orphans.py`. It
all takes a quarter of an hour; a part, OFTEN, is in every run of the tests.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from autotuner.backends.guarded import LABEL_OWNER, labelled
from autotuner.cli import cli
from autotuner.errors import StudyStateError
from autotuner.execution.loop import RENEWALS
from autotuner.plugins import kinds
from autotuner.store import Store
from autotuner.study.study import LEASE_SECONDS, Study, StudyState
from autotuner.study.trial import Trial, TrialState
from tests.places import Ground, place_of, why_not
from tests.processes import alive, command_holds, local_ray, started, tree, wait_for
from tests.raycluster import BIN, HOST, STORE_BYTES, RayCluster, two_nodes
from tests.simulated import study_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LONG = {
    "scenarios": ["D(20,5)"],
    "concurrency": [1],
    "max_requests": 100_000,
    "max_seconds": 120,
    "request": {"temperature": 0.0},
}
"""Longer than any test waits, whatever is slow."""

SHORT = {**LONG, "max_seconds": 2, "warmup_requests": 0}
RUNNING_SECONDS, ENDING_SECONDS = 120.0, 120.0
PATIENCE_SECONDS = 60.0
"""Beyond every promise, so that a promise that is broken is told by how much."""

NOTICE_SECONDS = 25.0
"""Beyond its lease, until Ray has noticed that a machine is lost, and the trial's next attempt
sweeps before it starts; reapers of other machines, where any are at work, are sooner."""

RENEWED_SECONDS = LEASE_SECONDS / RENEWALS
"""Until a driver has noticed that its store is not to be used any more."""

APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Its processes as the kernel keeps those of another machine: from outside nobody knows their
numbers, and they end all at once."""


@dataclass(frozen=True)
class Scene:
    """A study whose server is under load."""

    ground: Ground
    name: str
    home: Path
    driver: int
    node: psutil.Process | None
    stop_job: Callable[[], None]

    @property
    def actor(self) -> psutil.Process:
        """Who started the load generator, and so the server."""
        owners = {labels[LABEL_OWNER] for _, labels in labelled(self.name)}
        (owner,) = owners
        return psutil.Process(int(owner.partition(":")[0]))

    @property
    def raylet(self) -> psutil.Process:
        return next(p for p in local_ray(self.name) if command_holds(p, "raylet/raylet"))

    @property
    def generator(self) -> psutil.Process:
        return next(
            process
            for process, _ in labelled(self.name)
            if command_holds(process, "genai_bench") and not command_holds(process, "guard.py")
        )


def cleaners_and_driver(scene: Scene) -> None:
    """What would have cleaned up dies with whom it was watching."""
    actor = scene.actor
    found = scene.ground.cleaners(scene.name)
    assert found
    for each in found:
        each.kill()
    os.kill(scene.driver, signal.SIGKILL)
    assert wait_for(lambda: not alive(actor), 20), "Ray ends the actors of a dead driver"


def the_node(scene: Scene) -> None:
    assert scene.node is not None
    for each in reversed(tree(scene.node.pid)):
        with suppress(psutil.NoSuchProcess):  # one that had ended when its parent did
            each.kill()


def rename_table(home: Path, was: str, now: str) -> None:
    """In the store of a home: whoever uses the table then meets an error that nobody foresaw."""
    with closing(sqlite3.connect(home / "autotuner.db", timeout=30)) as store, store:
        store.execute(f"ALTER TABLE {was} RENAME TO {now}")


@dataclass(frozen=True)
class Way:
    """A way in which a study ends, or something of it dies.

    Attributes:
        act: what happens, once a server is under load; None: nothing, it ends by itself.
        local: on a Ray of its own, and not on the cluster.
        workload, changes: of the study.
        node: of how many CPUs a node joins for it; its trial goes there. `apart` is put before
            the command of that node.
        job: submitted as a Ray job.
        state, trial, reason: of the study and of its first trial in the end; of the study where
            it tells, else of the trial.
        swept: something is left, for `autotuner sweep` to find.
        notice: seconds until whoever is to clean up can know of it.
        undo: puts the store of that home in order again, once the driver has ended.
    """

    act: Callable[[Scene], None] | None
    state: StudyState
    trial: TrialState
    reason: str = ""
    local: bool = False
    workload: Mapping[str, Any] = field(default_factory=lambda: LONG)
    changes: Mapping[str, Any] = field(default_factory=dict)
    node: bool = False
    apart: Sequence[str] = ()
    job: bool = False
    swept: bool = False
    notice: float = 0.0
    undo: Callable[[Path], None] = lambda home: None


CANCELLED = (StudyState.CANCELLED, TrialState.CANCELLED)
TRIED_AGAIN = (StudyState.COMPLETE, TrialState.COMPLETE, "second attempt; the first broke")
ABANDONED = (StudyState.RUNNING, TrialState.BENCHMARKING)
"""What a dead driver leaves in the store, for `autotuner resume`."""

WAYS: Mapping[str, Way] = {
    "limit": Way(
        None,
        *(StudyState.FAILED, TrialState.CANCELLED, "the study's limit of 0.004 h was reached"),
        changes={"limits": {"hours": 0.004}},
    ),
    "sigint": Way(
        lambda scene: os.kill(scene.driver, signal.SIGINT),
        *(*CANCELLED, "cancelled by SIGINT"),
        local=True,
    ),
    "sigterm": Way(
        lambda scene: os.kill(scene.driver, signal.SIGTERM), *CANCELLED, "cancelled by SIGTERM"
    ),
    "job-stop": Way(lambda scene: scene.stop_job(), *CANCELLED, "cancelled by SIGTERM", job=True),
    "driver": Way(lambda scene: os.kill(scene.driver, signal.SIGKILL), *ABANDONED),
    "driver-local-ray": Way(
        lambda scene: os.kill(scene.driver, signal.SIGKILL), *ABANDONED, local=True
    ),
    "raylet": Way(
        lambda scene: scene.raylet.kill(),
        # Ray ends a driver that cannot reach it, from below Python.
        *ABANDONED,
        local=True,
    ),
    "exception": Way(
        lambda scene: rename_table(scene.home, "studies", "lost"),
        *ABANDONED,
        notice=RENEWED_SECONDS,
        undo=lambda home: rename_table(home, "lost", "studies"),
    ),
    "actor": Way(lambda scene: scene.actor.kill(), *TRIED_AGAIN, workload=SHORT),
    "generator": Way(lambda scene: scene.generator.kill(), *TRIED_AGAIN, workload=SHORT),
    "server": Way(
        lambda scene: scene.ground.servers(scene.name)[0].kill(),
        *(StudyState.FAILED, TrialState.INFEASIBLE, "no feasible trial"),
    ),
    "node": Way(the_node, *TRIED_AGAIN, workload=SHORT, node=True),
    "machine": Way(
        the_node, *TRIED_AGAIN, workload=SHORT, node=True, apart=APART, notice=NOTICE_SECONDS
    ),
    "cleaner": Way(cleaners_and_driver, *ABANDONED, swept=True),
}


OFTEN = {
    ("driver", "process"),
    ("driver", "docker"),
    ("actor", "ome"),
    ("exception", "process"),
}
"""Of all ways and kinds of backend: each cleaner once, and whatever the driver dies of."""

CELLS = [
    pytest.param(
        *(way, kind),
        id=f"{way}-{kind}",
        marks=() if (way, kind) in OFTEN else pytest.mark.faults,
    )
    for kind in kinds("backend")
    for way in WAYS
]


@pytest.fixture(scope="module")
def grounds() -> Iterator[Mapping[str, Ground]]:
    """The places that can be here, by kind. Ray's nodes are to know them, so they come first."""
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(place_of(kind))
            for kind in kinds("backend")
            if why_not(kind) is None
        }


@pytest.fixture(scope="module")
def cluster(grounds: Mapping[str, Ground]) -> Iterator[RayCluster]:
    with two_nodes(cpus=(2, 2), HF_HUB_OFFLINE="1") as running:
        yield running


@pytest.fixture(params=kinds("backend"))
def ground(request: pytest.FixtureRequest, grounds: Mapping[str, Ground]) -> Ground:
    if request.param not in grounds:
        pytest.skip(why_not(request.param) or "")
    return grounds[request.param]


def written(directory: Path, ground: Ground, name: str, **changes: Any) -> Path:
    """A study of the simulated engine, in the place of a kind."""
    fixed = {"speed": 20, **ground.engine.get("arguments", {})}
    arguments = {flag: fixed[flag] for flag in fixed if flag not in changes.get("space", {})}
    said = {
        "name": name,
        "engine": {"kind": "simulated", **ground.engine, "arguments": arguments},
        "backend": {"kind": ground.kind, ground.kind: dict(ground.block)},
        "space": {},
        **changes,
    }
    said["limits"] = {"ready_seconds": 90, "trial_seconds": 300, **changes.get("limits", {})}
    return study_file(directory, **said)


def stored(home: Path, name: str) -> tuple[Study | None, list[Trial]]:
    if not (home / "autotuner.db").exists():
        return None, []
    store = Store(f"sqlite:///{home / 'autotuner.db'}")
    try:
        return store.study(name), store.trials(name)
    except StudyStateError:  # not yet
        return None, []
    finally:
        store.close()


def swept(home: Path, name: str) -> str:
    """What `autotuner sweep` says."""
    done = CliRunner().invoke(cli, ["sweep", "--study", name], env={"AUTOTUNER_HOME": str(home)})
    assert done.exit_code == 0, done.output
    return done.output.strip()


def under_load(home: Path, ground: Ground, name: str) -> bool:
    """Whether a trial's load has begun. It goes on for some seconds, at least."""
    return any((home / "studies" / name).rglob("load-0")) and bool(ground.servers(name))


@contextmanager
def another_node(cluster: RayCluster, apart: Sequence[str]) -> Iterator[psutil.Process]:
    """A node of one CPU that joins a cluster; trials go to the smallest that fits them."""
    with socket.create_server((HOST, 0)) as one, socket.create_server((HOST, 0)) as other:
        agent, metrics = one.getsockname()[1], other.getsockname()[1]
    before = len(cluster.listed("nodes"))
    with tempfile.TemporaryDirectory(prefix="node-", ignore_cleanup_errors=True) as directory:
        with Path(directory, "log").open("w") as log:
            process = subprocess.Popen(
                [
                    *apart,
                    *(str(BIN / "ray"), "start", "--block", f"--address={cluster.address}"),
                    *(f"--node-ip-address={HOST}", f"--temp-dir={directory}/ray"),
                    *("--num-cpus=1", "--num-gpus=0", f"--object-store-memory={STORE_BYTES}"),
                    *("--min-worker-port=0", "--max-worker-port=0"),
                    *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
                ],
                env={**os.environ, **cluster.environment, "RAY_USAGE_STATS_ENABLED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            assert wait_for(lambda: len(cluster.listed("nodes")) > before, 60, every=0.5)
            yield psutil.Process(process.pid)
        finally:
            for each in tree(process.pid):
                if alive(each):
                    each.kill()
            process.wait(20)


@contextmanager
def scene(
    way: Way, name: str, ground: Ground, home: Path, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    """The study of a way, running."""
    file = written(home, ground, name, workload=way.workload, **way.changes)
    cluster: RayCluster | None = None if way.local else request.getfixturevalue("cluster")
    # A driver without its Ray is ended by Ray, after a minute if nothing is said.
    variables = {"HF_HUB_OFFLINE": "1", "RAY_gcs_rpc_server_reconnect_timeout_s": "15"}
    with ExitStack() as stack:
        node = None
        if way.node:
            assert cluster is not None
            node = stack.enter_context(another_node(cluster, way.apart))
        stack.callback(lambda: ground.opened().sweep(name, owned=True))
        if way.job:
            assert cluster is not None
            job = submitted(cluster, file, home)
            yield Scene(ground, name, home, 0, node, lambda: stopped(cluster, job))
            return
        if cluster is not None:
            variables |= {**cluster.environment, "RAY_ADDRESS": cluster.address}
        driver = stack.enter_context(started("run", str(file), home=home, **variables))
        yield Scene(ground, name, home, driver.pid, node, lambda: None)
        # Who was killed is seen to be so; who was not comes to an end.
        driver.wait(ENDING_SECONDS)


def submitted(cluster: RayCluster, file: Path, home: Path) -> str:
    """The study as a Ray job; the job's id."""
    directory = home / "submitted"
    directory.mkdir()
    file = file.rename(directory / file.name)
    said = cluster.command(
        *("job", "submit", "--address", cluster.dashboard, "--no-wait", "--working-dir", "."),
        "--runtime-env-json",
        json.dumps({"env_vars": {"AUTOTUNER_HOME": str(home), "RAY_JOB_STOP_WAIT_TIME_S": "30"}}),
        *("--", "autotuner", "run", file.name),
        directory=directory,
    )
    found = re.search(r"raysubmit_\w+", said.stdout)
    assert found, said.stdout + said.stderr
    return found.group()


def stopped(cluster: RayCluster, job: str) -> None:
    done = cluster.command("job", "stop", "--no-wait", job)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("way", "ground"), CELLS, indirect=["ground"])
def test_nothing_of_a_study_is_left(
    way: str,
    ground: Ground,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    what, name = WAYS[way], f"{way}-{ground.kind}"
    if what.apart and os.geteuid() != 0:
        pytest.skip("only root may start processes that nobody else sees")
    if what.apart and ground.kind == "docker":
        pytest.skip("a machine's containers end with it, and this one goes on")
    with scene(what, name, ground, tmp_path, request) as study:
        if what.act is None:
            os.waitid(os.P_PID, study.driver, os.WEXITED | os.WNOWAIT)
            assert (tmp_path / "studies" / name / "trials" / "0000" / "plan.json").exists()
            assert ground.left(name) == []
        else:
            loaded = wait_for(lambda: under_load(tmp_path, ground, name), RUNNING_SECONDS)
            assert loaded, said(tmp_path)
        there = set(ground.left(name))
        began = time.monotonic()
        if what.act is not None:
            what.act(study)
        if what.swept:
            assert ground.left(name)
            assert swept(tmp_path, name).startswith("removed ")
        gone = wait_for(lambda: there.isdisjoint(ground.left(name)), PATIENCE_SECONDS)
        seconds = round(time.monotonic() - began, 1)
        print(f"{way} on {ground.kind}: gone after {seconds} s")
        assert gone, ground.left(name)
        assert seconds <= ground.opened().gone_seconds + what.notice
    what.undo(tmp_path)
    # A job's driver is Ray's child, and not ours to wait for.
    assert wait_for(lambda: ended(tmp_path, name, what), ENDING_SECONDS), stored(tmp_path, name)
    assert wait_for(lambda: not ground.left(name), ground.opened().gone_seconds)
    assert swept(tmp_path, name) == "nothing was left behind"


def ended(home: Path, name: str, way: Way) -> bool:
    """Whether the store says what it is to say in the end."""
    study, trials = stored(home, name)
    assert study is not None
    reasons = f"{study.reason}; {trials[0].reason}"
    return (study.state, trials[0].state) == (way.state, way.trial) and way.reason in reasons


def said(home: Path) -> str:
    file = home / "stderr.txt"
    return file.read_text() if file.exists() else "it said nothing"


# A study that ends by itself, and in which a trial is stopped early.


STOPPING: Mapping[str, Any] = {
    "space": {"speed": [20, 19, 0.5]},
    "workload": {**SHORT, "concurrency": [1, 2], "max_requests": 6, "max_seconds": 3},
    "search": {"kind": "grid", "parallel": 1},
    "scheduler": {"kind": "asha", "reduction_factor": 2},
}
LOOK_SECONDS = 0.3


@pytest.mark.faults
def test_nothing_is_left_of_a_trial_that_was_stopped_nor_of_a_study_that_ended(
    ground: Ground, tmp_path: Path, cluster: RayCluster
) -> None:
    name = f"end-{ground.kind}"
    file = written(tmp_path, ground, name, **STOPPING)
    variables = {**cluster.environment, "RAY_ADDRESS": cluster.address, "HF_HUB_OFFLINE": "1"}
    with started("run", str(file), home=tmp_path, **variables) as driver:
        seen: dict[int, float] = {}
        lingered = 0.0
        while driver.poll() is None:
            # First what has ended, then what is there: what ends in between does not linger.
            _, trials = stored(tmp_path, name)
            for number in (trial.number for trial in trials if trial.state.ended):
                since = seen.setdefault(number, time.monotonic())
                if ground.left(name, number):
                    lingered = max(lingered, time.monotonic() - since)
            time.sleep(LOOK_SECONDS)
        assert ground.left(name) == []
    study, trials = stored(tmp_path, name)
    assert study is not None
    assert study.state is StudyState.COMPLETE, said(tmp_path)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3 + [TrialState.STOPPED]
    print(f"stopped on {ground.kind}: gone after {lingered:.1f} s")
    assert lingered <= ground.opened().gone_seconds
    assert swept(tmp_path, name) == "nothing was left behind"
