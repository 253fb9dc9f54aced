"""What an OME study asks Kubernetes for, as values: options, names, the InferenceService, rights.

An InferenceService holds only fields that every generation of OME's v1beta1 has, see `docs/ome.md`.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from autotuner.errors import ConfigError
from autotuner.serving import LaunchSpec, Slot

GROUP, VERSION, SERVICES = "ome.io", "v1beta1", "inferenceservices"
CONTAINER = "ome-container"
"""OME's status looks at the container of this name only, and merges it with the runtime's."""

SERVICE_OF = "ome.io/inferenceservice"
"""OME's label on everything that belongs to an InferenceService."""

MANAGED = "autotuner.io/managed"
STUDY, TRIAL, OWNER = "autotuner.io/study", "autotuner.io/trial", "autotuner.io/owner"
RENEWED, LEASE = "autotuner.io/renewed-at", "autotuner.io/lease-seconds"
"""Annotations: when the owner last said that it lives, and for how long that counts."""

_OURS = "autotuner.io/"
_PINNED = {
    "ome.io/deploymentMode": "RawDeployment",
    # No autoscaler at all; OME would make one that scales from 1 to 3.
    "ome.io/autoscalerClass": "external",
}
_NAME = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
_STEM = 44
"""Longest name in a plan. `start` adds 6, and OME ``-engine``; a label takes 63."""


LEAST_LEASE_SECONDS = 8
"""What the owner's renewing can hold. It is due after a quarter of the lease, done with the next
look at the server, which comes up to 4 s later while one that starts is asked twice over HTTP, and
noted in whole seconds: 2 + 4 + 1."""


class OMEOptions(BaseModel):
    """The block `backend.ome` of a study."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    namespace: str | None = Field(
        default=None, pattern=_NAME, description="AUTOTUNER_OME_NAMESPACE by default."
    )
    model: str = Field(default="", description="Name of the ClusterBaseModel; required.")
    runtime: str = Field(default="", description="Name of the ClusterServingRuntime; required.")
    arguments: Literal["append", "replace"] | None = Field(
        default=None,
        description="`append` the study's flags to a runtime whose launch line is all in its "
        "`command` (the default for SGLang), or `replace` the runtime's `args` by the whole list "
        "(the default for others).",
    )
    reach: Literal["auto", "url", "port-forward"] = Field(
        default="auto",
        description="How the load gets to the server: by the URL in its status, or by a "
        "port-forward through the API server; `auto`: the URL inside a cluster.",
    )
    port: int = Field(default=8080, ge=1, le=65535, description="Port the runtime declares.")
    gpu: str | None = Field(
        default="nvidia.com/gpu", description="Kubernetes' resource of a GPU; `null`: ask for none."
    )
    unschedulable_seconds: float = Field(
        default=120.0, ge=0, description="What may pass by itself, such as no free GPU, may last."
    )
    lease_seconds: int = Field(
        default=60,
        ge=LEAST_LEASE_SECONDS,
        description="A server is removed so long after its owner fell silent.",
    )
    labels: dict[str, str] = Field(default={}, description="More labels.")
    annotations: dict[str, str] = Field(default={}, description="More annotations.")
    node_selector: dict[str, str] = Field(default={}, description="Labels of fitting nodes.")
    tolerations: list[dict[str, Any]] = Field(default=[], description="As in a pod.")

    @field_validator("labels", "annotations")
    @classmethod
    def _not_ours(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if name.startswith(_OURS) or name in _PINNED:
                raise ValueError(f"{name!r} is the backend's own")
        return given

    def require(self) -> None:
        """Raise ConfigError where a study cannot do without what is not said."""
        for name, kind in (("model", "ClusterBaseModel"), ("runtime", "ClusterServingRuntime")):
            if not getattr(self, name):
                raise ConfigError(
                    f"the name of a {kind} is missing",
                    where=f"backend.ome.{name}",
                    hint=f"`kubectl get {kind.lower()}s` lists them",
                )


def service_name(study: str, trial: int) -> str:
    """The name in a plan: valid for OME and DNS, different for different studies and trials."""
    end = f"-{trial:04d}"
    stem = f"at-{study}"
    if len(stem) + len(end) > _STEM:
        digest = hashlib.sha256(study.encode()).hexdigest()[:6]
        stem = f"{stem[: _STEM - len(end) - 7].rstrip('-')}-{digest}"
    return stem + end


def labels(study: str, trial: int) -> dict[str, str]:
    """Found by these alone. Values are texts: Kubernetes takes no numbers there."""
    return {MANAGED: "true", STUDY: study, TRIAL: f"{trial:04d}"}


def selector(study: str | None = None) -> str:
    """A label selector for what is ours, of one study or of all."""
    return f"{MANAGED}=true" + (f",{STUDY}={study}" if study else "")


def owner_digest(owner: str) -> str:
    """An owner as a label may say it; the annotation of the same name has it in full."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def inference_service(
    launch: LaunchSpec, slot: Slot, options: OMEOptions, namespace: str
) -> dict[str, Any]:
    """The InferenceService of one trial.

    Image and command stay the runtime's: only it knows an image in which the command works.
    """
    names = labels(slot.study, slot.trial)
    runner: dict[str, Any] = {
        "name": CONTAINER,
        "args": list(arguments(launch, options)),
        "env": _environment(launch),
    }
    if options.gpu:
        gpus = {options.gpu: str(launch.gpus)}
        runner["resources"] = {"limits": gpus, "requests": dict(gpus)}
    engine: dict[str, Any] = {
        # Equal numbers: no scaling. Recreate: a change in place would need twice the GPUs.
        "minReplicas": 1,
        "maxReplicas": 1,
        "deploymentStrategy": {"type": "Recreate"},
        "runner": runner,
    }
    if options.node_selector:
        engine["nodeSelector"] = dict(options.node_selector)
    if options.tolerations:
        engine["tolerations"] = [dict(each) for each in options.tolerations]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": {
            "name": service_name(slot.study, slot.trial),
            "namespace": namespace,
            "labels": {**options.labels, **names},
            "annotations": {**options.annotations, **_PINNED},
        },
        "spec": {
            "model": {"name": options.model},
            "runtime": {"name": options.runtime},
            "engine": engine,
        },
    }


