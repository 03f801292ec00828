"""The paths of snapshots: parse, delegate, return."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Annotated, TypeVar, cast

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Path, Query, Request, Response
from pydantic import BaseModel

from core.audit import Action, Entry, caller, write_line
from core.keys import Scope, require_scope
from core.negotiation import Router
from core.problems import NotFound, TooLarge
from core.web import require_media_type
from serving_api.dependencies import GUARDS, DatasetsDep, check_query_string
from serving_api.parameters import NoParameters
from serving_api.responses import is_held, next_url
from serving_api.snapshots import documentation as docs
from serving_api.snapshots.file_response import ServedFile, send_file
from serving_api.snapshots.lists import DiffParameters, SnapshotsParameters, diff_page, page_of
from serving_api.snapshots.manifest import CARD, CROISSANT, MANIFEST, Manifest, SplitFile
from serving_api.snapshots.request import BODY_BYTES, REWRITE_BYTES, parse_request, parse_rewrite
from serving_api.snapshots.snapshots import Snapshots

# Threads that wait for the storage.
_THREADS = CapacityLimiter(8)

_PARQUET = "application/vnd.apache.parquet"

Answer = TypeVar("Answer")


async def _snapshots(request: Request) -> Snapshots:
    return cast(Snapshots, request.app.state.snapshots)


def _name(example: str = "toxicity-2026-11") -> object:
    return Path(description="Name of the snapshot.", examples=[example])


SnapshotsDep = Annotated[Snapshots, Depends(_snapshots)]
Name = Annotated[str, _name()]
Nothing = Annotated[NoParameters, Query()]


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
    router.add_api_route("/snapshots", list_snapshots, summary="Snapshots", responses=docs.LIST)
    router.add_api_route("/snapshots/{name}", get_snapshot, summary="One snapshot", responses=docs.ONE)
    for file, media_type in (
        (CARD, "text/markdown"),
        (CROISSANT, "application/json"),
        (MANIFEST, "application/json"),
    ):
        _add_document(router, file, media_type)
    router.add_api_route(
        "/snapshots/{name}/{split}.parquet", get_split, summary="One split as Parquet", responses=docs.SPLIT
    )
    router.add_api_route(
        "/snapshots/{a}/diff/{b}", diff_snapshots, summary="What two snapshots differ in", responses=docs.DIFF
    )
    return router


def make_snapshot_admin_router() -> Router:
    """Return the paths that change snapshots."""
    guards = [Depends(require_scope(Scope.ADMIN)), Depends(check_query_string)]
    router = Router(dependencies=guards, tags=["snapshots"], default_response_class=Response)
    router.add_api_route(
        "/snapshots/{name}/rewrite",
        rewrite_snapshot,
        methods=["POST"],
        summary="Take texts out of a snapshot",
        openapi_extra={"requestBody": docs.REWRITE_BODY},
        responses=docs.REWRITTEN,
    )
    return router


async def create_snapshot(
    request: Request, snapshots: SnapshotsDep, datasets: DatasetsDep, _: Nothing
) -> Response:
    """Write the chosen texts, all of one version, into files that never change: one for each split.

    A text's split is decided by a hash of its id, or of the id of the text that its near duplicates began with,
    and of the seed: it stays the same in every later snapshot with the same seed and shares. The answer comes when
    the snapshot is whole; a client that goes away meanwhile finds it under its name. The same request of the same
    version answers 200 with the snapshot that is there.
    """
    require_media_type(request, "application/json")
    wanted, query = parse_request(await _read_body(request, BODY_BYTES), datasets)
    # Shielded: who goes away while it is written finds it finished.
    created = await asyncio.shield(asyncio.wrap_future(snapshots.submit(wanted, query)))
    headers = {"Location": f"/snapshots/{created.manifest.name}"}
    status = 201 if created.is_new else 200
    return Response(created.manifest.model_dump_json(), status, headers, "application/json")


async def list_snapshots(
    request: Request, parameters: Annotated[SnapshotsParameters, Query()], snapshots: SnapshotsDep
) -> Response:
    """List the snapshots, the newest first."""
    page = page_of(await _in_thread(snapshots.list), parameters.limit, parameters.cursor)
    page.items = await _in_thread(lambda: [snapshots.forgotten.mark(one) for one in page.items])
    return _respond(request, page, page.next_cursor)


async def get_snapshot(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
    """Get what a snapshot says of itself: its splits with their hashes, and what it was made of."""
    return _respond(request, await _in_thread(lambda: snapshots.forgotten.mark(snapshots.get(name))))


async def get_split(
    request: Request,
    name: Name,
    split: Annotated[str, Path(description="Name of the split.", examples=["train"])],
    snapshots: SnapshotsDep,
    _: Nothing,
) -> Response:
    """Get the Parquet file of a split, or with `Range` a part of it: one range at a time.

    It never changes, unless texts that must be forgotten are taken out of it; then its `ETag`, the SHA-256 of its
    bytes, does. What readers take for a file on disk works: `read_parquet('http://…')`.
    """
    manifest = await _in_thread(lambda: snapshots.get(name))
    file = manifest.splits.get(split)
    if file is None:
        raise NotFound(f"The snapshot's splits are: {', '.join(manifest.splits)}.", code="split_not_found")
    return await send_file(request, snapshots.storage, _split_file(manifest, split, file))


async def diff_snapshots(
    request: Request,
    a: Annotated[str, Path(description="The earlier snapshot.", examples=["toxicity-2026-10"])],
    b: Annotated[str, Path(description="The later snapshot.", examples=["toxicity-2026-11"])],
    parameters: Annotated[DiffParameters, Query()],
    snapshots: SnapshotsDep,
) -> Response:
    """Compare two snapshots: how many texts `b` has more and fewer, with another label, and in another split.

    The texts that differ come in the order of their ids, page by page; the numbers count all of them.
    """
    page = await _in_thread(lambda: diff_page(snapshots, a, b, parameters))
    return _respond(request, page, page.next_cursor)


async def rewrite_snapshot(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
    """Take texts out of a snapshot, for they must be forgotten. Nothing else changes one.

    The hashes of the splits that held them are others then, and `rewritten_at` says when. Caches may have kept the
    old files, which are `immutable` for them: empty those that are yours. Ids that are not in it do nothing.
    """
    require_media_type(request, "application/json")
    without = parse_rewrite(await _read_body(request, REWRITE_BYTES))
    outcome = "failed"
    try:
        rewritten = await _in_thread(lambda: snapshots.rewrite(name, without))
        outcome = "done"
    finally:
        details = {"texts": len(without)}
        who = caller(request)
        write_line(Entry("serving_api", who, Action.SNAPSHOT_REWRITTEN, [name], outcome, details))
    return _respond(request, rewritten)


def _add_document(router: Router, file: str, media_type: str) -> None:
    async def get_document(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
        manifest, content = await _in_thread(lambda: (snapshots.get(name), snapshots.storage.read(name, file)))
        digest = hashlib.sha256(content).hexdigest()
        changed_at = manifest.rewritten_at or manifest.created_at
        described = ServedFile(name, file, len(content), digest, media_type, file, changed_at, is_for_ever=False)
        return await send_file(request, snapshots.storage, described)

    router.add_api_route(
        f"/snapshots/{{name}}/{file}",
        get_document,
        name=f"get_{file.lower()}",
        summary=docs.DOCUMENT_SUMMARIES[file],
        description=docs.DOCUMENT_DESCRIPTIONS[file],
        responses=docs.document(file, media_type),
    )


def _split_file(manifest: Manifest, name: str, split: SplitFile) -> ServedFile:
    return ServedFile(
        manifest.name,
        split.path,
        split.bytes,
        split.sha256,
        _PARQUET,
        f"{manifest.name}-{name}.parquet",
        manifest.rewritten_at or manifest.created_at,
        is_for_ever=True,
    )


def _respond(request: Request, answer: BaseModel, next_cursor: str | None = None) -> Response:
    body = answer.model_dump_json().encode()
    headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"', "Cache-Control": "private, no-cache"}
    if next_cursor:
        headers["Link"] = f'<{next_url(request, next_cursor)}>; rel="next"'
    if request.method != "POST" and is_held(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


async def _in_thread(job: Callable[[], Answer]) -> Answer:
    return await to_thread.run_sync(job, limiter=_THREADS)


async def _read_body(request: Request, most: int) -> bytes:
    body = bytearray()  # to add to bytes would copy them for each part, of which there may be one for each byte
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise TooLarge(f"The body is over {most} bytes.")
    return bytes(body)
