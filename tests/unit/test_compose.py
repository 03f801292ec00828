"""What `docker-compose.yml`, the Dockerfile and their files promise, held without a container engine."""

import json
import re
import subprocess
import sys
import threading
import tomllib
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deployment import compose_env
from tests import settings_table

ROOT = Path(__file__).parents[2]
PINS = ROOT / "local_stack" / "packages"
TEXT = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
JOBS = {"check-secrets", "argilla-setup", "migrate", "annotate"}
PAGES = "Pages (ingestion API, serving API)"
# The settings that each program reads.
GROUPS = {
    "migrate": ["All programs"],
    "ingestion": ["All programs", "Datasets (ingestion API, uploader, serving API)", "Ingestion API", PAGES],
    "uploader": ["All programs", "Datasets (ingestion API, uploader, serving API)", "Uploader"],
    "serving": [
        "All programs",
        "Datasets (ingestion API, uploader, serving API)",
        "Serving API",
        "Perspective's API (serving API)",
        PAGES,
    ],
    "annotate": ["Command line", "Serving API", "Uploader"],
}

each_service = pytest.mark.parametrize("name", SERVICES)


def settings_of(program: str) -> dict[str, bool]:
    """Return the names of the settings that a program reads, and whether it does not start without."""
    groups = [group for title in GROUPS[program] for group in settings_table.GROUPS[title]]
    return {
        name: field.is_required() for group in groups for name, field in settings_table.variables(group).items()
    }


@each_service
def test_a_service_may_do_as_little_as_possible(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].partition(":")[0]) > 0
    # OpenSearch writes a key store into its settings folder.
    assert service["read_only"] is (name != "search")
    assert "privileged" not in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


@each_service
def test_a_service_is_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@each_service
def test_an_image_is_pinned_to_a_release(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert image
    assert re.search(r"\d+\.\d+\.\d+|\d+\.\d+", tag)


def test_the_base_images_are_pinned_to_a_release() -> None:
    # A dump must fit the server.
    assert f"\nARG POSTGRES_IMAGE={SERVICES['postgres']['image']}\n" in DOCKERFILE
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.1[12]\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {
        "${PYTHON_IMAGE}",
        "${POSTGRES_IMAGE}",
        "build",
        "base",
        "runtime",
    }


def test_the_image_has_the_release_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"annotation-platform:${{PLATFORM_VERSION:-{version}}}" in TEXT


@each_service
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    service = SERVICES[name]
    for needed, how in service.get("depends_on", {}).items():
        condition = "service_completed_successfully" if needed in JOBS else "service_healthy"
        assert how == {"condition": condition}
        assert needed in SERVICES
    if name not in JOBS:
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert service["restart"] == "unless-stopped"
    else:
        assert service["restart"] == "no"


@each_service
def test_nothing_starts_before_the_secrets_are_found_good(name: str) -> None:
    reached, waiting = set(), [name]
    while waiting:
        reached.add(one := waiting.pop())
        waiting += SERVICES[one].get("depends_on", {})
    assert "check-secrets" in reached


def test_only_the_wanted_ports_are_published() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"gateway", "load", "prometheus", "grafana"}
    here = "${BIND_ADDRESS:-127.0.0.1}"
    assert published["gateway"] == [
        f"{here}:${{INGESTION_PORT:-8080}}:8080",
        f"{here}:${{SERVING_PORT:-9000}}:9000",
        f"{here}:${{ARGILLA_PORT:-6900}}:6900",
    ]
    assert published["grafana"][0].startswith(f"{here}:")
    # These have no login.
    for name in ("load", "prometheus"):
        assert all(port.startswith("127.0.0.1:") for port in published[name])


def test_only_what_is_published_is_outside_of_the_internal_networks() -> None:
    networks = COMPOSE["networks"]
    assert [name for name, network in networks.items() if not network.get("internal")] == ["edge"]
    assert networks["edge"]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    for name, service in SERVICES.items():
        joined = set(service.get("networks", []))
        assert joined <= networks.keys()
        assert joined or service["network_mode"] == "none"
        assert ("edge" in joined) == ("ports" in service), name


def volumes(service: dict[str, Any]) -> list[str]:
    """Return the volumes with default settings."""
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume) for volume in service.get("volumes", [])]


def test_every_volume_has_a_name() -> None:
    for name, service in SERVICES.items():
        for volume in volumes(service):
            source, _, target = volume.partition(":")
            is_own = name == "serving-replica" and volume == "/data"
            assert is_own or (target and (source in COMPOSE["volumes"] or source.startswith("./"))), (name, volume)
            if source.startswith("./"):
                assert volume.endswith(":ro")


