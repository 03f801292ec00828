"""A model of the queue's leases: whatever uploaders do in whatever order, the rows say what the model says."""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from core.connections import make_async_engine
from core.settings import DatabaseSettings
from core.text_identity import text_id
from uploader import repository
from uploader.leadership import Leadership, NotLeading
from uploader.push.claiming import claim_texts
from uploader.push.repository import return_stale_claims

_DATASET = "toxicity"
_UPLOADERS = 3
_uploaders = st.integers(0, _UPLOADERS - 1)
_shares = st.integers(0, 4)


@dataclass
class _Claim:
    id: UUID
    holds: set[UUID]
    took: list[UUID]  # also what was lost since


@dataclass
class _Model:
    status: dict[UUID, str] = field(default_factory=dict)
    attempts: dict[UUID, int] = field(default_factory=dict)
    sent: list[UUID] = field(default_factory=list)  # claimed once and not failed, in that order
    claims: list[_Claim] = field(default_factory=list)
    leader: int | None = None
    has_expired: bool = False

    def holder(self, id_: UUID) -> UUID | None:
        return next((claim.id for claim in self.claims if id_ in claim.holds), None)

    def next_texts(self, count: int) -> list[UUID]:
        """Those that were sent before go first, by themselves."""
        pending = [id_ for id_, status in self.status.items() if status == "pending"]
        returning = [id_ for id_ in self.sent if self.status[id_] == "pending"]
        return (returning or pending)[:count]

    def lose(self, ids: set[UUID]) -> None:
        for claim in self.claims:
            claim.holds -= ids
        self.status |= dict.fromkeys(ids, "pending")


