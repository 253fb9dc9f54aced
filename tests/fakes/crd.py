"""Custom resources as an API server knows them: names, and a structural schema applied strictly.

The schemas of OME are data of another project and no part of this one: they are looked for beside
the repository, and what needs them is skipped where they are not.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).parent.parent.parent.parent / "shared" / "crds"
MISSING = f"OME's CRDs are not in {CRDS.parent.name}/{CRDS.name} beside the repository"

Object = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind of object: where the API has it, and what it must look like.

    Attributes:
        schema: structural schema of the whole object; None: anything goes.
        status: whether it has the status subresource.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = True
    schema: Mapping[str, Any] | None = None

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


_OME = (
    ("inferenceservices", "InferenceService", True, True),
    ("benchmarkjobs", "BenchmarkJob", True, True),
    ("basemodels", "BaseModel", True, True),
    ("clusterbasemodels", "ClusterBaseModel", False, True),
    ("servingruntimes", "ServingRuntime", True, False),
    ("clusterservingruntimes", "ClusterServingRuntime", False, False),
    ("acceleratorclasses", "AcceleratorClass", False, True),
)


def have_schemas() -> bool:
    return CRDS.is_dir()


@cache
def ome_resource(plural: str, *, strict: bool = True) -> Resource:
    """A kind of OME's; with its schema where that is wanted and at hand."""
    _, kind, namespaced, status = next(each for each in _OME if each[0] == plural)
    file = CRDS / f"ome.io_{plural}.yaml"
    schema = _schema(file) if strict and file.exists() else None
    return Resource("ome.io", "v1beta1", plural, kind, namespaced, status, schema)


def ome_resources() -> list[Resource]:
    """All of OME's kinds; runtimes without their schemas, which are as large as all others'."""
    return [ome_resource(plural, strict="runtimes" not in plural) for plural, *_ in _OME]


def _schema(file: Path) -> Mapping[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
    version = next(each for each in content["spec"]["versions"] if each["storage"])
    schema: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def strict_problems(resource: Resource, item: Object) -> list[str]:
    """What a strict API server has against an object; nothing where it would take it."""
    item = copy.deepcopy(item)
    unknown = [f'unknown field "{path}"' for path in prune(resource, item)]
    return unknown + problems(resource, item)


def prune(resource: Resource, item: Object) -> list[str]:
    """Drop the fields that the schema does not know, in place; their paths."""
    return list(_prune(_rooted(resource), item, "")) if resource.schema else []


def defaulted(resource: Resource, item: Object) -> Object:
    """The object with the schema's defaults filled in, in place."""
    if resource.schema:
        _default(_rooted(resource), item)
    return item


def problems(resource: Resource, item: Object) -> list[str]:
    """Values that do not fit, as ``path: what is wrong``; metadata included."""
    found = list(_metadata_problems(item.get("metadata") or {}))
    if item.get("apiVersion", resource.api_version) != resource.api_version:
        found.append(f"apiVersion: {item['apiVersion']!r} is not {resource.api_version!r}")
    if item.get("kind", resource.kind) != resource.kind:
        found.append(f"kind: {item['kind']!r} is not {resource.kind!r}")
    return found + (list(_problems(_rooted(resource), item, "")) if resource.schema else [])


def _rooted(resource: Resource) -> Mapping[str, Any]:
    """The schema of the whole, in which metadata is the server's own affair."""
    assert resource.schema is not None
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    text = {"type": "string"}
    properties = {**resource.schema["properties"], "metadata": free} | {
        "apiVersion": text,
        "kind": text,
    }
    return {**resource.schema, "properties": properties}


def _prune(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from _prune(schema.get("items") or {}, each, f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    for key in list(value):
        place = f"{path}.{key}" if path else key
        if (inner := _inner(schema, key)) is not None:
            yield from _prune(inner, value[key], place)
        elif schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            del value[key]
            yield place


def _default(schema: Mapping[str, Any], value: Any) -> None:
    if isinstance(value, list):
        for each in value:
            _default(schema.get("items") or {}, each)
    if not isinstance(value, dict):
        return
    for key, inner in (schema.get("properties") or {}).items():
        if key not in value and "default" in inner:
            value[key] = copy.deepcopy(inner["default"])
    for key in value:
        if (inner := _inner(schema, key)) is not None:
            _default(inner, value[key])


def _inner(schema: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """The schema of a field; None where nothing is said of it."""
    rest = schema.get("additionalProperties")
    known = schema.get("properties") or {}
    inner: Mapping[str, Any] | None = known.get(key, rest if isinstance(rest, Mapping) else None)
    return inner


_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def _problems(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    place = path or "<root>"
    if value is None:
        # An API server drops nulls that have no place; here they would only hide a mistake.
        if not schema.get("nullable"):
            yield f"{place}: Invalid value: null"
        return
    wanted: tuple[type, ...]
    if schema.get("x-kubernetes-int-or-string"):
        wanted, name = (int, str), "integer or string"
    else:
        name = schema.get("type", "")
        wanted = _TYPES.get(name, (object,))
    # In Python a boolean is an integer too.
    fits = isinstance(value, wanted) and not (isinstance(value, bool) and int in wanted)
    if not fits:
        yield f"{place}: Invalid value: {value!r}: must be of type {name}"
        return
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(f'"{each}"' for each in schema["enum"])
        yield f'{place}: Unsupported value: "{value}": supported values: {allowed}'
    if isinstance(value, int | float) and value < schema.get("minimum", value):
        yield f"{place}: Invalid value: {value}: should be at least {schema['minimum']}"
    if isinstance(value, str):
        yield from _text_problems(schema, value, place)
    if isinstance(value, list):
        yield from _list_problems(schema, value, path)
    if isinstance(value, dict):
        for key in schema.get("required") or ():
            if key not in value:
                yield f"{path}.{key}".lstrip(".") + ": Required value"
        for key, each in value.items():
            if (inner := _inner(schema, key)) is not None:
                yield from _problems(inner, each, f"{path}.{key}".lstrip("."))


def _text_problems(schema: Mapping[str, Any], value: str, place: str) -> Iterator[str]:
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{place}: Invalid value: \"{value}\": should match '{schema['pattern']}'"
    if len(value) < schema.get("minLength", 0):
        yield f'{place}: Invalid value: "{value}": too short'


def _list_problems(schema: Mapping[str, Any], value: list[Any], path: str) -> Iterator[str]:
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") == "map" and keys:
        seen = [tuple(str(each.get(key)) for key in keys) for each in value]
        for key in {each for each in seen if seen.count(each) > 1}:
            yield f"{path}: Duplicate value: {', '.join(key)}"
    if schema.get("x-kubernetes-list-type") == "set" and len(set(map(str, value))) < len(value):
        yield f"{path}: Duplicate value"
    for index, each in enumerate(value):
        yield from _problems(schema.get("items") or {}, each, f"{path}[{index}]")


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(rf"(({_NAME.pattern})/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")


def _metadata_problems(metadata: Mapping[str, Any]) -> Iterator[str]:
    name = metadata.get("name", "a")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain'
    for part in ("labels", "annotations"):
        for key, value in (metadata.get(part) or {}).items():
            if not _KEY.fullmatch(key):
                yield f'metadata.{part}: Invalid value: "{key}": a qualified name'
            if not isinstance(value, str):
                yield f"metadata.{part}.{key}: Invalid value: {value!r}: must be of type string"
            elif part == "labels" and not _LABEL.fullmatch(value):
                yield f'metadata.labels: Invalid value: "{value}": a valid label'
