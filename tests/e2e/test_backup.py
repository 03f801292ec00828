"""Everything is destroyed, and comes back from an archive: on real parts, into a stack with other passwords."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.text_identity import text_id
from local_stack.progress import Display
from local_stack.settings import StackSettings
from local_stack.stack import EVERYTHING, Stack
from local_stack.testing import RunningStack, settings_for_tests
from tests.e2e.test_journey import served
from tests.e2e.uploader.conftest import DATASET, Annotator, ArgillaSpace, open_argilla
from tests.programs import free_port, run, running
from tests.waiting import wait_for

TEXTS = [f"Text number {number} of those that must not be lost." for number in range(40)]
PASSWORD = "long enough for Argilla"
STORES = frozenset({"postgres", "opensearch"})

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@contextmanager
def started(settings: StackSettings, components: frozenset[str] = EVERYTHING) -> Iterator[RunningStack]:
    stack = Stack(settings, Display(), components)
    try:
        stack.start()
        yield RunningStack(stack)
    finally:
        stack.stop()


def annotate(stack: RunningStack, *arguments: str) -> str:
    """Run a command with only the stack's DATA_DIR and ports in its environment."""
    ports = {name: str(port) for name, port in stack.settings.ports.items()}
    env = ports | {"DATA_DIR": str(stack.settings.data_dir), "COLUMNS": "300"}
    result = run("cli", *arguments, env=env, seconds=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def space(stack: RunningStack) -> ArgillaSpace:
    http = open_argilla(stack.argilla_url, stack.argilla_api_key)
    return ArgillaSpace(http, "annotation", stack.argilla_url, stack.database_url)


def uploaded(stack: RunningStack) -> int:
    return int(httpx.get(f"{stack.ingestion_url}/queue").json()["uploaded"])


def post(stack: RunningStack, text: str) -> dict[str, Any]:
    answer = httpx.post(f"{stack.ingestion_url}/texts", json={"text": text, "source": "test"})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def log_in(stack: RunningStack, name: str) -> httpx.Response:
    return httpx.post(f"{stack.argilla_url}/api/v1/token", data={"username": name, "password": PASSWORD})


def label(stack: RunningStack, annotator: Annotator, text: str, value: str) -> None:
    annotator.answer(space(stack).record(text_id(DATASET, text))["id"], value)


def add_annotator(stack: RunningStack, name: str) -> Annotator:
    argilla = space(stack)
    body = {"first_name": name, "username": name, "role": "annotator", "password": PASSWORD}
    user = argilla.http.post("users", json=body).raise_for_status().json()
    workspaces = argilla.http.get("me/workspaces").json()["items"]
    [id_] = [workspace["id"] for workspace in workspaces if workspace["name"] == argilla.workspace]
    argilla.http.post(f"workspaces/{id_}/users", json={"user_id": user["id"]}).raise_for_status()
    return Annotator(user["id"], name, open_argilla(stack.argilla_url, user["api_key"]))


def test_everything_is_destroyed_and_comes_back(tmp_path: Path) -> None:
    with settings_for_tests() as settings:
        archives = tmp_path / "archives"
        with started(settings) as stack:
            for text in TEXTS:
                post(stack, text)
            wait_for(lambda: uploaded(stack) == len(TEXTS), 120)
            ann = add_annotator(stack, "ann")
            for number, text in enumerate(TEXTS[:20]):
                label(stack, ann, text, "toxic" if number % 3 else "non_toxic")
            wait_for(lambda: len(served(stack)) == 20, 120)
            before = served(stack)
            annotate(stack, "snapshot", "create", "first", "--split", "train=0.5", "--split", "test=0.5")
            key = annotate(stack, "keys", "create", "reader", "--scope", "read")
            ann_key = ann.http.headers["X-Argilla-Api-Key"]
            archive = annotate(stack, "backup", str(archives))
            # What comes after the back-up is lost, and does no harm.
            late = "This one comes after the back-up."
            post(stack, late)
            wait_for(lambda: uploaded(stack) == len(TEXTS) + 1, 120)
            label(stack, ann, TEXTS[30], "toxic")
        shutil.rmtree(settings.data_dir)

        with started(settings, STORES) as stack:
            annotate(stack, "backup", "verify", archive)
            said = annotate(stack, "restore", archive)
            assert "Argilla's search index is made anew." in said
        with started(settings) as stack:
            wait_for(lambda: len(served(stack)) == 20, 120)
            assert served(stack) == before
            assert uploaded(stack) == len(TEXTS)
            assert httpx.get(f"{stack.ingestion_url}/texts/{text_id(DATASET, late)}").status_code == 404
            # The records are those of before: nothing was set aside, or sent again into another dataset.
            argilla = space(stack)
            assert argilla.visible_count() == argilla.stored_count() == len(TEXTS)
            names = [one["name"] for one in argilla.http.get("me/datasets").json()["items"]]
            assert [name for name in names if name.startswith(DATASET)] == [DATASET]
            annotate(stack, "uploads", "verify")
            annotate(stack, "snapshot", "verify", "first")
            # Annotators come back, by password and by key, and their answers become labels; so do new texts.
            assert log_in(stack, "ann").status_code == 201
            ann = Annotator(ann.id, "ann", open_argilla(stack.argilla_url, ann_key))
            assert post(stack, TEXTS[0])["duplicate"]
            assert not post(stack, late)["duplicate"]
            wait_for(lambda: uploaded(stack) == len(TEXTS) + 1, 120)
            for text in (TEXTS[30], late):
                label(stack, ann, text, "toxic")
            wait_for(lambda: len(served(stack)) == 22, 120)
            _check_key(stack, key, tmp_path / "serving")


def _check_key(stack: RunningStack, key: str, folder: Path) -> None:
    port = free_port()
    env = stack.env | {"DATA_DIR": str(folder), "REQUIRE_API_KEY": "true", "SERVING_PORT": str(port)}
    folder.mkdir()
    with running("serving_api", env, folder / "log", probe="/readyz", port=port) as program:
        assert httpx.get(f"{program.url}/stats").status_code == 401
        answer = httpx.get(f"{program.url}/stats", headers={"Authorization": f"Bearer {key}"})
        assert answer.json()["total"] == 22
