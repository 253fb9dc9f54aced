"""The objects of `tests.fakes.kube` and the rules that an API server keeps over them."""

from __future__ import annotations

import contextlib
import copy
import queue
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes.crd import Object, Resource, defaulted, problems, prune

Key = tuple[str, str, str]
"""Plural, namespace (empty for what has none), name."""

BUILTIN = (
    Resource("", "v1", "namespaces", "Namespace", namespaced=False),
    Resource("", "v1", "nodes", "Node", namespaced=False),
    Resource("", "v1", "pods", "Pod"),
    Resource("", "v1", "services", "Service"),
    Resource("", "v1", "events", "Event", status=False),
    Resource("", "v1", "configmaps", "ConfigMap", status=False),
    Resource("", "v1", "secrets", "Secret", status=False),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    Resource("apps", "v1", "deployments", "Deployment"),
    Resource("apps", "v1", "replicasets", "ReplicaSet"),
    Resource("batch", "v1", "jobs", "Job"),
    Resource(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
    ),
)


class Refused(Exception):
    """What the server answers instead: HTTP code, reason, message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    def to_json(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


@dataclass(frozen=True)
class Change:
    """One thing that happened. `before` is None for what is new; types as watches name them."""

    version: int
    type: str
    key: Key
    object: Object
    before: Object | None = None

    @property
    def plural(self) -> str:
        return self.key[0]


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any = None


@dataclass
class _Log:
    text: str | Path = ""
    previous: str | Path | None = None


@dataclass
class _State:
    objects: dict[Key, Object] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    version: int = 0
    oldest: int = 0


class KubeState:
    """What the server knows, and its rules. Everything may be called from any thread.

    Attributes:
        requests: all requests so far.
        admission: each is asked of every object before it is created or changed, and may raise
            `Refused`: a webhook.
        denied: ``(verb, resource or resource/subresource)`` pairs that are answered 403.
        ports: where a port-forward to ``(namespace, pod, port)`` ends: host and port.
    """

    def __init__(
        self, resources: Sequence[Resource] = (), *, namespaces: Sequence[str] = ("autotuner",)
    ) -> None:
        self.resources = {each.plural: each for each in (*BUILTIN, *resources)}
        self.requests: list[Request] = []
        self.admission: list[Callable[[Resource, Object], None]] = []
        self.denied: set[tuple[str, str]] = set()
        self.ports: dict[tuple[str, str, int], tuple[str, int]] = {}
        self._logs: dict[tuple[str, str, str], _Log] = {}
        self._state = _State()
        self.changed = threading.Condition(threading.RLock())
        self._hooks: list[_Hook] = []
        for name in ("default", *namespaces):
            self.create("namespaces", {"metadata": {"name": name}})
        for each in resources:
            # Not by `create`, which would copy schemas of megabytes several times.
            key = ("customresourcedefinitions", "", each.name)
            self._state.objects[key] = _definition(each)

    def on_change(self, hook: Callable[[Change], None]) -> None:
        """Call `hook` of every change from now on, in order, in a thread of its own.

        What it raises is raised again when the server closes; `KeyError` aside, which is how a
        controller notices that its object has gone.
        """
        self._hooks.append(_Hook(hook))

    def close(self) -> None:
        """End the hooks' threads; raises what one of them raised."""
        for hook in self._hooks:
            hook.close()

    # What requests do, and tests that play a controller.

    def create(
        self, plural: str, item: Object, *, strict: bool = True, dry: bool = False
    ) -> Object:
        """A new object as the server keeps it: defaults, uid, generation. Refused: 400 … 422."""
        resource = self.resource(plural)
        item = copy.deepcopy(item)
        metadata = item.setdefault("metadata", {})
        if not metadata.get("name"):
            metadata["name"] = metadata.get("generateName", "") + uuid.uuid4().hex[:5]
        item.setdefault("apiVersion", resource.api_version)
        item.setdefault("kind", resource.kind)
        if resource.group and resource.status:
            item.pop("status", None)
        with self.changed:
            key = self._key(resource, item)
            self._accept(resource, item, strict=strict)
            if key in self._state.objects:
                raise Refused(
                    409, "AlreadyExists", f'{resource.name} "{metadata["name"]}" already exists'
                )
            metadata.update(
                uid=str(uuid.uuid4()),
                generation=1,
                creationTimestamp=_now(),
                resourceVersion=str(self._state.version),
            )
            if not dry:
                self._store(key, item, "ADDED")
                self._collect()
            return copy.deepcopy(item)

    def get(self, plural: str, name: str, namespace: str = "") -> Object:
        """An object. Raises Refused 404 for clients; see `find` for tests."""
        with self.changed:
            return copy.deepcopy(self._known((plural, namespace, name)))

    def find(self, plural: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """All objects of a kind in all namespaces that the selectors name."""
        with self.changed:
            return [
                copy.deepcopy(each)
                for key, each in sorted(self._state.objects.items())
                if key[0] == plural and selected(each, labels, fields)
            ]

    def patch(
        self,
        plural: str,
        name: str,
        patch: Object,
        namespace: str = "",
        *,
        status: bool = False,
        strict: bool = True,
    ) -> Object:
        """Merge `patch` (RFC 7396) into an object, or into its status alone."""
        with self.changed:
            item = copy.deepcopy(self._known((plural, namespace, name)))
            if status:
                patch = {"status": patch.get("status")}
            elif self.resource(plural).group and self.resource(plural).status:
                patch = {key: value for key, value in patch.items() if key != "status"}
            return self.replace(plural, _merged(item, patch), namespace, strict=strict)

    def set_status(self, plural: str, name: str, status: Object, namespace: str = "") -> Object:
        """Put the whole status of an object, as a controller does. KeyError: it has gone."""
        with self.changed:
            key = (plural, namespace, name)
            if key not in self._state.objects:
                raise KeyError(key)
            item = {**copy.deepcopy(self._state.objects[key]), "status": copy.deepcopy(status)}
            return self.replace(plural, item, namespace)

    def replace(
        self, plural: str, item: Object, namespace: str = "", *, strict: bool = True
    ) -> Object:
        """Put an object in the place of itself. Refused 409 for a version that is not the last."""
        resource, item = self.resource(plural), copy.deepcopy(item)
        with self.changed:
            key = (plural, namespace, item["metadata"]["name"])
            before = self._known(key)
            own = before["metadata"]
            if item["metadata"].get("resourceVersion") not in (None, own["resourceVersion"]):
                raise Refused(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {resource.name} "{key[2]}": the object has '
                    "been modified; please apply your changes to the latest version and try again",
                )
            kept = ("uid", "creationTimestamp", "generation", "resourceVersion", "namespace")
            item["metadata"].update({name: own[name] for name in kept if name in own})
            if "deletionTimestamp" in own:
                item["metadata"]["deletionTimestamp"] = own["deletionTimestamp"]
            self._accept(resource, item, strict=strict)
            if item == before:
                return copy.deepcopy(item)
            if item.get("spec") != before.get("spec"):
                item["metadata"]["generation"] = own["generation"] + 1
            self._store(key, item, "MODIFIED")
            if "deletionTimestamp" in own and not item["metadata"].get("finalizers"):
                self._remove(key)
            return copy.deepcopy(item)

    def delete(
        self, plural: str, name: str, namespace: str = "", *, options: Object | None = None
    ) -> Object:
        """Remove an object, or mark it where finalizers or its dependants come first."""
        options = options or {}
        with self.changed:
            key = (plural, namespace, name)
            item = self._known(key)
            wanted = options.get("preconditions") or {}
            for field_name, value in wanted.items():
                if item["metadata"][field_name] != value:
                    raise Refused(
                        409,
                        "Conflict",
                        f"Precondition failed: {field_name} in precondition: {value}, "
                        f"{field_name} in object meta: {item['metadata'][field_name]}",
                    )
            if options.get("propagationPolicy") == "Foreground":
                self._collect(of=item["metadata"]["uid"])
            if not item["metadata"].get("finalizers"):
                self._remove(key)
                return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            if "deletionTimestamp" not in item["metadata"]:
                item = copy.deepcopy(item)
                item["metadata"]["deletionTimestamp"] = _now()
                self._store(key, item, "MODIFIED")
            return copy.deepcopy(item)

    def event(
        self,
        about: Object,
        reason: str,
        message: str,
        *,
        type: str = "Warning",
        count: int = 1,
    ) -> Object:
        """What a controller reports of an object."""
        metadata = about["metadata"]
        involved = {
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "uid": metadata["uid"],
        }
        now = _now()
        return self.create(
            "events",
            {
                "metadata": {
                    "generateName": f"{metadata['name']}.",
                    "namespace": metadata.get("namespace", "default"),
                },
                "involvedObject": involved,
                "type": type,
                "reason": reason,
                "message": message,
                "count": count,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": "test"},
            },
        )

    def set_log(
        self,
        namespace: str,
        pod: str,
        container: str,
        text: str | Path,
        *,
        previous: str | Path | None = None,
    ) -> None:
        """What a container has printed: a text, or a file that is read whenever it is asked for."""
        self._logs[(namespace, pod, container)] = _Log(text, previous)

    def log_of(self, namespace: str, pod: str, container: str, *, previous: bool) -> bytes:
        """A container's log, or the kubelet's words why there is none."""
        item = self.get("pods", pod, namespace)
        names = [each["name"] for each in item["spec"]["containers"]]
        if not container and len(names) > 1:
            raise _bad(
                f"a container name must be specified for pod {pod}, choose one of: "
                f"[{' '.join(names)}]"
            )
        container = container or names[0]
        if container not in names:
            raise _bad(f"container {container} is not valid for pod {pod}")
        log = self._logs.get((namespace, pod, container))
        if previous and (log is None or log.previous is None):
            raise _bad(f'previous terminated container "{container}" in pod "{pod}" not found')
        if log is None:
            raise _bad(
                f'container "{container}" in pod "{pod}" is waiting to start: ContainerCreating'
            )
        text = log.previous if previous else log.text
        return text.read_bytes() if isinstance(text, Path) else str(text).encode()

    def allow(self, verb: str, resource: str) -> None:
        """Refused 403 where this right is denied."""
        if (verb, resource) in self.denied:
            plural, _, _ = resource.partition("/")
            raise Refused(
                403,
                "Forbidden",
                f'{resource} is forbidden: User "tester" cannot {verb} resource "{resource}" in '
                f'API group "{self.resource(plural).group}"',
            )

    def resource(self, plural: str) -> Resource:
        if plural not in self.resources:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return self.resources[plural]

    # What watches need.

    @property
    def version(self) -> int:
        return self._state.version

    @property
    def oldest(self) -> int:
        """Changes up to this version are forgotten: watches from there are answered 410."""
        return self._state.oldest

    def forget(self) -> None:
        """Forget the changes so far, as a server does after some minutes."""
        with self.changed:
            self._state.oldest = self._state.version

    def since(self, version: int) -> list[Change]:
        """All changes after a version."""
        with self.changed:
            behind = self._state.version - version
            if behind <= 0:
                return []
            return [each for each in self._state.changes[-behind:] if each.version > version]

    def _key(self, resource: Resource, item: Object) -> Key:
        metadata = item["metadata"]
        namespace = metadata.get("namespace", "") if resource.namespaced else ""
        if resource.namespaced:
            namespace = metadata.setdefault("namespace", "default")
            self._known(("namespaces", "", namespace))
        return (resource.plural, namespace, metadata["name"])

    def _known(self, key: Key) -> Object:
        if key not in self._state.objects:
            name = self.resource(key[0]).name
            raise Refused(404, "NotFound", f'{name} "{key[2]}" not found')
        return self._state.objects[key]

    def _accept(self, resource: Resource, item: Object, *, strict: bool) -> None:
        unknown = prune(resource, item)
        if unknown and strict:
            said = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise _bad(f"{resource.kind} in version {resource.version!r} cannot be handled as a "
                       f"{resource.kind}: strict decoding error: {said}")  # fmt: skip
        for webhook in self.admission:
            webhook(resource, item)
        defaulted(resource, item)
        if wrong := problems(resource, item):
            raise Refused(
                422,
                "Invalid",
                f'{resource.kind}.{resource.group} "{item["metadata"]["name"]}" is invalid: '
                + "; ".join(wrong),
            )

    def _store(self, key: Key, item: Object, type: str) -> None:
        state = self._state
        before = state.objects.get(key)
        state.version += 1
        item["metadata"]["resourceVersion"] = str(state.version)
        state.objects[key] = copy.deepcopy(item)
        self._tell(type, key, item, before)

    def _remove(self, key: Key) -> None:
        state = self._state
        before = state.objects.pop(key)
        state.version += 1
        item = copy.deepcopy(before)
        item["metadata"]["resourceVersion"] = str(state.version)
        self._tell("DELETED", key, item, before)
        self._collect()

    def _tell(self, type: str, key: Key, item: Object, before: Object | None) -> None:
        change = Change(self._state.version, type, key, copy.deepcopy(item), before)
        self._state.changes.append(change)
        self.changed.notify_all()
        for hook in self._hooks:
            hook.tell(change)

    def _collect(self, of: str | None = None) -> None:
        """Delete what has owners and none of them left; with `of`, what that object owns."""
        alive = {each["metadata"]["uid"] for each in self._state.objects.values()} - {of}
        for key, item in list(self._state.objects.items()):
            owners = [each["uid"] for each in item["metadata"].get("ownerReferences", ())]
            if owners and alive.isdisjoint(owners) and key in self._state.objects:
                self.delete(key[0], key[2], key[1])


class _Hook:
    """A hook and its thread."""

    def __init__(self, hook: Callable[[Change], None]) -> None:
        self._hook = hook
        self._queue: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._listen, name="fake controller", daemon=True)
        self._thread.start()

    def tell(self, change: Change) -> None:
        self._queue.put(change)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(10)
        if self._error is not None:
            raise self._error

    def _listen(self) -> None:
        while (change := self._queue.get()) is not None:
            try:
                with contextlib.suppress(KeyError):
                    self._hook(change)
            except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
                self._error = self._error or error


