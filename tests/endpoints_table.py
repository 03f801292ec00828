"""Writes docs/endpoints.md from the APIs themselves: `python -m tests.endpoints_table`."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from core.datasets import load_datasets
from core.settings import AccessSettings, DatabaseSettings, DatasetsFileSettings
from core.web.keys import KeyRing, Scope
from core.web.problems import ScopeMissing
from ingestion_api.main import create_app as create_ingestion_api
from ingestion_api.settings import IngestionSettings
from serving_api.main import create_app as create_serving_api
from serving_api.settings import DataSettings, ReplicaSettings, ServingSettings

PAGE = Path(__file__).parents[1] / "docs" / "endpoints.md"
START = "<!-- written by python -m tests.endpoints_table -->\n"


def make_app(program: str, folder: Path) -> FastAPI:
    """Return an API with default settings, without its database."""
    database = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    if program == "ingestion_api":
        return create_ingestion_api(IngestionSettings(), database, AccessSettings(), DatasetsFileSettings())
    data = DataSettings(data_dir=folder)
    datasets = load_datasets(None)
    return create_serving_api(ServingSettings(), ReplicaSettings(), data, database, AccessSettings(), datasets)


def _table(app: FastAPI) -> Iterator[str]:
    yield "| endpoint | scope of the key | purpose |\n|---|---|---|\n"
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            scope = _scope(app, method, path)
            description = " ".join(operation.get("description", "").partition("\n\n")[0].split())
            purpose = description or f"{operation['summary']}."
            yield f"| `{method.upper()} {path}` | {scope} | {purpose.replace('|', '&#124;')} |\n"


class _Recorder(KeyRing):
    """Records the required scope of an endpoint, and refuses the request."""

    scope: Scope | None = None

    def admit(self, _: object, scope: Scope) -> None:
        self.scope = scope
        raise ScopeMissing("Only the scope was asked for.")


def _scope(app: FastAPI, method: str, path: str) -> str:
    app.state.key_ring = recorder = _Recorder(required=True)
    client = TestClient(app, raise_server_exceptions=False)
    client.request(method, re.sub(r"\{\w+\}", str(UUID(int=0)), path), headers={"Accept": "*/*"})
    return f"`{recorder.scope}`" if recorder.scope else "none"


def page() -> str:
    """Return the page with the endpoints as they are now."""
    text = PAGE.read_text().partition(START)[0] + START
    with TemporaryDirectory() as folder:
        for title, program in (("Ingestion API, :8080", "ingestion_api"), ("Serving API, :9000", "serving_api")):
            text += f"\n## {title}\n\n" + "".join(_table(make_app(program, Path(folder))))
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
