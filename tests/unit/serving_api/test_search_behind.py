"""How long the search index has been behind."""

from serving_api.search.follower import Behind


def test_the_age_of_the_first_version_that_is_lacking() -> None:
    now = 0.0
    behind = Behind(lambda: now)
    seen = []
    # Version 5 comes at 1 s and is reached at 4 s, when 9 is there; 9 is reached at 6 s.
    for now, version, followed in [  # noqa: B007 - the clock reads it
        (0, 4, 4),
        (1, 4, 5),
        (2, 4, 7),
        (3, 4, 9),
        (4, 5, 9),
        (5, 8, 9),
        (6, 9, 9),
    ]:
        seen.append(behind.seconds(version, followed))
    assert seen == [0, 0, 1, 2, 0, 1, 0]


def test_an_index_that_keeps_up_is_not_behind_though_it_is_never_there() -> None:
    now = 0.0
    behind = Behind(lambda: now)
    for now in range(100):
        assert behind.seconds(now, now + 1) <= 1
