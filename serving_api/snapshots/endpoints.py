"""The endpoints of snapshots: parse, delegate, return."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from email.utils import format_datetime
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Path, Query, Request, Response
from pydantic import BaseModel

from core.audit import Action, Entry, caller, write_line
from core.web.app import read_body, require_media_type
from core.web.keys import Scope, require_scope
from core.web.negotiation import Router
from core.web.problems import NotFound
from serving_api.dependencies import GUARDS, DatasetsDep, ReplicaDep, check_query_string, next_url, part, send
from serving_api.exports.service import Exports
from serving_api.file_response import LOCAL_PIECE_BYTES, REMOTE_PIECE_BYTES, Sending, ServedFile, send_file
from serving_api.search.follower import SearchFollower
from serving_api.snapshots import schemas as docs
from serving_api.snapshots.diff import diff_page, page_of
from serving_api.snapshots.manifest import CARD, CROISSANT, MANIFEST, SnapshotManifest
from serving_api.snapshots.parameters import (
    BODY_BYTES,
    REWRITE_BYTES,
    DiffParameters,
    SnapshotsParameters,
    parse_request,
    parse_rewrite,
)
from serving_api.snapshots.schemas import DiffPage, ForgottenFrom, ForgottenRead, SnapshotPage
from serving_api.snapshots.service import Snapshots
from serving_api.snapshots.storage import reaching_storage
from serving_api.texts.parameters import NoParameters

# A year, the longest that HTTP knows. Private: the file needs a key.
_FOR_EVER = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"
_PARQUET = "application/vnd.apache.parquet"


SnapshotsDep = Annotated[Snapshots, part("snapshots")]
Name = Annotated[str, Path(description="Name of the snapshot.", examples=["toxicity-2026-11"])]
Nothing = Annotated[NoParameters, Query()]


_WRITING_GUARDS = [Depends(require_scope(Scope.SNAPSHOT)), Depends(check_query_string)]
_ADMIN_GUARDS = [Depends(require_scope(Scope.ADMIN)), Depends(check_query_string)]

router = Router(dependencies=GUARDS, tags=["snapshots"])
writing_router = Router(dependencies=_WRITING_GUARDS, tags=["snapshots"])
admin_router = Router(dependencies=_ADMIN_GUARDS, tags=["snapshots"])
forgotten_router = Router(dependencies=_ADMIN_GUARDS, tags=["operations"])


@writing_router.post(
    "/snapshots",
    status_code=201,
    summary="Make a snapshot",
    response_model=SnapshotManifest,
    openapi_extra={"requestBody": docs.BODY},
    responses=docs.CREATED,
)
async def create_snapshot(
    request: Request, snapshots: SnapshotsDep, datasets: DatasetsDep, _: Nothing
) -> Response:
    """Write the chosen texts of one version into immutable files, one for each split.

    A hash of the seed and the text's id decides its split; near duplicates use the id of the first one. So a text
    has the same split in every later snapshot with the same seed and shares. The response comes when the snapshot
    is complete. If the client disconnects, the snapshot is still written, under its name. The same request for the
    same version answers 200 with the existing snapshot.
    """
    require_media_type(request, "application/json")
    wanted, query = parse_request(await read_body(request, BODY_BYTES), datasets)
    # Shielded: the snapshot is finished even if the client disconnects.
    created = await asyncio.shield(snapshots.writing.run(lambda: snapshots.create(wanted, query)))
    headers = {"Location": f"/snapshots/{created.manifest.name}"}
    status = 201 if created.is_new else 200
    return Response(created.manifest.model_dump_json(), status, headers, "application/json")


@router.get("/snapshots", summary="Snapshots", response_model=SnapshotPage, responses=docs.LIST)
async def list_snapshots(
    request: Request, parameters: Annotated[SnapshotsParameters, Query()], snapshots: SnapshotsDep
) -> Response:
    """List the snapshots, the newest first."""
    page = page_of(await snapshots.reading.run(snapshots.list), parameters.limit, parameters.cursor)
    marked = await snapshots.reading.run(lambda: [*snapshots.forgotten.find_in(page.items)])
    page.items = [one.model_copy(update={"forgotten": len(found)}) for one, found in marked]
    return _respond(request, page, page.next_cursor)


@router.get("/snapshots/{name}", summary="One snapshot", response_model=SnapshotManifest, responses=docs.ONE)
async def get_snapshot(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
    """Get a snapshot's manifest: its splits with their hashes, and the request that made it."""
    return _respond(request, await snapshots.reading.run(lambda: snapshots.forgotten.mark(snapshots.get(name))))


