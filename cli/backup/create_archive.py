"""The commands: `annotate backup FOLDER`, `annotate backup verify ARCHIVE`, `annotate restore ARCHIVE`."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import psycopg
import typer
from alembic.script import ScriptDirectory
from psycopg import sql
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from typer.core import TyperGroup

from cli import addresses
from cli.backup import archive as archives
from cli.backup import archive as snapshot_files
from cli.backup.archive import BadArchive, Dumped, Manifest
from cli.backup.pg_dump import (
    ARGILLA_TABLES,
    PLATFORM_TABLES,
    DumpFailed,
    NoTools,
    Tools,
    describe,
    dump,
    find_tools,
    one_moment,
)
from cli.backup.pg_restore import RestoreFailed, RestoreRefused, check_target, restore_argilla, restore_platform
from cli.console import err, fail, out
from core.database import connection_string
from core.migrate import alembic_config, migrate

_FORGOTTEN = "select text_id from forget_requests where lifted_at is null order by text_id"
_WEBHOOKS = "select id from webhooks order by id"
# What of Argilla counts as data; it makes the rest by itself, or the uploader does.
_ARGILLA_DATA = ("users", "records", "responses")

Archive = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="As `annotate backup` printed it.")]
WithoutArgilla = Annotated[
    bool, typer.Option("--without-argilla", help="Leave Argilla's database out; see docs/backup.md.")
]
WithoutSnapshots = Annotated[
    bool, typer.Option("--without-snapshots", help="Leave the snapshots out: they are kept safe elsewhere.")
]


class _CreatesByDefault(TyperGroup):
    """`annotate backup FOLDER` is `annotate backup create FOLDER`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["create", *args])


app = typer.Typer(
    help="Both databases and the snapshots, in one folder. `annotate backup FOLDER` makes an archive in it.",
    no_args_is_help=True,
    cls=_CreatesByDefault,
)


@app.command()
def create(
    folder: Annotated[Path, typer.Argument(help="Folder of the archives; each is a folder in it, named by time.")],
    without_argilla: WithoutArgilla = False,
    without_snapshots: WithoutSnapshots = False,
) -> None:
    """Make an archive while everything runs; prints its path. It is there whole, or not at all."""
    with _clear_errors(), archives.new_archive(folder) as (unfinished, path), _progress() as progress:
        started_at = datetime.now(UTC)
        argilla_url = None if without_argilla else addresses.argilla_database()
        about = _dump_databases(unfinished, progress, addresses.database().libpq_url, argilla_url)
        if not without_snapshots:
            bar = progress.add_task("snapshots", total=None)
            snapshot_files.copy_out(addresses.snapshots(), unfinished, lambda n: progress.advance(bar, n))
        total = sum(file.stat().st_size for file in unfinished.rglob("*") if file.is_file())
        bar = progress.add_task("hashes", total=total)
        files = archives.describe_files(unfinished, lambda n: progress.advance(bar, n))
        values = about | {"started_at": started_at, "ended_at": datetime.now(UTC), "release": _release()}
        values |= {"files": files, "has_snapshots": not without_snapshots}
        archives.write_manifest(unfinished, Manifest.model_validate(values))
    out.print(str(path), soft_wrap=True)


def _dump_databases(
    unfinished: Path, progress: Progress, platform_url: str, argilla_url: str | None
) -> dict[str, Any]:
    """Dump both as they are in two moments right after each other, the platform's first: see docs/backup.md."""
    with one_moment(platform_url) as (platform, snapshot):
        if argilla_url is None:
            return _dump_platform(unfinished, progress, platform, platform_url, snapshot) | {"argilla": None}
        with one_moment(argilla_url) as (argilla, argilla_snapshot):
            about = _dump_platform(unfinished, progress, platform, platform_url, snapshot)
            tools = _tools(argilla.info.server_version // 10_000)
            file = unfinished / archives.ARGILLA_DUMP
            dumped = describe(argilla, ARGILLA_TABLES, tools)
            _dump(progress, "Argilla's database", tools, argilla_url, argilla_snapshot, file)
    return about | {"argilla": dumped}


def _dump_platform(
    unfinished: Path,
    progress: Progress,
    connection: psycopg.Connection[tuple[object, ...]],
    url: str,
    snapshot: str,
) -> dict[str, Any]:
    tools = _tools(connection.info.server_version // 10_000)
    dumped = describe(connection, PLATFORM_TABLES, tools)
    webhooks = [id_ for (id_,) in connection.execute(_WEBHOOKS)]
    forgotten = [str(id_) for (id_,) in connection.execute(_FORGOTTEN)]
    (unfinished / archives.FORGOTTEN).write_text("".join(f"{id_}\n" for id_ in forgotten))
    _dump(progress, "the platform's database", tools, url, snapshot, unfinished / archives.PLATFORM_DUMP)
    return {"platform": dumped, "webhooks": webhooks}


def _dump(progress: Progress, what: str, tools: Tools, url: str, snapshot: str, file: Path) -> None:
    bar = progress.add_task(what, total=None)
    dump(tools, url, snapshot, file, lambda size: progress.update(bar, completed=size))


@app.command()
def verify(
    archive: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="As `annotate backup` printed it.")
    ],
) -> None:
    """Read every file of an archive and compare it with its manifest. Exit code 1: it is not whole."""
    with _clear_errors():
        manifest = _verify(archive)
    table = {"taken": f"{manifest.platform.taken_at:%Y-%m-%d %H:%M:%S %Z}"} | _rows(manifest.platform)
    if manifest.argilla:
        table |= {f"Argilla's {name}": count for name, count in _rows(manifest.argilla).items()}
    table["snapshots"] = str(len(snapshot_files.names_in(manifest))) if manifest.has_snapshots else "left out"
    for name, value in table.items():
        out.print(f"{name}: {value}")
    out.print(f"{archive} is whole: {len(manifest.files):,} files, {manifest.bytes:,} bytes.")


