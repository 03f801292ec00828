"""Pages read by ranges of time are those of a plain sort, whatever the sample says."""

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.datasets import load_datasets
from serving_api import cursor as cursors
from serving_api.cursor import Position
from serving_api.parameters import Order, TextsParameters
from serving_api.query import PageQuery, page_query
from serving_api.replica_tables import TABLES
from serving_api.windows import Sample, list_page, take_sample

_START = datetime(2026, 1, 1)  # noqa: DTZ001 - the replica holds UTC without a zone
_INSERT = """
    insert into items by name
    select ?::uuid as id, 'toxicity' as dataset, 'a text' as text, if(? % 3 = 0, 'toxic', 'non_toxic') as label,
           'labelled' as status, 1.0 as agreement, '{}' as votes, 1 as annotations, 'majority' as rule,
           1 as rule_version, 'annotators' as decided_by, '{}' as metadata, '{}' as enrichment, '' as annotators,
           '{}' as document, ?::timestamp as received_at, ?::timestamp as labelled_at, 1 as version
"""

Item = tuple[datetime, uuid.UUID, int]

# Bursts and long pauses: the same second again and again, then one years away.
MOMENTS = st.lists(
    st.one_of(st.integers(0, 3), st.integers(0, 100), st.integers(0, 10**8)).map(
        lambda seconds: _START + timedelta(seconds=seconds)
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def items_table() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(f"create table items ({TABLES['items']})")
        yield connection


def _fill(connection: duckdb.DuckDBPyConnection, moments: list[datetime]) -> list[Item]:
    items = [(moment, uuid.uuid5(uuid.NAMESPACE_OID, str(n)), n) for n, moment in enumerate(moments)]
    connection.execute("delete from items")
    for moment, id_, n in items:
        connection.execute(_INSERT, [id_, n, moment, moment])
    return items


def _expected(items: list[Item], page: PageQuery) -> list[uuid.UUID]:
    by_id = sorted(items, key=lambda item: item[1], reverse=page.texts.order is Order.OLDEST)
    ordered = sorted(by_id, key=lambda item: item[0], reverse=page.texts.order is Order.NEWEST)
    chosen = [item for item in ordered if not page.texts.labels or item[2] % 3 == 0]
    if page.after:
        after = cursors.moment(page.after.place), page.after.id
        chosen = chosen[[(moment, id_) for moment, id_, _ in chosen].index(after) + 1 :]
    return [id_ for _, id_, _ in chosen[: page.limit + 1]]


@given(
    MOMENTS,
    MOMENTS,
    st.integers(1, 50),
    st.sampled_from([Order.NEWEST, Order.OLDEST]),
    st.booleans(),
    st.integers(1, 12),
    st.integers(0, 50),
    st.booleans(),
    st.data(),
)
def test_page_is_that_of_a_plain_sort(
    items_table: duckdb.DuckDBPyConnection,
    moments: list[datetime],
    sampled: list[datetime],
    rows_each: int,
    order: Order,
    toxic: bool,
    limit: int,
    texts: int,
    go_on: bool,
    data: st.DataObject,
) -> None:
    items = _fill(items_table, moments)
    labels = ["toxic"] if toxic else []
    page = page_query(TextsParameters(order=order, limit=limit), labels, load_datasets(None))
    shown = [item for item in items if not toxic or item[2] % 3 == 0]
    if shown and go_on:
        moment, id_, _ = data.draw(st.sampled_from(shown))
        page = PageQuery(page.texts, limit, Position(cursors.microseconds(moment), id_))
    sample = Sample(sorted(sampled), rows_each)
    found = list_page(items_table, page, sample, texts)
    assert [row["id"] for row in found] == _expected(items, page)


@given(MOMENTS)
def test_sample_of_few_texts_is_all_of_them(
    items_table: duckdb.DuckDBPyConnection, moments: list[datetime]
) -> None:
    _fill(items_table, moments)
    assert sorted(take_sample(items_table, len(moments)).moments) == sorted(moments)
