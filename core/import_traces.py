"""What imports keep of texts after their end: rejected rows, and the problems of those that failed.

Forgetting searches both. The text itself is not needed: its id follows from it.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from core.text_identity import normalise, text_id

_FETCHED = 100

# No index helps. A row without fields is read where its detail may quote the names of its fields.
#
# The option belongs to the statement. On the connection it would turn later statements into cursors, too.
_FIND_REJECTS = text("""
select import_id, row, cast(fields as text) as fields from import_rejects
where fields is not null or detail <> :blanked and (detail like '%/metadata/%' or code = 'extra_forbidden')
""").execution_options(yield_per=_FETCHED)

_BLANK_REJECT = text("""
update import_rejects set fields = null, detail = :detail where import_id = :import_id and row = :row
""")
_REJECT_DETAIL = "The row held a text that was forgotten since."

_FIND_PROBLEMS = text("select id, problem from imports where problem is not null order by id")
_BLANK_PROBLEM = text("update imports set problem = cast(:problem as json) where id = :id")
_PROBLEM_DETAIL = "A text was forgotten since. The details were deleted, because they may have quoted it."
_PROBLEM_FIELDS = ("type", "title", "status", "code")
# Problems that quote the file: its column names, for example. A CSV without a header has texts in their place.
_QUOTING = {"unknown_column", "malformed_csv", "malformed_parquet"}

# Older releases stored a rejected JSON row as the repr of an object, in which no text can be looked up.
_OLD_REPR = "QuickSubmission("

_FORGET_VALUES = text("analyze import_rejects (detail, fields)")


def find_rejects(
    connection: Connection, datasets: Mapping[UUID, str], external_ids: Collection[str] = ()
) -> list[tuple[UUID, int]]:
    """Return the keys of rejected rows that hold one of these texts, given by id, or one of the external ids.

    Reads the whole table. Rows in which texts cannot be looked up are returned, too.
    """
    names = set(datasets.values())

    def holds(word: str) -> bool:
        return word in external_ids or any(text_id(name, normalise(word)) in datasets for name in names)

    return [
        (row.import_id, row.row)
        for row in connection.execute(_FIND_REJECTS, {"blanked": _REJECT_DETAIL})
        if row.fields is None or row.fields.startswith(f'"{_OLD_REPR}') or any(map(holds, _words(row.fields)))
    ]


def _words(fields: str) -> Iterator[str]:
    """Yield all strings within JSON, names included, and numbers as they were written."""
    found = [json.loads(fields, parse_int=str, parse_float=str)]
    while found:
        match found.pop():
            case dict() as value:
                found += [*value, *value.values()]
            case list() as value:
                found += value
            case str() as value:
                # A lone surrogate has no bytes to compute an id from; no stored text holds one.
                yield value.encode(errors="replace").decode()


def blank_rejects(connection: Connection, keys: Sequence[tuple[UUID, int]]) -> None:
    """Take the fields out of rejected rows; that they were rejected stays."""
    if keys:
        values = [{"import_id": import_id, "row": row, "detail": _REJECT_DETAIL} for import_id, row in keys]
        connection.execute(_BLANK_REJECT, values)


def blank_problems(connection: Connection) -> None:
    """Delete the details of failed imports' problems that quote their files: they may quote a forgotten text."""
    for row in connection.execute(_FIND_PROBLEMS).all():
        if row.problem.get("code") in _QUOTING and row.problem.get("detail") != _PROBLEM_DETAIL:
            kept = {name: row.problem[name] for name in _PROBLEM_FIELDS if name in row.problem}
            problem = json.dumps(kept | {"detail": _PROBLEM_DETAIL})
            connection.execute(_BLANK_PROBLEM, {"id": row.id, "problem": problem})


def forget_rejected_values(connection: Connection) -> None:
    """Have Postgres sample the rejected rows anew: its statistics hold values of rows that were blanked."""
    connection.execute(_FORGET_VALUES)
