"""Responses of the endpoints of texts, with examples and refusals for OpenAPI.

The models only document: the replica stores the JSON of each item, and pages are made of it.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from core.web.openapi import Responses, header, refusals, with_example
from core.web.problems import FieldError, InvalidFields, Malformed, NotFound, Problem, Unavailable
from serving_api.columns import EXAMPLE_ITEM, TextItem
from serving_api.replica.tables import Role
from serving_api.texts.parameters import EXAMPLE_CURSOR
from serving_api.texts.query import NOT_OF_THIS_LIST, Mismatch

EXAMPLE_ID = EXAMPLE_ITEM["id"]
_PAGE: dict[str, Any] = {"next_cursor": EXAMPLE_CURSOR, "version": 91342}
_HIT: dict[str, Any] = EXAMPLE_ITEM | {"highlights": [[0, 7]]}
_COUNTED_PAGE: dict[str, Any] = {"items": [_HIT], "total": 4711} | _PAGE


class TextPage(BaseModel):
    """A page of labelled texts."""

    model_config = with_example(
        {
            "items": [
                EXAMPLE_ITEM
                | {
                    "label": None,
                    "status": "disputed",
                    "agreement": 0.5,
                    "votes": {"non_toxic": 2, "toxic": 2},
                    "confidence": None,
                }
            ],
            **_PAGE,
        }
    )

    items: list[TextItem]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
    version: int = Field(description="Point of the change feed that the answer shows.")


class FoundItem(TextItem):
    """A labelled text, and where a search matches it."""

    highlights: list[tuple[int, int]] | None = Field(
        None,
        description="Where the text matches `q`, if sent: [start, end) in Unicode code points; the first 100.",
        examples=[[[0, 7]]],
    )


class CountedPage(TextPage):
    """A page of labelled texts, and how many there are on all pages."""

    model_config = with_example(_COUNTED_PAGE)

    items: list[FoundItem]  # type: ignore[assignment]  # each is a text, too

    total: int | None = Field(
        description="Texts on all pages. Null if there are other filters than `dataset`, `label`, `source`, "
        "`language`, `status` and `complete`: they would have to be counted."
    )


class AnnotationItem(BaseModel):
    """One annotator's, or adjudicator's, answer."""

    annotator: str
    role: Role = Field(description="Adjudicators are asked about disputes; `votes` are without theirs.")
    value: str | None
    status: Literal["submitted", "draft", "discarded"]
    created_at: datetime
    updated_at: datetime


class TextDetail(TextItem):
    """A labelled text with its annotations."""

    model_config = with_example(
        EXAMPLE_ITEM
        | {
            "annotations": [
                {
                    "annotator": "ada",
                    "role": "annotator",
                    "value": "toxic",
                    "status": "submitted",
                    "created_at": "2026-11-02T09:12:40.100000Z",
                    "updated_at": "2026-11-02T09:12:40.100000Z",
                }
            ]
        }
    )

    annotations: list[AnnotationItem]  # type: ignore[assignment]  # the contract uses the name twice


REPLICA_HEADERS = {
    "X-Replica-Version": header("Point of the change feed that the answer shows.", "91342"),
    "X-Replica-Age": header("Seconds since the replica last read Postgres.", "0.412"),
    "Cache-Control": header("Caches must ask again.", "private, no-cache"),
}
_ETAG = {"ETag": header("For If-None-Match.", '"9f86d081884c7d659a2feaa0c55ad015"')}
NOT_MODIFIED = {"description": "The client holds this answer already.", "headers": REPLICA_HEADERS | _ETAG}
UNCHANGED: Responses = {304: NOT_MODIFIED}


def sends(headers: dict[str, Any] | None = None, *, has_etag: bool = True) -> Responses:
    """Describe the headers of a successful response; its body follows from the endpoint's `response_model`."""
    described = REPLICA_HEADERS | (_ETAG if has_etag else {}) | (headers or {})
    return {200: {"description": "Successful Response", "headers": described}}


def wrong_parameter(name: str, code: str, detail: str) -> Problem:
    """Return the problem that is sent for one wrong parameter."""
    return InvalidFields([FieldError(code, detail, parameter=name)])


def refuses(*problems: Problem) -> Responses:
    """Describe the problems of every endpoint that reads the replica, and the given ones."""
    return refusals(
        Malformed("The query string is not UTF-8.", code="malformed_query"),
        Unavailable("The replica is being built.", code="replica_missing", retry_after_seconds=5),
        *problems,
        scope="read",
    )


def not_labelled(id_: object, ingestion_url: str) -> NotFound:
    """Return the problem for a text without a label; it links to the ingestion API, which knows the reason."""
    address = f"{ingestion_url.rstrip('/')}/texts/{id_}"
    return NotFound(
        f"No labelled text has this id: it is not labelled yet, or unknown. GET {address} tells which.",
        code="text_not_found",
        headers={"Link": f'<{address}>; rel="related"'},
    )


def lists(path: str) -> Responses:
    """Describe the pages of a list."""
    following = f'<{path}?cursor={EXAMPLE_CURSOR}>; rel="next"'
    return (
        sends({"Link": header("Where the next page is.", following)})
        | UNCHANGED
        | refuses(
            Mismatch("cursor", "invalid_cursor", NOT_OF_THIS_LIST),
            wrong_parameter("limit", "less_than_equal", "limit must be between 1 and 1000 (got 5000)."),
        )
    )


PAGE = lists("/texts")
DISPUTED = lists("/disputed")
TEXT: Responses = (
    sends()
    | UNCHANGED
    | refuses(
        not_labelled(EXAMPLE_ID, "http://127.0.0.1:8080"),
        wrong_parameter("id", "uuid_parsing", "id must be a UUID (got 17)."),
    )
)
