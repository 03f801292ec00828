"""What readers of bulk bodies yield."""

from typing import Any

from ingestion_api.schemas import ROW_BYTES


class RowRefused(Exception):
    """One row cannot be read."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


# The row's number, from 1, and its fields; a RowRefused where that row alone cannot be read.
Row = tuple[int, Any | RowRefused]

TOO_LONG = RowRefused("row_too_large", f"longer than {ROW_BYTES} bytes")
