"""What every backend promises (the numbers are those of the Backend and Server docstrings).

The program started is this Python, so that only the backend is tested. What needs a place to
start it in is slow, but for processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from autotuner.backends.base import Backend, Server
from autotuner.errors import ConfigError, InfrastructureError
from autotuner.execution.reservation import GPU
from autotuner.plugins import kinds, load_kind
from autotuner.serving import Ending, Inspection, LaunchSpec, Place, Plan, Slot
from autotuner.settings import Site
from autotuner.study.spec import StudySpec
from tests.builders import spec
from tests.places import OPTIONS, ROOT, Ground, place_of, why_not
from tests.processes import wait_for

STUDY = "contract"
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("first line", flush=True)
time.sleep(600)
"""
SECRETS = ("hf_a-token", "a-password")
SITE = Site(
    hf_token=SecretStr(SECRETS[0]),
    https_proxy=SecretStr(f"http://user:{SECRETS[1]}@proxy:3128"),
)
LAUNCH = LaunchSpec(
    command=("python3",),
    arguments=("-m", "engine", "--model", "/models/tiny", "--port", "1"),
    flags=("--max-num-seqs", "4"),
    environment={"CONTRACT": "1"},
    image="engine:1",
    model_path="/models/tiny",
    served_name="tiny",
    port=1,
    gpus=2,
)

every = pytest.mark.parametrize("kind", kinds("backend"))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=() if kind == "process" else pytest.mark.slow)
        for kind in kinds("backend")
    ],
)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """Where servers of a kind can be started; skips with the reason."""
    if reason := why_not(request.param):
        pytest.skip(reason)
    with place_of(request.param) as found:
        yield found


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "ground" in request.fixturenames:
        ground: Ground = request.getfixturevalue("ground")
        left = ground.left(STUDY)
        if left:  # the other tests are not to suffer
            ground.opened().sweep(STUDY, owned=True)
        assert left == []


def slot(directory: Path, gpu_ids: tuple[str, ...] = ()) -> Slot:
    return Slot(STUDY, 7, port=1, directory=str(directory), gpu_ids=gpu_ids)


def opened(kind: str, site: Site = SITE) -> Backend:
    found: Backend = load_kind("backend", kind).open(OPTIONS.get(kind, {}), site)
    return found


@contextmanager
def started(ground: Ground, code: str, directory: Path) -> Iterator[Server]:
    backend = ground.opened()
    server = backend.start(backend.plan(ground.program(code), slot(directory)))
    try:
        yield server
    finally:
        server.stop(10)


def says(server: Server, text: str) -> bool:
    return wait_for(lambda: server.alive() and text in server.log(), 20)


def ends(server: Server) -> bool:
    return wait_for(lambda: not server.alive(), 20)


# What needs nothing: kinds, options, and promise 1.


@every
def test_unknown_options_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        load_kind("backend", kind).check({**OPTIONS.get(kind, {}), "nonsense": 1})


@every
def test_known_options_are_taken(kind: str) -> None:
    load_kind("backend", kind).check(OPTIONS.get(kind, {}))


@every
def test_1_a_plan_is_a_function_of_its_arguments_and_json(kind: str, tmp_path: Path) -> None:
    backend = opened(kind)
    one, other = (each.plan(LAUNCH, slot(tmp_path, ("2", "3"))) for each in (backend, opened(kind)))
    assert one == other == backend.plan(LAUNCH, slot(tmp_path, ("2", "3")))
    assert one.backend == kind
    assert json.loads(json.dumps(one.to_json())) == one.to_json()
    assert list(tmp_path.iterdir()) == []


