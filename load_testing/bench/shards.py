"""Texts distributed by id over several Postgres servers: the statements that work, in two designs.

Behind one coordinator, `texts` is partitioned by the hash of `id`, and each partition is a foreign table
(postgres_fdw). With independent shards, each is a whole platform, and the sender chooses it by the id.
"""

import os
import secrets
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from rich.table import Table

from core.datasets import DEFAULT_DATASET
from core.migrate import migrate
from core.models.labels import STAMP, WINDOW_END
from core.settings import DatabaseSettings
from core.text_identity import text_id
from load_testing.bench.harness import running
from local_stack.components.server_tools import account_for_postgres
from local_stack.ports import reserved_ports

_SHARDS = 2
_TEXTS = 2000
_CLAIM = 100
_LOCK_WAIT = "500ms"
_DEBIAN = Path("/usr/lib/postgresql")

# The statements of ingestion API, uploader and serving API, reduced to the relevant parts.
_INSERT = """
    insert into {table} (id, dataset, text)
    select * from unnest(%s::uuid[], %s::text[], %s::text[]) order by 1
    on conflict {target} do nothing returning id
"""
_PICK = """
    select id from {table} where dataset = %s and status = 'pending' order by sequence limit %s
    for update skip locked
"""
_LABEL = f"""
    insert into labels (text_id, dataset, label, status, votes, annotations, labelled_at, changed_xid)
    values (%s, %s, 'toxic', 'labelled', '{{}}', 1, now(), {STAMP})
"""  # noqa: S608 - constants
_WINDOW = f"select text_id from labels where changed_xid >= %s::text::xid8 and changed_xid < {WINDOW_END}"  # noqa: S608

Connection = psycopg.Connection[tuple[object, ...]]
# The columns id, dataset and text.
Rows = tuple[list[UUID], list[str], list[str]]


class _Unlike(Exception):
    """The result differs from the required one."""


class Finding(NamedTuple):
    """Whether a statement works, and its result."""

    way: str  # "coordinator" or "by shard"
    what: str
    works: bool
    seen: str


def measure_shards(_rows: int) -> Table:
    """Try all statements in both designs, and show the findings."""
    binaries = find_postgres_with_fdw()
    table = Table("way", "what", "works", "seen", title=f"Texts distributed by id over {_SHARDS} Postgres servers")
    if binaries is None:
        table.caption = "Not tried: no Postgres with postgres_fdw here (Debian: postgresql)."
        return table
    for finding in find_out(binaries):
        table.add_row(finding.way, finding.what, "yes" if finding.works else "no", finding.seen)
    return table


def find_out(binaries: Path) -> list[Finding]:
    """Start the servers, try all statements, and return the findings."""
    with _postgres_clusters(binaries, _SHARDS + 1) as [url, *shard_urls], ExitStack() as opened:
        coordinator, *shards = _connect_all(opened, [url, *shard_urls])
        _distribute(coordinator, shard_urls)
        return [*_through_coordinator(coordinator, url, shards), *_by_shard(shards, shard_urls)]


def _connect_all(opened: ExitStack, urls: Sequence[str]) -> list[Connection]:
    return [opened.enter_context(psycopg.connect(url, autocommit=True)) for url in urls]


def _distribute(coordinator: Connection, shard_urls: Sequence[str]) -> None:
    coordinator.execute("create extension postgres_fdw")
    coordinator.execute(
        "create table all_texts (like texts including defaults including identity) partition by hash (id)"
    )
    for number, url in enumerate(shard_urls):
        parts = conninfo_to_dict(url)
        coordinator.execute(f"""
            create server shard_{number} foreign data wrapper postgres_fdw
            options (host '{parts["host"]}', port '{parts["port"]}', dbname 'postgres', batch_size '1000')
        """)
        coordinator.execute(f"""
            create user mapping for current_user server shard_{number}
            options (user 'postgres', password '{parts["password"]}')
        """)
        coordinator.execute(f"""
            create foreign table all_texts_{number} partition of all_texts
            for values with (modulus {len(shard_urls)}, remainder {number})
            server shard_{number} options (table_name 'texts')
        """)


def _make_rows() -> Rows:
    run = uuid.uuid4().hex
    texts = [f"{run} {number}" for number in range(_TEXTS)]
    return [text_id(DEFAULT_DATASET, text) for text in texts], [DEFAULT_DATASET] * _TEXTS, texts


