"""A bucket admits requests up to its limit, and reports the right remainder."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import Limit
from core.web.rate_limits import Bucket

RATES = st.floats(0.01, 1000, allow_nan=False)


def left(bucket: Bucket, now: float) -> tuple[int, int]:
    found = re.fullmatch(rb'"key";r=(\d+);t=(\d+)', bucket.headers(now)[1][1])
    assert found
    return int(found[1]), int(found[2])


@given(RATES, st.integers(1, 50), st.lists(st.floats(0, 5), max_size=60))
def test_it_is_a_bucket_that_fills_up(rate: float, burst: int, pauses: list[float]) -> None:
    """Against the plain model: a number of tokens, which grows by the rate up to the burst."""
    bucket, now, tokens = Bucket(Limit(rate, burst)), 1000.0, float(burst)
    for pause in pauses:
        now += pause
        tokens = min(burst, tokens + pause * rate)
        if abs(tokens - 1) < 1e-4:
            return  # as exact as floats are
        wait = bucket.take(now)
        assert (wait == 0) == (tokens >= 1)
        if wait:
            assert abs(wait - (1 - tokens) / rate) < 1e-4
        else:
            tokens -= 1
        remaining, until_full = left(bucket, now)
        assert tokens - 1 - 1e-3 <= remaining <= tokens + 1e-3
        assert until_full >= (burst - tokens) / rate - 1e-3


@given(RATES, st.integers(1, 20))
def test_who_waits_as_told_is_let_through(rate: float, burst: int) -> None:
    bucket, now = Bucket(Limit(rate, burst)), 0.0
    for _ in range(burst + 3):
        now += bucket.take(now)
        if left(bucket, now)[0] == 0:
            now += bucket.take(now) or 0
    for _ in range(10):
        wait = bucket.take(now)
        if wait:
            assert bucket.take(now + wait) == 0
            now += wait


@pytest.mark.parametrize("rate", [0.1, 1, 3, 7, 10, 1000 / 3])
@pytest.mark.parametrize("burst", [1, 3, 20])
def test_a_burst_passes_whole_and_each_request_is_counted(rate: float, burst: int) -> None:
    bucket = Bucket(Limit(rate, burst))
    assert left(bucket, 0.0) == (burst, 0)
    for taken in range(1, burst + 1):
        assert bucket.take(0.0) == 0
        remaining, until_full = left(bucket, 0.0)
        assert remaining == burst - taken
        assert until_full in {math.ceil(taken / rate - 1e-9), math.ceil(taken / rate + 1e-9)}
    assert bucket.take(0.0) == pytest.approx(1 / rate)
    assert left(bucket, 0.0)[0] == 0


def test_a_bucket_that_rests_is_full_and_no_fuller() -> None:
    bucket = Bucket(Limit(1, 2))
    bucket.take(0.0)
    assert left(bucket, 100.0) == (2, 0)
    assert [bucket.take(100.0) for _ in range(3)] == [0, 0, 1]


def test_the_policy_is_what_the_draft_has() -> None:
    policies = {
        (100, None): b'"key";q=100;w=1',
        (50, 100): b'"key";q=100;w=2',
        (0.1, None): b'"key";q=1;w=10',
        (2.5, None): b'"key";q=3;w=2',
    }
    for (rate, burst), policy in policies.items():
        limit = Limit.of(rate, burst)
        assert limit
        assert Bucket(limit).headers()[0] == (b"ratelimit-policy", policy)
    assert Limit.of(None, 5) is None