def test_what_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in volumes(service):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), name


def test_every_secret_is_required_and_checked() -> None:
    used = set(re.findall(r"\$\{(\w+):\?run make compose-env\}", TEXT))
    assert used == set(compose_env.SECRETS)
    assert SERVICES["check-secrets"]["environment"].keys() == set(compose_env.SECRETS)
    for name in compose_env.SECRETS:
        assert not re.search(rf"\$\{{{name}(?!:\?run make compose-env\}})", TEXT), name


def test_no_secret_is_written_down() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|_KEY|SECRET|TOKEN", variable) and variable != "REQUIRE_API_KEY":
                assert re.fullmatch(r"\$\{\w+:(\?run make compose-env|-)\}", value), (name, variable)
            for password in re.findall(r"://\w*:([^@]*)@", str(value)):
                assert re.fullmatch(r"\$\{\w+:\?run make compose-env\}", password), (name, variable)


def test_every_variable_is_documented_with_its_default() -> None:
    page = settings_table.PAGE.read_text()
    section = page.partition("\n## Containers\n")[2].partition("\n## ")[0]
    for name, default in re.findall(r"(?<!\$)\$\{(\w+):-([^}]*)\}", TEXT):
        if "${" in default:  # made of others, and described in words
            assert f"| `{name}` | " in section, name
            continue
        shown = f"`{default}`" if default else "none"
        assert f"| `{name}` | {shown} |" in section, name
    for name in compose_env.SECRETS:
        assert f"| `{name}` | required |" in section, name


@pytest.mark.parametrize("program", GROUPS)
def test_a_program_gets_settings_that_it_has(program: str) -> None:
    given = SERVICES[program].get("environment", {})
    assert given.keys() <= settings_of(program).keys()
    for name, is_required in settings_of(program).items():
        assert not is_required or name in given, name
    assert "false" not in str(given.get("REQUIRE_API_KEY", "true"))


def filled_in(value: str, env: dict[str, str]) -> str:
    """Return a value of the compose file with its variables replaced, as docker compose does."""
    variable = re.compile(r"\$\{(\w+)(?:(:[-+])([^{}$]*))?\}")
    while found := variable.search(value):
        name, kind, other = found.groups()
        set_ = env.get(name, "")
        chosen = (other if set_ else "") if kind == ":+" else set_ or other or ""
        value = value[: found.start()] + chosen + value[found.end() :]
    return value


@pytest.mark.parametrize("program", ["ingestion", "serving"])
def test_the_pages_find_each_other_on_other_ports(program: str) -> None:
    given = SERVICES[program]["environment"]
    # With no address, a page takes the usual ports of its own host.
    assert [filled_in(given[f"PAGE_{name}_URL"], {}) for name in ("INGESTION", "SERVING", "ARGILLA")] == [""] * 3
    env = {"INGESTION_PORT": "8180", "SERVING_PORT": "9100", "ARGILLA_PORT": "7000"}
    addresses = {name: filled_in(given[f"PAGE_{name}_URL"], env) for name in ("INGESTION", "SERVING", "ARGILLA")}
    assert addresses == {
        "INGESTION": "http://127.0.0.1:8180",
        "SERVING": "http://127.0.0.1:9100",
        "ARGILLA": "http://127.0.0.1:7000",
    }
    allowed = filled_in(given["HTTP_CORS_ORIGINS"], env).split(",")
    assert {addresses["INGESTION"], addresses["SERVING"], "http://localhost:8180", "http://localhost:9100"} == {
        *allowed
    }
    named = env | {"PAGE_SERVING_URL": "https://labels.example", "ARGILLA_PUBLIC_URL": "https://argilla.example"}
    assert filled_in(given["PAGE_SERVING_URL"], named) == "https://labels.example"
    assert filled_in(given["PAGE_ARGILLA_URL"], named) == "https://argilla.example"
    origins = SERVICES["argilla"]["environment"]["ARGILLA_CORS_ORIGINS"]
    assert json.loads(filled_in(origins, env)) == ["http://127.0.0.1:7000"]


def test_replicas_are_as_the_first_one() -> None:
    for first, more in [("ingestion", "ingestion-replica"), ("serving", "serving-replica")]:
        for key in ("image", "command", "environment", "healthcheck", "user", "depends_on"):
            assert SERVICES[first][key] == SERVICES[more][key]
        assert SERVICES[more]["networks"]["platform"] == {"aliases": [first]}
        assert SERVICES[more]["networks"].keys() == set(SERVICES[first]["networks"])


