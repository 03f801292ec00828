"""Compares how much Argilla holds with how much we hold: what a lost event or a deletion changed shows here.

It costs Argilla three or four calls, however many texts there are. Only an edit that leaves an answer's status as
it was cannot be seen this way; it is found by its activity, by its event, or by the next full sweep.
"""

from datetime import datetime
from uuid import UUID

from uploader.argilla.client import Argilla
from uploader.argilla.records import to_moment
from uploader.dataset import DatasetState
from uploader.pull import repository
from uploader.pull.repository import Counts


async def find_difference(state: DatasetState, argilla_dataset_id: UUID, activity: datetime) -> Counts | None:
    """Return by how much Argilla's counts are over ours, where they differ.

    None when something changed meanwhile, so that it cannot be decided. `activity` is Argilla's last_activity_at
    before this call.
    """
    held = await _count_held(state)
    if held is None:
        return None
    theirs = await count_in_argilla(state.argilla, argilla_dataset_id)
    names = sorted(held.keys() | theirs.keys())
    difference = {name: n for name in names if (n := theirs.get(name, 0) - held.get(name, 0))}
    if difference and not await _stood_still(state, argilla_dataset_id, held, activity):
        return None
    return difference


async def _stood_still(state: DatasetState, argilla_dataset_id: UUID, held: Counts, activity: datetime) -> bool:
    dataset = await state.argilla.get_dataset(argilla_dataset_id)
    return to_moment(dataset["last_activity_at"]) == activity and await _count_held(state) == held


async def _count_held(state: DatasetState) -> Counts | None:
    async with state.engine.connect() as connection:
        return await repository.count_held(connection, state.name)


async def count_in_argilla(argilla: Argilla, argilla_dataset_id: UUID) -> Counts:
    """Count responses by annotator and status, and records in Argilla's database and in its index."""
    path = f"datasets/{argilla_dataset_id}"
    counts: Counts = {}
    for user in (await argilla.call("GET", f"{path}/users/progress"))["users"]:
        for by_status in (user.get("pending"), user.get("completed")):
            for status, n in (by_status or {}).items():
                name = f"{user['username']}/{status}"
                counts[name] = counts.get(name, 0) + n
    counts["stored"] = (await argilla.call("GET", f"{path}/records", limit=1))["total"]
    counts["visible"] = (await argilla.call("GET", f"{path}/progress"))["total"]
    return {name: n for name, n in counts.items() if n}
