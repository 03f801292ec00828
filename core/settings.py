"""Settings that two or more programs share, in small immutable groups read from the environment."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsGroup(BaseSettings):
    """Base of every settings group: immutable, from environment variables, documented in docs/configuration.md."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


Group = TypeVar("Group", bound=SettingsGroup)


def read_settings(kind: type[Group]) -> Group:
    """Read a group from the environment.

    Raises:
        SystemExit: names every variable that is missing or wrong.
    """
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        wrong = [f"{prefix}{e['loc'][0]}: {e['msg']}".replace("Value error, ", "") for e in error.errors()]
        names = "\n".join(f"  {line.split(':', 1)[0].upper()}:{line.split(':', 1)[1]}" for line in wrong)
        raise SystemExit(f"Settings are wrong; see docs/configuration.md.\n{names}") from None


class DatabaseSettings(SettingsGroup):
    """Where the platform's Postgres is."""

    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    url: SecretStr = Field(description="Postgres address: postgresql://user:password@host:port/database.")
    pool_size: int = Field(10, ge=1, description="Connections that one process keeps open at most.")
    statement_timeout_seconds: int = Field(
        60, ge=1, description="Postgres ends a statement of a program that runs longer."
    )

    prepare_statements: bool = Field(
        True,
        description="Whether statements are prepared; false behind a PgBouncer that pools transactions.",
    )

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql://")
        return url

    @property
    def prepare_threshold(self) -> int | None:
        """After how many runs psycopg prepares a statement; None: never."""
        return 5 if self.prepare_statements else None

    @property
    def libpq_url(self) -> str:
        """The address as libpq, psycopg and ADBC take it. Holds the password: never log it."""
        return self.url.get_secret_value()

    @property
    def sqlalchemy_url(self) -> str:
        """The address as SQLAlchemy takes it, with psycopg as the driver. Holds the password: never log it."""
        return "postgresql+psycopg://" + self.libpq_url.split("://", 1)[1]


class LogSettings(SettingsGroup):
    """What the programs log, and how."""

    model_config = SettingsConfigDict(env_prefix="LOG_")

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")
    format: Literal["json", "console"] = Field(
        "json", description="`json` for machines, `console` for people at a terminal."
    )


class AccessSettings(SettingsGroup):
    """Who may call the APIs."""

    require_api_key: bool = Field(
        True, description="Whether each call needs an API key; false is allowed on loopback addresses only."
    )


class DatasetsFileSettings(SettingsGroup):
    """Where the datasets are defined."""

    datasets_file: Path | None = Field(
        None, description="TOML file that defines the datasets; without it there is `toxicity` only."
    )


class ArgillaSettings(SettingsGroup):
    """Where Argilla is."""

    model_config = SettingsConfigDict(env_prefix="ARGILLA_")

    url: str = Field("http://127.0.0.1:6900", description="Address of the Argilla server.")
    api_key: SecretStr = Field(description="API key of an Argilla owner.")
    workspace: str = Field(
        "annotation",
        description="Argilla workspace that holds the datasets; disputed texts are in `…_adjudication`.",
    )

    @property
    def adjudication_workspace(self) -> str:
        """The workspace of the disputed texts: annotators are no members of it."""
        return f"{self.workspace}_adjudication"

    @field_validator("api_key")
    @classmethod
    def _is_not_the_quickstart_key(cls, key: SecretStr) -> SecretStr:
        if key.get_secret_value() in {"", "argilla.apikey", "owner.apikey", "admin.apikey"}:
            raise ValueError("is empty or a published quick-start key: generate one")
        return key


def refuse_open_bind(host: str, access: AccessSettings) -> None:
    """Stop a program that would answer strangers without a key.

    Raises:
        SystemExit: keys are not required and `host` is not a loopback address.
    """
    if not access.require_api_key and not is_loopback(host):
        raise SystemExit(
            f"REQUIRE_API_KEY=false is allowed on loopback addresses only, not on {host}. "
            "Set REQUIRE_API_KEY=true, or bind to 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
