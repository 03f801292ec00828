"""Writes docs/commands.md from the commands themselves: `python -m tests.commands_table`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer import Context
from typer.core import TyperGroup

from cli.main import COMMANDS, load

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
START = "<!-- written by python -m tests.commands_table -->\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with its whole name, in the order of `annotate --help`."""
    for name in COMMANDS:
        yield from _of(f"annotate {name}", load(name))


def _of(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield from _of(f"{name} {part}", inner)


def _section(name: str, command: Any) -> str:
    context = Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## {name}", "", f"    {name} {usage}", "", " ".join(command.help.split()), ""]
    parameters = [parameter for parameter in command.params if parameter.name != "help"]
    if parameters:
        lines += ["| argument or option | values | meaning |", "|---|---|---|"]
        lines += [_row(parameter, context) for parameter in parameters]
        lines.append("")
    return "\n".join(lines)


def _row(parameter: Any, context: Context) -> str:
    is_flag = getattr(parameter, "is_flag", False)
    is_option = parameter.opts[0].startswith("-")
    names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.metavar or parameter.name]
    options = ", ".join(f"`{name}`" for name in names)
    values = "" if is_flag else _values(parameter, context)
    notes = []
    if parameter.required:
        notes.append("Required.")
    elif parameter.default is not None and not is_flag:
        notes.append(f"Default: `{parameter.default}`.")
    if parameter.multiple or parameter.nargs != 1:
        notes.append("Can be repeated.")
    meaning = " ".join([*(parameter.help or "").split(), *notes])
    return f"| {options} | {values.replace('|', ' or ')} | {meaning.replace('|', '&#124;')} |"


def _values(parameter: Any, context: Context) -> str:
    shown: str = parameter.display_type(context).strip("<>").removeprefix("list[").removesuffix("]")
    return {"str": "text", "Path": "file", "int range": "integer", "float range": "number"}.get(shown, shown)


def page() -> str:
    """Return the page with the commands as they are now."""
    head = PAGE.read_text().partition(START)[0]
    return head + START + "\n" + "\n".join(_section(name, command) for name, command in commands())


if __name__ == "__main__":
    PAGE.write_text(page())
