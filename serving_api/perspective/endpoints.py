"""The paths of Perspective's API, and the middleware for keys in the address and errors in Google's shape."""

import json
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Request, Response

from core.web.app import read_body, require_media_type
from core.web.keys import Scope, require_scope
from core.web.negotiation import Router
from core.web.problems import ScopeMissing
from serving_api.dependencies import base_url, part
from serving_api.perspective import schemas as docs
from serving_api.perspective.schemas import (
    VERSION,
    AnalyzeCommentRequest,
    Message,
    SuggestCommentScoreRequest,
    discovery_document,
    google_error,
)
from serving_api.perspective.service import Asked, Perspective, parse

# Contexts, which are ignored, may have a megabyte in Perspective.
_BODY_BYTES = 2**20


_PATHS = ("/v1alpha1/", "/$discovery/", "/discovery/v1/")
_PROBLEM = b"application/problem+json"
_KEY_HEADER = b"x-goog-api-key"

PerspectiveDep = Annotated[Perspective, part("perspective")]

router = Router(dependencies=[Depends(require_scope(Scope.READ))], tags=["perspective"])
# Client libraries read it before they have a key.
open_router = Router(tags=["perspective"])


@router.post(
    f"/{VERSION}/comments:analyze",
    summary="Score a comment, as Perspective's API does",
    openapi_extra=docs.ANALYZE_BODY,
    responses=docs.ANALYZED,
    response_model=docs.AnalyzeCommentResponse,
)
async def analyze_comment(request: Request, perspective: PerspectiveDep) -> Response:
    """Score a comment by the models of the datasets that the attributes mean. Nothing is stored."""
    return _send(await perspective.analyze(await _read(request, AnalyzeCommentRequest)))


@router.post(
    f"/{VERSION}/comments:suggestscore",
    summary="Suggest the score of a comment, as in Perspective's API",
    openapi_extra=docs.SUGGEST_BODY,
    responses=docs.SUGGESTED,
    response_model=docs.SuggestCommentScoreResponse,
)
async def suggest_score(request: Request, perspective: PerspectiveDep) -> Response:
    """Submit the comment for annotation, with the suggested score as a claim: needs the scope `ingest`, too.

    The response comes after the commit.
    """
    key = request.scope.get("api_key")
    if key is not None and not key.scopes & {Scope.INGEST, Scope.ADMIN}:
        raise ScopeMissing(f"This API key lacks the scope {Scope.INGEST}.")
    asked = await _read(request, SuggestCommentScoreRequest)
    return _send(await perspective.suggest(asked, key.name if key else None))


@open_router.get("/$discovery/rest", summary="Google's discovery document", responses=docs.DISCOVERY)
async def get_discovery(request: Request) -> dict[str, object]:
    """Describe Perspective's API for Google's client libraries: pass this address as `discoveryServiceUrl`."""
    return discovery_document(base_url(request))


open_router.add_api_route(
    f"/discovery/v1/apis/commentanalyzer/{VERSION}/rest",
    get_discovery,
    name="get_discovery_by_name",
    summary="Google's discovery document",
    responses=docs.DISCOVERY,
)


async def _read(request: Request, model: type[Asked]) -> Asked:
    # Perspective's own examples in Python send no Content-Type.
    if "content-type" in request.headers:
        require_media_type(request, "application/json")
    return parse(model, await read_body(request, _BODY_BYTES))


def _send(message: Message) -> Response:
    body = message.model_dump_json(by_alias=True, exclude_defaults=True)
    return Response(body, media_type="application/json; charset=UTF-8")


class GoogleErrors:
    """Takes `?key=` as an API key, out of the address before anything logs it, and translates problems.

    It must see a request first. Other paths pass as they are. Responses are short and are not compressed.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_PATHS):
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
            _take_key(scope)
            send = _Translating(send)
        await self.app(scope, receive, send)


def _take_key(scope: Any) -> None:
    """Make an `Authorization` of a key that was sent Google's ways; one that is there already wins."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    keys = [value.encode("latin-1") for name, value in query if name == "key"]
    keys += [value for name, value in scope["headers"] if name == _KEY_HEADER]
    rest = [(name, value) for name, value in query if name != "key"]
    scope["query_string"] = urlencode(rest, encoding="latin-1").encode()
    scope["headers"] = [header for header in scope["headers"] if header[0] != _KEY_HEADER]
    if keys and not any(name == b"authorization" for name, _ in scope["headers"]):
        scope["headers"].append((b"authorization", b"Bearer " + keys[0]))


class _Translating:
    """Sends one response: a problem, which always comes in one piece, is translated."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._head: Any = None

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if dict(message["headers"]).get(b"content-type", b"").startswith(_PROBLEM):
                self._head = message
                return
        elif self._head is not None:
            head, self._head = self._head, None
            body = json.dumps(google_error(json.loads(message["body"])), ensure_ascii=False)
            message = {**message, "body": body.encode("utf-8", "replace")}
            changed = {
                b"content-type": b"application/json; charset=UTF-8",
                b"content-length": str(len(message["body"])).encode(),
            }
            headers = [(name, changed.get(name, value)) for name, value in head["headers"]]
            await self._send({**head, "headers": headers})
        await self._send(message)
