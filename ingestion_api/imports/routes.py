"""The paths of imports, and what OpenAPI says of them."""

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from ingestion_api.imports import documentation as docs
from ingestion_api.imports import endpoints
from ingestion_api.imports.schemas import ImportRead


def add_import_endpoints(router: APIRouter) -> None:
    """Add the paths of imports."""
    add = router.add_api_route
    add(
        "/imports",
        endpoints.create_import,
        methods=["POST"],
        tags=["imports"],
        status_code=202,
        response_model=ImportRead,
        summary="Hand in a long file",
        openapi_extra={"requestBody": docs.IMPORT_BODY},
        responses=docs.IMPORT_MADE,
    )
    add(
        "/imports",
        endpoints.list_imports,
        tags=["imports"],
        summary="Imports, newest first",
        responses=docs.IMPORTS_LISTED,
    )
    # Before GET, which answers HEAD as well.
    add(
        "/imports/{id}",
        endpoints.read_offset,
        methods=["HEAD"],
        tags=["imports"],
        status_code=204,
        response_class=Response,
        summary="Where to go on with the upload",
        responses=docs.OFFSET_READ,
    )
    add(
        "/imports/{id}",
        endpoints.read_import,
        tags=["imports"],
        summary="How far it has come",
        responses=docs.IMPORT_READ,
    )
    add(
        "/imports/{id}",
        endpoints.continue_import,
        methods=["PATCH"],
        tags=["imports"],
        status_code=202,
        response_model=ImportRead,
        summary="Go on with the upload",
        openapi_extra={"requestBody": docs.PART_BODY},
        responses=docs.IMPORT_CONTINUED,
    )
    add(
        "/imports/{id}",
        endpoints.delete_import,
        methods=["DELETE"],
        tags=["imports"],
        status_code=204,
        response_class=Response,
        summary="Stop it and forget it",
        responses=docs.IMPORT_DELETED,
    )
    add(
        "/imports/{id}/rejects",
        endpoints.read_rejects,
        tags=["imports"],
        response_class=StreamingResponse,
        summary="The rows that were rejected, and why",
        responses=docs.REJECTS_READ,
    )
