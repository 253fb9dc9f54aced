"""The door to Kubernetes: which cluster is meant, what it is asked, and how its errors read.

Answers are plain JSON values. The client library is imported when a cluster is opened: that alone
costs a third of a second, and most commands need none.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

from autotuner.errors import InfrastructureError

TIMEOUT = (5, 30)
"""Seconds to connect and to answer. A call without them may hang for ever."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two looks: some things take a moment, others minutes."""

Object = dict[str, Any]
T = TypeVar("T")


class Missing(InfrastructureError):
    """The API server has no such object."""


class Denied(InfrastructureError):
    """It does not let us."""


class Changed(InfrastructureError):
    """The object is no longer the one that was meant, or there is one of that name already."""


class NotNow(InfrastructureError):
    """The server finds the request impossible at present (400)."""


class Kind(NamedTuple):
    """A kind of object: `POD`, or one that is not Kubernetes' own."""

    name: str
    group: str
    version: str
    plural: str


POD = Kind("Pod", "", "v1", "pods")


class Kube:
    """An API server.

    Everything raises InfrastructureError where it cannot be asked or refuses, and Missing where
    there is no such object.
    """

    def __init__(self, context: str = "", *, patience: float = 0.0) -> None:
        """Open a cluster, see `api_client`.

        Args:
            patience: seconds that the server may be away: so long it is asked again.
        """
        self._api = api_client(context)
        from kubernetes import client

        # The library has types in its newer versions only.
        self._library: Any = client
        self._objects: Any = client.CustomObjectsApi(self._api)
        self._core: Any = client.CoreV1Api(self._api)
        self._patience = patience
        self._ahead: timedelta | None = None

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

    def version(self) -> str:
        call = self._library.VersionApi(self._api).get_code
        return str(self._asked("the API server's version", call).json["gitVersion"])

    def now(self) -> datetime:
        """The time on the API server's clock, which is everybody's: clocks of machines differ."""
        if self._ahead is None:
            before = datetime.now(UTC)
            call = self._library.VersionApi(self._api).get_code
            said = self._asked("the API server's clock", call).date
            self._ahead = parsedate_to_datetime(said) - before if said else timedelta(0)
        return datetime.now(UTC) + self._ahead

    def create(self, kind: Kind, namespace: str, item: Mapping[str, Any]) -> Object:
        """A new object; a field that its kind does not know is an error, not dropped. Raises
        Changed where there is one of its name."""
        what = f"creating {kind.name} {item['metadata']['name']}"
        strict: Mapping[str, Any] = {"field_validation": "Strict"}
        if kind is POD:
            call = self._core.create_namespaced_pod
            return self._asked(what, call, namespace, dict(item), **strict).json
        call = self._objects.create_namespaced_custom_object
        return self._asked(what, call, *_place(kind, namespace), dict(item), **strict).json

    def find(self, kind: Kind, namespace: str, name: str) -> Object:
        call = self._objects.get_namespaced_custom_object
        return self._asked(f"{kind.name} {name}", call, *_place(kind, namespace), name).json

    def labelled(self, kind: Kind, namespace: str, labels: str) -> list[Object]:
        call, place = self._objects.list_namespaced_custom_object, _place(kind, namespace)
        answer = self._asked(f"the {kind.name}s", call, *place, label_selector=labels)
        return list(answer.json["items"])

    def annotate(
        self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str]
    ) -> None:
        call, place = self._objects.patch_namespaced_custom_object, _place(kind, namespace)
        body = {"metadata": {"annotations": dict(annotations)}}
        self._asked(f"renewing {kind.name} {name}", call, *place, name, body)

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        only: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> None:
        """Delete an object. Raises Changed.

        Args:
            only: what must be so of the one that is there, such as its ``uid``.
            patience: in seconds, in place of that for all.
        """
        body: Object = {"propagationPolicy": "Background"}
        body |= {"preconditions": dict(only)} if only else {}
        call, place = (
            (self._core.delete_namespaced_pod, (name, namespace))
            if kind is POD
            else (self._objects.delete_namespaced_custom_object, (*_place(kind, namespace), name))
        )
        self._asked(f"deleting {kind.name} {name}", call, *place, body=body, patience=patience)

    def cluster_wide(self, kind: Kind, name: str) -> Object:
        """A cluster's own object."""
        call = self._objects.get_cluster_custom_object
        _, *place = kind
        return self._asked(f"{kind.name} {name}", call, *place, name).json

    def definition(self, name: str) -> Object:
        """A CustomResourceDefinition."""
        api = self._library.ApiextensionsV1Api(self._api)
        call = api.read_custom_resource_definition
        return self._asked(f"the definition of {name}", call, name).json

    def pods(self, namespace: str, *, labels: str = "", name: str = "") -> list[Object]:
        selector: dict[str, Any] = {"label_selector": labels} if labels else {}
        selector |= {"field_selector": f"metadata.name={name}"} if name else {}
        answer = self._asked("the pods", self._core.list_namespaced_pod, namespace, **selector)
        return list(answer.json["items"])

    def warnings(self, namespace: str) -> list[Object]:
        """All warning events of a namespace that are still remembered, an hour's or so."""
        call = self._core.list_namespaced_event
        answer = self._asked("the events", call, namespace, field_selector="type=Warning")
        return list(answer.json["items"])

    def log(self, namespace: str, pod: str, container: str, **more: Any) -> str:
        """What a container has printed; empty where it has not begun.

        Args:
            more: ``previous`` (of the one before this), ``tail_lines`` (the last alone).
        """
        call = self._core.read_namespaced_pod_log
        try:
            answer = self._asked(
                f"the log of {pod}", call, pod, namespace, container=container, **more
            )
        except (Missing, NotNow):
            return ""
        return answer.content.decode(errors="replace")

    def may(self, group: str, resource: str, verb: str, *, namespace: str = "") -> bool:
        """Whether this is ours to do, without a namespace in the whole cluster. `resource` may
        name a subresource, as in ``pods/log``."""
        plural, _, sub = resource.partition("/")
        attributes = {"group": group, "resource": plural, "verb": verb}
        attributes |= {"subresource": sub} if sub else {}
        attributes |= {"namespace": namespace} if namespace else {}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        api = self._library.AuthorizationV1Api(self._api)
        answer = self._asked("our rights", api.create_self_subject_access_review, review)
        return bool(answer.json["status"]["allowed"])

    def connect(self, namespace: str, pod: str, port: int) -> tuple[Any, Callable[[], None]]:
        """A socket to a port of a pod, through the API server, and what ends it.

        Each has a client of its own: the library changes the one it is asked through.
        """
        from kubernetes.stream import portforward

        core = self._library.CoreV1Api(self._library.ApiClient(self._api.configuration))
        call = core.connect_get_namespaced_pod_portforward
        forward: Any = asked(
            f"a port-forward to {pod}",
            lambda: portforward(call, pod, namespace, ports=str(port)),
            patience=self._patience,
        )
        return forward.socket(port), lambda: _clear(forward.websocket)

    def _asked(
        self,
        what: str,
        call: Callable[..., Any],
        *arguments: Any,
        patience: float | None = None,
        **more: Any,
    ) -> _Answer:
        def answered() -> _Answer:
            # As it came: to a deletion the library expects a pod, and servers may say `Success`.
            answer = call(*arguments, _preload_content=False, _request_timeout=TIMEOUT, **more)
            # Read whole, or its connection is not given back.
            return _Answer(bytes(answer.data), answer.headers.get("Date"))

        return asked(what, answered, patience=self._patience if patience is None else patience)


