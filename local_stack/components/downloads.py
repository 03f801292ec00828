"""Downloads, pinned by hash and atomic: files of Maven Central, and Python environments."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from jgo.maven import MavenContext
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from uv import find_uv_bin

from local_stack import StackError, StackStopped
from local_stack.data_dir import try_lock
from local_stack.guarded import Command
from local_stack.locked_packages import environment_for_uv

_AT_ONCE = 8


class DownloadError(Exception):
    """The downloaded file differs from the pinned one."""


@dataclass(frozen=True)
class Pin:
    """One file of a Maven repository and the SHA-256 that it must have."""

    sha256: str
    group: str
    artifact: str
    version: str
    packaging: str

    @property
    def file_name(self) -> str:
        """Name in the cache; a new version gets a new one."""
        return f"{self.artifact}-{self.version}.{self.packaging}"


@dataclass(frozen=True)
class Attempts:
    """Number of attempts, and the pauses between them."""

    count: int = 6
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 15


def read_pins(lock_file: Path) -> list[Pin]:
    """Read lines of `SHA-256  group:artifact:version:packaging`."""
    lines = [line.split() for line in lock_file.read_text().splitlines() if not line.startswith("#")]
    return [Pin(sha256, *coordinate.split(":")) for sha256, coordinate in lines]


def download_all(
    pins: Sequence[Pin],
    directory: Path,
    stop_asked: threading.Event,
    show: Callable[[str], None],
    maven: MavenContext | None = None,
    attempts: Attempts = Attempts(),
) -> None:
    """Download every pinned file into `directory`, unless a complete one exists.

    Raises:
        StackError: a file could not be downloaded. Complete files stay for the next attempt.
        StackStopped: the stack was asked to stop.
    """
    directory.mkdir(parents=True, exist_ok=True)
    missing = [pin for pin in pins if not _is_whole(directory / pin.file_name, pin)]
    if not missing:
        return
    _remove_abandoned(directory)
    with (
        httpx.Client(timeout=20, follow_redirects=True) as client,
        ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="download") as pool,
    ):
        fetch = _Fetch(client, maven or MavenContext(), directory, stop_asked, attempts)
        downloads = [pool.submit(fetch, pin) for pin in missing]
        try:
            for done, download in enumerate(as_completed(downloads), 1):
                download.result()
                show(f"downloaded {done} of {len(missing)} files")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _remove_abandoned(directory: Path) -> None:
    """Delete incomplete files of killed processes."""
    for unfinished in directory.glob(".*"):
        pid = unfinished.name.rsplit(".", 2)[1]
        if not psutil.pid_exists(int(pid)):
            unfinished.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Fetch:
    client: httpx.Client
    maven: MavenContext
    directory: Path
    stop_asked: threading.Event
    attempts: Attempts

    def __call__(self, pin: Pin) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type((httpx.HTTPError, DownloadError)),
            stop=stop_after_attempt(self.attempts.count),
            wait=wait_exponential(self.attempts.first_pause_seconds, self.attempts.longest_pause_seconds),
            sleep=self._pause,
            reraise=True,
        )
        try:
            retrying(self._fetch_once, pin)
        except (httpx.HTTPError, DownloadError) as error:
            raise StackError(
                f"{pin.file_name} could not be downloaded in {self.attempts.count} tries: {error}. "
                "Check the network and the proxy settings and start again: what has arrived is kept."
            ) from error

    def _pause(self, seconds: float) -> None:
        self.stop_asked.wait(seconds)

    def _fetch_once(self, pin: Pin) -> None:
        # The name is unique: other stacks may fetch the same file now.
        unfinished = self.directory / f".{pin.file_name}.{os.getpid()}.{threading.get_ident()}"
        try:
            digest = self._save(pin, unfinished)
            if digest != pin.sha256:
                raise DownloadError(f"its SHA-256 is {digest}, not the pinned {pin.sha256}")
            unfinished.replace(self.directory / pin.file_name)
        finally:
            unfinished.unlink(missing_ok=True)

    def _save(self, pin: Pin, path: Path) -> str:
        digest = hashlib.sha256()
        component = self.maven.project(pin.group, pin.artifact).at_version(pin.version)
        artifact = component.artifact(packaging=pin.packaging)
        repository = next(iter(self.maven.remote_repos.values()))
        url = f"{repository}/{component.path_prefix.as_posix()}/{artifact.filename}"
        with self.client.stream("GET", url) as answer, path.open("wb") as file:
            answer.raise_for_status()
            for chunk in answer.iter_bytes(2**16):
                if self.stop_asked.is_set():
                    raise StackStopped("The download was stopped.")
                file.write(chunk)
                digest.update(chunk)
        return digest.hexdigest()


def _is_whole(file: Path, pin: Pin) -> bool:
    if not file.exists():
        return False
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == pin.sha256


def environment_of(lock: Path, cache_dir: Path) -> Path:
    """Return the folder of the Python environment that a lock pins. A new lock or a new Python gets a new one."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    python = f"{sys.implementation.name}{sys.version_info.major}.{sys.version_info.minor}"
    return cache_dir / lock.stem / f"{python}-{digest}"


def is_installed(environment: Path) -> bool:
    """Whether the environment exists; false also if its base Python was removed."""
    return (environment / "bin" / "python").exists()


def run_quietly(command: Command) -> None:
    """Run a command.

    Raises:
        StackError: it failed; with its output.
    """
    ended = subprocess.run(  # noqa: S603 - uv
        command.argv, env=command.env, cwd=command.cwd, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise StackError(f"The packages could not be installed:\n{ended.stderr}")


def install(
    lock: Path,
    cache_dir: Path,
    run: Callable[[Command], None] = run_quietly,
    stop_asked: threading.Event | None = None,
) -> Path:
    """Install the packages of a hashed lock, once per machine; return the folder of the environment.

    Raises:
        StackError: the packages could not be installed.
        StackStopped: the stack was asked to stop.
    """
    environment = environment_of(lock, cache_dir)
    environment.parent.mkdir(parents=True, exist_ok=True)
    with _alone(environment.with_name(environment.name + ".lock"), stop_asked or threading.Event()):
        if not is_installed(environment):
            unfinished = environment.with_name(environment.name + ".unfinished")
            for stale in (unfinished, environment):
                shutil.rmtree(stale, ignore_errors=True)
            _build(lock, unfinished, run)
            unfinished.rename(environment)
    return environment


def _build(lock: Path, environment: Path, run: Callable[[Command], None]) -> None:
    # The caller's environment has proxies, certificates and package index settings.
    env = {name: value for name, value in environment_for_uv().items() if name != "VIRTUAL_ENV"}
    env = {"UV_HTTP_RETRIES": "6", **env, "UV_NO_PROGRESS": "1"}
    uv, python = find_uv_bin(), environment / "bin" / "python"
    # No dependencies: the lock is complete, and Argilla's has newer releases than it allows.
    options = ["--require-hashes", "--no-deps", "--compile-bytecode", "--requirements", str(lock)]
    run(Command([uv, "venv", "--python", sys.executable, "--relocatable", environment], env, environment.parent))
    run(Command([uv, "pip", "install", "--python", python, *options], env, environment.parent))


@contextmanager
def _alone(lock: Path, stop_asked: threading.Event) -> Iterator[None]:
    with lock.open("w") as file:
        while not try_lock(file.fileno()):
            if stop_asked.wait(0.2):
                raise StackStopped("The installation was stopped.")
        yield
