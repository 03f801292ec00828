"""Settings of the ingestion API."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from core.settings import SettingsGroup


class IngestionSettings(SettingsGroup):
    """Where the ingestion API listens, and how much it takes in at a time."""

    model_config = SettingsConfigDict(env_prefix="INGESTION_")

    host: str = Field("127.0.0.1", description="Address on which the ingestion API listens.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the ingestion API.")
    processes: int = Field(
        1, ge=1, description="Number of processes that share the port. The following limits apply to each."
    )
    waiting_limit: int = Field(
        1000, ge=1, description="Maximum number of single texts that wait for their commit; further ones get 503."
    )
    wait_seconds: float = Field(
        5, gt=0, description="Longest time that a single text waits for its commit; then 503."
    )
    commit_size: int = Field(500, ge=1, description="Maximum number of single texts in one transaction.")
    bulk_uploads: int = Field(
        4, ge=1, description="Maximum number of concurrent bulk uploads; further ones get 503."
    )
    bulk_chunk_rows: int = Field(5000, ge=1, description="Rows of a bulk upload in one transaction.")
    worker_memory_bytes: int = Field(
        2**30,
        ge=2**28,
        description="Memory limit of each process that reads bulk bodies or imports. A body that needs more is "
        "refused.",
    )
    worker_seconds: float = Field(
        300,
        gt=0,
        description="A process that reads a body without progress for this time is killed, and the body refused. "
        "Waiting for Postgres does not count.",
    )
    import_max_bytes: int = Field(100 * 2**30, ge=1, description="Maximum size of an import's body, as sent.")
    import_expire_seconds: float = Field(
        86400, gt=0, description="An import fails if its client does not continue the upload for this time."
    )
    import_lease_seconds: float = Field(
        60, gt=0, description="An import whose process died is taken over by another process after this time."
    )
    import_rejects: int = Field(
        10_000,
        ge=1,
        description="Maximum number of rejected rows that an import keeps; further ones are only counted.",
    )
    import_reject_bytes: int = Field(
        64 * 2**20,
        ge=1,
        description="Maximum size of the rejected rows that an import keeps; further ones are only counted.",
    )
    client_imports: int = Field(100, ge=1, description="Maximum number of unfinished imports of one client (429).")
    client_import_bytes: int = Field(
        200 * 2**30, ge=1, description="Maximum size of the bodies of one client's imports together (413)."
    )
    import_keep_days: float = Field(
        30, gt=0, description="Finished imports and their rejected rows are deleted after this time."
    )
