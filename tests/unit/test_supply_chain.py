"""Each package that is ever installed has its hash in a lock, and a licence that is allowed."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.supply_chain import components, licences, locks, vulnerabilities


def test_every_package_of_pipfile_lock_has_hashes() -> None:
    assert locks.complaints_of_pipfile_lock(locks.PIPFILE_LOCK.read_text()) == []


@pytest.mark.parametrize("lock", locks.REQUIREMENTS, ids=lambda lock: lock.name)
def test_every_requirement_has_hashes(lock: Path) -> None:
    assert locks.complaints_of_requirements(lock.read_text()) == []


def test_every_jar_has_a_hash() -> None:
    assert locks.complaints_of_opensearch(locks.OPENSEARCH.read_text()) == []


def test_no_lock_is_left_out() -> None:
    known = {locks.PIPFILE_LOCK, locks.OPENSEARCH, *locks.REQUIREMENTS}
    folders = [one for one in locks.ROOT.iterdir() if one.is_dir() and not one.name.startswith(".")]
    found = {path for folder in folders for path in folder.rglob("*.lock")}
    assert found & known
    others = {path for path in found - known if locks.complaints_of_requirements(path.read_text())}
    assert not others  # further files of requirements are held to the same


def test_a_lock_without_hashes_is_noticed() -> None:
    lock = locks.PIPFILE_LOCK.read_text()
    name = '"alembic": {'
    assert name in lock
    unhashed = re.sub(r'("alembic": \{\s*"hashes": \[)[^\]]*\]', r"\1]", lock)
    assert locks.complaints_of_pipfile_lock(unhashed) == ["alembic has no hash"]
    weak = re.sub(r'("alembic": \{\s*"hashes": \[\s*")sha256:', r"\1md5:", lock)
    assert locks.complaints_of_pipfile_lock(weak) == ["alembic has no hash"]
    a, b = "a==1 \\\n    --hash=sha256:" + "0" * 64, "b==2"
    assert locks.complaints_of_requirements(a) == []
    assert locks.complaints_of_requirements(f"{a}\n{b}\n") == ["no hash: b==2"]
    assert locks.complaints_of_requirements(a.replace("==1", ">=1")) == ["not pinned: a>=1"]
    assert locks.complaints_of_requirements("") == ["is empty"]
    assert locks.complaints_of_opensearch("0  a:b:1:jar\n") == ["0  a:b:1:jar"]


def test_the_page_lists_the_runtime_packages_with_allowed_licences() -> None:
    listed = licences.listed(licences.PAGE.read_text())
    assert {name: version for name, (version, _) in listed.items()} == locks.runtime_packages(), "make licences"
    assert {name: licence for name, (_, licence) in listed.items() if not licences.is_allowed(licence)} == {}


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT OR Apache-2.0", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-or-later", False),
        ("MIT AND AGPL-3.0", False),
        ("UNKNOWN", False),
        ("Proprietary", False),
    ],
)
def test_a_licence_is_allowed_by_all_its_parts(licence: str, allowed: bool) -> None:
    assert licences.is_allowed(licence) == allowed


@pytest.fixture(scope="module", autouse=True)
def _all_components() -> Iterator[None]:
    """Read the lists of components once: a second of work."""
    with pytest.MonkeyPatch.context() as patch:
        read_once = cache(components.all_components)
        patch.setattr("tests.supply_chain.components.all_components", read_once)
        patch.setattr("tests.supply_chain.vulnerabilities.all_components", read_once)
        yield


class Osv:
    """A service with OSV's interface; `answers` by ecosystem, name and version."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str, str], list[dict[str, object]]] = {}
        self.asked: set[tuple[str, str, str]] = set()
        self.fails_at: str | None = None
        self.url = ""


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[Osv]:
    state = Osv()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            package = question["package"]
            key = (package["ecosystem"], package["name"], question["version"])
            state.asked.add(key)
            # OSV answers in pages, and without `vulns` where it knows none.
            found = state.answers.get(key, [])
            page = int(question.get("page_token", 0))
            answer: dict[str, object] = {"vulns": found[page : page + 1]} if found else {}
            if page + 1 < len(found):
                answer["next_page_token"] = str(page + 1)
            body = json.dumps(answer).encode()
            self.send_response(500 if package["name"] == state.fails_at else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        monkeypatch.setenv("VULNERABILITY_SERVICE", state.url)
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the audit ask about a few components in place of hundreds."""
    names = {"io.netty:netty-codec-http", "ecdsa", "redis", "fastapi"}
    found = [one for one in components.all_components() if one.name in names]
    assert {one.name for one in found} == names
    monkeypatch.setattr("tests.supply_chain.vulnerabilities.all_components", lambda: found)


def test_everything_that_runs_is_asked_about(osv: Osv) -> None:
    assert vulnerabilities.main() == 0
    names = {(ecosystem, name) for ecosystem, name, _ in osv.asked}
    assert names >= {("PyPI", "fastapi"), ("PyPI", "argilla-server"), ("PyPI", "pytest"), ("PyPI", "python-jose")}
    assert names >= {("Maven", "io.netty:netty-codec-http"), ("Maven", "org.opensearch:opensearch")}
    servers = ("postgresql", "redis", "opensearch", "nginx", "prometheus", "grafana", "python", "java")
    assert names >= {("Bitnami", name) for name in servers}
    # The local stack's and the container's are of different releases.
    for name in ("postgresql", "redis"):
        assert len({version for *server, version in osv.asked if server == ["Bitnami", name]}) == 2
    assert all(re.fullmatch(r"\d[\w.!+-]*", version) for _, _, version in osv.asked)


@pytest.mark.usefixtures("few")
def test_a_hole_that_is_not_listed_fails_the_audit(osv: Osv, capsys: pytest.CaptureFixture[str]) -> None:
    [netty] = [one for one in components.jars() if one.name == "io.netty:netty-codec-http"]
    holes: list[dict[str, object]] = [
        {"id": "GHSA-aaaa-bbbb-cccc", "aliases": ["CVE-2099-1"], "summary": "Smuggles."},
        {"id": "GHSA-dddd-eeee-ffff"},
    ]
    osv.answers["Maven", netty.name, netty.version] = holes
    assert vulnerabilities.main() == 1
    said = capsys.readouterr().err
    assert f"NEW: {netty.name} {netty.version}" in said
    assert "CVE-2099-1, GHSA-aaaa-bbbb-cccc Smuggles." in said
    assert "GHSA-dddd-eeee-ffff" in said
    assert "2 holes are not listed in docs/supply_chain.md; 0 are." in said


@pytest.mark.usefixtures("few")
def test_a_listed_hole_does_not_fail_the_audit(osv: Osv, capsys: pytest.CaptureFixture[str]) -> None:
    accepted = vulnerabilities.accepted_holes(vulnerabilities.PAGE.read_text())
    [ecdsa] = [one for one in components.python_packages() if one.name == "ecdsa"]
    assert accepted[ecdsa.key] == {"CVE-2024-23342"}
    osv.answers["PyPI", *ecdsa.key] = [{"id": "GHSA-wj6h-64fc-37mp", "aliases": ["CVE-2024-23342"]}]
    assert vulnerabilities.main() == 0
    assert "listed: ecdsa" in capsys.readouterr().err


def test_every_listed_component_is_in_use() -> None:
    in_use = {one.key for one in components.all_components()}
    assert vulnerabilities.accepted_holes(vulnerabilities.PAGE.read_text()).keys() <= in_use


@pytest.mark.usefixtures("few")
def test_what_could_not_be_asked_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VULNERABILITY_SERVICE", "http://127.0.0.1:1/")
    assert vulnerabilities.main() == 2
    assert "NOT CHECKED: http://127.0.0.1:1/ does not answer" in capsys.readouterr().err


@pytest.mark.usefixtures("few")
def test_one_question_without_an_answer_does_not_pass(osv: Osv, capsys: pytest.CaptureFixture[str]) -> None:
    osv.fails_at = "redis"
    assert vulnerabilities.main() == 2
    assert "NOT CHECKED" in capsys.readouterr().err


@pytest.mark.soak
def test_the_bill_of_materials_lists_the_lock(tmp_path: Path) -> None:
    bill = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "pipenv", "--spec-version", "1.6", "--output-reproducible"]
    command += ["--pyproject", "pyproject.toml", "--output-file", str(bill), "."]
    subprocess.run(command, cwd=locks.ROOT, check=True, capture_output=True)
    content = bill.read_text()
    assert '"specVersion": "1.6"' in content
    purls = set(re.findall(r'"purl": "pkg:pypi/([^@"]+)@([^"?]+)', content))
    assert {(locks.normalise(name), version) for name, version in purls} == set(locks.runtime_packages().items())
