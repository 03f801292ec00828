"""The statistics of each column for `/statistics`, from two aggregations over the rows in little memory.

The first counts strings by length and estimates how many differ; of other columns it finds bounds and means. The
second counts the values in each bin, and each label.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, Literal

from pydantic import BaseModel, Field

from core.web.openapi import with_example
from serving_api.columns import Kind
from serving_api.texts.parameters import to_text
from serving_api.texts.repository import Condition
from serving_api.viewer.split_rows import SplitColumn

# A string column contains labels if it has at most 30 values that each occur five times on average.
_LABELS_MAX = 30
_TIMES_MIN = 5

_BINS = 10
_DECIMALS = 5
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - moments are UTC without a zone

# Returns the values of SQL aggregates over all rows of a split.
Aggregate = Callable[[Sequence[Condition]], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Measured:
    """A column after the first aggregation: its numbers, lengths of strings, or microseconds since 1970."""

    column: SplitColumn
    total: int
    values: int  # that are not null
    least: float | None = None
    greatest: float | None = None
    mean: float | None = None
    deviation: float | None = None
    median: float | None = None  # of lengths exact, else about
    different: int = 0  # about, of strings
    lengths: Mapping[int, int] = field(default_factory=dict)  # number of strings by length

    @property
    def kind(self) -> str:
        """The original's type of the column."""
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


def make_statistics(columns: Sequence[SplitColumn], aggregate: Aggregate) -> dict[str, Any]:
    """Return the statistics of a split's columns, as the original names them."""
    wanted: list[Condition] = [(sql, []) for column in columns for sql in _measures(column)]
    total, *found = aggregate([("count(*)", []), *wanted])
    measured = list(_measured(columns, total, found))
    counted = aggregate([_counting(one) for one in measured])
    return {
        "num_examples": total,
        "statistics": [_column(one, counts or {}) for one, counts in zip(measured, counted, strict=True)],
        "partial": False,
    }


def _measures(column: SplitColumn) -> list[str]:
    value = _value(column)
    if column.is_text:
        return [f"histogram({value})", f"approx_count_distinct({column.sql})"]
    ordinary = [f"{function}({value})" for function in ("count", "min", "max", "avg", "stddev_samp")]
    return [*ordinary, f"approx_quantile({value}, 0.5)"]


def _value(column: SplitColumn) -> str:
    """Return the SQL expression that is measured for a column."""
    name = column.sql
    if column.is_text:
        return f"length({name})"
    if column.kind is Kind.FLAG:
        return f"{name}::integer::double"
    return f"epoch_us({name})::double" if column.kind is Kind.MOMENT else f"{name}::double"


def _measured(columns: Sequence[SplitColumn], total: int, found: Sequence[Any]) -> Iterator[_Measured]:
    start = 0
    for column in columns:
        end = start + len(_measures(column))
        parts, start = found[start:end], end
        yield _of_lengths(column, total, *parts) if column.is_text else _Measured(column, total, *parts)


def _of_lengths(column: SplitColumn, total: int, lengths: Mapping[int, int] | None, different: int) -> _Measured:
    if not lengths:
        return _Measured(column, total, 0)
    ordered = sorted(lengths)
    values = sum(lengths.values())
    sum_ = sum(length * count for length, count in lengths.items())
    squares = sum(length**2 * count for length, count in lengths.items())
    deviation = math.sqrt((values * squares - sum_**2) / (values * (values - 1))) if values > 1 else None
    ends = [*accumulate(lengths[length] for length in ordered)]
    middle = [ordered[bisect_right(ends, index)] for index in ((values - 1) // 2, values // 2)]
    numbers = (ordered[0], ordered[-1], sum_ / values, deviation, sum(middle) / 2)
    return _Measured(column, total, values, *numbers, different, lengths)


def _counting(one: _Measured) -> Condition:
    """Return an aggregate: the number of rows by label, or by number of the bin."""
    name = one.column.sql
    if one.kind == "string_label":
        return f"histogram({name})", []
    if one.kind == "bool":
        return f"histogram(if({name}, 'True', 'False')) filter ({name} is not null)", []
    edges = one.edges
    if not edges or one.kind == "string_text":
        return "null", []
    number = f"floor(({_value(one.column)} - ?) / ?)"
    # In DuckDB, `least` ignores null.
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


def _bins_of_lengths(one: _Measured) -> Mapping[int, int]:
    edges, bins = one.edges, Counter[int]()
    for length, count in one.lengths.items():
        bins[min(int((length - edges[0]) // _size(edges)), len(edges) - 2)] += count
    return bins


def _distribution(one: _Measured, counts: Mapping[int, int]) -> dict[str, Any]:
    shown: Callable[[float], Any] = _timestamp if one.kind == "datetime" else _rounded
    exact: Callable[[float], Any] = int if one.kind in {"int", "string_text"} else shown
    spread: Callable[[float], Any] = _duration if one.kind == "datetime" else _rounded
    edges = [shown(edge) for edge in one.edges]
    bins = [counts.get(number, 0) for number in range(len(edges) - 1)]
    found = {
        "min": (exact, one.least),
        "max": (exact, one.greatest),
        "mean": (shown, one.mean),
        "median": (shown, one.median),
        "std": (spread, one.deviation),
    }
    numbers = {name: None if value is None else show(value) for name, (show, value) in found.items()}
    return numbers | {"histogram": {"hist": bins, "bin_edges": edges} if edges else None}


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)


def _timestamp(microseconds: float) -> str:
    return to_text(_EPOCH + timedelta(microseconds=round(microseconds)))


def _duration(microseconds: float) -> str:
    return str(timedelta(microseconds=round(microseconds)))


class Histogram(BaseModel):
    """The number of values between one edge and the next."""

    hist: list[int]
    bin_edges: list[float | str]


class _Counts(BaseModel):
    nan_count: int = Field(description="Nulls.")
    nan_proportion: float


class Distribution(_Counts):
    """Distribution of numbers, times or text lengths."""

    min: float | str | None
    max: float | str | None
    mean: float | str | None
    median: float | str | None = Field(description="Of numbers and times an estimate.")
    std: float | str | None
    histogram: Histogram | None


class Frequencies(_Counts):
    """Frequencies of labels."""

    no_label_count: int
    no_label_proportion: float
    n_unique: int
    frequencies: dict[str, int]


class FlagFrequencies(_Counts):
    """Frequencies of flags."""

    frequencies: dict[Literal["True", "False"], int]


class ColumnStatistics(BaseModel):
    """Statistics of one column."""

    column_name: str
    column_type: Literal["string_label", "string_text", "int", "float", "bool", "datetime"]
    column_statistics: Distribution | Frequencies | FlagFrequencies


_EXAMPLE: dict[str, Any] = {
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


class Statistics(BaseModel):
    """Statistics of each column."""

    model_config = with_example(_EXAMPLE)

    num_examples: int
    statistics: list[ColumnStatistics]
    partial: bool
