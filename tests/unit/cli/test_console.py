"""Nothing that others wrote acts on a terminal, however it is printed."""

import ast
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cli.console import SafeConsole, list_table, plain, print_json, printable

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
HOSTILE = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x08\x08",
    "a\rb",
    "\x7f",
    "\u2028",
    "\ufeff",
    "[red]x[/red]",
    "\0",
]
HOSTILE += list(BIDI)


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_a_terminal_acts_on_is_printed(value: str) -> None:
    assert printable(value).isprintable()


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_what_can_be_read_stays_as_it_is(value: str) -> None:
    assert printable(value) == value


def test_what_is_escaped_can_be_told() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed") == r"a\x1b[2Jb\nc\u202ed"


def table_of(value: str) -> Table:
    table = Table(value, title=value, caption=value)
    table.add_row(value)
    table.add_row(Text(value))
    table.add_row(plain(value))
    return table


def in_progress(console: SafeConsole, value: str) -> None:
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task(value)


WAYS: dict[str, Callable[[SafeConsole, str], None]] = {
    "a string": lambda console, value: console.print(value),
    "a string in red": lambda console, value: console.print(value, style="red", soft_wrap=True),
    "text": lambda console, value: console.print(Text(value)),
    "a table": lambda console, value: console.print(table_of(value)),
    "several": lambda console, value: console.print(value, Text(value)),
    "progress": in_progress,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", HOSTILE)
def test_the_console_escapes_by_itself(way: str, value: str) -> None:
    console = SafeConsole()
    console.file = io.StringIO()
    console.width = 200
    WAYS[way](console, f"<{value}>")
    shown = console.file.getvalue().replace("\n", "")
    assert shown.isprintable(), repr(shown)
    if way not in {"progress", "text"}:  # may be gone before it is seen; drops some characters by itself
        assert f"<{printable(value)}>" in shown


@given(st.text())
def test_json_is_escaped_as_json(value: str) -> None:
    at, id_ = datetime(2026, 11, 30, tzinfo=UTC), UUID(int=7)
    output = io.StringIO()
    with redirect_stdout(output):
        print_json({"value": value, "at": at, "id": id_}, indent=None)
    line = output.getvalue().removesuffix("\n")
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"value": value, "at": "2026-11-30T00:00:00+00:00", "id": str(id_)}


def test_json_of_something_else_is_a_mistake() -> None:
    with pytest.raises(TypeError):
        print_json({"value": object()})


def calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), ", ".join(map(ast.unparse, node.args))


def test_no_command_prints_past_the_console() -> None:
    """Of the rest, only fixed words and new secrets are printed; `addresses` runs before the console is there."""
    allowed = {("typer.echo", "key"), ("typer.echo", "password")}
    for file in Path("cli").rglob("*.py"):
        for call, arguments in calls(ast.parse(file.read_text())):
            is_print = call in {"print", "rich.print", "Console", "typer.echo", "click.echo", "sys.stdout.write"}
            if is_print and file.name != "console.py":
                assert (call, arguments) in allowed, (file, call, arguments)


def test_a_list_cuts_nothing_and_keeps_ids_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = (
        str(UUID(int=7)),
        "a_dataset_with_a_long_name",
        "uploaded",
        "3",
        "2026-12-01 04:22",
        "a text of some words",
    )
    table = list_table("id", "dataset", "status", "attempts", "received", "text")
    table.add_row(*row)
    monkeypatch.setenv("COLUMNS", "80")
    SafeConsole().print(table)
    narrow = capsys.readouterr().out.splitlines()
    assert max(map(len, narrow)) <= 80
    assert any(row[0] in line for line in narrow)
    shown = Counter("".join(narrow))
    assert not Counter("".join(row).replace(" ", "")) - shown
    # Another program reads each row on a line.
    monkeypatch.delenv("COLUMNS")
    SafeConsole().print(table)
    assert any(all(cell in line for cell in row) for line in capsys.readouterr().out.splitlines())
