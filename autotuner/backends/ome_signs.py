"""What an InferenceService, its pods and their events say of a server: pure.

OME's own status lags behind its pods, and says nothing at all of errors that come before the
first Deployment; those are told by events only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from autotuner.backends.ome_manifest import CONTAINER
from autotuner.errors import FailureClass
from autotuner.serving import Ending

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Trouble:
    """Why no server can come up here, whatever its parameters.

    Attributes:
        at_once: it does not pass by itself.
    """

    said: str
    at_once: bool = True


@dataclass(frozen=True)
class Sight:
    """One look at a server's place.

    Attributes:
        service: the InferenceService; None: gone.
        pods: of its engine.
        events: warnings about it and what it made.
    """

    service: Object | None
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()


def judge(sight: Sight) -> Ending | Trouble | None:
    """How the server ended, why it cannot start, or None where it lives or may still come."""
    if sight.service is None:
        return Trouble("its InferenceService was deleted by somebody else")
    if "deletionTimestamp" in sight.service["metadata"]:
        return Trouble("its InferenceService is being deleted by somebody else")
    for pod in sight.pods:
        if found := _of_pod(pod):
            return found
    return _of_service(sight.service) or _of_events(sight) or _of_silence(sight)


# What a kubelet says of a container that does not start.
_IMAGE = frozenset(
    (
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
    )
)
_CONFIG = frozenset(
    (
        "CreateContainerConfigError",
        "CreateContainerError",
        "PreCreateHookError",
        "PostStartHookError",
    )
)
_NO_PROGRAM = ("executable file not found", "no such file or directory", "permission denied")

_KILLED = 137


def _of_pod(pod: Object) -> Ending | Trouble | None:
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and status.get("reason"):
        # Evicted, Preempting, NodeShutdown, UnexpectedAdmissionError: the node's, not ours.
        return Trouble(
            f"its pod failed: {status['reason']}: {status.get('message', '')}".rstrip(": ")
        )
    for container in _containers(status):
        if found := _of_container(container):
            return found
    if "deletionTimestamp" in pod["metadata"]:
        return Trouble("its pod is being deleted: the node is drained, or somebody else did it")
    condition = _condition(status, "PodScheduled")
    if condition.get("status") == "False":
        said = condition.get("message") or condition.get("reason") or "not scheduled"
        return Trouble(f"no node takes its pod: {said}{_label_hint(said)}", at_once=False)
    return None


def _containers(status: Object) -> Iterator[Object]:
    """The engine's containers, those that prepare first."""
    for each in status.get("initContainerStatuses") or ():
        # One that ended well, or that runs beside the engine for as long as it does.
        state = each.get("state") or {}
        if (state.get("terminated") or {}).get("exitCode") != 0:
            yield each
    for each in status.get("containerStatuses") or ():
        if each["name"] == CONTAINER or len(status["containerStatuses"]) == 1:
            yield each


def _of_container(container: Object) -> Ending | Trouble | None:
    state = container.get("state") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended:
        return _of_death(ended)
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE:
        return Ending(None, FailureClass.IMAGE, _line(f"{reason}: {message}"))
    if reason == "RunContainerError" or (reason in _CONFIG and _lacks_program(message)):
        return Ending(None, _of_start(message), _line(f"{reason}: {message}"))
    if reason in _CONFIG:
        return Trouble(_line(f"{reason}: {message}"))
    if reason == "CrashLoopBackOff" or container.get("restartCount", 0) > 0:
        return Ending(None, None, _line(message or "its container was restarted"))
    return None


def _of_death(ended: Object) -> Ending:
    code, reason = ended.get("exitCode"), ended.get("reason", "")
    message = _line(ended.get("message") or "")
    if reason == "OOMKilled":
        said = "the kernel killed its container, which used more memory than its limit"
        return Ending(code, FailureClass.HOST_MEMORY, said)
    if reason in ("StartError", "ContainerCannotRun"):
        return Ending(code, _of_start(message), f"{reason}: {message}")
    if code == _KILLED and not message:
        message = "its container was killed, by its liveness probe or on its node"
    return Ending(code, None, message)


def _of_start(message: str) -> FailureClass:
    lacks = _lacks_program(message)
    return FailureClass.NOT_INSTALLED if lacks else FailureClass.DEVICE


def _lacks_program(message: str) -> bool:
    return any(words in message for words in _NO_PROGRAM)


