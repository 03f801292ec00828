"""`annotate restore ARCHIVE`: both databases and the snapshots, after every check that can be made before."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import psycopg
import typer
from alembic.script import ScriptDirectory
from psycopg import sql
from rich.progress import Progress

from cli import addresses
from cli.backup import archive as archives
from cli.backup.archive import Dumped, Manifest
from cli.backup.create_archive import (
    FORGOTTEN_TEXTS,
    ArchiveArgument,
    WithoutArgilla,
    WithoutSnapshots,
    clear_errors,
    tools_for,
    verified,
)
from cli.backup.pg_dump import PLATFORM_TABLES, Tools
from cli.backup.pg_restore import RestoreRefused, check_target, restore_argilla, restore_platform
from cli.console import byte_progress, err, fail, out
from core.connections import connection_string
from core.migrate import alembic_config, migrate

# These tables of Argilla count as data. Argilla or the uploader creates the rows of all others.
_ARGILLA_DATA = ("users", "records", "responses")

Forget = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Forget the texts in this file again: forgotten.txt of a newer archive.",
    ),
]
Reindex = Annotated[
    bool, typer.Option("--reindex/--no-reindex", help="Rebuild Argilla's search index, if it can be reached.")
]


def restore(
    archive: ArchiveArgument,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also restore into databases with data. That data is deleted.")
    ] = False,
    without_argilla: WithoutArgilla = False,
    without_snapshots: WithoutSnapshots = False,
    forget: Forget = None,
    reindex: Reindex = True,
) -> None:
    """Restore an archive of `annotate backup`.

    Stop all programs first. Argilla's database is restored first, then the platform's, then the snapshots.
    """
    with clear_errors():
        manifest = verified(archive)
        url = addresses.database().libpq_url
        argilla_url = addresses.argilla_database() if manifest.argilla and not without_argilla else None
        snapshots = manifest.has_snapshots and not without_snapshots
        _check_release(manifest)
        tools = _check_targets(manifest, url, argilla_url, replace=replace)
        if snapshots and not replace:
            _check_snapshots(archive, manifest)
        again = _ids_to_forget(url, forget)
        with byte_progress() as progress:
            # Argilla first: the uploader of a platform without its Argilla would fill a new one.
            if argilla_url:
                _restore_argilla(archive, manifest, tools, argilla_url, progress)
            _restore_rest(archive, manifest, tools, url, progress, snapshots=snapshots)
    migrate(addresses.database())
    _compare(url, manifest.platform)
    out.print(f"{archive} is restored.", soft_wrap=True)
    _forget_again(again)
    if argilla_url:
        _reindex(wanted=reindex)


def _restore_argilla(archive: Path, manifest: Manifest, tools: Tools, url: str, progress: Progress) -> None:
    file = archive / archives.ARGILLA_DUMP
    bar = progress.add_task("Argilla's database", total=file.stat().st_size)
    restore_argilla(tools, url, file, manifest.webhooks, lambda size: progress.update(bar, completed=size))


def _restore_rest(
    archive: Path, manifest: Manifest, tools: Tools, url: str, progress: Progress, *, snapshots: bool
) -> None:
    file = archive / archives.PLATFORM_DUMP
    bar = progress.add_task("the platform's database", total=file.stat().st_size)
    restore_platform(tools, url, file, lambda size: progress.update(bar, completed=size))
    if snapshots:
        copying = progress.add_task("snapshots", total=None)
        archives.copy_in(addresses.snapshots(), archive, manifest, lambda n: progress.advance(copying, n))


def _check_release(manifest: Manifest) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if manifest.platform.revision not in known:
        raise RestoreRefused(
            f"The archive's schema is at {manifest.platform.revision}, which this release does not know: "
            f"restore it with the release that made it ({manifest.release}) or a newer one."
        )


def _check_targets(manifest: Manifest, platform_url: str, argilla_url: str | None, *, replace: bool) -> Tools:
    needed = [manifest.platform.pg_dump_major]
    needed.append(check_target(platform_url, manifest.platform, PLATFORM_TABLES, replace=replace))
    if argilla_url and manifest.argilla:
        if _same_database(platform_url, argilla_url):
            raise RestoreRefused("DATABASE_URL and ARGILLA_DATABASE_URL name the same database.")
        needed.append(check_target(argilla_url, manifest.argilla, _ARGILLA_DATA, replace=replace))
        needed.append(manifest.argilla.pg_dump_major)
    return tools_for(max(needed))


def _same_database(*urls: str) -> bool:
    found = set()
    for url in urls:
        with psycopg.connect(connection_string(url, "annotate restore")) as connection:
            info = connection.info
            found.add((info.host, info.port, info.dbname))
    return len(found) < len(urls)


def _check_snapshots(archive: Path, manifest: Manifest) -> None:
    if conflicts := archives.list_conflicts(addresses.snapshots(), archive, manifest):
        raise RestoreRefused(
            f"There are other snapshots of these names in {addresses.snapshots()}: {', '.join(conflicts[:10])}. "
            "Move them away, or give --replace to lose them, or --without-snapshots."
        )


def _ids_to_forget(platform_url: str, file: Path | None) -> list[UUID]:
    """Return the forgotten texts in the database that is replaced, and those in the file."""
    ids = {UUID(line) for line in file.read_text().split()} if file else set()
    with psycopg.connect(connection_string(platform_url, "annotate restore")) as connection:
        if connection.execute("select to_regclass('public.forget_requests')").fetchall()[0][0] is not None:
            ids |= {id_ for (id_,) in connection.execute(FORGOTTEN_TEXTS)}
    return sorted(ids)


def _forget_again(ids: list[UUID]) -> None:
    """Forget texts again that the older archive contains."""
    with psycopg.connect(connection_string(addresses.database().libpq_url, "annotate restore")) as connection:
        query = "select id from texts where id = any(%s) and status <> 'forgotten' order by id"
        back = [str(id_) for (id_,) in connection.execute(query, [ids])]
    if not back:
        return
    for first in range(0, len(back), 1000):
        command = [sys.executable, "-m", "cli", "forget", "--yes", "--by", "restore", *back[first : first + 1000]]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - this program
            fail("Texts that were forgotten since are back, and could not be forgotten: run annotate forget.")
    out.print(f"{len(back):,} texts that were forgotten since the archive was made are forgotten again.")


def _compare(url: str, dumped: Dumped) -> None:
    with psycopg.connect(connection_string(url, "annotate restore")) as connection:
        for table, count in dumped.rows.items():
            query = sql.SQL("select count(*) from {}").format(sql.Identifier(table))
            [(found,)] = connection.execute(query).fetchall()
            if found != count:
                fail(f"After the restore there are {found:,} {table}, and not {count:,}.")


def _reindex(*, wanted: bool) -> None:
    command = addresses.argilla_reindex()
    if wanted and command and subprocess.run(shlex.split(command), check=False).returncode == 0:  # noqa: S603 - the operator's
        out.print("Argilla's search index is made anew.")
        return
    tried = f"`{command}` failed. " if wanted and command else ""
    err.print(
        f"{tried}Argilla's search index does not fit its database: before the uploader starts, run "
        "`python -m argilla_server search-engine reindex` where Argilla's server is "
        "(`python -m local_stack reindex` for the local stack).",
        style="yellow",
    )