class LeaseMachine(RuleBasedStateMachine):
    """Uploaders that claim, finish, release, and lose the lead without noticing."""

    loop: asyncio.AbstractEventLoop
    engine: AsyncEngine
    connection: psycopg.Connection

    @initialize(count=st.integers(1, 8))
    def begin(self, count: int) -> None:
        self.model = _Model()
        self.leaderships = [Leadership(self.engine, _DATASET, 1000) for _ in range(_UPLOADERS)]
        self.execute("truncate texts, datasets restart identity")
        self.add(count)
        self.hold(0)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def execute(self, statement: str, *values: Any) -> None:
        self.connection.execute(statement, values)

    @rule(count=st.integers(1, 3))
    def add(self, count: int) -> None:
        for _ in range(count):
            written = str(len(self.model.status))
            id_ = text_id(_DATASET, written)
            self.execute("insert into texts (id, dataset, text) values (%s, %s, %s)", id_, _DATASET, written)
            self.model.status[id_] = "pending"
            self.model.attempts[id_] = 0

    @rule(who=_uploaders)
    def hold(self, who: int) -> None:
        self.do(self.leaderships[who].hold())
        model = self.model
        if model.leader == who:
            model.has_expired = False
        elif model.leader is None or model.has_expired:
            model.leader, model.has_expired = who, False
            model.lose({id_ for id_, status in model.status.items() if status == "uploading"})
        assert self.leaderships[who].leads == (model.leader == who)

    @rule(who=_uploaders)
    def release(self, who: int) -> None:
        self.do(self.leaderships[who].release())
        if self.model.leader == who:
            self.model.leader, self.model.has_expired = None, False

    @rule()
    def expire_leader(self) -> None:
        """The leader is frozen; whether it still believes in itself is its own affair."""
        self.execute("update datasets set leader_until = now() - interval '1 hour' where leader_id is not null")
        self.model.has_expired = self.model.leader is not None

    @rule(who=_uploaders)
    def take_over(self, who: int) -> None:
        self.expire_leader()
        self.hold(who)

    @rule(who=_uploaders)
    def claim_without_leading(self, who: int) -> None:
        if self.model.leader != who:
            with pytest.raises(NotLeading):
                self.do(self._claim(who, uuid4(), 1))

    @precondition(lambda self: self.model.leader is not None and "pending" in self.model.status.values())
    @rule(count=st.integers(1, 4))
    def claim(self, count: int) -> None:
        """Also by one whose lease expired, as long as no other has claimed it."""
        claim = uuid4()
        taken = self.do(self._claim(self.model.leader or 0, claim, count))
        assert taken == self.model.next_texts(count)
        self.model.sent += [id_ for id_ in taken if id_ not in self.model.sent]
        self.model.claims.append(_Claim(claim, set(taken), taken))
        self.model.status |= dict.fromkeys(taken, "uploading")

    async def _claim(self, who: int, claim: UUID, count: int) -> list[UUID]:
        async with self.engine.begin() as connection:
            await self.leaderships[who].confirm(connection)
            texts = await claim_texts(connection, _DATASET, claim, count=count, bytes_=1000, lease_seconds=1000)
        return [text.id for text in texts]

    @precondition(lambda self: self.model.claims)
    @rule(data=st.data(), share=_shares)
    def finish(self, data: st.DataObject, share: int) -> None:
        """Any claim, however old, says that some of its texts are uploaded and the others failed."""
        claim = data.draw(st.sampled_from(self.model.claims))
        uploaded, failed = claim.took[:share], claim.took[share:]
        done = self.do(self._finish(claim.id, uploaded, failed))
        assert done == len(claim.holds)
        for id_ in claim.holds:
            self.model.status[id_] = "uploaded" if id_ in uploaded else "failed"
            self.model.attempts[id_] += 1
            if id_ not in uploaded:
                self.model.sent.remove(id_)
        claim.holds.clear()

    async def _finish(self, claim: UUID, uploaded: list[UUID], failed: list[UUID]) -> int:
        async with self.engine.begin() as connection:
            done = await repository.mark_uploaded(connection, claim, uploaded)
            return done + await repository.mark_failed(connection, claim, dict.fromkeys(failed, "words"))

    @precondition(lambda self: self.model.claims)
    @rule(data=st.data())
    def return_claim(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.model.claims))
        assert self.do(self._return_claim(claim.id)) == len(claim.holds)
        self.model.lose(set(claim.holds))

    async def _return_claim(self, claim: UUID) -> int:
        async with self.engine.begin() as connection:
            return await repository.return_claim(connection, claim, 0)

    @precondition(lambda self: self.model.claims)
    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.model.claims))
        self.execute("update texts set lease_until = now() - interval '1 s' where lease_owner = %s", claim.id)
        assert self.do(self._return_stale()) == len(claim.holds)
        self.model.lose(set(claim.holds))

    async def _return_stale(self) -> int:
        async with self.engine.begin() as connection:
            return await return_stale_claims(connection, _DATASET)

    @rule()
    def retry(self) -> None:
        """As `annotate uploads retry` does."""
        self.execute("update texts set status = 'pending', retry_at = null where status = 'failed'")
        failed = {id_ for id_, status in self.model.status.items() if status == "failed"}
        self.model.status |= dict.fromkeys(failed, "pending")

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        columns = "id, status, attempts, lease_owner, lease_owner is null = (lease_until is null)"
        rows = self.connection.execute(f"select {columns} from texts").fetchall()  # noqa: S608 - constants only
        model = self.model
        expected = {id_: (status, model.attempts[id_], model.holder(id_)) for id_, status in model.status.items()}
        assert {row[0]: row[1:4] for row in rows} == expected
        assert all(row[4] for row in rows)
        assert all((row[1] == "uploading") == (row[3] is not None) for row in rows)


@pytest.fixture
def machine(database_url: str) -> Iterator[type[LeaseMachine]]:
    """The machine on a database of the test's own."""
    loop = asyncio.new_event_loop()
    engine = make_async_engine(DatabaseSettings(url=SecretStr(database_url)), "test")
    with psycopg.connect(database_url, autocommit=True) as connection:
        attributes = {"loop": loop, "engine": engine, "connection": connection}
        yield type("Machine", (LeaseMachine,), attributes)
    loop.run_until_complete(engine.dispose())
    loop.close()


def test_leases_behave_as_their_model(machine: type[LeaseMachine]) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine, settings=settings(max_examples=8, stateful_step_count=40, suppress_health_check=checks)
    )
