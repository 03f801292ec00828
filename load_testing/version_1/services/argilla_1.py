"""Runs in version 1's environment: sets Argilla up, puts labelled texts into it, or lists its texts.

`put` reads rows of `{"text", "label"}` as JSON lines; `list` writes the texts as JSON lines. Secrets come by
environment: `ps` does not show them.
"""

import asyncio
import json
import os
import sys

DATASET = "toxicity"


def set_up() -> None:
    """Make Argilla's tables, and its owner with a password and a key that were made for this run."""
    from argilla_server.cli.database.migrate import migrate_db

    migrate_db("head")
    asyncio.run(create_owner())


async def create_owner() -> None:
    """Create the workspace and its owner."""
    from argilla_server.contexts import accounts
    from argilla_server.database import AsyncSessionLocal
    from argilla_server.models import User, UserRole, Workspace

    async with AsyncSessionLocal() as session:
        workspace = await Workspace.create(session, name=os.environ["ARGILLA_WORKSPACE"])
        await User.create(
            session,
            first_name=os.environ["OWNER_USERNAME"],
            username=os.environ["OWNER_USERNAME"],
            role=UserRole.owner,
            password_hash=accounts.hash_password(os.environ["OWNER_PASSWORD"]),
            api_key=os.environ["ARGILLA_API_KEY"],
            workspaces=[workspace],
        )


def use_records(action: str) -> None:
    """Log the rows of standard input as texts that people have labelled, or write the text of each record."""
    import argilla as rg

    rg.init(os.environ["ARGILLA_API_URL"], os.environ["ARGILLA_API_KEY"], os.environ["ARGILLA_WORKSPACE"])
    if action == "list":
        for record in rg.load(DATASET):
            sys.stdout.write(json.dumps(record.text) + "\n")
        return
    rows = [json.loads(line) for line in sys.stdin]
    records = [rg.TextClassificationRecord(text=row["text"], annotation=row["label"]) for row in rows]
    logged = rg.log(records, DATASET, verbose=False)
    if (logged.processed, logged.failed) != (len(rows), 0):
        raise SystemExit(f"Argilla took {logged.processed} of {len(rows)} texts, {logged.failed} failed.")


if __name__ == "__main__":
    if sys.argv[1] == "set_up":
        set_up()
    else:
        use_records(sys.argv[1])
