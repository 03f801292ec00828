"""The endpoints of statistics: parse, delegate, return."""

from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import Query, Request, Response

from core.web.negotiation import Router
from serving_api.dependencies import GUARDS, DatasetsDep, replica_headers, respond
from serving_api.replica.query_pool import Answer, Answers, Connection
from serving_api.statistics import schemas, service
from serving_api.texts.parameters import (
    AgreementParameters,
    DatasetParameters,
    DaysParameters,
    LabelParameters,
    Order,
    PeriodParameters,
)
from serving_api.texts.query import check_search, choose_dataset, labelled_texts_query, texts_query

router = Router(dependencies=GUARDS, tags=["texts"])


@router.get("/stats", summary="Totals", response_model=schemas.Stats, responses=schemas.STATS)
async def get_stats(
    request: Request, parameters: Annotated[DatasetParameters, Query()], datasets: DatasetsDep
) -> Response:
    """Count the labelled and disputed texts of a dataset."""
    name = choose_dataset(parameters.dataset, (), datasets)
    key = b"stats" + name.encode()
    answer = await _answer(request, name, key, lambda cursor: service.make_stats(cursor, name, datasets[name]))
    # The totals are cached for each version; the replica's age is new in each response.
    replica = request.app.state.replica
    body = b'%b,"replica_age_seconds":%.3f}' % (answer.body[:-1], replica.age_seconds)
    return Response(body, headers=replica_headers(replica, answer.point), media_type="application/json")


@router.get(
    "/stats/agreement",
    summary="How far annotators agree",
    response_model=schemas.AgreementStats,
    responses=schemas.AGREEMENT,
)
async def get_agreement(
    request: Request, parameters: Annotated[AgreementParameters, Query()], datasets: DatasetsDep
) -> Response:
    """Measure how far annotators agree, by the usual coefficients, each with a bootstrap 95 % interval over texts.

    Submitted answers of annotators count, on texts with two or more of them; adjudicators' do not. `cohen_kappa`
    has the `max_pairs` pairs of annotators that share the most texts; `pairs` is the number of all pairs.
    """
    query, pair, most = texts_query(parameters, datasets), sorted(parameters.annotator), parameters.max_pairs
    key = b"agreement" + query.fingerprint + repr((pair, most)).encode()
    return await _respond(
        request, query.dataset, key, lambda cursor: service.make_agreement(cursor, query, pair, most)
    )


@router.get(
    "/stats/annotators",
    summary="What each annotator did",
    response_model=schemas.AnnotatorsStats,
    responses=schemas.COUNTED,
)
async def get_annotators(
    request: Request, parameters: Annotated[PeriodParameters, Query()], datasets: DatasetsDep
) -> Response:
    """List the work of each annotator, and how often their answer was the outcome, by number of answers.

    It covers labelled and disputed texts. Annotators who only discarded texts that have no answers are not listed.
    """
    query = texts_query(parameters, datasets)
    key = b"annotators" + query.fingerprint
    return await _respond(request, query.dataset, key, lambda cursor: service.make_annotators(cursor, query))


@router.get(
    "/stats/facets",
    summary="Texts by the values of filters",
    response_model=schemas.Facets,
    responses=schemas.COUNTED,
)
async def get_facets(
    request: Request, parameters: Annotated[LabelParameters, Query()], datasets: DatasetsDep
) -> Response:
    """Count the texts that the filters leave, by the values that each filter may have.

    The counts of a filter ignore the filter's own value: with `label=toxic` the other labels are counted, too.
    """
    check_search(parameters)
    query = labelled_texts_query(parameters, parameters.label, datasets, Order.NEWEST)
    key = b"facets" + query.fingerprint
    return await _respond(request, query.dataset, key, lambda cursor: service.make_facets(cursor, query))


@router.get(
    "/stats/days",
    summary="Labels and answers by day",
    response_model=schemas.DailyCounts,
    responses=schemas.COUNTED,
)
async def get_days(
    request: Request, parameters: Annotated[DaysParameters, Query()], datasets: DatasetsDep
) -> Response:
    """Count labels by day and label, and submitted answers by day and annotator; days are those of UTC."""
    query, days = texts_query(parameters, datasets), parameters.days
    key = b"days%d " % days + query.fingerprint
    return await _respond(request, query.dataset, key, lambda cursor: service.make_days(cursor, query, days))


Make = Callable[[Connection], dict[str, Any]]


async def _respond(request: Request, dataset: str, key: bytes, make: Make) -> Response:
    return respond(request, await _answer(request, dataset, key, make))


async def _answer(request: Request, dataset: str, key: bytes, make: Make) -> Answer:
    """Return the answer whose body is what `make` returns, with the replica's version."""
    answers: Answers = request.app.state.answers
    return await answers.document(
        key, dataset, lambda cursor, point: orjson.dumps(make(cursor) | {"version": point.version})
    )
