"""A Docker daemon of the tests' own, where one may be started; images; and what is on it.

`daemon` is a fixture: a test module imports it. What it yields is also in DOCKER_HOST meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotuner.backends.guarded import Guarded
from autotuner.backends.reaper import Post
from tests.processes import command_holds, wait_for

BUSYBOX = "autotuner-test/busybox:1"
APPLETS = ("sh", "sleep", "echo", "cat", "env", "ls", "dd", "true", "wc", "httpd")
HOST_DIRECTORIES = ("/usr", "/lib", "/lib64", "/bin", "/etc")


def why_not() -> str | None:
    """Why no daemon of our own can be started here; None where it can."""
    if os.geteuid() != 0:
        return "only root may start a Docker daemon"
    if shutil.which("dockerd") is None:
        return "dockerd is not installed"
    if busybox() is None:
        return "no static busybox to make an image of (Debian: busybox-static)"
    return None


def busybox() -> Path | None:
    found = shutil.which("busybox")
    return Path(found) if found else None


@contextmanager
def running() -> Iterator[str]:
    """The address of a fresh daemon that ends with the block, and its containers with it.

    It changes nothing of the machine's network: containers have the host's, or that of `network`.
    """
    with tempfile.TemporaryDirectory(prefix="dockerd-") as place, _no_mounts_left_in(place):
        address = f"unix://{place}/docker.sock"
        with open(f"{place}/log", "wb") as log:  # noqa: PTH123
            guarded = Guarded(
                [
                    *("dockerd", "--iptables=false", "--bridge=none", "-H", address),
                    *("--data-root", f"{place}/data", "--exec-root", f"{place}/exec"),
                    *("--pidfile", f"{place}/pid"),
                ],
                environment={**os.environ, "TMPDIR": place},
                directory=place,
                output=log,
            )
        try:
            assert wait_for(lambda: answers(address) or not guarded.alive(), 60)
            if not guarded.alive():
                pytest.skip(f"dockerd does not run here: {_last_words(Path(place, 'log'))}")
            yield address
        finally:
            with _client(address) as api:
                for each in api.containers(all=True):
                    with suppress(Exception):
                        api.remove_container(each["Id"], force=True)
            end_reapers(address)
            guarded.stop(60)


@pytest.fixture(scope="module")
def daemon() -> Iterator[str]:
    """The address of a daemon for the tests of a module, in DOCKER_HOST; skips with the reason."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with running() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        yield address


def answers(address: str) -> bool:
    # Docker's own client leaves a socket open where nobody listens yet.
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(address.removeprefix("unix://"))
        return True
    return False


def busybox_image(address: str) -> str:
    """A 2 MB image with a shell and not much else."""
    _import(address, _archive({}), BUSYBOX, ["ENV PATH=/bin"])
    return BUSYBOX


def python_image(address: str, python: Path, name: str = "autotuner-test/python") -> str:
    """An image whose `python3` is a Python of this machine, in or out of a virtual environment.

    Its containers need `python_mounts`, for instance through AUTOTUNER_MOUNTS.
    """
    shim = f'#!/bin/sh\nexec {python.absolute()} "$@"\n'.encode()
    tag = f"{name}:{hashlib.sha256(shim).hexdigest()[:8]}"
    files = {"shim/python3": shim, "shim/python": shim}
    path = "/shim:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    _import(address, _archive(files), tag, [f"ENV PATH={path}"])
    return tag


def python_mounts(python: Path) -> tuple[str, ...]:
    """This machine's directories that a Python needs, each to be had at its own path."""
    said = "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"
    done = subprocess.run([python, "-c", said], check=True, capture_output=True, text=True)
    found = {each for each in (*HOST_DIRECTORIES, *done.stdout.split()) if Path(each).is_dir()}
    return tuple(sorted(found))


def containers(address: str, study: str | None = None) -> list[dict[str, Any]]:
    """Our containers in any state, of one study or of any."""
    label = "autotuner.study" if study is None else f"autotuner.study={study}"
    with _client(address) as api:
        return list(api.containers(all=True, filters={"label": label}))


