"""The queries of snapshots: facts, rows by split, forgotten texts, and the comparison of two snapshots."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID

import duckdb
import pyarrow as pa

from core.datasets import Dataset
from core.models import AnnotationStatus
from serving_api import columns
from serving_api.exports.repository import schema_of, spans
from serving_api.replica.tables import Role
from serving_api.snapshots.manifest import AnswerCounts, Facts, Rule
from serving_api.statistics.agreement import Coefficient, agreement
from serving_api.statistics.repository import count_votes
from serving_api.texts.parameters import Order
from serving_api.texts.query import TextsQuery
from serving_api.texts.repository import conditions

# Hexadecimal digits of SHA-256: they fit a bigint.
_DIGITS = 13
SPACE = 16**_DIGITS

# Near duplicates share a split: that of the first one.
GROUP = "coalesce(near_duplicate_of, id)"


def thresholds(shares: Mapping[str, float]) -> list[tuple[str, int]]:
    """Return the names of the splits, each with the hash at which it ends; the last one ends at SPACE."""
    ends, total = [], Fraction(0)
    for name, share in sorted(shares.items()):
        total += Fraction(str(share))
        ends.append((name, int(total * SPACE)))
    return [*ends[:-1], (ends[-1][0], SPACE)]


def hashed(seed: int) -> str:
    """Return the SQL expression of a text's hash, from 0 up to SPACE: the first digits of SHA-256 of `SEED ID`."""
    return f"('0x' || left(sha256('{seed:d} ' || {GROUP}::varchar), {_DIGITS}))::bigint"


def place_of(shares: Mapping[str, float]) -> str:
    """Return the SQL expression of a text's split, from its `hash`: the index among the sorted names."""
    *before, _ = [end for _, end in thresholds(shares)]
    whens = " ".join(f"when hash < {end:d} then {place:d}" for place, end in enumerate(before))
    return f"case {whens} else {len(before):d} end" if before else "0"


class Former(NamedTuple):
    """Batches from earlier snapshots; each iterable is read once."""

    ids: Iterable[tuple[int, pa.RecordBatch]]  # the index of a split, and a batch of its column `id`
    twins: Iterable[pa.RecordBatch]  # `id` of near duplicates, and the `root` of each


def quotas(held: Sequence[tuple[str, int | None, int]], shares: Sequence[float]) -> pa.Table:
    """Return the bounds of each label's splits, as `bounds_of` does."""
    counts: dict[str, dict[int | None, int]] = defaultdict(lambda: defaultdict(int))
    for stratum, place, rows in held:
        counts[stratum][place] = rows
    bounds = [bounds_of(rows, shares) for rows in counts.values()]
    types = {"stratum": pa.string(), "bounds": pa.list_(pa.int64())}
    return pa.table({"stratum": [*counts], "bounds": bounds}, schema=pa.schema(types))


def bounds_of(rows: Mapping[int | None, int], shares: Sequence[float]) -> list[int]:
    """Return where each split but the last one ends, counted in half rows that have no split yet.

    `rows` are the numbers of a label's rows by split; None: no split yet. These rows are divided in proportion to
    the rows that each split lacks.
    """
    total, fresh = sum(rows.values()), rows.get(None, 0)
    lacks = [
        max(Fraction(0), Fraction(str(share)) * total - rows.get(place, 0)) for place, share in enumerate(shares)
    ]
    lacked = sum(lacks, Fraction(0)) or Fraction(1)
    ends, end = [], Fraction(0)
    for lack in lacks[:-1]:
        end += lack
        ends.append(math.ceil(2 * fresh * end / lacked))
    return ends


Connection = duckdb.DuckDBPyConnection

_SOURCES_SHOWN = 20
_BATCH_ROWS = 2048  # the size of DuckDB's own batches
_TWINS_AT_ONCE = 65_536


_SUMS = """
    select count(*), coalesce(sum(annotations), 0)::bigint, coalesce(min(annotations), 0),
           coalesce(max(annotations), 0), count(near_duplicate_of)
    from items where {where}
"""
_COUNTS = """
    select {column}, count(*) from items where {where} and {column} is not null group by 1 order by 2 desc, 1
"""
_RULES = """
    select rule, count(*), min(rule_version), max(rule_version) from items where {where} group by 1 order by 1
"""
_PERSONS = """
    select role, count(distinct annotator) from annotations
    where dataset = ? and status = ? and value is not null and text_id in (select id from items where {where})
    group by 1
"""


