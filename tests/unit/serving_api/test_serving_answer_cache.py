from serving_api.replica.query_pool import Answer, AnswerCache
from serving_api.replica.repository import Point

POINT = Point("cluster", 1)


def answer(size: int = 10, point: Point = POINT) -> Answer:
    return Answer(b"x" * size, point, '"etag"', b"key", "toxicity")


def test_answer_is_found_for_its_point_only() -> None:
    cache = AnswerCache(10_000)
    kept = answer()
    cache.put(b"a", kept)
    assert cache.get_or_none(POINT, b"a") is kept
    assert cache.get_or_none(POINT, b"b") is None
    assert cache.get_or_none(Point("cluster", 2), b"a") is None
    assert cache.get_or_none(Point("other", 1), b"a") is None


def test_new_point_drops_the_old_answers() -> None:
    cache = AnswerCache(10_000)
    cache.put(b"a", answer())
    cache.put(b"b", answer(point=Point("cluster", 2)))
    assert cache.get_or_none(POINT, b"a") is None


def test_least_recently_used_answer_goes_first() -> None:
    cache = AnswerCache(3 * 2024)
    for key in (b"a", b"b", b"c"):
        cache.put(key, answer(1000))
    cache.get_or_none(POINT, b"a")
    cache.put(b"d", answer(1000))
    assert [bool(cache.get_or_none(POINT, key)) for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_answer_larger_than_the_cache_is_not_kept() -> None:
    cache = AnswerCache(100)
    cache.put(b"a", answer(1000))
    assert cache.get_or_none(POINT, b"a") is None


def test_same_answer_twice_counts_once() -> None:
    cache = AnswerCache(3 * 2024)
    for key in (b"a", b"b", b"b", b"b", b"c"):
        cache.put(key, answer(1000))
    assert cache.get_or_none(POINT, b"a")
