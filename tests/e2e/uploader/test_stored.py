"""What the uploader concludes deletions from: how Argilla names the records that its database has."""

import asyncio
from uuid import UUID, uuid4

import httpx

from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import AddTexts, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import statuses
from tests.waiting import wait_for
from uploader.argilla.client import Argilla


def test_argilla_names_the_records_that_it_has_and_stores_none(
    stack: RunningStack,
    start_uploader: StartUploader,
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
) -> None:
    with start_uploader():
        ids = [str(id_) for id_ in add_texts("one", "two", "three")]
        wait_for(lambda: statuses(database_url) == {"uploaded": 3})
    # Not in the index, but in the database.
    index = next(name for name in _indexes(stack) if argilla.dataset()["id"] in name)
    path = f"{stack.opensearch_url}/{index}/_doc/{argilla.record(UUID(ids[0]))['id']}"
    httpx.delete(path, params={"refresh": "true"}).raise_for_status()
    argilla.http.delete(f"records/{argilla.record(UUID(ids[1]))['id']}").raise_for_status()
    strangers = [str(uuid4()) for _ in range(240)]

    async def find(external_ids: list[str]) -> tuple[set[str], set[str]]:
        headers = {"X-Argilla-Api-Key": stack.argilla_api_key}
        async with httpx.AsyncClient(base_url=f"{stack.argilla_url}/api/v1/", headers=headers) as http:
            client, dataset_id = Argilla(http), UUID(argilla.dataset()["id"])
            stored = await client.find_stored(dataset_id, external_ids)
            return stored, await client.find_records(dataset_id, external_ids)

    assert asyncio.run(find([*strangers, *ids])) == ({ids[0], ids[2]}, {ids[2]})
    assert asyncio.run(find(strangers)) == (set(), set())
    assert argilla.stored_count() == 2


def _indexes(stack: RunningStack) -> list[str]:
    found = httpx.get(f"{stack.opensearch_url}/_cat/indices", params={"format": "json"}).json()
    return [item["index"] for item in found]
