"""The door to Kubernetes: what the OME backend asks an API server, and how its errors read.

Answers are plain JSON values. The client library is imported when a cluster is opened: that alone
costs a third of a second, and most commands need none.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from autotuner.backends.ome_forward import Far
from autotuner.backends.ome_manifest import GROUP, SERVICE_OF, SERVICES, VERSION
from autotuner.errors import InfrastructureError
from autotuner.kubeconfig import api_client, inside

_TIMEOUT = (5, 30)
"""Seconds to connect and to answer. A call without them may hang for ever."""

Object = dict[str, Any]


class Missing(InfrastructureError):
    """The API server has no such object."""


class Denied(InfrastructureError):
    """It does not let us."""


class Changed(InfrastructureError):
    """The object is no longer the one that was meant."""


class Cluster:
    """One namespace of a cluster, through an API server.

    Everything raises InfrastructureError where the server cannot be asked or refuses.
    """

    def __init__(self, namespace: str, *, context: str = "") -> None:
        """Open a cluster: that of the kubeconfig (KUBECONFIG), else the one this runs in.

        Args:
            context: of the kubeconfig; its current one by default.
        """
        self._api = api_client(context)
        from kubernetes import client

        self.namespace = namespace
        # The library has types in its newer versions only.
        self._library: Any = client
        self._objects: Any = client.CustomObjectsApi(self._api)
        self._core: Any = client.CoreV1Api(self._api)
        self._services = (GROUP, VERSION, namespace, SERVICES)
        self._ahead: timedelta | None = None

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

    @property
    def inside(self) -> bool:
        """Whether this process runs in a pod, and so reaches the addresses of Services."""
        return inside()

    def version(self) -> str:
        with _asked("the API server's version"):
            answer = self._library.VersionApi(self._api).get_code(
                _preload_content=False, _request_timeout=_TIMEOUT
            )
            return str(_json(answer)["gitVersion"])

    def now(self) -> datetime:
        """The time on the API server's clock, which is everybody's: clocks of machines differ."""
        if self._ahead is None:
            before = datetime.now(UTC)
            with _asked("the API server's clock"):
                answer = self._library.VersionApi(self._api).get_code(
                    _preload_content=False, _request_timeout=_TIMEOUT
                )
                answer.read()  # or its connection is not given back
            said = answer.headers.get("Date")
            self._ahead = parsedate_to_datetime(said) - before if said else timedelta(0)
        return datetime.now(UTC) + self._ahead

    def create(self, manifest: Mapping[str, Any]) -> Object:
        """A new InferenceService; a field that OME does not know is an error, not dropped."""
        with _asked("creating an InferenceService"):
            made: Object = self._objects.create_namespaced_custom_object(
                *self._services,
                dict(manifest),
                field_validation="Strict",
                _request_timeout=_TIMEOUT,
            )
            return made

    def service(self, name: str) -> Object:
        """Raises Missing."""
        with _asked(f"InferenceService {name}"):
            found: Object = self._objects.get_namespaced_custom_object(
                *self._services, name, _request_timeout=_TIMEOUT
            )
            return found

    def services(self, labels: str) -> list[Object]:
        with _asked("the InferenceServices"):
            found = self._objects.list_namespaced_custom_object(
                *self._services, label_selector=labels, _request_timeout=_TIMEOUT
            )
            return list(found["items"])

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        """Raises Missing."""
        with _asked(f"renewing InferenceService {name}"):
            self._objects.patch_namespaced_custom_object(
                *self._services,
                name,
                {"metadata": {"annotations": dict(annotations)}},
                _request_timeout=_TIMEOUT,
            )

    def delete(self, service: Mapping[str, Any], *, unchanged: bool = False) -> None:
        """Delete this very InferenceService, not another of its name. Raises Missing, Changed.

        Args:
            unchanged: only if nobody has changed it since it was read.
        """
        metadata = service["metadata"]
        wanted = {"uid": metadata["uid"]}
        if unchanged:
            wanted["resourceVersion"] = metadata["resourceVersion"]
        with _asked(f"deleting InferenceService {metadata['name']}"):
            self._objects.delete_namespaced_custom_object(
                *self._services,
                metadata["name"],
                body={"preconditions": wanted, "propagationPolicy": "Background"},
                _request_timeout=_TIMEOUT,
            )

    def pods(self, service: str) -> list[Object]:
        """All pods of an InferenceService."""
        with _asked("the pods"):
            answer = self._core.list_namespaced_pod(
                self.namespace,
                label_selector=f"{SERVICE_OF}={service}",
                _preload_content=False,
                _request_timeout=_TIMEOUT,
            )
            return list(_json(answer)["items"])

    def warnings(self) -> list[Object]:
        """All warning events of the namespace that are still remembered, an hour's or so."""
        with _asked("the events"):
            answer = self._core.list_namespaced_event(
                self.namespace,
                field_selector="type=Warning",
                _preload_content=False,
                _request_timeout=_TIMEOUT,
            )
            return list(_json(answer)["items"])

    def log(self, pod: str, container: str, *, previous: bool = False) -> str:
        """What a container has printed; empty where it has not begun."""
        try:
            with _asked(f"the log of {pod}"):
                answer = self._core.read_namespaced_pod_log(
                    pod,
                    self.namespace,
                    container=container,
                    previous=previous,
                    _preload_content=False,
                    _request_timeout=_TIMEOUT,
                )
                return bytes(answer.data).decode(errors="replace")
        except (Missing, _Bad):
            return ""

    def cluster_wide(self, plural: str, name: str) -> Object:
        """A cluster's own object of OME. Raises Missing."""
        with _asked(f"{plural}.{GROUP} {name}"):
            found: Object = self._objects.get_cluster_custom_object(
                GROUP, VERSION, plural, name, _request_timeout=_TIMEOUT
            )
            return found

    def definition(self, name: str) -> Object:
        """A CustomResourceDefinition. Raises Missing."""
        with _asked(f"the definition of {name}"):
            answer = self._library.ApiextensionsV1Api(self._api).read_custom_resource_definition(
                name, _preload_content=False, _request_timeout=_TIMEOUT
            )
            return _json(answer)

    def may(self, group: str, resource: str, verb: str, *, namespaced: bool = True) -> bool:
        """Whether this is ours to do. `resource` may name a subresource, as in ``pods/log``."""
        plural, _, sub = resource.partition("/")
        attributes = {"group": group, "resource": plural, "verb": verb}
        attributes |= {"subresource": sub} if sub else {}
        attributes |= {"namespace": self.namespace} if namespaced else {}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        with _asked("our rights"):
            answer = self._library.AuthorizationV1Api(self._api).create_self_subject_access_review(
                review, _preload_content=False, _request_timeout=_TIMEOUT
            )
            return bool(_json(answer)["status"]["allowed"])

    def connect(self, pod: str, port: int) -> Far:
        """A connection to a port of a pod, through the API server.

        Each has a client of its own: the library changes the one it is asked through.
        """
        from kubernetes.stream import portforward

        core = self._library.CoreV1Api(self._library.ApiClient(self._api.configuration))
        with _asked(f"a port-forward to {pod}"):
            forward: Any = portforward(
                core.connect_get_namespaced_pod_portforward,
                pod,
                self.namespace,
                ports=str(port),
            )
            return Far(forward.socket(port), lambda: _clear(forward.websocket))