def _rows(dumped: Dumped) -> dict[str, str]:
    return {table: f"{count:,}" for table, count in dumped.rows.items()}


def restore(
    archive: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="As `annotate backup` printed it.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Also into databases that hold data: what they hold is lost.")
    ] = False,
    without_argilla: WithoutArgilla = False,
    without_snapshots: WithoutSnapshots = False,
    forget: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Ids of texts forgotten since, as in a newer forgotten.txt."
        ),
    ] = None,
    reindex: Annotated[
        bool,
        typer.Option("--reindex/--no-reindex", help="Make Argilla's search index anew, if it can be reached."),
    ] = True,
) -> None:
    """Put an archive back: Argilla's database, the platform's, the snapshots. Stop all programs before."""
    with _clear_errors():
        manifest = _verify(archive)
        argilla = None if without_argilla or manifest.argilla is None else manifest.argilla
        platform_url = addresses.database().libpq_url
        argilla_url = addresses.argilla_database() if argilla else None
        snapshots = manifest.has_snapshots and not without_snapshots
        _check_release(manifest)
        tools = _check_targets(manifest, platform_url, argilla_url, replace=replace)
        if snapshots and not replace:
            _check_snapshots(archive, manifest)
        again = _ids_to_forget(platform_url, forget)
        with _progress() as progress:
            # Argilla first: a platform without its Argilla would fill a new one.
            if argilla_url:
                bar = progress.add_task(
                    "Argilla's database", total=(archive / archives.ARGILLA_DUMP).stat().st_size
                )
                file = archive / archives.ARGILLA_DUMP
                restore_argilla(tools, argilla_url, file, manifest.webhooks, lambda n: progress.advance(bar, n))
            _restore_rest(archive, manifest, tools, platform_url, progress, snapshots=snapshots)
    migrate(addresses.database())
    _compare(platform_url, manifest.platform)
    out.print(f"{archive} is restored.", soft_wrap=True)
    _forget_again(again)
    if argilla_url:
        _reindex(wanted=reindex)


def _restore_rest(
    archive: Path, manifest: Manifest, tools: Tools, url: str, progress: Progress, *, snapshots: bool
) -> None:
    file = archive / archives.PLATFORM_DUMP
    bar = progress.add_task("the platform's database", total=file.stat().st_size)
    restore_platform(tools, url, file, lambda n: progress.advance(bar, n))
    if snapshots:
        copying = progress.add_task("snapshots", total=None)
        snapshot_files.copy_in(addresses.snapshots(), archive, manifest, lambda n: progress.advance(copying, n))


def _verify(archive: Path) -> Manifest:
    manifest = archives.read_manifest(archive)
    with _progress() as progress:
        bar = progress.add_task("verifying", total=manifest.bytes)
        complaints = archives.list_complaints(archive, manifest, lambda n: progress.advance(bar, n))
    if complaints:
        raise BadArchive("\n".join([f"{archive} is not whole:", *complaints[:20]]))
    return manifest


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
    return _tools(max(needed))


def _same_database(*urls: str) -> bool:
    found = set()
    for url in urls:
        with psycopg.connect(connection_string(url, "annotate restore")) as connection:
            info = connection.info
            found.add((info.host, info.port, info.dbname))
    return len(found) < len(urls)


def _check_snapshots(archive: Path, manifest: Manifest) -> None:
    if conflicts := snapshot_files.list_conflicts(addresses.snapshots(), archive, manifest):
        raise RestoreRefused(
            f"There are other snapshots of these names in {addresses.snapshots()}: {', '.join(conflicts[:10])}. "
            "Move them away, or give --replace to lose them, or --without-snapshots."
        )


def _ids_to_forget(platform_url: str, file: Path | None) -> list[UUID]:
    """Return what was forgotten since, as the database to be replaced and the file say."""
    ids = {UUID(line) for line in file.read_text().split()} if file else set()
    with psycopg.connect(connection_string(platform_url, "annotate restore")) as connection:
        if connection.execute("select to_regclass('public.forget_requests')").fetchall()[0][0] is not None:
            ids |= {id_ for (id_,) in connection.execute(_FORGOTTEN)}
    return sorted(ids)


def _forget_again(ids: list[UUID]) -> None:
    """Forget anew what an archive of before brought back."""
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


def _tools(server_major: int) -> Tools:
    return find_tools(server_major, addresses.settings().pg_bin_dir)


def _release() -> str:
    try:
        return version("annotation-platform")
    except PackageNotFoundError:
        return "unknown"


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    return Progress(*columns, TransferSpeedColumn(), TimeElapsedColumn(), console=err)


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except (BadArchive, NoTools, DumpFailed, RestoreRefused, RestoreFailed) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'archive'}: {error.strerror or error}")
