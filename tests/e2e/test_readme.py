"""The README's commands work as they stand."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployment.compose_env import faults
from local_stack.settings import StackSettings
from local_stack.testing import settings_for_tests

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
START_SECONDS = 240


@pytest.fixture(scope="module")
def settings() -> Iterator[StackSettings]:
    with settings_for_tests() as settings:
        yield settings


@pytest.fixture(scope="module")
def env(settings: StackSettings) -> dict[str, str]:
    ports = {name: str(port) for name, port in settings.ports.items()}
    return os.environ | ports | {"DATA_DIR": str(settings.data_dir)}


def run(command: str, settings: StackSettings, env: dict[str, str]) -> str:
    """Run a command of the README, with the ports of this test's stack."""
    for port, address in [(8080, settings.ingestion_url), (9000, settings.serving_url)]:
        command = command.replace(f"http://127.0.0.1:{port}", address)
    result = subprocess.run(
        ["bash", "-euc", command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def block(start: str) -> str:
    """Return the README's command block that begins so."""
    found: str = next(commands for commands in COMMANDS if commands.startswith(start))
    return found


def test_the_commands_in_their_order(settings: StackSettings, env: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            ["bash", "-euc", f"exec {block('make up')}"], cwd=ROOT, env=env, stdout=log, stderr=log
        )
    try:
        _wait_for_stack(settings, up, tmp_path / "up.log")
        printed = (tmp_path / "up.log").read_text()
        for line in re.findall(r"^\s*(curl .*)$", printed, re.MULTILINE):
            run(line, settings, env)
        assert json.loads(run(block("curl -s http://127.0.0.1:8080/texts"), settings, env))["status"] == "pending"
        run(block("pipenv run annotate ingest"), settings, env)
        queue = httpx.get(f"{settings.ingestion_url}/queue").json()
        assert queue["pending"] + queue["uploading"] + queue["uploaded"] > 20
        assert '"items":[]' in run(block("curl -s 'http://127.0.0.1:9000/texts"), settings, env)
        page = httpx.get(settings.argilla_url).text
        assert "argilla" in page.lower()
        run("make down", settings, env)
        assert up.wait(60) == 0
        run("make clean", settings, env)
        assert not settings.data_dir.exists()
    finally:
        if up.poll() is None:
            up.send_signal(signal.SIGTERM)
            up.wait(60)


def test_every_command_block_is_tried() -> None:
    tried = ["make up", "curl -s http", "pipenv run annotate ingest", "curl -s 'http", "make test", "make down"]
    # Its first line below; the others in tests/containers, which need an engine.
    tried += ["make compose-env"]
    assert [next((t for t in tried if commands.startswith(t)), commands) for commands in COMMANDS] == tried


def test_the_secrets_of_containers_are_made_once(tmp_path: Path) -> None:
    env = os.environ | {"COMPOSE_ENV": str(tmp_path / "env")}
    first, *others = block("make compose-env").splitlines()
    for exit_code, said in [(0, "Wrote new secrets"), (2, "nothing was changed")]:
        result = subprocess.run(first.split(), cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == exit_code, result.stderr
        assert said in result.stdout + result.stderr
    assert faults(dict(re.findall("^([A-Z_]+)=(.*)$", (tmp_path / "env").read_text(), re.MULTILINE))) == []
    assert all(command.startswith("docker compose ") for command in others)


def _wait_for_stack(settings: StackSettings, up: subprocess.Popen[bytes], log: Path) -> None:
    file = settings.data_dir / "stack.json"
    deadline = time.monotonic() + START_SECONDS
    while not file.exists():
        assert up.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    stack = json.loads(file.read_text())
    assert (file.stat().st_mode & 0o777) == 0o600
    assert stack["pids"].keys() >= {
        "ingestion_api",
        "uploader",
        "serving_api",
        "argilla",
        "postgres",
        "opensearch",
        "redis",
    }
