"""Answers that are ready to send again, for as long as the replica's version stands still."""

from collections import OrderedDict
from dataclasses import dataclass

from serving_api.metrics import CACHE_LOOKUPS
from serving_api.repository import Point

# What an entry takes beside its body, roughly.
_ENTRY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer, and the point of the change feed it was made from."""

    body: bytes
    point: Point
    etag: str
    key: bytes  # what was asked for
    dataset: str  # whose texts it tells of
    next_cursor: str | None = None


class AnswerCache:
    """The most recently used answers of the newest point, up to so many bytes. For one thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._point: Point | None = None
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def get_or_none(self, point: Point, key: bytes) -> Answer | None:
        """Return the answer for `key`, if it was made from `point`."""
        answer = self._answers.get(key) if point == self._point else None
        CACHE_LOOKUPS.labels("hit" if answer else "miss").inc()
        if answer:
            self._answers.move_to_end(key)
        return answer

    def holds(self, point: Point, key: bytes) -> bool:
        """Whether the answer for `key`, made from `point`, is there."""
        return point == self._point and key in self._answers

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer; those of other points are dropped."""
        if answer.point != self._point:
            self._answers.clear()
            self._bytes, self._point = 0, answer.point
        if key in self._answers:
            return
        self._answers[key] = answer
        self._bytes += len(answer.body) + _ENTRY_BYTES
        while self._bytes > self._bytes_max:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= len(oldest.body) + _ENTRY_BYTES
