"""The client against a small service that says what it is told to, breaks off included."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from autotuner import remote
from autotuner.client import (
    RECONNECTS,
    Client,
    Event,
    ForbiddenError,
    Message,
    UnauthorizedError,
    error_of,
    messages,
)
from autotuner.errors import (
    AutotunerError,
    ConfigError,
    InfrastructureError,
    MissingStudyError,
    StudyStateError,
    TooManyStudiesError,
)
from autotuner.terminal import exit_code


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    verb: str
    path: str
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Said:
    """An answer; `broken` ends the connection before the end of it."""

    body: bytes | str = b""
    status: int = 200
    form: str = "application/json"
    broken: bool = False


@dataclass
class Fake:
    """A service that answers by a function of the request, and remembers what it was asked."""

    answer: Callable[[Asked], Said]
    address: str = ""
    asked: list[Asked] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def client(self, **more: Any) -> Client:
        return Client(self.address, pause=self.pauses.append, **more)


@contextmanager
def fake(answer: Callable[[Asked], Said]) -> Iterator[Fake]:
    service = Fake(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(length).decode()
            asked = Asked(self.command, self.path, headers, body)
            service.asked.append(asked)
            said = service.answer(asked)
            content = said.body.encode() if isinstance(said.body, str) else said.body
            self.send_response(said.status)
            self.send_header("Content-Type", said.form)
            self.send_header("Content-Length", str(len(content) + said.broken))
            # Said, or a client that is quick sends its next request into the closing connection.
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = _handle

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    service.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def problem(kind: str, status: int, detail: str = "because", **more: Any) -> Said:
    content = {
        "type": f"urn:autotuner:problem:{kind}",
        "title": "a title",
        "status": status,
        "detail": detail,
        "instance": "/v1/studies",
        "errors": [],
        **more,
    }
    return Said(json.dumps(content), status, "application/problem+json")


def row(**more: Any) -> dict[str, Any]:
    return {"name": "small", "state": "RUNNING", "event": 0, **more}


def sse(number: int, kind: str = "trial", **content: Any) -> str:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps({**content, 'at': 'now'})}\n\n"


def lines(at: int, *said: str) -> str:
    return f"id: {at}\nevent: lines\ndata: {json.dumps(said)}\n\n"


def stream(*parts: str, broken: bool = False) -> Said:
    return Said("".join(parts), form="text/event-stream", broken=broken)


def in_turn(*answers: Said) -> Callable[[Asked], Said]:
    left = iter(answers)
    return lambda asked: next(left)


class TestMessages:
    def test_fields_and_comments(self) -> None:
        text = b": keep-alive\n\nid: 7\nevent: trial\ndata: {}\n\n"
        assert list(messages([text])) == [None, Message("7", "trial", "{}")]

    def test_several_data_lines_are_one_text(self) -> None:
        assert list(messages([b"data: a\ndata:b\n\n"])) == [Message("", "", "a\nb")]

    @pytest.mark.parametrize("size", range(1, 9))
    def test_wherever_it_is_cut(self, size: int) -> None:
        text = "id: 1\r\ndata: ä\u2028b\r\n\r\nid: 2\ndata: c\n\n".encode()
        parts = [text[at : at + size] for at in range(0, len(text), size)]
        assert list(messages(parts)) == [Message("1", "", "ä\u2028b"), Message("2", "", "c")]

    def test_a_message_cut_off_is_none(self) -> None:
        assert list(messages([b"id: 1\ndata: a\n\nid: 2\ndata: b\n"])) == [Message("1", "", "a")]


ERRORS: Sequence[tuple[str, int, type[AutotunerError]]] = (
    ("config", 422, ConfigError),
    ("invalid", 422, ConfigError),
    ("study-state", 409, StudyStateError),
    ("too-many", 429, TooManyStudiesError),
    ("not-found", 404, MissingStudyError),
    ("infrastructure", 503, InfrastructureError),
    ("rate", 429, InfrastructureError),
    ("unauthorized", 401, UnauthorizedError),
    ("forbidden", 403, ForbiddenError),
    ("too-large", 413, ConfigError),
    ("host", 400, ConfigError),
)


class TestErrors:
    @pytest.mark.parametrize(("kind", "status", "expected"), ERRORS)
    def test_classes_are_those_of_the_same_call_made_locally(
        self, kind: str, status: int, expected: type[AutotunerError]
    ) -> None:
        said = problem(kind, status, "the reason")
        assert isinstance(said.body, str)
        error = error_of("http://a", status, {"retry-after": "3"}, said.body.encode())
        assert type(error) is expected
        assert "the reason" in str(error)

    def test_mistakes_keep_their_places(self) -> None:
        found = [
            {"where": "space.x", "problem": "is odd", "allowed": ["1", "2"], "hint": "", "line": 4},
            {"where": "y", "problem": "is even", "allowed": [], "hint": "say so", "line": None},
        ]
        with fake(lambda asked: problem("config", 422, errors=found)) as service:
            file = Path(__file__)
            with service.client() as client, pytest.raises(ConfigError) as caught:
                client.submit(file)
        error = caught.value
        assert (error.where, error.line, error.allowed) == ("space.x", 4, ("1", "2"))
        assert [(each.where, each.hint) for each in error.others] == [("y", "say so")]
        assert f"{file}:4: space.x: is odd" in str(error)

    def test_how_to_give_a_token(self) -> None:
        said = problem("unauthorized", 401, "no token")
        with (
            fake(lambda asked: said) as service,
            service.client() as client,
            pytest.raises(UnauthorizedError, match=r"AUTOTUNER_TOKEN.*--token-file"),
        ):
            client.studies()

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            (Said("<html>", 200, "text/html"), ConfigError),
            (Said("<html>", 404, "text/html"), ConfigError),
            (Said("", 302), ConfigError),
            (Said('{"detail": "Not Found"}', 404), ConfigError),
            (Said("bad gateway", 502), InfrastructureError),
        ],
    )
    def test_an_answer_of_another_program(self, said: Said, expected: type[AutotunerError]) -> None:
        with (
            fake(lambda asked: said) as service,
            service.client() as client,
            pytest.raises(expected, match=r"answers \d+"),
        ):
            client.study("small")

    def test_nobody_there(self) -> None:
        with fake(lambda asked: Said()) as service:
            address = service.address
        with Client(address) as client, pytest.raises(InfrastructureError, match="cannot be reach"):
            client.studies()

    @pytest.mark.parametrize(
        "address", ["", "host:8000", "ftp://host", "http://", "http://h:99999", "http://h/?a=b"]
    )
    def test_no_address(self, address: str) -> None:
        with pytest.raises(ConfigError, match="is no address"):
            Client(address)

    def test_a_password_in_the_address_is_not_repeated(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Client("http://me:hunter2@host")
        assert "hunter2" not in str(caught.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with (
            Client("http://127.0.0.1:9") as client,
            pytest.raises(ConfigError, match=r"none"),
        ):
            client.submit(tmp_path / "none.yaml")


class TestRequests:
    def test_a_file_goes_as_it_is(self, tmp_path: Path) -> None:
        text = "name: small  # a comment\n"
        (tmp_path / "study.yaml").write_text(text)
        with (
            fake(lambda asked: Said(json.dumps(row()), 201)) as service,
            service.client(token="secret") as client,
        ):
            assert client.submit(tmp_path / "study.yaml", start=False)["name"] == "small"
        (asked,) = service.asked
        assert (asked.verb, asked.path) == ("POST", "/v1/studies?start=false")
        assert asked.body == text
        assert asked.headers["content-type"] == "application/yaml"
        assert asked.headers["authorization"] == "Bearer secret"

    def test_content_goes_as_json(self) -> None:
        with fake(lambda asked: Said(json.dumps(row()))) as service, service.client() as client:
            client.edit("small", {"name": "small"})
        (asked,) = service.asked
        assert (asked.verb, asked.path) == ("PUT", "/v1/studies/small")
        assert json.loads(asked.body) == {"name": "small"}
        assert asked.headers["content-type"] == "application/json"

    def test_names_do_not_leave_their_place(self) -> None:
        with fake(lambda asked: Said(json.dumps(row()))) as service, service.client() as client:
            client.study("a/../b?c#d")
            for name in ("", ".", ".."):
                with pytest.raises(MissingStudyError):
                    client.delete(name)
        assert [asked.path for asked in service.asked] == ["/v1/studies/a%2F..%2Fb%3Fc%23d"]

    def test_a_path_before_the_service_is_kept(self) -> None:
        with (
            fake(lambda asked: Said(json.dumps(row()))) as service,
            Client(service.address + "/tuner/") as client,
        ):
            client.cancel("small")
            assert client.page("small") == f"{service.address}/tuner/#/studies/small"
        assert service.asked[0].path == "/tuner/v1/studies/small/cancel"

    @pytest.mark.parametrize("behind", ["/v1", "/v1/"])
    def test_the_paths_own_beginning_may_be_in_the_address(self, behind: str) -> None:
        with (
            fake(lambda asked: Said(json.dumps(row()))) as service,
            Client(service.address + behind) as client,
        ):
            client.cancel("small")
            assert client.page("small") == f"{service.address}/#/studies/small"
        assert service.asked[0].path == "/v1/studies/small/cancel"

    def test_pages_are_one_list(self) -> None:
        def answer(asked: Asked) -> Said:
            page = int(asked.path.partition("&page=")[2].partition("&")[0])
            items = {1: [row(name="a"), row(name="b")], 2: [row(name="c")]}[page]
            return Said(json.dumps({"items": items, "total": 3, "page": page, "per_page": 2}))

        with fake(answer) as service, service.client() as client:
            assert [each["name"] for each in client.studies(state="RUNNING")] == ["a", "b", "c"]
        assert "state=RUNNING" in service.asked[0].path
        assert "engine" not in service.asked[0].path

    def test_proxies_are_not_for_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with fake(lambda asked: Said('{"version": "1"}')) as service, service.client() as client:
            assert client.version() == {"version": "1"}


class TestEvents:
    def test_go_on_where_they_broke_off(self) -> None:
        """Without gap or repeat, even where the service repeats itself."""
        answers = in_turn(
            stream(sse(1), sse(2), "id: 3\nevent: tri", broken=True),
            Said("starting", 503),
            stream(sse(2), sse(3), ": keep-alive\n\n"),
            stream(sse(4), sse(5, "study", state="DELETED")),
        )
        with fake(answers) as service, service.client() as client:
            found = list(client.events("small"))
        assert [event.number for event in found] == [1, 2, 3, 4, 5]
        assert found[0] == Event(1, "trial", {}, "now")
        last = [asked.headers.get("last-event-id") for asked in service.asked]
        assert last == [None, "2", "2", "3"]

    def test_pauses_grow_and_begin_anew_after_a_word(self) -> None:
        broken = stream(broken=True)
        answers = in_turn(
            *[broken] * 6, stream(sse(1), broken=True), stream(sse(2, "study", state="DELETED"))
        )
        with fake(answers) as service, service.client() as client:
            list(client.events("small"))
        assert len(service.pauses) == 7
        assert service.pauses[5] >= 5.0
        assert service.pauses[6] <= 0.5

    def test_a_service_that_is_gone_is_given_up(self) -> None:
        with (
            fake(lambda asked: stream(broken=True)) as service,
            service.client() as client,
            pytest.raises(InfrastructureError),
        ):
            list(client.events("small"))
        assert len(service.asked) == RECONNECTS + 1

    def test_errors_that_waiting_does_not_mend_are_not_retried(self) -> None:
        said = problem("not-found", 404, "there is no study named 'small'")
        with (
            fake(lambda asked: said) as service,
            service.client() as client,
            pytest.raises(MissingStudyError),
        ):
            list(client.events("small"))
        assert len(service.asked) == 1

    def test_the_past_alone(self) -> None:
        with fake(lambda asked: stream(sse(8), sse(9))) as service, service.client() as client:
            numbers = [event.number for event in client.events("small", after=7, follow=False)]
        assert numbers == [8, 9]
        assert service.asked[0].path == "/v1/studies/small/events?follow=false&after=7"

    def test_the_past_alone_never_passes_for_whole_when_it_broke_off(self) -> None:
        with (
            fake(lambda asked: stream(sse(8), broken=True)) as service,
            service.client() as client,
            pytest.raises(InfrastructureError),
        ):
            list(client.events("small", follow=False))


class TestWait:
    def test_to_the_end(self) -> None:
        """An end before the study was resumed is none."""

        def answer(asked: Asked) -> Said:
            if asked.path.endswith("/events"):
                return stream(
                    sse(1, "study", state="FAILED"),
                    sse(2, "study", state="RUNNING"),
                    sse(3, state="COMPLETE"),
                    sse(4, "study", state="COMPLETE"),
                    sse(5),
                )
            if asked.path.endswith("/report"):
                return Said('{"winner": 3}')
            return Said(json.dumps(row(event=2)))

        heard: list[int] = []
        with fake(answer) as service, service.client() as client:
            report = client.wait("small", on_event=lambda event: heard.append(event.number))
        assert report == {"winner": 3}
        assert heard == [1, 2, 3, 4]

    def test_one_that_has_ended(self) -> None:
        """Its last event need not be that of its end."""

        def answer(asked: Asked) -> Said:
            if "/events" in asked.path:
                assert "follow=false" in asked.path
                return stream(sse(1, "study", state="COMPLETE"), sse(2))
            if asked.path.endswith("/report"):
                return Said("{}")
            return Said(json.dumps(row(state="COMPLETE", event=2)))

        heard: list[int] = []
        with fake(answer) as service, service.client() as client:
            client.wait("small", on_event=lambda event: heard.append(event.number))
        assert heard == [1, 2]

    def test_one_that_is_lost(self) -> None:
        """Nobody tells of that: the client looks when there is no news."""
        rows = iter(
            [
                *[Said(json.dumps(row(state="RUNNING", event=1)))] * 2,
                problem("rate", 429),
                Said(json.dumps(row(state="LOST", event=1))),
            ]
        )

        def answer(asked: Asked) -> Said:
            if asked.path.endswith("/events"):
                return stream(sse(1), *[": keep-alive\n\n"] * 9)
            return next(rows)

        with (
            fake(answer) as service,
            service.client() as client,
            pytest.raises(InfrastructureError, match="is lost"),
        ):
            client.wait("small")

    def test_one_that_is_deleted(self) -> None:
        def answer(asked: Asked) -> Said:
            if asked.path.endswith("/events"):
                return stream(sse(1, "study", state="DELETED"))
            return Said(json.dumps(row()))

        with (
            fake(answer) as service,
            service.client() as client,
            pytest.raises(MissingStudyError, match="was deleted"),
        ):
            client.wait("small")


class TestLogs:
    def test_as_it_is(self) -> None:
        text = "one\ntwo\x0cstill two\n\nfour"
        with (
            fake(lambda asked: Said(text, form="text/plain")) as service,
            service.client() as client,
        ):
            found = list(client.trial_logs("small", 3, "benchmark", tail=4))
        assert found == ["one", "two\x0cstill two", "", "four"]
        path = "/v1/studies/small/trials/3/logs/benchmark?follow=false&tail=4"
        assert service.asked[0].path == path

    def test_followed_to_its_end(self) -> None:
        answers = in_turn(
            stream(lines(10, "a", "b"), broken=True),
            stream("id: 0\nevent: restart\ndata: {}\n\n", lines(4, "c"), broken=True),
            stream(lines(9, "d"), "event: end\ndata: {}\n\n", lines(12, "never")),
        )
        with fake(answers) as service, service.client() as client:
            assert list(client.logs("small", follow=True, tail=2)) == ["a", "b", "c", "d"]
        last = [asked.headers.get("last-event-id") for asked in service.asked]
        assert last == [None, "10", "4"]
        assert "tail=2" in service.asked[0].path
        assert "tail" not in service.asked[1].path


class TestVerbs:
    """What the command line makes of answers; see `remote`."""

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (
                {"state": "DEPLOYING", "parameters": {"max-num-seqs": 8}},
                "trial 3 DEPLOYING  max-num-seqs=8",
            ),
            (
                {"state": "BENCHMARKING", "note": "D(100,20) x 4"},
                "trial 3 BENCHMARKING  D(100,20) x 4",
            ),
            (
                {"state": "COMPLETE", "objectives": {"output_throughput": 150.0}},
                "trial 3 COMPLETE  output_throughput 150 tok/s",
            ),
            (
                {"state": "INFEASIBLE", "failure": "KV cache too small", "reason": "no room"},
                "trial 3 INFEASIBLE  KV cache too small: no room",
            ),
            (
                {"state": "COMPLETE", "repeat_of": 1, "round": 2, "objectives": {}},
                "trial 1 again (round 2) COMPLETE",
            ),
        ],
    )
    def test_events_as_lines(self, content: dict[str, Any], expected: str) -> None:
        assert remote.line(Event(1, "trial", {"number": 3, **content})) == expected

    def test_a_study_as_a_line(self) -> None:
        event = Event(1, "study", {"state": "FAILED", "reason": "no feasible trial"})
        assert remote.line(event) == "study FAILED  no feasible trial"

    @pytest.mark.parametrize(
        ("state", "code"), [("COMPLETE", 0), ("FAILED", 1), ("CANCELLED", 130)]
    )
    def test_exit_codes_are_those_of_run(self, state: str, code: int) -> None:
        assert exit_code(state) == code

    def test_an_interrupt_leaves_the_study_running(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def answer(asked: Asked) -> Said:
            raise AssertionError("nothing is asked")

        class Interrupted(Client):
            def wait(self, name: str, **_: Any) -> dict[str, Any]:
                raise KeyboardInterrupt

        with fake(answer) as service, Interrupted(service.address) as client:
            assert remote.followed(client, "small", as_json=False) == 130
            said = capsys.readouterr().err
        assert "goes on" in said
        assert f"autotuner cancel small --address {service.address}" in said

    def test_here_or_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """An address decides, the variable's too; an empty one is this machine's."""

        @click.command()
        @click.argument("name")
        @remote.or_there(lambda client, name: remote.status(client, name, as_json=False))
        def status(name: str) -> None:
            click.echo(f"{name} here")

        there = row(
            **{"reason": "", "counts": {}, "best": None, "eta": None, "running": []},
            finals={"round": 0, "launches": 0},
        )
        token = tmp_path / "token"
        token.write_text("secret\n")
        monkeypatch.delenv("AUTOTUNER_TOKEN", raising=False)
        run = CliRunner().invoke
        with fake(lambda asked: Said(json.dumps(there))) as service:
            monkeypatch.setenv("AUTOTUNER_ADDRESS", service.address)
            assert run(status, ["small"]).stdout.startswith("small: RUNNING")
            assert run(status, ["small", "--address", ""]).stdout == "small here\n"
            run(status, ["small", "--token-file", str(token)])
            monkeypatch.setenv("AUTOTUNER_TOKEN", "other")
            run(status, ["small"])
            monkeypatch.delenv("AUTOTUNER_ADDRESS")
            assert run(status, ["small"]).stdout == "small here\n"
        sent = [asked.headers.get("authorization") for asked in service.asked]
        assert sent == [None, "Bearer secret", "Bearer other"]

    def test_a_file_without_a_token(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("\n")
        done = CliRunner().invoke(
            remote.cancel, ["x", "--address", "http://a", "--token-file", str(tmp_path / "token")]
        )
        assert isinstance(done.exception, ConfigError)
        assert "no token" in str(done.exception)