def inspected(address: str, name: str) -> Mapping[str, Any]:
    with _client(address) as api:
        return dict(api.inspect_container(name))


def remove(address: str, name: str) -> None:
    with _client(address) as api:
        api.remove_container(name, force=True)


def put(address: str, name: str, labels: Mapping[str, str], *, start: bool = True) -> None:
    """A sleeping container with these labels, as if somebody had started it."""
    body = {
        "Image": BUSYBOX,
        "Cmd": ["sleep", "600"],
        "Labels": dict(labels),
        "HostConfig": {"NetworkMode": "host"},
    }
    with _client(address) as api:
        made = api.create_container_from_config(body, name)["Id"]
        if start:
            api.start(made)


@contextmanager
def network(address: str, name: str) -> Iterator[str]:
    """A network of the daemon's own, whose ports are published without the machine's firewall."""
    with _client(address) as api:
        try:
            api.create_network(name, driver="bridge")
        except Exception as error:  # noqa: BLE001 - kernels and sandboxes without bridges
            pytest.skip(f"no network can be made here: {error}")
        try:
            yield name
        finally:
            api.remove_network(name)


def reapers(address: str) -> list[psutil.Process]:
    """The reapers at work for a daemon."""
    return [
        process
        for process in psutil.process_iter()
        if command_holds(process, "autotuner.backends.reaper docker")
        and command_holds(process, address)
    ]


def end_reapers(address: str) -> None:
    """They would wait for their daemon to come back."""
    found = reapers(address)
    for each in found:
        each.kill()
    psutil.wait_procs(found, timeout=10)
    files = Post.of("docker", address).log
    for file in files.parent.glob(f"{files.stem}.*"):
        file.unlink()


@contextmanager
def _client(address: str) -> Iterator[Any]:
    import docker

    api = docker.APIClient(address, version="auto", timeout=30)
    try:
        yield api
    finally:
        api.close()


@dataclass
class Registry:
    """Where it listens, and how often it gave something that is stored."""

    address: str
    blobs_sent: int = 0


@contextmanager
def registry(name: str, tag: str) -> Iterator[Registry]:
    """A registry of one image, with what a pull asks for and no more."""
    layer = _archive({})
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), ""),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    ).encode()
    blobs = {_digest(each): each for each in (layer, config)}
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    parts = {
        "config": ("container.image.v1+json", config),
        "layer": ("image.rootfs.diff.tar", layer),
    }
    described = {
        part: {
            "mediaType": f"application/vnd.docker.{media}",
            "size": len(content),
            "digest": _digest(content),
        }
        for part, (media, content) in parts.items()
    }
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": described["config"],
            "layers": [described["layer"]],
        }
    ).encode()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            last = self.path.rpartition("/")[2]
            if self.path == "/v2/":
                self._send(b"{}", "application/json")
            elif last in (tag, _digest(manifest)) and self.path.startswith(f"/v2/{name}/manifests"):
                self._send(manifest, kind)
            elif last in blobs:
                served.blobs_sent += 1
                self._send(blobs[last], "application/octet-stream")
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def _send(self, content: bytes, media: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Docker-Content-Digest", _digest(content))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    served = Registry(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _import(address: str, archive: bytes, image: str, changes: list[str]) -> None:
    name, _, tag = image.rpartition(":")
    with _client(address) as api:
        api.import_image_from_data(archive, repository=name, tag=tag, changes=changes)


def _archive(files: Mapping[str, bytes]) -> bytes:
    """A root directory: busybox and its applets, empty directories to mount on, and `files`."""
    program = busybox()
    assert program is not None
    directories = ("bin", "tmp", "dev", "proc", "sys", "etc", "usr", "lib", "lib64", "root", "shim")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in directories:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, content in {"bin/busybox": program.read_bytes(), **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return packed.getvalue()


@contextmanager
def _no_mounts_left_in(place: str) -> Iterator[None]:
    """A daemon that was killed leaves mounts, and nothing can be deleted under them."""
    try:
        yield
    finally:
        left = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for each in sorted((m for m in left if m.startswith(f"{place}/")), reverse=True):
            subprocess.run(["umount", "-l", each], check=False)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"
