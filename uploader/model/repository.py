"""SQL of the model in the loop. The training process reads by psycopg, the uploader itself writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from core.classifiers.model_files import ModelManifest
from core.models.labels import STAMP, WINDOW_END, wake_readers

_FETCHED = 5_000

# A text has one label here: what annotators, or adjudicators, agree on. Demo texts have made-up ones.
_IS_LABELLED = """
labels.dataset = %(dataset)s and labels.status = 'labelled' and labels.label = any(%(names)s)
    and texts.status not in ('demo', 'forgotten')
"""

_CLOCK = f"select now() as now, {WINDOW_END}::text as version"

# By label; without one: disputed.
_COUNTS = """
select labels.label, count(*) as texts from labels join texts on texts.id = labels.text_id
where labels.dataset = %(dataset)s and texts.status not in ('demo', 'forgotten')
    and (labels.status = 'disputed' or labels.status = 'labelled' and labels.label = any(%(names)s))
group by labels.label
"""

# The newest, in the order of their ids: then equal labels give an equal model.
_LABELLED = f"""
select * from (
    select labels.text_id, text, labels.label, source, claimed_label, score
    from labels join texts on texts.id = labels.text_id
    where {_IS_LABELLED}
    order by labelled_at desc, text_id
    limit %(most)s
) as newest order by text_id
"""  # noqa: S608 - constants only

_LINKS = """
select text_id, twin_id from near_duplicates
where text_id in (select text_id from labels where dataset = %(dataset)s and status = 'labelled')
"""

_PREDICTED = f"""
select labels.text_id, labels.label, decided_by, votes, model_version, predictions.probabilities, quality,
    quality_of, case when model_version is distinct from %(version)s then text end as text
from labels join texts on texts.id = labels.text_id left join predictions using (text_id)
where {_IS_LABELLED}
order by labels.text_id
"""  # noqa: S608 - constants only

_ANSWERS = """
select text_id, annotator, value from annotations join labels using (text_id)
where labels.dataset = %(dataset)s and labels.status = 'labelled' and labels.annotations > 1
    and annotations.status = 'submitted' and value = any(%(names)s) and withdrawn_at is null
order by text_id, annotator
"""

# The uploads' queue, from a position on; gold texts and returning ones are not ordered by a score.
_PENDING = """
select id, sequence, text, model_version is distinct from %(version)s
    and (score is null or %(also_claimed)s) as is_to_score
from texts left join predictions on text_id = id
where texts.dataset = %(dataset)s and status = 'pending' and page_position is null and sequence > %(after)s
order by sequence limit %(count)s
"""

_RECENT = """
select coalesce(source, '') as source, text from texts
where dataset = %(dataset)s and status not in ('demo', 'forgotten')
order by sequence desc limit %(count)s
"""


@dataclass(frozen=True, slots=True)
class Predicted:
    """A row of `predictions`."""

    text_id: UUID
    label: str
    probability: float
    probabilities: list[float]
    quality: float | None = None
    quality_of: str | None = None


def _rows(connection: psycopg.Connection, statement: str, **values: Any) -> Iterator[Any]:
    """Yield rows without having all of them in memory."""
    with connection.cursor("model", row_factory=namedtuple_row) as cursor:
        cursor.itersize = _FETCHED
        cursor.execute(statement, values)
        yield from cursor


def read_clock(connection: psycopg.Connection) -> Any:
    """Return `now`, and `version`: all changes of labels by older transactions are visible."""
    return connection.cursor(row_factory=namedtuple_row).execute(_CLOCK).fetchone()


def count_labels(connection: psycopg.Connection, dataset: str, names: Sequence[str]) -> dict[str | None, int]:
    """Return the number of labelled texts by label; under None that of disputed ones."""
    return {row.label: row.texts for row in _rows(connection, _COUNTS, dataset=dataset, names=list(names))}


def read_labelled(connection: psycopg.Connection, dataset: str, names: Sequence[str], most: int) -> Iterator[Any]:
    """Yield the newest labelled texts with their claims, by id."""
    return _rows(connection, _LABELLED, dataset=dataset, names=list(names), most=most)


def read_links(connection: psycopg.Connection, dataset: str) -> list[tuple[UUID, UUID]]:
    """Return the pairs of near duplicates with a labelled text."""
    return [(row.text_id, row.twin_id) for row in _rows(connection, _LINKS, dataset=dataset)]


def read_predicted(
    connection: psycopg.Connection, dataset: str, names: Sequence[str], version: str
) -> Iterator[Any]:
    """Yield the labelled texts with their predictions; with the `text` where that of `version` is missing."""
    return _rows(connection, _PREDICTED, dataset=dataset, names=list(names), version=version)


def read_answers(connection: psycopg.Connection, dataset: str, names: Sequence[str]) -> Iterator[Any]:
    """Yield the answers about texts that several annotators labelled."""
    return _rows(connection, _ANSWERS, dataset=dataset, names=list(names))


def read_pending(
    connection: psycopg.Connection, dataset: str, version: str, after: int, count: int, *, also_claimed: bool
) -> list[Any]:
    """Return a page of the pending texts behind a position; `is_to_score` where a score is missing."""
    values = {"version": version, "after": after, "count": count, "also_claimed": also_claimed}
    return list(_rows(connection, _PENDING, dataset=dataset, **values))


def read_recent(connection: psycopg.Connection, dataset: str, count: int) -> list[Any]:
    """Return the newest texts with their sources, whatever their status."""
    return list(_rows(connection, _RECENT, dataset=dataset, count=count))


_STATE = text("""
select active.version as active, active.created_at as active_at, latest.version as latest,
    latest.created_at, model_asked_at,
    latest.manifest->'labels' as labels, cast(latest.manifest->'is_accepted' as boolean) as is_accepted,
    cast(latest.manifest->'sizes'->>'texts' as integer) as texts,
    (select count(*) from labels join texts on texts.id = labels.text_id
     where labels.dataset = datasets.name and labels.status = 'labelled' and labelled_at > latest.created_at
         and texts.status not in ('demo', 'forgotten')) as new
