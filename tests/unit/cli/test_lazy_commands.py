"""`annotate --help` and Tab import no command, and still say what each command says about itself."""

import subprocess
import sys

import pytest

from cli.main import COMMANDS, load

HEAVY = {"httpx", "pyarrow", "psycopg", "sqlalchemy", "structlog", "core.models"}
SCRIPT = """
import sys
from cli.main import app
try:
    app(sys.argv[1:])
except SystemExit:
    print("LOADED", *sys.modules, sep="\\n", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["--help"], {}),
        ([], {"_ANNOTATE_COMPLETE": "complete_bash", "COMP_WORDS": "annotate demo", "COMP_CWORD": "1"}),
    ],
    ids=["help", "completion"],
)
def test_help_and_completion_import_no_command(
    arguments: list[str], env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    script = SCRIPT.replace("app(sys.argv[1:])", 'app(sys.argv[1:], prog_name="annotate")')
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert "demo-data" in ended.stdout
    loaded = ended.stderr.partition("LOADED\n")[2].split()
    assert "typer" in loaded
    assert not HEAVY & {*loaded}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_repeats_their_own_help(name: str) -> None:
    said = " ".join(load(name).help.split())
    assert said == COMMANDS[name].help or said.startswith(f"{COMMANDS[name].help} ")


def test_each_paragraph_of_the_help_is_one_line_for_the_terminal_to_wrap() -> None:
    commands = [load(name) for name in COMMANDS]
    commands += [one for group in commands for one in getattr(group, "commands", {}).values()]
    paragraphs = [paragraph for command in commands for paragraph in command.help.split("\n\n")]
    assert len(paragraphs) > len(commands) > 40
    assert [paragraph for paragraph in paragraphs if "\n" in paragraph] == []
