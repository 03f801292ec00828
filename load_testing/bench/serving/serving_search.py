"""Searches of the serving API, without HTTP: how long they take by the number of texts, what the index costs."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from core.datasets import load_datasets
from serving_api.replica import repository
from serving_api.replica.replica import Replica
from serving_api.replica.tables import derive
from serving_api.search.follower import SearchFollower
from serving_api.search.pages import list_hits
from serving_api.settings import ReplicaSettings
from serving_api.texts.parameters import TextsParameters
from serving_api.texts.query import page_query

_REPEATS = 15
_SECONDS = 60.0
_WORDS = 50_000
# Twelve words of 50,000, a few of them much more frequent than most: each is its rank in hexadecimal, hashed.
_ITEMS = f"""
    select uuid() as id, 'toxicity' as dataset,
           list_reduce(
               list_transform(range(12), k -> left(md5(floor({_WORDS} ** ((hash(n * 12 + k) % 1000000) / 1e6))::int::varchar), 3 + k % 5)),
               (a, b) -> a || ' ' || b
           ) || case when n % 1000 = 7 then ' 有毒的话' else '' end as text,
           case when n % 3 = 0 then 'toxic' else 'non_toxic' end as label, 'labelled' as status, 1 as agreement,
           '{{}}' as votes, 3 as annotations, true as complete, null as confidence, 'majority' as rule, 1 as rule_version,
           null as predicted_label, null as predicted_probability, null as model_version,
           'annotators' as decided_by, null as external_id, null as claimed_label, null as score,
           'source ' || hash(n) % 500 as source, '{{}}' as metadata, '{{}}' as enrichment,
           timestamp '2026-01-01' as received_at, timestamp '2026-01-01' + to_seconds(n) as labelled_at, 1 as version
    from range(?) t(n)
"""  # noqa: S608, E501 - constants

_SEARCHES: dict[str, dict[str, Any]] = {
    "one letter": {"q": "e"},
    "common substring": {"q": "c4c"},
    "substring with a space": {"q": "4 c"},
    "rare substring": {"q": "有毒"},
    "no hit": {"q": "zzz"},
    "no hit, common parts": {"q": "c4ca42 c4ca42"},
    "word": {"q": "c4ca", "match": "words"},
    "prefix": {"q": "c4", "match": "prefix"},
    "phrase": {"q": "c4ca c81e", "match": "phrase"},
    "common, rare source": {"q": "c4c", "source": "source 7"},
    "oldest first": {"q": "c4c", "order": "oldest"},
    "relevance, common": {"q": "c4c", "order": "relevance"},
    "relevance, rare": {"q": "有毒", "order": "relevance"},
}


def measure(rows: int) -> Table:
    """Return the medians for 10,000 texts and for each power of ten up to `rows`, and reading all texts beside."""
    sizes = [size for size in (10_000, 100_000, 1_000_000, 10_000_000) if size <= max(rows, 10_000)]
    table = Table(title="Search, a page of 100, median in ms without HTTP (reading all texts beside)")
    table.add_column("search")
    columns = {size: _measure(size) for size in sizes}
    for size in sizes:
        table.add_column(f"{size:,} texts", justify="right")
    for name in columns[sizes[0]]:
        table.add_row(name, *(columns[size][name] for size in sizes))
    return table


def _measure(size: int) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        replica = Replica(Path(folder) / "replica.duckdb", ReplicaSettings())
        replica.open()
        follower = SearchFollower(replica)
        try:
            _fill(replica, size)
            started = time.perf_counter()
            follower.follow()
            seconds = time.perf_counter() - started
            found = {name: _time(replica, follower, parameters) for name, parameters in _SEARCHES.items()}
            held = sum(file.stat().st_size for file in (Path(folder) / "search").iterdir())
        finally:
            follower.close()
            replica.close()
    return found | {"index built, texts/s": f"{size / seconds:,.0f}", "index, bytes a text": f"{held / size:.0f}"}


def _fill(replica: Replica, size: int) -> None:
    with replica.file.transaction() as cursor:
        cursor.execute(f"insert into items by name {derive(f'({_ITEMS})', 'annotations')}", [size])
        cursor.execute("create index items_id on items (id)")
        cursor.execute("insert into state values ('bench', 1, 1, now()::timestamp, 1)")
    replica.close()
    replica.open()


def _time(replica: Replica, follower: SearchFollower, parameters: dict[str, Any]) -> str:
    page = page_query(TextsParameters(**parameters), [], load_datasets(None))
    times: dict[bool, list[float]] = {True: [], False: []}
    for by_index, repeats in ((True, _REPEATS), (False, 3)):
        for _ in range(repeats):
            started = time.perf_counter()
            with replica.reading() as cursor:
                snapshot = follower.snapshot_or_none(repository.get_point(cursor)) if by_index else None
                list_hits(cursor, page, 101, snapshot, time.monotonic() + _SECONDS)
            times[by_index].append(1000 * (time.perf_counter() - started))
    return f"{statistics.median(times[True]):.1f} ({statistics.median(times[False]):.0f})"
