"""Servers as InferenceServices of OME on Kubernetes, one for each trial."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from autotuner.backends import reaper
from autotuner.backends.base import Backend, BackendKind, Server
from autotuner.backends.ome_cluster import Cluster
from autotuner.backends.ome_forward import Forward
from autotuner.backends.ome_log import Log
from autotuner.backends.ome_manifest import (
    CLUSTER_RIGHTS,
    CONTAINER,
    FORWARD_RIGHTS,
    GROUP,
    LEASE,
    OWNER,
    RENEWED,
    RIGHTS,
    SERVICES,
    STUDY,
    TRIAL,
    OMEOptions,
    appends,
    as_yaml,
    inference_service,
    owner_digest,
    rbac,
    selector,
    template_problem,
    unmanaged,
)
from autotuner.backends.ome_signs import (
    Sight,
    Trouble,
    about,
    container_port,
    is_ready,
    judge,
    nodes_of,
    restarted,
    url_of,
)
from autotuner.backends.owners import lives, this_owner
from autotuner.errors import ConfigError, InfrastructureError
from autotuner.kube import Changed, Denied, Missing
from autotuner.plugins import load_kind
from autotuner.serving import Ending, Inspection, LaunchSpec, Place, Plan, Slot
from autotuner.settings import Site
from autotuner.study.files import SERVER_LOG
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec, options_of

LOOK_SECONDS = 1.0
"""Between two looks at a server's place; each costs two or three requests."""

LOG_SECONDS = 5.0
"""Between two readings of a log that is followed; each reads all of it."""

LOG_SHARE = 20
"""So many times as long as the last reading took, at least: a load is measured meanwhile."""

RENEWALS = 4
"""In one lease, so that a few may fail."""

TERMINATION_SECONDS = 30.0
"""What Kubernetes grants a pod to end by itself, whoever waits."""


class _OME:
    local = False
    spans_nodes = False

    def check(self, options: Mapping[str, Any]) -> None:
        _options(options).require()

    def open(self, options: Mapping[str, Any], site: Site) -> Backend:
        return OMEBackend(_options(options), site)


def _options(options: Mapping[str, Any]) -> OMEOptions:
    found: OMEOptions = options_of(OMEOptions, options, "backend.ome")
    return found


