"""The order of the tests that share a running stack."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put those that kill the stack's parts behind those that use them."""
    items.sort(key=lambda item: item.path.name == "test_local_stack.py")
