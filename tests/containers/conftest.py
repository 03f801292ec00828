"""The whole compose file, started once for all tests."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import httpx
import pytest

from deployment.compose_env import SECRETS, text
from tests.containers.engine import Composition, docker
from tests.containers.stand_ins import provide
from tests.e2e.uploader.conftest import ArgillaSpace, open_argilla
from tests.programs import free_port
from tests.waiting import wait_for

# Built here, and there is no package of Grafana to build a stand-in from.
_NOT_PROVIDED = ("annotation-platform", "grafana/")


@dataclass(frozen=True)
class Platform:
    """The composed system as its clients see it."""

    composition: Composition
    ports: dict[str, int]
    secrets: dict[str, str]
    keys: dict[str, str]

    def url(self, port: str) -> str:
        """Return an address that is published."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def api(self, port: str, key: str | None = None) -> httpx.Client:
        """Return a client of an API, with the named key."""
        headers = {"Authorization": f"Bearer {self.keys[key]}"} if key else {}
        # Nothing is kept open: no test closes a client.
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(base_url=self.url(port), headers=headers, timeout=60, trust_env=False, limits=limits)

    def argilla(self) -> ArgillaSpace:
        """Return Argilla as its owner sees it."""
        http = open_argilla(self.url("ARGILLA_PORT"), self.secrets["ARGILLA_OWNER_API_KEY"])
        return ArgillaSpace(http, "annotation", self.url("ARGILLA_PORT"), "")


@pytest.fixture(scope="session")
def engine() -> None:
    """A container engine with Compose."""
    if not shutil.which("docker") or docker("info").returncode or docker("compose", "version").returncode:
        pytest.fail("These tests need a container engine, and `docker compose` 2.24 or newer.", pytrace=False)


@pytest.fixture(scope="session")
def composition(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    """The compose file with new secrets and free ports; nothing is started yet, and nothing is left at the end."""
    env_file = tmp_path_factory.mktemp("compose") / "env"
    names = ("INGESTION_PORT", "SERVING_PORT", "ARGILLA_PORT", "PROMETHEUS_PORT", "LOCUST_PORT", "GRAFANA_PORT")
    ports = "".join(f"{name}={free_port()}\n" for name in names)
    env_file.write_text(text() + ports)
    backups = tmp_path_factory.mktemp("backups")
    # The user in the containers.
    os.chown(backups, 10001, 10001)
    with env_file.open("a") as file:
        # Not the images of a platform that is in use here.
        file.write(f"PLATFORM_VERSION=test\nBACKUPS={backups}\n")
    composition = Composition(f"test-{uuid.uuid4().hex[:8]}", env_file)
    yield composition
    everything = Composition(composition.project, env_file, ("tools", "load", "monitoring", "scale"))
    everything.run("down", "--volumes", "--timeout", "20", check=False)


@pytest.fixture(scope="session")
def platform(composition: Composition) -> Platform:
    """The whole platform, running, with a key for each scope."""
    everything = Composition(composition.project, composition.env_file, ("monitoring",))
    services = json.loads(everything.run("config", "--format", "json"))["services"]
    images = {service["image"] for service in services.values()}
    sources = provide(sorted(image for image in images if not image.startswith(_NOT_PROVIDED)))
    sources |= provide(["python:3.12.12-slim-bookworm"])
    for image, source in sources.items():
        print(f"{source:9}{image}")  # noqa: T201 - which of them were stand-ins is part of the result
    composition.run("build", seconds=1800)
    composition.up()
    environment = dict(
        line.split("=", 1) for line in composition.env_file.read_text().splitlines() if line[:1] not in {"", "#"}
    )
    secrets = {name: environment[name] for name in SECRETS}
    ports = {name: int(value) for name, value in environment.items() if name.endswith("_PORT")}
    keys = {scope: _make_key(composition, scope) for scope in ("ingest", "read", "admin")}
    platform = Platform(composition, ports, secrets, keys)
    wait_for_keys(platform)
    return platform


def _make_key(composition: Composition, scope: str) -> str:
    arguments = ("run", "--rm", "--no-TTY", "annotate", "keys", "create", f"test {scope}", "--scope", scope)
    return composition.run(*arguments).strip()


def wait_for_keys(platform: Platform) -> None:
    """Wait until both APIs know the keys: they look for new ones every few seconds."""

    def known() -> bool:
        with suppress(httpx.TransportError):
            queue = platform.api("INGESTION_PORT", "ingest").get("/queue").status_code
            return queue == platform.api("SERVING_PORT", "read").get("/stats").status_code == 200
        return False

    wait_for(known)
