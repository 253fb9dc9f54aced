"""The Docker backend's values: the exact request, what is refused, and what answers mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from autotuner.backends.container import (
    Progress,
    advice_of,
    bytes_of,
    ending_of,
    reference,
    refusal_of,
    split,
    whole_model,
)
from autotuner.backends.docker import DOCKER
from autotuner.errors import ConfigError, FailureClass
from autotuner.serving import Ending, LaunchSpec, Place, Plan, Slot
from autotuner.settings import Site

LAUNCH = LaunchSpec(
    command=("python3", "-m", "vllm.entrypoints.openai.api_server"),
    arguments=("--model", "/models/tiny", "--max-num-seqs", "8", "--json", '{"a": [1, 2]}'),
    environment={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    image="vllm/vllm-openai:v0.10.0",
    model_path="/models/tiny",
    served_name="tiny",
    port=23456,
    gpus=2,
)
SLOT = Slot("small", 7, port=23456, directory="/studies/small/trials/0007", gpu_ids=("2", "3"))


def plan(launch: LaunchSpec = LAUNCH, site: Site | None = None, **options: Any) -> Plan:
    return DOCKER.open(options, site or Site()).plan(launch, SLOT)


def created(launch: LaunchSpec = LAUNCH, site: Site | None = None, **options: Any) -> Any:
    return plan(launch, site, **options).request["create"]


def mount(path: str, *, read_only: bool = True) -> dict[str, Any]:
    return {"Type": "bind", "Source": path, "Target": path, "ReadOnly": read_only}


def test_a_plan_is_the_daemons_create_request() -> None:
    assert plan() == Plan(
        "docker",
        {
            "name": "autotuner-small-7-13df",
            "create": {
                "Image": "vllm/vllm-openai:v0.10.0",
                "Entrypoint": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
                "Cmd": [
                    *("--model", "/models/tiny", "--max-num-seqs", "8"),
                    *("--json", '{"a": [1, 2]}'),
                ],
                "Env": ["HF_HUB_OFFLINE=1", "MODEL_PATH=/models/tiny", "OMP_NUM_THREADS=1"],
                "Labels": {"autotuner.study": "small", "autotuner.trial": "7"},
                "HostConfig": {
                    "NetworkMode": "host",
                    "IpcMode": "host",
                    "Mounts": [mount("/models/tiny")],
                    "LogConfig": {
                        "Type": "json-file",
                        "Config": {"max-size": "1g", "mode": "blocking"},
                    },
                    "DeviceRequests": [{"DeviceIDs": ["2", "3"], "Capabilities": [["gpu"]]}],
                },
            },
            "secrets": [],
            "url": "http://127.0.0.1:23456",
            "directory": "/studies/small/trials/0007",
        },
    )


def test_a_plan_is_json_and_equal_for_equal_arguments() -> None:
    assert plan() == plan()
    assert json.loads(json.dumps(plan().to_json())) == plan().to_json()


def test_two_attempts_share_a_name_and_two_users_do_not() -> None:
    other = replace(SLOT, directory="/home/other/studies/small/trials/0007")
    backend = DOCKER.open({}, Site())
    names = [backend.plan(LAUNCH, slot).request["name"] for slot in (SLOT, SLOT, other)]
    assert names[0] == names[1] != names[2]


def test_options_reach_the_request() -> None:
    host = created(ipc="private", shm_size="16g", memory="64g")["HostConfig"]
    assert (host["IpcMode"], host["ShmSize"]) == ("private", 16 * 2**30)
    assert host["Memory"] == host["MemorySwap"] == 64 * 2**30
    assert created(user="1000:1000")["User"] == "1000:1000"


def test_outside_the_hosts_network_the_port_is_published_on_this_machine_alone() -> None:
    body = created(network="bridge")
    assert body["ExposedPorts"] == {"23456/tcp": {}}
    assert body["HostConfig"]["PortBindings"] == {
        "23456/tcp": [{"HostIp": "127.0.0.1", "HostPort": "23456"}]
    }
    assert DOCKER.open({"network": "bridge"}, Site()).place == Place(host="0.0.0.0", image=True)
    assert DOCKER.open({}, Site()).place == Place(host="127.0.0.1", image=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shm_size": "16g"}, "backend.docker.shm_size.*ignored with ipc: host"),
        ({"ipc": "host", "shm_size": "16g"}, "ignored with ipc: host"),
        ({"ipc": "private", "shm_size": "much"}, "'much'.*not a size"),
        ({"memory": "0g"}, "'0g'.*not a size"),
        ({"network": "none"}, "no server could be reached"),
        ({"network": "container:other"}, "no server could be reached"),
        ({"ipc": "shared"}, "backend.docker.ipc"),
        ({"gpus": "all"}, "unknown key 'gpus'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DOCKER.check(options)


def test_gpus_are_given_by_the_device_request_alone() -> None:
    assert "VISIBLE_DEVICES" not in json.dumps(created())


def test_a_trial_without_gpus_sees_none() -> None:
    slot = replace(SLOT, gpu_ids=())
    body = DOCKER.open({}, Site()).plan(LAUNCH, slot).request["create"]
    assert "DeviceRequests" not in body["HostConfig"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in body["Env"]


def test_parts_on_several_nodes_need_the_hosts_network() -> None:
    with pytest.raises(ConfigError, match=r"backend.docker.network"):
        created(replace(LAUNCH, nodes=2), network="bridge")
    assert created(replace(LAUNCH, nodes=2))


def test_directories_are_mounted_at_their_own_paths_and_each_once() -> None:
    site = Site(
        models=Path("/models"),
        hub_cache=Path("/shared/hub"),
        mounts=("/data/templates", "/data", "/models/other"),
    )
    assert created(site=site)["HostConfig"]["Mounts"] == [
        mount("/data"),
        mount("/models"),  # the model's own directory comes with it
        mount("/shared/hub", read_only=False),
    ]
    assert "HF_HOME=/shared/hub" in created(site=site)["Env"]


def test_a_model_of_a_hub_needs_a_cache_and_no_directory() -> None:
    hub = replace(LAUNCH, model_path="Qwen/Qwen3-8B")
    cache = str(Path.home() / ".cache" / "huggingface")
    assert created(hub)["HostConfig"]["Mounts"] == [mount(cache, read_only=False)]
    assert f"HF_HOME={cache}" in created(hub)["Env"]
    own = replace(hub, environment={"HF_HOME": "/elsewhere"})
    assert [each for each in created(own)["Env"] if "HF_HOME" in each] == ["HF_HOME=/elsewhere"]


def test_a_snapshot_is_mounted_with_the_files_that_it_links_to() -> None:
    snapshot = Path("/hub/models--Qwen--Qwen3-8B/snapshots/abc")
    assert whole_model(snapshot) == Path("/hub/models--Qwen--Qwen3-8B")
    assert whole_model(Path("/models/snapshots/abc")) == Path("/models/snapshots/abc")


def test_a_plan_names_secrets_and_does_not_know_them() -> None:
    site = Site(hf_token=SecretStr("hf_secret"), http_proxy=SecretStr("http://u:secret@p:1"))
    made = plan(site=site)
    assert made.request["secrets"] == [
        *("HF_TOKEN", "HTTP_PROXY", "HUGGING_FACE_HUB_TOKEN", "NO_PROXY"),
        *("http_proxy", "no_proxy"),
    ]
    assert "secret@" not in json.dumps(made.to_json())
    assert "hf_secret" not in json.dumps(made.to_json())
    own = replace(LAUNCH, environment={"http_proxy": "http://other:1"})
    assert "http_proxy" not in plan(own, site).request["secrets"]


@pytest.mark.parametrize(
    ("image", "registry", "full"),
    [
        ("vllm/vllm-openai:v0.10.0", "", "vllm/vllm-openai:v0.10.0"),
        ("vllm/vllm-openai", "", "vllm/vllm-openai:latest"),
        ("vllm/vllm-openai:v1", "mirror.local:5000", "mirror.local:5000/vllm/vllm-openai:v1"),
        ("vllm:v1", "mirror.local/hub/", "mirror.local/hub/vllm:v1"),
        ("ghcr.io/x/y:v1", "mirror.local", "ghcr.io/x/y:v1"),
        ("localhost/x:v1", "mirror.local", "localhost/x:v1"),
        ("host:5000/x", "mirror.local", "host:5000/x:latest"),
        ("x/y@sha256:00ff", "mirror.local", "mirror.local/x/y@sha256:00ff"),
    ],
)
def test_an_image_gets_the_operators_registry_where_it_names_none(
    image: str, registry: str, full: str
) -> None:
    assert reference(image, registry) == full
    assert reference(full, registry) == full


def test_an_image_is_pulled_by_one_tag_or_digest() -> None:
    assert split("host:5000/x") == ("host:5000/x", "latest")
    assert split("host:5000/x:v1") == ("host:5000/x", "v1")
    assert split("x@sha256:00ff") == ("x", "sha256:00ff")


def test_sizes() -> None:
    assert [bytes_of(each) for each in ("512", "64k", "512m", "1.5g", "2T", "16GB")] == [
        *(512, 64 * 2**10, 512 * 2**20, 3 * 2**29, 2 * 2**40, 16 * 2**30)
    ]


RUNC = (
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start "
    "container process: "
)


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (
            f'{RUNC}exec: "/no/such": stat /no/such: no such file or directory: unknown',
            FailureClass.NOT_INSTALLED,
        ),
        (
            f'{RUNC}exec: "nosuch": executable file not found in $PATH: unknown',
            FailureClass.NOT_INSTALLED,
        ),
        (f'{RUNC}exec: "/etc": permission denied: unknown', FailureClass.NOT_INSTALLED),
        (f"{RUNC}exec /bin/x: exec format error: unknown", FailureClass.IMAGE),
        (
            "driver failed programming external connectivity on endpoint x: Bind for "
            "127.0.0.1:8000 failed: port is already allocated",
            FailureClass.PORT,
        ),
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please "
            "update your driver to a newer version",
            FailureClass.IMAGE,
        ),
    ],
)
def test_what_a_daemon_says_of_a_program_that_cannot_start(
    said: str, failure: FailureClass
) -> None:
    """The first three as Docker 20.10 said them; the others as its sources and NVIDIA's do."""
    ending = refusal_of(said, "vllm/vllm-openai:v1")
    assert ending is not None
    assert ending.failure is failure
    assert "vllm/vllm-openai:v1" in ending.reason
    assert "OCI runtime" not in ending.reason
    assert not ending.reason.endswith("unknown")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "nvidia-ctk"),
        ("nvidia-container-cli: device error: 7: unknown device", "nvidia-smi"),
        (
            'invalid mount config for type "bind": bind source path does not exist: /models/x',
            "every node",
        ),
        ("network nope not found", ""),
        ("unable to find user nobody2: no matching entries in passwd file", ""),
        (f'{RUNC}error mounting "/x" to rootfs at "/x": no such file or directory', ""),
    ],
)
def test_what_is_not_the_programs_fault_comes_with_what_to_do(said: str, advice: str) -> None:
    assert refusal_of(said, "x:1") is None
    assert advice in advice_of(said)
    assert bool(advice) == bool(advice_of(said))


