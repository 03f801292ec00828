"""The secrets of `docker compose`: generated once, and refused when they are none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployment.compose_env import SECRETS, faults, main, text, write

SCRIPT = Path(__file__).parents[3] / "deployment" / "compose_env.py"


def given(content: str) -> dict[str, str]:
    """Return the variables of a file, as Compose reads them."""
    lines = [line for line in content.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_what_is_generated_is_found_good_and_never_the_same() -> None:
    first, second = given(text()), given(text())
    assert first.keys() == SECRETS.keys()
    assert faults(first) == []
    assert not set(first.values()) & set(second.values())


def test_a_file_is_its_owners_only_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "env"
    assert main(["write", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()
    refusal = str(main(["write", str(file)]))
    assert file.read_text() == before
    assert "nothing was changed" in refusal
    said = capsys.readouterr().out + refusal
    assert not any(value in said for value in given(before).values())
    with pytest.raises(FileExistsError):
        write(file)


def test_a_link_to_a_missing_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "env").symlink_to(tmp_path / "elsewhere")
    assert "nothing was changed" in str(main(["write", str(tmp_path / "env")]))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "missing"),
        ("argilla.apikey", "published default"),
        ("Argilla.APIkey", "published default"),
        ("1234", "published default"),
        ("12345678", "published default"),
        ("a-good-one-5678", "fewer than 16"),
        ("with/a/slash/and/more", "letters, digits"),
        ("a-new-line-in-it\n", "letters, digits"),
    ],
)
@pytest.mark.parametrize("name", ["ARGILLA_OWNER_API_KEY", "POSTGRES_ADMIN_PASSWORD"])
def test_what_is_no_secret_is_refused_without_being_shown(name: str, value: str, reason: str) -> None:
    [fault] = faults(given(text()) | {name: value})
    assert fault.startswith(name)
    assert reason in fault
    assert not value or value not in fault.removeprefix(name)


def test_one_secret_for_two_things_is_refused() -> None:
    both = given(text())
    assert faults(both | {"REDIS_PASSWORD": both["GRAFANA_PASSWORD"]}) == ["Two secrets are the same."]


def test_the_script_needs_nothing_installed(tmp_path: Path) -> None:
    def check(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", str(SCRIPT), "check"]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    path = {"PATH": os.environ["PATH"]}
    assert check(path | given(text())).returncode == 0
    refused = check(path | {"ARGILLA_OWNER_API_KEY": "argilla.apikey"})
    assert refused.returncode == 1
    assert "make compose-env" in refused.stderr


def test_without_a_command_it_says_which_there_are() -> None:
    assert "usage" in str(main([]))
