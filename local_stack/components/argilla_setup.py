"""Runs in Argilla's environment: migrates its database and creates the owner account.

One process does both, since importing Argilla takes seconds. `ps` does not show secrets in the environment.
"""

import asyncio
import os

from argilla_server.cli.database.migrate import migrate_db  # type: ignore[import-not-found]
from argilla_server.contexts import accounts  # type: ignore[import-not-found]
from argilla_server.database import AsyncSessionLocal  # type: ignore[import-not-found]
from argilla_server.enums import UserRole  # type: ignore[import-not-found]
from argilla_server.models import User, Workspace  # type: ignore[import-not-found]


async def create_owner(username: str, password: str, api_key: str, workspace_name: str) -> None:
    """Create the owner and the workspace unless they exist; an existing owner gets these secrets."""
    async with AsyncSessionLocal() as session:
        secrets = {"password_hash": accounts.hash_password(password), "api_key": api_key}
        owner = await accounts.get_user_by_username(session, username)
        if owner is not None:
            await owner.update(session, **secrets)
            return
        workspace = await Workspace.get_by(session, name=workspace_name) or Workspace(name=workspace_name)
        await User.create(
            session,
            first_name=username,
            username=username,
            role=UserRole.owner,
            workspaces=[workspace],
            **secrets,
        )


if __name__ == "__main__":
    migrate_db("head")
    asyncio.run(
        create_owner(
            os.environ["OWNER_USERNAME"],
            os.environ["OWNER_PASSWORD"],
            os.environ["OWNER_API_KEY"],
            os.environ["OWNER_WORKSPACE"],
        )
    )
