"""The upload page at `GET /`, and the datasets with their pages in Argilla."""

from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request

from core.datasets import Datasets, adjudication_of, page_url
from core.web.browsers import PageSettings, add_page
from core.web.keys import Scope, is_dataset_allowed, require_scope
from core.web.negotiation import Router
from ingestion_api.dependencies import ConnectionDep
from ingestion_api.pages.schemas import DATASETS, DatasetList, DatasetRead
from ingestion_api.texts.repository import list_argilla_ids

FOLDER = Path(__file__).parent / "static"


def add_upload_page(app: FastAPI, datasets: Datasets, settings: PageSettings, *, key_is_required: bool) -> None:
    """Add the upload page, links for all who are no browsers, and `GET /datasets`."""

    def links(request: Request) -> dict[str, Any]:
        base = str(request.base_url).rstrip("/")
        main = ("docs", "texts", "imports", "queue", "metrics", "readyz")
        return {
            **{name: f"{base}/{name}" for name in main},
            "openapi": f"{base}/openapi.json",
            "serving": settings.serving_url(request),
            "key_required": key_is_required,
            "scopes": app.state.key_ring.scopes_of(request.headers.get("authorization")),
            "datasets": {name: {"labels": list(dataset.labels)} for name, dataset in datasets.items()},
        }

    async def list_datasets(request: Request, connection: ConnectionDep) -> DatasetList:
        """List the datasets that the settings define, with their pages in Argilla."""
        ids, argilla = await list_argilla_ids(connection), settings.argilla_url(request)
        urls = {name: page_url(argilla, id_) for name, id_ in ids.items()}
        items = [
            DatasetRead(
                name=name,
                labels=list(dataset.labels),
                answers_wanted=dataset.answers_wanted,
                argilla_url=urls.get(name),
                adjudication_url=urls.get(adjudication_of(name)),
            )
            for name, dataset in datasets.items()
            if is_dataset_allowed(name)
        ]
        return DatasetList(items=items)

    add_page(app, FOLDER, links, lambda _: "")
    router = Router(dependencies=[Depends(require_scope(Scope.INGEST))], tags=["datasets"])
    router.add_api_route("/datasets", list_datasets, summary="Datasets", responses=DATASETS)
    app.include_router(router)
