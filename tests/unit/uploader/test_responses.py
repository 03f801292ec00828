"""Tests of uploader.argilla.records and of reading them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models import AnnotationStatus
from uploader.argilla.client import RawResponses, read_isolating
from uploader.argilla.errors import Fault, Unreachable
from uploader.argilla.records import blocks_record, to_response

_TEXT, _RESPONSE, _USER = UUID(int=1), UUID(int=2), UUID(int=3)


def _raw(**changes: Any) -> dict[str, Any]:
    return {
        "id": str(_RESPONSE),
        "user_id": str(_USER),
        "status": "submitted",
        "values": {"label": {"value": "toxic"}, "why": {"value": ["rude", "loud"]}},
        "inserted_at": "2026-11-24T20:58:57.120687",
        "updated_at": "2026-11-24T20:59:00",
    } | changes


def test_a_response_is_taken_over_with_all_its_answers() -> None:
    response = to_response(_TEXT, _raw(), {_USER: "ann"})
    assert (response.text_id, response.response_id, response.annotator_id) == (_TEXT, _RESPONSE, _USER)
    assert (response.annotator, response.value, response.status) == ("ann", "toxic", AnnotationStatus.SUBMITTED)
    assert response.answers == {"label": "toxic", "why": ["rude", "loud"]}
    assert response.created_at == datetime(2026, 11, 24, 20, 58, 57, 120687, UTC)
    assert response.updated_at == datetime(2026, 11, 24, 20, 59, tzinfo=UTC)


def test_an_annotator_without_a_name_is_named_by_the_id() -> None:
    assert to_response(_TEXT, _raw(), {}).annotator == str(_USER)


@pytest.mark.parametrize("values", [None, {}])
def test_a_discarded_response_has_no_value(values: Any) -> None:
    response = to_response(_TEXT, _raw(status="discarded", values=values), {})
    assert (response.status, response.value, response.answers) == (AnnotationStatus.DISCARDED, None, {})


def test_only_responses_without_values_block_their_record() -> None:
    assert blocks_record(_raw(values=None))
    assert not blocks_record(_raw(values={}))


@given(st.integers(1, 250), st.sets(st.integers(0, 249), max_size=5))
def test_one_unreadable_record_does_not_hold_back_the_others(count: int, bad: set[int]) -> None:
    ids = [str(i) for i in range(count)]
    broken = {str(i) for i in bad if i < count}

    async def read(part: Sequence[str]) -> RawResponses:
        if broken & set(part):
            raise Fault("500")
        return {id_: [] for id_ in part}

    found, unreadable = asyncio.run(read_isolating(read, ids))
    assert set(unreadable) == broken
    assert found.keys() == set(ids) - broken


def test_no_record_is_blamed_when_nothing_can_be_read() -> None:
    calls = 0

    async def read(_: Sequence[str]) -> RawResponses:
        nonlocal calls
        calls += 1
        raise Fault("500")

    with pytest.raises(Unreachable):
        asyncio.run(read_isolating(read, [str(i) for i in range(250)]))
    assert calls == 2
