"""A launch in other words: for a shell, a manifest, Docker."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autotuner.engines.rules import rules_of
from autotuner.plugins import load_kind
from autotuner.report.words import command_line
from autotuner.serving import LaunchSpec, Place
from autotuner.settings import Site
from autotuner.study.loading import yaml_text
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec

EXPORT_PORT = 8000
"""Port in an exported command: the engines' own default."""

EVERYONE = Place(host="0.0.0.0")


def launch_of(spec: StudySpec, parameters: Parameters, place: Place = EVERYONE) -> LaunchSpec:
    """The launch to use outside of trials: on the engine's default port, for everyone."""
    return rules_of(spec).launch(spec, parameters, port=EXPORT_PORT, place=place)


def command_text(launch: LaunchSpec) -> str:
    """A launch as one line for a shell."""
    return command_line(launch.argv, launch.environment)


def docker_text(spec: StudySpec, parameters: Parameters) -> str:
    """A launch as a `docker run` line; local model directories are mounted read-only.

    The entry point is said, because images of different versions have different ones.
    """
    spec, parameters = spec.at(parameters)
    launch = launch_of(spec, parameters, replace(EVERYONE, image=True))
    program, *rest = launch.command
    parts = ["docker", "run", "--rm", "--network=host", "--ipc=host", "--entrypoint", program]
    if launch.gpus:
        parts += ["--gpus", str(launch.gpus)]
    for name, value in launch.environment.items():
        parts += ["--env", f"{name}={value}"]
    for path in dict.fromkeys((spec.model.path, spec.tokenizer)):
        if path.startswith("/"):
            parts += ["--volume", f"{path}:{path}:ro"]
    return shlex.join([*parts, launch.image, *rest, *launch.arguments])


def arguments_text(launch: LaunchSpec) -> str:
    """The flags alone, one item a line: for a manifest's `args`."""
    return "\n".join(launch.arguments)


def compose_text(spec: StudySpec, parameters: Parameters) -> str:
    """A launch as a Compose file, with the same choices as `docker_text`."""
    spec, parameters = spec.at(parameters)
    launch = launch_of(spec, parameters, replace(EVERYONE, image=True))
    service: dict[str, Any] = {
        "image": launch.image,
        "entrypoint": list(launch.command),
        "command": list(launch.arguments),
        "network_mode": "host",
        "ipc": "host",
    }
    if launch.environment:
        service["environment"] = dict(launch.environment)
    local = [each for each in dict.fromkeys((spec.model.path, spec.tokenizer)) if each[:1] == "/"]
    if local:
        service["volumes"] = [f"{path}:{path}:ro" for path in local]
    if launch.gpus:
        gpus = {"driver": "nvidia", "count": launch.gpus, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [gpus]}}}
    return yaml_text({"services": {spec.name: service}})


def ome_text(spec: StudySpec, parameters: Parameters, site: Site) -> str:
    """A launch as OME's InferenceService, without what makes it a trial's.

    Raises:
        ConfigError: the study says too little of OME, see docs/ome.md.
    """
    kind = load_kind("backend", "ome")
    options = spec.backend.blocks.get("ome") or {}
    kind.check(options)
    files: Mapping[str, str] = kind.open(options, site).exports(spec, parameters)
    return files["inferenceservice.yaml"]


def launch_json(spec: StudySpec, parameters: Parameters) -> dict[str, Any]:
    """A launch as JSON."""
    launch = launch_of(spec, parameters)
    return {
        "argv": list(launch.argv),
        "arguments": list(launch.arguments),
        "environment": dict(launch.environment),
        "image": launch.image,
        "gpus": launch.gpus,
    }


def exported(spec: StudySpec, parameters: Parameters, form: str, site: Site) -> str:
    """A launch in one of the forms `command`, `args`, `docker`, `compose`, `ome`.

    Raises:
        ConfigError: see `ome_text`.
    """
    if form == "docker":
        return docker_text(spec, parameters)
    if form == "compose":
        return compose_text(spec, parameters).rstrip("\n")
    if form == "ome":
        return ome_text(spec, parameters, site).rstrip("\n")
    launch = launch_of(spec, parameters)
    return arguments_text(launch) if form == "args" else command_text(launch)
