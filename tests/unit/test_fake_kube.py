"""The Kubernetes API server of the tests, asked through the official client."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward

from tests.fakes.crd import MISSING, Resource, have_schemas, ome_resources
from tests.fakes.kube import Change, FakeKube, Refused

WIDGETS = Resource(
    "test.io",
    "v1",
    "widgets",
    "Widget",
    schema={
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "format": "int32"},
                    "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                    "cpu": {"x-kubernetes-int-or-string": True},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "names": {"type": "object", "additionalProperties": {"type": "string"}},
                    "parts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                    },
                },
            },
            "status": {
                "type": "object",
                "properties": {"state": {"type": "string", "enum": ["Done"]}},
            },
        },
    },
)
NS = "autotuner"
WIDGET = ("test.io", "v1", NS, "widgets")


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[FakeKube]:
    with FakeKube([WIDGETS]) as server:
        load: Any = config.load_kube_config
        load(str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server
        client.Configuration.set_default(None)


def custom() -> Any:
    return client.CustomObjectsApi()


def watching() -> Any:
    made: Any = watch.Watch
    return made()


def widget(name: str = "one", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "test.io/v1",
        "kind": "Widget",
        "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"size": 1, **spec},
    }


def create(body: dict[str, Any], **more: Any) -> Any:
    return custom().create_namespaced_custom_object(
        *WIDGET, body, field_validation="Strict", **more
    )


def refused(call: Any, *arguments: Any, **more: Any) -> tuple[int, str]:
    """How the server refuses a call: code and message."""
    with pytest.raises(ApiException) as caught:
        call(*arguments, **more)
    return caught.value.status, str(caught.value.body)


def pod(name: str, owner: dict[str, Any] | None = None, **labels: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": NS, "labels": labels}
    if owner is not None:
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
        metadata["ownerReferences"] = [
            reference | {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        ]
    return {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "x"}]}}


def test_a_new_object_has_defaults_a_uid_a_version_and_no_status(kube: FakeKube) -> None:
    made = create(widget() | {"status": {"state": "Done"}})
    assert made["spec"] == {"size": 1, "color": "red"}
    metadata = made["metadata"]
    assert metadata["generation"] == 1
    assert metadata["namespace"] == NS
    assert metadata["uid"]
    assert int(metadata["resourceVersion"]) > 0
    assert "status" not in made
    assert custom().get_namespaced_custom_object(*WIDGET, "one") == made


def test_refusals_are_those_of_a_real_server(kube: FakeKube) -> None:
    create(widget())
    objects = custom()
    code, said = refused(create, widget())
    assert (code, "already exists" in said) == (409, True)
    assert refused(objects.get_namespaced_custom_object, *WIDGET, "none")[0] == 404
    assert refused(objects.delete_namespaced_custom_object, *WIDGET, "none")[0] == 404
    elsewhere = ("test.io", "v1", "no-such-namespace", "widgets", widget())
    code, said = refused(objects.create_namespaced_custom_object, *elsewhere)
    assert (code, "namespaces" in said) == (404, True)
    unknown = ("test.io", "v1", NS, "gadgets")
    assert refused(objects.list_namespaced_custom_object, *unknown)[0] == 404


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"sise": 2}, 400, 'unknown field \\"spec.sise\\"'),
        ({"parts": [{"name": "a", "sise": 1}]}, 400, 'unknown field \\"spec.parts[0].sise\\"'),
        ({"size": "2"}, 422, "spec.size: Invalid value: '2': must be of type integer"),
        ({"size": True}, 422, "must be of type integer"),
        ({"color": "green"}, 422, "spec.color: Unsupported value"),
        ({"cpu": 0.5}, 422, "spec.cpu"),
        ({"names": {"a": 1}}, 422, "spec.names.a"),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, 422, "Duplicate value"),
    ],
)
def test_values_are_checked_against_the_schema(
    kube: FakeKube, spec: dict[str, Any], code: int, words: str
) -> None:
    answered, said = refused(create, widget(**spec))
    assert answered == code
    assert words in said
    assert kube.find("widgets") == []


def test_what_is_unknown_is_dropped_where_validation_is_not_strict(kube: FakeKube) -> None:
    body = widget(sise=2, free={"any": 1}, names={"b": "c"}, cpu="500m")
    made = custom().create_namespaced_custom_object(*WIDGET, body)
    assert made["spec"]["free"] == {"any": 1}
    assert made["spec"]["names"] == {"b": "c"}
    assert "sise" not in made["spec"]


def test_required_fields_and_label_values_are_checked(kube: FakeKube) -> None:
    assert "spec.size: Required value" in refused(create, widget() | {"spec": {}})[1]
    body = widget()
    body["metadata"]["labels"] = {"trial": 3}
    assert "must be of type string" in refused(create, body)[1]
    body["metadata"] = {"name": "Upper_Case"}
    assert "RFC 1123" in refused(create, body)[1]


def test_a_dry_run_checks_and_keeps_nothing(kube: FakeKube) -> None:
    assert create(widget(), dry_run="All")["spec"]["color"] == "red"
    assert refused(create, widget(size="x"), dry_run="All")[0] == 422
    assert kube.find("widgets") == []


def test_status_is_a_room_of_its_own_and_generation_follows_the_spec(kube: FakeKube) -> None:
    create(widget())
    objects = custom()
    both = {"spec": {"size": 2}, "status": {"state": "Done"}}
    changed = objects.patch_namespaced_custom_object(*WIDGET, "one", both)
    assert "status" not in changed
    assert changed["metadata"]["generation"] == 2
    changed = objects.patch_namespaced_custom_object_status(
        *WIDGET, "one", {"spec": {"size": 3}, "status": {"state": "Done"}}
    )
    assert changed["status"] == {"state": "Done"}
    assert changed["spec"]["size"] == 2
    assert changed["metadata"]["generation"] == 2
    wrong = {"status": {"state": "Complete"}}
    assert refused(objects.patch_namespaced_custom_object_status, *WIDGET, "one", wrong)[0] == 422
    version = changed["metadata"]["resourceVersion"]
    same = objects.patch_namespaced_custom_object(*WIDGET, "one", {"spec": {"size": 2}})
    assert same["metadata"]["resourceVersion"] == version, "nothing changed"
    old = {"metadata": {"resourceVersion": "1"}, "spec": {"size": 9}}
    assert refused(objects.patch_namespaced_custom_object, *WIDGET, "one", old)[0] == 409
    gone = objects.patch_namespaced_custom_object(*WIDGET, "one", {"spec": {"color": None}})
    assert gone["spec"] == {"size": 2, "color": "red"}, "removed, and defaulted again"


def test_selectors(kube: FakeKube) -> None:
    for name, color in (("one", "red"), ("two", "blue"), ("three", "blue")):
        body = widget(name)
        body["metadata"]["labels"] |= {"color": color} | ({"big": "yes"} if name == "two" else {})
        create(body)
    objects = custom()

    def names(**selectors: str) -> set[str]:
        found = objects.list_namespaced_custom_object(*WIDGET, **selectors)["items"]
        return {each["metadata"]["name"] for each in found}

    assert names() == {"one", "two", "three"}
    assert names(label_selector="color=blue") == {"two", "three"}
    assert names(label_selector="color==blue,big") == {"two"}
    assert names(label_selector="color!=blue") == {"one"}
    assert names(label_selector="!big,color=blue") == {"three"}
    assert names(label_selector="color in (red, green),name=one") == {"one"}
    assert names(label_selector="name notin (one,two)") == {"three"}
    assert names(field_selector="metadata.name=two") == {"two"}
    code, said = refused(
        objects.list_namespaced_custom_object, *WIDGET, field_selector="spec.color=red"
    )
    assert (code, "field label not supported" in said) == (400, True)


def test_events_are_found_by_what_they_are_about(kube: FakeKube) -> None:
    made = create(widget())
    kube.event(made, "Broken", "it broke")
    kube.event(create(widget("two")), "Broken", "the other broke")
    found = client.CoreV1Api().list_namespaced_event(
        NS, field_selector="involvedObject.name=one,type=Warning"
    )
    assert [(each.reason, each.message) for each in found.items] == [("Broken", "it broke")]


def test_a_watch_tells_what_enters_changes_and_leaves_its_selection(kube: FakeKube) -> None:
    objects = custom()
    kube.create("widgets", widget() | {"metadata": {"name": "one", "namespace": NS}})
    heard: list[tuple[str, str]] = []

    def play() -> None:
        for label in ("yes", "still", None):
            patch = {"metadata": {"labels": {"seen": label}}}
            objects.patch_namespaced_custom_object(*WIDGET, "one", patch)
        objects.patch_namespaced_custom_object(
            *WIDGET, "one", {"metadata": {"labels": {"seen": "x"}}}
        )
        objects.delete_namespaced_custom_object(*WIDGET, "one")

    version = objects.list_namespaced_custom_object(*WIDGET)["metadata"]["resourceVersion"]
    player = threading.Thread(target=play)
    player.start()
    stream = watching()
    for event in stream.stream(
        objects.list_namespaced_custom_object,
        *WIDGET,
        label_selector="seen",
        resource_version=version,
        timeout_seconds=10,
    ):
        heard.append((event["type"], event["object"]["metadata"]["labels"].get("seen", "")))
        if len(heard) == 5:
            stream.stop()
    player.join()
    assert heard == [
        ("ADDED", "yes"),
        ("MODIFIED", "still"),
        ("DELETED", ""),
        ("ADDED", "x"),
        ("DELETED", "x"),
    ]


def test_a_watch_ends_in_time_and_says_when_its_version_is_too_old(kube: FakeKube) -> None:
    objects = custom()
    first = create(widget())["metadata"]["resourceVersion"]
    began = time.monotonic()
    stream = watching().stream(objects.list_namespaced_custom_object, *WIDGET, timeout_seconds=1)
    assert [event["type"] for event in stream] == ["ADDED"]
    assert 0.9 < time.monotonic() - began < 5
    create(widget("two"))
    kube.forget()
    stream = watching().stream(
        objects.list_namespaced_custom_object, *WIDGET, resource_version=first, timeout_seconds=5
    )
    with pytest.raises(ApiException) as caught:
        list(stream)
    assert caught.value.status == 410


def test_finalizers_hold_an_object_until_they_are_taken_off(kube: FakeKube) -> None:
    body = widget()
    body["metadata"]["finalizers"] = ["test.io/hold"]
    create(body)
    objects = custom()
    marked = objects.delete_namespaced_custom_object(*WIDGET, "one")
    assert marked["metadata"]["deletionTimestamp"]
    assert kube.find("widgets")
    objects.patch_namespaced_custom_object(*WIDGET, "one", {"metadata": {"finalizers": None}})
    assert kube.find("widgets") == []


def test_what_an_object_owns_goes_with_it_through_all_generations(kube: FakeKube) -> None:
    owner = create(widget())
    child = kube.create("pods", pod("child", owner))
    kube.create("pods", pod("grandchild", child))
    kube.create("pods", pod("stranger"))
    custom().delete_namespaced_custom_object(*WIDGET, "one")
    assert [each["metadata"]["name"] for each in kube.find("pods")] == ["stranger"]
    kube.create("pods", pod("late", owner))
    assert len(kube.find("pods")) == 1, "its owner had gone before it came"


def test_a_precondition_spares_the_next_object_of_the_same_name(kube: FakeKube) -> None:
    old = create(widget())["metadata"]["uid"]
    objects = custom()
    objects.delete_namespaced_custom_object(*WIDGET, "one")
    create(widget())
    options = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=old))
    code, _ = refused(objects.delete_namespaced_custom_object, *WIDGET, "one", body=options)
    assert code == 409
    assert kube.find("widgets")


def test_collections_are_deleted_by_label(kube: FakeKube) -> None:
    for name in ("one", "two"):
        create(widget(name))
    custom().delete_collection_namespaced_custom_object(*WIDGET, label_selector="name=one")
    assert [each["metadata"]["name"] for each in kube.find("widgets")] == ["two"]


def test_logs_of_containers_and_of_those_before_them(kube: FakeKube, tmp_path: Path) -> None:
    kube.create("pods", pod("server"))
    core = client.CoreV1Api()
    code, said = refused(core.read_namespaced_pod_log, "server", NS, container="main")
    assert (code, "waiting to start" in said) == (400, True)
    kube.set_log(NS, "server", "main", "one\ntwo\n")
    assert core.read_namespaced_pod_log("server", NS) == "one\ntwo\n"
    assert core.read_namespaced_pod_log("server", NS, tail_lines=1) == "two\n"
    code, said = refused(core.read_namespaced_pod_log, "server", NS, previous=True)
    assert (code, "previous terminated container" in said) == (400, True)
    assert refused(core.read_namespaced_pod_log, "server", NS, container="sidecar")[0] == 400
    (tmp_path / "log").write_text("grows\n")
    kube.set_log(NS, "server", "main", tmp_path / "log", previous="crashed\n")
    assert core.read_namespaced_pod_log("server", NS, previous=True) == "crashed\n"
    assert core.read_namespaced_pod_log("server", NS) == "grows\n"


def test_a_denied_right_is_said_when_asked_for_and_kept(kube: FakeKube) -> None:
    kube.denied.add(("get", "pods/log"))
    kube.create("pods", pod("server"))
    code, said = refused(client.CoreV1Api().read_namespaced_pod_log, "server", NS)
    assert (code, "forbidden" in said) == (403, True)

    def allowed(verb: str, resource: str, sub: str = "") -> bool:
        attributes = client.V1ResourceAttributes(
            namespace=NS, verb=verb, resource=resource, subresource=sub
        )
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        answer = client.AuthorizationV1Api().create_self_subject_access_review(review)
        return bool(answer.status and answer.status.allowed)

    assert not allowed("get", "pods", "log")
    assert allowed("get", "pods")


def test_a_hook_plays_the_controller(kube: FakeKube) -> None:
    def controller(change: Change) -> None:
        if change.plural == "widgets" and change.type == "ADDED":
            kube.create("pods", pod("of-it", change.object))
            kube.set_status("widgets", change.key[2], {"state": "Done"}, NS)

    kube.on_change(controller)
    stream = watching()
    create(widget())
    for event in stream.stream(custom().list_namespaced_custom_object, *WIDGET, timeout_seconds=10):
        if event["object"].get("status") == {"state": "Done"}:
            break
    else:
        pytest.fail("the hook was not called")
    stream.stop()
    assert len(client.CoreV1Api().list_namespaced_pod(NS).items) == 1


def test_what_a_hook_raises_is_raised_at_the_end() -> None:
    def broken(change: Change) -> None:
        raise ValueError("a mistake in a test")

    server = FakeKube([WIDGETS])
    server.on_change(broken)
    server.create("pods", pod("one"))
    with pytest.raises(ValueError, match="a mistake"):
        server.close()


def test_a_webhook_may_refuse(kube: FakeKube) -> None:
    def webhook(resource: Resource, item: dict[str, Any]) -> None:
        if resource.plural == "widgets":
            raise Refused(403, "Forbidden", 'admission webhook "w.test.io" denied the request: no')

    kube.admission.append(webhook)
    code, said = refused(create, widget())
    assert (code, "denied the request: no" in said) == (403, True)


class _Shout(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


def test_a_port_forward_carries_bytes_both_ways(kube: FakeKube) -> None:
    kube.create("pods", pod("server"))
    core = client.CoreV1Api()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Shout) as shouting:
        threading.Thread(target=shouting.serve_forever, daemon=True).start()
        kube.ports[(NS, "server", 8080)] = ("127.0.0.1", int(shouting.server_address[1]))
        forward = portforward(
            core.connect_get_namespaced_pod_portforward, "server", NS, ports="8080"
        )
        near = forward.socket(8080)
        near.settimeout(10)
        long = b"a" * 70_000 + b"\n"
        for line in (b"hello\n", b"b" * 300 + b"\n", long):
            near.sendall(line)
            got = b""
            while len(got) < len(line):
                got += near.recv(1 << 16)
            assert got == line.upper()
        near.close()
        shouting.shutdown()
    nobody = portforward(core.connect_get_namespaced_pod_portforward, "server", NS, ports="9090")
    near = nobody.socket(9090)
    near.settimeout(10)
    assert near.recv(1) == b""
    assert "connection refused" in nobody.error(9090)
    near.close()
    with pytest.raises(ApiException):
        portforward(core.connect_get_namespaced_pod_portforward, "none", NS, ports="8080")


def test_a_closed_server_refuses_connections(tmp_path: Path) -> None:
    with FakeKube() as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), timeout=2)


@pytest.mark.skipif(not have_schemas(), reason=MISSING)
def test_the_schemas_of_ome_refuse_what_ome_does_not_have() -> None:
    server = FakeKube(ome_resources())
    service: dict[str, Any] = {
        "metadata": {"name": "a", "namespace": NS},
        "spec": {"model": {"name": "m"}, "runtime": {"name": "r"}, "engine": {"minReplicas": 1}},
    }
    made = server.create("inferenceservices", service)
    assert made["spec"]["model"]["kind"] == "ClusterBaseModel"
    assert made["spec"]["runtime"]["kind"] == "ClusterServingRuntime"
    service["metadata"] = {"name": "b", "namespace": NS}
    service["spec"]["engine"] = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    with pytest.raises(Refused, match=r'unknown field "spec.engine.resources"'):
        server.create("inferenceservices", service)
    server.close()
