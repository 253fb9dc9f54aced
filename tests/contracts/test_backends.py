"""What every backend promises (the numbers are those of the Backend and Server docstrings).

The program started is this Python, so that only the backend is tested.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from autotuner.backends.base import Backend, BackendKind, Server
from autotuner.errors import ConfigError, InfrastructureError
from autotuner.plugins import kinds, load_kind
from autotuner.serving import LaunchSpec, Slot
from autotuner.settings import Site
from tests.processes import alive, ours, wait_for

STUDY = "contract"
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("first line", flush=True)
time.sleep(600)
"""


@pytest.fixture(params=kinds("backend"))
def backend(request: pytest.FixtureRequest) -> Backend:
    return opened(request.param)


def opened(kind: str) -> Backend:
    found: BackendKind = load_kind("backend", kind)
    return found.open({}, Site())


def launch(code: str) -> LaunchSpec:
    return LaunchSpec(
        command=(sys.executable,),
        arguments=("-c", code),
        environment={"CONTRACT": "1"},
        image="unused",
        model_path="/models/none",
        served_name="none",
        port=1,
    )


def slot(directory: Path) -> Slot:
    return Slot(STUDY, 7, port=1, directory=str(directory), gpu_ids=("2", "3"))


def started(backend: Backend, code: str, directory: Path) -> Server:
    return backend.start(backend.plan(launch(code), slot(directory)))


def test_1_a_plan_is_a_function_of_its_arguments_and_json(backend: Backend, tmp_path: Path) -> None:
    one, other = (backend.plan(launch("pass"), slot(tmp_path)) for _ in range(2))
    assert one == other
    assert json.loads(json.dumps(one.to_json())) == one.to_json()
    assert list(tmp_path.iterdir()) == []


def test_1_gpu_ids_reach_the_program(backend: Backend, tmp_path: Path) -> None:
    server = started(backend, "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", tmp_path)
    assert wait_for(lambda: not server.alive(), 10)
    assert server.log().strip() == "2,3"
    server.stop(10)


@pytest.mark.parametrize("kind", kinds("backend"))
def test_unknown_options_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        load_kind("backend", kind).check({"nonsense": 1})


def test_2_a_program_that_cannot_start_is_the_operators(backend: Backend, tmp_path: Path) -> None:
    wrong = LaunchSpec(("/no/such/program",), (), {}, "unused", "/m", "m", 1)
    server = backend.start(backend.plan(wrong, slot(tmp_path)))
    with pytest.raises(InfrastructureError, match="/no/such/program"):
        wait_for(lambda: not server.alive(), 10)
    server.stop(10)


def test_the_log_is_whole_after_death(backend: Backend, tmp_path: Path) -> None:
    code = "import sys; print('first'); print('last', file=sys.stderr); sys.exit(3)"
    server = started(backend, code, tmp_path)
    assert wait_for(lambda: not server.alive(), 10)
    assert set(server.log().split()) == {"first", "last"}
    server.stop(10)


def test_stop_leaves_nothing_even_of_what_ignores_it_and_may_be_called_twice(
    backend: Backend, tmp_path: Path
) -> None:
    server = started(backend, STUBBORN, tmp_path)
    assert wait_for(lambda: "first line" in server.log() and len(ours(STUDY)) >= 3, 10)
    server.stop(10)
    assert ours(STUDY) == []
    assert backend.left(STUDY) == []
    assert not server.alive()
    server.stop(10)


OWNER = """
import sys, time
from pathlib import Path
from tests.contracts.test_backends import STUBBORN, opened, started
server = started(opened(sys.argv[1]), STUBBORN, Path(sys.argv[2]))
print("started", flush=True)
time.sleep(600)
"""


def owner(kind: str, directory: Path) -> subprocess.Popen[str]:
    """A process that starts a server and then only waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), kind, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "started"
    assert wait_for(lambda: len(ours(STUDY)) >= 3, 10)
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", kinds("backend"))
def test_3_what_was_started_is_gone_within_ten_seconds_of_its_owner(
    kind: str, number: int, tmp_path: Path
) -> None:
    process = owner(kind, tmp_path)
    servers = ours(STUDY)
    os.kill(process.pid, number)
    process.communicate()
    assert wait_for(lambda: not any(map(alive, servers)), 10)


@pytest.mark.parametrize("kind", kinds("backend"))
def test_4_a_sweep_removes_what_has_no_owner_and_spares_the_rest(kind: str, tmp_path: Path) -> None:
    backend = opened(kind)
    process = owner(kind, tmp_path)
    assert backend.sweep(STUDY) == []
    assert backend.sweep("another-study", owned=True) == []
    # Without its guard nothing ends the program's own children but the sweep.
    guard = next(p for p in ours(STUDY) if "guard.py" in " ".join(p.cmdline()))
    guard.kill()
    process.kill()
    process.communicate()
    psutil.wait_procs([guard], timeout=5)
    assert backend.left(STUDY)
    assert backend.sweep(STUDY)
    assert wait_for(lambda: not ours(STUDY), 5)
