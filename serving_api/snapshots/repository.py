"""What the replica knows of a snapshot's texts: the facts that its card tells, and which were forgotten since."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet
from pydantic import BaseModel, ConfigDict, Field

from core.datasets import Dataset
from core.models import AnnotationStatus
from core.web.problems import NotFound
from serving_api.changes.service import feed_of
from serving_api.replica.replica import Replica
from serving_api.replica.tables import Role
from serving_api.snapshots.manifest import SnapshotManifest
from serving_api.snapshots.storage import Storage, reaching_storage
from serving_api.statistics.agreement import Estimate, agreement
from serving_api.statistics.repository import count_votes
from serving_api.texts.query import TextsQuery
from serving_api.texts.repository import Condition, conditions

_SOURCES_SHOWN = 20


class AnswerCounts(BaseModel):
    """How many answers the texts have. Submitted ones of annotators count."""

    model_config = ConfigDict(frozen=True)

    total: int = Field(description="On all texts.")
    fewest: int = Field(description="On one text.")
    most: int = Field(description="On one text.")
    annotators: int = Field(description="Persons who gave them.")
    adjudicators: int = Field(description="Persons who were asked about disputes beside; not among the others.")


class Rule(BaseModel):
    """A rule by which labels were derived."""

    model_config = ConfigDict(frozen=True)

    name: str
    texts: int
    first_version: int = Field(description="Estimates are counted; the oldest one that a label is from.")
    last_version: int


class Facts(BaseModel):
    """What is so of a snapshot's texts, at its version. It names no annotator."""

    model_config = ConfigDict(frozen=True)

    guidelines: str = Field(description="What annotators are told when it is written, as Markdown.")
    labels: tuple[str, ...] = Field(description="What annotators choose from, in their order.")
    answers_wanted: int = Field(description="Annotations that complete a text.")
    near_duplicates: str = Field(description="Setting of the dataset: off, link, ask_once.")
    license: str | None = Field(description="Licence, as the dataset's owner has set it.")
    texts: int
    statuses: dict[str, int] = Field(description="Texts by status.")
    decided_by: dict[str, int] = Field(description="Texts by whose answers decided.")
    rules: tuple[Rule, ...] = Field(description="By name.")
    answers: AnswerCounts
    agreement: dict[str, Estimate] = Field(description="Coefficients with their 95 % intervals, by name.")
    agreement_without: tuple[str, ...] = Field(
        (), description="Filters that agreement is measured without, for they choose texts by their answers."
    )
    sources: dict[str, int] = Field(description="Texts by source, the 20 that most are from.")
    sources_total: int = Field(description="How many sources there are.")
    languages: dict[str, int] = Field(description="Texts by language where it is known, the most frequent first.")
    near_twins: int = Field(description="Texts that are linked as near duplicates of an earlier one.")

    def without_sources(self) -> "Facts":
        """Return them without the names of sources: one might be that of a text that is to be forgotten."""
        return self.model_copy(update={"sources": {}})


