"""Takes forgotten texts out of snapshots, through the serving API."""

import time
from typing import Annotated, Any

import httpx
import typer
from sqlalchemy import Engine, text

from cli import addresses
from cli.console import fail, out, printable
from cli.people.audit_log import noted
from core.audit import Action
from core.connections import make_engine

_WAIT_SECONDS = 60
LOOK_SECONDS = 0.5
# A snapshot is written anew in that time.
_TIMEOUT_SECONDS = 600
# The API takes 1 MiB.
_IDS_AT_ONCE = 20_000

_NEWEST = text("""
select coalesce(max(cast(cast(changed_xid as text) as bigint)), 0)
from labels join forget_requests using (text_id)
where was_labelled and copy_of is null
""")


def read_forgotten() -> dict[str, Any]:
    """Return how far forgetting has come, as the serving API says.

    Raises:
        httpx.HTTPError: it does not answer, or takes no key for this.
    """
    answer = httpx.get(f"{addresses.serving_url()}/forgotten", headers=addresses.headers(), timeout=60)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def rewrite_marked(engine: Engine, name: str | None = None) -> None:
    """Rewrite all snapshots that hold forgotten texts, or the one of this name, once the replica knows these."""
    with engine.connect() as connection:
        newest: int = connection.execute(_NEWEST).scalar_one()
    refusals = []
    try:
        marked = [one for one in _wait_for(newest)["snapshots"] if name in {None, one["name"]}]
        for snapshot in marked:
            try:
                with noted(Action.SNAPSHOT_REWRITTEN, snapshot["name"], texts=len(snapshot["ids"])):
                    _rewrite(snapshot)
            except httpx.HTTPStatusError as error:  # the others are rewritten all the same
                refusals.append(f"{snapshot['name']}: {printable(error.response.text)}")
    except httpx.HTTPStatusError as error:
        fail(f"{error.request.url}: {printable(error.response.text)}")
    except httpx.HTTPError as error:
        fail(f"The serving API at {addresses.serving_url()}: {error}")
    out.print(f"{len(marked) - len(refusals):,} snapshots were rewritten.")
    if refusals:
        fail("\n".join(refusals))


def _wait_for(version: int) -> dict[str, Any]:
    deadline = time.monotonic() + _WAIT_SECONDS
    while (seen := read_forgotten())["version"] < version:
        if time.monotonic() > deadline:
            fail("The replica does not know these texts yet. Run it again with --rewrite-snapshots alone.")
        time.sleep(LOOK_SECONDS)
    return seen


def _rewrite(snapshot: dict[str, Any]) -> None:
    url = f"{addresses.serving_url()}/snapshots/{snapshot['name']}/rewrite"
    for first in range(0, len(snapshot["ids"]), _IDS_AT_ONCE):
        body = {"without": snapshot["ids"][first : first + _IDS_AT_ONCE]}
        httpx.post(url, json=body, headers=addresses.headers(), timeout=_TIMEOUT_SECONDS).raise_for_status()
    out.print(f"{snapshot['name']}: {len(snapshot['ids']):,} texts taken out")


def rewrite(name: Annotated[str, typer.Argument(help="As `GET /snapshots` shows it.")]) -> None:
    """Take the texts out of a snapshot that were forgotten since it was made."""
    rewrite_marked(make_engine(addresses.database(), "annotate snapshot"), name)
