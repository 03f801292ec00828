"""`annotate backup` and `annotate restore`: archives of both databases, the snapshots and the models."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from alembic.script import ScriptDirectory
from botocore.exceptions import BotoCoreError
from rich.progress import Progress, TaskID
from sqlalchemy import func, select, update
from typer.core import TyperGroup

from cli import addresses
from cli.backup import archive as archives
from cli.backup.archive import BackupError, Dumped, Manifest
from cli.backup.databases import (
    FORGOTTEN_TEXTS,
    RESET_PLATFORM,
    check_target,
    connect,
    count,
    describe,
    one_moment,
    reset_argilla,
    server_major,
)
from cli.backup.pg_programs import Tools, dump, find_tools, restore_dump
from cli.console import byte_progress, err, fail, out
from cli.people.audit_log import note
from core.audit import Action
from core.migrate import alembic_config, migrate
from core.models import DatasetRow, Model

_WEBHOOKS = "select id from webhooks order by id"
_TITLES = {"platform": "the platform's database", "argilla": "Argilla's database"}

ArchiveArgument = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="Path that `annotate backup` printed.")
]
WithoutArgilla = Annotated[
    bool, typer.Option("--without-argilla", help="Omit Argilla's database; see docs/backup.md.")
]
WithoutSnapshots = Annotated[
    bool, typer.Option("--without-snapshots", help="Omit snapshots and models, if you back them up another way.")
]
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


class _CreatesByDefault(TyperGroup):
    """`annotate backup FOLDER` is `annotate backup create FOLDER`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["create", *args])


app = typer.Typer(
    help="Create and verify archives of all data. `annotate backup FOLDER` creates an archive in this folder.",
    no_args_is_help=True,
    cls=_CreatesByDefault,
)


