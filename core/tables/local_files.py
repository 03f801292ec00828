"""Files as tables, for commands that read them by themselves."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.tables.decoding import PlainBody
from core.tables.opening import MEDIA_TYPES, kind_of_file, open_table
from core.tables.rows import ColumnsRefused, RowRefused, Table

_CHUNK_BYTES = 256 * 1024


@contextmanager
def open_file(path: Path) -> Iterator[Table]:
    """Open a file as a table by its suffix, NDJSON where that says nothing.

    Raises:
        OSError, Problem: it cannot be read.
    """
    media_type, encoding = kind_of_file(path) or ("application/x-ndjson", "identity")
    with path.open("rb") as file:
        chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
        yield open_table(PlainBody(chunks, encoding), MEDIA_TYPES[media_type])


def read_columns(
    table: Table, known: Collection[str] | None = None, required: Collection[str] = ()
) -> Iterator[tuple[int, Any | RowRefused]]:
    """Yield the rows as dicts by column. Columns without a name are left out; JSON rows are as they are.

    Raises:
        ColumnsRefused: there are others than the `known` ones, one is there twice, or a required one is not.
    """
    if table.columns is None:
        yield from table.read(())
        return
    names = [column.name for column in table.columns]
    expected = required if known is None else known
    wanted = [n for n, name in enumerate(names) if name.strip() and (known is not None or name in expected)]
    for position in wanted:
        name = names[position]
        if name not in expected or names.count(name) > 1:
            problem = "is there twice" if name in expected else f"is not known; known are {', '.join(expected)}"
            raise ColumnsRefused(name, f'The column "{name}" {problem}.', table.columns)
    for name in required:
        if name not in names:
            raise ColumnsRefused(name, f'There is no column "{name}".', table.columns)
    read = range(len(names)) if table.whole_rows else wanted
    for number, cells in table.read(wanted):
        if isinstance(cells, RowRefused):
            yield number, cells
        else:
            by_name = dict(zip((names[position] for position in read), cells, strict=True))
            yield number, {name: cell for name, cell in by_name.items() if name.strip()}