@every
def test_1_what_differs_in_a_trial_differs_in_its_plan(kind: str, tmp_path: Path) -> None:
    def plan(launch: LaunchSpec = LAUNCH, trial: int = 7) -> Plan:
        return opened(kind).plan(launch, replace(slot(tmp_path), trial=trial))

    other = replace(LAUNCH, arguments=(*LAUNCH.arguments, "--x", "1"), flags=("--x", "1"))
    different = [
        plan(),
        plan(trial=8),
        plan(other),
        plan(replace(LAUNCH, environment={"CONTRACT": "2"})),
    ]
    assert len({json.dumps(each.to_json(), sort_keys=True) for each in different}) == 4


@every
def test_1_a_plan_has_no_secrets(kind: str, tmp_path: Path) -> None:
    text = json.dumps(opened(kind).plan(LAUNCH, slot(tmp_path)).to_json())
    text += "".join(opened(kind).exports(studied(kind), {}).values())
    assert [secret for secret in SECRETS if secret in text] == []


@every
def test_exports_are_texts_by_name(kind: str) -> None:
    one, other = (opened(kind).exports(studied(kind), {}) for _ in range(2))
    assert one == other
    assert all(Path(name).name == name and text.strip() for name, text in one.items())


def studied(kind: str) -> StudySpec:
    return spec(backend={"kind": kind, kind: OPTIONS.get(kind, {})})


@every
def test_what_is_said_of_a_backend(kind: str) -> None:
    backend = opened(kind)
    assert isinstance(backend.place, Place)
    assert backend.gone_seconds > 0
    assert backend.gpu_resource


@every
def test_a_kind_is_opened_and_plans_without_its_library(kind: str) -> None:
    code = f"""
import sys
from autotuner.plugins import load_kind
from autotuner.serving import Slot
from autotuner.settings import Site
from tests.contracts.test_backends import LAUNCH
before = {{name for name in ("docker", "kubernetes") if name in sys.modules}}
kind, options = load_kind("backend", {kind!r}), {OPTIONS.get(kind, {})!r}
kind.check(options)
kind.open(options, Site()).plan(LAUNCH, Slot("study", 1, 1, "/tmp"))
print(sorted({{"docker", "kubernetes"}} & set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


# The server's promises.


def test_2_start_returns_at_once(ground: Ground, tmp_path: Path) -> None:
    began = time.monotonic()
    with started(ground, "import time; time.sleep(600)", tmp_path) as server:
        assert time.monotonic() - began < 10
        assert wait_for(lambda: server.alive() and server.name, 10)


def test_2_a_server_that_cannot_come_up_says_so_by_dying(ground: Ground, tmp_path: Path) -> None:
    with started(ground, "raise SystemExit('no room')", tmp_path) as server:
        assert ends(server)
        assert "no room" in server.log()
        assert server.ending().exit_code == 1


def test_2_a_place_that_cannot_start_programs_is_the_operators(
    ground: Ground, tmp_path: Path
) -> None:
    with ground.unable() as launch:
        backend = ground.opened()
        plan = backend.plan(launch, slot(tmp_path))
        with pytest.raises(InfrastructureError) as caught:
            ends(backend.start(plan))
    assert len(str(caught.value)) > 20


def test_the_log_is_whole_after_death_and_after_stop(ground: Ground, tmp_path: Path) -> None:
    code = "import sys; print('first'); print('last', file=sys.stderr); sys.exit(3)"
    with started(ground, code, tmp_path) as server:
        assert ends(server)
        assert set(server.log().split()) == {"first", "last"}
        assert server.ending().exit_code == 3
    assert set(server.log().split()) == {"first", "last"}
    assert (tmp_path / "server.log").read_text() == server.log()


def test_whoever_follows_the_log_sees_it_while_the_server_lives(
    ground: Ground, tmp_path: Path
) -> None:
    code = """
