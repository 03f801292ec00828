"""What was made of a file that never changes, for who asks again."""

import threading
from collections.abc import Callable
from typing import Any

_MOST = 1000


class Kept:
    """So many things, by what they were made of; the oldest goes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._things: dict[tuple[str, str], Any] = {}

    def get(self, kind: str, sha256: str, make: Callable[[], Any]) -> Any:
        """Return what was made of the file with this hash, or make it."""
        key = kind, sha256
        with self._lock:
            if key in self._things:
                return self._things[key]
        made = make()
        with self._lock:
            self._things[key] = made
            if len(self._things) > _MOST:
                del self._things[next(iter(self._things))]
        return made
