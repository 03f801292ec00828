"""What the dataset viewer answers: of live labels from the replica, of snapshots from their files."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import duckdb
import orjson

from core.datasets import Datasets
from core.web.problems import Unavailable
from serving_api.replica.answer_cache import Answers
from serving_api.replica.file import open_memory
from serving_api.replica.query_pool import QueryPool
from serving_api.replica.repository import Point
from serving_api.search.follower import SearchFollower
from serving_api.settings import ReplicaSettings
from serving_api.snapshots.croissant import make_croissant, make_live_croissant
from serving_api.snapshots.service import Snapshots
from serving_api.texts.matching import Match, Search
from serving_api.texts.paging import Hints
from serving_api.texts.parameters import DatasetParameters, FilterParameters, Order
from serving_api.texts.query import TextsQuery, choose_dataset
from serving_api.viewer import descriptions, repository, stored
from serving_api.viewer import descriptions as rendering
from serving_api.viewer import parameters as asked
from serving_api.viewer.conditions import Slice, Span
from serving_api.viewer.descriptions import ConfigFacts, SplitFacts
from serving_api.viewer.features import LIVE as COLUMNS
from serving_api.viewer.refusals import no_dataset, no_split
from serving_api.viewer.stored import LIVE, LIVE_SPLIT, FileResults, SplitReader, StoredSnapshots
from serving_api.viewer.where import read_filter

Connection = duckdb.DuckDBPyConnection
OfLive = Callable[[Connection, Point], bytes]
OfSnapshot = Callable[[Connection, SplitReader], bytes]


class Split(NamedTuple):
    """Which split is meant."""

    dataset: str
    config: str
    split: str


class ViewerAnswer(NamedTuple):
    """The body of an answer and its validator."""

    body: bytes
    etag: str
    point: Point | None  # of live labels


class Viewer:
    """Answers of all endpoints; one for each application."""

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
        self._pool = pool  # of who waits for snapshots' files
        self._answers = answers
        self._hints = hints
        self._search = search
        self._datasets = datasets
        self._kept = FileResults()
        self._stored = StoredSnapshots(snapshots, self._kept)
        self._memory = open_memory(settings)  # what snapshots are queried in

    def close(self) -> None:
        """Let the memory go; the pool of files must have ended before."""
        self._memory.close()

    async def rows(self, parameters: asked.RowsParameters) -> ViewerAnswer:
        """Return rows of a split."""
        split, span = self._split(parameters), _span(parameters)
        return await self._answer(
            split,
            f"rows {span}",
            lambda cursor, point: rendering.page(COLUMNS, self._live_rows(cursor, point, split, span)),
            lambda _, reader: rendering.page(reader.columns, Slice(reader.read_span(span), reader.rows)),
        )

    async def first_rows(self, parameters: asked.SplitParameters) -> ViewerAnswer:
        """Return the first rows of a split, shortened if they are long."""
        split, span = self._split(parameters), Span(0, asked.LENGTH)
        named = split._asdict()
        return await self._answer(
            split,
            "first",
            lambda cursor, point: rendering.first_rows(
                named, COLUMNS, self._live_rows(cursor, point, split, span)
            ),
            lambda _, reader: rendering.first_rows(
                named, reader.columns, Slice(reader.read_span(span), reader.rows)
            ),
        )

    async def filter(self, parameters: asked.RowFilterParameters) -> ViewerAnswer:
        """Return rows of a split that fit a condition.

        Raises:
            InvalidFields: the condition or the order cannot be understood.
        """
        split, span = self._split(parameters), _span(parameters)

        def of_live(cursor: Connection, _: Point) -> bytes:
            wanted = read_filter(parameters.where, parameters.orderby, COLUMNS)
            return rendering.page(COLUMNS, repository.filter_rows(cursor, split.dataset, wanted, span))

        def of_snapshot(cursor: Connection, reader: SplitReader) -> bytes:
            wanted = read_filter(parameters.where, parameters.orderby, reader.columns)
            return rendering.page(reader.columns, stored.filter_rows(cursor, reader, wanted, span))

        key = f"filter {span} {parameters.where!r} {parameters.orderby!r}"
        return await self._answer(split, key, of_live, of_snapshot)

    async def search(self, parameters: asked.SearchParameters) -> ViewerAnswer:
        """Return rows of a split that hold the words of a search, the best first."""
        split, span = self._split(parameters), _span(parameters)
        until = self._pool.until()

        def of_live(cursor: Connection, point: Point) -> bytes:
            filters = FilterParameters(q=parameters.query, match=Match.WORDS)
            query = TextsQuery(split.dataset, (), filters, Order.RELEVANCE)
            return rendering.page(COLUMNS, self._hits(cursor, point, query, span, until))

        def of_snapshot(cursor: Connection, reader: SplitReader) -> bytes:
            search = Search(parameters.query, Match.WORDS)
            return rendering.page(reader.columns, stored.search_rows(cursor, reader, search, span))

        return await self._answer(split, f"search {span} {parameters.query!r}", of_live, of_snapshot)

    async def statistics(self, parameters: asked.SplitParameters) -> ViewerAnswer:
        """Return the statistics of a split's columns."""
        split = self._split(parameters)
        return await self._answer(
            split,
            "statistics",
            lambda cursor, _: orjson.dumps(repository.statistics(cursor, split.dataset)),
            lambda cursor, reader: orjson.dumps(stored.statistics(cursor, reader)),
            keep=True,
        )

    async def splits(self, parameters: asked.ConfigParameters) -> ViewerAnswer:
        """Return the splits of a dataset, or of one of its configs."""
        dataset, config = self._dataset(parameters), parameters.config
        return _document(descriptions.splits(dataset, await self._listed(dataset, config)))

    async def validity(self, parameters: asked.ValidityParameters) -> ViewerAnswer:
        """Return what can be done with a split, a config or a dataset: all, if there is one.

        Raises:
            NotFound: there is none.
        """
        dataset, split = self._dataset(parameters), parameters.split
        listed = await self._listed(dataset, parameters.config)
        known = [name for names in listed.values() for name in names]
        if split is not None and split not in known:
            raise no_split(split, parameters.config or dataset, list(dict.fromkeys(known)))
        return _document(dict.fromkeys(("preview", "viewer", "search", "filter", "statistics"), True))

    async def parquet(self, parameters: asked.ConfigParameters, base: str) -> ViewerAnswer:
        """Return the Parquet files of snapshots, below the address `base`."""
        dataset, config = self._dataset(parameters), parameters.config
        configs = await self._snapshot_facts(dataset, config)
        columns = COLUMNS if config == LIVE else configs[0].columns if config else None
        return _document(descriptions.parquet(configs, base, columns))

    async def croissant(self, parameters: asked.ConfigParameters, base: str) -> ViewerAnswer:
        """Return the Croissant description of a config, of live labels by default; files are below `base`."""
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

    async def size(self, parameters: asked.ConfigParameters) -> ViewerAnswer:
        """Return how many rows and bytes there are."""
        configs = await self._configs(parameters)
        dataset = self._dataset(parameters)
        return _document(descriptions.size(dataset, configs, of_one=parameters.config is not None))

    async def info(self, parameters: asked.ConfigParameters) -> ViewerAnswer:
        """Return the metadata as the datasets library holds them."""
        configs = await self._configs(parameters)
        guidelines = self._datasets[self._dataset(parameters)].guidelines.strip()
        return _document(descriptions.info(guidelines, configs, of_one=parameters.config is not None))

    async def _answer(
        self, split: Split, key: str, of_live: OfLive, of_snapshot: OfSnapshot, *, keep: bool = False
    ) -> ViewerAnswer:
        """Make an answer of live labels or of a snapshot's file; `keep` it as long as the file is the same."""
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

            return self._kept.get(key, file.sha256, make) if keep else make()

        return _answered(await self._pool.run_beside(self._beside, work))

    async def _configs(self, parameters: asked.ConfigParameters) -> list[ConfigFacts]:
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

    def _live_rows(self, cursor: Connection, point: Point, split: Split, span: Span) -> Slice:
        return repository.read_rows(cursor, split.dataset, span, self._hints.sample(cursor, point))

    def _hits(self, cursor: Connection, point: Point, query: TextsQuery, span: Span, until: float) -> Slice:
        found = self._search.ask(point, lambda index: repository.search_rows(cursor, query, span, index, until))
        return found or repository.search_rows(cursor, query, span, None, until)

    def _split(self, parameters: asked.SplitParameters) -> Split:
        return Split(self._dataset(parameters), parameters.config, parameters.split)

    def _dataset(self, parameters: DatasetParameters) -> str:
        if parameters.dataset is not None and parameters.dataset not in self._datasets:
            raise no_dataset(parameters.dataset, list(self._datasets))
        return choose_dataset(parameters.dataset, (), self._datasets)

    @contextmanager
    def _beside(self) -> Iterator[Connection]:
        """Give a connection that sees neither the replica nor what others are doing."""
        cursor = self._memory.cursor()
        try:
            yield cursor
        finally:
            cursor.close()


def _in_memory(make: Callable[..., bytes]) -> Callable[..., bytes]:
    """Refuse what takes more memory than DuckDB may use."""

    def made(*arguments: Any) -> bytes:
        try:
            return make(*arguments)
        except duckdb.OutOfMemoryException as error:
            raise Unavailable("Memory is short.", code="too_busy", retry_after_seconds=5) from error

    return made


def _span(parameters: asked.RowsParameters) -> Span:
    return Span(parameters.offset, parameters.length)


def _document(body: dict[str, Any]) -> ViewerAnswer:
    return _answered(orjson.dumps(body))


def _answered(body: bytes) -> ViewerAnswer:
    return ViewerAnswer(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', None)
