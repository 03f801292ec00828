"""What the other end of the pipe sees when a body does not come whole."""

from collections.abc import AsyncIterator

import anyio
import pytest

from ingestion_api.bulk.pipes import open_pipe, receive_body, send_body
from ingestion_api.dependencies import BodyCut, BodyTimeout, receive_parts


async def _breaks_with(error: Exception | None) -> AsyncIterator[bytes]:
    yield b"first"
    if error is not None:
        raise error
    await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("error", "seen"),
    [(BodyCut(), BodyCut), (None, BodyTimeout), (ZeroDivisionError(), BodyCut)],
)
def test_the_reader_is_told_why_a_body_ends(error: Exception | None, seen: type[Exception]) -> None:
    received: list[bytes] = []
    with open_pipe() as (path, end):
        anyio.run(send_body, receive_parts(_breaks_with(error), 0.05), end)
        with pytest.raises(seen):
            received.extend(receive_body(path, 0.05))
    assert received == [b"first"]


def test_a_whole_body_arrives_in_its_pieces() -> None:
    async def body() -> AsyncIterator[bytes]:
        for piece in (b"a", b"", b"b" * 1000):
            yield piece

    with open_pipe() as (path, end):
        anyio.run(send_body, body(), end)
        assert list(receive_body(path, 1)) == [b"a", b"b" * 1000]
