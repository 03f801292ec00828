"""Runs in version 1's environment: makes Argilla's tables, its owner and the workspace.

Secrets come by environment: `ps` does not show them.
"""

import asyncio
import os

from argilla_server.cli.database.migrate import migrate_db
from argilla_server.contexts import accounts
from argilla_server.database import AsyncSessionLocal
from argilla_server.models import User, UserRole, Workspace


async def create_owner() -> None:
    """Create the owner, with a password and a key that were made for this run, and the workspace."""
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


if __name__ == "__main__":
    migrate_db("head")
    asyncio.run(create_owner())
