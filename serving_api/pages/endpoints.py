"""The dashboard at `GET /`, and the endpoints that count for it: parse, delegate, return."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from core.datasets import Datasets
from core.web.negotiation import Router
from core.web.static_pages import PageSettings, add_page
from serving_api.dependencies import GUARDS, AnswersDep, DatasetsDep, ReplicaDep
from serving_api.pages import schemas as docs
from serving_api.pages.schemas import DaysParameters, FacetParameters
from serving_api.pages.service import make_days, make_facets
from serving_api.responses import base_url, respond
from serving_api.texts.parameters import Order
from serving_api.texts.query import check_search, labelled_texts_query, texts_query

FOLDER = Path(__file__).parent / "static"


def add_dashboard(app: FastAPI, datasets: Datasets, settings: PageSettings, *, key_is_required: bool) -> None:
    """Add the dashboard and its endpoints."""

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
    router = Router(dependencies=GUARDS, tags=["texts"])
    router.add_api_route(
        "/stats/facets", get_facets, summary="Texts by the values of filters", responses=docs.FACETS
    )
    router.add_api_route("/stats/days", get_days, summary="Labels and answers by day", responses=docs.DAYS)
    app.include_router(router)


async def get_facets(
    request: Request,
    parameters: Annotated[FacetParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """Count the texts that the filters leave, by the values that each filter may have.

    The counts of a filter ignore the filter's own value: with `label=toxic` the other labels are counted, too.
    """
    check_search(parameters)
    query = labelled_texts_query(parameters, parameters.label, datasets, Order.NEWEST)
    key = b"facets" + query.fingerprint
    answer = await answers.document(key, query.dataset, lambda cursor, point: make_facets(cursor, point, query))
    return respond(request, replica, answer)


async def get_days(
    request: Request,
    parameters: Annotated[DaysParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """Count labels by day and label, and submitted answers by day and annotator; days are those of UTC."""
    query, days = texts_query(parameters, datasets), parameters.days
    key = b"days%d " % days + query.fingerprint
    answer = await answers.document(
        key, query.dataset, lambda cursor, point: make_days(cursor, point, query, days)
    )
    return respond(request, replica, answer)
