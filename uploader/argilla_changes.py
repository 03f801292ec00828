"""What the settings make of Argilla's datasets, workspaces and webhooks leaves an audit line."""

from typing import Any

from core.audit import Action, Actor, Entry, write_line
from uploader.argilla_client import Argilla


async def change(argilla: Argilla, method: str, path: str, body: Any = None) -> Any:
    """Call Argilla to change what is no text and no answer, and note it; raises as `Argilla.call` does."""
    answer = await argilla.call(method, path, body)
    actor = Actor("program", "uploader")
    write_line(Entry("uploader", actor, Action.ARGILLA_CHANGED, [path], details={"method": method}))
    return answer
