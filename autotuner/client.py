"""A client of the service, with the verbs of the command line; it needs nothing else of autotuner.

    with Client("http://127.0.0.1:8000") as client:
        row = client.submit(Path("study.yaml"))
        report = client.wait(row["name"], on_event=print)

Errors are those of the same call made locally: `ConfigError` with places and allowed values,
`StudyStateError`, `InfrastructureError` where the service does not answer.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypeAlias, TypedDict, cast
from urllib.parse import quote, urlsplit

from autotuner.addresses import is_loopback
from autotuner.errors import (
    AutotunerError,
    ConfigError,
    InfrastructureError,
    MissingStudyError,
    StudyStateError,
    TooManyStudiesError,
)

if TYPE_CHECKING:
    import httpx  # its import costs more than all of `autotuner check`'s errors

Json: TypeAlias = dict[str, Any]

ENDED = ("COMPLETE", "FAILED", "CANCELLED")
"""States in which a study stays until somebody resumes or restarts it."""

DELETED = "DELETED"
"""State in the last event of a study that is no more."""

TIMEOUT_SECONDS = 60.0
"""For an answer; a report of a thousand trials takes one or two."""

SILENCE_SECONDS = 45.0
"""Three of the service's keep-alives: a stream silent for longer has lost its other end."""

RECONNECTS = 14
"""Attempts in a row, without a word in between, before a stream is given up: one or two minutes
where connections are refused, in which a replica is started anew, and ten where nobody answers."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the first and before later attempts."""

PER_PAGE = 200

PROBLEM = "urn:autotuner:problem:"
"""Beginning of the type of the service's own problems."""


class UnauthorizedError(ConfigError):
    """The service wants a token, or does not know the one that was sent."""


class ForbiddenError(ConfigError):
    """The token's role does not allow what was asked."""


class Objective(TypedDict):
    """What a study makes better; `better`: ``higher`` or ``lower``."""

    name: str
    unit: str
    better: str


class Best(TypedDict):
    """The best trial so far, and its first objective."""

    number: int
    value: float | None


class Row(TypedDict):
    """A study in one line.

    `state` is PENDING, STARTING, RUNNING, COMPLETE, FAILED, CANCELLED or LOST; `counts` holds
    trials by state; `gain` of the first objective over the baseline, 0.25 is 25 %; `seconds` and
    `eta` in seconds; times in ISO 8601, UTC; `event` is the number of the study's last event.
    """

    name: str
    team: str
    description: str
    state: str
    reason: str
    model: str
    engine: str
    backend: str
    objectives: list[Objective]
    counts: dict[str, int]
    blocks: list[Json]
    more: int
    running: list[Json]
    finals: Json
    budget: int | None
    best: Best | None
    baseline: float | None
    gain: float | None
    seconds: float | None
    eta: float | None
    created_at: str
    started_at: str
    ended_at: str
    event: int
    notes: NotRequired[list[str]]
    """What the service changed in reading it; when it has just been submitted or edited."""


class Detail(Row):
    """A study with what was asked: `spec` as stored, `yaml` as it can be edited; `command` is the
    winner's launch line, or empty."""

    spec: Json
    yaml: str
    job: str
    driver: str
    command: str
    directory: str


@dataclass(frozen=True)
class Event:
    """A change of a study, or of one of its trials.

    Attributes:
        number: from 1, in order; numbers of a study are never given twice.
        kind: ``study`` or ``trial``.
        content: of a study its `state` and `reason`; of a trial its `number`, `state`,
            `parameters`, `objectives`, `reason` and more.
        at: ISO 8601, UTC.
    """

    number: int
    kind: str
    content: Json
    at: str = ""


Study: TypeAlias = Mapping[str, Any] | str | Path
"""A study to send: its content, the text of its file in YAML or JSON, or the path of its file,
which is sent as it is, so that comments survive. A task of the earlier system will do too."""


