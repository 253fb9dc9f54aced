"""Servers as containers on the trial's own machine, through Docker's official SDK.

A plan holds the body of the daemon's create request. What only the starting process knows, the
secrets and who it is, is added when the container is made. The only module that imports `docker`,
and only when a daemon is spoken to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autotuner.backends.base import Backend, BackendKind, Server
from autotuner.backends.container import (
    HOST,
    LABEL_OWNER,
    LABEL_STUDY,
    LABEL_TRIAL,
    NO_GPU_DRIVER,
    DockerOptions,
    Progress,
    advice_of,
    container_name,
    create_request,
    ending_of,
    reference,
    refusal_of,
    split,
    variables,
)
from autotuner.backends.owners import lives, this_owner
from autotuner.backends.reaper import runtime_directory, watch
from autotuner.errors import InfrastructureError
from autotuner.files import locked
from autotuner.masking import masked, without_passwords
from autotuner.serving import Ending, Inspection, LaunchSpec, Place, Plan, Slot
from autotuner.settings import Site
from autotuner.study.files import SERVER_LOG
from autotuner.study.model import GIB
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec, options_of

GONE_SECONDS = 30.0
"""The reaper's interval, and what a daemon takes to remove a container with much memory."""
GRACE_SECONDS = 3.0
"""SIGTERM to SIGKILL, as for processes."""
ANSWER_SECONDS = 60.0
"""Within these a daemon answers."""
SILENT_SECONDS = 600.0
"""A pull unpacks a layer of several GiB without a word."""
PROGRESS_SECONDS = 5.0
_NVIDIA_DRIVER = Path("/dev/nvidiactl")
DISK_GIB = 30.0
"""Room that an engine's image takes, packed and unpacked, at the least."""


class _Docker:
    local = False
    spans_nodes = True

    def check(self, options: Mapping[str, Any]) -> None:
        options_of(DockerOptions, options, "backend.docker")

    def open(self, options: Mapping[str, Any], site: Site) -> Backend:
        return _Containers(options_of(DockerOptions, options, "backend.docker"), site)


class _Containers:
    gone_seconds = GONE_SECONDS
    gpu_resource = "GPU"

    def __init__(self, options: DockerOptions, site: Site) -> None:
        self._options = options
        self._site = site
        # Without one each container would fetch its model anew.
        self._hub_cache = site.hub_cache or Path.home() / ".cache" / "huggingface"

    @property
    def place(self) -> Place:
        host = "127.0.0.1" if self._options.network == HOST else "0.0.0.0"
        return Place(host=host, image=True)

    def plan(self, launch: LaunchSpec, slot: Slot) -> Plan:
        create = create_request(launch, slot, self._options, self._site, hub_cache=self._hub_cache)
        return Plan(
            "docker",
            {
                "name": container_name(slot),
                "create": create,
                "secrets": sorted(set(self._site.environment()) - set(launch.environment)),
                "url": f"http://127.0.0.1:{launch.port}",
                "directory": slot.directory,
            },
        )

    def prepare(self, launch: LaunchSpec, said: Callable[[str], None]) -> None:
        image = reference(launch.image, self._site.registry)
        with _Daemon() as daemon:
            self._watch()
            if daemon.has(image):
                return
            digest = hashlib.sha256(image.encode()).hexdigest()[:8]
            said(f"image {image} is not on this machine yet; pulling it")
            with locked(runtime_directory() / f"pull-{digest}.lock"):
                if not daemon.has(image):  # another process may have pulled it meanwhile
                    daemon.pull(image, said)

    def start(self, plan: Plan) -> Server:
        daemon = _Daemon()
        self._watch()
        known = self._site.environment()
        secrets = {name: known[name] for name in plan.request["secrets"] if name in known}
        return _Container(daemon, plan.request, secrets)

    def _watch(self) -> None:
        watch("docker", self._options.model_dump(), self._site, address())

    def left(self, study: str | None = None) -> list[str]:
        if _no_daemon():
            return []
        with _Daemon() as daemon:
            return [_said(each) for each in daemon.labelled(study)]

    def sweep(self, study: str | None = None, *, owned: bool = False) -> list[str]:
        removed: list[str] = []
        if _no_daemon():
            return removed
        with _Daemon() as daemon:
            for each in daemon.labelled(study):
                if owned or lives(each["Labels"].get(LABEL_OWNER, "")) is False:
                    # One that resists must not save the others; `left` goes on naming it.
                    with contextlib.suppress(InfrastructureError):
                        daemon.remove(each["Id"])
                        removed.append(_said(each))
        return removed

    def examine(self, launch: LaunchSpec | None = None) -> list[Inspection]:
        image = reference(launch.image, self._site.registry) if launch else ""
        try:
            with _Daemon() as daemon:
                about = daemon.about()
                there = bool(image) and daemon.has(image)
        except InfrastructureError as error:
            hint = "start it (systemctl start docker), and be root or in the group docker"
            return [Inspection("docker", False, str(error), hint)]
        found = [_version(about), _memory(about), _gpus(about), _disk(about, there)]
        if image:
            hint = "" if there else "it is pulled before the first trial"
            said = f"{image} is {'here' if there else 'not here yet'}"
            found.append(Inspection("docker image", there or None, said, hint))
        return found

    def shown(self, plan: Plan) -> Mapping[str, Any]:
        create = plan.request["create"]
        # The registry's name of the image.
        return {"argv": [*create["Entrypoint"], *create["Cmd"]], "image": create["Image"]}

    def exports(self, spec: StudySpec, point: Parameters) -> Mapping[str, str]:  # noqa: ARG002
        return {}


