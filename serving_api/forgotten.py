"""GET /forgotten: how far forgetting has come in the files of this service."""

from typing import Annotated, cast

from anyio import to_thread
from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, Field

from core.keys import Scope, require_scope
from core.negotiation import Router
from core.openapi import Responses, answer, header, key_refusals, problem, unavailable, wrong_parameter
from serving_api.dependencies import ReplicaDep, check_query_string
from serving_api.parameters import NoParameters
from serving_api.search_follower import SearchFollower
from serving_api.snapshots.snapshots import Snapshots


class ForgottenFrom(BaseModel):
    """A snapshot that holds texts which were forgotten since."""

    name: str = Field(description="The snapshot.")
    ids: list[str] = Field(description="These texts, for `POST /snapshots/{name}/rewrite`.")


class ForgottenRead(BaseModel):
    """How far forgetting has come; of the process that answers."""

    version: int = Field(description="The replica's version: no query finds what was forgotten up to it.")
    traceless_below: int = Field(
        description="What was forgotten in versions below is not in the files of replica and search index, either."
    )
    snapshots: list[ForgottenFrom] = Field(description="Those that are to be rewritten.")


_EXAMPLE = {
    "version": 91350,
    "traceless_below": 91351,
    "snapshots": [{"name": "toxicity-2026-11", "ids": ["5f3c1f7e-8a6f-8c15-9d3e-0b1f6a4f2d11"]}],
}
_READ: Responses = {
    200: answer(
        "How far it has come.",
        _EXAMPLE,
        model=ForgottenRead,
        headers={"Cache-Control": header("It may change at any moment.", "no-store")},
    ),
    400: problem(400, "malformed_query", "The query string is not UTF-8."),
    **key_refusals("admin"),
    422: wrong_parameter("x", "extra_forbidden", "Extra inputs are not permitted"),
    503: unavailable("replica_missing", "The replica is being built.", 5),
}


def make_forgotten_router() -> Router:
    """Return the path that tells how far forgetting has come."""
    guards = [Depends(require_scope(Scope.ADMIN)), Depends(check_query_string)]
    router = Router(dependencies=guards, tags=["operations"], default_response_class=Response)
    router.add_api_route("/forgotten", read_forgotten, summary="How far texts are forgotten here", responses=_READ)
    return router


async def read_forgotten(request: Request, replica: ReplicaDep, _: Annotated[NoParameters, Query()]) -> Response:
    """Tell from what is gone: queries, the replica's and the search index's files, snapshots.

    Of several processes each has files of its own; the one that answers speaks of its own.
    """
    snapshots = cast(Snapshots, request.app.state.snapshots)
    search = cast(SearchFollower, request.app.state.search)

    def read() -> ForgottenRead:
        state = replica.loaded()
        return ForgottenRead(
            version=state.version,
            traceless_below=min(state.built, search.built + 1),
            snapshots=[
                ForgottenFrom(name=manifest.name, ids=sorted(map(str, found)))
                for manifest, found in snapshots.forgotten.find_in(snapshots.list())
                if found
            ],
        )

    body = (await to_thread.run_sync(read)).model_dump_json()
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")