def _expect(holds: bool, *seen: object) -> None:
    if not holds:
        raise _Unlike(f"seen: {seen}")


def _tried(way: str, what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(way, what, True, attempt())
    except (psycopg.Error, _Unlike) as error:
        return Finding(way, what, False, str(error).splitlines()[0])


def _through_coordinator(coordinator: Connection, url: str, shards: Sequence[Connection]) -> Iterator[Finding]:
    rows = _make_rows()

    def insert(target: str) -> int:
        statement = _INSERT.format(table="all_texts", target=target)
        return len(coordinator.execute(statement.encode(), rows).fetchall())

    def named() -> str:
        insert("(id)")
        return "stored"

    def unnamed() -> str:
        started = time.perf_counter()
        stored = insert("")
        rate = _TEXTS / (time.perf_counter() - started)
        again = insert("")
        counts = [_count(shard) for shard in shards]
        _expect((stored, again, sum(counts)) == (_TEXTS, 0, _TEXTS), stored, again, counts)
        return f"{stored} stored as {counts}, none twice; {rate:,.0f} texts/s"

    def pruned() -> str:
        plan = str(coordinator.execute(f"explain select from all_texts where id = '{rows[0][0]}'").fetchall())
        _expect(plan.count("Foreign Scan") == 1, plan)
        return "one shard is asked"

    def claimed() -> str:
        with psycopg.connect(url) as one, psycopg.connect(url) as other:
            mine = _pick(one, "all_texts")
            for shard in shards:
                shard.execute(f"alter role postgres set lock_timeout = '{_LOCK_WAIT}'")
            _expect_apart(mine, _pick(other, "all_texts"))
        return "two claims have different texts"

    yield _tried("coordinator", "insert … on conflict (id) do nothing", named)
    yield _tried("coordinator", "insert … on conflict do nothing", unnamed)
    yield _tried("coordinator", "a text by its id", pruned)
    yield _tried("coordinator", "claims side by side: for update skip locked", claimed)
    for shard in shards:
        shard.execute("alter role postgres reset lock_timeout")
    yield _tried("coordinator", "one window of the change feed", lambda: _one_window(coordinator, shards))


def _one_window(coordinator: Connection, shards: Sequence[Connection]) -> str:
    [(ours,)] = coordinator.execute(f"select {WINDOW_END}::text::bigint").fetchall()
    ends = [shard.execute(f"select {WINDOW_END}::text::bigint").fetchall()[0][0] for shard in shards]
    raise _Unlike(f"transaction ids are each server's own: the window ends at {ours} here, at {ends} there")


def _by_shard(shards: Sequence[Connection], urls: Sequence[str]) -> Iterator[Finding]:
    rows = _make_rows()

    def stored() -> str:
        counts = [_count(shard) for shard in shards]
        fresh = _store(shards, rows), _store(shards, rows)
        _expect(fresh == (_TEXTS, 0), fresh)
        added = [_count(shard) - before for shard, before in zip(shards, counts, strict=True)]
        return f"{_TEXTS} stored as {added}, none twice"

    def claimed() -> str:
        seen: set[object] = set()
        with ExitStack() as opened:
            for shard, other in zip(shards, _connect_all(opened, urls), strict=True):
                with shard.transaction(), other.transaction():
                    mine, theirs = _pick(shard), _pick(other)
                    _expect_apart(mine, theirs)
                    seen |= mine | theirs
        return f"{len(seen)} texts claimed by two on each shard, none twice"

    yield _tried("by shard", "insert … on conflict (id) do nothing", stored)
    yield _tried("by shard", "claims side by side: for update skip locked", claimed)
    yield _tried("by shard", "the change feed, a cursor for each shard", lambda: _follow(shards, urls, rows[0]))


def _pick(connection: Connection, table: str = "texts") -> set[object]:
    statement = _PICK.format(table=table)
    return {id_ for (id_,) in connection.execute(statement.encode(), [DEFAULT_DATASET, _CLAIM])}


def _expect_apart(mine: set[object], theirs: set[object]) -> None:
    _expect(len(mine) == len(theirs) == _CLAIM)
    _expect(mine.isdisjoint(theirs))


def _shard_of(id_: UUID) -> int:
    return int.from_bytes(id_.bytes[-8:]) % _SHARDS


def _store(shards: Sequence[Connection], rows: Rows) -> int:
    """Insert each row into its shard; return the number of new rows."""
    insert = _INSERT.format(table="texts", target="(id)").encode()
    stored = 0
    for number, shard in enumerate(shards):
        mine = [row for row in zip(*rows, strict=True) if _shard_of(row[0]) == number]
        stored += len(shard.execute(insert, [list(column) for column in zip(*mine, strict=True)]).fetchall())
    return stored


def _follow(shards: Sequence[Connection], urls: Sequence[str], ids: Sequence[UUID]) -> str:
    """Label texts while a transaction is open on the first shard: its label arrives later, but arrives."""
    cursors = [_window_end(shard) for shard in shards]
    slow, quick = ([id_ for id_ in ids if _shard_of(id_) == 0][:2]), ids[-20:]
    seen: list[object] = []
    with psycopg.connect(urls[0]) as open_:
        open_.execute(_LABEL, [slow[0], DEFAULT_DATASET])
        for id_ in quick:
            if id_ not in slow:
                shards[_shard_of(id_)].execute(_LABEL, [id_, DEFAULT_DATASET])
        held = [_read(shard, cursors, number, seen) for number, shard in enumerate(shards)]
        open_.commit()
    for number, shard in enumerate(shards):
        _read(shard, cursors, number, seen)
    wanted = {slow[0], *(id_ for id_ in quick if id_ not in slow)}
    _expect(len(seen) == len({*seen}), "twice")
    _expect({*seen} == wanted, (len(seen), len(wanted)))
    _expect(held[0] == 0, held)
    _expect(held[1] > 0, held)
    return f"{len(seen)} labels, none missed or twice; an open transaction held back its own shard alone"


def _window_end(shard: Connection) -> object:
    return shard.execute(f"select {WINDOW_END}::text").fetchall()[0][0]


def _read(shard: Connection, cursors: list[object], number: int, seen: list[object]) -> int:
    with shard.transaction():
        shard.execute("set transaction isolation level repeatable read")
        end = _window_end(shard)
        found = [id_ for (id_,) in shard.execute(_WINDOW, [cursors[number]])]
    cursors[number] = end
    seen += found
    return len(found)


def _count(shard: Connection) -> int:
    [(count,)] = shard.execute("select count(*) from texts").fetchall()
    return int(str(count))


def find_postgres_with_fdw() -> Path | None:
    """Return the folder with the programs of the newest Postgres that has postgres_fdw; None if there is none.

    The local stack's Postgres has no postgres_fdw; a distribution's has.
    """
    found = [
        folder
        for folder in _DEBIAN.glob("*/bin")
        if Path("/usr/share/postgresql", folder.parent.name, "extension", "postgres_fdw.control").exists()
        and (folder / "postgres").exists()
    ]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def _postgres_clusters(binaries: Path, count: int) -> Iterator[list[str]]:
    """Give the addresses of `count` new servers, each with the platform's schema in its database `postgres`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clusters-")))
        # Postgres runs under another account and must be able to enter.
        folder.chmod(0o711)
        urls = [stack.enter_context(_cluster(binaries, folder / str(number))) for number in range(count)]
        for url in urls:
            migrate(DatabaseSettings(url=SecretStr(url)))
        yield urls


@contextmanager
def _cluster(binaries: Path, data: Path) -> Iterator[str]:
    account = account_for_postgres()
    identity = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    password = secrets.token_urlsafe(24)
    data.mkdir(mode=0o700)
    secret = data.with_suffix(".password")
    secret.touch(mode=0o600)
    secret.write_text(password)
    if account:
        for path in (data, secret):
            os.chown(path, account.uid, account.gid)
    initdb = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", secret]
    # No locale data is needed.
    command = [*map(str, initdb), "--locale=C", "--encoding=UTF8", "--no-sync"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=data, **identity)  # type: ignore[call-overload] # noqa: S603
    with reserved_ports(1) as [port]:
        options = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        server = [str(binaries / "postgres"), "-D", str(data), *(part for one in options for part in ("-c", one))]
        url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        with running(server, lambda: _accepts(url), cwd=data, **identity):
            yield url


def _accepts(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
