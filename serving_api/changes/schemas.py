"""Responses of `GET /changes`, with examples and refusals for OpenAPI."""

import json
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from core.web.openapi import Responses, header
from core.web.problems import Unavailable
from serving_api.columns import EXAMPLE_ITEM, TextItem
from serving_api.texts.parameters import EXAMPLE_FEED
from serving_api.texts.schemas import UNCHANGED, mismatch, refuses, sends, wrong_parameter

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

    model_config = ConfigDict(json_schema_extra={"examples": [_PAGE]})

    items: list[Upsert | Delete]
    next: int = Field(
        description="For `since`: where the next page begins. The same as `since` if nothing is new."
    )
    feed: str = Field(description="Which database the versions belong to.")


_CHANGES = sends({"Vary": header("Pages and events have one path.", "Accept")})
_CHANGES[200]["content"] = {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}}
_REPLACED = "The database is another one, and its versions too: begin anew, with an empty mirror and since=0."
CHANGES: Responses = (
    _CHANGES
    | UNCHANGED
    | refuses(
        mismatch("feed", "feed_replaced", _REPLACED),
        wrong_parameter("wait", "less_than_equal", "wait must be between 0 and 60 (got 90)."),
        Unavailable("Too many clients wait for changes.", code="too_many_waiting", retry_after_seconds=5),
    )
)
