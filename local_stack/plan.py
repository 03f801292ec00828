"""The parts of a stack (steps that end, services that keep running), what they share, and the order of starts."""

import os
import queue
import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import httpx

from local_stack.data_dir import Credentials
from local_stack.guarded import Command
from local_stack.settings import StackSettings


@dataclass(frozen=True)
class Context:
    """Settings and tools for every step and service."""

    settings: StackSettings
    credentials: Credentials
    stop_asked: threading.Event
    # File descriptor of the stack's lock, which the guards inherit.
    lock: int
    # Shows what a step is doing: (its name, text).
    show: Callable[[str, str], None]

    def directory(self, name: str) -> Path:
        """Return a directory in DATA_DIR; create it unless it exists."""
        path = self.settings.data_dir / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        """Return the log file of a step or service."""
        return self.settings.logs_dir / f"{name}.log"


@dataclass(frozen=True)
class Step:
    """A task that runs once at each start."""

    name: str
    run: Callable[[Context], None]
    needs: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Service:
    """A program to keep running.

    `needs` must be ready before it starts. `also` belongs to the stack whenever this service does, but is not
    waited for. `stops_before` and `needs` still run while this service stops.
    """

    name: str
    command: Callable[[Context], Command]
    is_ready: Callable[[Context, int], bool]
    needs: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    stops_before: frozenset[str] = frozenset()
    start_seconds: float = 120


def run_side_by_side(
    needs: Mapping[str, Set[str]], action: Callable[[str], None], stop_asked: threading.Event
) -> None:
    """Call `action(name)` for each name in `needs`, in threads; after a failure or a stop, begin nothing new.

    Raises:
        Exception: the first one that an action raised, once all running actions have ended.
    """
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    ended: queue.Queue[tuple[str, Exception | None]] = queue.Queue()
    first_error: Exception | None = None
    running = 0

    def run(name: str) -> None:
        try:
            action(name)
        except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
            ended.put((name, error))
        else:
            ended.put((name, None))

    while True:
        if first_error is None and not stop_asked.is_set():
            for name in sorter.get_ready():
                # Daemon threads: a hanging one cannot keep a stopped stack alive.
                threading.Thread(target=run, args=(name,), name=name, daemon=True).start()
                running += 1
        if not running:
            break
        name, error = ended.get()
        running -= 1
        sorter.done(name)
        if error is not None and first_error is None:
            first_error = error
            stop_asked.set()
    if first_error is not None:
        raise first_error


def with_needs(wanted: Set[str], needs: Mapping[str, Set[str]]) -> frozenset[str]:
    """Return `wanted` with all that they need, to any depth."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needs[name]
    return frozenset(found)


def stop_order(names: Set[str], needs: Mapping[str, Set[str]]) -> dict[str, set[str]]:
    """Return, for each of `names`, those of them that need it, to any depth: they have to be gone first."""
    users: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for needed in (with_needs(needs[name], needs) & names) - {name}:
            users[needed].add(name)
    return users


_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")


def server_environment(temporary: Path) -> dict[str, str]:
    """Return a minimal environment for a server, without the caller's other variables."""
    inherited = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return inherited | {"TMPDIR": str(temporary)}


def without_proxy_for_loopback(environment: dict[str, str]) -> dict[str, str]:
    """Return `environment` with 127.0.0.1 taken out of any HTTP proxy."""
    hosts = [environment.get("NO_PROXY") or environment.get("no_proxy", ""), "127.0.0.1", "localhost"]
    value = ",".join(filter(None, hosts))
    return environment | {"NO_PROXY": value, "no_proxy": value}


@cache
def _client() -> httpx.Client:
    # Cached, because creating a client is slow. No proxy, and no kept connections, because servers restart.
    return httpx.Client(timeout=5, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def answers_ok(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET returns 200; false also while no server listens."""
    try:
        return _client().get(url, headers=headers).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
