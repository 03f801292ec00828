"""Docker Compose as the tests drive it."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Composition:
    """One composed system: a project name, a file of secrets and ports, and the profiles that are on."""

    project: str
    env_file: Path
    profiles: tuple[str, ...] = ()

    def run(self, *arguments: str, seconds: float = 1000, check: bool = True) -> str:
        """Run `docker compose …`; return its output.

        Fails the test with all that was said when the exit code is not 0 and `check` is set.
        """
        result = self.call(*arguments, seconds=seconds)
        if check and result.returncode:
            pytest.fail(f"docker compose {' '.join(arguments)}\n{result.stdout}\n{result.stderr}\n{self._state()}")
        return result.stdout

    def call(self, *arguments: str, seconds: float = 1000) -> subprocess.CompletedProcess[str]:
        """Run `docker compose …`, whatever its exit code."""
        return docker("compose", *self._options(), *arguments, seconds=seconds)

    def up(self, *services: str) -> None:
        """Start, and wait until everything is healthy."""
        self.run("up", "--detach", "--wait", "--wait-timeout", "900", *services)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what Docker knows of each running container, by the name of its service; the last of several."""
        ids = self.run("ps", "--quiet").split()
        found = json.loads(docker("inspect", *ids).stdout)
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in a running container; return its output."""
        return self.run("exec", "--no-TTY", service, *command, check=check)

    def fails(self, service: str, *command: str) -> bool:
        """Whether a command ends with an exit code other than 0 in a running container."""
        return self.call("exec", "--no-TTY", service, *command).returncode != 0

    def _options(self) -> list[str]:
        profiles = [part for profile in self.profiles for part in ("--profile", profile)]
        return ["--project-name", self.project, "--env-file", str(self.env_file), *profiles]

    def _state(self) -> str:
        states = docker("compose", *self._options(), "ps", "--all").stdout
        logs = docker("compose", *self._options(), "logs", "--no-color", "--tail", "40")
        return f"{states}\n{logs.stdout[-20_000:]}{logs.stderr[-2000:]}"


def docker(*arguments: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
    """Run `docker …`, whatever its exit code."""
    command: Sequence[str] = ["docker", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)
