"""What the operator sets, by variables or a ``.env`` file; never by a study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from autotuner.addresses import FIRST_PORT, LAST_PORT, LOOPBACK, OWN_NAMES
from autotuner.errors import ConfigError


def without_proxy(no_proxy: str, *hosts: str) -> str:
    """A NO_PROXY with these hosts in it."""
    said = [each for each in map(str.strip, no_proxy.split(",")) if each]
    # Alone it stands for all hosts, and with others for none.
    return "*" if "*" in said else ",".join(dict.fromkeys((*said, *hosts)))


def _either(name: str, *others: str) -> AliasChoices:
    """AUTOTUNER_NAME wins over the name that everybody reads."""
    return AliasChoices(f"AUTOTUNER_{name}", *others)


def _from_here(said: str | Path) -> str:
    """A path as whoever reads the settings means it: actors work in other directories."""
    try:
        return os.path.abspath(Path(said).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{said}: {error}") from None


def _variable(place: Sequence[int | str]) -> str:
    """The variable of a setting, from the place in an error."""
    name = str(place[0]).upper()
    return name if name.startswith("AUTOTUNER_") else f"AUTOTUNER_{name}"


def _in_our_words(message: str) -> str:
    """Pydantic's, of a mistake."""
    return message.removeprefix("Value error, ").replace("Input should be", "must be", 1)


