"""What `/statistics` says of each column: made by two aggregations over the rows, in memory that stays small.

The first counts the lengths of strings, and about how many there are, and finds bounds and means of the rest; the
second counts what lies in each bin, and labels.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import duckdb
from pydantic import BaseModel, Field

from serving_api.columns import Kind
from serving_api.texts.parameters import to_text
from serving_api.texts.repository import Condition
from serving_api.viewer.conditions import Names
from serving_api.viewer.features import SplitColumn

# A string column counts as labels with at most 30 different values, each occurring five times on average.
_LABELS_MAX = 30
_TIMES_MIN = 5

_BINS = 10
_DECIMALS = 5
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - moments are UTC without a zone

# Gives a relation that has these columns, and which of its rows are meant. It can be read once.
Rows = Callable[[Sequence[SplitColumn]], AbstractContextManager[tuple[str, Condition]]]


@dataclass(frozen=True, slots=True)
class _Measured:
    """A column after the first aggregation: its numbers, lengths of strings, or microseconds since 1970."""

    column: SplitColumn
    total: int
    values: int  # that are not null
    least: float | None
    greatest: float | None
    mean: float | None
    median: float | None  # of lengths exact, else about
    deviation: float | None
    different: int = 0  # about, of strings
    lengths: Mapping[int, int] = field(default_factory=dict)  # how many strings are so long

    @property
    def kind(self) -> str:
        """What the original calls such a column."""
        if self.column.is_text:
            labels = self.different <= _LABELS_MAX and self.different * _TIMES_MIN <= self.values
            return "string_label" if labels else "string_text"
        if self.column.kind is Kind.MOMENT:
            return "datetime"
        if self.column.kind is Kind.FLAG:
            return "bool"
        return "int" if "int" in self.column.dtype else "float"

    @property
    def edges(self) -> list[float]:
        """The edges of the bins, the last one included in the last bin; none without values."""
        if self.least is None or self.greatest is None or self.kind == "bool":
            return []
        if self.kind in {"int", "string_text"}:
            step = math.ceil((self.greatest - self.least + 1) / _BINS)
            starts = range(int(self.least), int(self.greatest) + 1, step)
            return [*starts, int(self.greatest)]
        if self.least == self.greatest:
            return [self.least, self.greatest]
        size = (self.greatest - self.least) / _BINS
        return [*(self.least + size * number for number in range(_BINS)), self.greatest]


def make_statistics(
    cursor: duckdb.DuckDBPyConnection, columns: Sequence[SplitColumn], names: Names, rows: Rows
) -> dict[str, Any]:
    """Return the statistics of a split's columns, as the original names them."""
    wanted = [measure for column in columns for measure in _measures(column, names)]
    total, *found = _aggregate(cursor, rows(columns), [("count(*)", []), *((sql, []) for sql in wanted)])
    measured = list(_measured(columns, names, total, found))
    counted_columns = [one.column for one in measured if one.kind != "string_text"]
    counted = _aggregate(cursor, rows(counted_columns), [_counting(one, names) for one in measured])
    return {
        "num_examples": total,
        "statistics": [_column(one, counts or {}) for one, counts in zip(measured, counted, strict=True)],
        "partial": False,
    }


def _aggregate(
    cursor: duckdb.DuckDBPyConnection,
    rows: AbstractContextManager[tuple[str, Condition]],
    wanted: Sequence[Condition],
) -> tuple[Any, ...]:
    select = ", ".join(sql for sql, _ in wanted)
    values = [value for _, some in wanted for value in some]
    with rows as (relation, (where, more_values)):
        statement = f"select {select} from {relation} where {where}"  # noqa: S608 - known columns only
        return cursor.execute(statement, [*values, *more_values]).fetchall()[0]


def _measures(column: SplitColumn, names: Names) -> list[str]:
    value = _value(column, names)
    if column.is_text:
        return [f"histogram({value})", f"approx_count_distinct({names.get(column.name, column.quoted)})"]
    aggregates = (
        "count({0})",
        "min({0})",
        "max({0})",
        "avg({0})",
        "approx_quantile({0}, 0.5)",
        "stddev_samp({0})",
    )
    return [aggregate.format(value) for aggregate in aggregates]


def _value(column: SplitColumn, names: Names) -> str:
    """Return the SQL expression that is measured for a column."""
    name = names.get(column.name, column.quoted)
    if column.is_text:
        return f"length({name})"
    if column.kind is Kind.FLAG:
        return f"{name}::integer::double"
    return f"epoch_us({name})::double" if column.kind is Kind.MOMENT else f"{name}::double"


def _measured(
    columns: Sequence[SplitColumn], names: Names, total: int, found: Sequence[Any]
) -> Iterator[_Measured]:
    start = 0
    for column in columns:
        end = start + len(_measures(column, names))
        parts, start = found[start:end], end
        yield _of_lengths(column, total, *parts) if column.is_text else _Measured(column, total, *parts)


