"""Argilla's page for annotators, in the order that a dataset's settings ask for."""

from uuid import UUID

# The metadata by which the page is sorted, upwards.
PAGE_POSITION = "position"


def page_path(argilla_dataset_id: UUID) -> str:
    """Return the path of a dataset's page. Without a sort it shows each user an order of their own, by chance."""
    return f"/dataset/{argilla_dataset_id}/annotation-mode?status=pending&sort=metadata.{PAGE_POSITION}.asc"


def page_url(argilla_url: str, argilla_dataset_id: UUID) -> str:
    """Return the address of a dataset's page in the Argilla at `argilla_url`."""
    return argilla_url.rstrip("/") + page_path(argilla_dataset_id)
