"""Tests of uploader.forgetting with a model of Argilla: forgotten texts do not stay there."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from core.forgetting.repository import lift
from core.forgetting.service import Traces, forget_texts
from tests.integration.uploader.conftest import ANN, AddTexts, Pulling, Rows
from tests.integration.uploader.leading import upload_pending
from tests.integration.uploader.model_argilla import WORKSPACE_ID, ModelArgilla
from tests.integration.uploader.pulling import Side
from uploader.argilla.errors import ArgillaError, Fault, Gone, Unreachable
from uploader.forgetting import Forgetter

_WORDS = "Jane Roe, 12 Elm Street"
_STATE = "select removed_at is not null, argilla_at is not null from forget_requests"
_NOTE = "select argilla_note, argilla_at is not null from forget_requests"


async def _erase(side: Side, id_: UUID) -> None:
    async with side.state.engine.begin() as connection:
        assert await connection.run_sync(forget_texts, [id_], Traces(), "tester") == [id_]


async def _forget(side: Side, watch_seconds: float = 0) -> None:
    await Forgetter(side.state, watch_seconds).run(asyncio.Event())


async def _upload_and_erase(side: Side, ids: Sequence[UUID]) -> None:
    await upload_pending(side.state)
    for id_ in ids:
        await _erase(side, id_)


def test_a_record_is_emptied_and_then_deleted(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    id_, other = add_texts(_WORDS, "another")
    puts: list[Any] = []

    async def work(side: Side) -> None:
        await upload_pending(side.state)
        model.respond(id_, ANN, "submitted", "toxic")
        await _erase(side, id_)

        async def note(items: list[Any]) -> None:
            puts.append(items)

        model.before_put = note
        await _forget(side)

    pull(work)
    assert puts == [[{"external_id": str(id_), "fields": {"text": "[forgotten]"}, "metadata": None}]]
    assert model.records.keys() == {str(other)}
    assert rows(_STATE) == [(True, True)]


def test_it_is_looked_at_as_long_as_an_upload_may_be_under_way(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)
    states: list[Any] = []

    async def work(side: Side) -> None:
        await upload_pending(side.state)
        await _erase(side, id_)
        await _forget(side, 60)
        states.append(rows(_STATE))
        model.add_records(id_)  # a call that Argilla still worked on
        await _forget(side, 60)
        assert not model.records
        await _forget(side, 0)
        states.append(rows(_STATE))

    pull(work)
    assert states == [[(True, False)], [(True, True)]]


def test_a_text_that_is_forgotten_between_claim_and_put_does_not_stay(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    id_, other = add_texts(_WORDS, "another")

    async def work(side: Side) -> None:
        async def erase(_items: list[Any]) -> None:
            model.before_put = None
            await _erase(side, id_)
            await _forget(side, 60)  # sees nothing yet: the PUT is under way

        model.before_put = erase
        await upload_pending(side.state)
        assert str(id_) in model.records
        await _forget(side)

    pull(work)
    assert model.records.keys() == {str(other)}
    assert rows("select id, status, lease_owner from texts where status <> 'uploaded'") == [
        (id_, "forgotten", None)
    ]


def test_what_is_taken_out_between_put_and_confirmation_holds_up_nothing_for_long(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)

    async def work(side: Side) -> None:
        put = model.put

        def put_and_lose(items: list[Any]) -> Any:
            answer = put(items)
            model.records.pop(str(id_))
            return answer

        async def erase(_items: list[Any]) -> None:
            model.before_put = None
            await _erase(side, id_)

        model.before_put, model.put = erase, put_and_lose  # type: ignore[method-assign]
        with pytest.raises(Unreachable):
            await upload_pending(side.state)
        model.put = put  # type: ignore[method-assign]
        add_texts("another")
        await upload_pending(side.state)
        await _forget(side)

    pull(work)
    assert rows("select status from texts order by sequence") == [("forgotten",), ("uploaded",)]
    assert str(id_) not in model.records


def test_a_put_that_arrives_long_after_is_found_by_the_next_sweep(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)

    async def work(side: Side) -> None:
        await side.look()
        model.late = []
        with pytest.raises(ArgillaError):
            await upload_pending(side.state)
        await _erase(side, id_)
        late, model.late = model.late, None
        await _forget(side)
        assert rows(_STATE) == [(True, True)]
        await side.look()
        model.put(late[0])
        event = model.respond(id_, ANN, "submitted", "toxic")
        with structlog.testing.capture_logs() as logs:
            assert await side.deliver(event)
            await side.pull()  # a late event of it is no error, and changes nothing
            await side.look()
        assert not model.records
        assert any(line["event"] == "forget.removed_again" for line in logs)
        assert _WORDS not in str(logs)

    pull(work)
    assert rows("select count(*) from annotations") == [(0,)]
    assert rows("select count(*) from labels") == [(0,)]
    assert rows("select count(*) from rereads") == [(0,)]


def test_an_outage_is_waited_for(pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows) -> None:
    [id_] = add_texts(_WORDS)

    async def work(side: Side) -> None:
        await upload_pending(side.state)
        await _erase(side, id_)
        model.is_away = True
        with pytest.raises(ArgillaError):
            await _forget(side)
        assert rows(_STATE) == [(False, False)]
        model.is_away = False
        await _forget(side)

    pull(work)
    assert not model.records


def test_an_entry_that_argilla_leaves_in_its_index_is_told(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    id_, other = add_texts(_WORDS, "another")

    async def work(side: Side) -> None:
        await upload_pending(side.state)
        await _erase(side, id_)
        await _erase(side, other)
        model.loses_entries = True
        model.records[str(other)].is_visible = False
        await _forget(side)
        told = dict(rows("select text_id, argilla_note from forget_requests"))
        assert "reindex" in told[id_]
        model.stale.clear()
        await _forget(side)

    pull(work)
    assert rows(_NOTE) == [(None, True)] * 2


def test_a_dataset_that_was_set_aside_is_named(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)
    aside = {"id": str(UUID(int=77)), "name": "toxicity_lost_20260101000000", "workspace_id": str(WORKSPACE_ID)}
    model.others = [aside, aside | {"name": "toxicity_lost_and_found", "id": str(UUID(int=78))}]
    asked: list[UUID] = []

    async def keep(_argilla: Any, dataset_id: UUID, _ids: Any) -> set[str]:
        asked.append(dataset_id)
        return {str(id_)}

    monkeypatch.setattr("uploader.forgetting._take_out_unindexed", keep)

    async def work(side: Side) -> None:
        await upload_pending(side.state)
        await _erase(side, id_)
        await _forget(side)

    pull(work)
    assert asked == [UUID(int=77)]
    [(note, done)] = rows(_NOTE)
    assert "toxicity_lost_20260101000000" in note
    assert not done


def test_a_text_that_was_never_sent_is_done_at_once(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows, database_url: str
) -> None:
    pending, held = add_texts(_WORDS, "another")
    add_texts("a twin", status="near_duplicate")
    with psycopg.connect(database_url) as connection:
        connection.execute("update texts set status = 'near_duplicate' where id = %s", [held])

    async def work(side: Side) -> None:
        await _erase(side, pending)
        await _erase(side, held)
        await _forget(side)

    pull(work)
    assert rows(_STATE) == [(True, True)] * 2
    assert not model.calls


def test_a_lifted_text_may_come_again_and_stays(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)

    async def work(side: Side) -> None:
        await upload_pending(side.state)
        await _erase(side, id_)
        async with side.state.engine.begin() as connection:
            assert await connection.run_sync(lift, [id_]) == []  # it may still be in Argilla
        await _forget(side)
        async with side.state.engine.begin() as connection:
            assert await connection.run_sync(lift, [id_]) == [id_]
        add_texts(_WORDS)
        await upload_pending(side.state)
        await _forget(side)
        await side.look()

    pull(work)
    assert model.records.keys() == {str(id_)}
    assert rows("select status, text from texts") == [("uploaded", _WORDS)]


def _add_import(database_url: str, *rejects: Any) -> None:
    """Add an import that has ended with these rejected rows, and whose body is still there."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into imports (id, media_type, encoding, parameters, state)"
            " values (%s, 'text/csv', 'identity', '{}', 'done')",
            [UUID(int=1)],
        )
        for row, fields in enumerate(rejects):
            connection.execute(
                "insert into import_rejects values (%s, %s, 'c', 'd', %s)", [UUID(int=1), row, json.dumps(fields)]
            )