import time
print("first", flush=True)
time.sleep(2)
print("second", flush=True)
time.sleep(600)
"""
    file, followed = tmp_path / "server.log", b""
    with started(ground, code, tmp_path) as server:
        for line in ("first\n", "first\nsecond\n"):
            assert wait_for(lambda: server.alive() and line in file.read_text(), 20)  # noqa: B023
            assert file.read_bytes().startswith(followed)
            followed = file.read_bytes()
    assert file.read_bytes().startswith(followed)


def test_its_node_is_said_where_that_need_not_be_this_machine(
    ground: Ground, tmp_path: Path
) -> None:
    elsewhere = ground.opened().gpu_resource != GPU
    with started(ground, "import time; time.sleep(600)", tmp_path) as server:
        assert wait_for(lambda: server.alive() and bool(server.node) is elsewhere, 10)


ECHO = """
import os, sys, time
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTPS_PROXY", "https_proxy"):
    print(f"{name}={os.environ.get(name)}", flush=True)
print("told", flush=True)
"""


@pytest.mark.parametrize("lasting", [False, True])
def test_the_log_shows_no_secret_that_the_program_tells(
    ground: Ground, tmp_path: Path, lasting: bool
) -> None:
    given = ground.site.model_copy(
        update={"hf_token": SITE.hf_token, "https_proxy": SITE.https_proxy}
    )
    backend = load_kind("backend", ground.kind).open(ground.options, given)
    code = ECHO + ("time.sleep(600)" if lasting else "sys.exit(3)")
    server = backend.start(backend.plan(ground.program(code), slot(tmp_path)))
    try:
        assert says(server, "told") if lasting else ends(server)
        assert "HF_TOKEN=***" in server.log() or "HF_TOKEN=None" in server.log()
        assert [secret for secret in SECRETS if secret in server.log()] == []
    finally:
        server.stop(10)
    text = (tmp_path / "server.log").read_text()
    assert "told" in text
    assert [secret for secret in SECRETS if secret in text + server.log()] == []


def test_a_program_has_ended_whatever_of_it_is_left(ground: Ground, tmp_path: Path) -> None:
    code = STUBBORN.replace("time.sleep(600)\n", "sys.exit(4)\n")
    with started(ground, code, tmp_path) as server:
        assert ends(server)
        assert server.ending().exit_code == 4
    assert ground.left(STUDY) == []


def test_the_ending_of_what_was_stopped_is_not_an_error(ground: Ground, tmp_path: Path) -> None:
    with started(ground, "import time; time.sleep(600)", tmp_path) as server:
        assert server.alive()
    assert not server.alive()
    assert isinstance(server.ending(), Ending)


def test_stop_leaves_nothing_even_of_what_ignores_it_and_may_be_called_twice(
    ground: Ground, tmp_path: Path
) -> None:
    with started(ground, STUBBORN, tmp_path) as server:
        assert says(server, "first line")
        assert ground.left(STUDY)
        assert ground.opened().left(STUDY)
        server.stop(10)
        assert ground.left(STUDY) == []
        assert ground.opened().left(STUDY) == []
        assert not server.alive()
        server.stop(10)


def test_1_gpu_ids_reach_the_program(tmp_path: Path) -> None:
    backend = opened("process")
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    launch = replace(LAUNCH, command=(sys.executable,), arguments=("-c", code))
    server = backend.start(backend.plan(launch, slot(tmp_path, ("2", "3"))))
    assert ends(server)
    assert server.log().strip() == "2,3"
    server.stop(10)


# Owners, and what becomes of what they started.


OWNER = """
import json, sys, time
from autotuner.plugins import load_kind
from autotuner.serving import Plan
from autotuner.settings import Site
said = json.load(sys.stdin)
backend = load_kind("backend", said["kind"]).open(said["options"], Site())
server = backend.start(Plan(**said["plan"]))
while server.alive() and "first line" not in server.log():
    time.sleep(0.1)
print("started", flush=True)
while True:
    server.alive()
    time.sleep(0.5)
