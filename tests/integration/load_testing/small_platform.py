"""A server in this process that responds like both APIs, and can be made to misbehave."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from load_testing.users.checks import id_of

Answer = tuple[int, Any]
_NOTHING_LABELLED: dict[str, Any] = {"items": [], "next_cursor": None, "version": 0}
_NO_STATS: dict[str, Any] = {
    "total": 0,
    "by_label": {},
    "by_status": {},
    "by_source": {},
    "without_source": 0,
    "by_day": {},
}
_EMPTY_QUEUE = dict.fromkeys(("pending", "uploading", "uploaded", "failed", "open_records"), 0)


@dataclass
class SmallPlatform:
    """Its content, and its faults."""

    url: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    # Each text for which this holds is acknowledged, and not stored.
    loses: Callable[[str], bool] = lambda _: False
    # All requests that arrive in this period after the first POST get their answers at its end: (start, end) in s.
    stalls: tuple[float, float] | None = None
    # What a field of an acknowledgement is, in place of the right one.
    lies: dict[str, object] = field(default_factory=dict)
    # Whether bulk uploads are asked to come again.
    is_full: bool = False
    first_at: float | None = None

    def post(self, path: str, body: bytes) -> Answer:
        """Answer a POST."""
        if path == "/texts":
            sent = json.loads(body)
            is_known = self._store(sent)
            answer = {
                "id": id_of(sent["text"], sent["dataset"]),
                "status": "pending",
                "duplicate": is_known,
            } | self.lies
            return (200 if is_known else 201), answer
        if self.is_full:
            return 503, {"code": "bulk_busy"}
        rows = [json.loads(line) for line in body.splitlines()]
        texts = [row["text"] for row in rows]
        good = [row for row in rows if row["text"].strip()]
        known = [self._store(row) for row in good]
        rejected = len(texts) - len(good)
        errors = [{"row": row} for row, text in enumerate(texts, 1) if not text.strip()]
        counts = {"received": len(texts), "accepted": known.count(False), "duplicates": known.count(True)}
        return 200, counts | {"rejected": rejected, "errors": errors}

    def get(self, path: str) -> Answer:
        """Answer a GET."""
        if path == "/readyz" or path == "/queue":
            return 200, _EMPTY_QUEUE
        if path == "/stats":
            return 200, _NO_STATS
        if path == "/changes":
            return 200, {"items": [], "next": 0}
        if path.startswith("/export"):
            return 200, None
        if path.startswith("/texts/"):
            id_ = path.removeprefix("/texts/")
            found = self.texts.get(id_)
            return (404, {}) if found is None else (200, {"id": id_, "text": found, "status": "pending"})
        return 200, _NOTHING_LABELLED

    def wait_out_stall(self, path: str) -> None:
        """Hold a request back if it arrived in the stall."""
        if self.first_at is None and path != "/texts":
            return  # asked before the users are loaded, which takes a busy machine seconds
        now = time.monotonic()
        self.first_at = self.first_at or now
        if self.stalls is not None:
            start, end = self.stalls
            passed = now - self.first_at
            if start <= passed < end:
                time.sleep(end - passed)

    def _store(self, sent: dict[str, str]) -> bool:
        text = sent["text"]
        id_ = id_of(text, sent["dataset"])
        is_known = id_ in self.texts
        if not self.loses(text):
            self.texts[id_] = text
        return is_known


@contextmanager
def small_platform(**behaviour: Any) -> Iterator[SmallPlatform]:
    """Run one until the block ends."""
    platform = SmallPlatform(**behaviour)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            platform.wait_out_stall(path)
            self._send(*platform.get(path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            platform.wait_out_stall(self.path)
            self._send(*platform.post(self.path, body))

        def _send(self, status: int, answer: Any) -> None:
            body = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 503:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

    with Server(("127.0.0.1", 0), Handler) as server:
        platform.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield platform
        server.shutdown()
        thread.join()
