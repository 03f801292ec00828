"""The queries of a claim. The caller holds the transaction.

A text is *sent* from its first claim on: its `page_position` is set then. One that comes back to the queue
(outage, lease run out, repair) is *returning*; one without it is *new*.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from core.models.labels import STAMP, wake_readers
from uploader.argilla.records import PendingText, Suggestion

_DUE = "dataset = :dataset and status = 'pending' and (retry_at is null or retry_at <= now())"
_NEW = f"{_DUE} and page_position is null and gold_label is null"
# The sender's score; else the model's.
_SCORE = "coalesce(score, model_score)"
_DISTANCE = f"abs({_SCORE} - 0.5)"


def _picking(condition: str, order: str) -> TextClause:
    # Rows that this transaction picked before are locked by us, so `skip locked` does not hide them.
    return text(f"""
select id, octet_length(text) + pg_column_size(metadata) as bytes, {_SCORE}, received_at, page_position, sequence
from texts
where {condition} and id <> all(cast(:picked as uuid[]))
order by {order}
limit :count
for update skip locked
""")  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class Pick:
    """A pending text that was chosen and locked."""

    id: UUID
    bytes: int
    score: float | None
    received_at: datetime
    page_position: int | None
    sequence: int


@dataclass(frozen=True, slots=True)
class QueueOrder:
    """New texts in an order. A read begins at `bound`, the key of a text; texts with smaller keys come first."""

    ordered: TextClause
    first_bound: float  # before all texts
    bound_of: Callable[[Pick], float]
    # Texts received after the sequence `since` that come before `bound`. None: every new text comes last.
    arrived: TextClause | None = None


# Each statement has an index in its order, and skips few entries there: gold, returning and retried texts.
RETURNING = _picking(f"{_DUE} and page_position is not null", "page_position")
GOLD = _picking(f"{_DUE} and page_position is null and gold_label is not null", "sequence")

OLDEST = QueueOrder(_picking(f"{_NEW} and sequence >= :bound", "sequence"), 0, lambda pick: pick.sequence)
UNSCORED = QueueOrder(
    _picking(f"{_NEW} and score is null and model_score is null and sequence >= :bound", "sequence"),
    0,
    lambda pick: pick.sequence,
)
NEWEST = QueueOrder(
    _picking(f"{_NEW} and sequence <= -cast(:bound as bigint)", "sequence desc"),
    1 - 2**63,
    lambda pick: -pick.sequence,
    _picking(f"{_NEW} and sequence > greatest(:since, -cast(:bound as bigint))", "sequence desc"),
)
UNCERTAIN = QueueOrder(
    _picking(f"{_NEW} and {_SCORE} is not null and {_DISTANCE} >= :bound", f"{_DISTANCE}, sequence"),
    0.0,
    lambda pick: abs((0.5 if pick.score is None else pick.score) - 0.5),
    # `+ 0` keeps the planner from reading the index of distances, where dead entries are. Sorts a few texts.
    _picking(
        f"{_NEW} and {_SCORE} is not null and sequence > :since and {_DISTANCE} + 0 < :bound",
        f"{_DISTANCE} + 0, sequence",
    ),
)

# Those that return keep their room, so that nothing new takes it while they wait. Counted as far as it matters.
_TAKEN_ROOM = text("""
select count(*) from (
    (select from texts
     where dataset = :dataset and status in ('uploading', 'uploaded') and completed_at is null limit :most)
    union all
    (select from texts
     where dataset = :dataset and status = 'pending' and page_position is not null and completed_at is null
     limit :most)
) as taken
""")

_OWED = text("select gold_owed, uncertain_owed from datasets where name = :dataset")

_STORE_OWED = text("update datasets set gold_owed = :gold, uncertain_owed = :uncertain where name = :dataset")

# pending -> uploading: claimed
_LEASE = text("""
update texts
set status = 'uploading', lease_owner = :claim, lease_until = now() + make_interval(secs => :lease_seconds),
    page_position = coalesce(texts.page_position, new.page_position)
from unnest(cast(:ids as uuid[]), cast(:positions as bigint[])) as new (id, page_position)
where texts.id = new.id
returning texts.id, text, claimed_label, score, source, external_id, metadata, enrichment, received_at, attempts,
    texts.page_position
