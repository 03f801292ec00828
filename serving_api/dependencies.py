"""Dependencies of the endpoints: parts of the application, and checks of every request."""

from typing import Annotated, cast

from fastapi import Depends, Request

from core.datasets import Datasets
from core.web import app
from core.web.keys import Scope, require_scope
from serving_api.exports.service import Exports
from serving_api.replica.replica import Replica
from serving_api.texts.service import Answers

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


async def _answers(request: Request) -> Answers:
    return cast(Answers, request.app.state.answers)


async def _replica(request: Request) -> Replica:
    return cast(Replica, request.app.state.replica)


async def _exports(request: Request) -> Exports:
    return cast(Exports, request.app.state.exports)


async def _datasets(request: Request) -> Datasets:
    return cast(Datasets, request.app.state.datasets)


AnswersDep = Annotated[Answers, Depends(_answers)]
ExportsDep = Annotated[Exports, Depends(_exports)]
ReplicaDep = Annotated[Replica, Depends(_replica)]
DatasetsDep = Annotated[Datasets, Depends(_datasets)]


async def check_query_string(request: Request) -> None:
    """Refuse bad UTF-8 and repeated parameters; raises as `core.web.app.check_query_string`."""
    app.check_query_string(request, _REPEATABLE.get(request.scope["route"].path, ()))


# Checks of every request for data.
GUARDS = [Depends(require_scope(Scope.READ)), Depends(check_query_string)]
