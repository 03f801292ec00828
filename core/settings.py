"""Settings that two or more programs share, in small immutable groups read from the environment."""

import math
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
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
        wrong = [
            f"\n  {prefix}{one['loc'][0]}".upper() + f": {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        raise SystemExit(f"Settings are wrong; see docs/configuration.md.{''.join(wrong)}") from None


class DatabaseSettings(SettingsGroup):
    """Where the platform's Postgres is."""

    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    url: SecretStr = Field(description="Postgres address: postgresql://user:password@host:port/database.")
    pool_size: int = Field(10, ge=1, description="Maximum number of connections that one process keeps open.")
    statement_timeout_seconds: int = Field(
        60, ge=1, description="Postgres cancels a statement that runs longer than this."
    )

    prepare_statements: bool = Field(
        True,
        description="Whether statements are prepared. Set it to false behind a PgBouncer in transaction mode.",
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

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    format: Literal["json", "console"] = Field(
        "json", description="`json` for log collectors, `console` for terminals."
    )


class TracingSettings(SettingsGroup):
    """Where OpenTelemetry's spans go; the names of the variables are OpenTelemetry's own."""

    model_config = SettingsConfigDict(env_prefix="OTEL_")

    exporter_otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Address of the trace collector, OTLP over HTTP, such as `http://collector:4318`. Empty: no "
        "traces.",
    )
    exporter_otlp_headers: SecretStr | None = Field(
        None,
        description="Headers for the collector, such as `authorization=Bearer%20KEY`. The exporter reads them "
        "itself.",
    )
    traces_sampler_arg: float = Field(
        1,
        ge=0,
        le=1,
        description="Share of texts and requests that are traced. All programs trace the same texts.",
    )

    @field_validator("exporter_otlp_endpoint", mode="before")
    @classmethod
    def _empty_is_none(cls, endpoint: object) -> object:
        return endpoint or None


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests a second on average, and requests in a burst."""

    requests_per_second: float
    burst: int

    @classmethod
    def of(cls, requests_per_second: float | None, burst: int | None) -> "Limit | None":
        """Make a limit of stored or configured values: no rate, no limit. Default burst: one second's."""
        if requests_per_second is None:
            return None
        return cls(requests_per_second, burst or math.ceil(requests_per_second))


class AccessSettings(SettingsGroup):
    """Who may call the APIs."""

    require_api_key: bool = Field(
        True, description="Whether each request needs an API key. `false` is allowed only on loopback addresses."
    )
    rate_limit_requests_per_second: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Requests per second that each API key may send to one process of an API. A key's own limit "
        "overrides it. Empty: no limit.",
    )
    rate_limit_burst: int | None = Field(
        None, ge=1, description="Requests that a key may send in one burst. Default: one second's."
    )
    client_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Maximum share of each limited resource that one client may hold in one process; above it, "
        "the API answers 429. A client is an API key, or an address where no keys are required. "
        "Limited resources are bulk uploads, imports, exports, waiting queries, waiting clients and "
        "snapshots in the making.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Bearer token that `/metrics` requires. Empty: `/metrics` is open.",
    )

    @field_validator("rate_limit_burst")
    @classmethod
    def _belongs_to_a_rate(cls, burst: int | None, info: ValidationInfo) -> int | None:
        if burst is not None and info.data.get("rate_limit_requests_per_second") is None:
            raise ValueError("limits nothing without RATE_LIMIT_REQUESTS_PER_SECOND")
        return burst

    @property
    def limit(self) -> Limit | None:
        """The limit of keys without one of their own."""
        return Limit.of(self.rate_limit_requests_per_second, self.rate_limit_burst)


_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


def _split(listed: str | None) -> list[str]:
    return [one.strip() for one in (listed or "").split(",") if one.strip()]


class HttpSettings(SettingsGroup):
    """What a client may ask of a server before its request is known."""

    model_config = SettingsConfigDict(env_prefix="HTTP_")

    connections: int = Field(
        4096, ge=1, description="Maximum number of connections of one process; further ones get 503."
    )
    head_bytes: int = Field(
        65536,
        ge=8192,
        description="Maximum size of the request line and the headers together; longer ones get 431.",
    )
    head_seconds: float = Field(
        10,
        gt=0,
        description="Time limit for a request's headers (408). It starts when the connection opens, or at the "
        "first byte of a later request.",
    )
    body_seconds: float = Field(30, gt=0, description="Longest pause within a request's body (408).")
    body_bytes_per_second: int = Field(
        1024,
        ge=0,
        description="Minimum average speed of a request's body (408), measured over each HTTP_BODY_RATE_SECONDS "
        "in which the server is ready to read. 0: no minimum.",
    )
    body_rate_seconds: float = Field(
        30, gt=0, description="Period over which the average speed of a body is measured."
    )
    idle_seconds: int = Field(
        75,
        ge=1,
        description="An idle connection is closed after this time. It should exceed the idle timeout of a proxy.",
    )
    hosts: str | None = Field(
        None,
        description="Host names, separated by commas, of a service without API keys, in addition to `localhost`, "
        "`127.0.0.1` and `[::1]`. Requests with another `Host`, and writes with another `Origin`, get"
        " 403. Services that require keys ignore this setting.",
    )

    cors_origins: str | None = Field(
        None,
        description="Origins, separated by commas, whose web pages may call the API (CORS), such as "
        "`https://annotate.example`. Empty: none. Their requests still need keys.",
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: str | None) -> str | None:
        for origin in _split(origins):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: scheme, host and port only, as https://annotate.example"
                )
        return origins

    @property
    def allowed_origins(self) -> list[str]:
        """The origins in `cors_origins`."""
        return _split(self.cors_origins)

    @property
    def allowed_hosts(self) -> list[str]:
        """The names in `hosts`."""
        return _split(self.hosts)


class DatasetsFileSettings(SettingsGroup):
    """Where the datasets are defined."""

    datasets_file: Path | None = Field(
        None, description="TOML file that defines the datasets. Empty: only the dataset `toxicity`."
    )


class ForgetSettings(SettingsGroup):
    """When a forget request takes too long."""

    model_config = SettingsConfigDict(env_prefix="FORGET_")

    alert_seconds: int = Field(
        3600, ge=1, description="A forget request that takes longer than this raises an alert."
    )


class ArgillaSettings(SettingsGroup):
    """Where Argilla is."""

    model_config = SettingsConfigDict(env_prefix="ARGILLA_")

    url: str = Field("http://127.0.0.1:6900", description="Address of the Argilla server.")
    api_key: SecretStr = Field(description="API key of an Argilla owner.")
    workspace: str = Field(
        "annotation",
        description="Argilla workspace of the datasets. Disputed texts are in `…_adjudication`.",
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