class OMEBackend:
    gpu_resource = "ome_gpu"

    def __init__(self, options: OMEOptions, site: Site) -> None:
        self._options = options
        self._site = site
        self._namespace = options.namespace or site.ome_namespace
        self._prepared = False

    @property
    def place(self) -> Place:
        return Place("0.0.0.0", self._options.port, "$(MODEL_PATH)", image=True)

    @property
    def gone_seconds(self) -> float:
        return float(self._options.lease_seconds)

    def plan(self, launch: LaunchSpec, slot: Slot) -> Plan:
        self._options.require()
        if problem := template_problem(launch, self._options):
            raise ConfigError(problem, where="engine.arguments")
        manifest = inference_service(launch, slot, self._options, self._namespace)
        return Plan("ome", {"manifest": manifest, "directory": slot.directory})

    def prepare(self, launch: LaunchSpec, said: Callable[[str], None]) -> None:
        if self._prepared:
            return
        said(f"looking for model and runtime at {self._cluster.server}")
        for inspection in (self._model(), self._runtime(launch)):
            if inspection.ok is False:
                raise InfrastructureError(f"{inspection.said}; {inspection.hint}")
        self._watch()
        self._prepared = True

    def start(self, plan: Plan) -> Server:
        self._watch()
        return OMEServer(self._cluster, plan, self._options)

    def _watch(self) -> None:
        """Have what is in the namespace swept for as long as this process lives, and after it."""
        cluster = self._cluster
        cluster.now()  # a cluster that does not answer needs nobody to watch it
        options = self._options.model_dump()
        reaper.watch("ome", options, self._site, f"{cluster.server} {self._namespace}")

    def left(self, study: str | None = None) -> list[str]:
        return [_said(service) for service in self._cluster.services(selector(study))]

    def sweep(self, study: str | None = None, *, owned: bool = False) -> list[str]:
        cluster = self._cluster
        found = cluster.services(selector(study))
        now = cluster.now() if found else None
        removed = []
        for service in found:
            if "deletionTimestamp" in service["metadata"]:
                continue
            if now is None or not (owned or is_lost(service, now)):
                continue
            # An owner that speaks up between our look and our hand is spared.
            with contextlib.suppress(Missing, Changed):
                cluster.delete(service, unchanged=not owned)
                removed.append(_said(service))
        return removed

    def examine(self, launch: LaunchSpec | None = None) -> list[Inspection]:
        try:
            version = self._cluster.version()
        except InfrastructureError as error:
            return [
                Inspection("Kubernetes", False, str(error), "set KUBECONFIG, or ask its operator")
            ]
        return [
            Inspection("Kubernetes", True, f"{version} at {self._cluster.server}"),
            *_attempted("OME", self._generation),
            *_attempted("rights", self._rights),
            *(_attempted("model", lambda: [self._model()]) if self._options.model else []),
            *(
                _attempted("runtime", lambda: [self._runtime(launch)])
                if self._options.runtime
                else []
            ),
        ]

    def shown(self, plan: Plan) -> Mapping[str, Any]:
        spec = plan.request["manifest"]["spec"]
        runner = spec["engine"]["runner"]
        return {
            "argv": list(runner["args"]),
            "environment": {each["name"]: each["value"] for each in runner["env"]},
            "image": None,
            "runtime": spec["runtime"]["name"],
        }

    def exports(self, spec: StudySpec, point: Parameters) -> Mapping[str, str]:
        jobs = spec.benchmark.kind == "ome-job"
        files = {"rbac.yaml": as_yaml(rbac(self._namespace, benchmark_jobs=jobs))}
        one, point = spec.at(point)
        assert isinstance(one.engine.kind, str)
        engine = load_kind("engine", one.engine.kind)
        launch = engine.launch(one, point, port=self._options.port, place=self.place)
        plan = self.plan(launch, Slot(spec.name, 0, self._options.port, directory=""))
        files["inferenceservice.yaml"] = as_yaml([unmanaged(plan.request["manifest"])])
        return files

    @cached_property
    def _cluster(self) -> Cluster:
        return Cluster(self._namespace, context=self._site.kube_context)

    def _generation(self) -> list[Inspection]:
        try:
            definition = self._cluster.definition(f"{SERVICES}.{GROUP}")
        except Missing:
            hint = "install OME: https://github.com/ome-projects/ome"
            return [Inspection("OME", False, f"no {SERVICES}.{GROUP} is defined", hint)]
        except Denied as error:
            return [Inspection("OME", None, str(error))]
        generation, needs_keda = generation_of(definition)
        inspections = [Inspection("OME", True, generation)]
        others = (
            ("certificates.cert-manager.io", "cert-manager", "OME's webhooks have no certificates"),
            ("scaledobjects.keda.sh", "KEDA", "install it, then restart OME's controller"),
        )
        for name, what, hint in others:
            if what != "KEDA" or needs_keda:
                inspections.append(self._defined(name, what, hint))
        return inspections

    def _defined(self, name: str, what: str, hint: str) -> Inspection:
        try:
            self._cluster.definition(name)
        except Missing:
            return Inspection(what, False, f"no {name} is defined", hint)
        return Inspection(what, True, f"{name} is defined")

    def _rights(self) -> list[Inspection]:
        cluster = self._cluster
        forwards = () if _by_url(self._options, cluster) else FORWARD_RIGHTS
        inspections = []
        for rights, here in (((*RIGHTS, *forwards), True), (CLUSTER_RIGHTS, False)):
            for group, resource, verbs in rights:
                lacking = [
                    verb
                    for verb in verbs
                    if not cluster.may(group, resource, verb, namespaced=here)
                ]
                name = f"right to {resource}" + (f".{group}" if group else "")
                where = f"in {self._namespace}" if here else "in the cluster"
                inspections.append(
                    Inspection(
                        name,
                        # Those of the cluster only let us look before we start.
                        not lacking if here or not lacking else None,
                        f"not allowed {where}: {', '.join(lacking)}"
                        if lacking
                        else f"{', '.join(verbs)} {where}",
                        "apply the rbac.yaml of the study's plan" if lacking else "",
                    )
                )
        return inspections

    def _model(self) -> Inspection:
        name = self._options.model
        try:
            model = self._cluster.cluster_wide("clusterbasemodels", name)
        except Missing:
            hint = "`kubectl get clusterbasemodels` lists those there are"
            return Inspection("model", False, f"there is no ClusterBaseModel {name!r}", hint)
        except Denied as error:
            return Inspection("model", None, str(error))
        if model["spec"].get("disabled"):
            return Inspection("model", False, f"ClusterBaseModel {name!r} is disabled", "enable it")
        if not (model["spec"].get("modelFormat") or {}).get("name"):
            hint = "give it modelFormat, modelFramework and modelArchitecture"
            return Inspection("model", False, f"ClusterBaseModel {name!r} has no format", hint)
        status = model.get("status") or {}
        nodes = status.get("nodesReady") or []
        if status.get("state") not in (None, "Ready") and not nodes:
            hint = "OME's model agent gets it onto the nodes; see its log"
            return Inspection("model", False, f"{name!r} is {status['state']} on every node", hint)
        return Inspection("model", True, f"{name} on {len(nodes)} nodes" if nodes else name)

    def _runtime(self, launch: LaunchSpec | None) -> Inspection:
        name = self._options.runtime
        try:
            runtime = self._cluster.cluster_wide("clusterservingruntimes", name)
        except Missing:
            hint = "`kubectl get clusterservingruntimes` lists those there are"
            return Inspection("runtime", False, f"there is no ClusterServingRuntime {name!r}", hint)
        except Denied as error:
            return Inspection("runtime", None, str(error))
        if runtime["spec"].get("disabled"):
            return Inspection("runtime", False, f"runtime {name!r} is disabled", "enable it")
        problem = runtime_problem(runtime, launch, self._options) if launch else None
        if problem:
            return Inspection("runtime", False, f"runtime {name!r}: {problem[0]}", problem[1])
        return Inspection("runtime", True, name)