def read_facts(cursor: Connection, query: TextsQuery, dataset: Dataset) -> Facts:
    """Return the facts of the texts that the query finds; the same version gives the same facts.

    `cursor` is in the transaction that reads the rows. Agreement is computed as in `GET /stats/agreement`.
    """
    unselected, left_out = _without_selection(query)
    sources = _count_by(cursor, query, "source")
    [(texts, total, fewest, most, twins)] = _select(cursor, query, _SUMS)
    persons = dict(_select(cursor, query, _PERSONS, query.dataset, AnnotationStatus.SUBMITTED.value))
    rules = _select(cursor, query, _RULES)
    return Facts(
        guidelines=dataset.guidelines,
        labels=dataset.labels,
        answers_wanted=dataset.answers_wanted,
        near_duplicates=dataset.near_duplicates,
        license=dataset.license,
        texts=texts,
        statuses=_count_by(cursor, query, "status"),
        decided_by=_count_by(cursor, query, "decided_by"),
        rules=tuple(Rule(name=r, texts=n, first_version=first, last_version=last) for r, n, first, last in rules),
        answers=AnswerCounts(
            total=total,
            fewest=fewest,
            most=most,
            annotators=persons.get(Role.ANNOTATOR, 0),
            adjudicators=persons.get(Role.ADJUDICATOR, 0),
        ),
        agreement=_measure_agreement(cursor, unselected),
        agreement_without=left_out,
        sources=dict([*sources.items()][:_SOURCES_SHOWN]),
        sources_total=len(sources),
        languages=_count_by(cursor, query, "language"),
        near_twins=twins,
    )


def _measure_agreement(cursor: Connection, query: TextsQuery) -> dict[str, Coefficient]:
    measured = agreement(count_votes(cursor, query))
    return {field.name: getattr(measured, field.name) for field in fields(measured)}


def _without_selection(query: TextsQuery) -> tuple[TextsQuery, tuple[str, ...]]:
    """Return the query without the filters that choose texts by their answers, and the names of these filters.

    Among the texts with `min_agreement=1` every coefficient is 1, whatever the agreement on all texts.
    """
    given = query.filters.model_dump(include={"status", "min_agreement"}, exclude_none=True)
    names = sorted([*given, *(["label"] if query.labels else [])])
    filters = query.filters.model_copy(update=dict.fromkeys(given))
    return replace(query, labels=(), filters=filters), tuple(names)


def _count_by(cursor: Connection, query: TextsQuery, column: str) -> dict[str, int]:
    """Return the number of texts by the values of a column, without null, the most frequent first."""
    return dict(_select(cursor, query, _COUNTS.replace("{column}", column)))


def _select(cursor: Connection, query: TextsQuery, statement: str, *first: str) -> list[tuple[Any, ...]]:
    """Run a statement with the query's condition in place of `{where}`; `first` are the values before its own."""
    where, values = conditions(query)
    return cursor.execute(statement.replace("{where}", where), [*first, *values]).fetchall()


_CHOOSE = """
    create temp table chosen as
    select id, labelled_at, {group} as grp, coalesce(label, '') as stratum, {hash} as hash
    from items where {where} order by labelled_at
"""
_GROUPS = """
    create temp table groups as
    select grp, min(stratum) as stratum, count(*) as size, min(hash) as hash from chosen group by grp
"""
_PLACED = (
    """
    create temp table placed as
    select coalesce(any_value(root), any_value(items.near_duplicate_of), named.id) as grp, min(place) as place
    from named left join items on items.id = named.id left join twins on twins.id = named.id group by named.id
    """,
    "create or replace temp table placed as select grp, min(place) as place from placed group by grp",
    "drop table named",
)
_HELD = """
    select stratum, place, sum(size)::bigint from groups left join placed using (grp) group by all order by all
"""
# `middle` is twice the rank of the group's middle among the rows of its label that have no split yet.
_ASSIGN = """
    create temp table assigned as
    with fresh as (
        select grp, stratum, 2 * sum(size) over (partition by stratum order by hash, grp rows unbounded preceding)
               - size as middle
        from groups where grp not in (select grp from placed)
    ), places as (
        select grp, len(list_filter(bounds, lambda bound: bound <= middle))::utinyint as place
        from fresh join quotas using (stratum)
        union all
        from placed
    )
    select id, labelled_at, place from chosen join places using (grp) order by labelled_at
"""


