"""The addresses of the platform: from the environment, a running local stack, or else the default ports."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from pydantic import Field, SecretStr

from core.settings import ArgillaSettings, DatabaseSettings, SettingsGroup, read_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection


class CommandLineSettings(SettingsGroup):
    """Addresses and keys that the command line uses."""

    ingestion_url: str | None = Field(
        None, description="Address of the ingestion API. Default: the running local stack's."
    )
    serving_url: str | None = Field(
        None, description="Address of the serving API. Default: the running local stack's."
    )
    annotate_api_key: SecretStr | None = Field(None, description="API key that `annotate` sends.")
    database_url: SecretStr | None = Field(
        None, description="Address of the platform's database. Default: the running local stack's."
    )
    argilla_url: str | None = Field(None, description="Address of Argilla. Default: the running local stack's.")
    argilla_api_key: SecretStr | None = Field(
        None, description="API key of Argilla's owner. Default: the local stack's."
    )
    data_dir: Path = Field(Path(".data"), description="Folder with the local stack's data.")
    argilla_database_url: SecretStr | None = Field(
        None, description="Address of Argilla's database, for backups. Default: the running local stack's."
    )
    argilla_reindex_command: str | None = Field(
        None,
        description="Command that rebuilds Argilla's search index after a restore. Default: the local stack's.",
    )
    snapshots_url: str | None = Field(
        None, description="Folder of the snapshots, or `s3://bucket/prefix`. Default: `snapshots/` in DATA_DIR."
    )
    pg_bin_dir: Path | None = Field(
        None, description="Folder of `pg_dump`, `pg_restore` and `psql`. Default: searched for."
    )


@cache
def settings() -> CommandLineSettings:
    """Return the settings of this run."""
    return read_settings(CommandLineSettings)


def ingestion_url() -> str:
    """Return the address of the ingestion API."""
    return settings().ingestion_url or _local_stack("ingestion_url") or "http://127.0.0.1:8080"


def serving_url() -> str:
    """Return the address of the serving API."""
    return settings().serving_url or _local_stack("serving_url") or "http://127.0.0.1:9000"


def headers() -> dict[str, str]:
    """Return the headers of every request."""
    key = settings().annotate_api_key
    return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}


def database() -> DatabaseSettings:
    """Return the platform's database.

    Raises:
        typer.Exit: the setting is missing and no local stack runs.
    """
    given = settings().database_url
    url = given.get_secret_value() if given else _local_stack("database_url")
    if url is None:
        _refuse("Set DATABASE_URL, or start the local stack with `make up`.")
    return DatabaseSettings(url=SecretStr(url))


@contextmanager
def connection(command: str) -> Iterator["Connection"]:
    """Give a connection to the platform's database; `command` names it in pg_stat_activity."""
    from core.connections import make_engine  # here: SQLAlchemy takes long to load, and not all commands need it

    engine = make_engine(database(), f"annotate {command}")
    try:
        with engine.connect() as opened:
            yield opened
    finally:
        engine.dispose()


@contextmanager
def transaction(command: str) -> Iterator["Connection"]:
    """Give a connection to the platform's database, in a transaction that the end of the block commits."""
    with connection(command) as opened, opened.begin():
        yield opened


def argilla_database() -> str:
    """Return the address of Argilla's database. Holds the password: never log it.

    Raises:
        typer.Exit: the setting is missing and no local stack runs, or the address is not one of Postgres.
    """
    given = settings().argilla_database_url
    url = given.get_secret_value() if given else _local_stack("argilla_database_url")
    if url is None:
        _refuse("Set ARGILLA_DATABASE_URL, or give --without-argilla.")
    scheme, _, rest = url.partition("://")
    # Argilla's own setting of this name also contains its driver.
    if scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        _refuse("ARGILLA_DATABASE_URL must start with postgresql://.")
    return f"postgresql://{rest}"


def argilla_reindex() -> str | None:
    """Return the command that rebuilds Argilla's search index; None if none is known."""
    if settings().argilla_reindex_command or not _local_stack("argilla_database_url"):
        return settings().argilla_reindex_command
    return f"{shlex.quote(sys.executable)} -m local_stack reindex"


def snapshots() -> str:
    """Return the place of the snapshots: a folder, or an address for fsspec."""
    return settings().snapshots_url or str((settings().data_dir / "snapshots").resolve())


def knows_database() -> bool:
    """Whether the address of the platform's database is known."""
    return settings().database_url is not None or _local_stack("database_url") is not None


def argilla() -> ArgillaSettings:
    """Return the address of Argilla, with an owner's key.

    Raises:
        typer.Exit: the setting is missing and no local stack runs.
    """
    given = settings().argilla_api_key
    key = given.get_secret_value() if given else _local_stack("argilla_api_key")
    if key is None:
        _refuse("Set ARGILLA_URL and ARGILLA_API_KEY, or start the local stack.")
    url = settings().argilla_url or _local_stack("argilla_url") or "http://127.0.0.1:6900"
    return ArgillaSettings(url=url, api_key=SecretStr(key))


def _refuse(reason: str) -> NoReturn:
    typer.secho(reason, err=True, fg="red")
    raise typer.Exit(2)


def _local_stack(entry: str) -> str | None:
    path = settings().data_dir / "stack.json"
    if not path.is_file():
        return None
    value = json.loads(path.read_text()).get(entry)
    return value if isinstance(value, str) else None
