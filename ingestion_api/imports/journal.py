"""The queries of the process that runs an import; each is fenced by the claim's owner."""

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import psycopg

from ingestion_api.imports.rejects import StoredReject, to_storable

_CHUNK = 'select data from import_chunks where import_id = %s and "offset" = %s'

# running -> running: a batch is stored with its counts, and the claim renewed.
_RECORD = """
    update imports
    set last_row = greatest(last_row, %(last_row)s), received = %(received)s, accepted = %(accepted)s,
        duplicates = %(duplicates)s, rejected = %(rejected)s, bytes_read = %(bytes_read)s,
        rejects_kept = %(rejects_kept)s, reject_bytes = %(reject_bytes)s,
        crashes = case when %(is_progress)s then 0 else crashes end,
        lease_until = now() + make_interval(secs => %(lease_seconds)s)
    where id = %(id)s and lease_owner = %(owner)s and state = 'running'
"""

_REJECTS = 'copy import_rejects (import_id, "row", code, detail, fields) from stdin'

# running -> done, failed
_END = """
    update imports
    set state = %s, problem = %s::json, finished_at = now(), lease_owner = null, lease_until = null
    where id = %s and lease_owner = %s and state = 'running'
"""

_FORGET = """
    update imports set last_row = 0, received = 0, rejected = 0, bytes_read = 0, rejects_kept = 0, reject_bytes = 0
    where id = %s and lease_owner = %s and state = 'running'
"""
_FORGET_REJECTS = "delete from import_rejects where import_id = %s"


def read_chunk(connection: psycopg.Connection, id_: UUID, offset: int) -> bytes | None:
    """Return the piece of the body that begins at `offset`."""
    row = connection.execute(_CHUNK, [id_, offset], binary=True).fetchone()
    return row[0] if row else None


def record(cursor: psycopg.Cursor[Any], values: dict[str, Any]) -> bool:
    """Store the counts up to a batch; False if the claim is lost."""
    return cursor.execute(_RECORD, values).rowcount == 1


def add_rejects(cursor: psycopg.Cursor[Any], id_: UUID, rejects: Iterable[StoredReject]) -> None:
    """Store rejected rows."""
    with cursor.copy(_REJECTS) as copy:
        for row, code, detail, fields in rejects:
            copy.write_row((id_, row, to_storable(code), to_storable(detail), fields))


def start_anew(connection: psycopg.Connection, id_: UUID, owner: UUID) -> None:
    """Forget what an earlier run has counted without storing it."""
    if connection.execute(_FORGET, [id_, owner]).rowcount:
        connection.execute(_FORGET_REJECTS, [id_])
    connection.commit()


def finish(cursor: psycopg.Cursor[Any], id_: UUID, owner: UUID) -> None:
    """Say that every row is counted; if that was said before, it stays as it is."""
    cursor.execute(_END, ["done", None, id_, owner])


def fail(connection: psycopg.Connection, id_: UUID, owner: UUID, problem: dict[str, Any]) -> None:
    """Say why the import cannot go on."""
    connection.execute(_END, ["failed", json.dumps(to_storable(problem)), id_, owner])
    connection.commit()
