"""Columns and rows of a table, their limits, and refusals."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.web.problems import Problem, TooLarge

ROW_BYTES = 1024 * 1024

MOST_COLUMNS = 1000
_HEADER_CHARACTERS = 100_000
_LISTED_COLUMNS = 30
_LISTED_CHARACTERS = 100


class RowRefused(Exception):
    """One row cannot be read. `cells`: those that can, with None for the others; None if there are none."""

    def __init__(self, code: str, detail: str, cells: tuple[Any, ...] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.cells = cells


# The row's number, from 1, and its cells or its JSON value; a RowRefused where that row alone cannot be read.
Row = tuple[int, Any | RowRefused]

TOO_LONG = RowRefused("row_too_large", f"longer than {ROW_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column; `type` is `string` wherever the format has no types."""

    name: str
    type: str = "string"


@dataclass(frozen=True, slots=True)
class Table:
    """A body whose header or schema was read, and whose rows are still to be read.

    `read` takes the positions of the columns that are wanted, and yields the cells of these alone, in their
    order; with `whole_rows` the cells of every column. JSON has no `columns`: each row names its own, and is
    yielded whole.
    """

    format: str
    columns: list[TableColumn] | None
    read: Callable[[Sequence[int]], Iterator[Row]]
    whole_rows: bool = False
    charset: str | None = None
    delimiter: str | None = None


def list_columns(columns: Sequence[TableColumn]) -> str:
    """Return the names and types of columns for an error message, in one line."""
    shown = ", ".join(f"{c.name[:_LISTED_CHARACTERS]} ({c.type})" for c in columns[:_LISTED_COLUMNS] if c.name)
    more = f" and {len(columns) - _LISTED_COLUMNS} more" if len(columns) > _LISTED_COLUMNS else ""
    return shown + more


class ColumnsRefused(Problem):
    """A column that is needed is missing, ambiguous, or of the wrong type."""

    status = 422
    code = "unknown_column"

    def __init__(
        self, parameter: str, detail: str, columns: Sequence[TableColumn], code: str = "unknown_column"
    ) -> None:
        super().__init__(f"{detail} The columns are: {list_columns(columns)}.", code=code)
        self.extra = {"errors": [{"parameter": parameter, "code": code, "detail": detail}]}


def check_columns(names: list[str], count: int | None = None) -> None:
    """Let pass a header of a bounded length. `count`: how many columns there are, if not one for each name.

    Raises:
        TooLarge: it has too many columns, or their names are too long.
    """
    count = len(names) if count is None else count
    if count > MOST_COLUMNS:
        raise TooLarge(
            f"The file has {count:,} columns, and may have {MOST_COLUMNS:,}. Leave some out.",
            code="too_many_columns",
        )
    if (characters := sum(map(len, names))) > _HEADER_CHARACTERS:
        raise TooLarge(
            f"The names of the columns have {characters:,} characters together, and may have "
            f"{_HEADER_CHARACTERS:,}. Make them shorter.",
            code="header_too_large",
        )
