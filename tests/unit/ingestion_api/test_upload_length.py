"""The length of an import's body: what a request's headers say of it, and which of them contradict each other."""

import pytest

from core.web.problems import InvalidFields, Malformed, Problem, TooLarge
from ingestion_api.imports.schemas import UploadHeaders
from ingestion_api.imports.upload import expected_length

MOST = 1000


def _length(
    content: str | None = None,
    *,
    complete: bool | None = None,
    announced: int | None = None,
    offset: int = 0,
    known: int | None = None,
) -> int | None:
    said = None if complete is None else f"?{int(complete)}"
    headers = UploadHeaders.model_validate({"upload_complete": said, "upload_length": announced})
    return expected_length(content, headers, offset, known, MOST)


@pytest.mark.parametrize(
    ("request_", "length"),
    [
        # A plain request is the whole body; in chunks, its length is unknown.
        ({"content": "10"}, 10),
        ({"content": "0"}, 0),
        ({"content": None}, None),
        ({"content": "ten"}, None),
        # The last part ends the body, any other does not.
        ({"content": "10", "offset": 5, "complete": True}, 15),
        ({"content": "10", "offset": 5, "complete": False}, None),
        ({"offset": 5, "complete": True}, None),
        # What was announced, now or before, counts.
        ({"content": "10", "announced": 30}, 30),
        ({"content": "10", "known": 30}, 30),
        ({"content": "10", "announced": 30, "known": 30}, 30),
        ({"content": "10", "offset": 20, "announced": 30, "complete": True}, 30),
        ({"content": "10", "offset": 20, "known": 30, "complete": False}, 30),
        # Up to the limit.
        ({"content": str(MOST)}, MOST),
        ({"content": "1", "offset": MOST - 1, "complete": False}, None),
        ({"announced": MOST}, MOST),
    ],
)
def test_the_length_follows_from_what_was_announced(request_: dict[str, object], length: int | None) -> None:
    assert _length(**request_) == length  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "problem", "words"),
    [
        ({"announced": 30, "known": 31}, Malformed, "30, 31"),
        ({"content": "10", "complete": True, "announced": 9}, Malformed, "9, 10"),
        ({"content": "10", "complete": True, "announced": 11}, Malformed, "10, 11"),
        ({"content": "10", "announced": 9}, Malformed, "9, 10"),
        ({"content": "10", "offset": 25, "known": 30}, Malformed, "30, 35"),
        ({"offset": 31, "known": 30}, Malformed, "30, 31"),
        ({"content": str(MOST + 1)}, TooLarge, str(MOST)),
        ({"content": "2", "offset": MOST - 1, "complete": False}, TooLarge, str(MOST)),
        ({"known": MOST + 1}, TooLarge, str(MOST)),
    ],
)
def test_contradictions_and_long_bodies_are_refused(
    request_: dict[str, object], problem: type[Problem], words: str
) -> None:
    with pytest.raises(problem) as refusal:
        _length(**request_)  # type: ignore[arg-type]
    assert words in refusal.value.detail


def test_an_announcement_over_the_limit_names_its_header() -> None:
    with pytest.raises(InvalidFields) as refusal:
        _length(announced=MOST + 1)
    [error] = refusal.value.errors
    assert (error.parameter, error.detail) == ("upload-length", f"must be at most {MOST}")