@app.command()
def create(
    folder: Annotated[Path, typer.Argument(help="Folder for archives. Each is a folder named by its time.")],
    without_argilla: WithoutArgilla = False,
    without_snapshots: WithoutSnapshots = False,
) -> None:
    """Create an archive of both databases, the snapshots and the models, and print its path.

    The platform may run meanwhile. The archive appears when it is complete, or not at all.
    """
    with _clear_errors(), archives.new_archive(folder) as (unfinished, path), byte_progress() as progress:
        started_at = datetime.now(UTC)
        urls = {"platform": addresses.database().libpq_url}
        if not without_argilla:
            urls["argilla"] = addresses.argilla_database()
        about = _dump_databases(unfinished, progress, urls)
        if not without_snapshots:
            bar = progress.add_task("snapshots", total=None)
            archives.copy_out(addresses.snapshots(), unfinished, lambda n: progress.advance(bar, n))
        total = sum(file.stat().st_size for file in unfinished.rglob("*") if file.is_file())
        bar = progress.add_task("hashes", total=total)
        files = archives.describe_files(unfinished, lambda n: progress.advance(bar, n))
        values = about | {"started_at": started_at, "ended_at": datetime.now(UTC), "release": _release()}
        manifest = Manifest.model_validate(values | {"files": files, "has_snapshots": not without_snapshots})
        (unfinished / archives.MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    out.print(str(path), soft_wrap=True)


def _dump_databases(unfinished: Path, progress: Progress, urls: dict[str, str]) -> dict[str, Any]:
    """Dump both databases as of two times right after each other, the platform's first: see docs/backup.md."""
    about: dict[str, Any] = {"argilla": None}
    with ExitStack() as stack:
        moments = {database: stack.enter_context(one_moment(url)) for database, url in urls.items()}
        platform, _ = moments["platform"]
        for database, (connection, snapshot) in moments.items():
            tools = _tools_for(server_major(connection))
            about[database] = describe(connection, database, tools.major)
            show = partial(_show_size, progress, progress.add_task(_TITLES[database], total=None))
            dump(tools, urls[database], snapshot, unfinished / f"{database}.dump", show)
        forgotten = (f"{id_}\n" for (id_,) in platform.execute(FORGOTTEN_TEXTS))
        (unfinished / archives.FORGOTTEN).write_text("".join(forgotten))
        about["webhooks"] = [id_ for (id_,) in platform.execute(_WEBHOOKS)]
    return about


def _show_size(progress: Progress, bar: TaskID, size: int) -> None:
    progress.update(bar, completed=size)


def _tools_for(server: int) -> Tools:
    return find_tools(server, addresses.settings().pg_bin_dir)


def _release() -> str:
    try:
        return version("annotation-platform")
    except PackageNotFoundError:
        return "unknown"


@app.command()
def verify(archive: ArchiveArgument) -> None:
    """Read every file of an archive and compare it with the manifest.

    Exit code 1: a file is damaged, missing or not in the manifest.
    """
    with _clear_errors():
        manifest = _verified(archive)
    table = {"taken": f"{manifest.platform.taken_at:%Y-%m-%d %H:%M:%S %Z}"} | _rows(manifest.platform)
    if manifest.argilla:
        table |= {f"Argilla's {name}": number for name, number in _rows(manifest.argilla).items()}
    table["snapshots"] = str(archives.count_snapshots(manifest)) if manifest.has_snapshots else "left out"
    for name, value in table.items():
        out.print(f"{name}: {value}")
    out.print(f"{archive} is whole: {len(manifest.files):,} files, {manifest.bytes:,} bytes.")


def _rows(dumped: Dumped) -> dict[str, str]:
    return {table: f"{number:,}" for table, number in dumped.rows.items()}


def _verified(archive: Path) -> Manifest:
    """Return the manifest of an archive, after every file was compared with it."""
    manifest = archives.read_manifest(archive)
    with byte_progress() as progress:
        bar = progress.add_task("verifying", total=manifest.bytes)
        complaints = archives.list_complaints(archive, manifest, lambda n: progress.advance(bar, n))
    if complaints:
        raise BackupError("\n".join([f"{archive} is not whole:", *complaints[:20]]))
    return manifest


@contextmanager
def _clear_errors() -> Iterator[None]:
    """End the command with exit code 1 and a message instead of a traceback."""
    try:
        yield
    except BackupError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'archive'}: {error.strerror or error}")


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

    Stop all programs first. Argilla's database is restored first, then the platform's, then snapshots and models.
    """
    with _clear_errors():
        manifest = _verified(archive)
        url = addresses.database().libpq_url
        urls = {"platform": url}
        if manifest.argilla and not without_argilla:
            urls["argilla"] = addresses.argilla_database()
        snapshots = manifest.has_snapshots and not without_snapshots
        _check_release(manifest)
        tools = _check_targets(manifest, urls, replace=replace)
        if snapshots and not replace:
            _check_snapshots(archive, manifest)
        again = _ids_to_forget(url, forget)
        with byte_progress() as progress:
            # Argilla first: the uploader of a platform without its Argilla would fill a new one.
            for database in reversed(urls):
                _restore_database(archive, manifest, tools, database, urls[database], progress)
            if snapshots:
                bar = progress.add_task("snapshots", total=None)
                archives.copy_in(addresses.snapshots(), archive, manifest, lambda n: progress.advance(bar, n))
    migrate(addresses.database())
    _compare(url, manifest.platform)
    out.print(f"{archive} is restored.", soft_wrap=True)
    _forget_again(url, again)
    _ask_for_lost_models()
    if "argilla" in urls:
        _reindex(wanted=reindex)


def _restore_database(
    archive: Path, manifest: Manifest, tools: Tools, database: str, url: str, progress: Progress
) -> None:
    file = archive / f"{database}.dump"
    bar = progress.add_task(_TITLES[database], total=file.stat().st_size)
    reset = RESET_PLATFORM if database == "platform" else reset_argilla(manifest.webhooks)
    restore_dump(tools, url, file, reset, partial(_show_size, progress, bar))


def _check_release(manifest: Manifest) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if manifest.platform.revision not in known:
        raise BackupError(
            f"The archive's schema is at {manifest.platform.revision}, which this release does not know: "
            f"restore it with the release that made it ({manifest.release}) or a newer one."
        )


def _check_targets(manifest: Manifest, urls: dict[str, str], *, replace: bool) -> Tools:
    """Check all databases before one of them changes; return programs that fit them and their dumps."""
    majors = []
    for database, url in urls.items():
        dumped: Dumped = getattr(manifest, database)
        majors += [dumped.pg_dump_major, check_target(url, database, dumped, replace=replace)]
    if len(set(map(_place, urls.values()))) < len(urls):
        raise BackupError("DATABASE_URL and ARGILLA_DATABASE_URL name the same database.")
    return _tools_for(max(majors))


def _place(url: str) -> tuple[str, int, str]:
    with connect(url) as connection:
        return connection.info.host, connection.info.port, connection.info.dbname


def _check_snapshots(archive: Path, manifest: Manifest) -> None:
    if conflicts := archives.list_conflicts(addresses.snapshots(), archive, manifest):
        raise BackupError(
            f"There are other snapshots or models of these names in {addresses.snapshots()}: "
            f"{', '.join(conflicts[:10])}. Move them away, or give --replace to lose them, or --without-snapshots."
        )


def _ids_to_forget(url: str, file: Path | None) -> list[UUID]:
    """Return the forgotten texts in the database that is replaced, and those in the file."""
    ids = {UUID(line) for line in file.read_text().split()} if file else set()
    with connect(url) as connection:
        if connection.execute("select to_regclass('public.forget_requests')").fetchall() != [(None,)]:
            ids |= {id_ for (id_,) in connection.execute(FORGOTTEN_TEXTS)}
    return sorted(ids)


def _forget_again(url: str, ids: list[UUID]) -> None:
    """Forget texts again that the older archive contains."""
    query = "select id from texts where id = any(%s) and status <> 'forgotten' order by id"
    with connect(url) as connection:
        back = [str(id_) for (id_,) in connection.execute(query, [ids])]
    if not back:
        return
    for first in range(0, len(back), 1000):
        command = [sys.executable, "-m", "cli", "forget", "--yes", "--by", "restore", *back[first : first + 1000]]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - this program
            fail("Texts that were forgotten since are back, and could not be forgotten: run annotate forget.")
    out.print(f"{len(back):,} texts that were forgotten since the archive was made are forgotten again.")


def _compare(url: str, dumped: Dumped) -> None:
    with connect(url) as connection:
        for table, number in dumped.rows.items():
            if (found := count(connection, table)) != number:
                fail(f"After the restore there are {found:,} {table}, and not {number:,}.")


def _ask_for_lost_models() -> None:
    """Ask the uploader to train models again of which the archive had no files."""
    from core.classifiers.model_files import BadModel, ModelFiles

    files, lost = ModelFiles(addresses.snapshots()), []
    with addresses.transaction("restore") as connection:
        for dataset, version_ in connection.execute(select(Model.dataset, Model.version).where(Model.is_active)):
            try:
                files.read_manifest(dataset, version_)
            except FileNotFoundError:
                lost.append(dataset)
            except (BadModel, OSError, BotoCoreError):  # it is there, or its storage is away for now
                continue
        connection.execute(update(DatasetRow).where(DatasetRow.name.in_(lost)).values(model_asked_at=func.now()))
        note(connection, Action.MODEL_ASKED, lost)
    for dataset in lost:
        where = f"The files of the model of {dataset} are not in {addresses.snapshots()}"
        out.print(f"{where}: the uploader trains it again.", soft_wrap=True)


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
