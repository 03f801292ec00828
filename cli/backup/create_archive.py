"""`annotate backup FOLDER` and `annotate backup verify ARCHIVE`: archives of both databases and the snapshots."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from typer.core import TyperGroup

from cli import addresses
from cli.backup import archive as archives
from cli.backup.archive import BackupError, BadArchive, Dumped, Manifest
from cli.backup.pg_dump import (
    ARGILLA_TABLES,
    PLATFORM_TABLES,
    Connection,
    Tools,
    describe,
    dump,
    find_tools,
    one_moment,
    server_major,
)
from cli.console import byte_progress, fail, out

FORGOTTEN_TEXTS = "select text_id from forget_requests where lifted_at is null order by text_id"
_WEBHOOKS = "select id from webhooks order by id"

ArchiveArgument = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="Path that `annotate backup` printed.")
]
WithoutArgilla = Annotated[
    bool, typer.Option("--without-argilla", help="Omit Argilla's database; see docs/backup.md.")
]
WithoutSnapshots = Annotated[
    bool, typer.Option("--without-snapshots", help="Omit the snapshots, if you back them up another way.")
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
    """Create an archive of both databases and the snapshots, and print its path.

    The platform may run meanwhile. The archive appears when it is complete, or not at all.
    """
    with clear_errors(), archives.new_archive(folder) as (unfinished, path), byte_progress() as progress:
        started_at = datetime.now(UTC)
        argilla_url = None if without_argilla else addresses.argilla_database()
        about = _dump_databases(unfinished, progress, addresses.database().libpq_url, argilla_url)
        if not without_snapshots:
            bar = progress.add_task("snapshots", total=None)
            archives.copy_out(addresses.snapshots(), unfinished, lambda n: progress.advance(bar, n))
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
    """Dump both databases as of two times right after each other, the platform's first: see docs/backup.md."""
    with one_moment(platform_url) as (platform, snapshot):
        if argilla_url is None:
            return _dump_platform(unfinished, progress, platform, platform_url, snapshot) | {"argilla": None}
        with one_moment(argilla_url) as (argilla, argilla_snapshot):
            about = _dump_platform(unfinished, progress, platform, platform_url, snapshot)
            tools = tools_for(server_major(argilla))
            file = unfinished / archives.ARGILLA_DUMP
            dumped = describe(argilla, ARGILLA_TABLES, tools)
            _dump(progress, "Argilla's database", tools, argilla_url, argilla_snapshot, file)
    return about | {"argilla": dumped}


def _dump_platform(
    unfinished: Path, progress: Progress, connection: Connection, url: str, snapshot: str
) -> dict[str, Any]:
    tools = tools_for(server_major(connection))
    dumped = describe(connection, PLATFORM_TABLES, tools)
    webhooks = [id_ for (id_,) in connection.execute(_WEBHOOKS)]
    forgotten = [str(id_) for (id_,) in connection.execute(FORGOTTEN_TEXTS)]
    (unfinished / archives.FORGOTTEN).write_text("".join(f"{id_}\n" for id_ in forgotten))
    _dump(progress, "the platform's database", tools, url, snapshot, unfinished / archives.PLATFORM_DUMP)
    return {"platform": dumped, "webhooks": webhooks}


def _dump(progress: Progress, what: str, tools: Tools, url: str, snapshot: str, file: Path) -> None:
    bar = progress.add_task(what, total=None)
    dump(tools, url, snapshot, file, lambda size: progress.update(bar, completed=size))


@app.command()
def verify(archive: ArchiveArgument) -> None:
    """Read every file of an archive and compare it with the manifest.

    Exit code 1: a file is damaged, missing or not in the manifest.
    """
    with clear_errors():
        manifest = verified(archive)
    table = {"taken": f"{manifest.platform.taken_at:%Y-%m-%d %H:%M:%S %Z}"} | _rows(manifest.platform)
    if manifest.argilla:
        table |= {f"Argilla's {name}": count for name, count in _rows(manifest.argilla).items()}
    table["snapshots"] = str(len(archives.names_in(manifest))) if manifest.has_snapshots else "left out"
    for name, value in table.items():
        out.print(f"{name}: {value}")
    out.print(f"{archive} is whole: {len(manifest.files):,} files, {manifest.bytes:,} bytes.")


def _rows(dumped: Dumped) -> dict[str, str]:
    return {table: f"{count:,}" for table, count in dumped.rows.items()}


def verified(archive: Path) -> Manifest:
    """Return the manifest of an archive, after every file was compared with it.

    Raises:
        BadArchive: the archive is not complete; lists up to 20 differences.
    """
    manifest = archives.read_manifest(archive)
    with byte_progress() as progress:
        bar = progress.add_task("verifying", total=manifest.bytes)
        complaints = archives.list_complaints(archive, manifest, lambda n: progress.advance(bar, n))
    if complaints:
        raise BadArchive("\n".join([f"{archive} is not whole:", *complaints[:20]]))
    return manifest


def tools_for(server_major: int) -> Tools:
    """Return Postgres' programs for a server of this major release; raises as `find_tools` does."""
    return find_tools(server_major, addresses.settings().pg_bin_dir)


def _release() -> str:
    try:
        return version("annotation-platform")
    except PackageNotFoundError:
        return "unknown"


@contextmanager
def clear_errors() -> Iterator[None]:
    """End the command with exit code 1 and a message instead of a traceback."""
    try:
        yield
    except BackupError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'archive'}: {error.strerror or error}")
