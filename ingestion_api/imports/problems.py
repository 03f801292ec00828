"""Why an upload cannot go on; the types are those of draft-ietf-httpbis-resumable-upload."""

from core.problems import Problem

_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"


def upload_state(offset: int, complete: str) -> dict[str, str]:
    """Return the headers that tell how much is stored, and whether (`?1`, `?0`) that is all."""
    return {"Upload-Offset": str(offset), "Upload-Complete": complete}


class OffsetMismatch(Problem):
    """The request does not begin where the stored body ends."""

    status = 409
    code = "upload_offset_mismatch"

    def __init__(self, expected: int, provided: int) -> None:
        super().__init__(f"{expected} bytes are stored; send what follows.", headers=upload_state(expected, "?0"))
        self.extra = {
            "type": f"{_PROBLEM_TYPES}mismatching-upload-offset",
            "expected-offset": expected,
            "provided-offset": provided,
        }


class UploadCompleted(Problem):
    """The whole body is there already."""

    status = 409
    code = "upload_completed"

    def __init__(self, offset: int) -> None:
        super().__init__("The upload is complete; nothing can be added.", headers=upload_state(offset, "?1"))
        self.extra = {"type": f"{_PROBLEM_TYPES}completed-upload"}


class ImportEnded(Problem):
    """The import is over, so that it cannot be changed."""

    status = 409
    code = "import_ended"


class InconsistentLength(Problem):
    """The body's length is not what was announced."""

    status = 400
    code = "inconsistent_upload_length"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.extra = {"type": f"{_PROBLEM_TYPES}inconsistent-upload-length"}


class TooManyImports(Problem):
    """The client has as many unfinished imports as it may have."""

    status = 429
    code = "too_many_imports"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"You have {most} unfinished imports, and may have no more. Finish or delete one: "
            "GET /imports lists them.",
            headers={"Retry-After": "60"},
        )


class ImportBytesExceeded(Problem):
    """The bodies of the client's imports are as long together as they may be."""

    status = 413
    code = "import_bytes_exceeded"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The bodies of your unfinished imports may have {most} bytes together. "
            "Wait until some have ended, or delete some; then go on with this one."
        )