from datasets
left join models as active on active.dataset = name and active.is_active
left join lateral (select * from models where dataset = name order by created_at desc limit 1) as latest on true
where name = :dataset
""")

_HAS_MOVED = text("""
select exists (select from labels where dataset = :dataset and changed_xid >= cast(cast(:seen as text) as xid8))
""")

_STORE = text("""
insert into models (dataset, version, created_at, decision, manifest)
values (:dataset, :version, :created_at, :decision, :manifest)
on conflict (dataset, version) do update
set created_at = excluded.created_at, decision = excluded.decision, manifest = excluded.manifest
""").bindparams(bindparam("manifest", type_=JSONB))

_DEACTIVATE = text("update models set is_active = false where dataset = :dataset and is_active")
_ACTIVATE = text("""
update models set is_active = true, activated_at = clock_timestamp()
where dataset = :dataset and version = :version
""")
_OUTDATED = text("""
select version from models where dataset = :dataset and not is_active order by created_at desc offset :kept
""")
_CLEAR_ASKED = text("""
update datasets set model_asked_at = null where name = :dataset and model_asked_at <= :asked_at
""")

_IS_ACTIVE = text("select 1 from models where dataset = :dataset and version = :version and is_active for share")

# A text that was forgotten meanwhile gets none, and none is forgotten until the commit. In order of id, as all who
# lock texts: so those who write labels cannot block each other.
_LOCK = text("""
select id from texts where id = any(cast(:ids as uuid[])) and status <> 'forgotten' order by id for no key update
""")

_PREDICT = text("""
insert into predictions
    (text_id, dataset, model_version, label, probability, probabilities, quality, quality_of)
select text_id, :dataset, :version, label, probability, cast(probabilities as real[]), quality, quality_of
from unnest(cast(:ids as uuid[]), cast(:labels as text[]), cast(:probability as float8[]),
    cast(:probabilities as text[]), cast(:quality as float8[]), cast(:quality_of as text[]))
    as new (text_id, label, probability, probabilities, quality, quality_of)
on conflict (text_id) do update
set model_version = excluded.model_version, label = excluded.label, probability = excluded.probability,
    probabilities = excluded.probabilities, quality = excluded.quality, quality_of = excluded.quality_of
