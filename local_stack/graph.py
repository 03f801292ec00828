"""Runs steps side by side, each as soon as what it needs is done."""

import queue
import threading
from collections.abc import Callable, Mapping, Set
from graphlib import TopologicalSorter


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
                # Daemons, so that one that hangs cannot keep a stopped stack alive.
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
