"""Settings of the serving API."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from core.settings import SettingsGroup


class DataSettings(SettingsGroup):
    """The folders of a program's files."""

    data_dir: Path = Field(
        Path(".data"), description="Directory of the programs' files; the replica is in `serving/` below it."
    )

    snapshots_url: str | None = Field(
        None,
        description="Folder of the snapshots, or `s3://bucket/prefix`; else `snapshots/` in DATA_DIR.",
    )

    snapshots_max: int = Field(1_000, ge=1, description="Snapshots that there may be; beyond, 409.")
    snapshots_max_bytes: int = Field(
        2**40, ge=1, description="Bytes that the Parquet files of all snapshots may have together; beyond, 409."
    )
    snapshots_min_free_bytes: int = Field(
        2**30,
        ge=0,
        description="No snapshot is made when less than this is free on the disk that it is written to; then 503.",
    )

    @property
    def replica_path(self) -> Path:
        """The replica's first file. Later files are in the same folder, with a number.

        You may delete them while the program is stopped: it builds the same replica again.
        """
        return self.data_dir / "serving" / "replica.duckdb"


class ServingSettings(SettingsGroup):
    """The serving API's address and its limits."""

    model_config = SettingsConfigDict(env_prefix="SERVING_")

    host: str = Field("127.0.0.1", description="Address that the serving API listens on.")
    port: int = Field(9000, ge=0, le=65535, description="Port that the serving API listens on.")
    processes: int = Field(
        1,
        ge=1,
        description="Processes that share the port; each has its own replica on disk, and the limits below.",
    )
    query_threads: int = Field(
        4, ge=1, description="Queries that run at once, and as many of snapshots' files; more wait."
    )
    query_queue: int = Field(256, ge=0, description="Queries that wait at most; beyond, the answer is 503.")
    query_seconds: float = Field(10, gt=0, description="Time limit of one query, with its wait; then 503.")
    stuck_seconds: float = Field(
        30,
        gt=0,
        description="When all threads of a kind are so long over their time limit, `/readyz` says so, and the "
        "process ends, to be started again by what supervises it.",
    )
    exports: int = Field(4, ge=1, description="Exports that are written at once; further ones get 503.")
    export_bytes: int = Field(
        16 * 2**30,
        ge=1,
        description="Disk for the files of exports, which are kept to be read in parts; the oldest is removed.",
    )
    export_chunk_seconds: float = Field(
        300, gt=0, description="An export that needs longer to find its next rows gets 503."
    )
    export_idle_seconds: float = Field(
        30, gt=0, description="A client that takes nothing of its export for so long is cut off."
    )
    diff_seconds: float = Field(
        120, gt=0, description="Time limit of comparing two snapshots; two are compared at once."
    )
    key_check_seconds: float = Field(
        30,
        gt=0,
        le=60,
        description="How often the key of an answer that goes on (events, long polls, exports, downloads) is "
        "checked again; the connection is cut when it was withdrawn.",
    )
    cache_bytes: int = Field(64 * 2**20, ge=0, description="Memory for answers that are ready to send again.")
    search_index: bool = Field(
        True,
        description="Whether an index of the texts is kept for `q`; without it each search reads all of them.",
    )
    changes_clients: int = Field(
        500, ge=1, description="Clients that wait for changes at once, by long polls or events; beyond, it is 503."
    )
    changes_heartbeat_seconds: float = Field(
        15, gt=0, description="Events: a comment goes out this often, so that a lost connection is noticed."
    )
    changes_send_seconds: float = Field(
        60, gt=0, description="Events: a client that takes nothing for so long is let go."
    )


class ReplicaSettings(SettingsGroup):
    """How the replica follows Postgres, and DuckDB's memory and threads."""

    model_config = SettingsConfigDict(env_prefix="REPLICA_")

    poll_seconds: float = Field(
        1,
        gt=0,
        le=60,
        description="The replica looks for new labels at least this often; mostly it is woken earlier.",
    )
    forget_seconds: float = Field(
        60,
        ge=0,
        description="So long after texts were forgotten the file is built anew, so that no part of them is left.",
    )
    memory_limit: str = Field(
        "1GB",
        pattern=r"^[0-9]+(\.[0-9]+)? ?[KMGT]i?B$",
        description="Memory that DuckDB takes at most, as `512MB`; twice that while a replica is built anew.",
    )
    threads: int = Field(
        1,
        ge=1,
        description="Threads that DuckDB takes for one query. With more, one that reads much ends sooner, and "
        "each page takes more processor time; queries run side by side anyway.",
    )
    build_threads: int = Field(2, ge=1, description="Threads that DuckDB builds a replica with.")
