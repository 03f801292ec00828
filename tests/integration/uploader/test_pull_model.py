"""Model-based test of the way back: whatever annotators do, and however their events come, labels become right."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any
from uuid import UUID

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from pydantic import SecretStr

from core.connections import make_async_engine
from core.settings import DatabaseSettings
from core.text_identity import text_id
from tests.integration.uploader.leading import DATASET
from tests.integration.uploader.model_argilla import DATASET_ID, Event, ModelArgilla
from tests.integration.uploader.pulling import Side, pulling
from uploader.pull import repository
from uploader.pull.collector import read_again

_TEXTS = [text_id(DATASET, f"text {i}") for i in range(2)]
_USERS = [UUID(int=21 + i) for i in range(2)]
_TABLES = "texts, annotations, labels, datasets, rereads, webhooks"

answers = st.sampled_from(["toxic", "non_toxic", "draft", "discarded"])
fates = st.sampled_from(["read", "received", "under way"])
texts, users, places = st.sampled_from(_TEXTS), st.sampled_from(_USERS), st.integers(0, 1000)


class _Machine(RuleBasedStateMachine):
    """Annotators in a model of Argilla; events that come late, twice, inverted or never; our side on Postgres."""

    database_url = ""

    def __init__(self) -> None:
        super().__init__()
        self.argilla = ModelArgilla(users={user: f"user {user.int}" for user in _USERS})
        self.events: list[Event] = []  # under way
        self.held: list[tuple[dict[str, list[dict[str, Any]]], datetime]] = []  # reads that were not applied yet
        self.right: set[UUID] = set()  # texts that nobody touched since they were read again
        self.runner = asyncio.Runner()
        self.postgres = psycopg.connect(self.database_url, autocommit=True)
        self.postgres.execute(f"truncate {_TABLES}")
        self._run(self._open())
        for number, id_ in enumerate(_TEXTS):
            insert = (
                "insert into texts (id, dataset, text, status, uploaded_at) values (%s, %s, %s, 'uploaded', now())"
            )
            self.postgres.execute(insert, [id_, DATASET, f"text {number}"])
        self.argilla.add_records(*_TEXTS)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def _open(self) -> None:
        self.open = AsyncExitStack()
        self.engine = make_async_engine(DatabaseSettings(url=SecretStr(self.database_url)), "test")
        self.open.push_async_callback(self.engine.dispose)
        self.side: Side = await self.open.enter_async_context(pulling(self.engine, self.argilla, grace_seconds=-1))

    def _record(self, id_: UUID) -> Any:
        return self.argilla.records.get(str(id_))

    def _happened(self, id_: UUID, event: Event, fate: str) -> None:
        """Send an event on its way."""
        self.right.discard(id_)
        if fate != "under way":
            self._run(self.side.deliver(event))
        else:
            self.events.append(event)
        if fate == "read":
            self.pull()

    @rule(id_=texts, user=users, answer=answers, fate=fates)
    def answer(self, id_: UUID, user: UUID, answer: str, fate: str) -> None:
        if self._record(id_) is None:
            return
        status = answer if answer in {"draft", "discarded"} else "submitted"
        value = None if answer == "discarded" else "toxic" if answer == "draft" else answer
        self._happened(id_, self.argilla.respond(id_, user, status, value), fate)

    @rule(id_=texts, user=users, fate=fates)
    def delete_response(self, id_: UUID, user: UUID, fate: str) -> None:
        record = self._record(id_)
        if record is not None and user in record.responses:
            self._happened(id_, self.argilla.delete_response(id_, user), fate)

    @rule(user=users)
    def delete_user(self, user: UUID) -> None:
        self.right.clear()
        name = self.argilla.users[user]
        self.argilla.delete_user(user)
        self.argilla.users[user] = name  # may answer again

    @rule(id_=texts, fate=fates)
    def delete_record(self, id_: UUID, fate: str) -> None:
        if self._record(id_) is not None:
            self._happened(id_, self.argilla.delete_record(id_), fate)

    @precondition(lambda self: len(self.argilla.records) < len(_TEXTS))
    @rule(id_=texts)
    def retry(self, id_: UUID) -> None:
        statement = "update texts set status = 'uploaded', uploaded_at = clock_timestamp(), last_error = null"
        if self.postgres.execute(f"{statement} where id = %s and status = 'failed'", [id_]).rowcount:
            self.argilla.add_records(id_)

    @rule(id_=texts)
    def lose_from_index(self, id_: UUID) -> None:
        if record := self._record(id_):
            record.is_visible = not record.is_visible

    @precondition(lambda self: self.events)
    @rule(place=places, again=st.booleans())
    def deliver(self, place: int, again: bool) -> None:
        event = self.events[place % len(self.events)]
        if not again:
            self.events.remove(event)
        self._run(self.side.deliver(event))

    @precondition(lambda self: self.events)
    @rule(place=places)
    def lose(self, place: int) -> None:
        del self.events[place % len(self.events)]

    @rule()
    def pull(self) -> None:
        self.right |= {row[0] for row in self.postgres.execute("select text_id from rereads").fetchall()}
        self._run(self.side.pull())

    @rule()
    def pull_and_die_before_the_notes_are_dropped(self) -> None:
        self._run(self._pull_without_end())
        self.restart()

    async def _pull_without_end(self) -> None:
        async with self.engine.connect() as connection:
            notes = await repository.list_refresh_requests(connection, DATASET, 250)
        if notes:
            await read_again(self.side.collector, DATASET_ID, notes)

    @rule()
    def read(self) -> None:
        """Begin a read that is applied later: after newer ones, or after a change of its data."""
        [[read_at]] = self.postgres.execute("select clock_timestamp()").fetchall()
        read = self.side.state.argilla.read_responses(DATASET_ID, [str(id_) for id_ in _TEXTS])
        self.held.append((self._run(read), read_at))

    @precondition(lambda self: self.held)
    @rule(place=places)
    def apply(self, place: int) -> None:
        found, read_at = self.held.pop(place % len(self.held))
        self._run(self.side.collector.take_over(DATASET_ID, found, read_at))

    @rule()
    def push(self) -> None:
        """What Argilla has, but does not show, is sent again."""
        self._run(self.side.push(self.argilla))

    @rule()
    def look(self) -> None:
        self._run(self.side.look())

    @rule()
    def restart(self) -> None:
        self._run(self.open.aclose())
        self._run(self._open())

    @invariant()
    def what_was_read_again_stays_right(self) -> None:
        self._check(self.right)

    def teardown(self) -> None:
        try:
            for found, read_at in self.held:
                self._run(self.side.collector.take_over(DATASET_ID, found, read_at))
            # Argilla's index is repaired some day, if not by us.
            for record in self.argilla.records.values():
                record.is_visible = True
            self.push()
            self.postgres.execute("update datasets set swept_at = swept_at - interval '100 years'")
            for _ in range(3):
                self._run(self.side.look())
            self._check(set(_TEXTS))
        finally:
            self._run(self.open.aclose())
            self.runner.close()
            self.postgres.close()

    def _check(self, ids: set[UUID]) -> None:
        """Compare the labels of these texts with what their records hold."""
        rows = self.postgres.execute("select text_id, votes from labels where status <> 'withdrawn'").fetchall()
        labels = {id_: votes for id_, votes in rows if id_ in ids}
        assert labels == {id_: votes for id_ in ids if (votes := self._votes(id_))}

    def _votes(self, id_: UUID) -> dict[str, int]:
        record = self._record(id_)
        responses = record.responses.values() if record else []
        return Counter(r["values"]["label"]["value"] for r in responses if r["status"] == "submitted")


@pytest.mark.timeout(900)
def test_labels_become_what_argilla_holds(database_url: str) -> None:
    machine = type("Machine", (_Machine,), {"database_url": database_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=6,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
