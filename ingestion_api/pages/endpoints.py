"""The upload page at `GET /`."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from core.datasets import Datasets
from core.web.pages import PageSettings, add_page

FOLDER = Path(__file__).parent / "static"


def add_upload_page(app: FastAPI, datasets: Datasets, settings: PageSettings, *, key_is_required: bool) -> None:
    """Add the upload page, and links for all who are no browsers."""

    def links(request: Request) -> dict[str, Any]:
        base = str(request.base_url).rstrip("/")
        main = ("docs", "texts", "imports", "queue", "metrics", "readyz")
        return {
            **{name: f"{base}/{name}" for name in main},
            "openapi": f"{base}/openapi.json",
            "bulk": f"{base}/texts/bulk",
            "serving": settings.serving_url(request),
            "key_required": key_is_required,
            "datasets": {name: {"labels": list(dataset.labels)} for name, dataset in datasets.items()},
        }

    add_page(app, FOLDER, links, lambda _: "")
