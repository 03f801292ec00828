"""Settings of the local stack, from environment variables of the same names in capitals."""

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from local_stack import StackError

# The OpenSearch runner refuses every HTTP port above this one.
HIGHEST_OPENSEARCH_PORT = 9299

Port = int


class StackSettings(BaseSettings):
    """Where the stack keeps its files and which ports it answers on; 127.0.0.1 only."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    data_dir: Path = Field(
        Path(".data"), description="Directory of one stack's data, logs and generated credentials."
    )
    cache_dir: Path = Field(
        Path("~/.cache/annotation-platform"),
        description="Directory of downloads that all stacks on this machine share.",
    )
    ingestion_port: Port = Field(8080, ge=1, le=65535, description="Port of the ingestion API.")
    serving_port: Port = Field(9000, ge=1, le=65535, description="Port of the serving API.")
    uploader_port: Port = Field(8081, ge=1, le=65535, description="Port of the uploader's health and metrics.")
    argilla_port: Port = Field(6900, ge=1, le=65535, description="Port of Argilla's server and web pages.")
    postgres_port: Port = Field(15433, ge=1, le=65535, description="Port of Postgres.")
    redis_port: Port = Field(16380, ge=1, le=65535, description="Port of Redis.")
    opensearch_port: Port = Field(
        9219, ge=2, le=HIGHEST_OPENSEARCH_PORT, description="HTTP port of OpenSearch; 9299 at most."
    )
    opensearch_transport_port: Port = Field(
        9319, ge=1, le=65535, description="Port for connections between OpenSearch nodes. There is only one node."
    )
    opensearch_heap_mb: int = Field(512, ge=256, description="Java heap of OpenSearch, in MiB.")
    open: bool = Field(
        False, description="Whether `make up` opens the dashboard and the upload page in a browser."
    )
    min_free_disk_mb: int = Field(
        1024, ge=0, description="Free disk space, in MiB, that the stack requires at its start."
    )

    @field_validator("data_dir", "cache_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().resolve()

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        owners: dict[int, str] = {}
        for name, port in self.ports.items():
            if port in owners:
                raise ValueError(f"{name} and {owners[port]} are both {port}: give each a port of its own")
            owners[port] = name
        return self

    @property
    def ports(self) -> dict[str, int]:
        """Every port by the name of its environment variable."""
        return {name.upper(): getattr(self, name) for name in type(self).model_fields if name.endswith("_port")}

    @property
    def logs_dir(self) -> Path:
        """Directory of the components' logs."""
        return self.data_dir / "logs"

    @property
    def ingestion_url(self) -> str:
        """Address of the ingestion API."""
        return f"http://127.0.0.1:{self.ingestion_port}"

    @property
    def serving_url(self) -> str:
        """Address of the serving API."""
        return f"http://127.0.0.1:{self.serving_port}"

    @property
    def uploader_url(self) -> str:
        """Address of the uploader's health and metrics."""
        return f"http://127.0.0.1:{self.uploader_port}"

    @property
    def argilla_url(self) -> str:
        """Address of Argilla."""
        return f"http://127.0.0.1:{self.argilla_port}"


def load_settings() -> StackSettings:
    """Read the settings from the environment.

    Raises:
        StackError: a setting is wrong; the message names each.
    """
    try:
        return StackSettings()
    except ValidationError as error:
        problems = [_describe(problem["loc"], problem["msg"]) for problem in error.errors()]
        raise StackError("Wrong settings:\n  " + "\n  ".join(problems)) from error


def _describe(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in location).upper()
    return f"{where}: {message}" if where else message.removeprefix("Value error, ")
