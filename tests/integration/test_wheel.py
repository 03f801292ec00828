"""The wheel that the image installs: it holds all files, and each command runs with the image's packages alone."""

import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from typing import Any

import pytest
import yaml
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parents[2]
_DOCKERFILE = (_ROOT / "Dockerfile").read_text()
_SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["services"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's packages as the Dockerfile installs them: from a wheel of the copied files."""
    source = tmp_path_factory.mktemp("source")
    copy(_ROOT / "pyproject.toml", source)
    for package in re.findall(r"^COPY (\w+) \1$", _DOCKERFILE, re.MULTILINE):
        copytree(_ROOT / package, source / package, ignore=ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    wheels = tmp_path_factory.mktemp("wheels")
    result = subprocess.run(
        [sys.executable, "-c", build, str(wheels)], cwd=source, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    [wheel] = wheels.iterdir()
    there = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(there)
    return there


def test_the_wheel_holds_every_file_of_its_packages(installed: Path) -> None:
    for package in ("core", "ingestion_api", "uploader", "serving_api", "cli"):
        wanted = {file.relative_to(_ROOT) for file in (_ROOT / package).rglob("*") if file.is_file()}
        wanted = {file for file in wanted if "__pycache__" not in file.parts}
        assert wanted == {
            file.relative_to(installed) for file in (installed / package).rglob("*") if file.is_file()
        }


# Runs each command with only the packages of the image; prints the end of each in a line.
_RUN_ALL = """
import importlib.abc, json, runpy, sys

refused, commands = map(json.loads, sys.argv[1:])


class OnlyTheImagesPackages(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in refused:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)


sys.meta_path.insert(0, OnlyTheImagesPackages())
for module, *arguments in commands:
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print(json.dumps([module, str(end.code)]))
"""


def _modules_for_development_only() -> list[str]:
    lock = json.loads((_ROOT / "Pipfile.lock").read_text())
    in_image: set[str] = {canonicalize_name(name) for name in lock["default"]}
    modules = packages_distributions()
    locked = {canonicalize_name(name) for group in ("default", "develop") for name in lock[group]}
    return [
        module
        for module, packages in modules.items()
        if (names := {canonicalize_name(package) for package in packages}) <= locked and not names & in_image
    ]


def test_every_command_runs_from_the_wheel_with_the_packages_of_the_image(installed: Path, tmp_path: Path) -> None:
    programs = [_SERVICES[name]["command"] for name in ("migrate", "ingestion", "uploader", "serving")]
    assert all(command[:2] == ["python", "-m"] for command in programs)
    commands = [[*command[2:]] for command in programs]
    assert _SERVICES["annotate"]["entrypoint"] == ["annotate"]
    [entry] = installed.glob("*.dist-info/entry_points.txt")
    assert "annotate = cli.main:main" in entry.read_text()
    refused = _modules_for_development_only()
    assert {"pytest", "locust", "psutil"} <= set(refused)
    result = subprocess.run(
        [sys.executable, "-c", _RUN_ALL, json.dumps(refused), json.dumps([*commands, ["cli", "--help"]])],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(installed),
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATABASE_URL": "mysql://user:hunter2@host/db",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    ends = dict(json.loads(line) for line in result.stdout.splitlines() if line.startswith("["))
    assert ends.keys() == {command[0] for command in commands} | {"cli"}, result.stderr
    # Over a wrong DATABASE_URL a program stops without showing it, but not before it has found all its modules.
    assert all("DATABASE_URL: must start with postgresql://" in ends[command[0]] for command in commands), ends
    assert "hunter2" not in result.stdout + result.stderr
    assert ends["cli"] == "0"
    assert "keys" in result.stdout
