"""What the operator sets, by ``AUTOTUNER_*`` variables or a ``.env`` file; never by a study."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once, by the command line or the API, and passed on as values."""

    model_config = SettingsConfigDict(env_prefix="AUTOTUNER_", env_file=".env", extra="ignore")

    home: Path = Field(
        default_factory=lambda: Path.home() / ".autotuner",
        description="Directory of the studies and, by default, of the database.",
    )
    store: str = Field(
        default="",
        description="Database URL, such as postgresql+psycopg://user@host/autotuner; "
        "an SQLite file in `home` by default.",
    )

    aiconfigurator: Path | None = Field(
        default=None,
        description="A Python that has aiconfigurator, for `prior: {kind: aiconfigurator}`; this "
        "one by default.",
    )

    @property
    def store_url(self) -> str:
        return self.store or f"sqlite:///{self.home.expanduser().absolute() / 'autotuner.db'}"

    @property
    def studies(self) -> Path:
        return self.home.expanduser().absolute() / "studies"
