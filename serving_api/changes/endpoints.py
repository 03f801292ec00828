"""GET /changes as pages and as server-sent events, and its description in OpenAPI."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

import structlog
from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

from core.web.negotiation import Router, choose_media_type
from core.web.openapi import Responses, header, with_example
from core.web.problems import Unavailable
from serving_api.changes.service import FEED_REPLACED, Changes, ChangesQuery, ChangesResult
from serving_api.columns import EXAMPLE_ITEM, TextItem
from serving_api.dependencies import GUARDS, DatasetsDep, client_gone, part, respond
from serving_api.settings import ServingSettings
from serving_api.texts.parameters import EXAMPLE_FEED, ChangesParameters
from serving_api.texts.query import Mismatch, choose_dataset
from serving_api.texts.schemas import UNCHANGED, refuses, sends, wrong_parameter

_DELETE = {"op": "delete", "version": 91344, "id": EXAMPLE_ITEM["id"], "dataset": "toxicity"}
_PAGE: dict[str, Any] = {
    "items": [{"op": "upsert", "version": 91342} | EXAMPLE_ITEM, _DELETE],
    "next": 91344,
    "feed": EXAMPLE_FEED,
}
_EVENTS = f"""retry: 1000
event: feed
data: {{"feed":"{EXAMPLE_FEED}","version":91344}}

id: 91344
event: delete
data: {json.dumps(_DELETE, separators=(",", ":"))}

: ping

"""


class Upsert(TextItem):
    """A new or changed labelled text."""

    op: Literal["upsert"]
    version: int


class Delete(BaseModel):
    """A text that lost its label."""

    op: Literal["delete"]
    version: int
    id: UUID
    dataset: str


class ChangesPage(BaseModel):
    """A page of changes, in the order of their versions."""

    model_config = with_example(_PAGE)

    items: list[Upsert | Delete]
    next: int = Field(
        description="For `since`: where the next page begins. The same as `since` if nothing is new."
    )
    feed: str = Field(description="Which database the versions belong to.")


_CHANGES = sends({"Vary": header("Pages and events have one path.", "Accept")})
_CHANGES[200]["content"] = {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}}
CHANGES: Responses = (
    _CHANGES
    | UNCHANGED
    | refuses(
        Mismatch("feed", "feed_replaced", FEED_REPLACED),
        wrong_parameter("wait", "less_than_equal", "wait must be between 0 and 60 (got 90)."),
        Unavailable("Too many clients wait for changes.", code="too_many_waiting", retry_after_seconds=5),
    )
)


log = structlog.get_logger()

EVENTS = "text/event-stream"
_SENT = ("application/json", EVENTS)
_VERSION_MAX = 2**63 - 1


LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=_VERSION_MAX,
        description="Events only: the last `id` that was received; goes before `since`. Browsers send it.",
        examples=[91342],
    ),
]


router = Router(dependencies=GUARDS, tags=["texts"])


@router.get("/changes", summary="What changed", response_model=ChangesPage, responses=CHANGES)
async def get_changes(
    request: Request,
    parameters: Annotated[ChangesParameters, Query()],
    changes: Annotated[Changes, part("changes")],
    settings: Annotated[ServingSettings, part("serving_settings")],
    datasets: DatasetsDep,
    last_event_id: LastEventId = None,
) -> Response:
    """List texts that were labelled, relabelled or lost their label, in the order of versions.

    Pass `next` as `since` of the next request. A client that applies each page has the same labels as this API. A
    text appears on a page at most once. A page ends with a version, so it may be longer than `limit`. `wait` makes
    it a long poll.

    With `Accept: text/event-stream` the changes come as server-sent events until the client disconnects: first
    `feed`, then `upsert` and `delete`. An `id` is the version up to which everything was sent.
    """
    dataset = choose_dataset(parameters.dataset, (), datasets)
    changes.check_feed(parameters.feed)
    query = ChangesQuery(dataset, parameters.since, parameters.limit, parameters.feed)
    if choose_media_type(_SENT, ",".join(request.headers.getlist("accept"))) == EVENTS:
        since = parameters.since if last_event_id is None else last_event_id
        query = ChangesQuery(dataset, since, parameters.limit, parameters.feed)
        return ChangesStream(changes, query, settings)
    page = await changes.page(query)
    if page.is_empty and parameters.wait:
        with changes.notifier.waiting("poll"):
            await _first_done(changes.wait(query, parameters.wait), client_gone(request.receive))
        page = await changes.page(query)
    return _respond(request, page)


class ChangesStream(EventSourceResponse):
    """The changes as server-sent events. It takes one of the places for waiting clients while it is sent."""

    def __init__(self, changes: Changes, query: ChangesQuery, settings: ServingSettings) -> None:
        super().__init__(
            changes.events(query),
            headers={"Vary": "Accept"},
            ping=settings.changes_heartbeat_seconds,
            send_timeout=settings.changes_send_seconds,
        )
        self._notifier = changes.notifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._notifier.waiting("stream"):
            try:
                await super().__call__(scope, receive, send)
            # A heartbeat that waits for a stuck event times out with it: then a group has both errors.
            except* SendTimeoutError:
                log.info("changes.client_stuck")


def _respond(request: Request, page: ChangesResult) -> Response:
    response = respond(request, page.answer)
    response.headers["Vary"] = "Accept"
    request.scope.pop("answer_key")  # the shortcut would omit `Vary` and the rest of the page
    if page.rest is None or response.status_code != HTTPStatus.OK:
        return response
    del response.headers["content-length"]
    if request.method == "HEAD":
        return Response(headers=response.headers)
    return StreamingResponse(_joined(page.answer.body, page.rest), headers=response.headers)


async def _joined(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in rest:
        yield piece


async def _first_done(*waits: Coroutine[Any, Any, None]) -> None:
    """Return when the first of them is done, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
