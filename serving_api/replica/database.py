"""The one place where DuckDB is opened: without other files, extensions or Python variables."""

from pathlib import Path

import duckdb

from serving_api.settings import ReplicaSettings


def open_database(path: Path, settings: ReplicaSettings, *, locked: bool = True) -> duckdb.DuckDBPyConnection:
    """Open the database at `path`.

    If it is `locked`, its settings cannot be changed: so is every database that is queried.

    Raises:
        duckdb.Error: the file is damaged, locked by another process, or not accessible.
    """
    return _connect(path, settings, locked=locked)


def open_memory(settings: ReplicaSettings, spill_folder: str = "") -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory.

    Where memory is short, it writes files into `spill_folder`; without one, it fails.
    """
    return _connect(":memory:", settings, locked=True, temp_directory=spill_folder)


def _connect(
    path: Path | str, settings: ReplicaSettings, *, locked: bool, **more: str
) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "python_enable_replacements": False,
        "memory_limit": settings.memory_limit,
        "threads": settings.threads,
        "lock_configuration": locked,
    }
    return duckdb.connect(path, config=config | more)