@router.get(
    "/snapshots/{name}/{split}.parquet",
    summary="One split as Parquet",
    response_class=Response,
    responses=docs.SPLIT,
)
async def get_split(
    request: Request,
    name: Name,
    split: Annotated[str, Path(description="Name of the split.", examples=["train"])],
    snapshots: SnapshotsDep,
    _: Nothing,
) -> Response:
    """Get the Parquet file of a split, or one part of it with `Range`.

    The file is immutable, with one exception: texts that must be forgotten are removed from it, which changes its
    `ETag`, the SHA-256 of its bytes. Parquet readers accept the address: `read_parquet('http://…')`.
    """
    manifest = await snapshots.reading.run(lambda: snapshots.get(name))
    file = manifest.splits.get(split)
    if file is None:
        raise NotFound(f"The snapshot's splits are: {', '.join(manifest.splits)}.", code="split_not_found")
    served = ServedFile(
        file.bytes,
        f'"{file.sha256}"',
        _PARQUET,
        f'attachment; filename="{manifest.name}-{split}.parquet"',
        _file_headers(manifest, _FOR_EVER),
    )
    return await _send(request, snapshots, served, manifest.name, file.path)


@router.get(
    "/snapshots/{a}/diff/{b}", summary="Differences of two snapshots", response_model=DiffPage, responses=docs.DIFF
)
async def diff_snapshots(
    request: Request,
    a: Annotated[str, Path(description="The earlier snapshot.", examples=["toxicity-2026-10"])],
    b: Annotated[str, Path(description="The later snapshot.", examples=["toxicity-2026-11"])],
    parameters: Annotated[DiffParameters, Query()],
    snapshots: SnapshotsDep,
) -> Response:
    """Compare two snapshots: count the texts that only one has, and those with another label or split in `b`.

    The page lists texts that differ, in the order of their ids; the numbers count all of them.
    """
    page = await snapshots.reading.run(
        lambda: diff_page(snapshots.differ, snapshots.get(a), snapshots.get(b), parameters)
    )
    return _respond(request, page, page.next_cursor)


