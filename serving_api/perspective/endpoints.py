"""The paths of Perspective's API: parse, delegate, return."""

from typing import Annotated

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
)
from serving_api.perspective.service import Asked, Perspective, parse

# Contexts, which are ignored, may have a megabyte in Perspective.
_BODY_BYTES = 2**20


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
