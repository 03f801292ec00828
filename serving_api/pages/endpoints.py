"""The dashboard at `GET /`: a static page that uses the public API."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from core.datasets import Datasets
from core.web.browsers import PageSettings, add_page
from serving_api.dependencies import base_url

FOLDER = Path(__file__).parent / "static"


def add_dashboard(app: FastAPI, datasets: Datasets, settings: PageSettings, *, key_is_required: bool) -> None:
    """Add the dashboard, with the addresses that it links to."""

    def links(request: Request) -> dict[str, Any]:
        base = base_url(request)
        main = ("docs", "texts", "disputed", "changes", "stats", "snapshots", "metrics", "readyz")
        exports = {kind: f"{base}/export.{kind}" for kind in ("parquet", "arrow", "ndjson", "csv")}
        return {
            **{name: f"{base}/{name}" for name in main},
            "openapi": f"{base}/openapi.json",
            "agreement": f"{base}/stats/agreement",
            "annotators": f"{base}/stats/annotators",
            "exports": exports,
            "ingestion": settings.ingestion_url(request),
            "argilla": settings.argilla_url(request),
            "key_required": key_is_required,
            "scopes": app.state.key_ring.scopes_of(request.headers.get("authorization")),
            "datasets": {
                name: {"labels": list(dataset.labels), "answers_wanted": dataset.answers_wanted}
                for name, dataset in datasets.items()
            },
        }

    add_page(app, FOLDER, links, settings.ingestion_url)
