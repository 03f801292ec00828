"""Rows at a place, and places of rows, are those of a plain sort, whatever the sample of times says."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID, uuid5

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_api.replica.tables import COUNT, TABLES
from serving_api.texts.service import Sample
from serving_api.viewer import repository
from serving_api.viewer.split_rows import Span
from tests.unit.serving_api.viewer_world import FIRST, live_split

_DATASETS = ["toxicity", "mood"]
_FILL = """
    insert into items by name
    select unnest(?::uuid[]) as id, unnest(?::varchar[]) as dataset, unnest(?::timestamp[]) as labelled_at,
           labelled_at as received_at, 'a text' as text, 'labelled' as status, '{}' as votes, 1 as annotations,
           1 as agreement, 'majority' as rule, 1 as rule_version, true as complete,
           'annotators' as decided_by, '{}' as metadata, '{}' as enrichment,
           1 as version, '' as annotators, '{}' as document
"""

Item = tuple[datetime, UUID, str]

# Bursts and long pauses: the same moment again and again, then one days away.
_MOMENTS = st.one_of(st.integers(0, 2), st.integers(0, 3000), st.integers(0, 10**6)).map(
    lambda seconds: FIRST + timedelta(seconds=seconds)
)
_ITEMS = st.lists(st.tuples(_MOMENTS, st.sampled_from(_DATASETS)), max_size=120)


@pytest.fixture(scope="module")
def replica() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for name, columns in TABLES.items():
            connection.execute(f"create table {name} ({columns})")
        yield connection


def _fill(connection: duckdb.DuckDBPyConnection, drawn: list[tuple[datetime, str]]) -> list[Item]:
    """Put items into the replica, and return them in the order of a split."""
    items = [(moment, uuid5(UUID(int=0), str(n)), dataset) for n, (moment, dataset) in enumerate(drawn)]
    for table in ("items", "totals", "totals_by_day", "totals_by_annotator"):
        connection.execute(f"delete from {table}")  # noqa: S608
    if items:
        moments, ids, datasets = (list(part) for part in zip(*items, strict=True))
        connection.execute(_FILL, [ids, datasets, moments])
    for statement in COUNT:
        connection.execute(statement)
    return sorted(sorted(items, key=lambda item: item[1], reverse=True), key=lambda item: item[0])


@given(
    drawn=_ITEMS, sampled=st.lists(_MOMENTS, max_size=40), span=st.tuples(st.integers(0, 130), st.integers(0, 40))
)
def test_any_span_is_that_of_a_plain_sort(
    replica: duckdb.DuckDBPyConnection,
    drawn: list[tuple[datetime, str]],
    sampled: list[datetime],
    span: tuple[int, int],
) -> None:
    items = _fill(replica, drawn)
    samples = [Sample(sorted(sampled), 3), Sample([moment for moment, _, _ in items[::3]], 3), Sample([], 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository, "SORTED_ROWS", 4)
        patch.setattr(repository, "MARGIN", 2)
        for dataset in _DATASETS:
            of_dataset = [str(id_) for _, id_, of in items if of == dataset]
            for sample in samples:
                found = live_split(replica, dataset, sample).rows(Span(*span))
                assert [row.values[0] for row in found.rows] == of_dataset[span[0] : span[0] + span[1]]
                assert [row.offset for row in found.rows] == list(range(span[0], span[0] + len(found.rows)))
                assert found.total == len(of_dataset)


@given(drawn=_ITEMS, chosen=st.sets(st.integers(0, 119), max_size=10))
def test_a_row_is_at_its_place_of_a_plain_sort(
    replica: duckdb.DuckDBPyConnection, drawn: list[tuple[datetime, str]], chosen: set[int]
) -> None:
    items = _fill(replica, drawn)
    of_dataset = [(id_, moment) for moment, id_, dataset in items if dataset == "mood"]
    wanted = [place for place in chosen if place < len(of_dataset)]
    days = repository.get_days(replica, "mood")
    assert repository.get_offsets(replica, days, [of_dataset[place] for place in wanted]) == wanted


def test_a_window_is_small_wherever_it_is(replica: duckdb.DuckDBPyConnection) -> None:
    replica.execute("delete from items")
    replica.execute(
        """
        insert into items by name
        select uuid() as id, if(n % 3 = 0 or n > 90000, 'toxicity', 'mood') as dataset,
               ?::timestamp + to_seconds(n // 2) as labelled_at, labelled_at as received_at, 'a' as text,
               'labelled' as status, '{}' as votes, 1 as annotations,
           1 as agreement, 'majority' as rule, 1 as rule_version, true as complete,
               'annotators' as decided_by, '{}' as metadata, '{}' as enrichment, 1 as version,
               '' as annotators, '{}' as document
        from range(120000) as numbers(n)
        """,
        [FIRST],
    )
    replica.execute("delete from totals_by_day")
    replica.execute(
        "insert into totals_by_day select dataset, labelled_at::date, count(*) from items group by all"
    )
    moments = replica.execute("select labelled_at from items where rowid % 30 = 0 order by 1").fetchall()
    sample = Sample([moment for (moment,) in moments], 30)
    days = repository.get_days(replica, "toxicity")
    assert days.total == 60000
    for place in range(0, days.total, 1777):
        window = repository.find_window(replica, days, sample, place)
        assert window.before <= place < window.end
        assert window.end - window.before <= repository.SORTED_ROWS
