"""A container as values: what is asked of Docker's daemon, and what its answers mean. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from autotuner.addresses import LOOPBACK
from autotuner.errors import ConfigError, FailureClass
from autotuner.serving import Ending, LaunchSpec, Slot
from autotuner.settings import Site
from autotuner.study.model import GIB

LABEL_STUDY, LABEL_TRIAL, LABEL_OWNER = "autotuner.study", "autotuner.trial", "autotuner.owner"
HOST = "host"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmgt]?)b?", re.IGNORECASE)
_LOG_DRIVER = {"Type": "json-file", "Config": {"max-size": "1g", "mode": "blocking"}}
"""The daemon's default may be one that nothing can be read back from, or that drops lines."""


class DockerOptions(BaseModel):
    """The block `backend.docker` of a study."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    network: str = Field(
        default=HOST,
        min_length=1,
        description="`host`, or a network of the daemon, such as `bridge`: the server's port is "
        "then published on 127.0.0.1.",
    )
    ipc: Literal["host", "private"] = Field(
        default="host", description="Whose shared memory the server's processes use."
    )
    shm_size: str | None = Field(
        default=None,
        description="Shared memory with `ipc: private`, such as `16g`; the daemon's default, "
        "mostly 64m, is too small for several GPUs.",
    )
    memory: str | None = Field(
        default=None,
        description="Of the machine's memory, what a container may use, such as `64g`, swap "
        "included; beyond it the kernel ends the server.",
    )
    user: str | None = Field(
        default=None,
        min_length=1,
        description="Who the server runs as, such as `1000:1000`; the image's user by default.",
    )

    @field_validator("network")
    @classmethod
    def _reachable(cls, network: str) -> str:
        if network == "none" or network.startswith("container:"):
            raise ValueError("no server could be reached there; host, bridge or a network's name")
        return network

    @field_validator("shm_size", "memory")
    @classmethod
    def _a_size(cls, said: str | None) -> str | None:
        if said is not None:
            bytes_of(said)
        return said

    @field_validator("shm_size")
    @classmethod
    def _not_ignored(cls, said: str | None, others: ValidationInfo) -> str | None:
        if said is not None and others.data.get("ipc") == "host":
            raise ValueError("is ignored with ipc: host; say ipc: private too, or leave it out")
        return said


def bytes_of(size: str) -> int:
    """Bytes of a size such as ``16g``, in Docker's powers of 1024.

    Raises:
        ValueError: it is none.
    """
    found = _SIZE.fullmatch(size)
    number = float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " ") if found else 0.0
    if number < 1:
        raise ValueError("not a size such as 512m or 16g")
    return int(number)


def container_name(slot: Slot) -> str:
    """A trial's container by study and number; by its directory too, for two users may have a
    study of the same name, and two parts of one server may share a machine."""
    digest = hashlib.sha256(slot.directory.encode()).hexdigest()[:4]
    return f"autotuner-{slot.study}-{slot.trial}-{digest}"


def create_request(
    launch: LaunchSpec, slot: Slot, options: DockerOptions, site: Site, *, hub_cache: Path
) -> dict[str, Any]:
    """The body of the daemon's create request, but for secrets and owner.

    Args:
        hub_cache: the Hugging Face directory for a model that is on a hub, where the site names
            none.

    Raises:
        ConfigError: the server spans nodes in a network that does not.
    """
    if launch.nodes > 1 and options.network != HOST:
        raise ConfigError(
            f"parts on several nodes do not reach each other with {options.network!r}",
            where="backend.docker.network",
            allowed=[HOST],
        )
    cache = hub_cache if is_on_hub(launch) else site.hub_cache
    environment = {"MODEL_PATH": launch.model_path}
    if cache:
        environment["HF_HOME"] = str(cache)
    if not slot.gpu_ids:
        # Where NVIDIA's runtime is the daemon's default, images made for it ask for all GPUs.
        environment["NVIDIA_VISIBLE_DEVICES"] = "void"
    body: dict[str, Any] = {
        "Image": reference(launch.image, site.registry),
        "Entrypoint": list(launch.command),
        "Cmd": list(launch.arguments),
        "Labels": {LABEL_STUDY: slot.study, LABEL_TRIAL: str(slot.trial)},
        "HostConfig": _host_config(launch, slot, options, mounts(launch, site, cache)),
    }
    if options.user:
        body["User"] = options.user
    if options.network != HOST:
        body["ExposedPorts"] = {f"{launch.port}/tcp": {}}
    body["Env"] = variables({**environment, **launch.environment})
    return body


def _host_config(
    launch: LaunchSpec, slot: Slot, options: DockerOptions, shared: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a container has of its machine."""
    host: dict[str, Any] = {
        "NetworkMode": options.network,
        "IpcMode": options.ipc,
        "Mounts": shared,
        "LogConfig": _LOG_DRIVER,
    }
    if slot.gpu_ids:
        host["DeviceRequests"] = [{"DeviceIDs": list(slot.gpu_ids), "Capabilities": [["gpu"]]}]
    if options.shm_size:
        host["ShmSize"] = bytes_of(options.shm_size)
    if options.memory:
        host["Memory"] = host["MemorySwap"] = bytes_of(options.memory)
    if options.network != HOST:
        port = f"{launch.port}/tcp"
        host["PortBindings"] = {port: [{"HostIp": LOOPBACK, "HostPort": str(launch.port)}]}
    return host


