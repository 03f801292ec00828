"""The endpoints of labelled texts: parse, delegate, return; and the shortcut to cached responses."""

from typing import Annotated
from uuid import UUID

from cachetools import FIFOCache
from fastapi import Path, Query, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.datasets import Datasets
from core.settings import read_settings
from core.tracing import STEP, note_step
from core.web import keys
from core.web.browsers import PageSettings
from core.web.keys import KeyRing
from core.web.negotiation import Router
from core.web.problems import NotFound, Problem, problem_response
from serving_api.dependencies import GUARDS, DatasetsDep, part, respond
from serving_api.replica.query_pool import Answers
from serving_api.texts import schemas as docs
from serving_api.texts.parameters import DisputedParameters, NoParameters, PageParameters, TextsParameters
from serving_api.texts.query import Ranking, page_query, ranked_query
from serving_api.texts.schemas import CountedPage, TextDetail, TextPage
from serving_api.texts.service import Texts

# An entry takes about 1 KB at most: longer requests are not remembered.
_REQUESTS_MAX = 4096
_BYTES_MAX = 500

RequestKey = tuple[str, str, bytes, tuple[bytes, ...]]  # method, path, query string, Accept
TextsDep = Annotated[Texts, part("texts")]


router = Router(dependencies=GUARDS, tags=["texts"])


@router.get("/texts", summary="Labelled texts", response_model=CountedPage, responses=docs.PAGE)
async def list_texts(
    request: Request,
    parameters: Annotated[TextsParameters, Query()],
    texts: TextsDep,
    datasets: DatasetsDep,
) -> Response:
    """List labelled and disputed texts, the newest label first.

    Follow `next_cursor`, or the `Link` header, to read all of them: each is listed once, also while labels arrive.
    """
    query = page_query(parameters, parameters.label, datasets)
    return respond(request, await texts.page(query))


@router.get("/texts/{id}", summary="One labelled text", response_model=TextDetail, responses=docs.TEXT)
async def get_text(
    request: Request,
    id_: Annotated[UUID, Path(alias="id", description="Id of the text.", examples=[docs.EXAMPLE_ID])],
    _: Annotated[NoParameters, Query()],
    texts: TextsDep,
) -> Response:
    """Get one labelled text with its annotations: here `annotations` is a list, not a number."""
    try:
        answer = await texts.text(id_)
    except NotFound as problem:
        raise docs.not_labelled(id_, read_settings(PageSettings).ingestion_url(request)) from problem
    note_step(request.scope, "serve", id_)
    return respond(request, answer)


@router.get("/disputed", summary="What needs a decision", response_model=TextPage, responses=docs.DISPUTED)
async def list_disputed(
    request: Request,
    parameters: Annotated[DisputedParameters, Query()],
    texts: TextsDep,
    datasets: DatasetsDep,
) -> Response:
    """List texts that need a decision, the most urgent first.

    Complete texts come first: the others will get further annotations anyway. In each group, disputed texts come
    first, by their number of annotations; then the texts whose label annotators decided with little confidence,
    the lowest first. Follow `next_cursor`, or the `Link` header, to read all of them: each is listed once. A text
    whose annotations change meanwhile may move.
    """
    query = ranked_query(Ranking.DISPUTED, parameters, parameters.confidence_below, datasets)
    return respond(request, await texts.ranked(query))


def make_label_router(datasets: Datasets) -> Router:
    """Return one path for the texts of each label of the datasets."""
    router = Router(dependencies=GUARDS, tags=["texts"])
    for label in sorted({label for dataset in datasets.values() for label in dataset.labels}):
        _add_label_path(router, label)
    return router


def _add_label_path(router: Router, label: str) -> None:
    async def list_label_texts(
        request: Request,
        parameters: Annotated[PageParameters, Query()],
        texts: TextsDep,
        datasets: DatasetsDep,
    ) -> Response:
        query = page_query(parameters, [label], datasets)
        return respond(request, await texts.page(query))

    router.add_api_route(
        f"/{label}_texts",
        list_label_texts,
        name=f"list_{label}_texts",
        summary=f"Texts labelled {label}",
        description=f"The same as `GET /texts?label={label}`.",
        response_model=CountedPage,
        responses=docs.PAGE,
    )


class Shortcut:
    """ASGI middleware that serves cached responses before routing: routing costs several times as much as sending.

    It maps a request's method, path, query string and Accept header to the key of a cached response. Each request
    checks that the response is of the newest version, and that the client may see it.

    `make bench ONLY="serving peers"`, "newest page, repeated", by processor time: 4 times as many responses as
    through the framework, which sends 1.5 times as many as ROAPI sends plain pages. The goal is 3 times as many.
    """

    def __init__(self, app: ASGIApp, answers: Answers, key_ring: KeyRing) -> None:
        self.app = app
        self._answers = answers
        self._key_ring = key_ring
        self._seen: FIFOCache[RequestKey, tuple[bytes, object, object]] = FIFOCache(_REQUESTS_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            await self.app(scope, receive, send)
            return
        accepted = tuple(value for name, value in scope["headers"] if name == b"accept")
        asked = scope["method"], scope["path"], scope["query_string"], accepted
        key, route, step = self._seen.get(asked, (None, None, None))
        answer = self._answers.ready_or_none(key) if key else None
        if answer is None:
            await self.app(scope, receive, send)
            self._remember(asked, scope)
            return
        scope["route"] = route
        if step is not None:
            scope[STEP] = step
        request = Request(scope, receive)
        try:
            self._key_ring.admit(request, keys.Scope.READ)
            if not keys.is_dataset_allowed(answer.dataset):
                await self.app(scope, receive, send)  # it refuses with its own problem
                return
            response = respond(request, answer)
        except Problem as problem:
            response = problem_response(problem)
        await response(scope, receive, send)

    def _remember(self, asked: RequestKey, scope: Scope) -> None:
        if "answer_key" not in scope or len(asked[2]) + sum(map(len, asked[3])) > _BYTES_MAX:
            return
        self._seen[asked] = scope["answer_key"], scope["route"], scope.get(STEP)