"""


@contextmanager
def owner(ground: Ground, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that starts a server and only looks after it; killed with the block."""
    plan = ground.opened().plan(ground.program(STUBBORN), slot(directory))
    said = {"kind": ground.kind, "options": dict(ground.options), "plan": plan.to_json()}
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(said))
        process.stdin.close()
        assert process.stdout.readline().strip() == "started"
        assert wait_for(lambda: ground.left(STUDY), 20)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_3_what_was_started_is_gone_soon_after_its_owner(
    ground: Ground, number: int, tmp_path: Path
) -> None:
    with owner(ground, tmp_path) as process:
        os.kill(process.pid, number)
        process.wait()
        assert wait_for(lambda: not ground.left(STUDY), ground.opened().gone_seconds)
        assert ground.opened().sweep(STUDY) == []


def test_4_a_sweep_removes_what_has_no_owner_and_spares_the_rest(
    ground: Ground, tmp_path: Path
) -> None:
    backend = ground.opened()
    with owner(ground, tmp_path) as process:
        assert backend.sweep(STUDY) == []
        assert backend.sweep("another-study", owned=True) == []
        assert backend.left("another-study") == []
        # Now nothing else ends it: a program's own children are left of one without its guard.
        for each in cleaners(ground):
            each.kill()
            each.wait(10)
        process.kill()
        process.wait()
        (said, *_) = backend.left(STUDY)
        assert f"study {STUDY}, trial 7" in said
        assert backend.sweep("another-study") == []
        assert ground.opened().sweep(STUDY)
        assert wait_for(lambda: not ground.left(STUDY), 10)
        assert backend.sweep(STUDY) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace")
def test_4_a_sweep_leaves_the_processes_of_containers_to_those_who_know_their_owners() -> None:
    backend = opened("process")
    # As a container would say it: a number that means another process here, or none.
    labels = {"AUTOTUNER_STUDY": "elsewhere", "AUTOTUNER_OWNER": "999999999:1"}
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "env", *assigned(labels), "sleep", "600"]
    )
    try:
        assert wait_for(lambda: backend.left("elsewhere"), 10)
        assert backend.sweep("elsewhere") == []
        assert backend.left("elsewhere")
        assert backend.sweep("elsewhere", owned=True)
        assert wait_for(lambda: not backend.left("elsewhere"), 10)
    finally:
        process.kill()
        process.wait()


def assigned(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


def cleaners(ground: Ground) -> list[psutil.Process]:
    """What would end the server of this test when its owner is killed."""
    found = ground.cleaners(STUDY)
    assert found
    return found


def test_4_a_sweep_takes_the_owned_where_it_is_told(ground: Ground, tmp_path: Path) -> None:
    with started(ground, STUBBORN, tmp_path) as server:
        assert says(server, "first line")
        assert ground.opened().sweep() == []
        assert ground.opened().sweep(STUDY, owned=True)
        assert wait_for(lambda: not ground.left(STUDY), 10)
        with suppress(InfrastructureError):  # some places call it somebody else's doing
            assert ends(server)


# Looking before starting.


def test_5_prepared_is_prepared(ground: Ground, tmp_path: Path) -> None:
    launch, said = ground.program("pass"), list[str]()
    ground.opened().prepare(launch, said.append)
    began = time.monotonic()
    ground.opened().prepare(launch, said.append)
    assert time.monotonic() - began < 5
    assert ground.left(STUDY) == []


def test_5_what_cannot_be_prepared_is_the_operators(ground: Ground) -> None:
    with ground.unable() as launch:
        backend = ground.opened()
        if not backend.place.image:
            backend.prepare(launch, print)  # nothing is shared: the first trial says it
            return
        with pytest.raises(InfrastructureError):
            backend.prepare(launch, print)


def test_6_examine_finds_and_never_raises(ground: Ground) -> None:
    found = ground.opened().examine(ground.program("pass"))
    assert found
    assert all(isinstance(each, Inspection) for each in found)
    ground.opened().examine()
    with ground.unable() as launch:
        found = ground.opened().examine(launch)
        assert any(each.ok is False and each.said and each.hint for each in found)
        ground.opened().examine()
