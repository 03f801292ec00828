"""The upload page at `GET /`, and the datasets with their pages in Argilla."""

from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, Field

from core.datasets import Datasets, adjudication_of, page_url
from core.web.browsers import PageSettings, add_page
from core.web.keys import Scope, is_dataset_allowed, require_scope
from core.web.negotiation import Router
from core.web.openapi import Responses, answer, refusals
from core.web.problems import Unavailable
from ingestion_api.dependencies import ConnectionDep
from ingestion_api.texts.repository import list_argilla_ids


class DatasetRead(BaseModel):
    """A dataset of the settings, and where annotators answer its texts."""

    name: str
    labels: list[str]
    answers_wanted: int = Field(description="Submitted annotations that complete a text.")
    argilla_url: str | None = Field(
        description="Its page in Argilla; null before the uploader has made it. With `&search=` and words of a "
        "text the page shows that text."
    )
    adjudication_url: str | None = Field(description="The page on which adjudicators decide its disputed texts.")


class DatasetList(BaseModel):
    """The datasets of the settings that the request's key may use."""

    items: list[DatasetRead]


_PAGE = "http://127.0.0.1:6900/dataset/2f1c8b52-2f4e-4a57-9a53-0c1f6b7d2e90/annotation-mode?status=pending"
_EXAMPLE = {
    "items": [
        {
            "name": "toxicity",
            "labels": ["toxic", "non_toxic"],
            "answers_wanted": 3,
            "argilla_url": _PAGE,
            "adjudication_url": None,
        }
    ]
}
DATASETS: Responses = {
    200: answer("The datasets.", _EXAMPLE),
    **refusals(Unavailable("The database is away.", code="database_unavailable"), scope="ingest"),
}


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
