"""Archives are complete or absent, and every damage is reported."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.backup.archive import (
    MANIFEST,
    BackupError,
    Dumped,
    Manifest,
    describe_files,
    list_complaints,
    new_archive,
    read_manifest,
)
from cli.backup.pg_programs import access, find_tools
from tests.waiting import wait_for

NOW = datetime(2026, 11, 28, tzinfo=UTC)
DUMPED = Dumped(taken_at=NOW, server_major=18, pg_dump_major=18, revision="0008", rows={"texts": 1})


def ignore(_: int) -> None:
    return


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    manifest = Manifest(
        release="2",
        started_at=NOW,
        ended_at=NOW,
        platform=DUMPED,
        argilla=None,
        webhooks=(),
        has_snapshots=True,
        files=describe_files(folder, ignore),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())


def make(folder: Path, files: dict[str, bytes]) -> Path:
    with new_archive(folder) as (unfinished, path):
        fill(unfinished, files)
    return path


FILES = {"platform.dump": b"x" * 5000, "snapshots/one/snapshot.json": b"{}", "snapshots/manifest.json": b"1"}


def test_a_finished_archive_is_whole(tmp_path: Path) -> None:
    archive = make(tmp_path, FILES)
    manifest = read_manifest(archive)
    assert list_complaints(archive, manifest, ignore) == []
    assert manifest.files.keys() == FILES.keys()
    assert manifest.bytes == sum(map(len, FILES.values()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_done_to_a_file_is_found(tmp_path: Path, data: st.DataObject) -> None:
    fill(tmp_path, FILES)
    path = data.draw(st.sampled_from(sorted(FILES)))
    content = bytearray(FILES[path])
    match data.draw(st.sampled_from(["flip", "cut", "grow", "remove", "add", "link"])):
        case "flip":
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
            (tmp_path / path).write_bytes(content)
        case "cut":
            (tmp_path / path).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        case "grow":
            (tmp_path / path).write_bytes(bytes(content) + b"\0")
        case "remove":
            (tmp_path / path).unlink()
        case "add":
            path = f"{path}.other"
            (tmp_path / path).write_bytes(b"")
        case _:
            (tmp_path / path).unlink()
            (tmp_path / path).symlink_to("/etc/hostname")
    try:
        [complaint] = list_complaints(tmp_path, read_manifest(tmp_path), ignore)
        assert complaint.startswith(f"{path}: ")
    finally:
        for one in (tmp_path / path, tmp_path / f"{path}.other"):
            one.unlink(missing_ok=True)


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_archive(tmp_path) as (unfinished, _):
        fill(unfinished, {**FILES, "more": b"x" * (1 // 0)})
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


KILLED = """
import sys, time
from pathlib import Path
from cli.backup.archive import new_archive
from tests.unit.cli.test_backup_archive import FILES, fill
with new_archive(Path(sys.argv[1])) as (unfinished, _):
    fill(unfinished, FILES)
    (unfinished / "ready").touch()
    time.sleep(600)
"""


def test_a_killed_one_looks_like_none_and_goes_with_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=dict(os.environ)) as process:
        wait_for(lambda: any(tmp_path.glob(".unfinished-*/ready")))
        with pytest.raises(BackupError, match="Another back-up"), new_archive(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    [left] = [path for path in tmp_path.iterdir() if path.is_dir()]
    # Even though everything is in it.
    with pytest.raises(BackupError, match="not finished"):
        read_manifest(left)
    archive = make(tmp_path, FILES)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [archive]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}'])
def test_a_manifest_that_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    fill(tmp_path, FILES)
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(BackupError, match="damaged, or of another release"):
        read_manifest(tmp_path)


def test_a_folder_of_something_else_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="no archive"):
        read_manifest(tmp_path)


def test_programs_older_than_the_server_are_not_taken(tmp_path: Path) -> None:
    for name in ("pg_dump", "pg_restore", "psql"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 14.2'\n")
        (tmp_path / name).chmod(0o700)
    assert find_tools(14, tmp_path).major == 14
    with pytest.raises(BackupError, match=r"Postgres 15; .*Found: 14 in .*PG_BIN_DIR"):
        find_tools(15, tmp_path)
    with pytest.raises(BackupError, match="Found: none"):
        find_tools(15, tmp_path / "empty")


def test_the_password_is_in_a_private_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "another")
    with access("postgresql://me:se%3Acret%5C@127.0.0.1:5/base?sslmode=disable") as (target, environment):
        file = Path(environment["PGPASSFILE"])
        assert file.read_text() == "*:*:*:*:se\\:cret\\\\\n"
        assert file.stat().st_mode & 0o077 == 0
        assert "cret" not in target
        assert "sslmode=disable" in target
        assert "PGPASSWORD" not in environment
    assert not file.exists()
