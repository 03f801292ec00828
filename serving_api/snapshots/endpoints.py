"""The paths of snapshots: parse, delegate, return."""

import asyncio
from typing import Annotated, cast

from fastapi import Depends, Request, Response

from core.negotiation import Router
from core.problems import TooLarge
from core.web import require_media_type
from serving_api.dependencies import GUARDS, DatasetsDep
from serving_api.snapshots import documentation as docs
from serving_api.snapshots.request import BODY_BYTES, parse_request
from serving_api.snapshots.snapshots import Snapshots


async def _snapshots(request: Request) -> Snapshots:
    return cast(Snapshots, request.app.state.snapshots)


SnapshotsDep = Annotated[Snapshots, Depends(_snapshots)]


def make_snapshot_router() -> Router:
    """Return the paths of snapshots."""
    router = Router(dependencies=GUARDS, tags=["snapshots"], default_response_class=Response)
    router.add_api_route(
        "/snapshots",
        create_snapshot,
        methods=["POST"],
        status_code=201,
        summary="Make a snapshot",
        openapi_extra={"requestBody": docs.BODY},
        responses=docs.CREATED,
    )
    return router


async def create_snapshot(request: Request, snapshots: SnapshotsDep, datasets: DatasetsDep) -> Response:
    """Write the chosen texts, all of one version, into files that never change."""
    require_media_type(request, "application/json")
    wanted, query = parse_request(await _read_body(request), datasets)
    # Shielded: who goes away while it is written finds it finished.
    created = await asyncio.shield(asyncio.wrap_future(snapshots.submit(wanted, query)))
    headers = {"Location": f"/snapshots/{created.manifest.name}"}
    status = 201 if created.is_new else 200
    return Response(created.manifest.model_dump_json(), status, headers, "application/json")


async def _read_body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            raise TooLarge(f"The body is over {BODY_BYTES} bytes.")
    return body
