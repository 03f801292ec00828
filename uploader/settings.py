"""Settings of the uploader."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from core.settings import SettingsGroup

# What one search of Argilla takes; measured, and in its source.
MAX_SEARCH_TERMS = 250

# A variable that is set to nothing is not set.
_EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == "" else value)


class UploaderSettings(SettingsGroup):
    """Where the uploader answers health checks, and how long it waits for Argilla."""

    model_config = SettingsConfigDict(env_prefix="UPLOADER_")

    host: str = Field("127.0.0.1", description="Address on which the uploader answers /readyz and /metrics.")
    port: int = Field(8081, ge=1, le=65535, description="Port of the uploader's /readyz and /metrics.")
    argilla_timeout_seconds: float = Field(
        60,
        gt=0,
        description="A call of Argilla that takes longer is given up; a hanging OpenSearch takes over 35 s.",
    )
    retry_cap_seconds: float = Field(
        15, gt=0, description="Longest pause of a dataset between two attempts during an outage."
    )
    leader_lease_seconds: float = Field(
        5,
        gt=0,
        description="One uploader works on a dataset; when it is silent for so long, another takes over.",
    )
    stop_seconds: float = Field(
        5, ge=0, description="Time that a stopping uploader gives its batches to end before it gives them back."
    )


class PushSettings(SettingsGroup):
    """How texts travel to Argilla."""

    model_config = SettingsConfigDict(env_prefix="UPLOAD_")

    interval_seconds: float = Field(1, gt=0, description="Pause between two looks for pending texts.")
    connections: int = Field(
        1, ge=1, description="Batches sent to Argilla at once: as many as it has server processes."
    )
    batch_size: int = Field(
        MAX_SEARCH_TERMS,
        ge=1,
        le=MAX_SEARCH_TERMS,
        description="Texts in one batch at most; Argilla confirms 250.",
    )
    batch_bytes: int = Field(
        4_194_304,
        ge=1,
        description="Bytes of text and metadata in one batch at most; a larger text travels alone.",
    )
    lease_seconds: int = Field(
        120,
        ge=1,
        description="A claim that is not finished after this time may be taken over by another uploader.",
    )


class PacingSettings(SettingsGroup):
    """How much annotators get at a time."""

    max_open_records: Annotated[int | None, _EMPTY_IS_NONE] = Field(
        None,
        ge=1,
        description="Records of a dataset before annotators that want more answers, at most; its own "
        "`max_open_records` wins. Empty: no limit.",
    )


class SweepSettings(SettingsGroup):
    """How annotations come back from Argilla."""

    sweep_interval_seconds: float = Field(
        0.5, gt=0, description="Pause between two looks for new activity of annotators."
    )
    full_sweep_seconds: float = Field(
        3600, gt=0, description="Longest rest between two complete sweeps, whether activity was seen or not."
    )
    sweep_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Share of the time for which a full sweep without a reason keeps Argilla busy.",
    )
    sweep_busy_share: float = Field(
        0.5, gt=0, le=1, description="The same for a sweep that has a reason: something changed, no event told it."
    )
    count_interval_seconds: float = Field(
        30,
        gt=0,
        description="Pause between two comparisons of Argilla's counts with ours, which find deletions.",
    )


class RuleSettings(SettingsGroup):
    """How often label rules are estimated, in datasets that have one other than the majority."""

    model_config = SettingsConfigDict(env_prefix="RULE_")

    interval_seconds: float = Field(
        60, gt=0, description="Shortest pause between two estimates of a dataset's label rule."
    )
    share: float = Field(
        0.1, gt=0, le=1, description="Share of the time for which estimates of a dataset keep a core busy at most."
    )


class ModelSettings(SettingsGroup):
    """How models are trained, in the datasets that have one."""

    model_config = SettingsConfigDict(env_prefix="MODEL_")

    interval_seconds: float = Field(
        60, gt=0, description="Shortest pause between two looks for new labels and unscored texts of a dataset."
    )
    share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Share of the time for which the model of a dataset keeps a core busy at most.",
    )
    memory_bytes: int = Field(
        3 * 2**29,
        ge=2**28,
        description="Memory that the process that trains and scores may allocate; a training beyond fails.",
    )
    max_texts: int = Field(
        100_000, ge=1000, description="Labelled texts that a model is trained on at most: the newest."
    )


class ModelStorageSettings(SettingsGroup):
    """Where models are stored: with the snapshots of the serving API."""

    data_dir: Path = Field(Path(".data"), description="Directory of the programs' files.")
    snapshots_url: Annotated[str | None, _EMPTY_IS_NONE] = Field(
        None,
        description="Folder of the snapshots and models, or `s3://bucket/prefix`, as in the serving API; "
        "else `snapshots/` in DATA_DIR.",
    )

    @property
    def address(self) -> str:
        """The folder or bucket."""
        return self.snapshots_url or str(self.data_dir.absolute() / "snapshots")


class ForgottenFilesSettings(SettingsGroup):
    """Where the serving API is: the uploader asks it which forgotten texts its files no longer hold."""

    model_config = SettingsConfigDict(env_prefix="SERVING_")

    url: Annotated[HttpUrl | None, _EMPTY_IS_NONE] = Field(
        None,
        description="Address of the serving API. Empty: forget requests of labelled texts stay open until "
        "`annotate status` or `annotate forget --list` is run.",
    )
    api_key: Annotated[SecretStr | None, _EMPTY_IS_NONE] = Field(
        None,
        description="Key with the scope `admin` for the serving API; not needed where REQUIRE_API_KEY=false.",
    )

    @property
    def headers(self) -> dict[str, str]:
        """The headers of each request. They hold the key: never log them."""
        return {"Authorization": f"Bearer {self.api_key.get_secret_value()}"} if self.api_key else {}


class WebhookSettings(SettingsGroup):
    """How Argilla reports what its annotators do."""

    model_config = SettingsConfigDict(env_prefix="WEBHOOK_")

    url: Annotated[HttpUrl | None, _EMPTY_IS_NONE] = Field(
        None,
        description="Address of the ingestion API as Argilla's worker reaches it, without a path. "
        "Empty: no webhooks, labels come with sweeps only.",
    )
    check_seconds: float = Field(30, gt=0, description="Pause between two looks at our webhook in Argilla.")
    grace_seconds: float = Field(
        60,
        gt=0,
        description="Activity in Argilla that no event explains makes for a sweep after as long as a sweep takes, "
        "and after this time at the latest.",
    )

    @property
    def endpoint(self) -> str | None:
        """The address to which Argilla sends events."""
        return f"{str(self.url).rstrip('/')}/webhooks/argilla" if self.url else None
