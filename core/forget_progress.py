"""How far forget requests have come, and which of them take too long."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text

OVERDUE = "forgetting_overdue"

# What is wrong while a step is open, and what to do.
STEPS = {
    "imports": "the body of an import may still hold it; let the import end, or delete it (`GET /imports`)",
    "argilla": "Argilla may still have it: no uploader works on the dataset, or Argilla keeps it "
    "(`annotate forget --list` shows why)",
    "replica": "it is not confirmed that the replica's files are free of it (`annotate status` checks)",
    "snapshots": "it is not confirmed that all snapshots are free of it "
    "(`annotate forget --rewrite-snapshots` removes it)",
}

# Whether a step is open, in `forget_requests`.
IS_OPEN = {
    "imports": "imports_at is null",
    "argilla": "(argilla_at is null or argilla_note is not null)",
    "replica": "(was_labelled and replica_at is null)",
    "snapshots": "(was_labelled and snapshots_at is null)",
}

IS_UNFINISHED = f"(lifted_at is null and ({' or '.join(IS_OPEN.values())}))"

_COUNTS = ", ".join(f"count(*) filter (where {is_open}) as {step}" for step, is_open in IS_OPEN.items())

# `older_than_seconds`: 0 for all that are not finished.
UNFINISHED = text(f"""
select dataset, count(*) as requests, min(requested_at) as since,
    extract(epoch from now() - min(requested_at))::float8 as age_seconds, {_COUNTS}
from forget_requests
where {IS_UNFINISHED} and requested_at <= now() - make_interval(secs => :older_than_seconds)
group by dataset order by dataset
""")  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The forget requests of a dataset that are not finished."""

    dataset: str
    since: datetime  # when the oldest was made
    age_seconds: float
    reason: str  # for people: what is open, and what to do


def read_unfinished(row: Row[Any]) -> Unfinished:
    """Return what a row of `UNFINISHED` tells."""
    is_one = row.requests == 1
    requests = "A forget request is" if is_one else f"{row.requests:,} forget requests are"
    reason = f"{requests} not finished: {name_steps(row)}."
    return Unfinished(row.dataset, row.since, row.age_seconds, reason)


def name_steps(row: Row[Any]) -> str:
    """Return what is open, from a row with a column for each step."""
    return "; ".join(words for step, words in STEPS.items() if getattr(row, step))