class OMEServer:
    """One InferenceService. What `start` adds to the plan: an owner, a lease, and an end to the
    name, so that what a killed attempt left, and what is remembered of it, is not taken for this.
    """

    def __init__(
        self,
        cluster: Cluster,
        plan: Plan,
        options: OMEOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cluster, self._options = cluster, options
        self._clock, self._sleep = clock, sleep
        self._service = cluster.create(self._owned(plan.request["manifest"]))
        self.name = str(self._service["metadata"]["name"])
        self._pods: Sequence[Mapping[str, Any]] = ()
        self._heard = self._looked = self._renewed = clock()
        self._troubled: float | None = None
        self._broken: InfrastructureError | None = None
        self._ending: Ending | None = None
        self._stopped = False
        self._log = Log(Path(plan.request["directory"]) / SERVER_LOG)
        self._read_at, self._heard_all = clock(), False
        self._node: str | None = None
        self._url: str | None = None
        self._forward: Forward | None = None

    @property
    def url(self) -> str | None:
        if self._url is None and not self._stopped and self._ending is None:
            self._url = self._reached()
        return self._url

    @property
    def node(self) -> str | None:
        return self._node

    def alive(self) -> bool:
        if self._stopped or self._ending is not None:
            return False
        if self._broken is not None:
            raise self._broken
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return True
        self._looked = now
        try:
            sight = self._look()
            self._renew()
        except Missing:
            sight = Sight(None)
        except InfrastructureError:
            # An API server may be away for a moment; for a lease, and we are taken for dead.
            if now - self._heard >= self._options.lease_seconds:
                raise
            return True
        self._heard = now
        found = judge(sight)
        if isinstance(found, Ending):
            self._ending = found
            self._hear()
            return False
        if now >= self._read_at:
            self._hear()
        self._broken = self._lasting(found, now)
        if self._broken is not None:
            raise self._broken
        return True

    def log(self) -> str:
        self._hear()
        return self._log.text

    def ending(self) -> Ending:
        return self._ending or Ending()

    def stop(self, seconds: float) -> None:
        if self._stopped:
            return
        self._hear()
        self._log.close()
        if self._forward is not None:
            self._forward.close()
        deadline = self._clock() + seconds + TERMINATION_SECONDS
        while left := self._end():
            if self._clock() >= deadline:
                raise InfrastructureError(f"{self.name} was told to stop; still there: {left}")
            self._sleep(0.5)
        self._stopped = True

    def _owned(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        owner, metadata = this_owner(), manifest["metadata"]
        return {
            **manifest,
            "metadata": {
                **metadata,
                "name": f"{metadata['name']}-{secrets.token_hex(3)[:5]}",
                "labels": {**metadata["labels"], OWNER: owner_digest(owner)},
                "annotations": {
                    **metadata["annotations"],
                    OWNER: owner,
                    LEASE: str(self._options.lease_seconds),
                    RENEWED: _timestamp(self._cluster.now()),
                },
            },
        }

    def _look(self) -> Sight:
        """What is there now. Events matter until there is a pod that runs."""
        service = self._cluster.service(self.name)
        if service["metadata"]["uid"] != self._service["metadata"]["uid"]:
            return Sight(None)
        pods = [
            pod for pod in self._cluster.pods(self.name)
            if (pod["metadata"].get("labels") or {}).get("component", "engine") == "engine"
        ]  # fmt: skip
        events = [] if self._url else about(self._cluster.warnings(), service)
        self._service, self._pods = service, pods
        self._node = ", ".join(nodes_of(pods)) or self._node
        return Sight(service, pods, events)

    def _renew(self) -> None:
        """Say that the owner lives, a few times in every lease."""
        if self._clock() - self._renewed >= self._options.lease_seconds / RENEWALS:
            self._cluster.annotate(self.name, {RENEWED: _timestamp(self._cluster.now())})
            self._renewed = self._clock()

    def _lasting(self, trouble: Trouble | None, now: float) -> InfrastructureError | None:
        """Trouble that will not pass, or has not for too long."""
        if trouble is None:
            self._troubled = None
            return None
        if self._troubled is None:
            self._troubled = now
        lasted = now - self._troubled
        if trouble.at_once:
            return InfrastructureError(f"{self.name}: {trouble.said}")
        if lasted >= self._options.unschedulable_seconds:
            return InfrastructureError(f"{self.name}: {trouble.said} (for {lasted:.0f} s)")
        return None

    def _reached(self) -> str | None:
        """The URL by which this process gets there, once OME calls it ready."""
        by_url = _by_url(self._options, self._cluster)
        if not is_ready(self._service, engine_alone=not by_url):
            return None
        port = container_port(self._pods, self._options.port)
        if by_url:
            return url_of(self._service, port)
        if not self._pods:
            return None
        pod = self._pods[0]["metadata"]["name"]
        self._forward = Forward(lambda: self._cluster.connect(pod, port))
        return self._forward.url

    def _hear(self) -> None:
        """Keep what the server has said by now: with its pod the log goes. What was heard before
        stays, where the API server does not answer or the pod has gone."""
        if self._stopped or self._heard_all:
            return
        began = self._clock()
        with contextlib.suppress(InfrastructureError):
            text = self._read_log()
            self._log.heard(text)
            self._heard_all = bool(text) and self._ending is not None
        now = self._clock()
        self._read_at = now + max(LOG_SECONDS, LOG_SHARE * (now - began))

    def _read_log(self) -> str:
        texts = []
        for pod in sorted(self._pods, key=lambda each: str(each["metadata"]["name"])):
            name = pod["metadata"]["name"]
            # After a crash the first container's log tells; the next one's is only a beginning.
            # The next may have begun since we saw the first one dead.
            again = restarted(pod) or self._ending is not None
            before = self._cluster.log(name, CONTAINER, previous=True) if again else ""
            texts.append(before or self._cluster.log(name, CONTAINER))
        return "".join(texts)

    def _end(self) -> str:
        """Delete it; what is left of it, in words."""
        try:
            with contextlib.suppress(Missing, Changed):
                service = self._cluster.service(self.name)
                if "deletionTimestamp" not in service["metadata"]:
                    self._cluster.delete(service)
                finalizers = self._cluster.service(self.name)["metadata"].get("finalizers")
                return f"the InferenceService, by its finalizers {finalizers}"
            pods = [pod["metadata"]["name"] for pod in self._cluster.pods(self.name)]
            return f"pods {', '.join(pods)}" if pods else ""
        except InfrastructureError as error:
            return str(error)


def is_lost(service: Mapping[str, Any], now: datetime) -> bool:
    """Whether nobody owns it any more: its process is dead, or has been silent for a lease.

    A process that can be seen to live is not judged by its silence; and what never had an owner
    was not made by `start`, whatever its labels say.
    """
    annotations = service["metadata"].get("annotations") or {}
    alive = lives(annotations.get(OWNER, ""))
    if alive is not None:
        return not alive
    try:
        renewed = datetime.fromisoformat(annotations[RENEWED])
        lease = timedelta(seconds=float(annotations[LEASE]))
    except (KeyError, ValueError):
        return False
    return now > renewed + lease


def generation_of(definition: Mapping[str, Any]) -> tuple[str, bool]:
    """Which OME this is, told by what its InferenceService has; and whether it needs KEDA."""
    versions = definition["spec"]["versions"]
    schema = next(each for each in versions if each.get("storage"))["schema"]["openAPIV3Schema"]
    spec = ((schema.get("properties") or {}).get("spec") or {}).get("properties") or {}
    if "deploymentMode" in spec:
        return "v1.2 or newer", False
    if "acceleratorSelector" in spec:
        return "v0.1.5 or of its time", False
    if spec:
        return "v0.1.4 or older", True
    return "of an unknown version", False


def runtime_problem(
    runtime: Mapping[str, Any], launch: LaunchSpec, options: OMEOptions
) -> tuple[str, str] | None:
    """Why the runtime's launch line and our arguments do not fit, and what to do; or None."""
    runner = (runtime["spec"].get("engineConfig") or {}).get("runner")
    if not runner:
        return "it has no engineConfig.runner", "a trial sets the arguments of that; take another"
    command = runner.get("command") or []
    if command[:1] and command[0].rpartition("/")[2] in ("sh", "bash") and "-c" in command:
        return (
            "its launch line is a shell script, which ignores arguments",
            "take a runtime whose command is a list, see cluster/ome",
        )
    if appends(launch, options) and runner.get("args"):
        return (
            "its args would be replaced by the study's flags alone",
            "say `arguments: replace` in backend.ome, or take a runtime without args",
        )
    if not appends(launch, options) and len(command) > 4 and not runner.get("args"):
        return (
            "its launch line is all in its command, and would get model, host and port twice",
            "say `arguments: append` in backend.ome",
        )
    return None


def _by_url(options: OMEOptions, cluster: Cluster) -> bool:
    return options.reach == "url" or (options.reach == "auto" and cluster.inside)


def _attempted(name: str, look: Callable[[], list[Inspection]]) -> list[Inspection]:
    try:
        return look()
    except InfrastructureError as error:
        return [Inspection(name, None, str(error))]


def _said(service: Mapping[str, Any]) -> str:
    metadata = service["metadata"]
    names = metadata["labels"]
    return (
        f"InferenceService {metadata['namespace']}/{metadata['name']} of study "
        f"{names.get(STUDY, '?')}, trial {names.get(TRIAL, '?').lstrip('0') or '0'}"
    )


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


OME: BackendKind = _OME()
