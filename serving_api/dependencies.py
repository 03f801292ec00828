"""What the endpoints get from the application."""

from collections import Counter
from typing import Annotated, cast
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Request

from core.datasets import Datasets
from core.web.keys import Scope, require_scope
from core.web.problems import FieldError, InvalidFields, Malformed
from serving_api.exports.service import Exports
from serving_api.replica.replica import Replica
from serving_api.texts.service import Answers

_REPEATABLE = {
    ("/texts", "label"),
    ("/export.parquet", "label"),
    ("/export.arrow", "label"),
    ("/export.arrows", "label"),
    ("/export.ndjson", "label"),
    ("/export.csv", "label"),
    ("/stats/agreement", "annotator"),
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
    """Refuse what would otherwise be repaired silently: bad UTF-8, and a parameter that is sent twice.

    Raises:
        Malformed: the query string is not UTF-8.
        InvalidFields: parameters that have one value are repeated.
    """
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError as error:
        raise Malformed("The query string is not UTF-8.", code="malformed_query") from error
    counts = Counter(name for name, _ in request.query_params.multi_items())
    path = request.scope["route"].path
    repeated = [name for name, count in counts.items() if count > 1 and (path, name) not in _REPEATABLE]
    if repeated:
        raise InvalidFields(
            [FieldError("repeated", "May be sent only once.", parameter=name) for name in repeated]
        )


# What every path of data asks of a request.
GUARDS = [Depends(require_scope(Scope.READ)), Depends(check_query_string)]
