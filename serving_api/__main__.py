"""Runs the serving API: `python -m serving_api`."""

from core.datasets import load_datasets
from core.logs import configure_logging
from core.server import serve
from core.settings import (
    AccessSettings,
    DatabaseSettings,
    DatasetsFileSettings,
    LogSettings,
    read_settings,
    refuse_open_bind,
)
from serving_api.main import create_app
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    configure_logging(read_settings(LogSettings), "serving_api")
    settings, access = read_settings(ServingSettings), read_settings(AccessSettings)
    refuse_open_bind(settings.host, access)
    datasets = load_datasets(read_settings(DatasetsFileSettings).datasets_file)
    app = create_app(
        settings,
        read_settings(ReplicaSettings),
        read_settings(DataSettings),
        read_settings(DatabaseSettings),
        access,
        datasets,
    )
    serve(app, settings.host, settings.port)


if __name__ == "__main__":
    main()
