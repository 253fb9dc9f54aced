"""Which Kubernetes cluster is meant: the kubeconfig's (KUBECONFIG), else the one this is in."""

from __future__ import annotations

import os
from typing import Any

from autotuner.errors import InfrastructureError


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
