"""Tests of restored answers: whose answer goes back to whom, and never over one that is there."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import create_async_engine

from core.datasets import Dataset, Question
from core.models import AnnotationStatus
from uploader.argilla.client import Argilla
from uploader.argilla.errors import Refused
from uploader.argilla.records import CarriedAnswer, add_responses
from uploader.push.backlog import assign
from uploader.push.deliver import ArgillaDataset

_TEXT, _ANN, _BOB, _EVE = (UUID(int=n) for n in (1, 21, 22, 23))
_LABELS = ("toxic", "non_toxic")
_DEFINITION = Dataset(
    labels=_LABELS,
    guidelines="g",
    questions=(
        Question(name="why", title="Why?", type="text"),
        Question(name="severity", title="How bad?", type="rating"),
        Question(name="parts", title="Where?", type="span", labels=("insult",)),
    ),
)


def _answer(
    annotator: UUID, name: str, status: str = "submitted", value: str | None = "toxic", **more: Any
) -> CarriedAnswer:
    return CarriedAnswer(_TEXT, uuid4(), annotator, name, AnnotationStatus(status), value, {"label": value} | more)


def test_an_answer_goes_to_the_user_with_the_id_else_to_the_one_with_the_name() -> None:
    ann, bob, eve = _answer(_ANN, "ann"), _answer(_BOB, "bob"), _answer(_EVE, "eve")
    new_bob = uuid4()
    users = {_ANN: "renamed", new_bob: "bob"}
    assert assign([ann, bob, eve], users, _LABELS) == {_TEXT: {_ANN: ann, new_bob: bob}}


def test_two_answers_of_one_user_go_back_as_the_last_one() -> None:
    first, last = _answer(_BOB, "ann"), _answer(_EVE, "ann")
    assert assign([first, last], {_ANN: "ann"}, _LABELS) == {_TEXT: {_ANN: last}}


def test_a_submitted_answer_whose_label_is_gone_stays_with_us() -> None:
    assert assign([_answer(_ANN, "ann", value="spam")], {_ANN: "ann"}, _LABELS) == {}


def test_open_answers_go_back_with_values_that_argilla_takes() -> None:
    answers = {
        _ANN: _answer(_ANN, "ann", "discarded", None),
        _BOB: _answer(_BOB, "bob", "draft", "spam"),
        _EVE: _answer(_EVE, "eve", "draft"),
    }
    sent = add_responses({"external_id": "x"}, answers, _DEFINITION)["responses"]
    assert sent == [
        {"user_id": str(_ANN), "status": "discarded", "values": {}},
        {"user_id": str(_BOB), "status": "draft", "values": {}},
        {"user_id": str(_EVE), "status": "draft", "values": {"label": {"value": "toxic"}}},
    ]


def test_answers_to_other_questions_go_back_as_far_as_they_are_still_asked() -> None:
    part = [{"label": "insult", "start": 0, "end": 3}]
    fitting = _answer(_ANN, "ann", why="because", severity=5, parts=part)
    unfit = _answer(_BOB, "bob", why=None, severity=9, parts=[{"label": "threat", "start": 0, "end": 3}], gone="x")
    sent = add_responses({}, {_ANN: fitting, _BOB: unfit}, _DEFINITION)["responses"]
    label = {"label": {"value": "toxic"}}
    others = {"why": {"value": "because"}, "severity": {"value": 5}, "parts": {"value": part}}
    assert [response["values"] for response in sent] == [label | others, label]


def _put(records: list[dict[str, Any]], stored: str, refused: dict[str, str]) -> tuple[set[str], list[Any]]:
    """Put records into an Argilla that has some, and refuses others while they carry responses, or always."""
    puts = []

    def answer(request: httpx.Request) -> httpx.Response:
        items = json.loads(request.content)["items"]
        if request.method == "POST":
            there = [item["external_id"] for item in items if item["external_id"] in stored]
            words = (
                f"found records with same external ids: {', '.join(there)}" if there else "Record at position 0"
            )
            return httpx.Response(422, json={"detail": words if there else f"{words} is not valid because of it"})
        puts.append([item["external_id"] for item in items if "responses" in item])
        for position, item in enumerate(items):
            why = refused.get(item["external_id"])
            if why == "always" or (why and "responses" in item):
                return httpx.Response(
                    422, json={"detail": f"Record at position {position} is not valid because x"}
                )
        return httpx.Response(200, json={"items": []})

    async def work() -> set[str]:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(base_url="http://argilla/api/v1/", transport=transport) as http:
            engine = create_async_engine("postgresql+psycopg://")  # not asked
            dataset = ArgillaDataset(
                Argilla(http), engine, "mood", uuid4(), asyncio.Semaphore(), may_put=lambda: None
            )
            await dataset.put(records)
            return dataset.restored

    return asyncio.run(work()), puts


def _refused() -> float:
    labels = {"dataset": "mood", "repair": "answers"}
    return REGISTRY.get_sample_value("uploader_refused_repairs_total", labels) or 0


_RECORDS: list[dict[str, Any]] = [
    {"external_id": "a", "responses": [{}]},
    {"external_id": "b", "responses": [{}]},
    {"external_id": "c"},
]


def test_records_that_argilla_has_go_without_responses() -> None:
    assert _put(_RECORDS, "a", {}) == ({"b"}, [["b"]])


def test_records_without_responses_are_put_as_they_are() -> None:
    assert _put(_RECORDS[2:], "", {}) == (set(), [[]])


def test_answers_that_argilla_refuses_do_not_hold_back_their_text_and_are_counted() -> None:
    before = _refused()
    assert _put(_RECORDS, "", {"a": "responses"}) == ({"b"}, [["a", "b"], ["b"]])
    assert _refused() == before + 1


def test_a_text_that_argilla_refuses_is_refused_all_the_same() -> None:
    with pytest.raises(Refused):
        _put(_RECORDS, "", {"a": "always"})