def selected(item: Object, labels: str = "", fields: str = "") -> bool:
    """Whether the selectors, as clients write them, name an object."""
    own = item["metadata"].get("labels") or {}
    return all(_label_fits(own, each) for each in _requirements(labels)) and all(
        _field_fits(item, each) for each in fields.split(",") if each
    )


_SET = re.compile(r"(?P<key>\S+)\s+(?P<no>not)?in\s*\((?P<values>[^)]*)\)")


def _requirements(selector: str) -> Iterator[str]:
    """The parts of a label selector; commas in parentheses are a set's own."""
    for part in re.split(r",(?![^(]*\))", selector):
        if part.strip():
            yield part.strip()


def _label_fits(labels: Mapping[str, str], requirement: str) -> bool:
    if found := _SET.fullmatch(requirement):
        values = {each.strip() for each in found["values"].split(",")}
        return (labels.get(found["key"]) in values) != bool(found["no"])
    key, operator, value = re.fullmatch(r"(!?[^!=]+)(!=|==|=)?(.*)", requirement).groups()  # type: ignore[union-attr]
    if operator is None:
        return key[1:] not in labels if key.startswith("!") else key in labels
    return (labels.get(key.strip()) == value.strip()) == (operator != "!=")


def _field_fits(item: Object, requirement: str) -> bool:
    path, operator, value = re.fullmatch(r"([^!=]+)(!=|==|=)(.*)", requirement).groups()  # type: ignore[union-attr]
    found: Any = item
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return (str(found if found is not None else "") == value) == (operator != "!=")


def field_problem(resource: Resource, selector: str) -> str | None:
    """Custom resources are found by these two fields only."""
    for each in filter(None, selector.split(",")):
        path = re.split(r"[!=]", each)[0]
        if resource.schema and path not in ("metadata.name", "metadata.namespace"):
            return f'field label not supported: "{path}"'
    return None


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _definition(resource: Resource) -> Object:
    """The CustomResourceDefinition of a kind."""
    schema = resource.schema or {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.name, "uid": resource.name, "resourceVersion": "1"},
        "spec": {
            "group": resource.group,
            "names": {"kind": resource.kind, "plural": resource.plural},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [
                {
                    "name": resource.version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _bad(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
