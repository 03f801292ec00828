"""Brings the database to the schema of this release: `python -m core.migrate`."""

from functools import cache
from importlib.resources import files

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.settings import DatabaseSettings, LogSettings, read_settings
from core.startup import configure_logging
from core.web.health import NotReady

# One migration at a time; the number is arbitrary but fixed.
_LOCK = 7_305_118

log = structlog.get_logger()


def alembic_config() -> Config:
    """Return where the migrations are."""
    config = Config()
    config.set_main_option("script_location", str(files("core").joinpath("migrations")))
    return config


def migrate(settings: DatabaseSettings) -> None:
    """Apply every missing migration; several machines may call it concurrently. A later release's tables stay."""
    engine = create_engine(settings.sqlalchemy_url)
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.execute(text("set lock_timeout = '10s'"))
        connection.commit()
        if is_newer(applied := applied_revision(connection)):
            log.warning("database.newer", applied=applied, known=newest_revision())
        else:
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        connection.commit()
        connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": _LOCK})
    engine.dispose()


@cache
def newest_revision() -> str:
    """Return the revision that this release needs."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None  # noqa: S101 - the first migration ships with the package
    return head


def applied_revision(connection: Connection) -> str | None:
    """Return the revision that the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def is_newer(revision: str | None) -> bool:
    """Whether a revision is one that this release does not know: a later release's."""
    return revision is not None and revision not in _known_revisions()


@cache
def _known_revisions() -> frozenset[str]:
    scripts = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return frozenset(script.revision for script in scripts)


def check_revision(connection: Connection) -> None:
    """Check that the database is at the revision that this release needs, or at a later release's.

    A release's migrations only add to what the one before it works on: see docs/containers.md, "Upgrades".

    Raises:
        NotReady: it is not; says what to do.
    """
    applied, needed = applied_revision(connection), newest_revision()
    if applied != needed and not is_newer(applied):
        raise NotReady(f"the schema is at {applied}, this release needs {needed}: run python -m core.migrate")


async def check_database(engine: AsyncEngine) -> None:
    """Check that the database answers, and is at the revision that this release needs; for /readyz.

    Raises:
        NotReady, SQLAlchemyError: it is not, or does not; says why.
    """
    async with engine.connect() as connection:
        await connection.run_sync(check_revision)


def main() -> None:
    """Migrate the database that DATABASE_URL names."""
    configure_logging(read_settings(LogSettings), "migrate")
    migrate(read_settings(DatabaseSettings))
    log.info("database.ready", revision=newest_revision())


if __name__ == "__main__":
    main()
