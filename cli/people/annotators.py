"""`annotate annotators`: adds, lists and removes annotators' accounts in Argilla."""

import secrets
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import func, select

from cli import addresses
from cli.argilla_api import ArgillaApi, User, open_argilla
from cli.console import err, fail, list_table, out, plain, printable
from cli.people.audit_log import noted
from core.audit import Action
from core.models import Annotation, AnnotationStatus

app = typer.Typer(help="Add, list and remove annotators' accounts in Argilla.", no_args_is_help=True)

_PASSWORD_BYTES = 18  # 24 characters

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="User name in Argilla.")]
AdjudicatorOption = Annotated[
    bool, typer.Option("--adjudicator", help="Use the workspace for disputed texts instead of the annotators'.")
]


@app.command()
def add(
    name: NameArgument,
    first_name: Annotated[str | None, typer.Option(help="First name that Argilla shows. Default: NAME.")] = None,
    adjudicator: AdjudicatorOption = False,
    reset_password: Annotated[
        bool, typer.Option("--reset-password", help="Give an existing annotator a new password.")
    ] = False,
) -> None:
    """Let an annotator answer. Creates the account, unless it exists.

    The password is generated and printed once, alone on standard output. An existing account keeps its password.
    """
    name, first_name = _readable(name), _readable(first_name or name)
    settings = addresses.argilla()
    with open_argilla(settings) as accounts:
        workspace = settings.adjudication_workspace if adjudicator else settings.workspace
        workspace_id = accounts.get_workspace(workspace)
        action = Action.ANNOTATOR_PASSWORD if reset_password else Action.ANNOTATOR_ADDED
        with noted(action, name, workspace=workspace):
            _let_in(accounts, workspace_id, name, first_name, reset_password)
        err.print(f"{name} may answer in the workspace {workspace}. Log in at {accounts.url}")
        for dataset, page in accounts.list_pages(workspace_id).items():
            err.print(f"Annotate {printable(dataset)} in the recommended order: {page}", soft_wrap=True)


def _let_in(accounts: ArgillaApi, workspace_id: UUID, name: str, first_name: str, reset: bool) -> None:
    user, password = _prepare_user(accounts, name, first_name, reset)
    if password is not None:
        # Before the next call: if that fails, the password is not lost.
        err.print(f"The password of {name}, shown this once:")
        typer.echo(password)
    accounts.join(workspace_id, user)


def _readable(name: str) -> str:
    """Refuse names that users cannot see or type; Argilla accepts any name."""
    if not name or name != name.strip() or not name.isprintable():
        fail("A name must not be empty, and have no white space around it and no control characters.")
    return name


def _prepare_user(accounts: ArgillaApi, name: str, first_name: str, reset: bool) -> tuple[User, str | None]:
    """Return the user, and the new password; None if the password stays."""
    user = accounts.find_user(name)
    if user is not None and reset and user.role != "annotator":
        fail(f"{name} is an {user.role} of Argilla: their password is their own matter.")
    if user is not None and not reset:
        return user, None
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    if user is None:
        return accounts.create_annotator(name, first_name, password), password
    accounts.set_password(user, password)
    return user, password


@app.command("list")
def list_annotators() -> None:
    """List the users of Argilla, with our workspaces that they belong to and their number of submitted answers."""
    answers = _count_answers()
    settings = addresses.argilla()
    with open_argilla(settings) as accounts:
        members = {
            name: accounts.list_members(id_)
            for name in (settings.workspace, settings.adjudication_workspace)
            if (id_ := accounts.find_workspace(name)) is not None
        }
        users = accounts.list_users()
    table = list_table("name", "role", "workspaces", "answers")
    for user in users:
        names = [name for name, ids in members.items() if user.id in ids]
        shown = "all" if user.role == "owner" else " ".join(names)
        table.add_row(plain(user.name), user.role, shown, f"{answers.get(user.id, 0):,}")
    out.print(table)


def _count_answers() -> dict[UUID, int]:
    counting = (
        select(Annotation.annotator_id, func.count().label("answers"))
        .where(Annotation.status == AnnotationStatus.SUBMITTED, Annotation.withdrawn_at.is_(None))
        .group_by(Annotation.annotator_id)
    )
    with addresses.transaction("annotators") as connection:
        return {row.annotator_id: row.answers for row in connection.execute(counting)}


@app.command()
def remove(
    name: NameArgument,
    adjudicator: AdjudicatorOption = False,
    delete_account: Annotated[
        bool,
        typer.Option(
            "--delete-account", help="Delete the account with all answers. Labels that depend on them change."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete an account without asking for confirmation.")] = False,
) -> None:
    """Remove an annotator from our workspaces; with --adjudicator, only from the workspace for disputed texts.

    The answers stay and count, and you can add the annotator again. With --delete-account, Argilla also deletes
    the answers. The platform withdraws them when the next sweep finds that.
    """
    settings = addresses.argilla()
    with open_argilla(settings) as accounts:
        user = accounts.find_user(name)
        if user is None:
            fail(f"Argilla has no user {printable(name)}.")
        if delete_account:
            _delete(accounts, user, yes)
            return
        workspaces = [settings.adjudication_workspace] + ([] if adjudicator else [settings.workspace])
        with noted(Action.ANNOTATOR_REMOVED, name, workspaces=workspaces):
            left = [workspace for workspace in workspaces if _leave(accounts, workspace, user)]
            if not left:
                fail(f"{name} is in no workspace of ours: {', '.join(workspaces)}.")
        out.print(f"{name} has left {', '.join(left)}. Their answers stay and count.")


def _leave(accounts: ArgillaApi, workspace: str, user: User) -> bool:
    workspace_id = accounts.find_workspace(workspace)
    return workspace_id is not None and accounts.leave(workspace_id, user)


def _delete(accounts: ArgillaApi, user: User, yes: bool) -> None:
    if user.role != "annotator":
        fail(f"{user.name} is an {user.role} of Argilla: only annotators' accounts are deleted.")
    count = _count_answers().get(user.id, 0)
    if not yes:
        typer.confirm(
            f"Delete the account {printable(user.name)} and its {count:,} answers?", abort=True, err=True
        )
    with noted(Action.ANNOTATOR_DELETED, user.name, answers=count):
        accounts.delete_user(user)
    out.print(f"The account {user.name} is deleted; its {count:,} answers will be withdrawn.")
