"""How much of Argilla the uploads may take, all datasets together."""

import asyncio


class Slots:
    """As many PUTs at once as Argilla has server processes, and one batch more to be confirmed meanwhile.

    Both are handed out in the order asked for, so that one dataset's backlog cannot starve another. A batch waits
    for its PUT no longer than another PUT takes, so its claim does not run out over it.
    """

    def __init__(self, connections: int) -> None:
        self.batch_count = connections + 1
        self.batches = asyncio.Semaphore(self.batch_count)
        self.puts = asyncio.Semaphore(connections)