class Site(BaseModel):
    """What the operator says of the machines that trials run on.

    The driver passes it to every actor in memory. Its secrets are in no plan, store or log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    models: Path | None = None
    hub_cache: Path | None = None
    mounts: tuple[str, ...] = ()
    registry: str = ""
    ports: tuple[int, int] = (FIRST_PORT, LAST_PORT)
    http_proxy: SecretStr | None = None
    https_proxy: SecretStr | None = None
    no_proxy: SecretStr | None = None
    hf_token: SecretStr | None = None
    kube_context: str = ""
    ome_namespace: str = "autotuner"

    def environment(self) -> dict[str, str]:
        """Variables of a server that are set here, in every spelling that is read; in the clear,
        so for `Backend.start` only."""
        no_proxy = self.no_proxy
        if self.http_proxy or self.https_proxy:
            # SGLang asks itself for a first answer, through any proxy that it is told of.
            said = no_proxy.get_secret_value() if no_proxy else ""
            no_proxy = SecretStr(without_proxy(said, *OWN_NAMES))
        proxies = {
            "HTTP_PROXY": self.http_proxy,
            "HTTPS_PROXY": self.https_proxy,
            "NO_PROXY": no_proxy,
        }
        both = {n: v for name, v in proxies.items() for n in (name, name.lower())}
        tokens = dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), self.hf_token)
        found = {**both, **tokens}
        return {name: value.get_secret_value() for name, value in found.items() if value}


class Settings(BaseSettings):
    """Read once, by the command line or the API, and passed on as values."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOTUNER_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    def __init__(self, **values: Any) -> None:
        """Raises ConfigError where a variable says what it cannot."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            found = [
                ConfigError(_in_our_words(each["msg"]), where=_variable(each["loc"]))
                for each in error.errors(include_url=False, include_input=False)
            ]
            raise found[0].with_others(found[1:]) from None
        except UnicodeDecodeError as error:
            raise ConfigError("is not UTF-8", file=".env", hint="write it anew") from error

    home: Path = Field(
        default_factory=lambda: Path.home() / ".autotuner",
        description="Directory of the studies and, by default, of the database.",
    )
    store: SecretStr = Field(
        default=SecretStr(""),
        description="Database URL, such as postgresql+psycopg://user@host/autotuner; "
        "an SQLite file in `home` by default.",
    )
    aiconfigurator: Path | None = Field(
        default=None,
        description="A Python that has aiconfigurator, for `prior: {kind: aiconfigurator}`; this "
        "one by default.",
    )
    models: Path | None = Field(
        default=None,
        description="Directory of models, the same on every node; containers get it read-only.",
    )
    hub_cache: Path | None = Field(
        default=None,
        validation_alias=_either("HUB_CACHE", "HF_HOME"),
        description="Hugging Face's directory on every node, HF_HOME of servers and load "
        "generators; containers get it, to read and write.",
    )
    mounts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Further directories that containers get, read-only, at the same path; "
        "separated by commas.",
    )
    registry: str = Field(
        default="", description="Put before the names of images that name no registry."
    )
    ports: Annotated[tuple[int, int], NoDecode] = Field(
        default=(FIRST_PORT, LAST_PORT),
        description="Ports for servers, as FIRST-LAST.",
    )
    http_proxy: SecretStr | None = Field(
        default=None, validation_alias=_either("HTTP_PROXY", "HTTP_PROXY", "http_proxy")
    )
    https_proxy: SecretStr | None = Field(
        default=None, validation_alias=_either("HTTPS_PROXY", "HTTPS_PROXY", "https_proxy")
    )
    no_proxy: SecretStr | None = Field(
        default=None, validation_alias=_either("NO_PROXY", "NO_PROXY", "no_proxy")
    )
    hf_token: SecretStr | None = Field(
        default=None,
        validation_alias=_either("HF_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        description="For gated models.",
    )
    kube_context: str = Field(
        default="", description="Context of the kubeconfig; its current one by default."
    )
    ome_namespace: str = Field(
        default="autotuner", description="Namespace of InferenceServices where a study says none."
    )
    timezone: str = Field(
        default="UTC",
        validation_alias=_either("TIMEZONE", "TIMEZONE"),
        description="Of the times that are shown, such as Europe/Berlin; stored times are UTC.",
    )

    tokens: Path | None = Field(
        default=None,
        description="File of the service's tokens, see `autotuner token`; tokens.json in `home` by "
        "default.",
    )
    allow: Path | None = Field(
        default=None,
        description="YAML file of what studies may choose that come by HTTP: images, mounts, "
        "environment, programs, models.",
    )
    service_host: str = Field(
        default=LOOPBACK,
        description="Address the service listens on; any but this machine's own needs tokens.",
    )
    service_port: int = Field(default=8000, ge=1, le=65535)
    service_directory: Path | None = Field(
        default=None,
        description="Where relative paths of studies that come by HTTP begin; the directory in "
        "which the service was started by default.",
    )
    studies_at_once: int = Field(
        default=8, ge=1, description="Studies of the service that may be under way together."
    )
    requests_per_second: float = Field(
        default=100.0,
        gt=0,
        description="Requests of one caller that the service answers; twice as many in a burst.",
    )
    largest_request: int = Field(
        default=2**20, ge=1024, description="Bytes of a request's body, at most."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Other sites whose pages may use the service; by commas."
    )
    optuna_storage: SecretStr = Field(
        default=SecretStr(""),
        description="Optuna storage, a database URL, that every study is mirrored to, for "
        "optuna-dashboard.",
    )
    mlflow: SecretStr = Field(
        default=SecretStr(""), description="MLflow tracking URI that trials are logged to."
    )
    wandb: str = Field(
        default="", description="Weights & Biases project that trials are logged to."
    )

    @field_validator("mounts", "cors_origins", mode="before")
    @classmethod
    def _by_commas(cls, said: Any) -> Any:
        if not isinstance(said, str):
            return said
        return tuple(part.strip() for part in said.split(",") if part.strip())

    @field_validator("home", "models", "hub_cache", "tokens", "allow", "service_directory")
    @classmethod
    def _absolute(cls, said: Path | None) -> Path | None:
        return None if said is None else Path(_from_here(said))

    @field_validator("mounts")
    @classmethod
    def _all_absolute(cls, said: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_from_here, said))

    @field_validator("registry")
    @classmethod
    def _in_the_clear(cls, said: str) -> str:
        if "@" in said:
            raise ValueError(
                "a name or a password does not belong in it: plans and logs show it; write the "
                "registry alone, and sign in with `docker login` on each node"
            )
        if "://" in said:
            raise ValueError(f"{said!r} is a URL; write HOST or HOST/PATH, without https://")
        return said

    @field_validator("ports", mode="before")
    @classmethod
    def _first_and_last(cls, said: Any) -> Any:
        if not isinstance(said, str):
            return said
        first, _, last = said.partition("-")
        if not (first.strip().isdigit() and last.strip().isdigit()):
            raise ValueError(f"{said!r} is not FIRST-LAST, such as {FIRST_PORT}-{LAST_PORT}")
        ports = int(first), int(last)
        if not 1024 <= ports[0] <= ports[1] <= 65535:
            raise ValueError(f"{said!r} is not within 1024-65535, the first not above the last")
        return ports

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, said: str) -> str:
        try:
            ZoneInfo(said)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{said!r} is no time zone, such as Europe/Berlin") from None
        return said

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def store_url(self) -> str:
        said = self.store.get_secret_value()
        return said or f"sqlite:///{self.home.expanduser().absolute() / 'autotuner.db'}"

    @property
    def studies(self) -> Path:
        return self.home.expanduser().absolute() / "studies"

    @property
    def site(self) -> Site:
        """The part that trials need."""
        return Site(**{name: getattr(self, name) for name in Site.model_fields})
