"""Forgets texts, and keeps track of which steps of a request are open and which take too long.

See docs/decisions/0034-forgetting.md.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from core.forgetting import repository
from core.models.labels import wake_readers
from core.text_identity import normalise, text_id

OVERDUE = "forgetting_overdue"

# The problem while a step is open, and its remedy.
STEPS = {
    "imports": "the body of an import may still hold it; let the import end, or delete it (`GET /imports`)",
    "argilla": "Argilla may still have it: no uploader works on the dataset, or Argilla keeps it "
    "(`annotate forget --list` shows why)",
    "replica": "it is not confirmed that the replica's files are free of it (`annotate status` checks)",
    "snapshots": "it is not confirmed that all snapshots are free of it "
    "(`annotate forget --rewrite-snapshots` removes it)",
}


def explain_unfinished(row: Row[Any]) -> str:
    """Return for people what is open in the requests of a row of `UNFINISHED`, and what to do."""
    requests = "A forget request is" if row.requests == 1 else f"{row.requests:,} forget requests are"
    return f"{requests} not finished: {name_steps(row)}."


def name_steps(row: Row[Any]) -> str:
    """Return the open steps in words, from a row with a column for each step."""
    return "; ".join(words for step, words in STEPS.items() if getattr(row, step))


_PROBLEM_DETAIL = "A text was forgotten since. The details were deleted, because they may have quoted it."
_PROBLEM_FIELDS = ("type", "title", "status", "code")
# Problems that quote the file: its column names, for example. A CSV without a header has texts in their place.
_QUOTING = {
    "unknown_column",
    "duplicate_column",
    "wrong_column_type",
    "too_much_metadata",
    "malformed_csv",
    "malformed_parquet",
    "malformed_xlsx",
}

# Older releases stored a rejected JSON row as the repr of an object, in which no text can be looked up.
_OLD_REPR = "QuickSubmission("


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
        for row in repository.read_rejects(connection)
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


def blank_problems(connection: Connection) -> None:
    """Delete the details of failed imports' problems that quote their files: they may quote a forgotten text."""
    for row in repository.list_problems(connection):
        if row.problem.get("code") in _QUOTING and row.problem.get("detail") != _PROBLEM_DETAIL:
            kept = {name: row.problem[name] for name in _PROBLEM_FIELDS if name in row.problem}
            problem = json.dumps(kept | {"detail": _PROBLEM_DETAIL})
            repository.replace_problem(connection, row.id, problem)


@dataclass(frozen=True, slots=True)
class Traces:
    """The rows that lead to some texts, but do not have their ids as keys."""

    bands: Sequence[Any] = ()  # keys of near_duplicate_bands
    rejects: Sequence[tuple[UUID, int]] = field(default=())  # keys of import_rejects


def find_traces(connection: Connection, datasets: Mapping[UUID, str], external_ids: Collection[str]) -> Traces:
    """Find the bands of texts, given with their datasets, and the rejected rows that hold them or an external id.

    Reads both tables in full.
    """
    return Traces(repository.find_bands(connection, datasets), find_rejects(connection, datasets, external_ids))


def forget_texts(connection: Connection, ids: Sequence[UUID], traces: Traces, by: str) -> list[UUID]:
    """Forget texts in Postgres, in the caller's transaction, and store the request for the other steps of `by`.

    Returns the texts that this call forgot, without missing ones and those forgotten before.
    """
    rows = repository.lock_texts(connection, ids)
    if not rows:
        return []
    found = [row.id for row in rows]
    repository.empty_texts(connection, found, traces.bands)
    repository.blank_rejects(connection, traces.rejects)
    blank_problems(connection)
    labelled = repository.withdraw_labels(connection, found)
    imports_until = repository.get_last_import(connection)
    requests = [
        {
            "text_id": row.id,
            "dataset": row.dataset,
            "copy_of": row.adjudicates,
            "by": by,
            "imports_until": imports_until,
            "was_sent": _was_sent(row),
            "was_labelled": row.id in labelled,
        }
        for row in rows
    ]
    repository.store_requests(connection, requests)
    if labelled:
        wake_readers(connection)
    return found


def _was_sent(row: Any) -> bool:
    """Whether Argilla may have the text: a claim sets its position, a failure takes it away again."""
    if row.status == "demo":
        return False
    return row.status not in {"pending", "near_duplicate"} or row.attempts > 0 or row.page_position is not None