def unmanaged(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The same for somebody to keep: no sweep finds it."""
    metadata = manifest["metadata"]
    kept = {k: v for k, v in metadata["labels"].items() if k not in (MANAGED, STUDY, TRIAL)}
    return {**manifest, "metadata": {**metadata, "labels": kept}}


def appends(launch: LaunchSpec, options: OMEOptions) -> bool:
    """Whether the runtime's launch line stays and the study's flags come after it."""
    return (options.arguments or ("append" if _speaks(launch) == "sglang" else "replace")) == (
        "append"
    )


def arguments(launch: LaunchSpec, options: OMEOptions) -> Sequence[str]:
    """The runner's `args`. OME puts them after the runtime's command, in place of its args.

    Where they are appended the last of two equal flags wins, in SGLang's parser as in vLLM's.
    """
    if not appends(launch, options):
        return launch.arguments
    return ("--served-model-name", launch.served_name, *launch.flags)


def template_problem(launch: LaunchSpec, options: OMEOptions) -> str | None:
    """Why OME could not read these arguments, or None: it runs them through a template engine."""
    for each in arguments(launch, options):
        if "{{" in each:
            return f"OME reads '{{{{' in the argument {each!r} as the beginning of a template"
    return None


def _environment(launch: LaunchSpec) -> list[dict[str, str]]:
    # Which GPUs a container sees is the device plug-in's affair; a number of ours would hide them.
    own = {k: v for k, v in launch.environment.items() if k != "CUDA_VISIBLE_DEVICES"}
    if spoken := _speaks(launch):
        # OME's BenchmarkJob passes it to genai-bench as its backend, and without it asks for
        # one that does not keep servers generating.
        own.setdefault("PROTOCOL_VERSION", spoken)
    return [{"name": name, "value": value} for name, value in sorted(own.items())]


def _speaks(launch: LaunchSpec) -> str | None:
    """The engine's dialect, as far as its program tells."""
    line = " ".join((*launch.command, launch.image))
    return next((word for word in ("sglang", "vllm") if re.search(rf"\b{word}\b", line)), None)


RIGHTS: Sequence[tuple[str, str, tuple[str, ...]]] = (
    (GROUP, SERVICES, ("create", "get", "list", "patch", "delete")),
    ("", "pods", ("get", "list")),
    ("", "events", ("list",)),
    ("", "pods/log", ("get",)),
)
"""API group, resource and verbs that a study needs in its namespace."""

FORWARD_RIGHTS = (("", "pods/portforward", ("get", "create")),)
"""Beside them, from outside the cluster. The client asks by GET; newer servers want both."""

BENCHMARK_JOB_RIGHTS: Sequence[tuple[str, str, tuple[str, ...]]] = (
    (GROUP, "benchmarkjobs", ("create", "get", "list", "delete")),
    ("", "pods", ("create", "delete")),
)
"""Beside them, for a load run as a BenchmarkJob whose results a helper pod reads."""

CLUSTER_RIGHTS: Sequence[tuple[str, str, tuple[str, ...]]] = (
    (GROUP, "clusterbasemodels", ("get", "list")),
    (GROUP, "clusterservingruntimes", ("get", "list")),
    ("apiextensions.k8s.io", "customresourcedefinitions", ("get",)),
)
"""Of the whole cluster, to read only; `autotuner doctor` and a study's first trial look there."""


def rbac(namespace: str, *, benchmark_jobs: bool = False) -> list[dict[str, Any]]:
    """A ServiceAccount with the rights of a study, to be applied by whoever may grant them."""
    rights = (*RIGHTS, *FORWARD_RIGHTS, *(BENCHMARK_JOB_RIGHTS if benchmark_jobs else ()))
    account = {"kind": "ServiceAccount", "name": "autotuner", "namespace": namespace}
    reader = f"autotuner-reader-{namespace}"
    here = {"name": "autotuner", "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": dict(here)},
        _granted("Role", here, rights),
        _bound("Role", here, account),
        _granted("ClusterRole", {"name": reader}, CLUSTER_RIGHTS),
        _bound("ClusterRole", {"name": reader}, account),
    ]


def _granted(
    kind: str, metadata: Mapping[str, str], rights: Sequence[tuple[str, str, tuple[str, ...]]]
) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": dict(metadata),
        "rules": [
            {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
            for group, resource, verbs in rights
        ],
    }


def _bound(kind: str, metadata: Mapping[str, str], account: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": dict(metadata),
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": kind,
            "name": metadata["name"],
        },
        "subjects": [dict(account)],
    }


def as_yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    """Documents as one file that `kubectl apply` takes."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump_all([_quoted(each) for each in documents], out)
    return out.getvalue()


_OTHERWISE = re.compile(r"y|n|yes|no|on|off|[-+]?\d+(:\d+)+(\.\d*)?", re.IGNORECASE)
"""Texts that kubectl, which reads YAML 1.1, would take for truth values and numbers."""


def _quoted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_quoted(name): _quoted(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(each) for each in value]
    if isinstance(value, str) and _OTHERWISE.fullmatch(value):
        return DoubleQuotedScalarString(value)
    return value