@dataclass(frozen=True)
class Message:
    """A server-sent event: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    id: str
    event: str
    data: str


class Client:
    """The service at an address.

    Args:
        address: such as ``https://tuner.example.com``; a path behind it is kept, but for a last
            ``/v1``, under which every call is anyway.
        token: of a service that wants one.
        timeout: seconds for an answer; streams take as long as they take.
        pause: waits that many seconds between two attempts to go on with a stream.

    Raises:
        ConfigError: the address is none.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx

        host = _host(address)
        self.address = address.rstrip("/").removesuffix("/v1").rstrip("/")
        self._pause = pause
        self._http = httpx.Client(
            base_url=self.address + "/",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout,
            # What is on this machine is not reached through a proxy.
            trust_env=not is_loopback(host),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def page(self, name: str) -> str:
        """Address of a study's page, for a browser."""
        return f"{self.address}/#/studies/{quote(name, safe='')}"

    # Studies.

    def studies(
        self,
        *,
        state: str | None = None,
        engine: str | None = None,
        query: str | None = None,
        sort: str = "-created_at",
    ) -> list[Row]:
        """All studies, or those of a state, of an engine, or with these words."""
        asked = {"state": state, "engine": engine, "q": query, "sort": sort}
        return list(self._pages("v1/studies", asked))

    def study(self, name: str) -> Detail:
        return cast(Detail, self._json("GET", _study(name)))

    def submit(
        self,
        study: Study,
        *,
        start: bool = True,
        name: str | None = None,
        restart: bool = False,
    ) -> Row:
        """Store a new study and have it run.

        Args:
            name: of the study, instead of its own.
            restart: put it in the place of one of that name that is not under way, whose results
                are deleted.

        Raises:
            ConfigError: it cannot be used as it is.
            StudyStateError: its name is taken, or too many studies are under way.
        """
        notes: list[str] = []
        if name is not None or restart:
            read = self.convert(study)
            if read["content"] is not None:  # else the service says what is wrong with it
                notes = read["notes"]
                name = read["content"].get("name") if name is None else name
                # As it is written where it can be: mistakes are then found with their lines.
                if notes or name != read["content"].get("name"):
                    study = {**read["content"], "name": name}
        if restart and isinstance(name, str) and self._is_there(name):
            row = self.edit(name, study)
            notes += row.get("notes", [])
            row = self.start(name) if start else row
        else:
            row = self._row("POST", "v1/studies", {"start": start}, sent=study)
            notes += row.get("notes", [])
        row["notes"] = notes
        return row

    def edit(self, name: str, study: Study) -> Row:
        """Put another study in the place of one that is not under way; deletes its results."""
        return self._row("PUT", _study(name), sent=study)

    def delete(self, name: str) -> None:
        """Delete a study that is not under way, with its results and files."""
        self._answer("DELETE", _study(name))

    def start(self, name: str) -> Row:
        """Have a PENDING study run."""
        return self._row("POST", _study(name, "start"))

    def cancel(self, name: str) -> Row:
        """Have a study end in order; what was measured is kept."""
        return self._row("POST", _study(name, "cancel"))

    def resume(self, name: str) -> Row:
        """Have a study go on that was cancelled, failed, was lost or was ended by its limits."""
        return self._row("POST", _study(name, "resume"))

    def restart(self, name: str) -> Row:
        """Have an ended study run from its beginning; deletes its results."""
        return self._row("POST", _study(name, "restart"))

    def duplicate(self, name: str) -> Row:
        """A new study that asks the same, under a name of its own."""
        return self._row("POST", _study(name, "duplicate"))

    def plan(self, study: Study | None = None, *, name: str | None = None) -> Json:
        """What a study would do, a given one or that of a name; starts and stores nothing."""
        if (study is None) == (name is None):
            raise ConfigError("a plan is either of a study or of the name of one")
        if name is not None:
            return self._json("GET", _study(name, "plan"))
        return self._json("POST", "v1/plan", sent=study)

    def convert(self, study: Study) -> Json:
        """A study, or a task of the earlier system, as content and as YAML, with its problems."""
        content = {"content": dict(study)} if isinstance(study, Mapping) else {"yaml": _text(study)}
        return self._json("POST", "v1/convert", sent=content)

    def report(self, name: str) -> Json:
        """A study, its trials and its verdict, as `autotuner report --json` prints them."""
        return self._json("GET", _study(name, "report"))

    def report_page(self, name: str) -> str:
        """The report as a page of HTML."""
        return self._answer("GET", _study(name, "report"), {"format": "html"}).text

    def export(self, name: str, form: str = "command", *, trial: int | None = None) -> str:
        """The launch of the winner, or of another trial.

        Args:
            form: ``command``, ``args``, ``docker``, ``compose``, ``ome``, ``json`` or ``study``.
        """
        query = {"format": form, "trial": trial}
        return self._answer("GET", _study(name, "export"), query).text

    # What happens.

    def events(self, name: str, *, after: int = 0, follow: bool = True) -> Iterator[Event]:
        """What happened to a study from the event after that number, and what happens.

        Goes on after a broken connection, without gap or repeat. Ends when the study is deleted,
        or with what is past where it does not `follow`.

        Raises:
            InfrastructureError: the service has not answered for a minute or two; ten, where it
                takes connections and says nothing.
        """
        for event in self._events(name, after, follow):
            if event is not None:
                yield event

    def wait(
        self,
        name: str,
        *,
        on_event: Callable[[Event], None] = lambda event: None,
        after: int = 0,
    ) -> Json:
        """Follow a study to its end; its report.

        Args:
            on_event: hears of every event after that number, past ones too.

        Raises:
            MissingStudyError: it was deleted meanwhile.
            InfrastructureError: it is lost: whoever ran it is gone.
        """
        row = self.study(name)
        over = row["state"] in ENDED
        for event in self._events(name, after, follow=not over):
            if event is None:  # a time without news: what is lost tells nobody
                self._refuse_if_lost(name)
                continue
            on_event(event)
            state = event.content.get("state")
            if event.kind != "study" or event.number < row["event"]:
                continue  # an earlier end is past: it was resumed
            if state == DELETED:
                raise MissingStudyError(f"study {name!r} was deleted")
            if state in ENDED:
                break
        return self.report(name)

    def logs(self, name: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """Lines of a study's own log, of the whole of it or of its end; and those to come."""
        return self._log(_study(name, "logs"), follow, tail)

    def trial_logs(
        self,
        name: str,
        number: int,
        source: str = "server",
        *,
        follow: bool = False,
        tail: int | None = None,
    ) -> Iterator[str]:
        """Lines of a trial's log.

        Args:
            source: ``server``, ``benchmark``, or ``trial`` for its own story.
        """
        return self._log(_study(name, "trials", str(number), "logs", source), follow, tail)

    # Trials.

    def trials(self, name: str, *, state: str | None = None) -> list[Json]:
        """The trials of a study by number, as in its report."""
        return list(self._pages(_study(name, "trials"), {"state": state}))

    def trial(self, name: str, number: int) -> Json:
        """One trial, with its command, plan, telemetry and files."""
        return self._json("GET", _study(name, "trials", str(number)))

    def timeline(self, *, hours: float = 24, study: str | None = None) -> Json:
        """Which trials ran where and when."""
        return self._json("GET", "v1/timeline", {"hours": hours, "study": study})

    # Presets, engines, the service.

    def presets(self, *, engine: str | None = None, category: str | None = None) -> list[Json]:
        query = {"engine": engine, "category": category}
        found: list[Json] = self._json("GET", "v1/presets", query)["items"]
        return found

    def preset(self, name: str) -> Json:
        return self._json("GET", _preset(name))

    def create_preset(self, preset: Mapping[str, Any]) -> Json:
        return self._json("POST", "v1/presets", sent=preset)

    def edit_preset(self, name: str, changes: Mapping[str, Any]) -> Json:
        """Change what is given of one's own preset, its name too; the rest stays."""
        return self._json("PATCH", _preset(name), sent=changes)

    def delete_preset(self, name: str) -> None:
        self._answer("DELETE", _preset(name))

    def import_presets(
        self, presets: Mapping[str, Any] | str | Path, *, replace: bool = False
    ) -> Json:
        """Store presets, from a file's text, a file or content; says which were skipped.

        Args:
            replace: those of the same name, instead of skipping them.
        """
        return self._json("POST", "v1/presets/import", {"replace": replace}, sent=presets)

    def export_presets(self, names: Sequence[str] = ()) -> str:
        """Presets as a file."""
        return self._answer("GET", "v1/presets/export", {"name": list(names)}).text

    def merge_presets(
        self,
        names: Sequence[str],
        *,
        how: str = "union",
        space: Mapping[str, Any] | None = None,
    ) -> Json:
        """Presets merged into one space, with the conflicts between them.

        Args:
            how: ``union``, ``intersection`` or ``last_wins``.
        """
        asked: Json = {"names": list(names), "how": how}
        return self._json(
            "POST", "v1/presets/merge", sent=asked if space is None else {**asked, "space": space}
        )

    def engines(self) -> list[Json]:
        """The engines, with the versions whose flags are known."""
        found: list[Json] = self._json("GET", "v1/engines")["items"]
        return found

    def flags(
        self,
        engine: str,
        version: str,
        *,
        query: str | None = None,
        commonly_tuned: bool | None = None,
    ) -> list[Json]:
        path = f"v1/engines/{quote(engine, safe='')}/{quote(version, safe='')}/flags"
        asked = {"q": query, "commonly_tuned": commonly_tuned}
        found: list[Json] = self._json("GET", path, asked)["flags"]
        return found

    def compatibility(self, one: str, other: str) -> Json:
        """Which flags two engines share, and how they differ."""
        return self._json("GET", "v1/engines/compatibility", {"one": one, "other": other})

    def validate(self, engine: str, version: str, name: str, value: Any) -> Json:
        """Whether a flag takes a value; what is wrong with it, and what may be meant."""
        path = f"v1/engines/{quote(engine, safe='')}/{quote(version, safe='')}/validate"
        return self._json("POST", path, sent={"name": name, "value": value})

    def cluster(self) -> Json:
        """Nodes, GPUs, who holds them and who waits."""
        return self._json("GET", "v1/cluster")

    def metrics(self) -> str:
        """The service's own metrics, as Prometheus reads them."""
        return self._answer("GET", "metrics").text

    def version(self) -> Json:
        """Of the service, its Python, its Ray."""
        return self._json("GET", "v1/version")

    def me(self) -> Json:
        """Who the service takes this client for: name and role."""
        return self._json("GET", "v1/me")

    # How it is done.

    def _is_there(self, name: str) -> bool:
        try:
            self.study(name)
        except MissingStudyError:
            return False
        return True

    def _refuse_if_lost(self, name: str) -> None:
        try:
            state = self.study(name)["state"]
        except InfrastructureError:
            return  # one moment's; should it last, the stream breaks, and says so
        if state == "LOST":
            raise InfrastructureError(
                f"study {name!r} is lost: what ran it is gone; resume it to go on with its trials"
            )

    def _pages(self, path: str, query: Mapping[str, Any]) -> Iterator[Any]:
        page, seen = 1, 0
        while True:
            found = self._json("GET", path, {**query, "page": page, "per_page": PER_PAGE})
            yield from found["items"]
            seen += len(found["items"])
            if not found["items"] or seen >= found["total"]:
                return
            page += 1

    def _row(self, verb: str, path: str, query: Json | None = None, **sent: Study) -> Row:
        return cast(Row, self._json(verb, path, query, **sent))

    def _json(
        self,
        verb: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        sent: Study | None = None,
    ) -> Json:
        answer = self._answer(verb, path, query, sent=sent)
        try:
            return cast(Json, answer.json())
        except ValueError:
            raise _stranger(self.address, answer.status_code) from None

    def _answer(
        self,
        verb: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        sent: Study | None = None,
    ) -> httpx.Response:
        with self._reached():
            answer = self._http.request(verb, path, params=_known(query), **_body(sent))
        file = str(sent) if isinstance(sent, Path) else ""
        self._refuse(answer.status_code, answer.headers, answer.content, file)
        return answer

    def _refuse(
        self, status: int, headers: Mapping[str, str], content: bytes, file: str = ""
    ) -> None:
        if not 200 <= status < 300:
            raise error_of(self.address, status, headers, content, file)

    def _log(self, path: str, follow: bool, tail: int | None) -> Iterator[str]:
        if not follow:
            query = {"follow": False, "tail": tail}
            with self._stream(path, query, {}) as chunks:
                yield from _lines(chunks)
            return
        for message in self._follow(path, {"follow": True, "tail": tail}, ""):
            if message is not None and message.event == "lines":
                yield from json.loads(message.data)
            if message is not None and message.event == "end":
                return

    def _events(self, name: str, after: int, follow: bool) -> Iterator[Event | None]:
        """Events; None where the service says that there is no news."""
        path, last = _study(name, "events"), after
        if not follow:
            messages: Iterable[Message | None] = self._past(path, after)
        else:
            messages = self._follow(path, {}, str(after) if after else "")
        for message in messages:
            if message is None:
                yield None
                continue
            event = _event(message)
            if event.number <= last:
                continue  # a proxy may send again what was read
            last = event.number
            yield event
            if event.kind == "study" and event.content.get("state") == DELETED:
                return

    def _past(self, path: str, after: int) -> Iterator[Message | None]:
        query = {"follow": False, "after": after or None}
        with self._stream(path, query, {}) as chunks:
            yield from messages(chunks)

    def _follow(self, path: str, query: Mapping[str, Any], last: str) -> Iterator[Message | None]:
        """Messages of a stream that is taken up where it broke off, until whoever reads has read
        enough."""
        silent = 0
        while True:
            broken = f"{self.address} ends its answers before their end"
            try:
                headers = {"Last-Event-ID": last} if last else {}
                with self._stream(path, query, headers) as chunks:
                    for message in messages(chunks):
                        silent = 0
                        last = last if message is None else message.id or last
                        yield message
            except InfrastructureError as error:
                broken = str(error)
            silent += 1
            if silent > RECONNECTS:
                raise InfrastructureError(broken)
            self._pause(_pause_before(silent))
            if last:  # what the tail left out must stay so
                query = {name: value for name, value in query.items() if name != "tail"}

    @contextmanager
    def _stream(
        self, path: str, query: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Iterator[Iterator[bytes]]:
        with (
            self._reached(),
            self._http.stream(
                "GET", path, params=_known(query), headers=dict(headers), timeout=SILENCE_SECONDS
            ) as answer,
        ):
            if not 200 <= answer.status_code < 300:
                self._refuse(answer.status_code, answer.headers, answer.read())
            yield answer.iter_bytes()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.TimeoutException as error:
            raise InfrastructureError(
                f"{self.address} does not answer in time ({type(error).__name__})"
            ) from error
        except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as error:
            said = str(error) or type(error).__name__
            raise InfrastructureError(
                f"{self.address} cannot be reached: {said}\n"
                "  is the service running there? see autotuner serve"
            ) from error


def error_of(
    address: str, status: int, headers: Mapping[str, str], content: bytes, file: str = ""
) -> AutotunerError:
    """The error that an answer tells of, as the same call made locally would have raised it.

    Args:
        file: that was sent, for the places in it.
    """
    problem = _problem(content)
    known, _, kind = str(problem.get("type", "")).rpartition(":")
    if f"{known}:" != PROBLEM:
        return _stranger(address, status)
    detail = str(problem.get("detail") or problem.get("title") or status)
    if kind in ("config", "invalid"):
        return _mistakes(problem, detail, file)
    if kind == "unauthorized":
        hint = "give it in the variable AUTOTUNER_TOKEN, or its file by --token-file"
        return UnauthorizedError(detail, where=address, hint=hint)
    if kind == "forbidden":
        return ForbiddenError(detail, where=address, hint="ask the operator for another token")
    if kind == "too-many":
        return TooManyStudiesError(detail)
    if kind == "study-state":
        return StudyStateError(detail)
    if kind == "not-found":
        return MissingStudyError(detail)
    if kind == "infrastructure":
        return InfrastructureError(detail)
    if kind == "rate":
        again = headers.get("retry-after", "")
        return InfrastructureError(detail + (f"; ask again in {again} s" if again else ""))
    return ConfigError(detail, where=address)


def messages(chunks: Iterable[bytes]) -> Iterator[Message | None]:
    """The server-sent events in a stream of bytes; None for a comment, which keeps it alive."""
    fields: dict[str, list[str]] = {}
    for line in _lines(chunks):
        if not line:
            if "data" in fields:
                id, event = (fields.get(name, [""])[-1] for name in ("id", "event"))
                yield Message(id, event, "\n".join(fields["data"]))
            fields = {}
        elif line.startswith(":"):
            yield None
        else:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines by line feeds only: a log may hold what else Unicode knows to end a line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
    if rest:
        yield rest.decode("utf-8", errors="replace")


def _event(message: Message) -> Event:
    content = json.loads(message.data)
    return Event(int(message.id), message.event, content, content.pop("at", ""))


def _pause_before(attempt: int) -> float:
    """Longer each time, and not the same for all who lost the same service."""
    longest = min(FIRST_PAUSE * 2.0 ** (attempt - 1), LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)


def _study(name: str, *below: str) -> str:
    if not name.strip("."):  # would be another address
        raise MissingStudyError(f"there is no study named {name!r}; a name has more than dots")
    return "/".join(["v1/studies", *(quote(part, safe="") for part in (name, *below))])


def _preset(name: str) -> str:
    return f"v1/presets/{quote(name)}"


def _known(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _body(sent: Study | None) -> dict[str, Any]:
    if sent is None:
        return {}
    if isinstance(sent, Mapping):
        return {"json": dict(sent)}
    is_json = isinstance(sent, Path) and sent.suffix == ".json"
    form = "application/json" if is_json else "application/yaml"
    return {"content": _text(sent).encode(), "headers": {"Content-Type": form}}


def _text(study: str | Path) -> str:
    if isinstance(study, str):
        return study
    try:
        return study.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(error.strerror or "cannot be read", file=str(study)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", file=str(study)) from error


def _problem(content: bytes) -> Json:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _mistakes(problem: Json, detail: str, file: str) -> ConfigError:
    found = [
        ConfigError(
            each.get("problem", ""),
            where=each.get("where", ""),
            file=file,
            line=each.get("line"),
            allowed=each.get("allowed") or (),
            hint=each.get("hint") or "",
        )
        for each in problem.get("errors") or ()
    ]
    return found[0].with_others(found[1:]) if found else ConfigError(detail, file=file)


def _stranger(address: str, status: int) -> AutotunerError:
    """What is said of an answer that is not the service's own."""
    if status >= 500:
        return InfrastructureError(f"{address} answers {status}; what is before the service?")
    return ConfigError(
        f"answers {status}, and not as autotuner's service does",
        where=address,
        hint="give the address that autotuner serve prints",
    )


def _host(address: str) -> str:
    """Raises ConfigError where an address is none, or holds a password."""
    try:
        parts = urlsplit(address)
        host, secret = parts.hostname or "", parts.username or parts.password
        valid = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        valid, host, secret = False, "", None
    if secret:
        raise ConfigError("the address holds a user or a password; give a token instead")
    if not valid or parts.query or parts.fragment:
        raise ConfigError(
            f"{address!r} is no address of a service", hint="such as http://127.0.0.1:8000"
        )
    return host