def assign(cursor: Connection, query: TextsQuery, shares: Mapping[str, float], seed: int, former: Former) -> None:
    """Create the temporary table `assigned`: for each text the index of its split among the sorted names."""
    where, values = conditions(query)
    statement = _CHOOSE.format(group=GROUP, hash=hashed(seed), where=where)
    cursor.execute(statement, values)
    cursor.execute(_GROUPS)
    cursor.execute("create temp table named (id uuid, place utinyint)")
    for place, ids in former.ids:
        _receive(cursor, "insert into named select id::uuid, ? from incoming", ids, place)
    cursor.execute("create temp table twins (id uuid, root uuid)")
    for twins in former.twins:
        _receive(cursor, "insert into twins select id::uuid, root::uuid from incoming", twins)
    for statement in _PLACED:
        cursor.execute(statement)
    held = cursor.execute(_HELD).fetchall()
    cursor.register("quotas", quotas(held, [share for _, share in sorted(shares.items())]))
    cursor.execute(_ASSIGN)
    cursor.unregister("quotas")


def _receive(cursor: Connection, statement: str, batch: pa.RecordBatch, *values: str | int) -> None:
    cursor.register("incoming", pa.Table.from_batches([batch]))
    cursor.execute(statement, values)
    cursor.unregister("incoming")


def split_schema(cursor: Connection) -> pa.Schema:
    """Return the schema of the rows of a split."""
    return schema_of(cursor, columns.typed())


def read_rows(
    cursor: Connection, query: TextsQuery, shares: Mapping[str, float], seed: int, *, assigned: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the rows by the times of their labels and by id, with the index of each one's split in `split`.

    This order is total, so every replica gives the same rows for a version. It is nearly the order of its file. If
    `assigned`, the splits are those of the table that `assign` created, else they follow from the hashes.
    """
    where, values = conditions(query)
    for span, bounds in spans(cursor, Order.OLDEST):
        if assigned:
            place = "place"
            source = f"""
                select items.*, place from (from items where {span}) as items
                join (select id, place from assigned where {span}) as assigned using (id)
            """  # noqa: S608
            given = [*bounds, *bounds]
        else:
            place = place_of(shares)
            source = f"select *, {hashed(seed)} as hash from items where {where} and {span}"  # noqa: S608
            given = [*values, *bounds]
        statement = f"""
            select {columns.typed()}, {place} as split from ({source}) as items
            order by labelled_at, items.id
        """  # noqa: S608 - known columns
        yield from cursor.execute(statement, given).to_arrow_reader(_BATCH_ROWS)


def read_twins(cursor: Connection, query: TextsQuery) -> pa.RecordBatchReader:
    """Return the near duplicates of earlier texts: `id`, and `root`, the first text of the group."""
    where, values = conditions(query)
    statement = f"""
        select id::varchar as id, near_duplicate_of::varchar as root from items
        where near_duplicate_of is not null and {where} order by items.id
    """  # noqa: S608 - known columns
    return cursor.execute(statement, values).to_arrow_reader(_TWINS_AT_ONCE)


def list_forgotten(cursor: Connection, dataset: str, after: int, last: int) -> set[UUID]:
    """Return the ids of the texts that were forgotten in the versions above `after`, up to `last`."""
    statement = "select id from tombstones where forgotten and dataset = ? and version > ? and version <= ?"
    return {row[0] for row in cursor.execute(statement, [dataset, after, last]).fetchall()}


_TOTALS = """
    select count(*) filter (before.id is null), count(*) filter (after.id is null),
           count(*) filter (before.id = after.id and before.label is distinct from after.label),
           count(*) filter (before.split <> after.split)
    from before full join after on before.id = after.id
"""
_ITEMS = """
    select coalesce(before.id, after.id) as id, before.label as label_before, after.label as label_after,
           before.split as split_before, after.split as split_after
    from before full join after on before.id = after.id
    where (before.id is null or after.id is null or before.label is distinct from after.label
           or before.split <> after.split) and coalesce(before.id, after.id) > ?
    order by 1 limit ?
"""


class Difference(NamedTuple):
    """The numbers of texts that differ, by kind, and a page of these texts in the order of their ids."""

    added: int
    removed: int
    relabelled: int
    moved: int
    items: list[dict[str, Any]]


def load_compared(
    database: Connection, table: str, splits: Iterable[tuple[str, Iterable[pa.RecordBatch]]]
) -> None:
    """Create a table of a snapshot's texts; `splits` are their names, with batches of the columns id and label."""
    database.execute(f"create table {table} (id uuid, label varchar, split varchar)")
    for name, batches in splits:
        for batch in batches:
            _receive(database, f"insert into {table} select id::uuid, label, ? from incoming", batch, name)  # noqa: S608


def compare(database: Connection, after: UUID, limit: int) -> Difference:
    """Compare the tables `before` and `after`; the items are the first `limit` above the id `after`."""
    added, removed, relabelled, moved = database.execute(_TOTALS).fetchall()[0]
    rows = database.execute(_ITEMS, [after, limit]).to_arrow_table().to_pylist()
    return Difference(added, removed, relabelled, moved, rows)