def read_facts(cursor: duckdb.DuckDBPyConnection, query: TextsQuery, dataset: Dataset) -> Facts:
    """Return the facts of the texts that the query finds; the same version gives the same facts.

    `cursor` is in the transaction that the rows are read in. Agreement is as in `GET /stats/agreement`.
    """
    unselected, left_out = _without_selection(query)
    sources = _count_by(cursor, query, "source")
    where, values = conditions(query)
    statement = f"""
        select count(*), coalesce(sum(annotations), 0)::bigint, coalesce(min(annotations), 0),
               coalesce(max(annotations), 0), count(near_duplicate_of)
        from items where {where}
    """  # noqa: S608 - known columns only, here and below
    texts, total, fewest, most, twins = cursor.execute(statement, values).fetchall()[0]
    persons = _count_persons(cursor, query)
    return Facts(
        guidelines=dataset.guidelines,
        labels=dataset.labels,
        answers_wanted=dataset.answers_wanted,
        near_duplicates=dataset.near_duplicates,
        license=dataset.license,
        texts=texts,
        statuses=_count_by(cursor, query, "status"),
        decided_by=_count_by(cursor, query, "decided_by"),
        rules=_list_rules(cursor, query),
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


def _measure_agreement(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> dict[str, Estimate]:
    measured = agreement(count_votes(cursor, query))
    return {
        "krippendorff_alpha": measured.krippendorff_alpha,
        "fleiss_kappa": measured.fleiss_kappa,
        "observed_agreement": measured.observed_agreement,
    }


def _without_selection(query: TextsQuery) -> tuple[TextsQuery, tuple[str, ...]]:
    """Return the query without the filters that choose texts by what annotators said, and the names of these.

    Among the texts with `min_agreement=1` every coefficient is 1, however little annotators agree.
    """
    given = query.filters.model_dump(include={"status", "min_agreement"}, exclude_none=True)
    names = sorted([*given, *(["label"] if query.labels else [])])
    filters = query.filters.model_copy(update=dict.fromkeys(given))
    return replace(query, labels=(), filters=filters), tuple(names)


def _count_by(cursor: duckdb.DuckDBPyConnection, query: TextsQuery, column: str) -> dict[str, int]:
    """Return the number of texts by what `column` holds, nulls left out, the most frequent first."""
    where, values = conditions(query)
    statement = f"""
        select {column}, count(*) from items where {where} and {column} is not null group by 1 order by 2 desc, 1
    """  # noqa: S608
    return dict(_rows(cursor, statement, values))


def _list_rules(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> tuple[Rule, ...]:
    where, values = conditions(query)
    statement = f"""
        select rule, count(*), min(rule_version), max(rule_version) from items where {where} group by 1 order by 1
    """  # noqa: S608
    found = _rows(cursor, statement, values)
    return tuple(Rule(name=r, texts=n, first_version=first, last_version=last) for r, n, first, last in found)


def _count_persons(cursor: duckdb.DuckDBPyConnection, query: TextsQuery) -> dict[str, int]:
    """Return how many persons answered about these texts, by their role."""
    where, values = _answers_about(query)
    statement = f"select role, count(distinct annotator) from annotations where {where} group by 1"  # noqa: S608
    return dict(_rows(cursor, statement, values))


def _answers_about(query: TextsQuery) -> Condition:
    where, values = conditions(query)
    sql = f"""
        dataset = ? and status = ? and value is not null and text_id in (select id from items where {where})
    """  # noqa: S608
    return sql, [query.dataset, AnnotationStatus.SUBMITTED.value, *values]


def _rows(cursor: duckdb.DuckDBPyConnection, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    return cursor.execute(statement, [*values]).fetchall()


_IDS_AT_ONCE = 65_536

_FORGOTTEN = "select id from tombstones where forgotten and dataset = ? and version > ? and version <= ?"


class Forgotten:
    """Looks forgotten texts up in snapshots: those of a version once in each snapshot, by its column of ids."""

    def __init__(self, replica: Replica, storage: Storage) -> None:
        self._replica = replica
        self._storage = storage
        self._lock = Lock()
        # By the hash of the content: up to which version was looked, and what was found.
        self._seen: dict[str, tuple[int, frozenset[UUID]]] = {}

    def mark(self, manifest: SnapshotManifest) -> SnapshotManifest:
        """Return the manifest with the number of forgotten texts that the snapshot holds.

        Raises:
            NotFound: a file of it is gone.
            Unavailable: the storage does not answer.
        """
        return manifest.model_copy(update={"forgotten": len(self.find(manifest))})

    def find_in(self, manifests: Iterable[SnapshotManifest]) -> Iterator[tuple[SnapshotManifest, frozenset[UUID]]]:
        """Yield those snapshots that are still there, and the forgotten texts that each holds."""
        for manifest in manifests:
            with suppress(NotFound):  # deleted
                try:
                    found = self.find(manifest)
                except NotFound:  # rewritten meanwhile, or deleted
                    found = self.find(self._storage.get(manifest.name))
                yield manifest, found

    def find(self, manifest: SnapshotManifest) -> frozenset[UUID]:
        """Return the forgotten texts that a snapshot holds; raises as `mark` does."""
        state = self._replica.state
        newest = self._replica.forgotten
        if state is None:
            return frozenset()
        # What was forgotten before the snapshot's version is not in it; but versions of another feed say nothing.
        first = manifest.version if manifest.feed == feed_of(state.identity) else 0
        with self._lock:
            seen, found = self._seen.get(manifest.content_hash, (first, frozenset()))
        if newest <= seen:
            return found
        with self._replica.reading() as cursor:
            rows = cursor.execute(_FORGOTTEN, [manifest.dataset, seen, newest]).fetchall()
        found |= self._look_up(manifest, {row[0] for row in rows}) if rows else frozenset()
        with self._lock:
            self._seen[manifest.content_hash] = (newest, found)
        return found

    def _look_up(self, manifest: SnapshotManifest, ids: Collection[UUID]) -> frozenset[UUID]:
        wanted = pa.array(sorted(map(str, ids)), pa.string())
        found: set[UUID] = set()
        for split in manifest.splits.values():
            with self._storage.open(manifest.name, split.path) as file, reaching_storage():
                for batch in parquet.ParquetFile(file).iter_batches(_IDS_AT_ONCE, columns=["id"]):
                    column = batch.column("id")
                    found |= {UUID(id_) for id_ in column.filter(pc.is_in(column, wanted)).to_pylist()}
        return frozenset(found)
