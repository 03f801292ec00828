"""Which split a text belongs to: a hash of its id and the seed, held against the shares.

The shares are taken in the order of the splits' names, so that the order of a request's members says nothing.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from serving_api.snapshots.manifest import SnapshotManifest
from serving_api.snapshots.storage import Storage
from serving_api.texts.query import TextsQuery
from serving_api.texts.repository import conditions

# Of SHA-256, as many hexadecimal digits as fit a bigint with ease.
_DIGITS = 13
SPACE = 16**_DIGITS

# Twins stay together: they go where the text goes that they began with.
GROUP = "coalesce(near_duplicate_of, id)"


def thresholds(shares: Mapping[str, float]) -> list[tuple[str, int]]:
    """Return the names of the splits, and below which hash, of SPACE, each ends; the last one ends with SPACE."""
    ends, total = [], Fraction(0)
    for name, share in sorted(shares.items()):
        total += Fraction(str(share))
        ends.append((name, int(total * SPACE)))
    return [*ends[:-1], (ends[-1][0], SPACE)]


def hashed(seed: int) -> str:
    """Return the SQL expression of a text's hash, from 0 up to SPACE: the first digits of SHA-256 of `SEED ID`."""
    return f"('0x' || left(sha256('{seed:d} ' || {GROUP}::varchar), {_DIGITS}))::bigint"


def place_of(shares: Mapping[str, float]) -> str:
    """Return the SQL expression of a text's split, from its `hash`: the split's place among the names in order."""
    *before, _ = [end for _, end in thresholds(shares)]
    whens = " ".join(f"when hash < {end:d} then {place:d}" for place, end in enumerate(before))
    return f"case {whens} else {len(before):d} end" if before else "0"


TWINS = "near_duplicates.parquet"
_SCHEMA = pa.schema({"id": pa.string(), "root": pa.string()})
_ROWS_AT_ONCE = 65_536


def write_twins(cursor: duckdb.DuckDBPyConnection, query: TextsQuery, folder: Path) -> None:
    """Write the texts that have a near duplicate from before, each with the one that its group began with."""
    where, values = conditions(query)
    statement = f"""
        select id::varchar as id, near_duplicate_of::varchar as root from items
        where near_duplicate_of is not null and {where} order by items.id
    """  # noqa: S608 - known columns
    _write(cursor.execute(statement, values).to_arrow_reader(_ROWS_AT_ONCE), folder)


def rewrite_twins(storage: Storage, manifest: SnapshotManifest, without: Set[str], folder: Path) -> None:
    """Write them again without what must be forgotten, texts and roots."""
    if manifest.stratified:
        unwanted = pa.array(sorted(without), pa.string())
        with storage.open(manifest.name, TWINS) as file:
            table = parquet.read_table(file)
        for name in ("id", "root"):
            table = table.filter(pc.invert(pc.is_in(table[name], unwanted)))
        _write(table.to_reader(), folder)


def _write(batches: pa.RecordBatchReader, folder: Path) -> None:
    with parquet.ParquetWriter(folder / TWINS, _SCHEMA, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


class Former(NamedTuple):
    """What earlier snapshots tell; each is read once."""

    ids: Iterable[tuple[int, pa.RecordBatch]]  # the place of a split, and a part of its column `id`
    twins: Iterable[pa.RecordBatch]  # `id` of near duplicates, and the `root` of each


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
# `middle` is twice the place, in the label's rows without one, of the middle of the group.
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


def assign(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, shares: Mapping[str, float], seed: int, former: Former
) -> None:
    """Make a temporary table `assigned`: the place of each text's split among the names in their order."""
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
    cursor.register("quotas", _quotas(held, [share for _, share in sorted(shares.items())]))
    cursor.execute(_ASSIGN)
    cursor.unregister("quotas")


def _receive(cursor: duckdb.DuckDBPyConnection, statement: str, batch: pa.RecordBatch, *values: int) -> None:
    cursor.register("incoming", pa.Table.from_batches([batch]))
    cursor.execute(statement, values)
    cursor.unregister("incoming")


def _quotas(held: Sequence[tuple[str, int | None, int]], shares: Sequence[float]) -> pa.Table:
    """Return for each label where, in twice its rows without a place, each split ends but the last."""
    counts: dict[str, dict[int | None, int]] = defaultdict(lambda: defaultdict(int))
    for stratum, place, rows in held:
        counts[stratum][place] = rows
    bounds = [bounds_of(rows, shares) for rows in counts.values()]
    types = {"stratum": pa.string(), "bounds": pa.list_(pa.int64())}
    return pa.table({"stratum": [*counts], "bounds": bounds}, schema=pa.schema(types))


def bounds_of(rows: Mapping[int | None, int], shares: Sequence[float]) -> list[int]:
    """Return where each split but the last ends, in twice the rows that have no place yet.

    `rows` are a label's by place; None: without one. They go to the splits in proportion to what these lack.
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
