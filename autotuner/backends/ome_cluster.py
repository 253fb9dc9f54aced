"""What the OME backend asks of Kubernetes: InferenceServices, and what is made for them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from autotuner.backends.ome_forward import Far
from autotuner.backends.ome_manifest import GROUP, SERVICE_OF, SERVICES, VERSION
from autotuner.kube import Kind, Kube, Object, inside

_SERVICES = Kind("InferenceService", GROUP, VERSION, SERVICES)


class Cluster:
    """One namespace of a cluster, through an API server, see `Kube`.

    Everything raises InfrastructureError where the server cannot be asked or refuses.
    """

    def __init__(self, namespace: str, *, context: str = "") -> None:
        """Open a cluster: that of the kubeconfig (KUBECONFIG), else the one this runs in.

        Args:
            context: of the kubeconfig; its current one by default.
        """
        self._kube = Kube(context)
        self.namespace = namespace

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._kube.server

    @property
    def inside(self) -> bool:
        """Whether this process runs in a pod, and so reaches the addresses of Services."""
        return inside()

    def version(self) -> str:
        return self._kube.version()

    def now(self) -> datetime:
        """The time on the API server's clock, which is everybody's: clocks of machines differ."""
        return self._kube.now()

    def create(self, manifest: Mapping[str, Any]) -> Object:
        """A new InferenceService; a field that OME does not know is an error, not dropped."""
        return self._kube.create(_SERVICES, self.namespace, manifest)

    def service(self, name: str) -> Object:
        """Raises Missing."""
        return self._kube.find(_SERVICES, self.namespace, name)

    def services(self, labels: str) -> list[Object]:
        return self._kube.labelled(_SERVICES, self.namespace, labels)

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        """Raises Missing."""
        self._kube.annotate(_SERVICES, self.namespace, name, annotations)

    def delete(self, service: Mapping[str, Any], *, unchanged: bool = False) -> None:
        """Delete this very InferenceService, not another of its name. Raises Missing, Changed.

        Args:
            unchanged: only if nobody has changed it since it was read.
        """
        fields = ("uid", "resourceVersion") if unchanged else ("uid",)
        metadata = service["metadata"]
        only = {field: metadata[field] for field in fields}
        self._kube.delete(_SERVICES, self.namespace, metadata["name"], only=only)

    def pods(self, service: str) -> list[Object]:
        """All pods of an InferenceService."""
        return self._kube.pods(self.namespace, labels=f"{SERVICE_OF}={service}")

    def warnings(self) -> list[Object]:
        """All warning events of the namespace that are still remembered, an hour's or so."""
        return self._kube.warnings(self.namespace)

    def log(self, pod: str, container: str, *, previous: bool = False) -> str:
        """What a container has printed; empty where it has not begun."""
        return self._kube.log(self.namespace, pod, container, previous=previous)

    def cluster_wide(self, plural: str, name: str) -> Object:
        """A cluster's own object of OME. Raises Missing."""
        return self._kube.cluster_wide(Kind(f"{plural}.{GROUP}", GROUP, VERSION, plural), name)

    def definition(self, name: str) -> Object:
        """A CustomResourceDefinition. Raises Missing."""
        return self._kube.definition(name)

    def may(self, group: str, resource: str, verb: str, *, namespaced: bool = True) -> bool:
        """Whether this is ours to do. `resource` may name a subresource, as in ``pods/log``."""
        return self._kube.may(group, resource, verb, namespace=self.namespace if namespaced else "")

    def connect(self, pod: str, port: int) -> Far:
        """A connection to a port of a pod, through the API server."""
        return Far(*self._kube.connect(self.namespace, pod, port))
