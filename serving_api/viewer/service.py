"""The dataset viewer: answers about live labels from the replica, and about snapshots from their files."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import duckdb
import orjson

from core.datasets import Datasets
from core.web.problems import Unavailable
from serving_api.replica.file import open_memory
from serving_api.replica.query_pool import Answers, QueryPool
from serving_api.replica.repository import Point
from serving_api.search.follower import SearchFollower
from serving_api.settings import ReplicaSettings
from serving_api.snapshots.croissant import make_croissant, make_live_croissant
from serving_api.snapshots.service import Snapshots
from serving_api.texts.matching import Match
from serving_api.texts.paging import Hints
from serving_api.texts.parameters import DatasetParameters, FilterParameters, Order
from serving_api.texts.query import TextsQuery, choose_dataset
from serving_api.viewer import descriptions, repository, stored
from serving_api.viewer.descriptions import ConfigFacts, SplitFacts
from serving_api.viewer.parameters import (
    LENGTH,
    ConfigParameters,
    RowFilterParameters,
    RowsParameters,
    SearchParameters,
    SplitParameters,
    ValidityParameters,
)
from serving_api.viewer.schemas import no_dataset, no_split
from serving_api.viewer.split_rows import LIVE as COLUMNS
from serving_api.viewer.split_rows import Slice, Span, SplitColumn
from serving_api.viewer.stored import LIVE, LIVE_SPLIT, SplitReader, StoredSnapshots
from serving_api.viewer.where import read_filter

Connection = duckdb.DuckDBPyConnection
T = TypeVar("T")
OfLive = Callable[[Connection, Point], T]
OfSnapshot = Callable[[Connection, SplitReader], T]
Render = Callable[[Sequence[SplitColumn], Slice], bytes]


class Split(NamedTuple):
    """The name of a split."""

    dataset: str
    config: str
    split: str


class ViewerAnswer(NamedTuple):
    """The body of an answer and its validator."""

    body: bytes
    etag: str
    point: Point | None  # of live labels


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
        self._memory = open_memory(settings)  # runs the queries of snapshots

    def close(self) -> None:
        """Close the database in memory. Close the pool first."""
        self._memory.close()

    async def rows(self, parameters: RowsParameters) -> ViewerAnswer:
        """Return rows of a split."""
        split, span = self._split(parameters), _span(parameters)
        return await self._list(split, f"rows {span}", *self._span_readers(split, span))

    async def first_rows(self, parameters: SplitParameters) -> ViewerAnswer:
        """Return the first rows of a split, shortened if they are long."""
        split = self._split(parameters)
        readers = self._span_readers(split, Span(0, LENGTH))
        return await self._list(split, "first", *readers, partial(descriptions.first_rows, split._asdict()))

    async def filter(self, parameters: RowFilterParameters) -> ViewerAnswer:
        """Return rows of a split that fit a condition.

        Raises:
            InvalidFields: the condition or the order is wrong.
        """
        split, span = self._split(parameters), _span(parameters)
        read = partial(read_filter, parameters.where, parameters.orderby)
        return await self._list(
            split,
            f"filter {span} {parameters.where!r} {parameters.orderby!r}",
            lambda cursor, _: repository.filter_rows(cursor, split.dataset, read(COLUMNS), span),
            lambda cursor, reader: stored.filter_rows(cursor, reader, read(reader.columns), span),
        )

    async def search(self, parameters: SearchParameters) -> ViewerAnswer:
        """Return rows of a split that contain the words of a search, the best first."""
        split, span, until = self._split(parameters), _span(parameters), self._pool.until()
        filters = FilterParameters(q=parameters.query, match=Match.WORDS)
        query = TextsQuery(split.dataset, (), filters, Order.RELEVANCE)
        return await self._list(
            split,
            f"search {span} {parameters.query!r}",
            lambda cursor, point: self._hits(cursor, point, query, span, until),
            lambda cursor, reader: stored.search_rows(cursor, reader, query.search, span),
        )

    async def statistics(self, parameters: SplitParameters) -> ViewerAnswer:
        """Return the statistics of a split's columns."""
        split = self._split(parameters)
        return await self._answer(
            split,
            "statistics",
            lambda cursor, _: orjson.dumps(repository.statistics(cursor, split.dataset)),
            lambda cursor, reader: orjson.dumps(stored.statistics(cursor, reader)),
            keep=True,
        )

    async def splits(self, parameters: ConfigParameters) -> ViewerAnswer:
        """Return the splits of a dataset, or of one of its configs."""
        dataset, config = self._dataset(parameters), parameters.config
        return _document(descriptions.splits(dataset, await self._listed(dataset, config)))

    async def validity(self, parameters: ValidityParameters) -> ViewerAnswer:
        """Return the capabilities for a split, a config or a dataset: all of them if it exists.

        Raises:
            NotFound: it does not exist.
        """
        dataset, split = self._dataset(parameters), parameters.split
        listed = await self._listed(dataset, parameters.config)
        known = [name for names in listed.values() for name in names]
        if split is not None and split not in known:
            raise no_split(split, parameters.config or dataset, list(dict.fromkeys(known)))
        return _document(dict.fromkeys(("preview", "viewer", "search", "filter", "statistics"), True))

    async def parquet(self, parameters: ConfigParameters, base: str) -> ViewerAnswer:
        """Return the Parquet files of snapshots, below the address `base`."""
        dataset, config = self._dataset(parameters), parameters.config
        configs = await self._snapshot_facts(dataset, config)
        columns = COLUMNS if config == LIVE else configs[0].columns if config else None
        return _document(descriptions.parquet(configs, base, columns))

    async def croissant(self, parameters: ConfigParameters, base: str) -> ViewerAnswer:
        """Return the Croissant description of a config, by default of live labels; files are below `base`."""
        dataset, config = self._dataset(parameters), parameters.config
        if config in {LIVE, None}:

            def of_live(cursor: Connection, point: Point) -> bytes:
                newest = repository.newest_day(cursor, dataset)
                license_ = self._datasets[dataset].license
                return orjson.dumps(make_live_croissant(dataset, point.version, newest, license_, base))

            key = f"viewer {dataset} croissant {base}".encode()
            answer = await self._answers.document(key, dataset, of_live)
            return ViewerAnswer(answer.body, answer.etag, answer.point)

        def work(_: Connection) -> dict[str, Any]:
            manifest, facts = self._stored.get_facts(dataset, config)
            return make_croissant(manifest, facts, base)

        return _document(await self._pool.run_beside(self._beside, work))

    async def size(self, parameters: ConfigParameters) -> ViewerAnswer:
        """Return the numbers of rows and bytes."""
        configs = await self._configs(parameters)
        dataset = self._dataset(parameters)
        return _document(descriptions.size(dataset, configs, of_one=parameters.config is not None))

    async def info(self, parameters: ConfigParameters) -> ViewerAnswer:
        """Return the metadata in the form of the datasets library."""
        configs = await self._configs(parameters)
        guidelines = self._datasets[self._dataset(parameters)].guidelines.strip()
        return _document(descriptions.info(guidelines, configs, of_one=parameters.config is not None))

    async def _list(
        self,
        split: Split,
        key: str,
        of_live: OfLive[Slice],
        of_snapshot: OfSnapshot[Slice],
        render: Render = descriptions.page,
    ) -> ViewerAnswer:
        """Make an answer of rows, which are read from live labels or from a snapshot's file."""
        return await self._answer(
            split,
            key,
            lambda cursor, point: render(COLUMNS, of_live(cursor, point)),
            lambda cursor, reader: render(reader.columns, of_snapshot(cursor, reader)),
        )

    async def _answer(
        self, split: Split, key: str, of_live: OfLive[bytes], of_snapshot: OfSnapshot[bytes], *, keep: bool = False
    ) -> ViewerAnswer:
        """Make an answer from live labels or from a snapshot's file; `keep` caches that of a file."""
        if split.config == LIVE:
            if split.split != LIVE_SPLIT:
                raise no_split(split.split, LIVE, [LIVE_SPLIT])
            answer = await self._answers.document(
                f"viewer {split.dataset} {key}".encode(), split.dataset, _in_memory(of_live)
            )
            return ViewerAnswer(answer.body, answer.etag, answer.point)
        until = self._pool.until()

        def work(cursor: Connection) -> bytes:
            manifest, file = self._stored.get_split(*split)

            def make() -> bytes:
                with self._stored.opened(manifest, file, until) as reader:
                    return _in_memory(of_snapshot)(cursor, reader)

            return self._stored.cached(key, file, make) if keep else make()

        return _answered(await self._pool.run_beside(self._beside, work))

    async def _configs(self, parameters: ConfigParameters) -> list[ConfigFacts]:
        """Return the counts of a config, or of all configs of a dataset, live labels first."""
        dataset, config = self._dataset(parameters), parameters.config
        of_live = [await self._live_facts(dataset)] if config in {LIVE, None} else []
        return of_live + await self._snapshot_facts(dataset, config)

    async def _live_facts(self, dataset: str) -> ConfigFacts:
        key = f"viewer {dataset} facts".encode()
        facts = await self._answers.document(
            key, dataset, lambda cursor, _: orjson.dumps(repository.facts(cursor, dataset))
        )
        return ConfigFacts(dataset, LIVE, COLUMNS, [SplitFacts(LIVE_SPLIT, **orjson.loads(facts.body))])

    async def _snapshot_facts(self, dataset: str, config: str | None) -> list[ConfigFacts]:
        if config == LIVE:
            return []
        until = self._pool.until()

        def work(_: Connection) -> list[ConfigFacts]:
            return [self._stored.facts(manifest, until) for manifest in self._stored.find(dataset, config)]

        return await self._pool.run_beside(self._beside, work)

    async def _listed(self, dataset: str, config: str | None) -> dict[str, list[str]]:
        """Return the splits of a config, or of all, live labels first."""
        listed = {LIVE: [LIVE_SPLIT]} if config in {LIVE, None} else {}
        if config != LIVE:
            manifests = await self._pool.run_beside(self._beside, lambda _: self._stored.find(dataset, config))
            listed |= {manifest.name: list(manifest.splits) for manifest in manifests}
        return listed

    def _span_readers(self, split: Split, span: Span) -> tuple[OfLive[Slice], OfSnapshot[Slice]]:
        """Return the functions that read a span from live labels and from a snapshot's file."""

        def of_live(cursor: Connection, point: Point) -> Slice:
            return repository.read_rows(cursor, split.dataset, span, self._hints.sample(cursor, point))

        return of_live, lambda _, reader: Slice(reader.read_span(span), reader.rows)

    def _hits(self, cursor: Connection, point: Point, query: TextsQuery, span: Span, until: float) -> Slice:
        found = self._search.ask(point, lambda index: repository.search_rows(cursor, query, span, index, until))
        return found or repository.search_rows(cursor, query, span, None, until)

    def _split(self, parameters: SplitParameters) -> Split:
        return Split(self._dataset(parameters), parameters.config, parameters.split)

    def _dataset(self, parameters: DatasetParameters) -> str:
        if parameters.dataset is not None and parameters.dataset not in self._datasets:
            raise no_dataset(parameters.dataset, list(self._datasets))
        return choose_dataset(parameters.dataset, (), self._datasets)

    @contextmanager
    def _beside(self) -> Iterator[Connection]:
        """Yield a connection to the database in memory, which sees neither the replica nor other queries."""
        cursor = self._memory.cursor()
        try:
            yield cursor
        finally:
            cursor.close()


def _in_memory(make: Callable[..., bytes]) -> Callable[..., bytes]:
    """Refuse queries that need more memory than DuckDB may use."""

    def made(*arguments: Any) -> bytes:
        try:
            return make(*arguments)
        except duckdb.OutOfMemoryException as error:
            raise Unavailable("Memory is short.", code="too_busy", retry_after_seconds=5) from error

    return made


def _span(parameters: RowsParameters) -> Span:
    return Span(parameters.offset, parameters.length)


def _document(body: dict[str, Any]) -> ViewerAnswer:
    return _answered(orjson.dumps(body))


def _answered(body: bytes) -> ViewerAnswer:
    return ViewerAnswer(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', None)
