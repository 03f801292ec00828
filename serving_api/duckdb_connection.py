"""The one place where DuckDB is opened."""

from pathlib import Path

import duckdb

from serving_api.settings import ReplicaSettings


def open_database(path: Path, settings: ReplicaSettings, *, locked: bool = True) -> duckdb.DuckDBPyConnection:
    """Open the database at `path`, without other files, extensions or Python variables.

    If it is `locked`, settings cannot be changed: so is every database that is queried.

    Raises:
        duckdb.Error: the file is damaged, locked by another process, or not accessible.
    """
    return duckdb.connect(path, config=_config(settings) | {"lock_configuration": locked})


def open_memory(settings: ReplicaSettings) -> duckdb.DuckDBPyConnection:
    """Open an empty database that is in memory only, under the same rules; it writes no file when memory is short."""
    return duckdb.connect(":memory:", config=_config(settings) | {"lock_configuration": True, "temp_directory": ""})


def _config(settings: ReplicaSettings) -> dict[str, str | bool | int]:
    return {
        "enable_external_access": False,
        "python_enable_replacements": False,
        "memory_limit": settings.memory_limit,
        "threads": settings.threads,
    }
