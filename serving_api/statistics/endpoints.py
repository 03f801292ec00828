"""The paths of statistics: parse, delegate, return."""

from typing import Annotated

from fastapi import Query, Request, Response

from core.web.negotiation import Router
from serving_api.dependencies import GUARDS, AnswersDep, DatasetsDep, ReplicaDep
from serving_api.responses import replica_headers, respond
from serving_api.statistics import schemas as docs
from serving_api.statistics.schemas import AgreementStats, AnnotatorsStats, Stats
from serving_api.texts.parameters import AgreementParameters, DatasetParameters, PeriodParameters
from serving_api.texts.query import agreement_query, choose_dataset, texts_query


def make_statistics_router() -> Router:
    """Return the paths of statistics."""
    router = Router(dependencies=GUARDS, tags=["texts"])
    router.add_api_route("/stats", get_stats, summary="Totals", response_model=Stats, responses=docs.STATS)
    router.add_api_route(
        "/stats/agreement",
        get_agreement,
        summary="How far annotators agree",
        response_model=AgreementStats,
        responses=docs.AGREEMENT,
    )
    router.add_api_route(
        "/stats/annotators",
        get_annotators,
        summary="What each annotator did",
        response_model=AnnotatorsStats,
        responses=docs.ANNOTATORS,
    )
    return router


async def get_agreement(
    request: Request,
    parameters: Annotated[AgreementParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """Measure how far annotators agree, by the usual coefficients, each with a bootstrap 95 % interval over texts.

    Submitted answers of annotators count, on texts with two or more of them; adjudicators' do not. Cohen's kappa
    is shown for the 100 pairs of annotators that share the most texts; `pairs` says how many pairs there are.
    """
    query = agreement_query(parameters, datasets)
    return respond(request, replica, await answers.agreement(query))


async def get_annotators(
    request: Request,
    parameters: Annotated[PeriodParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """List what each annotator did, and how often it was the outcome; who answered the most comes first.

    On labelled and disputed texts: who only ever discarded texts that nobody answered is not on the list.
    """
    query = texts_query(parameters, datasets)
    return respond(request, replica, await answers.annotators(query))


async def get_stats(
    parameters: Annotated[DatasetParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """Count the labelled and disputed texts of a dataset."""
    dataset = choose_dataset(parameters.dataset, (), datasets)
    answer = await answers.stats(dataset, datasets[dataset])
    # The totals are made once a version, their age is new in each answer.
    body = b'%b,"replica_age_seconds":%.3f}' % (answer.body[:-1], replica.age_seconds)
    return Response(body, headers=replica_headers(replica, answer.point), media_type="application/json")
