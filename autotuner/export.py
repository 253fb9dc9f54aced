"""A launch in other words: for a shell, a manifest, Docker."""

from __future__ import annotations

import shlex
from dataclasses import replace

from autotuner.engines.rules import rules_of
from autotuner.report.words import command_line
from autotuner.serving import LaunchSpec, Place
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
