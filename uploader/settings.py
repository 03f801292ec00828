"""Settings of the uploader."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from core.datasets import Datasets, load_datasets
from core.settings import (
    AccessSettings,
    ArgillaSettings,
    DatabaseSettings,
    DatasetsFileSettings,
    ForgetSettings,
    SettingsGroup,
    read_settings,
)

# What one search of Argilla takes; measured, and in its source.
MAX_SEARCH_TERMS = 250

# A variable that is set to nothing is not set.
_EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == "" else value)


class UploaderSettings(SettingsGroup):
    """Where the uploader answers health checks, and how long it waits for Argilla."""

    model_config = SettingsConfigDict(env_prefix="UPLOADER_")

    host: str = Field("127.0.0.1", description="Address on which the uploader serves /readyz and /metrics.")
    port: int = Field(8081, ge=1, le=65535, description="Port of the uploader's /readyz and /metrics.")
    argilla_timeout_seconds: float = Field(
        60,
        gt=0,
        description="Timeout of a call to Argilla. Calls that wait for a hanging OpenSearch take over 35 s.",
    )
    retry_cap_seconds: float = Field(
        15, gt=0, description="Longest pause between two attempts of a dataset during an outage."
    )
    leader_lease_seconds: float = Field(
        5,
        gt=0,
        description="One uploader leads each dataset. If it does not renew its lease for this time, another one "
        "takes over.",
    )
    stop_seconds: float = Field(
        5, ge=0, description="Time that a stopping uploader waits for its batches. It releases the rest."
    )


class PushSettings(SettingsGroup):
    """How texts travel to Argilla."""

    model_config = SettingsConfigDict(env_prefix="UPLOAD_")

    interval_seconds: float = Field(1, gt=0, description="Pause between two queries for pending texts.")
    connections: int = Field(
        1,
        ge=1,
        description="Number of batches sent to Argilla concurrently. Use the number of Argilla's server "
        "processes.",
    )
    batch_size: int = Field(
        MAX_SEARCH_TERMS,
        ge=1,
        le=MAX_SEARCH_TERMS,
        description="Maximum number of texts in a batch. Argilla can confirm 250.",
    )
    batch_bytes: int = Field(
        4_194_304,
        ge=1,
        description="Maximum size of text and metadata in a batch. A larger text is sent alone.",
    )
    lease_seconds: int = Field(
        120,
        ge=1,
        description="Another uploader may take over a claim that is not finished after this time.",
    )


class PacingSettings(SettingsGroup):
    """How much annotators get at a time."""

    max_open_records: Annotated[int | None, _EMPTY_IS_NONE] = Field(
        None,
        ge=1,
        description="Maximum number of a dataset's records in Argilla that still need answers. The dataset's own "
        "`max_open_records` overrides it. Empty: no limit.",
    )


class SweepSettings(SettingsGroup):
    """How annotations come back from Argilla."""

    sweep_interval_seconds: float = Field(
        0.5, gt=0, description="Pause between two checks for new activity of annotators."
    )
    full_sweep_seconds: float = Field(
        3600, gt=0, description="Longest time between two full sweeps, whether there was activity or not."
    )
    sweep_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Share of time in which a full sweep without a reason uses Argilla.",
    )
    sweep_busy_share: float = Field(
        0.5, gt=0, le=1, description="The same for a sweep with a reason: something changed without an event."
    )
    count_interval_seconds: float = Field(
        30,
        gt=0,
        description="Pause between two comparisons of Argilla's counts with ours. They find deletions.",
    )


class RuleSettings(SettingsGroup):
    """How often label rules are estimated, in datasets that have one other than the majority."""

    model_config = SettingsConfigDict(env_prefix="RULE_")

    interval_seconds: float = Field(
        60, gt=0, description="Shortest pause between two estimates of a dataset's label rule."
    )
    share: float = Field(
        0.1, gt=0, le=1, description="Maximum share of time in which the estimates of a dataset use a core."
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
        description="Address of the serving API. Empty: forget requests of labelled texts stay open until you run"
        " `annotate status` or `annotate forget --list`.",
    )
    api_key: Annotated[SecretStr | None, _EMPTY_IS_NONE] = Field(
        None,
        description="API key with the scope `admin` for the serving API. Not needed if REQUIRE_API_KEY=false.",
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
        description="Address of the ingestion API for Argilla's worker, without a path. Empty: no webhooks; "
        "sweeps alone bring labels.",
    )
    check_seconds: float = Field(30, gt=0, description="Pause between two checks of our webhook in Argilla.")
    grace_seconds: float = Field(
        60,
        gt=0,
        description="Activity in Argilla that no event explains starts a sweep after the duration of a sweep, and"
        " after this time at the latest.",
    )

    @property
    def endpoint(self) -> str | None:
        """The address to which Argilla sends events."""
        return f"{str(self.url).rstrip('/')}/webhooks/argilla" if self.url else None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. Groups that are not given are read from the environment.

    Raises:
        SystemExit: names each missing or wrong setting.
    """

    uploader: UploaderSettings = field(default_factory=partial(read_settings, UploaderSettings))
    push: PushSettings = field(default_factory=partial(read_settings, PushSettings))
    pacing: PacingSettings = field(default_factory=partial(read_settings, PacingSettings))
    sweep: SweepSettings = field(default_factory=partial(read_settings, SweepSettings))
    webhook: WebhookSettings = field(default_factory=partial(read_settings, WebhookSettings))
    rule: RuleSettings = field(default_factory=partial(read_settings, RuleSettings))
    database: DatabaseSettings = field(default_factory=partial(read_settings, DatabaseSettings))
    argilla: ArgillaSettings = field(default_factory=partial(read_settings, ArgillaSettings))
    datasets: Datasets = field(
        default_factory=lambda: load_datasets(read_settings(DatasetsFileSettings).datasets_file)
    )
    access: AccessSettings = field(default_factory=partial(read_settings, AccessSettings))
    forget: ForgetSettings = field(default_factory=partial(read_settings, ForgetSettings))
    serving: ForgottenFilesSettings = field(default_factory=partial(read_settings, ForgottenFilesSettings))
    model: ModelSettings = field(default_factory=partial(read_settings, ModelSettings))
    models: ModelStorageSettings = field(default_factory=partial(read_settings, ModelStorageSettings))
