"""Writes the tables of docs/configuration.md from the settings themselves: `python -m tests.settings_table`."""

from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import core.settings
from cli.addresses import CommandLineSettings
from core.web.browsers import PageSettings
from ingestion_api.settings import IngestionSettings
from local_stack.settings import StackSettings
from serving_api.perspective.service import PerspectiveSettings
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings
from uploader.settings import (
    ForgottenFilesSettings,
    ModelSettings,
    ModelStorageSettings,
    PacingSettings,
    PushSettings,
    RuleSettings,
    SweepSettings,
    UploaderSettings,
    WebhookSettings,
)

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
START = "<!-- written by python -m tests.settings_table -->\n"

GROUPS: dict[str, list[type[BaseSettings]]] = {
    "All programs": [
        core.settings.DatabaseSettings,
        core.settings.LogSettings,
        core.settings.AccessSettings,
        core.settings.HttpSettings,
        core.settings.TracingSettings,
    ],
    "Datasets (ingestion API, uploader, serving API)": [core.settings.DatasetsFileSettings],
    "Forgetting (ingestion API, uploader, command line)": [core.settings.ForgetSettings],
    "Ingestion API": [IngestionSettings],
    "Uploader": [
        core.settings.ArgillaSettings,
        UploaderSettings,
        PushSettings,
        PacingSettings,
        SweepSettings,
        WebhookSettings,
        RuleSettings,
        ModelSettings,
        ModelStorageSettings,
        ForgottenFilesSettings,
    ],
    "Serving API": [ServingSettings, DataSettings, ReplicaSettings],
    "Perspective's API (serving API)": [PerspectiveSettings],
    "Pages (ingestion API, serving API)": [PageSettings],
    "Command line": [CommandLineSettings],
    "Local stack (`make up`)": [StackSettings],
}


def variables(group: type[BaseSettings]) -> dict[str, FieldInfo]:
    """Return a group's fields by the names of their environment variables."""
    prefix = group.model_config.get("env_prefix", "")
    return {f"{prefix}{name}".upper(): field for name, field in group.model_fields.items()}


def tables() -> str:
    """Return all tables, a heading each."""
    return "\n".join(f"## {title}\n\n{_table(groups)}" for title, groups in GROUPS.items())


def _table(groups: list[type[BaseSettings]]) -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for group in groups:
        rows += [
            f"| `{name}` | {_default(field)} | {field.description} |" for name, field in variables(group).items()
        ]
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def page() -> str:
    """Return the page with its tables as the settings are now."""
    head = PAGE.read_text().partition(START)[0]
    return head + START + "\n" + tables()


if __name__ == "__main__":
    PAGE.write_text(page())
