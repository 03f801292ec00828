"""ASGI middleware for the paths of Google's clients: keys in the address, and errors in Google's shape."""

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

_PATHS = ("/v1alpha1/", "/$discovery/", "/discovery/v1/")
_PROBLEM = b"application/problem+json"
_KEY_HEADER = b"x-goog-api-key"

# The names of https://cloud.google.com/apis/design/errors by their HTTP status.
_STATUSES = {
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.NOT_FOUND: "NOT_FOUND",
    HTTPStatus.TOO_MANY_REQUESTS: "RESOURCE_EXHAUSTED",
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL",
    HTTPStatus.NOT_IMPLEMENTED: "UNIMPLEMENTED",
    HTTPStatus.BAD_GATEWAY: "UNAVAILABLE",
    HTTPStatus.SERVICE_UNAVAILABLE: "UNAVAILABLE",
}
# What Perspective's own errors are called there.
_ERROR_TYPES = {"comment_too_long", "comment_empty", "no_requested_attributes", "invalid_request"}
_PERSPECTIVE_ERROR = "type.googleapis.com/google.commentanalyzer.v1alpha1.Error"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def google_error(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a problem of RFC 9457 in Google's shape; its code becomes the error type or the reason."""
    code, status = problem["code"], problem["status"]
    if code in _ERROR_TYPES:
        detail = {"@type": _PERSPECTIVE_ERROR, "errorType": code.upper()}
    else:
        detail = {"@type": _ERROR_INFO, "reason": code.upper(), "domain": "annotation-platform"}
    name = _STATUSES.get(status, "INVALID_ARGUMENT")
    return {"error": {"code": status, "message": problem["detail"], "status": name, "details": [detail]}}


class GoogleErrors:
    """Takes `?key=` as an API key, out of the address before anything logs it, and translates problems.

    It must see a request first. Other paths pass as they are. Responses are short and are not compressed.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_PATHS):
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
            _take_key(scope)
            send = _Translating(send)
        await self.app(scope, receive, send)


def _take_key(scope: Any) -> None:
    """Make an `Authorization` of a key that was sent Google's ways; one that is there already wins."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    keys = [value.encode("latin-1") for name, value in query if name == "key"]
    keys += [value for name, value in scope["headers"] if name == _KEY_HEADER]
    rest = [(name, value) for name, value in query if name != "key"]
    scope["query_string"] = urlencode(rest, encoding="latin-1").encode()
    scope["headers"] = [header for header in scope["headers"] if header[0] != _KEY_HEADER]
    if keys and not any(name == b"authorization" for name, _ in scope["headers"]):
        scope["headers"].append((b"authorization", b"Bearer " + keys[0]))


class _Translating:
    """Sends one response: a problem, which always comes in one piece, is translated."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._head: Any = None

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if dict(message["headers"]).get(b"content-type", b"").startswith(_PROBLEM):
                self._head = message
                return
        elif self._head is not None:
            head, self._head = self._head, None
            body = json.dumps(google_error(json.loads(message["body"])), ensure_ascii=False)
            message = {**message, "body": body.encode("utf-8", "replace")}
            changed = {
                b"content-type": b"application/json; charset=UTF-8",
                b"content-length": str(len(message["body"])).encode(),
            }
            headers = [(name, changed.get(name, value)) for name, value in head["headers"]]
            await self._send({**head, "headers": headers})
        await self._send(message)