def _place(kind: Kind, namespace: str) -> tuple[str, ...]:
    """As the library wants it."""
    return kind.group, kind.version, namespace, kind.plural


class _Answer(NamedTuple):
    content: bytes
    date: str | None

    @property
    def json(self) -> Object:
        found: Object = json.loads(self.content)
        return found


def asked(what: str, call: Callable[[], T], *, patience: float = 0.0) -> T:
    """The answer to a call, asked again while nobody answers; the library's errors as ours."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    for seconds in looks():
        try:
            return call()
        except ApiException as error:
            passing = error.status == 429 or (error.status or 0) >= 500
            if not passing or seconds >= patience:
                raise _fault(what, error) from error
        except (HTTPError, OSError) as error:
            if seconds >= patience:
                raise InfrastructureError(f"Kubernetes does not answer, {what}: {error}") from error
    raise AssertionError("looks do not end")


def looks() -> Iterator[float]:
    """Seconds since the first look, each time that it is time for one."""
    began, pause = time.monotonic(), FIRST_PAUSE
    while True:
        yield time.monotonic() - began
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _fault(what: str, error: Any) -> InfrastructureError:
    """An ApiException as ours."""
    said = f"Kubernetes, {what}: {_message(error)}"
    match error.status:
        case 404:
            return Missing(said)
        case 409:
            return Changed(said)
        case 400:
            return NotNow(said)
        case 401:
            return Denied(f"{said}; the kubeconfig's credentials are not accepted")
        case 403 if "denied the request" not in said:
            return Denied(f"{said}; rbac.yaml of this study's plan has the rights")
    return InfrastructureError(said)


def _message(error: Any) -> str:
    """The server's own words, in one line."""
    with contextlib.suppress(TypeError, ValueError, KeyError):
        return " ".join(str(json.loads(error.body)["message"]).split())
    return " ".join(str(error.reason or error).split()) or f"HTTP {error.status}"


def _clear(websocket: Any) -> None:
    """Close the socket of a WebSocket that is done with: the library leaves it open where the
    server was the first to say goodbye, but may still be about to close it itself."""
    for _ in range(10):
        if websocket.sock is None:
            return
        time.sleep(0.1)
    websocket.shutdown()


def inside() -> bool:
    """Whether this process runs in a pod, and so reaches the addresses of Services."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def api_client(context: str = "") -> Any:
    """A client of its API server; none of the library's types, which newer versions only have.

    Args:
        context: of the kubeconfig; its current one by default.

    Raises:
        InfrastructureError: no cluster is configured, or the library is not installed.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise InfrastructureError(
            f"the package {error.name!r} is not installed: pip install 'autotuner[kubernetes]'"
        ) from error
    import yaml

    load: Any = config
    # The library reads the variable once, when it is imported.
    file = os.environ.get("KUBECONFIG")
    try:
        if inside() and not (context or file):
            configuration = client.Configuration()
            load.load_incluster_config(configuration)
            return client.ApiClient(configuration)
        return load.new_client_from_config(file, context=context or None)
    except (config.ConfigException, OSError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())  # YAML's are of several lines
        raise InfrastructureError(
            f"no Kubernetes cluster is configured: {said}; set KUBECONFIG (and "
            "AUTOTUNER_KUBE_CONTEXT), or run in a pod with a ServiceAccount"
        ) from error