def state(code: int, *, oom: bool = False) -> dict[str, Any]:
    return {"ExitCode": code, "OOMKilled": oom, "Error": ""}


def test_how_a_container_ended() -> None:
    assert ending_of(state(3), "Traceback") == Ending(3)
    # The server's main process may outlive the one that was killed, and exit of its own accord.
    assert ending_of(state(1, oom=True), "").failure is FailureClass.HOST_MEMORY
    killed = ending_of(state(137), "")
    assert (killed.exit_code, killed.failure) == (137, None)
    assert "SIGKILL" in killed.reason
    assert "removed by somebody" in ending_of(None, "").reason
    wrong = ending_of(state(1), "exec /usr/bin/python3: exec format error\n")
    assert wrong.failure is FailureClass.IMAGE


def test_the_layers_of_a_pull_are_one_line() -> None:
    progress = Progress("x:1")

    def layer(name: str, status: str, current: int = 0, total: int = 0) -> None:
        detail = {"current": current, "total": total} if total else {}
        progress.hear({"id": name, "status": status, "progressDetail": detail})

    progress.hear({"status": "Pulling from x", "id": "1"})
    layer("a", "Pulling fs layer")
    layer("b", "Already exists")
    layer("a", "Waiting")
    layer("a", "Downloading", 2**30, 4 * 2**30)
    assert progress.text() == "image x:1: 1.0 of 4.0 GiB fetched, 1 of 2 layers ready"
    layer("a", "Download complete")
    layer("a", "Extracting", 2**20, 4 * 2**30)
    assert progress.text() == "image x:1: 4.0 of 4.0 GiB fetched, 1 of 2 layers ready"
    layer("a", "Pull complete")
    progress.hear({"status": "Digest: sha256:00"})
    assert progress.text() == "image x:1: 4.0 of 4.0 GiB fetched, 2 of 2 layers ready"