class _Bad(InfrastructureError):
    """The server finds the request impossible at present (400)."""


@contextlib.contextmanager
def _asked(what: str) -> Iterator[None]:
    """The library's errors as ours."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        said = f"Kubernetes, {what}: {_message(error)}"
        match error.status:
            case 404:
                raise Missing(said) from error
            case 409:
                raise Changed(said) from error
            case 400:
                raise _Bad(said) from error
            case 401:
                raise Denied(f"{said}; the kubeconfig's credentials are not accepted") from error
            case 403 if "denied the request" not in said:
                raise Denied(f"{said}; rbac.yaml of this study's plan has the rights") from error
        raise InfrastructureError(said) from error
    except (HTTPError, OSError) as error:
        raise InfrastructureError(f"Kubernetes does not answer, {what}: {error}") from error


def _clear(websocket: Any) -> None:
    """Close the socket of a WebSocket that is done with: the library leaves it open where the
    server was the first to say goodbye, but may still be about to close it itself."""
    for _ in range(10):
        if websocket.sock is None:
            return
        time.sleep(0.1)
    websocket.shutdown()


def _message(error: Any) -> str:
    """The server's own words."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return " ".join(str(error.reason or error).split()) or f"HTTP {error.status}"


def _json(answer: Any) -> Object:
    content: Object = json.loads(answer.data)
    return content
