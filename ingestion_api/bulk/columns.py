"""The columns and rows of a table: which columns are wanted, and rows that are refused."""

from dataclasses import dataclass
from typing import Any

from core.web.problems import Problem, TooLarge
from ingestion_api.texts.schemas import ROW_BYTES


class RowRefused(Exception):
    """One row cannot be read."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


# The row's number, from 1, and its fields; a RowRefused where that row alone cannot be read.
Row = tuple[int, Any | RowRefused]

TOO_LONG = RowRefused("row_too_large", f"longer than {ROW_BYTES} bytes")


MOST_COLUMNS = 1000
_HEADER_CHARACTERS = 100_000
_LISTED_COLUMNS = 20
_LISTED_CHARACTERS = 100

# Columns that are fields when they have a field's name.
FIELD_COLUMNS = ("external_id", "source", "dataset")


class UnknownColumn(Problem):
    """A parameter names a column that the file does not have."""

    status = 422
    code = "unknown_column"

    def __init__(self, parameter: str, column: str, columns: list[str]) -> None:
        shown = ", ".join(name[:_LISTED_CHARACTERS] for name in columns[:_LISTED_COLUMNS])
        more = f" and {len(columns) - _LISTED_COLUMNS} more" if len(columns) > _LISTED_COLUMNS else ""
        super().__init__(f"There is no column {column!r}; there are: {shown}{more}.")
        self.extra = {"errors": [{"parameter": parameter, "code": self.code, "detail": self.detail}]}


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what."""

    text: str = "text"
    label: str | None = None  # None: `label`, if there is such a column
    source: str | None = None  # a column, if the file has one of that name; else the source of all rows
    all_metadata: bool = False

    def wanted(self, names: list[str]) -> list[str]:
        """Return those of a file's columns that hold something of a submission.

        Raises:
            UnknownColumn: the file lacks a column that a parameter names.
        """
        for parameter, column in (("text", self.text), ("label", self.label)):
            if column is not None and column not in names:
                raise UnknownColumn(parameter, column, names)
        if self.all_metadata:
            return names
        read = {self.text, self.label or "label", self.source, "score", *FIELD_COLUMNS}
        return [name for name in names if name in read]


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
