"""The queue of imports as the processes use it, on a database of a test's own, with barriers in Postgres."""

import asyncio
import json
import multiprocessing
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from core.connections import make_async_engine
from core.datasets import Datasets, load_datasets
from core.settings import DatabaseSettings
from ingestion_api.bulk.batches import BulkUpload
from ingestion_api.bulk.pipes import open_pipe
from ingestion_api.bulk.schemas import BulkParameters
from ingestion_api.imports import repository
from ingestion_api.imports.repository import Claim
from ingestion_api.imports.run import RunResult, run_import
from ingestion_api.settings import IngestionSettings
from tests.waiting import wait_for

P = ParamSpec("P")
T = TypeVar("T")

_BARRIER = 7
_BLOCKED = "select count(*) from pg_locks where locktype = 'advisory' and objid = %s and not granted"


def _run(claim: Claim, datasets: Datasets, database: DatabaseSettings, settings: IngestionSettings) -> RunResult:
    with open_pipe() as (reports, _):
        return run_import(claim, datasets, database, settings, reports)


def _upload(**parameters: str) -> BulkUpload:
    return BulkUpload("application/x-ndjson", "identity", BulkParameters.model_validate(parameters), {})


class ImportQueue:
    """Calls what the API's processes call, and looks at what that leaves in the table."""

    def __init__(self, database_url: str, connection: psycopg.Connection, processes: ProcessPoolExecutor) -> None:
        self.settings = IngestionSettings(bulk_chunk_rows=2, import_lease_seconds=60)
        self.database = DatabaseSettings(url=SecretStr(database_url), statement_timeout_seconds=120)
        self._connection = connection
        self._processes = processes
        self._threads = ThreadPoolExecutor(4)

    def call(
        self, function: Callable[Concatenate[AsyncEngine, P], Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        """Call a function of `imports.repository` on a new connection."""

        async def call() -> T:
            engine = make_async_engine(self.database, "test")
            try:
                return await function(engine, *args, **named)
            finally:
                await engine.dispose()

        return asyncio.run(call())

    def ask(
        self, function: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        """Call a function of `imports.repository` in a new transaction."""

        async def within(engine: AsyncEngine) -> T:
            async with engine.begin() as connection:
                return await function(connection, *args, **named)

        return self.call(within)

    def begin(
        self, function: Callable[Concatenate[AsyncEngine, P], Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> Future[T]:
        """Run `call` in a new thread."""
        return self._threads.submit(lambda: self.call(function, *args, **named))

    def begin_asking(
        self, function: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> Future[T]:
        """Run `ask` in a new thread."""
        return self._threads.submit(lambda: self.ask(function, *args, **named))

    def wait_until_blocked(self) -> None:
        """Wait until a transaction waits for a row that another one has changed."""
        statement = "select count(*) from pg_locks where locktype in ('transactionid', 'tuple') and not granted"
        wait_for(lambda: self.fetch(statement) == [(1,)])

    def run(self, claim: Claim, datasets: Datasets | None = None) -> Future[RunResult]:
        """Run an import in a new process, as the API does."""
        datasets = datasets or load_datasets(None)
        return self._processes.submit(_run, claim, datasets, self.database, self.settings)

    def add(self, body: bytes = b'{"text": "a"}\n', **parameters: str) -> UUID:
        """Make an import of NDJSON whose body is complete."""
        given = {"on_error": "skip", "text": "text", "metadata": "none"} | parameters
        id_ = self.ask(repository.create_import, "test", _upload(**given), None)
        assert self.ask(repository.append_chunk, id_, 0, None, body)
        assert self.ask(repository.complete_upload, id_, len(body))
        return id_

    def add_open(self, body: bytes = b"12345") -> UUID:
        """Make an import that still receives its body."""
        id_ = self.ask(repository.create_import, "test", _upload(), None)
        assert self.ask(repository.append_chunk, id_, 0, None, body)
        return id_

    def row(self, id_: UUID) -> dict[str, Any]:
        """Return an import's row."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute("select *, now() as now from imports where id = %s", [id_]).fetchone()
        assert row
        del row["now"]
        return row

    def change(self, id_: UUID, sets: str) -> None:
        """Set columns of an import, as time or a crash would."""
        self._connection.execute(f"update imports set {sets} where id = %s", [id_])  # noqa: S608

    def fetch(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._connection.execute(statement, values).fetchall()

    def texts(self) -> list[str]:
        """Return the texts that are stored, in order."""
        return [text for (text,) in self.fetch("select text from texts order by text")]

    @contextmanager
    def crashing(self, condition: str) -> Iterator[None]:
        """Lose each transaction that sets an import's row so, as if its process died there."""
        self._connection.execute(
            "create function crash() returns trigger language plpgsql as "
            f"$$begin if {condition} then raise 'crash'; end if; return new; end$$;"
            "create trigger crash before update on imports for each row execute function crash()"
        )
        try:
            yield
        finally:
            self._connection.execute("drop trigger crash on imports; drop function crash()")

    @contextmanager
    def barrier(self, event: str) -> Iterator["Barrier"]:
        """Stop each transaction at `event` ("update on imports") until the barrier opens, or the block ends."""
        self._connection.execute(
            "create function stand() returns trigger language plpgsql as "
            f"$$begin perform pg_advisory_xact_lock({_BARRIER}); return coalesce(new, old); end$$;"
            f"create trigger barrier before {event} for each row execute function stand()"
        )
        with psycopg.connect(
            self._connection.info.dsn, password=self._connection.info.password, autocommit=True
        ) as holder:
            holder.execute("select pg_advisory_lock(%s)", [_BARRIER])
            try:
                yield Barrier(holder)
            finally:
                holder.execute("select pg_advisory_unlock_all()")
                table = event.rpartition(" ")[2]
                self._connection.execute(f"drop trigger barrier on {table}; drop function stand()")

    def close(self) -> None:
        self._threads.shutdown()


class Barrier:
    """Holds back transactions until it opens."""

    def __init__(self, holder: psycopg.Connection) -> None:
        self._holder = holder

    def wait(self, count: int = 1) -> None:
        """Wait until this number of imports are ahead of it."""
        wait_for(lambda: self._holder.execute(_BLOCKED, [_BARRIER]).fetchone() == (count,))

    def open(self) -> None:
        """Let all go on that stand there or come."""
        self._holder.execute("select pg_advisory_unlock_all()")


@contextmanager
def process_pool() -> Iterator[ProcessPoolExecutor]:
    """Give two processes for imports to run in."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


def lines(*rows: object) -> bytes:
    """NDJSON of these rows; strings as they are."""
    return b"".join((row if isinstance(row, str) else json.dumps(row)).encode() + b"\n" for row in rows)
