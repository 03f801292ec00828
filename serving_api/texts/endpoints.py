"""The paths of the serving API: parse, delegate, return."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query, Request, Response

from core.datasets import Datasets
from core.tracing.tracing import note_step, tracing
from core.web.negotiation import Router
from serving_api.changes.endpoints import get_changes
from serving_api.dependencies import GUARDS, AnswersDep, DatasetsDep, ReplicaDep
from serving_api.responses import replica_headers, respond
from serving_api.texts import documentation as docs
from serving_api.texts.parameters import (
    AgreementParameters,
    DatasetParameters,
    DisputedParameters,
    NoParameters,
    PageParameters,
    PeriodParameters,
    TextsParameters,
)
from serving_api.texts.query import agreement_query, choose_dataset, disputed_query, page_query, texts_query


def make_router(datasets: Datasets) -> Router:
    """Return all data paths; each label of the datasets has one of its own."""
    router = Router(dependencies=GUARDS, tags=["texts"])
    router.add_api_route("/texts", list_texts, summary="Labelled texts", responses=docs.PAGE)
    router.add_api_route("/texts/{id}", get_text, summary="One labelled text", responses=docs.TEXT)
    router.add_api_route("/disputed", list_disputed, summary="What wants a decision", responses=docs.DISPUTED)
    router.add_api_route("/changes", get_changes, summary="What changed", responses=docs.CHANGES)
    router.add_api_route("/stats", get_stats, summary="Totals", responses=docs.STATS)
    router.add_api_route(
        "/stats/agreement", get_agreement, summary="How far annotators agree", responses=docs.AGREEMENT
    )
    router.add_api_route(
        "/stats/annotators", get_annotators, summary="What each annotator did", responses=docs.ANNOTATORS
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
    answer = await answers.text(id_)
    if tracing.on:
        note_step(request.scope, "serve", id_)
    return respond(request, replica, answer)


async def list_disputed(
    request: Request,
    parameters: Annotated[DisputedParameters, Query()],
    answers: AnswersDep,
    replica: ReplicaDep,
    datasets: DatasetsDep,
) -> Response:
    """List what wants a decision, the most urgent first.

    Complete texts come first: the others will get further annotations anyway. Among either, disputed texts come
    first, those with the most annotations before others; then the texts whose label annotators decided with little
    confidence, the lowest first. Follow `next_cursor`, or the `Link` header, to walk through
    all of them: each is shown once. A text whose annotations change meanwhile may move to another place.
    """
    query = disputed_query(parameters, datasets)
    return respond(request, replica, await answers.disputed(query))


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
        responses=docs.PAGE,
    )