class _Container:
    """One started container; or one that could not start, with the reason as its ending."""

    node = None

    def __init__(
        self, daemon: _Daemon, request: Mapping[str, Any], secrets: Mapping[str, str]
    ) -> None:
        self.name: str = request["name"]
        self.url: str | None = request["url"]
        self._create: Mapping[str, Any] = request["create"]
        self._log = Path(request["directory"]) / SERVER_LOG
        self._secrets = secrets
        self._ending: Ending | None = None
        self._follower: threading.Thread | None = None
        self._log.write_bytes(b"")
        self._daemon = daemon
        self._id: str | None = None
        try:
            self._id = self._made()
            self._run(self._id)
        except BaseException as error:
            self._discard()
            if isinstance(error, InfrastructureError):
                raise InfrastructureError(masked(str(error), secrets)) from None
            raise

    def alive(self) -> bool:
        if self._ending is not None or self._id is None:
            return False
        found = self._daemon.inspect(self._id)
        if found is not None and found["State"]["Running"]:
            return True
        self._end(self._id, found)
        return False

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ending(self) -> Ending:
        return self._ending or Ending()

    def stop(self, seconds: float) -> None:
        if self._id is None:
            return
        deadline = time.monotonic() + seconds
        with contextlib.suppress(InfrastructureError):  # `remove` kills it, or says why it cannot
            self._daemon.stop(self._id, min(GRACE_SECONDS, seconds / 3), within=seconds)
        if self._ending is None:
            self._end(self._id, self._daemon.inspect(self._id))
        self._daemon.remove(self._id, within=max(1.0, deadline - time.monotonic()))
        self._id = None
        self._daemon.close()

    def _made(self) -> str:
        """The container's id; a dead owner's container of the same name makes room for it."""
        for each in self._create["HostConfig"]["Mounts"]:
            if not each["ReadOnly"]:
                with contextlib.suppress(OSError):  # the daemon says what is wrong with it
                    Path(each["Source"]).mkdir(parents=True, exist_ok=True)
        body = {
            **self._create,
            "Env": [*self._create["Env"], *variables(self._secrets)],
            "Labels": {**self._create["Labels"], LABEL_OWNER: this_owner()},
        }
        made = self._daemon.create(self.name, body)
        if made is None:
            self._make_room()
            made = self._daemon.create(self.name, body)
        if made is None:
            raise InfrastructureError(f"the name {self.name} was taken again by another container")
        return made

    def _make_room(self) -> None:
        found = self._daemon.inspect(self.name)
        if found is None:
            return
        owner = (found["Config"]["Labels"] or {}).get(LABEL_OWNER)
        if owner is None or lives(owner) is not False:
            whose = f"that {owner} started" if owner else "that is not ours"
            raise InfrastructureError(
                f"there is a container {self.name} already {whose}; end it, or `docker rm -f` it"
            )
        self._daemon.remove(found["Id"])

    def _run(self, container: str) -> None:
        self._verify(container)
        refusal = self._daemon.start(container)
        if refusal is None:
            self._follower = threading.Thread(target=self._follow, args=(container,), daemon=True)
            self._follower.start()
            return
        self._log.write_text(f"{refusal}\n", encoding="utf-8")
        self._ending = refusal_of(refusal, self._create["Image"])
        self._discard()

    def _verify(self, container: str) -> None:
        """Compare the container's environment with what was asked; never show a value of it."""
        found = self._daemon.inspect(container)
        there = set(found["Config"]["Env"] or []) if found else set()
        asked = [*self._create["Env"], *variables(self._secrets)]
        wrong = [each.partition("=")[0] for each in asked if each not in there]
        if wrong:
            raise InfrastructureError(
                f"container {self.name} was made without {', '.join(f'{n}=***' for n in wrong)}"
            )

    def _discard(self) -> None:
        """Remove what was created and will not run."""
        created, self._id = self._id, None
        if created is not None:
            with contextlib.suppress(InfrastructureError):  # there is an error to be told already
                self._daemon.remove(created)
        self._daemon.close()

    def _follow(self, container: str) -> None:
        """Write the log as it grows, for whoever watches it; `_end` sees to it that it is whole."""
        with contextlib.suppress(InfrastructureError), self._log.open("ab") as log:
            rest = b""
            # A connection of its own: a session is not for several threads.
            with _Daemon() as daemon:
                for chunk in daemon.follow(container):
                    *lines, rest = re.split(rb"(?<=[\n\r])", rest + chunk)
                    text = b"".join(lines).decode(errors="replace")
                    log.write(masked(text, self._secrets).encode())
                    log.flush()

    def _end(self, container: str, found: Mapping[str, Any] | None) -> None:
        """Keep how it ended, and its whole log, while the daemon has them."""
        whole = self._daemon.logs(container)
        if self._follower is not None:
            self._follower.join(GRACE_SECONDS)
        if whole is not None:
            text = masked(whole.decode(errors="replace"), self._secrets).encode()
            if text != self._log.read_bytes():
                self._log.write_bytes(text)
        self._ending = ending_of(found and found["State"], self.log())


