"""The dataset viewer: answers about live labels from the replica, and about snapshots from their files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import orjson

from core.datasets import Datasets
from core.web.problems import Unavailable
from serving_api.replica.file import open_readable
from serving_api.replica.query_pool import Answer, Answers, QueryPool
from serving_api.replica.repository import Point
from serving_api.search.follower import SearchFollower
from serving_api.search.repository import list_ranked
from serving_api.settings import ReplicaSettings
from serving_api.snapshots.croissant import make_croissant, make_live_croissant
from serving_api.snapshots.service import Snapshots
from serving_api.texts.matching import Match
from serving_api.texts.parameters import DatasetParameters, FilterParameters, Order
from serving_api.texts.query import TextsQuery, choose_dataset
from serving_api.texts.service import Hints
from serving_api.viewer import split_rows
from serving_api.viewer.parameters import (
    ConfigParameters,
    RowFilterParameters,
    RowsParameters,
    SearchParameters,
    SplitParameters,
    ValidityParameters,
)
from serving_api.viewer.repository import LiveSplit, Ranked, StoredSplit
from serving_api.viewer.schemas import no_dataset, no_split
from serving_api.viewer.split_rows import LENGTH, Config, Slice, Span, make_config
from serving_api.viewer.split_rows import LIVE as COLUMNS
from serving_api.viewer.statistics import make_statistics
from serving_api.viewer.stored import LIVE, LIVE_SPLIT, StoredSnapshots
from serving_api.viewer.where import read_filter

Connection = duckdb.DuckDBPyConnection
Split = LiveSplit | StoredSplit
Body = Answer | bytes  # of live labels, with their version, or about snapshots


class Viewer:
    """Answers the requests of all endpoints; one for each application."""

    def __init__(
        self,
        pool: QueryPool,
        answers: Answers,
        hints: Hints,
        search: SearchFollower,
        snapshots: Snapshots,
        datasets: Datasets,
        settings: ReplicaSettings,
    ) -> None:
        self._pool = pool  # for queries that wait for the files of snapshots
        self._answers = answers
        self._hints = hints
        self._search = search
        self._datasets = datasets
        self._stored = StoredSnapshots(snapshots)
        storage = snapshots.storage
        self._files = open_readable(settings, storage.address, storage.fs)  # runs the queries of snapshots

    def close(self) -> None:
        """Close the database that reads files. Close the pool first."""
        self._files.close()

    async def rows(self, parameters: RowsParameters) -> Body:
        """Return rows of a split."""
        span = _span(parameters)
        return await self._answer(parameters, f"rows {span}", lambda split: _page(split, split.rows(span)))

    async def first_rows(self, parameters: SplitParameters) -> Body:
        """Return the first rows of a split, shortened if they are long."""
        names = {"dataset": self._dataset(parameters), "config": parameters.config, "split": parameters.split}

        def make(split: Split) -> bytes:
            return split_rows.first_rows(names, split.columns, split.rows(Span(0, LENGTH)))

        return await self._answer(parameters, "first", make)

    async def filter(self, parameters: RowFilterParameters) -> Body:
        """Return rows of a split that fit a condition.

        Raises:
            InvalidFields: the condition or the order is wrong.
        """
        span, where, orderby = _span(parameters), parameters.where, parameters.orderby

        def make(split: Split) -> bytes:
            return _page(split, split.filter(read_filter(where, orderby, split.columns), span))

        return await self._answer(parameters, f"filter {span} {where!r} {orderby!r}", make)

    async def search(self, parameters: SearchParameters) -> Body:
        """Return rows of a split that contain the words of a search, the best first."""
        span = _span(parameters)
        filters = FilterParameters(q=parameters.query, match=Match.WORDS)
        query = TextsQuery(self._dataset(parameters), (), filters, Order.RELEVANCE)
        key = f"search {span} {parameters.query!r}"
        return await self._answer(parameters, key, lambda split: _page(split, split.search(query, span)))

    async def statistics(self, parameters: SplitParameters) -> Body:
        """Return the statistics of a split's columns."""

        def make(split: Split) -> bytes:
            return orjson.dumps(make_statistics(split.columns, split.aggregate))

        return await self._answer(parameters, "statistics", make, keep=True)

    async def splits(self, parameters: ConfigParameters) -> Body:
        """Return the splits of a dataset, or of one of its configs."""
        dataset, config = self._dataset(parameters), parameters.config
        return orjson.dumps(split_rows.splits(dataset, await self._listed(dataset, config)))

    async def validity(self, parameters: ValidityParameters) -> Body:
        """Return the capabilities for a split, a config or a dataset: all of them if it exists.

        Raises:
            NotFound: it does not exist.
        """
        dataset, split = self._dataset(parameters), parameters.split
        listed = await self._listed(dataset, parameters.config)
        known = [name for names in listed.values() for name in names]
        if split is not None and split not in known:
            raise no_split(split, parameters.config or dataset, list(dict.fromkeys(known)))
        return orjson.dumps(split_rows.CAPABILITIES)

    async def parquet(self, parameters: ConfigParameters, base: str) -> Body:
        """Return the Parquet files of snapshots, below the address `base`."""
        dataset, config = self._dataset(parameters), parameters.config
        configs = await self._stored_configs(dataset, config)
        columns = COLUMNS if config == LIVE else configs[0].columns if config else None
        return orjson.dumps(split_rows.parquet(configs, base, columns))

    async def croissant(self, parameters: ConfigParameters, base: str) -> Body:
        """Return the Croissant description of a config, by default of live labels; files are below `base`."""
        dataset, config = self._dataset(parameters), parameters.config
        if config in {LIVE, None}:
            license_ = self._datasets[dataset].license

            def of_live(live: LiveSplit, point: Point) -> bytes:
                return orjson.dumps(make_live_croissant(dataset, point.version, live.newest_day(), license_, base))

            return await self._answer_live(dataset, f"croissant {base}", of_live)

        def work(_: Connection) -> dict[str, Any]:
            manifest, facts = self._stored.get_facts(dataset, config)
            return make_croissant(manifest, facts, base)

        return orjson.dumps(await self._pool.run_beside(self._files.cursor, work))

    async def size(self, parameters: ConfigParameters) -> Body:
        """Return the numbers of rows and bytes."""
        dataset, config = self._dataset(parameters), parameters.config
        configs = await self._configs(dataset, config)
        return orjson.dumps(split_rows.size(dataset, configs, of_one=config is not None))

    async def info(self, parameters: ConfigParameters) -> Body:
        """Return the metadata in the form of the datasets library."""
        dataset, config = self._dataset(parameters), parameters.config
        configs = await self._configs(dataset, config)
        guidelines = self._datasets[dataset].guidelines.strip()
        return orjson.dumps(split_rows.info(guidelines, configs, of_one=config is not None))

    async def _answer(
        self, parameters: SplitParameters, key: str, make: Callable[[Split], bytes], *, keep: bool = False
    ) -> Body:
        """Make an answer about live labels or about a snapshot's file; `keep` caches that of a file."""
        dataset, config, split = self._dataset(parameters), parameters.config, parameters.split
        if config == LIVE:
            if split != LIVE_SPLIT:
                raise no_split(split, LIVE, [LIVE_SPLIT])
            return await self._answer_live(dataset, key, lambda live, _: make(live))

        def work(cursor: Connection) -> bytes:
            manifest, file = self._stored.get_split(dataset, config, split)

            def make_of_file() -> bytes:
                with self._stored.opened(manifest, file, cursor) as stored, _within_memory():
                    return make(stored)

            return self._stored.cached(key, file, make_of_file) if keep else make_of_file()

        return await self._pool.run_beside(self._files.cursor, work)

    async def _answer_live(self, dataset: str, key: str, make: Callable[[LiveSplit, Point], bytes]) -> Answer:
        """Make an answer about live labels, or take it from the cache."""
        until = self._pool.until()

        def work(cursor: Connection, point: Point) -> bytes:
            def rank(query: TextsQuery) -> Ranked:
                found = self._search.ask(point, lambda index: list_ranked(cursor, query, index, until))
                return found or list_ranked(cursor, query, None, until)

            with _within_memory():
                live = LiveSplit(cursor, dataset, lambda: self._hints.sample(cursor, point), rank)
                return make(live, point)

        return await self._answers.document(f"viewer {dataset} {key}".encode(), dataset, work)

    async def _configs(self, dataset: str, config: str | None) -> list[Config]:
        """Return a config, or all configs of a dataset, live labels first."""
        found = await self._stored_configs(dataset, config)
        if config not in {LIVE, None}:
            return found
        counted = await self._answer_live(dataset, "facts", lambda live, _: orjson.dumps(live.count()))
        rows, memory = orjson.loads(counted.body)
        return [make_config(dataset, LIVE, COLUMNS, {LIVE_SPLIT: (rows, memory, 0)}), *found]

    async def _stored_configs(self, dataset: str, config: str | None) -> list[Config]:
        until = self._pool.until()

        def work(_: Connection) -> list[Config]:
            return [self._stored.measure(one, until) for one in self._stored.find(dataset, config)]

        return [] if config == LIVE else await self._pool.run_beside(self._files.cursor, work)

    async def _listed(self, dataset: str, config: str | None) -> dict[str, list[str]]:
        """Return the splits of a config, or of all, live labels first."""
        listed = {LIVE: [LIVE_SPLIT]} if config in {LIVE, None} else {}
        if config != LIVE:
            manifests = await self._pool.run_beside(
                self._files.cursor, lambda _: self._stored.find(dataset, config)
            )
            listed |= {manifest.name: list(manifest.splits) for manifest in manifests}
        return listed

    def _dataset(self, parameters: DatasetParameters) -> str:
        if parameters.dataset is not None and parameters.dataset not in self._datasets:
            raise no_dataset(parameters.dataset, list(self._datasets))
        return choose_dataset(parameters.dataset, (), self._datasets)


@contextmanager
def _within_memory() -> Iterator[None]:
    """Refuse queries that need more memory than DuckDB may use."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise Unavailable("Memory is short.", code="too_busy", retry_after_seconds=5) from error


def _page(split: Split, found: Slice) -> bytes:
    return split_rows.page(split.columns, found)


def _span(parameters: RowsParameters) -> Span:
    return Span(parameters.offset, parameters.length)