@admin_router.post(
    "/snapshots/{name}/rewrite",
    summary="Take texts out of a snapshot",
    response_model=SnapshotManifest,
    openapi_extra={"requestBody": docs.REWRITE_BODY},
    responses=docs.REWRITTEN,
)
async def rewrite_snapshot(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
    """Remove texts that must be forgotten from a snapshot. Nothing else changes a snapshot.

    The splits that contained them get new hashes, and `rewritten_at` is the time of the rewrite. Caches may still
    have the old files, which are `immutable`: empty your caches. Unknown ids are ignored.
    """
    require_media_type(request, "application/json")
    without = parse_rewrite(await read_body(request, REWRITE_BYTES))
    with _audited(request, Action.SNAPSHOT_REWRITTEN, name, texts=len(without)):
        rewritten = await snapshots.writing.run(lambda: snapshots.rewrite(name, without))
    return _respond(request, rewritten)


@admin_router.delete(
    "/snapshots/{name}",
    status_code=204,
    summary="Delete a snapshot",
    response_class=Response,
    responses=docs.DELETED,
)
async def delete_snapshot(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
    """Delete a snapshot with all its files. You cannot undo this.

    A running download continues if the storage is a folder, and breaks otherwise. Snapshots that `follow` it don't
    change. Texts whose split only this snapshot stored may get other splits in later ones. Don't reuse the name:
    caches may keep the old files for a year.
    """
    with _audited(request, Action.SNAPSHOT_DELETED, name):
        await snapshots.writing.run(lambda: snapshots.delete(name))
    return Response(status_code=204)


@contextmanager
def _audited(request: Request, action: Action, name: str, **details: int) -> Iterator[None]:
    """Write the block's line of the audit log, even if the block fails."""
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        write_line(Entry("serving_api", caller(request.scope), action, [name], outcome, details))


@router.get(
    "/snapshots/{name}/README.md",
    summary="A snapshot's card",
    response_class=Response,
    responses=docs.DOCUMENTS[CARD],
)
async def get_card(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
    """Get the dataset card, as the Hugging Face Hub shows it. Browsers show it as plain text."""
    return await _document(request, snapshots, name, CARD, "text/markdown")


@router.get(
    "/snapshots/{name}/croissant.json",
    summary="A snapshot in the Croissant format",
    response_class=Response,
    responses=docs.DOCUMENTS[CROISSANT],
)
async def get_croissant_file(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
    """Get the snapshot's description as Croissant 1.1, for programs."""
    return await _document(request, snapshots, name, CROISSANT, "application/json")


@router.get(
    "/snapshots/{name}/snapshot.json",
    summary="A snapshot's manifest as a file",
    response_class=Response,
    responses=docs.DOCUMENTS[MANIFEST],
)
async def get_manifest(request: Request, name: Name, snapshots: SnapshotsDep, _: Nothing) -> Response:
    """Get the manifest as the file `snapshot.json`; `GET /snapshots/{name}` answers the same."""
    return await _document(request, snapshots, name, MANIFEST, "application/json")


async def _document(request: Request, snapshots: Snapshots, name: str, file: str, media_type: str) -> Response:
    manifest, content = await snapshots.reading.run(
        lambda: (snapshots.get(name), snapshots.storage.read(name, file))
    )
    served = ServedFile(
        len(content),
        f'"{hashlib.sha256(content).hexdigest()}"',
        *_shown(request, file, media_type),
        _file_headers(manifest, _ASK_AGAIN) | {"Vary": "Accept"},
    )
    return await _send(request, snapshots, served, name, file)


def _shown(request: Request, file: str, media_type: str) -> tuple[str, str]:
    """Return media type and disposition. Browsers download Markdown, so they get the card as plain text."""
    if file != CARD:
        return media_type, f'attachment; filename="{file}"'
    kind = "text/plain" if "text/html" in request.headers.get("accept", "") else media_type
    return f"{kind}; charset=utf-8", f'inline; filename="{file}"'


def _file_headers(manifest: SnapshotManifest, caching: str) -> dict[str, str]:
    changed_at = manifest.rewritten_at or manifest.created_at
    return {
        "Last-Modified": format_datetime(changed_at.astimezone(UTC), usegmt=True),
        "Cache-Control": caching,
    }


async def _send(request: Request, snapshots: Snapshots, served: ServedFile, name: str, path: str) -> Response:
    storage = snapshots.storage
    # The pieces are large and sequential: fsspec's read-ahead would only copy them.
    options = {} if storage.is_local else {"cache_type": "none"}
    piece_bytes = LOCAL_PIECE_BYTES if storage.is_local else REMOTE_PIECE_BYTES
    sending = Sending(snapshots.downloading, piece_bytes, reading=reaching_storage)
    return await send_file(request, served, lambda: storage.open(name, path, **options), sending)


def _respond(request: Request, answer: BaseModel, next_cursor: str | None = None) -> Response:
    headers = {"Cache-Control": "private, no-cache"}
    if next_cursor:
        headers["Link"] = f'<{next_url(request, next_cursor)}>; rel="next"'
    return send(request, answer.model_dump_json().encode(), headers)


@forgotten_router.get(
    "/forgotten",
    summary="Progress of forgetting",
    response_model=ForgottenRead,
    responses=docs.FORGOTTEN,
)
async def read_forgotten(
    replica: ReplicaDep,
    snapshots: SnapshotsDep,
    search: Annotated[SearchFollower, part("search")],
    exports: Annotated[Exports, part("exports")],
    _: Nothing,
) -> Response:
    """Report which queries, files and snapshots no longer contain forgotten texts.

    Each process has its own replica and index; the process that answers reports on its own.
    """

    def read() -> ForgottenRead:
        state = replica.loaded()
        return ForgottenRead(
            version=state.version,
            traceless_below=exports.traceless_below(min(state.built, search.built + 1)),
            snapshots=[
                ForgottenFrom(name=manifest.name, ids=sorted(map(str, found)))
                for manifest, found in snapshots.forgotten.find_in(snapshots.list())
                if found
            ],
        )

    body = (await to_thread.run_sync(read)).model_dump_json()
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")