class _Daemon:
    """A connection to the machine's daemon, for one thread.

    Every method raises InfrastructureError where the daemon does not answer, or refuses for
    reasons of its own.
    """

    def __init__(self) -> None:
        try:
            import docker
            import requests
            import urllib3
        except ImportError as error:
            raise InfrastructureError(
                "the backend docker needs the package docker: pip install 'autotuner[docker]'"
            ) from error
        self._errors = docker.errors
        self._failures = (
            *(docker.errors.DockerException, requests.RequestException),
            *(urllib3.exceptions.HTTPError, OSError),
        )
        if _no_daemon():
            raise InfrastructureError(f"no Docker daemon listens at {_shown()}")
        with self._asked(f"reach the Docker daemon at {_shown()}"):
            self._api: Any = docker.from_env(timeout=round(ANSWER_SECONDS)).api

    def __enter__(self) -> _Daemon:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._api.close()

    def about(self) -> Mapping[str, Any]:
        with self._asked("ask the Docker daemon about itself"):
            return dict(self._api.info())

    def has(self, image: str) -> bool:
        with self._asked(f"look for the image {image}"):
            try:
                self._api.inspect_image(image)
            except self._errors.ImageNotFound:
                return False
            return True

    def pull(self, image: str, said: Callable[[str], None]) -> None:
        """Fetch an image, saying now and then how far it is."""
        name, tag = split(image)
        progress, told = Progress(image), time.monotonic()
        advice = "check its name, and the daemon's login and proxy; `docker pull` tells more"
        with self._asked(f"pull the image {image}", advice), self._within(SILENT_SECONDS):
            for event in self._api.pull(name, tag=tag, stream=True, decode=True):
                if "error" in event:
                    raise self._errors.DockerException(event["error"])
                progress.hear(event)
                if time.monotonic() - told >= PROGRESS_SECONDS:
                    told = time.monotonic()
                    said(progress.text())
        said(f"image {image} is here")

    def create(self, name: str, body: Mapping[str, Any]) -> str | None:
        """The id of a new container; None where its name is taken."""
        with self._asked(f"make the container {name}"):
            try:
                return str(self._api.create_container_from_config(body, name)["Id"])
            except self._errors.ImageNotFound:
                raise InfrastructureError(
                    f"the image {body['Image']} is not on this machine any more; `docker pull` it"
                ) from None
            except self._errors.APIError as error:
                if error.status_code != 409:
                    raise
                return None

    def start(self, container: str) -> str | None:
        """None when it runs; else what the daemon says of a program that cannot."""
        with self._asked("start a container"):
            try:
                self._api.start(container)
            except self._errors.APIError as error:
                said = _words(error)
                if refusal_of(said, "") is None:
                    raise
                return said
            return None

    def inspect(self, container: str) -> Mapping[str, Any] | None:
        """None where there is no such container."""
        with self._asked("look at a container"):
            try:
                return dict(self._api.inspect_container(container))
            except self._errors.NotFound:
                return None

    def logs(self, container: str) -> bytes | None:
        """Everything it printed; None where that is gone."""
        with contextlib.suppress(InfrastructureError), self._asked("read a container's log"):
            return bytes(self._api.logs(container))
        return None

    def follow(self, container: str) -> Iterator[bytes]:
        """What it prints, as it prints it."""
        with self._asked("follow a container's log"):
            yield from self._api.logs(container, stream=True, follow=True)

    def stop(self, container: str, grace: float, *, within: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds."""
        with self._asked("stop a container"), self._within(within):
            try:
                self._api.stop(container, timeout=max(1, round(grace)))
            except self._errors.NotFound:
                return

    def remove(self, container: str, *, within: float = GONE_SECONDS) -> None:
        """Kill and remove, and return when it is gone; another may be doing so too.

        Raises:
            InfrastructureError: it is still there after `within` seconds.
        """
        deadline = time.monotonic() + within
        said = ""
        while self.inspect(container) is not None:
            if time.monotonic() >= deadline:
                raise InfrastructureError(
                    f"container {container[:12]} is still there after {within:.0f} s: {said}"
                )
            try:
                with self._within(deadline - time.monotonic()):
                    self._api.remove_container(container, v=True, force=True)
            except self._failures as error:
                said = _words(error)
                time.sleep(0.1)

    def labelled(self, study: str | None) -> list[dict[str, Any]]:
        """Containers with our labels in any state, of one study or of any."""
        label = LABEL_STUDY if study is None else f"{LABEL_STUDY}={study}"
        with self._asked("list containers"):
            return list(self._api.containers(all=True, filters={"label": label}))

    @contextlib.contextmanager
    def _asked(self, what: str, advice: str = "") -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            if (answer := getattr(error, "response", None)) is not None:
                answer.close()  # a refused stream stays open
            said = _words(error)
            advice = advice or advice_of(said)
            raise InfrastructureError(
                f"cannot {what}: {said}" + (f"; {advice}" if advice else "")
            ) from error

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        before, self._api.timeout = self._api.timeout, max(1, round(seconds))
        try:
            yield
        finally:
            self._api.timeout = before


def address() -> str:
    """Where the daemon listens, as the SDK sees it."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _shown() -> str:
    """The address without the password that it may hold."""
    return without_passwords(address())


def _no_daemon() -> bool:
    """Whether this machine has none, such as a cluster's head node: then it has no containers."""
    return address().startswith("unix://") and not Path(address().removeprefix("unix://")).exists()


def _words(error: BaseException) -> str:
    """An error in the daemon's own words, where it has some."""
    return str(getattr(error, "explanation", None) or error).replace(address(), _shown())


def _said(container: Mapping[str, Any]) -> str:
    labels = container["Labels"]
    text = (
        f"container {container['Names'][0].lstrip('/')} ({container['State']}) of study "
        f"{labels[LABEL_STUDY]}, trial {labels.get(LABEL_TRIAL, '?')}"
    )
    unseen = lives(labels.get(LABEL_OWNER, "")) is None
    return f"{text}, whose owner cannot be seen from here" if unseen else text


def _version(about: Mapping[str, Any]) -> Inspection:
    said = f"Docker {about.get('ServerVersion', '?')} at {_shown()}"
    if address().startswith("unix://"):
        return Inspection("docker", True, said)
    hint = "if it is another machine's, servers do not run where their trials hold GPUs"
    return Inspection("docker", None, said, hint)


def _memory(about: Mapping[str, Any]) -> Inspection:
    kept = bool(about.get("MemoryLimit"))
    does = "kept" if kept else "not kept"
    said = f"cgroup v{about.get('CgroupVersion', '?')}; limits of memory are {does}"
    hint = "" if kept else "backend.docker.memory does nothing here"
    return Inspection("docker memory", kept or None, said, hint)


def _gpus(about: Mapping[str, Any]) -> Inspection:
    runtimes = sorted(about.get("Runtimes") or {})
    # The daemon takes the hook from its path where no runtime is configured.
    if "nvidia" in runtimes or shutil.which("nvidia-container-runtime-hook"):
        return Inspection("docker GPUs", True, "NVIDIA's container runtime is installed")
    said = f"no NVIDIA container runtime; runtimes: {', '.join(runtimes)}"
    if not _NVIDIA_DRIVER.exists():
        return Inspection("docker GPUs", None, f"{said}; nor is there an NVIDIA driver")
    return Inspection("docker GPUs", False, said, NO_GPU_DRIVER)


def _disk(about: Mapping[str, Any], there: bool) -> Inspection:
    root = str(about.get("DockerRootDir", ""))
    try:
        free = shutil.disk_usage(root).free / GIB
    except OSError:
        return Inspection(
            "docker disk", None, f"{root or 'its directory'} cannot be seen from here"
        )
    enough = there or free >= DISK_GIB
    hint = "" if enough else f"an engine's image needs {DISK_GIB:.0f} GiB; see `docker system df`"
    return Inspection("docker disk", enough, f"{free:.0f} GiB free for images in {root}", hint)


DOCKER: BackendKind = _Docker()