def _of_service(service: Object) -> Ending | Trouble | None:
    status = (service.get("status") or {}).get("modelStatus") or {}
    failure = status.get("lastFailureInfo") or {}
    said = ": ".join(filter(None, (failure.get("reason"), failure.get("message"))))
    match status.get("transitionStatus"):
        case "InvalidSpec":
            return Trouble(f"OME: {said or 'the InferenceService is invalid'}")
        case "BlockedByFailedLoad" if failure.get("exitCode") is not None:
            return Ending(failure["exitCode"], None, _line(said))
        case "BlockedByFailedLoad":
            return Trouble(f"OME: {said or 'the model could not be loaded'}")
    return None


_FATAL = frozenset(
    (
        *("ModelReconcileError", "RuntimeValidationError", "RuntimeFetchError"),
        *("RuntimeSelectionError", "MergeSpecsError", "DeploymentModeError"),
        *("AcceleratorClassError", "InternalError", "UpdateFailed"),
    )
)
"""Reasons of OME's events that stop it before there is anything with a condition."""

_PASSING = frozenset(
    (
        "FailedCreate",
        "FailedMount",
        "FailedAttachVolume",
        "FailedCreatePodSandBox",
        "FailedScheduling",
    )
)
"""Reasons of Kubernetes' events that may end: a quota that others fill, a volume on its way."""

_TRIES_AGAIN = ("the object has been modified", "AlreadyExists", "already exists")


def _of_events(sight: Sight) -> Trouble | None:
    passing = None
    for event in sorted(sight.events, key=_when):
        reason, message = event.get("reason", ""), event.get("message", "")
        if any(words in message for words in _TRIES_AGAIN):
            continue
        if reason in _FATAL:
            return Trouble(f"OME: {reason}: {_line(message)}")
        if reason in _PASSING:
            passing = Trouble(f"{reason}: {_line(message)}", at_once=False)
    # What was said before the engine came up is over.
    return None if any(_runs(pod) for pod in sight.pods) else passing


def _of_silence(sight: Sight) -> Trouble | None:
    assert sight.service is not None
    if sight.service.get("status") or sight.pods:
        return None
    return Trouble("OME has not taken it up: is its controller running?", at_once=False)


def _runs(pod: Object) -> bool:
    return any(
        "running" in (each.get("state") or {}) for each in _containers(pod.get("status") or {})
    )


def about(events: Iterable[Object], service: Object) -> list[Object]:
    """Those about an InferenceService and what OME made for it.

    Events outlive what they are about: the uid tells this service from one of the same name.
    """
    name, uid = service["metadata"]["name"], service["metadata"]["uid"]

    def fits(involved: Object) -> bool:
        if involved.get("kind") == "InferenceService":
            return bool(involved.get("name") == name and involved.get("uid") == uid)
        return str(involved.get("name", "")).startswith(f"{name}-engine")

    return [each for each in events if fits(each.get("involvedObject") or {})]


def is_ready(service: Object, *, engine_alone: bool = False) -> bool:
    """Whether OME calls it ready; with `engine_alone`, whatever it says of the way there."""
    status = service.get("status") or {}
    names = ("Ready", "EngineReady") if engine_alone else ("Ready",)
    return any(_condition(status, name).get("status") == "True" for name in names)


def url_of(service: Object, port: int) -> str | None:
    """Its URL for those in the cluster, without a path; older OME leaves the port out.

    Args:
        port: of its Service, which is that of its container.
    """
    said = str((service.get("status") or {}).get("url") or "").rstrip("/")
    parts = urlsplit(said)
    if not parts.netloc:
        return None
    if parts.port is None and (parts.hostname or "").endswith(".svc.cluster.local"):
        return f"{parts.scheme}://{parts.netloc}:{port}"
    return f"{parts.scheme}://{parts.netloc}"


def container_port(pods: Sequence[Object], default: int) -> int:
    """The port that the engine's container declares."""
    for pod in pods:
        for container in pod["spec"]["containers"]:
            if container["name"] == CONTAINER and container.get("ports"):
                return int(container["ports"][0]["containerPort"])
    return default


def nodes_of(pods: Sequence[Object]) -> list[str]:
    """The nodes that pods were given to, each once."""
    return sorted({node for pod in pods if (node := pod["spec"].get("nodeName"))})


def restarted(pod: Object) -> bool:
    """Whether its engine is not the first: what the first printed is the `previous` log."""
    status = pod.get("status") or {}
    return any(each.get("restartCount", 0) > 0 for each in _containers(status))


def _condition(status: Object, kind: str) -> Mapping[str, str]:
    conditions: Sequence[Mapping[str, str]] = status.get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), {})


def _label_hint(said: str) -> str:
    if "node affinity/selector" in said:
        return " (OME's model agent labels the nodes that have the model: is it ready on any?)"
    return ""


def _when(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _line(text: str) -> str:
    """One line of reasonable length."""
    return " ".join(text.split()).rstrip(": ")[:400]