def test_the_gateway_knows_each_api_by_its_name_and_port() -> None:
    configuration = (ROOT / "deployment" / "nginx.conf").read_text()
    targets = dict(re.findall(r"proxy_pass http://\$(\w+):(\d+);", configuration))
    assert targets == {"ingestion": "8080", "serving": "9000", "argilla": "6900"}
    for name in targets:
        assert f"set ${name} {name};" in configuration


def test_the_gateway_protects_argilla_from_range_and_from_large_bodies() -> None:
    configuration = (ROOT / "deployment" / "nginx.conf").read_text()
    before, _, rest = configuration.partition("listen 6900;")
    argilla = rest.partition("server {")[0]
    assert 'proxy_set_header Range "";' in argilla
    assert "client_max_body_size 20m;" in argilla
    # The APIs stream bodies of any length. They have limits of their own.
    assert re.findall(r"client_max_body_size (\S+);", before) == ["0"]


def test_only_clients_pass_the_gateway_to_argilla() -> None:
    # The uploader sends larger bodies than the gateway allows. It reaches Argilla directly.
    for name in ("uploader", "annotate"):
        assert SERVICES[name]["environment"]["ARGILLA_URL"] == "http://argilla:6900"
        assert set(SERVICES[name]["networks"]) & set(SERVICES["argilla"]["networks"])


def test_what_git_ignores_is_not_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == {line[1:] for line in lines if line.startswith("!")}


@cache
def _beyond_the_programs(name: str, extras: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return what a package needs on the image's Python, to any depth, itself included."""
    found: set[str] = {canonicalize_name(name)}
    for line in requires(name) or []:
        needed = Requirement(line)
        wanted = any(
            needed.marker is None or needed.marker.evaluate({"extra": extra, "python_version": "3.12"})
            for extra in extras or {""}
        )
        if wanted and canonicalize_name(needed.name) not in found:
            found |= _beyond_the_programs(needed.name, frozenset(needed.extras))
    return frozenset(found)


def test_the_image_of_locust_has_what_locust_needs() -> None:
    lock = json.loads((ROOT / "Pipfile.lock").read_text())
    default = {canonicalize_name(name) for name in lock["default"]}
    listed = set((ROOT / "deployment" / "load_packages.txt").read_text().split())
    assert listed == _beyond_the_programs("locust") - default
    assert listed <= {canonicalize_name(name) for name in lock["develop"]}


def test_the_health_checks_ask_where_the_programs_answer() -> None:
    for program, variable in [
        ("ingestion", "INGESTION_PORT"),
        ("uploader", "UPLOADER_PORT"),
        ("serving", "SERVING_PORT"),
    ]:
        service = SERVICES[program]
        asked = ["CMD", "python", "-c", COMPOSE["x-ask"], service["environment"][variable], "/readyz"]
        assert service["healthcheck"]["test"] == asked


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_health_check_fails_unless_the_program_is_well() -> None:
    with HTTPServer(("127.0.0.1", 0), _Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_address[1])
        ends = [_ask(port, path) for path in ("/readyz", "/other")]
        server.shutdown()
    assert [*ends, _ask(port, "/readyz")] == [0, 1, 1]


def _ask(port: str, path: str) -> int:
    command = [sys.executable, "-c", COMPOSE["x-ask"], port, path]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_argilla_and_its_set_up_agree() -> None:
    setup = (ROOT / "local_stack" / "components" / "argilla_setup.py").read_text()
    given = SERVICES["argilla-setup"]["environment"]
    for name in re.findall(r'os\.environ\["(\w+)"\]', setup):
        assert given[name]
    assert given["OWNER_WORKSPACE"] == SERVICES["uploader"]["environment"]["ARGILLA_WORKSPACE"]
    assert (
        SERVICES["argilla"]["image"] == SERVICES["argilla-worker"]["image"] == SERVICES["argilla-setup"]["image"]
    )
    release = SERVICES["argilla"]["image"].partition(":v")[2]
    assert f"argilla-server=={release}" in (PINS / "argilla_server.lock").read_text()


def test_the_search_engine_is_the_one_that_the_tests_run_on() -> None:
    release = SERVICES["search"]["image"].partition(":")[2]
    assert f"  org.opensearch:opensearch:{release}:jar\n" in (PINS / "opensearch.lock").read_text()
