"""Commands that need Postgres say so in a line when it does not answer."""

import sys

import pytest

from cli.main import main


@pytest.mark.parametrize("command", ["annotators list", "gold list", "keys list", "uploads list"])
def test_without_postgres_a_command_says_why(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["annotate", *command.split()])
    monkeypatch.setenv("ARGILLA_API_KEY", "a key")
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody:secret@127.0.0.1:1/x")
    with pytest.raises(SystemExit) as ended:
        main()
    said = "".join(capsys.readouterr())
    assert ended.value.code == 1
    assert said.startswith("Postgres does not answer: connection failed")
    assert "secret" not in said
    assert "Traceback" not in said