""")

_STAMP = text(f"""
update labels set changed_xid = {STAMP} where text_id = any(cast(:ids as uuid[])) and status <> 'withdrawn'
""")  # noqa: S608 - a constant

_SCORE = text("""
update texts set model_score = new.score
from unnest(cast(:ids as uuid[]), cast(:scores as float8[])) as new (id, score)
where texts.id = new.id and status = 'pending' and page_position is null
""")

_SOME_PREDICTIONS = text("""
delete from predictions where text_id in (
    select text_id from predictions where dataset = :dataset order by text_id limit :count
) returning text_id
""")

_CLEAR_SCORES = text("""
update texts set model_score = null
where id in (
    select id from texts where dataset = :dataset and status = 'pending' and model_score is not null limit :count
)
""")


async def read_state(connection: AsyncConnection, dataset: str) -> Any:
    """Return the active and the latest model, and how many labels came since; None for an unknown dataset."""
    return (await connection.execute(_STATE, {"dataset": dataset})).first()


async def count_by_label(connection: AsyncConnection, dataset: str, names: Sequence[str]) -> dict[str, int]:
    """Return the number of labelled texts by label."""
    rows = await connection.exec_driver_sql(_COUNTS, {"dataset": dataset, "names": list(names)})
    counts = {row.label: row.texts for row in rows}
    return {name: counts.get(name, 0) for name in names}


async def has_moved(connection: AsyncConnection, dataset: str, seen: str) -> bool:
    """Whether labels may have changed since a `version` of `read_clock`."""
    return bool(await connection.scalar(_HAS_MOVED, {"dataset": dataset, "seen": seen}))


async def store_model(connection: AsyncConnection, manifest: ModelManifest) -> None:
    """Store a trained model; activate it if it was accepted."""
    values = {"dataset": manifest.dataset, "version": manifest.version}
    stored = {"decision": manifest.decision, "manifest": manifest.model_dump(mode="json")}
    await connection.execute(_STORE, values | stored | {"created_at": manifest.created_at})
    if manifest.is_accepted:
        await activate(connection, manifest.dataset, manifest.version)


async def activate(connection: AsyncConnection, dataset: str, version: str) -> None:
    """Make a stored model the active one."""
    await connection.execute(_DEACTIVATE, {"dataset": dataset})
    await connection.execute(_ACTIVATE, {"dataset": dataset, "version": version})


async def list_outdated(connection: AsyncConnection, dataset: str, kept: int) -> list[str]:
    """Return the models that are not active, but for the newest `kept`."""
    return list(await connection.scalars(_OUTDATED, {"dataset": dataset, "kept": kept}))


async def clear_asked(connection: AsyncConnection, dataset: str, asked_at: Any) -> None:
    """Note that the training was done for which an operator asked at this time, or before."""
    await connection.execute(_CLEAR_ASKED, {"dataset": dataset, "asked_at": asked_at})


async def is_active(connection: AsyncConnection, dataset: str, version: str) -> bool:
    """Whether a model is active; it stays so until the transaction ends."""
    return (await connection.execute(_IS_ACTIVE, {"dataset": dataset, "version": version})).first() is not None


async def store_predictions(
    connection: AsyncConnection, dataset: str, version: str, rows: Sequence[Predicted]
) -> list[UUID]:
    """Store predictions, of texts that are not forgotten; return which."""
    kept = set(await connection.scalars(_LOCK, {"ids": [row.text_id for row in rows]}))
    stored = [row for row in rows if row.text_id in kept]
    ids = [row.text_id for row in stored]
    values = {
        "ids": ids,
        "labels": [row.label for row in stored],
        "probability": [row.probability for row in stored],
        # unnest would flatten arrays of arrays.
        "probabilities": [f"{{{','.join(map(repr, row.probabilities))}}}" for row in stored],
        "quality": [row.quality for row in stored],
        "quality_of": [row.quality_of for row in stored],
    }
    await connection.execute(_PREDICT, values | {"dataset": dataset, "version": version})
    return ids


async def stamp_labels(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Put labels into the change feed again."""
    await connection.execute(_STAMP, {"ids": list(ids)})
    await connection.run_sync(wake_readers)


async def store_scores(connection: AsyncConnection, rows: Sequence[Predicted]) -> None:
    """Store the scores by which pending texts are ordered: 0.5 plus half the lead of the best label."""
    scores = []
    for row in rows:
        best, second = sorted(row.probabilities)[:-3:-1]
        scores.append(min(1.0, 0.5 + (best - second) / 2))
    await connection.execute(_SCORE, {"ids": [row.text_id for row in rows], "scores": scores})


async def remove_traces(connection: AsyncConnection, dataset: str, count: int) -> bool:
    """Deactivate the model and remove up to `count` predictions and scores; False: there was nothing."""
    values = {"dataset": dataset, "count": count}
    deactivated = await connection.execute(_DEACTIVATE, values)
    ids = list(await connection.scalars(_SOME_PREDICTIONS, values))
    cleared = await connection.execute(_CLEAR_SCORES, values)
    if ids:
        await stamp_labels(connection, ids)
    return bool(deactivated.rowcount or ids or cleared.rowcount)
