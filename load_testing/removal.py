"""Deletes the texts of one load test from the dataset `loadtest`."""

import json
import os
from pathlib import Path

import psycopg

# The external ids are those of users/comment_texts.py. Nothing labels these texts, so no replica knows them.
_REMOVE = """
delete from texts where dataset = %s and starts_with(external_id, %s) and status = 'pending'
"""
_LEFT = "select count(*) from texts where dataset = %s and starts_with(external_id, %s)"


def find_database(ingestion_url: str) -> str | None:
    """Return DATABASE_URL, else the address in `stack.json` if that stack is the one under load; else None."""
    if url := os.environ.get("DATABASE_URL"):
        return url
    file = Path(os.environ.get("DATA_DIR") or ".data") / "stack.json"
    # The project's folder, not that of the Locust files, holds `.data`.
    for path in (file, Path(__file__).parents[1] / file):
        if path.is_file():
            stack = json.loads(path.read_text())
            if stack["ingestion_url"] == ingestion_url.rstrip("/").replace("//localhost:", "//127.0.0.1:"):
                return str(stack["database_url"])
    return None


def remove_texts(database_url: str, dataset: str, seed: str) -> tuple[int, int]:
    """Delete the texts that follow from this seed; return how many went, and how many annotators already have.

    Raises:
        psycopg.Error: Postgres does not answer or refuses.
    """
    prefix = f"post-{seed}-"
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        removed = connection.execute(_REMOVE, [dataset, prefix]).rowcount
        row = connection.execute(_LEFT, [dataset, prefix]).fetchone()
    return removed, row[0] if row else 0
