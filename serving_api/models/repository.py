"""Queries of labelled texts whose label is probably wrong."""

import hashlib
from dataclasses import dataclass

import duckdb

from core.models import LabelStatus
from serving_api.texts.query import Position, TextsQuery
from serving_api.texts.repository import READY, Row, all_of, conditions, list_rows

# The rank of a suspect: its quality in millionths of a millionth.
_RANK = "(quality * 1000000000000)::bigint"
_SHOWN = f"{READY}, label, votes, annotations, decided_by, predicted_label, predicted_probability, quality"


@dataclass(frozen=True)
class SuspectsQuery:
    """One page of the suspects: the prediction is another label, and the label's quality is low."""

    texts: TextsQuery
    quality_below: float
    limit: int
    after: Position | None

    @property
    def fingerprint(self) -> bytes:
        """The same for pages of the same list, and only for them."""
        return suspects_fingerprint(self.texts, self.quality_below)


def suspects_fingerprint(texts: TextsQuery, quality_below: float) -> bytes:
    """Return what identifies the list of these suspects."""
    return hashlib.sha256(f"suspects {quality_below} ".encode() + texts.fingerprint).digest()


def list_suspects(cursor: duckdb.DuckDBPyConnection, query: SuspectsQuery, count: int) -> list[Row]:
    """Return the first `count` suspects after the query's position, the worst first; each has its `rank`."""
    found = [
        conditions(query.texts),
        ("status = ? and predicted_label <> label and quality < ?", [LabelStatus.LABELLED, query.quality_below]),
    ]
    if query.after:
        rank = query.after.rank
        found.append((f"({_RANK} > ? or ({_RANK} = ? and id > ?))", [rank, rank, query.after.id]))
    where, values = all_of(found)
    # As in texts.repository.list_disputed: narrow rows are sorted, and only the few wide ones are fetched.
    chosen = f"select rowid, {_RANK} as rank from items where {where} order by rank, id limit ?"  # noqa: S608
    statement = f"""
        select {_SHOWN}, rank from items join ({chosen}) as chosen on chosen.rowid = items.rowid order by rank, id
    """  # noqa: S608
    return list_rows(cursor, statement, [*values, count])
