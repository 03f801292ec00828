"""Candidates: texts that may match a search, by the index, the newest or the best first."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import tantivy

from serving_api.replica.repository import Point
from serving_api.search.index import TIE_BITS, Meta, block_tag, guarded, ids_of, moment_number
from serving_api.texts.matching import Match, word_characters
from serving_api.texts.parameters import Order
from serving_api.texts.query import TextsQuery

# Items in a list by relevance at most; they are the best of at least COMPARED matches, the newest ones.
RANKED = 1_000
COMPARED = 10_000

# How many blocks a search reads: first one, then some, then all others together. If few texts have the query's
# tags, it reads all blocks in one search: opening the index's columns costs more, the more texts it has.
_STEPS = (1, 8)
_FEW = 65_536
_GRAM = 3
_GRAMS_LOOKED_AT = 64
_GRAMS_USED = 6
_TERMS_USED = 64
_MUST = tantivy.Occur.Must


@dataclass(frozen=True)
class IndexSnapshot:
    """The index at one point of the change feed. It is immutable."""

    searcher: tantivy.Searcher
    schema: tantivy.Schema
    meta: Meta

    @property
    def point(self) -> Point:
        """The version of the replica that the index shows."""
        return Point(self.meta.identity, self.meta.version)

    def in_order(
        self, query: TextsQuery, after: datetime | None, first: int
    ) -> Iterator[tuple[list[UUID], int | None]]:
        """Yield the candidates in the query's order, from `after` on: a list of `first` ids, then longer lists.

        Each list comes with the `place` of its last text, which the next list may share; None after the last list.
        """
        conditions = [*self._matching(query), *self._filters(query)]
        clauses = [tantivy.Query.const_score_query(clause, 0) for clause in conditions]
        newest = query.order is not Order.OLDEST
        direction = tantivy.Order.Desc if newest else tantivy.Order.Asc
        low, high = query.filters.labelled_after, query.filters.labelled_before
        if after and newest:
            high = min(high or after, after)
        elif after:
            low = max(low or after, after)
        spans = [self._between(low, high)] if self._are_few(query) else list(self._spans(low, high, newest))
        for number, span in enumerate(spans):
            looked, size = 0, first
            asked = _all_of([*clauses, *span])
            while True:
                with guarded():
                    found = self.searcher.search(
                        asked, size, count=False, order_by_field="place", offset=looked, order=direction
                    ).hits
                    ids = ids_of(self.searcher, [address for _, address in found])
                looked += len(ids)
                ended = len(ids) < size
                last = None if ended and number == len(spans) - 1 else found[-1][0] if found else -1
                if ids or last is None:
                    yield ids, last
                if ended:
                    break
                size = min(size * 2, RANKED)

    def best(self, query: TextsQuery) -> list[UUID]:
        """Return the candidates with the highest BM25 score, at most `RANKED`."""
        low, high = query.filters.labelled_after, query.filters.labelled_before
        filters = [tantivy.Query.const_score_query(clause, 0) for clause in self._filters(query)]
        found: list[UUID] = []
        for blocks in (*_STEPS, None):
            span = self._newest(low, high, blocks)
            with guarded():
                result = self.searcher.search(_all_of([*self._matching(query), *filters, *span]), RANKED)
                found = ids_of(self.searcher, [address for _, address in result.hits])
            matches: int = result.count  # type: ignore[attr-defined]  # tantivy's stubs forget it
            if matches >= COMPARED:
                break
        return found

    def _filters(self, query: TextsQuery) -> list[tantivy.Query]:
        filters = query.filters
        found = [self._term("tags", tag) for tag in filter_tags(query)]
        if query.labels:
            tags = [f"label {label}" for label in query.labels]
            found.append(tantivy.Query.term_set_query(self.schema, "tags", tags))
        if filters.min_agreement is not None:
            kind = tantivy.FieldType.Float
            found.append(
                tantivy.Query.range_query(self.schema, "agreement", kind, lower_bound=filters.min_agreement)
            )
        if filters.min_annotations is not None:
            kind = tantivy.FieldType.Unsigned
            found.append(
                tantivy.Query.range_query(self.schema, "annotations", kind, lower_bound=filters.min_annotations)
            )
        return found

    def _are_few(self, query: TextsQuery) -> bool:
        with guarded():
            return min(self.searcher.doc_freq("tags", tag) for tag in filter_tags(query)) <= _FEW

    def _matching(self, query: TextsQuery) -> list[tantivy.Query]:
        """Return conditions that every matching text meets; other texts may meet them too."""
        if query.filters.q is None:
            return []
        search = query.search
        if search.match is Match.SUBSTRING:
            return self._grams(search.folded)
        found = [clause for word in search.literals for clause in self._word(word, search.match)]
        runs = _runs(" ".join(search.words))
        if search.match is Match.PHRASE and len(runs) > 1:
            found.append(tantivy.Query.phrase_query(self.schema, "words", list(runs)))
        return found

    def _word(self, word: str, match: Match) -> list[tantivy.Query]:
        """Return conditions that each text with this word meets: it has the word's runs of letters as terms."""
        runs = _runs(word)
        is_open = match is Match.PREFIX and bool(runs) and word.endswith(runs[-1])
        whole = runs[:-1] if is_open else runs
        found = [self._term("words", run) for run in whole]
        if is_open and len(runs[-1]) >= _GRAM:
            found += self._beginning(runs[-1])
        if is_open or not whole or "".join(whole) != word:
            found += self._grams(word)
        return found

    def _beginning(self, prefix: str) -> list[tantivy.Query]:
        """Return the condition that a word begins with `prefix`; none if many do: trigrams then filter as well."""
        with guarded():
            terms = self.searcher.terms_with_prefix("words", prefix, limit=_TERMS_USED + 1)
        if len(terms) > _TERMS_USED:
            return []
        any_of = [(tantivy.Occur.Should, self._term("words", term)) for term, _ in terms]
        return [tantivy.Query.boolean_query(any_of) if any_of else tantivy.Query.empty_query()]

    def _grams(self, literal: str) -> list[tantivy.Query]:
        """Return the rarest trigrams of a literal. A literal of one or two characters is searched as a whole."""
        starts = range(max(1, len(literal) - _GRAM + 1))
        step = -(-len(starts) // _GRAMS_LOOKED_AT)
        grams = {literal[start : start + _GRAM] for start in (*starts[::step], starts[-1])}
        with guarded():
            rarest = sorted(grams, key=lambda gram: (self.searcher.doc_freq("grams", gram), gram))
        return [self._term("grams", gram) for gram in rarest[:_GRAMS_USED]]

    def _spans(self, low: datetime | None, high: datetime | None, newest: bool) -> Iterator[list[tantivy.Query]]:
        """Yield the conditions that limit a search to blocks, in the list's order: first few, then the rest."""
        first, last = self._blocks(low, high)
        bounds = self._between(low, high)
        for step in _STEPS:
            if last - first < step:
                break
            blocks = range(last - step + 1, last + 1) if newest else range(first, first + step)
            yield [self._any_block(blocks), *bounds]
            first, last = (first, last - step) if newest else (first + step, last)
        starts = self.meta.starts
        above = starts[first] if first else None
        below = starts[last + 1] if last + 1 < len(starts) else None
        yield [*bounds, *self._numbers(above, below)]

    def _newest(self, low: datetime | None, high: datetime | None, blocks: int | None) -> list[tantivy.Query]:
        first, last = self._blocks(low, high)
        bounds = self._between(low, high)
        if blocks is None or last - first < blocks:
            return bounds
        return [self._any_block(range(last - blocks + 1, last + 1)), *bounds]

    def _blocks(self, low: datetime | None, high: datetime | None) -> tuple[int, int]:
        first = self.meta.block_of(moment_number(low)) if low else 0
        last = self.meta.block_of(moment_number(high)) if high else len(self.meta.starts) - 1
        return first, max(first, last)

    def _any_block(self, blocks: range) -> tantivy.Query:
        if len(blocks) == 1:
            return self._term("tags", block_tag(blocks[0]))
        return tantivy.Query.term_set_query(self.schema, "tags", [block_tag(block) for block in blocks])

    def _between(self, low: datetime | None, high: datetime | None) -> list[tantivy.Query]:
        return self._numbers(moment_number(low) if low else None, moment_number(high) + 1 if high else None)

    def _numbers(self, first: int | None, end: int | None) -> list[tantivy.Query]:
        """Return the condition that limits the timestamps, as numbers, to `first` <= number < `end`."""
        if first is None and end is None:
            return []
        return [
            tantivy.Query.range_query(
                self.schema,
                "place",
                tantivy.FieldType.Unsigned,
                None if first is None else first << TIE_BITS,
                None if end is None else (end << TIE_BITS) - 1,
            )
        ]

    def _term(self, field: str, value: str) -> tantivy.Query:
        return tantivy.Query.term_query(self.schema, field, value, "basic")


def tags_of(dataset: str, **tags: str | None) -> tuple[str, ...]:
    """Return the tags of a text, one for its dataset and one for each named value."""
    return (f"dataset {dataset}", *(f"{name} {value}" for name, value in tags.items() if value is not None))


def filter_tags(query: TextsQuery) -> tuple[str, ...]:
    """Return the tags that every text of a query has."""
    filters = query.filters
    status = filters.status.value if filters.status else None
    return tags_of(
        query.dataset,
        source=filters.source,
        language=filters.language,
        status=status,
        complete=None if filters.complete is None else str(filters.complete),
        annotator=filters.annotator,
    )


def _runs(literal: str) -> list[str]:
    return re.findall(f"[{word_characters()}]+", literal)


def _all_of(clauses: list[tantivy.Query]) -> tantivy.Query:
    return tantivy.Query.boolean_query([(_MUST, clause) for clause in clauses])