def _drop_bodies(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("update imports set has_body = false")


def test_rejected_rows_are_searched_again_when_the_last_import_has_ended(
    pull: Pulling, add_texts: AddTexts, database_url: str, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)
    _add_import(database_url, {"text": _WORDS, "label": "?"}, {"text": "another", "label": "?"})
    seen: list[Any] = []

    async def work(side: Side) -> None:
        await _upload_and_erase(side, [id_])
        await _forget(side)
        seen.append(rows("select imports_at is null from forget_requests"))
        _drop_bodies(database_url)
        await _forget(side)

    pull(work)
    assert seen == [[(True,)]]
    assert rows("select imports_at is null from forget_requests") == [(False,)]
    assert rows("select row, fields ->> 'text' from import_rejects order by row") == [(0, None), (1, "another")]


def test_a_failure_with_the_imports_does_not_keep_argilla_from_being_emptied(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, database_url: str, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)
    _add_import(database_url)

    async def work(side: Side) -> None:
        await _upload_and_erase(side, [id_])
        _drop_bodies(database_url)
        async with side.state.engine.begin() as connection:
            await connection.execute(text("alter table import_rejects rename to import_rejects_away"))
        with pytest.raises(ProgrammingError):
            await _forget(side)

    pull(work)
    assert not model.records
    assert rows("select imports_at is null, argilla_at is null from forget_requests") == [(True, False)]


@pytest.mark.parametrize("how", ["refused", "broken"])
def test_a_text_that_argilla_keeps_does_not_hold_up_the_others(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows, how: str
) -> None:
    ids = add_texts(*(f"{_WORDS} {n}" for n in range(9)))
    kept = ids[4]
    notes: list[Any] = []

    async def work(side: Side) -> None:
        await _upload_and_erase(side, ids)
        getattr(model, how).add(str(kept))
        forgetter = Forgetter(side.state, 0)
        await forgetter.run(asyncio.Event())
        assert model.records.keys() == {str(kept)}
        notes.extend(rows("select text_id, argilla_note from forget_requests where argilla_at is null"))
        calls = model.calls.total()
        await forgetter.run(asyncio.Event())
        assert model.calls.total() == calls  # it is not tried again at once
        getattr(model, how).clear()
        await _forget(side)

    pull(work)
    [(id_, note)] = notes
    assert id_ == kept
    assert ("not this one" if how == "refused" else "Argilla answered 500") in note
    assert not model.records
    assert set(rows(_NOTE)) == {(None, True)}


def test_an_argilla_that_breaks_down_over_every_text_stops_the_job_and_not_the_texts(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    ids = add_texts(*(f"{_WORDS} {n}" for n in range(9)))

    async def work(side: Side) -> None:
        await _upload_and_erase(side, ids)
        model.broken = set(map(str, ids))
        with pytest.raises(Fault):
            await _forget(side)
        assert rows("select count(*) from forget_requests where argilla_note is not null") == [(3,)]
        model.broken = {
            str(id_) for (id_,) in rows("select text_id from forget_requests where argilla_note <> ''")
        }
        await _forget(side)
        assert model.records.keys() == model.broken

    pull(work)


def test_a_set_aside_dataset_that_fails_does_not_hold_up_the_others(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)
    ids = {number: UUID(int=number) for number in (71, 72, 73)}
    model.others = [
        {"id": str(aside), "name": f"toxicity_lost_{number}", "workspace_id": str(WORKSPACE_ID)}
        for number, aside in ids.items()
    ]
    asked: list[UUID] = []

    async def take_out(_argilla: Any, dataset_id: UUID, _ids: Any) -> set[str]:
        asked.append(dataset_id)
        if dataset_id == ids[71]:
            raise Fault("it breaks down")
        if dataset_id == ids[72]:
            raise Gone("it was deleted")
        return set()

    monkeypatch.setattr("uploader.forgetting._take_out_unindexed", take_out)

    async def work(side: Side) -> None:
        await _upload_and_erase(side, [id_])
        await _forget(side)

    pull(work)
    assert asked == list(ids.values())
    assert not model.records
    [(note, done)] = rows(_NOTE)
    assert "toxicity_lost_71" in note
    assert not done


def test_a_text_that_comes_back_and_stays_does_not_hold_up_sweeps(
    pull: Pulling, add_texts: AddTexts, model: ModelArgilla, rows: Rows
) -> None:
    [id_] = add_texts(_WORDS)

    async def work(side: Side) -> None:
        await _upload_and_erase(side, [id_])
        await _forget(side)
        assert rows(_STATE) == [(True, True)]
        model.add_records(id_)
        model.refused.add(str(id_))
        await side.look()
        assert rows("select swept_at is not null from datasets") == [(True,)]
        assert rows(_STATE) == [(False, False)]
        await _forget(side)

    pull(work)
    [(note, done)] = rows(_NOTE)
    assert "not this one" in note
    assert not done
