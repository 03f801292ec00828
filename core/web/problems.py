"""Errors that clients see, as RFC 9457 problems.

Problem
├── Malformed            400  not JSON, not UTF-8, bad gzip …
├── MissingKey           401
├── BadSignature         401
├── ScopeMissing         403
├── DatasetNotAllowed    403
├── HostNotAllowed       403
├── OriginNotAllowed     403
├── NotFound             404
├── MethodNotAllowed     405
├── NotAcceptable        406
├── RequestTimeout       408
├── BodyTooSlow          408
├── Conflict             409
├── TooLarge             413
├── UnsupportedType      415
├── InvalidFields        422  each wrong field with its JSON pointer or parameter name
├── RateLimited          429  with Retry-After
├── ShareExceeded        429  with Retry-After
├── HeadTooLarge         431
└── Unavailable          503  with Retry-After
"""

import copyreg
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import Response
from pydantic import ValidationError

from core.datasets import Datasets
from core.web.requirements import explain_field

PROBLEM_TYPE = "application/problem+json"

# A body of a megabyte may have a hundred thousand wrong fields, and each takes a hundred bytes to report.
ERRORS_SHOWN = 100
_QUOTED_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error in one field of the body (`pointer`) or one parameter (`parameter`)."""

    code: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None

    def as_dict(self) -> dict[str, str]:
        """Return the JSON object of the response."""
        parts = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in parts.items() if value is not None}


def quoted(value: str) -> str:
    """Return a value that a client sent in quotes, as JSON writes it, for use in `detail`; a long one is cut."""
    shown = value if len(value) <= _QUOTED_CHARACTERS else f"{value[:_QUOTED_CHARACTERS]}…"
    return json.dumps(shown.encode("utf-8", "replace").decode(), ensure_ascii=False)


def json_pointer(path: Sequence[int | str]) -> str:
    """Return the JSON pointer (RFC 6901) of a path of keys and indexes."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


