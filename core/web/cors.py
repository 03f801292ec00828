"""Lets web pages of other origins, which the settings name, read the responses (CORS)."""

from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from core.web.problems import Malformed, OriginNotAllowed, problem_response

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# What scripts may send beside what each of them may.
_SENT = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
    "X-Request-ID",
)
# What scripts may read beside what each of them may.
_EXPOSED = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Replica-Age",
    "X-Replica-Version",
    "X-Request-ID",
)
_SECONDS = 600  # that a browser remembers a permission


class Cors(CORSMiddleware):
    """Starlette's middleware with our headers; pages of other origins get a problem in place of a permission.

    Permission to read replaces no API key: a browser sends none by itself.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=_METHODS,
            allow_headers=_SENT,
            expose_headers=_EXPOSED,
            max_age=_SECONDS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer the question whether a page may send a request."""
        if not self.is_allowed_origin(request_headers["origin"]):
            detail = "Web pages of this origin may not call this API. If they should, add it to HTTP_CORS_ORIGINS."
            return problem_response(OriginNotAllowed(detail))
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        detail = f"{bytes(response.body).decode()}: this API takes no such method or header from web pages."
        return problem_response(Malformed(detail, code="cors_refused"))