""")


# uploading -> pending: the lease of a claim ran out
_RETURN_STALE = text("""
update texts set status = 'pending', lease_owner = null, lease_until = null
where dataset = :dataset and status = 'uploading' and lease_until < now()
""")


@dataclass(frozen=True, slots=True)
class Owed:
    """By how many texts the claims so far are behind their shares; less than none: ahead."""

    gold: float = 0
    uncertain: float = 0


_PREDICTIONS = text("""
select text_id, label, probability, model_version from predictions where text_id = any(cast(:ids as uuid[]))
""")


async def list_predictions(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Suggestion]:
    """Return what the active model predicts of texts, where it does."""
    rows = await connection.execute(_PREDICTIONS, {"ids": list(ids)})
    return {row.text_id: Suggestion(row.label, row.probability, f"model:{row.model_version}") for row in rows}


async def return_stale_claims(connection: AsyncConnection, dataset: str) -> int:
    """Make texts whose claim ran out pending again; return how many."""
    return (await connection.execute(_RETURN_STALE, {"dataset": dataset})).rowcount


async def pick(
    connection: AsyncConnection,
    statement: TextClause,
    dataset: str,
    count: int,
    picked: Collection[Pick] = (),
    **more: float,
) -> list[Pick]:
    """Choose and lock up to `count` texts that are not `picked` yet; `more` goes to the statement."""
    if count <= 0:
        return []
    values = {"dataset": dataset, "count": count, "picked": [one.id for one in picked], **more}
    return [Pick(*row) for row in await connection.execute(statement, values)]


async def count_taken_room(connection: AsyncConnection, dataset: str, most: int) -> int:
    """Return how many sent texts need more answers; counts up to about `most`."""
    return await connection.scalar(_TAKEN_ROOM, {"dataset": dataset, "most": most}) or 0


async def get_owed(connection: AsyncConnection, dataset: str) -> Owed:
    """Return what the claims so far owe."""
    row = (await connection.execute(_OWED, {"dataset": dataset})).first()
    return Owed(row.gold_owed, row.uncertain_owed) if row else Owed()


async def store_owed(connection: AsyncConnection, dataset: str, owed: Owed) -> None:
    """Remember what the claims so far owe."""
    values = {"dataset": dataset, "gold": owed.gold, "uncertain": owed.uncertain}
    await connection.execute(_STORE_OWED, values)


async def lease(
    connection: AsyncConnection, claim: UUID, picks: Sequence[Pick], positions: Sequence[int], lease_seconds: int
) -> list[PendingText]:
    """Claim picked texts; return them in their order. A position that a text has already stays."""
    ids = [one.id for one in picks]
    values = {"ids": ids, "positions": list(positions), "claim": claim, "lease_seconds": lease_seconds}
    texts = {row.id: PendingText(*row) for row in await connection.execute(_LEASE, values)}
    return [texts[id_] for id_ in ids]


_COMPLETION_TEXTS = 1000

_BEGIN_COMPLETION = text("""
update datasets
set answers_wanted = :wanted, completion_position = cast('00000000-0000-0000-0000-000000000000' as uuid)
where name = :dataset and answers_wanted is distinct from :wanted
""")

_COMPLETION_POSITION = text("select completion_position from datasets where name = :dataset")

_COMPLETION_PAGE = text("""
select text_id from labels where dataset = :dataset and text_id > :position order by text_id limit :count
""")

_LOCK_WRONG = text("""
select texts.id from texts join labels on text_id = texts.id
where texts.id = any(:ids) and (completed_at is not null) <> (annotations >= :wanted)
order by texts.id
for no key update of texts
""")

# After the lock, so that it sees what annotators changed meanwhile.
_COMPLETE = text("""
update texts set completed_at = case when annotations >= :wanted then clock_timestamp() end
from labels
where text_id = texts.id and texts.id = any(:ids) and (completed_at is not null) <> (annotations >= :wanted)
""")

# Readers of the change feed see whether a text is complete.
_STAMP = text(f"update labels set changed_xid = {STAMP} where text_id = any(:ids) and status <> 'withdrawn'")  # noqa: S608

_ADVANCE_COMPLETION = text("update datasets set completion_position = :position where name = :dataset")


async def settle_completion(connection: AsyncConnection, dataset: str, wanted: int) -> bool:
    """Correct `completed_at` of up to 1000 texts for `wanted` answers; return False when all are correct."""
    values = {"dataset": dataset, "wanted": wanted}
    await connection.execute(_BEGIN_COMPLETION, values)
    position = await connection.scalar(_COMPLETION_POSITION, values)
    if position is None:
        return False
    page = values | {"position": position, "count": _COMPLETION_TEXTS}
    ids = list((await connection.scalars(_COMPLETION_PAGE, page)).all())
    if wrong := list((await connection.scalars(_LOCK_WRONG, values | {"ids": ids})).all()):
        await connection.execute(_COMPLETE, values | {"ids": wrong})
        await connection.execute(_STAMP, {"ids": wrong})
        await connection.run_sync(wake_readers)
    await connection.execute(_ADVANCE_COMPLETION, {"dataset": dataset, "position": ids[-1] if ids else None})
    return bool(ids)


_CARRIED = text("""
select text_id, response_id, annotator_id, annotator, status, value, answers from annotations
where text_id = any(:ids) and withdrawn_at is null
    and argilla_dataset_id is distinct from cast(:argilla_dataset_id as uuid)
order by updated_at
""")

# From now on an answer that Argilla lacks counts as deleted. `seen_at` stays: any later read may replace it.
_ADOPT = text("""
update annotations set argilla_dataset_id = :argilla_dataset_id
from unnest(cast(:text_ids as uuid[]), cast(:response_ids as uuid[])) as given (text_id, response_id)
where annotations.text_id = given.text_id and annotations.response_id = given.response_id
    and withdrawn_at is null
""")


async def list_carried(
    connection: AsyncConnection, argilla_dataset_id: UUID, ids: Sequence[UUID]
) -> Sequence[Any]:
    """Return the annotations of these texts that are not in this dataset of Argilla's, the oldest first."""
    return (await connection.execute(_CARRIED, {"ids": list(ids), "argilla_dataset_id": argilla_dataset_id})).all()


async def adopt(connection: AsyncConnection, argilla_dataset_id: UUID, keys: Sequence[tuple[UUID, UUID]]) -> None:
    """Store that annotations, by text and response, are in this dataset of Argilla's."""
    if keys:
        values = {"text_ids": [key[0] for key in keys], "response_ids": [key[1] for key in keys]}
        await connection.execute(_ADOPT, values | {"argilla_dataset_id": argilla_dataset_id})
