"""`locust`, in this folder: opens the page on http://localhost:8089, with the users of either API to choose."""

import sys
from pathlib import Path

# Locust puts this folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load_testing import run_listeners  # noqa: F401 - listens
from load_testing.ingestion_users import IngestionUser
from load_testing.serving_users import ServingUser
from load_testing.shapes import Plan

__all__ = ["IngestionUser", "Plan", "ServingUser"]
