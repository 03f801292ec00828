import hashlib
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from jgo.maven import MavenContext

from local_stack import StackError, StackStopped
from local_stack.components import opensearch
from local_stack.components.downloads import Attempts, Pin, download_all, read_pins

CONTENT = b"a jar" * 1000
PIN = Pin(hashlib.sha256(CONTENT).hexdigest(), "org.example", "thing", "1.0", "jar")
QUICK = Attempts(count=3, first_pause_seconds=0.01, longest_pause_seconds=0.01)


@dataclass
class Repository:
    """A Maven repository on this machine; `answers` are given in order, then CONTENT."""

    url: str = ""
    # (status, announced length, body)
    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)

    def maven(self) -> MavenContext:
        return MavenContext(remote_repos={"test": self.url})


@pytest.fixture
def repository() -> Iterator[Repository]:
    state = Repository()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked[self.path] += 1
            status, length, body = state.answers.pop(0) if state.answers else (200, len(CONTENT), CONTENT)
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
        thread.join()


def download(repository: Repository, directory: Path, stop_asked: threading.Event | None = None) -> list[str]:
    shown: list[str] = []
    stop_asked = stop_asked or threading.Event()
    download_all([PIN], directory, stop_asked, shown.append, repository.maven(), QUICK)
    return shown


def files_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_download_is_stored_under_its_name(repository: Repository, tmp_path: Path) -> None:
    assert download(repository, tmp_path) == ["downloaded 1 of 1 files"]
    assert (tmp_path / "thing-1.0.jar").read_bytes() == CONTENT
    assert repository.asked == {"/org/example/thing/1.0/thing-1.0.jar": 1}


def test_whole_file_is_not_fetched_again(repository: Repository, tmp_path: Path) -> None:
    download(repository, tmp_path)
    download(repository, tmp_path)
    assert repository.asked.total() == 1


def test_damaged_file_in_the_cache_is_fetched_again(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "thing-1.0.jar").write_bytes(CONTENT[:-1])
    download(repository, tmp_path)
    assert (tmp_path / "thing-1.0.jar").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "bad_answer",
    [
        pytest.param((200, len(CONTENT), CONTENT[:100]), id="cut off"),
        pytest.param((200, 5, b"other"), id="wrong content"),
        pytest.param((503, 4, b"busy"), id="unavailable"),
    ],
)
def test_bad_answer_is_tried_again(
    repository: Repository, tmp_path: Path, bad_answer: tuple[int, int, bytes]
) -> None:
    repository.answers = [bad_answer]
    download(repository, tmp_path)
    assert (tmp_path / "thing-1.0.jar").read_bytes() == CONTENT
    assert repository.asked.total() == 2


def test_wrong_checksum_is_never_kept(repository: Repository, tmp_path: Path) -> None:
    repository.answers = [(200, 5, b"other")] * 3
    with pytest.raises(StackError, match=r"thing-1.0.jar could not be downloaded in 3 tries.*SHA-256"):
        download(repository, tmp_path)
    assert files_in(tmp_path) == []


def test_stop_ends_a_download(repository: Repository, tmp_path: Path) -> None:
    stop_asked = threading.Event()
    stop_asked.set()
    with pytest.raises(StackStopped):
        download(repository, tmp_path, stop_asked)
    assert files_in(tmp_path) == []


def test_leftover_of_a_killed_download_is_removed(repository: Repository, tmp_path: Path) -> None:
    nobody = 2**22 + 1
    (tmp_path / f".thing-1.0.jar.{nobody}.1").write_bytes(b"half")
    download(repository, tmp_path)
    assert files_in(tmp_path) == ["thing-1.0.jar"]


def test_opensearch_lock_pins_each_file_once() -> None:
    pins = read_pins(opensearch.LOCK_FILE)
    # One version of each: Java would load classes of both.
    assert len({(pin.group, pin.artifact) for pin in pins}) == len({pin.file_name for pin in pins}) == len(pins)
    assert all(len(pin.sha256) == 64 for pin in pins)
    assert {"opensearch-knn-2.19.1.0.zip", "opensearch-security-2.19.4.0.zip"} <= {pin.file_name for pin in pins}


def test_of_a_plugin_only_its_own_jar_is_used(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "thing-1.0.zip", "w") as archive:
        for name in ("thing-1.0.jar", "guava-1.jar", "plugin-descriptor.properties"):
            archive.writestr(name, name)
    (tmp_path / "other-2.0.jar").touch()
    libraries = tmp_path / "lib"
    libraries.mkdir()
    pins = [Pin("", "org.example", "thing", "1.0", "zip"), Pin("", "org.example", "other", "2.0", "jar")]
    opensearch.place_jars(pins, tmp_path, libraries)
    assert set(files_in(libraries)) == {"other-2.0.jar", "thing-1.0.jar"}
