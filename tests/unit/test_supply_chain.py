"""Each package that is ever installed has its hash in a lock, and a licence that is allowed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supply_chain import licences, locks, vulnerabilities


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


def test_what_could_not_be_asked_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VULNERABILITY_SERVICE", "http://127.0.0.1:1/")
    assert vulnerabilities.main() == 2
    assert "NOT CHECKED: http://127.0.0.1:1/ does not answer" in capsys.readouterr().err


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