def variables(environment: Mapping[str, str]) -> list[str]:
    """An environment as the daemon takes it."""
    return [f"{name}={value}" for name, value in sorted(environment.items())]


def is_on_hub(launch: LaunchSpec) -> bool:
    """Whether the model is fetched by its id, and not a directory."""
    return not Path(launch.model_path).is_absolute()


def mounts(launch: LaunchSpec, site: Site, cache: Path | None) -> list[dict[str, Any]]:
    """Directories that the container shares, each at its own path; read-only but for the cache."""
    shown = {Path(each) for each in site.mounts}
    if site.models:
        shown.add(site.models)
    if not is_on_hub(launch):
        shown.add(whole_model(Path(launch.model_path)))
    writable = {cache} if cache else set()
    # None that comes with another: a daemon refuses a path that it is given twice.
    kept = [
        path
        for path in sorted(shown - writable)
        if not any(other in path.parents for other in shown | writable)
    ]
    return [_mount(path, read_only=True) for path in kept] + [
        _mount(path, read_only=False) for path in writable
    ]


def _mount(path: Path, *, read_only: bool) -> dict[str, Any]:
    # Not the older `Binds`: with them the daemon makes what is missing, as root.
    return {"Type": "bind", "Source": str(path), "Target": str(path), "ReadOnly": read_only}


def whole_model(path: Path) -> Path:
    """The directory to mount for a model: a hub's snapshot is links to files beside it."""
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent
    return path


def reference(image: str, registry: str) -> str:
    """An image's full name: with a tag, and in the operator's registry where it names none."""
    name, tag = split(image)
    first, slash, _ = name.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    if registry and not named:
        name = f"{registry.rstrip('/')}/{name}"
    return f"{name}{'@' if ':' in tag else ':'}{tag}"


def split(image: str) -> tuple[str, str]:
    """Name, and tag or digest; without a tag all of a repository would be pulled."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


_UNSTARTABLE = (
    (r"unsatisfied condition", FailureClass.IMAGE),  # made for a newer driver than the machine's
    (r"exec format error", FailureClass.IMAGE),
    (r'exec: "[^"]*": .*not found', FailureClass.NOT_INSTALLED),
    (r'exec: "[^"]*": .*no such file or directory', FailureClass.NOT_INSTALLED),
    (r'exec: "[^"]*": .*(permission denied|is a directory)', FailureClass.NOT_INSTALLED),
    (r"port is already allocated|address already in use", FailureClass.PORT),
)
"""What a daemon says of a program that it could not start, and the class that it is of. Recorded
from Docker 20.10; ports and the driver are from its sources."""


def refusal_of(said: str, image: str) -> Ending | None:
    """The ending of a container whose program did not start; None: that is the daemon's fault."""
    for pattern, failure in _UNSTARTABLE:
        if re.search(pattern, said):
            words = said.rpartition("unable to start container process: ")[2]
            return Ending(None, failure, f"image {image}: {words.removesuffix(': unknown')}")
    return None


NO_GPU_DRIVER = (
    "this machine's Docker cannot give GPUs to containers; install the NVIDIA Container Toolkit, "
    "`nvidia-ctk runtime configure --runtime=docker`, and restart Docker"
)


def advice_of(said: str) -> str:
    """What to do where the daemon could not start a container; may be empty."""
    if "could not select device driver" in said or "failed to discover GPU vendor" in said:
        return NO_GPU_DRIVER
    if "nvidia-container-cli" in said:
        return "NVIDIA's container runtime refused; see whether `nvidia-smi` works there"
    if "bind source path does not exist" in said:
        return "the model and AUTOTUNER_MOUNTS must be on every node, at the same path"
    return ""


def ending_of(state: Mapping[str, Any] | None, log: str) -> Ending:
    """How a container ended, by the daemon's account of it; None: the daemon knows it no more."""
    if state is None:
        return Ending(reason="its container was removed by somebody else")
    code = int(state["ExitCode"])
    if state["OOMKilled"]:
        reason = "the kernel ended it: it needed more memory than backend.docker.memory allows"
        return Ending(code, FailureClass.HOST_MEMORY, reason)
    lines = log.rstrip().splitlines()
    if lines and re.match(r"(standard_init_linux.go:\d+: )?exec .*exec format error", lines[-1]):
        return Ending(code, FailureClass.IMAGE, "the image is for another kind of processor")
    if code == 137:
        return Ending(code, reason="killed by SIGKILL; the machine may have run out of memory")
    return Ending(code, reason=str(state.get("Error") or ""))


class Progress:
    """How far a pull is: the events of its layers, added up."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, tuple[str, int, int]] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        layer, status = event.get("id"), event.get("status", "")
        if not layer or status.startswith("Pulling from"):
            return
        detail = event.get("progressDetail") or {}
        _, done, total = self._layers.get(layer, ("", 0, 0))
        if status == "Downloading":
            done, total = detail.get("current", done), detail.get("total", total)
        elif status not in ("Pulling fs layer", "Waiting"):  # all else follows the last byte
            done = total
        self._layers[layer] = status, done, total

    def text(self) -> str:
        layers = self._layers.values()
        ready = sum(1 for status, _, _ in layers if status in ("Pull complete", "Already exists"))
        done, total = sum(each[1] for each in layers), sum(each[2] for each in layers)
        return (
            f"image {self._image}: {done / GIB:.1f} of {total / GIB:.1f} GiB fetched, "
            f"{ready} of {len(layers)} layers ready"
        )
