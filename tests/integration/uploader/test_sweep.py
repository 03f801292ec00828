"""Tests of uploader.sweep on a fake Argilla: what a real one shows only by and by."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.uploader.conftest import DATASET, AddTexts, Rows, RunWithEngine
from tests.integration.uploader.fake_argilla import DATASET_ID, FakeArgilla
from uploader.argilla_client import Argilla
from uploader.argilla_errors import Unreachable
from uploader.sweep import Sweep

_ANN, _BOB = UUID(int=21), UUID(int=22)


def _response(user_id: UUID, value: str = "toxic") -> dict[str, Any]:
    moment = "2026-01-01T00:00:00"
    return {
        "id": str(uuid4()),
        "user_id": str(user_id),
        "status": "submitted",
        "values": {"label": {"value": value}},
        "inserted_at": moment,
        "updated_at": moment,
    }


def _sweep(run: RunWithEngine, fake: FakeArgilla) -> int:
    async def work(engine: AsyncEngine) -> int:
        transport = httpx.MockTransport(fake.answer)
        async with httpx.AsyncClient(base_url="http://argilla/api/v1/", transport=transport) as http:
            sweep = Sweep(Argilla(http), engine, DATASET, DATASET_ID)
            await sweep.run(lambda: None)
            return sweep.changed_count

    changed: int = run(work)
    return changed


def _answered(ids: list[UUID], user_id: UUID = _ANN) -> FakeArgilla:
    responses = {str(id_): [_response(user_id)] for id_ in ids}
    return FakeArgilla(records=set(responses), responses=responses, users={_ANN: "ann"})


def test_every_page_is_taken_over(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    ids = add_texts(*(f"t{i}" for i in range(600)), status="uploaded")
    assert _sweep(run, _answered(ids)) == 600
    assert rows("select label, annotations, count(*) from labels group by 1, 2") == [("toxic", 1, 600)]


def test_a_second_sweep_changes_nothing(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    fake = _answered(add_texts("a", status="uploaded"))
    _sweep(run, fake)
    before = rows("select changed_xid::text from labels")
    assert _sweep(run, fake) == 0
    assert rows("select changed_xid::text from labels") == before


def test_a_response_that_is_gone_is_withdrawn(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    fake = _answered(add_texts("a", status="uploaded"))
    _sweep(run, fake)
    fake.responses.clear()
    assert _sweep(run, fake) == 1
    assert rows("select status from labels") == [("withdrawn",)]


def test_a_record_that_is_gone_keeps_its_annotations(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    fake = _answered(add_texts("a", status="uploaded"))
    _sweep(run, fake)
    fake.records.clear()
    assert _sweep(run, fake) == 0
    assert rows("select label from labels") == [("toxic",)]


def test_a_renamed_annotator_gets_the_new_name(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    fake = _answered(add_texts("a", status="uploaded"))
    _sweep(run, fake)
    fake.users[_ANN] = "anna"
    _sweep(run, fake)
    assert rows("select annotator from annotations") == [("anna",)]


def test_an_annotator_that_argilla_forgot_keeps_the_name(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows
) -> None:
    fake = _answered(add_texts("a", status="uploaded"))
    _sweep(run, fake)
    fake.users.clear()
    assert _sweep(run, fake) == 0
    assert rows("select annotator from annotations") == [("ann",)]


def test_an_annotator_that_nobody_knows_is_named_by_the_id(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows
) -> None:
    _sweep(run, _answered(add_texts("a", status="uploaded"), _BOB))
    assert rows("select annotator from annotations") == [(str(_BOB),)]


def test_an_outage_withdraws_nothing(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    fake = _answered(add_texts("a", status="uploaded"))
    _sweep(run, fake)
    fake.is_away = True
    with pytest.raises(Unreachable):
        _sweep(run, fake)
    assert rows("select label from labels") == [("toxic",)]
