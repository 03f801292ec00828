"""Shared by all endpoints: parts of the application, checks of requests, and responses with ETag and Link."""

import hashlib
import re
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request, Response
from starlette.types import Receive

from core.datasets import Datasets
from core.web import app
from core.web.keys import Scope, require_scope
from serving_api.replica.query_pool import Answer
from serving_api.replica.replica import Replica
from serving_api.replica.repository import Point

_REPEATABLE = {
    "/texts": ("label",),
    "/export.parquet": ("label",),
    "/export.arrow": ("label",),
    "/export.arrows": ("label",),
    "/export.ndjson": ("label",),
    "/export.csv": ("label",),
    "/stats/agreement": ("annotator",),
    "/stats/facets": ("label",),
}


def part(name: str) -> Any:
    """Return the dependency on a part of the application, which `main.Parts` names."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


ReplicaDep = Annotated[Replica, part("replica")]
DatasetsDep = Annotated[Datasets, part("datasets")]


async def check_query_string(request: Request) -> None:
    """Refuse bad UTF-8 and repeated parameters; raises as `core.web.app.check_query_string`."""
    app.check_query_string(request, _REPEATABLE.get(request.scope["route"].path, ()))


# Checks of every request for data.
GUARDS = [Depends(require_scope(Scope.READ)), Depends(check_query_string)]


_HOST = re.compile(r"[A-Za-z0-9.\-_]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_ETAG = re.compile(r'(?:W/)?("[^"]*")')


def respond(request: Request, answer: Answer) -> Response:
    """Return the HTTP response, or 304 for a client that already has it."""
    request.scope["answer_key"] = answer.key
    headers = replica_headers(request.app.state.replica, answer.point) | {"ETag": answer.etag}
    if answer.next_cursor:
        headers["Link"] = f'<{next_url(request, answer.next_cursor)}>; rel="next"'
    return send(request, answer.body, headers)


def send(request: Request, body: bytes, headers: dict[str, str], media_type: str = "application/json") -> Response:
    """Return the HTTP response, or 304 for a client that already has it by the ETag in the headers.

    Without an ETag, one is made from the body.
    """
    if "ETag" not in headers:
        headers = headers | {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    if is_held(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def replica_headers(replica: Replica, point: Point) -> dict[str, str]:
    """Return the headers about the replica's version and age; caches must revalidate."""
    return {
        "X-Replica-Version": str(point.version),
        "X-Replica-Age": f"{replica.age_seconds:.3f}",
        "Cache-Control": "private, no-cache",
    }


def is_held(request: Request, etag: str) -> bool:
    """Whether the client already has this response; `etag` is in quotes, and weak validators match."""
    held = ", ".join(request.headers.getlist("if-none-match"))
    return held.strip() == "*" or etag in _ETAG.findall(held)


async def client_gone(receive: Receive) -> None:
    """Wait until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


def next_url(request: Request, cursor: str) -> str:
    """Return the address of the next page of a list."""
    parameters = [item for item in request.query_params.multi_items() if item[0] != "cursor"]
    path = request.scope["route"].path.format(**request.path_params)
    return f"{base_url(request)}{path}?{urlencode([*parameters, ('cursor', cursor)])}"


def base_url(request: Request) -> str:
    """Return this API's address for the client, without scheme and host if its Host header is not a host name."""
    path, host = request.scope.get("root_path", ""), request.headers.get("host", "")
    return f"{request.scope['scheme']}://{host}{path}" if _HOST.fullmatch(host) else path