def _of_lengths(column: SplitColumn, total: int, lengths: Mapping[int, int] | None, different: int) -> _Measured:
    if not lengths:
        return _Measured(column, total, 0, None, None, None, None, None)
    ordered = sorted(lengths)
    values = sum(lengths.values())
    sum_ = sum(length * count for length, count in lengths.items())
    squares = sum(length**2 * count for length, count in lengths.items())
    deviation = math.sqrt((values * squares - sum_**2) / (values * (values - 1))) if values > 1 else None
    median = (_at(ordered, lengths, (values - 1) // 2) + _at(ordered, lengths, values // 2)) / 2
    return _Measured(
        column, total, values, ordered[0], ordered[-1], sum_ / values, median, deviation, different, lengths
    )


def _at(ordered: Sequence[int], counts: Mapping[int, int], place: int) -> int:
    """Return the value at a place of a sorted list, of which only the counts are known."""
    for value in ordered:
        place -= counts[value]
        if place < 0:
            return value
    return ordered[-1]


def _counting(one: _Measured, names: Names) -> Condition:
    """Return an aggregate: a map of labels, or of the numbers of bins, to how many rows they have."""
    name = names.get(one.column.name, one.column.quoted)
    if one.kind == "string_label":
        return f"histogram({name})", []
    if one.kind == "bool":
        return f"histogram(if({name}, 'True', 'False')) filter ({name} is not null)", []
    edges = one.edges
    if not edges or one.kind == "string_text":
        return "null", []
    number = f"floor(({_value(one.column, names)} - ?) / ?)"
    # Of null and a number, the least is the number.
    counting = f"histogram(least({number}, ?)::integer) filter ({name} is not null)"
    return counting, [edges[0], _size(edges), len(edges) - 2]


def _size(edges: Sequence[float]) -> float:
    return (edges[1] - edges[0]) or 1


def _column(one: _Measured, counts: Mapping[Any, int]) -> dict[str, Any]:
    nulls = one.total - one.values
    known = {"nan_count": nulls, "nan_proportion": _rounded(nulls / one.total if one.total else 0)}
    if one.kind == "string_label":
        found: dict[str, Any] = {"n_unique": len(counts), "frequencies": counts}
        found = {"no_label_count": 0, "no_label_proportion": 0.0} | found
    elif one.kind == "bool":
        found = {"frequencies": counts}
    else:
        found = _distribution(one, _bins_of_lengths(one) if one.column.is_text else counts)
    return {"column_name": one.column.name, "column_type": one.kind, "column_statistics": known | found}


def _bins_of_lengths(one: _Measured) -> dict[int, int]:
    edges, bins = one.edges, dict[int, int]()
    for length, count in one.lengths.items():
        number = min(int((length - edges[0]) // _size(edges)), len(edges) - 2)
        bins[number] = bins.get(number, 0) + count
    return bins


def _distribution(one: _Measured, counts: Mapping[int, int]) -> dict[str, Any]:
    shown = _moment if one.kind == "datetime" else _rounded
    exact = int if one.kind in {"int", "string_text"} else shown
    edges = [shown(edge) for edge in one.edges]
    bins = [counts.get(number, 0) for number in range(len(edges) - 1)]
    return {
        "min": _or_none(exact, one.least),
        "max": _or_none(exact, one.greatest),
        "mean": _or_none(shown, one.mean),
        "median": _or_none(shown, one.median),
        "std": _or_none(_duration if one.kind == "datetime" else _rounded, one.deviation),
        "histogram": {"hist": bins, "bin_edges": edges} if edges else None,
    }


def _or_none(shown: Callable[[float], Any], value: float | None) -> Any:
    return None if value is None else shown(value)


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)


def _moment(microseconds: float) -> str:
    return to_text(_EPOCH + timedelta(microseconds=round(microseconds)))


def _duration(microseconds: float) -> str:
    return str(timedelta(microseconds=round(microseconds)))


class Histogram(BaseModel):
    """How many values lie between one edge and the next."""

    hist: list[int]
    bin_edges: list[float | str]


class _Counts(BaseModel):
    nan_count: int = Field(description="Nulls.")
    nan_proportion: float


class Distribution(_Counts):
    """Of numbers, of times, or of the lengths of texts."""

    min: float | str | None
    max: float | str | None
    mean: float | str | None
    median: float | str | None = Field(description="Of numbers and times an estimate.")
    std: float | str | None
    histogram: Histogram | None


class Frequencies(_Counts):
    """Of labels."""

    no_label_count: int
    no_label_proportion: float
    n_unique: int
    frequencies: dict[str, int]


class FlagFrequencies(_Counts):
    """Of flags."""

    frequencies: dict[Literal["True", "False"], int]


class ColumnStatistics(BaseModel):
    """Of one column."""

    column_name: str
    column_type: Literal["string_label", "string_text", "int", "float", "bool", "datetime"]
    column_statistics: Distribution | Frequencies | FlagFrequencies


class Statistics(BaseModel):
    """Of each column."""

    num_examples: int
    statistics: list[ColumnStatistics]
    partial: bool


STATISTICS_EXAMPLE = {
    "num_examples": 800,
    "statistics": [
        {
            "column_name": "label",
            "column_type": "string_label",
            "column_statistics": {
                "nan_count": 3,
                "nan_proportion": 0.00375,
                "no_label_count": 0,
                "no_label_proportion": 0.0,
                "n_unique": 2,
                "frequencies": {"non_toxic": 531, "toxic": 266},
            },
        },
        {
            "column_name": "annotations",
            "column_type": "int",
            "column_statistics": {
                "nan_count": 0,
                "nan_proportion": 0.0,
                "min": 1,
                "max": 3,
                "mean": 2.0125,
                "median": 2.0,
                "std": 0.81201,
                "histogram": {"hist": [251, 288, 261], "bin_edges": [1, 2, 3, 3]},
            },
        },
    ],
    "partial": False,
}
