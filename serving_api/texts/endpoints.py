"""The paths of labelled texts: parse, delegate, return."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query, Request, Response

from core.datasets import Datasets
from core.settings import read_settings
from core.tracing.tracing import note_step
from core.web.negotiation import Router
from core.web.problems import NotFound
from core.web.static_pages import PageSettings
from serving_api.dependencies import GUARDS, AnswersDep, DatasetsDep, ReplicaDep
from serving_api.responses import respond
from serving_api.texts import schemas as docs
from serving_api.texts.parameters import DisputedParameters, NoParameters, PageParameters, TextsParameters
from serving_api.texts.query import disputed_query, page_query
from serving_api.texts.schemas import CountedPage, TextDetail, TextPage


def make_texts_router(datasets: Datasets) -> Router:
    """Return the paths of texts; each label of the datasets has one of its own."""
    router = Router(dependencies=GUARDS, tags=["texts"])
    router.add_api_route(
        "/texts", list_texts, summary="Labelled texts", response_model=CountedPage, responses=docs.PAGE
    )
    router.add_api_route(
        "/texts/{id}", get_text, summary="One labelled text", response_model=TextDetail, responses=docs.TEXT
    )
    router.add_api_route(
        "/disputed",
        list_disputed,
        summary="What needs a decision",
        response_model=TextPage,
        responses=docs.DISPUTED,
    )
    for label in sorted({label for dataset in datasets.values() for label in dataset.labels}):
        _add_label_path(router, label)
    return router


async def list_texts(
    request: Request,
    parameters: Annotated[TextsParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """List labelled and disputed texts, the newest label first.

    Follow `next_cursor`, or the `Link` header, to walk through all of them: each is shown once, also while labels
    arrive.
    """
    query = page_query(parameters, parameters.label, datasets)
    return respond(request, replica, await answers.page(query))


async def get_text(
    request: Request,
    id_: Annotated[UUID, Path(alias="id", description="Id of the text.", examples=[docs.EXAMPLE_ID])],
    _: Annotated[NoParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
) -> Response:
    """Get one labelled text with its annotations in full: `annotations` is their list here, not their number."""
    try:
        answer = await answers.text(id_)
    except NotFound as problem:
        raise docs.not_labelled(id_, read_settings(PageSettings).ingestion_url(request)) from problem
    note_step(request.scope, "serve", id_)
    return respond(request, replica, answer)


async def list_disputed(
    request: Request,
    parameters: Annotated[DisputedParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """List what needs a decision, the most urgent first.

    Complete texts come first: the others will get further annotations anyway. Among either, disputed texts come
    first, those with the most annotations before others; then the texts whose label annotators decided with little
    confidence, the lowest first. Follow `next_cursor`, or the `Link` header, to walk through
    all of them: each is shown once. A text whose annotations change meanwhile may move to another place.
    """
    query = disputed_query(parameters, datasets)
    return respond(request, replica, await answers.disputed(query))


def _add_label_path(router: Router, label: str) -> None:
    async def list_label_texts(
        request: Request,
        parameters: Annotated[PageParameters, Query()],
        answers: AnswersDep,
        replica: ReplicaDep,
        datasets: DatasetsDep,
    ) -> Response:
        query = page_query(parameters, [label], datasets)
        return respond(request, replica, await answers.page(query))

    router.add_api_route(
        f"/{label}_texts",
        list_label_texts,
        name=f"list_{label}_texts",
        summary=f"Texts labelled {label}",
        description=f"The same as `GET /texts?label={label}`.",
        response_model=CountedPage,
        responses=docs.PAGE,
    )
