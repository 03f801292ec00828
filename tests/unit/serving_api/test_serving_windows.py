"""Pages read by ranges of time are those of a plain sort, whatever the sample says."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.datasets import load_datasets
from serving_api.replica.tables import TABLES
from serving_api.texts import repository
from serving_api.texts.parameters import Order, TextsParameters
from serving_api.texts.query import PageQuery, Position, microseconds, page_query, timestamp
from serving_api.texts.repository import Condition, Row, list_items, page_conditions
from serving_api.texts.service import Sample, is_sparse, list_page, take_sample

_START = datetime(2026, 1, 1)  # noqa: DTZ001 - the replica holds UTC without a zone
_INSERT = """
    insert into items by name
    select ?::uuid as id, 'toxicity' as dataset, 'a text' as text, if(? % 3 = 0, 'toxic', 'non_toxic') as label,
           'labelled' as status, 1.0 as agreement, '{}' as votes, 1 as annotations, 'majority' as rule,
           1 as rule_version,
           true as complete, 'annotators' as decided_by, '{}' as metadata, '{}' as enrichment, '' as annotators,
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
        after = timestamp(page.after.rank), page.after.id
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
        page = PageQuery(page.texts, limit, Position(microseconds(moment), id_))
    sample = Sample(sorted(sampled), rows_each)
    found = list_page(items_table, page, sample, texts)
    assert [uuid.UUID(row["id"]) for row in found] == _expected(items, page)


@given(MOMENTS)
def test_sample_of_few_texts_is_all_of_them(
    items_table: duckdb.DuckDBPyConnection, moments: list[datetime]
) -> None:
    _fill(items_table, moments)
    assert sorted(take_sample(items_table, len(moments)).moments) == sorted(moments)


# How much is read for a page

ROWS = 20_000  # one a second
LIMIT = 99


@pytest.fixture(scope="module")
def even() -> Iterator[duckdb.DuckDBPyConnection]:
    """Texts that are labelled one a second; every third one is toxic."""
    with duckdb.connect() as connection:
        connection.execute(f"create table items ({TABLES['items']})")
        connection.execute(
            _INSERT.replace("?::uuid", "uuid()").replace("? %", "n %").replace("?::timestamp", "?::timestamp + s")  # noqa: S608
            + f"from (select n, to_seconds(n) as s from range({ROWS}) as numbers (n))",  # noqa: S608
            [_START, _START],
        )
        yield connection


@dataclass
class Read:
    """One range of time that a page was read from."""

    newest: datetime
    oldest: datetime

    @property
    def seconds(self) -> float:
        return (self.newest - self.oldest).total_seconds()


def reads(
    monkeypatch: pytest.MonkeyPatch,
    connection: duckdb.DuckDBPyConnection,
    page: PageQuery,
    sample: Sample,
    texts: int,
) -> list[Read]:
    """Read a page, check it, and return the ranges that it was read from."""
    found: list[Read] = []

    def noting(
        cursor: duckdb.DuckDBPyConnection, page: PageQuery, window: Condition, count: int, *, is_narrow: bool
    ) -> list[Row]:
        where, values = page_conditions(page)
        statement = f"select max(labelled_at), min(labelled_at) from items where {where} and {window[0]}"  # noqa: S608
        [(newest, oldest)] = cursor.execute(statement, [*values, *window[1]]).fetchall()
        found.append(Read(newest, oldest))
        return list_items(cursor, page, window, count, is_narrow=is_narrow)

    monkeypatch.setattr(repository, "list_items", noting)
    rows = list_page(connection, page, sample, texts)
    assert len({row["id"] for row in rows}) == LIMIT + 1
    return found


@pytest.mark.parametrize("order", [Order.NEWEST, Order.OLDEST])
@pytest.mark.parametrize("middle", [False, True])
@pytest.mark.parametrize("label", [None, "toxic"])
def test_a_page_is_read_at_once_from_a_range_half_as_wide_again(
    monkeypatch: pytest.MonkeyPatch,
    even: duckdb.DuckDBPyConnection,
    order: Order,
    middle: bool,
    label: str | None,
) -> None:
    page = page_query(TextsParameters(order=order, limit=LIMIT), [label] if label else [], load_datasets(None))
    if middle:
        at = microseconds(_START + timedelta(seconds=ROWS / 2))
        page = PageQuery(page.texts, LIMIT, Position(at, uuid.UUID(int=0)))
    sparseness = 3 if label else 1
    [read] = reads(monkeypatch, even, page, take_sample(even, ROWS), ROWS // sparseness)
    # A timestamp of the sample represents four rows.
    assert read.seconds == pytest.approx(1.5 * (LIMIT + 1) * sparseness, abs=6)


def test_a_page_that_lies_further_apart_is_read_from_ranges_four_times_as_wide_each(
    monkeypatch: pytest.MonkeyPatch, even: duckdb.DuckDBPyConnection
) -> None:
    page = page_query(TextsParameters(limit=LIMIT), ["toxic"], load_datasets(None))
    sample = take_sample(even, ROWS)
    # As if there were twenty times as many texts in the same time.
    denser = Sample(sample.moments, sample.rows_each * 20)
    widths = [read.seconds for read in reads(monkeypatch, even, page, denser, ROWS * 20)]
    assert len(widths) == 4
    assert widths[2] / widths[1] == pytest.approx(4, rel=0.1)
    assert widths[3] / widths[2] == pytest.approx(4, rel=0.1)


def test_a_page_ends_with_its_period(monkeypatch: pytest.MonkeyPatch, even: duckdb.DuckDBPyConnection) -> None:
    after, before = _START + timedelta(seconds=5000), _START + timedelta(seconds=5101)
    for order in (Order.NEWEST, Order.OLDEST):
        parameters = TextsParameters(order=order, limit=LIMIT, labelled_after=after, labelled_before=before)
        [read] = reads(
            monkeypatch, even, page_query(parameters, [], load_datasets(None)), take_sample(even, ROWS), ROWS
        )
        assert (read.oldest, read.newest) == (after + timedelta(seconds=1), before - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("limit", "rows", "texts", "sparse"),
    [
        (100, 1_000_000, 2000, False),
        (100, 1_000_000, 1999, True),
        (50, 1_000_000, 1000, False),
        (50, 1_000_000, 999, True),
        (1, 50_000, 0, False),
        (1, 51_000, 0, True),
    ],
)
def test_an_index_is_faster_where_a_page_spans_so_many_rows_for_each_text(
    limit: int, rows: int, texts: int, sparse: bool
) -> None:
    page = page_query(TextsParameters(limit=limit), [], load_datasets(None))
    assert is_sparse(page, Sample([_START] * (rows // 1000), 1000), texts) == sparse


def test_a_sample_of_many_texts_is_about_4096_of_them(even: duckdb.DuckDBPyConnection) -> None:
    sample = take_sample(even, ROWS)
    assert sample.rows_each == 4
    assert len(sample.moments) == ROWS / 4
    assert sample.rows == ROWS
    assert sample.moments == sorted(sample.moments)
    assert take_sample(even, 4096 * 2).rows_each == 2
    assert take_sample(even, 4096 * 2 - 1).rows_each == take_sample(even, 0).rows_each == 1