class Problem(Exception):
    """A refusal: status, stable code, and a sentence that is safe to show to the client."""

    status = 500
    code = "internal_error"
    own_headers: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """`status` and `code`: where they are not those of the class. `extra`: further members of the body."""
        super().__init__(detail)
        self.detail = detail
        self.status = status or self.status
        self.code = code or self.code
        self.headers = self.own_headers | (headers or {})
        self.extra = extra or {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling `__init__`, whose arguments differ between the kinds."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def as_dict(self) -> dict[str, Any]:
        """Return the body of the response."""
        return {
            "type": f"urn:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extra,
        }


class Malformed(Problem):
    """The request cannot be parsed."""

    status = 400
    code = "malformed"


class MissingKey(Problem):
    """The request has no valid API key."""

    status = 401
    code = "missing_key"
    own_headers: ClassVar = {"WWW-Authenticate": "Bearer"}


class BadSignature(Problem):
    """The signature is wrong or too old."""

    status = 401
    code = "bad_signature"
    own_headers: ClassVar = {"WWW-Authenticate": "Webhook-Signature"}


class ScopeMissing(Problem):
    """The API key lacks a scope."""

    status = 403
    code = "scope_missing"


class DatasetNotAllowed(Problem):
    """The API key is limited to other datasets."""

    status = 403
    code = "dataset_not_allowed"

    def __init__(self, dataset: str, allowed: Collection[str]) -> None:
        super().__init__(f"This API key may not use the dataset {dataset}, only: {', '.join(sorted(allowed))}.")


class HostNotAllowed(Problem):
    """Without keys, this service does not serve this host."""

    status = 403
    code = "host_not_allowed"

    def __init__(self) -> None:
        super().__init__(
            "Without API keys only requests to localhost, 127.0.0.1 and [::1] are answered. "
            "If the Host of this request is right, add it to HTTP_HOSTS."
        )


class OriginNotAllowed(Problem):
    """The request comes from a web page of another site."""

    status = 403
    code = "origin_not_allowed"

    def __init__(
        self,
        detail: str = "Without API keys, web pages of other sites may not change anything here. "
        "If the Origin of this request is right, add its host to HTTP_HOSTS.",
    ) -> None:
        super().__init__(detail)


class NotFound(Problem):
    """The resource does not exist."""

    status = 404
    code = "not_found"


class MethodNotAllowed(Problem):
    """The path does not have this method; `Allow` lists its methods."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, methods: list[str]) -> None:
        allowed = ", ".join(methods)
        super().__init__(f"This path takes: {allowed}.", headers={"Allow": allowed})


class NotAcceptable(Problem):
    """No response of the endpoint satisfies Accept."""

    status = 406
    code = "not_acceptable"


class RequestTimeout(Problem):
    """The client did not continue its request in time."""

    status = 408
    code = "request_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The rest of the request did not arrive within {seconds:g} s.")


class BodyTooSlow(Problem):
    """The client sends the body too slowly."""

    status = 408
    code = "body_too_slow"

    def __init__(self, bytes_per_second: int, seconds: float) -> None:
        super().__init__(
            f"The body came at under {bytes_per_second} bytes a second for {seconds:g} s. Send it faster, or in "
            "several requests: PATCH /imports/{id} of the ingestion API continues an upload."
        )


class Conflict(Problem):
    """The request conflicts with the state of the resource."""

    status = 409
    code = "conflict"


class TooLarge(Problem):
    """The body, or a part of it, is over a limit."""

    status = 413
    code = "body_too_large"


class UnsupportedType(Problem):
    """The endpoint does not read the body's media type or encoding."""

    status = 415
    code = "unsupported_media_type"


class InvalidFields(Problem):
    """Fields or parameters are wrong; `errors` lists them, up to a hundred."""

    status = 422
    code = "invalid_fields"

    def __init__(self, errors: list[FieldError], count: int | None = None) -> None:
        """`count`: the number of wrong fields, if `errors` has only the first of them."""
        self.count = count or len(errors)
        self.errors = errors[:ERRORS_SHOWN]
        wrong = ", ".join(dict.fromkeys(e.pointer or e.parameter or "body" for e in self.errors))
        detail, parameter = f"Wrong: {wrong}. See errors.", self.errors[0].parameter
        if self.count == 1 and parameter:
            said = self.errors[0].detail
            detail = said if said.startswith(parameter) else f"{parameter}: {said}"
        super().__init__(detail)
        self.extra = {"errors": [error.as_dict() for error in self.errors]}


class RateLimited(Problem):
    """The key is over its rate limit."""

    status = 429
    code = "rate_limited"

    def __init__(self, requests_per_second: float, burst: int, retry_after_seconds: int) -> None:
        super().__init__(
            f"This API key may send {requests_per_second:g} requests a second, and {burst} at once.",
            headers={"Retry-After": str(retry_after_seconds)},
        )


class ShareExceeded(Problem):
    """The client has used up its share of a resource."""

    status = 429
    code = "share_exceeded"

    def __init__(self, what: str, places: int) -> None:
        super().__init__(
            f"One client may have {places} {what} under way or waiting. Try again when one has ended.",
            headers={"Retry-After": "5"},
        )


class HeadTooLarge(Problem):
    """Address and headers are over their limit."""

    status = 431
    code = "head_too_large"

    def __init__(self, most: int) -> None:
        super().__init__(f"Address and headers may have {most} bytes together.")


class Unavailable(Problem):
    """A dependency is temporarily unavailable; retrying later helps."""

    status = 503
    code = "unavailable"

    def __init__(self, detail: str, *, code: str | None = None, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after_seconds)})


def refuse_body(error: ValidationError) -> Problem:
    """Return the problem of a body that is not JSON (`Malformed`), or does not fit its model (`InvalidFields`)."""
    errors = error.errors(include_url=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return Malformed(f"{errors[0]['msg']}.", code="malformed_json")
    fields = [FieldError(e["type"], explain_field(e), pointer=_pointer(e["loc"])) for e in errors[:ERRORS_SHOWN]]
    return InvalidFields(fields, len(errors))


def _pointer(path: tuple[int | str, ...]) -> str:
    """Return the JSON pointer of pydantic's location; an error in a member's name gets the member's pointer."""
    return json_pointer(path[:-1] if path[-1:] == ("[key]",) else path)


def problem_response(problem: Problem) -> Response:
    """Render a problem; its media type does not depend on Accept."""
    body = json.dumps(problem.as_dict(), ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, problem.status, problem.headers, PROBLEM_TYPE)


def require_dataset(name: str, datasets: Datasets) -> None:
    """Check the parameter `dataset`.

    Raises:
        InvalidFields: there is no dataset of this name.
    """
    if name not in datasets:
        known = ", ".join(sorted(datasets))
        detail = f"dataset {quoted(name)} is not one of {known}"
        raise InvalidFields([FieldError("unknown_dataset", detail, parameter="dataset")])
