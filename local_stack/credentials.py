"""Passwords and keys of one stack: generated once, kept in DATA_DIR/credentials.json."""

import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from local_stack.errors import StackError
from local_stack.private_files import write_private


def _generate() -> str:
    return secrets.token_urlsafe(24)


class Credentials(BaseModel):
    """Every secret of one stack; letters, digits, `-` and `_` only, so they fit into a URL as they are."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    postgres_admin_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    platform_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    argilla_database_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    redis_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    opensearch_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    argilla_username: str = "owner"
    argilla_password: str = Field(default_factory=_generate, min_length=16, repr=False)
    argilla_api_key: str = Field(default_factory=_generate, min_length=16, repr=False)
    argilla_session_key: str = Field(default_factory=_generate, min_length=16, repr=False)


def load_or_create_credentials(data_dir: Path) -> Credentials:
    """Return the credentials of `data_dir`, generated at the first call.

    Raises:
        StackError: the file is damaged, or gone while the data that it opens is still there.
    """
    path = data_dir / "credentials.json"
    try:
        credentials = Credentials.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        if (data_dir / "postgres").exists():
            raise StackError(
                f"{path} is gone, but {data_dir / 'postgres'} needs its passwords. "
                "Put the file back, or delete the data with `make clean`."
            ) from error
        credentials = Credentials()
    except ValidationError as error:
        raise StackError(f"{path} is damaged ({error}). Put it back from a copy, or `make clean`.") from error
    if credentials.model_fields_set != Credentials.model_fields.keys():
        # Also when an older version, with fewer secrets, has written the file.
        write_private(path, credentials.model_dump_json(indent=2) + "\n")
    return credentials
