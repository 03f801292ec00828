"""Settings of the ingestion API."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from core.settings import SettingsGroup


class IngestionSettings(SettingsGroup):
    """Where the ingestion API listens, and how much it takes in at a time."""

    model_config = SettingsConfigDict(env_prefix="INGESTION_")

    host: str = Field("127.0.0.1", description="Address the ingestion API binds to.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the ingestion API.")
    processes: int = Field(
        1, ge=1, description="Processes that share the port; each takes up to the limits below."
    )
    waiting_limit: int = Field(
        1000, ge=1, description="Single texts that may wait for their commit; further ones get 503."
    )
    wait_seconds: float = Field(5, gt=0, description="Longest wait of a single text for its commit, then 503.")
    commit_size: int = Field(500, ge=1, description="Single texts that one transaction stores at most.")
    bulk_uploads: int = Field(4, ge=1, description="Bulk uploads at a time; further ones get 503.")
    bulk_chunk_rows: int = Field(5000, ge=1, description="Rows of a bulk upload that one transaction stores.")
    worker_memory_bytes: int = Field(
        2**30,
        ge=2**28,
        description="Memory that each process which reads bulk bodies or imports may take; a body that needs more "
        "is refused.",
    )
    worker_seconds: float = Field(
        300,
        gt=0,
        description="Such a process is ended when it has made no progress for so long, waits for Postgres not "
        "counted; its body is refused.",
    )
    import_max_bytes: int = Field(100 * 2**30, ge=1, description="Longest body of an import, as it is sent.")
    import_expire_seconds: float = Field(
        86400, gt=0, description="An import fails if its client does not continue the upload for this time."
    )
    import_lease_seconds: float = Field(
        60, gt=0, description="An import whose process is gone is taken over by another one after this time."
    )
    import_rejects: int = Field(
        10_000, ge=1, description="Rejected rows of an import that are kept; further ones are only counted."
    )
    import_reject_bytes: int = Field(
        64 * 2**20,
        ge=1,
        description="Bytes of an import's rejected rows that are kept; more are only counted.",
    )
    client_imports: int = Field(100, ge=1, description="Unfinished imports that one client may have (429).")
    client_import_bytes: int = Field(
        200 * 2**30, ge=1, description="Bytes that the bodies of one client's imports may have together (413)."
    )
    import_keep_days: float = Field(
        30, gt=0, description="Finished imports and their rejected rows are deleted after this time."
    )
