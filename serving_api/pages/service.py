"""What the dashboard's endpoints say: made from the counts, ready to be sent."""

from dataclasses import replace
from datetime import date
from typing import Any

import duckdb
import orjson

from serving_api.pages import repository
from serving_api.pages.repository import FACETS, Counted
from serving_api.texts.query import TextsQuery
from serving_api.texts.repository import Point

# The filter by which a facet's own value is chosen, where its name is another one.
_FILTERS = {"agreement": "min_agreement"}


def make_facets(cursor: duckdb.DuckDBPyConnection, point: Point, query: TextsQuery) -> bytes:
    """Return the counts of each filter's values among the texts that the other filters leave."""
    filtered = [facet for facet in FACETS if _without(query, facet) != query]
    found = repository.count_values(cursor, query, [facet for facet in FACETS if facet not in filtered])
    for facet in filtered:
        found |= repository.count_values(cursor, _without(query, facet), [facet])
    found["agreement"] = [(float(value), texts) for value, texts in found["agreement"] if value is not None]
    found["complete"] = [(value == "true", texts) for value, texts in found["complete"]]
    body = {
        "dataset": query.dataset,
        "total": repository.count_texts(cursor, query),
        **{facet: _values(found[facet]) for facet in FACETS},
        "version": point.version,
    }
    return orjson.dumps(body)


def make_days(cursor: duckdb.DuckDBPyConnection, point: Point, query: TextsQuery, days: int) -> bytes:
    """Return the labels and answers of so many days up to the last one with a label."""
    found: dict[date, dict[str, Any]] = {}

    def on(day: date) -> dict[str, Any]:
        return found.setdefault(day, {"day": day, "labels": {}, "disputed": 0, "answers": {}})

    first, labels = repository.count_labels_by_day(cursor, query, days)
    for day, label, texts in labels:
        if label is None:
            on(day)["disputed"] = texts
        else:
            on(day)["labels"][label] = texts
    for day, annotator, answers in repository.count_answers_by_day(cursor, query, first) if first else ():
        on(day)["answers"][annotator] = answers
    body = {"dataset": query.dataset, "days": [found[day] for day in sorted(found)], "version": point.version}
    return orjson.dumps(body)


def _without(query: TextsQuery, facet: str) -> TextsQuery:
    """Return the query without the filter by values of a facet."""
    if facet == "label":
        return replace(query, labels=())
    name = _FILTERS.get(facet, facet)
    if getattr(query.filters, name) is None:
        return query
    return replace(query, filters=query.filters.model_copy(update={name: None}))


def _values(counted: Counted) -> list[dict[str, Any]]:
    return [{"value": value, "texts": texts} for value, texts in counted]
