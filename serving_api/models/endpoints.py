"""The endpoints of models, scores and suspects: parse, delegate, return."""

from typing import Annotated

from fastapi import Path, Query, Request, Response

from core.web.app import read_body, require_media_type
from core.web.negotiation import Router, choose_media_type
from core.web.problems import FieldError, InvalidFields
from serving_api.dependencies import GUARDS, DatasetsDep, part, respond, send
from serving_api.models import schemas as docs
from serving_api.models.schemas import (
    BODY_BYTES,
    CARD,
    EXAMPLE_VERSION,
    ModelList,
    ModelRead,
    ScoreResponse,
    SuspectPage,
    SuspectsParameters,
    TextScore,
    parse_score_request,
)
from serving_api.models.service import Models, render_suspect
from serving_api.texts.endpoints import TextsDep
from serving_api.texts.parameters import DatasetParameters, NoParameters
from serving_api.texts.query import Ranking, choose_dataset, ranked_query

_SENT = ("application/json", CARD)


ModelsDep = Annotated[Models, part("models")]

router = Router(dependencies=GUARDS, tags=["models"])


@router.post(
    "/score",
    summary="Score texts",
    openapi_extra={"requestBody": docs.SCORE_BODY},
    responses=docs.SCORES,
    response_model=ScoreResponse,
)
async def score_texts(
    request: Request, models: ModelsDep, datasets: DatasetsDep, _: Annotated[NoParameters, Query()]
) -> Response:
    """Score 1 to 1,000 texts by the dataset's active model: the probability of each label. Nothing is stored."""
    require_media_type(request, "application/json")
    asked = parse_score_request(await read_body(request, BODY_BYTES))
    try:
        dataset = choose_dataset(asked.dataset, (), datasets)
    except InvalidFields as error:
        wrong = error.errors[0]
        raise InvalidFields([FieldError(wrong.code, wrong.detail, pointer="/dataset")]) from None
    version, found = await models.score(dataset, asked.texts)
    scores = [TextScore(label=max(each, key=each.__getitem__), probabilities=each) for each in found]
    body = ScoreResponse(model_version=version, scores=scores).model_dump_json()
    return Response(body, media_type="application/json")


@router.get("/models", summary="Models of a dataset", responses=docs.LIST, response_model=ModelList)
async def list_models(
    request: Request, parameters: Annotated[DatasetParameters, Query()], models: ModelsDep, datasets: DatasetsDep
) -> Response:
    """List the models of a dataset, the newest first. One of them is active: it scores texts."""
    dataset = choose_dataset(parameters.dataset, (), datasets)
    return _send(request, ModelList(items=models.list_models(dataset)).model_dump_json().encode())


@router.get("/models/{version}", summary="One model, or its card", responses=docs.ONE, response_model=ModelRead)
async def get_model(
    request: Request,
    version: Annotated[str, Path(description="Version of the model.", examples=[EXAMPLE_VERSION])],
    models: ModelsDep,
    _: Annotated[NoParameters, Query()],
) -> Response:
    """Get a model's manifest: its data, its measures, the decision; with `Accept: text/markdown` its card."""
    media_type = choose_media_type(_SENT, request.headers.get("accept", "*/*"))
    if media_type == CARD:
        return _send(request, models.card(version).encode(), "text/markdown; charset=utf-8")
    return _send(request, models.get_model(version).model_dump_json().encode())


@router.get(
    "/suspects", summary="Labels that are probably wrong", responses=docs.SUSPECTS, response_model=SuspectPage
)
async def list_suspects(
    request: Request,
    parameters: Annotated[SuspectsParameters, Query()],
    texts: TextsDep,
    datasets: DatasetsDep,
) -> Response:
    """List labelled texts whose label is probably wrong, the worst first.

    A suspect is a text for which the model predicts another label, and whose label has a `quality` under
    `quality_below`. The list is empty before the first model. Follow `next_cursor`, or the `Link` header, to walk
    through all of them.
    """
    query = ranked_query(Ranking.SUSPECTS, parameters, parameters.quality_below, datasets)
    return respond(request, await texts.ranked(query, render_suspect))


def _send(request: Request, body: bytes, media_type: str = "application/json") -> Response:
    """Send what follows from the models alone: it changes while the replica's version stays."""
    return send(request, body, {"Cache-Control": "private, no-cache", "Vary": "Accept"}, media_type)
