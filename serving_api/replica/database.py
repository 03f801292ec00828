"""The one place where DuckDB is opened."""

from pathlib import Path

import duckdb

from serving_api.settings import ReplicaSettings

_Config = dict[str, str | bool | int | float | list[str]]


def open_database(path: Path, settings: ReplicaSettings, *, locked: bool = True) -> duckdb.DuckDBPyConnection:
    """Open the database at `path`, without other files, extensions or Python variables.

    If it is `locked`, settings cannot be changed: so is every database that is queried.

    Raises:
        duckdb.Error: the file is damaged, locked by another process, or not accessible.
    """
    return duckdb.connect(path, config=_config(settings) | {"lock_configuration": locked})


def open_memory(settings: ReplicaSettings, temp_folder: str = "") -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory, under the same rules; it writes no file, or only below `temp_folder`."""
    more: _Config = {"lock_configuration": True, "temp_directory": temp_folder}
    return duckdb.connect(":memory:", config=_config(settings) | more)


def _config(settings: ReplicaSettings) -> _Config:
    return {
        "enable_external_access": False,
        "python_enable_replacements": False,
        "memory_limit": settings.memory_limit,
        "threads": settings.threads,
    }
