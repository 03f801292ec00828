"""Content-Encoding: whatever the chunks, the same bytes; whatever the bomb, little memory."""

import gzip
import itertools
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from core.tables.decoding import PlainBody, require_encoding
from core.web.problems import Malformed, TooLarge, UnsupportedType
from tests.unit.core.test_tables import CUTS, cut

Compress = Callable[[bytes], bytes]
ENCODINGS = [("gzip", gzip.compress), ("zstd", zstd.compress), ("identity", bytes)]
COMPRESSED = ENCODINGS[:2]


@pytest.mark.parametrize(("encoding", "compress"), ENCODINGS)
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=3), sizes=CUTS)
def test_bodies_of_several_members_are_read_in_any_chunks(
    encoding: str, compress: Compress, parts: list[bytes], sizes: list[int]
) -> None:
    body = b"".join(map(compress, parts))
    assert b"".join(PlainBody(cut(body, sizes), encoding)) == b"".join(parts)


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSED)
@pytest.mark.parametrize("lost", [1, 5, 20])
def test_a_body_that_is_cut_short_is_malformed(encoding: str, compress: Compress, lost: int) -> None:
    with pytest.raises(Malformed):
        list(PlainBody([compress(bytes(range(256)) * 100)[:-lost]], encoding))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@given(body=st.binary(min_size=1, max_size=100))
def test_rubbish_is_malformed(encoding: str, body: bytes) -> None:
    with pytest.raises(Malformed):
        list(PlainBody([body], encoding))


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x"])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedType):
        require_encoding(encoding)


@pytest.mark.parametrize(
    ("header", "encoding"), [(None, "identity"), (" GZIP ", "gzip"), ("x-gzip", "gzip"), ("zstd", "zstd")]
)
def test_encodings_are_named_in_any_case(header: str | None, encoding: str) -> None:
    assert require_encoding(header) == encoding


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSED)
def test_a_bomb_is_refused_in_little_memory(encoding: str, compress: Compress) -> None:
    bomb = compress(bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        for _ in PlainBody([bomb], encoding):
            pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000


def test_a_small_bomb_is_refused_as_well() -> None:
    with pytest.raises(TooLarge):
        list(PlainBody([gzip.compress(bytes(20 * 1024 * 1024))], "gzip"))


def test_small_chunks_are_joined_and_those_before_a_cut_are_not_lost() -> None:
    """A reader copies and searches an unfinished row again with each chunk."""

    def chunks() -> Iterator[bytes]:
        yield from itertools.repeat(b"x", 200_000)
        raise ConnectionError

    body = PlainBody(chunks(), "identity")
    parts = iter(body)
    assert [len(next(parts)) for _ in range(4)] == [65536, 65536, 65536, 3392]
    assert body.sent_bytes == 200_000
    with pytest.raises(ConnectionError):
        next(parts)


def test_a_long_body_that_compresses_as_texts_do_is_no_bomb() -> None:
    member = gzip.compress(b"".join(b"line %d of a text\n" % n for n in range(60_000)))

    def body() -> Iterator[bytes]:
        yield from itertools.repeat(member, 100)

    assert sum(map(len, PlainBody(body(), "gzip"))) > 100_000_000
