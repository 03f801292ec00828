"""Tests of core.datasets."""

from uuid import UUID

from core.datasets import page_url


def test_the_page_is_sorted_and_shows_what_is_pending() -> None:
    id_ = UUID(int=7)
    wanted = f"http://a/dataset/{id_}/annotation-mode?status=pending&sort=metadata.position.asc"
    assert page_url("http://a/", id_) == wanted
