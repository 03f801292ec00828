"""Settings of the serving API."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from core.settings import SettingsGroup


class DataSettings(SettingsGroup):
    """The folders of a program's files."""

    data_dir: Path = Field(
        Path(".data"), description="Directory of the programs' files. The replica is in its folder `serving/`."
    )

    snapshots_url: str | None = Field(
        None,
        description="Folder of the snapshots, or `s3://bucket/prefix`. Default: `snapshots/` in DATA_DIR.",
    )

    snapshots_max: int = Field(1_000, ge=1, description="Maximum number of snapshots; further ones get 409.")
    snapshots_max_bytes: int = Field(
        2**40, ge=1, description="Maximum size of the Parquet files of all snapshots together; above it, 409."
    )
    snapshots_min_free_bytes: int = Field(
        2**30,
        ge=0,
        description="Free disk space that creating a snapshot requires; with less, 503.",
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

    host: str = Field("127.0.0.1", description="Address on which the serving API listens.")
    port: int = Field(9000, ge=0, le=65535, description="Port of the serving API.")
    processes: int = Field(
        1,
        ge=1,
        description="Number of processes that share the port. Each has its own replica on disk; the following "
        "limits apply to each.",
    )
    query_threads: int = Field(
        4,
        ge=1,
        description="Number of concurrent queries, and of concurrent reads of snapshots' files; more wait.",
    )
    query_queue: int = Field(256, ge=0, description="Maximum number of waiting queries; further ones get 503.")
    query_seconds: float = Field(10, gt=0, description="Time limit of one query, including its wait; then 503.")
    stuck_seconds: float = Field(
        30,
        gt=0,
        description="If all threads of a kind exceed their time limit by this time, `/readyz` reports it and the "
        "process exits. A supervisor should restart it.",
    )
    exports: int = Field(
        4, ge=1, description="Maximum number of exports that are written concurrently; further ones get 503."
    )
    export_bytes: int = Field(
        16 * 2**30,
        ge=1,
        description="Disk space for files of exports, which clients can read in parts. The oldest files are "
        "deleted first.",
    )
    export_chunk_seconds: float = Field(
        300, gt=0, description="An export gets 503 if its next rows take longer than this."
    )
    export_idle_seconds: float = Field(
        30, gt=0, description="A client that reads nothing of its export for this time is disconnected."
    )
    diff_seconds: float = Field(
        120, gt=0, description="Time limit for a comparison of two snapshots. Two comparisons run concurrently."
    )
    key_check_seconds: float = Field(
        30,
        gt=0,
        le=60,
        description="How often the API key of a long response (events, long polls, exports, downloads) is checked"
        " again. Withdrawing the key closes the connection.",
    )
    cache_bytes: int = Field(64 * 2**20, ge=0, description="Memory for cached responses.")
    search_index: bool = Field(
        True,
        description="Whether an index of the texts speeds up `q`. Without it, each search reads all texts.",
    )
    changes_clients: int = Field(
        500,
        ge=1,
        description="Maximum number of clients that wait for changes, by long polls or events; further ones get "
        "503.",
    )
    changes_heartbeat_seconds: float = Field(
        15, gt=0, description="Interval of the comments in an event stream. They reveal lost connections."
    )
    changes_send_seconds: float = Field(
        60, gt=0, description="A client that reads no events for this time is disconnected."
    )


class ReplicaSettings(SettingsGroup):
    """How the replica follows Postgres, and DuckDB's memory and threads."""

    model_config = SettingsConfigDict(env_prefix="REPLICA_")

    poll_seconds: float = Field(
        1,
        gt=0,
        le=60,
        description="Longest pause between two queries for new labels. Notifications usually arrive earlier.",
    )
    forget_seconds: float = Field(
        60,
        ge=0,
        description="The replica's file is rebuilt this long after texts were forgotten, so that it contains no "
        "trace of them.",
    )
    memory_limit: str = Field(
        "1GB",
        pattern=r"^[0-9]+(\.[0-9]+)? ?[KMGT]i?B$",
        description="Memory limit of DuckDB, such as `512MB`. While a replica is rebuilt, twice as much is used.",
    )
    threads: int = Field(
        1,
        ge=1,
        description="Threads that DuckDB uses for one query. More threads make large queries faster, but each "
        "page needs more CPU time. Queries run concurrently anyway.",
    )
    build_threads: int = Field(2, ge=1, description="Threads that DuckDB uses to build a replica.")
